/* db_store: point reads, handles of large values and statistics of a database on files. A read takes one shard's lock, shared; never
 * two at a time. */
#include "store/db_store.h"

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/bytes.h"
#include "os/io.h"
#include "store/commit.h"
#include "store/db.h"
#include "store/expiry.h"
#include "store/pagefile_int.h"

#include <stdlib.h>
#include <string.h>

#define VERIFY_STEP (1u << 20) /* of a large value, in one locked section */
#define LOCK_MOMENT_NS UINT64_C(2000000)

static enum cht_rc copy_out(const uint8_t *p, uint32_t n, struct cht_buf *out, struct cht_err *err)
{
    if (out == NULL)
        return CHT_OK;
    if (n > out->cap) {
        enum cht_rc rc = cht_buf_reserve(out, n, err);
        if (rc != CHT_OK)
            return rc;
    }
    memcpy(out->data, p, n);
    out->len = n;
    return CHT_OK;
}

/* The value under key in a shard whose lock is held. */
static enum cht_rc read_locked(struct cht_db *db, struct cht_shard *sh, uint64_t key, struct cht_buf *out,
                               uint32_t *size, struct cht_err *err)
{
    struct cht_value_ref ref;
    const uint8_t *p;
    enum cht_rc rc = cht_values_find(&sh->values, key, &ref, err);
    if (rc == CHT_OK && size != NULL)
        *size = ref.len;
    if (rc == CHT_OK && out != NULL) {
        rc = cht_values_view(&sh->values, key, &ref, &p, err);
        if (rc == CHT_OK)
            rc = copy_out(p, ref.len, out, err);
        if (rc == CHT_OK)
            rc = cht_values_copied(&sh->values, &ref, err);
    }
    if (rc == CHT_CORRUPT)
        atomic_fetch_add_explicit(&db->corrupt, 1, memory_order_relaxed);
    return rc;
}

/* As a limit: a commit holds the locks for long (calm.h); the pair has ended and is to be removed first (ends.h). */
#define BUSY (UINT64_MAX - 2)
#define ENDED (UINT64_MAX - 3)

static __attribute__((noinline)) bool lock_slowly(struct cht_db *db, struct cht_shard *sh, uint64_t *limit)
{
    while (!cht_rwlock_read_for(&sh->lock, LOCK_MOMENT_NS)) {
        if (!cht_calm_busy(&db->calm))
            continue;
        *limit = BUSY;
        return false;
    }
    return true;
}

/* Takes the lock shared. False, with *limit BUSY: whoever asks must not wait for a long commit, and will be told. */
static inline bool lock_for(struct cht_db *db, struct cht_shard *sh, const struct cht_wait *w,
                            uint64_t *limit)
{
    *limit = 0;
    if (w != NULL && w != &cht_ahead)
        return cht_rwlock_try_read(&sh->lock) || lock_slowly(db, sh, limit);
    cht_rwlock_read(&sh->lock);
    return true;
}

/* What a read that has looked at a marked shard does; `limit` is 0 if the marks do not concern it. See durable.h. */
static enum cht_rc look_again(struct cht_db *db, uint64_t limit, struct cht_wait *w, struct cht_err *err)
{
    if (limit == ENDED)
        cht_ends_ask(db);
    if (limit == BUSY || limit == ENDED)
        return cht_calm_await(&db->calm, w);
    if (limit != 0 && w == &cht_ahead) /* as the scan that it is beside */
        return CHT_FAIL(err, CHT_READ_ONLY, "a write that the disk refused is being taken back");
    return cht_durable_await(&db->durable, limit, w, err);
}

/* Does what was read hang on a group that is not decided? Then its limit, else 0. The shard's lock is held. Beside a scan only the
 * fence counts. */
static uint64_t undecided(const struct cht_db *db, const struct cht_shard *sh, uint64_t mark,
                          const struct cht_wait *w)
{
    const struct cht_marks *m = &sh->marks;
    if (!cht_marked(&db->durable, m) || (w == &cht_ahead && m->limit != CHT_FENCED))
        return 0;
    return cht_marks_meet(m, atomic_load_explicit(&db->durable.decided, memory_order_relaxed), mark);
}

/* Under the lock: may this be read, and then shown? *limit is 0 if so, and what stands between otherwise. */
static bool key_open(const struct cht_db *db, const struct cht_shard *sh, uint64_t key,
                     const struct cht_wait *w, uint64_t *limit)
{
    *limit = cht_marked(&db->durable, &sh->marks) ? undecided(db, sh, cht_mark_of_key(key), w) : 0;
    return *limit == 0;
}

