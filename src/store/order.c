/* order: the steps O1 to O3 of order.h.
 *
 * Memory: 52 bytes a value, at most CHUNK values at a time. If more are new, each CHUNK of names shares its places among itself: they are
 * less dense then, and still in order.
 */
#include "store/order.h"

#include "base/alloc.h"
#include "base/prefetch.h"
#include "store/db_store.h"
#include "store/trie.h"
#include "store/values_format.h"

#include <string.h>

#define CHUNK (1u << 20)
#define NAMES 1024u /* in one locked section */
#define MOVES 256u  /* likewise */
#define AHEAD 12u   /* items between asking for memory and using it */
#define NEW_PART 4u /* of the file, and of the pages of names: one in that many must be new */
#define NEAR CHT_PAGE

#define OFF_BITS 48u

struct item { /* a name's */
    uint64_t key;
    uint64_t place; /* length and offset; 0: left out */
};
struct spot { /* a place */
    uint64_t place;
    uint32_t item; /* whose value is there */
    uint32_t want; /* whose value belongs there */
};

struct order {
    struct cht_shard *sh;
    bool (*stop)(void *ctx);
    void *ctx;
    struct cht_trie_iter *it;    /* owned */
    struct cht_trie_item *found; /* owned: NAMES */
    uint8_t last[CHT_NAME_MAX];  /* the name that O1 has come to */
    size_t last_len;
    bool end;           /* O1 has come to the end */
    struct item *items; /* owned; in the order of the names */
    struct spot *spots; /* owned; ascending, O2 */
    uint32_t *at;       /* owned: of each item, the spot where its value is */
    uint32_t n, cap, spot_count;
    uint64_t moved;
    uint64_t by_length[CHT_ORDER_LENGTH + 1]; /* O1: the place of the last item; O2: the next spot */
};

static uint32_t length_of(uint64_t place) { return (uint32_t)(place >> OFF_BITS); }
static uint64_t offset_of(uint64_t place) { return place & ((UINT64_C(1) << OFF_BITS) - 1); }

static uint64_t entry_page(const struct cht_values *v, uint64_t key)
{
    return 1 + cht_key_local(key, v->shards) / (CHT_PAGE / CHT_ENTRY);
}

/* Does the next checkpoint write these bytes in any case, and where nothing is yet? */
static bool is_new(const struct cht_pagefile *pf, uint64_t off, uint32_t len)
{
    uint64_t first = off / CHT_PAGE, last = (off + len - 1) / CHT_PAGE; /* at most two */
    return first >= pf->home_pages && last < pf->fast.pages && cht_bit(pf->dirty, first) &&
           cht_bit(pf->dirty, last);
}

static bool entry_is_dirty(const struct cht_values *v, uint64_t key)
{
    uint64_t page = entry_page(v, key);
    return page < v->keys->fast.pages && cht_bit(v->keys->dirty, page);
}

/* ---- O1 ------------------------------------------------------------------------------------------------------ */

static bool more_items(struct order *o)
{
    if (o->cap - o->n >= NAMES)
        return true;
    uint32_t cap = o->cap == 0 ? 4 * NAMES : o->cap * 2;
    struct item *p = cht_realloc(o->items, cap * sizeof *p);
    if (p == NULL)
        return false;
    o->items = p;
    o->cap = cap;
    return true;
}

/* The key's value, if it is one of those that may move. */
static void add(struct order *o, uint64_t key)
{
    struct cht_values *v = &o->sh->values;
    struct cht_value_ref ref;
    if (cht_shard_of_key(key, o->sh->count) != o->sh->index || !entry_is_dirty(v, key) ||
        cht_values_find(v, key, &ref, NULL) != CHT_OK || ref.len > CHT_ORDER_LENGTH ||
        !is_new(v->values, ref.off, ref.len))
        return;
    o->items[o->n++] = (struct item){key, (uint64_t)ref.len << OFF_BITS | ref.off};
}

/* The next names. False: no more, all the same why. */
static bool collect_some(struct order *o)
{
    size_t n = 0;
    struct cht_err err = {0};
    struct cht_pagefile *pairs = cht_shard_pairs(o->sh);
    if (o->stop(o->ctx) || !more_items(o) || cht_db_enter(o->sh, &err) != CHT_OK)
        return false;
    enum cht_rc rc =
        cht_trie_iter_seek(o->it, pairs, (const uint8_t *)"", 0, o->last, o->last_len, false, &err);
    if (rc == CHT_OK)
        rc = cht_trie_iter_keys(o->it, o->found, NAMES, &n, o->last, &o->last_len, &err);
    for (size_t i = 0; i < n + AHEAD; i++) {
        if (i < n)
            cht_values_prefetch_entry(&o->sh->values, o->found[i].key);
        if (i >= AHEAD)
            add(o, o->found[i - AHEAD].key);
    }
    cht_rwlock_read_end(&o->sh->lock);
    o->end = rc == CHT_PAIR_NOT_FOUND;
    return rc == CHT_OK || o->end;
}

