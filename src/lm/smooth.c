/* smooth: the run; see smooth.h for its phases. */
#include "lm/names.h"
#include "lm/smooth_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "os/io.h"
#include "reduce/payload.h"

#define MEMORY_DEFAULT ((size_t)256 << 20)
#define THREAD_MEMORY ((uint64_t)11 << 20)
#define TABLES_LEAST ((size_t)1 << 20) /* smaller ones save nothing */

static enum cht_rc walk(struct lm_smooth *s, struct lm_smooth_worker *workers, struct lm_progress progress,
                        struct cht_err *err)
{
    void *each[LM_WALK_THREADS_MAX];
    for (unsigned i = 0; i < s->threads; i++) {
        workers[i].near_from = workers[i].near_to = 0;
        each[i] = &workers[i];
    }
    struct lm_walk_config cfg = {.store = s->store,
                                 .order = s->order,
                                 .threads = s->threads,
                                 .workers = each,
                                 .visit = lm_smooth_context,
                                 .ahead = s->order > 1 ? lm_smooth_ahead : NULL,
                                 .cancel = s->cfg->cancel,
                                 .progress = progress};
    return lm_walk(&cfg, err);
}

static int by_token(const void *x, const void *y)
{
    const struct lm_follower *a = x, *b = y;
    return (a->token > b->token) - (a->token < b->token);
}

static enum cht_rc put_cont(struct lm_writer *w, const struct lm_follower *f, struct cht_err *err)
{
    uint8_t text[LM_LENGTH(LM_CONT) + 4];
    enum cht_rc rc;
    reduce_payload_put32((uint8_t *)CHT_PUT(text, LM_CONT), f->token);
    uint8_t *v = lm_writer_put(w, (struct cht_str){text, sizeof text}, REDUCE_PAYLOAD_CONT_SIZE, &rc, err);
    if (v == NULL)
        return rc;
    v[0] = 1;
    reduce_payload_put32(v + 1, f->token);
    reduce_payload_put32(v + 5, f->count);
    lm_writer_put_end(w, REDUCE_PAYLOAD_CONT_SIZE);
    return CHT_OK;
}

/* P2. */
static enum cht_rc continuations(struct lm_smooth *s, struct lm_writer *w, struct lm_progress progress,
                                 struct cht_err *err)
{
    struct lm_follower *list = cht_malloc((s->vocab.words + 1) * sizeof *list);
    if (list == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", s->vocab.words);
    uint64_t sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < s->vocab.slots; i++) {
        const struct lm_word *word = &s->vocab.slot[i];
        if (word->used && word->contexts > 0) {
            list[n++] = (struct lm_follower){word->token, word->contexts};
            sum += word->contexts;
        }
    }
    qsort(list, n, sizeof *list, by_token);
    s->continuing = n;
    s->sum = sum > 0 ? (double)sum : 1.0;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = lm_smooth_cancelled(s) ? CHT_CANCELLED : put_cont(w, &list[i], err);
    if (rc == CHT_OK)
        rc = lm_writer_flush(w, err);
    cht_free(list);
    if (rc == CHT_OK)
        rc = lm_smooth_stale_cont(s, err);
    if (rc == CHT_OK && progress.fn != NULL)
        progress.fn(progress.ctx, "continuations", n, n);
    return rc;
}

static enum cht_rc enter_root(struct lm_smooth *s, const struct reduce_payload *probs, struct cht_err *err)
{
    for (uint32_t i = 0; i < probs->n; i++) {
        const uint8_t *r = probs->records + (size_t)i * REDUCE_PAYLOAD_PROBS_RECORD;
        struct lm_word *word = lm_vocab_enter(&s->vocab, reduce_payload_get32(r), err);
        if (word == NULL)
            return s->vocab.rc;
        word->root = (uint16_t)(r[4] + 1);
    }
    return CHT_OK;
}

