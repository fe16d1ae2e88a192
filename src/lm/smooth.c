/* smooth: the run; see smooth.h for its phases. */
#include "lm/smooth_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "os/io.h"
#include "reduce/payload.h"

#define MEMORY_DEFAULT ((size_t)256 << 20)

/* P1, on a thread of the walk. */
static enum cht_rc count_context(void *worker, struct cht_str suffix, const struct lm_counts *counts,
                                 uint64_t total, struct cht_err *err)
{
    struct smooth_worker *w = worker;
    (void)suffix;
    (void)total;
    w->counts.contexts++;
    for (uint32_t i = 0; i < counts->n; i++) {
        uint32_t k = counts->f[i].count;
        if (k == 0)
            continue;
        w->counts.n[k < 4 ? k - 1 : 3]++;
        if (w->run->order != 2)
            continue;
        struct lm_word *word = lm_vocab_enter(&w->vocab, counts->f[i].token, err);
        if (word == NULL)
            return CHT_NO_MEMORY;
        word->contexts += word->contexts < UINT32_MAX;
    }
    return CHT_OK;
}

static enum cht_rc walk(struct smooth *s, struct smooth_worker *workers, lm_walk_visit *visit,
                        lm_walk_ahead *ahead, struct lm_progress progress, uint64_t *visited,
                        struct cht_err *err)
{
    void *each[LM_WALK_THREADS_MAX];
    for (unsigned i = 0; i < s->threads; i++)
        each[i] = &workers[i];
    struct lm_walk_config cfg = {.store = s->store,
                                 .order = s->order,
                                 .threads = s->threads,
                                 .workers = each,
                                 .visit = visit,
                                 .ahead = ahead,
                                 .cancel = s->cfg->cancel,
                                 .progress = progress};
    return lm_walk(&cfg, visited, err);
}

/* What the threads counted goes into the run. */
static enum cht_rc take_counts(struct smooth *s, struct smooth_worker *w, struct cht_err *err)
{
    struct lm_count_counts *to = &s->counts[s->order];
    for (int i = 0; i < 4; i++)
        to->n[i] += w->counts.n[i];
    to->contexts += w->counts.contexts;
    memset(&w->counts, 0, sizeof w->counts);
    for (size_t i = 0; i < w->vocab.slots; i++) {
        if (!w->vocab.slot[i].used)
            continue;
        struct lm_word *word = lm_vocab_enter(&s->vocab, w->vocab.slot[i].token, err);
        if (word == NULL)
            return CHT_NO_MEMORY;
        word->contexts = lm_add_saturating(word->contexts, w->vocab.slot[i].contexts);
    }
    lm_vocab_free(&w->vocab);
    return CHT_OK;
}

/* P1. Order 2 is read in any case, for the continuations. */
static enum cht_rc count_orders(struct smooth *s, struct smooth_worker *workers, struct lm_progress progress,
                                struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint8_t prefix[LM_PREFIX_MAX];
    progress.phase = "counts";
    progress.total = 0;
    for (unsigned n = 1; n <= LM_ORDER_MAX && rc == CHT_OK; n++) {
        uint64_t pairs = 0;
        rc = cht_store_count(s->store, (struct cht_str){prefix, lm_prefix("cnt", n, prefix)}, &pairs, err);
        if (n == 2 || (n >= s->cfg->lo && n <= s->cfg->hi))
            progress.total += pairs;
    }
    for (unsigned n = 1; n <= LM_ORDER_MAX && rc == CHT_OK; n++) {
        uint64_t visited;
        if (n != 2 && (n < s->cfg->lo || n > s->cfg->hi))
            continue;
        s->order = n;
        rc = walk(s, workers, count_context, NULL, progress, &visited, err);
        progress.done += visited;
        for (unsigned i = 0; i < s->threads && rc == CHT_OK; i++)
            rc = take_counts(s, &workers[i], err);
    }
    return rc;
}

static int by_token(const void *x, const void *y)
{
    const struct lm_follower *a = x, *b = y;
    return (a->token > b->token) - (a->token < b->token);
}

static enum cht_rc put_cont(struct lm_writer *w, const struct lm_follower *f, struct cht_err *err)
{
    uint8_t text[9];
    enum cht_rc rc;
    memcpy(text, "cont:", 5);
    payload_put32(text + 5, f->token);
    uint8_t *v = lm_writer_put(w, (struct cht_str){text, sizeof text}, PAYLOAD_CONT_SIZE, &rc, err);
    if (v == NULL)
        return rc;
    v[0] = 1;
    payload_put32(v + 1, f->token);
    payload_put32(v + 5, f->count);
    lm_writer_put_end(w, PAYLOAD_CONT_SIZE);
    return CHT_OK;
}

