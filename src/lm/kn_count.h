/* kn_count: what documents that come and go change in a live model: the operations of one commit.
 *
 *   begin -> { lm_kn_text_add(&c->text, ...) ... } -> make -> publish -> the caller commits lm_kn_count_load and c->ops, all or nothing
 *         -> done -> free
 *
 * Adjusted counts (README.md): a token adds 1 to its longest window, and where that made a new n-gram, 1 to the n-gram without its
 * first token, and so on; taking away is the mirror. Done here for many documents at a time, from the longest n-grams to the
 * shortest, each order netted before it is looked at, the contexts of one order shared out among threads. The outcome does not
 * depend on the order of the documents.
 *
 * Memory: LM_KN_TOKEN_COST a token, and for each context that changes LM_KN_CONTEXT_COST: its name and record, the key and plan of its
 * operation, changed pages. Both are measured, and a little more; the latter is booked order by order, the longest first, before it is used.
 * A context that has many followers already, which are read and written again, costs LM_STORED_COST (ngrams_int.h) for each of them.
 * Threads: one at a time per object, under the database's counting gate from begin on.
 */
#pragma once

#include "lm/kn_live.h"
#include "lm/kn_windows.h"
#include "lm/load.h"
#include "lm/share.h"

#define LM_KN_TOKEN_COST 48u
#define LM_KN_CONTEXT_COST 100u

struct lm_kn_chunk;
struct lm_kn_count;
struct lm_ngrams;

/* What one thread makes operations with. */
struct lm_kn_maker {
    struct lm_kn_count *count;
    struct lm_kn_chunk *chunks; /* owned: names and records, the newest first */
    struct cht_buf value;
    struct lm_follower *f; /* owned */
    size_t cap;
    struct lm_kn_order sum;       /* what its contexts have changed in the order under way, modulo 2^64 */
    uint64_t root_total, created; /* likewise */
    struct cht_op *ops;           /* owned: of long records, and of those that go */
    size_t nops, ops_cap;
    uint64_t bytes; /* of names and records that are no ops */
};

/* The contexts of one order that have a record afterwards, in the order of their names: each is its name's length (1 byte), that of the
 * record (4), name, record. NULL: it is an operation, or none. */
struct lm_kn_sheet {
    const uint8_t **at; /* owned; what it leads to lies in the makers' chunks */
    size_t n;
};

struct lm_kn_count {
    struct cht_store *store;
    struct lm_ngrams *request; /* borrowed: whose memory is booked; NULL: nobody's */
    struct lm_kn_head old, now;
    struct lm_kn_text text;
    uint64_t documents, taken; /* of the caller: added, taken away */
    struct lm_kn_sheet sheet[LM_ORDERS];
    struct cht_op *ops; /* owned: all else; what they borrow lies in the makers' chunks */
    size_t n;
    struct lm_kn_change *changes; /* owned: of the root */
    size_t nchanges;
    uint64_t created; /* contexts that had no record */
    uint8_t head[LM_KN_HEAD_MAX];
    struct lm_kn_maker maker[LM_SHARE_THREADS_MAX];
    void *makers[LM_SHARE_THREADS_MAX];
    unsigned threads;
    /* the order under way */
    unsigned order;
    struct lm_kn_deltas d;
    uint32_t *offset; /* owned: contexts + 1 */
    size_t contexts;
    uint32_t *born; /* owned: for each piece of contexts, how many of its n-grams came or went */
};

/* Reads the head. CHT_PAIR_NOT_FOUND: the database has no live model; CHT_MALFORMED_PAYLOAD. */
enum cht_rc lm_kn_count_begin(struct lm_kn_count *c, struct cht_store *s, struct cht_err *err);
/* Makes the operations, the head's among them. CHT_NOT_COUNTED: something is taken away more often than it was counted;
 * CHT_MALFORMED_PAYLOAD: a record that is needed is none; CHT_NO_MEMORY. */
enum cht_rc lm_kn_count_make(struct lm_kn_count *c, struct cht_err *err);
/* The same of windows that the caller has made, in the order and with the text that kn_windows.h describes; they are taken. */
enum cht_rc lm_kn_count_make_of(struct lm_kn_count *c, struct lm_kn_windows *w, struct cht_err *err);
/* Around the commit: between the two no question takes what it reads for the state of one moment. rc: of the commit. */
enum cht_rc lm_kn_count_publish(struct lm_engine *e, struct lm_kn_count *c, struct lm_kn_live **out,
                                struct cht_err *err);
void lm_kn_count_done(struct lm_engine *e, struct lm_kn_count *c, struct lm_kn_live *l, enum cht_rc rc);
/* What was made is added to a load, which is to be committed before the free. */
void lm_kn_count_load(const struct lm_kn_count *c, struct lm_load *l);
void lm_kn_count_free(struct lm_kn_count *c);
