/* accept: what a client would like to get: a value as JSON or as its raw bytes, a page or JSON (Accept, RFC 9110 12.5.1); an answer compressed, and how
 * (Accept-Encoding, 12.5.3). */
#pragma once

#include "http/coding.h"
#include "http/request.h"

/* Does the client want the bytes rather than JSON? By q-values; if both are worth the same, the bytes if the header names
 * application/octet-stream. Without a header, and if neither is accepted, JSON. Caches are told that the answer depends on it (r->by_accept). */
bool http_accepts_bytes(struct http_request *r);
/* The same for a page (text/html). */
bool http_accepts_html(struct http_request *r);
/* The coding that is wanted most; zstd if it is named, and gzip worth the same. Without a header, and if what it is without one is wanted more: none. */
enum http_coding http_accepts_coding(const struct http_request *r);
/* Is gzip as good as what it is without a coding, or better? For what is there in these two forms only. */
bool http_accepts_gzip(const struct http_request *r);
