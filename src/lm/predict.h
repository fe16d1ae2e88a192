/* predict: questions to a smoothed n-gram database: what comes next, how likely is a text, which contexts are there.
 *
 * Beside a smoothing run each answer is of the model before it or of that after it, never a mixture (view.h); of lm_contexts each
 * context is. An entry
 * (`prob:<n>:`, `topk:<n>:` of a context) "is there" if it has a value with at least one token. One that is no such payload:
 * CHT_MALFORMED_PAYLOAD. A database is smoothed if it has `prob:1:` of the root.
 *
 * Threads: any; the calls block on reads. Callbacks run on the caller's thread, and what they get is borrowed during the call.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "lm/avo.h"
#include "lm/counts.h"
#include "lm/hash.h"

#define LM_K_DEFAULT 20u
#define LM_K_MAX 100000u

struct lm_candidate {
    uint32_t token;
    uint8_t q;     /* as stored, at the order it was found */
    uint8_t order; /* where it was found */
    double p;      /* dequantized; for a blend times the alphas of the deeper contexts */
};

enum lm_predict_mode {
    LM_PREDICT_DEEPEST, /* the deepest context that is there answers */
    LM_PREDICT_LEVELS,  /* every order, deepest first */
    LM_PREDICT_BLEND    /* all orders backed off: each token at the deepest order that has it */
};

/* Names of the entries `prob:<n>:` that a question looks at, made when they are first needed. */
struct lm_names {
    unsigned made; /* bits by order */
    uint8_t prob[LM_ORDER_MAX + 1][LM_PREFIX_MAX + LM_HASH_SIZE];
};

struct lm_predict_query {
    const uint32_t *tokens; /* borrowed: the text so far; its last tokens count; n 0: the root */
    size_t n;
    unsigned k;         /* 1..LM_K_MAX; 0: 20 */
    unsigned max_order; /* above 8 is 8; 0: the highest order that the database has */
    enum lm_predict_mode mode;
    struct lm_names *names; /* the caller's, made 0 at first; NULL: none are kept */
    struct cht_wait *wait;  /* NULL: reads wait; else lm_predict may be CHT_PENDING, as cht_store_get_soon */
    /* All that fn was told is void, and comes again: another model answers now. Needed for levels only; may be NULL else. */
    void (*again)(void *ctx);
};

struct lm_prediction {
    unsigned order; /* of the context that answered (blend: the deepest that is there); 0: none is there */
    const uint32_t *context; /* its tokens, order - 1 */
    size_t context_n;
    uint8_t hash[LM_HASH_SIZE];
    const struct lm_candidate *candidates; /* best first, ties by token */
    size_t count;
};

/* fn is called once for deepest and blend (order 0 and no candidates if nothing is there), for levels once for each
 * order from min(max_order, n + 1) down to 1 (no candidates if the context is not there). CHT_INVALID_ARGUMENT; CHT_NOT_SMOOTHED. */
enum cht_rc lm_predict(struct cht_store *s, const struct lm_predict_query *q,
                       void (*fn)(void *ctx, const struct lm_prediction *p), void *ctx, struct cht_err *err);

/* What lm_predict will read first, deepest order first, at most max: hints for cht_store_prefetch. They borrow q->names, which
 * is not NULL. */
size_t lm_predict_hints(const struct lm_predict_query *q, struct cht_hint *hints, size_t max);

enum lm_score_mode {
    LM_SCORE_BLEND,  /* a distribution: the weights of the deeper contexts count */
    LM_SCORE_DEEPEST /* the stored probability alone; no distribution */
};

struct lm_score_query {
    const uint32_t *tokens; /* borrowed */
    size_t n;
    unsigned max_order; /* as of lm_predict_query */
    enum lm_score_mode mode;
    void (*again)(void *ctx); /* as of lm_predict_query; may be NULL if fn is */
};

struct lm_score {
    uint64_t scored;  /* tokens: all but the first */
    uint64_t oov;     /* of these, at no order */
    double log10;     /* sum of log10 p, in order */
    double log10_oov; /* of those at no order */
};
#define LM_SCORE_LOG10_ZERO (-99.0) /* log10 of a p that is 0: a weight may be rounded to 0 */

struct lm_scored {
    uint32_t token;
    unsigned order; /* where it was found; 0: nowhere */
    double log10;
};

/* Scores of one smoothed database: what all texts need is read once for each model that answers. Threads: one at a time per object. */
struct lm_scorer;
/* CHT_NOT_SMOOTHED, CHT_NO_MEMORY, and what a read returns. */
enum cht_rc lm_scorer_open(struct cht_store *s, struct lm_scorer **out, struct cht_err *err);
void lm_scorer_close(struct lm_scorer *sc); /* NULL is legal */
/* Each token but the first, at the deepest order (up to max_order) whose entry for the tokens before has it. With LM_SCORE_BLEND its
 * p is that of the entry, times the weights of all deeper contexts that are there; one that is nowhere gets the product of the weights
 * of all contexts that are there, over V: the cont: entries and one. With LM_SCORE_DEEPEST p is the entry's alone, and 1 / V, V being the cont:
 * entries (1e-9 if there are none), for a token that is nowhere. fn (may be NULL) is called for each of them, in order. */
enum cht_rc lm_score(struct lm_scorer *sc, const struct lm_score_query *q,
                     void (*fn)(void *ctx, const struct lm_scored *t), void *ctx, struct lm_score *out,
                     struct cht_err *err);
/* 10^(-log10 / tokens): with the tokens that are nowhere, or without them; NAN if there are none. */
double lm_score_perplexity(const struct lm_score *s, bool oov);

enum lm_contexts_match {
    LM_CONTEXTS_EXACT, /* the vector is the tree's encoding (or begins with it, which the encodings of other trees do not); if there is no such vector, the first registered permutation of the context that the tree is */
    LM_CONTEXTS_CONTAINS /* the tokens contain all leaves of the tree */
};

struct lm_contexts_query {
    const struct lm_node *tree;
    enum lm_contexts_match match;
    long depth;                 /* negative: no limit */
    uint64_t limit;             /* 0: none */
    struct cht_str after;       /* a cursor to go on after; n 0: from the start */
    const _Atomic bool *cancel; /* may be NULL: CHT_CANCELLED when it becomes true */
};

struct lm_context {
    struct cht_str vector;
    struct cht_str cursor; /* exact: the vector; contains: the name after `ctx:` */
    uint64_t key;
    bool malformed;             /* no context payload under it: the rest is zero */
    uint8_t hash[LM_HASH_SIZE]; /* the context's name, LM_ROOT where it has no tokens */
    unsigned order_size;
    const uint32_t *tokens;
    size_t n;
    const struct lm_candidate *ranked; /* of topk:<n + 1>: of the hash, else topk:<n>:, else none */
    size_t ranked_n;
};

/* Context relativism: the contexts that match the tree: by their vectors under `ctxv:`, in byte order; or those under `ctx:` that
 * contain its leaves, in byte order of their names, found by the workers of all shards, who look at every context. fn returns false to stop
 * (CHT_OK). *more (may be NULL): the limit or fn ended it and there may be more after the last vector. Errors of
 * lm_avo_encode (CHT_INVALID_TREE), CHT_CORRUPT, CHT_NO_MEMORY. */
enum cht_rc lm_contexts(struct cht_store *s, const struct lm_contexts_query *q,
                        bool (*fn)(void *ctx, const struct lm_context *c), void *ctx, bool *more,
                        struct cht_err *err);
