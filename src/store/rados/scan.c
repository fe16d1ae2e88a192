/* scan: the merge. A shard's next batch is read by a job while the reader takes the one before it; so at most two batches a shard are
 * in memory, about CHT_STREAM_ALL of all of them. A scan that is closed does not wait for the cluster: what is under way ends by itself, calls nothing
 * of the reader's any more, and the last of it frees the scan.
 *
 * Threads: `mu` guards what says so. A stream belongs to its job while it is loading.
 */
#include "store/rados/scan.h"

#include "base/alloc.h"
#include "store/rados/stream.h"

#include <string.h>

#define ENTRY_BYTES 512u /* about, with a value and what is rendered of it */
#define LANE_BYTES 4096u

struct lane {           /* of a shard in the merge */
    struct cht_job job; /* first */
    struct rscan *scan;
    struct cht_rstream stream;
    bool loading, ended;            /* guarded by mu, as is the next */
    struct cht_stream_batch *ready; /* owned: read, and not taken yet */
    struct cht_stream_batch *now;   /* the reader's, owned */
    bool dead;                      /* the reader's: nothing more */
};
struct rscan {
    struct cht_scan base; /* first */
    struct cht_rdb *db;
    struct cht_rscan_config cfg;
    struct lane *lanes; /* owned, n: one a shard of cfg.map */
    unsigned n;
    struct cht_mutex mu;
    struct cht_cond news;
    bool asked; /* guarded by mu, as are the next two: `ready` is to be called */
    unsigned loads;
    unsigned rendering; /* guarded by mu, as is the next: loads that call what the reader has given */
    bool closed;        /* the last load frees it */
    enum cht_rc failed;
    struct cht_err err;
    void (*ready)(void *ctx);
    void *ready_ctx;
    uint64_t limit, given;
    struct cht_stream_batch *spent; /* the reader's: freed at the next call */
    _Atomic bool cancelled;
    size_t planned;
};

static struct rscan *of(struct cht_scan *s) { return (struct rscan *)(void *)s; }

/* What it will hold, about (stream.h): less if it has a limit. */
static size_t plan(unsigned shards, uint64_t limit)
{
    size_t all = CHT_STREAM_ALL, least = (size_t)2 * shards * CHT_STREAM_LEAST;
    all = all > least ? all : least;
    return limit < all / ENTRY_BYTES ? (size_t)limit * ENTRY_BYTES + shards * LANE_BYTES : all;
}

static void scan_free(struct rscan *s);

/* The next batch, which may be without entries. */
static enum cht_rc load_once(struct lane *l, struct cht_stream_batch **b, struct cht_err *err)
{
    struct rscan *s = l->scan;
    enum cht_rc rc = atomic_load(&s->cancelled) ? CHT_CANCELLED : cht_rstream_read(&l->stream, b, err);
    cht_mutex_lock(&s->mu);
    bool wanted = rc == CHT_OK && !atomic_load(&s->cancelled);
    s->rendering += wanted;
    cht_mutex_unlock(&s->mu);
    if (!wanted)
        return rc == CHT_OK ? CHT_CANCELLED : rc;
    rc = cht_rstream_sift(&l->stream, *b, err);
    cht_mutex_lock(&s->mu);
    s->rendering--;
    cht_cond_broadcast(&s->news);
    cht_mutex_unlock(&s->mu);
    return rc;
}

static void run_load(struct cht_job *job)
{
    struct lane *l = (struct lane *)job;
    struct rscan *s = l->scan;
    struct cht_rdb *db = s->db;
    struct cht_stream_batch *b = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    do {
        cht_stream_batch_free(b);
        b = NULL;
        rc = load_once(l, &b, &err);
    } while (rc == CHT_OK && b->n == 0 && !b->last && !atomic_load(&s->cancelled));
    if (rc != CHT_OK)
        cht_stream_batch_free(b);
    cht_mutex_lock(&s->mu);
    if (rc == CHT_OK) {
        l->ready = b;
        l->ended = b->last;
    } else if (s->failed == CHT_OK) {
        s->failed = rc;
        s->err = err;
    }
    l->loading = false;
    bool call = s->asked;
    s->asked = false;
    void (*ready)(void *) = s->ready;
    void *ctx = s->ready_ctx;
    if (call && ready != NULL) { /* under the lock: close waits for it */
        ready(ctx);
    }
    s->loads--;
    bool left = s->closed && s->loads == 0;
    cht_cond_broadcast(&s->news);
    cht_mutex_unlock(&s->mu);
    if (left) {
        scan_free(s);
        cht_rdb_put(db);
    }
}

