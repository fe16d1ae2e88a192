/* rowset: see rowset.h. */
#include "store/rados/rowset.h"

#include "base/alloc.h"
#include "os/code.h"
#include "store/rados/fold.h"
#include "store/rados/txn.h"

#include <string.h>

#define CHUNK ((size_t)64 << 10) /* at most; the first is small: most sets have one row or two */
#define CHUNK_FIRST ((size_t)2 << 10)
#define ASK_ROWS 1024u          /* of a shard at once: at most 64 MiB */
#define ASK_ALL 4096u           /* of all shards */
#define ASKED_MAX 4096u         /* a quarter of what librados takes before it holds a caller up (link.c) */
#define KEEP ((size_t)16 << 20) /* after a refusal */

struct cht_rowset_chunk {
    struct cht_rowset_chunk *next;
    size_t used, cap;
    uint8_t bytes[];
};

static uint32_t hash_of(const struct cht_rowset *s, unsigned shard, struct cht_str name)
{
    uint64_t h = cht_siphash(&s->db->env->key, name.p, name.n);
    return (uint32_t)(h ^ h >> 32) ^ shard * 16777619u;
}

static bool same(const struct cht_rowset_row *r, unsigned shard, uint32_t hash, struct cht_str name)
{
    return r->hash == hash && r->shard == shard && r->name.n == name.n &&
           memcmp(r->name.p, name.p, name.n) == 0;
}

static bool grow(struct cht_rowset *s)
{
    if (s->n < s->cap)
        return true;
    size_t cap = s->cap == 0 ? 16 : s->cap * 2;
    struct cht_rowset_row *v = cht_realloc(s->rows, cap * sizeof *v);
    if (v == NULL)
        return false;
    s->rows = v;
    uint32_t *t = cht_calloc(cap * 2, sizeof *t);
    if (t == NULL)
        return false;
    cht_free(s->table);
    s->table = t;
    s->mask = cap * 2 - 1;
    s->cap = cap;
    for (size_t i = 0; i < s->n; i++) {
        size_t at = v[i].hash & s->mask;
        while (t[at] != 0)
            at = (at + 1) & s->mask;
        t[at] = (uint32_t)i + 1;
    }
    return true;
}

static struct cht_rowset_row *find_or_add(struct cht_rowset *s, unsigned shard, struct cht_str name)
{
    if (!grow(s))
        return NULL;
    uint32_t hash = hash_of(s, shard, name);
    size_t at = hash & s->mask;
    for (; s->table[at] != 0; at = (at + 1) & s->mask) {
        if (same(&s->rows[s->table[at] - 1], shard, hash, name))
            return &s->rows[s->table[at] - 1];
    }
    uint8_t *copy = cht_rowset_alloc(s, name.n);
    if (copy == NULL)
        return NULL;
    memcpy(copy, name.p, name.n);
    s->rows[s->n] = (struct cht_rowset_row){.shard = shard, .name = {copy, name.n}, .hash = hash};
    s->table[at] = (uint32_t)++s->n;
    return &s->rows[s->n - 1];
}

enum guess { NO_GUESS, CACHED, ABSENT, EXPECTED };

/* What a row is that nobody has read. */
static enum cht_rc guess_row(struct cht_rowset *s, struct cht_rowset_row *r, enum guess guess,
                             struct cht_str known)
{
    if (s->cache != NULL && guess != EXPECTED)
        known = cht_rcache_get(s->cache, r->hash, r->name);
    if (known.p == NULL && guess != ABSENT)
        return CHT_OK;
    if (known.p != NULL && guess != EXPECTED) {
        uint8_t *copy = cht_rowset_alloc(s, known.n + 1);
        if (copy == NULL)
            return CHT_NO_MEMORY;
        memcpy(copy, known.p, known.n);
        known.p = copy;
    }
    r->known = s->guessed = true;
    r->round = 0;
    r->was = r->now = known;
    return CHT_OK;
}

static enum cht_rc look(struct cht_rowset *s, const struct cht_rowset_row *wanted, enum guess guess,
                        struct cht_str *value, size_t *row)
{
    *value = (struct cht_str){NULL, 0};
    if (s->only >= 0 && wanted->shard != (unsigned)s->only) {
        s->crossed = true;
        return CHT_PENDING;
    }
    struct cht_rowset_row *r = find_or_add(s, wanted->shard, wanted->name);
    if (r == NULL)
        return CHT_NO_MEMORY;
    r->used = true;
    if (!r->known && guess != NO_GUESS && guess_row(s, r, guess, wanted->was) != CHT_OK)
        return CHT_NO_MEMORY;
    s->wants = s->wants || !r->known;
    *row = (size_t)(r - s->rows);
    *value = r->now;
    return r->known ? CHT_OK : CHT_PENDING;
}

