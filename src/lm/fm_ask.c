/* fm_ask: see fm_ask.h.
 *
 *   log10 p(w | context) = that of the longest n-gram that is there + the back-off weights of the contexts longer than its own
 *
 * From token to token the weights of the contexts that end with it are carried on, as the n-gram itself says them, and how long an n-gram it
 * matched: a longer context is no n-gram, so it has none. Shorter n-grams may be missing (a model that was pruned): each length is looked
 * up. A token that is no 1-gram is <unk>, also in a context.
 *
 * The k best: all followers of the longer contexts, each at the longest that has it; the others by their 1-grams, the most likely first
 * (lm_fm_rank), as long as they can still be among the best.
 */
#include "lm/fm_ask.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "cheetah/scan.h"
#include "lm/kn_best.h"

#pragma STDC FP_CONTRACT OFF

#define SCAN_ENTRIES 16u

/* What is carried from token to token. */
struct state {
    uint32_t context[LM_ORDER_MAX]; /* nearest first */
    double backoff[LM_ORDER_MAX];   /* of the last 1, 2, ... tokens */
    unsigned reach;                 /* how many of them there are */
};

/* One token after a state. */
struct step {
    uint32_t id; /* <unk> for an unknown one */
    bool known;
    unsigned matched; /* the longest n-gram that ends with it; 0: not even <unk> */
    double log10;
    double backoff
        [LM_ORDER_MAX]; /* of the n-grams that end with it, by their length less 1; 0 if there is none */
};

/* The token's 1-gram, or that of <unk>. */
static enum cht_rc take_word(struct lm_kn_reader *r, uint32_t token, struct step *s, struct cht_err *err)
{
    struct lm_fm_entry e;
    bool found;
    *s = (struct step){.id = token, .log10 = LM_KN_LOG10_ZERO};
    enum cht_rc rc = lm_fm_lookup(r, 1, NULL, token, &e, &found, err);
    s->known = found && token != r->fixed.unk;
    if (rc == CHT_OK && !s->known) {
        s->id = r->fixed.unk;
        rc = lm_fm_lookup(r, 1, NULL, s->id, &e, &found, err);
    }
    if (rc == CHT_OK && found) {
        s->matched = 1;
        s->log10 = (double)e.p;
        s->backoff[0] = (double)e.backoff;
    }
    return rc;
}

static enum cht_rc take_token(struct lm_kn_reader *r, const struct state *st, uint32_t token, struct step *s,
                              struct cht_err *err)
{
    enum cht_rc rc = take_word(r, token, s, err);
    for (unsigned m = 2; m <= st->reach + 1 && rc == CHT_OK && s->matched > 0; m++) {
        struct lm_fm_entry e;
        bool found;
        rc = lm_fm_lookup(r, m, st->context, s->id, &e, &found, err);
        if (rc == CHT_OK && found) {
            s->matched = m;
            s->log10 = (double)e.p;
            s->backoff[m - 1] = (double)e.backoff;
        }
    }
    double sum = s->log10;
    for (unsigned i = s->matched > 0 ? s->matched : 1; i <= st->reach; i++)
        sum += st->backoff[i - 1];
    s->log10 =
        s->log10 > LM_KN_LOG10_ZERO && sum > LM_KN_LOG10_ZERO && isfinite(sum) ? sum : LM_KN_LOG10_ZERO;
    return rc;
}

/* The state after the token; contexts have at most `most` tokens. */
static void move_on(struct state *st, const struct step *s, unsigned most)
{
    memmove(st->context + 1, st->context, (LM_ORDER_MAX - 1) * sizeof *st->context);
    st->context[0] = s->id;
    memcpy(st->backoff, s->backoff, sizeof st->backoff);
    st->reach = s->matched < most ? s->matched : most;
}

/* Nothing before it but bos; a model without <s> takes that for <unk>, as KenLM does. */
static enum cht_rc begin_text(struct lm_kn_reader *r, struct state *st, unsigned most, struct cht_err *err)
{
    struct lm_fm_entry e;
    bool found;
    *st = (struct state){.context = {r->fixed.bos}};
    enum cht_rc rc = lm_fm_lookup(r, 1, NULL, r->fixed.bos, &e, &found, err);
    if (rc == CHT_OK && !found) {
        st->context[0] = r->fixed.unk;
        rc = lm_fm_lookup(r, 1, NULL, r->fixed.unk, &e, &found, err);
    }
    if (rc == CHT_OK && found && most > 0) {
        st->backoff[0] = (double)e.backoff;
        st->reach = 1;
    }
    return rc;
}

