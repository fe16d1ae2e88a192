/* scan_range_fill: one block of a range.
 *
 *   R1 if the range has no end yet: the reference shard's entries, the last of which is the end
 *   R2 every other shard's entries after `after` up to the end, each under its lock; a shard of which not all fit cuts
 *      the block at its last one
 *      with values: those of the run, as far as they lie in this shard, under the same lock; the run ends where the memory for them does
 *   R3 the sorted runs are merged, two by two; values that lie in other shards are fetched in order, one lock at a time
 *   R4 each entry is rendered after the one before, until the text is full
 *      an entry that the reader has to see apart is left out, unless it is the first one: then the block is that entry
 * What was left out by R2, R3 or R4 is the range's next block.
 */
#include "store/scan_range.h"

#include "base/bytes.h"
#include "base/invariant.h"
#include "store/expiry.h"

#include <string.h>

#define CHUNK 32u /* entries read at once if nobody knows how many there are */

struct name {
    const uint8_t *p;
    size_t n;
};

struct run {
    uint32_t first, count;
    bool whole; /* nothing of the shard up to the bound was left out */
};

struct fill {
    struct cht_db_scan *sc;
    struct cht_range *r;
    struct cht_range_work *w;
    struct run run[CHT_RANGE_MAX_SHARDS];
    unsigned runs, shards; /* runs so far; shards that are still to be read */
    uint32_t items, names; /* used */
    uint32_t abroad;       /* items whose values lie in other shards than their names */
    size_t share, skip;    /* entries expected of a shard; bytes that all names share */
};

static struct name name_of(const struct fill *f, uint32_t item)
{
    const struct cht_trie_item *t = &f->w->items[item];
    return (struct name){f->w->names + t->off, t->len};
}

/* In the direction of the scan: < 0 if a comes before b. */
static int compare(const struct fill *f, struct name a, struct name b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    if (c == 0)
        c = (a.n > b.n) - (a.n < b.n);
    return f->sc->cfg.reverse ? -c : c;
}

/* Of a damaged file: what comes next would be what has been. */
static enum cht_rc disorder(const struct fill *f, struct cht_err *err)
{
    return CHT_DAMAGED(err, "database %s: names are not in order", f->sc->db->name);
}

/* ---- R1, R2 --------------------------------------------------------------------------------------------------- */

