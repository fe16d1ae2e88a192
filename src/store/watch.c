/* watch: see watch.h.
 *
 * The filter is a blocked Bloom filter: one 64-bit word a key, four bits in it; 16 bits for each pair under the prefix. In
 * front of it stands, for each shard, the highest key met: a key that was given out since is above it and needs no look-up.
 */
#include "store/watch.h"

#include "store/apply.h"

#include "base/alloc.h"
#include "os/thread.h"

#include <stdatomic.h>
#include <string.h>

#define WORDS_MIN 128u
#define WORDS_MAX (1u << 20)   /* 8 MiB: from 4 million pairs on the filter gets coarser */
#define PENDING_MAX (1u << 18) /* keys written during a sweep; more: the sweep is in vain */

struct lane {
    _Alignas(64) _Atomic uint64_t max; /* the highest key of one shard that was noted */
};

struct cht_watch {
    struct cht_watches *ws;
    uint8_t *prefix; /* owned; set at start, as the length */
    size_t len;
    _Atomic uint64_t version; /* changed under mu, read by anyone */
    uint64_t live;            /* guarded by mu: answers of this version may exist */
    unsigned sweeps;          /* guarded by mu: under way */
    uint64_t *pending;        /* owned; guarded by mu: keys written during sweeps of this version */
    size_t pending_n, pending_cap;
    uint64_t passed;        /* guarded by mu: keys that were pending, and are not any more */
    size_t words;           /* a power of two; changed under mu when no sweep is under way */
    _Atomic uint64_t *bits; /* owned */
    struct lane *lane;      /* owned: one a shard */
};

struct cht_watches {
    struct cht_mutex mu;
    _Atomic unsigned count;                /* changed under mu */
    unsigned shards;                       /* set at start; at least 1 */
    bool unfiltered;                       /* set at start: the filters stay small, whatever is noted */
    unsigned refs;                         /* guarded by mu */
    _Atomic bool closed;                   /* changed under mu, read by anyone */
    struct cht_watch *list[CHT_WATCH_MAX]; /* guarded by mu; the first `count` */
};

static uint64_t mix(uint64_t key)
{
    uint64_t h = key * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 32;
    return h * UINT64_C(0xD6E8FEB86659FD93);
}

static uint64_t mask_of(uint64_t h)
{
    return UINT64_C(1) << (h & 63) | UINT64_C(1) << (h >> 6 & 63) | UINT64_C(1) << (h >> 12 & 63) |
           UINT64_C(1) << (h >> 18 & 63);
}

static _Atomic uint64_t *word_of(const struct cht_watch *w, uint64_t h)
{
    return &w->bits[h >> 40 & (w->words - 1)];
}

/* May a sweep have met this key? */
static bool noted(const struct cht_watch *w, uint64_t key)
{
    if (key > atomic_load_explicit(&w->lane[key % w->ws->shards].max, memory_order_relaxed))
        return false;
    uint64_t h = mix(key), mask = mask_of(h);
    return (atomic_load_explicit(word_of(w, h), memory_order_relaxed) & mask) == mask;
}

/* No sweep needs to hear of them any more. mu held. */
static void pass_pending(struct cht_watch *w)
{
    w->passed += w->pending_n;
    w->pending_n = 0;
}

/* The sweeps under way are in vain, whatever else is written. mu held. */
static void raise_version(struct cht_watch *w)
{
    atomic_fetch_add_explicit(&w->version, 1, memory_order_release);
    pass_pending(w);
}

static bool starts_with(struct cht_str name, const uint8_t *p, size_t n)
{
    return name.n >= n && (n == 0 || memcmp(name.p, p, n) == 0);
}

/* Keeps a key for the end of the sweeps under way; false if it cannot. mu held. */
static bool keep(struct cht_watch *w, uint64_t key)
{
    if (w->pending_n == w->pending_cap) {
        size_t cap = w->pending_cap > 0 ? 2 * w->pending_cap : 256;
        uint64_t *p = cap <= PENDING_MAX ? cht_realloc(w->pending, cap * sizeof *p) : NULL;
        if (p == NULL)
            return false;
        w->pending = p;
        w->pending_cap = cap;
    }
    w->pending[w->pending_n++] = key;
    return true;
}

/* The value under this key has changed. mu held. */
static bool key_concerns(struct cht_watch *w, uint64_t key)
{
    if (w->sweeps > 0 && !keep(w, key))
        return true;
    return noted(w, key);
}

