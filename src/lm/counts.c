/* counts: see counts.h. */
#include "lm/counts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "reduce/payload.h"

static enum cht_rc reserve(struct lm_counts *c, size_t n, struct cht_err *err)
{
    if (n <= c->cap)
        return CHT_OK;
    size_t cap = n + n / 2;
    struct lm_follower *f = cht_realloc(c->f, cap * sizeof *f);
    if (f == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu followers", n);
    c->f = f;
    c->cap = cap;
    return CHT_OK;
}

static int by_token(const void *x, const void *y)
{
    const struct lm_follower *a = x, *b = y;
    return (a->token > b->token) - (a->token < b->token);
}

/* Of a payload that was not ours. */
static void normalise(struct lm_counts *c)
{
    uint32_t n = 0;
    qsort(c->f, c->n, sizeof *c->f, by_token);
    for (uint32_t i = 0; i < c->n; i++) {
        if (n > 0 && c->f[n - 1].token == c->f[i].token)
            c->f[n - 1].count = lm_add_saturating(c->f[n - 1].count, c->f[i].count);
        else
            c->f[n++] = c->f[i];
    }
    c->n = n;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_counts_read(struct lm_counts *c, const uint8_t *p, size_t n, struct cht_str name,
                           struct cht_err *err)
{
    struct reduce_payload head;
    c->n = 0;
    if (!reduce_payload_counts(p, n, n, &head))
        return lm_malformed(name, n, "counts", err);
    enum cht_rc rc = reserve(c, head.n, err);
    if (rc != CHT_OK)
        return rc;
    bool ordered = true;
    for (uint32_t i = 0; i < head.n; i++) {
        const uint8_t *r = head.records + (size_t)i * REDUCE_PAYLOAD_COUNTS_RECORD;
        c->f[i] = (struct lm_follower){reduce_payload_get32(r), reduce_payload_get32(r + 4)};
        ordered = ordered && (i == 0 || c->f[i - 1].token < c->f[i].token);
    }
    c->n = head.n;
    if (!ordered)
        normalise(c);
    return CHT_OK;
}

enum cht_rc lm_counts_add(struct lm_counts *c, const struct lm_follower *add, uint32_t n, struct cht_err *err)
{
    enum cht_rc rc = reserve(c, (size_t)c->n + n, err);
    if (rc != CHT_OK)
        return rc;
    /* 1: those that are there already; the others are moved to the end, in order (the array has room for all). */
    uint32_t have = c->n, i = 0, end = c->n;
    for (uint32_t j = 0; j < n; j++) {
        while (i < have && c->f[i].token < add[j].token)
            i++;
        if (i < have && c->f[i].token == add[j].token)
            c->f[i].count = lm_add_saturating(c->f[i].count, add[j].count);
        else
            c->f[end++] = add[j];
    }
    c->n = end;
    /* 2: two ascending runs become one. */
    if (end > have && have > 0 && c->f[have - 1].token > c->f[have].token)
        qsort(c->f, end, sizeof *c->f, by_token);
    return CHT_OK;
}

enum cht_rc lm_counts_change(struct lm_counts *c, const struct lm_delta *d, uint32_t n, struct cht_err *err)
{
    enum cht_rc rc = reserve(c, (size_t)c->n + n, err);
    if (rc != CHT_OK)
        return rc;
    uint32_t have = c->n, end = c->n, left = 0;
    for (uint32_t j = 0, i = 0; j < n; j++) { /* may all of them be? */
        while (i < have && c->f[i].token < d[j].token)
            i++;
        uint32_t count = i < have && c->f[i].token == d[j].token ? c->f[i].count : 0;
        if (d[j].by < -(int64_t)count)
            return CHT_FAIL(err, CHT_NOT_COUNTED, "token %u was counted %u times; %lld cannot be taken away",
                            d[j].token, count, -(long long)d[j].by);
    }
    for (uint32_t j = 0, i = 0; j < n; j++) {
        while (i < have && c->f[i].token < d[j].token)
            i++;
        if (i == have || c->f[i].token != d[j].token)
            c->f[end++] = (struct lm_follower){d[j].token, lm_add_saturating(0, (uint64_t)d[j].by)};
        else if (d[j].by < 0)
            c->f[i].count -= (uint32_t)-d[j].by;
        else
            c->f[i].count = lm_add_saturating(c->f[i].count, (uint64_t)d[j].by);
    }
    if (end > have && have > 0 && c->f[have - 1].token > c->f[have].token)
        qsort(c->f, end, sizeof *c->f, by_token);
    for (uint32_t i = 0; i < end; i++) {
        if (c->f[i].count > 0)
            c->f[left++] = c->f[i];
    }
    c->n = left;
    return CHT_OK;
}

size_t lm_counts_size(uint32_t n)
{
    return REDUCE_PAYLOAD_HEAD_MAX + (size_t)n * REDUCE_PAYLOAD_COUNTS_RECORD;
}

size_t lm_counts_write(uint8_t *out, unsigned order, const struct lm_follower *f, uint32_t n)
{
    uint8_t *r = out + reduce_payload_begin(out, order, n);
    for (uint32_t i = 0; i < n; i++, r += REDUCE_PAYLOAD_COUNTS_RECORD) {
        reduce_payload_put32(r, f[i].token);
        reduce_payload_put32(r + 4, f[i].count);
    }
    return (size_t)(r - out);
}

void lm_counts_free(struct lm_counts *c)
{
    cht_free(c->f);
    *c = (struct lm_counts){NULL, 0, 0};
}

enum cht_rc lm_malformed(struct cht_str name, size_t size, const char *what, struct cht_err *err)
{
    char text[100];
    size_t at = 0;
    for (size_t i = 0; i < name.n && at + 5 < sizeof text; i++) {
        bool plain = name.p[i] > ' ' && name.p[i] < 0x7F;
        at += (size_t)snprintf(text + at, sizeof text - at, plain ? "%c" : "\\x%02x", name.p[i]);
    }
    text[at] = 0;
    return CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "the %zu bytes under the pair %s are no %s", size, text,
                    what);
}

size_t lm_prefix(const char *kind, unsigned order, uint8_t *out)
{
    size_t n = strlen(kind);
    memcpy(out, kind, n);
    out[n++] = ':';
    out[n++] = (uint8_t)('0' + order);
    out[n++] = ':';
    return n;
}
