/* db_scan: the life of a scan and the merge of its streams (structure in scan_int.h).
 *
 * The merge is a tree of losers (Knuth, TAOCP 3, 5.4.1) over the streams; comparing two is mostly comparing two numbers, the
 * heads. Entries handed out point into batches, so a batch that was read out goes back to its worker at the next call.
 */
#include "store/scan_range.h"

#include "base/alloc.h"
#include "base/recycle.h"

#include <string.h>

#define SMALL_SCAN 256u /* so few entries are fetched by the caller itself: no thread switch */
#define BATCH_MAX (256u << 10)

static bool is_small(struct cht_db_scan *sc)
{
    if (sc->cfg.limit > 0 && sc->cfg.limit <= SMALL_SCAN)
        return true;
    uint64_t n = 0;
    return sc->cfg.kind == CHT_SCAN_PAIRS &&
           cht_store_count(&sc->db->base, sc->cfg.prefix, &n, NULL) == CHT_OK && n <= SMALL_SCAN;
}

/* ---- filling ------------------------------------------------------------------------------------------------- */

/* Queues fills for streams that have a free batch, as far as cfg.workers allows. `own`: the pool of the worker that calls this
 * and is about to return; NULL: the reader calls. mu held. */
static void submit_fills(struct cht_db_scan *sc, const struct cht_pool *own)
{
    for (unsigned i = 0; i < sc->n; i++) {
        struct cht_stream *st = &sc->streams[i];
        if (sc->cfg.workers > 0 && sc->active >= sc->cfg.workers)
            return;
        if (st->queued || st->ended || st->ready[st->fill] ||
            atomic_load_explicit(&sc->cancelled, memory_order_relaxed))
            continue;
        st->queued = true;
        sc->active++;
        struct cht_pool *pool = cht_db_pool(sc->db, st->shard);
        if (pool != own) {
            cht_pool_submit(pool, &st->task);
            continue;
        }
        cht_pool_submit_last(pool, &st->task);
        own = NULL; /* it takes one of them */
    }
}

/* A filled batch becomes the reader's. mu held, or nobody else knows of the scan yet. */
static void publish(struct cht_stream *st)
{
    st->ended = st->batch[st->fill].last;
    st->ready[st->fill] = true;
    st->fill ^= 1;
}

/* Is a fill of st what the reader waits for? Waking it for another one would cost both threads more than the fill. mu held. */
static bool concerns_reader(const struct cht_db_scan *sc, const struct cht_stream *st)
{
    return st == sc->awaited || sc->active == 0 || sc->rc != CHT_OK ||
           atomic_load_explicit(&sc->cancelled, memory_order_relaxed);
}

static void fill_task(struct cht_task *t)
{
    struct cht_stream *st = (struct cht_stream *)t;
    struct cht_db_scan *sc = st->scan;
    struct cht_pool *pool = cht_db_pool(sc->db, st->shard);
    enum cht_calm_turn turn = cht_scan_enter(sc, pool, t);
    if (turn == CHT_CALM_ASIDE)
        return;
    cht_scan_fill(st); /* cancelled, it takes no lock */
    if (turn == CHT_CALM_INSIDE)
        cht_calm_leave(&sc->db->calm);
    if (cht_batch_empty(&st->batch[st->fill])) { /* after what else waits for a worker */
        cht_pool_submit_last(pool, t);
        return;
    }
    cht_mutex_lock(&sc->mu);
    publish(st);
    st->queued = false;
    sc->active--;
    submit_fills(sc, pool);
    if (concerns_reader(sc, st)) {
        void (*ready)(void *) = sc->wants_ready ? sc->cfg.ready : NULL;
        sc->wants_ready = false;
        if (ready != NULL)
            ready(sc->cfg.ready_ctx); /* with mu held: close waits for it, so the scan is still there */
        cht_cond_broadcast(&sc->cond);
    }
    cht_mutex_unlock(&sc->mu);
}

/* ---- merging ------------------------------------------------------------------------------------------------- */

static struct cht_scan_item *item_of(struct cht_stream *st) { return &st->batch[st->read].items[st->at]; }

