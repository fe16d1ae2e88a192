/* maker: makes the operations of a commit of n-grams (ngrams.c), one at a time: a context's counts, its entry under `ctx:`, its
 * vector under `ctxv:`. What an operation borrows lies in an arena of the maker, so it is valid until lm_maker_free.
 *
 * Internal to src/lm. Threads: one at a time per maker; makers of one commit share what lm_making says, which nobody changes
 * while they work.
 */
#pragma once

#include "lm/counts.h"
#include "lm/hash.h"
#include "lm/ngrams_int.h"

/* What the makers of a commit share while an order is made. */
struct lm_making {
    struct cht_store *store;
    const struct lm_ngrams *request; /* is asked before memory is used */
    unsigned order;
    bool any_counts, any_contexts; /* the database may have some of this order */
};

struct lm_maker_chunk;
/* Zero-initialise all but `making`. */
struct lm_maker {
    const struct lm_making *making;
    struct lm_maker_chunk *chunks; /* owned: the newest first */
    struct lm_counts counts;
    struct cht_buf value;
    uint64_t created;   /* contexts that were registered */
    uint64_t malformed; /* counts that are none */
};

/* The followers of the context of that hash, with what the database has of them. If something else lies there it is written again as it is. CHT_NO_MEMORY, what the request's bound says, and what a read returns. */
enum cht_rc lm_make_counts(struct lm_maker *m, const uint8_t hash[LM_HASH_SIZE], const struct lm_follower *f,
                           uint32_t n, struct cht_op *op, struct cht_err *err);
/* Registers the context of n tokens if it is not; *made says whether, else *op is unchanged. CHT_NO_MEMORY and what a read returns. */
enum cht_rc lm_make_context(struct lm_maker *m, const uint32_t *tokens, size_t n,
                            const uint8_t hash[LM_HASH_SIZE], struct cht_op *op, bool *made,
                            struct cht_err *err);
/* The vector of a context as a second name of its value; context: the operation that puts it, in the same array as op.
 * CHT_NO_MEMORY. */
enum cht_rc lm_make_vector(struct lm_maker *m, const uint32_t *tokens, size_t n, const struct cht_op *context,
                           struct cht_op *op, struct cht_err *err);
void lm_maker_free(struct lm_maker *m);
