/* take: documents that are taken away from the counts (ngrams_int.h). A context's counts are read, changed by what comes and goes
 * together, and written, or deleted with the context's other names where no follower is left. */
#include "lm/ngrams_int.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/avo.h"
#include "lm/hash.h"
#include "lm/names.h"
#include "reduce/payload.h"

#define CHUNK ((size_t)64 << 10)
#define OPS_OF_CONTEXT 3u /* counts, context, vector */

struct lm_chunk {
    struct lm_chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

static uint8_t *room(struct lm_taking *t, size_t n)
{
    struct lm_chunk *c = t->chunks;
    if (c == NULL || c->size - c->used < n) {
        size_t size = n > CHUNK ? n : CHUNK;
        c = cht_malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct lm_chunk){.next = t->chunks, .size = size};
        t->chunks = c;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

/* Room for `more` operations after n. */
static enum cht_rc grow(struct cht_op **ops, size_t n, size_t *cap, size_t more, struct cht_err *err)
{
    if (n + more <= *cap)
        return CHT_OK;
    size_t want = (n + more) * 2;
    struct cht_op *p = cht_realloc(*ops, want * sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", want);
    *ops = p;
    *cap = want;
    return CHT_OK;
}

/* A context, its name in the database, and what becomes of it. */
struct context {
    const uint32_t *tokens;
    size_t n;
    uint8_t hash[LM_HASH_SIZE];
};

/* The value under a name, in t->value; size 0: there is none. */
static enum cht_rc read(struct lm_taking *t, struct cht_str name, uint64_t *key, uint32_t *size,
                        struct cht_err *err)
{
    enum cht_rc rc = cht_store_pair_value(t->store, name, key, &t->value, size, err);
    if (rc != CHT_PAIR_NOT_FOUND)
        return rc;
    *key = 0;
    *size = 0;
    return CHT_OK;
}

/* An upsert of n bytes, or with n 0 a deletion; returns where the value goes. NULL: no memory. */
static uint8_t *put_op(struct lm_taking *t, struct cht_str name, size_t n)
{
    uint8_t *p = room(t, name.n + n);
    if (p == NULL)
        return NULL;
    memcpy(p, name.p, name.n);
    t->ops[t->n++] = (struct cht_op){.kind = n > 0 ? CHT_OP_PAIR_PUT : CHT_OP_PAIR_DEL,
                                     .with_values = true,
                                     .name = {p, name.n},
                                     .value = {p + name.n, n}};
    return p + name.n;
}

/* t->counts and f (changes, modulo 2^32) become the followers after, without those at 0. f has room for all. */
static enum cht_rc merge(struct lm_taking *t, const struct lm_follower *by, uint32_t n,
                         struct lm_follower *out, uint32_t *left, struct cht_err *err)
{
    const struct lm_counts *c = &t->counts;
    uint32_t i = 0, at = 0;
    for (uint32_t j = 0; j < n; j++) {
        int64_t before = 0, step = (int32_t)by[j].count;
        for (; i < c->n && c->f[i].token < by[j].token; i++)
            out[at++] = c->f[i];
        if (i < c->n && c->f[i].token == by[j].token)
            before = c->f[i++].count;
        int64_t after = before == UINT32_MAX || before + step > UINT32_MAX ? UINT32_MAX : before + step;
        if (after < 0)
            return CHT_FAIL(err, CHT_NOT_COUNTED, "the count of token %u would fall below 0", by[j].token);
        if (after > 0)
            out[at++] = (struct lm_follower){by[j].token, (uint32_t)after};
    }
    for (; i < c->n; i++)
        out[at++] = c->f[i];
    *left = at;
    return CHT_OK;
}

static enum cht_rc put_counts(struct lm_taking *t, struct cht_str name, unsigned order,
                              const struct lm_follower *f, uint32_t n, struct cht_err *err)
{
    uint8_t *v = put_op(t, name, n > 0 ? lm_counts_size(n) : 0);
    if (v == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counts of %u followers", n);
    if (n > 0)
        t->ops[t->n - 1].value.n = lm_counts_write(v, order, f, n);
    return CHT_OK;
}

/* The counts of one context. *had, *has: there were some, there are some now. */
static enum cht_rc change_counts(struct lm_taking *t, const struct context *c, const struct lm_follower *by,
                                 uint32_t n, bool *had, bool *has, struct cht_err *err)
{
    unsigned order = (unsigned)c->n + 1;
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_CNT, order, text)};
    uint64_t key;
    uint32_t size, left = 0;
    memcpy(text + name.n, c->hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = read(t, name, &key, &size, err);
    t->counts.n = 0;
    if (rc == CHT_OK && size > 0)
        rc = lm_counts_read(&t->counts, t->value.data, size, name, err);
    if (rc == CHT_MALFORMED_PAYLOAD || rc == CHT_CORRUPT) { /* it stays, and so does the context */
        t->malformed++;
        *had = *has = true;
        return CHT_OK;
    }
    if (rc == CHT_OK)
        rc = lm_book_stored(t->request, t->counts.n, err);
    if (rc != CHT_OK)
        return rc;
    *had = size > 0;
    struct lm_follower *out = cht_malloc(((size_t)t->counts.n + n + 1) * sizeof *out);
    if (out == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u followers", t->counts.n + n);
    rc = merge(t, by, n, out, &left, err);
    *has = left > 0;
    if (rc == CHT_OK && (*had || *has))
        rc = put_counts(t, name, order, out, left, err);
    cht_free(out);
    return rc;
}

/* ---- `ctx:` and `ctxv:` ------------------------------------------------------------------------------------------- */

static struct cht_str context_name(const struct context *c, uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE])
{
    memcpy(CHT_PUT(text, LM_CTX), c->hash, LM_HASH_SIZE);
    return (struct cht_str){text, LM_LENGTH(LM_CTX) + LM_HASH_SIZE};
}

static struct cht_str vector_name(const struct context *c, uint8_t *text)
{
    return (struct cht_str){text, LM_LENGTH(LM_CTXV) +
                                      lm_avo_context(c->tokens, c->n, (uint8_t *)CHT_PUT(text, LM_CTXV))};
}

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context");
}

/* A context that has counts is registered, as ngrams.c does it. */
static enum cht_rc add_context(struct lm_taking *t, const struct context *c, struct cht_err *err)
{
    uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE], vector[LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES];
    struct cht_str name = context_name(c, text);
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = read(t, name, &key, &size, err);
    if (rc == CHT_CORRUPT) /* it is registered, though nobody can read what is there */
        return CHT_OK;
    if (rc != CHT_OK || size > 0)
        return rc;
    uint8_t *v = put_op(t, name, 3 + 4 * c->n);
    if (v == NULL)
        return no_memory(err);
    v[0] = 1;
    v[1] = v[2] = (uint8_t)c->n;
    for (size_t i = 0; i < c->n; i++)
        reduce_payload_put32(v + 3 + 4 * i, c->tokens[i]);
    t->created++;
    if (!t->vectors || c->n == 0)
        return CHT_OK;
    const struct cht_op *context = &t->ops[t->n - 1];
    if (put_op(t, vector_name(c, vector), 0) == NULL)
        return no_memory(err);
    struct cht_op *link = &t->ops[t->n - 1];
    link->kind = CHT_OP_PAIR_LINK;
    link->value = context->name;
    link->back = 1;
    return CHT_OK;
}

/* One without counts goes, and its vector unless that is another context's (a permutation's) by now. */
static enum cht_rc drop_context(struct lm_taking *t, const struct context *c, struct cht_err *err)
{
    uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE], vector[LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES];
    struct cht_str name = context_name(c, text);
    uint64_t key, other;
    enum cht_rc rc = cht_store_pair(t->store, name, &key, err);
    if (rc != CHT_OK)
        return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    if (put_op(t, name, 0) == NULL)
        return no_memory(err);
    if (!t->vectors || c->n == 0)
        return CHT_OK;
    struct cht_str second = vector_name(c, vector);
    rc = cht_store_pair(t->store, second, &other, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && other != key))
        return CHT_OK;
    if (rc == CHT_OK)
        rc = grow(&t->drops, t->ndrops, &t->drops_cap, 1, err);
    if (rc == CHT_OK && put_op(t, second, 0) == NULL)
        return no_memory(err);
    if (rc == CHT_OK) {
        t->drops[t->ndrops] = t->ops[--t->n];
        t->drops[t->ndrops++].with_values = false; /* it is the context's, which deletes it */
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc take_order(struct lm_taking *t, const struct lm_grams *g, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < g->nused && rc == CHT_OK; i++) {
        uint32_t at = g->used[i];
        struct context c = {.tokens = lm_grams_context(g, at), .n = g->order - 1};
        bool had, has;
        lm_context_name(c.n > 0 ? c.tokens : NULL, c.n, c.hash);
        rc = grow(&t->ops, t->n, &t->cap, OPS_OF_CONTEXT, err);
        if (rc == CHT_OK)
            rc = change_counts(t, &c, g->followers + g->offset[at], g->offset[at + 1] - g->offset[at], &had,
                               &has, err);
        if (rc != CHT_OK || !t->contexts)
            continue;
        if (has)
            rc = add_context(t, &c, err);
        else if (had)
            rc = drop_context(t, &c, err);
    }
    return rc;
}

