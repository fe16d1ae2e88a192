/* smooth_order: the probabilities of one context. */
#include "lm/names.h"
#include "lm/smooth_int.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "base/prefetch.h"
#include "lm/view.h"
#include "reduce/payload.h"

#pragma STDC FP_CONTRACT OFF

/* Where the probabilities one order down come from. Tokens are asked for in ascending order. */
struct lower {
    enum { LOWER_NONE, LOWER_ROOT, LOWER_TABLE, LOWER_PAYLOAD } from;
    struct lm_parent table;
    const uint8_t *records;
    uint32_t n, at; /* all before `at` are smaller than the token asked for last */
};

static uint32_t token_at(const struct lower *l, uint32_t i)
{
    return l->from == LOWER_TABLE
               ? l->table.token[i]
               : reduce_payload_get32(l->records + (size_t)i * REDUCE_PAYLOAD_PROBS_RECORD);
}

/* The first position from l->at on whose token is not smaller: by doubling steps, then by halves. */
static uint32_t seek(const struct lower *l, uint32_t token)
{
    uint32_t lo = l->at, step = 1;
    while (lo < l->n && token_at(l, lo) < token) {
        if (step < l->n - lo && token_at(l, lo + step) < token) {
            lo += step;
            step *= 2;
        } else if (step > 1) {
            step /= 2;
        } else {
            return lo + 1;
        }
    }
    return lo;
}

/* q of the token there, -1 if there is none. */
static int lower_q(const struct lm_smooth *s, struct lower *l, uint32_t token)
{
    if (l->from == LOWER_ROOT) {
        const struct lm_word *w = lm_vocab_find(&s->vocab, token);
        return w != NULL ? (int)w->root - 1 : -1;
    }
    if (l->from == LOWER_NONE)
        return -1;
    l->at = seek(l, token);
    if (l->at >= l->n || token_at(l, l->at) != token)
        return -1;
    return l->from == LOWER_TABLE ? l->table.q[l->at]
                                  : l->records[(size_t)l->at * REDUCE_PAYLOAD_PROBS_RECORD + 4];
}

