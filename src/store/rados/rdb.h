/* rdb: a database on RADOS: what its parts share.
 *
 * In the pool: the object `cheetah` in the namespace "" has a row a database, d<name> -> uuid and state (catalogue.h). All other objects of a
 * database are in a namespace of its own, which is its uuid in hexadecimal:
 *
 *   h            rows: format, level (2^level shards when it was made), epoch (1), next (the next key that nobody has a lease of), and if a shard
 *                was divided: map (map.h: 256 bytes, the level of each shard); format is then 2. If changes are kept: changes, asked (cut.h)
 *   s.<i>        shard i (rows.h)
 *   v.<n>        a value longer than CHT_ROW_INLINE_MAX; n is in its row
 *   t.<n>        a transaction (txn.h)
 *
 * Locks, in this order: lane.turn (several: ascending) -> lane.mu, lease mutex, table of values that were replaced. None is held while
 * another than turn is waited for. seen.mu -> that of the watches.
 */
#pragma once

#include <stdatomic.h>
#include <stdio.h>

#include "base/siphash.h"
#include "exec/jobs.h"
#include "os/io.h"
#include "os/thread.h"
#include "store/rados/guard.h"
#include "store/rados/link.h"
#include "store/rados/map.h"
#include "store/rados/pulse.h"
#include "store/rados/rcache.h"
#include "store/rados/rows.h"
#include "store/rados/seen.h"
#include "store/store_int.h"

#define CHT_RDB_FORMAT 1u
#define CHT_RDB_FORMAT_SPLIT 2u   /* with divided shards: a program that knows 1 only does not open it */
#define CHT_RDB_FORMAT_ENDS 3u    /* with pairs that end, and perhaps divided */
#define CHT_RDB_FORMAT_CHANGES 4u /* keeps changes, and all of that perhaps */
#define CHT_RDB_UUID 32u          /* characters */

struct cht_renv;
struct cht_rdb;
struct cht_rpart;
struct cht_rrestore;
struct cht_fences;
struct cht_left { /* a long value that no row named */
    uint64_t number;
    uint64_t since; /* cht_now_ns of the first sweep of those in a row that saw it */
};

struct cht_look {       /* of follow.c */
    struct cht_job job; /* first */
    struct cht_rdb *db;
};
/* What is known of the changes of a database (cut.h, follow.c). */
struct cht_told {
    _Atomic uint64_t oldest, newest; /* 0: no changes are kept, or it is not known; they only rise */
    _Atomic uint64_t bytes;          /* of L rows, when they were counted last */
    _Atomic unsigned followers;
    _Atomic uint64_t cuts;   /* that were begun */
    _Atomic uint64_t marked; /* of idle.c: when this server wrote down that somebody asks, ns; 0: never */
    uint64_t asked,
        quiet; /* of idle.c: what the header said of that, and since when nothing else, ns; 0: it was not looked at */
    struct cht_mutex cutting; /* held by whoever makes one; before all others */
    enum cht_rc rc;           /* guarded by cutting, as the next: of the last one */
    struct cht_err err;
    struct cht_look look; /* of follow.c, guarded by its mutex, as all below */
    bool looking;         /* the job is queued or runs */
    uint64_t due;         /* when it looks again, ns */
    uint64_t pause;       /* between two looks, ns */
};

/* A shard's queue: one group of operations at a time (lane.c). */
struct cht_lane {
    struct cht_job job; /* first */
    struct cht_rdb *db;
    unsigned shard;
    struct cht_mutex turn;   /* held by whoever writes the shard from this process */
    struct cht_rcache cache; /* guarded by turn */
    struct cht_mutex mu;
    struct cht_rpart *first, **last; /* guarded by mu, as is the next */
    bool queued;                     /* the job */
    _Atomic uint64_t summed; /* the generation whose M row this process has counted (rows.h); 0: none */
    unsigned careful;        /* of the job: groups that look before they write, after a guess was wrong */
};

/* Keys that this process may give out. */
struct cht_leases {
    struct cht_mutex mu;
    uint64_t next, end; /* for inserts: [next, end) */
    uint64_t size;      /* of the next lease for inserts */
    uint64_t base;      /* for names: the lease begins here; 0: none */
    uint8_t *used;      /* by bucket: how many keys of it were given out; owned */
};

