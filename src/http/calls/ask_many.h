/* ask_many: many questions in one request, a line each (NDJSON), answered by a stream. */
#pragma once

#include "http/request.h"

/* Is the body several lines, each of them a question, whether a good one or not? One document in several lines is not, unless Content-Type says that it
 * is NDJSON. */
bool http_ask_many_is(const struct http_request *r);
/* Answers POST /predict, or POST /score: a line for each in the order asked, then `end`, that of /score with sums. */
void http_ask_many(struct http_request *r, bool predict);
