/* cache: see cache.h.
 *
 *   C1 look-up: an entry counts while the versions of its watches are what they were when its sweep began
 *   C2 miss: a watch for the prefix (and one for the target's name, unless it lies under the prefix), found or made
 *   C3 begin on the watches -> sweep, noting keys -> end
 *   C4 the answer is kept with the versions of C3; if one was raised meanwhile it is not
 *   C5 the least recently used entries go until all fits
 *
 * Locking: mu for everything but the sweep; under it the watches' own lock (store/watch.h), nothing else.
 */
#include "reduce/cache.h"

#include "base/alloc.h"
#include "os/thread.h"

#include <string.h>

#define BUCKETS 256u

/* A watch that entries and sweeps under way share. */
struct watched {
    struct watched *next;
    const struct cht_store *s;
    struct cht_watch *w; /* owned */
    uint8_t *prefix;     /* owned */
    size_t len, bytes;
    unsigned refs;
};

struct answer {
    struct reduce_answer pub; /* first */
    struct cht_buf lines;     /* owned */
    _Atomic unsigned refs;
};

struct entry {
    struct entry *chain, *newer, *older;
    struct answer *answer; /* a reference */
    const struct cht_store *s;
    uint8_t *key; /* owned */
    size_t key_len, bytes;
    uint64_t hash;
    struct watched *on[2]; /* references; the second may be NULL */
    uint64_t version[2];
};

struct reduce_cache {
    struct cht_mutex mu;
    size_t bytes_max;
    struct entry *bucket[BUCKETS]; /* guarded by mu, as all below */
    struct entry *newest, *oldest;
    struct watched *watched;
    size_t bytes;
    uint64_t hits, misses, dropped, answers;
};

/* What one call works with. */
struct lookup {
    struct reduce_cache *c;
    struct cht_store *s;
    const struct reduce_mode *mode;
    const struct reduce_params *p;
    uint8_t *key; /* owned */
    size_t key_len;
    uint64_t hash;
    struct watched *on[2]; /* references */
    uint64_t version[2];
};

/* ---- keys ---------------------------------------------------------------------------------------------------- */

static size_t put_bytes(uint8_t *out, size_t at, const void *p, size_t n)
{
    if (n > 0)
        memcpy(out + at, p, n);
    return at + n;
}