struct cht_rdb {
    struct cht_store base; /* first */
    struct cht_renv *env;
    _Atomic rados_ioctx_t io; /* of the newest connection (cht_rdb_answer) */
    _Atomic unsigned io_made; /* which one that is, see struct cht_link */
    rados_ioctx_t old_io[CHT_LINK_MADE_MAX];
    unsigned old_ios; /* guarded by mu */
    char name[CHT_DATABASE_NAME_MAX + 1], uuid[CHT_RDB_UUID + 1];
    _Atomic uint32_t format;             /* as its header said last */
    _Atomic bool apart;                  /* the OSDs compare one row a step only (fold.h) */
    _Atomic(const struct cht_map *) map; /* the newest that is known */
    _Atomic uint64_t
        generation; /* the newest that is known (cut.h); 0: no changes are kept, or it is not known yet */
    struct cht_map *maps;   /* owned: all of them, since one may be in use; guarded by mu */
    struct cht_lane *lanes; /* owned, CHT_MAP_MAX */
    struct cht_leases leases;
    struct cht_mutex mu;
    struct cht_cond calm;
    unsigned busy;                           /* guarded by mu: commits and scans under way */
    _Atomic bool closing;                    /* nobody begins anything any more; what can end early does */
    _Atomic uint64_t next_known;             /* no key from here on was leased when it was last read */
    _Atomic uint64_t waiting, waiting_bytes; /* operations of commits under way, and their values */
    _Atomic uint64_t corrupt, commits, operations, groups, inserted, ended;
    struct cht_fences *
        doubted; /* owned; guarded by mu: those with a write of which nobody knows whether it is still to come (fence.h) */
    struct cht_seen seen;
    struct cht_told told;        /* changes.h */
    _Atomic bool backing_up;     /* moment.h */
    bool remade;                 /* by a restore (replay.h): nothing that is in it has ended yet */
    struct cht_figures *figures; /* owned: figures.h */
    struct cht_left *left;       /* owned; of left.c: what its last sweep saw, ascending */
    size_t lefts;
    uint64_t swept;       /* of care.c: when it looked for what was left, ns */
    uint64_t too_large;   /* of care.c: when a shard was too large to be divided, ns; 0: none was */
    struct cht_rdb *next; /* of the environment */
};
static inline struct cht_rdb *cht_rdb(struct cht_store *s) { return (struct cht_rdb *)(void *)s; }

struct cht_follow {      /* of changes: follow.c */
    struct cht_mutex mu; /* `done` of who waits is called with it held; else a leaf */
    struct cht_cond wake;
    struct cht_thread thread; /* guarded by mu, as all below */
    bool up, stop;
    struct cht_rfollower *first; /* who waits */
};

struct cht_care {             /* care.h */
    struct cht_job job, tidy; /* job: first */
    struct cht_renv *env;
    _Atomic bool busy, tidying; /* it is queued or runs */
    _Atomic bool over;          /* the environment closes: they end soon */
    uint64_t finished;          /* of tidy: when it looked for databases that were not finished, ns */
};

struct cht_renv {
    struct cht_env_head head;    /* first */
    struct cht_rados_config cfg; /* defaults filled in; the texts owned */
    char *pool, *conf, *id, *spool_dir;
    struct cht_link link;
    struct cht_guards guards;
    struct cht_sip_key key; /* nobody can choose names that meet in a hash table */
    struct cht_pulse pulse;
    struct cht_jobs *jobs;         /* short work: groups, reads, pages */
    _Atomic unsigned asked;        /* operations of reads that hold no thread (rowset.h) */
    struct cht_mutex making;       /* held while a database is opened, made or dropped; before mu */
    struct cht_mutex mu;           /* no network while it is held */
    struct cht_rdb *open;          /* guarded by mu; owned */
    struct cht_mutex restoring;    /* of what is being restored (restore.c); held while its row is written */
    struct cht_rrestore *restores; /* guarded by restoring */
    struct cht_io_room spool;      /* of what is laid out meanwhile (spool.h) */
    struct cht_care care;
    struct cht_follow follow;
};

/* A step of a protocol is about to be taken (tests stop the process there). */
static inline void cht_rdb_step(struct cht_rdb *db, const char *name)
{
    if (db->env->cfg.step != NULL)
        db->env->cfg.step(db->env->cfg.step_ctx, name);
}

