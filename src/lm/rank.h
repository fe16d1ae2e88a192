/* rank: sorts numbers by a 64-bit key, keeping the order of equal ones; in time linear in n. Threads: a pure function. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lm_rank {
    uint64_t key;
    uint32_t at; /* the caller's */
};

/* Ascending by key. Both arrays hold n; returns the one that has the result. */
struct lm_rank *lm_rank_sort(struct lm_rank *r, struct lm_rank *spare, size_t n);
