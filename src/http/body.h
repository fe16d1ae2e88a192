/* body: what a request carries, once it is all there. Functions that return false have answered with an error. */
#pragma once

#include "http/request.h"

#include <jansson.h>

/* A part of it, which is copied. Booked are three times a long body: it is parsed or committed, which makes copies. CHT_NO_MEMORY,
 * CHT_OVERLOADED. */
enum cht_rc http_body_append(struct http_request *r, const char *data, size_t n);
/* Content-Type says JSON, or NDJSON (any parameters). */
bool http_body_is_json(const struct http_request *r);
bool http_body_is_ndjson(const struct http_request *r);
/* A long JSON body is parsed by a job, and then route->run is called: true, and nothing is to be done now. False: it is short, or no
 * JSON. */
bool http_body_parse_later(struct http_request *r);
/* The body as a JSON object (owned by the caller); NULL after answering CHT_INVALID_BODY or `code`. */
json_t *http_body_object(struct http_request *r, enum cht_rc code);
/* A value: {"value":base64} if the content type is JSON, else the bytes themselves. out is borrowed from the request. */
bool http_body_value(struct http_request *r, struct cht_str *out);
/* The base64 text of a JSON string decoded over the front of r->body. */
bool http_body_base64(struct http_request *r, const json_t *text, struct cht_str *out);