enum cht_rc lm_taking_make(struct lm_taking *t, const struct lm_text *text, unsigned order,
                           struct cht_err *err)
{
    struct lm_grams grams;
    enum cht_rc rc = lm_grams_begin(&grams, text, err);
    for (unsigned n = 1; n <= order && rc == CHT_OK; n++) {
        rc = lm_grams_next(&grams, err);
        if (rc == CHT_OK)
            rc = take_order(t, &grams, err);
    }
    lm_grams_free(&grams);
    if (rc == CHT_OK)
        rc = grow(&t->ops, t->n, &t->cap, t->ndrops, err);
    if (rc != CHT_OK || t->ndrops == 0)
        return rc;
    memmove(t->ops + t->ndrops, t->ops, t->n * sizeof *t->ops);
    memcpy(t->ops, t->drops, t->ndrops * sizeof *t->ops);
    t->n += t->ndrops;
    return CHT_OK;
}

void lm_taking_free(struct lm_taking *t)
{
    while (t->chunks != NULL) {
        struct lm_chunk *c = t->chunks;
        t->chunks = c->next;
        cht_free(c);
    }
    lm_counts_free(&t->counts);
    cht_buf_free(&t->value);
    cht_free(t->ops);
    cht_free(t->drops);
    *t = (struct lm_taking){0};
}
