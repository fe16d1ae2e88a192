/* quant: modified Kneser-Ney discounts (Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language
 * Modeling", TR-10-98, 1998) in the forms that DB-SLM uses, and probabilities in 8 bits: steps of 12/255 in log10
 * from 1e-12 to 1. IEEE doubles, in a fixed order of operations, so that bytes match those of other implementations.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdint.h>

#define LM_QUANT_MIN (-12.0)
#define LM_QUANT_MAX 0.0
#define LM_LOWER_NONE 1e-9 /* order 0 probability of a token that follows no context */
#define LM_TOPK_MAX 32u
#define LM_TOPK_DEFAULT 20u

/* How many followers have count 1, 2, 3 and 4 or more; contexts with a total above 0. */
struct lm_count_counts {
    uint64_t n[4];
    uint64_t contexts;
};

/* d[1] to d[3]: what is taken off a count of 1, 2, 3 and more. d[0] is unused. */
void lm_discounts(const struct lm_count_counts *c, double d[4]);

/* round-half-even((log10(max(p, 1e-12)) + 12) / 12 * 255), clamped to 0..255 */
uint8_t lm_quantize(double p);
/* 10^(-12 + q/255 * 12) */
double lm_dequantize(uint8_t q);
/* round-half-even(alpha * 1000), alpha clamped to 0..1 */
uint16_t lm_quantize_alpha(double alpha);
