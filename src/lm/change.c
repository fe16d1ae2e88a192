/* change: see change.h. The deciders run on the committer's thread. */
#include "lm/change.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 21u /* of an int64_t, with its sign and the NUL */

static struct lm_change *of(struct cht_ask *ask) { return (struct lm_change *)(void *)ask; }

/* A value that is there and cannot be read is never taken for one that is not there. */
static enum cht_rc damaged(const struct cht_found *found, struct cht_err *err)
{
    return CHT_FAIL(err, found->damage, "the value under key %" PRIu64 " cannot be read", found->key);
}

/* ---- add ------------------------------------------------------------------------------------------------------------- */

static enum cht_rc not_a_number(const struct cht_found *found, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NOT_A_NUMBER, "the %zu bytes under key %" PRIu64 " are no decimal integer",
                    found->value.n, found->key);
}

static enum cht_rc overflow(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NUMBER_OVERFLOW, "numbers are from %" PRId64 " to %" PRId64, INT64_MIN,
                    INT64_MAX);
}

/* An optional minus and digits, nothing else. */
static enum cht_rc read_number(const struct cht_found *found, int64_t *out, struct cht_err *err)
{
    const uint8_t *p = found->value.p, *end = p + found->value.n;
    bool minus = *p == '-';
    int64_t v = 0;
    bool fits = true;
    p += minus;
    if (p == end)
        return not_a_number(found, err);
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return not_a_number(found, err);
        int64_t digit = minus ? -(int64_t)(*p - '0') : *p - '0';
        fits = fits && !__builtin_mul_overflow(v, (int64_t)10, &v) && !__builtin_add_overflow(v, digit, &v);
    }
    *out = v;
    return fits ? CHT_OK : overflow(err);
}

static enum cht_rc decide_add(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                              struct cht_err *err)
{
    struct lm_change *c = of(ask);
    int64_t v = 0;
    if (found->damage != CHT_OK)
        return damaged(found, err);
    enum cht_rc rc = found->live ? read_number(found, &v, err) : CHT_OK;
    if (rc == CHT_OK && __builtin_add_overflow(v, c->by, &c->sum))
        rc = overflow(err);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&c->value, DIGITS_MAX, err);
    if (rc != CHT_OK)
        return rc;
    c->value.len = (size_t)snprintf((char *)c->value.data, DIGITS_MAX, "%" PRId64, c->sum);
    op->value = (struct cht_str){.p = c->value.data, .n = c->value.len};
    return CHT_OK;
}

/* ---- counts_add ------------------------------------------------------------------------------------------------------ */

static enum cht_rc change_counts(struct lm_change *c, struct lm_counts *counts, const struct cht_op *op,
                                 const struct cht_found *found, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (found->live) {
        rc = lm_counts_read(counts, found->value.p, found->value.n, op->name, err);
        if (rc == CHT_OK && found->value.p[1] != c->order)
            rc = CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "the counts there are of order %u, not %u",
                          found->value.p[1], c->order);
    }
    if (rc == CHT_OK)
        rc = lm_counts_change(counts, c->deltas, c->n, err);
    if (rc == CHT_OK && c->book != NULL) /* the value, its copy in the log's record, and its pages */
        rc = c->book(c, 3 * (uint64_t)lm_counts_size(counts->n), err);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&c->value, lm_counts_size(counts->n), err);
    if (rc == CHT_OK)
        c->value.len = lm_counts_write(c->value.data, c->order, counts->f, counts->n);
    return rc;
}

static enum cht_rc decide_counts(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                                 struct cht_err *err)
{
    struct lm_change *c = of(ask);
    struct lm_counts counts = {0};
    if (found->damage != CHT_OK)
        return damaged(found, err);
    enum cht_rc rc = change_counts(c, &counts, op, found, err);
    lm_counts_free(&counts);
    if (rc == CHT_OK)
        op->value = (struct cht_str){.p = c->value.data, .n = c->value.len};
    return rc;
}

static int by_token(const void *x, const void *y)
{
    const struct lm_delta *a = x, *b = y;
    return (a->token > b->token) - (a->token < b->token);
}

/* In order, each token once. */
static void tidy(struct lm_change *c)
{
    uint32_t n = 0;
    qsort(c->deltas, c->n, sizeof *c->deltas, by_token);
    for (uint32_t i = 0; i < c->n; i++) {
        if (n > 0 && c->deltas[n - 1].token == c->deltas[i].token)
            c->deltas[n - 1].by += c->deltas[i].by;
        else
            c->deltas[n++] = c->deltas[i];
    }
    c->n = n;
}

/* -------------------------------------------------------------------------------------------------------------------- */

void lm_change_add(struct lm_change *c, int64_t by)
{
    c->ask = (struct cht_ask){.decide = decide_add, .room = DIGITS_MAX};
    c->is_add = true;
    c->by = by;
}

void lm_change_counts(struct lm_change *c, unsigned order, struct lm_delta *deltas, uint32_t n)
{
    c->ask = (struct cht_ask){.decide = decide_counts, .room = lm_counts_size(n), .extends = true};
    c->order = order;
    c->deltas = deltas;
    c->n = n;
    tidy(c);
}

void lm_change_fini(struct lm_change *c)
{
    cht_buf_free(&c->value);
    cht_free(c->deltas);
    c->deltas = NULL;
}
