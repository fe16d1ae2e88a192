/* linked: see linked.h. A distribution is an array of tokens, ascending; they are added up two at a time. */
#include "lm/linked.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/counts.h"
#include "lm/kn_ask.h"
#include "lm/lookup.h"
#include "lm/names.h"
#include "lm/quant.h"
#include "reduce/links.h"
#include "reduce/payload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT_MAX 255u /* tokens of a context payload */

struct share {
    double p;
    uint32_t token;
    uint8_t order;
};

struct spread {
    struct share *s; /* owned; ascending by token, each once */
    size_t n, cap;
    double unknown;
};

struct mixing {
    struct cht_store *store;
    const struct lm_linked_query *q;
    struct reduce_run run; /* memory */
    struct reduce_params params;
    struct lm_view view; /* of a smoothed model */
    struct spread own, one, sum, spare;
    struct cht_buf buf, list;
    struct lm_counts counts;
    struct lm_best best;
    uint32_t context[CONTEXT_MAX];
    struct cht_err *err;
};

/* A context that is asked: by its name for what is stored of it alone, by its tokens for all orders. */
struct place {
    unsigned order; /* what may answer at most */
    uint8_t hash[LM_HASH_SIZE];
    const uint32_t *tokens;
    size_t n;
};

/* ---- distributions ------------------------------------------------------------------------------------------------ */

static enum cht_rc room(struct mixing *m, struct spread *d, size_t n)
{
    if (n <= d->cap)
        return CHT_OK;
    size_t cap = n + n / 2 + 64;
    enum cht_rc rc = reduce_take_memory(&m->run, (cap - d->cap) * sizeof *d->s, m->err);
    if (rc != CHT_OK)
        return rc;
    struct share *s = cht_realloc(d->s, cap * sizeof *s);
    if (s == NULL) {
        reduce_give_memory(&m->run, (cap - d->cap) * sizeof *s);
        return CHT_FAIL(m->err, CHT_NO_MEMORY, "no memory for a distribution over %zu tokens", n);
    }
    d->s = s;
    d->cap = cap;
    return CHT_OK;
}

static void drop(struct mixing *m, struct spread *d)
{
    cht_free(d->s);
    reduce_give_memory(&m->run, d->cap * sizeof *d->s);
    *d = (struct spread){0};
}

/* By token, the deepest order first. */
static int by_token(const void *x, const void *y)
{
    const struct share *a = x, *b = y;
    return a->token != b->token ? (a->token > b->token) - (a->token < b->token)
                                : (a->order < b->order) - (a->order > b->order);
}

/* Each token once, as its deepest order has it; all of them sum to 1. Nothing is left of one whose sum is no positive number. */
static void settle(struct spread *d)
{
    double sum = d->unknown;
    size_t n = 0;
    if (d->n > 0)
        qsort(d->s, d->n, sizeof *d->s, by_token);
    for (size_t i = 0; i < d->n; i++) {
        if (n > 0 && d->s[n - 1].token == d->s[i].token)
            continue;
        d->s[n++] = d->s[i];
        sum += d->s[i].p;
    }
    d->n = sum > 0.0 && isfinite(sum) ? n : 0;
    for (size_t i = 0; i < d->n; i++)
        d->s[i].p /= sum;
    d->unknown = d->n > 0 ? d->unknown / sum : 0.0;
}

/* to += weight * d */
static enum cht_rc add(struct mixing *m, struct spread *to, const struct spread *d, double weight)
{
    struct spread *out = &m->spare;
    size_t i = 0, k = 0;
    enum cht_rc rc = room(m, out, to->n + d->n);
    if (rc != CHT_OK)
        return rc;
    out->n = 0;
    while (i < to->n || k < d->n) {
        bool first = k == d->n || (i < to->n && to->s[i].token <= d->s[k].token);
        bool both = first && k < d->n && to->s[i].token == d->s[k].token;
        struct share x = first ? to->s[i++] : d->s[k];
        x.p *= first ? 1.0 : weight;
        if (both) {
            x.p += weight * d->s[k].p;
            x.order = x.order > d->s[k].order ? x.order : d->s[k].order;
        }
        k += !first || both;
        out->s[out->n++] = x;
    }
    out->unknown = to->unknown + weight * d->unknown;
    struct spread old = *to;
    *to = *out;
    *out = old;
    return CHT_OK;
}

