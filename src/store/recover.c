/* recover: redoing the log of a database, on all cores. Opening is db_open.c.
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
    struct cht_db *db;
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
    for (unsigned i = 0;
         i < r->db->nshards && rc == CHT_OK && !r->keep && cht_db_changed(r->db) > dirty_limit(r); i++)
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

enum cht_rc cht_db_replay(struct cht_db *db, struct cht_wal *log, uint64_t upto, struct cht_crew *crew,
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

uint64_t cht_db_changed(const struct cht_db *db)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++)
            n += db->shards[i].pf[k]->dirty_count;
    }
    return n * CHT_PAGE;
}
