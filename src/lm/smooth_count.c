/* lm_smooth_count: P1 of a run: how often each count occurs in each order, and how many contexts each token follows.
 *
 * Sums, so the payloads may come in any order: one sweep an order (sweep.h), each of whose threads adds to a lane of its own. A
 * thread of this run's waits for the sweep while the caller's reports progress.
 */
#include "lm/names.h"
#include "lm/smooth_int.h"

#include <string.h>

#include "base/alloc.h"
#include "cheetah/sweep.h"

#define LANES LM_WALK_THREADS_MAX
#define REPORT_NS UINT64_C(400000000)

/* One thread's at a time. */
struct lane {
    _Alignas(64) _Atomic bool busy; /* whoever set it has the lane: acquire and release pair */
    struct lm_count_counts counts;
    struct lm_vocab vocab; /* order 2: contexts */
    struct lm_counts read;
    uint64_t malformed;
    enum cht_rc rc; /* of the first failure */
    struct cht_err err;
};

struct counting {
    struct lm_smooth *run;
    struct cht_str prefix;
    struct lane lane[LANES];
    _Atomic uint64_t visited;
    _Atomic bool stop; /* a lane failed */
    struct cht_thread thread;
    struct cht_mutex mu;
    struct cht_cond ended;
    bool over; /* guarded by mu, as the next two */
    enum cht_rc rc;
    struct cht_err err;
};

static enum cht_rc count_context(struct counting *c, struct lane *l, struct cht_err *err)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < l->read.n; i++)
        total += l->read.f[i].count;
    if (total == 0) /* is no context */
        return CHT_OK;
    l->counts.contexts++;
    for (uint32_t i = 0; i < l->read.n; i++) {
        uint32_t k = l->read.f[i].count;
        if (k == 0)
            continue;
        l->counts.n[k < 4 ? k - 1 : 3]++;
        if (c->run->order != 2)
            continue;
        struct lm_word *word = lm_vocab_enter(&l->vocab, l->read.f[i].token, err);
        if (word == NULL)
            return l->vocab.rc;
        word->contexts += word->contexts < UINT32_MAX;
    }
    return CHT_OK;
}

static enum cht_rc count_entry(struct counting *c, struct lane *l, const struct cht_entry *e,
                               struct cht_err *err)
{
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    struct cht_str name = {e->name, e->name_len};
    enum cht_rc rc = (e->flags & CHT_ENTRY_CORRUPT) != 0
                         ? CHT_MALFORMED_PAYLOAD
                         : lm_counts_read(&l->read, e->value, e->value_len, name, NULL);
    if (rc == CHT_MALFORMED_PAYLOAD) {
        l->malformed++;
        return CHT_OK;
    }
    if (rc != CHT_OK)
        return CHT_FAIL(err, rc, "no memory for the counts of a context");
    return rc == CHT_OK ? count_context(c, l, err) : rc;
}

/* Lanes are enough for any sweep but one over very many directories, which then waits here for a moment. */
static struct lane *take_lane(struct counting *c)
{
    unsigned i = 0;
    while (atomic_exchange_explicit(&c->lane[i].busy, true, memory_order_acquire))
        i = (i + 1) % LANES;
    return &c->lane[i];
}

static bool visit(void *ctx, const struct cht_entry *e, size_t n)
{
    struct counting *c = ctx;
    if (atomic_load_explicit(&c->stop, memory_order_relaxed) || lm_smooth_cancelled(c->run))
        return false;
    struct lane *l = take_lane(c);
    for (size_t i = 0; i < n && l->rc == CHT_OK; i++)
        l->rc = count_entry(c, l, &e[i], &l->err);
    bool good = l->rc == CHT_OK;
    atomic_store_explicit(&l->busy, false, memory_order_release);
    if (!good)
        atomic_store_explicit(&c->stop, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->visited, n, memory_order_relaxed);
    return good;
}

static void *sweep_main(void *arg)
{
    struct counting *c = arg;
    struct cht_err err = {0};
    struct cht_sweep_config cfg = {.prefix = c->prefix, .names = true, .visit = visit, .ctx = c};
    enum cht_rc rc = cht_store_sweep(c->run->store, &cfg, &err);
    cht_mutex_lock(&c->mu);
    c->rc = rc;
    c->err = err;
    c->over = true;
    cht_cond_signal(&c->ended);
    cht_mutex_unlock(&c->mu);
    return NULL;
}

static void report(const struct counting *c, const struct lm_progress *p)
{
    uint64_t done = p->done + atomic_load_explicit(&c->visited, memory_order_relaxed);
    if (p->fn != NULL)
        p->fn(p->ctx, p->phase, done, done > p->total ? done : p->total);
}

