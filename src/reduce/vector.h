/* vector: a counts payload as a vector over tokens, and how alike two of them are.
 *
 * Scores are computed from exact integers with one rounding each, so they depend on the two payloads only.
 */
#pragma once

#include "reduce/aggregate.h"
#include "reduce/payload.h"

__extension__ typedef unsigned __int128 reduce_u128;

struct reduce_term {
    uint64_t count;
    uint32_t token;
};

struct reduce_vector {
    struct reduce_term *terms; /* owned; ascending tokens, none twice */
    size_t n, cap;
    reduce_u128 norm; /* sum of the squares */
};

/* Reads the records of a counts payload (any order; the counts of a token that is there twice are added up) into v, which is
 * zero or used before. CHT_NO_MEMORY; the memory is booked with the run. */
enum cht_rc reduce_vector_read(struct reduce_run *run, struct reduce_vector *v,
                               const struct reduce_payload *in, struct cht_err *err);
void reduce_vector_free(struct reduce_run *run, struct reduce_vector *v);
/* 0 to 1; 0 if one has no length (cosine) or both are empty (jaccard). */
double reduce_vector_score(const struct reduce_vector *a, const struct reduce_vector *b,
                           enum reduce_metric metric);