static bool name_open(const struct cht_db *db, const struct cht_shard *sh, struct cht_str name,
                      const struct cht_wait *w, uint64_t *limit)
{
    *limit = cht_marked(&db->durable, &sh->marks) ? undecided(db, sh, cht_mark_of_name(name), w) : 0;
    return *limit == 0;
}

/* Does nothing of the database end? Otherwise a read by key, a count and the like go on when what has ended is removed. */
static inline bool lasting(const struct cht_db *db)
{
    return __builtin_expect(atomic_load_explicit(&db->ends.next, memory_order_relaxed) == CHT_ENDS_NONE, 1);
}

static inline enum cht_rc settle(struct cht_db *db, struct cht_wait *w)
{
    if (!lasting(db))
        return cht_ends_settle(db, w);
    if (w != NULL && w->since != 0) /* what it waited for was the last pair that ended */
        w->since = 0;
    return CHT_OK;
}

/* The pair was found, under the lock: *ends is when it ends. If it has ended it is not there for whoever does not wait; others wait until it
 * is removed, *limit says so. */
static __attribute__((noinline)) enum cht_rc look_at_end(struct cht_db *db, struct cht_shard *sh,
                                                         struct cht_str name, const struct cht_wait *w,
                                                         uint64_t *limit, uint64_t *ends, struct cht_err *err)
{
    enum cht_rc rc = cht_expiry_get(cht_shard_pairs(sh), name, ends, err);
    if (rc != CHT_OK || *ends == 0 || *ends > cht_ends_now(db))
        return rc;
    if (w != &cht_ahead && !cht_ends_paused(db) &&
        *ends > atomic_load_explicit(&db->ends.clear, memory_order_acquire))
        *limit = ENDED;
    return CHT_PAIR_NOT_FOUND;
}

static enum cht_rc find_pair(struct cht_db *db, struct cht_shard *sh, struct cht_str name,
                             struct cht_pair_value *pv, const struct cht_wait *w, uint64_t *limit,
                             struct cht_err *err)
{
    enum cht_rc rc = cht_trie_get(cht_shard_pairs(sh), name.p, name.n, &pv->key, err);
    if (rc == CHT_OK && !lasting(db))
        rc = look_at_end(db, sh, name, w, limit, &pv->ends, err);
    return rc;
}

static enum cht_rc db_get(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                          struct cht_wait *w, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct cht_shard *sh = &db->shards[cht_shard_of_key(key, db->nshards)];
    for (;;) {
        uint64_t limit;
        enum cht_rc rc = settle(db, w);
        if (rc != CHT_OK)
            return rc;
        if (lock_for(db, sh, w, &limit)) {
            if (key_open(db, sh, key, w, &limit))
                rc = read_locked(db, sh, key, out, size, err);
            cht_rwlock_read_end(&sh->lock);
        }
        if (limit == 0 || (rc = look_again(db, limit, w, err)) != CHT_OK)
            return rc;
    }
}

static enum cht_rc db_pair(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_wait *w,
                           struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct cht_shard *sh = &db->shards[cht_shard_of_name(name, db->nshards)];
    for (;;) {
        uint64_t limit;
        struct cht_pair_value pv;
        enum cht_rc rc = CHT_OK;
        if (lock_for(db, sh, w, &limit)) {
            if (name_open(db, sh, name, w, &limit) &&
                (rc = find_pair(db, sh, name, &pv, w, &limit, err)) == CHT_OK)
                *key = pv.key;
            cht_rwlock_read_end(&sh->lock);
        }
        if (limit == 0 || (rc = look_again(db, limit, w, err)) != CHT_OK)
            return rc;
    }
}

