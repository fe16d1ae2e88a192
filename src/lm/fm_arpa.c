/* fm_arpa: see fm_arpa.h. */
#include "lm/fm_arpa.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/literal.h"

#pragma STDC FP_CONTRACT OFF

enum { BEFORE, COUNTS, SECTION, AFTER };

#define NUMBER_MAX 400u /* bytes of a number */
#define SHOWN_MAX 40    /* of a field in a message */
#define FIELDS_MAX (LM_ORDER_MAX + 3)

struct field {
    const char *p;
    size_t n;
};

/* "line 12: " and what is wrong. */
#define REFUSE(a, err, fmt, ...) \
    CHT_FAIL((err), CHT_INVALID_ARPA, "line %" PRIu64 ": " fmt, (a)->lines, __VA_ARGS__)

static enum cht_rc refuse(const struct lm_arpa *a, const char *what, struct cht_err *err)
{
    return REFUSE(a, err, "%s", what);
}

static int shown(const struct field *f) { return f->n < SHOWN_MAX ? (int)f->n : SHOWN_MAX; }

/* The next field of a line; false: there is none. */
static bool next_field(const char **p, const char *end, struct field *out)
{
    while (*p < end && (**p == ' ' || **p == '\t'))
        ++*p;
    out->p = *p;
    while (*p < end && **p != ' ' && **p != '\t')
        ++*p;
    out->n = (size_t)(*p - out->p);
    return out->n > 0;
}

