/* sweep: see cheetah/sweep.h. A task a shard; it visits a batch and queues itself again after what else waits.
 *
 *   V1 under the shard's lock, after the cursor: keys from the trie (and names, if they are wanted)
 *   V2 the keys by the shard that holds their values, this one first: its lock is still held
 *   V3 of each such shard, in groups: entries prefetched, looked up, values prefetched, then checked and shown, so that the
 *      cache misses of a group overlap. The lock is released for a moment if many bytes were shown
 *   V4 long values, one at a time over all workers, copied
 */
#include "base/alloc.h"
#include "base/prefetch.h"
#include "cheetah/sweep.h"
#include "store/db_store.h"
#include "store/trie.h"

#include <string.h>

#define SMALL 256u          /* so few pairs are visited by the caller itself: no thread switch */
#define BATCH 1024u         /* pairs */
#define GROUP 32u           /* pairs */
#define LOCKED (256u << 10) /* bytes shown before the lock is released for a moment */
#define SOON (4u << 20)     /* bytes of values that the disk is asked for beforehand */
#define PREFETCH 512u       /* bytes of a value; what is longer is read ahead by the processor itself */
#define SHARDS_MAX 256u
#define NAMES (BATCH * 24u + CHT_NAME_MAX + 64u)

struct sweep;
struct stream {
    struct cht_task task; /* first */
    struct sweep *w;
    unsigned shard;
    size_t cursor_len;
    uint8_t *cursor; /* borrowed of the sweep: CHT_NAME_MAX; the last name visited */
};

struct sweep {
    struct cht_db *db;
    const struct cht_sweep_config *cfg;
    bool names;             /* wanted, by the visitor or for `until` */
    struct stream *streams; /* owned */
    uint8_t *cursors;       /* owned */
    _Atomic bool stop;
    struct cht_mutex long_mu;  /* taken with nothing else held */
    struct cht_buf long_value; /* guarded by long_mu */
    struct cht_mutex mu;
    struct cht_cond idle; /* active became 0 */
    unsigned active;      /* guarded by mu: streams that have not ended */
    enum cht_rc rc;       /* guarded by mu: the first failure */
    struct cht_err err;   /* guarded by mu */
};

/* What a worker has during a batch. */
struct batch {
    struct sweep *w;
    struct cht_shard *sh;
    size_t n, longs;
    bool last;
    struct cht_trie_item item[BATCH];
    uint16_t order[BATCH];  /* items by the shard of their key */
    uint16_t longer[BATCH]; /* items with long values */
    uint16_t start[SHARDS_MAX + 1];
    struct cht_value_ref ref[GROUP];
    struct cht_entry e[GROUP];
    uint8_t names[NAMES];
};
_Static_assert(sizeof(struct batch) <= CHT_SWEEP_MEMORY, "the bound of cheetah/sweep.h");

static bool stopped(struct sweep *w) { return atomic_load_explicit(&w->stop, memory_order_relaxed); }

static void fail(struct sweep *w, enum cht_rc rc, const struct cht_err *err)
{
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    cht_mutex_lock(&w->mu);
    if (w->rc == CHT_OK) {
        w->rc = rc;
        w->err = *err;
    }
    cht_mutex_unlock(&w->mu);
}

static void show(struct batch *b, const struct cht_entry *e, size_t n)
{
    if (n > 0 && !b->w->cfg->visit(b->w->cfg->ctx, e, n))
        atomic_store_explicit(&b->w->stop, true, memory_order_relaxed);
}

/* ---- names --------------------------------------------------------------------------------------------------- */

static bool beyond(struct cht_str until, const uint8_t *name, size_t len)
{
    if (until.n == 0)
        return false;
    int c = memcmp(name, until.p, len < until.n ? len : until.n);
    return c > 0 || (c == 0 && len >= until.n);
}

/* V1. `after` is not the stream's cursor, which moves. CHT_PENDING: a page was lost meanwhile, perhaps one that counted. */
static enum cht_rc read_keys(struct batch *b, struct stream *st, struct cht_str after, struct cht_err *err)
{
    const struct cht_sweep_config *cfg = b->w->cfg;
    struct cht_trie_iter *it;
    uint64_t losses = cht_pf_losses(cht_shard_pairs(b->sh));
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_trie_iter_seek(it, cht_shard_pairs(b->sh), cfg->prefix.p, cfg->prefix.n, after.p, after.n, false,
                            err);
    size_t used;
    if (rc == CHT_OK && b->w->names)
        rc = cht_trie_iter_batch(it, b->item, BATCH, b->names, NAMES, &b->n, &used, err);
    else if (rc == CHT_OK)
        rc = cht_trie_iter_keys(it, b->item, BATCH, &b->n, st->cursor, &st->cursor_len, err);
    cht_trie_iter_free(it);
    if (cht_pf_losses(cht_shard_pairs(b->sh)) != losses)
        return CHT_PENDING;
    b->last = rc == CHT_PAIR_NOT_FOUND;
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        return rc;
    if (!b->w->names || b->n == 0)
        return CHT_OK;
    struct cht_trie_item end = b->item[b->n - 1];
    memcpy(st->cursor, b->names + end.off, end.len);
    st->cursor_len = end.len;
    while (b->n > 0 && beyond(cfg->until, b->names + b->item[b->n - 1].off, b->item[b->n - 1].len)) {
        b->n--;
        b->last = true;
    }
    return CHT_OK;
}

