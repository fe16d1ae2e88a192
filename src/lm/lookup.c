/* lookup: see lookup.h. */
#include "lm/lookup.h"

#include "lm/names.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define FEW 64u /* candidates that are sorted by insertion */

static void sift_down(struct lm_candidate *c, size_t n, size_t at)
{
    struct lm_candidate x = c[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < n && lm_worse(&c[child + 1], &c[child]))
            child++;
        if (child >= n || !lm_worse(&c[child], &x))
            break;
        c[at] = c[child];
        at = child;
    }
    c[at] = x;
}

static int best_first(const void *x, const void *y) { return lm_worse(x, y) ? 1 : lm_worse(y, x) ? -1 : 0; }

/* ------------------------------------------------------------------------------------------------------------ */

struct cht_str lm_entry_name(const char *kind, unsigned order, const uint8_t hash[LM_HASH_SIZE],
                             uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE])
{
    struct cht_str name = {text, lm_prefix(kind, order, text)};
    memcpy(text + name.n, hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    return name;
}

enum cht_rc lm_lookup_take(enum cht_rc rc, const char *kind, struct cht_str name, const struct lm_value *v,
                           struct reduce_payload *head, struct cht_err *err)
{
    *head = (struct reduce_payload){0};
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && v->size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    bool topk = kind[0] == 't';
    bool good = topk ? reduce_payload_topk(v->data, v->size, v->size, head)
                     : reduce_payload_probs(v->data, v->size, v->size, head);
    if (good)
        return CHT_OK;
    *head = (struct reduce_payload){0};
    return lm_malformed(name, v->size, topk ? "topk list" : "probabilities", err);
}

enum cht_rc lm_lookup(const struct lm_view *v, const char *kind, unsigned order,
                      const uint8_t hash[LM_HASH_SIZE], struct cht_buf *buf, struct reduce_payload *head,
                      struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = lm_entry_name(kind, order, hash, text);
    struct cht_pair_value pv = {.out = buf};
    enum cht_rc rc = lm_view_read(v, name, &pv, NULL, err);
    return lm_lookup_take(rc, kind, name, &(struct lm_value){buf->data, pv.size}, head, err);
}

enum cht_rc lm_lookup_all(const struct lm_view *v, unsigned order, const uint8_t hash[LM_HASH_SIZE],
                          uint32_t n, struct cht_wait *w, bool *all)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_pair_value pv = {.out = NULL};
    enum cht_rc rc = lm_view_read(v, lm_entry_name(LM_PROB, order, hash, text), &pv, w, NULL);
    *all =
        rc == CHT_OK && pv.size == 4 + n * REDUCE_PAYLOAD_PROBS_RECORD; /* version 1: a topk list is short */
    return rc == CHT_PENDING ? rc : CHT_OK;
}

enum cht_rc lm_smoothed(struct lm_view *v, struct cht_store *s, struct cht_wait *w, struct cht_err *err)
{
    enum cht_rc rc = lm_view_open(v, s, w, err);
    if (rc == CHT_OK && !v->smoothed)
        return CHT_FAIL(err, CHT_NOT_SMOOTHED, "%s", cht_rc_text(CHT_NOT_SMOOTHED));
    return rc;
}

int lm_lookup_token(const struct reduce_payload *probs, uint32_t token)
{
    uint32_t lo = 0, hi = probs->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (reduce_payload_get32(probs->records + (size_t)mid * REDUCE_PAYLOAD_PROBS_RECORD) < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == probs->n)
        return -1; /* of a list without records there is no pointer either */
    const uint8_t *r = probs->records + (size_t)lo * REDUCE_PAYLOAD_PROBS_RECORD;
    return reduce_payload_get32(r) == token ? r[4] : -1;
}

double lm_lookup_weight(const struct reduce_payload *probs)
{
    uint16_t alpha = reduce_payload_get16(probs->records + 5);
    return alpha != REDUCE_PAYLOAD_NO_ALPHA ? (double)alpha / 1000.0 : 1.0;
}

enum cht_rc lm_best_offer(struct lm_best *b, const struct lm_candidate *c, struct cht_err *err)
{
    if (b->n == b->k) {
        if (b->k > 0 && lm_worse(&b->c[0], c)) {
            b->c[0] = *c;
            sift_down(b->c, b->n, 0);
        }
        return CHT_OK;
    }
    if (b->n == b->cap) {
        size_t cap = b->cap < 32 ? 32 : b->cap * 2;
        struct lm_candidate *p = cht_realloc(b->c, cap * sizeof *p);
        if (p == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu candidates", cap);
        b->c = p;
        b->cap = cap;
    }
    size_t at = b->n++;
    for (; at > 0 && lm_worse(c, &b->c[(at - 1) / 2]); at = (at - 1) / 2)
        b->c[at] = b->c[(at - 1) / 2];
    b->c[at] = *c;
    return CHT_OK;
}

void lm_best_sort(struct lm_best *b)
{
    if (b->n > FEW) {
        qsort(b->c, b->n, sizeof *b->c, best_first);
        return;
    }
    for (size_t i = 1; i < b->n; i++) {
        struct lm_candidate x = b->c[i];
        size_t at = i;
        for (; at > 0 && lm_worse(&b->c[at - 1], &x); at--)
            b->c[at] = b->c[at - 1];
        b->c[at] = x;
    }
}

void lm_best_free(struct lm_best *b)
{
    cht_free(b->c);
    *b = (struct lm_best){NULL, 0, 0, 0};
}
