/* seen: see seen.h. */
#include "store/rados/seen.h"

#include "base/alloc.h"
#include "store/rados/rdb.h"

#define LOOKS 8u /* while shards are divided */

struct look {
    struct cht_call call;
    rados_omap_iter_t rows;
    int rows_rc;
    uint64_t version;
    struct cht_epoch e;
    bool good, ends; /* ends: there are pairs that end */
};

static void start(struct cht_rdb *db, unsigned shard, struct look *l)
{
    static const char *const names[] = {"E", "Ne"};
    static const size_t lens[] = {1, 2};
    char object[CHT_LINK_OBJECT_MAX];
    l->call = cht_call_read();
    cht_rdb_shard_name(object, shard);
    rados_read_op_omap_get_vals_by_keys2(l->call.r, names, 2, lens, &l->rows, &l->rows_rc);
    cht_call_start(&l->call, db->io, object);
}

static int end(struct look *l)
{
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    int r = cht_call_wait_version(&l->call, &l->version);
    r = r == 0 ? l->rows_rc : r;
    while (r == 0 && l->rows != NULL && rados_omap_get_next2(l->rows, &k, &v, &kn, &vn) == 0 && k != NULL) {
        struct cht_str value = {(const uint8_t *)v, vn};
        if (kn == 1)
            l->good = cht_row_epoch_read(value.p, value.n, &l->e);
        else
            l->ends = cht_row_number(value) > 0;
    }
    if (l->rows != NULL)
        rados_omap_get_end(l->rows);
    return r;
}

/* All shards of the map at once. *stale: it is old. *locked: V2. */
static enum cht_rc look_once(struct cht_rdb *db, const struct cht_map *m, struct look *looks, bool *stale,
                             bool *locked)
{
    enum cht_rc rc = CHT_OK;
    *stale = *locked = false;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        looks[i] = (struct look){0};
        start(db, i, &looks[i]);
    }
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        struct look *l = &looks[i];
        int r = end(l);
        if (r < 0 || !l->good) {
            rc = r < 0 ? cht_rdb_rc(db, r, "shard", NULL) : CHT_CORRUPT;
            continue;
        }
        cht_rdb_learn(db, &l->e);
        *stale = *stale || l->e.epoch > cht_map_epoch(m, i);
        *locked = *locked || l->e.lock != 0;
    }
    return rc;
}

/* V1: the mutex is held. */
static bool merge(struct cht_seen *s, const struct cht_map *m, const struct look *looks)
{
    bool grown = false;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        if (looks[i].version <= s->versions[i])
            continue;
        s->versions[i] = looks[i].version;
        grown = true;
    }
    return grown;
}

/* Does any pair end? `turn` is held. */
static bool look_now(struct cht_rdb *db)
{
    struct cht_seen *s = &db->seen;
    struct look *looks = cht_calloc(CHT_MAP_MAX, sizeof *looks);
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = looks == NULL ? CHT_NO_MEMORY : CHT_OK;
    bool stale = true, locked = false;
    for (unsigned i = 0; i < LOOKS && stale && rc == CHT_OK; i++) {
        m = cht_rdb_map(db);
        rc = look_once(db, m, looks, &stale, &locked);
        if (rc == CHT_OK && stale && m == cht_rdb_map(db))
            rc = cht_rdb_reload(db, NULL);
    }
    cht_rdb_step(db, "looked");
    bool ends = false;
    for (unsigned i = 0; i < CHT_MAP_MAX && rc == CHT_OK; i++)
        ends = ends || looks[i].ends;
    cht_mutex_lock(&s->mu);
    bool all = rc != CHT_OK || stale || locked;
    if (!all)
        all = merge(s, m, looks);
    if (all)
        cht_watches_report(s->watches, NULL, true); /* V5 */
    cht_mutex_unlock(&s->mu);
    cht_free(looks);
    return ends;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_seen_init(struct cht_seen *s, struct cht_err *err)
{
    enum cht_rc rc = cht_mutex_init(&s->mu, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&s->turn, err);
    return rc == CHT_OK ? cht_watches_new(0, &s->watches, err) : rc;
}

void cht_seen_fini(struct cht_seen *s)
{
    cht_watches_close(s->watches);
    cht_mutex_fini(&s->turn);
    cht_mutex_fini(&s->mu);
}

bool cht_seen_look(struct cht_rdb *db)
{
    struct cht_seen *s = &db->seen;
    uint64_t looks = atomic_load(&s->looks);
    cht_mutex_lock(&s->turn);
    if (atomic_load(&s->looks) == looks) { /* V6 */
        atomic_fetch_add(&s->looks, 1);
        s->ends = look_now(db);
    }
    bool ends = s->ends;
    cht_mutex_unlock(&s->turn);
    return ends;
}