/* Streams with equal heads. A dead stream comes last. */
static bool before_slow(struct cht_db_scan *sc, unsigned a, unsigned b)
{
    struct cht_stream *x = &sc->streams[a], *y = &sc->streams[b];
    if (x->dead || y->dead)
        return !x->dead;
    const struct cht_scan_item *i = item_of(x), *j = item_of(y);
    if (sc->cfg.kind == CHT_SCAN_VALUES)
        return i->key < j->key;
    size_t n = i->name_len < j->name_len ? i->name_len : j->name_len;
    int c = memcmp(x->batch[x->read].names + i->name, y->batch[y->read].names + j->name, n);
    if (c == 0)
        c = (i->name_len > j->name_len) - (i->name_len < j->name_len);
    return sc->cfg.reverse ? c > 0 : c < 0;
}

static inline bool before(struct cht_db_scan *sc, unsigned a, unsigned b)
{
    uint64_t x = sc->heads[a], y = sc->heads[b];
    return x != y ? x < y : before_slow(sc, a, b);
}

/* Stream i has a new item: plays it up the tree. Who wins is as good as random, so a branch on it would be mispredicted half of
 * the time: loser and winner are exchanged under a mask. */
static inline void replay(struct cht_db_scan *sc, unsigned i)
{
    unsigned win = i;
    uint64_t head = sc->heads[i];
    for (unsigned at = (i + sc->n) / 2; at > 0; at /= 2) {
        unsigned other = sc->tree[at];
        uint64_t theirs = sc->heads[other];
        bool lost = theirs < head;
        if (__builtin_expect(theirs == head, 0))
            lost = before_slow(sc, other, win);
        unsigned change = (other ^ win) & (0u - lost);
        sc->tree[at] = other ^ change;
        win ^= change;
        head ^= (theirs ^ head) & (0u - (uint64_t)lost);
    }
    sc->tree[0] = win;
}

static void build_tree(struct cht_db_scan *sc)
{
    unsigned n = sc->n;
    unsigned winners[2 * CHT_SCAN_SHARDS_MAX] = {0};
    for (unsigned i = 0; i < n; i++)
        winners[n + i] = i;
    for (unsigned at = n - 1; at > 0; at--) {
        unsigned a = winners[2 * at], b = winners[2 * at + 1];
        bool first = before(sc, a, b);
        winners[at] = first ? a : b;
        sc->tree[at] = first ? b : a;
    }
    sc->tree[0] = n > 1 ? winners[1] : 0;
}

static void set_head(struct cht_db_scan *sc, unsigned i)
{
    struct cht_stream *st = &sc->streams[i];
    sc->heads[i] = st->dead ? UINT64_MAX : item_of(st)->head;
}

/* Makes stream i stand on an item or be dead; false if its next batch is not there yet. mu held. */
static bool settle(struct cht_db_scan *sc, unsigned i)
{
    struct cht_stream *st = &sc->streams[i];
    while (!st->dead) {
        struct cht_batch *b = &st->batch[st->read];
        if (st->reading && st->at < b->count)
            break;
        if (st->reading) { /* read out */
            st->reading = false;
            st->spent |= 1u << st->read;
            st->dead = b->last;
            st->read ^= 1;
            continue;
        }
        if ((st->spent >> st->read & 1) != 0 || !st->ready[st->read])
            return false;
        st->reading = true;
        st->at = 0;
    }
    set_head(sc, i);
    return true;
}

/* Gives batches that were read out in the last call back to the workers. mu held. */
static void recycle(struct cht_db_scan *sc)
{
    for (unsigned i = 0; i < sc->n; i++) {
        struct cht_stream *st = &sc->streams[i];
        for (unsigned b = 0; b < 2; b++) {
            if ((st->spent >> b & 1) == 0)
                continue;
            st->ready[b] = false;
            CHT_UNUSED(st->batch[b].names, cht_scan_batch_bytes(sc));
        }
        st->spent = 0;
    }
    submit_fills(sc, NULL);
}

