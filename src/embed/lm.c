/* lm: see cheetah/lm.h: src/lm for programs that embed the engine. */
#include "cheetah/lm.h"

#include <string.h>

#include "base/alloc.h"
#include "lm/kn_ask.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"
#include "lm/once.h"
#include "lm/predict.h"
#include "lm/smooth.h"

struct cht_lm {
    struct lm_engine *engine;
};

/* ---- smoothing ------------------------------------------------------------------------------------------------------ */

struct smoothing {
    const struct cht_lm_smooth_config *cfg;
    _Atomic bool cancel; /* set by `told`, read by the threads of the run */
};

static void told(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct smoothing *s = ctx;
    if (!s->cfg->progress(s->cfg->ctx, phase, done, total))
        atomic_store_explicit(&s->cancel, true, memory_order_relaxed);
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

struct found {
    struct cht_lm_candidate *out;
    size_t count;
};

static void take(void *ctx, const struct lm_prediction *p)
{
    struct found *f = ctx;
    for (size_t i = 0; i < p->count; i++) {
        const struct lm_candidate *c = &p->candidates[i];
        f->out[f->count++] = (struct cht_lm_candidate){.token = c->token, .order = c->order, .p = c->p};
    }
}

static enum cht_rc predict_smoothed(struct cht_store *s, const uint32_t *tokens, size_t n, unsigned k,
                                    struct found *f, struct cht_err *err)
{
    const struct lm_predict_query q = {.tokens = tokens, .n = n, .k = k, .mode = LM_PREDICT_DEEPEST};
    return lm_predict(s, &q, take, f, err);
}

static enum cht_rc predict_live(struct lm_kn_reader *r, const uint32_t *tokens, size_t n, unsigned k,
                                struct found *f, struct cht_err *err)
{
    const struct lm_kn_text_query q = {.tokens = tokens, .n = n};
    enum cht_rc rc;
    do {
        struct lm_kn_prediction p;
        bool later; /* only with a `wait` */
        f->count = 0;
        rc = lm_kn_begin(r, err);
        if (rc == CHT_OK)
            rc = lm_kn_predict(r, &q, k, &p, &later, err);
        for (size_t i = 0; rc == CHT_OK && i < p.n; i++)
            f->out[f->count++] =
                (struct cht_lm_candidate){.token = p.c[i].token, .order = p.c[i].order, .p = p.c[i].p};
    } while (lm_kn_again(r));
    return rc;
}

static enum cht_rc score_live(struct lm_kn_reader *r, const uint32_t *tokens, size_t n,
                              struct cht_lm_scored *out, struct cht_err *err)
{
    const struct lm_kn_text_query q = {.tokens = tokens, .n = n, .bos = true};
    struct lm_kn_score sum = {0};
    enum cht_rc rc;
    do {
        rc = lm_kn_begin(r, err);
        if (rc == CHT_OK)
            rc = lm_kn_score(r, &q, NULL, NULL, &sum, err);
    } while (lm_kn_again(r));
    if (rc == CHT_OK)
        *out = (struct cht_lm_scored){.tokens = sum.tokens, .oov = sum.oov, .log10 = sum.log10};
    return rc;
}

static enum cht_rc score_smoothed(struct cht_store *s, const uint32_t *tokens, size_t n,
                                  struct cht_lm_scored *out, struct cht_err *err)
{
    const struct lm_score_query q = {.tokens = tokens, .n = n, .mode = LM_SCORE_BLEND};
    struct lm_scorer *sc;
    struct lm_score sum = {0};
    enum cht_rc rc = lm_scorer_open(s, &sc, err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_score(sc, &q, NULL, NULL, &sum, err);
    lm_scorer_close(sc);
    if (rc == CHT_OK)
        *out = (struct cht_lm_scored){.tokens = sum.scored, .oov = sum.oov, .log10 = sum.log10};
    return rc;
}

/* Whether the database has a live model. */
static enum cht_rc is_live(struct cht_store *s, bool *live, struct cht_err *err)
{
    struct cht_buf buf = {0};
    struct lm_kn_head head;
    enum cht_rc rc = lm_kn_head_get(s, &head, &buf, NULL, err);
    cht_buf_free(&buf);
    *live = rc == CHT_OK;
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_lm_new(struct cht_lm **out, struct cht_err *err)
{
    struct cht_lm *lm = cht_calloc(1, sizeof *lm);
    *out = NULL;
    if (lm == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the language model");
    enum cht_rc rc = lm_engine_new(&lm->engine, err);
    if (rc != CHT_OK)
        cht_free(lm);
    else
        *out = lm;
    return rc;
}

void cht_lm_free(struct cht_lm *lm)
{
    if (lm == NULL)
        return;
    lm_engine_free(lm->engine);
    cht_free(lm);
}

enum cht_rc cht_lm_count(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_count_config *cfg,
                         const struct cht_lm_document *documents, size_t n, struct cht_lm_counted *out,
                         struct cht_err *err)
{
    const struct cht_lm_count_config plain = {0};
    struct lm_ngrams *g = NULL;
    struct lm_ngrams_result r = {0};
    cfg = cfg != NULL ? cfg : &plain;
    if (cfg->once != NULL && !lm_once_id_valid(cfg->once, strlen(cfg->once)))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "once: 1 to %u of A-Z, a-z, 0-9, _ and - are an identifier", LM_ONCE_ID_MAX);
    enum cht_rc rc = lm_ngrams_begin(cfg->order == 0 ? LM_NGRAMS_OWN : cfg->order, &g, err);
    for (size_t i = 0; rc == CHT_OK && i < n; i++) {
        if (cfg->remove)
            rc = lm_ngrams_take_document(g, documents[i].tokens, documents[i].n, err);
        else
            rc = lm_ngrams_add_document(g, documents[i].tokens, documents[i].n, err);
    }
    if (rc == CHT_OK && cfg->once != NULL)
        lm_ngrams_once(g, cfg->once);
    if (rc == CHT_OK)
        rc = lm_ngrams_commit(lm->engine, s, g, &r, err);
    lm_ngrams_free(g);
    if (rc == CHT_OK)
        *out = (struct cht_lm_counted){.documents = r.documents,
                                       .tokens = r.tokens,
                                       .ngrams = r.ngrams,
                                       .contexts_created = r.contexts_created,
                                       .removed = r.removed,
                                       .generation = r.generation,
                                       .repeated = r.repeated};
    return rc;
}

enum cht_rc cht_lm_live(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_live_config *cfg,
                        struct cht_err *err)
{
    unsigned flags = 0;
    flags |= cfg->has_eos ? LM_KN_EOS : 0u;
    flags |= cfg->keep_counts ? LM_KN_KEEP_CNT : 0u;
    flags |= cfg->keep_contexts ? LM_KN_KEEP_CTX : 0u;
    flags |= cfg->keep_vectors ? LM_KN_KEEP_CTXV : 0u;
    const struct lm_kn_parameters p = {
        .order = cfg->order, .flags = flags, .bos = cfg->bos, .eos = cfg->has_eos ? cfg->eos : 0};
    return lm_kn_setup(lm->engine, s, &p, err);
}

enum cht_rc cht_lm_smooth(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_smooth_config *cfg,
                          struct cht_err *err)
{
    struct smoothing run = {.cfg = cfg};
    const struct lm_smooth_config all = {.lo = cfg->lo,
                                         .hi = cfg->hi,
                                         .topk = cfg->topk,
                                         .threads = cfg->threads,
                                         .memory = cfg->memory,
                                         .cancel = &run.cancel,
                                         .progress = cfg->progress != NULL ? told : NULL,
                                         .ctx = &run};
    return lm_smooth(lm->engine, s, &all, err);
}

enum cht_rc cht_lm_predict(struct cht_lm *lm, struct cht_store *s, const uint32_t *tokens, size_t n,
                           unsigned k, struct cht_lm_candidate *out, size_t *count, struct cht_err *err)
{
    struct found f = {.out = out};
    struct lm_kn_reader *r = NULL;
    bool live;
    *count = 0;
    if (k < 1 || k > LM_K_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "k is 1 to %u, not %u", LM_K_MAX, k);
    enum cht_rc rc = is_live(s, &live, err);
    if (rc == CHT_OK && !live)
        rc = predict_smoothed(s, tokens, n, k, &f, err);
    if (rc == CHT_OK && live)
        rc = lm_kn_reader_open(lm->engine, s, NULL, &r, err);
    if (rc == CHT_OK && live)
        rc = predict_live(r, tokens, n, k, &f, err);
    lm_kn_reader_close(r);
    *count = rc == CHT_OK ? f.count : 0;
    return rc;
}

enum cht_rc cht_lm_score(struct cht_lm *lm, struct cht_store *s, const uint32_t *tokens, size_t n,
                         struct cht_lm_scored *out, struct cht_err *err)
{
    struct lm_kn_reader *r = NULL;
    bool live;
    enum cht_rc rc = is_live(s, &live, err);
    if (rc == CHT_OK && !live)
        rc = score_smoothed(s, tokens, n, out, err);
    if (rc == CHT_OK && live)
        rc = lm_kn_reader_open(lm->engine, s, NULL, &r, err);
    if (rc == CHT_OK && live)
        rc = score_live(r, tokens, n, out, err);
    lm_kn_reader_close(r);
    return rc;
}
