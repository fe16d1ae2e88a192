/* db: where a database lies in the data directories, its manifest, opening and recovery. Private to src/store.
 *
 *   DIR/LOCK                      advisory lock of the process that has DIR open
 *   DIR/cheetah.set               which set of directories DIR belongs to (set.h)
 *   DIR/NAME/manifest             one directory only (home): what the database is; never changed
 *   DIR/NAME/log/%016x.log        beside the manifest
 *   DIR/NAME/shard-%03u/{keys,values,recycle,pairs,sums,journal}     in any of the directories
 *
 * manifest, 512 bytes, little-endian: 0 magic[8] "CHEETAHM"  8 version u32  12 zero u32  16 uuid[16]  32 shards u32
 *   36 zeros  508 crc u32 of 0..507
 *
 * The manifest changes its name with the state of the database, so each step is one rename, atomic and without need of space:
 *
 *   (nothing) -> NAME.unfinished/creating -> NAME/creating -> NAME/manifest -> NAME/dropping -> NAME.unfinished/dropping
 *   -> (nothing)                             files are made                   files are removed
 *
 * (restoring instead of creating: of a backup.) The first and the last step, of the folder, are there so that no folder NAME
 * without manifest or mark is ever left: one like that was not made here, and is left alone. What is below `creating`,
 * `restoring` or `dropping` is unfinished work: it is removed when the name is used again or by cht_env_finish.
 * The other directories' folders of NAME have no mark of their own: they are made after the home's and removed before
 * it, and what is in them is removed only if own.h knows it.
 *
 * Marks   F1 NAME has at most one of manifest, creating, restoring, dropping, in all directories together.
 *         F2 no file of a database is made before its mark is durable, none is removed before `dropping` is.
 *         F3 shards or a log without any of the four: a part of the database is missing (a disk, a file); nothing is
 *            done to it.
 */
#pragma once

#include "store/commit.h"
#include "store/crew.h"
#include "store/db_store.h"
#include "store/own.h"
#include "store/set.h"

#define CHT_MANIFEST_SIZE 512u

struct cht_manifest {
    uint8_t uuid[16];
    unsigned shards;
    unsigned home; /* index of the directory it lies in */
};

/* Opening, creating, closing, dropping take seconds if they have to: what concerns one name goes one after the other, and no name
 * waits for another, but for those that differ in upper and lower case only (admit.c). On the stack of the caller; that of a restore is
 * in the restore, and nobody waits for it: it ends when all of a backup is there. */
struct cht_turn {
    const char *name;
    bool making; /* of cht_env_create, and of a restore */
    bool restoring;
    struct cht_turn *next;
};

struct cht_env {
    struct cht_env_head head;  /* first */
    struct cht_env_config cfg; /* defaults filled in; dirs owned */
    struct cht_io *io;
    char **dirs; /* owned */
    size_t ndirs;
    struct cht_file **locks;    /* owned, one a directory */
    struct cht_io_id *lock_ids; /* owned, one a directory: their files; 0: not locked */
    struct cht_pool **pools;    /* owned, one a directory */
    struct cht_crew *crew;      /* owned */
    struct cht_set *sets;       /* owned, one a directory; the lists are guarded by set_mu */
    struct cht_mutex set_mu;
    struct cht_mutex mu;
    struct cht_cond calm;   /* a turn has ended */
    struct cht_turn *turns; /* guarded by mu: of the calls that do something about a name, one a name */
    struct cht_db **open;   /* guarded by mu; owned */
    _Atomic uint64_t
        last_change; /* no number of a change is higher, of the databases that were closed since the start */
    _Atomic uint64_t mapped;    /* bytes of the page files of all open databases (reading.c) */
    _Atomic bool unfinished;    /* something that was dropped could not be removed yet */
    size_t nopen, cap, opening; /* guarded by mu; opening: places of those that are being opened */
};

/* ---- env.c ------------------------------------------------------------------------------------------------------ */

/* The turn of a restore: waits for the turns of calls. CHT_DATABASE_BUSY: it is being restored already. */
enum cht_rc cht_env_begin_restore(struct cht_env *env, struct cht_turn *t, const char *name,
                                  struct cht_err *err);
void cht_env_end_restore(struct cht_env *env, struct cht_turn *t);

/* A database that is closed has given out numbers of changes up to this one. */
static inline void cht_env_changes_given(struct cht_env *env, uint64_t number)
{
    uint64_t last = atomic_load_explicit(&env->last_change, memory_order_relaxed);
    while (last < number && !atomic_compare_exchange_weak_explicit(
                                &env->last_change, &last, number, memory_order_relaxed, memory_order_relaxed))
        ;
}

/* ---- place.c: questions; nothing is changed ------------------------------------------------------------------- */

enum cht_db_state {
    CHT_DB_NONE,       /* no directory has anything of this name */
    CHT_DB_THERE,      /* it has a manifest */
    CHT_DB_UNFINISHED, /* it has a mark */
    CHT_DB_PARTS,      /* shards or a log, but neither: F3 */
    CHT_DB_FOREIGN     /* something that is no database */
};
struct cht_db_look {
    enum cht_db_state state;
    struct cht_manifest m; /* THERE, UNFINISHED: home is where the manifest or the mark is */
    enum cht_mark mark;    /* UNFINISHED */
    unsigned dir;          /* PARTS, FOREIGN: where */
    char part[16];         /* PARTS: what was found */
};
/* What lies under a name. Any question that has no answer is a failure: CHT_IO and the like, CHT_CORRUPT, CHT_VERSION, and
 * CHT_SHARD_MISPLACED if two directories have a manifest or a mark. */
