/* contexts: context relativism (lm_contexts of predict.h). */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cheetah/scan.h"
#include "lm/lookup.h"
#include "lm/names.h"
#include "lm/predict.h"
#include "lm/quant.h"

#define BATCH 64u
#define VECTOR_PREFIX LM_LENGTH(LM_CTXV)

struct asking {
    struct cht_store *store;
    struct cht_buf buf;
    uint32_t tokens[255];
    struct lm_candidate ranked[255];
    struct cht_entry entries[BATCH];
    uint8_t vector[LM_AVO_CONTEXT_BYTES]; /* of a context that was found by its tokens */
    /* contains: */
    uint32_t *leaves; /* owned: each once */
    size_t nleaves;
    const _Atomic bool *cancel;
};

static enum cht_rc rank(struct asking *a, struct lm_context *c, struct cht_err *err)
{
    struct reduce_payload head = {0};
    enum cht_rc rc = CHT_OK;
    unsigned order = (unsigned)c->n + 1;
    for (int attempt = 0; attempt < 2 && rc == CHT_OK && head.n == 0; attempt++, order--) {
        if (order >= 1 && order <= LM_ORDER_MAX)
            rc = lm_lookup(a->store, LM_TOPK, order, c->hash, &a->buf, &head, err);
    }
    if (rc == CHT_MALFORMED_PAYLOAD) /* one entry that is not ours does not end the stream */
        rc = CHT_OK;
    for (uint32_t i = 0; i < head.n && rc == CHT_OK; i++) {
        const uint8_t *r = head.records + (size_t)i * REDUCE_PAYLOAD_TOPK_RECORD;
        a->ranked[i] =
            (struct lm_candidate){reduce_payload_get32(r), r[4], (uint8_t)(order + 1), lm_dequantize(r[4])};
    }
    c->ranked = a->ranked;
    c->ranked_n = head.n;
    return rc;
}

static enum cht_rc show(struct asking *a, const struct lm_contexts_query *q, const struct cht_entry *e,
                        struct lm_context *c, struct cht_err *err)
{
    struct reduce_payload head;
    bool exact = q->match == LM_CONTEXTS_EXACT;
    size_t prefix = exact ? VECTOR_PREFIX : LM_LENGTH(LM_CTX);
    *c = (struct lm_context){.cursor = {e->name + prefix, e->name_len - prefix}, .key = e->key};
    if (exact)
        c->vector = c->cursor;
    bool whole = e->value != NULL && e->flags == 0; /* a context is at most 1 023 bytes */
    if (!whole || !reduce_payload_context(e->value, e->value_len, e->value_len, &head)) {
        c->malformed = true;
        return CHT_OK;
    }
    for (uint32_t i = 0; i < head.n; i++)
        a->tokens[i] = reduce_payload_get32(head.records + (size_t)i * REDUCE_PAYLOAD_CONTEXT_RECORD);
    c->order_size = head.order;
    c->tokens = a->tokens;
    c->n = head.n;
    lm_context_name(a->tokens, head.n, c->hash);
    if (!exact && head.n > 0 && head.n <= LM_AVO_CONTEXT_MAX) /* the empty context has none */
        c->vector = (struct cht_str){a->vector, lm_avo_context(a->tokens, head.n, a->vector)};
    return rank(a, c, err);
}

static enum cht_rc scan_all(struct asking *a, struct cht_scan *scan, const struct lm_contexts_query *q,
                            bool (*fn)(void *ctx, const struct lm_context *c), void *ctx, bool *more,
                            struct cht_err *err)
{
    for (;;) {
        size_t n;
        enum cht_rc rc = cht_scan_next(scan, a->entries, BATCH, &n, err);
        if (rc != CHT_OK)
            return rc;
        if (n == 0) {
            *more = !cht_scan_exhausted(scan);
            return CHT_OK;
        }
        for (size_t i = 0; i < n; i++) {
            struct lm_context c;
            if (q->cancel != NULL && atomic_load_explicit(q->cancel, memory_order_relaxed))
                return CHT_FAIL(err, CHT_CANCELLED, "cancelled");
            rc = show(a, q, &a->entries[i], &c, err);
            if (rc != CHT_OK)
                return rc;
            if (!fn(ctx, &c)) {
                *more = true;
                return CHT_OK;
            }
        }
    }
}

/* ---- contains -------------------------------------------------------------------------------------------------- */

/* How many leaves there are, and with `out` which. NOLINTNEXTLINE(misc-no-recursion): at most LM_AVO_DEPTH_MAX deep */
static size_t leaves(const struct lm_node *n, long depth, uint32_t *out)
{
    size_t count = 0;
    if (!n->list) {
        if (out != NULL)
            out[0] = n->value;
        return 1;
    }
    for (size_t i = 0; i < n->n && depth != 0; i++) /* a list at the depth is an empty one */
        count += leaves(&n->children[i], depth > 0 ? depth - 1 : depth, out != NULL ? out + count : NULL);
    return count;
}

