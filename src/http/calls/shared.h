/* shared: what the handlers of statistics share, and the server keeps for them (struct http_routes): answers of aggregates, and who counts and
 * smooths where.
 */
#pragma once

#include "http/server.h"

struct http_shared {
    struct reduce_cache *cache; /* owned, as is the next */
    struct lm_engine *lm;
};

static inline struct http_shared *http_shared(const struct http_server *s) { return s->shared; }

/* For the table of routes: see struct http_routes. */
enum cht_rc http_shared_open(const struct conf *c, void **shared, struct cht_err *err);
void http_shared_close(void *shared);
void http_shared_forget(void *shared, const struct cht_store *store);
void http_shared_print(void *shared, struct svc_out *o);
