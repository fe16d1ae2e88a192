/* values_check: verifies invariants V1 to V5 of values_format.h across the three files, and every value's checksum.
 *
 *   walk the granules of `values` through the map, extent by extent (V1), each record once; collect slots in use
 *   walk the classes (V3) and their partial lists (V2), the free and pending lists
 *   walk the entries of `keys` (V4), marking slots; then every slot marked in use must have been seen once
 *   every 64 bytes of `recycle` belong to one owner
 */
#include "base/alloc.h"
#include "cheetah/store.h"
#include "store/values_format.h"

#include <string.h>

struct audit {
    struct cht_values *v;
    bool clean;
    void (*bad)(void *ctx, enum cht_pf_kind file, uint64_t off, const char *what);
    void *ctx;
    uint64_t *units; /* owned: a bit for each 64 bytes of recycle */
    uint64_t nunits;
    uint64_t *seen; /* owned: a bit for each byte of values at which a live value begins */
    uint64_t live, bytes, slots_used;
};

static void report(struct audit *a, enum cht_pf_kind file, uint64_t off, const char *what)
{
    a->bad(a->ctx, file, off, what);
}

static bool own(struct audit *a, uint32_t ref, unsigned k)
{
    bool fresh = true;
    if (ref < 64 || ref + (1u << k) > a->nunits || (ref & ((1u << k) - 1)) != 0) {
        report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "a reference out of range");
        return false;
    }
    for (uint32_t u = ref; u < ref + (1u << k); u++) {
        fresh = fresh && !cht_bit(a->units, u);
        cht_bit_set(a->units, u);
    }
    if (!fresh)
        report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "these bytes have two owners");
    return fresh;
}

static const uint8_t *record(struct audit *a, uint32_t ref)
{
    return ref < 64 || ref >= a->nunits ? NULL : cht_arena_read(a->v->recycle, ref, NULL);
}

/* Bits set below bump of an extent's bitmap (all, if it has none). */
static uint32_t count_used(struct audit *a, const uint8_t *x)
{
    uint32_t bump = cht_get32(x + CHT_EX_BUMP), bitmap = cht_get32(x + CHT_EX_BITMAP), n = 0;
    const uint8_t *bits = bitmap == 0 ? NULL : record(a, bitmap);
    if (bits == NULL)
        return bump;
    for (uint32_t i = 0; i < bump; i++)
        n += bits[i / 8] >> (i % 8) & 1;
    return n;
}

/* A bitmap lies in one page, and the slots are as many as it may have; what is wrong was told with the extent. */
static bool slot_used(struct audit *a, const uint8_t *x, uint32_t slot)
{
    uint32_t bitmap = cht_get32(x + CHT_EX_BITMAP), slots = cht_get32(x + CHT_EX_SLOTS);
    const uint8_t *bits = bitmap == 0 ? NULL : record(a, bitmap);
    if (slots > CHT_SLOTS_MAX || slot >= slots ||
        (bitmap & ((1u << cht_arena_class((slots + 7) / 8)) - 1)) != 0)
        return false;
    return slot < cht_get32(x + CHT_EX_BUMP) && (bits == NULL || (bits[slot / 8] >> (slot % 8) & 1) != 0);
}

static void check_used_extent(struct audit *a, uint32_t ref, const uint8_t *x)
{
    uint64_t at = (uint64_t)ref * 64;
    uint32_t slots = cht_get32(x + CHT_EX_SLOTS), len = cht_get32(x + CHT_EX_LENGTH),
             used = cht_get32(x + CHT_EX_USED);
    if (len == 0 || slots == 0 || slots > CHT_SLOTS_MAX ||
        (uint64_t)slots * len > (uint64_t)cht_get32(x + CHT_EX_GRANULES) * CHT_GRANULE ||
        cht_get32(x + CHT_EX_BUMP) > slots) {
        report(a, CHT_PF_RECYCLE, at, "an extent of impossible size");
        return;
    }
    if (cht_get32(x + CHT_EX_BITMAP) != 0 &&
        !own(a, cht_get32(x + CHT_EX_BITMAP), cht_arena_class((slots + 7) / 8)))
        return;
    if (count_used(a, x) != used || used == 0)
        report(a, CHT_PF_RECYCLE, at, "an extent's slots in use are not as many as it counts");
    if ((x[CHT_EX_LISTED] != 0) != (used < slots))
        report(a, CHT_PF_RECYCLE, at,
               "an extent is in the list of those with free slots and has none, or the reverse");
    a->slots_used += used;
}

