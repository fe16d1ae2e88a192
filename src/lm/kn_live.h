/* kn_live: what is kept in memory of a live model while the process runs: a sequence number that tells a question whether a commit
 * came in between, and the root's most frequent tokens.
 *
 * Nothing here is needed to answer, and nothing is wrong if it is lost: it is made again from the store.
 *
 * Threads: any. Lock order: a lock of this file is taken last, but for the watches' own.
 */
#pragma once

#include <stdatomic.h>

#include "lm/engine.h"
#include "lm/kn_format.h"

/* The root's tokens, the largest a first, in three lists that are each in order of their probability whatever the discounts are:
 * a >= 3 by a, descending, then by token; a = 2; a = 1 by token. Each may be cut short. Never changed once it is made. */
enum { LM_KN_TOP_MAIN, LM_KN_TOP_TWO, LM_KN_TOP_ONE, LM_KN_TOP_LISTS };
struct lm_kn_top_list {
    struct lm_follower *f; /* owned: token and a */
    uint32_t n;
    bool all; /* it was not cut short */
};
struct lm_kn_top {
    struct lm_kn_top_list list[LM_KN_TOP_LISTS];
    struct lm_follower *
        table; /* owned: the first of LM_KN_TOP_MAIN by a hash of the token; count 0: free; NULL: there is none */
    uint64_t factor;         /* of the hash: secret, odd */
    uint64_t id, generation; /* of the head that it belongs to */
    uint32_t keep;           /* lists longer than that were cut there */
    unsigned users;          /* guarded by the mutex in kn_live.c */
};

struct lm_kn_live {
    const struct cht_store *store; /* only its address is looked at; NULL: it was closed */
    _Atomic uint64_t sequence;     /* odd while a commit of the model is being applied */
    struct cht_watch *
        watch; /* owned; over the model's pairs; NULL: there is none. Guarded by the engine's mutex, as the next */
    unsigned users;
    struct lm_kn_top *top; /* owned by count; NULL: none is known */
    struct lm_kn_live *next;
};

/* The state of this database, made if there is none, as its watch; it lives at least until lm_kn_live_put. CHT_NO_MEMORY. */
enum cht_rc lm_kn_live_get(struct lm_engine *e, struct cht_store *s, struct lm_kn_live **out,
                           struct cht_err *err);
void lm_kn_live_put(struct lm_engine *e, struct lm_kn_live *l);

/* Around the commit; under the counting gate. */
void lm_kn_live_begin(struct lm_kn_live *l);
void lm_kn_live_end(struct lm_kn_live *l);
/* Waits for the end of a commit under way, 20 ms at most. */
void lm_kn_live_wait(const struct lm_kn_live *l);

/* The top lists of this head with at least `keep` entries a list if there are that many; NULL: not known. */
struct lm_kn_top *lm_kn_top_get(struct lm_engine *e, struct lm_kn_live *l, const struct lm_kn_head *h,
                                uint32_t keep);
void lm_kn_top_put(struct lm_engine *e, struct lm_kn_top *t); /* NULL is legal */
/* a of the token, if it is one of the most frequent; 0: it is not known. */
uint32_t lm_kn_top_find(const struct lm_kn_top *t, uint32_t token);
/* Takes over t and gives it back in use. It is kept for other questions if it was made from this head: if no commit has begun since
 * `sequence`, which was read before the head. */
struct lm_kn_top *lm_kn_top_set(struct lm_engine *e, struct lm_kn_live *l, struct lm_kn_top *t,
                                uint64_t sequence);

/* How the root has changed by a commit: a of each token before and after, ascending by token. */
struct lm_kn_change {
    uint32_t token, before, after;
};
/* After a commit: what was known of the old head is brought up to the new one, where the changes are few, or forgotten. */
void lm_kn_top_update(struct lm_engine *e, struct lm_kn_live *l, const struct lm_kn_head *old,
                      const struct lm_kn_head *now, const struct lm_kn_change *c, size_t n);

/* Makes the lists from all followers of the root, which are offered in any order. Zero-initialise with keep. */
struct lm_kn_topper {
    uint32_t keep;
    struct lm_follower *f[LM_KN_TOP_LISTS]; /* owned */
    size_t n[LM_KN_TOP_LISTS], cap[LM_KN_TOP_LISTS];
    bool cut[LM_KN_TOP_LISTS];
};
enum cht_rc lm_kn_topper_offer(struct lm_kn_topper *t, uint32_t token, uint32_t a, struct cht_err *err);
/* The lists; NULL: CHT_NO_MEMORY. The topper is empty then. */
struct lm_kn_top *lm_kn_topper_end(struct lm_kn_topper *t, const struct lm_kn_head *h, struct cht_err *err);
void lm_kn_topper_free(struct lm_kn_topper *t);