static unsigned order_of(const struct lm_kn_reader *r, const struct lm_kn_text_query *q)
{
    return q->max_order == 0 || q->max_order > r->fixed.order ? r->fixed.order : q->max_order;
}

/* ---- the best ---------------------------------------------------------------------------------------------------- */

struct search {
    struct lm_kn_reader *r;
    struct state st;
    unsigned order; /* the longest context with followers has order - 1 tokens; 1: none has */
    unsigned at;    /* whose followers are looked at */
    bool any;       /* there was one */
    bool over;      /* no rank can be among the best any more */
    double weight;  /* log10, of the longer contexts */
    struct lm_kn_best best;
    struct cht_err *err;
};

/* A follower of the context of q->at - 1 tokens: unless a longer context has it. */
static enum cht_rc offer(struct search *q, const struct lm_fm_entry *e)
{
    const struct lm_fm_head *h = &q->r->fixed;
    if (e->token == h->bos || e->token == h->unk)
        return CHT_OK;
    for (unsigned m = q->at + 1; m <= q->order; m++) {
        struct lm_fm_entry deeper;
        bool found;
        enum cht_rc rc = lm_fm_lookup(q->r, m, q->st.context, e->token, &deeper, &found, q->err);
        if (rc != CHT_OK || found)
            return rc;
    }
    double l = (double)e->p + q->weight;
    if (!(e->p > LM_FM_ZERO && l >= LM_KN_LOG10_ZERO)) /* also if a page has what is no number */
        l = LM_KN_LOG10_ZERO;
    if (l > DBL_MAX_10_EXP) /* likewise */
        l = DBL_MAX_10_EXP;
    struct lm_kn_candidate c = {
        .token = e->token, .order = q->at, .p = pow(10.0, l), .log10 = LM_KN_NO_LOG10};
    (void)lm_kn_best_offer(&q->best, &c);
    return CHT_OK;
}

static enum cht_rc offer_page(struct search *q, unsigned order, struct cht_str name, const uint8_t *p,
                              size_t n)
{
    struct lm_fm_page page;
    if (p == NULL || !lm_fm_page_read(order, q->r->fixed.order, p, n, &page))
        return lm_malformed(name, n, "page of a fixed model", q->err);
    if (order == 0 && q->best.n == q->best.k) {
        double most = (double)lm_fm_rank_most(cht_be32(name.p + 5)) + q->weight;
        q->over = pow(10.0, most > LM_KN_LOG10_ZERO ? most : LM_KN_LOG10_ZERO) < q->best.c[0].p;
    }
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < page.n && rc == CHT_OK && !q->over; i++) {
        struct lm_fm_entry e = lm_fm_entry(&page, i);
        rc = offer(q, &e);
    }
    q->any = true;
    return rc;
}

static enum cht_rc offer_entry(struct search *q, unsigned order, size_t length, const struct cht_entry *e)
{
    struct cht_str name = {e->name, e->name_len};
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(q->err, CHT_CORRUPT, "a page of the fixed model does not match its checksum");
    if (name.n != length)
        return lm_malformed(name, e->size, "page of a fixed model", q->err);
    if ((e->flags & CHT_ENTRY_LARGE) == 0)
        return offer_page(q, order, name, e->value, e->value_len);
    uint32_t size;
    enum cht_rc rc = cht_store_get(q->r->store, e->key, &q->r->work[1], &size, q->err);
    return rc == CHT_OK ? offer_page(q, order, name, q->r->work[1].data, size) : rc;
}

/* All pages under a prefix, whose names have `length` bytes, as long as they are wanted. */
static enum cht_rc offer_pages(struct search *q, unsigned order, struct cht_str prefix, size_t length)
{
    struct cht_entry e[SCAN_ENTRIES];
    struct cht_scan *sc;
    size_t n = 1;
    const struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .values = true};
    enum cht_rc rc = cht_scan_open(q->r->store, &cfg, &sc, q->err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && n > 0 && !q->over) {
        rc = cht_scan_next(sc, e, SCAN_ENTRIES, &n, q->err);
        for (size_t i = 0; i < n && rc == CHT_OK && !q->over; i++)
            rc = offer_entry(q, order, length, &e[i]);
    }
    cht_scan_close(sc);
    return rc;
}

