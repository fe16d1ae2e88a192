/* predict: next-token candidates (see predict.h). The best k of one context come from its probabilities if they are few, else
 * from its topk: list if that is long enough, so that the answer from a root with a large vocabulary does not read all of it. */
#include "lm/predict.h"

#include <string.h>

#include "lm/lookup.h"
#include "lm/names.h"
#include "lm/quant.h"

#define FEW_BYTES \
    (REDUCE_PAYLOAD_HEAD_MAX + 64 * REDUCE_PAYLOAD_PROBS_RECORD) /* of probabilities that are read at once */

struct asking {
    struct lm_view view;
    const struct lm_predict_query *q;
    unsigned k, top; /* top: the deepest order that is asked for */
    struct cht_buf buf;
    struct lm_best best;
    struct cht_err *err;
};

/* `prob:<n>:` of the context of order n; kept in q->names if there are some. Returns its length. */
static size_t prob_name(const struct lm_predict_query *q, unsigned n,
                        uint8_t out[LM_PREFIX_MAX + LM_HASH_SIZE])
{
    uint8_t *kept = q->names != NULL ? q->names->prob[n] : out;
    size_t len = lm_prefix(LM_PROB, n, kept);
    if (q->names == NULL || (q->names->made >> n & 1) == 0)
        lm_context_name(n > 1 ? q->tokens + (q->n - (n - 1)) : NULL, n - 1, kept + len);
    if (q->names != NULL)
        q->names->made |= 1u << n;
    if (kept != out)
        memcpy(out, kept, len + LM_HASH_SIZE);
    return len + LM_HASH_SIZE;
}

/* The context of order n. */
static struct lm_prediction context_of(const struct lm_predict_query *q, unsigned n)
{
    uint8_t name[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct lm_prediction p = {.order = n, .context_n = n - 1};
    p.context = n > 1 ? q->tokens + (q->n - (n - 1)) : NULL;
    memcpy(p.hash, name + prob_name(q, n, name) - LM_HASH_SIZE, LM_HASH_SIZE);
    return p;
}

/* The deepest order that may be looked at where nothing is known of the database. */
static unsigned deepest(const struct lm_predict_query *q)
{
    unsigned top = q->max_order == 0 || q->max_order > LM_ORDER_MAX ? LM_ORDER_MAX : q->max_order;
    return top > q->n + 1 ? (unsigned)q->n + 1 : top;
}

/* Offers the records of a topk or probabilities payload: token u32, q u8 at the start of each. */
static enum cht_rc offer(struct asking *a, const struct reduce_payload *head, size_t record, unsigned order)
{
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < head->n && rc == CHT_OK; i++) {
        const uint8_t *r = head->records + (size_t)i * record;
        struct lm_candidate c = {reduce_payload_get32(r), r[4], (uint8_t)order, lm_dequantize(r[4])};
        rc = lm_best_offer(&a->best, &c, a->err);
    }
    return rc;
}

/* The best k of one context from its probabilities if they are few: one look, most contexts have a few followers.
 * *there: unknown or yes; *done: a->best is the answer. What is not as it should be is left to best_of. */
static enum cht_rc best_of_few(struct asking *a, const struct lm_prediction *p, bool *there, bool *done)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_PROB, p->order, text)};
    struct reduce_payload probs;
    memcpy(text + name.n, p->hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    bool once = a->view.old; /* the key's value may be the new one by the next look */
    struct cht_pair_value pv = {.out = once ? &a->buf : NULL};
    enum cht_rc rc = lm_view_read(&a->view, name, &pv, a->q->wait, NULL);
    uint32_t size = pv.size;
    *there = rc != CHT_PAIR_NOT_FOUND && (rc != CHT_OK || size > 0);
    *done = false;
    if (rc == CHT_OK && size > 0 && size <= FEW_BYTES && !once)
        rc = cht_store_get_soon(a->view.store, pv.key, &a->buf, &size, a->q->wait, NULL);
    if (rc == CHT_PENDING)
        return rc;
    if (rc != CHT_OK || size == 0 || size > FEW_BYTES ||
        !reduce_payload_probs(a->buf.data, size, size, &probs) || probs.n == 0)
        return CHT_OK;
    *done = true;
    return offer(a, &probs, REDUCE_PAYLOAD_PROBS_RECORD, p->order);
}

/* A payload of the context; none is no failure. */
static enum cht_rc look_up(struct asking *a, const char *kind, const struct lm_prediction *p,
                           struct cht_buf *buf, struct reduce_payload *out)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_pair_value pv = {.out = buf};
    struct cht_str name = lm_entry_name(kind, p->order, p->hash, text);
    *out = (struct reduce_payload){0};
    enum cht_rc rc = lm_view_read(&a->view, name, &pv, a->q->wait, a->err);
    return lm_lookup_take(rc, kind, name, &(struct lm_value){buf->data, pv.size}, out, a->err);
}