/* ------------------------------------------------------------------------------------------------------------------ */

void cht_rowset_init(struct cht_rowset *s, struct cht_rdb *db, int only)
{
    *s =
        (struct cht_rowset){.db = db, .map = cht_rdb_map(db), .only = only, .apart = atomic_load(&db->apart)};
}

void cht_rowset_fini(struct cht_rowset *s)
{
    for (struct cht_rowset_chunk *c = s->chunks, *next; c != NULL; c = next) {
        next = c->next;
        cht_free(c);
    }
    cht_free(s->rows);
    cht_free(s->table);
    cht_free(s->undo);
    *s = (struct cht_rowset){0};
}

void cht_rowset_reset(struct cht_rowset *s)
{
    struct cht_rowset fresh;
    cht_rowset_init(&fresh, s->db, s->only);
    fresh.cache = s->cache;
    fresh.tries = s->tries;
    fresh.at_once = s->at_once;
    cht_rowset_fini(s);
    *s = fresh;
}

void cht_rowset_renew(struct cht_rowset *s)
{
    if (s->bytes > KEEP)
        cht_rowset_reset(s);
    else
        cht_rowset_forget(s, -1);
    s->apart = atomic_load(&s->db->apart);
}

uint8_t *cht_rowset_alloc(struct cht_rowset *s, size_t n)
{
    struct cht_rowset_chunk *c = s->chunks;
    if (c == NULL || c->cap - c->used < n) {
        size_t next = c == NULL ? CHUNK_FIRST : c->cap < CHUNK / 2 ? c->cap * 2 : CHUNK;
        size_t cap = n > next / 4 ? n + next : next;
        c = cht_malloc(sizeof *c + cap);
        if (c == NULL)
            return NULL;
        *c = (struct cht_rowset_chunk){.next = s->chunks, .cap = cap};
        s->chunks = c;
    }
    uint8_t *p = c->bytes + c->used;
    c->used += n;
    return p;
}

void cht_rowset_restart(struct cht_rowset *s)
{
    s->undone = 0;
    s->wants = s->crossed = false;
    for (size_t i = 0; i < s->n; i++) {
        s->rows[i].now = s->rows[i].was;
        s->rows[i].dirty = s->rows[i].used = s->rows[i].note = false;
    }
}

void cht_rowset_forget(struct cht_rowset *s, int shard)
{
    for (size_t i = 0; i < s->n; i++) {
        if (shard >= 0 && s->rows[i].shard != (unsigned)shard)
            continue;
        s->rows[i].known = false;
        s->wants = true;
    }
}

void cht_rowset_forget_row(struct cht_rowset *s, size_t row)
{
    s->rows[row].known = false;
    s->wants = true;
}

enum cht_rc cht_rowset_get(struct cht_rowset *s, unsigned shard, struct cht_str name, struct cht_str *value,
                           size_t *row)
{
    return look(s, &(struct cht_rowset_row){.shard = shard, .name = name}, NO_GUESS, value, row);
}

enum cht_rc cht_rowset_guess(struct cht_rowset *s, unsigned shard, struct cht_str name, bool absent,
                             struct cht_str *value, size_t *row)
{
    return look(s, &(struct cht_rowset_row){.shard = shard, .name = name}, absent ? ABSENT : CACHED, value,
                row);
}

enum cht_rc cht_rowset_expect(struct cht_rowset *s, unsigned shard, struct cht_str name,
                              struct cht_str expected, struct cht_str *value, size_t *row)
{
    return look(s, &(struct cht_rowset_row){.shard = shard, .name = name, .was = expected}, EXPECTED, value,
                row);
}

/* The row as it is can be taken back. */
static enum cht_rc keep_undo(struct cht_rowset *s, size_t row)
{
    const struct cht_rowset_row *r = &s->rows[row];
    if (s->undone == s->undo_cap) {
        size_t cap = s->undo_cap == 0 ? 16 : s->undo_cap * 2;
        struct cht_rowset_undo *u = cht_realloc(s->undo, cap * sizeof *u);
        if (u == NULL)
            return CHT_NO_MEMORY;
        s->undo = u;
        s->undo_cap = cap;
    }
    s->undo[s->undone++] = (struct cht_rowset_undo){row, r->now, r->dirty, r->note};
    return CHT_OK;
}

