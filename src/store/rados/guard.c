/* guard: see guard.h. */
#include "store/rados/guard.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"
#include "store/rados/fence.h"

#include <stdio.h>
#include <string.h>

#define OBJECT "h"

struct cht_guard {
    struct cht_guard *next;
    struct cht_rdb *db;
    char name[CHT_GUARD_NAME_MAX + 1];
    uint64_t
        renewed_ns; /* guarded by the mutex of all; when the last renewal that was granted was asked for */
    bool lost;      /* as this */
    bool plain;     /* nothing is written under it */
    struct cht_fence fence;
};

enum cht_rc cht_guards_init(struct cht_guards *g, struct cht_err *err)
{
    uint8_t b[16];
    cht_os_random(b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++)
        (void)snprintf(g->cookie + 2 * i, 3, "%02x", b[i]); /* fits */
    enum cht_rc rc = cht_mutex_init(&g->mu, err);
    g->up = rc == CHT_OK;
    return rc;
}

void cht_guards_fini(struct cht_guards *g)
{
    if (g->up)
        cht_mutex_fini(&g->mu);
    g->up = false;
}

static int take(struct cht_rdb *db, const char *name, uint8_t flags)
{
    struct timeval how_long = {.tv_sec = CHT_GUARD_SECONDS};
    return rados_lock_exclusive(atomic_load(&db->io), OBJECT, name, db->env->guards.cookie, "cheetah-db",
                                &how_long, flags);
}

static enum cht_rc take_new(struct cht_rdb *db, const char *name, bool plain, struct cht_err *err)
{
    struct cht_guards *g = &db->env->guards;
    struct cht_guard *mine = cht_calloc(1, sizeof *mine);
    if (mine == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a lock");
    (void)snprintf(mine->name, sizeof mine->name, "%s", name); /* ours, short */
    mine->db = db;
    mine->plain = plain;
    mine->renewed_ns = cht_now_ns();
    int r =
        take(db, name, LIBRADOS_LOCK_FLAG_MAY_RENEW); /* an answer to an earlier attempt may have been lost */
    if (r < 0) {
        cht_free(mine);
        if (cht_os_code(r) == CHT_OS_BUSY)
            return CHT_FAIL(err, CHT_LOCKED, "another server has the lock '%s' of database %s", name,
                            db->name);
        return cht_rdb_rc(db, r, OBJECT, err);
    }
    enum cht_rc rc = plain ? CHT_OK : cht_fence_raise(db, name, &mine->fence, err);
    if (rc != CHT_OK) {
        (void)rados_unlock(atomic_load(&db->io), OBJECT, name, g->cookie); /* else it ends by itself */
        cht_free(mine);
        return rc;
    }
    cht_rdb_hold(db);
    cht_mutex_lock(&g->mu);
    mine->next = g->held;
    g->held = mine;
    atomic_fetch_add(&g->locks, 1);
    cht_mutex_unlock(&g->mu);
    return CHT_OK;
}

enum cht_rc cht_guard_take(struct cht_rdb *db, const char *name, struct cht_err *err)
{
    return take_new(db, name, false, err);
}

enum cht_rc cht_guard_take_plain(struct cht_rdb *db, const char *name, struct cht_err *err)
{
    return take_new(db, name, true, err);
}

void cht_guard_give(struct cht_rdb *db, const char *name)
{
    struct cht_guards *g = &db->env->guards;
    cht_mutex_lock(&g->mu);
    struct cht_guard **at = &g->held;
    while (*at != NULL && ((*at)->db != db || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    struct cht_guard *mine = *at;
    if (mine != NULL) {
        *at = mine->next;
        atomic_fetch_sub(&g->locks, 1);
        atomic_fetch_sub(&g->lost, mine->lost);
    }
    cht_mutex_unlock(&g->mu);
    if (mine == NULL)
        return;
    (void)rados_unlock(atomic_load(&db->io), OBJECT, name, g->cookie); /* else it ends by itself */
    cht_free(mine);
    cht_rdb_put(db);
}

static void lose(struct cht_guards *g, struct cht_guard *at)
{
    if (!at->lost)
        atomic_fetch_add(&g->lost, 1);
    at->lost = true;
}

/* With mu for all of them: one that is given back meanwhile would be looked at when it is gone. */
void cht_guards_renew(struct cht_guards *g)
{
    cht_mutex_lock(&g->mu);
    for (struct cht_guard *at = g->held; at != NULL; at = at->next) {
        uint64_t now = cht_now_ns();
        int r = at->lost ? 0 : take(at->db, at->name, LIBRADOS_LOCK_FLAG_MUST_RENEW);
        if (r == 0 && !at->lost)
            at->renewed_ns = now;
        else if (cht_os_code(r) == CHT_OS_NOT_THERE || cht_os_code(r) == CHT_OS_BUSY)
            lose(g, at); /* of any other failure the next beat tries again */
    }
    cht_mutex_unlock(&g->mu);
}

void cht_guards_fences(struct cht_rdb *db, struct cht_fences *out)
{
    struct cht_guards *g = &db->env->guards;
    out->n = 0;
    cht_mutex_lock(&g->mu);
    for (const struct cht_guard *at = g->held; at != NULL && out->n < CHT_FENCES_MAX; at = at->next) {
        if (at->db == db && !at->plain)
            out->v[out->n++] = at->fence;
    }
    cht_mutex_unlock(&g->mu);
}

enum cht_rc cht_guards_kept(struct cht_rdb *db, struct cht_err *err)
{
    struct cht_guards *g = &db->env->guards;
    bool kept = true;
    cht_mutex_lock(&g->mu);
    for (const struct cht_guard *at = g->held; at != NULL; at = at->next)
        kept = kept &&
               (at->db != db || at->plain ||
                (!at->lost && cht_now_ns() - at->renewed_ns < CHT_GUARD_KEPT_SECONDS * UINT64_C(1000000000)));
    cht_mutex_unlock(&g->mu);
    if (kept)
        return CHT_OK;
    return CHT_FAIL(err, CHT_DATABASE_BUSY,
                    "this server was silent for so long that another may count into database %s", db->name);
}
