/* moment: see moment.h. */
#include "store/rados/moment.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"
#include "store/rados/txn.h"
#include "store/rados/txn_int.h"

#include <string.h>

#define GUARD "backup"
#define PLACE (12u + NO_CHANGES)
#define NO_CHANGES 8u /* bytes: no rows, no counters (rowset_block.c) */
#define TRIES 8u
#define WAITS 64u /* of a shard, in the middle */

/* ---- the locks ----------------------------------------------------------------------------------------------------- */

static enum cht_rc make_record(struct cht_txn *t, const struct cht_map *m, struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(&t->record, 8 + PLACE * (size_t)m->shards, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = t->record.data;
    cht_put32(p, 2);
    cht_put32(p + 4, m->shards);
    p += 8;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1), p += PLACE) {
        cht_put32(p, i);
        cht_put32(p + 4, cht_map_epoch(m, i));
        cht_put32(p + 8, NO_CHANGES);
        memset(p + 12, 0, NO_CHANGES);
    }
    t->record.len = 8 + PLACE * (size_t)m->shards;
    while (t->id == 0)
        cht_os_random(&t->id, sizeof t->id);
    cht_txn_name(t);
    return cht_txn_parse(t, err);
}

/* M1. */
static int make_object(const struct cht_txn *t)
{
    struct cht_call call = cht_call_write();
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    rados_write_op_write_full(call.w, (const char *)t->record.data, t->record.len);
    call.force = true; /* also in a full pool: it goes again */
    cht_call_set(&call, CHT_ROW_TEXT("s"), CHT_ROW_TEXT("P"));
    return cht_call_run(&call, t->db->io, t->object);
}

static void take_epoch(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    (void)cht_row_epoch_read(value.p, value.n, ctx);
}

/* A shard refused its lock: waits for the transaction that has it, and ends one that stands still. *divided: its epoch is another, too. */
static enum cht_rc wait_for_other(struct cht_rdb *db, const struct cht_txn_place *p, bool *divided,
                                  struct cht_err *err)
{
    static const char *const row = "E";
    static const size_t len = 1;
    struct cht_epoch e = {0};
    char object[CHT_LINK_OBJECT_MAX];
    bool again;
    cht_rdb_shard_name(object, p->shard);
    int r = cht_link_rows(db->io, object, &(struct cht_rows_wanted){&row, &len, 1}, take_epoch, &e);
    enum cht_rc rc = r < 0 ? cht_rdb_rc(db, r, object, err) : CHT_OK;
    if (rc == CHT_OK && e.lock != 0)
        rc = cht_txn_settle(db, p->shard, &e, true, &again, err);
    *divided = e.epoch != p->epoch;
    return rc == CHT_OK && *divided ? cht_rdb_reload(db, err) : rc;
}

static void start_lock(struct cht_txn *t, size_t i)
{
    char object[CHT_LINK_OBJECT_MAX];
    t->calls[i] = cht_call_write();
    t->calls[i].force = true; /* also in a full pool: it is taken back */
    cht_rdb_shard_name(object, t->places[i].shard);
    cht_txn_lock(&t->calls[i], t->places[i].epoch, 0, t->id);
    cht_call_start(&t->calls[i], t->db->io, object);
}

/* M2, all at once. *refused: a transaction has one of the locks, or the map is old. */
static enum cht_rc lock_all(struct cht_txn *t, bool *refused, struct cht_err *err)
{
    int result = 0;
    for (size_t i = 0; i < t->n; i++)
        start_lock(t, i);
    for (size_t i = 0; i < t->n; i++) {
        int r = cht_call_wait(&t->calls[i]);
        if (r < 0 && (result == 0 || cht_os_code(result) == CHT_OS_CANCELED))
            result = r;
    }
    *refused = cht_os_code(result) == CHT_OS_CANCELED;
    return result < 0 && !*refused ? cht_rdb_rc(t->db, result, t->object, err) : CHT_OK;
}

