/* moment: a database as it was at one moment, while servers write on: a snapshot of the pool that was taken while all shards were locked.
 *
 *   M1  t.<id> is made as of a transaction (txn.h) that changes nothing in any shard: state P
 *   M2  every shard, all at once: E is (epoch, 0) -> (epoch, id). What was committed before is in its shard by then: a shard with a lock refuses
 *   M3  the monitors make the snapshot. Writers wait
 *   M4  state P -> C: nobody has given the transaction up meanwhile, so that all locks were held all the time
 *   M5  each shard: E = (epoch, 0); t.<id> is removed
 *
 * Invariants
 *   MO1 nothing of a commit that is answered after M5 began is in the snapshot, all of what was answered before M2 is: an OSD that takes an
 *       operation of M5 knows the snapshot, since whoever sends it does, and writes to the shard come after that.
 *   MO2 a long value whose row is in the snapshot is in it, too. Its object is removed after its row; by the answer to that write its server has
 *       heard of the snapshot (an OSD tells whoever asks with an older map), and so hears of it the OSD that is told to remove the object.
 *   MO3 who dies between M1 and M5 holds nobody up for longer than settle_ms: as a transaction, it is ended by whoever meets it.
 *   MO4 a snapshot is named cheetah-<uuid>-<id>, never again so. While it is there, nothing in it has changed; it was there all the time if it is
 *       there at the end (cht_moment_there).
 *   MO5 one at a time of a database, on all servers (the lock "backup", guard.h). Who has that lock, and no backup, removes what others left.
 */
#pragma once

#include "store/rados/rdb.h"
#include "store/rados/snaps.h"

struct cht_moment {
    struct cht_rdb *db;
    const struct cht_map *map;     /* the shards at that moment */
    char name[CHT_SNAPS_NAME_MAX]; /* of the snapshot; "": there is none */
    uint64_t snap;
    uint64_t when;    /* ns since 1970 */
    rados_ioctx_t io; /* owned; reads what was then. NULL: none */
    bool guarded;
};
/* Blocks for a change of the monitors' map, writers too (tenths of a second). CHT_DATABASE_BUSY: a backup is under way, here or elsewhere; or
 * the database was written to so much that not all shards could be had. CHT_NOT_SUPPORTED: the cluster makes no snapshot of this pool, or not for this user. After
 * a failure there is nothing to end. */
enum cht_rc cht_moment_take(struct cht_rdb *db, struct cht_moment *out, struct cht_err *err);
/* MO4. CHT_IO: it is gone. */
enum cht_rc cht_moment_there(const struct cht_moment *m, struct cht_err *err);
void cht_moment_end(struct cht_moment *m);
/* Removes the snapshots that crashes left, if there are any. */
void cht_moment_clean(struct cht_rdb *db);