static int by_number(const void *x, const void *y)
{
    const uint32_t *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static enum cht_rc take_leaves(struct asking *a, const struct lm_contexts_query *q, struct cht_err *err)
{
    size_t n = leaves(q->tree, q->depth, NULL), left = 0;
    a->leaves = cht_malloc((n + 1) * sizeof *a->leaves);
    if (a->leaves == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu leaves", n);
    (void)leaves(q->tree, q->depth, a->leaves);
    qsort(a->leaves, n, sizeof *a->leaves, by_number);
    for (size_t i = 0; i < n; i++) {
        if (left == 0 || a->leaves[left - 1] != a->leaves[i])
            a->leaves[left++] = a->leaves[i];
    }
    a->nleaves = left;
    a->cancel = q->cancel;
    return CHT_OK;
}

static bool has_token(const struct reduce_payload *c, uint32_t token)
{
    for (uint32_t i = 0; i < c->n; i++) {
        if (reduce_payload_get32(c->records + (size_t)i * REDUCE_PAYLOAD_CONTEXT_RECORD) == token)
            return true;
    }
    return false;
}

/* cht_scan_render, on the workers: the payload of a context that has all leaves; all else is passed over. */
static size_t matching(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    const struct asking *a = ctx;
    struct reduce_payload head;
    bool stop = a->cancel != NULL && atomic_load_explicit(a->cancel, memory_order_relaxed);
    if (stop || e->value == NULL || e->flags != 0 ||
        !reduce_payload_context(e->value, e->value_len, e->value_len, &head) || a->nleaves > head.n)
        return CHT_SCAN_SKIP;
    for (size_t i = 0; i < a->nleaves; i++) {
        if (!has_token(&head, a->leaves[i]))
            return CHT_SCAN_SKIP;
    }
    if (e->value_len > room)
        return SIZE_MAX;
    memcpy(out, e->value, e->value_len);
    return e->value_len;
}

/* ---- the scan -------------------------------------------------------------------------------------------------- */

static enum cht_rc put_prefix(struct cht_buf *b, const char *text, size_t n, size_t more, struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(b, n + more, err);
    if (rc == CHT_OK) {
        memcpy(b->data, text, n);
        b->len = n;
    }
    return rc;
}

static enum cht_rc ask(struct asking *a, const struct lm_contexts_query *q,
                       bool (*fn)(void *ctx, const struct lm_context *c), void *ctx, bool *more,
                       struct cht_err *err)
{
    bool exact = q->match == LM_CONTEXTS_EXACT;
    const char *kind = exact ? LM_CTXV : LM_CTX;
    size_t n = exact ? VECTOR_PREFIX : LM_LENGTH(LM_CTX);
    struct cht_buf prefix = {0}, after = {0};
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true, .limit = q->limit};
    struct cht_scan *scan = NULL;
    enum cht_rc rc = put_prefix(&prefix, kind, n, 256, err);
    if (rc == CHT_OK)
        rc = exact ? lm_avo_encode(q->tree, q->depth, &prefix, err) : take_leaves(a, q, err);
    if (rc == CHT_OK)
        rc = put_prefix(&after, kind, n, q->after.n, err);
    if (rc == CHT_OK && prefix.len <= CHT_NAME_MAX) { /* no name is longer: nothing can start with it */
        cfg.prefix = (struct cht_str){prefix.data, prefix.len};
        cfg.render = exact ? NULL : matching;
        cfg.render_ctx = a;
        if (q->after.n > 0) {
            memcpy(after.data + n, q->after.p, q->after.n);
            cfg.after = (struct cht_str){after.data, n + q->after.n};
        }
        rc = cht_scan_open(a->store, &cfg, &scan, err);
        if (rc == CHT_OK)
            rc = scan_all(a, scan, q, fn, ctx, more, err);
        cht_scan_close(scan);
    }
    cht_buf_free(&prefix);
    cht_buf_free(&after);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_contexts(struct cht_store *s, const struct lm_contexts_query *q,
                        bool (*fn)(void *ctx, const struct lm_context *c), void *ctx, bool *more,
                        struct cht_err *err)
{
    bool local;
    more = more != NULL ? more : &local;
    *more = false;
    struct asking *a = cht_calloc(1, sizeof *a);
    if (a == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    a->store = s;
    enum cht_rc rc = ask(a, q, fn, ctx, more, err);
    if (rc == CHT_OK && q->cancel != NULL && atomic_load_explicit(q->cancel, memory_order_relaxed))
        rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
    cht_buf_free(&a->buf);
    cht_free(a->leaves);
    cht_free(a);
    return rc;
}
