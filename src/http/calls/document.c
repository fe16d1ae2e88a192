/* document: see document.h. */
#include "http/calls/document.h"

#include <string.h>

#include "base/bytes.h"
#include "base/literal.h"
#include "service/text.h"

#define DIGITS 10u /* of UINT32_MAX */

struct line {
    const char *p, *end;
};

static void blank(struct line *l)
{
    while (l->p < l->end && (*l->p == ' ' || *l->p == '\t' || *l->p == '\r' || *l->p == '\n'))
        l->p++;
}

/* Takes one character, with white space before and after it. */
static bool take(struct line *l, char c)
{
    blank(l);
    if (l->p == l->end || *l->p != c)
        return false;
    l->p++;
    blank(l);
    return true;
}

static bool take_word(struct line *l, const char *word, size_t n)
{
    if ((size_t)(l->end - l->p) < n || memcmp(l->p, word, n) != 0)
        return false;
    l->p += n;
    return true;
}

/* How many of the 8 characters are digits, up to the first that is none: 8 if all are. A carry out of a byte reaches only bytes after one
 * that is no digit. */
static unsigned digits(uint64_t x)
{
    x ^= UINT64_C(0x3030303030303030);
    uint64_t other = ((x + UINT64_C(0x0606060606060606)) | x) & UINT64_C(0xF0F0F0F0F0F0F0F0);
    return other != 0 ? (unsigned)__builtin_ctzll(other) / 8 : 8;
}

/* The value of the first n (1 to 8) characters, which are digits: neighbours are put together, then pairs, then fours. */
static uint32_t value(uint64_t x, unsigned n)
{
    x = (x & UINT64_C(0x0F0F0F0F0F0F0F0F)) << (64 - 8 * n);
    x = (x * 10 + (x >> 8)) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x * 100 + (x >> 16)) & UINT64_C(0x0000FFFF0000FFFF);
    return (uint32_t)(x * 10000 + (x >> 32));
}

/* An integer from 0 to UINT32_MAX as JSON writes it; what follows is looked at by the caller. */
static bool number(struct line *l, uint32_t *out)
{
    const char *start = l->p;
    uint64_t v = 0;
    if (l->end - start >= 8) {
        uint64_t x = cht_get64((const uint8_t *)start);
        unsigned n = digits(x);
        if (n > 0 && n < 8) {
            *out = value(x, n);
            l->p += n;
            return n == 1 || *start != '0';
        }
    }
    while (l->p < l->end && *l->p >= '0' && *l->p <= '9' && (size_t)(l->p - start) <= DIGITS)
        v = v * 10 + (uint64_t)(*l->p++ - '0');
    size_t n = (size_t)(l->p - start);
    *out = (uint32_t)v;
    return n > 0 && (n == 1 || *start != '0') && v <= UINT32_MAX;
}

/* After the bracket, and white space. A fraction or an exponent is neither comma nor bracket. */
static bool numbers(struct line *l, struct http_document *d)
{
    uint32_t v;
    for (;;) {
        if (!number(l, &v))
            return false;
        if (d->n < d->cap)
            d->tokens[d->n] = v;
        d->n++;
        if (l->p < l->end && *l->p != ',')
            blank(l);
        if (l->p == l->end || *l->p != ',')
            return take(l, ']');
        l->p++;
        if (l->p < l->end && *l->p == ' ')
            l->p++;
        if (l->p < l->end && *l->p < '0')
            blank(l);
    }
}

static bool tokens(struct line *l, struct http_document *d)
{
    d->n = 0;
    return take(l, '[') && (take(l, ']') || numbers(l, d));
}

/* A string without escapes: what is not UTF-8, and control characters, jansson refuses. */
static bool text(struct line *l, struct http_document *d)
{
    if (!take_word(l, CHT_LITERAL("\"")))
        return false;
    d->text = l->p;
    while (l->p < l->end) {
        const uint8_t *p = (const uint8_t *)l->p;
        size_t left = (size_t)(l->end - l->p), n = svc_text_plain(p, left);
        if (n == left)
            return false;
        l->p += n;
        if (p[n] == '"')
            break;
        size_t len = p[n] < 0x20 || p[n] == '\\' ? 0 : svc_text_character(p + n, left - n);
        if (len == 0)
            return false;
        l->p += len;
    }
    d->text_n = (size_t)(l->p - d->text);
    return take(l, '"');
}

static bool remove_it(struct line *l, struct http_document *d)
{
    if (d->has_remove)
        return false;
    d->has_remove = true;
    d->remove = take_word(l, CHT_LITERAL("true"));
    return d->remove || take_word(l, CHT_LITERAL("false"));
}

static bool member(struct line *l, struct http_document *d)
{
    if (take_word(l, CHT_LITERAL("\"remove\"")))
        return take(l, ':') && remove_it(l, d);
    if (d->has_content)
        return false;
    d->has_content = true;
    if (d->texts)
        return take_word(l, CHT_LITERAL("\"text\"")) && take(l, ':') && text(l, d);
    return take_word(l, CHT_LITERAL("\"tokens\"")) && take(l, ':') && tokens(l, d);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_document_read(const char *p, size_t n, struct http_document *d)
{
    struct line l = {p, p + n};
    if (!take(&l, '{'))
        return false;
    do {
        if (!member(&l, d))
            return false;
    } while (take(&l, ','));
    return take(&l, '}') && l.p == l.end && d->has_content;
}
