/* kn_derive: the best k after a context from the best after the one that it backs off to.
 *
 *   p_m(w | x c) = u(w | x c) + gamma(x c) p_(m-1)(w | c)
 *
 * u is 0 for all tokens but the followers of x c, mostly one or two. So the others have the order that they have after c, and the best k are
 * among the followers and the best few more than k after c. p is computed as a search does (kn_predict.c), so the answers are equal to the byte.
 *
 * Threads: as kn_read.h.
 */
#pragma once

#include "lm/kn_ask.h"

#define LM_KN_DERIVED 32u /* followers of a context for which that is done, at most */

/* What came next after a context, for whoever asks again, or about a longer one: fewer of them are its beginning. */
struct lm_kn_kept_best {
    uint32_t k, n;
    double unknown;
    struct lm_kn_candidate c[]; /* the best first */
};
/* The same where it is not kept. */
struct lm_kn_bests {
    const struct lm_kn_candidate *c; /* borrowed */
    uint32_t n;
    bool all; /* there are no others */
    double unknown;
};

/* Is it one for which that is done? */
static inline bool lm_kn_may_derive(const struct lm_kn_level *l) { return l->n <= LM_KN_DERIVED; }
/* How many after the shorter context are needed for k after the longer one: so many more that those that are equal do not matter. */
static inline uint32_t lm_kn_derive_needs(uint32_t k) { return (k + 8 + 15) / 16 * 16; }
/* The best k of the context of `order`; at: its levels' numbers by order, from 2; room: for k. *done: it could be told from `shorter`;
 * else a search must. CHT_PENDING and what else a read returns. */
enum cht_rc lm_kn_derive(struct lm_kn_reader *r, const uint32_t *at, unsigned order,
                         const struct lm_kn_bests *shorter, uint32_t k, struct lm_kn_candidate *room,
                         struct lm_kn_bests *out, bool *done, struct cht_err *err);
