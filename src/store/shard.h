/* shard: one self-contained folder of a database: keys, values, recycle, pairs, sums, and the checkpoint journal.
 *
 * Pairs belong to the shard cht_shard_of_name picks, values to the shard key % count. Everything under `lock`: readers
 * take it shared for one point read or one batch, the committer exclusively, the checkpointer shared while it copies
 * pages and exclusively for the moment of the freeze.
 */
#pragma once

#include "cheetah/store.h"
#include "os/thread.h"
#include "store/durable.h"
#include "store/pagefile.h"
#include "store/values.h"

struct cht_shard {
    struct cht_rwlock lock;
    struct cht_pagefile *pf[CHT_PF_KINDS]; /* set at open, then read-only */
    struct cht_values values;              /* the same three files as pf, for values.h */
    struct cht_marks marks;                /* guarded by lock: what is not decided yet */
    unsigned taken_back;                   /* guarded by lock: how often the pages became older ones */
    struct cht_io *io;
    char *path;   /* owned: DIR/NAME/shard-000 */
    unsigned dir; /* which data directory it lives in */
    unsigned index, count;
    uint8_t uuid[16];
    uint64_t generation;             /* guarded by lock: number of the last checkpoint */
    uint64_t applied_seq;            /* guarded by lock: last log record applied */
    _Atomic uint64_t checkpoint_seq; /* log position of the last complete checkpoint */
    struct {                         /* what statistics show, so that they need no lock */
        _Atomic uint64_t pairs, values, value_bytes, next_key, ending;
    } shown;
    _Atomic uint32_t pins;                       /* open large-value handles */
    _Atomic uint64_t dirty_pages, written_bytes; /* statistics */
    bool poisoned;                               /* guarded by lock: a checkpoint failed half way */
    uint64_t journal_space,
        reserved_at;   /* reserve.c; of whoever holds the committer's lock, as is the next */
    bool journal_busy; /* a checkpoint uses the journal */
    bool unsealed;     /* being created: nothing is synced yet */
    bool
        sums_ahead; /* guarded by lock: a checkpoint was given up: sums of dirty pages are not those of the file */
    struct cht_checkpoint
        *unfinished; /* owned; of who makes checkpoints: its journal counts, its pages are not all home */
};

static inline struct cht_pagefile *cht_shard_pairs(const struct cht_shard *sh)
{
    return sh->pf[CHT_PF_PAIRS];
}

/* CRC-32C of the name, seeded, modulo count. */
unsigned cht_shard_of_name(struct cht_str name, unsigned count);
static inline unsigned cht_shard_of_key(uint64_t key, unsigned count) { return cht_key_shard(key, count); }

/* Creates the folder with empty, formatted files, which are written but not synced: the caller makes all shards of a database
 * and then seals them, since many syncs after each other cost little more than one. sh is open until cht_shard_close. */
enum cht_rc cht_shard_create(struct cht_io *io, const char *path, const uint8_t uuid[16], unsigned index,
                             unsigned count, struct cht_shard *sh, struct cht_err *err);
enum cht_rc cht_shard_seal(struct cht_shard *sh, struct cht_err *err); /* syncs them and the folder */
/* Opens: headers are checked (magic, version, uuid, place), a complete journal is applied, a torn one ignored. */
enum cht_shard_mode {
    CHT_SHARD_CHECK, /* nothing is modified; a complete journal is applied in memory only */
    CHT_SHARD_USE,
    CHT_SHARD_CLEAN /* as USE, and the log says that the shard was closed cleanly: an empty journal is one on the disk too */
};
enum cht_rc cht_shard_open(struct cht_io *io, const char *path, const uint8_t uuid[16], unsigned index,
                           unsigned count, enum cht_shard_mode mode, struct cht_shard *sh,
                           struct cht_err *err);
void cht_shard_close(struct cht_shard *sh); /* no checkpoint */
/* Forgets all that was changed since the last checkpoint and opens the files again as cht_shard_open does. Nobody reads, no
 * checkpoint runs. After a failure the shard is not to be looked at. */
enum cht_rc cht_shard_reread(struct cht_shard *sh, struct cht_err *err);
/* Brings `shown` up to date. Exclusive lock, before it is released after changes. */
void cht_shard_show(struct cht_shard *sh);
/* Writes all that was applied up to now to its place (checkpoint.c says how). log_seq: everything up to it is applied
 * and durable in the log. A failure poisons the shard. Runs beside readers and the committer. */
enum cht_rc cht_shard_checkpoint(struct cht_shard *sh, struct cht_err *err);
/* Undo of everything changed since begin, in all files (commit.c). Exclusive lock. */
void cht_shard_undo_begin(struct cht_shard *sh);
void cht_shard_undo_end(struct cht_shard *sh);
void cht_shard_undo_rollback(struct cht_shard *sh);

/* ---- checkpoint.c -------------------------------------------------------------------------------------------- */

/* The two halves of a checkpoint. begin: the caller makes sure that no group of commits is half applied and that the
 * log up to `seq` will be durable before run is called; freezes the shard (takes `lock` for a moment). A failure of
 * begin leaves everything as it was. run: the rest, beside readers and writers; on a failed write or sync the shard is
 * poisoned (CHT_IO and the like). On a passing condition (cht_rc_passing) it is as if begin had not been called, or the
 * checkpoint stays with the shard as unfinished; resume goes on with that, and must have returned CHT_OK before the next begin.
 * abandon: before the shard is closed. One thread at a time. */
struct cht_checkpoint;
enum cht_rc cht_checkpoint_resume(struct cht_shard *sh, struct cht_err *err);
void cht_checkpoint_abandon(struct cht_shard *sh);
enum cht_rc cht_checkpoint_begin(struct cht_shard *sh, uint64_t seq, struct cht_checkpoint **out,
                                 struct cht_err *err);
enum cht_rc cht_checkpoint_run(struct cht_checkpoint *ck, struct cht_err *err); /* frees ck */
/* Finishes (or, for CHECK, applies in memory) what a complete journal holds; a torn or empty one is ignored. For
 * cht_shard_open, before the headers are looked at. *applied says whether there was one. */
enum cht_rc cht_journal_recover(struct cht_shard *sh, enum cht_shard_mode mode, bool *applied,
                                struct cht_err *err);

/* ---- reserve.c: by the thread that holds the committer's lock -------------------------------------------------- */

/* Space for the journal, as much as writing down what is dirty can take; nothing while a checkpoint uses it. Costs a few loads if
 * there is enough. A failure changes nothing. */
enum cht_rc cht_shard_reserve(struct cht_shard *sh, struct cht_err *err);
/* Before a clean close: the journal is empty again. */
enum cht_rc cht_shard_unreserve(struct cht_shard *sh, struct cht_err *err);
/* Whether the changes to come may use the pages that files keep for deletes. Exclusive lock. */
void cht_shard_use_spare(struct cht_shard *sh, bool may);
/* Gives up what page files have ahead of need. Takes the shard's lock. */
void cht_shard_give_tails(struct cht_shard *sh);

#define CHT_KEYS_SEQ 448u /* in page 0 of keys: log position of the checkpoint, u64 */
