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

/* Of the words that were entered. */
static enum cht_rc book_words(struct lm_ngrams *g, struct cht_err *err)
{
    size_t now = lm_words_memory(&g->words);
    if (now <= g->words_booked)
        return CHT_OK;
    enum cht_rc rc = lm_book(g, now - g->words_booked, err);
    g->words_booked = now;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_ngrams_add_text(struct lm_ngrams *g, struct cht_str text, bool take, size_t *tokens,
                               struct cht_err *err)
{
    const char *p = (const char *)text.p, *end = p + text.n;
    uint32_t *list = NULL;
    size_t n = 0, cap = 0, len;
    enum cht_rc rc = g->documents > 0 && !g->texts
                         ? CHT_FAIL(err, CHT_INVALID_TOKENS, "texts and tokens in one request")
                         : CHT_OK;
    for (; rc == CHT_OK && (len = lm_word_next(&p, end)) > 0; p += len) {
        uint32_t entry;
        if (!grow(&list, n + 3, &cap))
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a text");
        else
            rc = lm_words_enter(&g->words, p, len, &entry, err);
        if (rc != CHT_OK)
            break;
        g->words.w[entry].wanted = g->words.w[entry].wanted || !take;
        list[++n] = entry;
    }
    *tokens = n;
    if (rc == CHT_OK)
        rc = book_words(g, err);
    if (rc == CHT_OK && n > 0) {
        list[0] = LM_TEXT_BEGIN;
        list[n + 1] = LM_TEXT_END;
        g->texts = true;
        rc = add(g, list, n + 2, take, err);
    }
    cht_free(list);
    return rc;
}

enum cht_rc lm_texts_resolve(struct lm_ngrams *g, struct cht_store *s, const uint32_t ends[2], size_t *fresh,
                             struct cht_err *err)
{
    size_t at = 0, documents = 0;
    enum cht_rc rc = lm_words_resolve(&g->words, s, ends, fresh, err);
    if (rc != CHT_OK)
        return rc;
    g->taken = g->taken_tokens = 0;
    for (size_t d = 0; d < g->documents; d++) {
        size_t from = at, end = g->start[d + 1];
        bool take = g->take != NULL && g->take[d] != 0;
        for (size_t i = g->start[d]; i < end; i++) { /* it only becomes shorter */
            uint32_t t = g->tokens[i];
            t = t == LM_TEXT_BEGIN ? ends[0] : t == LM_TEXT_END ? ends[1] : g->words.w[t].token;
            if (t != LM_WORD_UNKNOWN)
                g->tokens[at++] = t;
        }
        if (at - from < 2) {
            at = from;
            continue;
        }
        g->taken += take;
        g->taken_tokens += take ? at - from : 0;
        if (g->take != NULL)
            g->take[documents] = take;
        g->start[documents++] = (uint32_t)from;
    }
    g->documents = documents;
    g->ntokens = at;
    if (g->start != NULL)
        g->start[documents] = (uint32_t)at;
    return CHT_OK;
}

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
    lm_words_free(&g->words);
    cht_free(g);
}
