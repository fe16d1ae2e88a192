/* kn_score: how likely a text is (kn_ask.h). Many tokens, of several texts, are asked together, order by order, so that what they touch in memory
 * is fetched side by side. How long an n-gram a token matched tells how long the next one's context can be: a longer one cannot have a record, so hardly
 * any look-up is in vain. */
#include "lm/fm_ask.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

/* Does the text get a bos in front? */
static bool lacks_bos(const struct lm_kn_reader *r, const struct lm_kn_text_query *q)
{
    return q->bos && (q->n == 0 || q->tokens[0] != r->head.bos);
}

/* One token that is scored. */
struct place {
    const uint32_t *t;
    const unsigned *before; /* what the token before it has matched */
    double p;
    uint32_t text, chain;
    unsigned matched, top; /* top: the highest order that is asked */
    bool on;               /* the level of the order before is there */
    bool first;            /* after a bos, which has no count of its own: its context has one token */
};

struct window {
    struct lm_kn_reader *r;
    unsigned before; /* what the last token of the window before has matched; 0: another text begins */
    unsigned n;
    struct place place[LM_KN_TOGETHER];
};

/* Where the next token is taken from. */
struct cursor {
    const struct lm_kn_text_query *q;
    size_t texts, text, at; /* at: in the text that is gone through */
    const uint32_t *t;      /* with its bos; NULL: it was not begun */
    size_t n;
    uint32_t *room; /* for texts that get a bos; in r->work[0] */
    bool after_bos, begins;
};

/* Can the context of order - 1 tokens before that place have a record? The n-gram that ends with the token before must have been counted. */
static bool may_have(const struct window *w, unsigned i, unsigned order)
{
    const struct place *p = &w->place[i];
    if (p->first)
        return order == 2 && p->top >= 2;
    return p->on && order <= p->top && *p->before >= order - 1;
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
        p->chain = 0;
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

static enum cht_rc begin(struct lm_kn_reader *r, struct cursor *c, const struct lm_kn_text_query *q, size_t n,
                         struct cht_err *err)
{
    size_t room = 0;
    *c = (struct cursor){.q = q, .texts = n};
    for (size_t i = 0; i < n; i++)
        room += lacks_bos(r, &q[i]) ? q[i].n + 1 : 0;
    enum cht_rc rc = cht_buf_reserve(&r->work[0], room * sizeof *c->room, err);
    c->room = (uint32_t *)(void *)r->work[0].data;
    return rc;
}

static void begin_text(const struct lm_kn_reader *r, struct cursor *c)
{
    const struct lm_kn_text_query *q = &c->q[c->text];
    c->t = q->tokens;
    c->n = q->n;
    c->at = 0;
    c->after_bos = false;
    c->begins = true;
    if (!lacks_bos(r, q))
        return;
    c->room[0] = r->head.bos;
    if (q->n > 0)
        memcpy(c->room + 1, q->tokens, q->n * sizeof *c->room);
    c->t = c->room;
    c->n++;
    c->room += c->n;
}

static unsigned top_of(const struct lm_kn_reader *r, const struct lm_kn_text_query *q)
{
    return q->max_order == 0 || q->max_order > r->head.order ? r->head.order : q->max_order;
}

static void put_place(struct window *w, struct cursor *c)
{
    static const unsigned nothing = 0;
    struct place *p = &w->place[w->n];
    *p = (struct place){.t = c->t + c->at,
                        .text = (uint32_t)c->text,
                        .first = c->after_bos,
                        .top = top_of(w->r, &c->q[c->text])};
    if (c->begins)
        p->before = &nothing;
    else
        p->before = w->n > 0 ? &w->place[w->n - 1].matched : &w->before;
    c->after_bos = c->begins = false;
    w->n++;
}

/* The next tokens of the texts, at most as many as are asked together. */
static void fill(struct window *w, struct cursor *c)
{
    for (w->n = 0; c->text < c->texts && w->n < LM_KN_TOGETHER;) {
        if (c->t == NULL)
            begin_text(w->r, c);
        if (c->at == c->n) {
            c->text++;
            c->t = NULL;
            continue;
        }
        if (c->t[c->at] == w->r->head.bos)
            c->after_bos = true;
        else
            put_place(w, c);
        c->at++;
    }
}

/* p and matched of each place. */
static enum cht_rc ask(struct window *w, struct cht_err *err)
{
    bool any = w->n > 0;
    lm_kn_spare(w->r);
    enum cht_rc rc = ask_root(w, err);
    for (unsigned m = 2; m <= w->r->head.order && rc == CHT_OK && any; m++)
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

/* Who hears of one text, of many. */
struct of_many {
    lm_kn_scored_of *fn;
    void *ctx;
    size_t text;
};
static void tell_of_many(void *ctx, const struct lm_kn_scored *t)
{
    const struct of_many *m = ctx;
    m->fn(m->ctx, m->text, t);
}

struct of_one {
    void (*fn)(void *ctx, const struct lm_kn_scored *t);
    void *ctx;
};
static void tell_of_one(void *ctx, size_t text, const struct lm_kn_scored *t)
{
    const struct of_one *one = ctx;
    (void)text;
    if (one->fn != NULL)
        one->fn(one->ctx, t);
}

static enum cht_rc score_fixed(struct lm_kn_reader *r, const struct lm_kn_text_query *q, size_t n,
                               struct of_many *m, struct lm_kn_score *out, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (m->text = 0; m->text < n && rc == CHT_OK; m->text++)
        rc = lm_fm_score(r, &q[m->text], tell_of_many, m, &out[m->text], err);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_score_all(struct lm_kn_reader *r, const struct lm_kn_text_query *q, size_t n,
                            lm_kn_scored_of *fn, void *ctx, struct lm_kn_score *out, struct cht_err *err)
{
    struct window w = {.r = r};
    struct cursor c;
    memset(out, 0, n * sizeof *out);
    if (r->fixed.order > 0)
        return score_fixed(r, q, n, &(struct of_many){.fn = fn, .ctx = ctx}, out, err);
    enum cht_rc rc = begin(r, &c, q, n, err);
    while (rc == CHT_OK && c.text < n) {
        fill(&w, &c);
        rc = ask(&w, err);
        for (unsigned i = 0; i < w.n && rc == CHT_OK; i++) {
            const struct place *p = &w.place[i];
            struct lm_kn_scored s = {.log10 = p->p > 0 ? log10(p->p) : LM_KN_LOG10_ZERO,
                                     .matched = p->matched};
            add(&out[p->text], &s);
            fn(ctx, p->text, &s);
            w.before = s.matched;
        }
    }
    return rc;
}

enum cht_rc lm_kn_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err)
{
    struct of_one one = {.fn = fn, .ctx = ctx};
    return lm_kn_score_all(r, q, 1, tell_of_one, &one, out, err);
}

double lm_kn_perplexity(const struct lm_kn_score *s, bool oov)
{
    uint64_t n = oov ? s->tokens : s->tokens - s->oov;
    double sum = oov ? s->log10 : s->log10 - s->log10_oov;
    return n > 0 ? pow(10.0, -sum / (double)n) : NAN;
}