/* Waits until every stream stands on an item or is dead. */
static enum cht_rc await(struct cht_db_scan *sc, bool wait, struct cht_err *err)
{
    for (;;) {
        enum cht_rc rc = cht_scan_fault(sc, err);
        if (rc != CHT_OK)
            return rc;
        unsigned i = 0;
        if (!sc->started) {
            while (i < sc->n && settle(sc, i))
                i++;
        } else if (settle(sc, sc->tree[0])) { /* only the winner ever moves */
            i = sc->n;
            replay(sc, sc->tree[0]);
        }
        if (i == sc->n)
            return CHT_OK;
        sc->awaited = &sc->streams[sc->started ? sc->tree[0] : i];
        if (!wait) {
            sc->wants_ready = true;
            return CHT_PENDING;
        }
        cht_cond_wait(&sc->cond, &sc->mu);
    }
}

static void give(const struct cht_stream *st, struct cht_entry *e)
{
    const struct cht_batch *b = &st->batch[st->read];
    const struct cht_scan_item *it = &b->items[st->at];
    e->name = b->names + it->name;
    e->name_len = it->name_len;
    e->key = it->key;
    e->size = it->size;
    e->flags = it->flags;
    e->shard = st->shard;
    e->count = 1;
    e->value = it->value_len > 0 ? b->bytes + it->value : NULL;
    e->value_len = it->value_len;
    e->ends = b->ends != NULL ? b->ends[st->at] : 0;
}