static enum cht_rc await_sweep(struct counting *c, const struct lm_progress *p, struct cht_err *err)
{
    cht_mutex_lock(&c->mu);
    while (!c->over) {
        if (cht_cond_wait_ns(&c->ended, &c->mu, REPORT_NS))
            continue;
        cht_mutex_unlock(&c->mu);
        report(c, p);
        cht_mutex_lock(&c->mu);
    }
    cht_mutex_unlock(&c->mu);
    cht_thread_join(&c->thread);
    report(c, p);
    const struct cht_err *why = &c->err;
    enum cht_rc rc = c->rc;
    for (unsigned i = 0; i < LANES && rc == CHT_OK; i++) {
        rc = c->lane[i].rc;
        why = &c->lane[i].err;
    }
    if (rc == CHT_OK)
        return lm_smooth_cancelled(c->run) ? CHT_FAIL(err, CHT_CANCELLED, "cancelled") : CHT_OK;
    if (err != NULL)
        *err = *why;
    return rc;
}

/* What the lanes counted goes into the run. */
static enum cht_rc take_counts(struct lm_smooth *s, struct lane *l, struct cht_err *err)
{
    struct lm_count_counts *to = &s->counts[s->order];
    for (int i = 0; i < 4; i++)
        to->n[i] += l->counts.n[i];
    to->contexts += l->counts.contexts;
    if (s->order >= s->cfg->lo && s->order <= s->cfg->hi) /* order 2 is read for other orders too */
        atomic_fetch_add_explicit(&s->malformed, l->malformed, memory_order_relaxed);
    for (size_t i = 0; i < l->vocab.slots; i++) {
        if (!l->vocab.slot[i].used)
            continue;
        struct lm_word *word = lm_vocab_enter(&s->vocab, l->vocab.slot[i].token, err);
        if (word == NULL)
            return s->vocab.rc;
        word->contexts = lm_add_saturating(word->contexts, l->vocab.slot[i].contexts);
    }
    return CHT_OK;
}

static enum cht_rc run_sweep(struct counting *c, const struct lm_progress *p, struct cht_err *err)
{
    enum cht_rc rc = cht_mutex_init(&c->mu, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_cond_init(&c->ended, err);
    if (rc == CHT_OK) {
        rc = cht_thread_start(&c->thread, "lm-count", sweep_main, c, err);
        if (rc == CHT_OK)
            rc = await_sweep(c, p, err);
        cht_cond_fini(&c->ended);
    }
    cht_mutex_fini(&c->mu);
    return rc;
}

static enum cht_rc count_order(struct lm_smooth *s, struct lm_progress *p, struct cht_err *err)
{
    uint8_t prefix[LM_PREFIX_MAX];
    struct counting *c = cht_aligned_alloc(64, sizeof *c);
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counting");
    memset(c, 0, sizeof *c);
    c->run = s;
    for (unsigned i = 0; i < LANES; i++)
        c->lane[i].vocab.book = s->cfg->book;
    c->prefix = (struct cht_str){prefix, lm_prefix(LM_CNT, s->order, prefix)};
    enum cht_rc rc = run_sweep(c, p, err);
    p->done += atomic_load_explicit(&c->visited, memory_order_relaxed);
    for (unsigned i = 0; i < LANES; i++) {
        if (rc == CHT_OK)
            rc = take_counts(s, &c->lane[i], err);
        lm_vocab_free(&c->lane[i].vocab);
        lm_counts_free(&c->lane[i].read);
    }
    cht_free(c);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

/* Order 2 is read in any case, for the continuations. */
enum cht_rc lm_smooth_count(struct lm_smooth *s, struct lm_progress progress, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint64_t pairs[LM_ORDER_MAX + 1] = {0};
    uint8_t prefix[LM_PREFIX_MAX];
    progress.phase = "counts";
    progress.total = 0;
    for (unsigned n = 1; n <= LM_ORDER_MAX && rc == CHT_OK; n++) {
        if (n != 2 && (n < s->cfg->lo || n > s->cfg->hi))
            continue;
        struct cht_str name = {prefix, lm_prefix(LM_CNT, n, prefix)};
        rc = cht_store_count(s->store, name, &pairs[n], err);
        progress.total += pairs[n];
    }
    for (unsigned n = 1; n <= LM_ORDER_MAX && rc == CHT_OK; n++) {
        s->order = n;
        if (pairs[n] > 0)
            rc = count_order(s, &progress, err);
    }
    return rc;
}
