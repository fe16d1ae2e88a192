/* tokens: a table from tokens to numbers that are not 0, whose memory is booked; a digest.
 *
 * Memory: 24 to 48 bytes a token. Threads: look-ups from any while nobody enters.
 */
#pragma once

#include "reduce/aggregate.h"

struct reduce_tokens {
    uint32_t *token; /* owned, as the next */
    uint64_t *value; /* 0: free */
    size_t cap, n;   /* cap: a power of two */
};

/* The place of a token: its own, or a free one (value 0), which counts as entered; NULL: CHT_NO_MEMORY. It is valid until the next call. */
uint64_t *reduce_tokens_enter(struct reduce_run *run, struct reduce_tokens *t, uint32_t token,
                              struct cht_err *err);
uint64_t reduce_tokens_value(const struct reduce_tokens *t, uint32_t token); /* 0: not there */
void reduce_tokens_free(struct reduce_run *run, struct reduce_tokens *t);

/* A digest so far and what comes next; no defence against anybody. */
static inline uint64_t reduce_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}
uint64_t reduce_mix_bytes(uint64_t h, struct cht_str s);
