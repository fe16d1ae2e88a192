/* kn_predict: the k most likely next tokens (kn_ask.h), exactly, without looking at the whole vocabulary.
 *
 *   p(w) = sum over the levels m >= 2 of Wm * u_m(w) + W1 * u_root(w) + const,   Wm = product of the deeper gammas
 *
 * Each level is a list of its followers by u_m, descending (kn_lists.h), the root one of all tokens (kn_live.h). The token with the largest
 * Wm * u_m is taken, until what was not taken from any list, at most the sum of what comes next in each plus const, is less than the k-th
 * best (Fagin's threshold algorithm). A token that was met in another list before is known by its place there. p is computed as
 * lm_kn_score does, so equal questions get equal numbers; bounds are taken a little too large, for their rounding.
 */
#include "lm/fm_ask.h"
#include "lm/kn_best.h"
#include "lm/kn_derive.h"
#include "lm/kn_lists.h"

#include <math.h>
#include <string.h>

#include "cheetah/scan.h"

#pragma STDC FP_CONTRACT OFF

#define KEEP_MIN 1024u /* tokens of the root in a list */
#define KEEP_MOST (UINT32_C(1) << 28)
#define ROUNDING 1e-12 /* bounds are taken so much larger */
#define SCAN_ENTRIES 64u
#define BEST_MOST 1024u /* candidates that are kept with a context */

struct chain {
    struct lm_kn_level level[LM_ORDER_MAX + 1]; /* by order, from 1 */
    double w[LM_ORDER_MAX + 1];                 /* Wm */
    unsigned order;
    double rest; /* const */
};

/* What is known of a token: its a at each level. */
struct met {
    uint32_t token, a[LM_ORDER_MAX + 1];
};

struct search {
    struct lm_kn_reader *r;
    struct chain chain;
    struct lm_kn_list list[LM_ORDER_MAX + 1]; /* by order, from 2; in r->work[1] */
    double bound[LM_ORDER_MAX + 1];           /* of what was not taken: Wm * u_m */
    struct lm_kn_top *top;
    uint32_t at[LM_KN_TOP_LISTS]; /* next in each list of the root */
    bool over[LM_KN_TOP_LISTS];   /* nothing in it can be better */
    struct lm_kn_best best;       /* in r->work[2] */
    struct cht_err *err;
};

/* The token with the count a1 in the root. */
static void meet(const struct search *q, uint32_t token, uint32_t a1, struct met *out)
{
    out->token = token;
    out->a[1] = a1;
    for (unsigned m = 2; m <= q->chain.order; m++)
        out->a[m] = lm_kn_find(q->r, &q->chain.level[m], token);
}

static struct lm_kn_candidate evaluate(const struct search *q, const struct met *w)
{
    const struct lm_kn_reader *r = q->r;
    struct lm_kn_candidate c = {.token = w->token, .order = w->a[1] > 0, .log10 = LM_KN_NO_LOG10};
    c.p = lm_kn_share(r, &q->chain.level[1], w->a[1]) + q->chain.level[1].gamma * r->p0;
    for (unsigned m = 2; m <= q->chain.order; m++) {
        const struct lm_kn_level *l = &q->chain.level[m];
        c.p = lm_kn_share(r, l, w->a[m]) + l->gamma * c.p;
        c.order = w->a[m] > 0 ? m : c.order;
    }
    return c;
}

/* ---- the chain and its lists ------------------------------------------------------------------------------------- */

/* The levels from order 2 on, by their numbers. */
struct found {
    uint32_t at[LM_ORDER_MAX + 1];
    unsigned order;
};

static enum cht_rc find_chain(struct lm_kn_reader *r, const struct lm_kn_text_query *t, struct found *out,
                              struct cht_err *err)
{
    unsigned top = t->max_order == 0 || t->max_order > r->head.order ? r->head.order : t->max_order;
    size_t reach = 0; /* tokens of the context */
    while (reach < t->n && reach + 1 < top && (reach == 0 || t->tokens[t->n - reach] != r->head.bos))
        reach++;
    uint32_t chain = 0;
    out->order = 1;
    for (unsigned m = 2; m <= reach + 1; m++) {
        const struct lm_kn_level *l;
        enum cht_rc rc = lm_kn_level_next(r, m, t->tokens + t->n, &chain, &l, err);
        if (rc != CHT_OK)
            return rc;
        if (!l->there)
            break;
        out->at[m] = chain - 1;
        out->order = m;
    }
    return CHT_OK;
}