/* Takes entries while no stream needs another batch; the last winner may be left to be settled by the next call. */
static size_t take_entries(struct cht_db_scan *sc, struct cht_entry *out, size_t max, bool *stuck)
{
    size_t n = 0;
    *stuck = false;
    while (n < max) {
        unsigned w = sc->tree[0];
        struct cht_stream *st = &sc->streams[w];
        if (st->dead)
            break;
        give(st, &out[n++]);
        const struct cht_batch *b = &st->batch[st->read];
        if (__builtin_expect(++st->at < b->count, 1)) {
            sc->heads[w] = b->items[st->at].head;
            replay(sc, w);
            continue;
        }
        *stuck = true;
        break;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------------------ */

static void scan_free(struct cht_db_scan *sc)
{
    for (unsigned i = 0; sc->streams != NULL && i < sc->n; i++) {
        cht_free(sc->streams[i].batch[0].items);
        cht_free(sc->streams[i].batch[1].items);
        cht_free(sc->streams[i].cursor);
    }
    cht_free(sc->streams);
    cht_ranges_free(sc);
    cht_free(sc->bounds);
    cht_free(sc->tree);
    cht_free(sc->heads);
    cht_cond_fini(&sc->cond);
    cht_mutex_fini(&sc->mu);
    cht_free(sc);
}

/* Sizes of the batches so that all of them stay within CHT_SCAN_MEMORY. */
static void plan_memory(struct cht_db_scan *sc)
{
    size_t fixed =
        sizeof *sc + sc->n * (sizeof(struct cht_stream) + CHT_NAME_MAX + sizeof(uint64_t) + sizeof(unsigned));
    size_t batch = (CHT_SCAN_MEMORY - fixed) / (2 * (size_t)sc->n);
    bool carry = sc->cfg.values || sc->cfg.render != NULL, pairs = sc->cfg.kind == CHT_SCAN_PAIRS;
    if (sc->cfg.limit > 0 && sc->cfg.limit <= SMALL_SCAN && batch > BATCH_MAX / 4 && !carry)
        batch = BATCH_MAX / 4;
    batch = batch < BATCH_MAX ? batch : BATCH_MAX;
    size_t names_min = pairs ? CHT_NAME_MAX + 64 : 0, per_item = sizeof(struct cht_scan_item) +
                                                                 (sc->cfg.ends ? sizeof(uint64_t) : 0) +
                                                                 (pairs ? 24 : 0) + (carry ? 96 : 0);
    sc->items_max = (batch - names_min) / per_item;
    sc->items_max = sc->items_max > 1024 ? 1024 : sc->items_max;
    sc->names_cap = names_min + (pairs ? sc->items_max * 24 : 0);
    size_t rest = batch - sc->names_cap - cht_scan_item_bytes(sc);
    sc->bytes_cap = !carry                   ? 0
                    : sc->cfg.render != NULL ? rest / 2
                                             : rest; /* rendering needs the values and room for its output */
    sc->memory = fixed + 2 * sc->n * (sc->names_cap + cht_scan_item_bytes(sc) + (carry ? rest : 0));
}

static enum cht_rc make_stream(struct cht_db_scan *sc, unsigned i, struct cht_err *err)
{
    struct cht_stream *st = &sc->streams[i];
    size_t items = cht_scan_item_bytes(sc);
    st->task.run = fill_task;
    st->scan = sc;
    st->shard = i;
    st->cursor_key = sc->cfg.after_key + 1;
    st->cursor = cht_malloc(CHT_NAME_MAX);
    bool ok = st->cursor != NULL;
    for (int b = 0; b < 2 && ok; b++) {
        st->batch[b].items = cht_malloc(items + cht_scan_batch_bytes(sc));
        ok = st->batch[b].items != NULL;
        if (ok && sc->cfg.ends)
            st->batch[b].ends = (uint64_t *)(void *)(st->batch[b].items + sc->items_max);
        st->batch[b].names = (uint8_t *)st->batch[b].items + items;
        st->batch[b].bytes = st->batch[b].names + sc->names_cap;
    }
    return ok ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
}

static enum cht_rc make_streams(struct cht_db_scan *sc, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    plan_memory(sc);
    sc->streams = cht_calloc(sc->n, sizeof *sc->streams);
    sc->tree = cht_calloc(sc->n, sizeof *sc->tree);
    sc->heads = cht_calloc(sc->n, sizeof *sc->heads);
    if (sc->streams == NULL || sc->tree == NULL || sc->heads == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    for (unsigned i = 0; i < sc->n && rc == CHT_OK; i++)
        rc = make_stream(sc, i, err);
    return rc;
}

static enum cht_rc copy_bounds(struct cht_db_scan *sc, struct cht_err *err)
{
    struct cht_str *s[] = {&sc->cfg.prefix, &sc->cfg.after, &sc->cfg.until};
    size_t sum = 0;
    for (size_t i = 0; i < 3; i++)
        sum += s[i]->n;
    sc->bounds = cht_malloc(sum);
    if (sc->bounds == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    uint8_t *p = sc->bounds;
    for (size_t i = 0; i < 3; i++) {
        if (s[i]->n > 0)
            memcpy(p, s[i]->p, s[i]->n);
        s[i]->p = p;
        p += s[i]->n;
    }
    return CHT_OK;
}

/* The first batch of each shard by the caller: few entries in all. */
static void fill_here(struct cht_db_scan *sc)
{
    for (unsigned i = 0; i < sc->n; i++) {
        struct cht_stream *st = &sc->streams[i];
        cht_scan_fill(st);
        if (!cht_batch_empty(&st->batch[st->fill]))
            publish(st);
    }
}

enum cht_rc cht_db_scan_open(struct cht_store *s, const struct cht_scan_config *cfg, struct cht_scan **out,
                             struct cht_err *err)
{
    struct cht_db_scan *sc = cht_calloc(1, sizeof *sc);
    if (sc == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    sc->base.store = s;
    sc->db = cht_db(s);
    sc->cfg = *cfg;
    sc->n = sc->db->nshards;
    sc->cfg.ends = cfg->ends && cfg->kind == CHT_SCAN_PAIRS;
    enum cht_rc rc = cht_mutex_init(&sc->mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&sc->cond, err);
    if (rc == CHT_OK && (cfg->after.n > CHT_NAME_MAX || cfg->until.n > CHT_NAME_MAX))
        rc = CHT_FAIL(err, CHT_INVALID_PAIR, "a bound of over %u bytes", CHT_NAME_MAX);
    if (rc == CHT_OK)
        rc = copy_bounds(sc, err);
    sc->since = cht_ends_since(sc->db);
    bool due = sc->since != 0 && cht_ends_due(sc->db, sc->since);
    bool calm =
        !due && cht_calm_try(&sc->db->calm); /* else nothing is looked at here: the workers do it all */
    if (rc == CHT_OK)
        rc = calm && cht_ranges_suit(sc) ? cht_ranges_new(sc, err) : make_streams(sc, err);
    if (rc == CHT_OK && calm && sc->ranges == NULL && is_small(sc))
        fill_here(sc);
    if (calm)
        cht_calm_leave(&sc->db->calm);
    if (rc != CHT_OK) {
        scan_free(sc);
        return rc;
    }
    cht_mutex_lock(&sc->mu);
    if (sc->ranges != NULL)
        cht_ranges_submit(sc);
    else
        submit_fills(sc, NULL);
    cht_mutex_unlock(&sc->mu);
    *out = &sc->base;
    return CHT_OK;
}

enum cht_rc cht_db_scan_next(struct cht_scan *base, bool wait, struct cht_entry *out, size_t max,
                             size_t *count, struct cht_err *err)
{
    struct cht_db_scan *sc = (struct cht_db_scan *)base;
    *count = 0;
    if (sc->cfg.limit > 0) {
        uint64_t left = sc->cfg.limit - sc->delivered;
        max = left < max ? (size_t)left : max;
    }
    if (max == 0)
        return CHT_OK;
    if (sc->ranges != NULL)
        return cht_ranges_next(sc, wait, out, max, count, err);
    cht_mutex_lock(&sc->mu);
    recycle(sc);
    enum cht_rc rc = await(sc, wait, err);
    if (rc == CHT_OK && !sc->started) {
        build_tree(sc);
        sc->started = true;
    }
    while (rc == CHT_OK && *count < max) {
        bool stuck;
        cht_mutex_unlock(&sc->mu);
        *count += take_entries(sc, out + *count, max - *count, &stuck);
        cht_mutex_lock(&sc->mu);
        if (!stuck)
            break;
        unsigned w = sc->tree[0];
        if (!settle(sc, w)) /* what was taken is given now; the next call waits */
            break;
        replay(sc, w);
    }
    cht_mutex_unlock(&sc->mu);
    sc->delivered += *count;
    return rc;
}

bool cht_db_scan_exhausted(const struct cht_scan *base)
{
    const struct cht_db_scan *sc = (const struct cht_db_scan *)base;
    if (sc->ranges != NULL)
        return sc->ranges->done;
    if (!sc->started)
        return false;
    for (unsigned i = 0; i < sc->n; i++) {
        const struct cht_stream *st = &sc->streams[i];
        const struct cht_batch *b = &st->batch[st->read];
        if (!st->dead && !(st->reading && st->at >= b->count && b->last))
            return false;
    }
    return true;
}

void cht_db_scan_cancel(struct cht_scan *base)
{
    struct cht_db_scan *sc = (struct cht_db_scan *)base;
    atomic_store_explicit(&sc->cancelled, true, memory_order_seq_cst);
    if (cht_calm_busy(&sc->db->calm)) { /* those that were put aside end now, not when it is calm */
        for (unsigned i = 0; sc->ranges == NULL && i < sc->n; i++)
            cht_calm_recall(&sc->db->calm, &sc->streams[i].task);
        for (unsigned i = 0; sc->ranges != NULL && i < CHT_RANGES_MAX; i++)
            cht_calm_recall(&sc->db->calm, &sc->ranges->range[i].task);
    }
    cht_mutex_lock(&sc->mu);
    cht_cond_broadcast(&sc->cond);
    cht_mutex_unlock(&sc->mu);
}

void cht_db_scan_close(struct cht_scan *base)
{
    struct cht_db_scan *sc = (struct cht_db_scan *)base;
    cht_db_scan_cancel(base);
    cht_mutex_lock(&sc->mu);
    sc->wants_ready = false;
    while (sc->active > 0)
        cht_cond_wait(&sc->cond, &sc->mu);
    cht_mutex_unlock(&sc->mu);
    scan_free(sc);
}

size_t cht_db_scan_memory(const struct cht_scan *base) { return ((const struct cht_db_scan *)base)->memory; }
