/* kn_lists: the followers of a context by their share, the largest first, then by token. Most contexts of frequent tokens have thousands that
 * followed once or twice, which are hardly ever among the best: they are put into the list when all others have been taken.
 *
 * Threads: one at a time.
 */
#pragma once

#include "lm/kn_read.h"

struct lm_kn_list {
    const struct lm_kn_level *level; /* borrowed */
    const double *d;                 /* its discounts */
    struct lm_follower *heap;        /* borrowed; the next on top */
    uint32_t n;                      /* in the heap */
    uint32_t least;                  /* a from which on they were put into the heap at once */
    bool low;                        /* the others are not there yet */
    bool begun;
    struct lm_follower last; /* that was taken, if begun */
};

/* heap: room for all followers and one more. What is made of a context that is asked again is kept with the level. */
void lm_kn_list_begin(struct lm_kn_reader *r, const struct lm_kn_level *level, struct lm_follower *heap,
                      struct lm_kn_list *out);
static inline bool lm_kn_list_more(const struct lm_kn_list *l) { return l->n > 0 || l->low; }
/* At least the discounted count of the next one; 0: there is none. */
double lm_kn_list_next(const struct lm_kn_list *l);
/* Takes the next one, if there is more. A count of 0: the record is malformed (wide ones are not looked through when they are read). */
struct lm_follower lm_kn_list_take(struct lm_kn_list *l);
/* Was the token taken, whose count in the context is a? */
bool lm_kn_list_had(const struct lm_kn_list *l, uint32_t token, uint32_t a);
