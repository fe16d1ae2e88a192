/* watch: which cached answers a group of commits makes stale. One registry a store; the public half is in store.h.
 *
 * An answer computed from the pairs under a prefix depends on two things: which names lie there and where they lead (N), and
 * the values under the keys they lead to (V). N is seen by comparing names with the prefix. For V each watch keeps a filter
 * of the keys that its sweeps met, since a value may have other names, and a key without a value may get one later.
 *
 *   sweep    begin -> note every key that is met, on any thread -> end
 *   writer   apply -> locks released -> report -> log -> answer
 *
 * Why nothing stale is served after the writer's answer: report comes after the change can be seen.
 *   R1 A sweep that begins after the report reads the change: begin and report take the registry's lock.
 *   R2 A sweep that was under way: N raises the version it began with. For V the key is kept until the sweep's end, which
 *      looks it up in the filter (the sweep may note the key later than it read the value) and raises the version.
 *   R3 A sweep that has ended: the filter is complete; the version is raised.
 *   R4 A watch that the writer does not see yet (its count of watches was read as 0): had the sweep read the shard before the
 *      change, its lock would have ordered the count before the writer's look; so it reads the change.
 * The filter says yes for a few keys in a thousand that were never met: an answer is dropped for nothing then.
 *
 * Locking: `mu` is a leaf, taken under commit_mu. Filter words and lanes are atomic (relaxed: end orders them, by mu).
 */
#pragma once

#include "cheetah/store.h"

struct cht_watches; /* counted: the store and each watch hold it */

/* shards 0: every report will be of all, since nobody knows which pairs others have changed. No filter of keys is kept then. */
enum cht_rc cht_watches_new(unsigned shards, struct cht_watches **out, struct cht_err *err);
/* The store closes: every version is raised for the last time. NULL is legal. */
void cht_watches_close(struct cht_watches *ws);
/* The committer, after the list has been applied and the shards' locks are free. all: who knows what has changed. */
void cht_watches_report(struct cht_watches *ws, const struct cht_commit *list, bool all);
/* For cht_watch_new. */
enum cht_rc cht_watches_add(struct cht_watches *ws, struct cht_str prefix, struct cht_watch **out,
                            struct cht_err *err);
