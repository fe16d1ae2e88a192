/* smooth: modified Kneser-Ney smoothing of a database's counts, inside the engine: recomputes `cont:`, `prob:<n>:` and
 * `topk:<n>:` from `cnt:<n>:`.
 *
 * Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98, 1998, in the variant of
 * DB-SLM: the discounts are those of quant.h, and order 1 backs off to the continuation probability of the token, contexts
 * of order 2 that it follows over the sum of all tokens.
 *
 *   P1 "counts"        counts of counts of each order, and of order 2 the contexts that each token follows
 *   P2 "continuations" `cont:`
 *   P3 "order n"       ascending: for each context its alpha, for each follower the discounted share plus alpha times the
 *                      quantized probability one order down; then what has no counts any more is removed
 *
 * Counts that cannot be read are passed over, as if they were not there, and so is a context, whose parent is then the root; both
 * are counted. Nothing is written before P1 has read all counts. Questions are answered by the model of before until the end,
 * when one commit switches (view.h); a run that was cut off leaves the old model, and can simply be run again. Runs of one database
 * wait for each other; see engine.h for counting meanwhile.
 *
 * What stays the same is not written. What changes is written twice, its old value too, and that is deleted at the end.
 *
 * Memory: 12 bytes x 2 for each token of the vocabulary and thread; the root's probabilities, 7 bytes a token; config.memory for the order
 * below (what does not fit is
 * read from the database, context by context); 11 MiB a thread. With config.book all but the root is booked: of config.memory
 * at most half of what is left, of the rest what is needed, or the run fails.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "lm/engine.h"
#include "lm/vocab.h"

struct lm_smooth_result {
    unsigned order;
    uint64_t contexts, types; /* with a count above 0 */
    double d1, d2, d3;
};

struct lm_smooth_config {
    unsigned lo, hi;            /* orders, 1..8; for lo > 1 order lo - 1 must have been smoothed before */
    unsigned topk;              /* 1..32; 0: 20 */
    unsigned threads;           /* 0: the cores of the machine, at least 2 and at most 16 */
    size_t memory;              /* 0: 256 MiB; 1: none */
    const struct lm_book *book; /* borrowed; NULL: nobody is asked */
    const _Atomic bool *cancel; /* may be NULL; looked at for each batch of contexts */
    uint64_t *
        malformed; /* out, may be NULL: payloads of counts and contexts that could not be read, and were passed over */
    /* Both may be NULL and are called from the thread of lm_smooth, progress at least once a second. phase is borrowed. */
    void (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void (*result)(void *ctx, const struct lm_smooth_result *r); /* when an order is complete */
    void *ctx;
};

/* Blocks, as long as it takes. CHT_INVALID_ARGUMENT; CHT_MALFORMED_PAYLOAD if what was smoothed of the
 * order below cannot be read; CHT_CANCELLED, and what reads and commits return. */
enum cht_rc lm_smooth(struct lm_engine *e, struct cht_store *s, const struct lm_smooth_config *cfg,
                      struct cht_err *err);