/* The best k from its topk list, or if that is not long enough from all probabilities, if there are any. */
static enum cht_rc best_of_many(struct asking *a, const struct lm_prediction *p, bool there)
{
    struct reduce_payload topk, probs;
    bool all = false;
    enum cht_rc rc = look_up(a, LM_TOPK, p, &a->buf, &topk);
    if (rc == CHT_OK)
        rc = offer(a, &topk, REDUCE_PAYLOAD_TOPK_RECORD, p->order);
    if (rc != CHT_OK || !there || topk.n >= a->k)
        return rc;
    if (topk.n > 0)
        rc = lm_lookup_all(&a->view, p->order, p->hash, topk.n, a->q->wait, &all);
    if (rc != CHT_OK || all)
        return rc;
    rc = look_up(a, LM_PROB, p, &a->buf, &probs);
    if (rc != CHT_OK || probs.n == 0)
        return rc;
    a->best.n = 0;
    return offer(a, &probs, REDUCE_PAYLOAD_PROBS_RECORD, p->order);
}

/* The best k of one context into a->best; none if it is not there. */
static enum cht_rc best_of(struct asking *a, struct lm_prediction *p)
{
    bool there, done;
    a->best.n = 0;
    enum cht_rc rc = best_of_few(a, p, &there, &done);
    if (rc == CHT_OK && !done)
        rc = best_of_many(a, p, there);
    lm_best_sort(&a->best);
    p->candidates = a->best.c;
    p->count = a->best.n;
    return rc;
}

static enum cht_rc levels(struct asking *a, void (*fn)(void *, const struct lm_prediction *), void *ctx)
{
    for (unsigned n = a->top; n >= 1; n--) {
        struct lm_prediction p = context_of(a->q, n);
        enum cht_rc rc = best_of(a, &p);
        if (rc != CHT_OK)
            return rc;
        fn(ctx, &p);
    }
    return CHT_OK;
}

static enum cht_rc deepest_level(struct asking *a, struct lm_prediction *answer)
{
    for (unsigned n = a->top; n >= 1; n--) {
        struct lm_prediction p = context_of(a->q, n);
        enum cht_rc rc = best_of(a, &p);
        if (rc != CHT_OK)
            return rc;
        if (p.count > 0) {
            *answer = p;
            return CHT_OK;
        }
    }
    return CHT_OK;
}

/* ---- blend ----------------------------------------------------------------------------------------------------- */

/* The payloads that were gone through, of the orders above the root: a token counts where it is met first. */
struct blending {
    struct asking *a;
    struct cht_buf buf[LM_ORDER_MAX + 1]; /* of the order; [0]: of the root's list */
    struct reduce_payload level[LM_ORDER_MAX];
    unsigned levels;
    struct reduce_payload list; /* the root's topk list once it was gone through */
    double mass;                /* what the deeper contexts leave */
};

static bool seen(const struct blending *b, uint32_t token)
{
    for (unsigned i = 0; i < b->levels; i++) {
        if (lm_lookup_token(&b->level[i], token) >= 0)
            return true;
    }
    for (uint32_t i = 0; i < b->list.n; i++) {
        if (reduce_payload_get32(b->list.records + (size_t)i * REDUCE_PAYLOAD_TOPK_RECORD) == token)
            return true;
    }
    return false;
}

static struct lm_candidate blend_candidate(const struct blending *b, const uint8_t *r, unsigned order)
{
    return (struct lm_candidate){reduce_payload_get32(r), r[4], (uint8_t)order,
                                 b->mass * lm_dequantize(r[4])};
}

/* Tokens of one order that no deeper one has, with the mass that is left for it. */
static enum cht_rc blend_offer(struct blending *b, const struct reduce_payload *in, size_t record,
                               unsigned order)
{
    struct lm_best *best = &b->a->best;
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < in->n && rc == CHT_OK; i++) {
        struct lm_candidate c = blend_candidate(b, in->records + (size_t)i * record, order);
        if (lm_best_wants(best, &c) && !seen(b, c.token))
            rc = lm_best_offer(best, &c, b->a->err);
    }
    return rc;
}

/* The root from its topk list. *done: no other token of the root can be one of the best: all are worse than the list's last. */
static enum cht_rc blend_root_list(struct blending *b, const struct lm_prediction *p, bool *done)
{
    struct asking *a = b->a;
    struct reduce_payload list;
    enum cht_rc rc = look_up(a, LM_TOPK, p, &b->buf[0], &list);
    if (rc == CHT_MALFORMED_PAYLOAD) /* the probabilities answer */
        return CHT_OK;
    if (rc == CHT_OK && list.n > 0)
        rc = lm_lookup_all(&a->view, 1, p->hash, list.n, a->q->wait, done);
    if (rc != CHT_OK || list.n == 0)
        return rc;
    rc = blend_offer(b, &list, REDUCE_PAYLOAD_TOPK_RECORD, 1);
    struct lm_candidate last =
        blend_candidate(b, list.records + (size_t)(list.n - 1) * REDUCE_PAYLOAD_TOPK_RECORD, 1);
    *done = *done || !lm_best_wants(&a->best, &last);
    b->list = list;
    return rc;
}

