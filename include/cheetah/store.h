/* store: the only way into a database. Values under integer keys, pairs (byte-string names) mapped to keys,
 * atomic commits, counts, ordered scans, statistics, checkpoints.
 *
 * The interface hides files completely: nothing returned points into a mapping, a call may complete later
 * (CHT_PENDING, then the request's `done`), an upsert chooses its key so that pair and value share a shard. The
 * implementation on files completes reads at once. A second implementation fills in another struct cht_store_ops.
 *
 * Threads: every function may be called from any thread at any time between open and close, except where said.
 * Ownership: inputs are borrowed until the call (or its `done`) returns; outputs are the caller's.
 * Isolation: point reads see the latest commit, under durability sync the latest that is on disk: one that meets a commit
 * which is on its way there waits for it. An atomic commit becomes visible as a whole within each shard. Counts, scans and sweeps
 * may be ahead of the disk; a scan is not a snapshot (see scan.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CHT_KEY_MAX ((UINT64_C(1) << 48) - 1)
#define CHT_NAME_MAX 4096u
#define CHT_DATABASE_NAME_MAX 64u /* bytes, without the NUL; CHT_DATABASE_NAME_RULE says which */
#define CHT_DATABASE_DEFAULT "default"
#define CHT_SHARDS_MAX 256u                        /* of a database */
#define CHT_VALUE_MAX (UINT32_C(1) << 30)          /* the largest max_value_size */
#define CHT_VALUE_DEFAULT_MAX (UINT32_C(16) << 20) /* max_value_size unless set */

struct cht_env;   /* data directories, their locks, the worker pools, the open databases */
struct cht_store; /* one open database */
struct cht_scan;  /* scan.h */
struct cht_io;    /* os layer; NULL means the real one */

/* Growable byte buffer owned by the caller: zero-initialise, free with cht_buf_free, reuse at will. */
struct cht_buf {
    uint8_t *data; /* owned, NULL when cap is 0 */
    size_t len, cap;
};
enum cht_rc cht_buf_reserve(struct cht_buf *b, size_t cap, struct cht_err *err);
void cht_buf_free(struct cht_buf *b);

/* A byte string, borrowed. */
struct cht_str {
    const uint8_t *p;
    size_t n;
};

/* ---- environment ------------------------------------------------------------------------------------------- */

enum cht_durability {
    CHT_DURABLE_SYNC,     /* answered after fdatasync of the log: nothing acknowledged is lost, ever */
    CHT_DURABLE_INTERVAL, /* synced every interval_ms: a power cut loses at most that; a process crash nothing */
    CHT_DURABLE_OS        /* left to the kernel: a power cut loses what it had not written; a crash nothing */
};

/* What keeps a database from writing, the gravest first. */
enum cht_trouble_kind {
    CHT_TROUBLE_STOPPED, /* something may be lost or half written: only reads until it is opened again */
    CHT_TROUBLE_CHECKPOINT, /* a checkpoint could not be made; it is tried again, writes go on until the log is too long */
    CHT_TROUBLE_WRITE /* writes were refused for want of room, memory or descriptors */
};
#define CHT_TROUBLE_KINDS 3

/* What opening may do to the data directories as a set (README of src/store). */
enum cht_dirs_mode {
    CHT_DIRS_JOIN,     /* new ones join the set; the lists in them are kept up to date */
    CHT_DIRS_AS_FOUND, /* the set is left as it is, databases can be opened */
    CHT_DIRS_LOOK      /* nothing at all is written; nothing can be opened, made or dropped */
};

#define CHT_CHANGES_NONE UINT64_MAX

/* Which checkpoints first put the short values that no checkpoint has written yet in the order of their names, so that scans with values
 * find them side by side. It costs some time of a processor and not one byte more on the disk. */
enum cht_value_order {
    CHT_ORDER_RESTING, /* those that are made by themselves, as long as nobody writes */
    CHT_ORDER_ALWAYS,  /* all, as long as no writer waits for them */
    CHT_ORDER_NEVER
};

/* What is read from the disk with a page that is not in memory. */
enum cht_read_ahead {
    CHT_READ_AHEAD_AUTO, /* what lies around it, as long as all databases fit into 3/4 of the memory; else nothing */
    CHT_READ_AHEAD_ALWAYS, /* what lies around it */
    CHT_READ_AHEAD_NEVER   /* nothing */
};