/* Digits only, without zeros in front, at most `max`. */
static bool take_integer(const struct field *f, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (f->n == 0 || f->n > 20 || (f->n > 1 && f->p[0] == '0'))
        return false;
    for (size_t i = 0; i < f->n; i++) {
        unsigned d = (unsigned char)f->p[i] - (unsigned)'0';
        if (d > 9 || v > (max - d) / 10)
            return false;
        v = v * 10 + d;
    }
    *out = v;
    return true;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static bool is_word(const char *p, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

/* inf, infinity, nan. */
static bool take_special(const char *p, size_t n, bool minus, double *out)
{
    if (is_word(p, n, "nan"))
        *out = (double)NAN;
    else if (is_word(p, n, "inf") || is_word(p, n, "infinity"))
        *out = minus ? -(double)INFINITY : (double)INFINITY;
    else
        return false;
    return true;
}

/* The digits of a number without sign: m * 10^e, as far as they fit. *exact: they all did. */
static bool take_digits(const char **p, const char *end, uint64_t *m, int *e, bool *exact)
{
    bool any = false, point = false;
    *m = 0;
    *e = 0;
    *exact = true;
    for (; *p < end; ++*p) {
        char c = **p;
        if (c == '.' && !point) {
            point = true;
            continue;
        }
        if (c < '0' || c > '9')
            break;
        any = true;
        if (*m < UINT64_C(100000000000000)) {
            *m = *m * 10 + (uint64_t)(c - '0');
            *e -= point;
        } else {
            *exact = false;
            *e += !point;
        }
    }
    return any;
}

/* e or E, and a number. */
static bool take_exponent(const char **p, const char *end, int *e)
{
    if (*p == end || (**p != 'e' && **p != 'E'))
        return true;
    ++*p;
    bool minus = *p < end && **p == '-';
    *p += *p < end && (**p == '-' || **p == '+');
    if (*p == end)
        return false;
    int v = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p)
        v = v < 100000 ? v * 10 + (**p - '0') : v;
    *e += minus ? -v : v;
    return true;
}

static bool take_number(const struct field *f, double *out)
{
    static const double power[] = {1,    1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char text[NUMBER_MAX + 1];
    const char *p = f->p, *end = p + f->n;
    bool minus = p < end && *p == '-', exact;
    uint64_t m;
    int e;
    p += p < end && (*p == '-' || *p == '+');
    if (p == end || f->n > NUMBER_MAX)
        return false;
    if (take_special(p, (size_t)(end - p), minus, out))
        return true;
    if (!take_digits(&p, end, &m, &e, &exact) || !take_exponent(&p, end, &e) || p != end)
        return false;
    if (exact && e >= -22 && e <= 22) { /* both numbers are exact, so the result is rounded once */
        double v = e < 0 ? (double)m / power[-e] : (double)m * power[e];
        *out = minus ? -v : v;
        return true;
    }
    memcpy(text, f->p, f->n);
    text[f->n] = 0;
    *out = strtod(text, NULL);
    return true;
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

/* Which special word it is; 0: none. */
static unsigned special(const struct field *f)
{
    if (f->n == 0 || f->p[0] != '<')
        return 0;
    if (CHT_IS(f->p, f->n, "<s>"))
        return LM_FM_BOS;
    if (CHT_IS(f->p, f->n, "</s>"))
        return LM_FM_EOS;
    return CHT_IS(f->p, f->n, "<unk>") || CHT_IS(f->p, f->n, "<UNK>") ? LM_FM_UNK : 0;
}

static enum cht_rc take_word(struct lm_arpa *a, const struct field *f, uint32_t *out, struct cht_err *err)
{
    uint64_t v;
    unsigned s = special(f);
    if (f->n > LM_ARPA_WORD_MAX)
        return REFUSE(a, err, "a word of more than %u bytes", LM_ARPA_WORD_MAX);
    if (s != 0) {
        *out = s == LM_FM_BOS ? a->bos : s == LM_FM_EOS ? a->eos : a->unk;
        if (a->at == 1)
            a->named |= s;
        return CHT_OK;
    }
    if (a->word != NULL)
        return a->word(a->ctx, (struct cht_str){(const uint8_t *)f->p, f->n}, out, err);
    if (!take_integer(f, UINT32_MAX, &v))
        return REFUSE(a, err, "the word '%.*s' is no token (0 to 4294967295)", shown(f), f->p);
    *out = (uint32_t)v;
    if (*out != a->bos && *out != a->eos && *out != a->unk)
        return CHT_OK;
    return REFUSE(a, err, "the token %" PRIu32 " is that of %s", *out,
                  *out == a->bos   ? "<s>"
                  : *out == a->eos ? "</s>"
                                   : "<unk>");
}

/* The number in front. p of <s> means nothing: it is never predicted. */
static enum cht_rc take_p(const struct lm_arpa *a, const struct field *f, bool any, float *out,
                          struct cht_err *err)
{
    double v;
    if (!take_number(f, &v))
        return REFUSE(a, err, "'%.*s' is no number", shown(f), f->p);
    if (!any && isnan(v))
        return refuse(a, "log10 p is not a number", err);
    if (!any && v > 0)
        return refuse(a, "log10 p is above 0", err);
    *out = any ? 0.0F : v <= (double)LM_FM_ZERO ? LM_FM_ZERO : v == 0 ? 0.0F : (float)v;
    return CHT_OK;
}

static enum cht_rc take_backoff(struct lm_arpa *a, const struct field *f, float *out, struct cht_err *err)
{
    double v;
    if (!take_number(f, &v))
        return REFUSE(a, err, "'%.*s' is no number", shown(f), f->p);
    float w = v == 0 ? 0.0F : (float)v;
    if (!isfinite(w))
        return refuse(a, "the back-off weight is not finite", err);
    if (a->at == a->order && w != 0)
        a->warnings |= LM_ARPA_LAST_BACKOFF;
    *out = a->at == a->order ? 0.0F : w;
    return CHT_OK;
}

static enum cht_rc gram_line(struct lm_arpa *a, const char *p, const char *end, struct cht_err *err)
{
    struct field f[FIELDS_MAX] = {0};
    uint32_t token[LM_ORDER_MAX];
    unsigned n = 0;
    while (n < a->at + 3 && next_field(&p, end, &f[n]))
        n++;
    struct lm_arpa_gram g = {.token = token, .order = a->at, .line = a->lines};
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < n; i++) {
        if (f[i].n > LM_ARPA_WORD_MAX)
            return REFUSE(a, err, "a word of more than %u bytes", LM_ARPA_WORD_MAX);
    }
    if (n != a->at + 1 && n != a->at + 2)
        return REFUSE(a, err, "an n-gram of order %u is a number, %u words, and a number or nothing", a->at,
                      a->at);
    if (++a->seen > a->n[a->at])
        return REFUSE(a, err, "there are more than the %" PRIu64 " n-grams of 'ngram %u='", a->n[a->at],
                      a->at);
    for (unsigned i = 0; i < a->at && rc == CHT_OK; i++)
        rc = take_word(a, &f[i + 1], &token[i], err);
    if (rc == CHT_OK)
        rc = take_p(a, &f[0], a->at == 1 && special(&f[1]) == LM_FM_BOS, &g.p, err);
    if (rc == CHT_OK && n == a->at + 2)
        rc = take_backoff(a, &f[n - 1], &g.backoff, err);
    return rc == CHT_OK ? a->gram(a->ctx, &g, err) : rc;
}

/* "ngram 2=30", with blanks anywhere but in the numbers. */
static enum cht_rc count_line(struct lm_arpa *a, const char *p, const char *end, struct cht_err *err)
{
    static const char what[] = "'ngram ORDER=COUNT' is expected, the orders from 1 on without a gap";
    struct field word, order, count, more;
    uint64_t m;
    if (!next_field(&p, end, &word) || !CHT_IS(word.p, word.n, "ngram"))
        return refuse(a, what, err);
    const char *equals = memchr(p, '=', (size_t)(end - p)), *q = p;
    if (equals == NULL || !next_field(&q, equals, &order) || next_field(&q, equals, &more) ||
        !take_integer(&order, UINT32_MAX, &m) || m != (uint64_t)a->order + 1)
        return refuse(a, what, err);
    if (m > LM_ORDER_MAX)
        return REFUSE(a, err, "order %" PRIu64 "; 1 to %u are possible", m, LM_ORDER_MAX);
    q = equals + 1;
    if (!next_field(&q, end, &count) || next_field(&q, end, &more) ||
        !take_integer(&count, INT64_MAX, &a->n[m]))
        return refuse(a, what, err);
    a->order = (unsigned)m;
    return CHT_OK;
}

/* All of the section under way have come. */
static enum cht_rc end_section(struct lm_arpa *a, struct cht_err *err)
{
    if (a->seen != a->n[a->at])
        return REFUSE(a, err, "section %u has %" PRIu64 " n-grams, 'ngram %u=' says %" PRIu64, a->at, a->seen,
                      a->at, a->n[a->at]);
    if (a->at > 1)
        return a->section(a->ctx, a->at, err);
    a->flags = a->named;
    if ((a->flags & LM_FM_UNK) == 0)
        a->warnings |= LM_ARPA_NO_UNK;
    if ((a->flags & LM_FM_BOS) == 0 || (a->flags & LM_FM_EOS) == 0) {
        a->warnings |= LM_ARPA_NO_MARKS;
        if (!a->unmarked)
            return REFUSE(a, err, "there is no %s among the 1-grams (unmarked=true accepts that)",
                          (a->flags & LM_FM_BOS) == 0 ? "<s>" : "</s>");
    }
    return a->section(a->ctx, a->at, err);
}

/* "\2-grams:" or "\end\". */
static enum cht_rc section_line(struct lm_arpa *a, const struct field *f, struct cht_err *err)
{
    static const char grams[] = "-grams:";
    size_t tail = sizeof grams - 1;
    enum cht_rc rc = a->state == SECTION ? end_section(a, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    if (CHT_IS(f->p, f->n, "\\end\\")) {
        if (a->state != SECTION || a->at != a->order)
            return REFUSE(a, err, "section %u is expected, and not the end", a->at + 1);
        a->state = AFTER;
        return CHT_OK;
    }
    struct field number = {f->p + 1, f->n > tail + 1 ? f->n - tail - 1 : 0};
    uint64_t m;
    if (number.n == 0 || memcmp(f->p + f->n - tail, grams, tail) != 0 ||
        !take_integer(&number, LM_ORDER_MAX, &m) || m != (uint64_t)a->at + 1 || m > a->order)
        return a->at < a->order ? REFUSE(a, err, "'\\%u-grams:' is expected", a->at + 1)
                                : REFUSE(a, err, "%s is expected", "'\\end\\'");
    if (a->state == COUNTS)
        rc = a->begin(a->ctx, a->order, a->n, err);
    a->state = SECTION;
    a->at = (unsigned)m;
    a->seen = 0;
    return rc;
}

/* A line, without its end. */
static enum cht_rc take_line(struct lm_arpa *a, const char *p, size_t n, struct cht_err *err)
{
    if (n > 0 && p[n - 1] == '\r')
        n--;
    const char *end = p + n, *q = p;
    struct field first, more;
    a->lines++;
    if (!next_field(&q, end, &first))
        return CHT_OK;
    switch (a->state) {
    case BEFORE:
        if (CHT_IS(first.p, first.n, "\\data\\") && !next_field(&q, end, &more))
            a->state = COUNTS;
        return CHT_OK;
    case AFTER:
        a->warnings |= LM_ARPA_TEXT_AFTER_END;
        return CHT_OK;
    default:
        if (first.p[0] != '\\')
            return a->state == COUNTS ? count_line(a, p, end, err) : gram_line(a, p, end, err);
        if (next_field(&q, end, &more))
            return refuse(a, "there is more on the line of a section's name", err);
        return section_line(a, &first, err);
    }
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

/* A line that is too long to be one of a model: its beginning says what it is. */
static enum cht_rc too_long(struct lm_arpa *a, struct cht_err *err)
{
    if (a->state == BEFORE || a->state == AFTER) {
        a->over = true; /* it is passed over */
        return CHT_OK;
    }
    a->lines++;
    const char *p = a->part, *end = p + a->part_n;
    struct field f;
    while (next_field(&p, end, &f)) {
        if (f.n > LM_ARPA_WORD_MAX)
            return REFUSE(a, err, "a word of more than %u bytes", LM_ARPA_WORD_MAX);
    }
    return refuse(a, "the line is too long", err);
}

/* Keeps a part of a line; of a run of blanks the first. */
static enum cht_rc keep(struct lm_arpa *a, const char *p, size_t n, struct cht_err *err)
{
    for (size_t i = 0; i < n && !a->over; i++) {
        bool blank = p[i] == ' ' || p[i] == '\t';
        if (blank && a->blank)
            continue;
        if (a->part_n == sizeof a->part) {
            enum cht_rc rc = too_long(a, err);
            if (rc != CHT_OK)
                return rc;
            break;
        }
        a->part[a->part_n++] = p[i];
        a->blank = blank;
    }
    return CHT_OK;
}

static enum cht_rc end_part(struct lm_arpa *a, struct cht_err *err)
{
    size_t n = a->part_n;
    a->part_n = 0;
    a->blank = a->over = false;
    return take_line(a, a->part, n, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_arpa_begin(struct lm_arpa *a)
{
    a->state = BEFORE;
    a->order = a->at = a->flags = a->warnings = a->named = 0;
    a->lines = a->seen = 0;
    a->blank = a->over = false;
    a->part_n = 0;
    memset(a->n, 0, sizeof a->n);
}

enum cht_rc lm_arpa_feed(struct lm_arpa *a, const char *p, size_t n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (n > 0 && rc == CHT_OK) {
        const char *stop = memchr(p, '\n', n);
        size_t len = stop != NULL ? (size_t)(stop - p) : n, step = len + (stop != NULL);
        if (stop != NULL && a->part_n == 0 && !a->over) {
            rc = take_line(a, p, len, err);
        } else {
            rc = keep(a, p, len, err);
            if (rc == CHT_OK && stop != NULL)
                rc = end_part(a, err);
        }
        p += step;
        n -= step;
    }
    return rc;
}

enum cht_rc lm_arpa_end(struct lm_arpa *a, struct cht_err *err)
{
    enum cht_rc rc = a->part_n > 0 || a->over ? end_part(a, err) : CHT_OK;
    if (rc != CHT_OK || a->state == AFTER)
        return rc;
    if (a->state == BEFORE)
        return CHT_FAIL(err, CHT_INVALID_ARPA, "there is no line '\\data\\'");
    return CHT_FAIL(err, CHT_INVALID_ARPA,
                    "the text is cut off after %" PRIu64 " lines: there is no '\\end\\'", a->lines);
}
