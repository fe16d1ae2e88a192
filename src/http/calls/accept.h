/* accept: the Accept header (RFC 9110 12.5.1), for the choices there are: a value as JSON or as its raw bytes, a page or JSON. */
#pragma once

#include "http/request.h"

/* Does the client want the bytes rather than JSON? By q-values; if both are worth the same, the bytes if the header names
 * application/octet-stream. Without a header, and if neither is accepted, JSON. */
bool http_accepts_bytes(const struct http_request *r);
/* The same for a page (text/html). */
bool http_accepts_html(const struct http_request *r);
