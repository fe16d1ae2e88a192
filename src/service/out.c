/* out: see out.h. */
#include "service/out.h"

#include "base/alloc.h"
#include "base/bytes.h"

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

/* The length of the UTF-8 sequence (RFC 3629) at p of n bytes, 0 if there is none. */
static size_t sequence(const uint8_t *p, size_t n)
{
    uint8_t low = 0x80, high = 0xBF; /* range of the second byte */
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : (p[0] & 0xF0) == 0xE0 ? 3 : 0;
    if (p[0] >= 0xF0 && p[0] <= 0xF4)
        len = 4;
    if (len == 0 || len > n)
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (len > 1 && (p[1] < low || p[1] > high))
        return 0;
    for (size_t i = 2; i < len; i++) {
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    }
    return len;
}

/* Bit 7 of each byte of x that is below c (at most 0x80), or has bit 7 set itself: then it is not plain either. A byte after
 * one that is below may be reported too, so this says whether there is any. */
static uint64_t any_below(uint64_t x, uint8_t c) { return x - UINT64_C(0x0101010101010101) * c; }

/* How many bytes from p on need no escape: 8 at a time, then one by one. */
static size_t plain_run(const uint8_t *p, size_t n)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones * 0x80;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x = cht_get64(p + i);
        uint64_t bad = any_below(x, 0x20) | any_below(x ^ ones * '"', 1) | any_below(x ^ ones * '\\', 1) |
                       (x + ones) | x; /* x + 1: DEL */
        if ((bad & high) != 0)
            break;
    }
    while (i < n && p[i] >= 0x20 && p[i] < 0x7F && p[i] != '"' && p[i] != '\\')
        i++;
    return i;
}

/* Control characters beyond ASCII, which terminals obey, and those that turn the direction of what is read. */
static bool is_hidden(const uint8_t *p, size_t len)
{
    if (len == 2)
        return p[0] == 0xC2 && p[1] < 0xA0;
    if (len != 3 || p[0] != 0xE2)
        return false;
    return (p[1] == 0x80 && p[2] >= 0xAA && p[2] <= 0xAE) || (p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9);
}

void svc_out_string(struct svc_out *o, const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    svc_out_text(o, "\"");
    while (n > 0) {
        size_t plain = plain_run(p, n);
        svc_out_bytes(o, p, plain);
        p += plain;
        n -= plain;
        if (n == 0)
            break;
        size_t len = sequence(p, n);
        if (len == 0) {
            svc_out_text(o, "\\ufffd");
        } else if (*p == '"' || *p == '\\') {
            char two[2] = {'\\', (char)*p};
            svc_out_bytes(o, two, 2);
        } else if (*p < 0x20 || *p == 0x7F) {
            char six[6] = {'\\', 'u', '0', '0', hex[*p >> 4], hex[*p & 15]};
            svc_out_bytes(o, six, 6);
        } else if (is_hidden(p, len)) {
            unsigned c = len == 2 ? p[1] : 0x2000u | (p[1] & 3u) << 6 | (p[2] & 0x3Fu);
            char six[6] = {'\\', 'u', hex[c >> 12], hex[c >> 8 & 15], hex[c >> 4 & 15], hex[c & 15]};
            svc_out_bytes(o, six, 6);
        } else {
            svc_out_bytes(o, p, len);
        }
        p += len == 0 ? 1 : len;
        n -= len == 0 ? 1 : len;
    }
    svc_out_text(o, "\"");
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
