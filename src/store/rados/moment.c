/* moment: see moment.h. */
#include "store/rados/moment.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"
#include "store/rados/still.h"

#include <string.h>

#define GUARD "backup"
#define TRIES 8u

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
    enum cht_rc rc = cht_still_lock(t, in_order, refused, err);
    if (rc == CHT_OK && !*refused)
        rc = make_snapshot(m, t->id, err);
    if (rc != CHT_OK || *refused) {
        cht_still_back(t);
        return rc;
    }
    cht_rdb_step(t->db, "moment-commit");
    rc = cht_still_held(t, refused, err);
    if (rc != CHT_OK || *refused)
        return rc;
    cht_rdb_step(t->db, "moment-unlock");
    (void)cht_txn_finish(t, NULL); /* what is left of it is settled by whoever meets it */
    return CHT_OK;
}

static enum cht_rc take_once(struct cht_moment *m, bool in_order, bool *refused, struct cht_err *err)
{
    struct cht_txn t = {.db = m->db};
    *refused = false;
    m->map = cht_rdb_map(m->db);
    t.generation = t.after = cht_rdb_generation(m->db);
    cht_rdb_step(m->db, "moment-create");
    enum cht_rc rc = cht_still_make(&t, m->map, err);
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