/* The root of the order below, into the vocabulary. */
static enum cht_rc load_root(struct lm_smooth *s, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_PROB, s->order - 1, text)};
    struct cht_buf value = {0};
    struct reduce_payload head;
    uint64_t key;
    uint32_t size;
    for (size_t i = 0; i < s->vocab.slots; i++)
        s->vocab.slot[i].root = 0;
    if (s->order == 1)
        return CHT_OK;
    if (s->order == 2 && s->cfg->lo == 1) { /* computed, and not put yet */
        bool there = reduce_payload_probs(s->root.data, s->root.len, s->root.len, &head);
        return there ? enter_root(s, &head, err) : CHT_OK;
    }
    memcpy(text + name.n, LM_ROOT, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = cht_store_pair_value(s->store, name, &key, &value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0)) {
        cht_buf_free(&value);
        return CHT_OK;
    }
    if (rc == CHT_OK && !reduce_payload_probs(value.data, size, size, &head))
        rc = lm_malformed(name, size, "probabilities", err);
    if (rc == CHT_OK)
        rc = enter_root(s, &head, err);
    cht_buf_free(&value);
    return rc;
}

/* The table of the order below is what `here` was; it holds nothing if that order is not of this run. */
static enum cht_rc turn_tables(struct lm_smooth *s, struct cht_err *err)
{
    bool computed = s->order > s->cfg->lo;
    lm_parents_free(s->below);
    s->below = computed ? s->here : NULL;
    s->here = NULL;
    if (s->below == NULL) {
        s->below = lm_parents_new(0);
        if (s->below == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a table");
        atomic_store_explicit(&s->below->incomplete, true, memory_order_relaxed);
    }
    if (s->order < 2 || s->order == s->cfg->hi) /* the root, which order 2 goes to, is in the vocabulary */
        return CHT_OK;
    s->here = lm_parents_new(s->memory / 2);
    return s->here == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a table") : CHT_OK;
}

/* P3 for one order. */
static enum cht_rc smooth_order(struct lm_smooth *s, struct lm_smooth_worker *workers,
                                struct lm_progress progress, struct cht_err *err)
{
    char phase[16];
    const struct lm_count_counts *c = &s->counts[s->order];
    lm_discounts(c, s->d);
    enum cht_rc rc = turn_tables(s, err);
    if (rc == CHT_OK)
        rc = load_root(s, err);
    if (rc != CHT_OK)
        return rc;
    (void)snprintf(phase, sizeof phase, "order %u", s->order);
    progress.phase = phase;
    progress.total = c->contexts;
    uint64_t written = 0;
    rc = walk(s, workers, progress, err);
    for (unsigned i = 0; i < s->threads; i++) {
        if (rc == CHT_OK)
            rc = lm_writer_flush(&workers[i].writer, err);
        written += workers[i].written;
        workers[i].written = 0;
    }
    if (rc == CHT_OK)
        rc = lm_smooth_stale_order(s, s->order, written, err);
    if (rc == CHT_OK && s->cfg->result != NULL) {
        struct lm_smooth_result r = {s->order, c->contexts, c->n[0] + c->n[1] + c->n[2] + c->n[3],
                                     s->d[1],  s->d[2],     s->d[3]};
        s->cfg->result(s->cfg->ctx, &r);
    }
    return rc;
}

static enum cht_rc run(struct lm_smooth *s, struct lm_smooth_worker *workers, struct cht_err *err)
{
    struct lm_progress progress = {.fn = s->cfg->progress, .ctx = s->cfg->ctx};
    enum cht_rc rc = lm_smooth_count(s, progress, err);
    if (rc == CHT_OK)
        rc = lm_smooth_begin(s, err);
    for (unsigned i = 0; i < s->threads; i++) /* old value and new one, both or neither */
        workers[i].writer.flags = s->keeping ? CHT_COMMIT_ATOMIC : 0;
    if (rc == CHT_OK)
        rc = continuations(s, &workers[0].writer, progress, err);
    for (unsigned n = s->cfg->lo; n <= s->cfg->hi && rc == CHT_OK; n++) {
        s->order = n;
        rc = smooth_order(s, workers, progress, err);
    }
    if (rc == CHT_OK)
        rc = lm_smooth_switch(s, err);
    return rc;
}

static enum cht_rc check(const struct lm_smooth_config *cfg, struct cht_err *err)
{
    if (cfg->lo < 1 || cfg->hi > LM_ORDER_MAX || cfg->lo > cfg->hi)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "orders %u to %u; 1 to %u are possible, ascending",
                        cfg->lo, cfg->hi, LM_ORDER_MAX);
    if (cfg->topk > LM_TOPK_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "topk %u; 1 to %u are possible", cfg->topk, LM_TOPK_MAX);
    return CHT_OK;
}

