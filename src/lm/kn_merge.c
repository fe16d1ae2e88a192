/* kn_merge: see kn_merge.h. Records come in the order of their names, contexts with the nearest token first: so the windows are sorted as
 * kn_windows.h wants them. Each is written out as text of its own. */
#include "lm/kn_merge.h"

#include "base/alloc.h"
#include "lm/ngrams_int.h"
#include "lm/sweep.h"

#define WINDOW_COST 2u /* arrays grow by half: that many times what lies in them */

struct reading {
    struct lm_kn_count *count;
    struct lm_kn_deltas *to;
    size_t cap; /* of to->d */
    unsigned order;
    uint32_t bos;
};

/* Room for n windows more. */
static enum cht_rc reserve(struct reading *r, size_t n, struct cht_err *err)
{
    struct lm_kn_text *t = &r->count->text;
    size_t tokens = n * r->order;
    if (tokens > LM_KN_TEXT_MAX - t->n)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "more than %u tokens in one request", LM_KN_TEXT_MAX);
    enum cht_rc rc = CHT_OK;
    if (r->count->request != NULL)
        rc =
            lm_book(r->count->request, WINDOW_COST * (tokens * sizeof *t->token + n * sizeof *r->to->d), err);
    if (rc != CHT_OK)
        return rc;
    if (t->n + tokens > t->cap) {
        size_t cap = t->n + tokens + t->n / 2 + 256;
        uint32_t *p = cht_realloc(t->token, cap * sizeof *p);
        if (p == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", cap);
        t->token = p;
        t->cap = cap;
    }
    if (r->to->n + n > r->cap) {
        size_t cap = r->to->n + n + r->to->n / 2 + 256;
        struct lm_kn_delta *d = cht_realloc(r->to->d, cap * sizeof *d);
        if (d == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", cap);
        r->to->d = d;
        r->cap = cap;
    }
    return CHT_OK;
}

/* lm_sweep_fn: one record; of lower orders only those whose context begins with bos. */
static enum cht_rc take_record(void *ctx, struct cht_str name, struct cht_str value, struct cht_err *err)
{
    struct reading *r = ctx;
    struct lm_kn_text *t = &r->count->text;
    struct lm_kn_record rec;
    struct lm_kn_walk w;
    size_t tokens = r->order - 1;
    if (name.n != 5 + 4 * (tokens > 0 ? tokens : 1))
        return lm_malformed(name, value.n, "record of a live model", err);
    if (r->order < r->count->old.order && cht_be32(name.p + name.n - 4) != r->bos)
        return CHT_OK;
    if (tokens == 0 ? !lm_kn_page_read(name, value.p, value.n, &rec)
                    : !lm_kn_record_read(r->order, value.p, value.n, &rec) || !lm_kn_record_sound(&rec))
        return lm_malformed(name, value.n, "record of a live model", err);
    enum cht_rc rc = reserve(r, rec.n, err);
    lm_kn_walk_begin(&w, &rec);
    while (rc == CHT_OK && lm_kn_walk_next(&w)) {
        for (size_t i = tokens; i > 0; i--)
            t->token[t->n++] = cht_be32(name.p + 5 + 4 * (i - 1));
        t->token[t->n] = w.token;
        r->to->d[r->to->n++] = (struct lm_kn_delta){(uint32_t)t->n++, (int32_t)w.a};
        if (w.a > INT32_MAX)
            rc = CHT_FAIL(err, CHT_NUMBER_OVERFLOW, "token %u was counted more than %d times", w.token,
                          INT32_MAX);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_merge_make(struct lm_kn_count *c, struct cht_store *from, const struct lm_kn_head *h,
                             struct cht_err *err)
{
    struct lm_kn_windows w = {0};
    enum cht_rc rc = CHT_OK;
    for (unsigned m = 1; m <= h->order && rc == CHT_OK; m++) {
        struct reading r = {.count = c, .to = &w.m[m], .order = m, .bos = h->bos};
        uint8_t prefix[LM_KN_NAME_MAX];
        if (m > 1 || h->order == 1)
            rc = lm_sweep(from, (struct cht_str){prefix, lm_kn_prefix(m, prefix)}, take_record, &r, err);
    }
    c->documents = h->documents;
    c->text.predicted = h->tokens;
    if (rc == CHT_OK)
        rc = lm_kn_count_make_of(c, &w, err);
    lm_kn_windows_free(&w);
    return rc;
}
