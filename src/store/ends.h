/* ends: pairs that have ended are gone for every reader at once, and are removed by the committer. What both share: the clock of a
 * database, and the time of the next end. When pairs end is in expiry.h.
 *
 *   reader      next is later than now: goes on (a database in which nothing ends: one load)
 *               by name       looks up when this name ends, under the same lock; only if it has ended it waits until it is removed
 *               anything else  (by key, counts, scans, sweeps) waits until what had ended when it came is removed
 *   waiting     ask, then as for a commit of seconds (calm.h): a call named _soon is told, a task is put aside
 *   committer   removes what has ended, in the order of time, some with each group, in the same record; sets next; settles
 *
 * So what a reader is told is gone is durably gone (under durability sync), and does not come back with a clock that jumps back. If
 * what has ended cannot be removed (no room for the log, no writing) it is tried again after a pause; meanwhile readers go on: those by name
 * still say that it is gone, others may show it.
 *
 * Files that contradict themselves (expiry.h, E1): an end that the order of time does not have is kept by nobody who removes, so whoever reads
 * by name finds it gone and does not wait; a time whose pair does not end then goes by itself, and the pair stays.
 *
 * The clock: milliseconds since 1970, the monotonic clock plus the most that the wall clock was ever ahead of it, so that it never goes
 * back while the database is open; the files keep a time that it had (expiry.h), which it starts from at least.
 * Threads: next is written by the committer alone; all else from any.
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/store.h"

#define CHT_ENDS_NONE UINT64_MAX

struct cht_db;

struct cht_ends {
    _Atomic uint64_t next; /* nothing ends before it; CHT_ENDS_NONE: nothing ends; 1: nobody has looked yet */
    _Atomic uint64_t clear;    /* what had ended then is removed, as far as the order of time knows it */
    _Atomic int64_t ahead_ms;  /* of the clock before the monotonic one */
    _Atomic uint64_t pause_ms; /* by the monotonic clock: nothing is removed before */
    _Atomic uint64_t removed;  /* pairs, since it was opened */
};

/* Nothing of it ends, as far as anybody has looked. */
bool cht_ends_none(const struct cht_db *db);
/* The shards are open and redone. */
void cht_ends_open(struct cht_db *db);
/* Milliseconds since 1970; never less than before. */
uint64_t cht_ends_now(struct cht_db *db);
/* The same, 0 if nothing ends: for cht_ends_due. */
uint64_t cht_ends_since(struct cht_db *db);
/* Has anything ended at `at` that is still there and can be removed? 0 is before every end. */
bool cht_ends_due(struct cht_db *db, uint64_t at);
bool cht_ends_paused(struct cht_db *db);
/* It could not be removed. */
void cht_ends_pause(struct cht_db *db);
/* The committer's, between groups: has anything ended? If not, that it was so until now is noted. */
bool cht_ends_clear(struct cht_db *db);
/* The committer is to remove what has ended, and whoever waits by calm.h is told then. */
void cht_ends_ask(struct cht_db *db);
/* What had ended when the read came is removed first. CHT_PENDING: w->done will be called. NULL for w waits here, &cht_ahead does not. */
enum cht_rc cht_ends_settle(struct cht_db *db, struct cht_wait *w);
/* The committer's: the next end, looked up. */
void cht_ends_look(struct cht_db *db);
