/* aggregate: the sweep that all aggregates share (aggregate.h). A lane (a partial) is taken for each group of entries, by a thread
 * always the same one if it is free: there are as many lanes used as threads at work, and their tables stay in the caches of
 * their cores.
 */
#include "reduce/aggregate.h"

#include "base/alloc.h"

#include <string.h>

/* What the sweep keeps beside a partial. */
struct lane {
    _Alignas(
        64) _Atomic bool busy; /* whoever set it has the lane and its partial: acquire and release pair */
    uint64_t malformed;
    enum cht_rc rc;
    struct cht_err err;
};

struct sweep {
    struct reduce_run run; /* first */
    const struct reduce_aggregate *a;
    struct reduce_params p;
    struct cht_watch *watch;
    struct lane *lanes; /* owned: run.count */
    _Atomic bool *cancel;
    _Atomic bool stop; /* a map failed */
};

static bool stopped(struct sweep *w)
{
    return atomic_load_explicit(&w->stop, memory_order_relaxed) ||
           (w->cancel != NULL && atomic_load_explicit(w->cancel, memory_order_relaxed));
}

/* At most a thread for each shard and the one that runs the sweep are here at once, and there is a lane for each. */
static unsigned take_lane(struct sweep *w)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine; /* + 1 */
    if (mine == 0)
        mine = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
    unsigned i = mine % w->run.count;
    while (atomic_exchange_explicit(&w->lanes[i].busy, true, memory_order_acquire))
        i = i + 1 < w->run.count ? i + 1 : 0;
    return i;
}

static enum cht_rc map_entry(struct sweep *w, struct lane *lane, void *partial, const struct cht_entry *e,
                             struct cht_err *err)
{
    bool malformed = false;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the value of key %llu does not match its checksum",
                        (unsigned long long)e->key);
    enum cht_rc rc = w->a->map(&w->run, partial, e, &malformed, err);
    lane->malformed += malformed;
    return rc;
}

/* On a worker. */
static bool visit(void *ctx, const struct cht_entry *e, size_t n)
{
    struct sweep *w = ctx;
    if (stopped(w))
        return false;
    for (size_t i = 0; w->watch != NULL && i < n; i++)
        cht_watch_note(w->watch, e[i].key);
    unsigned at = take_lane(w);
    struct lane *lane = &w->lanes[at];
    void *partial = reduce_partial(&w->run, w->a, at);
    struct cht_err err; /* filled by whoever fails */
    enum cht_rc rc = CHT_OK;
    err.code = CHT_OK;
    err.msg[0] = 0;
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = map_entry(w, lane, partial, &e[i], &err);
    if (w->p.progress != NULL)
        atomic_fetch_add_explicit(&w->p.progress->done, n, memory_order_relaxed);
    if (rc != CHT_OK && lane->rc == CHT_OK) {
        lane->rc = rc;
        lane->err = err;
        atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    }
    atomic_store_explicit(&lane->busy, false, memory_order_release);
    return rc == CHT_OK;
}

/* Why it stopped, if it did. The sweep has ended. */
static enum cht_rc verdict(struct sweep *w, struct cht_err *err)
{
    for (unsigned i = 0; i < w->run.count; i++) {
        if (w->lanes[i].rc == CHT_OK)
            continue;
        if (err != NULL)
            *err = w->lanes[i].err;
        return w->lanes[i].rc;
    }
    return stopped(w) ? CHT_FAIL(err, CHT_CANCELLED, "the aggregate was cancelled") : CHT_OK;
}

static enum cht_rc sweep_all(struct sweep *w, struct cht_err *err)
{
    struct cht_sweep_config cfg = {.prefix = w->p.prefix,
                                   .after = w->p.after,
                                   .until = w->p.until,
                                   .names = w->a->names,
                                   .sizes = w->a->sizes,
                                   .visit = visit,
                                   .ctx = w};
    uint64_t pairs;
    if (w->p.progress != NULL && cht_store_count(w->run.store, w->p.prefix, &pairs, NULL) == CHT_OK)
        atomic_store_explicit(&w->p.progress->total, pairs, memory_order_relaxed);
    enum cht_rc rc = cht_store_sweep(w->run.store, &cfg, err);
    return rc == CHT_OK ? verdict(w, err) : rc;
}

static enum cht_rc make_partials(struct sweep *w, struct cht_err *err)
{
    struct cht_store_stats st;
    enum cht_rc rc = cht_store_stats(w->run.store, &st, err);
    if (rc != CHT_OK)
        return rc;
    w->run.count = st.shards + 1;
    size_t bytes = w->run.count * reduce_partial_stride(w->a);
    w->run.partials = cht_aligned_alloc(64, bytes);
    w->lanes = cht_aligned_alloc(64, w->run.count * sizeof *w->lanes);
    if (w->run.partials == NULL || w->lanes == NULL) {
        cht_free(w->run.partials); /* nothing to finish */
        w->run.partials = NULL;
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an aggregate");
    }
    memset(w->run.partials, 0, bytes);
    memset(w->lanes, 0, w->run.count * sizeof *w->lanes);
    return CHT_OK;
}