static enum cht_rc blend_level(struct blending *b, unsigned n, struct lm_prediction *answer)
{
    struct asking *a = b->a;
    struct lm_prediction p = context_of(a->q, n);
    struct reduce_payload probs;
    bool done = false;
    if (n == 1) {
        enum cht_rc rc = blend_root_list(b, &p, &done);
        answer->order = answer->order == 0 ? 1 : answer->order; /* the root is there: lm_smoothed */
        if (rc != CHT_OK || done)
            return rc;
    }
    enum cht_rc rc = look_up(a, LM_PROB, &p, &b->buf[n], &probs);
    if (rc != CHT_OK || probs.n == 0)
        return rc;
    if (answer->order == 0)
        *answer = p;
    rc = blend_offer(b, &probs, REDUCE_PAYLOAD_PROBS_RECORD, n);
    if (n > 1)
        b->level[b->levels++] = probs;
    b->mass *= lm_lookup_weight(&probs);
    return rc;
}

static enum cht_rc blend(struct asking *a, struct lm_prediction *answer)
{
    struct blending b = {.a = a, .mass = 1.0};
    enum cht_rc rc = CHT_OK;
    a->best.n = 0;
    for (unsigned n = a->top; n >= 1 && rc == CHT_OK; n--)
        rc = blend_level(&b, n, answer);
    for (unsigned n = 0; n <= LM_ORDER_MAX; n++)
        cht_buf_free(&b.buf[n]);
    if (rc != CHT_OK)
        return rc;
    lm_best_sort(&a->best);
    answer->candidates = a->best.c;
    answer->count = a->best.n;
    return CHT_OK;
}

/* The answer of the model that the view shows; levels are told to fn at once. */
static enum cht_rc ask(struct asking *a, struct cht_store *s, struct lm_prediction *answer,
                       void (*fn)(void *ctx, const struct lm_prediction *p), void *ctx)
{
    const struct lm_predict_query *q = a->q;
    *answer = (struct lm_prediction){0};
    enum cht_rc rc = lm_smoothed(&a->view, s, q->wait, a->err);
    a->top = deepest(q); /* orders that are not there cost a look each, less than finding the highest */
    if (rc == CHT_OK && q->max_order == 0 && q->mode == LM_PREDICT_LEVELS) {
        rc = lm_view_highest(&a->view, &a->top, q->wait, a->err);
        a->top = a->top > q->n + 1 ? (unsigned)q->n + 1 : a->top;
    }
    if (rc != CHT_OK)
        return rc;
    if (q->mode == LM_PREDICT_LEVELS)
        return levels(a, fn, ctx);
    return q->mode == LM_PREDICT_BLEND ? blend(a, answer) : deepest_level(a, answer);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_predict(struct cht_store *s, const struct lm_predict_query *q,
                       void (*fn)(void *ctx, const struct lm_prediction *p), void *ctx, struct cht_err *err)
{
    struct asking a = {.q = q, .k = q->k > 0 ? q->k : LM_K_DEFAULT, .err = err};
    struct lm_prediction answer;
    if (a.k > LM_K_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "k %u; 1 to %u are possible", a.k, LM_K_MAX);
    a.best.k = a.k;
    enum cht_rc rc = ask(&a, s, &answer, fn, ctx);
    while (rc != CHT_PENDING && !lm_view_holds(&a.view)) {
        if (q->again != NULL)
            q->again(ctx);
        rc = ask(&a, s, &answer, fn, ctx);
    }
    if (rc == CHT_OK && q->mode != LM_PREDICT_LEVELS)
        fn(ctx, &answer);
    cht_buf_free(&a.buf);
    lm_best_free(&a.best);
    return rc;
}

size_t lm_predict_hints(const struct lm_predict_query *q, struct cht_hint *hints, size_t max)
{
    uint8_t name[LM_PREFIX_MAX + LM_HASH_SIZE];
    size_t n = 0;
    if (q->mode == LM_PREDICT_DEEPEST && max > 2) /* mostly the deepest order that there is answers */
        max = q->max_order > 0 ? 1 : 2;
    for (unsigned order = deepest(q); order >= 1 && n < max; order--)
        hints[n++] = (struct cht_hint){.name = {q->names->prob[order], prob_name(q, order, name)}};
    return n;
}
