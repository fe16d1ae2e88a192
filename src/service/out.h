/* out: text of an answer, built by appending; the first allocation that fails is remembered and tested once, at the end. */
#pragma once

#include "base/b64.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct out {
    char *p; /* owned */
    size_t n, cap;
    bool failed; /* out of memory: what was appended since is not there */
};

/* Room for `more` bytes after n; false (and failed) without memory. */
bool out_grow(struct out *o, size_t more);
void out_free(struct out *o);
/* Empties it; gives memory beyond `keep` back. */
void out_reset(struct out *o, size_t keep);

/* Decimal digits of v at p, which has room for 20; returns their number. Bytes after them may be written. */
size_t out_digits(char *p, uint64_t v);

static inline bool out_room(struct out *o, size_t more) { return o->cap - o->n >= more || out_grow(o, more); }
static inline void out_bytes(struct out *o, const void *p, size_t n)
{
    if (n > 0 && out_room(o, n)) {
        memcpy(o->p + o->n, p, n);
        o->n += n;
    }
}
static inline void out_text(struct out *o, const char *s) { out_bytes(o, s, strlen(s)); }
static inline void out_u64(struct out *o, uint64_t v)
{
    if (out_room(o, 20))
        o->n += out_digits(o->p + o->n, v);
}
/* base64 in quotes */
static inline void out_b64(struct out *o, const void *p, size_t n)
{
    if (out_room(o, cht_b64_encoded(n) + 2)) {
        o->p[o->n++] = '"';
        o->n += cht_b64_encode(o->p + o->n, p, n);
        o->p[o->n++] = '"';
    }
}
/* A JSON string in quotes. What is not UTF-8 comes out as U+FFFD. */
void out_string(struct out *o, const char *s, size_t n);
/* printf into it; for what is not in a hot path. */
void out_format(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
