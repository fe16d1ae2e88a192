/* walk: see walk.h. */
#include "lm/walk.h"

#include "lm/names.h"

#include <string.h>

#include "base/alloc.h"
#include "os/thread.h"

#define WHOLE_BELOW 20000u /* contexts that are not worth 256 scans */
#define PARTS 256u
#define BATCH 256u
#define REPORT_NS UINT64_C(400000000)

struct walk {
    const struct lm_walk_config *cfg;
    unsigned parts;        /* 1 or PARTS */
    _Atomic unsigned next; /* the part to take */
    _Atomic uint64_t done;
    _Atomic bool stop;
    struct cht_mutex mu;
    struct cht_cond ended;
    unsigned running;   /* guarded by mu */
    enum cht_rc rc;     /* guarded by mu: the first failure */
    struct cht_err err; /* guarded by mu */
};

struct walker {
    struct walk *walk;
    void *worker;
    struct lm_counts counts;
    struct cht_buf value;
    struct cht_entry entries[BATCH];
    struct cht_thread thread;
};

static bool stopped(struct walk *w)
{
    return atomic_load_explicit(&w->stop, memory_order_relaxed) ||
           (w->cfg->cancel != NULL && atomic_load_explicit(w->cfg->cancel, memory_order_relaxed));
}

static struct cht_str suffix_of(const struct cht_entry *e, size_t skip)
{
    return (struct cht_str){e->name + skip, e->name_len - skip};
}

static enum cht_rc visit_batch(struct walker *me, size_t n, struct cht_err *err)
{
    const struct lm_walk_config *cfg = me->walk->cfg;
    enum cht_rc rc = CHT_OK;
    uint8_t prefix[LM_PREFIX_MAX];
    size_t skip = lm_prefix(LM_CNT, cfg->order, prefix), ahead = cfg->ahead != NULL ? 0 : n;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        uint64_t total;
        for (; ahead < n && ahead <= i + LM_WALK_AHEAD && rc == CHT_OK; ahead++)
            rc = cfg->ahead(me->worker, suffix_of(&me->entries[ahead], skip), err);
        if (rc != CHT_OK)
            break;
        rc = lm_entry_counts(cfg->store, &me->entries[i], &me->value, &me->counts, &total, err);
        if (rc == CHT_MALFORMED_PAYLOAD || rc == CHT_CORRUPT) { /* it was counted before */
            rc = CHT_OK;
            continue;
        }
        if (rc == CHT_OK && total > 0)
            rc = cfg->visit(me->worker, suffix_of(&me->entries[i], skip), &me->counts, total, err);
    }
    atomic_fetch_add_explicit(&me->walk->done, n, memory_order_relaxed);
    return rc;
}

static enum cht_rc walk_part(struct walker *me, unsigned part, struct cht_err *err)
{
    struct walk *w = me->walk;
    uint8_t prefix[LM_PREFIX_MAX + 1];
    struct cht_scan_config sc = {.kind = CHT_SCAN_PAIRS, .values = true};
    sc.prefix = (struct cht_str){prefix, lm_prefix(LM_CNT, w->cfg->order, prefix)};
    if (w->parts > 1)
        prefix[sc.prefix.n++] = (uint8_t)part;
    struct cht_scan *scan;
    enum cht_rc rc = cht_scan_open(w->cfg->store, &sc, &scan, err);
    if (rc != CHT_OK)
        return rc;
    for (size_t n = 1; rc == CHT_OK && n > 0;) {
        rc = cht_scan_next(scan, me->entries, BATCH, &n, err);
        if (rc == CHT_OK && stopped(w))
            rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        if (rc == CHT_OK)
            rc = visit_batch(me, n, err);
    }
    cht_scan_close(scan);
    return rc;
}

static void *walker_main(void *arg)
{
    struct walker *me = arg;
    struct walk *w = me->walk;
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK) {
        unsigned part = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed);
        if (part >= w->parts)
            break;
        rc = walk_part(me, part, &err);
    }
    cht_mutex_lock(&w->mu);
    if (rc != CHT_OK && w->rc == CHT_OK) {
        w->rc = rc;
        w->err = err;
        atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    }
    w->running--;
    cht_cond_signal(&w->ended);
    cht_mutex_unlock(&w->mu);
    return NULL;
}

