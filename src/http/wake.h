/* wake: what other threads may do to a worker: ring its bell, and let a suspended connection go on. */
#pragma once

#include "http/request.h"

/* The worker looks at its inbox and its lists. Any thread. */
void http_worker_ring(struct http_worker *w);
/* Lets a suspended connection go on: libmicrohttpd notes it, the bell makes the worker look. Any thread. */
void http_worker_resume(struct http_worker *w, struct MHD_Connection *mc);
/* To the worker's list of those that quick.c runs or answers in this round. The worker's thread. */
void http_worker_enlist(struct http_worker *w, struct http_request *r);
/* The commit that r, which is `loose`, has waited for is done: quick.c goes on with it. Any thread; r may be gone when it returns. */
void http_worker_done(struct http_request *r);
