/* db_store: struct cht_db, a database on files: the implementation of the store interface (store_int.h) that this folder holds.
 * Private to src/store.
 *
 * Lock order (complete): env.mu -> commit_mu -> shard lock of one shard (the committer may hold several, taken in any
 * order, and so may hint.c and pair_values.c, which only try: no one else who holds one waits for another; the committer's threads hold one
 * each while it holds none) -> pagefile/wal internal mutexes. A scan's mutex is never held while a shard lock is taken;
 * nor is the watches', which the committer takes under commit_mu.
 */
#pragma once

#include <stdatomic.h>

#include "exec/pool.h"
#include "store/calm.h"
#include "store/changes.h"
#include "store/durable.h"
#include "store/ends.h"
#include "store/shard.h"
#include "store/store_int.h"
#include "store/trouble.h"
#include "store/wal.h"
#include "store/watch.h"

struct cht_db {
    struct cht_store base;
    struct cht_env *env;           /* set at open, then read-only, as are the next four */
    struct cht_pool *const *pools; /* the environment's: one a data directory */
    unsigned nshards;
    struct cht_shard *shards;
    struct cht_wal *wal;
    _Atomic uint64_t corrupt;        /* checksum failures seen; readers bump it */
    _Atomic bool read_only;          /* set after the trouble that says why */
    struct cht_trouble trouble;      /* for those who commit and checkpoint */
    _Atomic bool backing_up;         /* backup_take.c: one at a time */
    struct cht_committer *committer; /* commit.c */
    struct cht_watches *watches;     /* set at open, then read-only */
    struct cht_calm calm;
    struct cht_durable durable;
    struct cht_ends ends;
    struct cht_followers followers;
    _Atomic uint64_t next_key; /* the lowest of the shards', as the log has it: written by the committer */
    uint64_t mapped;           /* bytes of its page files when reading.c looked last */
    _Atomic bool alone;        /* changed by reading.c: each page is read alone */
    bool durable_up, followers_up; /* set at open */
    char *name;
};
static inline struct cht_db *cht_db(struct cht_store *s) { return (struct cht_db *)s; }
/* The worker pool of the data directory that shard i lives in. */
static inline struct cht_pool *cht_db_pool(struct cht_db *db, unsigned shard)
{
    return db->pools[db->shards[shard].dir];
}

/* Takes a shard's lock shared, for a read that may be ahead of the disk; counts and scans. While the pages are being taken back
 * (durable.h) no read enters: CHT_READ_ONLY, and the lock is not held. */
static inline enum cht_rc cht_db_enter(struct cht_shard *sh, struct cht_err *err)
{
    cht_rwlock_read(&sh->lock);
    if (__builtin_expect(sh->marks.limit != CHT_FENCED, 1))
        return CHT_OK;
    cht_rwlock_read_end(&sh->lock);
    return CHT_FAIL(err, CHT_READ_ONLY, "a write that the disk refused is being taken back");
}

/* The lowest of the shards' next keys. */
static inline uint64_t cht_db_lowest_key(const struct cht_db *db)
{
    uint64_t lowest = UINT64_MAX;
    for (unsigned i = 0; i < db->nshards; i++) {
        uint64_t next = atomic_load_explicit(&db->shards[i].shown.next_key, memory_order_relaxed);
        lowest = next < lowest ? next : lowest;
    }
    return lowest;
}

/* When a group is in the log, and at open: from then on no key below what was the lowest after it was applied is given out, also after a crash
 * (under durability sync; under the others as far as the log is on disk). */
static inline void cht_db_show_next_key(struct cht_db *db, uint64_t lowest)
{
    atomic_store_explicit(&db->next_key, lowest, memory_order_release); /* with db_stats */
}

/* takeback.c, with check_mu and commit_mu held. fence: from now on no read enters a shard. take_back: with all shards fenced,
 * makes the pages those of log record `seq` again, from the last checkpoints and the log as a start would; on a failure they
 * are not to be looked at any more. unfence: reads enter; what is marked by groups after `decided` stays so, with `all` everything
 * is marked, for good. */
void cht_db_fence(struct cht_db *db);
enum cht_rc cht_db_take_back(struct cht_db *db, uint64_t seq, struct cht_err *err);
void cht_db_unfence(struct cht_db *db, uint64_t decided, bool all);

/* reading.c: a database is open, or a checkpoint of it is done; it is closed. */
void cht_db_note_size(struct cht_db *db);
void cht_db_forget_size(struct cht_db *db);

/* hint.c */
size_t cht_db_prefetch(struct cht_store *, const struct cht_hint *, size_t);

/* pair_values.c */
enum cht_rc cht_db_pair_values(struct cht_store *, struct cht_pair_read *, size_t, struct cht_buf *,
                               struct cht_wait *, struct cht_err *);

/* children.c */
enum cht_rc cht_db_children(struct cht_store *, const struct cht_children_config *, struct cht_err *);

/* db_scan.c */
enum cht_rc cht_db_scan_open(struct cht_store *, const struct cht_scan_config *, struct cht_scan **,
                             struct cht_err *);
enum cht_rc cht_db_scan_next(struct cht_scan *, bool wait, struct cht_entry *, size_t, size_t *,
                             struct cht_err *);
bool cht_db_scan_exhausted(const struct cht_scan *);
void cht_db_scan_cancel(struct cht_scan *);
void cht_db_scan_close(struct cht_scan *);
size_t cht_db_scan_memory(const struct cht_scan *);

/* db_scrub.c */
enum cht_rc cht_db_scrub(struct cht_store *, struct cht_scrub *, struct cht_err *);

/* sweep.c */
enum cht_rc cht_db_sweep(struct cht_store *, const struct cht_sweep_config *, struct cht_err *);

/* backup_take.c */
enum cht_rc cht_db_backup_open(struct cht_store *, struct cht_backup **, struct cht_err *);
