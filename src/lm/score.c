/* score: how likely a text is (lm_score of predict.h). The root's entry, which every token may need and which is the
 * largest, is read once. */
#include <math.h>

#include "lm/lookup.h"
#include "lm/names.h"
#include "lm/predict.h"
#include "lm/quant.h"

#pragma STDC FP_CONTRACT OFF

struct scoring {
    struct cht_store *store;
    const uint32_t *tokens;
    unsigned top;
    struct cht_buf root_buf, buf;
    struct reduce_payload root;
    bool root_read;
    struct cht_err *err;
};

/* q of token i at order n, -1: not there. */
static enum cht_rc at_order(struct scoring *sc, size_t i, unsigned n, int *q)
{
    uint8_t hash[LM_HASH_SIZE];
    struct reduce_payload probs;
    *q = -1;
    lm_context_name(n > 1 ? sc->tokens + (i - (n - 1)) : NULL, n - 1, hash);
    if (n == 1 && sc->root_read) {
        *q = lm_lookup_token(&sc->root, sc->tokens[i]);
        return CHT_OK;
    }
    enum cht_rc rc =
        lm_lookup(sc->store, LM_PROB, n, hash, n == 1 ? &sc->root_buf : &sc->buf, &probs, sc->err);
    if (rc != CHT_OK)
        return rc;
    if (n == 1) {
        sc->root = probs;
        sc->root_read = true;
    }
    if (probs.n > 0)
        *q = lm_lookup_token(&probs, sc->tokens[i]);
    return CHT_OK;
}

static enum cht_rc run(struct scoring *sc, size_t n, double nowhere,
                       void (*fn)(void *ctx, uint32_t token, unsigned order, double p), void *ctx,
                       struct lm_score *out)
{
    for (size_t i = 1; i < n; i++) {
        unsigned order = sc->top < i + 1 ? sc->top : (unsigned)i + 1;
        int q = -1;
        for (; order >= 1; order--) {
            enum cht_rc rc = at_order(sc, i, order, &q);
            if (rc != CHT_OK)
                return rc;
            if (q >= 0)
                break;
        }
        double p = q >= 0 ? lm_dequantize((uint8_t)q) : nowhere;
        out->log10 += log10(p);
        out->scored++;
        if (fn != NULL)
            fn(ctx, sc->tokens[i], order, p);
    }
    if (out->scored > 0)
        out->perplexity = pow(10.0, -out->log10 / (double)out->scored);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_score(struct cht_store *s, const uint32_t *tokens, size_t n, unsigned max_order,
                     void (*fn)(void *ctx, uint32_t token, unsigned order, double p), void *ctx,
                     struct lm_score *out, struct cht_err *err)
{
    struct scoring sc = {.store = s, .tokens = tokens, .err = err};
    uint64_t vocabulary;
    *out = (struct lm_score){0};
    enum cht_rc rc = lm_highest_order(s, max_order, &sc.top, NULL, err);
    if (rc == CHT_OK)
        rc = cht_store_count(s, (struct cht_str){(const uint8_t *)LM_CONT, LM_LENGTH(LM_CONT)}, &vocabulary,
                             err);
    if (rc == CHT_OK)
        rc = run(&sc, n, vocabulary > 0 ? 1.0 / (double)vocabulary : LM_LOWER_NONE, fn, ctx, out);
    cht_buf_free(&sc.buf);
    cht_buf_free(&sc.root_buf);
    return rc;
}