/* M2, one after the other, keeping those that are had: so do transactions that were refused often (txn.c), and others give theirs back when they
 * are refused. So nobody waits for each other. */
static enum cht_rc lock_in_order(struct cht_txn *t, bool *refused, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    unsigned tries = 0;
    *refused = false;
    for (size_t i = 0; i < t->n && rc == CHT_OK && !*refused;) {
        start_lock(t, i);
        int r = cht_call_wait(&t->calls[i]);
        if (r >= 0)
            i++;
        else if (cht_os_code(r) != CHT_OS_CANCELED)
            rc = cht_rdb_rc(t->db, r, t->object, err);
        else
            rc = wait_for_other(t->db, &t->places[i], refused, err);
        *refused = *refused || ++tries == WAITS * t->n;
    }
    return rc;
}

/* ---- the snapshot ---------------------------------------------------------------------------------------------------- */

static enum cht_rc refused_snapshot(const struct cht_rdb *db, int r, struct cht_err *err)
{
    char why[100];
    enum cht_os_code code = cht_os_code(r);
    if (code == CHT_OS_TIMED_OUT)
        return CHT_FAIL(err, CHT_TIMEOUT, "pool %s: the monitors did not answer in time", db->env->pool);
    if (code != CHT_OS_OTHER && code != CHT_OS_UNSUPPORTED)
        return cht_link_rc(r, db->env->pool, err);
    cht_os_code_text(r, why, sizeof why);
    return CHT_FAIL(err, CHT_NOT_SUPPORTED, "the cluster makes no snapshot of pool %.60s for this user: %s",
                    db->env->pool, why);
}

/* M3. */
static enum cht_rc make_snapshot(struct cht_moment *m, uint64_t id, struct cht_err *err)
{
    struct cht_rdb *db = m->db;
    rados_snap_t snap = 0;
    cht_snaps_name(m->name, db->uuid, id);
    cht_rdb_step(db, "moment-snapshot");
    int r = rados_ioctx_snap_create(db->io, m->name);
    if (r == 0)
        r = rados_ioctx_snap_lookup(db->io, m->name, &snap);
    m->snap = snap;
    m->when = cht_wall_ns();
    return r < 0 ? refused_snapshot(db, r, err) : CHT_OK;
}

static void remove_snapshot(struct cht_moment *m)
{
    if (m->name[0] != 0)
        (void)rados_ioctx_snap_remove(m->db->io, m->name); /* what stays is removed by cht_moment_clean */
    m->name[0] = 0;
}

/* M2 to M5. *refused: again. */
static enum cht_rc go_on(struct cht_moment *m, struct cht_txn *t, bool in_order, bool *refused,
                         struct cht_err *err)
{
    cht_rdb_step(t->db, "moment-lock");
    enum cht_rc rc = in_order ? lock_in_order(t, refused, err) : lock_all(t, refused, err);
    if (rc == CHT_OK && !*refused)
        rc = make_snapshot(m, t->id, err);
    if (rc != CHT_OK || *refused) {
        if (cht_txn_state(t, "P", "A") == 0)
            (void)cht_txn_give_up(t, NULL); /* what is left of it is settled by whoever meets it */
        return rc;
    }
    cht_rdb_step(t->db, "moment-commit");
    int r = cht_txn_state(t, "P", "C");
    *refused = cht_os_code(r) == CHT_OS_CANCELED || cht_os_code(r) == CHT_OS_NOT_THERE;
    if (*refused)
        (void)cht_txn_give_up(t, NULL);
    if (r < 0)
        return *refused ? CHT_OK : cht_rdb_rc(t->db, r, t->object, err);
    cht_rdb_step(t->db, "moment-unlock");
    (void)cht_txn_finish(t, NULL); /* what is left of it is settled by whoever meets it */
    return CHT_OK;
}

