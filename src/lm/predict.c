/* predict: next-token candidates (see predict.h). The best k of one context come from its topk: list where that is long
 * enough, so that the answer from a root with a large vocabulary does not read all of it. */
#include "lm/predict.h"

#include <string.h>

#include "lm/lookup.h"
#include "lm/quant.h"
#include "lm/vocab.h"

struct asking {
    struct cht_store *store;
    const struct lm_predict_query *q;
    unsigned k, top; /* top: the deepest order that is asked for */
    struct cht_buf buf;
    struct lm_best best;
    struct cht_err *err;
};

/* The context of order n. */
static struct lm_prediction context_of(const struct lm_predict_query *q, unsigned n)
{
    struct lm_prediction p = {.order = n, .context_n = n - 1};
    p.context = n > 1 ? q->tokens + (q->n - (n - 1)) : NULL;
    lm_context_name(p.context, p.context_n, p.hash);
    return p;
}

/* Offers the records of a topk or probabilities payload: token u32, q u8 at the start of each. */
static enum cht_rc offer(struct asking *a, const struct payload *head, size_t record, unsigned order)
{
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < head->n && rc == CHT_OK; i++) {
        const uint8_t *r = head->records + (size_t)i * record;
        struct lm_candidate c = {payload_get32(r), r[4], (uint8_t)order, lm_dequantize(r[4])};
        rc = lm_best_offer(&a->best, &c, a->err);
    }
    return rc;
}

/* The best k of one context into a->best; none where it is not there. */
static enum cht_rc best_of(struct asking *a, struct lm_prediction *p)
{
    struct payload topk, probs;
    a->best.n = 0;
    enum cht_rc rc = lm_lookup(a->store, "topk", p->order, p->hash, &a->buf, &topk, a->err);
    if (rc == CHT_OK)
        rc = offer(a, &topk, PAYLOAD_TOPK_RECORD, p->order);
    if (rc == CHT_OK && topk.n < a->k &&
        !(topk.n > 0 && lm_lookup_all(a->store, p->order, p->hash, topk.n))) {
        rc = lm_lookup(a->store, "prob", p->order, p->hash, &a->buf, &probs, a->err);
        if (rc == CHT_OK && probs.n > 0) {
            a->best.n = 0;
            rc = offer(a, &probs, PAYLOAD_PROBS_RECORD, p->order);
        }
    }
    lm_best_sort(&a->best);
    p->candidates = a->best.c;
    p->count = a->best.n;
    return rc;
}

static enum cht_rc by_level(struct asking *a, void (*fn)(void *, const struct lm_prediction *), void *ctx)
{
    for (unsigned n = a->top; n >= 1; n--) {
        struct lm_prediction p = context_of(a->q, n);
        enum cht_rc rc = best_of(a, &p);
        if (rc != CHT_OK)
            return rc;
        if (a->q->mode == LM_PREDICT_LEVELS || p.count > 0)
            fn(ctx, &p);
        if (a->q->mode == LM_PREDICT_DEEPEST && p.count > 0)
            return CHT_OK;
    }
    if (a->q->mode == LM_PREDICT_DEEPEST)
        fn(ctx, &(struct lm_prediction){0});
    return CHT_OK;
}

/* One order of a blend: tokens that no deeper order had, with the mass that is left for it. */
static enum cht_rc blend_level(struct asking *a, const struct payload *probs, unsigned order, double mass,
                               struct lm_vocab *seen)
{
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < probs->n && rc == CHT_OK; i++) {
        const uint8_t *r = probs->records + (size_t)i * PAYLOAD_PROBS_RECORD;
        struct lm_candidate c = {payload_get32(r), r[4], (uint8_t)order, mass * lm_dequantize(r[4])};
        if (lm_vocab_find(seen, c.token) != NULL)
            continue;
        rc = lm_best_offer(&a->best, &c, a->err);
        if (rc == CHT_OK && order > 1 && lm_vocab_enter(seen, c.token, a->err) == NULL)
            rc = CHT_NO_MEMORY;
    }
    return rc;
}

static enum cht_rc blend(struct asking *a, void (*fn)(void *, const struct lm_prediction *), void *ctx)
{
    struct lm_prediction answer = {0};
    struct lm_vocab seen = {0};
    double mass = 1.0;
    enum cht_rc rc = CHT_OK;
    for (unsigned n = a->top; n >= 1 && rc == CHT_OK; n--) {
        struct lm_prediction p = context_of(a->q, n);
        struct payload probs;
        rc = lm_lookup(a->store, "prob", n, p.hash, &a->buf, &probs, a->err);
        if (rc != CHT_OK || probs.n == 0)
            continue;
        if (answer.order == 0)
            answer = p;
        rc = blend_level(a, &probs, n, mass, &seen);
        uint16_t alpha = payload_get16(probs.records + 5); /* all records of a context have the same */
        if (alpha != PAYLOAD_NO_ALPHA)
            mass *= (double)alpha / 1000.0;
    }
    lm_vocab_free(&seen);
    if (rc != CHT_OK)
        return rc;
    lm_best_sort(&a->best);
    answer.candidates = a->best.c;
    answer.count = a->best.n;
    fn(ctx, &answer);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_predict(struct cht_store *s, const struct lm_predict_query *q,
                       void (*fn)(void *ctx, const struct lm_prediction *p), void *ctx, struct cht_err *err)
{
    struct asking a = {.store = s, .q = q, .k = q->k > 0 ? q->k : LM_K_DEFAULT, .err = err};
    if (a.k > LM_K_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "k %u; 1 to %u are possible", a.k, LM_K_MAX);
    enum cht_rc rc = CHT_OK;
    if (q->max_order == 0 && q->mode != LM_PREDICT_LEVELS)
        a.top = LM_ORDER_MAX; /* orders that are not there cost a look each, less than finding the highest */
    else
        rc = lm_highest_order(s, q->max_order, &a.top, err);
    if (rc != CHT_OK)
        return rc;
    if (a.top > q->n + 1)
        a.top = (unsigned)q->n + 1;
    a.best.k = a.k;
    rc = q->mode == LM_PREDICT_BLEND ? blend(&a, fn, ctx) : by_level(&a, fn, ctx);
    cht_buf_free(&a.buf);
    lm_best_free(&a.best);
    return rc;
}