static enum cht_rc search(struct search *q)
{
    uint8_t text[LM_FM_NAME_MAX];
    enum cht_rc rc = CHT_OK;
    q->order = 1;
    for (q->at = q->st.reach + 1; q->at >= 2 && rc == CHT_OK; q->at--) {
        struct cht_str prefix = {text, lm_fm_prefix(q->at, q->st.context, text)};
        q->any = false;
        q->order = q->order > 1 ? q->order : q->at;
        rc = offer_pages(q, q->at, prefix, prefix.n + 4);
        q->order = q->any || q->order != q->at ? q->order : 1;
        q->weight += q->st.backoff[q->at - 2];
    }
    struct cht_str prefix = {text, lm_fm_section(0, text)};
    return rc == CHT_OK ? offer_pages(q, 0, prefix, prefix.n + 8) : rc;
}

/* The state after the last tokens of the context, those from the last bos on. */
static enum cht_rc read_context(struct search *q, const struct lm_kn_text_query *t)
{
    struct lm_kn_reader *r = q->r;
    unsigned most = order_of(r, t) - 1;
    size_t n = 0;
    enum cht_rc rc = CHT_OK;
    while (n < t->n && n < most && (n == 0 || t->tokens[t->n - n] != r->fixed.bos))
        n++;
    for (size_t i = t->n - n; i < t->n && rc == CHT_OK; i++) {
        struct step s;
        if (t->tokens[i] == r->fixed.bos) {
            rc = begin_text(r, &q->st, most, q->err);
            continue;
        }
        rc = take_token(r, &q->st, t->tokens[i], &s, q->err);
        move_on(&q->st, &s, most);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_fm_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err)
{
    struct state st = {0};
    unsigned most = order_of(r, q) - 1;
    enum cht_rc rc = CHT_OK;
    *out = (struct lm_kn_score){0};
    if (q->bos)
        rc = begin_text(r, &st, most, err);
    for (size_t i = 0; i < q->n && rc == CHT_OK; i++) {
        struct step s;
        if (q->tokens[i] == r->fixed.bos) {
            rc = begin_text(r, &st, most, err);
            continue;
        }
        lm_kn_spare(r);
        rc = take_token(r, &st, q->tokens[i], &s, err);
        if (rc != CHT_OK)
            break;
        move_on(&st, &s, most);
        const struct lm_kn_scored one = {.log10 = s.log10, .matched = s.known ? s.matched : 0};
        out->tokens++;
        out->log10 += one.log10;
        if (!s.known) {
            out->oov++;
            out->log10_oov += one.log10;
        }
        if (fn != NULL)
            fn(ctx, &one);
    }
    return rc;
}

enum cht_rc lm_fm_predict(struct lm_kn_reader *r, const struct lm_kn_text_query *t, uint32_t k,
                          struct lm_kn_prediction *out, bool *later, struct cht_err *err)
{
    struct search q = {.r = r, .err = err};
    struct step unknown;
    *later = r->wait != NULL; /* pages are swept */
    if (*later)
        return CHT_OK;
    uint64_t most = r->fixed.n[1] + 1;
    q.best.k = k < most ? k : (uint32_t)most;
    enum cht_rc rc = cht_buf_reserve(&r->work[2], (size_t)q.best.k * sizeof *q.best.c, err);
    q.best.c = (struct lm_kn_candidate *)(void *)r->work[2].data;
    if (rc == CHT_OK)
        rc = read_context(&q, t);
    if (rc == CHT_OK)
        rc = take_token(r, &q.st, r->fixed.unk, &unknown, err);
    if (rc == CHT_OK)
        rc = search(&q);
    if (rc != CHT_OK)
        return rc;
    lm_kn_best_sort(&q.best);
    out->order = q.order;
    out->unknown = unknown.log10 > LM_KN_LOG10_ZERO ? pow(10.0, unknown.log10) : 0;
    out->c = q.best.c;
    out->n = q.best.n;
    return CHT_OK;
}
