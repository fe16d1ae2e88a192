/* kn_windows: documents cut into segments, and their longest windows in the order in which the model is stored.
 *
 * A document is cut in front of every bos; a segment is bos and what follows it (README.md). The window of a token is the longest
 * n-gram of at most N tokens that ends there. Sorted by context, nearest token first, and then by the token itself, equal windows
 * lie together, and so do all contexts that share what is near: whatever is counted for the order below is grouped already.
 *
 * Memory: 5 bytes a token; while sorting 8 more, and 8 for each different window. Threads: one at a time per object.
 */
#pragma once

#include "lm/counts.h"

#define LM_ORDERS (LM_ORDER_MAX + 1) /* an array with an entry an order, from 1 */

/* The segments, one after the other. Zero-initialise. */
struct lm_kn_text {
    uint32_t *token; /* owned */
    uint8_t *
        reach; /* owned: tokens before it in its segment, at most LM_KN_REACH_MAX; LM_KN_TAKEN: it is to be taken away */
    size_t n, cap;
    uint64_t predicted, taken; /* tokens but bos of documents to be added, to be taken away */
};
#define LM_KN_REACH_MAX 15u
#define LM_KN_REACH 0x0Fu
#define LM_KN_TAKEN 0x80u
#define LM_KN_TEXT_MAX (UINT32_C(1) << 31)

/* Adds a document's segments. CHT_BATCH_TOO_LARGE, CHT_NO_MEMORY leave the text as it was. */
enum cht_rc lm_kn_text_add(struct lm_kn_text *t, uint32_t bos, const uint32_t *tokens, size_t n, bool take,
                           struct cht_err *err);
void lm_kn_text_free(struct lm_kn_text *t);

/* A change to the count of an n-gram: it ends at `at` in the text. */
struct lm_kn_delta {
    uint32_t at;
    int32_t by;
};
/* Changes of one order, ascending by context and then token, each n-gram once. */
struct lm_kn_deltas {
    struct lm_kn_delta *d; /* owned */
    size_t n;
};
/* The text's windows, by length: those of `order` tokens, and the shorter ones at the start of segments. `by` is never 0. */
struct lm_kn_windows {
    struct lm_kn_deltas m[LM_ORDERS]; /* by length; m[0] is not used */
};
enum cht_rc lm_kn_windows_make(struct lm_kn_windows *w, const struct lm_kn_text *t, unsigned order,
                               struct cht_err *err);
void lm_kn_windows_free(struct lm_kn_windows *w);

/* Orders n-grams of equal contexts (those that end at d[0..n-1]) by token and adds up equal ones; returns how many are left.
 * spare holds n. */
size_t lm_kn_deltas_settle(struct lm_kn_delta *d, struct lm_kn_delta *spare, size_t n, const uint32_t *token);
/* Compares the contexts (`tokens` tokens, nearest first) of the n-grams that end at a and b. */
int lm_kn_context_compare(const uint32_t *token, uint32_t a, uint32_t b, unsigned tokens);
