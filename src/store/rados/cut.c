/* cut: see cut.h. */
#include "store/rados/cut.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "store/rados/numbers.h"
#include "store/rados/still.h"

#define LOOKS 8u /* while shards are divided or generations closed */
#define TRIES 8u

/* ---- looking ------------------------------------------------------------------------------------------------------- */

struct look {
    struct cht_call call;
    rados_omap_iter_t state, rows;
    unsigned char more;
    int state_rc, rows_rc;
    struct cht_epoch e;
    int64_t bytes;       /* of L rows */
    uint64_t generation; /* of the first L row from the generation that was asked for on */
};

static void start(struct cht_rdb *db, unsigned shard, uint64_t generation, struct look *l)
{
    static const char *const names[] = {"E", "Nl"};
    static const size_t lens[] = {1, 2};
    uint8_t after[CHT_ROW_GENERATION + 1] = {0};
    char object[CHT_LINK_OBJECT_MAX];
    *l = (struct look){.call = cht_call_read()};
    cht_row_of_generation(after, 'L', generation);
    cht_rdb_shard_name(object, shard);
    rados_read_op_omap_get_vals_by_keys2(l->call.r, names, 2, lens, &l->state, &l->state_rc);
    rados_read_op_omap_get_vals2(l->call.r, (const char *)after, "L", 1, &l->rows, &l->more, &l->rows_rc);
    cht_call_start(&l->call, db->io, object);
}

static int end(struct look *l)
{
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    int r = cht_call_wait(&l->call);
    r = r == 0 ? l->state_rc : r;
    r = r == 0 ? l->rows_rc : r;
    while (r == 0 && l->state != NULL && rados_omap_get_next2(l->state, &k, &v, &kn, &vn) == 0 && k != NULL) {
        if (kn == 1)
            (void)cht_row_epoch_read((const uint8_t *)v, vn, &l->e); /* else it is 0 */
        else
            l->bytes = cht_row_number((struct cht_str){(const uint8_t *)v, vn});
    }
    if (r == 0 && l->rows != NULL && rados_omap_get_next2(l->rows, &k, &v, &kn, &vn) == 0 && k != NULL)
        l->generation = cht_row_generation((struct cht_str){(const uint8_t *)k, kn});
    if (l->state != NULL)
        rados_omap_get_end(l->state);
    if (l->rows != NULL)
        rados_omap_get_end(l->rows);
    return r;
}

struct seen {
    uint64_t generation, first; /* the highest; of an L row from the one that was asked for on */
    int64_t bytes;
    bool stale, locked;
};

/* All shards of the map at once. */
static enum cht_rc look_once(struct cht_rdb *db, const struct cht_map *m, struct look *looks,
                             struct seen *out, struct cht_err *err)
{
    uint64_t from = cht_rdb_generation(db);
    enum cht_rc rc = CHT_OK;
    *out = (struct seen){0};
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1))
        start(db, i, from, &looks[i]);
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        struct look *l = &looks[i];
        char object[CHT_LINK_OBJECT_MAX];
        int r = end(l);
        cht_rdb_shard_name(object, i);
        if (rc != CHT_OK)
            continue;
        if (r < 0)
            rc = cht_rdb_rc(db, r, object, err);
        else if (l->e.epoch == 0)
            rc = CHT_FAIL(err, CHT_CORRUPT, "object %s has no epoch", object);
        out->stale = out->stale || l->e.epoch > cht_map_epoch(m, i);
        out->locked = out->locked || l->e.lock != 0;
        out->generation = l->e.generation > out->generation ? l->e.generation : out->generation;
        out->first = l->generation > out->first ? l->generation : out->first;
        out->bytes += l->bytes;
        cht_rdb_learn(db, &l->e);
    }
    return rc;
}

static void raise(_Atomic uint64_t *v, uint64_t to)
{
    uint64_t known = atomic_load(v);
    while (to > known && !atomic_compare_exchange_weak(v, &known, to)) {
    }
}

/* ---- cutting ------------------------------------------------------------------------------------------------------- */

struct kept {
    bool there;
    uint64_t oldest;
};

static void take_kept(void *ctx, struct cht_str row, struct cht_str value)
{
    struct kept *k = ctx;
    if (row.n != 7)
        return;
    k->there = true;
    k->oldest = value.n == 8 ? cht_get64(value.p) : 0;
}

/* The header says that changes are kept, from after *oldest on (CH7). */
static enum cht_rc begin(struct cht_rdb *db, uint64_t *oldest, struct cht_err *err)
{
    for (;;) {
        uint64_t last = 0, begins = cht_wall_ns() / 1000; /* CH6 */
        enum cht_rc rc = cht_cut_oldest(db, oldest, err);
        if (rc == CHT_OK && *oldest == 0)
            rc = cht_rdb_reload(db, err);
        if (rc == CHT_OK && *oldest == 0)
            rc = cht_numbers_last(db->env, &last, err);
        if (rc != CHT_OK || *oldest != 0)
            return rc;
        begins = begins > last ? begins : last + 1;
        uint8_t was[4], now[4], first[8];
        struct cht_call call = cht_call_write();
        cht_put32(was, atomic_load(&db->format));
        cht_put32(now, CHT_RDB_FORMAT_CHANGES);
        cht_put64(first, begins);
        cht_call_compare(&call, CHT_ROW_TEXT("format"), (struct cht_str){was, sizeof was});
        cht_call_compare(&call, CHT_ROW_TEXT("changes"), CHT_ROW_TEXT(""));
        cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){now, sizeof now});
        cht_call_set(&call, CHT_ROW_TEXT("changes"), (struct cht_str){first, sizeof first});
        cht_rdb_step(db, "cut-begin");
        int r = cht_call_run(&call, db->io, "h");
        rc = cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(db, r, "h", err);
        if (rc == CHT_OK)
            rc = cht_rdb_reload(db, err);
        if (rc != CHT_OK)
            return rc;
    }
}

