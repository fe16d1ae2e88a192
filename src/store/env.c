/* env: the data directories, their locks, the worker pools, and which databases are open. */
#include "store/db.h"

#include "base/alloc.h"

#include <string.h>

#define WORKERS_MAX 8u
#define DIRTY_MIN (4u << 20)
#define CLOSERS 8u

static void fill_defaults(struct cht_env_config *c)
{
    if (c->interval_ms == 0)
        c->interval_ms = 50;
    if (c->max_value_size == 0)
        c->max_value_size = CHT_VALUE_DEFAULT_MAX;
    if (c->checkpoint_log_bytes == 0)
        c->checkpoint_log_bytes = UINT64_C(1) << 30;
    if (c->log_segment_bytes == 0)
        c->log_segment_bytes = UINT64_C(64) << 20;
    if (c->changes_bytes == 0)
        c->changes_bytes = UINT64_C(64) << 20;
    if (c->memory == 0)
        c->memory = cht_os_memory();
    if (c->dirty_bytes == 0)
        c->dirty_bytes = c->memory / 4;
    if (c->dirty_bytes < DIRTY_MIN)
        c->dirty_bytes = DIRTY_MIN;
    unsigned cores = cht_os_cores() < WORKERS_MAX ? cht_os_cores() : WORKERS_MAX;
    if (c->scan_workers == 0)
        c->scan_workers = cores;
    if (c->commit_threads == 0)
        c->commit_threads = cores;
    if (c->default_shards == 0)
        c->default_shards = 8;
}

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the environment");
}

static enum cht_rc open_dirs(struct cht_env *env, const char *const *dirs, struct cht_err *err)
{
    env->dirs = cht_calloc(env->ndirs, sizeof *env->dirs);
    env->locks = cht_calloc(env->ndirs, sizeof(struct cht_file *));
    env->lock_ids = cht_calloc(env->ndirs, sizeof *env->lock_ids);
    env->pools = cht_calloc(env->ndirs, sizeof(struct cht_pool *));
    env->sets = cht_calloc(env->ndirs, sizeof *env->sets);
    if (env->dirs == NULL || env->locks == NULL || env->lock_ids == NULL || env->pools == NULL ||
        env->sets == NULL)
        return no_memory(err);
    for (size_t i = 0; i < env->ndirs; i++) {
        env->dirs[i] = cht_strdup(dirs[i]);
        if (env->dirs[i] == NULL)
            return no_memory(err);
    }
    enum cht_rc rc = cht_dirs_open(env, err);
    for (size_t i = 0; i < env->ndirs && rc == CHT_OK; i++)
        rc = cht_pool_new(env->cfg.scan_workers, "cht-scan", &env->pools[i], err);
    return rc;
}

static enum cht_rc check_config(const struct cht_env_config *c, struct cht_err *err)
{
    if (c->dir_count == 0 || c->dir_count > CHT_SHARDS_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%zu data directories; 1 to %u are allowed", c->dir_count,
                        CHT_SHARDS_MAX);
    if (c->max_value_size > CHT_VALUE_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "max_value_size %u; at most %u", c->max_value_size,
                        CHT_VALUE_MAX);
    if (c->default_shards > CHT_SHARDS_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%u shards; at most %u", c->default_shards,
                        CHT_SHARDS_MAX);
    return CHT_OK;
}

/* Frees what env_open got; the databases are closed already. */
static void env_free(struct cht_env *env)
{
    for (size_t i = 0; i < env->ndirs; i++) {
        if (env->pools != NULL)
            cht_pool_free(env->pools[i]);
    }
    cht_crew_free(env->crew);
    cht_free(env->pools);
    cht_dirs_close(env);
    for (size_t i = 0; env->dirs != NULL && i < env->ndirs; i++)
        cht_free(env->dirs[i]);
    cht_free(env->dirs);
    cht_free(env->open);
    cht_cond_fini(&env->calm);
    cht_mutex_fini(&env->set_mu);
    cht_mutex_fini(&env->mu);
    cht_free(env);
}

struct closing { /* of all databases at the end, by several threads: a close mostly waits for the disk */
    struct cht_env *env;
    bool checkpoint;
    _Atomic size_t next;
    struct cht_mutex mu;
    struct cht_cond done;
    unsigned running; /* guarded by mu, as are the next two */
    enum cht_rc rc;
    struct cht_err err;
};

struct closer {
    struct cht_job job; /* first */
    struct closing *c;
};

