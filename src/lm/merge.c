/* merge: see merge.h. */
#include "lm/merge.h"

#include <string.h>

#include "base/alloc.h"
#include "lm/kn_merge.h"
#include "lm/maker.h"
#include "lm/names.h"
#include "lm/sweep.h"

struct merging {
    struct lm_making making; /* into the target */
    struct lm_maker maker;
    struct lm_counts counts;
    unsigned keep;      /* LM_KN_KEEP_... */
    struct cht_op *ops; /* owned */
    size_t n, cap;
    uint64_t contexts;
};

/* Room for that many operations more. */
static enum cht_rc reserve(struct merging *m, size_t more, struct cht_err *err)
{
    if (m->n + more <= m->cap)
        return CHT_OK;
    size_t cap = (m->n + more) * 2 + 256;
    struct cht_op *ops = cht_realloc(m->ops, cap * sizeof *ops);
    if (ops == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", cap);
    m->ops = ops;
    m->cap = cap;
    return CHT_OK;
}

/* lm_sweep_fn: counts of one context. */
static enum cht_rc take_counts(void *ctx, struct cht_str name, struct cht_str value, struct cht_err *err)
{
    struct merging *m = ctx;
    size_t prefix = LM_PREFIX_MAX - 2; /* "cnt:3:" */
    if (value.n == 0)
        return CHT_OK;
    if (name.n != prefix + LM_HASH_SIZE || name.p[4] < '1' || name.p[4] > '0' + (int)LM_ORDER_MAX)
        return lm_malformed(name, value.n, "counts payload", err);
    m->making.order = (unsigned)(name.p[4] - '0');
    m->making.any_counts = true;
    enum cht_rc rc = lm_counts_read(&m->counts, value.p, value.n, name, err);
    if (rc == CHT_OK)
        rc = lm_book(m->making.request, LM_MERGE_CONTEXT_COST + (uint64_t)m->counts.n * LM_MERGE_GRAM_COST,
                     err);
    if (rc == CHT_OK)
        rc = reserve(m, 1, err);
    if (rc == CHT_OK && m->counts.n > 0)
        rc = lm_make_counts(&m->maker, name.p + prefix, m->counts.f, m->counts.n, &m->ops[m->n], err);
    if (rc == CHT_OK && m->counts.n > 0) {
        m->n++;
        m->contexts++;
    }
    return rc;
}

/* lm_sweep_fn: one context that is registered. */
static enum cht_rc take_context(void *ctx, struct cht_str name, struct cht_str value, struct cht_err *err)
{
    struct merging *m = ctx;
    uint32_t tokens[LM_ORDER_MAX];
    bool made;
    size_t n = value.n >= 3 ? value.p[2] : 0;
    if (value.n == 0)
        return CHT_OK;
    if (name.n != LM_LENGTH(LM_CTX) + LM_HASH_SIZE || value.p[0] != 1 || n >= LM_ORDER_MAX ||
        value.n != 3 + 4 * n)
        return lm_malformed(name, value.n, "context payload", err);
    for (size_t i = 0; i < n; i++)
        tokens[i] = cht_be32(value.p + 3 + 4 * i);
    enum cht_rc rc = lm_book(m->making.request, LM_MERGE_CONTEXT_COST, err);
    if (rc == CHT_OK)
        rc = reserve(m, 2, err);
    if (rc == CHT_OK)
        rc = lm_make_context(&m->maker, tokens, n, name.p + LM_LENGTH(LM_CTX), &m->ops[m->n], &made, err);
    if (rc != CHT_OK || !made)
        return rc;
    m->n++;
    if (n == 0 || (m->keep & LM_KN_KEEP_CTXV) == 0)
        return CHT_OK;
    rc = lm_make_vector(&m->maker, tokens, n, &m->ops[m->n - 1], &m->ops[m->n], err);
    m->n += rc == CHT_OK;
    return rc;
}

/* The live models on both sides, if there are any. */
static enum cht_rc compare(struct merging *m, struct cht_store *from, struct lm_kn_count *live,
                           struct lm_kn_head *other, bool *has, struct cht_err *err)
{
    struct cht_buf buf = {0};
    enum cht_rc mine = lm_kn_count_begin(live, m->making.store, err);
    enum cht_rc theirs =
        mine == CHT_OK || mine == CHT_PAIR_NOT_FOUND ? lm_kn_head_get(from, other, &buf, NULL, err) : CHT_OK;
    cht_buf_free(&buf);
    *has = mine == CHT_OK;
    m->keep = *has ? live->old.flags & LM_KN_KEEP : LM_KN_KEEP;
    if (mine != CHT_OK && mine != CHT_PAIR_NOT_FOUND)
        return mine;
    if (theirs != CHT_OK && theirs != CHT_PAIR_NOT_FOUND)
        return theirs;
    if (mine != theirs)
        return CHT_FAIL(err, CHT_MODELS_DIFFER, "one database has a live model, the other has none");
    if (*has && (live->old.order != other->order || live->old.bos != other->bos ||
                 ((live->old.flags ^ other->flags) & LM_KN_EOS) != 0 || live->old.eos != other->eos))
        return CHT_FAIL(err, CHT_MODELS_DIFFER, "the live models have different parameters");
    if (*has && (m->keep & ~other->flags) != 0)
        return CHT_FAIL(err, CHT_MODELS_DIFFER, "the other database does not keep all that this one keeps");
    return CHT_OK;
}

static enum cht_rc make(struct merging *m, struct cht_store *from, struct lm_kn_count *live,
                        const struct lm_kn_head *other, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    m->making.any_contexts = true;
    if ((m->keep & LM_KN_KEEP_CNT) != 0)
        rc = lm_sweep(from, (struct cht_str){(const uint8_t *)LM_CNT_ALL, LM_LENGTH(LM_CNT_ALL)}, take_counts,
                      m, err);
    if (rc == CHT_OK && (m->keep & LM_KN_KEEP_CTX) != 0)
        rc = lm_sweep(from, (struct cht_str){(const uint8_t *)LM_CTX, LM_LENGTH(LM_CTX)}, take_context, m,
                      err);
    if (rc != CHT_OK || live == NULL)
        return rc;
    live->request = m->making.request;
    rc = lm_kn_merge_make(live, from, other, err);
    if (rc == CHT_OK)
        rc = reserve(m, live->n, err);
    if (rc == CHT_OK && live->n > 0) {
        memcpy(m->ops + m->n, live->ops, live->n * sizeof *live->ops);
        m->n += live->n;
    }
    return rc;
}

/* Under both gates. */
static enum cht_rc run(struct lm_engine *e, struct merging *m, struct cht_store *from,
                       struct lm_merge_result *out, struct cht_err *err)
{
    struct lm_kn_count live = {0};
    struct lm_kn_head other = {0};
    struct lm_kn_live *l = NULL;
    bool has = false;
    enum cht_rc rc = compare(m, from, &live, &other, &has, err);
    if (rc == CHT_OK)
        rc = make(m, from, has ? &live : NULL, &other, err);
    if (rc == CHT_OK && has)
        rc = lm_kn_count_publish(e, &live, &l, err);
    if (rc == CHT_OK) {
        struct lm_load load = {0};
        lm_kn_count_load(&live, &load);
        rc = lm_load_commit(&load, m->making.store, m->ops, m->n, CHT_COMMIT_ATOMIC | CHT_COMMIT_UNORDERED,
                            err);
        if (has)
            lm_kn_count_done(e, &live, l, rc);
    }
    *out =
        (struct lm_merge_result){.contexts = m->contexts, .contexts_created = m->maker.created, .live = has};
    if (has) {
        out->documents = other.documents;
        out->tokens = other.tokens;
        out->generation = live.now.generation;
        if ((m->keep & LM_KN_KEEP_CTX) == 0)
            out->contexts_created = live.created;
    }
    lm_kn_count_free(&live);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_merge(struct lm_engine *e, struct cht_store *to, struct cht_store *from,
                     struct lm_ngrams *request, struct lm_merge_result *out, struct cht_err *err)
{
    struct merging m = {.making = {.store = to, .request = request}};
    struct cht_store *first = (uintptr_t)to < (uintptr_t)from ? to : from, *second = first == to ? from : to;
    struct lm_gate *one, *two;
    *out = (struct lm_merge_result){0};
    if (to == from)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a database is not merged with itself");
    enum cht_rc rc = lm_gate_enter(e, first, LM_GATE_COUNT, NULL, &one, err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_gate_enter(e, second, LM_GATE_COUNT, NULL, &two, err);
    if (rc == CHT_OK) {
        m.maker.making = &m.making;
        rc = run(e, &m, from, out, err);
        lm_gate_leave(e, two, LM_GATE_COUNT);
    }
    lm_gate_leave(e, one, LM_GATE_COUNT);
    lm_maker_free(&m.maker);
    lm_counts_free(&m.counts);
    cht_free(m.ops);
    return rc;
}
