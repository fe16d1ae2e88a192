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

/* The level's index, which is made if it has become worth it; NULL: it has none. */
static const struct lm_kn_index *index_of(struct lm_kn_reader *r, const struct lm_kn_level *l)
{
    if (l->index != NULL)
        return l->index;
    struct lm_kn_level *own = &r->level[l->at];
    if (own->index == NULL && l->record.n >= FROM && l->record.n <= MOST &&
        (uint64_t)++own->finds * OFTEN >= l->record.n)
        own->index = make(r, &l->record);
    return own->index;
}

/* at: its slot. */
static uint32_t find_by(const struct lm_kn_index *x, size_t at, uint32_t token)
{
    size_t last = ((size_t)1 << (64 - x->shift)) - 1;
    for (; x->at[at].count != 0; at = (at + 1) & last) {
        if (x->at[at].token == token)
            return x->at[at].count;
    }
    return 0;
}

/* Wide records are halved side by side, each by a step in turn, which asks for what the next step of its record looks at. */
static void halve_all(struct lm_kn_find *f, uint8_t *which, unsigned n)
{
    struct {
        uint32_t lo, n;
    } s[LM_KN_TOGETHER];
    for (unsigned i = 0; i < n; i++) {
        const struct lm_kn_record *c = &f[which[i]].level->record;
        s[which[i]].lo = 0;
        s[which[i]].n = c->n;
        cht_prefetch(c->p + (size_t)(c->n / 2) * 8);
    }
    for (unsigned left = n; left > 0; n = left) {
        left = 0;
        for (unsigned i = 0; i < n; i++) {
            unsigned at = which[i];
            const uint8_t *p = f[at].level->record.p;
            uint32_t half = s[at].n / 2;
            if (cht_be32(p + (size_t)(s[at].lo + half) * 8) <= f[at].token)
                s[at].lo += half;
            s[at].n -= half;
            if (s[at].n > 1) {
                cht_prefetch(p + (size_t)(s[at].lo + s[at].n / 2) * 8);
                which[left++] = (uint8_t)at;
                continue;
            }
            p += (size_t)s[at].lo * 8;
            f[at].a = cht_be32(p) == f[at].token ? cht_be32(p + 4) : 0;
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

uint32_t lm_kn_find(struct lm_kn_reader *r, const struct lm_kn_level *l, uint32_t token)
{
    const struct lm_kn_index *x = index_of(r, l);
    return x != NULL ? find_by(x, slot_of(r, x, token), token) : lm_kn_record_find(&l->record, token);
}

void lm_kn_find_all(struct lm_kn_reader *r, struct lm_kn_find *f, unsigned n)
{
    const struct lm_kn_index *x[LM_KN_TOGETHER];
    size_t slot[LM_KN_TOGETHER];
    uint8_t wide[LM_KN_TOGETHER];
    unsigned wides = 0;
    for (unsigned i = 0; i < n; i++) {
        x[i] = f[i].level->index != NULL ? f[i].level->index : index_of(r, f[i].level);
        if (x[i] != NULL) {
            slot[i] = slot_of(r, x[i], f[i].token);
            cht_prefetch(&x[i]->at[slot[i]]);
        } else if (f[i].level->record.wide) {
            wide[wides++] = (uint8_t)i;
        } else {
            cht_prefetch(f[i].level->record.p);
        }
    }
    if (wides > 0)
        halve_all(f, wide, wides);
    for (unsigned i = 0; i < n; i++) {
        if (x[i] != NULL)
            f[i].a = find_by(x[i], slot[i], f[i].token);
        else if (!f[i].level->record.wide)
            f[i].a = lm_kn_record_find(&f[i].level->record, f[i].token);
    }
}
