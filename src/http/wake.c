/* wake: see wake.h. */
#include "http/wake.h"

#include "http/server.h"

/* Once for all that is to be looked at in one round. What is to be seen is written before; the worker silences the bell
 * before it looks. Both exchange: who comes second has what the other wrote, so either this finds 0 and rings, or the worker, which finds
 * 1, sees all that was written, also by a relaxed load (its own store would not keep that load after it on every machine). */
void http_worker_ring(struct http_worker *w)
{
    if (atomic_exchange_explicit(&w->rung, 1, memory_order_acq_rel) == 0)
        cht_bell_ring(w->bell);
}

void http_worker_resume(struct http_worker *w, struct MHD_Connection *mc)
{
    MHD_resume_connection(mc);
    http_worker_ring(w);
}

void http_worker_enlist(struct http_worker *w, struct http_request *r)
{
    r->next = NULL;
    *w->quick_end = r;
    w->quick_end = &r->next;
}

void http_worker_done(struct http_request *r)
{
    struct http_worker *w = r->w;
    struct http_request *first = atomic_load_explicit(&w->done, memory_order_relaxed);
    do
        r->next = first;
    while (!atomic_compare_exchange_weak_explicit(&w->done, &first, r, memory_order_release,
                                                  memory_order_relaxed));
    http_worker_ring(w);
}
