/* kn_ask: questions to a live model: how likely is a text, what comes next. README.md has the formulas.
 *
 * Threads: as kn_read.h. Nothing is allocated in the usual case.
 */
#pragma once

#include "lm/kn_read.h"

#define LM_KN_LOG10_ZERO (-99.0) /* what stands for the logarithm of 0 */

struct lm_kn_text_query {
    const uint32_t *tokens; /* borrowed */
    size_t n;
    bool bos; /* a text that does not begin with bos gets one; else it starts from the empty context */
    unsigned max_order; /* contexts of at most that many tokens less 1; 0: the model's order */
};
struct lm_kn_scored {
    double log10;
    unsigned
        matched; /* the longest n-gram that ends with the token and was counted; 0: the token is unknown */
};
struct lm_kn_score {
    uint64_t tokens, oov;    /* all but bos; of these unknown */
    double log10, log10_oov; /* sums over all tokens, over the unknown ones */
};
/* fn (may be NULL) is called for each token but bos, in order. Between lm_kn_begin and lm_kn_again. CHT_MALFORMED_PAYLOAD, CHT_PENDING
 * and what else a read returns. */
enum cht_rc lm_kn_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err);
/* n texts, which are faster together than one by one. fn is told which one the token is of; out: of each. */
typedef void lm_kn_scored_of(void *ctx, size_t text, const struct lm_kn_scored *t);
enum cht_rc lm_kn_score_all(struct lm_kn_reader *r, const struct lm_kn_text_query *q, size_t n,
                            lm_kn_scored_of *fn, void *ctx, struct lm_kn_score *out, struct cht_err *err);
/* 10^(-log10 / tokens): with the unknown tokens, or without them; NAN if there are none. */
double lm_kn_perplexity(const struct lm_kn_score *s, bool oov);

struct lm_kn_candidate {
    uint32_t token;
    uint32_t order; /* the longest n-gram that ends with it and was counted */
    double p;
    double log10; /* of p, as lm_kn_scored; over 0: it was not computed */
};
#define LM_KN_NO_LOG10 1.0
struct lm_kn_prediction {
    unsigned order;                  /* contexts that have a record, the empty one included */
    double unknown;                  /* p of one unknown token */
    const struct lm_kn_candidate *c; /* best first, ties by token; borrowed until the next question */
    size_t n;
};
/* The k most likely tokens after q->tokens (of which those from the last bos on, at most N - 1, count; q->bos is not looked at).
 * *later: it takes reads that must wait, and r->wait says they may not: nothing was answered. */
enum cht_rc lm_kn_predict(struct lm_kn_reader *r, const struct lm_kn_text_query *q, uint32_t k,
                          struct lm_kn_prediction *out, bool *later, struct cht_err *err);
