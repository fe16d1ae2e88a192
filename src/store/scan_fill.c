/* scan_fill: one bounded batch of one shard, under its lock.
 *
 *   F1 after the cursor, names and keys come from the trie (or entries from the keys file), as many as the batch holds
 *   F2 values of this shard: each entry is fetched AHEAD items before it is looked up, each value AHEAD items before it is
 *      checked and copied, so that the cache misses of many overlap
 *   F3 the lock is released; values that live in other shards are fetched there, one lock at a time
 *   F4 `render` makes each entry's bytes in place of the value, or drops the entry
 * What does not fit is left out from the first such entry on; the next batch begins with it.
 */
#include "store/scan_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/recycle.h"
#include "store/expiry.h"

#include <string.h>

#define AHEAD CHT_SCAN_AHEAD

struct fill {
    struct cht_db_scan *sc;
    struct cht_stream *st;
    struct cht_batch *b;
    struct cht_shard *sh;
    size_t inline_max;           /* longer values are not carried */
    size_t foreign;              /* entries whose values lie in other shards */
    struct cht_trie_item *found; /* owned */
    struct cht_scan_item end;    /* the last entry that was dealt with, given out or dropped; of F1 to F4 */
    bool any;                    /* there is one */
};

static uint64_t head_of(const struct cht_db_scan *sc, const uint8_t *name, size_t len)
{
    size_t skip = sc->cfg.prefix.n;
    uint8_t b[8] = {0};
    memcpy(b, name + skip, len - skip < 8 ? len - skip : 8);
    uint64_t h = cht_be64(b);
    return sc->cfg.reverse ? ~h : h;
}

static int compare(struct cht_str a, const uint8_t *p, size_t n)
{
    int c = memcmp(a.p, p, a.n < n ? a.n : n);
    return c != 0 ? c : (a.n > n) - (a.n < n);
}

/* Is the name at or after `until`? */
static bool beyond(const struct cht_db_scan *sc, const uint8_t *name, size_t len)
{
    if (sc->cfg.until.n == 0)
        return false;
    int c = compare(sc->cfg.until, name, len);
    return sc->cfg.reverse ? c >= 0 : c <= 0;
}

/* How many entries this batch may have. */
static size_t quota(const struct cht_db_scan *sc, const struct cht_stream *st)
{
    size_t n = st->fills == 0 && sc->items_max >= 64 ? sc->items_max / 8
                                                     : sc->items_max; /* the first comes quickly */
    if (sc->cfg.limit > 0 &&
        sc->cfg.limit + 1 - st->filled < n) /* one more than asked tells whether there is more */
        n = (size_t)(sc->cfg.limit + 1 - st->filled);
    return n;
}

/* When the pairs of the batch end; under the shard's lock. */
static enum cht_rc take_ends(struct fill *f, struct cht_err *err)
{
    struct cht_batch *b = f->b;
    struct cht_pagefile *pairs = cht_shard_pairs(f->sh);
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < b->count && rc == CHT_OK; i++) {
        struct cht_str name = {b->names + b->items[i].name, b->items[i].name_len};
        rc = cht_expiry_get(pairs, name, &b->ends[i], err); /* none ends: two loads */
    }
    return rc;
}

/* F1 for pairs. CHT_PENDING: a page was lost meanwhile, perhaps one that counted: once more. */
static enum cht_rc take_pairs(struct fill *f, struct cht_err *err)
{
    struct cht_db_scan *sc = f->sc;
    struct cht_batch *b = f->b;
    struct cht_trie_iter *it;
    struct cht_str after =
        f->st->cursor_len > 0 ? (struct cht_str){f->st->cursor, f->st->cursor_len} : sc->cfg.after;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    size_t max = quota(sc, f->st);
    uint64_t losses = cht_pf_losses(cht_shard_pairs(f->sh));
    rc = cht_trie_iter_seek(it, cht_shard_pairs(f->sh), sc->cfg.prefix.p, sc->cfg.prefix.n, after.p, after.n,
                            sc->cfg.reverse, err);
    size_t n = 0, names_used;
    if (rc == CHT_OK)
        rc = cht_trie_iter_batch(it, f->found, max, b->names, sc->names_cap, &n, &names_used, err);
    cht_trie_iter_free(it);
    if (cht_pf_losses(cht_shard_pairs(f->sh)) != losses)
        return CHT_PENDING;
    b->last = rc == CHT_PAIR_NOT_FOUND;
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        return rc;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *name = b->names + f->found[i].off;
        if (beyond(sc, name, f->found[i].len)) {
            b->last = true;
            break;
        }
        b->items[b->count++] = (struct cht_scan_item){.head = head_of(sc, name, f->found[i].len),
                                                      .key = f->found[i].key,
                                                      .name = f->found[i].off,
                                                      .name_len = f->found[i].len};
    }
    return CHT_OK;
}

