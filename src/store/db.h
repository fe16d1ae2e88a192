/* db: where a database lies in the data directories, its manifest, opening and recovery. Private to src/store.
 *
 *   DIR/LOCK                      advisory lock of the process that has DIR open
 *   DIR/NAME/manifest             one directory only (home): what the database is; written once, at the end of creation
 *   DIR/NAME/log/%016x.log        beside the manifest
 *   DIR/NAME/shard-%03u/{keys,values,recycle,pairs,sums,journal}     in any of the directories
 *
 * manifest, 512 bytes, little-endian: 0 magic[8] "CHEETAHM"  8 version u32  12 zero u32  16 uuid[16]  32 shards u32
 *   36 zeros  508 crc u32 of 0..507
 * A folder without a manifest is what a creation or a deletion that was cut off left: no database, cleared on create.
 */
#pragma once

#include "store/commit.h"
#include "store/crew.h"
#include "store/local.h"

#define CHT_MANIFEST_SIZE 512u

struct cht_manifest {
    uint8_t uuid[16];
    unsigned shards;
    unsigned home; /* index of the directory it lies in */
};

/* Opening, creating, closing, dropping take seconds if they have to: what concerns one name goes one after the other, and no name
 * waits for another. On the stack of the caller. */
struct cht_turn {
    const char *name;
    struct cht_turn *next;
};

struct cht_env {
    struct cht_env_config cfg; /* defaults filled in; dirs owned */
    struct cht_io *io;
    char **dirs; /* owned */
    size_t ndirs;
    struct cht_file **locks; /* owned, one a directory */
    struct cht_pool **pools; /* owned, one a directory */
    struct cht_crew *crew;   /* owned */
    struct cht_mutex mu;
    struct cht_cond calm;       /* a turn has ended */
    struct cht_turn *turns;     /* guarded by mu: of the calls that do something about a name, one a name */
    struct cht_local **open;    /* guarded by mu; owned */
    size_t nopen, cap, opening; /* guarded by mu; opening: places of those that are being opened */
};

/* The manifest of a database. CHT_DATABASE_NOT_FOUND; CHT_SHARD_MISPLACED where two directories have one. */
enum cht_rc cht_db_find(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_manifest *m, struct cht_err *err);
/* The folder of shard i, wherever it is. CHT_SHARD_MISSING, CHT_SHARD_MISPLACED (two of them). */
enum cht_rc cht_db_find_shard(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                              unsigned i, unsigned *dir, char *path, size_t cap, struct cht_err *err);
enum cht_rc cht_db_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err);
/* The two ends of making one: prepare: folders, empty but for log; seal: makes them durable, then the manifest. discard
 * deletes what a failure in between, or of seal, left. */
enum cht_rc cht_db_prepare(struct cht_env *env, const char *name, struct cht_err *err);
enum cht_rc cht_db_seal(struct cht_env *env, const char *name, const struct cht_manifest *m,
                        struct cht_err *err);
void cht_db_discard(struct cht_env *env, const char *name);
enum cht_rc cht_db_drop(struct cht_env *env, const char *name, struct cht_err *err);
/* recover.c: opens the shards and redoes the log. */
enum cht_rc cht_db_open(struct cht_env *env, const char *name, struct cht_local **out, struct cht_err *err);
/* It is not open. Whether opening it would find nothing to recover. */
enum cht_rc cht_db_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err);
/* Brings everything home, so that there is nothing to replay; nothing is written if nothing was. No call on it is under way. */
enum cht_rc cht_db_settle(struct cht_local *db, struct cht_err *err);
/* checkpoint: leave nothing to replay. Frees db. */
enum cht_rc cht_db_close(struct cht_local *db, bool checkpoint, struct cht_err *err);
/* Redoes what `log`, the log of the database, has behind each shard's own position, up to record `upto`. Checkpoints are taken on
 * the way where there is too much in memory, but not if `log` is a handle that only reads. */
enum cht_rc cht_db_replay(struct cht_local *db, struct cht_wal *log, uint64_t upto, struct cht_crew *crew,
                          struct cht_err *err);

extern const struct cht_store_ops cht_local_ops; /* local.c */
