/* reply: answers that are whole in memory. Each ends the handler: nothing may be done with the request behind it. */
#pragma once

#include "http/request.h"

/* r->out holds the body. */
void reply_json(struct request *r, int status);
void reply_media(struct request *r, int status, enum media media);
/* No body (204). */
void reply_empty(struct request *r, int status);
/* problem+json (RFC 9457) for a code; the detail in printf form. Headers set before stay. */
void reply_fail(struct request *r, enum cht_rc rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with the text of err, or the code's own where it has none. */
void reply_err(struct request *r, enum cht_rc rc, const struct cht_err *err);
/* Adds a header to the answer to come. value is printf'd. */
void reply_header(struct request *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* {"type":...} without a line break, appended to o. */
void problem_text(struct out *o, enum cht_rc rc, const char *detail);
const char *status_title(int status);
