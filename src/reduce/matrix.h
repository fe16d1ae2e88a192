/* matrix: names and payloads of the co-occurrence matrices of tokens that counts hold (made by lm/matrix.h).
 *
 *   mat:<order>:<token u32>    a row: the tokens that come after this one        order: 2 to 8, a digit
 *   matt:<order>:<token u32>   a column: the tokens that this one comes after    the same numbers, transposed
 *   matnew:, mattnew:          parts of an order that is done in parts, until all are there
 *   matrun:<order>             how far a run is
 *
 *   payload   version=1 u8 | order u8 | metric u8 | n u32 | n x (token u32, value f64), tokens ascending; big-endian
 *   metric    0 count, 1 p, 2 pmi
 *
 * Bytes after the n entries are legal, fewer are not. Threads: any; no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDUCE_MATRIX "mat:"
#define REDUCE_MATRIX_TRANSPOSED "matt:"
#define REDUCE_MATRIX_NEW "matnew:"
#define REDUCE_MATRIX_NEW_TRANSPOSED "mattnew:"
#define REDUCE_MATRIX_RUN "matrun:"
#define REDUCE_MATRIX_HEAD 7u
#define REDUCE_MATRIX_RECORD 12u

enum reduce_matrix_metric { REDUCE_MATRIX_COUNT, REDUCE_MATRIX_P, REDUCE_MATRIX_PMI };

struct reduce_matrix_row {
    unsigned order;
    enum reduce_matrix_metric metric;
    uint32_t n;
    const uint8_t *records; /* borrowed */
};

/* Reads a head of which `have` bytes are at p; size is the whole payload's. False: malformed. */
bool reduce_matrix_read(const uint8_t *p, size_t have, uint64_t size, struct reduce_matrix_row *out);
/* Writes a head; returns REDUCE_MATRIX_HEAD. */
size_t reduce_matrix_begin(uint8_t *out, unsigned order, enum reduce_matrix_metric metric, uint32_t n);
void reduce_matrix_put(uint8_t *record, uint32_t token, double value);
double reduce_matrix_value(const uint8_t *record);
/* "count", "p", "pmi"; -1 if it is none. */
int reduce_matrix_metric(const char *p, size_t n);
const char *reduce_matrix_metric_name(enum reduce_matrix_metric m);
