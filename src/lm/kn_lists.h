/* kn_lists: the followers of a context by their share, the largest first, then by token. Most contexts of frequent tokens have thousands that
 * followed once or twice, which are hardly ever among the best: they are put into the list when all others have been taken.
 *
 * Threads: one at a time.
 */
#pragma once

#include "lm/kn_read.h"

/* Followers that are put in order as far as they are asked for, once for all who ask: f[0, rest) is a heap, the next on top; after it lie those
 * that were taken from it, the last one first. */
struct lm_kn_ranks {
    uint32_t n, rest;
    struct lm_follower f[];
};

struct lm_kn_list {
    struct lm_kn_reader *r;
    const struct lm_kn_level *level; /* borrowed */
    const double *d;                 /* its discounts */
    struct lm_kn_ranks *ranks;       /* that it is taken from; borrowed, of the reader's or in `room` */
    struct lm_follower *room;
    uint32_t at;    /* taken of them */
    uint32_t least; /* a from which on they are in the first ranks */
    bool low;       /* the others have not been looked at */
    bool begun;
    struct lm_follower last; /* that was taken, if begun */
};

/* Followers of room for a list, beside those of the context. */
#define LM_KN_LIST_ROOM (2 * sizeof(struct lm_kn_ranks) / sizeof(struct lm_follower) + 2)
/* room: for all followers and LM_KN_LIST_ROOM. What is made of a context that is asked again is kept with the level. */
void lm_kn_list_begin(struct lm_kn_reader *r, const struct lm_kn_level *level, struct lm_follower *room,
                      struct lm_kn_list *out);
static inline bool lm_kn_list_more(const struct lm_kn_list *l) { return l->at < l->ranks->n || l->low; }
/* At least the discounted count of the next one; 0: there is none. */
double lm_kn_list_next(const struct lm_kn_list *l);
/* Takes the next one, if there is more. A count of 0: the record is malformed (wide ones are not looked through when they are read). */
struct lm_follower lm_kn_list_take(struct lm_kn_list *l);
/* Was the token taken, whose count in the context is a? */
bool lm_kn_list_had(const struct lm_kn_list *l, uint32_t token, uint32_t a);