/* ---- the model's distributions ------------------------------------------------------------------------------------ */

static enum cht_rc take_records(struct mixing *m, struct spread *d, const struct reduce_payload *p,
                                size_t record, unsigned order, double mass)
{
    enum cht_rc rc = room(m, d, d->n + p->n);
    for (uint32_t i = 0; rc == CHT_OK && i < p->n; i++) {
        const uint8_t *r = p->records + i * record;
        d->s[d->n++] = (struct share){
            .p = mass * lm_dequantize(r[4]), .token = reduce_payload_get32(r), .order = (uint8_t)order};
    }
    return rc;
}

/* What is stored for one context. */
static enum cht_rc stored_of(struct mixing *m, unsigned order, const uint8_t *hash, struct spread *d)
{
    struct reduce_payload p;
    *d = (struct spread){.s = d->s, .cap = d->cap};
    enum cht_rc rc = lm_lookup(&m->view, LM_PROB, order, hash, &m->buf, &p, m->err);
    if (rc == CHT_OK && p.n > 0) {
        rc = take_records(m, d, &p, REDUCE_PAYLOAD_PROBS_RECORD, order, 1.0);
    } else if (rc == CHT_OK) {
        rc = lm_lookup(&m->view, LM_TOPK, order, hash, &m->buf, &p, m->err);
        if (rc == CHT_OK)
            rc = take_records(m, d, &p, REDUCE_PAYLOAD_TOPK_RECORD, order, 1.0);
    }
    settle(d);
    return rc;
}

/* All orders backed off; *order: the deepest that is there. */
static enum cht_rc blend_of(struct mixing *m, const struct place *at, struct spread *d, unsigned *order)
{
    double mass = 1.0;
    enum cht_rc rc = CHT_OK;
    *order = 0;
    *d = (struct spread){.s = d->s, .cap = d->cap};
    for (unsigned n = at->order; n >= 1 && rc == CHT_OK; n--) {
        uint8_t hash[LM_HASH_SIZE];
        struct reduce_payload p;
        lm_context_name(n > 1 ? at->tokens + (at->n - (n - 1)) : NULL, n - 1, hash);
        rc = lm_lookup(&m->view, LM_PROB, n, hash, &m->buf, &p, m->err);
        if (rc != CHT_OK || p.n == 0)
            continue;
        *order = *order == 0 ? n : *order;
        rc = take_records(m, d, &p, REDUCE_PAYLOAD_PROBS_RECORD, n, mass);
        mass *= lm_lookup_weight(&p);
    }
    settle(d);
    return rc;
}

static enum cht_rc live_of(struct mixing *m, const struct place *at, struct spread *d, unsigned *order)
{
    struct lm_kn_text_query t = {.tokens = at->tokens, .n = at->n, .max_order = at->order};
    struct lm_kn_prediction p;
    bool later;
    *d = (struct spread){.s = d->s, .cap = d->cap};
    enum cht_rc rc = lm_kn_predict(m->q->live, &t, UINT32_MAX, &p, &later, m->err);
    if (rc == CHT_OK)
        rc = room(m, d, p.n);
    if (rc != CHT_OK)
        return rc;
    for (size_t i = 0; i < p.n; i++)
        d->s[d->n++] = (struct share){.p = p.c[i].p, .token = p.c[i].token, .order = (uint8_t)p.c[i].order};
    d->unknown = p.unknown;
    *order = p.order;
    settle(d);
    return CHT_OK;
}

/* The distribution of a context; *order: what answered, 0: nothing did. */
static enum cht_rc of_place(struct mixing *m, const struct place *at, struct spread *d, unsigned *order)
{
    if (m->q->live != NULL)
        return live_of(m, at, d, order);
    if (m->q->mode == LM_PREDICT_BLEND)
        return blend_of(m, at, d, order);
    enum cht_rc rc = stored_of(m, at->order, at->hash, d);
    *order = rc == CHT_OK && d->n > 0 ? at->order : 0;
    return rc;
}

