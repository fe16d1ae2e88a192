/* contexts: context relativism (lm_contexts of predict.h). */
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

static enum cht_rc show(struct asking *a, const struct cht_entry *e, struct lm_context *c,
                        struct cht_err *err)
{
    struct reduce_payload head;
    *c = (struct lm_context){.vector = {e->name + VECTOR_PREFIX, e->name_len - VECTOR_PREFIX}, .key = e->key};
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
            rc = show(a, &a->entries[i], &c, err);
            if (rc != CHT_OK)
                return rc;
            if (!fn(ctx, &c)) {
                *more = true;
                return CHT_OK;
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_contexts(struct cht_store *s, const struct lm_contexts_query *q,
                        bool (*fn)(void *ctx, const struct lm_context *c), void *ctx, bool *more,
                        struct cht_err *err)
{
    struct cht_buf prefix = {0}, after = {0};
    struct cht_scan *scan = NULL;
    bool local;
    more = more != NULL ? more : &local;
    *more = false;
    struct asking *a = cht_calloc(1, sizeof *a);
    enum cht_rc rc = a == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan") : CHT_OK;
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&prefix, 256, err);
    if (rc == CHT_OK) {
        memcpy(prefix.data, LM_CTXV, VECTOR_PREFIX);
        prefix.len = VECTOR_PREFIX;
        rc = lm_avo_encode(q->tree, q->depth, &prefix, err);
    }
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&after, VECTOR_PREFIX + q->after.n, err);
    if (rc == CHT_OK && prefix.len <= CHT_NAME_MAX) { /* no name is longer: nothing can start with it */
        struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true, .limit = q->limit};
        cfg.prefix = (struct cht_str){prefix.data, prefix.len};
        memcpy(after.data, LM_CTXV, VECTOR_PREFIX);
        if (q->after.n > 0) {
            memcpy(after.data + VECTOR_PREFIX, q->after.p, q->after.n);
            cfg.after = (struct cht_str){after.data, VECTOR_PREFIX + q->after.n};
        }
        a->store = s;
        rc = cht_scan_open(s, &cfg, &scan, err);
        if (rc == CHT_OK)
            rc = scan_all(a, scan, q, fn, ctx, more, err);
        cht_scan_close(scan);
    }
    cht_buf_free(&prefix);
    cht_buf_free(&after);
    if (a != NULL)
        cht_buf_free(&a->buf);
    cht_free(a);
    return rc;
}