/* The parent's entry in the database, if the table does not have it. */
static enum cht_rc stored_parent(struct lm_smooth_worker *w, const uint8_t hash[LM_HASH_SIZE],
                                 struct lower *l, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_PROB, w->run->order - 1, text)};
    memcpy(text + name.n, hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    uint64_t key;
    uint32_t size;
    struct reduce_payload head;
    enum cht_rc rc = cht_store_pair_value(w->run->store, name, &key, &w->parent, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    if (!reduce_payload_probs(w->parent.data, size, size, &head))
        return lm_malformed(name, size, "probabilities", err);
    *l = (struct lower){.from = LOWER_PAYLOAD, .records = head.records, .n = head.n};
    return CHT_OK;
}

/* The name of the parent: the context without its first token. */
static enum cht_rc parent_name(struct lm_smooth_worker *w, struct cht_str suffix,
                               uint8_t parent[LM_HASH_SIZE], bool *has_parent, struct cht_err *err)
{
    uint8_t text[LM_LENGTH(LM_CTX) + CHT_NAME_MAX];
    uint64_t key;
    uint32_t size, tokens[255];
    struct reduce_payload head;
    *has_parent = false;
    memcpy(CHT_PUT(text, LM_CTX), suffix.p, suffix.n);
    struct cht_str name = {text, LM_LENGTH(LM_CTX) + suffix.n};
    enum cht_rc rc = cht_store_pair_value(w->run->store, name, &key, &w->context, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc == CHT_CORRUPT || (rc == CHT_OK && !reduce_payload_context(w->context.data, size, size, &head))) {
        atomic_fetch_add_explicit(&w->run->malformed, 1, memory_order_relaxed);
        return CHT_OK; /* as if it were missing */
    }
    if (rc != CHT_OK)
        return rc;
    if (head.n < 2)
        return CHT_OK;
    for (uint32_t i = 1; i < head.n; i++)
        tokens[i] = reduce_payload_get32(head.records + (size_t)i * REDUCE_PAYLOAD_CONTEXT_RECORD);
    lm_context_name(tokens + 1, head.n - 1, parent);
    *has_parent = true;
    return CHT_OK;
}

/* The context among those whose visit is near; NULL if it is not. Those before it are not visited any more. */
static const struct lm_smooth_near *near_of(struct lm_smooth_worker *w, struct cht_str suffix)
{
    for (unsigned i = w->near_from; suffix.n == LM_HASH_SIZE && i != w->near_to; i++) {
        const struct lm_smooth_near *at = &w->near[i % LM_SMOOTH_NEAR];
        if (memcmp(at->suffix, suffix.p, LM_HASH_SIZE) == 0) {
            w->near_from = i + 1;
            return at;
        }
    }
    return NULL;
}

static enum cht_rc find_lower(struct lm_smooth_worker *w, struct cht_str suffix, struct lower *l,
                              struct cht_err *err)
{
    const struct lm_smooth *s = w->run;
    *l = (struct lower){.from = s->order == 1 ? LOWER_NONE : LOWER_ROOT};
    if (s->order == 1)
        return CHT_OK;
    struct lm_smooth_near direct;
    const struct lm_smooth_near *at = near_of(w, suffix);
    if (at == NULL) {
        enum cht_rc rc = parent_name(w, suffix, direct.parent, &direct.has_parent, err);
        if (rc != CHT_OK)
            return rc;
        at = &direct;
    }
    if (!at->has_parent)
        return CHT_OK;
    l->from = LOWER_NONE;
    l->table = lm_parents_find(s->below, at->parent);
    if (l->table.n > 0) {
        l->from = LOWER_TABLE;
        l->n = l->table.n;
        return CHT_OK;
    }
    return atomic_load_explicit(&s->below->incomplete, memory_order_relaxed)
               ? stored_parent(w, at->parent, l, err)
               : CHT_OK;
}

static enum cht_rc reserve(struct lm_smooth_worker *w, size_t n, struct cht_err *err)
{
    if (n <= w->cap)
        return CHT_OK;
    size_t cap = n + n / 2;
    uint32_t *tokens = cht_realloc(w->tokens, cap * sizeof *tokens);
    if (tokens != NULL)
        w->tokens = tokens;
    uint8_t *q = tokens != NULL ? cht_realloc(w->q, cap) : NULL;
    if (q == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu followers", n);
    w->q = q;
    w->cap = cap;
    return CHT_OK;
}

/* Step 3 and 4: fills w->tokens and w->q; returns alpha. */
static double probabilities(struct lm_smooth_worker *w, struct lower *l, const struct lm_counts *c,
                            double total)
{
    const struct lm_smooth *s = w->run;
    double b[4] = {0.0, 0.0, 0.0, 0.0};
    for (uint32_t i = 0; i < c->n; i++)
        b[c->f[i].count < 3 ? c->f[i].count : 3] += 1.0;
    double alpha = (s->d[1] * b[1] + s->d[2] * b[2] + s->d[3] * b[3]) / total;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t token = c->f[i].token, k = c->f[i].count;
        int q = lower_q(s, l, token);
        double lower = q >= 0 ? s->dequant[q] : lm_smooth_lower0(s, token);
        double rest = (double)k - s->d[k < 3 ? k : 3];
        double p = (rest > 0.0 ? rest : 0.0) / total + alpha * lower;
        w->tokens[i] = token;
        w->q[i] = lm_quantize(p);
    }
    return alpha;
}

static struct cht_str entry_name(const char *kind, unsigned order, struct cht_str suffix, uint8_t *text)
{
    size_t n = lm_prefix(kind, order, text);
    memcpy(text + n, suffix.p, suffix.n);
    return (struct cht_str){text, n + suffix.n};
}

/* Returns the bytes. */
static size_t fill_probs(const struct lm_smooth_worker *w, uint8_t *v, uint32_t n, uint16_t alpha)
{
    uint8_t *r = v + reduce_payload_begin(v, w->run->order, n);
    for (uint32_t i = 0; i < n; i++, r += REDUCE_PAYLOAD_PROBS_RECORD) {
        reduce_payload_put32(r, w->tokens[i]);
        r[4] = w->q[i];
        reduce_payload_put16(r + 5, alpha);
    }
    return (size_t)(r - v);
}

static enum cht_rc put_probs(struct lm_smooth_worker *w, struct cht_str name, uint32_t n, uint16_t alpha,
                             struct cht_err *err)
{
    struct lm_smooth *s = w->run;
    size_t most = REDUCE_PAYLOAD_HEAD_MAX + (size_t)n * REDUCE_PAYLOAD_PROBS_RECORD;
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str root = lm_root_name(text);
    enum cht_rc rc;
    if (name.n == root.n && memcmp(name.p, root.p, root.n) == 0) {
        rc = cht_buf_reserve(&s->root, most, err);
        s->root.len = rc == CHT_OK ? fill_probs(w, s->root.data, n, alpha) : 0;
        return rc;
    }
    rc = cht_buf_reserve(&w->made, most, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_str value = {w->made.data, fill_probs(w, w->made.data, n, alpha)};
    return lm_smooth_put(s, &w->keeper, name, value, err);
}

/* Tokens come in ascending order, so one that is only as good as the last of the list stays out. */
static enum cht_rc put_topk(struct lm_smooth_worker *w, struct cht_str name, uint32_t n, struct cht_err *err)
{
    uint32_t best[LM_TOPK_MAX], have = 0, k = w->run->topk;
    for (uint32_t i = 0; i < n && k > 0; i++) {
        if (have == k && w->q[i] <= w->q[best[have - 1]])
            continue;
        uint32_t at = have < k ? have++ : have - 1;
        for (; at > 0 && w->q[best[at - 1]] < w->q[i]; at--)
            best[at] = best[at - 1];
        best[at] = i;
    }
    uint8_t value[3 + LM_TOPK_MAX * REDUCE_PAYLOAD_TOPK_RECORD], *r = value;
    *r++ = 1;
    *r++ = (uint8_t)w->run->order;
    *r++ = (uint8_t)have;
    for (uint32_t i = 0; i < have; i++, r += REDUCE_PAYLOAD_TOPK_RECORD) {
        reduce_payload_put32(r, w->tokens[best[i]]);
        r[4] = w->q[best[i]];
    }
    return lm_smooth_put(w->run, &w->keeper, name, (struct cht_str){value, (size_t)(r - value)}, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

double lm_smooth_lower0(const struct lm_smooth *s, uint32_t token)
{
    const struct lm_word *w = lm_vocab_find(&s->vocab, token);
    return w != NULL && w->contexts > 0 ? (double)w->contexts / s->sum : LM_LOWER_NONE;
}

enum cht_rc lm_smooth_context(void *worker, struct cht_str suffix, const struct lm_counts *counts,
                              uint64_t total, struct cht_err *err)
{
    struct lm_smooth_worker *w = worker;
    struct lm_smooth *s = w->run;
    struct lower lower;
    uint8_t text[LM_PREFIX_MAX + CHT_NAME_MAX];
    if (lm_prefix(LM_PROB, s->order, text) + suffix.n > CHT_NAME_MAX) { /* nobody counted it */
        atomic_fetch_add_explicit(&s->malformed, 1, memory_order_relaxed);
        return CHT_OK;
    }
    enum cht_rc rc = reserve(w, counts->n, err);
    if (rc == CHT_OK)
        rc = find_lower(w, suffix, &lower, err);
    if (rc != CHT_OK)
        return rc;
    double alpha = probabilities(w, &lower, counts, (double)total);
    rc = put_probs(w, entry_name(LM_PROB, s->order, suffix, text), counts->n, lm_quantize_alpha(alpha), err);
    if (rc == CHT_OK)
        rc = put_topk(w, entry_name(LM_TOPK, s->order, suffix, text), counts->n, err);
    if (rc == CHT_OK && s->here != NULL && suffix.n == LM_HASH_SIZE)
        lm_parents_add(s->here, suffix.p, w->tokens, w->q, counts->n);
    w->written++;
    return rc;
}

/* The parents of neighbours lie anywhere: their places in the table are fetched now, their followers half way to the visit. */
enum cht_rc lm_smooth_ahead(void *worker, struct cht_str suffix, struct cht_err *err)
{
    struct lm_smooth_worker *w = worker;
    if (suffix.n != LM_HASH_SIZE)
        return CHT_OK;
    if (w->near_to - w->near_from == LM_SMOOTH_NEAR) /* visits that did not come */
        w->near_from++;
    struct lm_smooth_near *at = &w->near[w->near_to % LM_SMOOTH_NEAR];
    memcpy(at->suffix, suffix.p, LM_HASH_SIZE);
    enum cht_rc rc = parent_name(w, suffix, at->parent, &at->has_parent, err);
    if (rc != CHT_OK)
        return rc;
    if (at->has_parent)
        lm_parents_prefetch(w->run->below, at->parent);
    w->near_to++;
    if (w->near_to - w->near_from <= LM_WALK_AHEAD / 2)
        return CHT_OK;
    at = &w->near[(w->near_to - 1 - LM_WALK_AHEAD / 2) % LM_SMOOTH_NEAR];
    struct lm_parent parent =
        at->has_parent ? lm_parents_find(w->run->below, at->parent) : (struct lm_parent){0};
    if (parent.n > 0) {
        cht_prefetch(parent.token);
        cht_prefetch(parent.q);
    }
    return CHT_OK;
}
