/* cache: answers of aggregates, kept until a write could have changed them.
 *
 * An answer is found again by store, mode and those parameters that the mode looks at. It is dropped by a write under its
 * prefix, by one to a value that a pair under its prefix leads to, and (similar) by one to its target; other writes leave it,
 * but for a few in a thousand. Nothing stale is ever served: once a write has been answered, an answer computed without it
 * is not given out (README.md says why).
 *
 * Memory: answers and watches together at most bytes_max, the least recently used go first. At most CHT_WATCH_MAX prefixes a
 * database have answers. If there is no room, an aggregate is computed each time.
 * Threads: all functions but free from any thread; requests that miss run side by side, also for the same answer.
 */
#pragma once

#include "reduce/aggregate.h"

struct reduce_cache;

/* Counted; constant while held. */
struct reduce_answer {
    const uint8_t *lines; /* NDJSON, each line with its line break */
    size_t len;
    uint64_t count, malformed; /* as reduce_aggregate_run */
};

struct reduce_cache_stats {
    uint64_t hits, misses;
    uint64_t dropped; /* stale or pushed out */
    uint64_t answers, bytes;
};

/* bytes_max 0: nothing is kept. */
enum cht_rc reduce_cache_new(size_t bytes_max, struct reduce_cache **out, struct cht_err *err);
/* No call may be under way; answers that are held stay valid. Stores may be closed before or after. NULL is legal. */
void reduce_cache_free(struct reduce_cache *c);

/* The answer if it is there, to be released, else NULL: microseconds, for a thread that may not block. */
const struct reduce_answer *reduce_cache_find(struct reduce_cache *c, struct cht_store *s,
                                              const struct reduce_mode *mode, const struct reduce_params *p);
/* The answer, from the cache (*hit) or by running the aggregate; to be released. Parameters and errors are those of
 * reduce_aggregate_run; failures are not kept. */
enum cht_rc reduce_cache_run(struct reduce_cache *c, struct cht_store *s, const struct reduce_mode *mode,
                             const struct reduce_params *p, _Atomic bool *cancel,
                             const struct reduce_answer **out, bool *hit, struct cht_err *err);
void reduce_answer_release(const struct reduce_answer *a); /* NULL is legal */

/* Drops all answers of a store, to have their memory back; its answers are void anyway once it has been closed. */
void reduce_cache_forget(struct reduce_cache *c, const struct cht_store *s);
void reduce_cache_read_stats(struct reduce_cache *c, struct reduce_cache_stats *out);
