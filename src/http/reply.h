/* reply: answers that are whole in memory. Each ends the handler: nothing may be done with the request after it. */
#pragma once

#include "http/request.h"

/* r->out holds the body. */
void http_reply_json(struct http_request *r, int status);
void http_reply_media(struct http_request *r, int status, enum http_media media);
/* No body (204). */
/* The answer gets this ETag, unless it becomes a problem. */
void http_reply_tag(struct http_request *r, uint64_t tag);
void http_reply_empty(struct http_request *r, int status);
/* problem+json (RFC 9457) for a code; the detail in printf form. Headers set before stay. */
void http_reply_fail(struct http_request *r, enum cht_rc rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with the text of err, or the code's own if it has none. */
void http_reply_err(struct http_request *r, enum cht_rc rc, const struct cht_err *err);
/* Adds a header to the answer to come. value is printf'd. */
void http_reply_header(struct http_request *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* {"type":...} without a line break, appended to o. */
void http_problem_text(struct svc_out *o, enum cht_rc rc, const char *detail);
/* The line that ends a stream that failed: {"error":{...}} with the text of err, or the code's own if it has none. */
void http_problem_line(struct svc_out *o, enum cht_rc rc, const struct cht_err *err);
const char *http_status_title(int status);
