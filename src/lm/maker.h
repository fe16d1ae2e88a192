/* maker: makes what a commit of n-grams writes, one context at a time: its counts, its entry under `ctx:`, its vector under `ctxv:`, as
 * operations (merge.c) or as an entry of a sheet (sheet.h), from which they are made when the store looks at them. What is made lies in an
 * arena of the maker, so it is valid until lm_maker_free.
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
    struct lm_ngrams *request;     /* is asked before memory is used */
    unsigned order, keep;          /* keep, of an entry: LM_KN_KEEP_... */
    bool any_counts, any_contexts; /* the database may have some of this order */
    const uint32_t *tokens;        /* of entries: the text, and how long it is */
    size_t ntokens;
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
    struct cht_op *ops; /* owned: of entries, counts that are too long for them */
    size_t nops, ops_cap;
    uint64_t bytes; /* of the names and values of entries, and perhaps more */
};

/* A context in a sheet. Most have one follower, which stands after them in the text: then nothing else is kept of their counts. */
struct lm_entry {
    union {
        uint8_t hash[LM_HASH_SIZE];
        const uint8_t *more; /* of the maker: the hash, and `n` bytes of counts after it */
    };
    uint32_t first; /* its tokens: where they are in the text */
    uint32_t created : 1;
    uint32_t form : 2; /* LM_ENTRY_... */
    uint32_t n : 29;
};
_Static_assert(sizeof(struct lm_entry) == 16, "one for each context of a request");
enum {
    LM_ENTRY_BARE,  /* no counts are written */
    LM_ENTRY_ALONE, /* the token after the context's own is its only follower, n times */
    LM_ENTRY_MORE
};
static inline const uint8_t *lm_entry_hash(const struct lm_entry *e)
{
    return e->form == LM_ENTRY_MORE ? e->more : e->hash;
}

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
/* What is to be kept of the context with the hash and tokens that e says, in e: as lm_make_counts and lm_make_context, and its vector if it
 * is registered. */
enum cht_rc lm_make_entry(struct lm_maker *m, struct lm_entry *e, const struct lm_follower *f, uint32_t n,
                          struct cht_err *err);
/* The value under `ctx:`, of LM_CONTEXT_BYTES(n) bytes. */
#define LM_CONTEXT_BYTES(n) (3 + 4 * (n))
void lm_context_write(uint8_t *out, const uint32_t *tokens, size_t n);
void lm_maker_free(struct lm_maker *m);