static void make_chain(struct search *q, const struct found *f)
{
    struct chain *c = &q->chain;
    c->level[1] = q->r->root;
    c->order = f->order;
    for (unsigned m = 2; m <= f->order; m++)
        c->level[m] = *lm_kn_level_at(q->r, f->at[m]);
    double w = 1.0;
    for (unsigned m = c->order; m >= 1; m--) {
        c->w[m] = w;
        w *= c->level[m].gamma;
    }
    c->rest = w * q->r->p0;
}

static void set_bound(struct search *q, unsigned m)
{
    q->bound[m] = q->chain.w[m] * lm_kn_list_next(&q->list[m]) / (double)q->chain.level[m].held->total;
}

static enum cht_rc begin_lists(struct search *q)
{
    size_t room = 0;
    for (unsigned m = 2; m <= q->chain.order; m++)
        room += (size_t)q->chain.level[m].n + LM_KN_LIST_ROOM;
    enum cht_rc rc = cht_buf_reserve(&q->r->work[1], room * sizeof(struct lm_follower) + 1, q->err);
    if (rc != CHT_OK)
        return rc;
    struct lm_follower *at = (struct lm_follower *)(void *)q->r->work[1].data;
    for (unsigned m = 2; m <= q->chain.order; m++) {
        const struct lm_kn_level *l = &q->chain.level[m];
        lm_kn_list_begin(q->r, l, at, &q->list[m]);
        set_bound(q, m);
        at += l->n + LM_KN_LIST_ROOM;
    }
    return CHT_OK;
}

/* ---- the root's most frequent tokens --------------------------------------------------------------------------- */

static enum cht_rc offer_page(struct lm_kn_topper *t, const struct cht_entry *e, struct cht_err *err)
{
    struct lm_kn_record page;
    struct lm_kn_walk w;
    struct cht_str name = {e->name, e->name_len};
    enum cht_rc rc = CHT_OK;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "a page of the root does not match its checksum");
    if (e->value == NULL || !lm_kn_page_read(name, e->value, e->value_len, &page))
        return lm_malformed(name, e->size, "record of a live model", err);
    lm_kn_walk_begin(&w, &page);
    while (rc == CHT_OK && lm_kn_walk_next(&w))
        rc = lm_kn_topper_offer(t, w.token, w.a, err);
    return rc;
}

static enum cht_rc read_root(struct search *q, struct lm_kn_topper *t)
{
    uint8_t prefix[LM_KN_NAME_MAX];
    struct cht_entry e[SCAN_ENTRIES];
    struct cht_scan *sc;
    size_t n = 1;
    const struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {prefix, lm_kn_prefix(1, prefix)}, .values = true};
    enum cht_rc rc = cht_scan_open(q->r->store, &cfg, &sc, q->err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(sc, e, SCAN_ENTRIES, &n, q->err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = offer_page(t, &e[i], q->err);
    }
    cht_scan_close(sc);
    return rc;
}

/* Lists with at least `keep` entries each, as far as there are that many. */
static enum cht_rc get_top(struct search *q, uint32_t keep, bool *later)
{
    struct lm_kn_reader *r = q->r;
    struct lm_kn_topper t = {.keep = keep};
    lm_kn_top_put(r->engine, q->top);
    q->top = lm_kn_top_get(r->engine, r->live, &r->head, keep);
    *later = q->top == NULL && r->wait != NULL;
    if (q->top != NULL || *later)
        return CHT_OK;
    enum cht_rc rc = read_root(q, &t);
    struct lm_kn_top *made = rc == CHT_OK ? lm_kn_topper_end(&t, &r->head, q->err) : NULL;
    lm_kn_topper_free(&t);
    if (made == NULL)
        return rc != CHT_OK ? rc : CHT_NO_MEMORY;
    q->top = lm_kn_top_set(r->engine, r->live, made, r->sequence);
    return CHT_OK;
}

/* ---- the search ------------------------------------------------------------------------------------------------ */

static unsigned top_of(uint32_t a)
{
    return a >= 3 ? LM_KN_TOP_MAIN : a == 2 ? LM_KN_TOP_TWO : LM_KN_TOP_ONE;
}

