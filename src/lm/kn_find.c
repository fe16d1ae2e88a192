/* kn_find: a follower of a context (kn_read.h). A record is looked through, or halved, until that has been done so often that a table by a
 * hash is worth its making: contexts of frequent tokens have thousands of followers, and are asked all the time. The hash is keyed (a secret
 * odd factor): tokens come from clients. */
#include "lm/kn_read.h"

#include <string.h>

#include "base/prefetch.h"

#define FROM 12u        /* followers */
#define OFTEN 8u        /* times that many finds for each follower: a table */
#define MOST (1u << 20) /* followers */

static size_t slot_of(const struct lm_kn_reader *r, const struct lm_kn_index *x, uint32_t token)
{
    return (size_t)((uint64_t)token * (r->seed | 1) >> x->shift);
}

/* NULL: there is no memory for it, and none is needed. */
static const struct lm_kn_index *make(struct lm_kn_reader *r, const struct lm_kn_record *record)
{
    unsigned bits = 4;
    while ((UINT64_C(1) << bits) < record->n + record->n / 2)
        bits++;
    size_t slots = (size_t)1 << bits;
    struct lm_kn_index *x = lm_kn_keep(r, sizeof *x + slots * sizeof *x->at);
    struct lm_kn_walk w;
    if (x == NULL)
        return NULL;
    x->shift = 64 - bits;
    memset(x->at, 0, slots * sizeof *x->at);
    lm_kn_walk_begin(&w, record);
    while (lm_kn_walk_next(&w)) {
        size_t at = slot_of(r, x, w.token);
        while (x->at[at].count != 0)
            at = (at + 1) & (slots - 1);
        x->at[at] = (struct lm_follower){.token = w.token, .count = w.a};
    }
    return x;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint32_t lm_kn_find(struct lm_kn_reader *r, const struct lm_kn_level *l, uint32_t token)
{
    const struct lm_kn_index *x = l->index;
    if (x == NULL) {
        struct lm_kn_level *own = &r->level[l->at];
        if (own->index == NULL && l->record.n >= FROM && l->record.n <= MOST &&
            (uint64_t)++own->finds * OFTEN >= l->record.n)
            own->index = make(r, &l->record);
        x = own->index;
    }
    if (x == NULL)
        return lm_kn_record_find(&l->record, token);
    size_t last = ((size_t)1 << (64 - x->shift)) - 1, at = slot_of(r, x, token);
    for (; x->at[at].count != 0; at = (at + 1) & last) {
        if (x->at[at].token == token)
            return x->at[at].count;
    }
    return 0;
}

void lm_kn_find_ahead(const struct lm_kn_reader *r, const struct lm_kn_level *l, uint32_t token)
{
    if (l->index != NULL)
        cht_prefetch(&l->index->at[slot_of(r, l->index, token)]);
    else
        cht_prefetch(l->record.p);
}
