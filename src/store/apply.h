/* apply: runs the operations of commits against the shards and collects what the log must say. Used by the committer
 * alone, one group at a time; a large unordered commit is run by several threads, each with an object of its own that shares
 * `held` and `undoing` with the committer's: the bits of a shard belong to the one thread that works on it.
 */
#pragma once

#include "store/db_store.h"
#include "store/logops.h"

#define CHT_PURGE_BYTES (512u << 10) /* of the log, for pairs that have ended */
#define CHT_APPLY_LOCKED_OPS 256u /* readers wait for at most this many operations of a non-atomic commit */

/* Pairs that had ended and were removed by the group, for those who are told of changes: as deletes of pairs with their values. */
struct cht_gone {
    struct cht_op *ops; /* owned; names are offsets in `names` until cht_apply_gone */
    size_t n, cap;
    struct cht_buf names;
};

/* What the record of a group says of operations of cht_many: made when it is written. */
struct cht_many_made {
    const struct cht_many *many; /* borrowed; NULL: there are none */
    uint64_t bytes;
    size_t after;  /* of the log's parts: it comes after that many */
    size_t next;   /* operation, of puts; m->n more: of links */
    uint8_t *room; /* borrowed */
};

struct cht_apply {
    struct cht_db *db;
    struct cht_many_made made;
    struct cht_logbuf log;
    bool *held;          /* a shard's lock is held exclusively; owned (not by a part), nshards */
    bool *undoing;       /* its undo is open; owned (not by a part), nshards */
    unsigned undo_count; /* how many of them */
    bool atomic;         /* the commit under way */
    bool frees;          /* the operation under way may use what is kept for deletes */
    bool part; /* one of several threads: what concerns another shard than the name's is CHT_PENDING */
    size_t locked_ops;
    uint32_t max_value;
    bool names;         /* the log names each pair that is put, for those who follow it (changes.h) */
    uint64_t inserted;  /* user bytes of the group */
    uint64_t now_ms;    /* of the group: pairs that end at or before it are gone; 0: none ends */
    uint64_t least_end; /* of those that the group has put; UINT64_MAX: none */
    bool purged;        /* some that had ended were removed */
    struct cht_gone gone;
    uint64_t group; /* what is changed is marked for it (durable.h); 0: nothing is */
    bool stuck;     /* an operation could not be undone: the store must stop writing */
    struct cht_err stuck_err;
    unsigned threads;      /* for unordered commits; 1: none but the committer's */
    struct cht_team *team; /* owned; NULL before the first large unordered commit */
};

enum cht_rc cht_apply_init(struct cht_apply *a, struct cht_db *db, uint32_t max_value, unsigned threads,
                           struct cht_err *err);
void cht_apply_fini(struct cht_apply *a);
void cht_gone_fini(struct cht_gone *g);
/* Before the commits of a group. */
void cht_apply_begin(struct cht_apply *a, uint64_t now_ms);
/* After them: what was removed, as a commit that is valid until the next begin. */
struct cht_commit cht_apply_gone(struct cht_apply *a);
/* Runs one commit; sets the results of its operations and c->rc, c->failed, c->err. Locks may stay held between calls
 * within a group, until cht_apply_release. */
void cht_apply_commit(struct cht_apply *a, struct cht_commit *c);
void cht_apply_release(struct cht_apply *a);
/* apply_many.c: the many operations of a commit, of which a group has one at the most: c->rc and c->err. What was done is undone by the caller. */
void cht_many_apply(struct cht_apply *a, struct cht_commit *c);
/* For cht_wal_made; ctx: a->made. */
size_t cht_many_fill(void *ctx, uint8_t *out, size_t cap);
/* Those that were run, with their keys, until fn says true: then that is returned, and also if there is no memory. */
bool cht_many_each(const struct cht_many *m, bool (*fn)(void *ctx, const struct cht_op *op), void *ctx);
/* The group was logged: frees the memory that only a very large one needs. */
void cht_apply_trim(struct cht_apply *a);
/* Nothing but deletes and reads: needs hardly any room, and gives some back. */
bool cht_apply_frees(const struct cht_commit *c);
/* The most bytes that the log record of these operations can need. */
uint64_t cht_apply_log_bound(struct cht_db *db, const struct cht_commit *c);
