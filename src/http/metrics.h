/* metrics: counters of one HTTP thread, and the page that adds them up (Prometheus text format 0.0.4).
 *
 * Each worker writes its own with relaxed atomics; whoever prints reads them all.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct server;
struct out;
struct token;

#define METRIC_ROUTES 64u
#define METRIC_STATUSES 24u
#define METRIC_BUCKETS 15u

struct metric_cell {
    _Atomic uint64_t count, nanos, bytes;
    _Atomic uint64_t bucket[METRIC_BUCKETS]; /* not cumulative */
};

struct metrics {
    struct metric_cell *cells; /* owned: METRIC_ROUTES x METRIC_STATUSES */
    _Atomic uint64_t ahead;    /* reads that were put off: request_ahead */
    _Atomic uint64_t together; /* commits that were submitted at the end of a round */
    _Atomic uint64_t awaited;  /* reads that waited for a commit: request_await */
    _Atomic uint64_t aborted;  /* answers that the client did not take */
};

/* Only the worker that owns the metrics adds, so a load and a store are enough. */
static inline void metrics_add(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n, memory_order_relaxed);
}
void metrics_count(struct metrics *m, unsigned route, int status, uint64_t nanos, uint64_t bytes);
/* All of it. Databases that the token may not read are left out (NULL: all are shown). */
void metrics_print(struct server *s, const struct token *t, struct out *o);
