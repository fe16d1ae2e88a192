/* score: how likely a text is (lm_score of predict.h). The root's entry, which every token may need and which is the
 * largest, is read when the first token needs it, and once. */
#include <math.h>

#include "base/alloc.h"
#include "lm/lookup.h"
#include "lm/names.h"
#include "lm/predict.h"
#include "lm/quant.h"

#pragma STDC FP_CONTRACT OFF

struct lm_scorer {
    struct lm_view view;
    unsigned highest;    /* order that there is */
    uint64_t vocabulary; /* cont: entries */
    struct cht_buf root_buf, buf;
    struct reduce_payload root; /* borrows root_buf */
    bool root_read;
};

/* The entry for the n - 1 tokens before `end`; n 0: it is not there. */
static enum cht_rc entry(struct lm_scorer *sc, const uint32_t *end, unsigned n, struct reduce_payload *out,
                         struct cht_err *err)
{
    uint8_t hash[LM_HASH_SIZE];
    *out = sc->root;
    if (n == 1 && sc->root_read)
        return CHT_OK;
    lm_context_name(n > 1 ? end - (n - 1) : NULL, n - 1, hash);
    enum cht_rc rc = lm_lookup(&sc->view, LM_PROB, n, hash, n == 1 ? &sc->root_buf : &sc->buf, out, err);
    if (rc == CHT_OK && n == 1) {
        sc->root = *out;
        sc->root_read = true;
    }
    return rc;
}

/* What a token gets that is nowhere, before the weights. */
static double nowhere(const struct lm_scorer *sc, enum lm_score_mode mode)
{
    if (mode == LM_SCORE_BLEND)
        return 1.0 / ((double)sc->vocabulary + 1.0);
    return sc->vocabulary > 0 ? 1.0 / (double)sc->vocabulary : LM_LOWER_NONE;
}

/* p of *at, of which `top - 1` tokens before it are looked at. */
static enum cht_rc one_token(struct lm_scorer *sc, const uint32_t *at, unsigned top, enum lm_score_mode mode,
                             struct lm_scored *out, struct cht_err *err)
{
    double mass = 1.0;
    for (unsigned n = top; n >= 1; n--) {
        struct reduce_payload probs;
        enum cht_rc rc = entry(sc, at, n, &probs, err);
        if (rc != CHT_OK)
            return rc;
        int q = probs.n > 0 ? lm_lookup_token(&probs, *at) : -1;
        if (q >= 0) {
            double p = mass * lm_dequantize((uint8_t)q);
            *out = (struct lm_scored){*at, n, p > 0 ? log10(p) : LM_SCORE_LOG10_ZERO};
            return CHT_OK;
        }
        if (probs.n > 0 && mode == LM_SCORE_BLEND)
            mass *= lm_lookup_weight(&probs);
    }
    double p = mass * nowhere(sc, mode);
    *out = (struct lm_scored){*at, 0, p > 0 ? log10(p) : LM_SCORE_LOG10_ZERO};
    return CHT_OK;
}

/* From here on the model that answers now is asked. */
static enum cht_rc begin(struct lm_scorer *sc, struct cht_store *s, struct cht_err *err)
{
    sc->root_read = false;
    enum cht_rc rc = lm_smoothed(&sc->view, s, NULL, err);
    if (rc == CHT_OK)
        rc = lm_view_highest(&sc->view, &sc->highest, NULL, err);
    return rc == CHT_OK ? lm_view_vocabulary(&sc->view, &sc->vocabulary, err) : rc;
}

static enum cht_rc all_tokens(struct lm_scorer *sc, const struct lm_score_query *q,
                              void (*fn)(void *ctx, const struct lm_scored *t), void *ctx,
                              struct lm_score *out, struct cht_err *err)
{
    unsigned top = q->max_order == 0 || q->max_order > sc->highest ? sc->highest : q->max_order;
    *out = (struct lm_score){0};
    for (size_t i = 1; i < q->n; i++) {
        struct lm_scored t;
        unsigned reach = top < i + 1 ? top : (unsigned)i + 1;
        enum cht_rc rc = one_token(sc, q->tokens + i, reach, q->mode, &t, err);
        if (rc != CHT_OK)
            return rc;
        out->scored++;
        out->log10 += t.log10;
        if (t.order == 0) {
            out->oov++;
            out->log10_oov += t.log10;
        }
        if (fn != NULL)
            fn(ctx, &t);
    }
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_scorer_open(struct cht_store *s, struct lm_scorer **out, struct cht_err *err)
{
    struct lm_scorer *sc = cht_calloc(1, sizeof *sc);
    if (sc == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a score");
    enum cht_rc rc = begin(sc, s, err);
    if (rc != CHT_OK) {
        lm_scorer_close(sc);
        return rc;
    }
    *out = sc;
    return CHT_OK;
}

void lm_scorer_close(struct lm_scorer *sc)
{
    if (sc == NULL)
        return;
    cht_buf_free(&sc->buf);
    cht_buf_free(&sc->root_buf);
    cht_free(sc);
}

enum cht_rc lm_score(struct lm_scorer *sc, const struct lm_score_query *q,
                     void (*fn)(void *ctx, const struct lm_scored *t), void *ctx, struct lm_score *out,
                     struct cht_err *err)
{
    for (;;) {
        enum cht_rc rc = CHT_OK;
        if (!lm_view_holds(&sc->view))
            rc = begin(sc, sc->view.store, err);
        if (rc == CHT_OK)
            rc = all_tokens(sc, q, fn, ctx, out, err);
        if (lm_view_holds(&sc->view))
            return rc;
        if (q->again != NULL)
            q->again(ctx);
    }
}

double lm_score_perplexity(const struct lm_score *s, bool oov)
{
    uint64_t n = oov ? s->scored : s->scored - s->oov;
    double sum = oov ? s->log10 : s->log10 - s->log10_oov;
    return n > 0 ? pow(10.0, -sum / (double)n) : NAN;
}