/* ---- links -------------------------------------------------------------------------------------------------------- */

/* The context that a link leads to; false: it is none of the model. */
static enum cht_rc place_of(struct mixing *m, struct cht_str name, struct place *at, bool *is)
{
    uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE];
    struct reduce_payload in;
    uint64_t key;
    uint32_t size = 0;
    *is = name.n == LM_LENGTH(LM_CNT_ALL) + 2 + LM_HASH_SIZE && CHT_STARTS(name.p, name.n, LM_CNT_ALL) &&
          name.p[4] >= '1' && name.p[4] <= '8' && name.p[5] == ':';
    if (!*is)
        return CHT_OK;
    *at = (struct place){.order = (unsigned)(name.p[4] - '0'), .tokens = m->context};
    memcpy(at->hash, name.p + 6, LM_HASH_SIZE);
    bool root = memcmp(at->hash, LM_ROOT, LM_HASH_SIZE) == 0;
    if (root || (m->q->live == NULL && m->q->mode != LM_PREDICT_BLEND)) {
        *is = !root || at->order == 1;
        return CHT_OK;
    }
    memcpy(CHT_PUT(text, LM_CTX), at->hash, LM_HASH_SIZE);
    enum cht_rc rc =
        cht_store_pair_value(m->store, (struct cht_str){text, sizeof text}, &key, &m->buf, &size, m->err);
    *is = rc == CHT_OK && size > 0 && reduce_payload_context(m->buf.data, size, size, &in) &&
          in.n == at->order - 1;
    for (uint32_t i = 0; *is && i < in.n; i++)
        m->context[i] = reduce_payload_get32(in.records + 4 * (size_t)i);
    at->n = *is ? in.n : 0;
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* link:<metric>:cnt:<n>:<context>, or what comes before the n. Returns the bytes. */
static size_t put_name(uint8_t *to, enum reduce_metric metric)
{
    char *at = CHT_PUT(to, REDUCE_LINKS);
    const char *text = reduce_links_metric_name(metric);
    size_t n = strlen(text);
    memcpy(at, text, n);
    at[n] = ':';
    return (size_t)((uint8_t *)CHT_PUT(at + n + 1, LM_CNT_ALL) - to);
}

#define LINK_NAME_MAX (sizeof REDUCE_LINKS + 8 + LM_PREFIX_MAX + LM_HASH_SIZE)

static bool metric_wanted(const struct mixing *m, enum reduce_metric metric)
{
    return m->q->metric < 0 || m->q->metric == (int)metric;
}

static const enum reduce_metric metrics[] = {REDUCE_COSINE, REDUCE_JACCARD, REDUCE_PMI};
#define METRICS (sizeof metrics / sizeof *metrics)

/* CHT_NO_LINKS if there are none of any context. */
static enum cht_rc some_links(const struct mixing *m)
{
    for (size_t i = 0; i < METRICS; i++) {
        uint8_t text[LINK_NAME_MAX];
        bool any = false;
        if (!metric_wanted(m, metrics[i]))
            continue;
        enum cht_rc rc =
            reduce_links_any(m->store, (struct cht_str){text, put_name(text, metrics[i])}, &any, m->err);
        if (rc != CHT_OK || any)
            return rc;
    }
    return CHT_FAIL(m->err, CHT_NO_LINKS, "%s", cht_rc_text(CHT_NO_LINKS));
}

/* Reads the links of the context of this order into m->list; *size 0: it has none. */
static enum cht_rc read_links(struct mixing *m, const struct place *at, enum reduce_metric *metric,
                              uint32_t *size)
{
    enum cht_rc rc = CHT_OK;
    *size = 0;
    for (size_t i = 0; i < METRICS && rc == CHT_OK; i++) {
        uint8_t text[LINK_NAME_MAX];
        struct cht_str name = {text, put_name(text, metrics[i])};
        if (!metric_wanted(m, metrics[i]))
            continue;
        text[name.n++] = (uint8_t)('0' + at->order);
        text[name.n++] = ':';
        memcpy(text + name.n, at->hash, LM_HASH_SIZE);
        name.n += LM_HASH_SIZE;
        rc = reduce_links_read(m->store, name, &m->list, size, m->err);
        if (rc == CHT_OK && *size > 0 && (*size < 3 || m->list.data[0] != 1))
            return lm_malformed(name, *size, "list of links", m->err);
        *metric = metrics[i];
        if (rc == CHT_OK && *size > 0 && reduce_payload_get16(m->list.data + 1) > 0)
            return CHT_OK;
        *size = 0;
        rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    }
    return rc;
}

