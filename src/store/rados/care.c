/* care: see care.h. */
#include "store/rados/care.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/catalogue.h"
#include "store/rados/cut.h"
#include "store/rados/ends.h"
#include "store/rados/grow.h"
#include "store/rados/moment.h"
#include "store/rados/restore.h"
#include "store/rados/split.h"

#include <stddef.h>

#define LEFT_AGE 3600u
#define FINISH_NS UINT64_C(600000000000) /* between two looks for databases that were not finished */
#define LEFT_NS UINT64_C(86400000000000)

static void clean(struct cht_rdb *db)
{
    const struct cht_map *m = cht_rdb_map(db);
    if (m->shards == 1u << m->base)
        return; /* none was divided */
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX; s = cht_map_next(m, s + 1))
        (void)cht_split_clean(db, s, NULL);
}

static void care_for(struct cht_rdb *db)
{
    uint64_t removed;
    if (cht_rdb_reload(db, NULL) != CHT_OK)
        return; /* the cluster does not answer, or it was dropped */
    if (atomic_load(&db->format) >= CHT_RDB_FORMAT_ENDS)
        (void)cht_ends_purge(db, &removed, NULL); /* the next time */
    (void)cht_cut_idle(db, CHT_CUT_IDLE_NS, NULL);
    (void)cht_cut_trim(db, NULL);
    clean(db);
    if (cht_rdb_closes(db, NULL) != CHT_OK)
        return; /* who drops it waits */
    cht_moment_clean(db);
    cht_grow(db);
}

static void tidy(struct cht_rdb *db)
{
    uint64_t removed, now = cht_now_ns();
    if (db->swept == 0)
        db->swept = now;
    if (now - db->swept < LEFT_NS)
        return;
    db->swept = now;
    if (cht_rdb_reload(db, NULL) == CHT_OK)
        (void)cht_left_sweep(db, LEFT_AGE, &removed, NULL);
    if (db->lefts > 0) /* a second look, before a day is over */
        db->swept = now - LEFT_NS + 2 * LEFT_AGE * UINT64_C(1000000000);
}

/* Databases that others did not finish. */
static void finish_left(struct cht_renv *env)
{
    struct cht_catalogue l;
    uint64_t now = cht_now_ns();
    if (env->care.finished == 0)
        env->care.finished = now;
    if (now - env->care.finished < FINISH_NS)
        return;
    env->care.finished = now;
    enum cht_rc rc = cht_catalogue_list(env, &l, NULL);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        if (cht_listed_is_left(&l.v[i]))
            (void)cht_catalogue_remove(env, &l.v[i], NULL); /* the next time */
    }
    cht_free(l.v);
}

static void each_open(struct cht_renv *env, void (*fn)(struct cht_rdb *db))
{
    struct cht_rdb **all = NULL;
    size_t n = 0, i = 0;
    cht_mutex_lock(&env->mu);
    for (struct cht_rdb *db = env->open; db != NULL; db = db->next)
        n++;
    all = cht_calloc(n + 1, sizeof(struct cht_rdb *));
    for (struct cht_rdb *db = env->open; db != NULL && all != NULL; db = db->next) {
        all[i++] = db;
        cht_rdb_hold(db);
    }
    cht_mutex_unlock(&env->mu);
    for (size_t k = 0; k < i; k++) {
        if (!atomic_load(&env->care.over))
            fn(all[k]);
        cht_rdb_put(all[k]);
    }
    cht_free(all);
}

static void run(struct cht_job *job)
{
    struct cht_renv *env = ((struct cht_care *)(void *)job)->env;
    cht_restores_go_on(env);
    each_open(env, care_for);
    atomic_store(&env->care.busy, false);
}

static void run_tidy(struct cht_job *job)
{
    struct cht_care *care = (struct cht_care *)(void *)((char *)job - offsetof(struct cht_care, tidy));
    finish_left(care->env);
    each_open(care->env, tidy);
    atomic_store(&care->tidying, false);
}

static void start(struct cht_renv *env, struct cht_job *job, _Atomic bool *busy,
                  void (*fn)(struct cht_job *job))
{
    bool none = false;
    if (!atomic_compare_exchange_strong(busy, &none, true))
        return;
    *job = (struct cht_job){.run = fn};
    env->care.env = env;
    cht_jobs_submit(env->jobs, job);
}

/* ------------------------------------------------------------------------------------------------------------------ */

void cht_care(struct cht_renv *env)
{
    start(env, &env->care.job, &env->care.busy, run);
    start(env, &env->care.tidy, &env->care.tidying, run_tidy);
}
