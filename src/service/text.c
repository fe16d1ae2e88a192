/* text: see text.h. */
#include "service/text.h"

#include "base/bytes.h"
#include "base/literal.h"

#include <string.h>

/* Bit 7 of each byte of x that is below c (at most 0x80), or has bit 7 set itself: then it is not plain either. A byte after
 * one that is below may be reported too, so this says whether there is any. */
static uint64_t any_below(uint64_t x, uint8_t c) { return x - UINT64_C(0x0101010101010101) * c; }

/* U+0080 to U+009F: control characters, which terminals obey. */
static bool is_control(const uint8_t *p, size_t len) { return len == 2 && p[0] == 0xC2 && p[1] < 0xA0; }

/* Those, and what turns the direction of what is read. */
static bool is_hidden(const uint8_t *p, size_t len)
{
    if (len == 2)
        return is_control(p, len);
    if (len != 3 || p[0] != 0xE2)
        return false;
    return (p[1] == 0x80 && p[2] >= 0xAA && p[2] <= 0xAE) || (p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9);
}

/* Not plain, but text of one byte. */
static bool is_quoted(uint8_t c) { return c == '"' || c == '\\' || c == '\t' || c == '\n'; }

/* *more: by how much the JSON string is longer. */
static size_t prefix(const uint8_t *p, size_t n, size_t *more)
{
    size_t at = 0;
    *more = 0;
    while (at < n) {
        at += svc_text_plain(p + at, n - at);
        if (at == n)
            break;
        size_t len = svc_text_character(p + at, n - at);
        if (len == 0 || is_control(p + at, len) || (len == 1 && !is_quoted(p[at])))
            break;
        if (len == 1)
            *more += 1;
        else if (is_hidden(p + at, len))
            *more += 6 - len;
        at += len;
    }
    return at;
}

/* ------------------------------------------------------------------------------------------------------------ */

/* 8 at a time, then one by one. */
size_t svc_text_plain(const uint8_t *p, size_t n)
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

/* The length of the UTF-8 sequence (RFC 3629) at p of n bytes, 0 if there is none. */
size_t svc_text_character(const uint8_t *p, size_t n)
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

size_t svc_text_escape(char *to, const uint8_t *p, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    unsigned c = *p;
    if (c == '"' || c == '\\') {
        to[0] = '\\';
        to[1] = (char)c;
        return 2;
    }
    if (len == 1 ? c >= 0x20 && c != 0x7F : !is_hidden(p, len)) {
        memcpy(to, p, len);
        return len;
    }
    if (len == 2)
        c = p[1];
    else if (len == 3)
        c = 0x2000u | (p[1] & 3u) << 6 | (p[2] & 0x3Fu);
    const char six[6] = {'\\', 'u', hex[c >> 12], hex[c >> 8 & 15], hex[c >> 4 & 15], hex[c & 15]};
    memcpy(to, six, sizeof six);
    return sizeof six;
}

size_t svc_text_prefix(const uint8_t *p, size_t n)
{
    size_t more;
    return prefix(p, n, &more);
}

bool svc_text_is(const uint8_t *p, size_t n, size_t *json)
{
    size_t more;
    if (prefix(p, n, &more) < n)
        return false;
    *json = n + more;
    return true;
}

size_t svc_text_json(char *to, const uint8_t *p, size_t n)
{
    char *out = to;
    while (n > 0) {
        size_t len = svc_text_plain(p, n);
        memcpy(out, p, len);
        out += len;
        p += len;
        n -= len;
        if (n == 0)
            break;
        len = svc_text_character(p, n);
        if (*p == '\t' || *p == '\n')
            out = *p == '\t' ? CHT_PUT(out, "\\t") : CHT_PUT(out, "\\n");
        else
            out += svc_text_escape(out, p, len);
        p += len;
        n -= len;
    }
    return (size_t)(out - to);
}