enum cht_rc cht_rowset_set(struct cht_rowset *s, size_t row, struct cht_str value)
{
    enum cht_rc rc = keep_undo(s, row);
    if (rc == CHT_OK) {
        s->rows[row].now = value;
        s->rows[row].dirty = true;
    }
    return rc;
}

enum cht_rc cht_rowset_note(struct cht_rowset *s, size_t row)
{
    enum cht_rc rc = keep_undo(s, row);
    if (rc == CHT_OK)
        s->rows[row].note = true;
    return rc;
}

void cht_rowset_rewind(struct cht_rowset *s, size_t mark)
{
    while (s->undone > mark) {
        const struct cht_rowset_undo *u = &s->undo[--s->undone];
        s->rows[u->row].now = u->now;
        s->rows[u->row].dirty = u->dirty;
        s->rows[u->row].note = u->note;
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct cht_reading {          /* of all shards, without a thread */
    struct reading *g;        /* owned, one a shard */
    _Atomic unsigned pending; /* answers that have not come, and who asks */
    void (*done)(void *ctx);
    void *ctx;
    struct cht_renv *env;
    enum cht_rc rc; /* of its start */
    struct cht_err err;
};
struct reading { /* of one shard */
    struct cht_call call;
    rados_omap_iter_t it;
    const char **names; /* owned, with lens */
    size_t *lens;
    size_t n;
    int part;
    char object[CHT_LINK_OBJECT_MAX];
};

static size_t wanted_of(const struct cht_rowset *s, unsigned shard)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += !s->rows[i].known && s->rows[i].shard == shard;
    return n;
}

static void has_come(rados_completion_t c, void *ctx)
{
    struct cht_reading *r = ctx;
    (void)c;
    atomic_fetch_sub_explicit(&r->env->asked, 1, memory_order_relaxed);
    if (atomic_fetch_sub_explicit(&r->pending, 1, memory_order_acq_rel) == 1)
        r->done(r->ctx);
}

/* all: NULL, or whose the answer is. */
static bool start_reading(struct cht_rowset *s, struct reading *g, unsigned shard, size_t n,
                          struct cht_reading *all)
{
    g->names = cht_calloc(n + 1, sizeof *g->names);
    g->lens = cht_calloc(n + 1, sizeof *g->lens);
    if (g->names == NULL || g->lens == NULL)
        return false;
    g->names[0] = "E";
    g->lens[0] = 1;
    g->n = 1;
    for (size_t i = 0; i < s->n && g->n <= n; i++) {
        if (s->rows[i].known || s->rows[i].shard != shard)
            continue;
        s->rows[i].asked = true;
        g->names[g->n] = (const char *)s->rows[i].name.p;
        g->lens[g->n++] = s->rows[i].name.n;
    }
    cht_rdb_shard_name(g->object, shard);
    g->call = cht_call_read();
    rados_read_op_omap_get_vals_by_keys2(g->call.r, g->names, g->n, g->lens, &g->it, &g->part);
    if (all != NULL) {
        g->call.done = has_come;
        g->call.ctx = all;
        atomic_fetch_add_explicit(&all->env->asked, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&all->pending, 1, memory_order_relaxed);
    }
    cht_call_start(&g->call, s->db->io, g->object);
    if (all != NULL && g->call.result != 0) /* not begun: nobody calls; who asks has its share still */
        has_come(NULL, all);
    return true;
}

/* What was read of a shard becomes the rows' state; absent is what the answer does not have. */
static enum cht_rc take_rows(struct cht_rowset *s, struct reading *g, unsigned shard, struct cht_epoch *e)
{
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    bool epoch = false;
    for (size_t i = 0; i < s->n; i++) {
        if (s->rows[i].asked && s->rows[i].shard == shard)
            s->rows[i].was = (struct cht_str){NULL, 0};
    }
    while (rados_omap_get_next2(g->it, &k, &v, &kn, &vn) == 0 && k != NULL) {
        if (kn == 1 && k[0] == 'E') {
            epoch = cht_row_epoch_read((const uint8_t *)v, vn, e);
            continue;
        }
        s->bytes += vn;
        if (s->bytes > s->db->env->cfg.read_bytes)
            return CHT_BATCH_TOO_LARGE;
        struct cht_rowset_row *r = find_or_add(s, shard, (struct cht_str){(const uint8_t *)k, kn});
        uint8_t *copy = r != NULL ? cht_rowset_alloc(s, vn + 1) : NULL;
        if (copy == NULL)
            return CHT_NO_MEMORY;
        memcpy(copy, v, vn);
        r->was = (struct cht_str){copy, vn};
    }
    return epoch ? CHT_OK : CHT_CORRUPT;
}

static void mark_known(struct cht_rowset *s, unsigned shard)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->rows[i].shard == shard && s->rows[i].asked) {
            s->rows[i].round = s->round;
            s->rows[i].known = true;
            s->rows[i].now = s->rows[i].was;
        }
    }
}

