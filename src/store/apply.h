/* apply: runs the operations of commits against the shards and collects what the log must say. Used by the committer
 * alone, one group at a time; a large unordered commit is run by several threads, each with an object of its own that shares
 * `held` and `undoing` with the committer's: the bits of a shard belong to the one thread that works on it.
 */
#pragma once

#include "store/db_store.h"
#include "store/logops.h"

#define CHT_APPLY_LOCKED_OPS 256u /* readers wait for at most this many operations of a non-atomic commit */

struct cht_apply {
    struct cht_db *db;
    struct cht_logbuf log;
    bool *held;          /* a shard's lock is held exclusively; owned (not by a part), nshards */
    bool *undoing;       /* its undo is open; owned (not by a part), nshards */
    unsigned undo_count; /* how many of them */
    bool atomic;         /* the commit under way */
    bool frees;          /* the operation under way may use what is kept for deletes */
    bool part; /* one of several threads: what concerns another shard than the name's is CHT_PENDING */
    size_t locked_ops;
    uint32_t max_value;
    uint64_t inserted; /* user bytes of the group */
    uint64_t group;    /* what is changed is marked for it (durable.h); 0: nothing is */
    bool stuck;        /* an operation could not be undone: the store must stop writing */
    struct cht_err stuck_err;
    unsigned threads;      /* for unordered commits; 1: none but the committer's */
    struct cht_team *team; /* owned; NULL before the first large unordered commit */
};

enum cht_rc cht_apply_init(struct cht_apply *a, struct cht_db *db, uint32_t max_value, unsigned threads,
                           struct cht_err *err);
void cht_apply_fini(struct cht_apply *a);
/* Runs one commit; sets the results of its operations and c->rc, c->failed, c->err. Locks may stay held between calls
 * within a group, until cht_apply_release. */
void cht_apply_commit(struct cht_apply *a, struct cht_commit *c);
void cht_apply_release(struct cht_apply *a);
/* The group was logged: frees the memory that only a very large one needs. */
void cht_apply_trim(struct cht_apply *a);
/* Nothing but deletes and reads: needs hardly any room, and gives some back. */
bool cht_apply_frees(const struct cht_commit *c);
/* The most bytes that the log record of these operations can need. */
uint64_t cht_apply_log_bound(struct cht_db *db, const struct cht_commit *c);
