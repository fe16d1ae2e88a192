/* ngrams: see ngrams.h. A commit:
 *
 *   N1 under the database's counting gate, order by order: count in memory (grams.h), and book what N2 and N3 need for it
 *   N2 for each context that was met, ascending by name: read its counts if the database can have any, add, make the
 *      operation; then the same for registering it; then its vector as a second name, ascending by vector. Neighbours in
 *      the trie and later in a scan are so written one after the other. Of contexts that share a vector the one that was met
 *      last gets it. Many contexts are shared out among threads: where each operation goes is known before.
 *   N3 one atomic commit of all orders
 *
 * The operations' names and payloads lie in arenas, one a thread, which are freed after N3.
 */
#include "lm/ngrams.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/literal.h"
#include "lm/avo.h"
#include "lm/hash.h"
#include "lm/kn_count.h"
#include "lm/names.h"
#include "lm/ngrams_int.h"
#include "lm/rank.h"
#include "lm/share.h"
#include "os/io.h"
#include "reduce/payload.h"

#define CHUNK ((size_t)1 << 20) /* the first: most requests are small */
#define CHUNK_NEXT ((size_t)16 << 20)

/* Bytes of memory until the commit is done, measured with text where nothing repeats, and a little more: tables, operations, names and
 * payloads, the log's record, changed pages. */
#define TOKEN_COST 96u
#define GRAM_COST 64u
#define CONTEXT_COST 620u
#define CONTEXT_TOKEN_COST 50u
#define WINDOW_COST 900u /* of text that is taken away, whether it repeats or not */
#define STORED_COST 24u  /* of a follower that is there already: read, written, logged */
#define STORED_SMALL 64u /* that many are in what a context costs */