static void close_some(struct closing *c)
{
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed);
        struct cht_err err = {0};
        if (i >= c->env->nopen)
            return;
        enum cht_rc rc = cht_db_close(c->env->open[i], c->checkpoint, &err);
        cht_mutex_lock(&c->mu);
        if (rc != CHT_OK && c->rc == CHT_OK) {
            c->rc = rc;
            c->err = err;
        }
        cht_mutex_unlock(&c->mu);
    }
}

static void closer_run(struct cht_job *j)
{
    struct closing *c = ((struct closer *)j)->c;
    close_some(c);
    cht_mutex_lock(&c->mu);
    if (--c->running == 0)
        cht_cond_signal(&c->done);
    cht_mutex_unlock(&c->mu);
}

static enum cht_rc close_all(struct cht_env *env, bool checkpoint, struct cht_err *err)
{
    struct closing c = {.env = env, .checkpoint = checkpoint};
    struct closer closers[CLOSERS];
    bool together =
        env->nopen > 1 && cht_mutex_init(&c.mu, NULL) == CHT_OK && cht_cond_init(&c.done, NULL) == CHT_OK;
    unsigned n = together ? CLOSERS : 0; /* they change `running` from the first on */
    c.running = n;
    for (unsigned i = 0; i < n; i++) {
        closers[i] = (struct closer){{.run = closer_run}, &c};
        cht_jobs_submit(env->crew->parts, &closers[i].job);
    }
    close_some(&c);
    cht_mutex_lock(&c.mu);
    while (c.running > 0)
        cht_cond_wait(&c.done, &c.mu);
    cht_mutex_unlock(&c.mu);
    cht_cond_fini(&c.done); /* what was not initialised is all zero, which fini accepts */
    cht_mutex_fini(&c.mu);
    env->nopen = 0;
    if (c.rc != CHT_OK && err != NULL)
        *err = c.err;
    return c.rc;
}

static const struct cht_turn *turn_of(const struct cht_env *env, const char *name)
{
    const struct cht_turn *t = env->turns;
    while (t != NULL && !cht_db_same_letters(t->name, name))
        t = t->next;
    return t;
}

/* Waits until nobody else does anything about the name. CHT_DATABASE_BUSY: a restore does, for which nobody waits. */
static enum cht_rc begin_turn(struct cht_env *env, struct cht_turn *t, const char *name, struct cht_err *err)
{
    const struct cht_turn *other;
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&env->mu);
    while ((other = turn_of(env, name)) != NULL && !other->restoring)
        cht_cond_wait(&env->calm, &env->mu);
    if (other != NULL) {
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being restored", other->name);
    } else {
        *t = (struct cht_turn){.name = name, .next = env->turns};
        env->turns = t;
    }
    cht_mutex_unlock(&env->mu);
    return rc;
}

static void end_turn(struct cht_env *env, struct cht_turn *t)
{
    cht_mutex_lock(&env->mu);
    struct cht_turn **at = &env->turns;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    cht_cond_broadcast(&env->calm);
    cht_mutex_unlock(&env->mu);
}

static enum cht_rc only_looking(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the data directories are only looked at");
}

static enum cht_rc names_of(struct cht_env *env, struct cht_dirs_name **v, size_t *n, struct cht_err *err)
{
    cht_mutex_lock(&env->set_mu);
    enum cht_rc rc = cht_dirs_names(env->io, env->dirs, env->sets, env->ndirs, v, n, err);
    cht_mutex_unlock(&env->set_mu);
    return rc;
}

/* The index of an open database, nopen if it is not. */
static size_t find_open(const struct cht_env *env, const char *name)
{
    size_t i = 0;
    while (i < env->nopen && strcmp(env->open[i]->name, name) != 0)
        i++;
    return i;
}

/* ---- what an environment on files does ------------------------------------------------------------------------- */

static void env_quiet(struct cht_env *env)
{
    if (!env->cfg.manual_checkpoint)
        cht_crew_quiet(env->crew);
    cht_mutex_lock(&env->mu);
    for (size_t i = 0; i < env->nopen; i++) {
        struct cht_db *db = env->open[i];
        uint64_t at = cht_ends_since(db);
        if (at != 0 && cht_ends_due(db, at))
            cht_committer_purge(db->committer);
    }
    cht_mutex_unlock(&env->mu);
}

static enum cht_rc env_close(struct cht_env *env, struct cht_err *err)
{
    enum cht_rc rc = close_all(env, true, err);
    env_free(env);
    return rc;
}

static void env_abandon(struct cht_env *env)
{
    (void)close_all(env, false, NULL); /* nothing is written, so nothing can be lost by a failure */
    env_free(env);
}

