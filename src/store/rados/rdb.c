/* rdb: the objects of a database: made, removed, opened. See rdb.h. */
#include "store/rados/rdb.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"
#include "store/rados/fence.h"
#include "store/rados/figures.h"
#include "store/rados/fold.h"
#include "store/rados/lane.h"
#include "store/rados/numbers.h"
#include "store/rados/snaps.h"

#include <string.h>

#define HEADER_ROWS 4

static void set32(struct cht_call *call, const char *row, uint32_t v)
{
    uint8_t b[4];
    cht_put32(b, v);
    cht_call_set(call, (struct cht_str){(const uint8_t *)row, strlen(row)}, (struct cht_str){b, 4});
}

enum cht_rc cht_rdb_make(struct cht_renv *env, const char *uuid, unsigned level, struct cht_err *err)
{
    rados_ioctx_t io;
    uint8_t next[8], e[CHT_ROW_EPOCH_SIZE];
    size_t n = cht_row_epoch_write(e, &(struct cht_epoch){.epoch = 1});
    char object[CHT_LINK_OBJECT_MAX];
    enum cht_rc rc = cht_link_space(&env->link, env->pool, uuid, &io, err);
    if (rc != CHT_OK)
        return rc;
    for (unsigned i = 0; i < 1u << level && rc == CHT_OK; i++) {
        struct cht_call call = cht_call_write();
        rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
        cht_call_set(&call, (struct cht_str){(const uint8_t *)"E", 1}, (struct cht_str){e, n});
        cht_rdb_shard_name(object, i);
        rc = cht_link_rc(cht_call_run(&call, io, object), object, err);
    }
    if (rc == CHT_OK) {
        struct cht_call call = cht_call_write();
        rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
        set32(&call, "format", CHT_RDB_FORMAT);
        set32(&call, "level", level);
        set32(&call, "epoch", 1);
        cht_put64(next, 1);
        cht_call_set(&call, CHT_ROW_TEXT("next"), (struct cht_str){next, 8});
        rc = cht_link_rc(cht_call_run(&call, io, "h"), "h", err);
    }
    rados_ioctx_destroy(io);
    return rc;
}

enum cht_rc cht_rdb_unmake(struct cht_renv *env, const char *uuid, struct cht_err *err)
{
    rados_ioctx_t io;
    rados_list_ctx_t list;
    const char *name;
    enum cht_rc rc = cht_link_space(&env->link, env->pool, uuid, &io, err);
    if (rc != CHT_OK)
        return rc;
    cht_snaps_remove(io, uuid); /* before the objects: they would stay in them */
    rc = cht_numbers_end(env, io, err);
    int r = rc == CHT_OK ? rados_nobjects_list_open(io, &list) : 0;
    if (rc == CHT_OK && r == 0) {
        while ((r = rados_nobjects_list_next(list, &name, NULL, NULL)) == 0) {
            if (atomic_load(&env->care.over)) { /* it is what others left: any server goes on with it */
                rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
                break;
            }
            int removed = rados_remove(io, name);
            if (removed < 0 && cht_os_code(removed) != CHT_OS_NOT_THERE && rc == CHT_OK)
                rc = cht_link_rc(removed, name, err);
        }
        rados_nobjects_list_close(list);
    }
    if (r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE && rc == CHT_OK)
        rc = cht_link_rc(r, uuid, err);
    rados_ioctx_destroy(io);
    return rc;
}

struct header {
    uint32_t format, level;
    unsigned rows;
    bool mapped, good;
    struct cht_map map;
    uint8_t levels[CHT_MAP_MAX];
};

static void take_header(void *ctx, struct cht_str row, struct cht_str value)
{
    struct header *h = ctx;
    uint32_t v = value.n == 4 ? cht_get32(value.p) : 0;
    h->rows += row.n != 3;
    if (row.n == 6) {
        h->format = v;
    } else if (row.n == 5 && row.p[0] == 'l') {
        h->level = v;
    } else if (row.n == 3) {
        h->mapped = true;
        h->good = value.n == CHT_MAP_MAX;
        if (h->good)
            memcpy(h->levels, value.p, CHT_MAP_MAX);
    }
}

static enum cht_rc read_header(struct cht_rdb *db, struct header *h, struct cht_err *err)
{
    static const char *const names[] = {"format", "level", "epoch", "map"};
    static const size_t lens[] = {6, 5, 5, 3};
    *h = (struct header){0};
    int r = cht_link_rows(db->io, "h", &(struct cht_rows_wanted){names, lens, 4}, take_header, h);
    if (r < 0)
        return cht_rdb_rc(db, r, "h", err);
    if (h->rows == 0 && !h->mapped)
        return cht_rdb_dropped(db, err);
    if (h->rows != 3)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: its header cannot be read", db->name);
    if (h->format < CHT_RDB_FORMAT || h->format > CHT_RDB_FORMAT_CHANGES || h->level > CHT_MAP_LEVEL_MAX)
        return CHT_FAIL(err, CHT_VERSION, "database %s has format %u with 2^%u shards; this program knows %u",
                        db->name, h->format, h->level, CHT_RDB_FORMAT_CHANGES);
    cht_map_init(&h->map, h->level);
    if (h->mapped && (!h->good || !cht_map_read(&h->map, h->level, h->levels, CHT_MAP_MAX)))
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the map of its shards cannot be read", db->name);
    return CHT_OK;
}