/* Was it taken from the root before? */
static bool root_had(const struct search *q, const struct met *w)
{
    unsigned i = top_of(w->a[1]);
    if (w->a[1] == 0 || q->at[i] == 0)
        return false;
    struct lm_follower last = q->top->list[i].f[q->at[i] - 1];
    return w->a[1] != last.count ? w->a[1] > last.count : w->token <= last.token;
}

/* Was it taken from a list before? `but` is not looked at; 1: the root. */
static bool had(const struct search *q, const struct met *w, unsigned but)
{
    for (unsigned m = 2; m <= q->chain.order; m++) {
        if (m != but && lm_kn_list_had(&q->list[m], w->token, w->a[m]))
            return true;
    }
    return but != 1 && root_had(q, w);
}

/* The list of the root with the largest next u, and that u times W1; LM_KN_TOP_LISTS: there is none. *cut: a list ended before its end is
 * known. */
static unsigned next_list(const struct search *q, double *bound, bool *cut)
{
    unsigned best = LM_KN_TOP_LISTS;
    *bound = 0;
    *cut = false;
    for (unsigned i = 0; i < LM_KN_TOP_LISTS; i++) {
        const struct lm_kn_top_list *l = &q->top->list[i];
        if (q->over[i])
            continue;
        if (q->at[i] == l->n) {
            *cut = *cut || !l->all;
            continue;
        }
        double u = q->chain.w[1] * lm_kn_share(q->r, &q->chain.level[1], l->f[q->at[i]].count);
        if (best == LM_KN_TOP_LISTS || u > *bound) {
            best = i;
            *bound = u;
        }
    }
    return best;
}

/* The next of the list of a level. */
static enum cht_rc take_level(struct search *q, unsigned level)
{
    struct lm_follower f = lm_kn_list_take(&q->list[level]);
    struct met w;
    if (f.count == 0)
        return CHT_FAIL(q->err, CHT_MALFORMED_PAYLOAD,
                        "a context of the live model has a follower twice, or one that never followed");
    uint32_t a1 = lm_kn_top_find(q->top, f.token);
    set_bound(q, level);
    enum cht_rc rc = a1 > 0 ? CHT_OK : lm_kn_root_count(q->r, f.token, &a1, q->err);
    if (rc != CHT_OK)
        return rc;
    meet(q, f.token, a1, &w);
    for (unsigned m = 2; m < level; m++) {
        if (w.a[m] == 0 && atomic_load(&q->r->live->sequence) == q->r->sequence) /* else: asked again */
            return CHT_FAIL(q->err, CHT_MALFORMED_PAYLOAD,
                            "token %u follows a context of the live model, but not the shorter one", f.token);
    }
    if (w.a[level] != f.count)
        return CHT_FAIL(q->err, CHT_MALFORMED_PAYLOAD, "token %u follows a context of the live model twice",
                        f.token);
    if (had(q, &w, level))
        return CHT_OK;
    struct lm_kn_candidate c = evaluate(q, &w);
    (void)lm_kn_best_offer(&q->best, &c);
    return CHT_OK;
}

static bool any_level(const struct search *q)
{
    for (unsigned m = 2; m <= q->chain.order; m++) {
        if (lm_kn_list_more(&q->list[m]))
            return true;
    }
    return false;
}

/* The next of a list of the root. */
static void take_root(struct search *q, unsigned list)
{
    struct lm_follower f = q->top->list[list].f[q->at[list]++];
    struct met w;
    meet(q, f.token, f.count, &w);
    if (had(q, &w, 1))
        return;
    struct lm_kn_candidate c = evaluate(q, &w);
    if (lm_kn_best_offer(&q->best, &c) || any_level(q))
        return;
    /* None after it has a larger u. Equal ones have larger tokens, unless the root has no weight. */
    q->over[list] = c.p < q->best.c[0].p || list != LM_KN_TOP_MAIN || q->chain.w[1] > 0;
}

/* The level whose next token has the largest share, of which *most is one already; 1: the root. *sum: all that may be still to come. */
static unsigned next_level(const struct search *q, bool root, double most, double *sum)
{
    unsigned best = root ? 1 : 0;
    *sum = most;
    for (unsigned m = 2; m <= q->chain.order; m++) {
        if (!lm_kn_list_more(&q->list[m]))
            continue;
        *sum += q->bound[m];
        if (best == 0 || q->bound[m] >= most) {
            best = m;
            most = q->bound[m];
        }
    }
    return best;
}

