/* care: what a server does for its databases now and then, in two jobs of the pool (cht_env_quiet, every 10 s), so that what takes long holds up nothing
 * that is wanted soon. Any number of servers may do so at once.
 *
 *   care   what is being restored goes on; pairs that have ended are removed; a shard with too many pairs is divided (split.h), what a division left
 *          is removed
 *   tidy   databases that others did not finish are removed, every ten minutes; and once a day what crashes left (cht_left_sweep)
 */
#pragma once

#include "store/rados/rdb.h"

/* Starts those that are not under way. */
void cht_care(struct cht_renv *env);

/* Removes what no row and no transaction needs and that is older than `seconds` (at least an hour but in tests: a write that is under way has no
 * row yet): transactions that their server did not end, counters that are zero, objects of long values, which a sweep of this process must have
 * seen that long ago, too. *removed: how many. Goes over all names if there are such objects. CHT_CANCELLED: it is being closed. */
enum cht_rc cht_left_sweep(struct cht_rdb *db, uint64_t seconds, uint64_t *removed, struct cht_err *err);