static enum cht_rc take_keys(struct batch *b, struct stream *st, struct cht_err *err)
{
    uint8_t from[CHT_NAME_MAX];
    size_t n = st->cursor_len;
    if (n > 0)
        memcpy(from, st->cursor, n);
    enum cht_rc rc = CHT_PENDING;
    while (rc == CHT_PENDING) /* each time another page is lost */
        rc = read_keys(b, st, n > 0 ? (struct cht_str){from, n} : b->w->cfg->after, err);
    if (rc != CHT_OK || b->last || n == 0)
        return rc;
    int c = memcmp(st->cursor, from, st->cursor_len < n ? st->cursor_len : n);
    if (c < 0 || (c == 0 && st->cursor_len <= n)) /* in a damaged file: it would go on for ever */
        return CHT_DAMAGED(err, "%s: names are not in order", cht_pf_path(cht_shard_pairs(b->sh)));
    return rc;
}

/* V2: order[start[s], start[s + 1]) are the items whose keys belong to shard s. */
static void sort_by_shard(struct batch *b)
{
    unsigned shards = b->w->db->nshards;
    uint16_t at[SHARDS_MAX], of[BATCH];
    memset(b->start, 0, (shards + 1) * sizeof *b->start);
    for (size_t i = 0; i < b->n; i++) {
        of[i] = (uint16_t)cht_shard_of_key(b->item[i].key, shards);
        b->start[of[i] + 1]++;
    }
    for (unsigned s = 0; s < shards; s++) {
        b->start[s + 1] = (uint16_t)(b->start[s] + b->start[s + 1]);
        at[s] = b->start[s];
    }
    for (size_t i = 0; i < b->n; i++)
        b->order[at[of[i]]++] = (uint16_t)i;
}

/* ---- values -------------------------------------------------------------------------------------------------- */

static void prefetch_value(const struct cht_values *v, const struct cht_value_ref *ref)
{
    const uint8_t *p = cht_pf_fast(v->values)->base + ref->off;
    uint32_t n = ref->len < PREFETCH ? ref->len : PREFETCH;
    for (uint32_t i = 0; i < n; i += 64)
        cht_prefetch(p + i);
    cht_prefetch(p + n - 1);
}

static void corrupt(struct batch *b, struct cht_entry *e)
{
    e->flags |= CHT_ENTRY_CORRUPT;
    atomic_fetch_add_explicit(&b->w->db->corrupt, 1, memory_order_relaxed);
}

/* Looks up the values of up to n items; the number of them, and their bytes in *bytes. */
static size_t find_group(struct batch *b, struct cht_shard *sh, const uint16_t *order, size_t n,
                         size_t *bytes)
{
    size_t k = 0;
    for (size_t sum = 0; k < n && sum < LOCKED; k++) {
        const struct cht_trie_item *it = &b->item[order[k]];
        struct cht_entry *e = &b->e[k];
        struct cht_value_ref *ref = &b->ref[k];
        *e = (struct cht_entry){.name = b->w->names ? b->names + it->off : NULL,
                                .name_len = it->len,
                                .key = it->key,
                                .shard = b->sh->index};
        enum cht_rc rc = cht_values_find(&sh->values, it->key, ref, NULL);
        if (rc == CHT_KEY_NOT_FOUND) {
            e->flags = CHT_ENTRY_DANGLING;
            continue;
        }
        if (rc != CHT_OK) {
            corrupt(b, e);
            continue;
        }
        e->size = ref->len;
        if (ref->len > CHT_SCAN_INLINE_MAX) {
            e->flags = CHT_ENTRY_LARGE;
            continue;
        }
        prefetch_value(&sh->values, ref);
        sum += ref->len;
        *bytes += ref->len;
    }
    return k;
}

/* What was shown was good when it was compared with its checksum; if the disk failed while the visitor read it, who knows what
 * was made of it. */
