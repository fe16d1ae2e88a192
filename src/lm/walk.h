/* walk: visits every counts payload of one order, in several threads.
 *
 * With many contexts the names are divided by the first byte after the prefix, and each thread takes one byte after the
 * other; so contexts with the same first byte are visited by one thread, in byte order. The caller's thread waits, and
 * reports progress at least twice a second.
 *
 * Internal to src/lm. A walk is not a snapshot (scan.h).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "cheetah/scan.h"
#include "lm/counts.h"

#define LM_WALK_THREADS_MAX 16u

/* On a thread of the walk; `worker` is this thread's own. suffix is the context's name after "cnt:<n>:". total > 0 is the
 * sum of the counts. Everything is borrowed during the call. */
typedef enum cht_rc lm_walk_visit(void *worker, struct cht_str suffix, const struct lm_counts *counts,
                                  uint64_t total, struct cht_err *err);

/* On the same thread, in the same order, up to LM_WALK_AHEAD pairs before the visit (which may not come: see lm_walk): a chance
 * to fetch what the visit will need. */
typedef enum cht_rc lm_walk_ahead(void *worker, struct cht_str suffix, struct cht_err *err);
#define LM_WALK_AHEAD 8u

struct lm_progress {
    void (*fn)(void *ctx, const char *phase, uint64_t done, uint64_t total); /* may be NULL */
    void *ctx;
    const char *phase;
    uint64_t done, total; /* done: before this walk */
};

struct lm_walk_config {
    struct cht_store *store;
    unsigned order;
    unsigned threads;     /* 1..LM_WALK_THREADS_MAX */
    void *const *workers; /* one a thread, borrowed */
    lm_walk_visit *visit;
    lm_walk_ahead *ahead;        /* may be NULL */
    const _Atomic bool *cancel;  /* may be NULL */
    struct lm_progress progress; /* fn is called from the thread of lm_walk */
};

/* Blocks until all is visited. The first error of a visit, CHT_CANCELLED, CHT_NO_MEMORY end it early. A pair without a value is passed over, and so is
 * one whose counts are all 0 or cannot be read. */
enum cht_rc lm_walk(const struct lm_walk_config *cfg, struct cht_err *err);

/* One entry of a scan with values over counts pairs: reads the counts of an entry however long they are. *total 0: none.
 * `value` is a buffer of the caller for long ones. */
enum cht_rc lm_entry_counts(struct cht_store *s, const struct cht_entry *e, struct cht_buf *value,
                            struct lm_counts *counts, uint64_t *total, struct cht_err *err);
