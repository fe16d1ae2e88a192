/* db_open: a database from its files to a store that can be used, and back. Opening: the log, the shards, what the log has more than
 * they (recover.c), the committer. Closing: a checkpoint if all is well, the log marked clean last.
 */
#include "store/db.h"

#include "base/alloc.h"
#include "store/pagefile_int.h"

#include <stdio.h>
#include <string.h>

static enum cht_rc open_shards(struct cht_db *db, const char *name, const struct cht_manifest *m,
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

enum cht_rc cht_db_open(struct cht_env *env, const char *name, struct cht_db **out, struct cht_err *err)
{
    struct cht_manifest m;
    enum cht_rc rc = cht_dirs_same(env, err);
    if (rc == CHT_OK)
        rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    if (rc == CHT_DATABASE_NOT_FOUND && cht_db_not_listed(env, name, err) != CHT_OK)
        return CHT_DATABASE_INCOMPLETE;
    if (rc != CHT_OK)
        return rc;
    struct cht_db *db = cht_calloc(1, sizeof *db);
    if (db == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    db->base.ops = &cht_db_ops;
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
    if (rc == CHT_OK) {
        cht_db_show_next_key(db, cht_db_lowest_key(db));
        cht_ends_open(db);
    }
    if (rc == CHT_OK)
        rc = cht_calm_init(&db->calm, env->pools, env->ndirs, err);
    if (rc == CHT_OK)
        rc = cht_watches_new(db->nshards, &db->watches, err);
    if (rc == CHT_OK) {
        rc = cht_durable_init(&db->durable, err);
        db->durable_up = rc == CHT_OK;
    }
    if (rc == CHT_OK) {
        rc = cht_followers_init(&db->followers, err);
        db->followers_up = rc == CHT_OK;
        cht_wal_keep(db->wal, env->cfg.changes_bytes == CHT_CHANGES_NONE ? 0 : env->cfg.changes_bytes);
    }
    if (rc == CHT_OK) {
        struct cht_commit_config cc = {
            .durability = env->cfg.durability,
            .interval_ms = env->cfg.interval_ms,
            .max_value = env->cfg.max_value_size,
            .log_limit = env->cfg.checkpoint_log_bytes,
            .manual_checkpoint = env->cfg.manual_checkpoint,
            .value_order = env->cfg.value_order,
            .threads = env->cfg.commit_threads,
            .crew = env->crew,
        };
        cht_db_note_size(db);
        cht_db_begin_with_changes(db);
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
static bool is_settled(struct cht_db *db)
{
    uint64_t seq = cht_wal_seq(db->wal);
    for (unsigned i = 0; i < db->nshards; i++) {
        if (atomic_load_explicit(&db->shards[i].checkpoint_seq, memory_order_acquire) != seq)
            return false;
    }
    return cht_db_changed(db) == 0;
}

/* If pairs end: the clock, and what has ended until now. A failure costs nothing but that. */
static void note_clock(struct cht_db *db)
{
    struct cht_op op = {.kind = CHT_OP_PURGE};
    struct cht_commit c = {.ops = &op, .count = 1};
    if (atomic_load_explicit(&db->ends.next, memory_order_relaxed) != CHT_ENDS_NONE &&
        !atomic_load_explicit(&db->read_only, memory_order_acquire))
        (void)cht_committer_run(db->committer, &c);
}

enum cht_rc cht_db_settle(struct cht_db *db, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    note_clock(db);
    if (!is_settled(db))
        rc = cht_committer_checkpoint(db->committer, err);
    if (rc == CHT_OK && cht_db_changed(db) > 0) /* what the first one set free must be on disk as free */
        rc = cht_committer_checkpoint(db->committer, err);
    return rc;
}

enum cht_rc cht_db_close(struct cht_db *db, bool checkpoint, struct cht_err *err)
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
    if (db->followers_up)
        cht_followers_fini(&db->followers);
    if (db->wal != NULL && cht_wal_origin(db->wal) != 0)
        cht_env_changes_given(db->env, cht_wal_origin(db->wal) + cht_wal_seq(db->wal));
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
    cht_db_forget_size(db);
    for (unsigned i = 0; i < db->nshards; i++)
        cht_shard_close(&db->shards[i]);
    cht_trouble_fini(&db->trouble);
    cht_free(db->shards);
    cht_free(db->name);
    cht_free(db);
    return rc;
}
