/* kn_windows: see kn_windows.h. The sort is by digits, the last key first: the token, then its context from the farthest token
 * to the nearest. A digit that is the same in all keys is passed over, so small numbers cost few passes. */
#include "lm/kn_windows.h"

#include <string.h>

#include "base/alloc.h"
#include "os/io.h"

#define WIDE_FROM 8192u /* that many keys pay for wide digits */
#define WIDE_BITS 11u
#define NARROW_BITS 8u
#define FEW 24u /* are put in order by insertion */

static enum cht_rc reserve(struct lm_kn_text *t, size_t more, struct cht_err *err)
{
    if (more > LM_KN_TEXT_MAX - t->n)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "more than %u tokens in one request", LM_KN_TEXT_MAX);
    if (t->n + more <= t->cap)
        return CHT_OK;
    size_t cap = t->n + more + t->n / 2 + 256;
    uint32_t *token = cht_realloc(t->token, cap * sizeof *token);
    if (token != NULL)
        t->token = token;
    uint8_t *reach = token != NULL ? cht_realloc(t->reach, cap) : NULL;
    if (reach == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", cap);
    t->reach = reach;
    t->cap = cap;
    return CHT_OK;
}

/* What is sorted: where windows end. */
struct sorting {
    const struct lm_kn_text *text;
    uint32_t *at, *spare; /* owned */
    size_t n;
    unsigned bits;
};

/* The token `back` tokens before, 0 in front of the segment (there is no other token there: bos begins a segment only). */
static inline uint32_t key(const struct lm_kn_text *t, uint32_t at, unsigned back)
{
    return (t->reach[at] & LM_KN_REACH) >= back ? t->token[at - back] : 0;
}

/* One pass: stable, by one digit of the token `back` before. */
static void pass(struct sorting *s, unsigned back, unsigned shift)
{
    uint32_t count[1u << WIDE_BITS] = {0}, mask = (1u << s->bits) - 1, sum = 0;
    for (size_t i = 0; i < s->n; i++)
        count[key(s->text, s->at[i], back) >> shift & mask]++;
    for (uint32_t d = 0; d <= mask; d++) {
        uint32_t c = count[d];
        count[d] = sum;
        sum += c;
    }
    for (size_t i = 0; i < s->n; i++) {
        uint32_t at = s->at[i];
        s->spare[count[key(s->text, at, back) >> shift & mask]++] = at;
    }
    uint32_t *sorted = s->spare;
    s->spare = s->at;
    s->at = sorted;
}

static void sort(struct sorting *s, unsigned order)
{
    uint32_t differ = 0; /* bits that are not the same in all tokens, 0 among them */
    for (size_t i = 0; i < s->text->n; i++)
        differ |= s->text->token[i];
    s->bits = s->n < WIDE_FROM ? NARROW_BITS : WIDE_BITS;
    for (unsigned k = 0; k < order; k++) {
        unsigned back = k == 0 ? 0 : order - k;
        for (unsigned shift = 0; shift < 32; shift += s->bits) {
            if ((differ >> shift & ((1u << s->bits) - 1)) != 0)
                pass(s, back, shift);
        }
    }
}

static unsigned length(const struct lm_kn_text *t, uint32_t at, unsigned order)
{
    unsigned n = (t->reach[at] & LM_KN_REACH) + 1u;
    return n < order ? n : order;
}

static bool same(const struct lm_kn_text *t, uint32_t a, uint32_t b, unsigned order)
{
    unsigned n = length(t, a, order);
    if (n != length(t, b, order))
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (t->token[a - i] != t->token[b - i])
            return false;
    }
    return true;
}

/* Equal windows, from i on, up to the one that is returned. */
static size_t run(const struct sorting *s, size_t i, unsigned order, int64_t *by)
{
    size_t j = i;
    *by = 0;
    do {
        *by += (s->text->reach[s->at[j]] & LM_KN_TAKEN) != 0 ? -1 : 1;
        j++;
    } while (j < s->n && same(s->text, s->at[i], s->at[j], order));
    return j;
}