static void check_free_pages(struct audit *a, uint64_t start, uint64_t end)
{
    static const uint8_t zeros[CHT_PAGE];
    uint64_t first = (start + CHT_PAGE_GRANULES - 1) / CHT_PAGE_GRANULES, last = end / CHT_PAGE_GRANULES;
    for (uint64_t p = first; p < last; p++) {
        const uint8_t *b = cht_pf_range(a->v->values, p * CHT_PAGE, CHT_PAGE);
        if (b != NULL && memcmp(b, zeros, CHT_PAGE) != 0)
            report(a, CHT_PF_VALUES, p * CHT_PAGE, "a free page is not empty");
    }
}

/* After a crash: pages of extents in use are as the last checkpoint left them. *next: those before it are done. */
static void check_used_pages(struct audit *a, uint64_t start, uint64_t end, uint64_t *next)
{
    uint64_t p = start / CHT_PAGE_GRANULES, last = (end - 1) / CHT_PAGE_GRANULES;
    for (p = p > *next ? p : *next; p <= last; p++) {
        if (cht_page_verify(a->v->values, p, NULL) == NULL)
            report(a, CHT_PF_VALUES, p * CHT_PAGE, "the page does not match its checksum");
    }
    *next = p;
}

static void check_extent_pages(struct audit *a, unsigned state, uint64_t start, uint64_t end, uint64_t *next)
{
    if (state == CHT_EXT_FREE && a->clean)
        check_free_pages(a, start, end);
    else if (state == CHT_EXT_USED && !a->clean)
        check_used_pages(a, start, end, next);
}

/* V1, V5 */
static void check_extents(struct audit *a)
{
    uint64_t end = cht_pf_pages(a->v->values) * CHT_PAGE_GRANULES;
    uint64_t next = 0;
    bool was_free = false;
    for (uint64_t g = CHT_PAGE_GRANULES; g < end;) {
        uint32_t ref = 0, last = 0;
        const uint8_t *x = NULL;
        if (cht_radix_get(a->v->recycle, CHT_RC_MAP, (uint32_t)g, &ref, NULL) == CHT_OK)
            x = record(a, ref);
        if (x == NULL || cht_get32(x + CHT_EX_START) != g || cht_get32(x + CHT_EX_GRANULES) == 0 ||
            cht_get32(x + CHT_EX_GRANULES) > end - g) {
            report(a, CHT_PF_VALUES, g * CHT_GRANULE, "no extent begins here");
            return;
        }
        uint64_t n = cht_get32(x + CHT_EX_GRANULES);
        if (cht_radix_get(a->v->recycle, CHT_RC_MAP, (uint32_t)(g + n - 1), &last, NULL) != CHT_OK ||
            last != ref)
            report(a, CHT_PF_VALUES, (g + n - 1) * CHT_GRANULE,
                   "the map does not know this end of an extent");
        if (!own(a, ref, 0))
            return;
        bool is_free = x[CHT_EX_STATE] == CHT_EXT_FREE;
        if (is_free && was_free)
            report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "two free neighbours");
        was_free = is_free;
        if (x[CHT_EX_STATE] == CHT_EXT_USED)
            check_used_extent(a, ref, x);
        else if ((x[CHT_EX_STATE] == CHT_EXT_PENDING_A || x[CHT_EX_STATE] == CHT_EXT_PENDING_B) &&
                 cht_get32(x + CHT_EX_BITMAP) != 0)
            (void)own(a, cht_get32(x + CHT_EX_BITMAP),
                      cht_arena_class((cht_get32(x + CHT_EX_SLOTS) + 7) / 8));
        else if (x[CHT_EX_STATE] < CHT_EXT_USED || x[CHT_EX_STATE] > CHT_EXT_PENDING_B)
            report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "an extent in no known state");
        check_extent_pages(a, x[CHT_EX_STATE], g, g + n, &next);
        g += n;
    }
}

