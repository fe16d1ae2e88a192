/* params: what a URL says. Percent-decoding (RFC 3986, section 2.1) is done here, once, so that %00 and %2F are bytes like
 * any other; '+' is itself. Functions that return false have answered the request with an error.
 */
#pragma once

#include "http/request.h"

/* Decodes n characters in place; SIZE_MAX for a malformed escape. */
size_t http_url_decode(char *p, size_t n);
/* Splits and decodes the query at q (n characters, in place) for the request's route. */
bool http_params_read(struct http_request *r, char *q, size_t n);
const char *http_param_name(enum http_param p);

/* ttl=, in seconds, to the millisecond; 0: not given. */
bool http_param_ttl(struct http_request *r, uint64_t *ms);
/* Seconds as a person writes them, 0.25 or 3600, up to CHT_TTL_MAX_MS; false: that is no time to live. */
bool http_ttl_read(const char *p, size_t n, uint64_t *ms);
bool http_param_bool(struct http_request *r, enum http_param p, bool fallback, bool *out);
/* etags=: the tag is of the value, so it goes with values=true only. */
bool http_param_etags(struct http_request *r, bool values, bool *out);
/* A decimal number from min to max; fallback if it is not given. */
bool http_param_number(struct http_request *r, enum http_param p, uint64_t min, uint64_t max,
                       uint64_t fallback, uint64_t *out);
/* Digits only, no leading zero, at most max. */
bool http_parse_decimal(const char *p, size_t n, uint64_t max, uint64_t *out);
/* By r->names: "*", "x<hex>" or the bytes themselves; always the bytes; always hex. Hex is decoded in place; the result is borrowed
 * from the request. */
bool http_byte_string(struct http_request *r, const char *p, size_t n, struct cht_str *out);
/* A parameter as a byte string; empty if it is not given. At most CHT_NAME_MAX bytes. */
bool http_param_bytes(struct http_request *r, enum http_param p, struct cht_str *out);
/* The rest of the path as the name of a pair (1 to 4096 bytes) or, with may_be_empty, as a prefix. */
bool http_rest_bytes(struct http_request *r, bool may_be_empty, struct cht_str *out);
/* The rest of the path as a key. */
bool http_rest_key(struct http_request *r, uint64_t *key);