static enum cht_rc take_once(struct cht_moment *m, bool in_order, bool *refused, struct cht_err *err)
{
    struct cht_txn t = {.db = m->db};
    *refused = false;
    m->map = cht_rdb_map(m->db);
    enum cht_rc rc = make_record(&t, m->map, err);
    cht_rdb_step(m->db, "moment-create");
    if (rc == CHT_OK)
        rc = cht_rdb_rc(m->db, make_object(&t), t.object, err);
    if (rc == CHT_OK)
        rc = go_on(m, &t, in_order, refused, err);
    cht_txn_fini(&t);
    if (rc != CHT_OK || *refused)
        remove_snapshot(m);
    return rc;
}

static enum cht_rc begin(struct cht_rdb *db, struct cht_err *err)
{
    if (atomic_exchange(&db->backing_up, true))
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "a backup of %s is under way; one at a time", db->name);
    enum cht_rc rc = cht_guard_take_plain(db, GUARD, err);
    if (rc == CHT_OK)
        return CHT_OK;
    atomic_store(&db->backing_up, false);
    if (rc == CHT_LOCKED)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY,
                      "another server makes a backup of %s, or did so half a minute ago; one at a time",
                      db->name);
    return rc;
}

static void end(struct cht_rdb *db)
{
    cht_rdb_hold(db); /* without the lock it may be closed */
    cht_guard_give(db, GUARD);
    atomic_store(&db->backing_up, false); /* after: the next one here would have the same lock, and lose it */
    cht_rdb_put(db);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_moment_take(struct cht_rdb *db, struct cht_moment *out, struct cht_err *err)
{
    rados_ioctx_t io;
    bool refused = true;
    *out = (struct cht_moment){.db = db};
    enum cht_rc rc = begin(db, err);
    if (rc != CHT_OK)
        return rc;
    out->guarded = true;
    cht_snaps_remove(db->io, db->uuid);
    rc = cht_rdb_reload(db, err);
    for (unsigned i = 0; i < TRIES && rc == CHT_OK && refused; i++) {
        rc = take_once(out, i > 0, &refused, err);
        if (rc == CHT_OK && refused)
            rc = cht_rdb_reload(db, err);
    }
    if (rc == CHT_OK && refused)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is written to so much that it cannot be stopped",
                      db->name);
    if (rc == CHT_OK)
        rc = cht_link_space(&db->env->link, db->env->pool, db->uuid, &io, err);
    if (rc == CHT_OK) {
        rados_ioctx_snap_set_read(io, out->snap);
        out->io = io;
    } else {
        cht_moment_end(out);
    }
    return rc;
}

enum cht_rc cht_moment_there(const struct cht_moment *m, struct cht_err *err)
{
    rados_snap_t snap = 0;
    int r = rados_wait_for_latest_osdmap(m->db->env->link.cluster);
    if (r == 0)
        r = rados_ioctx_snap_lookup(m->io, m->name, &snap);
    if (cht_os_code(r) == CHT_OS_TIMED_OUT)
        return CHT_FAIL(err, CHT_TIMEOUT, "pool %s: the monitors did not answer in time", m->db->env->pool);
    if (r < 0 || snap != m->snap)
        return CHT_FAIL(err, CHT_IO, "snapshot %s is gone", m->name);
    return CHT_OK;
}

void cht_moment_end(struct cht_moment *m)
{
    if (m->io != NULL)
        rados_ioctx_destroy(m->io);
    m->io = NULL;
    if (!m->guarded)
        return;
    cht_rdb_step(m->db, "moment-end");
    remove_snapshot(m);
    m->guarded = false;
    end(m->db);
}

void cht_moment_clean(struct cht_rdb *db)
{
    if (!cht_snaps_any(db->io, db->uuid) || begin(db, NULL) != CHT_OK)
        return;
    cht_snaps_remove(db->io, db->uuid);
    end(db);
}