/* Does an operation that succeeded change what the watch stands for? mu held. */
static bool op_concerns(struct cht_watch *w, const struct cht_op *op)
{
    switch (op->kind) {
    case CHT_OP_INSERT:
    case CHT_OP_EDIT:
    case CHT_OP_PUT:
    case CHT_OP_DELETE:
        return key_concerns(w, op->key);
    case CHT_OP_PAIR_SET:
    case CHT_OP_PAIR_LINK:
        return starts_with(op->name, w->prefix, w->len);
    case CHT_OP_PAIR_PUT:
        return starts_with(op->name, w->prefix, w->len) || key_concerns(w, op->key);
    case CHT_OP_PAIR_DEL:
        return starts_with(op->name, w->prefix, w->len) || (op->values > 0 && key_concerns(w, op->key));
    case CHT_OP_PREFIX_DEL: /* its keys are not known any more */
        return op->values > 0 || starts_with(op->name, w->prefix, w->len) ||
               starts_with((struct cht_str){w->prefix, w->len}, op->name.p, op->name.n);
    case CHT_OP_READ:
    case CHT_OP_PAIR_READ:
    case CHT_OP_RESERVE:
    case CHT_OP_PURGE: /* what it has removed is told by itself */
        break;
    }
    return false;
}

static bool many_concerns(void *ctx, const struct cht_op *op) { return op_concerns(ctx, op); }

/* A commit that concerns the watch need not be looked at further, but for the keys that a sweep under way must hear of: the
 * raised version is enough for that one, too, and a sweep cannot begin before the report is over. */
static bool list_concerns(struct cht_watch *w, const struct cht_commit *list)
{
    for (const struct cht_commit *c = list; c != NULL; c = c->next) {
        if ((c->flags & CHT_COMMIT_ATOMIC) != 0 && c->rc != CHT_OK)
            continue; /* undone */
        for (size_t i = 0; i < c->count; i++) {
            if (c->ops[i].rc == CHT_OK && op_concerns(w, &c->ops[i]))
                return true;
        }
        if (c->many != NULL && c->rc == CHT_OK && cht_many_each(c->many, many_concerns, w))
            return true;
    }
    return false;
}

static void watches_unref(struct cht_watches *ws) /* with mu held; unlocks it */
{
    bool last = --ws->refs == 0;
    cht_mutex_unlock(&ws->mu);
    if (last) {
        cht_mutex_fini(&ws->mu);
        cht_free(ws);
    }
}

/* An empty filter for about that many keys. No sweep is under way and no answer lives. Without memory it stays as it is, only
 * emptied. mu held. */
static void clear_filter(struct cht_watch *w, uint64_t pairs)
{
    size_t words = WORDS_MIN;
    while (words < WORDS_MAX && words < pairs / 4 && !w->ws->unfiltered)
        words *= 2;
    if (words > w->words || words < w->words / 4) {
        _Atomic uint64_t *bits = cht_malloc(words * sizeof *bits);
        if (bits != NULL) {
            cht_free((void *)w->bits);
            w->bits = bits;
            w->words = words;
        }
    }
    for (size_t i = 0; i < w->words; i++)
        atomic_store_explicit(&w->bits[i], 0, memory_order_relaxed);
    for (unsigned i = 0; i < w->ws->shards; i++)
        atomic_store_explicit(&w->lane[i].max, 0, memory_order_relaxed);
}

static void watch_drop(struct cht_watch *w)
{
    cht_free(w->prefix);
    cht_free(w->pending);
    cht_free((void *)w->bits);
    cht_free(w->lane);
    cht_free(w);
}

static struct cht_watch *watch_make(struct cht_watches *ws, struct cht_str prefix)
{
    struct cht_watch *w = cht_calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->ws = ws;
    w->len = prefix.n;
    w->words = WORDS_MIN;
    w->prefix = cht_malloc(prefix.n > 0 ? prefix.n : 1);
    w->bits = cht_calloc(w->words, sizeof *w->bits);
    w->lane = cht_aligned_alloc(64, ws->shards * sizeof *w->lane);
    if (w->prefix == NULL || w->bits == NULL || w->lane == NULL) {
        watch_drop(w);
        return NULL;
    }
    if (prefix.n > 0)
        memcpy(w->prefix, prefix.p, prefix.n);
    for (unsigned i = 0; i < ws->shards; i++)
        atomic_init(&w->lane[i].max, 0);
    atomic_init(&w->version, 1); /* live is 0: there is no answer yet */
    return w;
}

/* ---- the store's side ---------------------------------------------------------------------------------------- */