/* C1 to C5. *refused: again. */
static enum cht_rc cut_once(struct cht_rdb *db, uint64_t generation, uint64_t after, bool in_order,
                            bool *refused, struct cht_err *err)
{
    struct cht_txn t = {.db = db, .generation = generation, .after = after};
    *refused = false;
    cht_rdb_step(db, "cut-create");
    enum cht_rc rc = cht_still_make(&t, cht_rdb_map(db), err);
    cht_rdb_step(db, "cut-lock");
    if (rc == CHT_OK)
        rc = cht_still_lock(&t, in_order, refused, err);
    if (rc != CHT_OK || *refused) {
        if (t.n > 0)
            cht_still_back(&t);
        cht_txn_fini(&t);
        return rc;
    }
    cht_rdb_step(db, "cut-commit");
    rc = cht_still_held(&t, refused, err);
    if (rc == CHT_OK && !*refused) {
        cht_rdb_learn(db, &(struct cht_epoch){.generation = after});
        raise(&db->told.newest, after - 1);
        rc = cht_txn_finish(&t, err); /* else it is gone on with by whoever meets it */
    }
    cht_txn_fini(&t);
    return rc;
}

static enum cht_rc cut_now(struct cht_rdb *db, struct cht_err *err)
{
    bool refused = true, open = false;
    uint64_t first = 0; /* the generation that was open when this began */
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < TRIES && rc == CHT_OK && refused; i++) {
        uint64_t after = 0;
        rc = cht_cut_look(db, &open, err);
        uint64_t generation = cht_rdb_generation(db);
        if (generation > 0)
            raise(&db->told.newest, generation - 1); /* CH3: it may have been seen since the look */
        if (rc == CHT_OK && generation == 0)
            rc = begin(db, &after, err);
        else if (!open || (first != 0 && generation > first)) /* nothing to close, or others have */
            return rc;
        first = first == 0 ? generation : first;
        if (rc == CHT_OK)
            rc = cut_once(db, generation, generation != 0 ? generation + 1 : after + 1, i > 0, &refused, err);
    }
    if (rc == CHT_OK && refused)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is written to so much that it cannot be stopped",
                      db->name);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_cut_look(struct cht_rdb *db, bool *open, struct cht_err *err)
{
    struct look *looks = cht_calloc(CHT_MAP_MAX, sizeof *looks);
    struct seen s = {0};
    enum cht_rc rc = looks == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory to look at shards") : CHT_OK;
    bool good = false;
    for (unsigned i = 0; i < LOOKS && rc == CHT_OK && !good; i++) {
        const struct cht_map *m = cht_rdb_map(db);
        uint64_t from = cht_rdb_generation(db);
        rc = look_once(db, m, looks, &s, err);
        if (rc == CHT_OK && s.stale && m == cht_rdb_map(db))
            rc = cht_rdb_reload(db, err);
        good = !s.stale && s.generation == from;
    }
    cht_free(looks);
    if (rc != CHT_OK)
        return rc;
    if (open != NULL)
        *open = !good || s.locked || (s.first != 0 && s.first >= s.generation) ||
                (s.generation != 0 && !cht_rdb_keeps(db, s.generation));
    atomic_store(&db->told.bytes, s.bytes > 0 ? (uint64_t)s.bytes : 0);
    if (s.generation > 0)
        raise(&db->told.newest, s.generation - 1); /* CH3 */
    return CHT_OK;
}

enum cht_rc cht_cut(struct cht_rdb *db, struct cht_err *err)
{
    struct cht_told *told = &db->told;
    uint64_t cuts = atomic_load(&told->cuts);
    cht_rdb_step(db, "cut-ask");
    cht_mutex_lock(&told->cutting);
    /* else one was begun after this call: it is this one's, too, whatever became of it */
    if (atomic_load(&told->cuts) == cuts) {
        atomic_fetch_add(&told->cuts, 1);
        told->err = (struct cht_err){0};
        told->rc = cut_now(db, &told->err);
    }
    enum cht_rc rc = told->rc;
    if (rc != CHT_OK && err != NULL)
        *err = told->err;
    cht_mutex_unlock(&told->cutting);
    return rc;
}

enum cht_rc cht_cut_oldest(struct cht_rdb *db, uint64_t *oldest, struct cht_err *err)
{
    static const char *const names[] = {"changes", "format"};
    static const size_t lens[] = {7, 6};
    struct kept k = {0};
    int r = cht_link_rows(db->io, "h", &(struct cht_rows_wanted){names, lens, 2}, take_kept, &k);
    *oldest = k.oldest;
    if (r < 0)
        return cht_rdb_rc(db, r, "h", err);
    if (k.there && k.oldest == 0)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: which changes it keeps cannot be read", db->name);
    raise(&db->told.oldest, k.oldest);
    return CHT_OK;
}