/* Was the context counted so seldom that it is mixed? */
static enum cht_rc is_seldom(struct mixing *m, const struct place *at, bool *is)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = lm_entry_name(LM_CNT, at->order, at->hash, text);
    uint64_t key, total = 0;
    uint32_t size = 0;
    *is = true;
    if (m->q->seldom == UINT64_MAX)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(m->store, name, &key, &m->buf, &size, m->err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc == CHT_OK)
        rc = lm_counts_read(&m->counts, m->buf.data, size, name, m->err);
    for (uint32_t i = 0; rc == CHT_OK && i < m->counts.n; i++)
        total += m->counts.f[i].count;
    *is = total <= m->q->seldom;
    return rc;
}

/* m->sum becomes that of the contexts that m->list leads to, each times its weight; *all: of these weights. */
static enum cht_rc add_linked(struct mixing *m, uint32_t size, double *all, unsigned *linked)
{
    size_t at = 0;
    uint32_t left = 0;
    struct reduce_link link;
    bool malformed = false;
    enum cht_rc rc = CHT_OK;
    *all = 0.0;
    *linked = 0;
    m->sum.n = 0;
    m->sum.unknown = 0.0;
    while (rc == CHT_OK && *linked < LM_LINKED_MOST &&
           reduce_links_next(m->list.data, size, &at, &left, &link, &malformed)) {
        struct place to = {0};
        unsigned order = 0;
        bool is = false;
        if (!(link.weight > 0.0f && isfinite(link.weight)))
            continue;
        rc = place_of(m, link.name, &to, &is);
        if (rc == CHT_OK && is)
            rc = of_place(m, &to, &m->one, &order);
        if (rc != CHT_OK || !is ||
            order != to.order) /* it is not there, so it has no distribution of its own */
            continue;
        rc = add(m, &m->sum, &m->one, (double)link.weight);
        *all += (double)link.weight;
        (*linked)++;
    }
    if (rc == CHT_OK && malformed)
        rc = CHT_FAIL(m->err, CHT_MALFORMED_PAYLOAD, "a list of links is not what it must be");
    return rc;
}

/* ---- the mixture -------------------------------------------------------------------------------------------------- */

/* m->own is the distribution of the context of a->order; m->sum becomes the mixture. */
static enum cht_rc mix(struct mixing *m, struct lm_linked_answer *a)
{
    double all = 0.0;
    uint32_t size = 0;
    struct place at = {0};
    bool seldom = true;
    enum cht_rc rc = CHT_OK;
    for (unsigned n = a->order; n >= 1 && size == 0 && rc == CHT_OK; n--) {
        at = (struct place){.order = n, .n = n - 1};
        lm_context_name(n > 1 ? m->q->tokens + (m->q->n - (n - 1)) : NULL, n - 1, at.hash);
        rc = read_links(m, &at, &a->metric, &size);
    }
    if (rc == CHT_OK && size > 0)
        rc = is_seldom(m, &at, &seldom);
    m->sum.n = 0;
    m->sum.unknown = 0.0;
    if (rc == CHT_OK && size > 0 && seldom)
        rc = add_linked(m, size, &all, &a->linked);
    if (rc != CHT_OK)
        return rc;
    double weight = a->linked > 0 ? m->q->weight : 0.0;
    for (size_t i = 0; i < m->sum.n; i++)
        m->sum.s[i].p *= weight / all;
    m->sum.unknown *= all > 0.0 ? weight / all : 0.0;
    return weight < 1.0 ? add(m, &m->sum, &m->own, 1.0 - weight) : CHT_OK;
}