struct cht_env_config {
    const char *const *dirs; /* data directories, created if missing; the first is home to new databases */
    size_t dir_count;
    enum cht_dirs_mode mode;
    enum cht_durability durability;
    unsigned interval_ms;    /* for CHT_DURABLE_INTERVAL; 0: 50 */
    uint32_t max_value_size; /* 0: CHT_VALUE_DEFAULT_MAX */
    uint64_t
        checkpoint_log_bytes;   /* 0: 1 GiB; a checkpoint starts when the log since the last one reaches it */
    uint64_t log_segment_bytes; /* 0: 64 MiB; the first segments of a log are shorter */
    uint64_t
        changes_bytes; /* of the log, kept beyond need for those who ask what changed (changes.h); 0: 64 MiB; CHT_CHANGES_NONE */
    bool
        changes; /* new databases keep their changes from their first commit on; else from the first cht_changes_open */
    enum cht_value_order value_order;
    enum cht_read_ahead read_ahead;
    uint64_t memory; /* bytes there are for databases; 0: what this process may use, by its cgroup, too */
    uint64_t dirty_bytes;    /* 0: a quarter of the memory this process may use; all databases together */
    unsigned scan_workers;   /* per data directory; 0: one a core, at most 8 */
    unsigned commit_threads; /* for one large unordered commit; 0: one a core, at most 8 */
    unsigned default_shards; /* 0: 8 */
    uint64_t
        max_databases; /* cht_env_create makes no more of them, but for CHT_DATABASE_DEFAULT; 0: no limit */
    bool manual_checkpoint; /* tests: no checkpoint by itself but on close */
    struct cht_io *io;      /* NULL: the real file system */
    /* Tests: the time in ms, since 1970 and by a clock that never jumps; NULL: the system's. From any thread. */
    void (*clock)(void *ctx, uint64_t *wall, uint64_t *steady);
    void *clock_ctx;
    /* cht_check only, may be NULL: now and then, how many of the bytes of a database have been looked at. */
    void (*progress)(void *ctx, const char *database, uint64_t done, uint64_t total);
    /* cht_check only, may be NULL: what is worth knowing and no damage (unfinished work). */
    void (*notice)(void *ctx, const char *database, const char *what);
    void *progress_ctx;
    /* NULL: nobody wants to know. Called once when such a condition begins (why: code, file and errno of the call that
     * failed) and once when it is over (why->code is CHT_OK). From threads of the store that hold its locks: it must not block
     * and must not call the store. */
    void (*trouble)(void *ctx, const char *database, enum cht_trouble_kind kind, const struct cht_err *why);
    void *trouble_ctx;
};

/* Locks the directories (CHT_LOCKED if another process has one), finds out whether they belong together, and starts the
 * workers. Databases open on use. CHT_DIRECTORY_MISSING: one of the set is not there, or is empty because its disk is not
 * mounted; CHT_DIRECTORY_MISPLACED: one belongs to another set, or is a copy; CHT_DATABASE_INCOMPLETE, CHT_SHARD_MISSING:
 * directories without set files in which a database is not whole. Nothing is written before that is settled. */
enum cht_rc cht_env_open(const struct cht_env_config *cfg, struct cht_env **out, struct cht_err *err);
/* Checkpoints and closes every database; no call may be under way. NULL is legal. Returns the first failure; the
 * environment is gone either way and nothing acknowledged is lost (the log has it). */
enum cht_rc cht_env_close(struct cht_env *env, struct cht_err *err);
/* As a crash would leave it: no checkpoint, no clean mark. For tests and for the second SIGTERM. */
void cht_env_abandon(struct cht_env *env);

/* For a slow tick (10 s): starts a checkpoint of each open database that has changed much and was not written to since the last
 * call, and the removal of pairs that have ended, so that memory and space go back to the system. Returns at once. */
void cht_env_quiet(struct cht_env *env);

/* Creates a database with a fixed number of shards (1..256; 0: the default) spread over the directories.
 * CHT_DATABASE_EXISTS, CHT_INVALID_DATABASE_NAME, CHT_INVALID_ARGUMENT, CHT_FOREIGN_FILES (a folder or file of this name
 * that is no database), CHT_DATABASE_INCOMPLETE, CHT_TOO_MANY_DATABASES, CHT_DATABASE_CASE (there is one whose name differs in upper
 * and lower case only; "default" counts as there always). Durable on return. */
