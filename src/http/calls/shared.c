/* shared: see shared.h. */
#include "http/calls/shared.h"

#include "http/metrics.h"

#include "base/alloc.h"
#include "lm/engine.h"
#include "lm/kn_read.h"
#include "reduce/cache.h"

enum cht_rc http_shared_open(const struct conf *c, void **shared, struct cht_err *err)
{
    struct http_shared *h = cht_calloc(1, sizeof *h);
    if (h == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for what the calls share");
    enum cht_rc rc = reduce_cache_new(c->reduce_cache_bytes, &h->cache, err);
    if (rc == CHT_OK)
        rc = lm_engine_new(&h->lm, err);
    if (rc != CHT_OK) {
        http_shared_close(h);
        return rc;
    }
    lm_engine_keep(h->lm, c->reduce_cache_bytes);
    *shared = h;
    return CHT_OK;
}

void http_shared_close(void *shared)
{
    struct http_shared *h = shared;
    if (h == NULL)
        return;
    reduce_cache_free(h->cache);
    lm_engine_free(h->lm);
    cht_free(h);
}

void http_shared_forget(void *shared, const struct cht_store *store)
{
    struct http_shared *h = shared;
    reduce_cache_forget(h->cache, store);
    lm_kn_readers_forget(h->lm, store);
}

struct lm_engine *http_shared_engine(void *shared) { return ((struct http_shared *)shared)->lm; }

static void print_links(const struct http_links_sums *l, struct svc_out *o)
{
    http_metrics_one(o, "links_runs_total", "counter", "Runs of POST /reduce/links that have ended.",
                     atomic_load(&l->runs));
    http_metrics_one(o, "links_failed_total", "counter", "Of these those that failed or were cancelled.",
                     atomic_load(&l->failed));
    http_metrics_one(o, "links_contexts_total", "counter", "Contexts whose links were found.",
                     atomic_load(&l->contexts));
    http_metrics_one(o, "links_found_total", "counter", "Links that were found.", atomic_load(&l->links));
    http_metrics_one(o, "links_compared_total", "counter", "Pairs of contexts whose score was computed.",
                     atomic_load(&l->compared));
    http_metrics_one(o, "links_pruned_total", "counter", "Pairs of contexts that a bound has spared.",
                     atomic_load(&l->pruned));
    svc_out_format(o,
                   "# HELP cheetah_links_seconds_total Time that runs of links took.\n# TYPE "
                   "cheetah_links_seconds_total counter\n"
                   "cheetah_links_seconds_total %.6f\n",
                   (double)atomic_load(&l->ns) / 1e9);
}

void http_shared_print(void *shared, struct svc_out *o)
{
    const struct http_shared *h = shared;
    struct reduce_cache_stats c;
    reduce_cache_read_stats(h->cache, &c);
    http_metrics_one(o, "reduce_cache_hits_total", "counter", "Aggregates answered from the cache.", c.hits);
    http_metrics_one(o, "reduce_cache_misses_total", "counter", "Aggregates computed.", c.misses);
    http_metrics_one(o, "reduce_cache_dropped_total", "counter",
                     "Answers of aggregates made stale or pushed out.", c.dropped);
    http_metrics_one(o, "reduce_cache_entries", "gauge", "Answers of aggregates kept.", c.answers);
    http_metrics_one(o, "reduce_cache_bytes", "gauge", "Memory of kept answers and their watches.", c.bytes);
    http_metrics_one(o, "live_kept_bytes", "gauge",
                     "Memory of what was read of live models and is kept for the next question.",
                     lm_engine_kept(h->lm));
    print_links(&h->links, o);
    http_lookups_print(&h->lookups, o);
}
