/* matrix_int: what matrix.c (the run, reading), matrix_entries.c (what was collected) and matrix_keep.c (what is kept of it) share.
 *
 * Memory: an entry 24 bytes, a third of it all at most; p and pmi: two tables of 24 to 48 bytes a token; what is written: in parts a half of the rest.
 */
#pragma once

#include "lm/counts.h"
#include "lm/matrix.h"
#include "reduce/tokens.h"

#define LM_MATRIX_ALL (UINT64_C(1) << 32) /* after the last token */

/* In the order of what is written: major is the row, or the column. */
struct lm_matrix_entry {
    uint32_t major, minor;
    uint64_t count;
    double value;
};

enum lm_matrix_phase { LM_MATRIX_ROWS, LM_MATRIX_COLUMNS, LM_MATRIX_MOVE, LM_MATRIX_DONE, LM_MATRIX_CLEAR };

/* How far an order is. */
struct lm_matrix_state {
    enum lm_matrix_phase phase;
    uint64_t digest, next; /* of metric, prefix and counts; rows, or columns, below that token are written */
    uint64_t rows, columns, entries;
};

struct lm_matrix_job {
    struct reduce_run run; /* memory */
    struct reduce_params params;
    const struct lm_matrix_config *cfg;
    unsigned order;
    struct lm_matrix_entry *e; /* owned */
    size_t n, cap;
    bool transposed;              /* what is collected: columns */
    uint64_t from, until;         /* majors that are collected; until sinks if there are too many entries */
    struct reduce_tokens row_sum; /* p, pmi: of all entries of the order */
    struct reduce_tokens column_sum;
    uint64_t total, digest, malformed;
    unsigned recorded; /* a bit for each order whose record is there */
    struct cht_buf value, context;
    struct lm_counts counts;
};

/* The entries of [from, until): sorted, each place once. */
void lm_matrix_compact(struct lm_matrix_job *m);
/* Their values, from the tables. */
void lm_matrix_weigh(struct lm_matrix_job *m);
enum cht_rc lm_matrix_cancelled(const struct lm_matrix_job *m, struct cht_err *err);

/* What the record of the order says; false: there is none. A move that was cut off is brought to its end. CHT_NAMES_TAKEN. */
enum cht_rc lm_matrix_resume(struct lm_matrix_job *m, bool *some, struct lm_matrix_state *st,
                             struct cht_err *err);
/* Removes the parts that a run has left, and notes that a new one begins. CHT_NAMES_TAKEN. */
enum cht_rc lm_matrix_begin(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err);
/* All entries, in one commit in place of what was there. *fits false: it takes more memory than there is, and nothing was done. */
enum cht_rc lm_matrix_keep(struct lm_matrix_job *m, struct lm_matrix_state *st, bool *fits,
                           struct cht_err *err);
/* The rows (columns) of the entries, as parts; and that all below m->until are there. */
enum cht_rc lm_matrix_keep_part(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err);
/* The parts in place of what was there. */
enum cht_rc lm_matrix_move(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err);
/* Removes the records of all orders. */
enum cht_rc lm_matrix_end(struct lm_matrix_job *m, struct cht_err *err);