enum cht_rc cht_env_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err);
/* Gets the open database, opening (and recovering) it on first use; the env owns it. CHT_DATABASE_NOT_FOUND. */
enum cht_rc cht_env_get(struct cht_env *env, const char *name, struct cht_store **out, struct cht_err *err);
/* Closes an open database of which no call is under way; its store is gone, and the next cht_env_get opens it again. If it cannot
 * be brought home it stays open (*closed false): CHT_READ_ONLY, or what the checkpoint says. A failure with *closed true has
 * left something to recover, which is done when it is opened. CHT_OK if it is not open. */
enum cht_rc cht_env_release(struct cht_env *env, const char *name, bool *closed, struct cht_err *err);
/* Whether opening it would find nothing to recover; true if it is open. Reads the names and headers of its log. */
enum cht_rc cht_env_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err);
/* Deletes a database and its files. No other call on it may be under way. CHT_FOREIGN_FILES: it is no database, or something
 * is in its folders that no database makes. CHT_OUTCOME_UNKNOWN: the deletion is recorded, perhaps not durably, and that could not be
 * taken back: it is gone, but a crash may bring it back. After any other failure it is there as before. What cannot be removed after
 * the deletion was recorded is no failure: it is removed by cht_env_finish, by the next call for this name, or at the next start. */
enum cht_rc cht_env_drop(struct cht_env *env, const char *name, struct cht_err *err);
/* Calls fn for each database name in byte order. */
enum cht_rc cht_env_list(struct cht_env *env, void (*fn)(void *ctx, const char *name), void *ctx,
                         struct cht_err *err);
/* Removes what creations, restores and deletions that were cut off left. fn is called for each of them, and for each database
 * that should be there and is not: rc CHT_OK, it is done (CHT_DIRS_LOOK: it would be); else why not. `what` is for people. */
enum cht_rc cht_env_finish(struct cht_env *env,
                           void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what),
                           void *ctx, struct cht_err *err);
/* Is there something that cht_env_finish could not remove, or a drop? Then it should be called again after a while. */
bool cht_env_unfinished(const struct cht_env *env);
/* Can what holds the data be reached? Does not wait. What lies on this machine always can. CHT_TIMEOUT, CHT_CLOSED, CHT_IO. */
enum cht_rc cht_env_health(struct cht_env *env, struct cht_err *err);
/* What an environment on other machines has asked of them since it was opened. */
struct cht_remote_stats {
    uint64_t reads, writes;     /* operations on objects that have ended */
    uint64_t read_ns, write_ns; /* from their start until they were answered, added up */
    uint64_t refused; /* writes whose compares did not hold: another server was first, or a guess was wrong */
    uint64_t timeouts, failed; /* operations that were not answered in time; that failed otherwise */
    uint64_t reconnects;       /* after the cluster had shut this process out */
    uint64_t silent_ns;        /* since the last write of the pulse was answered */
    uint64_t waiting;          /* operations of commits under way, all databases */
    uint64_t locks,
        locks_lost; /* that are held, to count or smooth; of these, that have ended before they were given back */
    uint64_t full; /* 1: the pool has no room */
};
/* Does not wait. All 0 for what lies on this machine. */
void cht_env_remote_stats(struct cht_env *env, struct cht_remote_stats *out);
bool cht_database_name_valid(const char *name);

/* ---- point reads ------------------------------------------------------------------------------------------- */

/* What a point read shows is durable (CHT_DURABLE_SYNC): never what a crash could take back, nor what was refused. So a read
 * of a name or key that a commit under way has changed waits until that is on disk or taken back. The calls named _soon do
 * not wait: they answer CHT_PENDING, and w->done is called once, from another thread; then ask again. Nothing that they put
 * out counts until then. NULL for w waits here, &cht_ahead never waits and may show what is not durable yet (for reads beside
 * a scan, which may be ahead as well). Under any durability a commit of seconds (a namespace of millions of pairs that is deleted,
 * an atomic commit of many operations) keeps readers out as long: the calls named _soon answer CHT_PENDING then too,
 * so that a thread that serves other databases as well is never held. If a write failed with the disk so that only a restart can tell whether it was done,
 * reads of what it touched are CHT_OUTCOME_UNKNOWN. */
