/* access_log: a line for each request. A worker collects its own and hands them to the log (service/log.h) together. On the worker's thread.
 */
#pragma once

#include "http/server.h"

/* Its answer is over; r->id is set. aborted: the client has not taken all of it. */
void http_access_log(const struct http_request *r, uint64_t micros, bool aborted);
/* Hands the lines on if they are many or old enough. */
void http_access_log_flush(struct http_worker *w);