/* Name and value, once; *limit as key_open says. */
static enum cht_rc read_pair_value(struct cht_db *db, struct cht_str name, struct cht_pair_value *pv,
                                   struct cht_wait *w, uint64_t *limit, struct cht_err *err)
{
    unsigned at = cht_shard_of_name(name, db->nshards), home = at;
    struct cht_shard *sh = &db->shards[at];
    enum cht_rc rc = CHT_OK;
    bool found = false;
    if (!lock_for(db, sh, w, limit))
        return CHT_OK;
    if (name_open(db, sh, name, w, limit)) {
        rc = find_pair(db, sh, name, pv, w, limit, err);
        found = rc == CHT_OK && !pv->mapping;
    }
    if (found) {
        home = cht_shard_of_key(pv->key, db->nshards);
        if (home == at && key_open(db, sh, pv->key, w, limit))
            rc = read_locked(db, sh, pv->key, pv->out, &pv->size, err);
    }
    cht_rwlock_read_end(&sh->lock);
    if (found && home != at) {
        sh = &db->shards[home];
        if (!lock_for(db, sh, w, limit))
            return CHT_OK;
        if (key_open(db, sh, pv->key, w, limit))
            rc = read_locked(db, sh, pv->key, pv->out, &pv->size, err);
        cht_rwlock_read_end(&sh->lock);
    }
    if (found && rc == CHT_KEY_NOT_FOUND) {
        rc = CHT_OK;
        pv->size = 0;
        if (pv->out != NULL)
            pv->out->len = 0;
    }
    return rc;
}

static enum cht_rc db_pair_value(struct cht_store *s, struct cht_str name, struct cht_pair_value *pv,
                                 struct cht_wait *w, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    for (;;) {
        uint64_t limit;
        pv->key = 0;
        pv->size = 0;
        pv->ends = 0;
        enum cht_rc rc = read_pair_value(db, name, pv, w, &limit, err);
        if (limit == 0 || (rc = look_again(db, limit, w, err)) != CHT_OK)
            return rc;
    }
}

static void db_forget(struct cht_store *s, struct cht_wait *w)
{
    cht_durable_forget(&cht_db(s)->durable, w);
    cht_calm_forget(&cht_db(s)->calm, w);
    w->since = 0;
}

static bool db_enter(struct cht_store *s, struct cht_wait *w)
{
    struct cht_calm *calm = &cht_db(s)->calm;
    if (settle(cht_db(s), w) != CHT_OK)
        return false;
    while (!cht_calm_try(calm)) {
        if (cht_calm_await(calm, w) == CHT_PENDING)
            return false;
    }
    return true;
}

static void db_leave(struct cht_store *s) { cht_calm_leave(&cht_db(s)->calm); }

static bool db_settle(struct cht_store *s, bool wait)
{
    struct cht_db *db = cht_db(s);
    if (wait)
        (void)settle(db, NULL); /* it waits */
    return lasting(db) || !cht_ends_due(db, cht_ends_now(db));
}

/* As cht_db_enter, and w as for the reads. CHT_PENDING: not held. */
static enum cht_rc enter_soon(struct cht_db *db, struct cht_shard *sh, struct cht_wait *w,
                              struct cht_err *err)
{
    uint64_t limit;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && !lock_for(db, sh, w, &limit))
        rc = look_again(db, limit, w, err);
    if (rc != CHT_OK || sh->marks.limit != CHT_FENCED)
        return rc;
    cht_rwlock_read_end(&sh->lock);
    return cht_db_enter(sh, err); /* says why not */
}

static enum cht_rc db_count(struct cht_store *s, struct cht_str prefix, uint64_t *pairs, struct cht_wait *w,
                            struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    uint64_t sum = 0;
    enum cht_rc first = settle(db, w);
    if (first != CHT_OK)
        return first;
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        uint64_t n = 0;
        enum cht_rc rc = enter_soon(db, sh, w, err);
        if (rc != CHT_OK)
            return rc;
        rc = cht_trie_count(cht_shard_pairs(sh), prefix.p, prefix.n, &n, err);
        cht_rwlock_read_end(&sh->lock);
        if (rc != CHT_OK)
            return rc;
        sum += n;
    }
    *pairs = sum;
    return CHT_OK;
}

/* ---- values in pieces ---------------------------------------------------------------------------------------- */

/* A long value stays where it is while the shard is pinned: long values are never edited in place, and what they leave
 * is not given out again before the pins are gone. A short one is copied when opened. */
struct db_value {
    struct cht_value base; /* first */
    struct cht_shard *sh;
    struct cht_value_ref ref;
    struct cht_buf copy; /* short values */
    unsigned taken_back; /* the shard's when it was opened */
    bool pinned;
};

/* The bytes of a pinned value; NULL with err if they are not what they were any more. The lock is held, and not after a NULL. */
static const uint8_t *pinned_range(struct db_value *v, uint32_t off, uint32_t n, struct cht_err *err)
{
    struct cht_shard *sh = v->sh;
    const uint8_t *p = NULL;
    cht_rwlock_read(&sh->lock);
    if (sh->taken_back != v->taken_back || sh->marks.limit == CHT_FENCED)
        (void)CHT_FAIL(err, CHT_READ_ONLY, "the value was taken back with a write that the disk refused");
    else if ((p = cht_pf_range(sh->pf[CHT_PF_VALUES], v->ref.off + off, n)) == NULL)
        (void)CHT_DAMAGED(err, "%s: offset %llu is past the end", cht_pf_path(sh->pf[CHT_PF_VALUES]),
                          (unsigned long long)v->ref.off);
    if (p == NULL)
        cht_rwlock_read_end(&sh->lock);
    return p;
}

