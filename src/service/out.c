/* out: see out.h. */
#include "service/out.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "service/text.h"

#include <stdarg.h>
#include <stdio.h>

bool svc_out_grow(struct svc_out *o, size_t more)
{
    size_t want = o->n + more, cap = o->cap < 256 ? 256 : o->cap;
    if (want < more) {
        o->failed = true;
        return false;
    }
    while (cap < want)
        cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    char *p = cht_realloc(o->p, cap);
    if (p == NULL) {
        o->failed = true;
        return false;
    }
    o->p = p;
    o->cap = cap;
    return true;
}

void svc_out_free(struct svc_out *o)
{
    cht_free(o->p);
    *o = (struct svc_out){0};
}

void svc_out_reset(struct svc_out *o, size_t keep)
{
    if (o->cap > keep)
        svc_out_free(o);
    o->n = 0;
    o->failed = false;
}

static const char hex[] = "0123456789abcdef";

size_t svc_out_hex(char *p, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p[2 * i] = hex[bytes[i] >> 4];
        p[2 * i + 1] = hex[bytes[i] & 15];
    }
    return 2 * n;
}

#define EIGHT UINT64_C(100000000)
#define ZEROS UINT64_C(0x3030303030303030)

/* The digits of v < 10^8, the first one in the lowest byte: all lanes of a number are divided at once. */
static inline uint64_t eight_digits(uint32_t v)
{
    uint64_t x = v / 10000 | (uint64_t)(v % 10000) << 32; /* two lanes of four digits */
    uint64_t high = (x * 10486 >> 20) & 0x0000007f0000007f;
    x = high | (x - 100 * high) << 16; /* four lanes of two */
    high = (x * 103 >> 10) & 0x000f000f000f000f;
    return high | (x - 10 * high) << 8;
}

static inline void put_eight(char *p, uint32_t v) { cht_put64((uint8_t *)p, eight_digits(v) | ZEROS); }

/* v < 10^8 without zeros in front. No copy of variable length, which would be a call. */
static inline size_t put_short(char *p, uint32_t v)
{
    uint64_t x = eight_digits(v);
    unsigned lead = (unsigned)__builtin_ctzll(x | UINT64_C(1) << 56) / 8; /* 0 has a digit too */
    cht_put64((uint8_t *)p, (x | ZEROS) >> 8 * lead);
    return 8 - lead;
}

size_t svc_out_digits(char *p, uint64_t v)
{
    if (v < EIGHT)
        return put_short(p, (uint32_t)v);
    uint64_t high = v / EIGHT;
    size_t n;
    if (high < EIGHT) {
        n = put_short(p, (uint32_t)high);
    } else {
        n = put_short(p, (uint32_t)(high / EIGHT)) + 8;
        put_eight(p + n - 8, (uint32_t)(high % EIGHT));
    }
    put_eight(p + n, (uint32_t)(v % EIGHT));
    return n + 8;
}

void svc_out_string(struct svc_out *o, const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    svc_out_text(o, "\"");
    while (n > 0) {
        size_t plain = svc_text_plain(p, n);
        svc_out_bytes(o, p, plain);
        p += plain;
        n -= plain;
        if (n == 0)
            break;
        size_t len = svc_text_character(p, n);
        if (len == 0)
            svc_out_text(o, "\\ufffd");
        else if (svc_out_room(o, 6))
            o->n += svc_text_escape(o->p + o->n, p, len);
        p += len == 0 ? 1 : len;
        n -= len == 0 ? 1 : len;
    }
    svc_out_text(o, "\"");
}

static bool is_unreserved(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void svc_out_percent(struct svc_out *o, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < n && svc_out_room(o, 3); i++) {
        if (is_unreserved(bytes[i])) {
            o->p[o->n++] = (char)bytes[i];
            continue;
        }
        o->p[o->n++] = '%';
        o->p[o->n++] = digits[bytes[i] >> 4];
        o->p[o->n++] = digits[bytes[i] & 15];
    }
}

void svc_out_format(struct svc_out *o, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0 && svc_out_room(o, (size_t)n + 1))
        o->n += (size_t)vsnprintf(o->p + o->n, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
}