/* Under mu. */
static void load(struct rscan *s, struct lane *l)
{
    if (l->loading || l->ended || l->ready != NULL)
        return;
    l->loading = true;
    s->loads++;
    cht_jobs_submit(s->db->env->jobs, &l->job);
}

/* Under mu: every shard's next entry is known. */
static bool all_known(struct rscan *s)
{
    bool known = true;
    for (unsigned i = 0; i < s->n; i++) {
        struct lane *l = &s->lanes[i];
        if (l->dead || (l->now != NULL && l->now->at < l->now->n))
            continue;
        if (l->now != NULL && l->ready == NULL && l->now->last) {
            l->dead = true;
            continue;
        }
        if (l->ready == NULL) {
            load(s, l);
            known = false;
            continue;
        }
        if (l->now != NULL) {
            l->now->next = s->spent;
            s->spent = l->now;
        }
        l->now = l->ready;
        l->ready = NULL;
        load(s, l);
        if (l->now->n == 0)
            l->dead = l->now->last;
        known = known && (l->dead || l->now->n > 0);
    }
    return known;
}

static int before(const struct rscan *s, const struct cht_entry *a, const struct cht_entry *b)
{
    if (s->cfg.kind == CHT_SCAN_VALUES)
        return a->key < b->key;
    size_t n = a->name_len < b->name_len ? a->name_len : b->name_len;
    int c = memcmp(a->name, b->name, n);
    c = c != 0 ? c : (a->name_len > b->name_len) - (a->name_len < b->name_len);
    return s->cfg.reverse ? c > 0 : c < 0;
}

static struct lane *first_of(struct rscan *s)
{
    struct lane *best = NULL;
    for (unsigned i = 0; i < s->n; i++) {
        struct lane *l = &s->lanes[i];
        if (l->dead || l->now == NULL || l->now->at == l->now->n)
            continue;
        if (best == NULL || before(s, &l->now->entries[l->now->at], &best->now->entries[best->now->at]))
            best = l;
    }
    return best;
}

static void free_spent(struct rscan *s)
{
    while (s->spent != NULL) {
        struct cht_stream_batch *b = s->spent;
        s->spent = b->next;
        cht_stream_batch_free(b);
    }
}

static bool at_limit(const struct rscan *s) { return s->limit != 0 && s->given >= s->limit; }

/* Under mu. */
static enum cht_rc wait_known(struct rscan *s, bool wait, struct cht_err *err)
{
    for (;;) {
        if (atomic_load(&s->cancelled))
            return CHT_FAIL(err, CHT_CANCELLED, "the scan was cancelled");
        if (s->failed != CHT_OK) {
            if (err != NULL)
                *err = s->err;
            return s->failed;
        }
        if (all_known(s))
            return CHT_OK;
        if (!wait) {
            s->asked = true;
            return CHT_PENDING;
        }
        cht_cond_wait(&s->news, &s->mu);
    }
}

