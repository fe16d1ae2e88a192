/* documents: what a request counts, until it is committed (ngrams.h). */
#include <string.h>

#include "base/alloc.h"
#include "lm/ngrams_int.h"

#define TOKENS_MAX (UINT32_C(1) << 31)

static bool grow(uint32_t **p, size_t need, size_t *cap)
{
    if (need <= *cap)
        return true;
    size_t want = need < 1024 ? 2048 : need * 2;
    uint32_t *q = cht_realloc(*p, want * sizeof *q);
    if (q == NULL)
        return false;
    *p = q;
    *cap = want;
    return true;
}

static enum cht_rc add(struct lm_ngrams *g, const uint32_t *tokens, size_t n, bool take, struct cht_err *err)
{
    if (n < 2)
        return CHT_OK;
    if (n > TOKENS_MAX - g->ntokens)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "more than %u tokens in one request", TOKENS_MAX);
    size_t documents_cap = g->documents_cap;
    if (g->ntokens + n > g->tokens_cap) {
        enum cht_rc rc = lm_book(g, 2 * (g->ntokens + n - g->tokens_cap) * sizeof *g->tokens, err);
        if (rc != CHT_OK)
            return rc;
    }
    if (!grow(&g->tokens, g->ntokens + n, &g->tokens_cap) ||
        !grow(&g->start, g->documents + 2, &g->documents_cap))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", g->ntokens + n);
    if (g->documents_cap > documents_cap || (take && g->take == NULL)) {
        uint8_t *p = take || g->take != NULL ? cht_calloc(g->documents_cap, 1) : NULL;
        if (p == NULL && (take || g->take != NULL)) {
            g->documents_cap = documents_cap; /* asked for again */
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu documents", g->documents + 1);
        }
        if (g->take != NULL)
            memcpy(p, g->take, g->documents);
        cht_free(g->take);
        g->take = p;
    }
    memcpy(g->tokens + g->ntokens, tokens, n * sizeof *tokens);
    if (take) {
        g->take[g->documents] = 1;
        g->taken++;
        g->taken_tokens += n;
    }
    g->start[g->documents++] = (uint32_t)g->ntokens;
    g->ntokens += n;
    g->start[g->documents] = (uint32_t)g->ntokens;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_ngrams_begin(unsigned order, struct lm_ngrams **out, struct cht_err *err)
{
    if (order != LM_NGRAMS_OWN && (order < 1 || order > LM_ORDER_MAX))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "order %u; 1 to %u are possible", order, LM_ORDER_MAX);
    struct lm_ngrams *g = cht_calloc(1, sizeof *g);
    if (g == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for documents");
    g->order = order != LM_NGRAMS_OWN ? order : 0;
    *out = g;
    return CHT_OK;
}

enum cht_rc lm_ngrams_add_document(struct lm_ngrams *g, const uint32_t *tokens, size_t n, struct cht_err *err)
{
    return add(g, tokens, n, false, err);
}

enum cht_rc lm_ngrams_take_document(struct lm_ngrams *g, const uint32_t *tokens, size_t n,
                                    struct cht_err *err)
{
    return add(g, tokens, n, true, err);
}

void lm_ngrams_bound(struct lm_ngrams *g, enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err),
                     void *ctx)
{
    g->book = book;
    g->book_ctx = ctx;
}

void lm_ngrams_once(struct lm_ngrams *g, const char *id)
{
    size_t n = strlen(id);
    memcpy(g->once, id, n < sizeof g->once ? n + 1 : 0);
}

void lm_ngrams_free(struct lm_ngrams *g)
{
    if (g == NULL)
        return;
    cht_free(g->tokens);
    cht_free(g->start);
    cht_free(g->take);
    cht_free(g);
}
