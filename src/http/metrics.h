/* metrics: counters of one HTTP thread, and the page that adds them up (Prometheus text format 0.0.4).
 *
 * Each worker writes its own with relaxed atomics; whoever prints reads them all.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct http_server;
struct svc_out;
struct svc_token;

#define HTTP_METRIC_ROUTES 64u
#define HTTP_METRIC_STATUSES 24u
#define HTTP_METRIC_BUCKETS 15u

struct http_metric_cell {
    _Atomic uint64_t count, nanos, bytes;
    _Atomic uint64_t bucket[HTTP_METRIC_BUCKETS]; /* not cumulative */
};

struct http_metrics {
    struct http_metric_cell *cells; /* owned: HTTP_METRIC_ROUTES x HTTP_METRIC_STATUSES */
    _Atomic uint64_t ahead;         /* reads that were put off: http_request_ahead */
    _Atomic uint64_t together;      /* commits that were submitted at the end of a round */
    _Atomic uint64_t awaited;       /* reads that waited for a commit: http_request_await */
    _Atomic uint64_t quick;         /* reads that did not come by libmicrohttpd: quick.h */
    _Atomic uint64_t quick_writes;  /* likewise */
    _Atomic uint64_t aborted;       /* answers that the client did not take */
    _Atomic uint64_t packed; /* answers that were compressed; the next two: their bytes before and after */
    _Atomic uint64_t packed_in, packed_out;
    _Atomic uint64_t unpacked_in, unpacked_out; /* bytes of bodies that came compressed, before and after */
};

/* Only the worker that owns the metrics adds, so a load and a store are enough. */
static inline void http_metrics_add(_Atomic uint64_t *v, uint64_t n)
{
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n, memory_order_relaxed);
}
void http_metrics_count(struct http_metrics *m, unsigned route, int status, uint64_t nanos, uint64_t bytes);
/* One that has no labels: "cheetah_<name> <v>" with its help. */
void http_metrics_one(struct svc_out *o, const char *name, const char *type, const char *help, uint64_t v);
/* All of it. Databases that the token may not read are left out (NULL: all are shown). */
void http_metrics_print(struct http_server *s, const struct svc_token *t, struct svc_out *o);
