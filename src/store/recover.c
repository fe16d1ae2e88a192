/* recover: opening a database and redoing its log, on all cores.
 *
 * The log is read once, in order; its records are collected into batches. Each batch is redone by several workers,
 * each for shards of its own: every operation concerns one shard (PREFIX_DEL: every shard by itself) and a shard skips
 * what lies at or before its own checkpoint, so the shards need not know of each other.
 */
#include "store/db.h"

#include "base/alloc.h"
#include "base/invariant.h"
#include "store/logops.h"
#include "store/pagefile_int.h"

#include <stdio.h>
#include <string.h>

#define BATCH_BYTES (16u << 20)
#define COPY_MAX (1u << 20) /* longer records are redone where they are instead of being copied */

struct record {
    uint64_t seq;
    size_t off, len;
};

struct replay {
    struct cht_local *db;
    struct cht_crew *crew;
    unsigned workers;
    uint64_t upto; /* later records do not count */
    bool keep;     /* no checkpoint on the way */
    struct cht_buf bytes;
    struct record *records; /* owned */
    size_t count, cap;
    const uint8_t *base; /* what the offsets of the records refer to */
    struct cht_mutex mu;
    struct cht_cond done;
    unsigned running; /* guarded by mu */
};

struct redo_task {
    struct cht_job job; /* first */
    struct replay *r;
    unsigned index;
    enum cht_rc rc;
    struct cht_err err;
};

static enum cht_rc redo_shard(struct replay *r, struct cht_shard *sh, struct cht_err *err)
{
    uint64_t from = sh->applied_seq;
    for (size_t i = 0; i < r->count; i++) {
        if (r->records[i].seq <= from)
            continue;
        const uint8_t *p = r->base + r->records[i].off;
        for (size_t pos = 0; pos < r->records[i].len;) {
            struct cht_logop op;
            enum cht_rc rc = cht_logop_decode(p, r->records[i].len, &pos, &op, err);
            if (rc == CHT_OK && cht_logop_concerns(&op, sh))
                rc = cht_logop_redo(&op, sh, err);
            if (rc != CHT_OK)
                return rc;
        }
        sh->applied_seq = r->records[i].seq;
    }
    return CHT_OK;
}

static void redo_run(struct cht_job *j)
{
    struct redo_task *rt = (struct redo_task *)j;
    struct replay *r = rt->r;
    for (unsigned i = rt->index; i < r->db->nshards && rt->rc == CHT_OK; i += r->workers)
        rt->rc = redo_shard(r, &r->db->shards[i], &rt->err);
    cht_mutex_lock(&r->mu);
    if (--r->running == 0)
        cht_cond_signal(&r->done);
    cht_mutex_unlock(&r->mu);
}

static uint64_t dirty_of(struct cht_local *db)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++)
            n += db->shards[i].pf[k]->dirty_count;
    }
    return n * CHT_PAGE;
}

/* What this recovery may have dirty: its part of the budget, which is shared with others that run and with what is open. */
static uint64_t dirty_limit(struct replay *r)
{
    return r->crew->dirty_limit / atomic_load_explicit(&r->crew->recovering, memory_order_relaxed);
}

/* Redoes what has been collected. */
static enum cht_rc flush_batch(struct replay *r, struct cht_err *err)
{
    if (r->count == 0)
        return CHT_OK;
    struct redo_task tasks[CHT_SHARDS_MAX] = {0};
    CHT_INVARIANT(r->workers <= CHT_SHARDS_MAX);
    r->running = r->workers;
    for (unsigned i = 0; i < r->workers; i++) {
        memset(&tasks[i], 0, sizeof tasks[i]);
        tasks[i].job.run = redo_run;
        tasks[i].r = r;
        tasks[i].index = i;
        cht_jobs_submit(r->crew->parts, &tasks[i].job);
    }
    cht_mutex_lock(&r->mu);
    while (r->running > 0)
        cht_cond_wait(&r->done, &r->mu);
    cht_mutex_unlock(&r->mu);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < r->workers && rc == CHT_OK; i++) {
        rc = tasks[i].rc;
        if (rc != CHT_OK && err != NULL)
            *err = tasks[i].err;
    }
    r->count = 0;
    r->bytes.len = 0;
    for (unsigned i = 0; i < r->db->nshards && rc == CHT_OK && !r->keep && dirty_of(r->db) > dirty_limit(r);
         i++)
        rc = cht_shard_checkpoint(&r->db->shards[i], err);
    return rc;
}