static enum cht_rc run_sweep(struct sweep *w, struct cht_buf *lines, struct cht_err *err)
{
    enum cht_rc rc = make_partials(w, err);
    if (rc == CHT_OK && w->a->prepare != NULL)
        rc = w->a->prepare(&w->run, err);
    if (rc == CHT_OK)
        rc = sweep_all(w, err);
    if (rc == CHT_OK)
        rc = w->a->lines(&w->run, lines, err);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc reduce_take_memory(struct reduce_run *run, uint64_t bytes, struct cht_err *err)
{
    const struct reduce_params *p = run->p;
    uint64_t before = atomic_fetch_add_explicit(&run->used, bytes, memory_order_relaxed);
    enum cht_rc rc = CHT_OK;
    if (bytes > p->memory_max || before + bytes > p->memory_max)
        rc = CHT_FAIL(err, CHT_NO_MEMORY,
                      "the aggregate needs more than its %llu bytes of memory; take a longer prefix",
                      (unsigned long long)p->memory_max);
    else if (p->book != NULL)
        rc = p->book(p->book_ctx, bytes, err);
    if (rc != CHT_OK)
        atomic_fetch_sub_explicit(&run->used, bytes, memory_order_relaxed);
    return rc;
}

void reduce_give_memory(struct reduce_run *run, uint64_t bytes)
{
    atomic_fetch_sub_explicit(&run->used, bytes, memory_order_relaxed);
    if (run->p->book != NULL)
        run->p->unbook(run->p->book_ctx, bytes);
}

enum cht_rc reduce_line_room(struct reduce_run *run, struct cht_buf *out, size_t n, struct cht_err *err)
{
    if (out->cap - out->len >= n)
        return CHT_OK;
    size_t cap = out->cap * 2 > out->len + n ? out->cap * 2 : out->len + n + 4096;
    enum cht_rc rc = reduce_take_memory(run, cap - out->cap, err);
    return rc == CHT_OK ? cht_buf_reserve(out, cap, err) : rc;
}

struct reduce_discounts reduce_discounts(uint64_t n1, uint64_t n2, uint64_t n3, uint64_t n4)
{
    double m1 = (double)n1, m2 = (double)n2, m3 = (double)n3, m4 = (double)n4;
    double e1 = m1 + 2.0 * m2, e2 = m2 + 2.0 * m3, e3 = m3 + 2.0 * m4;
    return (struct reduce_discounts){
        .d1 = e1 > 0 ? 1.0 - 2.0 * m2 / e1 : 0.5,
        .d2 = e2 > 0 ? 2.0 - 3.0 * m3 / e2 : 1.0,
        .d3 = e3 > 0 ? 3.0 - 4.0 * m4 / e3 : 1.5,
    };
}

enum cht_rc reduce_aggregate_watched(struct cht_store *s, const struct reduce_mode *mode,
                                     const struct reduce_params *p, struct cht_watch *const watch[2],
                                     struct cht_buf *lines, uint64_t *count, uint64_t *malformed,
                                     _Atomic bool *cancel, struct cht_err *err)
{
    size_t start = lines->len;
    *count = *malformed = 0;
    if (mode->kind != REDUCE_AGGREGATE)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s is not an aggregate", mode->names[0]);
    struct sweep w = {.a = mode->aggregate, .p = *p, .cancel = cancel, .watch = watch[0]};
    w.run.store = s;
    w.run.p = &w.p;
    w.run.watch_to = watch[1];
    w.p.memory_max = p->memory_max > 0 ? p->memory_max : REDUCE_MEMORY_DEFAULT;
    enum cht_rc rc = run_sweep(&w, lines, err);
    if (w.a->finish != NULL && w.run.partials != NULL)
        w.a->finish(&w.run);
    for (unsigned i = 0; i < w.run.count && w.lanes != NULL; i++)
        *malformed += w.lanes[i].malformed;
    *count = w.run.printed;
    if (rc != CHT_OK) {
        lines->len = start;
        *count = *malformed = 0;
    }
    cht_free(w.run.partials);
    cht_free(w.lanes);
    return rc;
}

enum cht_rc reduce_aggregate_run(struct cht_store *s, const struct reduce_mode *mode,
                                 const struct reduce_params *p, struct cht_buf *lines, uint64_t *count,
                                 uint64_t *malformed, _Atomic bool *cancel, struct cht_err *err)
{
    struct cht_watch *const none[2] = {NULL, NULL};
    return reduce_aggregate_watched(s, mode, p, none, lines, count, malformed, cancel, err);
}
