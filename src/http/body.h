/* body: what a request carries, once it is all there. Functions that return false have answered with an error. */
#pragma once

#include "http/request.h"

#include <jansson.h>

/* Content-Type says JSON (any parameters). */
bool body_is_json(struct request *r);
/* The body as a JSON object (owned by the caller); NULL after answering CHT_INVALID_BODY or `code`. */
json_t *body_object(struct request *r, enum cht_rc code);
/* A value: {"value":base64} where the content type is JSON, else the bytes themselves. out is borrowed from the request. */
bool body_value(struct request *r, struct cht_str *out);
/* The base64 text of a JSON string decoded over the front of r->body. */
bool body_base64(struct request *r, const json_t *text, struct cht_str *out);
