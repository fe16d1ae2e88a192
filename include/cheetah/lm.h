/* lm: the statistics of n-grams over an open database: count documents, smooth, ask what comes next and how likely a text is.
 *
 *   cht_lm_new -> { cht_lm_count, cht_lm_live, cht_lm_smooth, cht_lm_predict, cht_lm_score } ... -> cht_lm_free
 *
 * What is written, and what the numbers mean: src/lm/README.md. A database with a live model (cht_lm_live) is ready for questions
 * after each count; any other one after cht_lm_smooth.
 *
 * Threads: any. Counts of one database wait for each other, and so do smoothing runs. One struct cht_lm a process is enough, and all
 * that count into a database must share it. Every call blocks until it is done.
 * Ownership: inputs are borrowed during the call; outputs are the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct cht_lm;

/* CHT_NO_MEMORY. */
enum cht_rc cht_lm_new(struct cht_lm **out, struct cht_err *err);
/* No call may be under way, and the databases may be closed already. NULL is legal. */
void cht_lm_free(struct cht_lm *lm);

/* ---- counting ----------------------------------------------------------------------------------------------- */

struct cht_lm_document {
    const uint32_t *tokens;
    size_t n; /* one of fewer than 2 is skipped */
};

struct cht_lm_count_config {
    unsigned order; /* 1 to 8; 0: the live model's, else 3 */
    bool remove;    /* the documents are taken away again */
    const char *
        once; /* NULL, or an identifier of this call, 1 to 64 of A-Z a-z 0-9 _ -: the same again counts nothing */
};

struct cht_lm_counted {
    uint64_t documents, tokens, ngrams; /* of documents of 2 tokens or more */
    uint64_t contexts_created, removed; /* removed: documents */
    uint64_t generation;                /* of the live model; 0: there is none */
    bool
        repeated; /* counted before under this identifier: this is the answer of then, and nothing was counted */
};

/* Counts n documents in one atomic commit, as durable as the database says. cfg may be NULL. CHT_INVALID_ARGUMENT (order, identifier),
 * CHT_ORDER_MISMATCH, CHT_NOT_COUNTED (more is taken away than was counted), CHT_MALFORMED_PAYLOAD, CHT_VALUE_TOO_LARGE, CHT_NO_MEMORY
 * and what a commit returns: then nothing was counted. */
enum cht_rc cht_lm_count(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_count_config *cfg,
                         const struct cht_lm_document *documents, size_t n, struct cht_lm_counted *out,
                         struct cht_err *err);

/* ---- the live model ----------------------------------------------------------------------------------------- */

struct cht_lm_live_config {
    unsigned order; /* 1 to 8 */
    uint32_t bos;   /* the token that a document begins with */
    bool has_eos;
    uint32_t eos;
    bool keep_counts, keep_contexts, keep_vectors; /* what is kept beside the model: cnt:, ctx:, ctxv: */
};

/* Gives a database a live model: interpolated modified Kneser-Ney, in step with each count. The same again is no change.
 * CHT_INVALID_ARGUMENT; CHT_MODEL_FIXED: something is counted already, with other parameters or with none. */
enum cht_rc cht_lm_live(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_live_config *cfg,
                        struct cht_err *err);

/* ---- smoothing ---------------------------------------------------------------------------------------------- */

struct cht_lm_smooth_config {
    unsigned lo, hi;  /* orders, 1 to 8; for lo > 1 order lo - 1 must have been smoothed before */
    unsigned topk;    /* followers kept in order, 1 to 32; 0: 20 */
    unsigned threads; /* 0: one a core, 2 to 16 */
    size_t memory;    /* 0: 256 MiB */
    /* NULL, or called from the thread of cht_lm_smooth at least once a second while it works; false ends it (CHT_CANCELLED). phase is
     * borrowed. */
    bool (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void *ctx;
};

/* Computes continuations, probabilities and best followers from the counts. Until it returns questions are answered by the model of before;
 * a run that was cut off leaves that one, and can be run again.
 * CHT_INVALID_ARGUMENT, CHT_MALFORMED_PAYLOAD, CHT_CANCELLED and what reads and commits return. */
enum cht_rc cht_lm_smooth(struct cht_lm *lm, struct cht_store *s, const struct cht_lm_smooth_config *cfg,
                          struct cht_err *err);

/* ---- questions ---------------------------------------------------------------------------------------------- */

struct cht_lm_candidate {
    uint32_t token;
    unsigned order; /* the context that it was found at, counted with the token */
    double p;
};

/* The k most likely tokens (1 to 100 000) after these, best first, ties by token: of the live model, else of the deepest context that was
 * smoothed. out has room for k; CHT_INVALID_ARGUMENT, CHT_NOTHING_COUNTED (an empty live model), CHT_NOT_SMOOTHED (no live
 * model, and no probabilities), CHT_MALFORMED_PAYLOAD and what reads return. */
enum cht_rc cht_lm_predict(struct cht_lm *lm, struct cht_store *s, const uint32_t *tokens, size_t n,
                           unsigned k, struct cht_lm_candidate *out, size_t *count, struct cht_err *err);

struct cht_lm_scored {
    uint64_t tokens; /* that were scored */
    uint64_t oov;    /* of these unknown */
    double log10;    /* the sum of log10 p */
};

/* How likely a text is: of the live model (a text that does not begin with its bos gets one), else of what was smoothed, where every token
 * but the first is scored, blended over all orders. Errors as of cht_lm_predict. */
enum cht_rc cht_lm_score(struct cht_lm *lm, struct cht_store *s, const uint32_t *tokens, size_t n,
                         struct cht_lm_scored *out, struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
