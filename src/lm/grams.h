/* grams: counts the windows of a list of documents in memory, order by order, without a database.
 *
 * A window of n tokens gets a number (a gram, in the order of first occurrence). Order n starts from the grams of order n-1:
 * the pair (gram of the first n-1 tokens, last token) is looked up in one open-addressing table, so no window is ever
 * hashed as a whole. The grams of order n-1 that were followed by a token are the contexts of order n.
 *
 * Internal to src/lm (ngrams.c). Threads: one at a time per object.
 */
#pragma once

#include "base/siphash.h"
#include "lm/counts.h"

/* The documents: tokens one after the other, document i is tokens[start[i]] .. tokens[start[i + 1] - 1]. Borrowed. */
struct lm_text {
    const uint32_t *tokens;
    const uint32_t *start; /* documents + 1 entries */
    size_t documents;
    const uint8_t *take; /* one a document: 1, its windows are taken away, not added; NULL: none is */
};

struct lm_gram_slot {
    uint32_t context, token, count,
        id; /* id: of the gram + 1, 0: free; count: modulo 2^32 where some are taken away */
};

/* One order, counted. Zero-initialise; lm_grams_free at the end. */
struct lm_grams {
    const struct lm_text *text;
    unsigned order;            /* counted last; 0 at the beginning */
    uint32_t *at_token;        /* owned: the gram that starts at each token, of the order counted last */
    struct cht_sip_key key;    /* of the table: nobody can choose tokens that meet in it */
    struct lm_gram_slot *slot; /* owned: the table */
    size_t slots;              /* a power of two */
    uint32_t grams;
    uint32_t *first,
        *context_first; /* owned: where a gram (a context: a gram of the order before) starts in the text */
    size_t first_cap;
    /* The contexts of this order and their followers: */
    struct lm_follower *followers; /* owned: of context c at offset[c] .. offset[c + 1], ascending by token */
    uint32_t *offset;              /* owned */
    uint32_t *used; /* owned: the contexts that have followers, in the order they were first followed */
    uint32_t nused, contexts;
};

enum cht_rc lm_grams_begin(struct lm_grams *g, const struct lm_text *text, struct cht_err *err);
/* Counts the next order: its contexts and followers are valid until the next call. */
enum cht_rc lm_grams_next(struct lm_grams *g, struct cht_err *err);
/* The tokens (order - 1) of a context. */
const uint32_t *lm_grams_context(const struct lm_grams *g, uint32_t context);
void lm_grams_free(struct lm_grams *g);
