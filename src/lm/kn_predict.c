/* kn_predict: the k most likely next tokens (kn_ask.h), exactly, without looking at the whole vocabulary.
 *
 *   p(w) = S(w) + W1 * u_root(w) + const,   S(w) = sum over the levels m >= 2 of Wm * u_m(w),   Wm = product of the deeper gammas
 *
 * The followers of a longer context follow the shorter one too, so the tokens with S > 0 are the followers of the context of one
 * token. They are taken by S, descending; all tokens of the root by a, descending (kn_live.h). Whatever was not taken yet is at most the
 * next S, plus W1 times the next u, plus const: when that is less than the k-th best, no other can be better (Fagin's threshold
 * algorithm). p of what is taken is computed as lm_kn_score does, so equal questions get equal numbers; bounds are taken a little
 * too large, for their rounding.
 */
#include "lm/fm_ask.h"
#include "lm/kn_best.h"

#include <string.h>

#include "cheetah/scan.h"

#pragma STDC FP_CONTRACT OFF

#define KEEP_MIN 1024u /* tokens of the root in a list */
#define KEEP_MOST (UINT32_C(1) << 28)
#define ROUNDING 1e-12 /* bounds are taken so much larger */
#define SCAN_ENTRIES 64u

struct chain {
    struct lm_kn_level level[LM_ORDER_MAX + 1]; /* by order, from 1 */
    double w[LM_ORDER_MAX + 1];                 /* Wm */
    unsigned order;
    double rest; /* const */
};

/* Tokens with S > 0, ascending. */
struct shared {
    uint32_t *token; /* in r->work[1], like all */
    double *s;
    uint32_t *heap; /* the largest s on top */
    uint8_t *done;  /* it was looked at */
    uint32_t n, heaped;
    double low; /* those with an s of at most that are not in the heap yet; 0: all are */
};

struct search {
    struct lm_kn_reader *r;
    struct chain chain;
    struct shared sh;
    struct lm_kn_top *top;
    uint32_t at[LM_KN_TOP_LISTS]; /* next in each list */
    bool over[LM_KN_TOP_LISTS];   /* nothing in it can be better */
    struct lm_kn_best best;       /* in r->work[2] */
    struct cht_err *err;
};

/* The token with the count a1 in the root. */
static struct lm_kn_candidate evaluate(const struct search *q, uint32_t token, uint32_t a1)
{
    const struct lm_kn_reader *r = q->r;
    struct lm_kn_candidate c = {.token = token, .order = a1 > 0};
    c.p = lm_kn_share(r, &q->chain.level[1], a1) + q->chain.level[1].gamma * r->p0;
    for (unsigned m = 2; m <= q->chain.order; m++) {
        const struct lm_kn_level *l = &q->chain.level[m];
        uint32_t a = lm_kn_record_find(&l->record, token);
        c.p = lm_kn_share(r, l, a) + l->gamma * c.p;
        c.order = a > 0 ? m : c.order;
    }
    return c;
}

/* ---- the chain and S ------------------------------------------------------------------------------------------- */

static enum cht_rc read_chain(struct search *q, const struct lm_kn_text_query *t)
{
    struct lm_kn_reader *r = q->r;
    struct chain *c = &q->chain;
    unsigned top = t->max_order == 0 || t->max_order > r->head.order ? r->head.order : t->max_order;
    size_t reach = 0; /* tokens of the context */
    while (reach < t->n && reach + 1 < top && (reach == 0 || t->tokens[t->n - reach] != r->head.bos))
        reach++;
    c->level[1] = r->root;
    c->order = 1;
    for (unsigned m = 2; m <= reach + 1; m++) {
        const struct lm_kn_level *l;
        enum cht_rc rc = lm_kn_level(r, m, t->tokens + t->n, &l, q->err);
        if (rc != CHT_OK)
            return rc;
        if (!l->there)
            break;
        c->level[m] = *l;
        c->order = m;
    }
    double w = 1.0;
    for (unsigned m = c->order; m >= 1; m--) {
        c->w[m] = w;
        w *= c->level[m].gamma;
    }
    c->rest = w * r->p0;
    return CHT_OK;
}

