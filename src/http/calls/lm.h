/* lm: the language-model calls: what arrives for them, and the life of a long run. */
#pragma once

#include "http/request.h"

/* A part of the body of POST /ngrams, read as it arrives. May answer with an error; false never (as http_batch_feed). */
bool http_ngrams_feed(struct http_request *r, const char *data, size_t n);
