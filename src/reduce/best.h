/* best: the k best of any number, of any kind: an array that is a heap, the worst on top; sorted at the end, the best first. The functions are inline so
 * that the size and the comparison are known where they are used. Elements have at most REDUCE_BEST_SIZE_MAX bytes. Threads: pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define REDUCE_BEST_SIZE_MAX 64u

typedef bool reduce_best_better(const void *a, const void *b);

/* The element at `at` has become better: it goes down to its place. */
static inline void reduce_best_sink(void *heap, size_t at, size_t n, size_t size, reduce_best_better *better)
{
    unsigned char *h = heap, x[REDUCE_BEST_SIZE_MAX];
    memcpy(x, h + at * size, size);
    for (size_t k = 2 * at + 1; k < n; k = 2 * at + 1) {
        if (k + 1 < n && better(h + k * size, h + (k + 1) * size))
            k++;
        if (!better(x, h + k * size))
            break;
        memcpy(h + at * size, h + k * size, size);
        at = k;
    }
    memcpy(h + at * size, x, size);
}

/* The element at `at` is a new one, the last: it goes up to its place. */
static inline void reduce_best_rise(void *heap, size_t at, size_t size, reduce_best_better *better)
{
    unsigned char *h = heap, x[REDUCE_BEST_SIZE_MAX];
    memcpy(x, h + at * size, size);
    while (at > 0 && better(h + (at - 1) / 2 * size, x)) {
        memcpy(h + at * size, h + (at - 1) / 2 * size, size);
        at = (at - 1) / 2;
    }
    memcpy(h + at * size, x, size);
}

/* A heap becomes a list, the best first. */
static inline void reduce_best_sort(void *heap, size_t n, size_t size, reduce_best_better *better)
{
    unsigned char *h = heap, worst[REDUCE_BEST_SIZE_MAX];
    while (n > 1) {
        n--;
        memcpy(worst, h, size);
        memcpy(h, h + n * size, size);
        memcpy(h + n * size, worst, size);
        reduce_best_sink(h, 0, n, size, better);
    }
}