struct cht_wait {
    void (*done)(struct cht_wait *w); /* must not block nor call the store */
    void *ctx;                        /* the caller's */
    struct cht_wait *next;            /* the store's while it is pending */
    uint64_t since;                   /* the store's; 0 before the first use */
    void *held; /* likewise: what it keeps for whoever asks again, until cht_store_forget; NULL: nothing */
};
extern struct cht_wait cht_ahead;
/* w->done is not called any more once this has returned, pending or not. To be called if w->held is not NULL, before w is used for
 * something else: what was read for it once is not read again, so that a call which asks for many things and starts again when one of
 * them is CHT_PENDING comes to its end. */
void cht_store_forget(struct cht_store *s, struct cht_wait *w);

/* Do answers come from other machines, and may other processes write? Then nothing that is kept in memory is true for long, unless it is
 * compared with what is stored, and all that is not named _soon waits for the network. */
bool cht_store_remote(const struct cht_store *s);

/* A lock among all processes that have the database open, for work that reads, computes and writes what it has read; name: at most 31 bytes.
 * Threads of one process are kept apart by the caller. CHT_LOCKED: another process has it; ask again. If a process dies its locks end
 * within 30 s. A store that no other process can open has none: CHT_OK. */
enum cht_rc cht_store_lock(struct cht_store *s, const char *name, struct cht_err *err);
void cht_store_unlock(struct cht_store *s, const char *name);
/* To be asked before a write under such a lock, whose commit has CHT_COMMIT_FENCED as well. CHT_DATABASE_BUSY: this process has been silent for so long that one of the database's locks
 * it had may be another's by now; it stays so until that lock is given back. */
enum cht_rc cht_store_locks_kept(struct cht_store *s, struct cht_err *err);

/* For a thread that must not be held up, around calls that take locks and have no _soon: while a commit of seconds is under way,
 * false, and w->done is called when it is over; w must not be pending already. Between a true and cht_store_leave such commits
 * wait: a few milliseconds at most, please. */
bool cht_store_enter(struct cht_store *s, struct cht_wait *w);
void cht_store_leave(struct cht_store *s);

/* For whoever keeps answers: do the versions of watches (below) tell of everything that has changed: is what has ended removed, and what other
 * servers have written known? With wait: waits until it is, as reads do. A remote store (cht_store_remote) does not know it without: false. */
bool cht_store_settle(struct cht_store *s, bool wait);

/* The value under key, copied to out (out->len set). out NULL: only the size is asked. size may be NULL.
 * CHT_KEY_NOT_FOUND, CHT_INVALID_KEY, CHT_CORRUPT (checksum; counted). */
enum cht_rc cht_store_get(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                          struct cht_err *err);
/* The key a name is mapped to. CHT_PAIR_NOT_FOUND, CHT_INVALID_PAIR. */
enum cht_rc cht_store_pair(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_err *err);
/* Name, key and value in one call (one lock if they share a shard). *size is 0 and out->len 0 if the key has
 * no value (a dangling pair), which is CHT_OK. */
enum cht_rc cht_store_pair_value(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_buf *out,
                                 uint32_t *size, struct cht_err *err);
enum cht_rc cht_store_get_soon(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                               struct cht_wait *w, struct cht_err *err);
enum cht_rc cht_store_pair_soon(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_wait *w,
                                struct cht_err *err);
/* A name and a value that are read as one for another: parameters as of cht_store_pair_value. */
struct cht_pair_value {
    uint64_t key;
    struct cht_buf *out; /* borrowed; may be NULL */
    uint32_t size;
    bool mapping;  /* in: the value is not looked at */
    uint64_t ends; /* when the pair ends, in ms since 1970; 0: never */
};
enum cht_rc cht_store_pair_value_soon(struct cht_store *s, struct cht_str name, struct cht_pair_value *pv,
                                      struct cht_wait *w, struct cht_err *err);
/* Many names with their values: each is read as by cht_store_pair_value_soon, all side by side: what they touch is fetched together, or asked for
 * together over a network. Nothing says that they are read at one moment. */
struct cht_pair_read {
    struct cht_str name;
    enum cht_rc rc; /* out, as all that follows: CHT_OK, CHT_PAIR_NOT_FOUND; anything else: it was not read */
    uint32_t size;  /* of the value, which is in the buffer; 0: the key has none */
    size_t at;      /* where it begins there */
    uint64_t key, ends;
};
/* out: the values, which it owns as long as its caller says; its length is set anew. CHT_OK: each was read. Else the first code that kept one from
 * it (CHT_PENDING, with a w, as for the calls named _soon); those whose rc is CHT_OK or CHT_PAIR_NOT_FOUND were read all the same. */