/* The checksum of a pinned value, a step at a time so that writers need not wait for all of it. */
static enum cht_rc verify_pinned(struct cht_db *db, struct db_value *v, uint64_t key, struct cht_err *err)
{
    uint8_t k[8];
    cht_put64(k, key);
    uint32_t crc = cht_crc32c(0, k, sizeof k);
    for (uint32_t off = 0; off < v->ref.len; off += VERIFY_STEP) {
        uint32_t n = v->ref.len - off < VERIFY_STEP ? v->ref.len - off : VERIFY_STEP;
        struct cht_err local = {0};
        const uint8_t *p = pinned_range(v, off, n, &local);
        if (p == NULL && local.code == CHT_READ_ONLY && err != NULL)
            *err = local;
        if (p == NULL && local.code == CHT_READ_ONLY)
            return CHT_READ_ONLY;
        if (p == NULL)
            break;
        crc = cht_crc32c(crc, p, n);
        cht_rwlock_read_end(&v->sh->lock);
    }
    if (crc == v->ref.crc)
        return CHT_OK;
    atomic_fetch_add_explicit(&db->corrupt, 1, memory_order_relaxed);
    return CHT_DAMAGED(err, "%s: offset %llu: the value of key %llu does not match its checksum",
                       cht_pf_path(v->sh->pf[CHT_PF_VALUES]), (unsigned long long)v->ref.off,
                       (unsigned long long)key);
}

static void db_value_close(struct cht_value *value)
{
    struct db_value *v = (struct db_value *)value;
    if (v->pinned)
        atomic_fetch_sub_explicit(&v->sh->pins, 1, memory_order_release);
    cht_buf_free(&v->copy);
    cht_free(v);
}

/* Finds the value and pins or copies it; the shard's lock is held. */
static enum cht_rc take_value(struct cht_db *db, struct db_value *v, uint64_t key, struct cht_err *err)
{
    enum cht_rc rc = cht_values_find(&v->sh->values, key, &v->ref, err);
    v->taken_back = v->sh->taken_back;
    if (rc == CHT_OK && v->ref.len >= CHT_LARGE_VALUE) {
        atomic_fetch_add_explicit(&v->sh->pins, 1,
                                  memory_order_acquire); /* the checkpoint looks under the exclusive lock */
        v->pinned = true;
    } else if (rc == CHT_OK) {
        rc = read_locked(db, v->sh, key, &v->copy, NULL, err);
    }
    return rc;
}

