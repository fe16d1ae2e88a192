/* local: the implementation of the store interface on local files. Private to src/store.
 *
 * Lock order (complete): env.mu -> commit_mu -> shard lock of one shard (the committer may hold several, taken in any
 * order, and so may hint.c, which only tries: no one else who holds one waits for another; the committer's threads hold one
 * each while it holds none) -> pagefile/wal internal mutexes. A scan's mutex is never held while a shard lock is taken;
 * nor is the watches', which the committer takes under commit_mu.
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/backup.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "cheetah/sweep.h"
#include "exec/pool.h"
#include "store/calm.h"
#include "store/durable.h"
#include "store/shard.h"
#include "store/trouble.h"
#include "store/wal.h"
#include "store/watch.h"

struct cht_store_ops {
    enum cht_rc (*get)(struct cht_store *, uint64_t, struct cht_buf *, uint32_t *, struct cht_wait *,
                       struct cht_err *);
    enum cht_rc (*pair)(struct cht_store *, struct cht_str, uint64_t *, struct cht_wait *, struct cht_err *);
    enum cht_rc (*pair_value)(struct cht_store *, struct cht_str, struct cht_pair_value *, struct cht_wait *,
                              struct cht_err *);
    void (*forget)(struct cht_store *, struct cht_wait *);
    bool (*enter)(struct cht_store *, struct cht_wait *);
    void (*leave)(struct cht_store *);
    size_t (*prefetch)(struct cht_store *, const struct cht_hint *, size_t);
    enum cht_rc (*count)(struct cht_store *, struct cht_str, uint64_t *, struct cht_wait *, struct cht_err *);
    enum cht_rc (*value_open)(struct cht_store *, uint64_t, struct cht_value **, uint32_t *,
                              struct cht_wait *, struct cht_err *);
    enum cht_rc (*value_read)(struct cht_value *, uint32_t, void *, size_t, size_t *, struct cht_err *);
    void (*value_close)(struct cht_value *);
    enum cht_rc (*commit)(struct cht_store *, struct cht_commit *);
    enum cht_rc (*submit)(struct cht_store *, struct cht_commit *);
    enum cht_rc (*checkpoint)(struct cht_store *, struct cht_err *);
    enum cht_rc (*stats)(struct cht_store *, struct cht_store_stats *, struct cht_err *);
    enum cht_rc (*shape)(struct cht_store *, struct cht_shape_stat *, struct cht_err *);
    enum cht_rc (*lengths)(struct cht_store *, void (*)(void *, const struct cht_length_stat *), void *,
                           struct cht_err *);
    enum cht_rc (*shards)(struct cht_store *, void (*)(void *, const struct cht_shard_stat *), void *,
                          struct cht_err *);
    enum cht_rc (*scrub)(struct cht_store *, struct cht_scrub *, struct cht_err *);
    enum cht_rc (*scan_open)(struct cht_store *, const struct cht_scan_config *, struct cht_scan **,
                             struct cht_err *);
    enum cht_rc (*scan_next)(struct cht_scan *, bool wait, struct cht_entry *, size_t, size_t *,
                             struct cht_err *);
    bool (*scan_exhausted)(const struct cht_scan *);
    void (*scan_cancel)(struct cht_scan *);
    void (*scan_close)(struct cht_scan *);
    size_t (*scan_memory)(const struct cht_scan *);
    enum cht_rc (*sweep)(struct cht_store *, const struct cht_sweep_config *, struct cht_err *);
    struct cht_watches *(*watches)(struct cht_store *);
    enum cht_rc (*backup_open)(struct cht_store *, struct cht_backup **, struct cht_err *);
};

struct cht_store {
    const struct cht_store_ops *ops;
};
struct cht_value {
    struct cht_store *store;
}; /* implementations embed these first */
struct cht_scan {
    struct cht_store *store;
};

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
    bool durable_up; /* set at open */
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

/* takeback.c, with check_mu and commit_mu held. fence: from now on no read enters a shard. take_back: with all shards fenced,
 * makes the pages those of log record `seq` again, from the last checkpoints and the log as a start would; on a failure they
 * are not to be looked at any more. unfence: reads enter; what is marked by `group` (0: none; CHT_GROUP_ALL:
 * everything) stays so. */
void cht_db_fence(struct cht_db *db);
enum cht_rc cht_db_take_back(struct cht_db *db, uint64_t seq, struct cht_err *err);
void cht_db_unfence(struct cht_db *db, uint64_t group);

/* hint.c */
size_t cht_db_prefetch(struct cht_store *, const struct cht_hint *, size_t);

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