enum cht_rc cht_store_pair_values(struct cht_store *s, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                                  struct cht_wait *w, struct cht_err *err);
/* Point reads to come, as a hint: what they will touch is fetched into the cache, for all of them side by side, where each
 * read by itself would wait for its memory. Waits for no lock, changes nothing, and what is not there or not legal is
 * ignored. At most CHT_HINTS_MAX are looked at. Returns how many were followed as far as their value. */
struct cht_hint {
    struct cht_str name; /* of a pair whose value will be read too; empty: a key */
    uint64_t key;
};
#define CHT_HINTS_MAX 128u
size_t cht_store_prefetch(struct cht_store *s, const struct cht_hint *h, size_t n);
/* How many pairs lie under the prefix (empty: all). Exact, microseconds, no scan. */
enum cht_rc cht_store_count(struct cht_store *s, struct cht_str prefix, uint64_t *pairs, struct cht_err *err);
enum cht_rc cht_store_count_soon(struct cht_store *s, struct cht_str prefix, uint64_t *pairs,
                                 struct cht_wait *w, struct cht_err *err);

/* A value read in pieces, for values that should not be held in memory: the bytes stay as they were when it was
 * opened whatever is written meanwhile. Checked against its checksum when opened. Close it soon: its space is
 * not reused before. One thread at a time per handle. */
struct cht_value;
enum cht_rc cht_value_open(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                           struct cht_err *err);
enum cht_rc cht_value_open_soon(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                                struct cht_wait *w, struct cht_err *err);
/* CHT_READ_ONLY: the database was taken back to an earlier state since the value was opened. */
enum cht_rc cht_value_read(struct cht_value *v, uint32_t offset, void *buf, size_t n, size_t *got,
                           struct cht_err *err);
void cht_value_close(struct cht_value *v);

/* ---- commits ----------------------------------------------------------------------------------------------- */

enum cht_op_kind {
    CHT_OP_INSERT,   /* value -> new key (out: key) */
    CHT_OP_EDIT,     /* key, value: replace the value of a live key. KEY_NOT_FOUND */
    CHT_OP_DELETE,   /* key. KEY_NOT_FOUND */
    CHT_OP_PAIR_SET, /* name, key: map (out: created) */
    CHT_OP_PAIR_PUT, /* name, value: upsert; a live mapped key is kept, else insert and map (out: key, created) */
    CHT_OP_PAIR_DEL,   /* name, with_values. PAIR_NOT_FOUND (out: key, values) */
    CHT_OP_PREFIX_DEL, /* name = prefix (may be empty: all), with_values (out: pairs, values) */
    CHT_OP_READ,       /* key, out: buf, size. Reads see the operations before them in the same commit */
    CHT_OP_PAIR_READ,  /* name, with_values, out: key, buf, size */
    CHT_OP_PAIR_LINK, /* name, value = another name: map name to the key the other is mapped to at this point of
                          the commit (out: key, created). PAIR_NOT_FOUND if the other is not mapped */
    CHT_OP_PUT, /* key, value: create or replace the value of a key that has been given out, reserved or deleted
                          (out: created). KEY_NOT_FOUND if it never was */
    CHT_OP_PURGE, /* removes some of what has ended, if anything has; the store does so by itself */
    CHT_OP_RESERVE /* key = how many, at most CHT_RESERVE_MAX: gives out that many keys in a row, the first in out
                          key, none of them with a value. The keys before the first are a multiple of the shards, 0 in
                          a fresh database, so that keys moved by it stay with the same shards */
};
#define CHT_EXPIRES_MAX \
    UINT64_C(281474976710) /* the latest end, in seconds since 1970: in ms it has 48 bits */
#define CHT_TTL_MAX_MS (UINT64_C(100) * 366 * 86400 * 1000)
#define CHT_RESERVE_MAX (UINT64_C(1) << 28) /* each costs 16 bytes on disk */

struct cht_op;
/* What an operation finds. value: borrowed for the call, empty if not live or damaged. */
struct cht_found {
    bool mapped, live; /* the name leads to a key; the key has a value. By key both say the latter */
    uint64_t key;
    struct cht_str value;
    enum cht_rc damage; /* CHT_CORRUPT: the value is there and cannot be read */
};
/* Decides about an operation when its turn has come: whether it runs, and for PAIR_PUT, EDIT and PUT with which value. For those by
 * one key or name; not in CHT_COMMIT_UNORDERED. */