static enum cht_rc run(struct search *q, bool *later)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && !*later) {
        double u, sum;
        bool cut;
        unsigned list = next_list(q, &u, &cut);
        if (cut) { /* the entries of longer lists are the same, as far as they were looked at */
            rc = get_top(q, q->top->keep < KEEP_MOST ? q->top->keep * 8 : KEEP_MOST, later);
            continue;
        }
        unsigned level = next_level(q, list != LM_KN_TOP_LISTS, u, &sum);
        if (level == 0)
            break;
        if (q->best.n == q->best.k && (sum + q->chain.rest) * (1 + ROUNDING) < q->best.c[0].p)
            break;
        if (level > 1)
            rc = take_level(q, level);
        else
            take_root(q, list);
    }
    return rc;
}

/* The best k after the context of f->order. */
static enum cht_rc search_best(struct lm_kn_reader *r, const struct found *f, uint32_t k,
                               struct lm_kn_prediction *out, bool *later, struct cht_err *err)
{
    struct search q = {.r = r, .err = err, .best = {.k = k}};
    enum cht_rc rc = cht_buf_reserve(&r->work[2], (size_t)k * sizeof *q.best.c, err);
    make_chain(&q, f);
    if (rc == CHT_OK)
        rc = begin_lists(&q);
    if (rc == CHT_OK)
        rc = get_top(&q, k < KEEP_MIN ? KEEP_MIN : k, later);
    if (rc == CHT_OK && !*later) {
        q.best.c = (struct lm_kn_candidate *)(void *)r->work[2].data;
        rc = run(&q, later);
    }
    lm_kn_top_put(r->engine, q.top);
    if (rc != CHT_OK || *later)
        return rc;
    lm_kn_best_sort(&q.best);
    struct met unknown;
    meet(&q, r->head.bos, 0, &unknown); /* bos follows nothing */
    *out = (struct lm_kn_prediction){
        .order = f->order, .unknown = evaluate(&q, &unknown).p, .c = q.best.c, .n = q.best.n};
    return CHT_OK;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

static struct lm_kn_level *level_of(struct lm_kn_reader *r, const struct found *f, unsigned order)
{
    if (order == 1)
        return &r->root;
    return &r->level[f->at[order]];
}

/* NULL: no k are known. */
static const struct lm_kn_kept_best *best_known(struct lm_kn_reader *r, const struct found *f, unsigned order,
                                                uint32_t k)
{
    const struct lm_kn_more *more = level_of(r, f, order)->held->more;
    const struct lm_kn_kept_best *b = more != NULL ? more->best : NULL;
    return b != NULL && (b->k >= k || b->n >= r->head.m[1].types) ? b : NULL;
}

static bool asked_before(struct lm_kn_level *l)
{
    bool before = l->asked > 0;
    if (l->asked < UINT8_MAX)
        l->asked++;
    return before;
}

/* Keeps what comes next after a context if it is not the first time that it is asked for. */
static void keep_best(struct lm_kn_reader *r, struct lm_kn_level *own, uint32_t k, double unknown,
                      const struct lm_kn_candidate *c, uint32_t n)
{
    size_t bytes = n * sizeof *c;
    if (!asked_before(own) || n > BEST_MOST)
        return;
    struct lm_kn_more *more = lm_kn_more(r, own);
    struct lm_kn_kept_best *b = more != NULL ? lm_kn_keep(r, sizeof *b + bytes) : NULL;
    if (b == NULL)
        return;
    *b = (struct lm_kn_kept_best){.k = k, .n = n, .unknown = unknown};
    memcpy(b->c, c, bytes);
    more->best = b;
}

/* It is answered from what is kept, with the logarithms, which are kept from then on. */
static void answer_kept(struct lm_kn_kept_best *b, unsigned order, uint32_t k, struct lm_kn_prediction *out)
{
    *out =
        (struct lm_kn_prediction){.order = order, .unknown = b->unknown, .c = b->c, .n = b->n < k ? b->n : k};
    for (size_t i = 0; i < out->n; i++) {
        if (b->c[i].log10 > 0)
            b->c[i].log10 = b->c[i].p > 0 ? log10(b->c[i].p) : LM_KN_LOG10_ZERO;
    }
}

/* ---- from a shorter context -------------------------------------------------------------------------------------- */

/* The longest context of which the best few are known, or else from which it is worth while to begin; its order, and how many are needed of each. */
static unsigned derive_from(struct lm_kn_reader *r, const struct found *f, uint32_t k, uint32_t *needs)
{
    unsigned m = f->order;
    needs[m] = k;
    while (m > 1 && lm_kn_may_derive(lm_kn_level_at(r, f->at[m]))) {
        m--;
        needs[m] = lm_kn_derive_needs(needs[m + 1]);
        if (best_known(r, f, m, needs[m]) != NULL)
            break;
    }
    return m;
}

/* The best few to begin with. out->c NULL: they are not known, and one question does not make it worth while. */
static enum cht_rc derive_begin(struct lm_kn_reader *r, const struct found *f, unsigned order, uint32_t k,
                                struct lm_kn_bests *out, bool *later, struct cht_err *err)
{
    const struct lm_kn_kept_best *b = best_known(r, f, order, k);
    struct found shorter = *f;
    struct lm_kn_prediction p;
    enum cht_rc rc = CHT_OK;
    *out = (struct lm_kn_bests){0};
    shorter.order = order;
    if (b == NULL && order > 1 && !asked_before(level_of(r, f, order)))
        return CHT_OK;
    if (b == NULL) {
        rc = search_best(r, &shorter, k, &p, later, err);
        if (rc != CHT_OK || *later)
            return rc;
        struct lm_kn_level *own = level_of(r, f, order);
        own->asked = own->asked > 0 ? own->asked : 1; /* that of the root is kept at once */
        keep_best(r, own, k, p.unknown, p.c, (uint32_t)p.n);
        b = best_known(r, f, order, k);
    }
    if (b != NULL)
        *out = (struct lm_kn_bests){
            .c = b->c, .n = b->n, .all = b->n >= r->head.m[1].types, .unknown = b->unknown};
    return rc;
}

/* The best k from the best few after a shorter context. *done: they are known. */
static enum cht_rc derive_best(struct lm_kn_reader *r, const struct found *f, uint32_t k,
                               struct lm_kn_prediction *out, bool *done, bool *later, struct cht_err *err)
{
    uint32_t needs[LM_ORDER_MAX + 1];
    struct lm_kn_bests b;
    unsigned m = derive_from(r, f, k, needs);
    *done = false;
    if (m == f->order || needs[m] > BEST_MOST)
        return CHT_OK;
    enum cht_rc rc = derive_begin(r, f, m, needs[m], &b, later, err);
    for (*done = b.c != NULL; rc == CHT_OK && *done && m < f->order;) {
        struct cht_buf *room = &r->work[2 + m % 2]; /* in turn: the one of before is read */
        m++;
        rc = cht_buf_reserve(room, (size_t)needs[m] * sizeof *b.c, err);
        if (rc == CHT_OK)
            rc = lm_kn_derive(r, f->at, m, &b, needs[m], (struct lm_kn_candidate *)(void *)room->data, &b,
                              done, err);
        if (rc == CHT_OK && *done && m < f->order)
            keep_best(r, level_of(r, f, m), needs[m], b.unknown, b.c, b.n);
    }
    if (rc == CHT_OK && *done)
        *out = (struct lm_kn_prediction){.order = f->order, .unknown = b.unknown, .c = b.c, .n = b.n};
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_predict(struct lm_kn_reader *r, const struct lm_kn_text_query *t, uint32_t k,
                          struct lm_kn_prediction *out, bool *later, struct cht_err *err)
{
    uint64_t most = r->head.m[1].types;
    struct found f = {.order = 1};
    *later = false;
    if (r->fixed.order > 0)
        return lm_fm_predict(r, t, k, out, later, err);
    k = k < most ? k : (uint32_t)most;
    enum cht_rc rc = find_chain(r, t, &f, err);
    if (rc != CHT_OK)
        return rc;
    if (best_known(r, &f, f.order, k) != NULL) {
        answer_kept(level_of(r, &f, f.order)->held->more->best, f.order, k, out);
        return CHT_OK;
    }
    bool done;
    rc = derive_best(r, &f, k, out, &done, later, err);
    if (rc == CHT_OK && !done && !*later)
        rc = search_best(r, &f, k, out, later, err);
    if (rc == CHT_OK && !*later)
        keep_best(r, level_of(r, &f, f.order), k, out->unknown, out->c, (uint32_t)out->n);
    return rc;
}