static unsigned threads_of(const struct lm_smooth_config *cfg)
{
    unsigned n = cfg->threads > 0 ? cfg->threads : cht_os_cores();
    if (cfg->threads == 0 && n < 2) /* one computes while the other waits for the disk */
        n = 2;
    return n > LM_WALK_THREADS_MAX ? LM_WALK_THREADS_MAX : n;
}

static void keep_with(struct lm_smooth_worker *w, struct lm_smooth *s)
{
    w->run = s;
    w->writer.store = s->store;
    w->keeper.writer = &w->writer;
}

/* The threads' memory, and for the tables at most half of what is left then. *booked: all of it. */
static enum cht_rc book(struct lm_smooth *s, uint64_t *booked, struct cht_err *err)
{
    const struct lm_book *b = s->cfg->book;
    *booked = 0;
    if (b == NULL)
        return CHT_OK;
    enum cht_rc rc = b->take(b->ctx, s->threads * THREAD_MEMORY, err);
    if (rc != CHT_OK)
        return rc;
    while (s->memory > 1 && b->take(b->ctx, 2 * (uint64_t)s->memory, NULL) != CHT_OK)
        s->memory = s->memory / 2 >= TABLES_LEAST ? s->memory / 2 : 1;
    if (s->memory > 1) /* the other half is for the vocabulary, and for others */
        b->give(b->ctx, s->memory);
    *booked = s->threads * THREAD_MEMORY + (s->memory > 1 ? s->memory : 0);
    return CHT_OK;
}

static enum cht_rc book_and_run(struct lm_smooth *s, struct lm_smooth_worker *workers, struct cht_err *err)
{
    uint64_t booked;
    enum cht_rc rc = book(s, &booked, err);
    s->vocab.book = s->cfg->book;
    if (rc == CHT_OK)
        rc = run(s, workers, err);
    for (unsigned i = 0; i < s->threads; i++) {
        lm_writer_free(&workers[i].writer);
        lm_keeper_free(&workers[i].keeper);
        cht_buf_free(&workers[i].context);
        cht_buf_free(&workers[i].parent);
        cht_buf_free(&workers[i].made);
        cht_free(workers[i].tokens);
        cht_free(workers[i].q);
    }
    cht_buf_free(&s->root);
    lm_vocab_free(&s->vocab);
    lm_parents_free(s->below);
    lm_parents_free(s->here);
    if (booked > 0)
        s->cfg->book->give(s->cfg->book->ctx, booked);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_smooth(struct lm_engine *e, struct cht_store *s, const struct lm_smooth_config *cfg,
                      struct cht_err *err)
{
    struct lm_smooth run_state = {.store = s, .cfg = cfg, .threads = threads_of(cfg)};
    struct lm_smooth_worker workers[LM_WALK_THREADS_MAX];
    struct lm_gate *gate;
    enum cht_rc rc = check(cfg, err);
    if (rc == CHT_OK)
        rc = lm_gate_enter(e, s, LM_GATE_SMOOTH, cfg->cancel, &gate, err);
    if (rc != CHT_OK)
        return rc;
    run_state.topk = cfg->topk > 0 ? cfg->topk : LM_TOPK_DEFAULT;
    run_state.memory = cfg->memory > 0 ? cfg->memory : MEMORY_DEFAULT;
    for (unsigned q = 0; q < 256; q++)
        run_state.dequant[q] = lm_dequantize((uint8_t)q);
    memset(workers, 0, sizeof workers);
    for (unsigned i = 0; i < run_state.threads; i++)
        keep_with(&workers[i], &run_state);
    rc = book_and_run(&run_state, workers, err);
    if (cfg->malformed != NULL)
        *cfg->malformed = atomic_load_explicit(&run_state.malformed, memory_order_relaxed);
    lm_gate_leave(e, gate, LM_GATE_SMOOTH);
    return rc;
}