enum cht_rc cht_db_look(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_db_look *out, struct cht_err *err);
/* Its manifest and every shard are there, each once and with the right uuid. Opens no database; says nothing of damage. */
enum cht_rc cht_db_whole(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                         const struct cht_manifest *m, struct cht_err *err);
/* DIR/NAME and below; what may be NULL. CHT_INVALID_ARGUMENT: longer than cap. */
enum cht_rc cht_db_path(char *path, size_t cap, const char *dir, const char *name, const char *what,
                        struct cht_err *err);
/* The manifest of a database. CHT_DATABASE_NOT_FOUND (also if what is there is no database, or unfinished work),
 * CHT_DATABASE_INCOMPLETE (F3), and as cht_db_look. */
enum cht_rc cht_db_find(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_manifest *m, struct cht_err *err);
/* The folder of shard i, wherever it is. CHT_SHARD_MISSING, CHT_SHARD_MISPLACED (two of them). */
enum cht_rc cht_db_find_shard(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                              unsigned i, unsigned *dir, char *path, size_t cap, struct cht_err *err);

/* ---- admit.c: which names may be made --------------------------------------------------------------------------- */

/* Of two valid names: are they the same but for upper and lower case? */
bool cht_db_same_letters(const char *a, const char *b);
/* May a database of this name be made? The caller has its turn. CHT_DATABASE_CASE, CHT_TOO_MANY_DATABASES (max_databases). */
enum cht_rc cht_db_admit(struct cht_env *env, const char *name, struct cht_err *err);

/* ---- db.c: making and removing -------------------------------------------------------------------------------- */

enum cht_rc cht_db_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err);
/* The two ends of making one. begin: removes unfinished work of this name, then makes the mark (durable) and the folders,
 * empty but for log; CHT_DATABASE_EXISTS, CHT_FOREIGN_FILES, CHT_DATABASE_INCOMPLETE, and as cht_db_admit. seal: makes
 * the folders durable, then the mark a manifest. discard removes what a failure in between, or of seal, left; what it
 * cannot remove is unfinished work like any. */
enum cht_rc cht_db_begin(struct cht_env *env, const char *name, enum cht_mark mark,
                         const struct cht_manifest *m, struct cht_err *err);
enum cht_rc cht_db_seal(struct cht_env *env, const char *name, enum cht_mark mark,
                        const struct cht_manifest *m, struct cht_err *err);
void cht_db_discard(struct cht_env *env, const char *name);
/* Whether it may be dropped: CHT_OK, or what cht_db_drop would say before it changes anything. */
enum cht_rc cht_db_droppable(struct cht_env *env, const char *name, struct cht_err *err);
/* It must be closed. A failure after the mark says so, and the rest is unfinished work. */
enum cht_rc cht_db_drop(struct cht_env *env, const char *name, struct cht_err *err);
/* Removes unfinished work of this name. *mark: what it was, CHT_MARKS: there was none. CHT_FOREIGN_FILES: something is in it
 * that is not ours; all of it is kept. */
enum cht_rc cht_db_finish(struct cht_env *env, const char *name, unsigned *mark, struct cht_err *err);
/* CHT_DATABASE_INCOMPLETE if a directory's set file lists the name. */
enum cht_rc cht_db_not_listed(struct cht_env *env, const char *name, struct cht_err *err);

/* ---- dirs.c: the data directories of an environment ------------------------------------------------------------- */

/* Locks the directories, finds out whether they belong together, and only then writes: folders, LOCK, set files, lists. */
enum cht_rc cht_dirs_open(struct cht_env *env, struct cht_err *err);
/* Before anything below them is made, opened or removed by name: are they the directories that were locked? CHT_IO: one was moved away. */
enum cht_rc cht_dirs_same(const struct cht_env *env, struct cht_err *err);
void cht_dirs_close(struct cht_env *env);
/* A name that a database can have: of a folder or link in a data directory, of NAME.unfinished, or of a list. */
struct cht_dirs_name {
    char name[CHT_DATABASE_NAME_MAX + 1];
    bool folder, husk, listed;
};
/* All of them, sorted, each once. The caller frees *out (cht_free). sets may be NULL. */
enum cht_rc cht_dirs_names(struct cht_io *io, char *const *dirs, const struct cht_set *sets, size_t ndirs,
                           struct cht_dirs_name **out, size_t *n, struct cht_err *err);
/* The state of a set of directories as a reader finds it, for check: reads the set files into sets and judges them. */
enum cht_rc cht_dirs_judge(struct cht_io *io, char *const *dirs, struct cht_set *sets, size_t ndirs,
                           struct cht_err *err);

/* db_open.c: opens the log and the shards, and redoes the log. */
enum cht_rc cht_db_open(struct cht_env *env, const char *name, struct cht_db **out, struct cht_err *err);
/* It is not open. Whether opening it would find nothing to recover. */
enum cht_rc cht_db_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err);
/* Brings everything home, so that there is nothing to replay; nothing is written if nothing was. No call on it is under way. */
enum cht_rc cht_db_settle(struct cht_db *db, struct cht_err *err);
/* checkpoint: leave nothing to replay; CHT_READ_ONLY, and nothing is written, if writing had stopped. Frees db. */
enum cht_rc cht_db_close(struct cht_db *db, bool checkpoint, struct cht_err *err);
/* recover.c: redoes what `log`, the log of the database, has after each shard's own position, up to record `upto`. Checkpoints are taken on
 * the way if there is too much in memory, but not if `log` is a handle that only reads. */
enum cht_rc cht_db_replay(struct cht_db *db, struct cht_wal *log, uint64_t upto, struct cht_crew *crew,
                          struct cht_err *err);
/* Bytes of pages that are changed and not written yet, counted anew: only if nobody commits. */
uint64_t cht_db_changed(const struct cht_db *db);

extern const struct cht_store_ops cht_db_ops; /* db_store.c */
