/* renv: the databases of a pool (cheetah/rados.h): the environment. Which ones there are says catalogue.h.
 */
#include "store/rados/care.h"
#include "store/rados/catalogue.h"
#include "store/rados/follow.h"
#include "store/rados/restore.h"
#include "store/rados/rowset.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct cht_renv *of(struct cht_env *env) { return (struct cht_renv *)(void *)env; }
static const struct cht_renv *of_const(const struct cht_env *env)
{
    return (const struct cht_renv *)(const void *)env;
}

static struct cht_rdb **place_of(struct cht_renv *env, const char *name)
{
    struct cht_rdb **at = &env->open;
    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static struct cht_rdb *find_open(struct cht_renv *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    struct cht_rdb *db = *place_of(env, name);
    cht_mutex_unlock(&env->mu);
    return db;
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static void renv_free(struct cht_renv *env)
{
    cht_pulse_stop(&env->pulse);
    cht_follow_fini(&env->follow);
    cht_guards_fini(&env->guards);
    cht_jobs_free(env->jobs);
    cht_link_close(&env->link);
    cht_mutex_fini(&env->restoring);
    cht_mutex_fini(&env->making);
    cht_mutex_fini(&env->mu);
    cht_free(env->pool);
    cht_free(env->conf);
    cht_free(env->id);
    cht_free(env->spool_dir);
    cht_free(env);
}

static enum cht_rc renv_close(struct cht_env *base, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    (void)err;
    atomic_store(&env->care.over, true);
    for (;;) {
        cht_mutex_lock(&env->mu);
        struct cht_rdb *db = env->open;
        env->open = db != NULL ? db->next : NULL;
        cht_mutex_unlock(&env->mu);
        if (db == NULL)
            break;
        cht_rdb_close(db);
    }
    renv_free(env);
    return CHT_OK;
}

static void renv_abandon(struct cht_env *base)
{
    (void)renv_close(base, NULL); /* there is nothing to bring home */
}

static void renv_quiet(struct cht_env *base) { cht_care(of(base)); }

static enum cht_rc renv_create(struct cht_env *base, const char *name, unsigned shards, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct cht_listed e;
    cht_mutex_lock(&env->making);
    enum cht_rc rc = cht_catalogue_begin(env, name, shards, 'c', &e, err);
    if (rc == CHT_OK)
        rc = cht_catalogue_end(env, &e, err);
    cht_mutex_unlock(&env->making);
    return rc;
}

static enum cht_rc renv_get(struct cht_env *base, const char *name, struct cht_store **out,
                            struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct cht_listed e;
    struct cht_rdb *db = find_open(env, name);
    if (db != NULL) { /* whatever the cluster does */
        *out = &db->base;
        return CHT_OK;
    }
    cht_mutex_lock(&env->making);
    db = find_open(env, name);
    enum cht_rc rc = db == NULL ? cht_catalogue_find(env, name, &e, err) : CHT_OK;
    if (rc == CHT_OK && db == NULL && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    if (rc == CHT_OK && db == NULL) {
        rc = cht_rdb_open(env, name, e.uuid, &db, err);
        if (rc == CHT_OK) {
            cht_mutex_lock(&env->mu);
            db->next = env->open;
            env->open = db;
            cht_mutex_unlock(&env->mu);
        }
    }
    if (rc == CHT_OK)
        *out = &db->base;
    cht_mutex_unlock(&env->making);
    return rc;
}

static void close_open(struct cht_renv *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    struct cht_rdb **at = place_of(env, name), *db = *at;
    if (db != NULL)
        *at = db->next;
    cht_mutex_unlock(&env->mu);
    if (db != NULL)
        cht_rdb_close(db);
}

static enum cht_rc renv_release(struct cht_env *base, const char *name, bool *closed, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    (void)err;
    cht_mutex_lock(&env->making);
    close_open(env, name);
    *closed = true;
    cht_mutex_unlock(&env->making);
    return CHT_OK;
}

static enum cht_rc renv_is_clean(struct cht_env *base, const char *name, bool *clean, struct cht_err *err)
{
    struct cht_listed e;
    enum cht_rc rc = cht_catalogue_find(of(base), name, &e, err);
    *clean = true;
    if (rc == CHT_OK && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    return rc;
}

static enum cht_rc renv_drop(struct cht_env *base, const char *name, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct cht_listed e;
    cht_mutex_lock(&env->making);
    enum cht_rc rc = cht_catalogue_find(env, name, &e, err);
    if (rc == CHT_OK && e.state == 'r' && !cht_listed_is_left(&e))
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being restored", name);
    if (rc == CHT_OK && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    if (rc == CHT_OK) {
        close_open(env, name);
        rc = cht_catalogue_remove(env, &e, err);
    }
    cht_mutex_unlock(&env->making);
    return rc;
}

static enum cht_rc renv_list(struct cht_env *base, void (*fn)(void *, const char *), void *ctx,
                             struct cht_err *err)
{
    struct cht_catalogue l;
    enum cht_rc rc = cht_catalogue_list(of(base), &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        if (l.v[i].state == 'l')
            fn(ctx, l.v[i].name);
    }
    cht_free(l.v);
    return rc;
}

static enum cht_rc renv_finish(struct cht_env *base,
                               void (*fn)(void *, const char *, enum cht_rc, const char *), void *ctx,
                               struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct cht_catalogue l;
    enum cht_rc rc = cht_catalogue_list(env, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        struct cht_listed *e = &l.v[i];
        struct cht_err why = {0};
        if (!cht_listed_is_left(e))
            continue;
        const char *what = e->state == 'c'   ? "an unfinished creation is removed"
                           : e->state == 'r' ? "an unfinished restore is removed"
                                             : "an unfinished deletion is completed";
        enum cht_rc one = cht_catalogue_remove(env, e, &why);
        fn(ctx, e->name, one, one == CHT_OK ? what : why.msg);
    }
    cht_free(l.v);
    return rc;
}

static bool renv_unfinished(const struct cht_env *base)
{
    (void)of_const(base);
    return false; /* found at the next start, or by any server (care.c) */
}

static enum cht_rc renv_health(struct cht_env *base, struct cht_err *err)
{
    return cht_pulse_ask(&of(base)->pulse, err);
}

static uint64_t of_counter(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void renv_remote_stats(struct cht_env *base, struct cht_remote_stats *out)
{
    struct cht_renv *env = of(base);
    const struct cht_call_counts *c = &cht_call_counts;
    *out = (struct cht_remote_stats){.reads = of_counter(&c->reads),
                                     .writes = of_counter(&c->writes),
                                     .read_ns = of_counter(&c->read_ns),
                                     .write_ns = of_counter(&c->write_ns),
                                     .refused = of_counter(&c->refused),
                                     .timeouts = of_counter(&c->timeouts),
                                     .failed = of_counter(&c->failed),
                                     .reconnects = atomic_load(&env->link.made),
                                     .silent_ns = cht_pulse_silent(&env->pulse),
                                     .locks = atomic_load(&env->guards.locks),
                                     .locks_lost = atomic_load(&env->guards.lost),
                                     .full = atomic_load(&env->link.full)};
    cht_mutex_lock(&env->mu);
    for (const struct cht_rdb *db = env->open; db != NULL; db = db->next)
        out->waiting += of_counter(&db->waiting);
    cht_mutex_unlock(&env->mu);
}

static const struct cht_env_ops renv_ops = {
    .close = renv_close,
    .abandon = renv_abandon,
    .quiet = renv_quiet,
    .create = renv_create,
    .get = renv_get,
    .release = renv_release,
    .is_clean = renv_is_clean,
    .drop = renv_drop,
    .list = renv_list,
    .finish = renv_finish,
    .unfinished = renv_unfinished,
    .health = renv_health,
    .remote_stats = renv_remote_stats,
    .restore_new = cht_rrestore_new,
};

/* False: no memory. */
static bool copy_text(const char *text, char **out)
{
    *out = text != NULL ? cht_strdup(text) : NULL;
    return text == NULL || *out != NULL;
}

static enum cht_rc copy_config(struct cht_renv *env, const struct cht_rados_config *cfg, struct cht_err *err)
{
    env->cfg = *cfg;
    env->cfg.settle_ms = cfg->settle_ms != 0 ? cfg->settle_ms : 5000;
    env->cfg.threads = cfg->threads != 0 ? cfg->threads : 32;
    env->cfg.queue_ops = cfg->queue_ops != 0 ? cfg->queue_ops : 65536;
    env->cfg.changes_bytes = cfg->changes_bytes != 0 ? cfg->changes_bytes : UINT64_C(64) << 20;
    env->cfg.read_bytes = cfg->read_bytes != 0 ? cfg->read_bytes : CHT_ROWSET_READ_MAX;
    env->cfg.split_pairs = cfg->split_pairs != 0 ? cfg->split_pairs : 100000;
    env->cfg.default_shards = cfg->default_shards != 0 ? cfg->default_shards : 8;
    env->cfg.max_value_size = cfg->max_value_size != 0 ? cfg->max_value_size : CHT_VALUE_DEFAULT_MAX;
    env->spool.most = cfg->spool_bytes != 0 ? cfg->spool_bytes : CHT_SPOOL_BYTES;
    bool good = copy_text(cfg->pool, &env->pool) && copy_text(cfg->conf, &env->conf) &&
                copy_text(cfg->id, &env->id) &&
                copy_text(cfg->spool_dir != NULL ? cfg->spool_dir : "/var/tmp", &env->spool_dir);
    if (!good)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the environment");
    env->cfg.pool = env->pool;
    env->cfg.conf = env->conf;
    env->cfg.id = env->id;
    env->cfg.spool_dir = env->spool_dir;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rados_open(const struct cht_rados_config *cfg, struct cht_env **out, struct cht_err *err)
{
    struct cht_renv *env = cht_calloc(1, sizeof *env);
    if (env == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the environment");
    env->head.ops = &renv_ops;
    enum cht_rc rc = cht_mutex_init(&env->mu, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&env->making, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&env->restoring, err);
    if (rc == CHT_OK)
        rc = cht_follow_init(&env->follow, err);
    if (rc == CHT_OK)
        rc = copy_config(env, cfg, err);
    cht_os_random(&env->key, sizeof env->key);
    if (rc == CHT_OK)
        rc = cht_guards_init(&env->guards, err);
    if (rc == CHT_OK) {
        struct cht_jobs_config jobs = {.name = "cht-rados",
                                       .threads = env->cfg.threads,
                                       .per_owner = env->cfg.threads,
                                       .idle_ns = UINT64_C(10000000000)};
        rc = cht_jobs_new(&jobs, &env->jobs, err);
    }
    if (rc == CHT_OK)
        rc = cht_link_open(&env->cfg, &env->link, err);
    if (rc == CHT_OK)
        rc = cht_catalogue_open(env, err);
    if (rc == CHT_OK)
        env->pulse.reads = env->cfg.look ? CHT_CATALOGUE : NULL;
    if (rc == CHT_OK)
        rc = cht_pulse_start(&env->pulse, &env->link, &env->guards, err);
    if (rc != CHT_OK) {
        renv_free(env);
        return rc;
    }
    *out = (struct cht_env *)(void *)env;
    return CHT_OK;
}
