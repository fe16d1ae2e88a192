/* hold: who still needs a database, and what an answer about one of its objects means. See rdb.h. */
#include "store/rados/rdb.h"

#include "os/code.h"

/* The database's objects by the newest connection. */
static void renew(struct cht_rdb *db)
{
    rados_ioctx_t io;
    struct cht_link *l = &db->env->link;
    unsigned made = atomic_load(&l->made);
    if (atomic_load(&db->io_made) == made || cht_link_space(l, db->env->pool, db->uuid, &io, NULL) != CHT_OK)
        return;
    cht_mutex_lock(&db->mu);
    if (db->io_made < made && db->old_ios < CHT_LINK_MADE_MAX) {
        db->old_io[db->old_ios++] = db->io; /* calls may be under way on it */
        db->io = io;
        db->io_made = made;
        io = NULL;
    }
    cht_mutex_unlock(&db->mu);
    if (io != NULL)
        rados_ioctx_destroy(io);
}

enum cht_rc cht_rdb_answer(struct cht_rdb *db, int result, const char *object, struct cht_err *err)
{
    if (result >= 0)
        return CHT_OK;
    if (cht_os_code(result) == CHT_OS_SHUT_OUT &&
        atomic_load(&db->io_made) != atomic_load(&db->env->link.made)) {
        renew(db); /* that was the connection before */
        return CHT_FAIL(err, CHT_TIMEOUT,
                        "object %s: the cluster has shut this process out; it connects anew", object);
    }
    enum cht_rc rc = cht_link_answer(&db->env->link, result, object, err);
    if (cht_os_code(result) == CHT_OS_SHUT_OUT)
        renew(db);
    return rc;
}

enum cht_rc cht_rdb_dropped(const struct cht_rdb *db, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_DATABASE_DROPPED, "database %s was dropped by another server", db->name);
}

enum cht_rc cht_rdb_rc(struct cht_rdb *db, int result, const char *object, struct cht_err *err)
{
    if (cht_os_code(result) == CHT_OS_NOT_THERE)
        return cht_rdb_dropped(db, err);
    return cht_rdb_answer(db, result, object, err);
}

enum cht_rc cht_rdb_closes(const struct cht_rdb *db, struct cht_err *err)
{
    return atomic_load(&db->closing) || atomic_load(&db->env->care.over)
               ? CHT_FAIL(err, CHT_CANCELLED, "cancelled")
               : CHT_OK;
}

void cht_rdb_hold(struct cht_rdb *db)
{
    cht_mutex_lock(&db->mu);
    db->busy++;
    cht_mutex_unlock(&db->mu);
}

void cht_rdb_put(struct cht_rdb *db)
{
    cht_mutex_lock(&db->mu);
    if (--db->busy == 0)
        cht_cond_broadcast(&db->calm);
    cht_mutex_unlock(&db->mu);
}