static enum cht_rc end_reading(struct cht_rowset *s, struct reading *g, unsigned shard, bool writing,
                               struct cht_err *err)
{
    struct cht_epoch e = {0};
    uint32_t expected = cht_map_epoch(s->map, shard);
    size_t before = s->bytes;
    int r = cht_call_wait(&g->call);
    enum cht_rc rc = cht_rdb_rc(s->db, r < 0 ? r : g->part, g->object, err);
    if (rc == CHT_OK)
        rc = take_rows(s, g, shard, &e);
    if (rc == CHT_CORRUPT)
        (void)CHT_FAIL(err, rc, "object %s has no epoch", g->object);
    if (rc == CHT_BATCH_TOO_LARGE)
        (void)CHT_FAIL(err, rc, "the rows that a commit looks at have more than %zu KiB",
                       s->db->env->cfg.read_bytes >> 10);
    if (rc == CHT_NO_MEMORY && err != NULL)
        (void)CHT_FAIL(err, rc, "no memory for rows of object %s", g->object);
    if (g->it != NULL)
        rados_omap_get_end(g->it);
    g->it = NULL;
    if (rc != CHT_OK)
        return rc;
    bool again = false;
    cht_rdb_learn(s->db, &e);
    if (e.epoch > expected) {
        s->stale = true;
        return CHT_OK;
    }
    if (e.lock != 0) /* a lower epoch: its rows are being shared out (split.h, S-2) */
        rc = cht_txn_settle(s->db, shard, &e, writing || e.epoch < expected, &again, err);
    else if (e.epoch < expected)
        rc = CHT_FAIL(err, CHT_CORRUPT, "object %s is older than the map of the shards", g->object);
    if (rc == CHT_OK && !again)
        mark_known(s, shard);
    s->bytes = again ? before : s->bytes;
    return rc; /* again: the rows stay wanted */
}

/* Some of what is wanted: the answers are in memory all at once. */
static enum cht_rc start_round(struct cht_rowset *s, struct reading *g, struct cht_reading *of,
                               struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    size_t all = 0;
    s->round++;
    for (size_t i = 0; i < s->n; i++)
        s->rows[i].asked = false;
    for (unsigned i = 0; i < s->map->top && rc == CHT_OK && all < ASK_ALL; i++) {
        size_t n = wanted_of(s, i);
        n = n < ASK_ROWS ? n : ASK_ROWS;
        n = n < ASK_ALL - all ? n : ASK_ALL - all;
        all += n;
        if (n > 0 && !start_reading(s, &g[i], i, n, of))
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read %zu rows", n);
    }
    return rc;
}

/* rc: of its start. Waits for all that was begun. */
static enum cht_rc end_round(struct cht_rowset *s, struct reading *g, bool writing, enum cht_rc rc,
                             struct cht_err *err)
{
    for (unsigned i = 0; i < s->map->top; i++) {
        struct cht_err ignored;
        if (g[i].call.r != NULL) {
            enum cht_rc mine = end_reading(s, &g[i], i, writing, rc == CHT_OK ? err : &ignored);
            rc = rc == CHT_OK ? mine : rc;
        }
        cht_free(g[i].names);
        cht_free(g[i].lens);
        g[i] = (struct reading){0};
    }
    return rc;
}

/* The shards are others: all rows are to be looked for again. */
static enum cht_rc rebase(struct cht_rowset *s, struct cht_err *err)
{
    const struct cht_map *was = s->map;
    if (was == cht_rdb_map(s->db)) {
        enum cht_rc rc = cht_rdb_reload(s->db, err);
        if (rc != CHT_OK)
            return rc;
    }
    s->map = cht_rdb_map(s->db);
    if (s->map == was)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: a shard is ahead of the map of the shards",
                        s->db->name);
    s->n = s->undone = 0;
    s->stale = s->guessed = false;
    s->wants = true;
    if (s->table != NULL)
        memset(s->table, 0, (s->mask + 1) * sizeof *s->table);
    return CHT_OK;
}