static void check_shown(struct batch *b, struct cht_shard *sh, size_t n)
{
    struct cht_err err = {0};
    for (size_t k = 0; cht_pf_losses(sh->values.values) != 0 && k < n; k++) {
        if (b->e[k].value != NULL && cht_values_copied(&sh->values, &b->ref[k], &err) != CHT_OK) {
            atomic_fetch_add_explicit(&b->w->db->corrupt, 1, memory_order_relaxed);
            fail(b->w, CHT_CORRUPT, &err);
        }
    }
}

/* Checks and shows a group; long values are left for V4. */
static void show_group(struct batch *b, struct cht_shard *sh, const uint16_t *order, size_t n)
{
    size_t from = 0;
    for (size_t k = 0; k < n; k++) {
        struct cht_entry *e = &b->e[k];
        if ((e->flags & CHT_ENTRY_LARGE) != 0 && !b->w->cfg->sizes) {
            b->longer[b->longs++] = order[k];
            show(b, b->e + from, k - from);
            from = k + 1;
        }
        if (e->flags != 0)
            continue;
        const uint8_t *p =
            cht_pf_fast(sh->values.values)->base + b->ref[k].off; /* in the file: find saw to it */
        if (cht_value_crc(e->key, p, e->size) == b->ref[k].crc) {
            e->value = p;
            e->value_len = e->size;
        } else {
            corrupt(b, e);
        }
    }
    show(b, b->e + from, n - from);
    check_shown(b, sh, n);
}

/* V3. The lock of sh is held, before and, if all went well, after. */
static enum cht_rc visit_values(struct batch *b, struct cht_shard *sh, const uint16_t *order, size_t n,
                                struct cht_err *err)
{
    size_t fetched = 0, bytes = 0;
    enum cht_rc rc = CHT_OK;
    for (size_t at = 0; at < n && rc == CHT_OK && !stopped(b->w);) {
        for (size_t ahead = at + 2 * (size_t)GROUP; fetched < n && fetched < ahead; fetched++)
            cht_values_prefetch_entry(&sh->values, b->item[order[fetched]].key);
        size_t m = find_group(b, sh, order + at, n - at < GROUP ? n - at : GROUP, &bytes);
        show_group(b, sh, order + at, m);
        at += m;
        if (bytes >= LOCKED) {
            bytes = 0;
            cht_rwlock_read_end(&sh->lock);
            rc = cht_db_enter(sh, err);
        }
    }
    return rc;
}

/* V4 */
static enum cht_rc visit_long(struct batch *b, const struct cht_trie_item *it, struct cht_err *err)
{
    struct sweep *w = b->w;
    struct cht_entry e = {.name = w->names ? b->names + it->off : NULL,
                          .name_len = it->len,
                          .key = it->key,
                          .shard = b->sh->index};
    cht_mutex_lock(&w->long_mu);
    enum cht_rc rc =
        stopped(w) ? CHT_CANCELLED
                   : cht_store_get_soon(&w->db->base, it->key, &w->long_value, &e.size, &cht_ahead, err);
    if (rc == CHT_KEY_NOT_FOUND) /* deleted meanwhile */
        e.flags = CHT_ENTRY_DANGLING;
    if (rc == CHT_OK) {
        e.value = w->long_value.data;
        e.value_len = e.size;
    } else {
        e.size = 0;
    }
    if (rc == CHT_OK || rc == CHT_KEY_NOT_FOUND)
        show(b, &e, 1);
    cht_mutex_unlock(&w->long_mu);
    return rc == CHT_KEY_NOT_FOUND || rc == CHT_CANCELLED ? CHT_OK : rc;
}

/* The values that lie in the shard of their names; its lock is held, and released. */
static enum cht_rc visit_home(struct batch *b, unsigned home, struct cht_err *err)
{
    sort_by_shard(b);
    if (b->n > 0)
        cht_values_soon(&b->sh->values, &b->item->key, sizeof *b->item, b->n, SOON);
    enum cht_rc rc =
        visit_values(b, b->sh, b->order + b->start[home], (size_t)(b->start[home + 1] - b->start[home]), err);
    if (rc == CHT_OK)
        cht_rwlock_read_end(&b->sh->lock);
    return rc;
}

/* One batch of a shard. b->last: there is nothing after it. */
static enum cht_rc visit_batch(struct batch *b, struct stream *st, struct cht_err *err)
{
    struct cht_db *db = b->w->db;
    unsigned home = st->shard;
    b->n = b->longs = 0;
    b->sh = &db->shards[home];
    enum cht_rc rc = cht_db_enter(b->sh, err);
    if (rc != CHT_OK)
        return rc;
    rc = take_keys(b, st, err);
    if (rc == CHT_OK)
        rc = visit_home(b, home, err);
    else
        cht_rwlock_read_end(&b->sh->lock);
    for (unsigned s = 0; s < db->nshards && rc == CHT_OK; s++) {
        size_t n = (size_t)(b->start[s + 1] - b->start[s]);
        if (s == home || n == 0)
            continue;
        rc = cht_db_enter(&db->shards[s], err);
        if (rc == CHT_OK)
            rc = visit_values(b, &db->shards[s], b->order + b->start[s], n, err);
        if (rc == CHT_OK)
            cht_rwlock_read_end(&db->shards[s].lock);
    }
    for (size_t i = 0; i < b->longs && rc == CHT_OK; i++)
        rc = visit_long(b, &b->item[b->longer[i]], err);
    return rc;
}