struct cht_ask {
    /* On the committer's thread, once, with locks held: it must not block. It may set op->value, which must live until the commit
     * is done. Any other code than CHT_OK is the operation's failure, and err then says why. */
    enum cht_rc (*decide)(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                          struct cht_err *err);
    uint64_t room; /* the most bytes of a value that it sets, beyond those found if it `extends` them */
    bool extends;
};
struct cht_op {
    enum cht_op_kind kind;
    bool with_values;    /* PAIR_DEL, PREFIX_DEL: delete the values too; PAIR_READ: read the value */
    struct cht_str name; /* borrowed until done */
    struct cht_str value;
    uint64_t key; /* in for EDIT, DELETE, PUT, PAIR_SET, READ, RESERVE; out for the others */
    /* results */
    enum cht_rc rc;
    bool created;  /* PAIR_SET, PAIR_PUT, PAIR_LINK: the name was not mapped before; PUT: no value before */
    uint32_t size; /* of the value read or written */
    bool keep_end; /* PAIR_PUT: a pair that ends goes on ending then, whatever ttl_ms says */
    uint64_t
        ttl_ms; /* PAIR_PUT: the pair and its value end so long after the commit's turn (at most CHT_TTL_MAX_MS); 0: a put makes it lasting */
    uint64_t
        until_ms; /* PAIR_SET: the pair and its value end then, in ms since 1970; if that has been, at once. 0: never */
    uint64_t ends; /* out for PAIR_PUT, PAIR_READ: when, in ms since 1970; 0: never */
    uint32_t back; /* in for PAIR_LINK: the pair `value` was put that many operations before; 0: look it up */
    uint64_t pairs, values; /* deleted */
    struct cht_buf *buf;    /* READ, PAIR_READ: where the value goes; borrowed */
    struct cht_ask *ask;    /* NULL: it runs as it is; borrowed */
};
/* Is its pair to end? */
static inline bool cht_op_ends(const struct cht_op *op)
{
    return op->ttl_ms > 0 || (op->kind == CHT_OP_PAIR_SET && op->until_ms > 0);
}

#define CHT_COMMIT_ATOMIC 1u /* all or nothing: the first failure undoes the whole commit */
/* The operations may be run in another order, several at a time: the upserts (PAIR_PUT) first, then the links with `back`, then
 * all others; those of one name keep their order within these. For large commits that do not depend on themselves. */
#define CHT_COMMIT_UNORDERED 4u
#define CHT_COMMIT_INLINE \
    2u /* cht_store_submit may run it at once if it is small and nothing would make it wait (not: sync) */
/* It is written only while all locks of the database that this process has (cht_store_lock) are still its own, which is compared where the
 * data lies, in the operation that writes: else CHT_DATABASE_BUSY, and of the shards that were not written yet none is. */
#define CHT_COMMIT_FENCED 32u
/* How durable it is when it is done, in place of what the environment says: as with CHT_DURABLE_SYNC, or CHT_DURABLE_INTERVAL. Commits
 * that are done in one group are as durable as the strictest of them. Point reads may show what an interval commit wrote before it is on
 * the disk, also under CHT_DURABLE_SYNC. */
#define CHT_COMMIT_SYNC 8u
#define CHT_COMMIT_INTERVAL 16u

/* Very many upserts and links that are never an array: each is made when the store looks at it, and what it leaves is 8 bytes. */
#define CHT_MANY_VALUE_MAX ((16u << 10) - 1) /* the longest value of one */
struct cht_many {
    size_t n;       /* at most 2^32 - 1 */
    uint64_t bytes; /* no fewer than all names and values have together */
    size_t room;    /* bytes of the longest name and its value */
    /* Makes operation i, for which *op is zero: kind, name, value, back; what it borrows lies in `room` or is there until the commit is done.
     * false: there is none. It is called several times for each i, by several threads at once, and every time says the same. */
    bool (*make)(const void *ctx, size_t i, uint8_t *room, struct cht_op *op);
    const void *ctx;
    size_t links;  /* the last ones that are all PAIR_LINK; others may be as well */
    uint64_t *key; /* one for each operation but those, the caller's, 0 before; the store's */
    uint8_t *link; /* one for each of those likewise */
    uint64_t log;  /* the store's */
};

