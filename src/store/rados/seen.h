/* seen: has anybody written to the database since this server last looked? For watches (store/watch.h), whose versions rise with any write to
 * any of its shards, whichever server made it.
 *
 * A look asks each shard, all at once, for the version of its object, which grows with every operation that writes it, and for E.
 *
 * Invariants
 *   V1 what is kept of a shard only grows, so it does not matter in which order looks end that are under way together: an answer that was
 *      computed after a look holds for a later one if and only if no version has grown, and then it has all that was acknowledged before the
 *      later one began.
 *   V2 a shard with a lock counts as changed: the commit of a transaction changes the object t.<n> (txn.h), not the shard.
 *   V3 a shard whose E has another epoch than the map was divided: the map is read again, and the look begins anew. So none is left out.
 *   V4 a look that fails raises all versions.
 *   V5 versions of watches are raised before another look can find that nothing has changed since: both under the mutex.
 *   V6 a look that others have begun is enough for who asks only if it was begun after that: so however many ask at once, one look is under way, and all who
 *      came meanwhile share the next.
 *   V7 pairs that had ended when somebody asked are gone before a look that the answer rests on: if any pairs end, what has ended is removed, and then there is
 *      another look, also if nothing was found to remove: others may have removed it since the first (reads.c: settle).
 */
#pragma once

#include "os/thread.h"
#include "store/rados/map.h"
#include "store/watch.h"

struct cht_rdb;
struct cht_seen {
    struct cht_mutex turn;          /* held by whoever looks; before all but `cutting` (rdb.h) */
    _Atomic uint64_t looks;         /* that were begun; raised with `turn` */
    bool ends;                      /* guarded by turn: what the last one found */
    struct cht_mutex mu;            /* before that of the watches */
    struct cht_watches *watches;    /* owned */
    uint64_t versions[CHT_MAP_MAX]; /* guarded by mu */
};
enum cht_rc cht_seen_init(struct cht_seen *s, struct cht_err *err);
void cht_seen_fini(struct cht_seen *s);
/* One trip, or two if one is under way. After it the versions of watches tell of every write that was acknowledged before. Does any pair end? */
bool cht_seen_look(struct cht_rdb *db);