static enum cht_rc env_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err)
{
    if (env->cfg.mode == CHT_DIRS_LOOK)
        return only_looking(err);
    struct cht_turn t;
    enum cht_rc rc = begin_turn(env, &t, name, err);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&env->mu);
    t.making = true;
    cht_mutex_unlock(&env->mu);
    rc = cht_db_create(env, name, shards, err);
    end_turn(env, &t);
    return rc;
}

/* The open database of this name; the caller has the turn of it, so that it stays as it is. NULL: it is not open. */
static struct cht_db *get_open(struct cht_env *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    size_t i = find_open(env, name);
    struct cht_db *db = i < env->nopen ? env->open[i] : NULL;
    cht_mutex_unlock(&env->mu);
    return db;
}

/* Room for one more is made before it is opened, so that adding it cannot fail. Opens go on side by side: each needs its own. */
static enum cht_rc reserve_open(struct cht_env *env, const char *name, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&env->mu);
    if (env->nopen + env->opening == env->cap) {
        size_t cap = env->cap == 0 ? 16 : env->cap * 2;
        struct cht_db **v = cht_realloc(env->open, cap * sizeof(struct cht_db *));
        if (v == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
        else {
            env->open = v;
            env->cap = cap;
        }
    }
    env->opening += rc == CHT_OK;
    cht_mutex_unlock(&env->mu);
    return rc;
}

static enum cht_rc env_get(struct cht_env *env, const char *name, struct cht_store **out, struct cht_err *err)
{
    if (env->cfg.mode == CHT_DIRS_LOOK)
        return only_looking(err);
    struct cht_turn t;
    enum cht_rc rc = begin_turn(env, &t, name, err);
    if (rc != CHT_OK) /* until a restore is done there is none */
        return CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "database %s is being restored: it is not there yet",
                        name);
    struct cht_db *db = get_open(env, name);
    if (db == NULL && (rc = reserve_open(env, name, err)) == CHT_OK) {
        rc = cht_db_open(env, name, &db, err);
        cht_mutex_lock(&env->mu);
        env->opening--;
        if (rc == CHT_OK)
            env->open[env->nopen++] = db;
        cht_mutex_unlock(&env->mu);
    }
    if (rc == CHT_OK)
        *out = &db->base;
    end_turn(env, &t);
    return rc;
}

static void take_out(struct cht_env *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    env->open[find_open(env, name)] = env->open[env->nopen - 1];
    env->nopen--;
    cht_mutex_unlock(&env->mu);
}

static enum cht_rc env_release(struct cht_env *env, const char *name, bool *closed, struct cht_err *err)
{
    struct cht_turn t;
    *closed = false;
    enum cht_rc rc = begin_turn(env, &t, name, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_db *db = get_open(env, name);
    if (db != NULL && atomic_load_explicit(&db->read_only, memory_order_acquire))
        rc = CHT_FAIL(err, CHT_READ_ONLY, "writing to %s stopped after a disk fault", name);
    else if (db != NULL)
        rc = cht_db_settle(db, err);
    *closed = rc == CHT_OK;
    if (rc == CHT_OK && db != NULL) {
        take_out(env, name);
        rc = cht_db_close(db, true, err);
    }
    end_turn(env, &t);
    return rc;
}

static enum cht_rc env_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err)
{
    struct cht_turn t;
    enum cht_rc rc = begin_turn(env, &t, name, err);
    if (rc != CHT_OK)
        return rc;
    *clean = get_open(env, name) != NULL;
    if (!*clean)
        rc = cht_db_is_clean(env, name, clean, err);
    end_turn(env, &t);
    return rc;
}