static enum cht_rc db_value_open(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                                 struct cht_wait *w, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct db_value *v = cht_calloc(1, sizeof *v);
    if (v == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a value handle");
    v->base.store = s;
    v->sh = &db->shards[cht_shard_of_key(key, db->nshards)];
    uint64_t limit;
    enum cht_rc rc;
    do {
        limit = 0;
        rc = settle(db, w);
        if (rc == CHT_OK && lock_for(db, v->sh, w, &limit)) {
            if (key_open(db, v->sh, key, w, &limit))
                rc = take_value(db, v, key, err);
            cht_rwlock_read_end(&v->sh->lock);
        }
        if (limit != 0)
            rc = look_again(db, limit, w, err);
    } while (limit != 0 && rc == CHT_OK);
    if (rc == CHT_OK && v->pinned)
        rc = verify_pinned(db, v, key, err);
    if (rc != CHT_OK) {
        db_value_close(&v->base);
        return rc;
    }
    *size = v->ref.len;
    *out = &v->base;
    return CHT_OK;
}

static enum cht_rc db_value_read(struct cht_value *value, uint32_t offset, void *buf, size_t n, size_t *got,
                                 struct cht_err *err)
{
    struct db_value *v = (struct db_value *)value;
    *got = 0;
    if (offset >= v->ref.len)
        return CHT_OK;
    if (n > v->ref.len - offset)
        n = v->ref.len - offset;
    if (!v->pinned) {
        memcpy(buf, v->copy.data + offset, n);
        *got = n;
        return CHT_OK;
    }
    if (n > VERIFY_STEP)
        n = VERIFY_STEP;
    struct cht_err local = {0};
    const uint8_t *p = pinned_range(v, offset, (uint32_t)n, &local);
    if (p == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    memcpy(buf, p, n);
    enum cht_rc rc = cht_values_copied(&v->sh->values, &v->ref, err);
    cht_rwlock_read_end(&v->sh->lock);
    if (rc != CHT_OK) {
        atomic_fetch_add_explicit(&cht_db(value->store)->corrupt, 1, memory_order_relaxed);
        return rc;
    }
    *got = n;
    return CHT_OK;
}

/* ---- service ------------------------------------------------------------------------------------------------- */

static enum cht_rc db_commit(struct cht_store *s, struct cht_commit *c)
{
    return cht_committer_run(cht_db(s)->committer, c);
}

static enum cht_rc db_submit(struct cht_store *s, struct cht_commit *c)
{
    return cht_committer_submit(cht_db(s)->committer, c);
}

static void db_submit_all(struct cht_store *s, struct cht_commit *list)
{
    cht_committer_submit_all(cht_db(s)->committer, list);
}

static enum cht_rc db_checkpoint(struct cht_store *s, struct cht_err *err)
{
    return cht_committer_checkpoint(cht_db(s)->committer, err);
}

static enum cht_rc shard_stat(struct cht_db *db, unsigned i, struct cht_shard_stat *st, struct cht_err *err)
{
    struct cht_shard *sh = &db->shards[i];
    *st = (struct cht_shard_stat){.shard = i, .dir = db->env->dirs[sh->dir]};
    st->pairs = atomic_load_explicit(&sh->shown.pairs, memory_order_relaxed);
    st->values = atomic_load_explicit(&sh->shown.values, memory_order_relaxed);
    st->value_bytes = atomic_load_explicit(&sh->shown.value_bytes, memory_order_relaxed);
    st->checkpoint_seq = atomic_load_explicit(&sh->checkpoint_seq, memory_order_relaxed);
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        uint64_t n = 0;
        enum cht_rc rc = sh->io->ops->usage(sh->pf[k]->file, &n, err);
        if (rc != CHT_OK)
            return rc;
        st->file_bytes += n;
    }
    return CHT_OK;
}

static enum cht_rc db_shards(struct cht_store *s, void (*fn)(void *, const struct cht_shard_stat *),
                             void *ctx, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard_stat st;
        enum cht_rc rc = shard_stat(db, i, &st, err);
        if (rc != CHT_OK)
            return rc;
        fn(ctx, &st);
    }
    return CHT_OK;
}

static enum cht_rc db_stats(struct cht_store *s, struct cht_store_stats *out, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    memset(out, 0, sizeof *out);
    out->shards = db->nshards;
    out->read_only = atomic_load_explicit(&db->read_only, memory_order_acquire);
    out->next_key = atomic_load_explicit(&db->next_key, memory_order_acquire);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        struct cht_shard_stat st;
        enum cht_rc rc = shard_stat(db, i, &st, err);
        if (rc != CHT_OK)
            return rc;
        out->pairs += st.pairs;
        out->ending += atomic_load_explicit(&sh->shown.ending, memory_order_relaxed);
        out->values += st.values;
        out->value_bytes += st.value_bytes;
        out->file_bytes += st.file_bytes;
        out->bytes_written += atomic_load_explicit(&sh->written_bytes, memory_order_relaxed);
        for (int k = 0; k < CHT_PF_KINDS; k++) {
            out->bytes_written += atomic_load_explicit(&sh->pf[k]->written, memory_order_relaxed);
            out->corrupt += atomic_load_explicit(&sh->pf[k]->corrupt, memory_order_relaxed);
        }
    }
    out->ended = atomic_load_explicit(&db->ends.removed, memory_order_relaxed);
    out->ended_there = out->ending > 0 && cht_ends_due(db, cht_ends_now(db));
    out->log_bytes = cht_wal_bytes(db->wal);
    out->log_live = cht_wal_live(db->wal);
    out->log_seq = cht_wal_seq(db->wal);
    out->bytes_written += cht_wal_written(db->wal);
    out->dirty_bytes = cht_db_dirty(db);
    out->corrupt += atomic_load_explicit(&db->corrupt, memory_order_relaxed);
    struct cht_changes_range changes;
    (void)cht_db_changes_range(s, &changes, err); /* cannot fail */
    out->changes_oldest = changes.oldest;
    out->changes_newest = changes.newest;
    out->changes_kept = changes.kept;
    out->changes_followers = changes.followers;
    (void)cht_trouble_get(&db->trouble, &out->trouble); /* false: there is none, and the code says so */
    cht_committer_stats(db->committer, out);
    return CHT_OK;
}

