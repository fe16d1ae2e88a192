/* counts: a counts payload as an array: followers in ascending token order, each once.
 *
 * The engine writes counts in that order; a payload that a client wrote may be in any order and may name a token twice:
 * reading sorts it and adds up (saturating).
 */
#pragma once

#include "cheetah/store.h"

#define LM_ORDER_MAX 8u

struct lm_follower {
    uint32_t token, count;
};

/* Zero-initialise; lm_counts_free at the end; reused at will. */
struct lm_counts {
    struct lm_follower *f; /* owned */
    uint32_t n;
    size_t cap;
};

static inline uint32_t lm_add_saturating(uint32_t a, uint64_t b)
{
    return b > UINT32_MAX - (uint64_t)a ? UINT32_MAX : a + (uint32_t)b;
}

/* Reads the payload of the pair `name` (for the message only). CHT_MALFORMED_PAYLOAD if it
 * is none; CHT_NO_MEMORY. */
enum cht_rc lm_counts_read(struct lm_counts *c, const uint8_t *p, size_t n, struct cht_str name,
                           struct cht_err *err);
/* Adds `add` (ascending, each token once) to what is there. CHT_NO_MEMORY leaves it as it was. */
enum cht_rc lm_counts_add(struct lm_counts *c, const struct lm_follower *add, uint32_t n,
                          struct cht_err *err);
/* What is to be added to the count of a token, or taken away. */
struct lm_delta {
    uint32_t token;
    int64_t by;
};
/* Changes them by n deltas (ascending, each token once): counts saturate, what is 0 then is gone. CHT_NOT_COUNTED if one would fall
 * below 0, CHT_NO_MEMORY: c is as it was. */
enum cht_rc lm_counts_change(struct lm_counts *c, const struct lm_delta *d, uint32_t n, struct cht_err *err);
/* The payload, of lm_counts_size(n) bytes at most; returns its bytes. */
size_t lm_counts_write(uint8_t *out, unsigned order, const struct lm_follower *f, uint32_t n);
size_t lm_counts_size(uint32_t n);
void lm_counts_free(struct lm_counts *c);

/* Fails with CHT_MALFORMED_PAYLOAD and a message that names the pair: text as it is, other bytes in hex. */
enum cht_rc lm_malformed(struct cht_str name, size_t size, const char *what, struct cht_err *err);

/* "cnt:3:" and the like, LM_PREFIX_MAX bytes at most; returns the length. kind: "cnt", "prob", "topk". */
#define LM_PREFIX_MAX 8u
size_t lm_prefix(const char *kind, unsigned order, uint8_t *out);