/* F1 for values. */
static enum cht_rc take_values(struct fill *f, struct cht_err *err)
{
    struct cht_batch *b = f->b;
    size_t max = quota(f->sc, f->st);
    uint64_t from = f->st->cursor_key;
    cht_values_entries_soon(&f->sh->values, from, max);
    while (b->count < max) {
        struct cht_value_ref ref;
        uint64_t key;
        enum cht_rc rc = cht_values_next(&f->sh->values, from, f->sc->cfg.size, &key, &ref, err);
        if (rc == CHT_KEY_NOT_FOUND) {
            b->last = true;
            break;
        }
        if (rc != CHT_OK)
            return rc;
        b->items[b->count++] = (struct cht_scan_item){.head = key, .key = key, .size = ref.len};
        from = key + 1;
    }
    return CHT_OK;
}

/* The value of one item into the batch; false if it does not fit any more. `first`: nothing is in front of it, so it will
 * not fit another batch either. */
static bool add_value(struct fill *f, struct cht_shard *sh, struct cht_scan_item *it,
                      const struct cht_value_ref *ref, bool first)
{
    struct cht_batch *b = f->b;
    it->size = ref->len;
    if (ref->len > f->inline_max) {
        it->flags |= CHT_ENTRY_LARGE;
        return true;
    }
    if (ref->len > f->sc->bytes_cap - b->used) {
        if (first)
            it->flags |= CHT_ENTRY_LARGE;
        return first;
    }
    it->flags |= cht_scan_copy(f->sc->db, &sh->values, it->key, ref, b->bytes + b->used);
    if (it->flags != 0)
        return true;
    it->value = (uint32_t)b->used;
    it->value_len = ref->len;
    b->used += ref->len;
    return true;
}

static bool is_home(const struct fill *f, uint64_t key)
{
    return cht_shard_of_key(key, f->sh->count) == f->sh->index;
}

/* The place of an item's value, if it is in this shard; its bytes will be fetched. */
static void look_up(struct fill *f, struct cht_scan_item *it, struct cht_value_ref *ref)
{
    struct cht_values *v = &f->sh->values;
    ref->len = 0;
    if (!is_home(f, it->key)) {
        f->foreign++;
        return;
    }
    enum cht_rc rc = cht_values_find(v, it->key, ref, NULL);
    if (rc == CHT_OK) {
        cht_values_prefetch_value(v, ref);
        return;
    }
    ref->len = 0;
    it->flags |= cht_scan_no_value(f->sc->db, rc);
}

/* F2. Item i is asked for, the one AHEAD before it looked up, the one AHEAD before that copied. */
static void home_values(struct fill *f)
{
    struct cht_batch *b = f->b;
    struct cht_value_ref refs[AHEAD];
    if (b->count > 0)
        cht_values_soon(&f->sh->values, &b->items->key, sizeof *b->items, b->count, f->sc->bytes_cap);
    for (size_t i = 0; i < b->count + 2 * (size_t)AHEAD; i++) {
        if (i < b->count) /* for nothing, if it is of another shard: there are few */
            cht_values_prefetch_entry(&f->sh->values, b->items[i].key);
        if (i >= 2 * (size_t)AHEAD) {
            size_t at = i - 2 * (size_t)AHEAD;
            const struct cht_value_ref *ref = &refs[at % AHEAD];
            if (ref->len != 0 && !add_value(f, f->sh, &b->items[at], ref, at == 0)) {
                b->count = at;
                b->last = false;
                return;
            }
        }
        if (i >= AHEAD && i - AHEAD < b->count)
            look_up(f, &b->items[i - AHEAD], &refs[(i - AHEAD) % AHEAD]);
    }
}

/* F3 */
static enum cht_rc foreign_values(struct fill *f, struct cht_err *err)
{
    struct cht_batch *b = f->b;
    for (size_t i = 0; i < b->count; i++) {
        struct cht_scan_item *it = &b->items[i];
        if (is_home(f, it->key))
            continue;
        struct cht_shard *sh = &f->sc->db->shards[cht_shard_of_key(it->key, f->sh->count)];
        struct cht_value_ref ref;
        bool fits = true;
        enum cht_rc rc = cht_db_enter(sh, err);
        if (rc != CHT_OK)
            return rc;
        rc = cht_values_find(&sh->values, it->key, &ref, NULL);
        if (rc == CHT_OK)
            fits = add_value(f, sh, it, &ref, i == 0);
        else
            it->flags |= cht_scan_no_value(f->sc->db, rc);
        cht_rwlock_read_end(&sh->lock);
        if (!fits) {
            b->count = i;
            b->last = false;
        }
    }
    return CHT_OK;
}

