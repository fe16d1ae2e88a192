/* kn_best: see kn_best.h. */
#include "lm/kn_best.h"

#include <stdlib.h>

#define FEW 64u /* candidates that are sorted by insertion */

static bool worse(const struct lm_kn_candidate *a, const struct lm_kn_candidate *b)
{
    return lm_kn_best_first(b, a);
}

static int best_first(const void *x, const void *y) { return worse(x, y) ? 1 : worse(y, x) ? -1 : 0; }

static void sift(struct lm_kn_candidate *c, size_t n, size_t at)
{
    struct lm_kn_candidate x = c[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < n && worse(&c[child + 1], &c[child]))
            child++;
        if (child >= n || !worse(&c[child], &x))
            break;
        c[at] = c[child];
        at = child;
    }
    c[at] = x;
}

static void sort(struct lm_kn_candidate *c, size_t n)
{
    size_t sorted = 1;
    while (sorted < n && !worse(&c[sorted - 1], &c[sorted]))
        sorted++;
    if (sorted < n && n > FEW) {
        qsort(c, n, sizeof *c, best_first);
        return;
    }
    for (size_t i = sorted; i < n; i++) {
        struct lm_kn_candidate x = c[i];
        size_t at = i;
        for (; at > 0 && worse(&c[at - 1], &x); at--)
            c[at] = c[at - 1];
        c[at] = x;
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

bool lm_kn_best_offer(struct lm_kn_best *b, const struct lm_kn_candidate *c)
{
    if (b->n < b->k) {
        size_t at = b->n++;
        for (; at > 0 && worse(c, &b->c[(at - 1) / 2]); at = (at - 1) / 2)
            b->c[at] = b->c[(at - 1) / 2];
        b->c[at] = *c;
        return true;
    }
    if (!worse(&b->c[0], c))
        return false;
    b->c[0] = *c;
    sift(b->c, b->n, 0);
    return true;
}

void lm_kn_best_sort(struct lm_kn_best *b) { sort(b->c, b->n); }