/* The runs in s->at become changes by length. Runs that come to nothing are left out. */
static enum cht_rc net(struct lm_kn_windows *w, const struct sorting *s, unsigned order, struct cht_err *err)
{
    size_t many[LM_ORDERS] = {0};
    int64_t by;
    for (size_t i = 0; i < s->n;) {
        uint32_t at = s->at[i];
        i = run(s, i, order, &by);
        many[length(s->text, at, order)] += by != 0;
    }
    for (unsigned m = 1; m <= order; m++) {
        w->m[m].d = cht_malloc((many[m] + 1) * sizeof *w->m[m].d);
        if (w->m[m].d == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", many[m]);
        cht_os_huge_pages(w->m[m].d, (many[m] + 1) * sizeof *w->m[m].d);
    }
    for (size_t i = 0; i < s->n;) {
        uint32_t at = s->at[i];
        struct lm_kn_deltas *d = &w->m[length(s->text, at, order)];
        i = run(s, i, order, &by);
        if (by != 0)
            d->d[d->n++] = (struct lm_kn_delta){at, (int32_t)by};
    }
    return CHT_OK;
}

/* By token, stable, by digits. Returns whichever of the two arrays has the result. */
static struct lm_kn_delta *by_token(struct lm_kn_delta *d, struct lm_kn_delta *spare, size_t n,
                                    const uint32_t *token)
{
    uint32_t all = 0, common = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        all |= token[d[i].at];
        common &= token[d[i].at];
    }
    for (unsigned shift = 0; shift < 32; shift += NARROW_BITS) {
        uint32_t count[1u << NARROW_BITS] = {0}, sum = 0;
        if (((all ^ common) >> shift & 0xFF) == 0)
            continue;
        for (size_t i = 0; i < n; i++)
            count[token[d[i].at] >> shift & 0xFF]++;
        for (unsigned v = 0; v < 1u << NARROW_BITS; v++) {
            uint32_t c = count[v];
            count[v] = sum;
            sum += c;
        }
        for (size_t i = 0; i < n; i++)
            spare[count[token[d[i].at] >> shift & 0xFF]++] = d[i];
        struct lm_kn_delta *sorted = spare;
        spare = d;
        d = sorted;
    }
    return d;
}

static void insert_by_token(struct lm_kn_delta *d, size_t n, const uint32_t *token)
{
    for (size_t i = 1; i < n; i++) {
        struct lm_kn_delta x = d[i];
        size_t at = i;
        for (; at > 0 && token[d[at - 1].at] > token[x.at]; at--)
            d[at] = d[at - 1];
        d[at] = x;
    }
}

/* One segment is put after the others. */
static void put_segment(struct lm_kn_text *t, uint32_t bos, const uint32_t *tokens, size_t n, bool take)
{
    uint8_t mark = take ? LM_KN_TAKEN : 0;
    t->token[t->n] = bos;
    t->reach[t->n++] = mark;
    for (size_t i = 0; i < n; i++) {
        t->token[t->n] = tokens[i];
        t->reach[t->n++] = (uint8_t)(mark | (i + 1 < LM_KN_REACH_MAX ? i + 1 : LM_KN_REACH_MAX));
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_text_add(struct lm_kn_text *t, uint32_t bos, const uint32_t *tokens, size_t n, bool take,
                           struct cht_err *err)
{
    size_t i = 0, more = 1; /* a segment that gets a bos; others bring theirs */
    enum cht_rc rc = reserve(t, n + more, err);
    while (rc == CHT_OK && i < n) {
        size_t from = tokens[i] == bos ? i + 1 : i, to = from;
        while (to < n && tokens[to] != bos)
            to++;
        if (to > from) {
            put_segment(t, bos, tokens + from, to - from, take);
            *(take ? &t->taken : &t->predicted) += to - from;
        }
        i = to;
    }
    return rc;
}

void lm_kn_text_free(struct lm_kn_text *t)
{
    cht_free(t->token);
    cht_free(t->reach);
    *t = (struct lm_kn_text){0};
}

enum cht_rc lm_kn_windows_make(struct lm_kn_windows *w, const struct lm_kn_text *t, unsigned order,
                               struct cht_err *err)
{
    struct sorting s = {.text = t};
    size_t room = ((size_t)(t->predicted + t->taken) + 1) * sizeof *s.at;
    *w = (struct lm_kn_windows){0};
    s.at = cht_malloc(room);
    s.spare = cht_malloc(room);
    enum cht_rc rc = CHT_OK;
    if (s.at == NULL || s.spare == NULL) {
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", t->n);
    } else {
        cht_os_huge_pages(s.at, room);
        cht_os_huge_pages(s.spare, room);
        for (size_t i = 0; i < t->n; i++) {
            if ((t->reach[i] & LM_KN_REACH) > 0)
                s.at[s.n++] = (uint32_t)i;
        }
        sort(&s, order);
        rc = net(w, &s, order, err);
    }
    cht_free(s.at);
    cht_free(s.spare);
    return rc;
}

void lm_kn_windows_free(struct lm_kn_windows *w)
{
    for (unsigned m = 0; m < LM_ORDERS; m++)
        cht_free(w->m[m].d);
    *w = (struct lm_kn_windows){0};
}

size_t lm_kn_deltas_settle(struct lm_kn_delta *d, struct lm_kn_delta *spare, size_t n, const uint32_t *token)
{
    struct lm_kn_delta *sorted = d;
    size_t out = 0;
    if (n > FEW)
        sorted = by_token(d, spare, n, token);
    else
        insert_by_token(d, n, token);
    for (size_t i = 0; i < n;) {
        int64_t by = 0;
        uint32_t at = sorted[i].at;
        for (; i < n && token[sorted[i].at] == token[at]; i++)
            by += sorted[i].by;
        if (by != 0)
            d[out++] = (struct lm_kn_delta){at, (int32_t)by};
    }
    return out;
}

int lm_kn_context_compare(const uint32_t *token, uint32_t a, uint32_t b, unsigned tokens)
{
    for (unsigned i = 1; i <= tokens; i++) {
        if (token[a - i] != token[b - i])
            return token[a - i] < token[b - i] ? -1 : 1;
    }
    return 0;
}
