/* sweep: see cheetah/sweep.h. A few shards are read at a time by jobs, one batch ahead of what is shown; all is shown in the calling thread, from
 * whichever shard has something. So at most AHEAD shards with two batches each are in memory.
 *
 * Threads: `mu` guards what the jobs and the caller share. A stream belongs to its job while it is loading.
 */
#include "base/alloc.h"
#include "store/rados/scan.h"
#include "store/rados/stream.h"

#include <string.h>

/* A long value, which a batch does not carry. */
static enum cht_rc take_long(struct cht_rdb *db, struct cht_entry *e, struct cht_buf *long_value,
                             struct cht_err *err)
{
    enum cht_rc rc = cht_store_get(&db->base, e->key, long_value, NULL, err);
    e->flags &= ~CHT_ENTRY_LARGE;
    if (rc == CHT_OK) {
        e->value = long_value->data;
        e->size = e->value_len = (uint32_t)long_value->len;
    } else if (rc == CHT_KEY_NOT_FOUND) {
        e->flags |= CHT_ENTRY_DANGLING;
        e->size = 0;
    } else if (rc == CHT_CORRUPT) {
        e->flags |= CHT_ENTRY_CORRUPT;
    } else {
        return rc;
    }
    return CHT_OK;
}

/* Shows a batch: short values together, each long one by itself. */
static enum cht_rc show(struct cht_rdb *db, const struct cht_sweep_config *cfg, struct cht_stream_batch *b,
                        bool *enough, struct cht_err *err)
{
    struct cht_buf long_value = {0};
    enum cht_rc rc = CHT_OK;
    size_t from = 0;
    for (size_t i = 0; i < b->n && !*enough && rc == CHT_OK; i++) {
        struct cht_entry *e = &b->entries[i];
        if (!cfg->names)
            e->name = NULL;
        if (cfg->sizes || (e->flags & CHT_ENTRY_LARGE) == 0)
            continue;
        if (i > from)
            *enough = !cfg->visit(cfg->ctx, b->entries + from, i - from);
        from = i + 1;
        if (!*enough)
            rc = take_long(db, e, &long_value, err);
        if (!*enough && rc == CHT_OK)
            *enough = !cfg->visit(cfg->ctx, e, 1);
    }
    if (b->n > from && !*enough && rc == CHT_OK)
        *enough = !cfg->visit(cfg->ctx, b->entries + from, b->n - from);
    cht_buf_free(&long_value);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

#define AHEAD 8u

struct lane {           /* one shard after another */
    struct cht_job job; /* first */
    struct sweep *sweep;
    struct cht_rstream stream;
    bool open, loading;             /* the caller's; guarded by mu */
    struct cht_stream_batch *ready; /* owned, guarded by mu: read, and not taken yet */
};
struct sweep {
    struct cht_rdb *db;
    struct cht_rscan_config cfg;
    struct lane lanes[AHEAD];
    unsigned next; /* shard */
    struct cht_mutex mu;
    struct cht_cond news;
    enum cht_rc failed; /* guarded by mu, with err */
    struct cht_err err;
    _Atomic bool enough;
};

static void run_load(struct cht_job *job)
{
    struct lane *l = (struct lane *)job;
    struct sweep *s = l->sweep;
    struct cht_stream_batch *b = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = atomic_load(&s->enough) ? CHT_CANCELLED : cht_rstream_next(&l->stream, &b, &err);
    cht_mutex_lock(&s->mu);
    l->loading = false;
    l->ready = b;
    if (rc != CHT_OK && s->failed == CHT_OK) {
        s->failed = rc;
        s->err = err;
    }
    cht_cond_broadcast(&s->news);
    cht_mutex_unlock(&s->mu);
}

/* Under mu, as are the next two. */
static void load(struct lane *l)
{
    l->loading = true;
    cht_jobs_submit(l->sweep->db->env->jobs, &l->job);
}

/* The next shard, if there is one. */
static void begin(struct sweep *s, struct lane *l)
{
    s->next = cht_map_next(s->cfg.map, s->next);
    l->open = s->next < CHT_MAP_MAX;
    if (!l->open)
        return;
    cht_rstream_init(&l->stream, &s->cfg, s->next++, 0);
    load(l);
}

/* A lane with a batch, waited for; NULL: all shards were gone through, or one cannot be read. */
static struct lane *wait_ready(struct sweep *s)
{
    for (;;) {
        bool open = false;
        for (unsigned i = 0; i < AHEAD; i++) {
            struct lane *l = &s->lanes[i];
            if (l->ready != NULL)
                return l;
            open |= l->open;
        }
        if (!open || s->failed != CHT_OK)
            return NULL;
        cht_cond_wait(&s->news, &s->mu);
    }
}

static struct cht_stream_batch *take(struct sweep *s)
{
    cht_mutex_lock(&s->mu);
    struct lane *l = wait_ready(s);
    struct cht_stream_batch *b = l != NULL ? l->ready : NULL;
    if (b != NULL) {
        l->ready = NULL;
        if (b->last) {
            cht_rstream_fini(&l->stream);
            begin(s, l);
        } else {
            load(l);
        }
    }
    cht_mutex_unlock(&s->mu);
    return b;
}

static void start(struct sweep *s)
{
    cht_mutex_lock(&s->mu);
    for (unsigned i = 0; i < AHEAD; i++) {
        s->lanes[i].job.run = run_load;
        s->lanes[i].sweep = s;
        begin(s, &s->lanes[i]);
    }
    cht_mutex_unlock(&s->mu);
}

static void stop(struct sweep *s)
{
    atomic_store(&s->enough, true);
    for (unsigned i = 0; i < AHEAD; i++) {
        struct lane *l = &s->lanes[i];
        cht_mutex_lock(&s->mu);
        while (l->loading)
            cht_cond_wait(&s->news, &s->mu);
        cht_mutex_unlock(&s->mu);
        cht_stream_batch_free(l->ready);
        if (l->open)
            cht_rstream_fini(&l->stream);
    }
}

static enum cht_rc run(struct sweep *s, const struct cht_sweep_config *cfg, struct cht_err *err)
{
    struct cht_stream_batch *b = NULL;
    enum cht_rc rc = CHT_OK;
    bool enough = false;
    start(s);
    while (rc == CHT_OK && !enough && (b = take(s)) != NULL) {
        rc = show(s->db, cfg, b, &enough, err);
        cht_stream_batch_free(b);
    }
    bool through = rc == CHT_OK && !enough; /* else `failed` may be that it was ended */
    stop(s);
    if (through && s->failed != CHT_OK) {
        rc = s->failed;
        if (err != NULL)
            *err = s->err;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rscan_sweep(struct cht_store *store, const struct cht_sweep_config *cfg, struct cht_err *err)
{
    struct cht_scan_config scan = {.kind = CHT_SCAN_PAIRS,
                                   .prefix = cfg->prefix,
                                   .after = cfg->after,
                                   .until = cfg->until,
                                   .values = true};
    struct sweep *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a sweep");
    s->db = cht_rdb(store);
    enum cht_rc rc = cht_mutex_cond_init(&s->mu, &s->news, err);
    if (rc == CHT_OK) {
        rc = cht_rscan_config(s->db, &scan, &s->cfg, err);
        s->cfg.cancelled = &s->enough;
        if (rc == CHT_OK)
            rc = run(s, cfg, err);
        cht_rscan_config_free(&s->cfg);
        cht_cond_fini(&s->news);
        cht_mutex_fini(&s->mu);
    }
    cht_free(s);
    return rc;
}