/* After a round. *wanted: rows are, still. */
static enum cht_rc look_again(struct cht_rowset *s, bool *wanted, struct cht_err *err)
{
    *wanted = false;
    if (s->stale)
        return rebase(s, err);
    for (size_t i = 0; i < s->n; i++)
        *wanted = *wanted || !s->rows[i].known;
    return CHT_OK;
}

enum cht_rc cht_rowset_fetch(struct cht_rowset *s, bool writing, struct cht_err *err)
{
    struct reading *g = cht_calloc(s->map->top, sizeof *g);
    if (g == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read rows");
    enum cht_rc rc = CHT_OK;
    bool wanted = true;
    while (rc == CHT_OK && wanted) {
        rc = start_round(s, g, NULL, err);
        rc = end_round(s, g, writing, rc, err);
        if (rc == CHT_OK)
            rc = look_again(s, &wanted, err);
    }
    cht_free(g);
    return rc;
}

bool cht_rowset_begin(struct cht_rowset *s, void (*done)(void *ctx), void *ctx, struct cht_reading **out)
{
    struct cht_renv *env = s->db->env;
    struct cht_reading *r = *out = NULL;
    if (atomic_load_explicit(&env->asked, memory_order_relaxed) > ASKED_MAX)
        return false;
    r = cht_calloc(1, sizeof *r);
    struct reading *g = cht_calloc(s->map->top, sizeof *g);
    if (r == NULL || g == NULL) {
        cht_free(r);
        cht_free(g);
        return false;
    }
    *r = (struct cht_reading){.g = g, .pending = 1, .done = done, .ctx = ctx, .env = env};
    *out = r;
    r->rc = start_round(s, g, r, &r->err); /* what was not begun is told at the end */
    if (atomic_fetch_sub_explicit(&r->pending, 1, memory_order_acq_rel) == 1)
        done(ctx);
    return true;
}

enum cht_rc cht_rowset_end(struct cht_rowset *s, struct cht_reading *r, struct cht_err *err)
{
    bool wanted = false;
    if (r->rc != CHT_OK && err != NULL)
        *err = r->err;
    enum cht_rc rc = end_round(s, r->g, false, r->rc, err);
    cht_free(r->g);
    cht_free(r);
    if (rc == CHT_OK)
        rc = look_again(s, &wanted, err);
    return rc == CHT_OK && wanted ? cht_rowset_fetch(s, false, err) : rc;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

bool cht_rowset_touches(const struct cht_rowset *s, unsigned shard, bool *changes)
{
    bool touches = false, keeps = cht_rdb_keeps(s->db, cht_rdb_generation(s->db));
    *changes = false;
    for (size_t i = 0; i < s->n; i++) {
        if (s->rows[i].shard != shard || !s->rows[i].used)
            continue;
        touches = true;
        *changes = *changes || s->rows[i].dirty || (s->rows[i].note && keeps);
    }
    return touches;
}

void cht_rowset_learn(const struct cht_rowset *s, bool done)
{
    struct cht_str none = {NULL, 0};
    for (size_t i = 0; i < s->n; i++) {
        const struct cht_rowset_row *r = &s->rows[i];
        if (r->name.p[0] == 'P' && r->used && (r->known || !done))
            cht_rcache_put(&s->db->lanes[r->shard].cache, s->map->shards, r->hash, r->name,
                           done ? r->now : none);
    }
}

size_t cht_rowset_looks(const struct cht_rowset *s, unsigned shard)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += s->rows[i].shard == shard && s->rows[i].used;
    return n;
}

void cht_rowset_compare(const struct cht_rowset *s, unsigned shard, struct cht_call *call)
{
    struct cht_fold f;
    cht_fold_begin(&f, CHT_FOLD_COMPARE, call);
    f.apart = s->apart;
    for (size_t i = 0; i < s->n; i++) {
        const struct cht_rowset_row *r = &s->rows[i];
        if (r->shard == shard && r->used)
            cht_fold_add(&f, r->name, r->was.p != NULL ? r->was : (struct cht_str){(const uint8_t *)"", 0});
    }
    cht_fold_end(&f);
}

bool cht_rowset_refused(const struct cht_rowset *s, int result)
{
    if (cht_os_code(result) != CHT_OS_UNSUPPORTED || s->apart)
        return cht_os_code(result) == CHT_OS_CANCELED;
    atomic_store(&s->db->apart, true);
    return true;
}
