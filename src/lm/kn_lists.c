/* kn_lists: see kn_lists.h. */
#include "lm/kn_lists.h"

#include <string.h>

#pragma STDC FP_CONTRACT OFF

#define KEEP_FROM 64u /* followers */

static double worth(const double *d, uint32_t a) { return (double)a - d[a < 3 ? a : 3]; }

/* Does x come before y? */
static bool before(const double *d, const struct lm_follower *x, const struct lm_follower *y)
{
    if (x->count == y->count)
        return x->token < y->token;
    double a = worth(d, x->count), b = worth(d, y->count);
    return a != b ? a > b : x->token < y->token;
}

static void sink(const double *d, struct lm_follower *heap, uint32_t n, uint32_t at)
{
    struct lm_follower x = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < n && before(d, &heap[child + 1], &heap[child]))
            child++;
        if (child >= n || !before(d, &heap[child], &x))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = x;
}

static void make_heap(const double *d, struct lm_follower *heap, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sink(d, heap, n, i);
}

/* The smallest a from which on all are worth more than those of 1 and 2. */
static uint32_t least_of(const double *d)
{
    double one = worth(d, 1), two = worth(d, 2), low = one > two ? one : two;
    uint32_t a = 3;
    while (worth(d, a) <= low)
        a++;
    return a;
}

/* Those with from <= a <= to. */
static uint32_t gather(const struct lm_kn_record *record, uint32_t from, uint32_t to, struct lm_follower *out)
{
    struct lm_kn_walk w;
    uint32_t n = 0;
    lm_kn_walk_begin(&w, record);
    while (lm_kn_walk_next(&w)) {
        out[n] = (struct lm_follower){.token = w.token, .count = w.a};
        n += w.a >= from && w.a <= to;
    }
    return n;
}

static void add_low(struct lm_kn_list *l)
{
    l->n = gather(&l->level->record, 1, l->least - 1, l->heap);
    l->low = false;
    make_heap(l->d, l->heap, l->n);
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_kn_list_begin(struct lm_kn_reader *r, const struct lm_kn_level *level, struct lm_follower *heap,
                      struct lm_kn_list *out)
{
    struct lm_kn_level *own = &r->level[level->at];
    const double *d = r->discounts[level->order].d;
    *out = (struct lm_kn_list){.level = level, .d = d, .heap = heap, .least = least_of(d)};
    if (own->high != NULL) {
        out->n = own->highs;
        memcpy(heap, own->high, out->n * sizeof *heap);
    } else {
        out->n = gather(&level->record, out->least, UINT32_MAX, heap);
        make_heap(d, heap, out->n);
        if (level->record.n >= KEEP_FROM && own->lists++ > 0)
            own->high = lm_kn_keep(r, (out->n + 1) * sizeof *heap);
        if (own->high != NULL)
            memcpy(own->high, heap, out->n * sizeof *heap);
        own->highs = out->n;
    }
    out->low = out->n < level->record.n;
}

double lm_kn_list_next(const struct lm_kn_list *l)
{
    if (l->n > 0)
        return worth(l->d, l->heap[0].count);
    if (!l->low)
        return 0;
    double one = worth(l->d, 1), two = worth(l->d, 2);
    return one > two ? one : two; /* those up to `least` are worth no more */
}

struct lm_follower lm_kn_list_take(struct lm_kn_list *l)
{
    if (l->n == 0)
        add_low(l);
    if (l->n == 0 || (l->begun && l->heap[0].token == l->last.token)) /* a count of 0, a token twice */
        return (struct lm_follower){0};
    l->last = l->heap[0];
    l->begun = true;
    l->heap[0] = l->heap[--l->n];
    if (l->n > 0)
        sink(l->d, l->heap, l->n, 0);
    return l->last;
}

bool lm_kn_list_had(const struct lm_kn_list *l, uint32_t token, uint32_t a)
{
    const struct lm_follower f = {.token = token, .count = a};
    return a > 0 && l->begun && !before(l->d, &l->last, &f);
}
