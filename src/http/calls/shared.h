/* shared: what the handlers of statistics share, and the server keeps for them (struct http_routes): answers of aggregates, who counts and
 * smooths where, and what was looked up.
 */
#pragma once

#include "http/calls/lookups.h"
#include "http/server.h"

/* Runs of POST /reduce/links. Any thread. */
struct http_links_sums {
    _Atomic uint64_t runs, failed; /* failed: of the runs */
    _Atomic uint64_t contexts, links, compared, pruned;
    _Atomic uint64_t ns; /* that they took */
};

struct http_shared {
    struct reduce_cache *cache; /* owned, as is the next */
    struct lm_engine *lm;
    struct http_lookups lookups;
    struct http_links_sums links;
};

static inline struct http_shared *http_shared(const struct http_server *s) { return s->shared; }

/* For the table of routes: see struct http_routes. */
enum cht_rc http_shared_open(const struct conf *c, void **shared, struct cht_err *err);
void http_shared_close(void *shared);
void http_shared_forget(void *shared, const struct cht_store *store);
struct lm_engine *http_shared_engine(void *shared);
void http_shared_print(void *shared, struct svc_out *o);
