/* wake: what other threads may do to a worker: ring its bell, and let a suspended connection go on. */
#pragma once

#include "http/request.h"

/* The worker looks at its inbox and its lists. Any thread. */
void http_worker_ring(struct http_worker *w);
/* Lets a suspended connection go on: libmicrohttpd notes it, the bell makes the worker look. Any thread. */
void http_worker_resume(struct http_worker *w, struct MHD_Connection *mc);
