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
    struct lm_view view;
    struct cht_buf buf;
    uint32_t tokens[255];
    struct lm_candidate ranked[255];
    struct cht_entry entries[BATCH];
    uint8_t vector[LM_AVO_CONTEXT_BYTES]; /* of a context that was found by its tokens */
    /* contains: */
    uint32_t *leaves; /* owned: each once */
    size_t nleaves;
    const _Atomic bool *cancel;
    uint64_t shown;
};

static enum cht_rc look_up(struct asking *a, const struct lm_context *c, struct reduce_payload *head,
                           unsigned *order, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    *order = (unsigned)c->n + 1;
    *head = (struct reduce_payload){0};
    for (int attempt = 0; attempt < 2 && rc == CHT_OK && head->n == 0; attempt++, (*order)--) {
        if (*order >= 1 && *order <= LM_ORDER_MAX)
            rc = lm_lookup(&a->view, LM_TOPK, *order, c->hash, &a->buf, head, err);
    }
    return rc;
}

/* Each context's list is of one model. */
static enum cht_rc rank(struct asking *a, struct lm_context *c, struct cht_err *err)
{
    struct reduce_payload head = {0};
    enum cht_rc rc = CHT_OK;
    unsigned order = 0;
    bool again = a->view.store == NULL;
    do {
        if (again || !lm_view_holds(&a->view))
            rc = lm_view_open(&a->view, a->store, NULL, err);
        if (rc == CHT_OK)
            rc = look_up(a, c, &head, &order, err);
        again = !lm_view_holds(&a->view);
    } while (again);
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
            a->shown++;
            if (!fn(ctx, &c)) {
                *more = true;
                return CHT_OK;
            }
        }
    }
}

/* ---- permutations ---------------------------------------------------------------------------------------------- */

#define PERMUTED_MAX (LM_ORDER_MAX - 1) /* tokens of the longest context */

/* The tokens of a context, ascending, of which these bytes are the encoding. 0: they are that of another tree. */
static size_t tokens_of(const uint8_t *p, size_t n, uint32_t out[PERMUTED_MAX])
{
    uint8_t same[LM_AVO_CONTEXT_BYTES];
    size_t count = n < 3 ? 0 : (n - 3) / LM_AVO_TOKEN_BYTES;
    if (count == 0 || count > PERMUTED_MAX)
        return 0;
    for (size_t i = 0; i < count; i++)
        out[i] = reduce_payload_get32(p + 3 + i * LM_AVO_TOKEN_BYTES + LM_AVO_TOKEN_BYTES - 4);
    return lm_avo_context(out, count, same) == n && memcmp(same, p, n) == 0 ? count : 0;
}

/* The next one in lexicographic order; false: it was the last. */
static bool permute(uint32_t *t, size_t n)
{
    size_t i = n - 1, j = n - 1;
    while (i > 0 && t[i - 1] >= t[i])
        i--;
    if (i == 0)
        return false;
    while (t[j] <= t[i - 1])
        j--;
    uint32_t x = t[j];
    t[j] = t[i - 1];
    t[i - 1] = x;
    for (j = n - 1; i < j; i++, j--) {
        x = t[i];
        t[i] = t[j];
        t[j] = x;
    }
    return true;
}

/* Is it registered, under that name and as itself? */
static enum cht_rc registered(struct asking *a, const uint32_t *t, size_t n, struct cht_entry *e, bool *found,
                              struct cht_err *err)
{
    uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE];
    struct reduce_payload head;
    uint32_t size = 0;
    memcpy(text, LM_CTX, LM_LENGTH(LM_CTX));
    lm_context_name(t, n, text + LM_LENGTH(LM_CTX));
    *found = false;
    enum cht_rc rc =
        cht_store_pair_value(a->store, (struct cht_str){text, sizeof text}, &e->key, &a->buf, &size, err);
    if (rc != CHT_OK || size == 0 || !reduce_payload_context(a->buf.data, size, size, &head) || head.n != n)
        return rc == CHT_PAIR_NOT_FOUND || rc == CHT_CORRUPT ? CHT_OK : rc;
    *found = true;
    for (uint32_t i = 0; i < n; i++)
        *found =
            *found && reduce_payload_get32(head.records + (size_t)i * REDUCE_PAYLOAD_CONTEXT_RECORD) == t[i];
    e->value = a->buf.data;
    e->value_len = size;
    return CHT_OK;
}

/* Contexts that are permutations of each other have one vector, which leads to one of them. If that one was taken away, or no vectors are
 * kept, the first of the others answers. name: "ctxv:" and the encoding. */
static enum cht_rc show_permutation(struct asking *a, const struct lm_contexts_query *q, struct cht_str name,
                                    bool (*fn)(void *ctx, const struct lm_context *c), void *ctx,
                                    struct cht_err *err)
{
    uint32_t t[PERMUTED_MAX];
    size_t n = tokens_of(name.p + VECTOR_PREFIX, name.n - VECTOR_PREFIX, t);
    bool found = false, more = n > 0;
    struct cht_entry e = {.name = name.p, .name_len = (uint32_t)name.n};
    enum cht_rc rc = CHT_OK;
    for (; rc == CHT_OK && more && !found; more = permute(t, n)) {
        if (q->cancel != NULL && atomic_load_explicit(q->cancel, memory_order_relaxed))
            return CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        rc = registered(a, t, n, &e, &found, err);
        if (found)
            break;
    }
    if (rc != CHT_OK || !found)
        return rc;
    struct lm_context c;
    rc = show(a, q, &e, &c, err);
    if (rc == CHT_OK)
        (void)fn(ctx, &c);
    return rc;
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
        if (rc == CHT_OK && exact && a->shown == 0 && q->after.n == 0)
            rc = show_permutation(a, q, cfg.prefix, fn, ctx, err);
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
