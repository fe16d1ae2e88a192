/* txn: changes of several shards that become visible as one, and what any process does that meets an unfinished one.
 *
 * The object t.<id>: data = the changes, row "s" = the state. Steps, each one atomic operation:
 *
 *   T1  t.<id> is made: the changes of every shard, state P
 *   T2  each shard, all at once: E is (epoch, 0), with the generation that the record has, and every row that was looked at is as it was -> E = (epoch, id)
 *   T3  state P -> C. This is the commit: it is answered after it
 *   T4  each shard: E is (epoch, id) -> the changes, and E = (epoch, 0)
 *   T5  t.<id> is removed
 *
 * A refusal in T2: state P -> A, the locks that were had are given back, t.<id> is removed, and all begins again.
 *
 * data, little-endian: u32 2 | u32 shards | { u32 shard | u32 its epoch | u32 length | block (rowset_block.c) } ...
 *   or of a shard that is divided (split.h): u32 3 | u32 shard | u32 level
 *   or, if changes are kept: u32 4 | u32 shards | u64 generation | u64 generation after T4 (another one of a cut only: cut.h) | { ... }
 *
 * Invariants
 *   X1 after C nothing but T4 and T5 happens to it; T4 is one operation a shard and is guarded by the lock, so it is done once, whoever
 *      does it.
 *   X2 a shard that is locked by a transaction of which there is no t.<id> was locked by an operation that came late, after the end:
 *      nothing of it is to be done, and the lock is taken away.
 *   X3 the clock decides when to try to end a transaction that stands still (P -> A), never how it ends: T3 and that are compares of one row.
 *   X4 a reader that meets a lock with P shows the rows as they are: the transaction is not committed yet. One that meets C, A or
 *      nothing reads again after it has helped.
 *   X5 an atomic commit that only reads, of several shards, compares all that it has read once more: what holds in each shard from its first
 *      read to that was there at one moment.
 */
#pragma once

#include "store/rados/rowset.h"

/* Commits what is in the set. *refused: something has changed meanwhile, nothing was done: forget, fetch and do all again. CHT_TIMEOUT:
 * it is not known whether it was done. The caller holds the turns of all shards. */
enum cht_rc cht_txn_commit(struct cht_rowset *s, bool *refused, struct cht_err *err);
/* A shard was found locked. *again: its rows are to be read again; else they can be used as they are (only if not writing). */
enum cht_rc cht_txn_settle(struct cht_rdb *db, unsigned shard, const struct cht_epoch *e, bool writing,
                           bool *again, struct cht_err *err);
/* A transaction of this number that is old, whoever began it: it is ended, or gone on with if it was committed. */
enum cht_rc cht_txn_end_old(struct cht_rdb *db, uint64_t id, struct cht_err *err);
/* One guarded operation with the changes of one shard; the answer of librados. CHT_BATCH_TOO_LARGE: more than the cluster takes at once. */
int cht_txn_write_one(struct cht_rowset *s, unsigned shard, enum cht_rc *rc, struct cht_err *err);
