/* ngrams: counts the n-grams of documents into a database, and takes them away again. A database with a live model (kn_live.h) has
 * it brought up to date in the same commit, and keeps of what follows here only what it was told to keep.
 *
 *   begin -> { add_document ... } -> commit -> free
 *
 * For each document and each order n = 1..order every window of n tokens adds 1 to its last token in the counts of the
 * context before it (`cnt:<n>:`, followers in ascending token order, saturating at 2^32-1). A context that has no `ctx:`
 * entry with a value gets one, and its vector is mapped to the same key under `ctxv:` (the empty context has no vector). A
 * vector is the same for every order of the context's tokens: the context registered last has it.
 *
 * One request is one atomic commit, as durable as the database says: after an error or a crash all of it was counted, or
 * nothing. Requests into one database are serialised (engine.h), so the counts do not depend on how documents are split
 * over requests and threads.
 *
 * Memory: 4 bytes a token as they come in; during commit, order by order, what is told to lm_ngrams_bound before it is needed: 80
 * bytes a token, 32 for each different n-gram, and 80 + 32 * order for each context. Of a context the request keeps an entry (sheet.h), not
 * the three operations that are made of it. Where nothing repeats that is 460 bytes a token at order 3, 890 at 5, 1690 at 8, a good half of
 * it the store's changed pages. Running text takes less, the more it repeats. A large request is
 * told ahead, from a sample (estimate.h), so that one that is too large is refused before it is counted.
 * Threads: one at a time per object.
 */
#pragma once

#include "lm/engine.h"

struct lm_ngrams;

struct lm_ngrams_result {
    uint64_t documents;        /* that were counted: of 2 tokens or more */
    uint64_t tokens;           /* in them */
    uint64_t ngrams;           /* windows counted, repetitions included */
    uint64_t contexts_created; /* registered under `ctx:`; records of the live model where that is not kept */
    uint64_t removed;          /* documents of 2 tokens or more that were taken away */
    uint64_t generation;       /* of the live model, if there is one */
    uint64_t
        malformed; /* counts under `cnt:` that could not be read: left as they are, and nothing added to them */
    bool live;
    bool
        repeated; /* one with the same identifier was counted before: this is its answer, and nothing was counted */
};

#define LM_NGRAMS_OWN UINT32_MAX /* for order: the live model's, else LM_NGRAMS_ORDER */
#define LM_NGRAMS_ORDER 3u
/* order 1..8 or LM_NGRAMS_OWN, else CHT_INVALID_ARGUMENT. */
enum cht_rc lm_ngrams_begin(unsigned order, struct lm_ngrams **out, struct cht_err *err);
/* Copies the document; one of fewer than 2 tokens is skipped. CHT_NO_MEMORY; CHT_BATCH_TOO_LARGE after 2^31 tokens in
 * all. After an error the object is as before. */
enum cht_rc lm_ngrams_add_document(struct lm_ngrams *g, const uint32_t *tokens, size_t n,
                                   struct cht_err *err);
/* The same for one that is taken away: what it has added is subtracted. Added and taken in one request are netted. */
enum cht_rc lm_ngrams_take_document(struct lm_ngrams *g, const uint32_t *tokens, size_t n,
                                    struct cht_err *err);
/* A document as text, which is split into words (words.h); one request has texts or tokens, not both. In a database with a live model a
 * text has bos in front and eos after it, if there is one. Words get their tokens in the commit. One without words is skipped, and so is one of fewer
 * than 2 tokens. *tokens is the number of its words. CHT_INVALID_TOKENS: a word is too long, or there are documents of tokens; and as above. */
enum cht_rc lm_ngrams_add_text(struct lm_ngrams *g, struct cht_str text, bool take, size_t *tokens,
                               struct cht_err *err);
/* Gives the request an identifier (once.h; a valid one): with one that was counted before, commit counts nothing and answers what
 * that request was answered. It is kept in the same commit. */
void lm_ngrams_once(struct lm_ngrams *g, const char *id);
/* Asks before memory is used for the request: what `book` says ends it, before anything is written. It is never given back. From any
 * of the threads that count; `ctx` is its own. */
void lm_ngrams_bound(struct lm_ngrams *g, enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err),
                     void *ctx);
/* Counts what was added and writes it; once per object. Blocks: waits for other requests into the database and for the
 * disk. CHT_ORDER_MISMATCH if the live model has another order, CHT_NOT_COUNTED if more is taken away than was counted, or a word of it never was,
 * CHT_MALFORMED_PAYLOAD if a record of the live model or a word that must be read is none,
 * CHT_VALUE_TOO_LARGE if the followers of a context are too many for one value, CHT_NO_MEMORY, CHT_DISK_FULL and what
 * else a commit returns: then nothing was counted. */
enum cht_rc lm_ngrams_commit(struct lm_engine *e, struct cht_store *s, struct lm_ngrams *g,
                             struct lm_ngrams_result *out, struct cht_err *err);
void lm_ngrams_free(struct lm_ngrams *g); /* NULL is legal */