static enum cht_rc best_of(struct mixing *m, struct lm_linked_answer *a)
{
    enum cht_rc rc = CHT_OK;
    m->best.n = 0;
    for (size_t i = 0; i < m->sum.n && rc == CHT_OK; i++) {
        const struct share *s = &m->sum.s[i];
        struct lm_candidate c = {.token = s->token, .order = s->order, .p = s->p};
        rc = lm_best_offer(&m->best, &c, m->err);
    }
    lm_best_sort(&m->best);
    a->candidates = m->best.c;
    a->count = m->best.n;
    a->unknown = m->sum.unknown;
    return rc;
}

/* The answer of the context of at most this order; *answered: the order that did. */
static enum cht_rc answer_of(struct mixing *m, unsigned top, struct lm_linked_answer *a)
{
    const struct lm_linked_query *q = m->q;
    struct place at = {.order = top, .tokens = q->tokens, .n = q->n};
    *a = (struct lm_linked_answer){0};
    lm_context_name(top > 1 ? q->tokens + (q->n - (top - 1)) : NULL, top - 1, at.hash);
    enum cht_rc rc = of_place(m, &at, &m->own, &a->order);
    a->context_n = a->order > 0 ? a->order - 1 : 0;
    a->context = q->tokens + (q->n - a->context_n);
    if (rc == CHT_OK && a->order > 0)
        rc = mix(m, a);
    else
        m->sum.n = 0;
    return rc == CHT_OK ? best_of(m, a) : rc;
}

static enum cht_rc ask(struct mixing *m, void (*fn)(void *, const struct lm_linked_answer *), void *ctx)
{
    const struct lm_linked_query *q = m->q;
    struct lm_linked_answer a = {0};
    unsigned top = q->max_order == 0 || q->max_order > LM_ORDER_MAX ? LM_ORDER_MAX : q->max_order;
    enum cht_rc rc =
        q->live != NULL ? lm_kn_begin(q->live, m->err) : lm_smoothed(&m->view, m->store, NULL, m->err);
    if (rc == CHT_OK && q->live == NULL && q->max_order == 0 && q->mode == LM_PREDICT_LEVELS)
        rc = lm_view_highest(&m->view, &top, NULL, m->err);
    top = top > q->n + 1 ? (unsigned)q->n + 1 : top;
    bool down = q->mode == LM_PREDICT_LEVELS || (q->live == NULL && q->mode == LM_PREDICT_DEEPEST);
    for (unsigned n = top; n >= 1 && rc == CHT_OK; n--) {
        rc = answer_of(m, n, &a);
        n = q->live != NULL && rc == CHT_OK ? a.order : n;
        if (rc == CHT_OK && q->mode == LM_PREDICT_LEVELS) {
            a.order = n;
            a.context_n = n - 1;
            a.context = q->tokens + (q->n - a.context_n);
            fn(ctx, &a);
        } else if (rc == CHT_OK && (!down || a.count > 0)) {
            break;
        }
    }
    if (rc == CHT_OK && q->mode != LM_PREDICT_LEVELS)
        fn(ctx, &a);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_linked(struct cht_store *s, const struct lm_linked_query *q,
                      void (*fn)(void *ctx, const struct lm_linked_answer *a), void *ctx, struct cht_err *err)
{
    struct mixing m = {.store = s, .q = q, .best.k = q->k > 0 ? q->k : LM_K_DEFAULT, .err = err};
    bool again;
    if (!(q->weight >= 0.0 && q->weight <= 1.0))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the weight of links is from 0 to 1");
    m.params = (struct reduce_params){
        .memory_max = REDUCE_MEMORY_DEFAULT, .book = q->book, .unbook = q->unbook, .book_ctx = q->book_ctx};
    m.run.store = s;
    m.run.p = &m.params;
    enum cht_rc rc = some_links(&m);
    if (rc != CHT_OK)
        return rc;
    do {
        rc = ask(&m, fn, ctx);
        again = q->live != NULL ? lm_kn_again(q->live) : !lm_view_holds(&m.view);
        if (again)
            q->again(ctx);
    } while (again);
    drop(&m, &m.own);
    drop(&m, &m.one);
    drop(&m, &m.sum);
    drop(&m, &m.spare);
    cht_buf_free(&m.buf);
    cht_buf_free(&m.list);
    lm_counts_free(&m.counts);
    lm_best_free(&m.best);
    return rc;
}