/* ---- tasks --------------------------------------------------------------------------------------------------- */

/* One batch; *more says whether the stream goes on. Failures end the sweep. */
static void step(struct stream *st, bool *more)
{
    struct sweep *w = st->w;
    struct cht_err err = {0};
    struct batch *b = stopped(w) ? NULL : cht_malloc(sizeof *b);
    enum cht_rc rc = CHT_OK;
    *more = false;
    if (b != NULL) {
        b->w = w;
        rc = visit_batch(b, st, &err);
        *more = rc == CHT_OK && !b->last && !stopped(w);
        cht_free(b);
    } else if (!stopped(w)) {
        rc = CHT_FAIL(&err, CHT_NO_MEMORY, "no memory for a sweep");
    }
    if (rc != CHT_OK)
        fail(w, rc, &err);
}

static void run_task(struct cht_task *t)
{
    struct stream *st = (struct stream *)t;
    struct sweep *w = st->w;
    struct cht_pool *pool = cht_db_pool(w->db, st->shard);
    bool more;
    if (cht_calm_enter(&w->db->calm, pool, t, NULL) == CHT_CALM_ASIDE)
        return;
    step(st, &more);
    cht_calm_leave(&w->db->calm);
    if (more) {
        cht_pool_submit_last(pool, t);
        return;
    }
    cht_mutex_lock(&w->mu);
    if (--w->active == 0)
        cht_cond_signal(&w->idle); /* with mu held: whoever waits frees the sweep */
    cht_mutex_unlock(&w->mu);
}

static void run_here(struct sweep *w)
{
    for (unsigned i = 0; i < w->db->nshards; i++) {
        bool more = true;
        while (more)
            step(&w->streams[i], &more);
    }
}

static void run_on_workers(struct sweep *w)
{
    w->active = w->db->nshards;
    for (unsigned i = 0; i < w->db->nshards; i++)
        cht_pool_submit(cht_db_pool(w->db, i), &w->streams[i].task);
    cht_mutex_lock(&w->mu);
    while (w->active > 0)
        cht_cond_wait(&w->idle, &w->mu);
    cht_mutex_unlock(&w->mu);
}

static enum cht_rc make_streams(struct sweep *w, struct cht_err *err)
{
    unsigned n = w->db->nshards;
    w->streams = cht_calloc(n, sizeof *w->streams);
    w->cursors = cht_malloc((size_t)n * CHT_NAME_MAX);
    if (w->streams == NULL || w->cursors == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a sweep");
    for (unsigned i = 0; i < n; i++)
        w->streams[i] = (struct stream){
            .task.run = run_task, .w = w, .shard = i, .cursor = w->cursors + (size_t)i * CHT_NAME_MAX};
    return CHT_OK;
}

static enum cht_rc run(struct sweep *w, struct cht_err *err)
{
    uint64_t pairs = 0;
    enum cht_rc rc = make_streams(w, err);
    if (rc == CHT_OK)
        rc = cht_store_count(&w->db->base, w->cfg->prefix, &pairs, err);
    if (rc != CHT_OK)
        return rc;
    if (pairs <= SMALL)
        run_here(w);
    else
        run_on_workers(w);
    if (w->rc != CHT_OK && err != NULL)
        *err = w->err;
    return w->rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_sweep(struct cht_store *s, const struct cht_sweep_config *cfg, struct cht_err *err)
{
    struct sweep w = {.db = cht_db(s), .cfg = cfg, .names = cfg->names || cfg->until.n > 0};
    if (cfg->after.n > CHT_NAME_MAX || cfg->until.n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "a bound of over %u bytes", CHT_NAME_MAX);
    enum cht_rc rc = cht_mutex_init(&w.mu, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_mutex_init(&w.long_mu, err);
    if (rc != CHT_OK)
        goto no_long;
    rc = cht_cond_init(&w.idle, err);
    if (rc != CHT_OK)
        goto no_cond;
    rc = run(&w, err);
    cht_free(w.streams);
    cht_free(w.cursors);
    cht_buf_free(&w.long_value);
    cht_cond_fini(&w.idle);
no_cond:
    cht_mutex_fini(&w.long_mu);
no_long:
    cht_mutex_fini(&w.mu);
    return rc;
}