struct cht_commit {
    struct cht_op *ops; /* borrowed until done */
    size_t count;
    struct cht_many *
        many; /* NULL: none; with CHT_COMMIT_ATOMIC only. Run before ops, without an order: PAIR_PUT without an end, and PAIR_LINK with
                              `back` to one of these */
    unsigned flags;
    uint64_t
        read_max; /* 0: none; once its reads have copied that many bytes, further ones fail, CHT_BATCH_TOO_LARGE */
    void (*done)(
        struct cht_commit *c); /* NULL for cht_store_commit; called once, from another thread, must not
                                           block or call commit */
    void *ctx;                 /* the caller's */
    /* results */
    enum cht_rc
        rc; /* CHT_OK; CHT_BATCH_FAILED (atomic, see failed); READ_ONLY, DISK_FULL, IO, NO_MEMORY: nothing of
                          it was done; OUTCOME_UNKNOWN: only the next start tells */
    size_t
        failed; /* operations that failed; for an atomic commit the index of the one that did, count if it is one of many */
    struct cht_err err;
    struct cht_commit *next; /* the store's while under way */
};

/* Runs the operations in order as one durable unit and waits for it: when it returns CHT_OK what the operations
 * report as written is as durable as the mode says. Each operation is atomic; the whole is with CHT_COMMIT_ATOMIC,
 * also across a crash (in either mode the whole commit is one log record: after a crash all of its effects are
 * there or none). Returns c->rc. */
enum cht_rc cht_store_commit(struct cht_store *s, struct cht_commit *c);
/* The same without waiting; c->done says when. Returns CHT_PENDING; any other code is the result itself, and done is not
 * called: it was not accepted, or run at once as CHT_COMMIT_INLINE allows. */
enum cht_rc cht_store_submit(struct cht_store *s, struct cht_commit *c);
/* Several commits, linked by next, in their order. `done` of each is called, of some perhaps before this returns. Those that may be run at once
 * (CHT_COMMIT_INLINE) are, all in one group, if all of them may. */
void cht_store_submit_all(struct cht_store *s, struct cht_commit *list);

/* ---- watches ----------------------------------------------------------------------------------------------- */

/* Says whether an answer computed from the pairs under a prefix, and from the values they lead to, still holds.
 *
 *   v = begin -> read under the prefix, noting every key that is met (also one without a value) -> end
 *   the answer holds exactly as long as version() == v
 *
 * A commit that changes a pair under the prefix, or a value under a noted key whatever its name, raises the version before it
 * is answered; others do not, but for a few in a thousand. With a remote store any write to the database raises it, and no earlier than
 * with the next cht_store_settle that waits: call that before begin, and before each look at the version. Without watches this costs a commit one load, with them some
 * nanoseconds an operation and watch.
 * Threads: begin, note, end, version from any; several sweeps may be under way on one watch; free when none is. A watch
 * outlives its store: closed() is then true and the version is another for ever. */
struct cht_watch;
#define CHT_WATCH_MAX 64u /* a database */
/* CHT_OVERLOADED if there are too many, CHT_NO_MEMORY. The prefix is copied. */
enum cht_rc cht_watch_new(struct cht_store *s, struct cht_str prefix, struct cht_watch **out,
                          struct cht_err *err);
void cht_watch_free(struct cht_watch *w); /* NULL is legal */
uint64_t cht_watch_begin(struct cht_watch *w,
                         uint64_t pairs); /* pairs: about how many lie under the prefix */
void cht_watch_note(struct cht_watch *w, uint64_t key);
void cht_watch_end(struct cht_watch *w);
/* The same for short sweeps, of which many are under way at once: what was written before this one began is not looked at when it ends. *place is
 * of begin_at, for its end_at. */
uint64_t cht_watch_begin_at(struct cht_watch *w, uint64_t pairs, uint64_t *place);
void cht_watch_end_at(struct cht_watch *w, uint64_t place);
uint64_t cht_watch_version(const struct cht_watch *w);
bool cht_watch_closed(const struct cht_watch *w);
size_t cht_watch_memory(const struct cht_watch *w); /* bytes; at most about 8 MiB between sweeps */

/* ---- service ----------------------------------------------------------------------------------------------- */

/* Writes everything dirty to its place, after which the log is not needed and removed; returns when done. */
enum cht_rc cht_store_checkpoint(struct cht_store *s, struct cht_err *err);

