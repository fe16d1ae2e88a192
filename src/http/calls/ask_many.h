/* ask_many: many questions in one request, a line each (NDJSON), answered by a stream. */
#pragma once

#include "http/request.h"

/* Is the body several lines, each of them a whole document? One document in several lines is not. */
bool http_ask_many_is(const struct http_request *r);
/* Answers POST /predict, or POST /score: a line for each in the order asked, then `end`, that of /score with sums. */
void http_ask_many(struct http_request *r, bool predict);
