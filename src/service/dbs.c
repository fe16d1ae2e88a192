/* dbs: see dbs.h. open_mu serialises opening and dropping, which do file work; lock guards the list and is held for
 * moments only. Order: open_mu, lock.
 */
#include "service/dbs.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/thread.h"

#include <string.h>

struct dbs {
    struct cht_env *env;
    struct cht_mutex open_mu;
    struct cht_rwlock lock;
    struct database *list; /* guarded by lock */
};

static struct database *find(struct dbs *t, const char *name)
{
    struct database *d = t->list;
    while (d != NULL && strcmp(d->name, name) != 0)
        d = d->next;
    return d;
}

static void unlist(struct dbs *t, struct database *d)
{
    struct database **at = &t->list;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
}

/* open_mu held. */
static enum cht_rc open_listed(struct dbs *t, const char *name, struct database **out, struct cht_err *err)
{
    struct database *d = cht_calloc(1, sizeof *d);
    if (d == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a database");
    enum cht_rc rc = cht_env_get(t->env, name, &d->store, err);
    if (rc != CHT_OK) {
        cht_free(d);
        return rc;
    }
    memcpy(d->name, name, strlen(name) + 1);
    atomic_store_explicit(&d->users, 1, memory_order_relaxed);
    cht_rwlock_write(&t->lock);
    struct database **at = &t->list; /* at the end: "default" comes first and is found first */
    while (*at != NULL)
        at = &(*at)->next;
    *at = d;
    cht_rwlock_write_end(&t->lock);
    *out = d;
    return CHT_OK;
}

static bool wait_unused(struct database *d, uint64_t wait_ns)
{
    uint64_t end = cht_now_ns() + wait_ns;
    while (atomic_load_explicit(&d->users, memory_order_acquire) > 0) {
        if (cht_now_ns() > end)
            return false;
        cht_sleep_ns(1000000);
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc dbs_new(struct cht_env *env, struct dbs **out, struct cht_err *err)
{
    struct dbs *t = cht_aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    if (t == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the databases");
    memset(t, 0, sizeof *t);
    t->env = env;
    enum cht_rc rc = cht_mutex_init(&t->open_mu, err);
    if (rc == CHT_OK)
        rc = cht_rwlock_init(&t->lock, err);
    if (rc != CHT_OK) {
        cht_free(t);
        return rc;
    }
    *out = t;
    return CHT_OK;
}

void dbs_free(struct dbs *t)
{
    if (t == NULL)
        return;
    while (t->list != NULL) {
        struct database *d = t->list;
        t->list = d->next;
        cht_free(d);
    }
    cht_rwlock_fini(&t->lock);
    cht_mutex_fini(&t->open_mu);
    cht_free(t);
}

struct database *dbs_get(struct dbs *t, const char *name)
{
    cht_rwlock_read(&t->lock);
    struct database *d = find(t, name);
    if (d != NULL && atomic_load_explicit(&d->dropping, memory_order_relaxed))
        d = NULL;
    if (d != NULL)
        dbs_hold(d);
    cht_rwlock_read_end(&t->lock);
    return d;
}

void dbs_hold(struct database *d) { atomic_fetch_add_explicit(&d->users, 1, memory_order_relaxed); }

/* Release pairs with the acquire of wait_unused: what was done with the database is done. */
void dbs_put(struct database *d)
{
    if (d != NULL)
        atomic_fetch_sub_explicit(&d->users, 1, memory_order_release);
}

enum cht_rc dbs_open(struct dbs *t, const char *name, bool create, unsigned shards, struct database **out,
                     bool *created, struct cht_err *err)
{
    *created = false;
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "%s", cht_rc_text(CHT_INVALID_DATABASE_NAME));
    cht_mutex_lock(&t->open_mu);
    enum cht_rc rc = CHT_OK;
    *out = dbs_get(t, name);
    if (*out == NULL) {
        rc = open_listed(t, name, out, err);
        if (rc == CHT_DATABASE_NOT_FOUND && create) {
            rc = cht_env_create(t->env, name, shards, err);
            *created = rc == CHT_OK;
            if (rc == CHT_OK)
                rc = open_listed(t, name, out, err);
        }
    }
    cht_mutex_unlock(&t->open_mu);
    return rc;
}

enum cht_rc dbs_drop(struct dbs *t, const char *name, uint64_t wait_ns, struct cht_err *err)
{
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "%s", cht_rc_text(CHT_INVALID_DATABASE_NAME));
    cht_mutex_lock(&t->open_mu);
    enum cht_rc rc = CHT_OK;
    cht_rwlock_write(&t->lock);
    struct database *d = find(t, name);
    if (d != NULL)
        atomic_store_explicit(&d->dropping, true, memory_order_release);
    cht_rwlock_write_end(&t->lock);
    if (d != NULL && !wait_unused(d, wait_ns)) {
        atomic_store_explicit(&d->dropping, false, memory_order_release);
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "%s is still being used; try again", name);
    } else if (d != NULL) {
        cht_rwlock_write(&t->lock);
        unlist(t, d);
        cht_rwlock_write_end(&t->lock);
        cht_free(d);
    }
    if (rc == CHT_OK)
        rc = cht_env_drop(t->env, name, err);
    if (rc == CHT_OK && strcmp(name, CHT_DATABASE_DEFAULT) == 0) {
        struct database *fresh = NULL;
        rc = cht_env_create(t->env, name, 0, err);
        if (rc == CHT_OK)
            rc = open_listed(t, name, &fresh, err);
        dbs_put(fresh);
    }
    cht_mutex_unlock(&t->open_mu);
    return rc;
}

enum cht_rc dbs_list(struct dbs *t, void (*fn)(void *ctx, const char *name), void *ctx, struct cht_err *err)
{
    return cht_env_list(t->env, fn, ctx, err);
}

/* The first from d on that is not being dropped, held. The lock is held. */
static struct database *hold_from(struct database *d)
{
    while (d != NULL && atomic_load_explicit(&d->dropping, memory_order_relaxed))
        d = d->next;
    if (d != NULL)
        dbs_hold(d);
    return d;
}

/* One that is held stays listed, so the walk can go on from it. */
void dbs_each(struct dbs *t, void (*fn)(void *ctx, struct database *d), void *ctx)
{
    cht_rwlock_read(&t->lock);
    struct database *d = hold_from(t->list);
    cht_rwlock_read_end(&t->lock);
    while (d != NULL) {
        fn(ctx, d);
        cht_rwlock_read(&t->lock);
        struct database *next = hold_from(d->next);
        cht_rwlock_read_end(&t->lock);
        dbs_put(d);
        d = next;
    }
}