static bool collect(struct order *o)
{
    o->n = 0;
    while (!o->end && o->n <= CHUNK - NAMES) {
        if (!collect_some(o))
            return false;
    }
    return true;
}

/* Are most values near the one of the name before, of the same length? Then nothing is to be gained. */
static bool in_order(struct order *o)
{
    uint32_t near = 0;
    memset(o->by_length, 0, sizeof o->by_length);
    for (uint32_t i = 0; i < o->n; i++) {
        uint64_t place = o->items[i].place, *before = &o->by_length[length_of(place)];
        near += place - *before + NEAR <= 2 * NEAR;
        *before = place;
    }
    return near >= o->n - o->n / 8;
}

/* ---- O2 ------------------------------------------------------------------------------------------------------ */

/* Sorts by place, a byte after the other from the lowest on; bytes that are the same in all are passed over. Of equal ones the first stays
 * first. tmp has room for as many; returns where the result is. */
static struct spot *sort_spots(struct spot *a, struct spot *tmp, uint32_t n)
{
    for (unsigned shift = 0; shift < 64; shift += 8) {
        uint32_t start[257] = {0};
        for (uint32_t i = 0; i < n; i++)
            start[(a[i].place >> shift & 255) + 1]++;
        if (start[(a[0].place >> shift & 255) + 1] == n)
            continue;
        for (unsigned b = 1; b < 257; b++)
            start[b] += start[b - 1];
        for (uint32_t i = 0; i < n; i++)
            tmp[start[a[i].place >> shift & 255]++] = a[i];
        struct spot *swap = a;
        a = tmp;
        tmp = swap;
    }
    return a;
}

/* Leaves out items with a place that another one has too: further names of one key, or one that went while the names were read. */
static uint32_t leave_out_doubles(struct order *o, struct spot *spots)
{
    uint32_t kept = 0;
    for (uint32_t t = 0; t < o->n; t++) {
        if (kept > 0 && spots[t].place == spots[kept - 1].place)
            o->items[spots[t].item].place = 0;
        else
            spots[kept++] = spots[t];
    }
    return kept;
}

static bool plan(struct order *o)
{
    struct spot *a = cht_malloc(o->n * sizeof *a), *tmp = cht_malloc(o->n * sizeof *tmp);
    o->at = cht_malloc(o->n * sizeof *o->at);
    if (a == NULL || tmp == NULL || o->at == NULL) {
        cht_free(a);
        cht_free(tmp);
        return false;
    }
    for (uint32_t i = 0; i < o->n; i++)
        a[i] = (struct spot){.place = o->items[i].place, .item = i};
    o->spots = sort_spots(a, tmp, o->n);
    cht_free(o->spots == a ? tmp : a);
    o->spot_count = leave_out_doubles(o, o->spots);
    for (uint32_t t = o->spot_count; t-- > 0;) {
        o->at[o->spots[t].item] = t;
        o->by_length[length_of(o->spots[t].place)] = t;
    }
    for (uint32_t i = 0; i < o->n; i++) {
        if (o->items[i].place != 0)
            o->spots[o->by_length[length_of(o->items[i].place)]++].want = i;
    }
    return true;
}

/* ---- O3 ------------------------------------------------------------------------------------------------------ */

/* Is the key's value there, whole, and may it move? */
static bool movable(struct cht_values *v, uint64_t key, uint64_t place, struct cht_value_ref *ref)
{
    const uint8_t *p;
    return entry_is_dirty(v, key) && is_new(v->values, offset_of(place), length_of(place)) &&
           cht_values_find(v, key, ref, NULL) == CHT_OK && ref->off == offset_of(place) &&
           ref->len == length_of(place) && cht_values_view(v, key, ref, &p, NULL) == CHT_OK &&
           cht_values_copied(v, ref, NULL) == CHT_OK;
}

static uint8_t *entry_write(struct cht_values *v, uint64_t key)
{
    uint8_t *p = cht_page_write(v->keys, entry_page(v, key), NULL);
    return p == NULL ? NULL : p + cht_key_local(key, v->shards) % (CHT_PAGE / CHT_ENTRY) * CHT_ENTRY;
}

