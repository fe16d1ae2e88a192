/* batch: POST /batch: operations read line by line while the body arrives, run as one commit, answered as a stream. */
#pragma once

#include "http/request.h"

/* A part of the body. False: give the connection up (out of memory). */
bool http_batch_feed(struct http_request *r, const char *data, size_t n);