static void report(struct walk *w)
{
    const struct lm_progress *p = &w->cfg->progress;
    if (p->fn == NULL)
        return;
    uint64_t done = p->done + atomic_load_explicit(&w->done, memory_order_relaxed);
    p->fn(p->ctx, p->phase, done, done > p->total ? done : p->total);
}

/* Starts the threads and waits for them. */
static enum cht_rc run(struct walk *w, struct walker *walkers, struct cht_err *err)
{
    unsigned threads = w->parts > 1 ? w->cfg->threads : 1, started = 0;
    w->running = threads;
    for (; started < threads; started++) {
        walkers[started].walk = w;
        walkers[started].worker = w->cfg->workers[started];
        if (cht_thread_start(&walkers[started].thread, "lm-walk", walker_main, &walkers[started], err) !=
            CHT_OK)
            break;
    }
    cht_mutex_lock(&w->mu);
    w->running -= threads - started; /* fewer threads do the same work; with none it is an error */
    while (w->running > 0) {
        if (cht_cond_wait_ns(&w->ended, &w->mu, REPORT_NS))
            continue;
        cht_mutex_unlock(&w->mu);
        report(w);
        cht_mutex_lock(&w->mu);
    }
    cht_mutex_unlock(&w->mu);
    for (unsigned i = 0; i < started; i++) {
        cht_thread_join(&walkers[i].thread);
        lm_counts_free(&walkers[i].counts);
        cht_buf_free(&walkers[i].value);
    }
    if (started == 0)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no thread could be started");
    if (w->rc != CHT_OK && err != NULL)
        *err = w->err;
    return w->rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_entry_counts(struct cht_store *s, const struct cht_entry *e, struct cht_buf *value,
                            struct lm_counts *counts, uint64_t *total, struct cht_err *err)
{
    struct cht_str name = {e->name, e->name_len};
    const uint8_t *p = e->value;
    uint32_t n = e->value_len;
    *total = 0;
    counts->n = 0;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_DAMAGED(err, "the counts under key %llu do not match their checksum",
                           (unsigned long long)e->key);
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    enum cht_rc rc = CHT_OK;
    if ((e->flags & CHT_ENTRY_LARGE) != 0) {
        rc = cht_store_get(s, e->key, value, &n, err);
        if (rc == CHT_KEY_NOT_FOUND) /* deleted meanwhile */
            return CHT_OK;
        p = value->data;
    }
    if (rc == CHT_OK)
        rc = lm_counts_read(counts, p, n, name, err);
    for (uint32_t i = 0; rc == CHT_OK && i < counts->n; i++)
        *total += counts->f[i].count;
    return rc;
}

enum cht_rc lm_walk(const struct lm_walk_config *cfg, struct cht_err *err)
{
    struct walk w = {.cfg = cfg, .parts = 1};
    uint8_t prefix[LM_PREFIX_MAX];
    uint64_t pairs = 0;
    enum cht_rc rc = cht_store_count(
        cfg->store, (struct cht_str){prefix, lm_prefix(LM_CNT, cfg->order, prefix)}, &pairs, err);
    if (rc != CHT_OK || pairs == 0)
        return rc;
    if (pairs >= WHOLE_BELOW)
        w.parts = PARTS;
    struct walker *walkers = cht_calloc(cfg->threads, sizeof *walkers);
    if (walkers == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u threads", cfg->threads);
    rc = cht_mutex_init(&w.mu, err);
    if (rc == CHT_OK) {
        rc = cht_cond_init(&w.ended, err);
        if (rc == CHT_OK) {
            rc = run(&w, walkers, err);
            report(&w);
            cht_cond_fini(&w.ended);
        }
        cht_mutex_fini(&w.mu);
    }
    cht_free(walkers);
    return rc;
}
