/* kn_lists: see kn_lists.h. */
#include "lm/kn_lists.h"

#include <string.h>

#pragma STDC FP_CONTRACT OFF

#define KEEP_FROM 16u /* followers */

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
static uint32_t gather(const struct lm_kn_level *l, uint32_t from, uint32_t to, struct lm_follower *out)
{
    const struct lm_kn_row row = lm_kn_row(l);
    struct lm_kn_walk w;
    uint32_t n = 0;
    lm_kn_walk_row(&w, &row);
    while (lm_kn_walk_next(&w)) {
        out[n] = (struct lm_follower){.token = w.token, .count = w.a};
        n += w.a >= from && w.a <= to;
    }
    return n;
}

/* Those with from <= a <= to: with the reader (*keep) if it has memory, and else, or without `keep`, in the list's own room. */
static struct lm_kn_ranks *rank(struct lm_kn_list *l, uint32_t from, uint32_t to, struct lm_kn_ranks **keep)
{
    struct lm_kn_ranks *own = (struct lm_kn_ranks *)(void *)l->room;
    own->n = own->rest = gather(l->level, from, to, own->f);
    make_heap(l->d, own->f, own->n);
    size_t bytes = sizeof *own + own->n * sizeof *own->f;
    struct lm_kn_ranks *kept = keep != NULL ? lm_kn_keep(l->r, bytes) : NULL;
    if (kept == NULL) {
        l->room = own->f + own->n;
        return own;
    }
    memcpy(kept, own, bytes);
    *keep = kept;
    return kept;
}

static void go_low(struct lm_kn_list *l)
{
    struct lm_kn_more *own = l->level->held->more;
    bool keep = own != NULL && own->high != NULL;
    l->ranks = keep && own->low != NULL ? own->low : rank(l, 1, l->least - 1, keep ? &own->low : NULL);
    l->low = false;
    l->at = 0;
}

/* The next of the ranks; there is one. */
static struct lm_follower next_of(const struct lm_kn_list *l)
{
    const struct lm_kn_ranks *k = l->ranks;
    return k->f[l->at < k->n - k->rest ? k->n - 1 - l->at : 0];
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_kn_list_begin(struct lm_kn_reader *r, const struct lm_kn_level *level, struct lm_follower *room,
                      struct lm_kn_list *out)
{
    struct lm_kn_more *own = level->n >= KEEP_FROM ? lm_kn_more(r, level) : NULL;
    const double *d = r->discounts[level->order].d;
    *out = (struct lm_kn_list){.r = r, .level = level, .d = d, .room = room, .least = least_of(d)};
    bool keep = own != NULL && own->lists++ > 0;
    out->ranks =
        keep && own->high != NULL ? own->high : rank(out, out->least, UINT32_MAX, keep ? &own->high : NULL);
    out->low = out->ranks->n < level->n;
}

double lm_kn_list_next(const struct lm_kn_list *l)
{
    if (l->at < l->ranks->n)
        return worth(l->d, next_of(l).count);
    if (!l->low)
        return 0;
    double one = worth(l->d, 1), two = worth(l->d, 2);
    return one > two ? one : two; /* those up to `least` are worth no more */
}

struct lm_follower lm_kn_list_take(struct lm_kn_list *l)
{
    if (l->at == l->ranks->n && l->low)
        go_low(l);
    struct lm_kn_ranks *k = l->ranks;
    struct lm_follower x = l->at < k->n ? next_of(l) : (struct lm_follower){0};
    if (x.count == 0 || (l->begun && x.token == l->last.token)) /* a count of 0, a token twice */
        return (struct lm_follower){0};
    if (l->at == k->n - k->rest) {
        k->f[0] = k->f[--k->rest];
        k->f[k->rest] = x;
        if (k->rest > 0)
            sink(l->d, k->f, k->rest, 0);
    }
    l->at++;
    l->last = x;
    l->begun = true;
    return x;
}

bool lm_kn_list_had(const struct lm_kn_list *l, uint32_t token, uint32_t a)
{
    const struct lm_follower f = {.token = token, .count = a};
    return a > 0 && l->begun && !before(l->d, &l->last, &f);
}
