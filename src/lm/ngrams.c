/* ngrams: see ngrams.h. A commit:
 *
 *   N1 under the database's counting gate, order by order: count in memory (grams.h), and book what N2 and N3 need for it
 *   N2 for each context that was met, ascending by name: read its counts if the database can have any, add, and look whether it is
 *      registered: an entry (sheet.h). Its operations are made of that when the store looks at them: counts, registrations, and then vectors
 *      as second names, ascending by vector. Neighbours in the trie and later in a scan are so written one after the other. Of contexts that
 *      share a vector the one that was met last gets it. Many contexts are shared out among threads
 *   N3 one atomic commit of all orders
 *
 * What entries lead to lies in arenas, one a thread (maker.h), which are freed after N3. What the heap has kept of the tables of N1 is given back
 * to the system before N3, which needs pages of the store.
 */
#include "lm/ngrams.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/literal.h"
#include "lm/estimate.h"
#include "lm/hash.h"
#include "lm/kn_count.h"
#include "lm/names.h"
#include "lm/ngrams_int.h"
#include "lm/rank.h"
#include "lm/share.h"
#include "lm/sheet.h"
#include "os/io.h"

/* Bytes of memory until the commit is done, measured with text where nothing repeats, and a little more: tables, entries, keys and a plan of
 * the operations, changed pages. */
#define TOKEN_COST 80u
#define GRAM_COST 32u
#define CONTEXT_COST 80u
#define CONTEXT_TOKEN_COST 32u
#define LARGE 65536u     /* tokens: their tables are megabytes */
#define WINDOW_COST 900u /* of text that is taken away, whether it repeats or not */

struct batch;
/* What one thread works with. */
struct worker {
    struct batch *batch;
    struct lm_maker maker;
};

/* What one order is made of: contexts by name, and those that are registered. */
struct ranking {
    struct lm_rank *r, *spare; /* owned: nused each; `at` is an index into used */
    uint32_t *created;         /* owned: by index into used: the entry + 1; 0: it is registered already */
};

/* What a commit is made of. */
struct batch {
    struct lm_making making;
    struct lm_load load;
    struct cht_op *ops; /* owned; those after n are being made */
    size_t n, cap;
    struct worker worker[LM_SHARE_THREADS_MAX];
    void *workers[LM_SHARE_THREADS_MAX];
    unsigned threads;
    const struct lm_grams *grams; /* the order under way, with the next three */
    struct ranking rank;
    struct lm_sheet sheet[LM_ORDER_MAX + 1];
    unsigned keep; /* LM_KN_KEEP_...: what is kept up */
    bool ordered;  /* the operations must be run in order */
    struct lm_taking taking;
    struct lm_kn_count *live; /* NULL: there is no live model */
    struct lm_once once;
    struct cht_err *err;
};

static void batch_init(struct batch *b, struct cht_store *s, size_t tokens, struct cht_err *err)
{
    unsigned cores = tokens < LM_SHARE_PIECE ? 1 : cht_os_cores(); /* asking takes a while */
    *b = (struct batch){.making.store = s, .err = err};
    b->threads = cores < LM_SHARE_THREADS_MAX ? cores : LM_SHARE_THREADS_MAX;
    for (unsigned i = 0; i < b->threads; i++) {
        b->worker[i] = (struct worker){.batch = b, .maker.making = &b->making};
        b->workers[i] = &b->worker[i];
    }
}

static void batch_free(struct batch *b)
{
    for (unsigned i = 0; i < b->threads; i++)
        lm_maker_free(&b->worker[i].maker);
    for (unsigned m = 0; m <= LM_ORDER_MAX; m++)
        lm_sheet_free(&b->sheet[m]);
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
    struct batch *b = ((struct worker *)worker)->batch;
    const struct lm_grams *g = b->grams;
    uint8_t hash[LM_HASH_SIZE];
    (void)err;
    for (size_t i = from; i < to; i++) {
        lm_context_name(lm_grams_context(g, g->used[i]), g->order - 1, hash);
        b->rank.r[i] = (struct lm_rank){cht_be64(hash), (uint32_t)i};
    }
    return CHT_OK;
}

static void hash_of(const struct lm_rank *r, uint8_t hash[LM_HASH_SIZE])
{
    cht_put64(hash, __builtin_bswap64(r->key));
}

