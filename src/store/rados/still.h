/* still: all shards of a database are locked at one moment, by a transaction (txn.h) that changes nothing in any of them. For backups (moment.h) and
 * for changes (cut.h).
 *
 *   make (T1) -> lock (T2) -> back, or: what is to be done while nobody writes -> held (T3) -> cht_txn_finish (T4, T5)
 *
 * What was committed before is in its shard then: a shard with a lock refuses.
 */
#pragma once

#include "store/rados/txn.h"
#include "store/rados/txn_int.h"

/* t: db, generation and after are set. */
enum cht_rc cht_still_make(struct cht_txn *t, const struct cht_map *m, struct cht_err *err);
/* in_order: one shard after the other, waiting for whoever has one, but not for a division. *refused: somebody has a lock, or the map or the generation is
 * old: back, then all again. */
enum cht_rc cht_still_lock(struct cht_txn *t, bool in_order, bool *refused, struct cht_err *err);
/* After a failure or a refusal. What is left of it is settled by whoever meets it. Waits for the end of a division that was met, if one was. */
void cht_still_back(struct cht_txn *t);
/* *refused: somebody has given it up meanwhile, so that not all locks were held all the time. */
enum cht_rc cht_still_held(struct cht_txn *t, bool *refused, struct cht_err *err);
