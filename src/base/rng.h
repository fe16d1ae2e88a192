/* rng: small seedable generator (xoshiro256**, Blackman and Vigna 2018) for tests, benchmarks and salts. */
#pragma once

#include <stdint.h>

struct cht_rng {
    uint64_t s[4];
};
void cht_rng_seed(struct cht_rng *r, uint64_t seed); /* splitmix64 expansion */
uint64_t cht_rng_next(struct cht_rng *r);
uint64_t cht_rng_below(struct cht_rng *r, uint64_t n); /* 0..n-1, n > 0 */
