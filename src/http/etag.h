/* etag: the tag of a stored value: 64 bits over its key and its bytes, as 16 hexadecimal digits in quotes. The same for all
 * representations, after a restart, and in another server that has the value under the same key.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HTTP_ETAG_LEN 18u /* with its quotes */

/* The same of a value that comes in pieces, in order: begin with all its bytes, add, end. */
struct http_etag_part {
    uint64_t h;
    uint8_t rest[16]; /* the last 1 to 16 bytes so far */
    size_t n;         /* in rest */
};
void http_etag_begin(struct http_etag_part *e, uint64_t key, size_t size);
void http_etag_add(struct http_etag_part *e, const uint8_t *p, size_t n);
uint64_t http_etag_end(const struct http_etag_part *e);
/* No value: n is 0. */
uint64_t http_etag(uint64_t key, const uint8_t *p, size_t n);
/* HTTP_ETAG_LEN characters and a NUL. */
void http_etag_text(char *to, uint64_t tag);
/* 16 digits of v, in an order of its own. */
void http_hex(char *to, uint64_t v);
