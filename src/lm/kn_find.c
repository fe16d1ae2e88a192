/* kn_find: a follower of a context (kn_read.h). A record is looked through, or halved, until that has been done so often that a table by a
 * hash is worth its making: contexts of frequent tokens have thousands of followers, and are asked all the time. The hash is keyed (a secret
 * odd factor): tokens come from clients. */
#include "lm/kn_read.h"

#include <string.h>

#include "base/prefetch.h"

#define OFTEN 8u        /* times that many finds for each follower: a table */
#define MOST (1u << 20) /* followers */

static size_t slot_of(const struct lm_kn_reader *r, const struct lm_kn_more *m, uint32_t token)
{
    return (size_t)((uint64_t)token * (r->seed | 1) >> m->shift);
}

/* Without memory there is none, and none is needed. */
static void make(struct lm_kn_reader *r, struct lm_kn_more *m, const struct lm_kn_level *l)
{
    const struct lm_kn_row row = lm_kn_row(l);
    unsigned bits = 4;
    while ((UINT64_C(1) << bits) < l->n + l->n / 2)
        bits++;
    size_t slots = (size_t)1 << bits;
    struct lm_follower *x = lm_kn_keep(r, slots * sizeof *x);
    struct lm_kn_walk w;
    if (x == NULL)
        return;
    m->shift = 64 - bits;
    memset(x, 0, slots * sizeof *x);
    lm_kn_walk_row(&w, &row);
    while (lm_kn_walk_next(&w)) {
        size_t at = slot_of(r, m, w.token);
        while (x[at].count != 0)
            at = (at + 1) & (slots - 1);
        x[at] = (struct lm_follower){.token = w.token, .count = w.a};
    }
    m->index = x;
}

/* With the level's index, which is made if it has become worth it; NULL: it has none. */
static const struct lm_kn_more *index_of(struct lm_kn_reader *r, const struct lm_kn_level *l)
{
    if (l->n < LM_KN_MANY || l->n > MOST)
        return NULL;
    struct lm_kn_more *m = l->held->more;
    if (m->index == NULL && (uint64_t)++m->finds * OFTEN >= l->n)
        make(r, m, l);
    return m->index != NULL ? m : NULL;
}

static uint32_t find_in_row(const struct lm_kn_level *l, uint32_t token)
{
    const struct lm_kn_row row = lm_kn_row(l);
    return lm_kn_row_find(&row, token);
}

/* at: its slot. */
static uint32_t find_by(const struct lm_kn_more *m, size_t at, uint32_t token)
{
    size_t last = ((size_t)1 << (64 - m->shift)) - 1;
    for (; m->index[at].count != 0; at = (at + 1) & last) {
        if (m->index[at].token == token)
            return m->index[at].count;
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
        const struct lm_kn_level *l = f[which[i]].level;
        s[which[i]].lo = 0;
        s[which[i]].n = l->n;
        cht_prefetch(l->held->bytes + (size_t)(l->n / 2) * 8);
    }
    for (unsigned left = n; left > 0; n = left) {
        left = 0;
        for (unsigned i = 0; i < n; i++) {
            unsigned at = which[i];
            const uint8_t *p = f[at].level->held->bytes;
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
    const struct lm_kn_more *m = index_of(r, l);
    return m != NULL ? find_by(m, slot_of(r, m, token), token) : find_in_row(l, token);
}

void lm_kn_find_all(struct lm_kn_reader *r, struct lm_kn_find *f, unsigned n)
{
    const struct lm_kn_more *m[LM_KN_TOGETHER];
    size_t slot[LM_KN_TOGETHER];
    uint8_t wide[LM_KN_TOGETHER];
    unsigned wides = 0;
    for (unsigned i = 0; i < n; i++) {
        cht_prefetch(f[i].level->held);
        if (f[i].level->n >= LM_KN_MANY)
            cht_prefetch((const struct lm_kn_more *)(const void *)f[i].level->held - 1);
    }
    for (unsigned i = 0; i < n; i++) {
        m[i] = index_of(r, f[i].level);
        if (m[i] != NULL) {
            slot[i] = slot_of(r, m[i], f[i].token);
            cht_prefetch(&m[i]->index[slot[i]]);
        } else if (f[i].level->wide) {
            wide[wides++] = (uint8_t)i;
        }
    }
    if (wides > 0)
        halve_all(f, wide, wides);
    for (unsigned i = 0; i < n; i++) {
        if (m[i] != NULL)
            f[i].a = find_by(m[i], slot[i], f[i].token);
        else if (!f[i].level->wide)
            f[i].a = find_in_row(f[i].level, f[i].token);
    }
}