struct chunk {
    struct chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

struct batch;
/* What one thread makes operations with. */
struct maker {
    struct batch *batch;
    struct chunk *chunks; /* owned: the newest first */
    struct lm_counts counts;
    struct cht_buf value;
    uint64_t created;
};

/* What one order is made of: contexts by name, and the operations that registered them. */
struct ranking {
    struct lm_rank *r, *spare; /* owned: nused each; `at` is an index into used */
    uint32_t *op;              /* owned: by index into used: the operation + 1, 0 */
};

/* What a commit is made of. */
struct batch {
    struct cht_store *store;
    const struct lm_ngrams *request;
    struct cht_op *ops; /* owned; those after n are being made */
    size_t n, cap;
    struct maker maker[LM_SHARE_THREADS_MAX];
    void *makers[LM_SHARE_THREADS_MAX];
    unsigned threads;
    const struct lm_grams *grams; /* the order under way, with the next three */
    struct ranking rank;
    const struct lm_rank *vectors;
    bool any_counts, any_contexts; /* the database may have some of this order */
    unsigned keep;                 /* LM_KN_KEEP_...: what is kept up */
    bool ordered;                  /* the operations must be run in order */
    struct lm_taking taking;
    struct lm_kn_count *live; /* NULL: there is no live model */
    struct lm_once once;
    struct cht_err *err;
};

static uint8_t *arena(struct maker *m, size_t n)
{
    struct chunk *c = m->chunks;
    if (c == NULL || c->size - c->used < n) {
        size_t usual = c == NULL ? CHUNK : CHUNK_NEXT, size = n > usual ? n : usual;
        c = cht_malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct chunk){.next = m->chunks, .size = size};
        cht_os_huge_pages(c, sizeof *c + size);
        m->chunks = c;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

static void batch_init(struct batch *b, struct cht_store *s, size_t tokens, struct cht_err *err)
{
    unsigned cores = tokens < LM_SHARE_PIECE ? 1 : cht_os_cores(); /* asking takes a while */
    *b = (struct batch){.store = s, .err = err};
    b->threads = cores < LM_SHARE_THREADS_MAX ? cores : LM_SHARE_THREADS_MAX;
    for (unsigned i = 0; i < b->threads; i++) {
        b->maker[i].batch = b;
        b->makers[i] = &b->maker[i];
    }
}

static void batch_free(struct batch *b)
{
    for (unsigned i = 0; i < b->threads; i++) {
        struct maker *m = &b->maker[i];
        while (m->chunks != NULL) {
            struct chunk *c = m->chunks;
            m->chunks = c->next;
            cht_free(c);
        }
        lm_counts_free(&m->counts);
        cht_buf_free(&m->value);
    }
    lm_taking_free(&b->taking);
    cht_free(b->ops);
}

/* Room for that many more operations. */
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

/* What the database has under the name is added to the counts of this request in m->counts. */
static enum cht_rc add_stored(struct maker *m, struct cht_str name, struct cht_err *err)
{
    uint64_t key;
    uint32_t size;
    m->counts.n = 0;
    if (!m->batch->any_counts)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(m->batch->store, name, &key, &m->value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    return lm_counts_read(&m->counts, m->value.data, size, name, err);
}

static enum cht_rc counts_op(struct maker *m, const uint8_t hash[LM_HASH_SIZE], const struct lm_follower *f,
                             uint32_t n, struct cht_op *op, struct cht_err *err)
{
    unsigned order = m->batch->grams->order;
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_CNT, order, text)};
    memcpy(text + name.n, hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = add_stored(m, name, err);
    if (rc == CHT_OK && m->counts.n > STORED_SMALL)
        rc = lm_book(m->batch->request, (uint64_t)m->counts.n * STORED_COST, err);
    if (rc == CHT_OK && m->counts.n > 0) {
        rc = lm_counts_add(&m->counts, f, n, err);
        f = m->counts.f;
        n = m->counts.n;
    }
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = arena(m, name.n + lm_counts_size(n));
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counts of %u followers", n);
    memcpy(p, text, name.n);
    name.p = p;
    uint8_t *v = p + name.n;
    *op =
        (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = {v, lm_counts_write(v, order, f, n)}};
    return CHT_OK;
}

/* Registers the context if it is not; *made says whether. */
static enum cht_rc context_op(struct maker *m, const uint32_t *tokens, size_t n,
                              const uint8_t hash[LM_HASH_SIZE], struct cht_op *op, bool *made,
                              struct cht_err *err)
{
    uint8_t *p = arena(m, LM_LENGTH(LM_CTX) + LM_HASH_SIZE + 3 + n * 4);
    *made = false;
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context");
    struct cht_str name = {p, LM_LENGTH(LM_CTX) + LM_HASH_SIZE};
    memcpy(CHT_PUT(p, LM_CTX), hash, LM_HASH_SIZE);
    if (m->batch->any_contexts) {
        uint64_t key;
        uint32_t size;
        enum cht_rc rc = cht_store_pair_value(m->batch->store, name, &key, NULL, &size, err);
        if (rc == CHT_OK && size > 0)
            return CHT_OK;
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            return rc;
    }
    m->created++;
    *made = true;
    uint8_t *v = p + name.n;
    v[0] = 1;
    v[1] = v[2] = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        reduce_payload_put32(v + 3 + 4 * i, tokens[i]);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = {v, 3 + 4 * n}};
    return CHT_OK;
}

/* The vector of a context as a second name of its value; context: the operation that put it. */
static enum cht_rc vector_op(struct maker *m, const uint32_t *tokens, size_t n, const struct cht_op *context,
                             struct cht_op *op, struct cht_err *err)
{
    uint8_t *p = arena(m, LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a vector");
    size_t len = LM_LENGTH(LM_CTXV) + lm_avo_context(tokens, n, (uint8_t *)CHT_PUT(p, LM_CTXV));
    m->chunks->used -= LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES - len;
    *op = (struct cht_op){
        .kind = CHT_OP_PAIR_LINK, .name = {p, len}, .value = context->name, .back = (uint32_t)(op - context)};
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

/* ---- the parts of N2 that are shared out (lm_share_fn) -------------------------------------------------------- */

static enum cht_rc share_hashes(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct maker *m = worker;
    const struct lm_grams *g = m->batch->grams;
    uint8_t hash[LM_HASH_SIZE];
    (void)err;
    for (size_t i = from; i < to; i++) {
        lm_context_name(lm_grams_context(g, g->used[i]), g->order - 1, hash);
        m->batch->rank.r[i] = (struct lm_rank){cht_be64(hash), (uint32_t)i};
    }
    return CHT_OK;
}

static void hash_of(const struct lm_rank *r, uint8_t hash[LM_HASH_SIZE])
{
    cht_put64(hash, __builtin_bswap64(r->key));
}

static enum cht_rc share_counts(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct maker *m = worker;
    struct batch *b = m->batch;
    const struct lm_grams *g = b->grams;
    uint8_t hash[LM_HASH_SIZE];
    enum cht_rc rc = CHT_OK;
    for (size_t i = from; i < to && rc == CHT_OK; i++) {
        uint32_t c = g->used[b->rank.r[i].at];
        hash_of(&b->rank.r[i], hash);
        rc = counts_op(m, hash, g->followers + g->offset[c], g->offset[c + 1] - g->offset[c],
                       &b->ops[b->n + i], err);
    }
    return rc;
}

static enum cht_rc share_contexts(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct maker *m = worker;
    struct batch *b = m->batch;
    const struct lm_grams *g = b->grams;
    uint8_t hash[LM_HASH_SIZE];
    enum cht_rc rc = CHT_OK;
    for (size_t i = from; i < to && rc == CHT_OK; i++) {
        uint32_t at = b->rank.r[i].at;
        bool made;
        hash_of(&b->rank.r[i], hash);
        rc = context_op(m, lm_grams_context(g, g->used[at]), g->order - 1, hash, &b->ops[b->n + i], &made,
                        err);
        b->rank.op[at] = rc == CHT_OK && made ? (uint32_t)(b->n + i) + 1 : 0;
    }
    return rc;
}

static enum cht_rc share_vectors(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct maker *m = worker;
    struct batch *b = m->batch;
    const struct lm_grams *g = b->grams;
    enum cht_rc rc = CHT_OK;
    for (size_t i = from; i < to && rc == CHT_OK; i++) {
        uint32_t at = b->vectors[i].at;
        rc = vector_op(m, lm_grams_context(g, g->used[at]), g->order - 1, &b->ops[b->rank.op[at] - 1],
                       &b->ops[b->n + i], err);
    }
    return rc;
}

/* ---- N2 ------------------------------------------------------------------------------------------------------ */

static enum cht_rc share(struct batch *b, size_t n, lm_share_fn *fn)
{
    return lm_share(n, fn, b->makers, b->threads, b->err);
}

static enum cht_rc rank_contexts(struct batch *b)
{
    struct ranking *k = &b->rank;
    size_t used = b->grams->nused, n = used + 1;
    k->r = cht_malloc(n * sizeof *k->r);
    k->spare = cht_malloc(n * sizeof *k->spare);
    k->op = cht_malloc(n * sizeof *k->op);
    if (k->r == NULL || k->spare == NULL || k->op == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for %zu contexts", n);
    enum cht_rc rc = share(b, used, share_hashes);
    if (rc != CHT_OK)
        return rc;
    struct lm_rank *sorted = lm_rank_sort(k->r, k->spare, used);
    k->spare = sorted == k->r ? k->spare : k->r;
    k->r = sorted;
    return CHT_OK;
}

/* Counts by name. */
static enum cht_rc counts_ops(struct batch *b)
{
    enum cht_rc rc = reserve_ops(b, b->grams->nused);
    if (rc == CHT_OK)
        rc = share(b, b->grams->nused, share_counts);
    if (rc == CHT_OK)
        b->n += b->grams->nused;
    return rc;
}

/* Contexts by name; those that are registered leave gaps, which are closed. */
static enum cht_rc context_ops(struct batch *b)
{
    struct ranking *k = &b->rank;
    enum cht_rc rc = reserve_ops(b, b->grams->nused);
    if (rc == CHT_OK)
        rc = share(b, b->grams->nused, share_contexts);
    for (size_t i = 0; i < b->grams->nused && rc == CHT_OK; i++) {
        uint32_t *op = &k->op[k->r[i].at];
        if (*op == 0)
            continue;
        if (*op != b->n + 1)
            b->ops[b->n] = b->ops[*op - 1];
        *op = (uint32_t)++b->n;
    }
    return rc;
}

/* Vectors of the contexts that were registered. */
static enum cht_rc vector_ops(struct batch *b)
{
    const struct lm_grams *g = b->grams;
    struct ranking *k = &b->rank;
    size_t n = 0, tokens = g->order - 1;
    for (uint32_t i = 0; i < g->nused && tokens > 0; i++) {
        if (k->op[i] > 0)
            k->r[n++] = (struct lm_rank){vector_key(lm_grams_context(g, g->used[i]), tokens), i};
    }
    b->vectors = lm_rank_sort(k->r, k->spare, n);
    enum cht_rc rc = reserve_ops(b, n);
    if (rc == CHT_OK)
        rc = share(b, n, share_vectors);
    if (rc == CHT_OK)
        b->n += n;
    return rc;
}

/* N2 for one order. */
static enum cht_rc order_ops(struct batch *b, const struct lm_grams *g)
{
    uint8_t text[LM_PREFIX_MAX];
    uint64_t pairs = 0;
    struct cht_str prefix = {text, lm_prefix(LM_CNT, g->order, text)};
    uint64_t cost =
        (uint64_t)g->grams * GRAM_COST + (uint64_t)g->nused * (CONTEXT_COST + g->order * CONTEXT_TOKEN_COST);
    enum cht_rc rc = lm_book(b->request, cost, b->err);
    if (rc == CHT_OK)
        rc = cht_store_count(b->store, prefix, &pairs, b->err);
    b->grams = g;
    b->any_counts = pairs > 0;
    if (rc == CHT_OK)
        rc = rank_contexts(b);
    if (rc == CHT_OK && (b->keep & LM_KN_KEEP_CNT) != 0)
        rc = counts_ops(b);
    if (rc == CHT_OK && (b->keep & LM_KN_KEEP_CTX) != 0)
        rc = context_ops(b);
    if (rc == CHT_OK && (b->keep & LM_KN_KEEP_CTXV) != 0)
        rc = vector_ops(b);
    cht_free(b->rank.r);
    cht_free(b->rank.spare);
    cht_free(b->rank.op);
    b->rank = (struct ranking){0};
    b->grams = NULL;
    return rc;
}

/* Windows of documents that are added. */
static uint64_t windows(const struct lm_ngrams *g)
{
    uint64_t total = 0;
    for (size_t d = 0; d < g->documents; d++) {
        uint64_t n = g->start[d + 1] - g->start[d];
        for (unsigned order = 1; order <= g->order && order <= n && (g->take == NULL || g->take[d] == 0);
             order++)
            total += n - order + 1;
    }
    return total;
}

/* N1 and N2 where documents are added only. */
static enum cht_rc add_ops(struct lm_ngrams *g, const struct lm_text *text, struct batch *b)
{
    struct lm_grams grams;
    uint64_t pairs = 0;
    enum cht_rc rc = lm_book(g, g->ntokens * TOKEN_COST, b->err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_grams_begin(&grams, text, b->err);
    if (rc == CHT_OK)
        rc = cht_store_count(b->store, (struct cht_str){(const uint8_t *)LM_CTX, LM_LENGTH(LM_CTX)}, &pairs,
                             b->err);
    b->any_contexts = pairs > 0;
    for (unsigned n = 1; n <= g->order && rc == CHT_OK; n++) {
        rc = lm_grams_next(&grams, b->err);
        if (rc == CHT_OK)
            rc = order_ops(b, &grams);
    }
    lm_grams_free(&grams);
    return rc;
}

static enum cht_rc append(struct batch *b, const struct cht_op *ops, size_t n)
{
    enum cht_rc rc = reserve_ops(b, n);
    if (rc == CHT_OK && n > 0) {
        memcpy(b->ops + b->n, ops, n * sizeof *ops);
        b->n += n;
    }
    return rc;
}

/* The same where some are taken away. */
static enum cht_rc take_ops(struct lm_ngrams *g, const struct lm_text *text, struct batch *b)
{
    b->taking.store = b->store;
    b->taking.contexts = (b->keep & LM_KN_KEEP_CTX) != 0;
    b->taking.vectors = (b->keep & LM_KN_KEEP_CTXV) != 0;
    b->ordered = true;
    enum cht_rc rc = lm_book(g, g->ntokens * (TOKEN_COST + (uint64_t)g->order * WINDOW_COST), b->err);
    if (rc == CHT_OK)
        rc = lm_taking_make(&b->taking, text, g->order, b->err);
    b->maker[0].created += b->taking.created;
    return rc == CHT_OK ? append(b, b->taking.ops, b->taking.n) : rc;
}

/* The operations of the live model. */
static enum cht_rc live_ops(struct lm_ngrams *g, struct batch *b)
{
    struct lm_kn_count *c = b->live;
    c->request = g;
    enum cht_rc rc = lm_book(g, g->ntokens * LM_KN_TOKEN_COST, b->err);
    for (size_t d = 0; d < g->documents && rc == CHT_OK; d++) {
        bool take = g->take != NULL && g->take[d] != 0;
        rc = lm_kn_text_add(&c->text, c->old.bos, g->tokens + g->start[d], g->start[d + 1] - g->start[d],
                            take, b->err);
    }
    c->documents = g->documents - g->taken;
    c->taken = g->taken;
    if (rc == CHT_OK)
        rc = lm_kn_count_make(c, b->err);
    if (rc != CHT_OK || b->n > 0)
        return rc == CHT_OK ? append(b, c->ops, c->n) : rc;
    cht_free(b->ops); /* there are no others: they are taken over */
    b->ops = c->ops;
    b->n = c->n;
    b->cap = c->cap;
    c->ops = NULL;
    return CHT_OK;
}

static enum cht_rc commit(struct lm_engine *e, struct batch *b)
{
    struct lm_kn_live *l = NULL;
    enum cht_rc rc = b->live != NULL ? lm_kn_count_publish(e, b->live, &l, b->err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    rc = lm_commit(b->store, b->ops, b->n, CHT_COMMIT_ATOMIC | (b->ordered ? 0 : CHT_COMMIT_UNORDERED),
                   b->err);
    if (b->live != NULL)
        lm_kn_count_done(e, b->live, l, rc);
    return rc;
}

/* What the database wants to be counted: its live model, if it has one, and the order. */
static enum cht_rc prepare(struct lm_ngrams *g, struct batch *b, struct lm_kn_count *live)
{
    enum cht_rc rc = lm_kn_count_begin(live, b->store, b->err);
    b->keep = LM_KN_KEEP;
    if (rc == CHT_PAIR_NOT_FOUND) {
        g->order = g->order == 0 ? LM_NGRAMS_ORDER : g->order;
        return CHT_OK;
    }
    if (rc != CHT_OK)
        return rc;
    b->live = live;
    b->keep = live->old.flags & LM_KN_KEEP;
    if (g->order != 0 && g->order != live->old.order)
        return CHT_FAIL(b->err, CHT_ORDER_MISMATCH, "order %u; the live model has order %u", g->order,
                        live->old.order);
    g->order = live->old.order;
    return CHT_OK;
}

static struct lm_ngrams_result answer_of(const struct lm_ngrams *g, const struct batch *b)
{
    struct lm_ngrams_result out = {.documents = g->documents - g->taken,
                                   .tokens = g->ntokens - g->taken_tokens,
                                   .ngrams = windows(g),
                                   .removed = g->taken};
    for (unsigned i = 0; i < b->threads; i++)
        out.contexts_created += b->maker[i].created;
    if (b->live == NULL)
        return out;
    out.live = true;
    out.generation = g->documents > 0 ? b->live->now.generation : b->live->old.generation;
    if ((b->keep & LM_KN_KEEP_CTX) == 0)
        out.contexts_created = b->live->created;
    return out;
}

/* N1 and N2; under the counting gate. */
static enum cht_rc all_ops(struct lm_ngrams *g, struct batch *b)
{
    const struct lm_text text = {g->tokens, g->start, g->documents, g->take};
    enum cht_rc rc = CHT_OK;
    if ((b->keep & (LM_KN_KEEP_CNT | LM_KN_KEEP_CTX)) != 0)
        rc = g->taken > 0 ? take_ops(g, &text, b) : add_ops(g, &text, b);
    return rc == CHT_OK && b->live != NULL ? live_ops(g, b) : rc;
}

/* N1 to N3, unless a request with this identifier was counted before. */
static enum cht_rc run(struct lm_engine *e, struct lm_ngrams *g, struct batch *b,
                       struct lm_ngrams_result *out)
{
    uint64_t now_s = g->once[0] != 0 ? cht_wall_ns() / 1000000000u : 0;
    struct lm_ngrams_result answer = {0};
    bool found = false;
    enum cht_rc rc = g->once[0] != 0 ? lm_once_find(b->store, g->once, &found, out, b->err) : CHT_OK;
    if (rc != CHT_OK || found)
        return rc;
    if (g->documents > 0)
        rc = all_ops(g, b);
    if (rc == CHT_OK)
        answer = answer_of(g, b);
    if (rc == CHT_OK && g->once[0] != 0) {
        rc = reserve_ops(b, 1);
        if (rc == CHT_OK)
            lm_once_op(&b->once, g->once, &answer, now_s, &b->ops[b->n++]);
    }
    if (rc == CHT_OK)
        rc = commit(e, b);
    if (rc == CHT_OK)
        *out = answer;
    if (rc == CHT_OK && g->once[0] != 0)
        lm_once_sweep(b->store, now_s);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_ngrams_commit(struct lm_engine *e, struct cht_store *s, struct lm_ngrams *g,
                             struct lm_ngrams_result *out, struct cht_err *err)
{
    struct cht_err local = {0};
    struct batch b;
    struct lm_kn_count live = {0};
    struct lm_gate *gate;
    *out = (struct lm_ngrams_result){0};
    enum cht_rc rc = lm_gate_enter(e, s, LM_GATE_COUNT, NULL, &gate, err);
    if (rc != CHT_OK)
        return rc;
    batch_init(&b, s, g->ntokens, err != NULL ? err : &local);
    b.request = g;
    rc = prepare(g, &b, &live);
    if (rc == CHT_OK)
        rc = run(e, g, &b, out);
    lm_gate_leave(e, gate, LM_GATE_COUNT);
    batch_free(&b);
    lm_kn_count_free(&live);
    return rc;
}
