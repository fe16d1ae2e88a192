/* learned: a learned value of a prediction table: a score, and for some depths of a context matrix a vector and a bias. What today's
 * DB-SLM trains while it generates. The arithmetic; where values lie is the caller's.
 *
 * A context matrix is a list of rows of numbers. With two rows or more that are not empty, six rows are put after it, which say how
 * the rows are spread (lm_matrix_deepen). The delta of a value is, over its weights whose depth is a row: bias + row * vector.
 *
 *   value, integers and doubles big-endian:
 *   u8 version 1 | f64 score | u32 weights | { u32 depth | u32 n | f64 bias | n x f64 }
 *
 * All numbers are finite. Threads: any; no state.
 */
#pragma once

#include <stdbool.h>

#include "cheetah/store.h"

#define LM_LEARNED_NEW 0.05 /* the score of a value that training meets first */
#define LM_LEARNED_SCORE_MAX 24.0

struct lm_row {
    double *v; /* owned by the matrix */
    size_t n;
};
struct lm_matrix {
    struct lm_row *rows; /* owned */
    size_t n, cap;
};

/* A row of n zeros at the end; NULL: no memory. */
double *lm_matrix_add(struct lm_matrix *m, size_t n);
void lm_matrix_free(struct lm_matrix *m);
/* Adds mean, variance, root mean square, contrast of the strongest and the weakest rows, interaction and blend, scaled by how much the
 * rows differ; nothing where they do not. CHT_NO_MEMORY. */
enum cht_rc lm_matrix_deepen(struct lm_matrix *m, struct cht_err *err);

struct lm_weight {
    uint32_t depth;
    double bias;
    double *v; /* owned by the value */
    size_t n;
};
struct lm_learned {
    double score;
    struct lm_weight *w; /* owned, ascending by depth */
    size_t n, cap;
};

/* Reads a payload. CHT_MALFORMED_PAYLOAD, CHT_NO_MEMORY. */
enum cht_rc lm_learned_read(struct lm_learned *l, const uint8_t *p, size_t n, struct cht_err *err);
/* Writes it; out->len is its length. CHT_NO_MEMORY. */
enum cht_rc lm_learned_write(const struct lm_learned *l, struct cht_buf *out, struct cht_err *err);
void lm_learned_free(struct lm_learned *l);
/* The weight of a depth, made with n zeros or grown to n; NULL: no memory. */
struct lm_weight *lm_learned_weight(struct lm_learned *l, uint32_t depth, size_t n);

double lm_learned_delta(const struct lm_learned *l, const struct lm_matrix *m);
/* One step of training towards `want` (1 or 0). CHT_INVALID_ARGUMENT: a number would not be finite; CHT_NO_MEMORY. */
enum cht_rc lm_learned_train(struct lm_learned *l, const struct lm_matrix *m, double rate, double want,
                             struct cht_err *err);
/* Adds a source to the mean that becomes an inherited value: weights by depth, weighted by the logistic of its score, whose sums are
 * kept in `sums` (one a weight of l). CHT_NO_MEMORY. */
enum cht_rc lm_learned_inherit(struct lm_learned *l, const struct lm_learned *source, struct cht_buf *sums,
                               struct cht_err *err);
void lm_learned_inherited(struct lm_learned *l, const struct cht_buf *sums);
double lm_learned_clamp(double score); /* to +-LM_LEARNED_SCORE_MAX; what is no number is 0 */
bool lm_learned_finite(const struct lm_learned *l);