/* Store, mode and the parameters that matter, each string after its length. */
static enum cht_rc make_key(struct lookup *r, struct cht_err *err)
{
    const struct reduce_params *p = r->p;
    unsigned uses = r->mode->aggregate->uses;
    bool to = (uses & REDUCE_USES_TO) != 0;
    uint64_t numbers[] = {
        (uint64_t)(uintptr_t)r->s,
        (uint64_t)(uintptr_t)r->mode,
        (uses & REDUCE_USES_LIMIT) == 0 ? 0
        : p->limit == 0 && to           ? REDUCE_SIMILAR_DEFAULT
                                        : p->limit,
        (uses & REDUCE_USES_SORT) == 0 ? 0 : (uint64_t)p->sort,
        to ? (uint64_t)p->metric : 0,
        p->memory_max > 0 ? p->memory_max : REDUCE_MEMORY_DEFAULT,
        p->prefix.n,
        p->after.n,
        p->until.n,
    };
    size_t n = sizeof numbers + p->prefix.n + p->after.n + p->until.n + (to ? p->to.n : 0);
    r->key = cht_malloc(n);
    if (r->key == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an aggregate");
    size_t at = put_bytes(r->key, 0, numbers, sizeof numbers);
    at = put_bytes(r->key, at, p->prefix.p, p->prefix.n);
    at = put_bytes(r->key, at, p->after.p, p->after.n);
    at = put_bytes(r->key, at, p->until.p, p->until.n);
    r->key_len = put_bytes(r->key, at, p->to.p, to ? p->to.n : 0);
    r->hash = UINT64_C(0xCBF29CE484222325); /* FNV-1a */
    for (size_t i = 0; i < r->key_len; i++)
        r->hash = (r->hash ^ r->key[i]) * UINT64_C(0x100000001B3);
    return CHT_OK;
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

static struct answer *answer_new(struct cht_buf *lines, uint64_t count, uint64_t malformed)
{
    struct answer *a = cht_calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    uint8_t *exact = lines->len > 0 ? cht_realloc(lines->data, lines->len) : NULL;
    if (exact != NULL) {
        lines->data = exact;
        lines->cap = lines->len;
    }
    a->lines = *lines;
    *lines = (struct cht_buf){0};
    a->pub = (struct reduce_answer){
        .lines = a->lines.data, .len = a->lines.len, .count = count, .malformed = malformed};
    atomic_init(&a->refs, 1);
    return a;
}

static struct answer *answer_ref(struct answer *a)
{
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

static void answer_unref(struct answer *a)
{
    if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) > 1)
        return;
    cht_buf_free(&a->lines);
    cht_free(a);
}

/* ---- watches; mu held ------------------------------------------------------------------------------------------ */

static void watched_free(struct watched *x)
{
    cht_watch_free(x->w);
    cht_free(x->prefix);
    cht_free(x);
}

static void watched_unref(struct reduce_cache *c, struct watched *x)
{
    if (x == NULL || --x->refs > 0)
        return;
    struct watched **at = &c->watched;
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    c->bytes -= x->bytes;
    watched_free(x);
}

static struct watched *watched_find(struct reduce_cache *c, const struct cht_store *s, struct cht_str prefix)
{
    for (struct watched *x = c->watched; x != NULL; x = x->next) {
        if (x->s == s && x->len == prefix.n && (x->len == 0 || memcmp(x->prefix, prefix.p, x->len) == 0) &&
            !cht_watch_closed(x->w)) /* else: of a store that was at the same address */
            return x;
    }
    return NULL;
}

static void entry_drop(struct reduce_cache *c, struct entry *e)
{
    struct entry **at = &c->bucket[e->hash % BUCKETS];
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    *(e->newer != NULL ? &e->newer->older : &c->newest) = e->older;
    *(e->older != NULL ? &e->older->newer : &c->oldest) = e->newer;
    c->bytes -= e->bytes;
    c->answers--;
    c->dropped++;
    watched_unref(c, e->on[0]);
    watched_unref(c, e->on[1]);
    answer_unref(e->answer);
    cht_free(e->key);
    cht_free(e);
}

/* Makes a watch; if there are too many, the oldest entries of the store give way. */
static enum cht_rc watch_make(struct reduce_cache *c, struct cht_store *s, struct cht_str prefix,
                              struct cht_watch **out)
{
    enum cht_rc rc = cht_watch_new(s, prefix, out, NULL);
    for (struct entry *e = c->oldest; rc == CHT_OVERLOADED && e != NULL;) {
        struct entry *newer = e->newer;
        bool same = e->s == s;
        if (same)
            entry_drop(c, e);
        if (same)
            rc = cht_watch_new(s, prefix, out, NULL);
        e = newer;
    }
    return rc;
}

/* C2. A reference, or NULL if there is no room for one. */
static struct watched *watched_take(struct reduce_cache *c, struct cht_store *s, struct cht_str prefix)
{
    struct watched *x = watched_find(c, s, prefix);
    if (x != NULL) {
        x->refs++;
        return x;
    }
    x = cht_calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    x->prefix = cht_malloc(prefix.n > 0 ? prefix.n : 1);
    if (x->prefix == NULL || watch_make(c, s, prefix, &x->w) != CHT_OK) {
        cht_free(x->prefix);
        cht_free(x);
        return NULL;
    }
    if (prefix.n > 0)
        memcpy(x->prefix, prefix.p, prefix.n);
    x->len = prefix.n;
    x->s = s;
    x->refs = 1;
    x->next = c->watched;
    c->watched = x;
    return x;
}

static void watched_measure(struct reduce_cache *c, struct watched *x)
{
    if (x == NULL)
        return;
    size_t n = sizeof *x + x->len + cht_watch_memory(x->w);
    c->bytes += n - x->bytes;
    x->bytes = n;
}

/* ---- entries; mu held ------------------------------------------------------------------------------------------ */

static bool holds(struct watched *const on[2], const uint64_t version[2])
{
    for (int i = 0; i < 2; i++) {
        if (on[i] != NULL && cht_watch_version(on[i]->w) != version[i])
            return false;
    }
    return true;
}

static void link_newest(struct reduce_cache *c, struct entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

/* C1 */
static struct answer *look_up(struct lookup *r)
{
    struct reduce_cache *c = r->c;
    struct entry *e = c->bucket[r->hash % BUCKETS];
    while (e != NULL &&
           (e->hash != r->hash || e->key_len != r->key_len || memcmp(e->key, r->key, r->key_len) != 0))
        e = e->chain;
    if (e == NULL)
        return NULL;
    if (!holds(e->on, e->version)) {
        entry_drop(c, e);
        return NULL;
    }
    *(e->newer != NULL ? &e->newer->older : &c->newest) = e->older;
    *(e->older != NULL ? &e->older->newer : &c->oldest) = e->newer;
    link_newest(c, e);
    return answer_ref(e->answer);
}

/* C4, C5. The references of r->on go to the entry. */
static void keep(struct lookup *r, struct answer *a)
{
    struct reduce_cache *c = r->c;
    struct answer *twin = look_up(r); /* someone else was as fast */
    size_t bytes = sizeof(struct entry) + sizeof *a + r->key_len + a->lines.cap;
    bool room = twin == NULL && bytes <= c->bytes_max && r->on[0] != NULL && holds(r->on, r->version);
    struct entry *e = room ? cht_calloc(1, sizeof *e) : NULL;
    if (twin != NULL)
        answer_unref(twin);
    if (e == NULL)
        return;
    e->answer = answer_ref(a);
    e->s = r->s;
    e->key = r->key;
    e->key_len = r->key_len;
    e->hash = r->hash;
    e->bytes = bytes;
    memcpy(e->on, r->on, sizeof e->on);
    memcpy(e->version, r->version, sizeof e->version);
    r->key = NULL;
    r->on[0] = r->on[1] = NULL;
    e->chain = c->bucket[e->hash % BUCKETS];
    c->bucket[e->hash % BUCKETS] = e;
    link_newest(c, e);
    c->bytes += bytes;
    c->answers++;
    while (c->bytes > c->bytes_max && c->oldest != NULL)
        entry_drop(c, c->oldest);
}

/* ---- a miss ---------------------------------------------------------------------------------------------------- */

static bool under_prefix(const struct reduce_params *p)
{
    return p->to.n >= p->prefix.n && (p->prefix.n == 0 || memcmp(p->to.p, p->prefix.p, p->prefix.n) == 0);
}

/* C2, mu held. Without all it needs an answer is not kept. */
static void take_watches(struct lookup *r)
{
    const struct reduce_params *p = r->p;
    bool target = (r->mode->aggregate->uses & REDUCE_USES_TO) != 0 && !under_prefix(p);
    if (r->c->bytes_max == 0)
        return;
    r->on[0] = watched_take(r->c, r->s, p->prefix);
    if (r->on[0] == NULL || !target)
        return;
    r->on[1] = watched_take(r->c, r->s, p->to);
    if (r->on[1] == NULL) {
        watched_unref(r->c, r->on[0]);
        r->on[0] = NULL;
    }
}

/* C3 */
static enum cht_rc compute(struct lookup *r, _Atomic bool *cancel, struct answer **out, struct cht_err *err)
{
    struct cht_buf lines = {0};
    struct cht_watch *watch[2] = {NULL, NULL};
    uint64_t pairs = 0, count, malformed;
    if (r->on[0] != NULL && cht_store_count(r->s, r->p->prefix, &pairs, NULL) != CHT_OK)
        pairs = 0;
    for (int i = 0; i < 2; i++) {
        if (r->on[i] == NULL)
            continue;
        watch[i] = r->on[i]->w;
        r->version[i] = cht_watch_begin(watch[i], i == 0 ? pairs : 1);
    }
    struct cht_watch *note[2] = {watch[0], watch[1] != NULL ? watch[1] : watch[0]};
    enum cht_rc rc =
        reduce_aggregate_watched(r->s, r->mode, r->p, note, &lines, &count, &malformed, cancel, err);
    for (int i = 0; i < 2; i++) {
        if (watch[i] != NULL)
            cht_watch_end(watch[i]);
    }
    if (rc == CHT_OK) {
        *out = answer_new(&lines, count, malformed);
        if (*out == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an answer");
    }
    cht_buf_free(&lines);
    return rc;
}

static enum cht_rc miss(struct lookup *r, _Atomic bool *cancel, struct answer **out, struct cht_err *err)
{
    enum cht_rc rc = compute(r, cancel, out, err);
    cht_mutex_lock(&r->c->mu);
    watched_measure(r->c, r->on[0]);
    watched_measure(r->c, r->on[1]);
    if (rc == CHT_OK)
        keep(r, *out);
    watched_unref(r->c, r->on[0]);
    watched_unref(r->c, r->on[1]);
    cht_mutex_unlock(&r->c->mu);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc reduce_cache_new(size_t bytes_max, struct reduce_cache **out, struct cht_err *err)
{
    struct reduce_cache *c = cht_calloc(1, sizeof *c);
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the cache of aggregates");
    enum cht_rc rc = cht_mutex_init(&c->mu, err);
    if (rc != CHT_OK) {
        cht_free(c);
        return rc;
    }
    c->bytes_max = bytes_max;
    *out = c;
    return CHT_OK;
}

void reduce_cache_free(struct reduce_cache *c)
{
    if (c == NULL)
        return;
    while (c->oldest != NULL)
        entry_drop(c, c->oldest);
    cht_mutex_fini(&c->mu);
    cht_free(c);
}

const struct reduce_answer *reduce_cache_find(struct reduce_cache *c, struct cht_store *s,
                                              const struct reduce_mode *mode, const struct reduce_params *p)
{
    struct lookup r = {.c = c, .s = s, .mode = mode, .p = p};
    if (mode->kind != REDUCE_AGGREGATE || !cht_store_settle(s, false) || make_key(&r, NULL) != CHT_OK)
        return NULL;
    cht_mutex_lock(&c->mu);
    struct answer *a = look_up(&r);
    c->hits += a != NULL;
    cht_mutex_unlock(&c->mu);
    cht_free(r.key);
    return a != NULL ? &a->pub : NULL;
}

enum cht_rc reduce_cache_run(struct reduce_cache *c, struct cht_store *s, const struct reduce_mode *mode,
                             const struct reduce_params *p, _Atomic bool *cancel,
                             const struct reduce_answer **out, bool *hit, struct cht_err *err)
{
    struct lookup r = {.c = c, .s = s, .mode = mode, .p = p};
    *hit = false;
    if (mode->kind != REDUCE_AGGREGATE)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s is not an aggregate", mode->names[0]);
    enum cht_rc rc = make_key(&r, err);
    if (rc != CHT_OK)
        return rc;
    (void)cht_store_settle(s, true);
    cht_mutex_lock(&c->mu);
    struct answer *a = look_up(&r);
    *hit = a != NULL;
    *(*hit ? &c->hits : &c->misses) += 1;
    if (!*hit)
        take_watches(&r);
    cht_mutex_unlock(&c->mu);
    if (!*hit)
        rc = miss(&r, cancel, &a, err);
    cht_free(r.key);
    if (rc == CHT_OK)
        *out = &a->pub;
    return rc;
}

void reduce_answer_release(const struct reduce_answer *pub)
{
    union {
        const struct reduce_answer *pub;
        struct answer *a;
    } u = {.pub = pub}; /* the public part is its first member, and it was given out as constant only */
    if (pub != NULL)
        answer_unref(u.a);
}

void reduce_cache_forget(struct reduce_cache *c, const struct cht_store *s)
{
    cht_mutex_lock(&c->mu);
    for (struct entry *e = c->oldest; e != NULL;) {
        struct entry *newer = e->newer;
        if (e->s == s)
            entry_drop(c, e);
        e = newer;
    }
    cht_mutex_unlock(&c->mu);
}

void reduce_cache_read_stats(struct reduce_cache *c, struct reduce_cache_stats *out)
{
    cht_mutex_lock(&c->mu);
    *out = (struct reduce_cache_stats){.hits = c->hits,
                                       .misses = c->misses,
                                       .dropped = c->dropped,
                                       .answers = c->answers,
                                       .bytes = c->bytes};
    cht_mutex_unlock(&c->mu);
}