/* A list of extent records; returns how many. */
static uint64_t check_list(struct audit *a, uint32_t first, unsigned state, uint32_t length)
{
    uint64_t n = 0;
    uint32_t prev = 0;
    for (uint32_t ref = first; ref != 0; n++) {
        const uint8_t *x = record(a, ref);
        if (x == NULL || n > a->nunits) {
            report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "a list of extents leads nowhere or in a circle");
            break;
        }
        if (x[CHT_EX_STATE] != state || cht_get32(x + CHT_EX_PREV) != prev ||
            (length != 0 && cht_get32(x + CHT_EX_LENGTH) != length))
            report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "an extent is in the wrong list");
        prev = ref;
        ref = cht_get32(x + CHT_EX_NEXT);
    }
    return n;
}

/* V3 */
static void check_classes(struct audit *a)
{
    uint64_t live = 0;
    uint32_t key = 0, ref;
    for (uint64_t n = 0;; key++, n++) {
        if (cht_radix_next(a->v->recycle, CHT_RC_LENGTHS, &key, &ref, NULL) != CHT_OK)
            break;
        if (n > a->nunits) { /* tables that hang in several places */
            report(a, CHT_PF_RECYCLE, CHT_RC_LENGTHS, "more lengths than there can be records");
            break;
        }
        const uint8_t *c = record(a, ref);
        if (c == NULL || !own(a, ref, 0))
            continue;
        if (cht_get32(c + CHT_CL_LENGTH) != key + 1 || cht_get64(c + CHT_CL_EXTENTS) == 0)
            report(a, CHT_PF_RECYCLE, (uint64_t)ref * 64, "the record of a length is wrong");
        (void)check_list(a, cht_get32(c + CHT_CL_PARTIAL), CHT_EXT_USED, key + 1);
        live += cht_get64(c + CHT_CL_LIVE);
    }
    if (live != a->slots_used)
        report(a, CHT_PF_RECYCLE, 0, "the lengths do not count as many values as there are slots in use");
}

static void check_lists(struct audit *a)
{
    const uint8_t *h = cht_page_read(a->v->recycle, 0, NULL);
    for (unsigned i = 0; h != NULL && i < 32; i++)
        (void)check_list(a, cht_get32(h + CHT_RC_FREE + 4 * i), CHT_EXT_FREE, 0);
    if (h != NULL) {
        (void)check_list(a, cht_get32(h + CHT_RC_PENDING_A), CHT_EXT_PENDING_A, 0);
        (void)check_list(a, cht_get32(h + CHT_RC_PENDING_B), CHT_EXT_PENDING_B, 0);
    }
}