struct cht_store_stats {
    unsigned shards;
    bool read_only;
    uint64_t pairs, values, value_bytes;
    uint64_t ending;      /* pairs that end, those included that have ended and are not removed yet */
    bool ended_there;     /* some have: a count removes them first */
    uint64_t ended;       /* pairs that were removed since they had ended, since open */
    uint64_t next_key;    /* no new value will get a key below it: see GET /databases in openapi.yaml */
    uint64_t file_bytes;  /* allocated on disk: pages, sums, journals */
    uint64_t log_bytes;   /* allocated log segments */
    uint64_t log_live;    /* log since the oldest checkpoint */
    uint64_t log_seq;     /* last sequence number */
    uint64_t dirty_bytes; /* private pages */
    uint64_t commits, operations, groups; /* since open; operations/groups = batching */
    uint64_t syncs, sync_ns;
    uint64_t checkpoints, checkpoint_ns;
    uint64_t bytes_inserted, bytes_written; /* user bytes in; bytes handed to the disk */
    uint64_t corrupt;                       /* checksum failures seen */
    uint64_t changes_oldest, changes_newest, changes_kept, changes_followers; /* cht_changes_range */
    uint64_t read_alone;         /* 1: pages are read from the disk one by one: cht_read_ahead */
    uint64_t values_ordered;     /* values that changed their places before a checkpoint: cht_value_order */
    uint64_t checkpoints_failed; /* attempts that failed, those that are tried again included */
    struct cht_err trouble;      /* why writes are refused now, the gravest reason; CHT_OK: they are not */
};
enum cht_rc cht_store_stats(struct cht_store *s, struct cht_store_stats *out, struct cht_err *err);
/* For whoever asks many databases and must not wait for long. ask begins to find out what cht_store_stats says, and kept gives what was found
 * out last; *asked: when that was begun (a clock of ns that never jumps). False: nothing yet. Of a store on this machine it is what
 * cht_store_stats says. */
void cht_store_stats_ask(struct cht_store *s);
bool cht_store_stats_kept(struct cht_store *s, struct cht_store_stats *out, uint64_t *asked);

/* One byte length of the catalogue, all shards together; fn is called in ascending order of length. */
struct cht_length_stat {
    uint32_t length;
    uint64_t live, slots, extents;
};
enum cht_rc cht_store_lengths(struct cht_store *s, void (*fn)(void *ctx, const struct cht_length_stat *),
                              void *ctx, struct cht_err *err);
/* The shape of the tries of the names, all shards together. Walks over all of their pages, a shard at a time, whose writers wait
 * meanwhile: for a database that is not in use. */
struct cht_shape_stat {
    uint64_t leaves, leaf_bytes; /* pages of names, and the bytes used in them */
    uint64_t nodes[4];           /* that branch to at most 4, 16, 48, 256 */
    unsigned depth;              /* the most nodes on the way to a name */
};
enum cht_rc cht_store_shape(struct cht_store *s, struct cht_shape_stat *out, struct cht_err *err);
/* Where each shard lives. */
struct cht_shard_stat {
    unsigned shard;
    const char *dir; /* borrowed during the call of fn */
    uint64_t pairs, values, value_bytes, file_bytes, checkpoint_seq;
};
enum cht_rc cht_store_shards(struct cht_store *s, void (*fn)(void *ctx, const struct cht_shard_stat *),
                             void *ctx, struct cht_err *err);

/* Compares every page of the files with its sum; a slow background scrub calls it. It goes on after a page that fails;
 * CHT_CANCELLED if `stop` said so. What cannot be read counts as failed. Writers wait for a few pages at a time. */
struct cht_scrub {
    uint64_t bytes_per_second; /* at most; 0: as fast as it goes */
    bool (*stop)(void *ctx);   /* asked every 256 KiB and ten times a second; NULL: never */
    void *ctx;
    uint64_t bytes;       /* out: compared */
    uint64_t bad;         /* out: pages that failed */
    struct cht_err first; /* out: names the first of them */
};
enum cht_rc cht_store_scrub(struct cht_store *s, struct cht_scrub *scrub, struct cht_err *err);

/* Offline verification of a data directory set: every checksum, structure and reference. Only reads. fn is called
 * for each finding ("where": file and offset). CHT_OK and *findings == 0 when all is well. */
enum cht_rc cht_check(const struct cht_env_config *cfg, const char *only_database,
                      void (*fn)(void *ctx, const char *where, const char *what), void *ctx,
                      uint64_t *findings, struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
