/* ngrams: see ngrams.h. A commit:
 *
 *   N1 under the database's counting gate, order by order: count in memory (grams.h)
 *   N2 for each context that was met, ascending by name: read its counts if the database can have any, add, make the
 *      operation; then the same for registering it; then its vector as a second name, ascending by vector. Neighbours in
 *      the trie and later in a scan are so written one after the other. Of contexts that share a vector the one that was met
 *      last gets it.
 *   N3 one atomic commit of all orders
 *
 * The operations' names and payloads lie in an arena that is let go of behind N3.
 */
#include "lm/ngrams.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "lm/avo.h"
#include "lm/grams.h"
#include "lm/hash.h"
#include "lm/rank.h"
#include "os/io.h"
#include "reduce/payload.h"

#define CHUNK ((size_t)1 << 20) /* the first: most requests are small */
#define CHUNK_NEXT ((size_t)16 << 20)
#define TOKENS_MAX (UINT32_C(1) << 31)

struct chunk {
    struct chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

struct lm_ngrams {
    unsigned order;
    uint32_t *tokens; /* owned */
    uint32_t *start;  /* owned: documents + 1 */
    size_t ntokens, tokens_cap, documents, documents_cap;
};

/* What a commit is made of. */
struct batch {
    struct cht_store *store;
    struct cht_op *ops; /* owned */
    size_t n, cap;
    struct chunk *chunks; /* owned: the newest first */
    struct lm_counts counts;
    struct cht_buf value;
    bool any_counts, any_contexts; /* the database may have some of this order */
    uint64_t created;
    struct cht_err *err;
};

static uint8_t *arena(struct batch *b, size_t n)
{
    struct chunk *c = b->chunks;
    if (c == NULL || c->size - c->used < n) {
        size_t usual = c == NULL ? CHUNK : CHUNK_NEXT, size = n > usual ? n : usual;
        c = cht_malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct chunk){.next = b->chunks, .size = size};
        cht_os_huge_pages(c, sizeof *c + size);
        b->chunks = c;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

static void batch_free(struct batch *b)
{
    while (b->chunks != NULL) {
        struct chunk *c = b->chunks;
        b->chunks = c->next;
        cht_free(c);
    }
    cht_free(b->ops);
    lm_counts_free(&b->counts);
    cht_buf_free(&b->value);
}

/* Room for the operations of one context, so that adding them cannot fail. */
static enum cht_rc reserve_ops(struct batch *b, size_t n)
{
    if (b->n + n <= b->cap)
        return CHT_OK;
    size_t cap = (b->n + n) * 2;
    struct cht_op *ops = cht_realloc(b->ops, cap * sizeof *ops);
    if (ops == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for %zu operations", cap);
    cht_os_huge_pages(ops, cap * sizeof *ops);
    b->ops = ops;
    b->cap = cap;
    return CHT_OK;
}

static void add_op(struct batch *b, enum cht_op_kind kind, struct cht_str name, struct cht_str value)
{
    b->ops[b->n++] = (struct cht_op){.kind = kind, .name = name, .value = value};
}

/* What the database has under the name is added to the counts of this request in b->counts. */
static enum cht_rc add_stored(struct batch *b, struct cht_str name)
{
    uint64_t key;
    uint32_t size;
    b->counts.n = 0;
    if (!b->any_counts)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(b->store, name, &key, &b->value, &size, b->err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    return lm_counts_read(&b->counts, b->value.data, size, name, b->err);
}

static enum cht_rc counts_op(struct batch *b, unsigned order, const uint8_t hash[LM_HASH_SIZE],
                             const struct lm_follower *f, uint32_t n)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix("cnt", order, text)};
    memcpy(text + name.n, hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = add_stored(b, name);
    if (rc == CHT_OK && b->counts.n > 0) {
        rc = lm_counts_add(&b->counts, f, n, b->err);
        f = b->counts.f;
        n = b->counts.n;
    }
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = arena(b, name.n + PAYLOAD_HEAD_MAX + (size_t)n * PAYLOAD_COUNTS_RECORD);
    if (p == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for the counts of %u followers", n);
    memcpy(p, text, name.n);
    name.p = p;
    uint8_t *v = p + name.n, *r = v + payload_begin(v, order, n);
    for (uint32_t i = 0; i < n; i++, r += PAYLOAD_COUNTS_RECORD) {
        payload_put32(r, f[i].token);
        payload_put32(r + 4, f[i].count);
    }
    add_op(b, CHT_OP_PAIR_PUT, name, (struct cht_str){v, (size_t)(r - v)});
    return CHT_OK;
}

/* Registers the context if it is not; *op is the number of the operation behind it, 0 if there is none. */
static enum cht_rc context_op(struct batch *b, const uint32_t *tokens, size_t n,
                              const uint8_t hash[LM_HASH_SIZE], uint32_t *op)
{
    uint8_t *p = arena(b, 4 + LM_HASH_SIZE + 3 + n * 4);
    *op = 0;
    if (p == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for a context");
    struct cht_str name = {p, 4 + LM_HASH_SIZE};
    memcpy(p, "ctx:", 4);
    memcpy(p + 4, hash, LM_HASH_SIZE);
    if (b->any_contexts) {
        uint64_t key;
        uint32_t size;
        enum cht_rc rc = cht_store_pair_value(b->store, name, &key, NULL, &size, b->err);
        if (rc == CHT_OK && size > 0)
            return CHT_OK;
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            return rc;
    }
    b->created++;
    uint8_t *v = p + name.n;
    v[0] = 1;
    v[1] = v[2] = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        payload_put32(v + 3 + 4 * i, tokens[i]);
    add_op(b, CHT_OP_PAIR_PUT, name, (struct cht_str){v, 3 + 4 * n});
    *op = (uint32_t)b->n;
    return CHT_OK;
}

/* The vector of a context as a second name of its value; context: the operation that put it. */
static enum cht_rc vector_op(struct batch *b, const uint32_t *tokens, size_t n, uint32_t context)
{
    uint8_t *p = arena(b, 5 + LM_AVO_CONTEXT_BYTES);
    if (p == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for a vector");
    memcpy(p, "ctxv:", 5);
    size_t len = 5 + lm_avo_context(tokens, n, p + 5);
    b->chunks->used -= 5 + LM_AVO_CONTEXT_BYTES - len;
    add_op(b, CHT_OP_PAIR_LINK, (struct cht_str){p, len}, b->ops[context].name);
    b->ops[b->n - 1].back = (uint32_t)b->n - 1 - context;
    return CHT_OK;
}

/* The first 64 bits in which the vectors of contexts of n tokens differ: the two smallest tokens. */
static uint64_t vector_key(const uint32_t *tokens, size_t n)
{
    uint32_t first = UINT32_MAX, second = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        uint32_t t = tokens[i];
        second = t < first ? first : t < second ? t : second;
        first = t < first ? t : first;
    }
    return (uint64_t)first << 32 | second;
}

/* What one order is made of: contexts by name, and the operations that registered them. */
struct ranking {
    struct lm_rank *r, *spare; /* owned: nused each; `at` is an index into used */
    uint32_t *op;              /* owned: by index into used: the operation + 1, 0 */
};

static enum cht_rc rank_contexts(struct ranking *k, const struct lm_grams *g, struct cht_err *err)
{
    uint8_t hash[LM_HASH_SIZE];
    size_t n = (size_t)g->nused + 1;
    k->r = cht_malloc(n * sizeof *k->r);
    k->spare = cht_malloc(n * sizeof *k->spare);
    k->op = cht_malloc(n * sizeof *k->op);
    if (k->r == NULL || k->spare == NULL || k->op == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu contexts", n);
    for (uint32_t i = 0; i < g->nused; i++) {
        lm_context_name(lm_grams_context(g, g->used[i]), g->order - 1, hash);
        k->r[i] = (struct lm_rank){cht_be64(hash), i};
    }
    struct lm_rank *sorted = lm_rank_sort(k->r, k->spare, g->nused);
    k->spare = sorted == k->r ? k->spare : k->r;
    k->r = sorted;
    return CHT_OK;
}

/* Counts and contexts, by name. */
static enum cht_rc name_ops(struct batch *b, const struct lm_grams *g, struct ranking *k, bool counts)
{
    enum cht_rc rc = reserve_ops(b, g->nused);
    for (uint32_t i = 0; i < g->nused && rc == CHT_OK; i++) {
        uint32_t at = k->r[i].at, c = g->used[at];
        uint8_t hash[LM_HASH_SIZE];
        cht_put64(hash, __builtin_bswap64(k->r[i].key));
        if (counts)
            rc = counts_op(b, g->order, hash, g->followers + g->offset[c], g->offset[c + 1] - g->offset[c]);
        else
            rc = context_op(b, lm_grams_context(g, c), g->order - 1, hash, &k->op[at]);
    }
    return rc;
}

/* Vectors of the contexts that were registered. */
static enum cht_rc vector_ops(struct batch *b, const struct lm_grams *g, struct ranking *k)
{
    size_t n = 0, tokens = g->order - 1;
    for (uint32_t i = 0; i < g->nused && tokens > 0; i++) {
        if (k->op[i] > 0)
            k->r[n++] = (struct lm_rank){vector_key(lm_grams_context(g, g->used[i]), tokens), i};
    }
    const struct lm_rank *r = lm_rank_sort(k->r, k->spare, n);
    enum cht_rc rc = reserve_ops(b, n);
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = vector_op(b, lm_grams_context(g, g->used[r[i].at]), tokens, k->op[r[i].at] - 1);
    return rc;
}

/* N2 for one order. */
static enum cht_rc order_ops(struct batch *b, const struct lm_grams *g)
{
    uint8_t text[LM_PREFIX_MAX];
    uint64_t pairs;
    struct ranking k = {0};
    struct cht_str prefix = {text, lm_prefix("cnt", g->order, text)};
    enum cht_rc rc = cht_store_count(b->store, prefix, &pairs, b->err);
    b->any_counts = pairs > 0;
    if (rc == CHT_OK)
        rc = rank_contexts(&k, g, b->err);
    if (rc == CHT_OK)
        rc = name_ops(b, g, &k, true);
    if (rc == CHT_OK)
        rc = name_ops(b, g, &k, false);
    if (rc == CHT_OK)
        rc = vector_ops(b, g, &k);
    cht_free(k.r);
    cht_free(k.spare);
    cht_free(k.op);
    return rc;
}

static uint64_t windows(const struct lm_ngrams *g)
{
    uint64_t total = 0;
    for (size_t d = 0; d < g->documents; d++) {
        uint64_t n = g->start[d + 1] - g->start[d];
        for (unsigned order = 1; order <= g->order && order <= n; order++)
            total += n - order + 1;
    }
    return total;
}

/* N1 to N3. */
static enum cht_rc run(struct lm_ngrams *g, struct batch *b)
{
    struct lm_text text = {g->tokens, g->start, g->documents};
    struct lm_grams grams;
    uint64_t pairs = 0;
    enum cht_rc rc = lm_grams_begin(&grams, &text, b->err);
    if (rc == CHT_OK)
        rc = cht_store_count(b->store, (struct cht_str){(const uint8_t *)"ctx:", 4}, &pairs, b->err);
    b->any_contexts = pairs > 0;
    for (unsigned n = 1; n <= g->order && rc == CHT_OK; n++) {
        rc = lm_grams_next(&grams, b->err);
        if (rc == CHT_OK)
            rc = order_ops(b, &grams);
    }
    lm_grams_free(&grams);
    return rc == CHT_OK ? lm_commit(b->store, b->ops, b->n, CHT_COMMIT_ATOMIC | CHT_COMMIT_UNORDERED, b->err)
                        : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_ngrams_begin(unsigned order, struct lm_ngrams **out, struct cht_err *err)
{
    if (order < 1 || order > LM_ORDER_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "order %u; 1 to %u are possible", order, LM_ORDER_MAX);
    struct lm_ngrams *g = cht_calloc(1, sizeof *g);
    if (g == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for documents");
    g->order = order;
    *out = g;
    return CHT_OK;
}

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

enum cht_rc lm_ngrams_add_document(struct lm_ngrams *g, const uint32_t *tokens, size_t n, struct cht_err *err)
{
    if (n < 2)
        return CHT_OK;
    if (n > TOKENS_MAX - g->ntokens)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "more than %u tokens in one request", TOKENS_MAX);
    if (!grow(&g->tokens, g->ntokens + n, &g->tokens_cap) ||
        !grow(&g->start, g->documents + 2, &g->documents_cap))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", g->ntokens + n);
    memcpy(g->tokens + g->ntokens, tokens, n * sizeof *tokens);
    g->start[g->documents++] = (uint32_t)g->ntokens;
    g->ntokens += n;
    g->start[g->documents] = (uint32_t)g->ntokens;
    return CHT_OK;
}

uint64_t lm_ngrams_tokens(const struct lm_ngrams *g) { return g->ntokens; }

enum cht_rc lm_ngrams_commit(struct lm_engine *e, struct cht_store *s, struct lm_ngrams *g,
                             struct lm_ngrams_result *out, struct cht_err *err)
{
    struct cht_err local = {0};
    struct batch b = {.store = s, .err = err != NULL ? err : &local};
    *out = (struct lm_ngrams_result){0};
    if (g->documents == 0)
        return CHT_OK;
    struct lm_gate *gate;
    enum cht_rc rc = lm_gate_enter(e, s, LM_GATE_COUNT, NULL, &gate, err);
    if (rc != CHT_OK)
        return rc;
    rc = run(g, &b);
    lm_gate_leave(e, gate, LM_GATE_COUNT);
    if (rc == CHT_OK)
        *out = (struct lm_ngrams_result){g->documents, g->ntokens, windows(g), b.created};
    batch_free(&b);
    return rc;
}

void lm_ngrams_free(struct lm_ngrams *g)
{
    if (g == NULL)
        return;
    cht_free(g->tokens);
    cht_free(g->start);
    cht_free(g);
}