/* The values of two spots change places. False: they stay. Exclusive lock. */
static bool change_places(struct cht_values *v, const struct item *items, const struct spot *s,
                          const struct spot *t)
{
    struct cht_value_ref a, b;
    uint8_t copy[CHT_ORDER_LENGTH];
    uint64_t key_a = items[s->item].key, key_b = items[t->item].key;
    if (!movable(v, key_a, s->place, &a) || !movable(v, key_b, t->place, &b))
        return false;
    uint8_t *ea = entry_write(v, key_a), *eb = entry_write(v, key_b),
            *pa = cht_pf_write_range(v->values, a.off, a.len, NULL),
            *pb = cht_pf_write_range(v->values, b.off, b.len, NULL);
    if (ea == NULL || eb == NULL || pa == NULL || pb == NULL) /* a page was lost a moment ago */
        return false;
    memcpy(copy, pa, a.len);
    memcpy(pa, pb, a.len);
    memcpy(pb, copy, a.len);
    cht_put48(ea, b.off);
    cht_put48(eb, a.off);
    return true;
}

/* Asks for what spot t will need. */
static void ask(const struct order *o, uint32_t t)
{
    const struct cht_values *v = &o->sh->values;
    const struct spot *to = &o->spots[t], *from = &o->spots[o->at[to->want]];
    if (from == to)
        return;
    cht_values_prefetch_entry(v, o->items[to->want].key);
    cht_values_prefetch_entry(v, o->items[to->item].key);
    uint64_t off = offset_of(from->place);
    if (off < v->values->fast.pages * CHT_PAGE)
        cht_prefetch_write(v->values->fast.base + off);
}

/* The next spots from *next on. False: no more. */
static bool move_some(struct order *o, uint32_t *next)
{
    if (o->stop(o->ctx))
        return false;
    cht_rwlock_write(&o->sh->lock);
    bool open = o->sh->marks.limit != CHT_FENCED && !o->sh->poisoned;
    for (unsigned tried = 0; open && tried < MOVES && *next < o->spot_count; (*next)++) {
        struct spot *to = &o->spots[*next];
        if (o->spot_count - *next > AHEAD)
            ask(o, *next + AHEAD);
        uint32_t mine = to->want, other = to->item, from = o->at[mine];
        if (from == *next)
            continue;
        tried++;
        if (!change_places(&o->sh->values, o->items, &o->spots[from], to))
            continue;
        o->moved += 2;
        to->item = mine;
        o->spots[from].item = other;
        o->at[mine] = *next;
        o->at[other] = from;
    }
    cht_rwlock_write_end(&o->sh->lock);
    return open && *next < o->spot_count;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool cht_order_due(struct cht_shard *sh)
{
    struct cht_err err;
    if (cht_db_enter(sh, &err) != CHT_OK)
        return false;
    const struct cht_pagefile *values = sh->pf[CHT_PF_VALUES], *pairs = cht_shard_pairs(sh);
    uint64_t fresh = values->fast.pages > values->home_pages ? values->fast.pages - values->home_pages : 0;
    bool due =
        fresh * NEW_PART >= values->fast.pages &&
        atomic_load_explicit(&pairs->dirty_count, memory_order_relaxed) * NEW_PART >= pairs->fast.pages;
    cht_rwlock_read_end(&sh->lock);
    return due;
}

uint64_t cht_order_values(struct cht_shard *sh, bool (*stop)(void *ctx), void *ctx)
{
    struct cht_err err;
    uint64_t moved = 0;
    struct order *o = cht_calloc(1, sizeof *o);
    if (o == NULL)
        return 0;
    o->sh = sh;
    o->stop = stop;
    o->ctx = ctx;
    o->found = cht_malloc(NAMES * sizeof *o->found);
    bool going = o->found != NULL && cht_trie_iter_new(&o->it, &err) == CHT_OK;
    while (going && !o->end) {
        going = collect(o);
        if (!going || o->n < 2 || in_order(o))
            continue;
        going = plan(o);
        for (uint32_t next = 0; going && move_some(o, &next);)
            ;
        cht_free(o->spots);
        cht_free(o->at);
        o->spots = NULL;
        o->at = NULL;
    }
    moved = o->moved;
    cht_trie_iter_free(o->it);
    cht_free(o->found);
    cht_free(o->items);
    cht_free(o);
    return moved;
}
