/* out: text of an answer, built by appending; the first allocation that fails is remembered and tested once, at the end. */
#pragma once

#include "base/b64.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct svc_out {
    char *p; /* owned */
    size_t n, cap;
    bool failed; /* out of memory: what was appended since is not there */
};

/* Room for `more` bytes after n; false (and failed) without memory. */
bool svc_out_grow(struct svc_out *o, size_t more);
void svc_out_free(struct svc_out *o);
/* Empties it; gives memory beyond `keep` back. */
void svc_out_reset(struct svc_out *o, size_t keep);

/* 2 * n lower-case hexadecimal digits at p, which has room for them; returns their number. */
size_t svc_out_hex(char *p, const uint8_t *bytes, size_t n);
/* Decimal digits of v at p, which has room for 20; returns their number. Bytes after them may be written. */
size_t svc_out_digits(char *p, uint64_t v);

static inline bool svc_out_room(struct svc_out *o, size_t more)
{
    return o->cap - o->n >= more || svc_out_grow(o, more);
}
static inline void svc_out_bytes(struct svc_out *o, const void *p, size_t n)
{
    if (n > 0 && svc_out_room(o, n)) {
        memcpy(o->p + o->n, p, n);
        o->n += n;
    }
}
static inline void svc_out_text(struct svc_out *o, const char *s) { svc_out_bytes(o, s, strlen(s)); }
static inline void svc_out_u64(struct svc_out *o, uint64_t v)
{
    if (svc_out_room(o, 20))
        o->n += svc_out_digits(o->p + o->n, v);
}
/* base64 in quotes */
static inline void svc_out_b64(struct svc_out *o, const void *p, size_t n)
{
    if (svc_out_room(o, cht_b64_encoded(n) + 2)) {
        o->p[o->n++] = '"';
        o->n += cht_b64_encode(o->p + o->n, p, n);
        o->p[o->n++] = '"';
    }
}
/* A JSON string in quotes. What is not UTF-8 comes out as U+FFFD. */
void svc_out_string(struct svc_out *o, const char *s, size_t n);
/* As in a URL: unreserved characters (RFC 3986, 2.3) as they are, any other byte as %XX. */
void svc_out_percent(struct svc_out *o, const uint8_t *bytes, size_t n);
/* printf into it; for what is not in a hot path. */
void svc_out_format(struct svc_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
