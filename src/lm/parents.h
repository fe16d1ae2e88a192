/* parents: the quantized probabilities of one order in memory, for the order above that backs off to them.
 *
 * 256 tables by the first byte of the context's name, so that threads that work on different first bytes fill it
 * without a lock. It keeps at most a given number of bytes: when they are used up what comes later is left out, and the
 * table says that it is not complete: a context that is not in it may still be in the database.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/siphash.h"
#include "cheetah/store.h"
#include "lm/hash.h"

struct lm_parent_slot {
    uint64_t name;
    uint32_t at; /* of the first follower in the arrays of its part */
    uint32_t n;  /* 0: free */
};

struct lm_parent_part {
    struct lm_parent_slot *slot; /* owned */
    uint32_t *token;             /* owned */
    uint8_t *q;                  /* owned */
    size_t slots, contexts, n, cap;
};

struct lm_parents {
    struct lm_parent_part part[256];
    struct cht_sip_key
        key;       /* names are hashes, but clients choose what is hashed, or write names of their own */
    size_t memory; /* the most bytes; 0: keeps nothing */
    _Atomic size_t bytes;
    _Atomic bool incomplete;
};

/* The followers of one context, ascending by token; borrowed until the table changes. */
struct lm_parent {
    const uint32_t *token;
    const uint8_t *q;
    uint32_t n; /* 0: not in the table */
};

/* Heap; NULL: no memory. */
struct lm_parents *lm_parents_new(size_t memory);
void lm_parents_free(struct lm_parents *p); /* NULL is legal */
/* Adds a context; one that does not fit (or for which there is no memory) makes the table incomplete. A context must be
 * added once. One thread at a time per first byte. */
void lm_parents_add(struct lm_parents *p, const uint8_t name[LM_HASH_SIZE], const uint32_t *token,
                    const uint8_t *q, uint32_t n);
/* A hint: fetches what lm_parents_find will look at first. */
void lm_parents_prefetch(const struct lm_parents *p, const uint8_t name[LM_HASH_SIZE]);
struct lm_parent lm_parents_find(const struct lm_parents *p, const uint8_t name[LM_HASH_SIZE]);
