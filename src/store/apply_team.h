/* apply_team: the threads among which a large unordered commit (CHT_COMMIT_UNORDERED) is divided, by shard: shards share
 * nothing, so each is worked on by one thread at a time, without looking at the others.
 *
 *   T1 plan     which operations can be run so: upserts of short values, by shard of the name; links to a name that one of
 *               them puts, by shard of the link's name. Each list keeps the commit's order.
 *   T2 puts     the threads take shard after shard. A name whose key lives in another shard than the name is left over.
 *   T3 links    the same, after all of T2; a link to what was left over is left over
 *   T4 join     the log records of all threads into the committer's. Operations on one shard are in one thread's, T2 before
 *               T3, so redo of a shard sees them as they were run.
 *   the rest    is run by the committer, in order (apply.c)
 *
 * Atomic: the committer takes all locks and opens all undos before T2 and is the one who ends them. Otherwise a thread holds the
 * lock of its shard, for CHT_APPLY_LOCKED_OPS operations at a time. No thread waits for a lock while it holds another.
 * Operations that are no array (struct cht_many) are run the same way: apply_many.c.
 * Memory: 6 bytes an operation.
 */
#pragma once

#include "store/apply.h"

struct cht_team;

/* Is the commit worth it? Makes the threads when it is for the first time; without them it is not. */
bool cht_team_wanted(struct cht_apply *a, const struct cht_commit *c);
/* T1 to T4: sets the results of the operations it ran and, if some failed, those of the commit. a->stuck as always. false:
 * there was no memory for it, or little to divide, and nothing was done. */
bool cht_team_apply(struct cht_apply *a, struct cht_commit *c);
/* After that: has the team run this operation? */
bool cht_team_did(const struct cht_team *t, const struct cht_commit *c, size_t i);
/* Between two groups: keeps what the next commit of usual size needs. */
void cht_team_trim(struct cht_team *t);
void cht_team_free(struct cht_team *t); /* NULL is legal */
