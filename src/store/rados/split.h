/* split: a shard is divided into two, by any server, while all go on. It is a transaction of its own kind; the object t.<id> is its record.
 *
 *   S1  t.<id> is made: shard i, its level n; state R
 *   S2  shard j = i + 2^n is made, with E = (epoch of level n + 1, id): locked
 *   S3  i: E is (epoch, 0) and no row D -> E = (epoch, id). From here on writers of i wait; readers do not
 *   S4  the rows of i that belong to j are copied, page by page, with their counters; j's E is compared by each
 *       Then it is looked whether S7 is small enough for one operation; if not it is given up
 *   S5  state R -> M. This is the decision; before it anybody may give it up (R -> A: S2 and S3 are undone), after it anybody goes on
 *   S6  the header's map: i and j are of level n + 1
 *   S7  i: E is (epoch, id) -> E = (epoch + 1, 0), the counters less those of j, and D: there are rows that are no longer i's
 *   S8  j: E is (epoch + 1, id) -> E = (epoch + 1, 0), with the generation of i (cut.h)
 *   S9  t.<id> is removed
 *   S10 the rows of i that are j's are removed, then D. Until then pages of i leave them out (pages.c); nothing else ever asks for them
 *
 * Invariants
 *   S-1 from S3 to S7 nothing in i changes, and from S2 to S8 only S4 changes j: so the copy is whole, and whoever reads i by the old map
 *       sees what there is. A copy that comes late is refused by j's E: it has another id or none.
 *   S-2 the map has j only after S5, when j is whole. A reader with the new map that meets i before S7 waits; it would count twice.
 *   S-3 E of i tells every server with an old map, by any operation, that it is old.
 *   S-4 S6 to S10 may be done by several at once, and again.
 *   S-5 the generation of i is one from S3 to S8: a cut needs the lock of i before S7, and after S6 that of j, which the map has; with an older
 *       map the epoch of i refuses it. What changed in i before stays there in its L rows.
 * A step that stands still for settle_ms is another's turn: R is given up (what was copied goes), M is gone on with.
 */
#pragma once

#include "store/rados/txn.h"
#include "store/rados/txn_int.h"

/* Divides a shard. CHT_DATABASE_BUSY: another server is at it, or the rows of the last time are not removed yet. CHT_INVALID_ARGUMENT: there is no
 * such shard, or it cannot be divided any more. CHT_TIMEOUT: it may be done by others. CHT_BATCH_TOO_LARGE: the counters of the new shard
 * are more than the cluster takes at once. Blocks, some 0.5 s for 100 000 rows. */
enum cht_rc cht_split(struct cht_rdb *db, unsigned shard, struct cht_err *err);
/* S10 of a shard that has a row D. */
enum cht_rc cht_split_clean(struct cht_rdb *db, unsigned shard, struct cht_err *err);
/* Of a transaction that was met (settle.c): S6 to S9; and the way back after R -> A. t has been read. */
enum cht_rc cht_split_finish(struct cht_txn *t, struct cht_err *err);
enum cht_rc cht_split_give_up(struct cht_txn *t, struct cht_err *err);

/* ---- split_less.c --------------------------------------------------------------------------------------------------- */

/* Before S5: is S7 small enough for one operation? CHT_BATCH_TOO_LARGE. */
enum cht_rc cht_split_weigh(struct cht_rdb *db, unsigned other, struct cht_err *err);
/* Adds to the call what makes the counters of the first shard its own. Neither shard changes meanwhile, or the call is refused. */
enum cht_rc cht_split_less(struct cht_rdb *db, const char *from, unsigned other, struct cht_call *call,
                           struct cht_err *err);
