/* quant: see quant.h. */
#include "lm/quant.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

static double clamp01(double x) { return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x; }

/* d - factor * more / (n + 2 * more) */
static double discount(double d, double factor, double n, double more, double otherwise)
{
    double below = n + 2.0 * more;
    return below == 0.0 ? otherwise : d - factor * more / below;
}

static double dequantized[256];

/* First of all constructors: others may ask. */
__attribute__((constructor(101))) static void fill_table(void)
{
    for (int q = 0; q < 256; q++)
        dequantized[q] = pow(10.0, LM_QUANT_MIN + ((double)q / 255.0) * (LM_QUANT_MAX - LM_QUANT_MIN));
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_discounts(const struct lm_count_counts *c, double d[4])
{
    double n1 = (double)c->n[0], n2 = (double)c->n[1], n3 = (double)c->n[2], n4 = (double)c->n[3];
    d[0] = 0.0;
    d[1] = discount(1.0, 2.0, n1, n2, 0.5);
    d[2] = discount(2.0, 3.0, n2, n3, 1.0);
    d[3] = discount(3.0, 4.0, n3, n4, 1.5);
}

uint8_t lm_quantize(double p)
{
    double floor = pow(10.0, LM_QUANT_MIN);
    double ratio = (log10(p > floor ? p : floor) - LM_QUANT_MIN) / (LM_QUANT_MAX - LM_QUANT_MIN);
    return (uint8_t)rint(clamp01(ratio) * 255.0);
}

double lm_dequantize(uint8_t q) { return dequantized[q]; }

uint16_t lm_quantize_alpha(double alpha) { return (uint16_t)rint(clamp01(alpha) * 1000.0); }
