/* matrix: the co-occurrence matrix of tokens that the counts of each order hold: how often token b comes n - 1 places after token a, over all that
 * is between them: the sum of cnt:<n>: of the contexts of n - 1 tokens that begin with a. Kept as rows and as columns (reduce/matrix.h) in place
 * of what was there, which must be such rows (else CHT_NAMES_TAKEN, and nothing is changed).
 *
 * An order that fits the memory is kept in one atomic commit. One that does not is done in parts: { a range of rows } ... { a range of columns } ... -> they
 * get their names (reduce/move.h), in as few commits as fit. Each part is kept with how far the order is, so a run that was cut off goes on there if
 * the counts are the same, by their digest; orders that it had done are not done again. Until the names are given the old rows are there.
 * On a store of other machines more old ones than a commit takes away (reduce_too_many) go page by page before that: readers see what is left of them, then none, then
 * those new ones that have their names; never old and new ones.
 *
 *   count   c(a, b)
 *   p       c(a, b) / c(a), c(a) being the sum of a's row
 *   pmi     log2(c(a, b) N / (c(a) c(b))), c(b) being the sum of b's column and N that of all; in bits, negative ones too
 *
 * Threads: any; runs of one database must not overlap (the caller's care). Blocks.
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/store.h"
#include "reduce/aggregate.h"
#include "reduce/matrix.h"

struct lm_matrix_result {
    unsigned order;
    uint64_t rows, columns, entries;
};

struct lm_matrix_config {
    struct cht_str prefix; /* cnt:, cnt:<n>: or what is under one; empty: all */
    enum reduce_matrix_metric metric;
    uint64_t
        memory_max; /* 0: REDUCE_MEMORY_DEFAULT; a row and, for p and pmi, two tables of tokens must fit it */
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err); /* as in struct reduce_params */
    void (*unbook)(void *ctx, uint64_t bytes);
    _Atomic bool *cancel; /* NULL: never */
    /* On the caller's thread; NULL: nobody is told. */
    void (*say)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void (*result)(void *ctx, const struct lm_matrix_result *r); /* when an order is kept */
    void *ctx;
};

/* *malformed: counts, and contexts, that could not be read; they are passed over. CHT_INVALID_ARGUMENT (no prefix of counts), CHT_CANCELLED,
 * CHT_NO_MEMORY, and what scans and commits return. */
enum cht_rc lm_matrix_run(struct cht_store *s, const struct lm_matrix_config *cfg, uint64_t *malformed,
                          struct cht_err *err);
