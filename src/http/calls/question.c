/* question: see question.h. */
#include "http/calls/question.h"

#include <string.h>

#include "base/literal.h"

struct text {
    const char *p, *end;
};

static void blank(struct text *t)
{
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t' || *t->p == '\r'))
        t->p++;
}

/* Takes one character, with white space before and after it. */
static bool take(struct text *t, char c)
{
    blank(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    blank(t);
    return true;
}

/* Takes a word with its quotes. */
static bool take_word(struct text *t, const char *word, size_t n)
{
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
        return false;
    t->p += n;
    return true;
}
#define TAKE(t, word) take_word((t), "\"" word "\"", sizeof(word) + 1)

/* An integer from 0 to UINT32_MAX as JSON writes it, and no fraction or exponent after it. */
static bool number(struct text *t, uint64_t *out)
{
    const char *start = t->p;
    uint64_t v = 0;
    while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && t->p - start < 11)
        v = v * 10 + (uint64_t)(*t->p++ - '0');
    size_t n = (size_t)(t->p - start);
    *out = v;
    return n > 0 && (n == 1 || *start != '0') && v <= UINT32_MAX &&
           (t->p == t->end || (*t->p != '.' && *t->p != 'e' && *t->p != 'E'));
}

static bool in_range(struct text *t, uint64_t max, bool *has, uint64_t *out)
{
    bool first = !*has;
    *has = true;
    return first && number(t, out) && *out >= 1 && *out <= max;
}

static bool tokens(struct text *t, struct http_question *q)
{
    uint64_t v;
    if (q->has_tokens || !take(t, '['))
        return false;
    q->has_tokens = true;
    if (take(t, ']'))
        return true;
    do {
        if (q->n == q->cap || !number(t, &v))
            return false;
        q->tokens[q->n++] = (uint32_t)v;
    } while (take(t, ','));
    return take(t, ']');
}

static bool mode(struct text *t, struct http_question *q)
{
    if (q->has_mode)
        return false;
    q->has_mode = true;
    q->mode = 0;
    if (TAKE(t, "deepest"))
        return true;
    q->mode = 1;
    if (TAKE(t, "levels"))
        return true;
    q->mode = 2;
    if (TAKE(t, "blend"))
        return true;
    q->mode = HTTP_QUESTION_LIVE;
    return TAKE(t, "live");
}

static bool boolean(struct text *t, struct http_question *q)
{
    if (q->has_bos)
        return false;
    q->has_bos = true;
    q->no_bos = !take_word(t, CHT_LITERAL("true"));
    return !q->no_bos || take_word(t, CHT_LITERAL("false"));
}

static bool member(struct text *t, uint64_t k_max, struct http_question *q)
{
    if (TAKE(t, "tokens"))
        return take(t, ':') && tokens(t, q);
    if (TAKE(t, "k"))
        return take(t, ':') && in_range(t, k_max, &q->has_k, &q->k);
    if (TAKE(t, "max_order"))
        return take(t, ':') && in_range(t, UINT32_MAX, &q->has_max_order, &q->max_order);
    if (TAKE(t, "bos"))
        return take(t, ':') && boolean(t, q);
    return TAKE(t, "mode") && take(t, ':') && mode(t, q);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_question_read(const char *p, size_t n, uint64_t k_max, struct http_question *q)
{
    struct text t = {p, p + n};
    if (!take(&t, '{'))
        return false;
    do {
        if (!member(&t, k_max, q))
            return false;
    } while (take(&t, ','));
    return take(&t, '}') && t.p == t.end && q->has_tokens;
}
