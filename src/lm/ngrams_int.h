/* ngrams_int: what ngrams.c, maker.c, documents.c and take.c share. */
#pragma once

#include <stdatomic.h>

#include "lm/grams.h"
#include "lm/ngrams.h"
#include "lm/once.h"
#include "lm/words.h"

struct lm_ngrams {
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err); /* NULL: nobody asks */
    void *book_ctx;
    _Atomic uint64_t prepaid; /* booked before it was needed (estimate.h), and not used yet */
    unsigned order;           /* 0: not said */
    uint32_t *tokens;         /* owned */
    uint32_t *start;          /* owned: documents + 1 */
    uint8_t *take;            /* owned: one a document; NULL while none is taken away */
    size_t ntokens, tokens_cap, documents, documents_cap;
    size_t taken, taken_tokens;    /* of these */
    char once[LM_ONCE_ID_MAX + 1]; /* "": none */
    bool texts; /* the documents are texts: their tokens are entries of `words`, or LM_TEXT_... */
    struct lm_words words;
    size_t words_booked; /* bytes */
};

/* Around a text, until it is known what the database puts there. */
#define LM_TEXT_END (UINT32_MAX - 1)
#define LM_TEXT_BEGIN UINT32_MAX

/* Under the counting gate: the texts become documents of tokens: bos in front and eos after them if these are not LM_WORD_UNKNOWN. *fresh:
 * words that are given a token, which lm_words_load puts into the commit. */
enum cht_rc lm_texts_resolve(struct lm_ngrams *g, struct cht_store *s, const uint32_t ends[2], size_t *fresh,
                             struct cht_err *err);

/* Before memory is used: what is booked ahead goes first. */
static inline enum cht_rc lm_book(struct lm_ngrams *g, uint64_t bytes, struct cht_err *err)
{
    uint64_t ahead = atomic_load_explicit(&g->prepaid, memory_order_relaxed), use;
    do {
        use = ahead < bytes ? ahead : bytes;
    } while (use > 0 && !atomic_compare_exchange_weak_explicit(&g->prepaid, &ahead, ahead - use,
                                                               memory_order_relaxed, memory_order_relaxed));
    return g->book != NULL && use < bytes ? g->book(g->book_ctx, bytes - use, err) : CHT_OK;
}

#define LM_STORED_COST 24u  /* bytes for a follower that is there already: read, written, logged */
#define LM_STORED_SMALL 64u /* that many are in what a context costs */

/* Before a context that has n followers already is written again. g may be NULL: nobody asks. */
static inline enum cht_rc lm_book_stored(struct lm_ngrams *g, uint32_t n, struct cht_err *err)
{
    return g != NULL && n > LM_STORED_SMALL ? lm_book(g, (uint64_t)n * LM_STORED_COST, err) : CHT_OK;
}

/* Operations that take documents away from `cnt:`, `ctx:` and `ctxv:`, or take some away and add others. Zero-initialise. */
struct lm_chunk;
struct lm_taking {
    struct cht_store *store;
    struct lm_ngrams *request; /* borrowed: is asked before memory is used */
    bool contexts, vectors;    /* `ctx:` and `ctxv:` are kept too */
    struct cht_op *ops;        /* owned; what they borrow lies in chunks */
    size_t n, cap;
    struct cht_op *drops; /* owned: vectors that go; before the others, which may give them away anew */
    size_t ndrops, drops_cap;
    struct lm_chunk *chunks; /* owned */
    struct lm_counts counts;
    struct cht_buf value;
    uint64_t created;   /* contexts that were registered */
    uint64_t malformed; /* counts that are none, and stay */
};
/* The operations (t->ops: to be run in order) of orders 1 to `order`, each name at most once. CHT_NOT_COUNTED: a count would fall
 * below 0; CHT_MALFORMED_PAYLOAD, CHT_NO_MEMORY, and what the request's bound says. */
enum cht_rc lm_taking_make(struct lm_taking *t, const struct lm_text *text, unsigned order,
                           struct cht_err *err);
void lm_taking_free(struct lm_taking *t);
