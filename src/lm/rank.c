/* rank: see rank.h: a radix sort from the lowest byte on; bytes that all keys share cost one look. */
#include "lm/rank.h"

#include <string.h>

#define FEW 48u

static void insert_sort(struct lm_rank *r, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct lm_rank x = r[i];
        size_t at = i;
        for (; at > 0 && r[at - 1].key > x.key; at--)
            r[at] = r[at - 1];
        r[at] = x;
    }
}

struct lm_rank *lm_rank_sort(struct lm_rank *r, struct lm_rank *spare, size_t n)
{
    size_t start[8][256];
    if (n <= FEW) {
        insert_sort(r, n);
        return r;
    }
    memset(start, 0, sizeof start);
    for (size_t i = 0; i < n; i++) {
        for (unsigned b = 0; b < 8; b++)
            start[b][r[i].key >> (8 * b) & 255]++;
    }
    for (unsigned b = 0; b < 8; b++) {
        if (start[b][r[0].key >> (8 * b) & 255] == n)
            continue;
        for (size_t v = 0, sum = 0; v < 256; v++) {
            size_t count = start[b][v];
            start[b][v] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            spare[start[b][r[i].key >> (8 * b) & 255]++] = r[i];
        struct lm_rank *sorted = spare;
        spare = r;
        r = sorted;
    }
    return r;
}
