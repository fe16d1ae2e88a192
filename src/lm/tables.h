/* tables: prediction tables, which DB-SLM trains while it generates: table -> key -> values, each with a score and weights (learned.h).
 * A value is a pair:
 *
 *   name   0x10 "pt:" TABLE 0x00 | u16 length of KEY, big-endian | KEY | VALUE
 *
 * in the log like all else. A table's name has other characters than A-Za-z0-9_- as _, and at most 64; none is "default".
 * A key keeps its newest LM_TABLE_VALUES_MAX values and LM_TABLE_BYTES_MAX bytes: what is older goes, so that setting one never fails for
 * want of room.
 *
 * Threads: a struct lm_table belongs to one. What changes the values of a key goes one after the other, in all threads of the process;
 * keys wait for each other only if their hashes meet.
 */
#pragma once

#include "lm/learned.h"

#define LM_TABLE_VALUES_MAX 65536u
#define LM_TABLE_BYTES_MAX ((uint64_t)256 << 20)
#define LM_TABLE_COMMIT_MAX (2 * LM_TABLE_BYTES_MAX) /* bytes of values that one call writes */
#define LM_TABLE_NEGATIVES_MAX 10000u

/* A table, and what a call works with. Zero-initialise and set the first four; free it after the call. */
struct lm_table {
    struct cht_store *store; /* borrowed */
    struct cht_str name;     /* as it was sent; borrowed */
    uint32_t max_value;      /* bytes of a value */
    unsigned durability;     /* 0, or a flag of a commit */
    /* Asked now and then: any other code than CHT_OK ends the call. NULL: it goes on. */
    enum cht_rc (*goes_on)(void *ctx);
    /* Before memory is used for an answer; NULL: nobody asks. */
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err);
    void *ctx; /* of both */

    struct cht_buf value;  /* owned, like all below */
    struct cht_buf prefix; /* of the key's values, room for a value after it */
    struct cht_op *ops;    /* with their names and values: what is to be written */
    size_t n, cap;
    size_t made;    /* of the operations: those of new values */
    uint64_t bytes; /* of values that are to be written */
};
void lm_table_free(struct lm_table *t);

/* All: CHT_NO_MEMORY, what the store says, CHT_INVALID_PAIR (table, key and value are too long together), CHT_VALUE_TOO_LARGE (too
 * much is to be written), CHT_INVALID_NUMBER (one would not be finite). Key and value are not empty. *values: how many the key has
 * after it. As durable as `durability` says when they return. */

/* The value has this score and these weights from now on. */
enum cht_rc lm_table_set(struct lm_table *t, struct cht_str key, struct cht_str value,
                         const struct lm_learned *l, uint64_t *values, struct cht_err *err);

struct lm_table_step {
    struct cht_str key, target;
    const struct cht_str *negatives; /* borrowed; at most LM_TABLE_NEGATIVES_MAX are looked at */
    size_t n;
    const struct lm_matrix *ctx; /* deepened */
    double rate;
};
/* One step of training. CHT_PREDICTION_NOT_FOUND: there is no such key. */
enum cht_rc lm_table_train(struct lm_table *t, const struct lm_table_step *step, uint64_t *values,
                           struct cht_err *err);

/* Shifts the score of every value of a key by its delta * strength, or scales it by 1 + that. CHT_PREDICTION_NOT_FOUND. */
enum cht_rc lm_table_shift(struct lm_table *t, struct cht_str key, const struct lm_matrix *ctx,
                           double strength, bool scale, uint64_t *values, struct cht_err *err);

enum lm_merge { LM_MERGE_MEAN, LM_MERGE_MAX, LM_MERGE_SUM };
/* "max" and "sum" in any case; all else is the mean. */
enum lm_merge lm_merge_of(struct cht_str word);

struct lm_table_heir {
    struct cht_str key, target;
    const struct cht_str *sources; /* borrowed */
    size_t n;
    enum lm_merge merge;
    enum cht_rc rc; /* out: CHT_OK, CHT_PREDICTION_NOT_FOUND (no such key), CHT_SOURCES_MISSING */
    size_t merged;  /* out: sources that are there */
};
/* Each target becomes the mean of its sources as they were before the call. Heirs of one key in a row share a commit. *values: of the
 * last key. Returns what is not an answer of one of them. */
enum cht_rc lm_table_inherit(struct lm_table *t, struct lm_table_heir *heirs, size_t n, uint64_t *values,
                             struct cht_err *err);

/* The values of keys and their probabilities, the most probable first, of equals in byte order. Zero-initialise. */
struct lm_ranked_value {
    size_t at; /* of the value in the text */
    size_t rank;
    uint32_t n;
    uint32_t keys; /* that have it */
    double p;
};
struct lm_ranked {
    struct lm_ranked_value *v; /* owned, like text */
    size_t n, cap;
    uint8_t *text;
    size_t text_n, text_cap;
};
/* The softmax of score + delta over the values of each key; of several keys those that have a value are merged. A key that is not
 * there has no values. CHT_VALUE_TOO_LARGE: more than LM_TABLE_BYTES_MAX for one answer. */
enum cht_rc lm_table_query(struct lm_table *t, const struct cht_str *keys, size_t n,
                           const struct lm_matrix *ctx, enum lm_merge merge, struct lm_ranked *out,
                           struct cht_err *err);
void lm_ranked_free(struct lm_ranked *r);
