/* linked: what comes next, as lm_predict and lm_kn_predict say it, but with the distribution of a context mixed with those of its most related
 * ones (reduce/links.h):
 *
 *   p(w) = (1 - weight) p(w | c) + weight sum_j l_j p(w | c_j) / sum_j l_j        l_j: the weight of the link from c to c_j
 *
 * c is the context that answers. Its links are those of cnt:<n>:<c>, or if it has none those of the longest shorter one that has some. Each distribution is divided by its sum before
 * it is mixed, so the mixture sums to 1: over all tokens, with a live model and one unknown token. In the mode `deepest` of a smoothed model a distribution is what is stored
 * for the context alone, in `blend` all orders backed off. Links to what is no context of the model are passed over.
 *
 * Beside a smoothing run each answer is of one model (view.h); links are what was found last, whatever was counted since.
 *
 * Threads: any; the calls block on reads.
 */
#pragma once

#include "lm/kn_read.h"
#include "lm/predict.h"
#include "reduce/aggregate.h"

#define LM_LINKED_MOST 20u /* links that are followed, the best first */

struct lm_linked_query {
    const uint32_t *tokens; /* borrowed, as of lm_predict_query; so are the next three */
    size_t n;
    unsigned k, max_order;
    enum lm_predict_mode mode; /* a live model knows LM_PREDICT_LEVELS and one other */
    struct lm_kn_reader *live; /* the live model that answers; NULL: the smoothed one does */
    double weight;             /* 0 to 1 */
    int metric; /* of the links, enum reduce_metric; -1: cosine, jaccard or pmi, the first that there is */
    uint64_t seldom; /* contexts that were counted more often than that are not mixed; UINT64_MAX: all are */
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err); /* as in struct reduce_params */
    void (*unbook)(void *ctx, uint64_t bytes);
    void *book_ctx;
    void (*again)(void *ctx); /* as of lm_predict_query; not NULL */
};

struct lm_linked_answer {
    unsigned order; /* of the context that answered; 0: none is there */
    const uint32_t *context;
    size_t context_n;
    const struct lm_candidate
        *candidates; /* best first, ties by token; q is 0; order: the deepest, in any of them, that has it */
    size_t count;
    double unknown;            /* live: p of one unknown token */
    unsigned linked;           /* contexts that were mixed in */
    enum reduce_metric metric; /* of these links */
};

/* fn is called as that of lm_predict. CHT_INVALID_ARGUMENT; CHT_NO_LINKS: there are no links of counts at all; CHT_NOT_SMOOTHED; with a live
 * model what lm_kn_begin returns; CHT_MALFORMED_PAYLOAD; CHT_NO_MEMORY. */
enum cht_rc lm_linked(struct cht_store *s, const struct lm_linked_query *q,
                      void (*fn)(void *ctx, const struct lm_linked_answer *a), void *ctx,
                      struct cht_err *err);