enum cht_rc cht_watches_new(unsigned shards, struct cht_watches **out, struct cht_err *err)
{
    struct cht_watches *ws = cht_calloc(1, sizeof *ws);
    if (ws == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the watches of a database");
    enum cht_rc rc = cht_mutex_init(&ws->mu, err);
    if (rc != CHT_OK) {
        cht_free(ws);
        return rc;
    }
    ws->shards = shards > 0 ? shards : 1;
    ws->unfiltered = shards == 0;
    ws->refs = 1;
    *out = ws;
    return CHT_OK;
}

void cht_watches_close(struct cht_watches *ws)
{
    if (ws == NULL)
        return;
    cht_mutex_lock(&ws->mu);
    atomic_store_explicit(&ws->closed, true, memory_order_release);
    unsigned n = atomic_load_explicit(&ws->count, memory_order_relaxed);
    for (unsigned i = 0; i < n; i++)
        raise_version(ws->list[i]);
    watches_unref(ws);
}

void cht_watches_report(struct cht_watches *ws, const struct cht_commit *list, bool all)
{
    if (atomic_load_explicit(&ws->count, memory_order_relaxed) == 0) /* R4 */
        return;
    cht_mutex_lock(&ws->mu);
    unsigned n = atomic_load_explicit(&ws->count, memory_order_relaxed);
    for (unsigned i = 0; i < n; i++) {
        struct cht_watch *w = ws->list[i];
        bool needed = w->sweeps > 0 || w->live == atomic_load_explicit(&w->version, memory_order_relaxed);
        if (needed && (all || list_concerns(w, list)))
            raise_version(w);
    }
    cht_mutex_unlock(&ws->mu);
}

enum cht_rc cht_watches_add(struct cht_watches *ws, struct cht_str prefix, struct cht_watch **out,
                            struct cht_err *err)
{
    struct cht_watch *w = watch_make(ws, prefix);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a watch");
    cht_mutex_lock(&ws->mu);
    unsigned n = atomic_load_explicit(&ws->count, memory_order_relaxed);
    bool room = n < CHT_WATCH_MAX && !atomic_load_explicit(&ws->closed, memory_order_relaxed);
    if (room) {
        ws->list[n] = w;
        ws->refs++;
        atomic_store_explicit(&ws->count, n + 1, memory_order_relaxed);
    }
    cht_mutex_unlock(&ws->mu);
    if (!room) {
        watch_drop(w);
        return CHT_FAIL(err, CHT_OVERLOADED, "a database has at most %u watches", CHT_WATCH_MAX);
    }
    *out = w;
    return CHT_OK;
}

/* ---- the reader's side --------------------------------------------------------------------------------------- */

void cht_watch_free(struct cht_watch *w)
{
    if (w == NULL)
        return;
    struct cht_watches *ws = w->ws;
    cht_mutex_lock(&ws->mu);
    unsigned n = atomic_load_explicit(&ws->count, memory_order_relaxed), i = 0;
    while (i < n && ws->list[i] != w)
        i++;
    ws->list[i] = ws->list[n - 1];
    atomic_store_explicit(&ws->count, n - 1, memory_order_relaxed);
    watches_unref(ws);
    watch_drop(w);
}

uint64_t cht_watch_begin_at(struct cht_watch *w, uint64_t pairs, uint64_t *place)
{
    cht_mutex_lock(&w->ws->mu);
    uint64_t version = atomic_load_explicit(&w->version, memory_order_relaxed);
    if (w->sweeps == 0 && w->live != version)
        clear_filter(w, pairs);
    w->live = version;
    w->sweeps++;
    *place = w->passed + w->pending_n;
    cht_mutex_unlock(&w->ws->mu);
    return version;
}

uint64_t cht_watch_begin(struct cht_watch *w, uint64_t pairs)
{
    uint64_t place;
    return cht_watch_begin_at(w, pairs, &place);
}

void cht_watch_note(struct cht_watch *w, uint64_t key)
{
    _Atomic uint64_t *max = &w->lane[key % w->ws->shards].max;
    uint64_t seen = atomic_load_explicit(max, memory_order_relaxed);
    while (key > seen && !atomic_compare_exchange_weak_explicit(max, &seen, key, memory_order_relaxed,
                                                                memory_order_relaxed))
        ;
    uint64_t h = mix(key), mask = mask_of(h);
    _Atomic uint64_t *word = word_of(w, h);
    if ((atomic_load_explicit(word, memory_order_relaxed) & mask) != mask)
        atomic_fetch_or_explicit(word, mask, memory_order_relaxed);
}

/* A sweep ends: was a key written, from the i-th pending one on, that was met before? mu held; unlocks it. */
static void end(struct cht_watch *w, size_t i)
{
    bool hit = false;
    for (; i < w->pending_n && !hit; i++)
        hit = noted(w, w->pending[i]);
    if (hit)
        raise_version(w);
    if (--w->sweeps == 0) {
        pass_pending(w);
        cht_free(w->pending);
        w->pending = NULL;
        w->pending_cap = 0;
    }
    cht_mutex_unlock(&w->ws->mu);
}

void cht_watch_end(struct cht_watch *w)
{
    cht_mutex_lock(&w->ws->mu);
    end(w, 0);
}

/* Before `passed`: the version was raised since it began. */
void cht_watch_end_at(struct cht_watch *w, uint64_t place)
{
    cht_mutex_lock(&w->ws->mu);
    end(w, place >= w->passed ? (size_t)(place - w->passed) : w->pending_n);
}

uint64_t cht_watch_version(const struct cht_watch *w)
{
    return atomic_load_explicit(&w->version, memory_order_acquire);
}

bool cht_watch_closed(const struct cht_watch *w)
{
    return atomic_load_explicit(&w->ws->closed, memory_order_acquire);
}

size_t cht_watch_memory(const struct cht_watch *w)
{
    cht_mutex_lock(&w->ws->mu);
    size_t n = sizeof *w + w->len + w->words * sizeof *w->bits + w->ws->shards * sizeof *w->lane +
               w->pending_cap * sizeof *w->pending;
    cht_mutex_unlock(&w->ws->mu);
    return n;
}
