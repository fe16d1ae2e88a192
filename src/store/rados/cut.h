/* cut: what changed, in generations (cheetah/changes.h). A generation is what was committed on all servers between two moments; its number is that of
 * its changes. It is in E of every shard, the same in all but while a cut is under way, and every write compares E: so a write goes into the
 * generation that it has compared, in the operation that changes the rows (L rows: rows.h), and nobody gives out numbers.
 *
 * A cut: generation g is closed, g + 1 begins. It is a transaction (txn.h) of all shards that changes nothing but E (still.h):
 *
 *   C1  t.<id> is made, state P                       C2  every shard: E (epoch, 0, g) -> (epoch, id, g)
 *   C3  state P -> C                                  C4  each shard: E (epoch, id, g) -> (epoch, 0, g + 1); C5  t.<id> is removed
 *
 * The first is from no generation, after the header has got its row `changes` and CHT_RDB_FORMAT_CHANGES.
 *
 *   h: changes -> oldest u64: changes after this number are all there
 *      asked   -> u64: another number whenever somebody has asked what changed, every some minutes (idle.c)
 *
 * Invariants
 *   CH1 between the last lock of C2 and the first C4 no shard takes a write: generation g is what was committed up to a moment, on all servers. A
 *       write that was answered before another began never has the higher number, and no L row of g comes after C3.
 *   CH2 at that moment nobody has a transaction between T2 and T4, since that has locks: an atomic commit is in one generation.
 *   CH3 g is closed once a shard is seen with a higher generation.
 *   CH4 L rows of closed generations never change. `oldest` is raised first, then they are removed; a reader looks at `oldest` after it has read.
 *   CH5 rows of names that move when a shard is divided stay where they are in the generations before (split.h, S-5); within a generation shards are
 *       told in ascending order.
 *   CH6 the first generation is the microseconds since 1970, or one more than any that a database of the pool had which was dropped (numbers.h): the
 *       numbers of a database that is made anew are higher.
 *   CH9 keeping ends if nobody has asked for long: `oldest` is raised to the generation g that is open, in an operation that compares `asked`. So nobody
 *       is ever told of g, and a write in it needs no L row: what goes without one compares E with g, for which `oldest` >= g was read, and that stays true.
 *       Who does not know it yet writes L rows in vain. Whoever asks closes g first, rows in it or not: in g + 1 all is kept again.
 *   CH7 the format is raised before E has a generation: programs that do not know of it do not open the database.
 */
#pragma once

#include "store/rados/rdb.h"

/* Reads what can be told, one trip: db->told, and db->generation. *open: there are changes in the generation that is not closed, or it is one of which
 * nobody is told (CH9); NULL: nobody asks. */
enum cht_rc cht_cut_look(struct cht_rdb *db, bool *open, struct cht_err *err);
/* Closes the generation that is open, if there are changes in it. If no changes are kept they are from now on. CHT_DATABASE_BUSY: so much is written that
 * not all shards could be had. Calls of this process that come while one is at it share the next, and what becomes of it. */
enum cht_rc cht_cut(struct cht_rdb *db, struct cht_err *err);
/* `oldest` of the header; 0: no changes are kept. */
enum cht_rc cht_cut_oldest(struct cht_rdb *db, uint64_t *oldest, struct cht_err *err);
#define CHT_CUT_IDLE_NS UINT64_C(3600000000000)
#define CHT_CUT_ASKED_NS (CHT_CUT_IDLE_NS / 8)
/* idle.c: somebody asks what changed; written down if the last time was so long ago. */
enum cht_rc cht_cut_asked(struct cht_rdb *db, uint64_t every_ns, struct cht_err *err);
/* Ends keeping (CH9) if nobody has asked for so long, on any server: this one has to have looked that long ago, and seen nothing else since. */
enum cht_rc cht_cut_idle(struct cht_rdb *db, uint64_t idle_ns, struct cht_err *err);
/* trim.c: removes the oldest generations as long as what is kept has more than the configuration's changes_bytes; all if keeping has ended. */
enum cht_rc cht_cut_trim(struct cht_rdb *db, struct cht_err *err);