struct length_list {
    struct cht_length_stat *v; /* owned */
    size_t n, cap;
    bool failed;
};

static void add_length(void *ctx, const struct cht_length_stat *st)
{
    struct length_list *l = ctx;
    if (l->n == l->cap && !l->failed) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        struct cht_length_stat *v = cht_realloc(l->v, cap * sizeof *v);
        l->failed = v == NULL;
        l->v = v != NULL ? v : l->v;
        l->cap = v != NULL ? cap : l->cap;
    }
    if (!l->failed)
        l->v[l->n++] = *st;
}

static int by_length(const void *a, const void *b)
{
    uint32_t x = ((const struct cht_length_stat *)a)->length, y = ((const struct cht_length_stat *)b)->length;
    return (x > y) - (x < y);
}

static enum cht_rc db_lengths(struct cht_store *s, void (*fn)(void *, const struct cht_length_stat *),
                              void *ctx, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct length_list l = {0};
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < db->nshards && rc == CHT_OK; i++) {
        rc = cht_db_enter(&db->shards[i], err);
        if (rc != CHT_OK)
            break;
        rc = cht_values_lengths(&db->shards[i].values, add_length, &l, err);
        cht_rwlock_read_end(&db->shards[i].lock);
    }
    if (rc == CHT_OK && l.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the list of lengths");
    if (rc == CHT_OK && l.n > 0)
        qsort(l.v, l.n, sizeof *l.v, by_length);
    for (size_t i = 0; i < l.n && rc == CHT_OK;) {
        struct cht_length_stat sum = l.v[i];
        for (i++; i < l.n && l.v[i].length == sum.length; i++) {
            sum.live += l.v[i].live;
            sum.slots += l.v[i].slots;
            sum.extents += l.v[i].extents;
        }
        fn(ctx, &sum);
    }
    cht_free(l.v);
    return rc;
}

static enum cht_rc db_shape(struct cht_store *s, struct cht_shape_stat *out, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    enum cht_rc rc = CHT_OK;
    *out = (struct cht_shape_stat){0};
    for (unsigned i = 0; i < db->nshards && rc == CHT_OK; i++) {
        struct cht_trie_shape t;
        rc = cht_db_enter(&db->shards[i], err);
        if (rc != CHT_OK)
            break;
        rc = cht_trie_shape(cht_shard_pairs(&db->shards[i]), &t, err);
        cht_rwlock_read_end(&db->shards[i].lock);
        if (rc != CHT_OK)
            break;
        uint64_t nodes[4] = {t.inner4, t.inner16, t.inner48, t.inner256};
        out->leaves += t.leaves;
        out->leaf_bytes += t.leaf_bytes_used;
        for (unsigned k = 0; k < 4; k++)
            out->nodes[k] += nodes[k];
        out->depth = t.depth_max > out->depth ? t.depth_max : out->depth;
    }
    return rc;
}

static struct cht_watches *db_watches(struct cht_store *s) { return cht_db(s)->watches; }

const struct cht_store_ops cht_db_ops = {
    .get = db_get,
    .pair = db_pair,
    .pair_value = db_pair_value,
    .pair_values = cht_db_pair_values,
    .forget = db_forget,
    .enter = db_enter,
    .leave = db_leave,
    .settle = db_settle,
    .prefetch = cht_db_prefetch,
    .count = db_count,
    .children = cht_db_children,
    .value_open = db_value_open,
    .value_read = db_value_read,
    .value_close = db_value_close,
    .commit = db_commit,
    .submit = db_submit,
    .submit_all = db_submit_all,
    .many = true,
    .checkpoint = db_checkpoint,
    .stats = db_stats,
    .lengths = db_lengths,
    .shape = db_shape,
    .shards = db_shards,
    .scrub = cht_db_scrub,
    .scan_open = cht_db_scan_open,
    .scan_next = cht_db_scan_next,
    .scan_exhausted = cht_db_scan_exhausted,
    .scan_cancel = cht_db_scan_cancel,
    .scan_close = cht_db_scan_close,
    .scan_memory = cht_db_scan_memory,
    .sweep = cht_db_sweep,
    .watches = db_watches,
    .changes_open = cht_db_changes_open,
    .changes_range = cht_db_changes_range,
    .backup_open = cht_db_backup_open,
};
