/* kn_score: how likely a text is (kn_ask.h). Many tokens are asked together, order by order, so that what they touch in memory is fetched side by
 * side. How long an n-gram a token matched tells how long the next one's context can be: a longer one cannot have a record, so hardly
 * any look-up is in vain. */
#include "lm/fm_ask.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/* The text with a bos in front if it is to have one. */
static enum cht_rc text_of(struct lm_kn_reader *r, const struct lm_kn_text_query *q, const uint32_t **out,
                           size_t *n, struct cht_err *err)
{
    *out = q->tokens;
    *n = q->n;
    if (!q->bos || (q->n > 0 && q->tokens[0] == r->head.bos))
        return CHT_OK;
    enum cht_rc rc = cht_buf_reserve(&r->work[0], (q->n + 1) * sizeof(uint32_t), err);
    if (rc != CHT_OK)
        return rc;
    uint32_t *copy = (uint32_t *)(void *)r->work[0].data;
    copy[0] = r->head.bos;
    if (q->n > 0)
        memcpy(copy + 1, q->tokens, q->n * sizeof *copy);
    *out = copy;
    *n = q->n + 1;
    return CHT_OK;
}

/* One token that is scored. */
struct place {
    const uint32_t *t;
    double p;
    uint64_t chain;
    unsigned matched;
    bool on;    /* the level of the order before is there */
    bool first; /* after a bos, which has no count of its own: its context has one token */
};

struct window {
    struct lm_kn_reader *r;
    unsigned top;
    unsigned before; /* what the token before the first place matched */
    unsigned n;
    struct place place[LM_KN_TOGETHER];
};

/* Can the context of order - 1 tokens before that place have a record? The n-gram that ends with the token before must have been counted. */
static bool may_have(const struct window *w, unsigned i, unsigned order)
{
    const struct place *p = &w->place[i];
    if (p->first)
        return order == 2;
    return p->on && (i > 0 ? p[-1].matched : w->before) >= order - 1;
}

/* The shares of the root. */
static enum cht_rc ask_root(struct window *w, struct cht_err *err)
{
    const struct lm_kn_reader *r = w->r;
    struct lm_kn_wish wish[LM_KN_TOGETHER];
    for (unsigned i = 0; i < w->n; i++)
        wish[i] = (struct lm_kn_wish){.end = w->place[i].t};
    enum cht_rc rc = lm_kn_levels_next(w->r, 1, wish, w->n, err);
    for (unsigned i = 0; i < w->n && rc == CHT_OK; i++) {
        struct place *p = &w->place[i];
        uint32_t a = lm_kn_page_find(lm_kn_level_at(r, wish[i].level), *p->t);
        p->matched = a > 0;
        p->p = lm_kn_share(r, &r->root, a) + r->root.gamma * r->p0;
        p->chain = lm_kn_chain_begin(r);
        p->on = true;
    }
    return rc;
}

/* The shares of one order, of the places whose contexts go on. *any: there were some. */
static enum cht_rc ask_order(struct window *w, unsigned order, bool *any, struct cht_err *err)
{
    struct lm_kn_reader *r = w->r;
    struct lm_kn_wish wish[LM_KN_TOGETHER];
    struct lm_kn_find find[LM_KN_TOGETHER];
    struct place *of[LM_KN_TOGETHER], *found[LM_KN_TOGETHER];
    unsigned n = 0, there = 0;
    for (unsigned i = 0; i < w->n; i++) {
        if (may_have(w, i, order)) {
            of[n] = &w->place[i];
            wish[n++] = (struct lm_kn_wish){.end = w->place[i].t, .chain = w->place[i].chain};
        } else {
            w->place[i].on = false;
        }
    }
    enum cht_rc rc = lm_kn_levels_next(r, order, wish, n, err);
    for (unsigned i = 0; i < n && rc == CHT_OK; i++) {
        const struct lm_kn_level *l = lm_kn_level_at(r, wish[i].level);
        of[i]->chain = wish[i].chain;
        of[i]->on = l->there;
        if (l->there) {
            found[there] = of[i];
            find[there++] = (struct lm_kn_find){.level = l, .token = *of[i]->t};
        }
    }
    lm_kn_find_all(r, find, there);
    for (unsigned i = 0; i < there; i++) {
        struct place *p = found[i];
        p->p = lm_kn_share(r, find[i].level, find[i].a) + find[i].level->gamma * p->p;
        p->matched = find[i].a > 0 ? order : p->matched;
    }
    *any = n > 0;
    return rc;
}

/* The next tokens of the text, at most as many as are asked together: those up to *at. after_bos: the one before was a bos. */
static void fill(struct window *w, const uint32_t *t, size_t n, size_t *at, bool *after_bos)
{
    for (w->n = 0; *at < n && w->n < LM_KN_TOGETHER; ++*at) {
        if (t[*at] == w->r->head.bos) {
            *after_bos = true;
            continue;
        }
        w->place[w->n++] = (struct place){.t = t + *at, .first = *after_bos};
        *after_bos = false;
    }
}

/* p and matched of each place. */
static enum cht_rc ask(struct window *w, struct cht_err *err)
{
    bool any = true;
    lm_kn_spare(w->r);
    enum cht_rc rc = ask_root(w, err);
    for (unsigned m = 2; m <= w->top && rc == CHT_OK && any; m++)
        rc = ask_order(w, m, &any, err);
    return rc;
}

static void add(struct lm_kn_score *out, const struct lm_kn_scored *s)
{
    out->tokens++;
    out->log10 += s->log10;
    if (s->matched == 0) {
        out->oov++;
        out->log10_oov += s->log10;
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err)
{
    const uint32_t *t;
    size_t n, at = 0;
    bool after_bos = false;
    struct window w = {.r = r};
    *out = (struct lm_kn_score){0};
    if (r->fixed.order > 0)
        return lm_fm_score(r, q, fn, ctx, out, err);
    w.top = q->max_order == 0 || q->max_order > r->head.order ? r->head.order : q->max_order;
    enum cht_rc rc = text_of(r, q, &t, &n, err);
    while (rc == CHT_OK && at < n) {
        fill(&w, t, n, &at, &after_bos);
        rc = ask(&w, err);
        for (unsigned i = 0; i < w.n && rc == CHT_OK; i++) {
            const struct place *p = &w.place[i];
            struct lm_kn_scored s = {.log10 = p->p > 0 ? log10(p->p) : LM_KN_LOG10_ZERO,
                                     .matched = p->matched};
            add(out, &s);
            if (fn != NULL)
                fn(ctx, &s);
            w.before = s.matched;
        }
    }
    return rc;
}

double lm_kn_perplexity(const struct lm_kn_score *s, bool oov)
{
    uint64_t n = oov ? s->tokens : s->tokens - s->oov;
    double sum = oov ? s->log10 : s->log10 - s->log10_oov;
    return n > 0 ? pow(10.0, -sum / (double)n) : NAN;
}
