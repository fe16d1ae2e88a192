/* kn_derive: see kn_derive.h. */
#include "lm/kn_derive.h"

#include "lm/kn_best.h"

#pragma STDC FP_CONTRACT OFF

/* The followers of one context. */
struct followers {
    uint32_t n;
    struct lm_follower f[LM_KN_DERIVED]; /* ascending by token */
    struct lm_kn_candidate c[LM_KN_DERIVED];
};

/* p of a token with the count a1 in the root, after the context of one token less. *sound: it follows all shorter ones. */
static double p_below(struct lm_kn_reader *r, const uint32_t *at, unsigned order, uint32_t token, uint32_t a1,
                      bool *sound)
{
    double p = lm_kn_share(r, &r->root, a1) + r->root.gamma * r->p0;
    *sound = *sound && a1 > 0;
    for (unsigned m = 2; m < order; m++) {
        const struct lm_kn_level *l = lm_kn_level_at(r, at[m]);
        uint32_t a = lm_kn_find(r, l, token);
        *sound = *sound && a > 0;
        p = lm_kn_share(r, l, a) + l->gamma * p;
    }
    return p;
}

static enum cht_rc evaluate(struct lm_kn_reader *r, const uint32_t *at, unsigned order, struct followers *x,
                            bool *sound, struct cht_err *err)
{
    struct lm_kn_walk w;
    enum cht_rc rc = CHT_OK;
    const struct lm_kn_row row = lm_kn_row(lm_kn_level_at(r, at[order]));
    lm_kn_walk_row(&w, &row);
    for (x->n = 0; x->n < LM_KN_DERIVED && lm_kn_walk_next(&w);)
        x->f[x->n++] = (struct lm_follower){.token = w.token, .count = w.a};
    for (uint32_t i = 0; i < x->n && rc == CHT_OK; i++) {
        uint32_t a1;
        rc = lm_kn_root_count(r, x->f[i].token, &a1, err);
        if (rc != CHT_OK)
            break;
        double below = p_below(r, at, order, x->f[i].token, a1, sound);
        const struct lm_kn_level *l = lm_kn_level_at(r, at[order]); /* the read may have moved it */
        x->c[i] = (struct lm_kn_candidate){.token = x->f[i].token,
                                           .order = order,
                                           .p = lm_kn_share(r, l, x->f[i].count) + l->gamma * below,
                                           .log10 = LM_KN_NO_LOG10};
    }
    return rc;
}

static bool follows(const struct followers *x, uint32_t token)
{
    uint32_t i = 0;
    while (i < x->n && x->f[i].token < token)
        i++;
    return i < x->n && x->f[i].token == token;
}

/* The next of those that are no followers, as it is after the longer context, from *i on; false: there is none. */
static bool next_other(const struct lm_kn_bests *shorter, const struct followers *x, double gamma,
                       uint32_t *i, struct lm_kn_candidate *out)
{
    while (*i < shorter->n && follows(x, shorter->c[*i].token))
        ++*i;
    if (*i == shorter->n)
        return false;
    *out = shorter->c[(*i)++];
    out->p = gamma * out->p;
    out->log10 = LM_KN_NO_LOG10;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_derive(struct lm_kn_reader *r, const uint32_t *at, unsigned order,
                         const struct lm_kn_bests *shorter, uint32_t k, struct lm_kn_candidate *room,
                         struct lm_kn_bests *out, bool *done, struct cht_err *err)
{
    struct followers x;
    struct lm_kn_candidate other;
    uint32_t from = 0, mine = 0, n = 0;
    bool sound = true;
    *done = false;
    enum cht_rc rc = evaluate(r, at, order, &x, &sound, err);
    if (rc != CHT_OK || !sound)
        return rc;
    double gamma = lm_kn_level_at(r, at[order])->gamma;
    struct lm_kn_best own = {.c = x.c, .n = x.n, .k = x.n}, all = {.c = room, .k = k};
    lm_kn_best_sort(&own);
    bool more = next_other(shorter, &x, gamma, &from, &other);
    while (n < k && (more || mine < x.n)) {
        if (!more || (mine < x.n && !lm_kn_best_first(&other, &x.c[mine]))) {
            room[n++] = x.c[mine++];
        } else {
            room[n++] = other;
            more = next_other(shorter, &x, gamma, &from, &other);
        }
    }
    /* Whatever is left comes after the last one for certain, though rounding may have made some of them equal. */
    *done = n > 0 && (more ? n == k && other.p < room[n - 1].p : shorter->all);
    all.n = n;
    lm_kn_best_sort(&all);
    *out = (struct lm_kn_bests){
        .c = room, .n = n, .all = shorter->all && !more && mine == x.n, .unknown = gamma * shorter->unknown};
    return CHT_OK;
}