/* P2. */
static enum cht_rc continuations(struct smooth *s, struct lm_writer *w, struct lm_progress progress,
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
        rc = smooth_cancelled(s) ? CHT_CANCELLED : put_cont(w, &list[i], err);
    if (rc == CHT_OK)
        rc = lm_writer_flush(w, err);
    cht_free(list);
    if (rc == CHT_OK)
        rc = smooth_stale_cont(s, err);
    if (rc == CHT_OK && progress.fn != NULL)
        progress.fn(progress.ctx, "continuations", n, n);
    return rc;
}

/* The root of the order below, into the vocabulary. */
static enum cht_rc load_root(struct smooth *s, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix("prob", s->order - 1, text)};
    struct cht_buf value = {0};
    struct payload head;
    uint64_t key;
    uint32_t size;
    for (size_t i = 0; i < s->vocab.slots; i++)
        s->vocab.slot[i].root = 0;
    if (s->order == 1)
        return CHT_OK;
    memcpy(text + name.n, LM_ROOT, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = cht_store_pair_value(s->store, name, &key, &value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0)) {
        cht_buf_free(&value);
        return CHT_OK;
    }
    if (rc == CHT_OK && !payload_probs(value.data, size, size, &head))
        rc = lm_malformed(name, size, "probabilities", err);
    for (uint32_t i = 0; rc == CHT_OK && i < head.n; i++) {
        const uint8_t *r = head.records + (size_t)i * PAYLOAD_PROBS_RECORD;
        struct lm_word *word = lm_vocab_enter(&s->vocab, payload_get32(r), err);
        if (word == NULL)
            rc = CHT_NO_MEMORY;
        else
            word->root = (uint16_t)(r[4] + 1);
    }
    cht_buf_free(&value);
    return rc;
}

/* The table of the order below is what `here` was; it holds nothing where that order is not of this run. */
static enum cht_rc turn_tables(struct smooth *s, struct cht_err *err)
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
    if (s->order < 2 || s->order == s->cfg->hi) /* order 2 goes to the root, which is in the vocabulary */
        return CHT_OK;
    s->here = lm_parents_new(s->memory / 2);
    return s->here == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a table") : CHT_OK;
}

/* P3 for one order. */
static enum cht_rc smooth_order(struct smooth *s, struct smooth_worker *workers, struct lm_progress progress,
                                struct cht_err *err)
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
    for (unsigned i = 0; i < s->threads; i++)
        workers[i].near_from = workers[i].near_to = 0;
    rc = walk(s, workers, smooth_context, s->order > 2 ? smooth_ahead : NULL, progress, NULL, err);
    for (unsigned i = 0; i < s->threads; i++) {
        if (rc == CHT_OK)
            rc = lm_writer_flush(&workers[i].writer, err);
        written += workers[i].written;
        workers[i].written = 0;
    }
    if (rc == CHT_OK)
        rc = smooth_stale_order(s, s->order, written, err);
    if (rc == CHT_OK && s->cfg->result != NULL) {
        struct lm_smooth_result r = {s->order, c->contexts, c->n[0] + c->n[1] + c->n[2] + c->n[3],
                                     s->d[1],  s->d[2],     s->d[3]};
        s->cfg->result(s->cfg->ctx, &r);
    }
    return rc;
}

static enum cht_rc run(struct smooth *s, struct smooth_worker *workers, struct cht_err *err)
{
    struct lm_progress progress = {.fn = s->cfg->progress, .ctx = s->cfg->ctx};
    enum cht_rc rc = count_orders(s, workers, progress, err);
    if (rc == CHT_OK)
        rc = continuations(s, &workers[0].writer, progress, err);
    for (unsigned n = s->cfg->lo; n <= s->cfg->hi && rc == CHT_OK; n++) {
        s->order = n;
        rc = smooth_order(s, workers, progress, err);
    }
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

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_smooth(struct lm_engine *e, struct cht_store *s, const struct lm_smooth_config *cfg,
                      struct cht_err *err)
{
    struct smooth run_state = {.store = s, .cfg = cfg, .threads = threads_of(cfg)};
    struct smooth_worker workers[LM_WALK_THREADS_MAX];
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
        workers[i] = (struct smooth_worker){.run = &run_state, .writer.store = s};
    rc = run(&run_state, workers, err);
    for (unsigned i = 0; i < run_state.threads; i++) {
        lm_vocab_free(&workers[i].vocab);
        lm_writer_free(&workers[i].writer);
        cht_buf_free(&workers[i].context);
        cht_buf_free(&workers[i].parent);
        cht_free(workers[i].tokens);
        cht_free(workers[i].q);
    }
    lm_vocab_free(&run_state.vocab);
    lm_parents_free(run_state.below);
    lm_parents_free(run_state.here);
    lm_gate_leave(e, gate, LM_GATE_SMOOTH);
    return rc;
}