static inline void cht_rdb_shard_name(char *out, unsigned shard) /* CHT_LINK_OBJECT_MAX bytes */
{
    (void)snprintf(out, CHT_LINK_OBJECT_MAX, "s.%u", shard);
}
/* ---- hold.c ------------------------------------------------------------------------------------------------------- */

/* cht_link_answer for an object of the database. */
enum cht_rc cht_rdb_answer(struct cht_rdb *db, int result, const char *object, struct cht_err *err);
/* What a result of an operation on a shard means: a shard that is not there was dropped. */
enum cht_rc cht_rdb_rc(struct cht_rdb *db, int result, const char *object, struct cht_err *err);
/* CHT_DATABASE_DROPPED. Also of a header without rows: a lock of a class of the OSDs makes the object that it is of. */
enum cht_rc cht_rdb_dropped(const struct cht_rdb *db, struct cht_err *err);
/* CHT_CANCELLED: whoever drops the database, or closes the environment, waits. Asked now and then by what a server does by itself. */
enum cht_rc cht_rdb_closes(const struct cht_rdb *db, struct cht_err *err);
/* Work that goes on after the call that began it; the database is not closed before it has ended. */
void cht_rdb_hold(struct cht_rdb *db);
void cht_rdb_put(struct cht_rdb *db);

/* ---- leases.c ---------------------------------------------------------------------------------------------------- */

enum cht_rc cht_leases_init(struct cht_leases *l, struct cht_err *err);
void cht_leases_fini(struct cht_leases *l);
/* A key that nobody was given before. Blocks for a trip now and then. CHT_KEYS_EXHAUSTED. */
enum cht_rc cht_leases_key(struct cht_rdb *db, uint64_t *key, struct cht_err *err);
enum cht_rc cht_leases_key_for(struct cht_rdb *db, uint32_t bucket, uint64_t *key, struct cht_err *err);
/* n keys in a row, the first after a multiple of CHT_ROW_BUCKETS. */
enum cht_rc cht_leases_range(struct cht_rdb *db, uint64_t n, uint64_t *first, struct cht_err *err);
/* Was the key given out or leased by anybody? */
enum cht_rc cht_leases_given(struct cht_rdb *db, uint64_t key, bool *given, struct cht_err *err);
enum cht_rc cht_leases_next(struct cht_rdb *db, uint64_t *next, struct cht_err *err);
/* No key below `next` is leased from now on. */
enum cht_rc cht_leases_raise(struct cht_rdb *db, uint64_t next, struct cht_err *err);

/* The map is older than a shard says: reads it again. */
enum cht_rc cht_rdb_reload(struct cht_rdb *db, struct cht_err *err);
/* Before the first pair that ends: the database gets CHT_RDB_FORMAT_ENDS. */
enum cht_rc cht_rdb_ends(struct cht_rdb *db, struct cht_err *err);
static inline const struct cht_map *cht_rdb_map(const struct cht_rdb *db) { return atomic_load(&db->map); }
static inline uint64_t cht_rdb_generation(const struct cht_rdb *db) { return atomic_load(&db->generation); }
/* Are there rows that say what changed in this generation? Not if it is known that nobody is told of it (cut.h, CH9). */
static inline bool cht_rdb_keeps(const struct cht_rdb *db, uint64_t generation)
{
    return generation != 0 && atomic_load(&db->told.oldest) < generation;
}
/* E of a shard has been read. A lower generation than one that was seen is that of a shard which is about to get it. */
static inline void cht_rdb_learn(struct cht_rdb *db, const struct cht_epoch *e)
{
    uint64_t known = cht_rdb_generation(db);
    while (e->generation > known && !atomic_compare_exchange_weak(&db->generation, &known, e->generation)) {
    }
}

/* ---- rdb.c: opening ------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rdb_open(struct cht_renv *env, const char *name, const char *uuid, struct cht_rdb **out,
                         struct cht_err *err);
/* Waits for what is under way. */
void cht_rdb_close(struct cht_rdb *db);
/* The objects of a new database, durable on return. */
enum cht_rc cht_rdb_make(struct cht_renv *env, const char *uuid, unsigned level, struct cht_err *err);
/* Removes all of them; it may be called again. */
enum cht_rc cht_rdb_unmake(struct cht_renv *env, const char *uuid, struct cht_err *err);

extern const struct cht_store_ops cht_rdb_ops; /* reads.c */