static enum cht_rc env_drop(struct cht_env *env, const char *name, struct cht_err *err)
{
    if (env->cfg.mode == CHT_DIRS_LOOK)
        return only_looking(err);
    struct cht_turn t;
    enum cht_rc rc = begin_turn(env, &t, name, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_db_droppable(env, name, err);
    struct cht_db *db = rc == CHT_OK ? get_open(env, name) : NULL;
    if (db != NULL) {
        take_out(env, name);
        (void)cht_db_close(db, false, NULL); /* what it holds is deleted anyway */
    }
    if (rc == CHT_OK)
        rc = cht_db_drop(env, name, err);
    end_turn(env, &t);
    return rc;
}

/* What is listed is a database, also if it cannot be found: whoever opens it hears why. */
static enum cht_rc env_list(struct cht_env *env, void (*fn)(void *ctx, const char *name), void *ctx,
                            struct cht_err *err)
{
    struct cht_dirs_name *v;
    size_t n;
    enum cht_rc rc = names_of(env, &v, &n, err);
    for (size_t i = 0; i < n; i++) {
        struct cht_manifest m;
        if (v[i].listed || (v[i].folder && cht_db_find(env->io, env->dirs, env->ndirs, v[i].name, &m, NULL) !=
                                               CHT_DATABASE_NOT_FOUND))
            fn(ctx, v[i].name);
    }
    cht_free(v);
    return rc;
}

/* One name. In a list and with a folder: it is being used, nothing is unfinished (T4). */
static void finish_one(struct cht_env *env, const struct cht_dirs_name *name,
                       void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what), void *ctx)
{
    static const char *const whats[CHT_MARKS] = {"an unfinished creation is removed",
                                                 "an unfinished restore is removed",
                                                 "an unfinished deletion is completed"};
    struct cht_db_look l = {.state = CHT_DB_NONE};
    struct cht_err err = {0};
    struct cht_turn t;
    unsigned mark = name->husk ? CHT_MARK_DROPPING : CHT_MARKS;
    if (begin_turn(env, &t, name->name, &err) != CHT_OK)
        return; /* it is being restored: not unfinished */
    enum cht_rc rc = CHT_OK;
    if (name->listed && !name->folder && !name->husk) {
        rc = cht_db_not_listed(env, name->name, &err);
    } else if (!name->listed || name->husk) {
        rc = cht_db_look(env->io, env->dirs, env->ndirs, name->name, &l, &err);
        if (rc == CHT_OK && l.state == CHT_DB_UNFINISHED)
            mark = l.mark;
        if (rc == CHT_OK && mark < CHT_MARKS && env->cfg.mode != CHT_DIRS_LOOK)
            rc = cht_db_finish(env, name->name, &mark, &err);
    }
    end_turn(env, &t);
    if (rc != CHT_OK && mark < CHT_MARKS)
        atomic_store_explicit(&env->unfinished, true, memory_order_relaxed);
    if (rc != CHT_OK)
        fn(ctx, name->name, rc, err.msg);
    else if (mark < CHT_MARKS)
        fn(ctx, name->name, CHT_OK, whats[mark]);
}

static enum cht_rc env_finish(struct cht_env *env,
                              void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what),
                              void *ctx, struct cht_err *err)
{
    struct cht_dirs_name *v;
    size_t n;
    atomic_store_explicit(&env->unfinished, false, memory_order_relaxed);
    enum cht_rc rc = names_of(env, &v, &n, err);
    for (size_t i = 0; i < n; i++)
        finish_one(env, &v[i], fn, ctx);
    cht_free(v);
    return rc;
}

static bool env_unfinished(const struct cht_env *env)
{
    return atomic_load_explicit(&env->unfinished, memory_order_relaxed);
}

static const struct cht_env_ops env_ops = {
    .close = env_close,
    .abandon = env_abandon,
    .quiet = env_quiet,
    .create = env_create,
    .get = env_get,
    .release = env_release,
    .is_clean = env_is_clean,
    .drop = env_drop,
    .list = env_list,
    .finish = env_finish,
    .unfinished = env_unfinished,
};

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_env_open(const struct cht_env_config *cfg, struct cht_env **out, struct cht_err *err)
{
    enum cht_rc rc = check_config(cfg, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_env *env = cht_calloc(1, sizeof *env);
    if (env == NULL)
        return no_memory(err);
    rc = cht_mutex_init(&env->mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&env->calm, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&env->set_mu, err);
    if (rc != CHT_OK) {
        cht_mutex_fini(&env->mu);
        cht_free(env);
        return rc;
    }
    env->head.ops = &env_ops;
    env->cfg = *cfg;
    fill_defaults(&env->cfg);
    env->io = cfg->io != NULL ? cfg->io : cht_io_posix();
    env->ndirs = cfg->dir_count;
    rc = open_dirs(env, cfg->dirs, err);
    uint64_t tick =
        env->cfg.interval_ms * UINT64_C(1000000); /* a commit may ask for it whatever the durability is */
    if (rc == CHT_OK)
        rc = cht_crew_new(env->cfg.dirty_bytes, tick, &env->crew, err);
    if (rc != CHT_OK) {
        env_free(env);
        return rc;
    }
    env->cfg.dirs = (const char *const *)env->dirs;
    *out = env;
    return CHT_OK;
}

enum cht_rc cht_env_begin_restore(struct cht_env *env, struct cht_turn *t, const char *name,
                                  struct cht_err *err)
{
    enum cht_rc rc = begin_turn(env, t, name, err);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&env->mu);
    t->making = t->restoring = true;
    cht_cond_broadcast(&env->calm); /* whoever began to wait for it meanwhile */
    cht_mutex_unlock(&env->mu);
    return CHT_OK;
}

void cht_env_end_restore(struct cht_env *env, struct cht_turn *t) { end_turn(env, t); }
