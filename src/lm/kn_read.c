/* kn_read: see kn_read.h. */
#include "lm/kn_read.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/prefetch.h"
#include "lm/engine_int.h"
#include "os/io.h"

#pragma STDC FP_CONTRACT OFF

#define SLOTS_MIN 256u
#define HUGE ((size_t)2 << 20)

/* ---- levels ---------------------------------------------------------------------------------------------------- */

#define OF_THE_ROOT UINT32_MAX /* parent of its pages */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 29;
    return h * UINT64_C(0xBF58476D1CE4E5B9) ^ h >> 32;
}

/* What is looked for: its key, and how its record is called. */
struct wanted {
    struct lm_kn_level *at; /* NULL: it is not known yet */
    uint64_t hash;
    size_t slot;
    uint32_t parent, token; /* as in a level */
    unsigned order, n;      /* n: tokens of the name of a page of a fixed model, at `name` */
    const uint32_t *name;
};

static uint64_t hash_of(const struct lm_kn_reader *r, uint32_t parent, uint32_t token)
{
    return mix(r->seed, (uint64_t)parent << 32 | token);
}

static enum cht_rc grow_levels(struct lm_kn_reader *r, struct cht_err *err)
{
    size_t cap = r->level_cap == 0 ? SLOTS_MIN / 2 : r->level_cap * 2, slots = cap * 2;
    struct lm_kn_level *level = cht_realloc(r->level, cap * sizeof *level);
    if (level != NULL)
        r->level = level;
    uint32_t *slot = level != NULL ? cht_calloc(slots, sizeof *slot) : NULL;
    if (slot == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu contexts", cap);
    if (cap * sizeof *level >= HUGE) { /* both are anywhere in them with each question */
        cht_os_huge_pages(level, cap * sizeof *level);
        cht_os_huge_pages(slot, slots * sizeof *slot);
    }
    for (size_t i = 0; i < r->levels; i++) {
        size_t at = (size_t)hash_of(r, level[i].parent, level[i].token) & (slots - 1);
        while (slot[at] != 0)
            at = (at + 1) & (slots - 1);
        slot[at] = (uint32_t)i + 1;
    }
    cht_free(r->slot);
    r->slot = slot;
    r->slots = slots;
    r->level_cap = cap;
    return CHT_OK;
}

/* w->hash is known. */
static void find_hashed(const struct lm_kn_reader *r, struct wanted *w)
{
    w->at = NULL;
    if (r->slots == 0)
        return;
    for (w->slot = (size_t)w->hash & (r->slots - 1); r->slot[w->slot] != 0;
         w->slot = (w->slot + 1) & (r->slots - 1)) {
        struct lm_kn_level *l = &r->level[r->slot[w->slot] - 1];
        if (l->parent == w->parent && l->token == w->token && l->order == w->order &&
            (w->n == 0 || memcmp(l->held->bytes, w->name, w->n * sizeof *w->name) == 0)) {
            w->at = l;
            return;
        }
    }
}

static void find(const struct lm_kn_reader *r, struct wanted *w)
{
    w->hash = hash_of(r, w->parent, w->token);
    find_hashed(r, w);
}

/* A page of the root as an array: each question looks at it many times. *bad: it is none. NULL: no memory. */
static const uint32_t *spread(struct lm_kn_reader *r, const struct lm_kn_record *page, uint32_t number,
                              bool *bad)
{
    uint32_t *a = (uint32_t *)(void *)lm_kn_keep(r, sizeof *a << LM_KN_PAGE_SHIFT);
    struct lm_kn_walk w;
    if (a == NULL)
        return NULL;
    memset(a, 0, sizeof *a << LM_KN_PAGE_SHIFT);
    lm_kn_walk_begin(&w, page);
    while (lm_kn_walk_next(&w)) {
        uint32_t *at = &a[w.token & ((1u << LM_KN_PAGE_SHIFT) - 1)];
        *bad = *bad || w.token >> LM_KN_PAGE_SHIFT != number || w.a == 0 || *at != 0;
        *at = w.a;
    }
    return a;
}

/* Room for n bytes of a record, and for what is made of it if it has many followers. NULL: no memory. */
static struct lm_kn_held *hold(struct lm_kn_reader *r, uint32_t followers, uint64_t total, size_t n,
                               struct cht_err *err)
{
    struct lm_kn_more *more = NULL;
    size_t before = followers >= LM_KN_MANY ? sizeof *more : 0;
    uint8_t *p = lm_kn_keep(r, before + sizeof(struct lm_kn_held) + n);
    if (p == NULL) {
        (void)CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a record of %zu bytes", n);
        return NULL;
    }
    if (before > 0) {
        more = (struct lm_kn_more *)(void *)p;
        *more = (struct lm_kn_more){0};
    }
    struct lm_kn_held *held = (struct lm_kn_held *)(void *)(p + before);
    *held = (struct lm_kn_held){.total = total, .more = more};
    return held;
}

/* What was read becomes a level's record. */
static enum cht_rc take_record(struct lm_kn_reader *r, const struct wanted *w, struct cht_str name,
                               struct cht_str bytes, struct lm_kn_level *l, struct cht_err *err)
{
    struct lm_kn_record record;
    bool bad = !lm_kn_record_read(w->order, bytes.p, bytes.n, &record);
    if (!bad && w->order == 1)
        l->page = spread(r, &record, w->token, &bad);
    if (bad)
        return lm_malformed(name, bytes.n, "record of a live model", err);
    if (w->order == 1)
        return l->page != NULL ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a page");
    size_t n = bytes.n - (size_t)(record.p - bytes.p);
    l->held = hold(r, record.n, record.total, n, err);
    if (l->held == NULL)
        return CHT_NO_MEMORY;
    memcpy(l->held->bytes, record.p, n);
    l->gamma = lm_kn_gamma(r, w->order, &record);
    l->n = record.n;
    l->wide = record.wide;
    return CHT_OK;
}

/* Likewise, of a fixed model, whose levels have their names with them. No bytes: there is no such page. */
static enum cht_rc take_page(struct lm_kn_reader *r, const struct wanted *w, struct cht_str name,
                             struct cht_str bytes, struct lm_kn_level *l, struct cht_err *err)
{
    struct lm_fm_page page = {0};
    if (bytes.n > 0 && !lm_fm_page_read(w->order, r->fixed.order, bytes.p, bytes.n, &page))
        return lm_malformed(name, bytes.n, "page of a fixed model", err);
    size_t entries = (size_t)page.n * page.size, first = w->n * sizeof *w->name;
    l->held = hold(r, 0, 0, first + entries, err);
    if (l->held == NULL)
        return CHT_NO_MEMORY;
    memcpy(l->held->bytes, w->name, first);
    if (entries > 0)
        memcpy(l->held->bytes + first, page.p, entries);
    l->n = page.n;
    return CHT_OK;
}

/* Enters a level; its record is read already (no bytes: there is none). */
static enum cht_rc enter(struct lm_kn_reader *r, struct wanted *w, struct cht_str name, struct cht_str bytes,
                         struct cht_err *err)
{
    struct lm_kn_level l = {.parent = w->parent,
                            .token = w->token,
                            .order = (uint8_t)w->order,
                            .there = bytes.n > 0,
                            .gamma = 1.0};
    enum cht_rc rc = CHT_OK;
    if (r->fixed.order > 0)
        rc = take_page(r, w, name, bytes, &l, err);
    else if (bytes.n > 0)
        rc = take_record(r, w, name, bytes, &l, err);
    if (rc != CHT_OK)
        return rc;
    if (r->levels == r->level_cap) {
        rc = grow_levels(r, err);
        if (rc != CHT_OK)
            return rc;
        find_hashed(r, w);
    }
    w->at = &r->level[r->levels];
    *w->at = l;
    r->slot[w->slot] = (uint32_t)++r->levels;
    return CHT_OK;
}

/* Before anything is read: from now on the watch hears of what is written to it. */
static void sweep(struct lm_kn_reader *r)
{
    if (r->watch == NULL || r->sweeping)
        return;
    uint64_t version = cht_watch_begin_at(r->watch, LM_KN_WATCHED, &r->place);
    r->sweeping = true;
    r->stale = r->stale || (r->known && version != r->version);
    r->version = version;
}

/* A pair was read. */
static void note(struct lm_kn_reader *r, uint64_t key, uint64_t ends)
{
    if (r->watch != NULL)
        cht_watch_note(r->watch, key);
    r->fleeting = r->fleeting || ends != 0;
}

static enum cht_rc fetch(struct lm_kn_reader *r, struct wanted *w, struct cht_str name, struct cht_err *err)
{
    struct cht_pair_value pv = {.out = &r->buf};
    sweep(r);
    enum cht_rc rc = cht_store_pair_value_soon(r->store, name, &pv, r->wait, err);
    if (rc == CHT_PAIR_NOT_FOUND) {
        pv.size = 0;
        rc = CHT_OK;
    } else if (rc == CHT_OK) {
        note(r, pv.key, pv.ends);
    }
    return rc == CHT_OK ? enter(r, w, name, (struct cht_str){r->buf.data, pv.size}, err) : rc;
}

static void know_head(struct lm_kn_reader *r)
{
    struct lm_kn_order *o = &r->head.m[1];
    struct lm_kn_held *sum = &r->root_held;
    for (unsigned m = 1; m <= r->head.order; m++)
        r->discounts[m] = lm_kn_discounts(&r->head.m[m]);
    r->root = (struct lm_kn_level){.order = 1, .there = true, .held = sum};
    r->root_more = (struct lm_kn_more){0};
    sum->total = r->head.root_total;
    sum->more = &r->root_more;
    r->p0 = 1.0 / (double)(o->types + 1);
    const double *d = r->discounts[1].d;
    r->root.gamma =
        (d[1] * (double)o->n[0] + d[2] * (double)o->n[1] + d[3] * (double)(o->types - o->n[0] - o->n[1])) /
        (double)sum->total;
}

/* What is asked of a live model's head, of a fixed model. */
static void know_fixed(struct lm_kn_reader *r)
{
    r->head = (struct lm_kn_head){.order = r->fixed.order,
                                  .flags = (r->fixed.flags & LM_FM_EOS) != 0 ? LM_KN_EOS : 0,
                                  .bos = r->fixed.bos,
                                  .eos = r->fixed.eos,
                                  .id = r->fixed.id,
                                  .generation = 1};
    r->head.m[1].types = r->fixed.n[1];
    r->known = true;
}

/* ------------------------------------------------------------------------------------------------------------ */

/* Has nobody written to what was read? */
static bool holds(const struct lm_kn_reader *r)
{
    return r->watch == NULL || (!r->stale && cht_watch_version(r->watch) == r->version);
}

static enum cht_rc read_head(struct lm_kn_reader *r, struct cht_err *err)
{
    struct cht_pair_value pv = {.out = &r->buf};
    sweep(r);
    enum cht_rc rc = lm_kn_head_find(r->store, &r->head, &pv, r->wait, err);
    if (rc == CHT_OK)
        note(r, pv.key, pv.ends);
    return rc;
}

enum cht_rc lm_kn_begin(struct lm_kn_reader *r, struct cht_err *err)
{
    uint64_t now = atomic_load(&r->live->sequence);
    if (r->tries == 0)
        r->mixed = false;
    if ((now & 1) != 0 && r->wait == NULL && !r->mixed) {
        lm_kn_live_wait(r->live);
        now = atomic_load(&r->live->sequence);
    }
    if (r->known && r->sequence == now && (now & 1) == 0 && holds(r)) {
        lm_kn_spare(r);
        return CHT_OK;
    }
    lm_kn_sweep_end(r);
    lm_kn_forget(r);
    r->known = r->stale = r->fleeting = false;
    r->sequence = now;
    r->fixed.order = 0;
    enum cht_rc rc = read_head(r, err);
    if (rc == CHT_FIXED_MODEL && lm_fm_head_read(r->buf.data, r->buf.len, &r->fixed) &&
        (r->fixed.flags & LM_FM_MAKING) == 0) {
        know_fixed(r);
        return CHT_OK;
    }
    if (rc != CHT_OK)
        return rc;
    if (r->head.m[1].types == 0)
        return CHT_FAIL(err, CHT_NOTHING_COUNTED, "%s", cht_rc_text(CHT_NOTHING_COUNTED));
    know_head(r);
    r->known = true;
    return CHT_OK;
}

/* The sequence knows of commits of this process only. */
static bool others_wrote(struct lm_kn_reader *r)
{
    struct lm_kn_head head;
    struct cht_err ignored;
    if (!cht_store_remote(r->store) || r->wait != NULL || !r->known)
        return false;
    enum cht_rc rc = lm_kn_head_get(r->store, &head, &r->buf, NULL, &ignored);
    return rc != CHT_OK || head.id != r->head.id || head.generation != r->head.generation;
}

bool lm_kn_again(struct lm_kn_reader *r)
{
    uint64_t now = atomic_load(&r->live->sequence);
    lm_kn_sweep_end(r);
    if (now == r->sequence && (now & 1) == 0 && holds(r) && !others_wrote(r)) {
        r->tries = 0;
        return false;
    }
    r->known = false;
    if (++r->tries < LM_KN_TRIES)
        return true;
    r->tries = 0;
    r->mixed = true;
    return false;
}

void lm_kn_spare(struct lm_kn_reader *r)
{
    if (r->bytes + r->levels * sizeof *r->level > LM_KN_READER_BYTES)
        lm_kn_forget(r);
}

/* The page of the root that holds the token. */
static void want_page(const struct lm_kn_reader *r, uint32_t token, struct wanted *w)
{
    *w = (struct wanted){.order = 1, .parent = OF_THE_ROOT, .token = token >> LM_KN_PAGE_SHIFT};
    w->hash = hash_of(r, w->parent, w->token);
}

/* The context of order - 1 tokens before end. */
static void want_next(const struct lm_kn_reader *r, unsigned order, const uint32_t *end, uint32_t chain,
                      struct wanted *w)
{
    *w = (struct wanted){.order = order, .parent = chain, .token = end[1 - (ptrdiff_t)order]};
    w->hash = hash_of(r, w->parent, w->token);
}

static uint32_t number_of(const struct lm_kn_reader *r, const struct lm_kn_level *l)
{
    return (uint32_t)(l - r->level);
}

enum cht_rc lm_kn_level_next(struct lm_kn_reader *r, unsigned order, const uint32_t *end, uint32_t *chain,
                             const struct lm_kn_level **out, struct cht_err *err)
{
    struct wanted w;
    want_next(r, order, end, *chain, &w);
    find_hashed(r, &w);
    enum cht_rc rc = CHT_OK;
    if (w.at == NULL) {
        uint8_t text[LM_KN_NAME_MAX];
        struct cht_str name = {text, lm_kn_name(order, end, text)};
        rc = fetch(r, &w, name, err);
    }
    *out = w.at;
    if (rc == CHT_OK)
        *chain = number_of(r, w.at) + 1;
    return rc;
}

static void found(const struct lm_kn_reader *r, struct lm_kn_wish *wish, const struct lm_kn_level *l)
{
    wish->level = number_of(r, l);
    wish->chain = wish->level + 1;
}

/* Reads those that are not known. */
static enum cht_rc fetch_unknown(struct lm_kn_reader *r, struct lm_kn_wish *wish, struct wanted *const *w,
                                 const unsigned *number, unsigned n, struct cht_err *err)
{
    uint8_t text[LM_KN_TOGETHER][LM_KN_NAME_MAX];
    const struct cht_str none = {NULL, 0};
    struct cht_pair_read read[LM_KN_TOGETHER];
    for (unsigned i = 0; i < n; i++) {
        const uint32_t *end = wish[number[i]].end;
        size_t len = w[i]->order > 1 ? lm_kn_name(w[i]->order, end, text[i]) : lm_kn_page_name(*end, text[i]);
        read[i].name = (struct cht_str){text[i], len};
    }
    sweep(r);
    enum cht_rc rc = cht_store_pair_values(r->store, read, n, &r->buf, r->wait, err), one = CHT_OK;
    for (unsigned i = 0; i < n; i++) {
        if (read[i].rc == CHT_OK)
            note(r, read[i].key, read[i].ends);
    }
    for (unsigned i = 0; i < n && one == CHT_OK; i++) {
        const struct cht_pair_read *p = &read[i];
        if (p->rc != CHT_OK && p->rc != CHT_PAIR_NOT_FOUND)
            continue;
        find_hashed(r, w[i]); /* it may be known by now, and the slot may be taken */
        if (w[i]->at == NULL)
            one = enter(r, w[i], p->name, p->size > 0 ? (struct cht_str){r->buf.data + p->at, p->size} : none,
                        err);
        if (one == CHT_OK)
            found(r, &wish[number[i]], w[i]->at);
    }
    return one != CHT_OK ? one : rc;
}

enum cht_rc lm_kn_levels_next(struct lm_kn_reader *r, unsigned order, struct lm_kn_wish *wish, unsigned n,
                              struct cht_err *err)
{
    struct wanted w[LM_KN_TOGETHER], *unknown[LM_KN_TOGETHER];
    unsigned number[LM_KN_TOGETHER], missing = 0;
    for (unsigned i = 0; i < n; i++) {
        if (order == 1)
            want_page(r, *wish[i].end, &w[i]);
        else
            want_next(r, order, wish[i].end, wish[i].chain, &w[i]);
        if (r->slots > 0)
            cht_prefetch(&r->slot[(size_t)w[i].hash & (r->slots - 1)]);
    }
    for (unsigned i = 0; i < n && r->slots > 0; i++) {
        uint32_t at = r->slot[(size_t)w[i].hash & (r->slots - 1)];
        if (at > 0)
            cht_prefetch(&r->level[at - 1]);
    }
    for (unsigned i = 0; i < n; i++) {
        find_hashed(r, &w[i]);
        if (w[i].at != NULL) {
            found(r, &wish[i], w[i].at);
            continue;
        }
        unknown[missing] = &w[i];
        number[missing++] = i;
    }
    return missing > 0 ? fetch_unknown(r, wish, unknown, number, missing, err) : CHT_OK;
}

enum cht_rc lm_kn_root_count(struct lm_kn_reader *r, uint32_t token, uint32_t *a, struct cht_err *err)
{
    struct wanted w;
    want_page(r, token, &w);
    find_hashed(r, &w);
    enum cht_rc rc = CHT_OK;
    if (w.at == NULL) {
        uint8_t text[LM_KN_NAME_MAX];
        struct cht_str name = {text, lm_kn_page_name(token, text)};
        rc = fetch(r, &w, name, err);
    }
    *a = rc == CHT_OK && w.at != NULL && w.at->there ? w.at->page[token & ((1u << LM_KN_PAGE_SHIFT) - 1)] : 0;
    return rc;
}

enum cht_rc lm_fm_lookup(struct lm_kn_reader *r, unsigned order, const uint32_t *context, uint32_t token,
                         struct lm_fm_entry *out, bool *found, struct cht_err *err)
{
    uint32_t tokens[LM_ORDER_MAX];
    struct wanted w = {.order = order, .n = order, .name = tokens};
    uint64_t hash = r->seed;
    for (unsigned i = 0; i < order; i++) {
        tokens[i] = i + 1 < order ? context[i] : token >> lm_fm_shift(order);
        hash = mix(hash, tokens[i]);
    }
    w.parent = (uint32_t)(hash >> 32);
    w.token = (uint32_t)hash;
    find(r, &w);
    enum cht_rc rc = CHT_OK;
    if (w.at == NULL) {
        uint8_t text[LM_FM_NAME_MAX];
        struct cht_str name = {text, lm_fm_name(order, context, token, text)};
        rc = fetch(r, &w, name, err);
    }
    *found = false;
    if (rc != CHT_OK || w.at == NULL || !w.at->there)
        return rc;
    bool last = order == r->fixed.order;
    const struct lm_fm_page page = {.p = w.at->held->bytes + sizeof tokens[0] * order,
                                    .n = w.at->n,
                                    .order = order,
                                    .size = last ? 12 : 16,
                                    .last = last};
    *found = lm_fm_find(&page, token, out);
    return CHT_OK;
}