enum cht_rc cht_rdb_reload(struct cht_rdb *db, struct cht_err *err)
{
    struct header h;
    enum cht_rc rc = read_header(db, &h, err);
    if (rc != CHT_OK)
        return rc;
    atomic_store(&db->format, h.format);
    struct cht_map *m = cht_malloc(sizeof *m);
    if (m == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the map of database %s", db->name);
    cht_mutex_lock(&db->mu);
    const struct cht_map *now = db->maps;
    bool newer = now == NULL || h.map.shards > now->shards; /* each change adds one */
    if (newer) {
        *m = h.map;
        m->next = db->maps;
        db->maps = m;
        atomic_store(&db->map, m);
    }
    cht_mutex_unlock(&db->mu);
    if (!newer)
        cht_free(m);
    return CHT_OK;
}

enum cht_rc cht_rdb_ends(struct cht_rdb *db, struct cht_err *err)
{
    while (atomic_load(&db->format) < CHT_RDB_FORMAT_ENDS) {
        uint8_t was[4], now[4];
        struct cht_call call = cht_call_write();
        cht_put32(was, atomic_load(&db->format));
        cht_put32(now, CHT_RDB_FORMAT_ENDS);
        cht_call_compare(&call, CHT_ROW_TEXT("format"), (struct cht_str){was, 4});
        cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){now, 4});
        int r = cht_call_run(&call, db->io, "h");
        enum cht_rc rc = cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(db, r, "h", err);
        if (rc == CHT_OK)
            rc = cht_rdb_reload(db, err);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static enum cht_rc make_lanes(struct cht_rdb *db, struct cht_err *err)
{
    db->lanes = cht_calloc(CHT_MAP_MAX, sizeof *db->lanes);
    if (db->lanes == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", db->name);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < CHT_MAP_MAX && rc == CHT_OK; i++)
        rc = cht_lane_init(&db->lanes[i], db, i, err);
    return rc == CHT_OK ? cht_leases_init(&db->leases, err) : rc;
}

static enum cht_rc open_io(struct cht_rdb *db, struct cht_err *err)
{
    rados_ioctx_t io;
    db->io_made = atomic_load(&db->env->link.made);
    enum cht_rc rc = cht_link_space(&db->env->link, db->env->pool, db->uuid, &io, err);
    if (rc == CHT_OK)
        db->io = io;
    return rc;
}

enum cht_rc cht_rdb_open(struct cht_renv *env, const char *name, const char *uuid, struct cht_rdb **out,
                         struct cht_err *err)
{
    struct cht_rdb *db = cht_calloc(1, sizeof *db);
    if (db == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    db->base.ops = &cht_rdb_ops;
    db->env = env;
    memcpy(db->name, name, strlen(name) + 1);
    memcpy(db->uuid, uuid, CHT_RDB_UUID + 1);
    enum cht_rc rc = cht_mutex_cond_init(&db->mu, &db->calm, err);
    if (rc == CHT_OK)
        rc = cht_seen_init(&db->seen, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&db->told.cutting, err);
    db->doubted = cht_calloc(1, sizeof *db->doubted);
    db->figures = cht_calloc(1, sizeof *db->figures);
    if (rc == CHT_OK && db->figures != NULL)
        rc = cht_mutex_init(&db->figures->mu, err);
    if (rc == CHT_OK && (db->doubted == NULL || db->figures == NULL))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    if (rc == CHT_OK)
        rc = open_io(db, err);
    if (rc == CHT_OK)
        rc = cht_rdb_reload(db, err);
    if (rc == CHT_OK)
        rc = make_lanes(db, err);
    if (rc != CHT_OK) {
        cht_rdb_close(db);
        return rc;
    }
    atomic_store(&db->apart, !cht_fold_works(db->io, "h"));
    *out = db;
    return CHT_OK;
}

void cht_rdb_close(struct cht_rdb *db)
{
    atomic_store(&db->closing, true);
    cht_mutex_lock(&db->mu);
    while (db->busy > 0)
        cht_cond_wait(&db->calm, &db->mu);
    cht_mutex_unlock(&db->mu);
    cht_seen_fini(&db->seen);
    cht_mutex_fini(&db->told.cutting);
    for (unsigned i = 0; db->lanes != NULL && i < CHT_MAP_MAX; i++)
        cht_lane_fini(&db->lanes[i]);
    cht_free(db->lanes);
    for (struct cht_map *m = db->maps, *next; m != NULL; m = next) {
        next = m->next;
        cht_free(m);
    }
    cht_leases_fini(&db->leases);
    cht_free(db->doubted);
    if (db->figures != NULL)
        cht_mutex_fini(&db->figures->mu);
    cht_free(db->figures);
    cht_free(db->left);
    if (db->io != NULL)
        rados_ioctx_destroy(db->io);
    for (unsigned i = 0; i < db->old_ios; i++)
        rados_ioctx_destroy(db->old_io[i]);
    cht_cond_fini(&db->calm);
    cht_mutex_fini(&db->mu);
    cht_free(db);
}
