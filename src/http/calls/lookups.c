/* lookups: see lookups.h. */
#include "http/calls/lookups.h"

#include <inttypes.h>
#include <string.h>

static void add(_Atomic uint64_t *n) { atomic_fetch_add_explicit(n, 1, memory_order_relaxed); }

static void hit(struct http_lookups_kind *k, unsigned order)
{
    unsigned highest = atomic_load_explicit(&k->highest, memory_order_relaxed);
    add(&k->hits[order]);
    while (order > highest && !atomic_compare_exchange_weak_explicit(
                                  &k->highest, &highest, order, memory_order_relaxed, memory_order_relaxed))
        ;
}

static void miss(struct http_lookups_kind *k, unsigned order)
{
    if (order <= atomic_load_explicit(&k->highest, memory_order_relaxed))
        add(&k->misses[order]);
}

static void print(const struct http_lookups_kind *k, struct svc_out *o, const char *name, const char *help)
{
    svc_out_format(o, "# HELP cheetah_%s %s\n# TYPE cheetah_%s counter\n", name, help, name);
    for (unsigned n = 1; n <= atomic_load_explicit(&k->highest, memory_order_relaxed); n++) {
        uint64_t hits = atomic_load_explicit(&k->hits[n], memory_order_relaxed);
        uint64_t misses = atomic_load_explicit(&k->misses[n], memory_order_relaxed);
        svc_out_format(o, "cheetah_%s{order=\"%u\",result=\"hit\"} %" PRIu64 "\n", name, n, hits);
        svc_out_format(o, "cheetah_%s{order=\"%u\",result=\"miss\"} %" PRIu64 "\n", name, n, misses);
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

unsigned http_lookups_asked(size_t n, uint64_t max_order)
{
    uint64_t most = max_order > 0 && max_order < LM_ORDER_MAX ? max_order : LM_ORDER_MAX;
    return n + 1 < most ? (unsigned)n + 1 : (unsigned)most;
}

void http_lookups_predicted(struct http_lookups *l, unsigned asked, unsigned answered)
{
    if (answered > LM_ORDER_MAX)
        return;
    for (unsigned n = answered + 1; n <= asked; n++)
        miss(&l->predictions, n);
    if (answered > 0)
        hit(&l->predictions, answered);
}

void http_lookups_read(struct http_lookups *l, struct cht_str pair, bool found)
{
    static const char kind[] = LM_TOPK ":";
    size_t n = sizeof kind - 1;
    if (pair.n < n + 2 || memcmp(pair.p, kind, n) != 0)
        return;
    const uint8_t *p = pair.p;
    if (p[n] < '1' || p[n] > '0' + LM_ORDER_MAX || p[n + 1] != ':')
        return;
    if (found)
        hit(&l->followers, p[n] - '0');
    else
        miss(&l->followers, p[n] - '0');
}

void http_lookups_print(const struct http_lookups *l, struct svc_out *o)
{
    print(&l->predictions, o, "predictions_total",
          "Predictions by the order that answered, and by the orders above it that had nothing.");
    print(&l->followers, o, "best_followers_total",
          "Exact reads of the lists of best followers, the pairs topk:<order>:, by order.");
}
