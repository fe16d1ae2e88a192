/* extent: allocating and freeing stretches of the values file (records and lists in values_format.h).
 *
 * A freed extent waits in pending A, then B, until a checkpoint that knows it free is complete: only then may its bytes
 * be written over directly. Free extents are joined with free neighbours (found through the map), kept in lists by size,
 * and their whole pages are given back to the file system. The file grows at its end.
 */
#include "base/invariant.h"
#include "store/values_format.h"

#define PROBES 32     /* extents of a list looked at before a larger list is asked */
#define GROW_MAX 256u /* pages that the file grows ahead of need */
#define BUCKETS 32u

static enum cht_rc code(const struct cht_err *e, struct cht_err *err)
{
    if (err != NULL)
        *err = *e;
    return e->code;
}

const uint8_t *cht_record(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    if (ref < 64) {
        (void)CHT_DAMAGED(err, "%s: a record reference %u into the header", cht_pf_path(v->recycle), ref);
        return NULL;
    }
    return cht_arena_read(v->recycle, ref, err);
}

uint8_t *cht_record_write(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    return cht_record(v, ref, err) == NULL ? NULL : cht_arena_write(v->recycle, ref, err);
}

static unsigned bucket_at(uint32_t granules) /* not 0 */
{
    return CHT_RC_FREE + 4 * (31 - (unsigned)__builtin_clz(granules));
}

const uint8_t *cht_extent(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    const uint8_t *r = cht_record(v, ref, err);
    if (r == NULL)
        return NULL;
    uint64_t start = cht_get32(r + CHT_EX_START), n = cht_get32(r + CHT_EX_GRANULES),
             end = cht_pf_pages(v->values) * CHT_PAGE_GRANULES;
    if (start >= CHT_PAGE_GRANULES && n > 0 && start + n <= end &&
        cht_get32(r + CHT_EX_SLOTS) <= CHT_SLOTS_MAX)
        return r;
    (void)CHT_DAMAGED(err, "%s: offset %llu: an extent of impossible size", cht_pf_path(v->recycle),
                      (unsigned long long)ref * 64);
    return NULL;
}

uint8_t *cht_extent_write(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    return cht_extent(v, ref, err) == NULL ? NULL : cht_arena_write(v->recycle, ref, err);
}

enum cht_rc cht_extent_link(struct cht_values *v, uint32_t owner, unsigned head_at, uint32_t ref,
                            struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *head = cht_arena_write(v->recycle, owner, &e), *r = cht_record_write(v, ref, &e);
    if (head == NULL || r == NULL)
        return code(&e, err);
    uint32_t first = cht_get32(head + head_at);
    if (first != 0) {
        uint8_t *f = cht_record_write(v, first, &e);
        if (f == NULL)
            return code(&e, err);
        cht_put32(f + CHT_EX_PREV, ref);
    }
    cht_put32(r + CHT_EX_PREV, 0);
    cht_put32(r + CHT_EX_NEXT, first);
    cht_put32(head + head_at, ref);
    return CHT_OK;
}

enum cht_rc cht_extent_unlink(struct cht_values *v, uint32_t owner, unsigned head_at, uint32_t ref,
                              struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *r = cht_record_write(v, ref, &e);
    if (r == NULL)
        return code(&e, err);
    uint32_t prev = cht_get32(r + CHT_EX_PREV), next = cht_get32(r + CHT_EX_NEXT);
    uint8_t *p = prev != 0 ? cht_record_write(v, prev, &e) : cht_arena_write(v->recycle, owner, &e);
    uint8_t *n = next != 0 ? cht_record_write(v, next, &e) : NULL;
    if (p == NULL || (next != 0 && n == NULL))
        return code(&e, err);
    if (cht_get32(p + (prev != 0 ? CHT_EX_NEXT : head_at)) != ref)
        return CHT_DAMAGED(err, "%s: offset %llu: an extent is not where its list says",
                           cht_pf_path(v->recycle), (unsigned long long)ref * 64);
    cht_put32(p + (prev != 0 ? CHT_EX_NEXT : head_at), next);
    if (n != NULL)
        cht_put32(n + CHT_EX_PREV, prev);
    cht_put32(r + CHT_EX_PREV, 0);
    cht_put32(r + CHT_EX_NEXT, 0);
    return CHT_OK;
}