/* V4 for one live entry. */
static void check_entry(struct audit *a, uint64_t key, const struct cht_value_ref *r)
{
    uint64_t at = CHT_PAGE + key / a->v->shards * CHT_ENTRY;
    uint32_t ref = 0;
    const uint8_t *x = NULL, *p;
    if (cht_radix_get(a->v->recycle, CHT_RC_MAP, (uint32_t)(r->off / CHT_GRANULE), &ref, NULL) == CHT_OK)
        x = record(a, ref);
    uint64_t start = x == NULL ? 0 : (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE;
    if (x == NULL || x[CHT_EX_STATE] != CHT_EXT_USED || cht_get32(x + CHT_EX_LENGTH) != r->len ||
        r->off < start || (r->off - start) % r->len != 0 ||
        (r->off - start) / r->len >= cht_get32(x + CHT_EX_SLOTS) ||
        !slot_used(a, x, (uint32_t)((r->off - start) / r->len)))
        report(a, CHT_PF_KEYS, at, "the entry does not lead to a slot in use of its length");
    if (cht_bit(a->seen, r->off))
        report(a, CHT_PF_KEYS, at, "two keys share a slot");
    cht_bit_set(a->seen, r->off);
    if (cht_values_view(a->v, key, r, &p, NULL) != CHT_OK)
        report(a, CHT_PF_VALUES, r->off, "the value does not match its checksum");
    a->live++;
    a->bytes += r->len;
}

static void check_entries(struct audit *a)
{
    struct cht_values *v = a->v;
    const uint8_t *h = cht_page_read(v->keys, 0, NULL);
    uint64_t next = h == NULL ? 0 : cht_get64(h + CHT_KEYS_NEXT),
             most = cht_pf_pages(v->keys) * CHT_PAGE / CHT_ENTRY;
    if (next > most) {
        report(a, CHT_PF_KEYS, CHT_KEYS_NEXT, "more keys were given out than the file has entries");
        next = most;
    }
    for (uint64_t local = v->shard == 0; local < next; local++) { /* key 0 is none */
        struct cht_value_ref r;
        struct cht_err e = {0};
        uint64_t key = local * v->shards + v->shard;
        enum cht_rc rc = cht_values_find(v, key, &r, &e);
        if (rc == CHT_CORRUPT)
            report(a, CHT_PF_KEYS, CHT_PAGE + local * CHT_ENTRY, e.msg);
        else if (rc == CHT_OK)
            check_entry(a, key, &r);
    }
    if (h != NULL && (a->live != cht_values_live(v) || a->bytes != cht_values_bytes(v)))
        report(a, CHT_PF_KEYS, CHT_KEYS_LIVE, "the counters of live values are wrong");
    if (a->live != a->slots_used)
        report(a, CHT_PF_KEYS, 0, "slots are in use that no key leads to");
}

/* The tables and the free blocks. */
static void check_tables(struct audit *a, unsigned root_at)
{
    const uint8_t *h = cht_page_read(a->v->recycle, 0, NULL);
    uint32_t root = h == NULL ? 0 : cht_get32(h + root_at);
    if (root == 0 || !own(a, root, 6))
        return;
    for (unsigned i = 0; i < 1024; i++) {
        const uint8_t *t = record(a, root);
        uint32_t mid = t == NULL ? 0 : cht_get32(t + 4 * i);
        if (mid == 0 || !own(a, mid, 6))
            continue;
        for (unsigned k = 0; k < 1024; k++) {
            const uint8_t *m = record(a, mid);
            uint32_t low = m == NULL ? 0 : cht_get32(m + 4 * k);
            if (low != 0)
                (void)own(a, low, 6);
        }
    }
}

static void check_free_blocks(struct audit *a)
{
    const uint8_t *h = cht_page_read(a->v->recycle, 0, NULL);
    for (unsigned k = 0; h != NULL && k < CHT_ARENA_CLASSES; k++) {
        uint32_t ref = cht_get32(h + CHT_ARENA_HEADS + 8 * k),
                 left = cht_get32(h + CHT_ARENA_HEADS + 8 * k + 4);
        for (; ref != 0 && left > 0 && own(a, ref, k); left--) {
            const uint8_t *b = record(a, ref);
            ref = b == NULL ? 0 : cht_get32(b);
        }
        if (ref != 0 || left != 0)
            report(a, CHT_PF_RECYCLE, CHT_ARENA_HEADS + 8 * k,
                   "a free list is longer or shorter than its count");
    }
    for (uint64_t w = 1; w < a->nunits / 64; w++) {
        if (a->units[w] != UINT64_MAX)
            report(a, CHT_PF_RECYCLE, w * CHT_PAGE, "bytes that nothing owns");
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_values_check(struct cht_values *v, bool clean,
                             void (*bad)(void *ctx, enum cht_pf_kind file, uint64_t off, const char *what),
                             void *ctx, struct cht_err *err)
{
    struct audit a = {
        .v = v, .clean = clean, .bad = bad, .ctx = ctx, .nunits = cht_pf_pages(v->recycle) * 64};
    a.units = cht_calloc((size_t)(a.nunits / 64), 8);
    a.seen = cht_calloc((size_t)(cht_pf_pages(v->values) * CHT_PAGE / 64), 8);
    if (a.units == NULL || a.seen == NULL) {
        cht_free(a.units);
        cht_free(a.seen);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the check of the values");
    }
    a.units[0] = UINT64_MAX; /* the header */
    check_extents(&a);
    check_classes(&a);
    check_lists(&a);
    check_entries(&a);
    check_tables(&a, CHT_RC_LENGTHS);
    check_tables(&a, CHT_RC_MAP);
    check_free_blocks(&a);
    cht_free(a.units);
    cht_free(a.seen);
    return CHT_OK;
}
