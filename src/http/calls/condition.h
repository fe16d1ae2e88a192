/* condition: the preconditions of a request or of a line of a batch: what a value or pair must be for the call to be done. What is there
 * is judged when the operation's turn has come (struct cht_ask), so of two clients that race exactly one succeeds.
 *
 *   If-Match       "tag", ...   it is there and has one of the tags      *   it is there
 *   If-None-Match  "tag", ...   it has none of the tags, or is not there  *   it is not there
 *
 * Of both, both must hold. A pair is there if its name is mapped; its tag is that of the value it leads to, or of none (etag.h).
 */
#pragma once

#include "cheetah/store.h"
#include "http/request.h"

struct http_condition {
    struct cht_ask ask;       /* first */
    const char *match, *none; /* checked text of the headers; NULL: none. Borrowed */
};

/* Is it a list of tags, or *? */
bool http_condition_valid(const char *text);
/* For the texts in c: an ask that decides by them. At least one is there. */
void http_condition_ask(struct http_condition *c);

/* Of a request that reads. False after answering: a header that cannot be read. */
bool http_condition_check(struct http_request *r);
/* Judges a request that reads by what it has found, and notes the tag for the answer. False after answering: 304 or 412. */
bool http_condition_found(struct http_request *r, uint64_t key, const uint8_t *value, size_t n);
/* The same for one that found nothing: 412 if it should be there. */
bool http_condition_absent(struct http_request *r);

/* As http_request_own_operation, with what the request's headers ask. NULL after answering. */
struct cht_op *http_condition_operation(struct http_request *r, enum cht_op_kind kind);
