/* kn_best: the k best candidates of any number that are offered: p descending, then token ascending. Threads: one at a time. */
#pragma once

#include <stdbool.h>

#include "lm/kn_ask.h"

struct lm_kn_best {
    struct lm_kn_candidate *c; /* borrowed: room for k; a heap, the worst on top, until lm_kn_best_sort */
    uint32_t n, k;
};
/* Does a come before b? */
static inline bool lm_kn_best_first(const struct lm_kn_candidate *a, const struct lm_kn_candidate *b)
{
    return a->p != b->p ? a->p > b->p : a->token < b->token;
}
/* False: k others are better. */
bool lm_kn_best_offer(struct lm_kn_best *b, const struct lm_kn_candidate *c);
void lm_kn_best_sort(struct lm_kn_best *b); /* the best first */