enum cht_rc cht_extent_map(struct cht_values *v, const uint8_t *record, uint32_t ref, bool all,
                           struct cht_err *err)
{
    uint32_t start = cht_get32(record + CHT_EX_START), n = cht_get32(record + CHT_EX_GRANULES);
    enum cht_rc rc = CHT_OK;
    if (!all) {
        rc = cht_radix_set(v->recycle, CHT_RC_MAP, start, ref, err);
        return rc == CHT_OK ? cht_radix_set(v->recycle, CHT_RC_MAP, start + n - 1, ref, err) : rc;
    }
    for (uint32_t g = start; g < start + n && rc == CHT_OK; g++)
        rc = cht_radix_set(v->recycle, CHT_RC_MAP, g, ref, err);
    return rc;
}

/* A new record for a stretch, in no list. */
static enum cht_rc new_record(struct cht_values *v, unsigned state, uint32_t start, uint32_t granules,
                              uint32_t *ref, struct cht_err *err)
{
    struct cht_err e = {0};
    enum cht_rc rc = cht_arena_alloc(v->recycle, 0, ref, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *r = cht_record_write(v, *ref, &e);
    if (r == NULL)
        return code(&e, err);
    r[CHT_EX_STATE] = (uint8_t)state;
    cht_put32(r + CHT_EX_START, start);
    cht_put32(r + CHT_EX_GRANULES, granules);
    uint8_t copy[64];
    memcpy(copy, r, sizeof copy); /* the map calls may move the file */
    return cht_extent_map(v, copy, *ref, false, err);
}

/* Joins ref (free, in no list) with a free neighbour `other`, which disappears. */
static enum cht_rc join(struct cht_values *v, uint32_t ref, uint32_t other, struct cht_err *err)
{
    struct cht_err e = {0};
    const uint8_t *o = cht_extent(v, other, err), *x = o == NULL ? NULL : cht_extent(v, ref, err);
    if (x == NULL)
        return CHT_CORRUPT;
    uint32_t ostart = cht_get32(o + CHT_EX_START), on = cht_get32(o + CHT_EX_GRANULES),
             xstart = cht_get32(x + CHT_EX_START), xn = cht_get32(x + CHT_EX_GRANULES);
    if (other == ref || (ostart + on != xstart && xstart + xn != ostart))
        return CHT_DAMAGED(err, "%s: offset %llu: an extent is not where the map says",
                           cht_pf_path(v->recycle), (unsigned long long)other * 64);
    enum cht_rc rc = cht_extent_unlink(v, 0, bucket_at(on), other, err);
    if (rc == CHT_OK)
        rc = cht_arena_free(v->recycle, 0, other, err);
    uint8_t *r = rc == CHT_OK ? cht_record_write(v, ref, &e) : NULL;
    if (r == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    uint32_t start = cht_get32(r + CHT_EX_START);
    cht_put32(r + CHT_EX_START, start < ostart ? start : ostart);
    cht_put32(r + CHT_EX_GRANULES, cht_get32(r + CHT_EX_GRANULES) + on);
    return CHT_OK;
}

/* The extent that ends or begins at granule g, if it is free; 0 otherwise. */
static enum cht_rc free_at(struct cht_values *v, uint64_t g, uint32_t *ref, struct cht_err *err)
{
    *ref = 0;
    if (g < CHT_PAGE_GRANULES || g >= cht_pf_pages(v->values) * CHT_PAGE_GRANULES)
        return CHT_OK;
    enum cht_rc rc = cht_radix_get(v->recycle, CHT_RC_MAP, (uint32_t)g, ref, err);
    if (rc != CHT_OK || *ref == 0)
        return rc;
    const uint8_t *r = cht_record(v, *ref, err);
    if (r == NULL)
        return CHT_CORRUPT;
    if (r[CHT_EX_STATE] != CHT_EXT_FREE)
        *ref = 0;
    return CHT_OK;
}

enum cht_rc cht_extent_free(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *r = cht_extent_write(v, ref, &e);
    if (r == NULL)
        return code(&e, err);
    uint64_t start = cht_get32(r + CHT_EX_START), n = cht_get32(r + CHT_EX_GRANULES);
    uint32_t bitmap = cht_get32(r + CHT_EX_BITMAP), slots = cht_get32(r + CHT_EX_SLOTS), left, right;
    memset(r, 0, 64);
    r[CHT_EX_STATE] = CHT_EXT_FREE;
    cht_put32(r + CHT_EX_START, (uint32_t)start);
    cht_put32(r + CHT_EX_GRANULES, (uint32_t)n);
    enum cht_rc rc = CHT_OK;
    if (bitmap != 0)
        rc = cht_arena_free(v->recycle, cht_arena_class((slots + 7) / 8), bitmap, err);
    if (rc == CHT_OK)
        rc = free_at(v, start - 1, &left, err);
    if (rc == CHT_OK)
        rc = free_at(v, start + n, &right, err);
    if (rc == CHT_OK && left != 0)
        rc = join(v, ref, left, err);
    if (rc == CHT_OK && right != 0)
        rc = join(v, ref, right, err);
    const uint8_t *x = rc == CHT_OK ? cht_extent(v, ref, err) : NULL;
    if (x == NULL)
        return rc != CHT_OK ? rc : CHT_CORRUPT;
    uint8_t copy[64];
    memcpy(copy, x, sizeof copy);
    uint64_t s = cht_get32(copy + CHT_EX_START), end = s + cht_get32(copy + CHT_EX_GRANULES);
    rc = cht_extent_map(v, copy, ref, false, err);
    if (rc == CHT_OK)
        rc = cht_extent_link(v, 0, bucket_at(cht_get32(copy + CHT_EX_GRANULES)), ref, err);
    /* Whole pages that became free with this extent. */
    uint64_t first = (s + CHT_PAGE_GRANULES - 1) / CHT_PAGE_GRANULES, last = end / CHT_PAGE_GRANULES;
    uint64_t mine = start / CHT_PAGE_GRANULES,
             behind = (start + n + CHT_PAGE_GRANULES - 1) / CHT_PAGE_GRANULES;
    first = first > mine ? first : mine;
    last = last < behind ? last : behind;
    if (rc == CHT_OK && first < last)
        rc = cht_pf_release(v->values, first, last - first, err);
    return rc;
}

enum cht_rc cht_extent_retire(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *r = cht_record_write(v, ref, &e);
    if (r == NULL)
        return code(&e, err);
    r[CHT_EX_STATE] = CHT_EXT_PENDING_A;
    return cht_extent_link(v, 0, CHT_RC_PENDING_A, ref, err);
}

/* Granules to leave out at the front of a stretch so that what follows begins with a page. */
static uint32_t lead_in(uint32_t start, bool whole_pages)
{
    return whole_pages ? (CHT_PAGE_GRANULES - start % CHT_PAGE_GRANULES) % CHT_PAGE_GRANULES : 0;
}

/* A free extent that holds the request; 0 if none was found. */
static enum cht_rc search(struct cht_values *v, uint32_t granules, bool whole_pages, uint32_t *found,
                          struct cht_err *err)
{
    *found = 0;
    for (unsigned at = bucket_at(granules); at < CHT_RC_FREE + 4 * BUCKETS; at += 4) {
        const uint8_t *h = cht_page_read(v->recycle, 0, err);
        uint32_t ref = h == NULL ? 0 : cht_get32(h + at);
        if (h == NULL)
            return CHT_CORRUPT;
        for (int i = 0; ref != 0 && i < PROBES; i++) {
            const uint8_t *r = cht_extent(v, ref, err);
            if (r == NULL)
                return CHT_CORRUPT;
            if (r[CHT_EX_STATE] != CHT_EXT_FREE)
                return CHT_DAMAGED(err, "%s: offset %llu: an extent in the list of free ones is not free",
                                   cht_pf_path(v->recycle), (unsigned long long)ref * 64);
            uint32_t start = cht_get32(r + CHT_EX_START), have = cht_get32(r + CHT_EX_GRANULES),
                     lead = lead_in(start, whole_pages);
            if (have >= lead && have - lead >= granules) {
                *found = ref;
                return CHT_OK;
            }
            ref = cht_get32(r + CHT_EX_NEXT);
        }
    }
    return CHT_OK;
}

/* Adds pages at the end of the file as a free extent (joined with a free one in front). */
static enum cht_rc grow(struct cht_values *v, uint32_t granules, struct cht_err *err)
{
    uint64_t need = (granules + CHT_PAGE_GRANULES - 1) / CHT_PAGE_GRANULES + 1,
             have = cht_pf_pages(v->values), first;
    uint64_t step = have / 16 < GROW_MAX ? have / 16 : GROW_MAX;
    uint64_t n = need > step ? need : step;
    uint32_t ref;
    if ((have + n) * CHT_PAGE_GRANULES > CHT_MAP_MAX)
        return CHT_FAIL(err, CHT_DISK_FULL, "%s: has its maximum of 512 GiB", cht_pf_path(v->values));
    enum cht_rc rc = cht_pf_extend(v->values, n, &first, err);
    if (rc == CHT_OK)
        rc = new_record(v, CHT_EXT_FREE, (uint32_t)(first * CHT_PAGE_GRANULES),
                        (uint32_t)(n * CHT_PAGE_GRANULES), &ref, err);
    uint32_t left = 0;
    if (rc == CHT_OK)
        rc = free_at(v, first * CHT_PAGE_GRANULES - 1, &left, err);
    if (rc == CHT_OK && left != 0)
        rc = join(v, ref, left, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t copy[64];
    const uint8_t *r = cht_extent(v, ref, err);
    if (r == NULL)
        return CHT_CORRUPT;
    memcpy(copy, r, sizeof copy);
    rc = cht_extent_map(v, copy, ref, false, err);
    return rc == CHT_OK ? cht_extent_link(v, 0, bucket_at(cht_get32(copy + CHT_EX_GRANULES)), ref, err) : rc;
}

/* A piece of a free extent that is left over becomes a free extent. */
static enum cht_rc leave_free(struct cht_values *v, uint32_t start, uint32_t granules, struct cht_err *err)
{
    uint32_t ref;
    if (granules == 0)
        return CHT_OK;
    enum cht_rc rc = new_record(v, CHT_EXT_FREE, start, granules, &ref, err);
    return rc == CHT_OK ? cht_extent_link(v, 0, bucket_at(granules), ref, err) : rc;
}

enum cht_rc cht_extent_alloc(struct cht_values *v, uint32_t granules, bool whole_pages, uint32_t *ref,
                             struct cht_err *err)
{
    struct cht_err e = {0};
    enum cht_rc rc = search(v, granules, whole_pages, ref, err);
    if (rc == CHT_OK && *ref == 0) {
        rc = grow(v, granules, err);
        if (rc == CHT_OK)
            rc = search(v, granules, whole_pages, ref, err);
        if (rc == CHT_OK && *ref == 0)
            rc = CHT_DAMAGED(err, "%s: the lists of free extents are damaged", cht_pf_path(v->recycle));
    }
    if (rc != CHT_OK)
        return rc;
    const uint8_t *r = cht_extent(v, *ref, err);
    if (r == NULL)
        return CHT_CORRUPT;
    uint32_t start = cht_get32(r + CHT_EX_START), have = cht_get32(r + CHT_EX_GRANULES),
             lead = lead_in(start, whole_pages);
    rc = cht_extent_unlink(v, 0, bucket_at(have), *ref, err);
    uint8_t *w = rc == CHT_OK ? cht_record_write(v, *ref, &e) : NULL;
    if (w == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    memset(w, 0, 64);
    w[CHT_EX_STATE] = CHT_EXT_USED;
    cht_put32(w + CHT_EX_START, start + lead);
    cht_put32(w + CHT_EX_GRANULES, granules);
    uint8_t copy[64];
    memcpy(copy, w, sizeof copy);
    rc = cht_extent_map(v, copy, *ref, false, err);
    if (rc == CHT_OK)
        rc = leave_free(v, start, lead, err);
    return rc == CHT_OK ? leave_free(v, start + lead + granules, have - lead - granules, err) : rc;
}