static enum cht_rc share_entries(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct worker *w = worker;
    struct batch *b = w->batch;
    const struct lm_grams *g = b->grams;
    struct lm_sheet *t = &b->sheet[g->order];
    enum cht_rc rc = CHT_OK;
    for (size_t i = from; i < to && rc == CHT_OK; i++) {
        uint32_t at = b->rank.r[i].at, c = g->used[at];
        struct lm_entry *e = &t->entry[i];
        *e = (struct lm_entry){.first = (uint32_t)(lm_grams_context(g, c) - g->text->tokens)};
        hash_of(&b->rank.r[i], e->hash);
        rc = lm_make_entry(&w->maker, e, g->followers + g->offset[c], g->offset[c + 1] - g->offset[c], err);
        b->rank.created[at] = rc == CHT_OK && e->created ? (uint32_t)i + 1 : 0;
    }
    return rc;
}

/* ---- N2 ------------------------------------------------------------------------------------------------------ */

static enum cht_rc share(struct batch *b, size_t n, lm_share_fn *fn)
{
    return lm_share(n, fn, b->workers, b->threads, b->err);
}

static enum cht_rc rank_contexts(struct batch *b)
{
    struct ranking *k = &b->rank;
    size_t used = b->grams->nused, n = used + 1;
    k->r = cht_malloc(n * sizeof *k->r);
    k->spare = cht_malloc(n * sizeof *k->spare);
    k->created = cht_malloc(n * sizeof *k->created);
    if (k->r == NULL || k->spare == NULL || k->created == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for %zu contexts", n);
    enum cht_rc rc = share(b, used, share_hashes);
    if (rc != CHT_OK)
        return rc;
    struct lm_rank *sorted = lm_rank_sort(k->r, k->spare, used);
    k->spare = sorted == k->r ? k->spare : k->r;
    k->r = sorted;
    return CHT_OK;
}

/* Vectors of the contexts that were registered. */
static enum cht_rc rank_vectors(struct batch *b, struct lm_sheet *t)
{
    const struct lm_grams *g = b->grams;
    struct ranking *k = &b->rank;
    size_t n = 0, tokens = g->order - 1;
    for (uint32_t i = 0; i < g->nused && tokens > 0; i++) {
        if (k->created[i] > 0)
            k->r[n++] = (struct lm_rank){vector_key(lm_grams_context(g, g->used[i]), tokens), i};
    }
    t->vector = cht_malloc((n + 1) * sizeof *t->vector);
    if (t->vector == NULL)
        return CHT_FAIL(b->err, CHT_NO_MEMORY, "no memory for %zu vectors", n);
    const struct lm_rank *sorted = lm_rank_sort(k->r, k->spare, n);
    for (size_t i = 0; i < n; i++)
        t->vector[i] = k->created[sorted[i].at] - 1;
    t->nvectors = n;
    return CHT_OK;
}

/* The sheet of one order, and its operations. */
static enum cht_rc fill_sheet(struct batch *b)
{
    const struct lm_grams *g = b->grams;
    struct lm_sheet *t = &b->sheet[g->order];
    uint64_t bytes = 0;
    enum cht_rc rc = rank_contexts(b);
    if (rc == CHT_OK)
        rc = lm_sheet_begin(t, g->nused, g->order, g->text->tokens, b->err);
    if (rc == CHT_OK)
        rc = share(b, g->nused, share_entries);
    if (rc == CHT_OK && (b->making.keep & LM_KN_KEEP_CTXV) != 0)
        rc = rank_vectors(b, t);
    for (unsigned i = 0; i < b->threads; i++) {
        bytes += b->worker[i].maker.bytes;
        b->worker[i].maker.bytes = 0;
    }
    if (rc == CHT_OK)
        lm_sheet_load(t, &b->load, bytes);
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
    enum cht_rc rc = lm_book(b->making.request, cost, b->err);
    if (rc == CHT_OK)
        rc = cht_store_count(b->making.store, prefix, &pairs, b->err);
    b->grams = g;
    b->making.order = g->order;
    b->making.any_counts = pairs > 0;
    if (rc == CHT_OK)
        rc = fill_sheet(b);
    cht_free(b->rank.r);
    cht_free(b->rank.spare);
    cht_free(b->rank.created);
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

/* Before anything is counted: what the n-grams and contexts of documents that are added will take. */
static enum cht_rc estimate(struct lm_ngrams *g, struct cht_err *err)
{
    uint64_t weight[LM_ORDER_MAX + 1] = {0};
    for (unsigned k = 1; k <= g->order; k++)
        weight[k] = GRAM_COST + (k < g->order ? CONTEXT_COST + (k + 1) * CONTEXT_TOKEN_COST : 0);
    return lm_estimate(g, weight, LM_ESTIMATE_WHOLE, err);
}

/* The same for the live model. What has been counted before changes fewer contexts of the lower orders. */
static enum cht_rc estimate_live(struct lm_ngrams *g, const struct lm_kn_head *old, struct cht_err *err)
{
    uint64_t weight[LM_ORDER_MAX + 1] = {0};
    for (unsigned k = old->m[1].types == 0 ? 1 : g->order - 1; k >= 1 && k < g->order; k++)
        weight[k] = LM_KN_CONTEXT_COST;
    return g->taken == 0 ? lm_estimate(g, weight, old->bos, err) : CHT_OK;
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

/* N1 and N2 where documents are added only. */
static enum cht_rc add_ops(struct lm_ngrams *g, const struct lm_text *text, struct batch *b)
{
    struct lm_grams grams;
    uint64_t pairs = 0;
    enum cht_rc rc = lm_book(g, g->ntokens * TOKEN_COST, b->err);
    if (rc != CHT_OK)
        return rc;
    rc = estimate(g, b->err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_grams_begin(&grams, text, b->err);
    if (rc == CHT_OK)
        rc = cht_store_count(b->making.store, (struct cht_str){(const uint8_t *)LM_CTX, LM_LENGTH(LM_CTX)},
                             &pairs, b->err);
    b->making.any_contexts = pairs > 0;
    b->making.keep = b->keep;
    b->making.tokens = text->tokens;
    b->making.ntokens = text->start[text->documents];
    for (unsigned n = 1; n <= g->order && rc == CHT_OK; n++) {
        rc = lm_grams_next(&grams, b->err);
        if (rc == CHT_OK)
            rc = order_ops(b, &grams);
    }
    lm_grams_free(&grams);
    if (g->ntokens >= LARGE) {
        uint64_t low = 0;
        (void)cht_os_give_memory_back(&low);
    }
    for (unsigned i = 0; i < b->threads && rc == CHT_OK; i++)
        rc = append(b, b->worker[i].maker.ops, b->worker[i].maker.nops);
    return rc;
}

/* The same where some are taken away. */
static enum cht_rc take_ops(struct lm_ngrams *g, const struct lm_text *text, struct batch *b)
{
    b->taking.store = b->making.store;
    b->taking.request = g;
    b->taking.contexts = (b->keep & LM_KN_KEEP_CTX) != 0;
    b->taking.vectors = (b->keep & LM_KN_KEEP_CTXV) != 0;
    b->ordered = true;
    enum cht_rc rc = lm_book(g, g->ntokens * (TOKEN_COST + (uint64_t)g->order * WINDOW_COST), b->err);
    if (rc == CHT_OK)
        rc = lm_taking_make(&b->taking, text, g->order, b->err);
    b->worker[0].maker.created += b->taking.created;
    b->worker[0].maker.malformed += b->taking.malformed;
    return rc == CHT_OK ? append(b, b->taking.ops, b->taking.n) : rc;
}

/* The operations of the live model. */
static enum cht_rc live_ops(struct lm_ngrams *g, struct batch *b)
{
    struct lm_kn_count *c = b->live;
    c->request = g;
    enum cht_rc rc = lm_book(g, g->ntokens * LM_KN_TOKEN_COST, b->err);
    if (rc == CHT_OK)
        rc = estimate_live(g, &c->old, b->err);
    for (size_t d = 0; d < g->documents && rc == CHT_OK; d++) {
        bool take = g->take != NULL && g->take[d] != 0;
        rc = lm_kn_text_add(&c->text, c->old.bos, g->tokens + g->start[d], g->start[d + 1] - g->start[d],
                            take, b->err);
    }
    c->documents = g->documents - g->taken;
    c->taken = g->taken;
    if (rc == CHT_OK)
        rc = lm_kn_count_make(c, b->err);
    if (rc == CHT_OK)
        lm_kn_count_load(c, &b->load);
    return rc == CHT_OK ? append(b, c->ops, c->n) : rc;
}

static enum cht_rc commit(struct lm_engine *e, struct batch *b)
{
    struct lm_kn_live *l = NULL;
    enum cht_rc rc = b->live != NULL ? lm_kn_count_publish(e, b->live, &l, b->err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    for (unsigned m = 1; m <= LM_ORDER_MAX; m++)
        lm_sheet_load_vectors(&b->sheet[m], &b->load);
    rc = lm_load_commit(&b->load, b->making.store, b->ops, b->n,
                        CHT_COMMIT_ATOMIC | (b->ordered ? 0 : CHT_COMMIT_UNORDERED), b->err);
    if (b->live != NULL)
        lm_kn_count_done(e, b->live, l, rc);
    return rc;
}

/* What the database wants to be counted: its live model, if it has one, and the order. */
static enum cht_rc prepare(struct lm_ngrams *g, struct batch *b, struct lm_kn_count *live)
{
    enum cht_rc rc = lm_kn_count_begin(live, b->making.store, b->err);
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
        out.contexts_created += b->worker[i].maker.created;
    for (unsigned i = 0; i < b->threads; i++)
        out.malformed += b->worker[i].maker.malformed;
    if (b->live == NULL)
        return out;
    out.live = true;
    out.generation = g->documents > 0 ? b->live->now.generation : b->live->old.generation;
    if ((b->keep & LM_KN_KEEP_CTX) == 0)
        out.contexts_created = b->live->created;
    return out;
}

/* N1 and N2; under the counting gate. Without counts nobody knows which contexts reach nothing any more: they stay registered. */
static enum cht_rc all_ops(struct lm_ngrams *g, struct batch *b)
{
    const struct lm_text text = {g->tokens, g->start, g->documents, g->take};
    enum cht_rc rc = CHT_OK;
    if ((b->keep & (LM_KN_KEEP_CNT | LM_KN_KEEP_CTX)) != 0)
        rc = g->taken > 0 && (b->keep & LM_KN_KEEP_CNT) != 0 ? take_ops(g, &text, b) : add_ops(g, &text, b);
    return rc == CHT_OK && b->live != NULL ? live_ops(g, b) : rc;
}

/* The texts become documents. Their words' operations: after all others, which may be taken over whole. */
static enum cht_rc resolve(struct lm_ngrams *g, struct batch *b, size_t *fresh)
{
    uint32_t ends[2] = {LM_WORD_UNKNOWN, LM_WORD_UNKNOWN};
    if (b->live != NULL) {
        ends[0] = b->live->old.bos;
        ends[1] = (b->live->old.flags & LM_KN_EOS) != 0 ? b->live->old.eos : LM_WORD_UNKNOWN;
    }
    enum cht_rc rc = lm_texts_resolve(g, b->making.store, ends, fresh, b->err);
    return rc == CHT_OK && *fresh > 0 ? lm_book(g, *fresh * LM_WORD_COST + g->words.len * 4, b->err) : rc;
}

/* N1 to N3, unless a request with this identifier was counted before. */
static enum cht_rc run(struct lm_engine *e, struct lm_ngrams *g, struct batch *b,
                       struct lm_ngrams_result *out)
{
    uint64_t now_s = g->once[0] != 0 ? cht_wall_ns() / 1000000000u : 0;
    struct lm_ngrams_result answer = {0};
    bool found = false;
    size_t fresh = 0;
    enum cht_rc rc = g->once[0] != 0 ? lm_once_find(b->making.store, g->once, &found, out, b->err) : CHT_OK;
    if (rc != CHT_OK || found)
        return rc;
    if (g->texts)
        rc = resolve(g, b, &fresh);
    if (rc == CHT_OK && g->documents > 0)
        rc = all_ops(g, b);
    if (rc == CHT_OK && fresh > 0)
        lm_words_load(&g->words, &b->load);
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
        lm_once_sweep(b->making.store, now_s);
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
    b.making.request = g;
    rc = prepare(g, &b, &live);
    if (rc == CHT_OK)
        rc = run(e, g, &b, out);
    lm_gate_leave(e, gate, LM_GATE_COUNT);
    batch_free(&b);
    lm_kn_count_free(&live);
    return rc;
}
