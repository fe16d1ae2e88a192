/* kn_score: how likely a text is (kn_ask.h). From token to token it is carried how long an n-gram the last one matched: a longer
 * context cannot have a record, so no look-up is in vain. */
#include "lm/fm_ask.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/* The text with a bos in front if it is to have one. */
static enum cht_rc text_of(struct lm_kn_reader *r, const struct lm_kn_text_query *q, const uint32_t **out,
                           size_t *n, struct cht_err *err)
{
    *out = q->tokens;
    *n = q->n;
    if (!q->bos || (q->n > 0 && q->tokens[0] == r->head.bos))
        return CHT_OK;
    enum cht_rc rc = cht_buf_reserve(&r->work[0], (q->n + 1) * sizeof(uint32_t), err);
    if (rc != CHT_OK)
        return rc;
    uint32_t *copy = (uint32_t *)(void *)r->work[0].data;
    copy[0] = r->head.bos;
    if (q->n > 0)
        memcpy(copy + 1, q->tokens, q->n * sizeof *copy);
    *out = copy;
    *n = q->n + 1;
    return CHT_OK;
}

/* p of the token at t, whose context may have `reach` tokens; *matched as in lm_kn_scored. */
static enum cht_rc one_token(struct lm_kn_reader *r, const uint32_t *t, unsigned reach, double *p,
                             unsigned *matched, struct cht_err *err)
{
    uint32_t a;
    enum cht_rc rc = lm_kn_root_count(r, *t, &a, err);
    *matched = a > 0;
    *p = lm_kn_share(r, &r->root, a) + r->root.gamma * r->p0;
    for (unsigned m = 2; m <= reach + 1 && rc == CHT_OK; m++) {
        const struct lm_kn_level *l;
        rc = lm_kn_level(r, m, t, &l, err);
        if (rc != CHT_OK || !l->there)
            break;
        a = lm_kn_record_find(&l->record, *t);
        *p = lm_kn_share(r, l, a) + l->gamma * *p;
        *matched = a > 0 ? m : *matched;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err)
{
    const uint32_t *t;
    size_t n;
    unsigned top = q->max_order == 0 || q->max_order > r->head.order ? r->head.order : q->max_order,
             reach = 0;
    *out = (struct lm_kn_score){0};
    if (r->fixed.order > 0)
        return lm_fm_score(r, q, fn, ctx, out, err);
    enum cht_rc rc = text_of(r, q, &t, &n, err);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        struct lm_kn_scored s;
        double p;
        if (t[i] == r->head.bos) {
            reach = top > 1;
            continue;
        }
        lm_kn_spare(r);
        rc = one_token(r, t + i, reach, &p, &s.matched, err);
        if (rc != CHT_OK)
            break;
        s.log10 = p > 0 ? log10(p) : LM_KN_LOG10_ZERO;
        reach = s.matched < top ? s.matched : top - 1;
        out->tokens++;
        out->log10 += s.log10;
        if (s.matched == 0) {
            out->oov++;
            out->log10_oov += s.log10;
        }
        if (fn != NULL)
            fn(ctx, &s);
    }
    return rc;
}

double lm_kn_perplexity(const struct lm_kn_score *s, bool oov)
{
    uint64_t n = oov ? s->tokens : s->tokens - s->oov;
    double sum = oov ? s->log10 : s->log10 - s->log10_oov;
    return n > 0 ? pow(10.0, -sum / (double)n) : NAN;
}
