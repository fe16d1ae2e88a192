/* leases: keys that this process may give out. A lease is one compare-and-set of the row `next` of the header: no key is in two leases. What
 * a process has leased and not given out when it ends is never given out.
 *
 *   inserts  [next, end): 64 keys, then twice as many each time up to 4096, so that a fresh database counts 1, 2, 3
 *   names    CHT_ROW_BUCKETS * STEPS keys: STEPS for each bucket, so that a name's key has the name's bucket (rows.h, R3)
 */
#include "store/rados/rdb.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"

#include <string.h>

#define STEPS 16u
#define FIRST 64u
#define MOST 4096u

struct next {
    uint64_t next;
    bool there; /* the header has rows */
};

static void take_next(void *ctx, struct cht_str row, struct cht_str value)
{
    struct next *n = ctx;
    n->there = true;
    if (row.n == 4 && value.n == 8)
        n->next = cht_get64(value.p);
}

static enum cht_rc read_next(struct cht_rdb *db, uint64_t *next, struct cht_err *err)
{
    static const char *const names[] = {"next", "level"};
    static const size_t lens[] = {4, 5};
    struct next n = {0};
    *next = 0;
    int r = cht_link_rows(db->io, "h", &(struct cht_rows_wanted){names, lens, 2}, take_next, &n);
    if (r < 0)
        return cht_rdb_rc(db, r, "h", err);
    if (!n.there)
        return cht_rdb_dropped(db, err);
    if (n.next == 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the header of database %s does not say which keys are free",
                        db->name);
    *next = n.next;
    atomic_store_explicit(&db->next_known, *next,
                          memory_order_relaxed); /* a lower one costs a question more */
    return CHT_OK;
}

/* Takes n keys, the first at a multiple of `align` plus 1. */
static enum cht_rc lease(struct cht_rdb *db, uint64_t n, uint64_t align, uint64_t *first, struct cht_err *err)
{
    for (;;) {
        uint64_t next;
        enum cht_rc rc = read_next(db, &next, err);
        if (rc != CHT_OK)
            return rc;
        *first = (next - 1 + align - 1) / align * align + 1;
        if (*first + n - 1 > CHT_KEY_MAX)
            return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "all keys have been given out");
        uint8_t was[8], now[8];
        cht_put64(was, next);
        cht_put64(now, *first + n);
        struct cht_call call = cht_call_write();
        cht_call_compare(&call, CHT_ROW_TEXT("next"), (struct cht_str){was, 8});
        cht_call_set(&call, CHT_ROW_TEXT("next"), (struct cht_str){now, 8});
        int r = cht_call_run(&call, db->io, "h");
        if (cht_os_code(r) == CHT_OS_CANCELED)
            continue; /* another process was first */
        if (r == 0)
            atomic_store_explicit(&db->next_known, *first + n, memory_order_relaxed);
        return r < 0 ? cht_rdb_rc(db, r, "h", err) : CHT_OK;
    }
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_leases_init(struct cht_leases *l, struct cht_err *err)
{
    *l = (struct cht_leases){.size = FIRST, .used = cht_calloc(CHT_ROW_BUCKETS, 1)};
    if (l->used == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for leases of keys");
    return cht_mutex_init(&l->mu, err);
}

void cht_leases_fini(struct cht_leases *l)
{
    cht_mutex_fini(&l->mu);
    cht_free(l->used);
    l->used = NULL;
}

enum cht_rc cht_leases_key(struct cht_rdb *db, uint64_t *key, struct cht_err *err)
{
    struct cht_leases *l = &db->leases;
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&l->mu);
    if (l->next == l->end) {
        uint64_t first;
        rc = lease(db, l->size, 1, &first, err);
        if (rc == CHT_OK) {
            l->next = first;
            l->end = first + l->size;
            l->size = l->size * 2 < MOST ? l->size * 2 : MOST;
        }
    }
    if (rc == CHT_OK)
        *key = l->next++;
    cht_mutex_unlock(&l->mu);
    return rc;
}

enum cht_rc cht_leases_key_for(struct cht_rdb *db, uint32_t bucket, uint64_t *key, struct cht_err *err)
{
    struct cht_leases *l = &db->leases;
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&l->mu);
    if (l->base == 0 || l->used[bucket] == STEPS) {
        uint64_t first;
        rc = lease(db, (uint64_t)CHT_ROW_BUCKETS * STEPS, 1, &first, err);
        if (rc == CHT_OK) {
            l->base = first;
            memset(l->used, 0, CHT_ROW_BUCKETS);
        }
    }
    if (rc == CHT_OK) { /* the first key from base on with this bucket, then every CHT_ROW_BUCKETS-th */
        uint64_t skip = (bucket + CHT_ROW_BUCKETS - l->base % CHT_ROW_BUCKETS) % CHT_ROW_BUCKETS;
        *key = l->base + skip + (uint64_t)CHT_ROW_BUCKETS * l->used[bucket]++;
    }
    cht_mutex_unlock(&l->mu);
    return rc;
}

enum cht_rc cht_leases_range(struct cht_rdb *db, uint64_t n, uint64_t *first, struct cht_err *err)
{
    return lease(db, n, CHT_ROW_BUCKETS, first, err);
}

enum cht_rc cht_leases_given(struct cht_rdb *db, uint64_t key, bool *given, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint64_t next = atomic_load_explicit(&db->next_known, memory_order_relaxed); /* it only rises */
    if (key >= next)
        rc = read_next(db, &next, err);
    *given = key < next;
    return rc;
}

enum cht_rc cht_leases_next(struct cht_rdb *db, uint64_t *next, struct cht_err *err)
{
    return read_next(db, next, err);
}

enum cht_rc cht_leases_raise(struct cht_rdb *db, uint64_t next, struct cht_err *err)
{
    uint64_t first, now;
    enum cht_rc rc = read_next(db, &now, err);
    if (rc == CHT_OK && now < next)
        rc = lease(db, next - now, 1, &first, err);
    return rc;
}
