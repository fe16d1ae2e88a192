/* lines: a body of lines (NDJSON), read as it comes in. Short lines are read at once, on the HTTP thread. From the first long one on the
 * rest of the body is only collected, and read by a job when it is all there, so that no line keeps a thread from its other
 * connections.
 */
#pragma once

#include "http/request.h"

#define HTTP_LINES_LONG SVC_MEMORY_SMALL /* bytes of a line that is read by a job */

struct http_lines {
    /* One line, without its line break. On the HTTP thread or a job's; answers nothing: a failure ends the reading. */
    enum cht_rc (*take)(struct http_request *r, const char *p, size_t n);
    /* Is tried first, and does what `take` would do if the line is in a form that needs no JSON library; then *rc says how. False: it is in
     * another, and nothing was done. NULL: there is no such form. */
    bool (*plain)(struct http_request *r, const char *p, size_t n, enum cht_rc *rc);
    void (*then)(struct http_request *r); /* http_lines_end's */
    size_t max;                           /* bytes of a line */
    struct svc_out text; /* owned: the beginning of a line that has not ended, or the collected rest */
    size_t from;         /* of it: where the line begins that has not ended */
    bool later;          /* it is the rest */
};

/* A part of the body. CHT_BATCH_TOO_LARGE: a line is longer than `max`; CHT_NO_MEMORY, as svc_memory_take, and what `take` says; the
 * message is in r->err. */
enum cht_rc http_lines_feed(struct http_request *r, struct http_lines *l, const char *data, size_t n);
/* The body is all there (its last line needs no line break): reads what is left, and `then` runs. Errors are answered. Ends the
 * handler. */
void http_lines_end(struct http_request *r, struct http_lines *l, void (*then)(struct http_request *r));
void http_lines_fini(struct http_lines *l);

/* Memory that the JSON library needs for a text, at most. */
uint64_t http_json_memory(const char *p, size_t n);
