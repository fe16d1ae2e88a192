/* words: see words.h. */
#include "tcp/words.h"

#include <string.h>

#include "base/alloc.h"
#include "base/b64.h"

static bool same(struct cht_str s, const char *name)
{
    if (strlen(name) != s.n)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (uint8_t)(s.p[i] - 'A' + 'a') : s.p[i];
        if (c != (uint8_t)name[i])
            return false;
    }
    return true;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ------------------------------------------------------------------------------------------------------------ */

struct cht_str line_words_next(struct cht_str *line)
{
    while (line->n > 0 && *line->p == ' ') {
        line->p++;
        line->n--;
    }
    const uint8_t *blank = line->n > 0 ? memchr(line->p, ' ', line->n) : NULL;
    struct cht_str w = {.p = line->p, .n = blank != NULL ? (size_t)(blank - line->p) : line->n};
    line->p += w.n;
    line->n -= w.n;
    return w;
}

bool line_word_split(struct cht_str word, struct line_word *out)
{
    const uint8_t *is = word.n > 0 ? memchr(word.p, '=', word.n) : NULL;
    if (is == NULL)
        return false;
    out->name = (struct cht_str){.p = word.p, .n = (size_t)(is - word.p)};
    out->value = (struct cht_str){.p = is + 1, .n = word.n - out->name.n - 1};
    return true;
}

bool line_word_is(const struct line_word *w, const char *name) { return same(w->name, name); }

bool line_words_get(struct cht_str line, const char *name, const char *other, struct cht_str *out)
{
    bool found = false;
    for (struct cht_str w = line_words_next(&line); w.n > 0; w = line_words_next(&line)) {
        struct line_word named;
        if (line_word_split(w, &named) &&
            (same(named.name, name) || (other != NULL && same(named.name, other)))) {
            *out = named.value;
            found = true;
        }
    }
    return found;
}

bool line_flag(struct cht_str v)
{
    return same(v, "1") || same(v, "true") || same(v, "yes") || same(v, "on");
}

bool line_words_flag(struct cht_str line, const char *name, const char *other)
{
    struct cht_str v;
    return line_words_get(line, name, other, &v) && line_flag(v);
}

bool line_bytes(uint8_t *to, struct cht_str text, struct cht_str *out)
{
    bool hex = text.n >= 2 && text.p[0] == 'x';
    size_t n = hex ? (text.n - 1) / 2 : text.n;
    for (size_t i = 0; hex && i < n; i++) {
        int high = hex_digit(text.p[1 + 2 * i]), low = hex_digit(text.p[2 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    if (hex && text.n % 2 == 0)
        return false;
    if (!hex && to != text.p && n > 0)
        memcpy(to, text.p, n);
    *out = (struct cht_str){.p = to, .n = n};
    return true;
}

/* jansson tells a text that is no JSON where and why, and says nothing if its first allocation fails; one that fails in the middle
 * of a text looks like bad JSON. So what looks bad is parsed again: there is memory now, or there is none from the start, or it is bad. */
static json_t *load(const void *p, size_t n, bool *no_memory)
{
    json_error_t where;
    json_t *out = NULL;
    for (int i = 0; i < 2 && out == NULL; i++)
        out = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    *no_memory = out == NULL && (where.text[0] == 0 || json_error_code(&where) == json_error_out_of_memory);
    return out;
}

json_t *line_json(struct cht_str text, bool *no_memory)
{
    *no_memory = false;
    if (text.n > 0 && (text.p[0] == '[' || text.p[0] == '{'))
        return load(text.p, text.n, no_memory);
    size_t padded = (text.n + 3) / 4 * 4, n = 0;
    char *copy = cht_malloc(padded + 1);
    uint8_t *bytes = cht_malloc(cht_b64_decoded_max(padded) + 1);
    json_t *out = NULL;
    *no_memory = copy == NULL || bytes == NULL;
    if (!*no_memory && text.n > 0) {
        memset(copy, '=', padded);
        memcpy(copy, text.p, text.n);
        if (cht_b64_decode(bytes, copy, padded, &n))
            out = load(bytes, n, no_memory);
    }
    cht_free(copy);
    cht_free(bytes);
    return out;
}