static void scan_free(struct rscan *s)
{
    for (unsigned i = 0; s->lanes != NULL && i < s->n; i++) {
        cht_stream_batch_free(s->lanes[i].ready);
        cht_stream_batch_free(s->lanes[i].now);
        cht_rstream_fini(&s->lanes[i].stream);
    }
    free_spent(s);
    cht_free(s->lanes);
    cht_rscan_config_free(&s->cfg);
    cht_cond_fini(&s->news);
    cht_mutex_fini(&s->mu);
    cht_free(s);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rscan_open(struct cht_store *store, const struct cht_scan_config *cfg, struct cht_scan **out,
                           struct cht_err *err)
{
    struct rscan *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    s->base.store = store;
    s->db = cht_rdb(store);
    s->limit = cfg->limit;
    s->ready = cfg->ready;
    s->ready_ctx = cfg->ready_ctx;
    enum cht_rc rc = cht_mutex_cond_init(&s->mu, &s->news, err);
    if (rc != CHT_OK) {
        cht_free(s);
        return rc;
    }
    rc = cht_rscan_config(s->db, cfg, &s->cfg, err);
    s->cfg.cancelled = &s->cancelled;
    s->n = s->cfg.map->shards;
    s->planned = plan(s->n, cfg->limit != 0 ? cfg->limit : UINT64_MAX);
    s->lanes = cht_calloc(s->n, sizeof *s->lanes);
    if (rc == CHT_OK && s->lanes == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    if (rc != CHT_OK) {
        scan_free(s);
        return rc;
    }
    cht_rdb_hold(s->db);
    cht_mutex_lock(&s->mu);
    for (unsigned i = 0, shard = 0; i < s->n; i++, shard++) {
        shard = cht_map_next(s->cfg.map, shard);
        s->lanes[i].job.run = run_load;
        s->lanes[i].scan = s;
        cht_rstream_init(&s->lanes[i].stream, &s->cfg, shard, cfg->limit);
        load(s, &s->lanes[i]);
    }
    cht_mutex_unlock(&s->mu);
    *out = &s->base;
    return CHT_OK;
}

enum cht_rc cht_rscan_next(struct cht_scan *scan, bool wait, struct cht_entry *out, size_t max, size_t *count,
                           struct cht_err *err)
{
    struct rscan *s = of(scan);
    enum cht_rc rc = CHT_OK;
    *count = 0;
    free_spent(s);
    if (at_limit(s))
        return CHT_OK;
    while (*count < max && !at_limit(s)) {
        cht_mutex_lock(&s->mu);
        rc = wait_known(s, wait && *count == 0, err);
        if (rc == CHT_PENDING && *count > 0)
            s->asked = false;
        cht_mutex_unlock(&s->mu);
        struct lane *l = rc == CHT_OK ? first_of(s) : NULL;
        if (l == NULL)
            break;
        do {
            out[(*count)++] = l->now->entries[l->now->at++];
            s->given++;
            if (*count == max || at_limit(s) || l->now->at == l->now->n)
                break;
            l = first_of(s);
        } while (true);
    }
    return rc == CHT_PENDING && *count > 0 ? CHT_OK : rc;
}

bool cht_rscan_exhausted(const struct cht_scan *scan)
{
    const struct rscan *s = (const struct rscan *)(const void *)scan;
    if (!at_limit(s))
        return true;
    for (unsigned i = 0; i < s->n; i++) {
        const struct lane *l = &s->lanes[i];
        if (!l->dead && (l->now == NULL || l->now->at < l->now->n || !l->now->last))
            return false;
    }
    return true;
}

void cht_rscan_cancel(struct cht_scan *scan)
{
    struct rscan *s = of(scan);
    atomic_store(&s->cancelled, true);
    cht_mutex_lock(&s->mu);
    cht_cond_broadcast(&s->news);
    cht_mutex_unlock(&s->mu);
}

void cht_rscan_close(struct cht_scan *scan)
{
    struct rscan *s = of(scan);
    struct cht_rdb *db = s->db;
    atomic_store(&s->cancelled, true);
    cht_mutex_lock(&s->mu);
    s->asked = false;
    while (s->rendering > 0)
        cht_cond_wait(&s->news, &s->mu);
    s->closed = true;
    bool mine = s->loads == 0;
    cht_mutex_unlock(&s->mu);
    if (mine) {
        scan_free(s);
        cht_rdb_put(db);
    }
}

size_t cht_rscan_memory(const struct cht_scan *scan)
{
    return ((const struct rscan *)(const void *)scan)->planned;
}