/* F4: the rendered bytes go to a second area after the values, the entries that stay to the front. */
static void render(struct fill *f)
{
    struct cht_batch *b = f->b;
    size_t out = f->sc->bytes_cap, end = 2 * f->sc->bytes_cap, count = b->count;
    b->count = 0;
    for (size_t i = 0; i < count; i++) {
        struct cht_scan_item it = b->items[i];
        struct cht_entry e = {.name = b->names + it.name,
                              .name_len = it.name_len,
                              .key = it.key,
                              .size = it.size,
                              .flags = it.flags,
                              .value = it.value_len > 0 ? b->bytes + it.value : NULL,
                              .value_len = it.value_len,
                              .shard = f->st->shard,
                              .count = 1,
                              .ends = b->ends != NULL ? b->ends[i] : 0};
        size_t n = f->sc->cfg.render(f->sc->cfg.render_ctx, &e, b->bytes + out, end - out);
        if (n == SIZE_MAX && i > 0) {
            b->last = false;
            return;
        }
        f->end = it;
        if (n == CHT_SCAN_SKIP)
            continue;
        if (n == SIZE_MAX) {
            it.flags |= CHT_ENTRY_LARGE;
            n = 0;
        }
        it.value = (uint32_t)out;
        it.value_len = (uint32_t)n;
        out += n;
        if (b->ends != NULL)
            b->ends[b->count] = e.ends;
        b->items[b->count++] = it;
    }
}

static enum cht_rc fill_batch(struct fill *f, struct cht_err *err)
{
    struct cht_db_scan *sc = f->sc;
    bool pairs = sc->cfg.kind == CHT_SCAN_PAIRS;
    enum cht_rc rc = cht_db_enter(f->sh, err);
    if (rc != CHT_OK)
        return rc;
    rc = CHT_PENDING;
    while (rc == CHT_PENDING) /* each time another page is lost */
        rc = pairs ? take_pairs(f, err) : take_values(f, err);
    if (rc == CHT_OK && f->b->ends != NULL)
        rc = take_ends(f, err);
    if (rc == CHT_OK && sc->cfg.values)
        home_values(f);
    cht_rwlock_read_end(&f->sh->lock);
    if (rc == CHT_OK && f->foreign > 0)
        rc = foreign_values(f, err);
    f->any = rc == CHT_OK && f->b->count > 0;
    if (f->any)
        f->end = f->b->items[f->b->count - 1];
    if (f->any && sc->cfg.render != NULL)
        render(f);
    return rc;
}

/* The stream goes on after the last entry that was dealt with. In a damaged file that may lie before the one of last time: then it
 * would go on for ever. */
static enum cht_rc move_cursor(struct fill *f, struct cht_err *err)
{
    struct cht_stream *st = f->st;
    const struct cht_batch *b = f->b;
    const struct cht_scan_item *it = &f->end;
    if (!f->any)
        return CHT_OK;
    st->cursor_key = it->key + 1;
    if (it->name_len > 0) {
        struct cht_str before = {st->cursor, st->cursor_len};
        int c = compare(before, b->names + it->name, it->name_len);
        if (before.n > 0 && (f->sc->cfg.reverse ? c <= 0 : c >= 0))
            return CHT_DAMAGED(err, "%s: names are not in order", cht_pf_path(cht_shard_pairs(f->sh)));
        memcpy(st->cursor, b->names + it->name, it->name_len);
        st->cursor_len = it->name_len;
    }
    st->filled += b->count;
    return CHT_OK;
}

void cht_scan_fill(struct cht_stream *st)
{
    struct cht_db_scan *sc = st->scan;
    struct fill f = {.sc = sc, .st = st, .b = &st->batch[st->fill], .sh = &sc->db->shards[st->shard]};
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    f.inline_max = sc->bytes_cap < CHT_SCAN_INLINE_MAX ? sc->bytes_cap : CHT_SCAN_INLINE_MAX;
    CHT_USED(f.b->names, cht_scan_batch_bytes(sc));
    f.b->count = f.b->used = 0;
    f.b->last = false;
    if (atomic_load_explicit(&sc->cancelled, memory_order_relaxed)) {
        f.b->last = true;
    } else {
        f.found = cht_malloc(sc->items_max * sizeof *f.found);
        if (f.found == NULL)
            rc = CHT_FAIL(&err, CHT_NO_MEMORY, "no memory for a scan");
        else
            rc = fill_batch(&f, &err);
        cht_free(f.found);
    }
    if (rc == CHT_OK)
        rc = move_cursor(&f, &err);
    if (sc->cfg.limit > 0 && st->filled > sc->cfg.limit)
        f.b->last = true;
    if (rc != CHT_OK) {
        cht_mutex_lock(&sc->mu);
        if (sc->rc == CHT_OK) {
            sc->rc = rc;
            sc->err = err;
        }
        cht_mutex_unlock(&sc->mu);
        f.b->last = true;
    }
    st->fills++;
}

enum cht_rc cht_scan_fault(struct cht_db_scan *sc, struct cht_err *err)
{
    if (atomic_load_explicit(&sc->cancelled, memory_order_relaxed))
        return CHT_FAIL(err, CHT_CANCELLED, "the scan was cancelled");
    if (sc->rc != CHT_OK && err != NULL)
        *err = sc->err;
    return sc->rc;
}