/* Entries [from, to) end where? After the bound: the first one that does not count. */
static uint32_t bound_at(const struct fill *f, uint32_t from, uint32_t to, struct name bound, bool inclusive)
{
    while (from < to) {
        uint32_t mid = from + (to - from) / 2;
        if (compare(f, name_of(f, mid), bound) < (inclusive ? 1 : 0))
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

/* Reads on in the shard that the iterator stands in: at most `most` entries. CHT_PAIR_NOT_FOUND: there are no more. */
static enum cht_rc read_on(struct fill *f, uint32_t most, struct cht_err *err)
{
    struct cht_range_work *w = f->w;
    uint32_t left = f->shards - 1; /* shards that need room after this one */
    uint32_t room = CHT_RANGE_ITEMS - f->items - CHUNK * left;
    size_t names = CHT_RANGE_NAMES - f->names - (size_t)CHT_RANGE_NAME_ROOM * left, n, used;
    enum cht_rc rc = cht_trie_iter_batch(w->it, w->items + f->items, most < room ? most : room,
                                         w->names + f->names, names, &n, &used, err);
    for (size_t i = 0; i < n; i++)
        w->items[f->items + i].off += f->names;
    f->items += (uint32_t)n;
    f->names += (uint32_t)used;
    if (rc == CHT_OK && n == 0)
        return CHT_PENDING; /* no room */
    return rc;
}

/* The entries after `after` up to the bound, under the shard's lock; CHT_PENDING: a page was lost meanwhile. */
static enum cht_rc read_run(struct fill *f, struct cht_pagefile *pairs, struct run *run, struct name bound,
                            bool inclusive, size_t most, struct cht_err *err)
{
    const struct cht_scan_config *c = &f->sc->cfg;
    uint64_t losses = cht_pf_losses(pairs);
    enum cht_rc rc = cht_trie_iter_seek(f->w->it, pairs, c->prefix.p, c->prefix.n, f->r->after,
                                        f->r->after_len, c->reverse, err);
    uint32_t want = (uint32_t)(most > 0 ? most : f->share);
    while (rc == CHT_OK && !run->whole) {
        uint32_t from = f->items;
        rc = read_on(f, want, err);
        if (bound.n > 0 && f->items > from && compare(f, name_of(f, f->items - 1), bound) >= 0) {
            f->items = bound_at(f, from, f->items, bound, inclusive);
            run->whole = true;
        }
        if (most > 0)
            break;
        want = CHUNK;
    }
    if (cht_pf_losses(pairs) != losses)
        return CHT_PENDING;
    return rc == CHT_PENDING ? CHT_OK : rc;
}

/* When the pairs of a run end; under the shard's lock. */
static enum cht_rc read_ends(const struct fill *f, struct cht_pagefile *pairs, uint32_t first,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = first; i < f->items && rc == CHT_OK; i++) {
        struct name name = name_of(f, i);
        rc = cht_expiry_get(pairs, (struct cht_str){name.p, name.n}, &f->w->ends[i], err);
    }
    return rc;
}

/* The values of a run, as far as there is memory for them: the shards after it need some, too. Under the shard's lock. */
static void read_values(struct fill *f, struct cht_shard *sh, struct run *run)
{
    uint32_t n = f->items - run->first;
    size_t least = CHT_RANGE_HOME_BYTES / (2 * (size_t)f->sc->db->nshards) * (f->shards - 1);
    uint32_t got =
        cht_range_home(f->sc->db, f->w, sh, run->first, n, CHT_RANGE_HOME_BYTES - least, &f->abroad);
    if (got == n)
        return;
    f->items = run->first + got;
    run->whole = false;
}

/* The entries of a shard after `after` up to the bound (n == 0: none) become a run; at most `most`, if not 0. */
static enum cht_rc read_shard(struct fill *f, unsigned shard, struct name bound, bool inclusive, size_t most,
                              struct cht_err *err)
{
    struct cht_shard *sh = &f->sc->db->shards[shard];
    struct run *run = &f->run[f->runs++];
    uint32_t items = f->items, names = f->names;
    enum cht_rc rc = cht_db_enter(sh, err);
    if (rc != CHT_OK)
        return rc;
    rc = CHT_PENDING;
    while (rc == CHT_PENDING) { /* each time another page is lost */
        *run = (struct run){.first = f->items = items};
        f->names = names;
        rc = read_run(f, cht_shard_pairs(sh), run, bound, inclusive, most, err);
    }
    run->whole = run->whole || rc == CHT_PAIR_NOT_FOUND;
    rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    if (rc == CHT_OK && f->w->ends != NULL)
        rc = read_ends(f, cht_shard_pairs(sh), run->first, err);
    if (rc == CHT_OK && f->w->values != NULL)
        read_values(f, sh, run);
    cht_rwlock_read_end(&sh->lock);
    run->count = f->items - run->first;
    f->shards--;
    return rc;
}

/* R1. The first shard that has anything is the reference. */
static enum cht_rc plan(struct fill *f, struct cht_err *err)
{
    struct cht_range *r = f->r;
    unsigned n = f->sc->db->nshards, next;
    struct name until = {f->sc->cfg.until.p, f->sc->cfg.until.n};
    const struct run *run;
    do {
        f->runs = 0;
        run = &f->run[0];
        enum cht_rc rc = read_shard(f, r->ref++, until, false, f->share, err);
        if (rc != CHT_OK)
            return rc;
    } while (run->count == 0 && r->ref < n);
    next = run->whole ? r->ref : r->ref - 1;
    r->upto_len = 0;
    if (run->count > 0) {
        struct name last = name_of(f, run->first + run->count - 1), after = {r->after, r->after_len};
        if (after.n > 0 && compare(f, last, after) <= 0)
            return disorder(f, err);
        memcpy(r->upto, last.p, last.n);
        r->upto_len = last.n;
    }
    r->ref--;
    cht_range_planned(r, next, next == n);
    f->run[0].whole = true; /* up to its own last entry */
    return CHT_OK;
}

/* Of a shard that was not read to the end, names after the last one are not known: the block ends there. */
static void cut(struct fill *f)
{
    struct name end = {0};
    for (unsigned i = 0; i < f->runs; i++) {
        const struct run *run = &f->run[i];
        if (run->whole)
            continue;
        struct name last = name_of(f, run->first + run->count - 1);
        if (end.n == 0 || compare(f, last, end) < 0)
            end = last;
        f->r->more = true;
    }
    for (unsigned i = 0; i < f->runs && f->r->more; i++) {
        struct run *run = &f->run[i];
        run->count = bound_at(f, run->first, run->first + run->count, end, true) - run->first;
    }
}

/* ---- R3 ------------------------------------------------------------------------------------------------------- */

/* What lies between names that share a prefix shares it too. */
static void find_skip(struct fill *f)
{
    struct name a = {0};
    f->skip = 0;
    for (unsigned i = 0; i < f->runs; i++) {
        const struct run *run = &f->run[i];
        for (unsigned end = 0; end < 2 && run->count > 0; end++) {
            struct name b = name_of(f, end == 0 ? run->first : run->first + run->count - 1);
            if (a.n == 0)
                f->skip = b.n;
            size_t n = 0, most = f->skip < b.n ? f->skip : b.n;
            while (a.n > 0 && n < most && a.p[n] == b.p[n])
                n++;
            f->skip = a.n > 0 ? n : most;
            a = b;
        }
    }
}

static void make_keys(struct fill *f, struct cht_range_key *keys)
{
    uint64_t flip = f->sc->cfg.reverse ? UINT64_MAX : 0;
    for (unsigned i = 0; i < f->runs; i++) {
        const struct run *run = &f->run[i];
        for (uint32_t k = run->first; k < run->first + run->count; k++) {
            const struct cht_trie_item *t = &f->w->items[k];
            size_t n = t->len > f->skip ? t->len - f->skip : 0; /* less only in a damaged file */
            uint64_t h = cht_be64(f->w->names + t->off + (n > 0 ? f->skip : 0));
            if (n < 8) /* what lies after the name does not count */
                h = n > 0 ? h & UINT64_MAX << (64 - 8 * n) : 0;
            *keys++ = (struct cht_range_key){h ^ flip, k};
        }
    }
}

/* Does b's first come before a's first? */
static inline bool second_first(const struct fill *f, const struct cht_range_key *a,
                                const struct cht_range_key *b)
{
    if (__builtin_expect(a->head == b->head, 0))
        return compare(f, name_of(f, b->item), name_of(f, a->item)) < 0;
    return b->head < a->head;
}

/* Without a branch: which one it is is as good as random, so a branch would be mispredicted half of the time. */
static inline const struct cht_range_key *either(const struct cht_range_key *a, const struct cht_range_key *b,
                                                 bool second)
{
    return a + ((b - a) & -(ptrdiff_t)second);
}

/* As many as the shorter run has are taken from the front and as many from the back: neither run can be used up by that, so
 * nothing has to be looked at but the keys, and the two do not wait for each other. The middle is merged as usual. */
static void merge_two(const struct fill *f, const struct cht_range_key *a, size_t na,
                      const struct cht_range_key *b, size_t nb, struct cht_range_key *out)
{
    const struct cht_range_key *a_end = a + na, *b_end = b + nb;
    struct cht_range_key *out_end = out + na + nb;
    for (size_t k = na < nb ? na : nb; k > 0; k--) {
        bool second = second_first(f, a, b);
        *out++ = *either(a, b, second);
        b += second;
        a += !second;
        second = !second_first(f, a_end - 1, b_end - 1);
        *--out_end = *either(a_end - 1, b_end - 1, second);
        b_end -= second;
        a_end -= !second;
    }
    while (a < a_end && b < b_end) {
        bool second = second_first(f, a, b);
        *out++ = *either(a, b, second);
        b += second;
        a += !second;
    }
    size_t rest_a = (size_t)(a_end - a), rest_b = (size_t)(b_end - b);
    if (rest_a > 0)
        memcpy(out, a, rest_a * sizeof *a);
    if (rest_b > 0)
        memcpy(out, b, rest_b * sizeof *b);
}

/* The items in order. */
static const struct cht_range_key *merge(struct fill *f, size_t *total)
{
    struct cht_range_key *in = f->w->keys[0], *out = f->w->keys[1], *change;
    size_t count[CHT_RANGE_MAX_SHARDS], n = 0;
    *total = 0;
    for (unsigned i = 0; i < f->runs; i++) {
        if (f->run[i].count > 0)
            count[n++] = f->run[i].count;
        *total += f->run[i].count;
    }
    find_skip(f);
    make_keys(f, in);
    for (; n > 1; n = (n + 1) / 2) {
        size_t at = 0;
        for (size_t i = 0; i < n; i += 2) {
            size_t second = i + 1 < n ? count[i + 1] : 0;
            merge_two(f, in + at, count[i], in + at + count[i], second, out + at);
            count[i / 2] = count[i] + second;
            at += count[i / 2];
        }
        change = in;
        in = out;
        out = change;
    }
    return in;
}

/* ---- R4 ------------------------------------------------------------------------------------------------------- */

/* The item as an entry; `value` of it is what is stored. */
static inline void entry_of(const struct fill *f, uint32_t item, struct cht_entry *e)
{
    const struct cht_range_work *w = f->w;
    const struct cht_trie_item *t = &w->items[item];
    e->name = w->names + t->off;
    e->name_len = t->len;
    e->key = t->key;
    e->ends = w->ends != NULL ? w->ends[item] : 0;
    if (w->values == NULL)
        return;
    const struct cht_range_value *v = &w->values[item];
    e->flags = v->flags;
    e->size = v->size;
    e->value = v->len > 0 ? w->bytes + v->at : NULL;
    e->value_len = v->len;
}

/* The part under way ends with this entry, whose name is kept after it. */
static void end_part(struct cht_range *r, uint32_t count, const struct cht_entry *last)
{
    uint8_t *name = r->text + r->used;
    memcpy(name, last->name, last->name_len);
    r->part[r->parts++] = (struct cht_entry){.name = name,
                                             .name_len = last->name_len,
                                             .key = last->key,
                                             .value = r->used > r->from ? r->text + r->from : NULL,
                                             .value_len = (uint32_t)(r->used - r->from),
                                             .count = count};
    r->from = r->used += last->name_len;
}

/* Text of one entry; SIZE_MAX: there is no room. */
static inline size_t render_text(const struct fill *f, const struct cht_entry *e)
{
    const struct cht_scan_config *c = &f->sc->cfg;
    struct cht_range *r = f->r;
    size_t room = r->used < CHT_RANGE_TEXT ? CHT_RANGE_TEXT - r->used : 0;
    return c->render(c->render_ctx, e, r->text + r->used, room);
}

static bool by_itself(const struct cht_entry *e)
{
    return (e->flags & (CHT_ENTRY_LARGE | CHT_ENTRY_CORRUPT)) != 0;
}

/* An entry by itself, n bytes of text. */
static void add_alone(struct cht_range *r, const struct cht_entry *e, size_t n)
{
    r->used += n;
    end_part(r, 1, e);
    struct cht_entry *p = &r->part[r->parts - 1];
    p->flags = e->flags;
    p->size = e->size;
    p->ends = e->ends;
    r->count++;
}

/* A part of the entries from keys[0] on, up to the first that is by itself or does not fit: how many were dealt with. */
static size_t render_run(struct fill *f, const struct cht_range_key *keys, size_t n)
{
    struct cht_range *r = f->r;
    struct cht_entry e = {.count = 1};
    uint32_t count = 0, last = 0;
    size_t i = 0;
    for (; i < n; i++) {
        entry_of(f, keys[i].item, &e);
        if (__builtin_expect(by_itself(&e), 0))
            break;
        size_t some = render_text(f, &e);
        if (some == SIZE_MAX)
            break;
        if (some == CHT_SCAN_SKIP)
            continue;
        r->used += some;
        count++;
        last = keys[i].item;
    }
    if (count > 0) {
        entry_of(f, last, &e);
        end_part(r, count, &e);
    }
    r->count += count;
    return i;
}

/* An entry that render_run stopped at. False: it is left to the next block. */
static bool render_alone(struct fill *f, uint32_t item)
{
    struct cht_range *r = f->r;
    struct cht_entry e = {.count = 1};
    entry_of(f, item, &e);
    if (r->used > CHT_RANGE_TEXT || r->parts + 2 > CHT_RANGE_PARTS)
        return false;
    size_t n = render_text(f, &e);
    if (n == CHT_SCAN_SKIP)
        return true;
    if (n == SIZE_MAX && r->count > 0)
        return false;
    if (n ==
        SIZE_MAX) { /* it needs more than a block: what is carried of others is at most CHT_SCAN_RENDER_MAX */
        CHT_INVARIANT(f->w->values != NULL);
        e.flags |= CHT_ENTRY_LARGE;
        n = 0;
    }
    add_alone(r, &e, n);
    return true;
}

static enum cht_rc render(struct fill *f, const struct cht_range_key *keys, size_t n, struct cht_err *err)
{
    struct cht_range *r = f->r;
    size_t i = 0;
    while (i < n) {
        i += render_run(f, keys + i, n - i);
        if (i == n)
            break;
        if (!render_alone(f, keys[i].item)) {
            r->more = true;
            break;
        }
        i++;
    }
    if (i == 0)
        return r->more ? disorder(f, err) : CHT_OK;
    const struct cht_trie_item *last = &f->w->items[keys[i - 1].item];
    struct name end = {f->w->names + last->off, last->len}, after = {r->after, r->after_len};
    if (after.n > 0 && compare(f, end, after) <= 0)
        return disorder(f, err);
    r->after_len = end.n;
    memcpy(r->after, end.p, end.n);
    return CHT_OK;
}

enum cht_rc cht_range_fill(struct cht_range *r, struct cht_err *err)
{
    struct cht_db_scan *sc = r->scan;
    unsigned n = sc->db->nshards;
    struct fill f = {.sc = sc, .r = r, .w = r->work, .shards = n - r->ref};
    f.share = cht_range_target(r) / n;
    f.share = f.share > 0 ? f.share : 1;
    r->used = 0;
    r->count = 0;
    r->more = false;
    r->parts = 0;
    r->from = 0;
    f.w->used = 0;
    enum cht_rc rc = CHT_OK;
    unsigned shard = r->ref;
    if (!r->planned) {
        rc = plan(&f, err);
        shard = r->ref + 1;
    }
    struct name upto = {r->upto, r->upto_len};
    for (; rc == CHT_OK && upto.n > 0 && shard < n; shard++)
        rc = read_shard(&f, shard, upto, true, 0, err);
    if (rc != CHT_OK)
        return rc;
    cut(&f);
    size_t total;
    const struct cht_range_key *keys = merge(&f, &total);
    if (f.abroad > 0) {
        size_t all = total;
        rc = cht_range_abroad(sc->db, f.w, keys, &total, err);
        if (rc != CHT_OK)
            return rc;
        r->more = r->more || total < all;
    }
    return render(&f, keys, total, err);
}
