/* admit: what is decided about a request by its line and its headers: what it names, who asks, and whether he may. On the worker's thread.
 */
#pragma once

#include "http/request.h"

/* What the URI names, before anything is said of it. */
struct http_target {
    char *query; /* at its question mark; NULL: none */
    size_t path_len;
    unsigned allowed; /* methods of the path */
    const char *rest;
};

/* Are n bytes the same but for the case of letters (ASCII)? */
bool http_same_name(const char *a, const char *b, size_t n);
/* Keeps the URI, n bytes, and what of it is logged. False: no memory. */
bool http_admit_uri(struct http_request *r, const char *uri, size_t n);
/* Which header is that? HTTP_H_COUNT: none that is looked at. */
enum http_header http_admit_header(const char *name, size_t n);
/* r->id: X-Request-Id if it is fit to be returned and logged, else 16 random hex digits. */
void http_admit_id(struct http_request *r);
/* Sets r->route; r->method is set. */
struct http_target http_admit_route(struct http_request *r);
/* Is it served now, for this connection and this token? False after answering. */
bool http_admit(struct http_request *r);
/* Path and query of the URI; false after answering. */
bool http_admit_target(struct http_request *r, const struct http_target *t);