static enum cht_rc collect(void *ctx, uint64_t seq, const uint8_t *payload, size_t n, struct cht_err *err)
{
    struct replay *r = ctx;
    enum cht_rc rc = CHT_OK;
    if (seq > r->upto)
        return CHT_OK;
    bool direct = n > COPY_MAX;
    if (direct || r->bytes.len + n > BATCH_BYTES)
        rc = flush_batch(r, err);
    if (rc == CHT_OK && r->count == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 1024;
        struct record *v = cht_realloc(r->records, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the recovery");
        r->records = v;
        r->cap = cap;
    }
    if (rc != CHT_OK)
        return rc;
    if (direct) {
        r->records[r->count++] = (struct record){seq, 0, n};
        r->base = payload;
        return flush_batch(r, err);
    }
    if (r->bytes.cap == 0 && (rc = cht_buf_reserve(&r->bytes, BATCH_BYTES, err)) != CHT_OK)
        return rc;
    memcpy(r->bytes.data + r->bytes.len, payload, n);
    r->records[r->count++] = (struct record){seq, r->bytes.len, n};
    r->bytes.len += n;
    r->base = r->bytes.data;
    return CHT_OK;
}

enum cht_rc cht_db_replay(struct cht_local *db, struct cht_wal *log, uint64_t upto, struct cht_crew *crew,
                          struct cht_err *err)
{
    uint64_t from = UINT64_MAX, known = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        uint64_t at = atomic_load_explicit(&db->shards[i].checkpoint_seq, memory_order_relaxed);
        from = at < from ? at : from;
        known = at > known ? at : known;
    }
    unsigned cores = cht_os_cores();
    struct replay r = {.db = db, .crew = crew, .upto = upto, .keep = log != db->wal};
    r.workers = cores < db->nshards ? cores : db->nshards;
    enum cht_rc rc = cht_mutex_init(&r.mu, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_cond_init(&r.done, err);
    if (rc == CHT_OK) {
        atomic_fetch_add_explicit(&crew->recovering, 1, memory_order_relaxed);
        rc = cht_wal_replay(log, from, known, collect, &r, err);
        if (rc == CHT_OK)
            rc = flush_batch(&r, err);
        atomic_fetch_sub_explicit(&crew->recovering, 1, memory_order_relaxed);
        cht_cond_fini(&r.done);
    }
    cht_mutex_fini(&r.mu);
    cht_buf_free(&r.bytes);
    cht_free(r.records);
    return rc;
}

/* ---- opening and closing ------------------------------------------------------------------------------------- */

static enum cht_rc open_shards(struct cht_local *db, const char *name, const struct cht_manifest *m,
                               struct cht_err *err)
{
    struct cht_env *env = db->env;
    db->shards = cht_aligned_alloc(64, m->shards * sizeof *db->shards);
    if (db->shards == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    enum cht_shard_mode mode = cht_wal_clean(db->wal) ? CHT_SHARD_CLEAN : CHT_SHARD_USE;
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < m->shards && rc == CHT_OK; i++) {
        char path[CHT_PATH_MAX];
        unsigned dir;
        rc = cht_db_find_shard(env->io, env->dirs, env->ndirs, name, i, &dir, path, sizeof path, err);
        if (rc == CHT_OK)
            rc = cht_shard_open(env->io, path, m->uuid, i, m->shards, mode, &db->shards[i], err);
        if (rc == CHT_OK) {
            db->shards[i].dir = dir;
            db->nshards = i + 1;
        }
    }
    return rc;
}

static enum cht_rc open_log(struct cht_env *env, const char *name, const struct cht_manifest *m,
                            bool read_only, struct cht_wal **out, struct cht_err *err)
{
    char dir[CHT_PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s/%s/log", env->dirs[m->home], name);
    if (n < 0 || (size_t)n >= sizeof dir)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s: the path is too long", name);
    struct cht_wal_config wc = {
        .io = env->io, .dir = dir, .segment_bytes = env->cfg.log_segment_bytes, .read_only = read_only};
    memcpy(wc.uuid, m->uuid, 16);
    return cht_wal_open(&wc, out, err);
}

enum cht_rc cht_db_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err)
{
    struct cht_manifest m;
    struct cht_wal *w = NULL;
    enum cht_rc rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    if (rc == CHT_OK)
        rc = open_log(env, name, &m, true, &w, err);
    *clean = rc == CHT_OK && cht_wal_clean(w);
    if (rc == CHT_OK)
        rc = cht_wal_close(w, false, err);
    return rc;
}

enum cht_rc cht_db_open(struct cht_env *env, const char *name, struct cht_local **out, struct cht_err *err)
{
    struct cht_manifest m;
    enum cht_rc rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    if (rc == CHT_DATABASE_NOT_FOUND && cht_db_not_listed(env, name, err) != CHT_OK)
        return CHT_DATABASE_INCOMPLETE;
    if (rc != CHT_OK)
        return rc;
    struct cht_local *db = cht_calloc(1, sizeof *db);
    if (db == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    db->base.ops = &cht_local_ops;
    db->env = env;
    db->pools = env->pools;
    db->name = cht_strdup(name);
    if (db->name == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    if (rc == CHT_OK)
        rc = cht_trouble_init(&db->trouble, db->name, &env->cfg, err);
    if (rc == CHT_OK)
        rc = open_log(env, name, &m, false, &db->wal, err);
    if (rc == CHT_OK)
        rc = open_shards(db, name, &m, err);
    for (unsigned i = 0; i < db->nshards && rc == CHT_OK; i++)
        rc = cht_values_recovered(&db->shards[i].values, err);
    if (rc == CHT_OK)
        rc = cht_db_replay(db, db->wal, UINT64_MAX, env->crew, err);
    for (unsigned i = 0; i < db->nshards && rc == CHT_OK; i++)
        cht_shard_show(&db->shards[i]);
    if (rc == CHT_OK)
        rc = cht_calm_init(&db->calm, env->pools, env->ndirs, err);
    if (rc == CHT_OK)
        rc = cht_watches_new(db->nshards, &db->watches, err);
    if (rc == CHT_OK) {
        rc = cht_durable_init(&db->durable, err);
        db->durable_up = rc == CHT_OK;
    }
    if (rc == CHT_OK) {
        struct cht_commit_config cc = {
            .durability = env->cfg.durability,
            .interval_ms = env->cfg.interval_ms,
            .max_value = env->cfg.max_value_size,
            .log_limit = env->cfg.checkpoint_log_bytes,
            .manual_checkpoint = env->cfg.manual_checkpoint,
            .threads = env->cfg.commit_threads,
            .crew = env->crew,
        };
        rc = cht_committer_new(db, &cc, &db->committer, err);
    }
    if (rc != CHT_OK) {
        (void)cht_db_close(db, false, NULL); /* the first failure is what the caller hears of */
        return rc;
    }
    *out = db;
    return CHT_OK;
}

/* Nothing to write: every shard's files hold all of the log. */
static bool is_settled(struct cht_local *db)
{
    uint64_t seq = cht_wal_seq(db->wal);
    for (unsigned i = 0; i < db->nshards; i++) {
        if (atomic_load_explicit(&db->shards[i].checkpoint_seq, memory_order_acquire) != seq)
            return false;
    }
    return dirty_of(db) == 0;
}

enum cht_rc cht_db_settle(struct cht_local *db, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (!is_settled(db))
        rc = cht_committer_checkpoint(db->committer, err);
    if (rc == CHT_OK && dirty_of(db) > 0) /* what the first one set free must be on disk as free */
        rc = cht_committer_checkpoint(db->committer, err);
    return rc;
}

enum cht_rc cht_db_close(struct cht_local *db, bool checkpoint, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool clean = checkpoint && db->committer != NULL;
    if (clean && atomic_load_explicit(&db->read_only, memory_order_acquire))
        rc = cht_trouble_stopped(&db->trouble, err);
    else if (clean)
        rc = cht_db_settle(db, err);
    cht_committer_free(db->committer);
    for (unsigned i = 0; i < db->nshards && clean && rc == CHT_OK; i++)
        rc = cht_shard_unreserve(&db->shards[i], err);
    clean = clean && rc == CHT_OK;
    cht_watches_close(db->watches);
    cht_calm_fini(&db->calm);
    if (db->durable_up)
        cht_durable_fini(&db->durable);
    for (unsigned i = 0; i < db->nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS && clean && rc == CHT_OK; k++) {
            struct cht_pagefile *pf = db->shards[i].pf[k];
            if (pf->file_pages > pf->fast.pages)
                rc = cht_pf_trim(pf, err);
        }
    }
    if (db->wal != NULL) {
        enum cht_rc wrc = cht_wal_close(db->wal, clean && rc == CHT_OK, rc == CHT_OK ? err : NULL);
        rc = rc == CHT_OK ? wrc : rc;
    }
    for (unsigned i = 0; i < db->nshards; i++)
        cht_shard_close(&db->shards[i]);
    cht_trouble_fini(&db->trouble);
    cht_free(db->shards);
    cht_free(db->name);
    cht_free(db);
    return rc;
}