static void sink(const struct shared *sh, uint32_t n, uint32_t at)
{
    uint32_t x = sh->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < n && sh->s[sh->heap[child + 1]] > sh->s[sh->heap[child]])
            child++;
        if (child >= n || sh->s[sh->heap[child]] <= sh->s[x])
            break;
        sh->heap[at] = sh->heap[child];
        at = child;
    }
    sh->heap[at] = x;
}

static enum cht_rc reserve_shared(struct search *q, uint32_t n)
{
    struct cht_buf *b = &q->r->work[1];
    enum cht_rc rc = cht_buf_reserve(b, (size_t)n * (sizeof(double) + 2 * sizeof(uint32_t) + 1) + 1, q->err);
    if (rc != CHT_OK)
        return rc;
    q->sh.s = (double *)(void *)b->data;
    q->sh.token = (uint32_t *)(void *)(q->sh.s + n);
    q->sh.heap = q->sh.token + n;
    q->sh.done = (uint8_t *)(q->sh.heap + n);
    memset(q->sh.done, 0, n);
    return CHT_OK;
}

/* What the level m adds to S. */
static enum cht_rc add_level(struct search *q, unsigned m)
{
    struct shared *sh = &q->sh;
    const struct lm_kn_level *l = &q->chain.level[m];
    double w = q->chain.w[m] / (double)l->record.total;
    const double *d = q->r->discounts[m].d;
    struct lm_kn_walk walk;
    uint32_t i = 0;
    lm_kn_walk_begin(&walk, &l->record);
    while (lm_kn_walk_next(&walk)) {
        while (i < sh->n && sh->token[i] < walk.token)
            i++;
        if (i < sh->n && sh->token[i] == walk.token) {
            sh->s[i] += w * ((double)walk.a - d[walk.a < 3 ? walk.a : 3]);
            continue;
        }
        if (atomic_load(&q->r->live->sequence) ==
            q->r->sequence) /* else it is of another moment: asked again */
            return CHT_FAIL(q->err, CHT_MALFORMED_PAYLOAD,
                            "token %u follows a context of the live model, but not the shorter one",
                            walk.token);
    }
    return CHT_OK;
}

static void make_heap(struct shared *sh)
{
    for (uint32_t i = sh->heaped / 2; i-- > 0;)
        sink(sh, sh->heaped, i);
}

/* What S is at the most for tokens that followed the context of one token once or twice, and no longer one: most of a wide context's. They
 * are rarely among the best, and put into the heap only if they may be. */
static double low_of(const struct search *q)
{
    const double *d = q->r->discounts[2].d;
    double one = 1 - d[1], two = 2 - d[2];
    return (one > two ? one : two) * q->chain.w[2] / (double)q->chain.level[2].record.total * (1 + ROUNDING);
}

/* The others go into the heap. */
static void add_low(struct shared *sh)
{
    for (uint32_t i = 0; i < sh->n; i++) {
        if (sh->s[i] <= sh->low)
            sh->heap[sh->heaped++] = i;
    }
    sh->low = 0;
    make_heap(sh);
}

static enum cht_rc sum_levels(struct search *q)
{
    struct shared *sh = &q->sh;
    if (q->chain.order < 2)
        return CHT_OK;
    const struct lm_kn_record *two = &q->chain.level[2].record;
    enum cht_rc rc = reserve_shared(q, two->n);
    if (rc != CHT_OK)
        return rc;
    struct lm_kn_walk walk;
    lm_kn_walk_begin(&walk, two);
    while (sh->n < two->n && lm_kn_walk_next(&walk)) {
        sh->token[sh->n] = walk.token;
        sh->s[sh->n++] = 0;
    }
    for (unsigned m = 2; m <= q->chain.order && rc == CHT_OK; m++)
        rc = add_level(q, m);
    sh->low = low_of(q);
    sh->heaped = 0;
    for (uint32_t i = 0; i < sh->n; i++) {
        if (sh->s[i] > sh->low)
            sh->heap[sh->heaped++] = i;
    }
    make_heap(sh);
    return rc;
}

/* Where the token is among those with S > 0; sh->n: it is not. */
static uint32_t shared_at(const struct shared *sh, uint32_t token)
{
    uint32_t lo = 0, hi = sh->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (sh->token[mid] < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < sh->n && sh->token[lo] == token ? lo : sh->n;
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

/* The list with the largest next u, and that u times W1; LM_KN_TOP_LISTS: there is none. *cut: a list ended before its end is known. */
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

/* The next of the tokens with S > 0. */
static enum cht_rc take_shared(struct search *q)
{
    struct shared *sh = &q->sh;
    uint32_t i = sh->heap[0], a;
    sh->heap[0] = sh->heap[--sh->heaped];
    if (sh->heaped > 0)
        sink(sh, sh->heaped, 0);
    if (sh->done[i] != 0)
        return CHT_OK;
    sh->done[i] = 1;
    enum cht_rc rc = lm_kn_root_count(q->r, sh->token[i], &a, q->err);
    if (rc != CHT_OK)
        return rc;
    struct lm_kn_candidate c = evaluate(q, sh->token[i], a);
    (void)lm_kn_best_offer(&q->best, &c);
    return CHT_OK;
}

/* The next of a list. */
static void take_list(struct search *q, unsigned list)
{
    struct lm_follower f = q->top->list[list].f[q->at[list]++];
    uint32_t i = shared_at(&q->sh, f.token);
    if (i < q->sh.n && q->sh.done[i] != 0)
        return;
    if (i < q->sh.n)
        q->sh.done[i] = 1;
    struct lm_kn_candidate c = evaluate(q, f.token, f.count);
    if (lm_kn_best_offer(&q->best, &c) || q->sh.heaped > 0 || q->sh.low > 0)
        return;
    /* None after it has an S or a larger u. Equal ones have larger tokens, unless the root has no weight. */
    q->over[list] = c.p < q->best.c[0].p || list != LM_KN_TOP_MAIN || q->chain.w[1] > 0;
}

static enum cht_rc run(struct search *q, bool *later)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && !*later) {
        double u, s = q->sh.heaped > 0 ? q->sh.s[q->sh.heap[0]] : q->sh.low;
        bool cut;
        unsigned list = next_list(q, &u, &cut);
        if (cut) { /* the entries of longer lists are the same, as far as they were looked at */
            rc = get_top(q, q->top->keep < KEEP_MOST ? q->top->keep * 8 : KEEP_MOST, later);
            continue;
        }
        if (list == LM_KN_TOP_LISTS && s == 0)
            break;
        if (q->best.n == q->best.k && (s + u + q->chain.rest) * (1 + ROUNDING) < q->best.c[0].p)
            break;
        if (q->sh.heaped == 0 && q->sh.low > 0 && (list == LM_KN_TOP_LISTS || s >= u))
            add_low(&q->sh);
        else if (q->sh.heaped > 0 && (list == LM_KN_TOP_LISTS || s >= u))
            rc = take_shared(q);
        else
            take_list(q, list);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_predict(struct lm_kn_reader *r, const struct lm_kn_text_query *t, uint32_t k,
                          struct lm_kn_prediction *out, bool *later, struct cht_err *err)
{
    struct search q = {.r = r, .err = err};
    uint64_t most = r->head.m[1].types;
    *later = false;
    if (r->fixed.order > 0)
        return lm_fm_predict(r, t, k, out, later, err);
    q.best.k = k < most ? k : (uint32_t)most;
    enum cht_rc rc = cht_buf_reserve(&r->work[2], (size_t)q.best.k * sizeof *q.best.c, err);
    if (rc == CHT_OK)
        rc = read_chain(&q, t);
    if (rc == CHT_OK)
        rc = sum_levels(&q);
    if (rc == CHT_OK)
        rc = get_top(&q, q.best.k < KEEP_MIN ? KEEP_MIN : q.best.k, later);
    if (rc == CHT_OK && !*later) {
        q.best.c = (struct lm_kn_candidate *)(void *)r->work[2].data;
        rc = run(&q, later);
    }
    lm_kn_top_put(r->engine, q.top);
    if (rc != CHT_OK || *later)
        return rc;
    lm_kn_best_sort(&q.best);
    out->order = q.chain.order;
    out->unknown = evaluate(&q, r->head.bos, 0).p; /* bos follows nothing */
    out->c = q.best.c;
    out->n = q.best.n;
    return CHT_OK;
}
