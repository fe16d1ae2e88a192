/* aggregate: reducers that sweep a namespace on the workers of all shards at once and answer few lines.
 *
 *   prepare -> map (each entry, into a partial of its thread, in parallel) -> lines (merges the partials)
 *
 * A mode is a struct reduce_aggregate; what a run needs is in struct reduce_run. Answers do not depend on the number of
 * shards nor on the order in which entries were met. A sweep is not a snapshot (see cheetah/sweep.h); a value that
 * does not match its checksum ends it with CHT_CORRUPT.
 *
 * Memory: at most params.memory_max over all partials, the merge and the lines, beside the sweep itself
 * (cheetah/sweep.h).
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/sweep.h"
#include "reduce/mode.h"

#define REDUCE_MEMORY_DEFAULT (UINT64_C(256) << 20)
#define REDUCE_SIMILAR_DEFAULT 10u /* lines of `similar` */
#define REDUCE_SIMILAR_MAX 10000u

enum reduce_sort { REDUCE_SORT_TOKEN, REDUCE_SORT_COUNT };
enum reduce_metric { REDUCE_COSINE, REDUCE_JACCARD, REDUCE_PMI }; /* pmi: of links only */

/* How far a run is, for whoever looks meanwhile. */
struct reduce_progress {
    _Atomic uint64_t done, total; /* pairs: roughly, done may end below or above */
};

/* Borrowed during the call. Zero is the default of each. What a mode has no use for is ignored. */
struct reduce_params {
    struct cht_str prefix, after, until; /* as in struct cht_scan_config */
    uint64_t limit;                      /* lines; 0: all (totals), REDUCE_SIMILAR_DEFAULT (similar) */
    enum reduce_sort sort;               /* totals */
    struct cht_str to;                   /* similar: the target pair */
    enum reduce_metric metric;           /* similar */
    uint64_t memory_max;                 /* 0: REDUCE_MEMORY_DEFAULT */
    struct reduce_progress *progress;    /* NULL: not wanted */
    /* Asked as well as memory_max, on any of its threads: what `book` says ends the run. NULL: nobody asks. */
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err);
    void (*unbook)(void *ctx, uint64_t bytes);
    void *book_ctx;
};

/* Runs an aggregate and waits for it: for a thread that may block. The lines are appended to `lines` (the caller's), each with its
 * line break; *count is their number, *malformed that of payloads left out. *cancel may be set by any thread at any time; NULL is
 * legal. CHT_CANCELLED, CHT_NO_MEMORY (memory_max), CHT_INVALID_ARGUMENT (a parameter; a target without a counts payload),
 * CHT_PAIR_NOT_FOUND (no target), and what a scan returns. After a failure `lines` is as it was. */
enum cht_rc reduce_aggregate_run(struct cht_store *s, const struct reduce_mode *mode,
                                 const struct reduce_params *p, struct cht_buf *lines, uint64_t *count,
                                 uint64_t *malformed, _Atomic bool *cancel, struct cht_err *err);

/* The same, noting the keys that the answer depends on: those under the prefix in watch[0], that of `to` in watch[1]; each
 * begun and ended by the caller, NULL if there is none. */
enum cht_rc reduce_aggregate_watched(struct cht_store *s, const struct reduce_mode *mode,
                                     const struct reduce_params *p, struct cht_watch *const watch[2],
                                     struct cht_buf *lines, uint64_t *count, uint64_t *malformed,
                                     _Atomic bool *cancel, struct cht_err *err);

/* ---- for the modes ------------------------------------------------------------------------------------------- */

/* One sweep. */
struct reduce_run {
    struct cht_store *store;
    const struct reduce_params *p; /* limit and memory_max filled in */
    struct cht_watch *watch_to;    /* NULL: none */
    void *state;                   /* the mode's: made by prepare, constant afterwards, freed by finish */
    uint8_t *partials;             /* owned: `count` of them, zeroed; reduce_partial gives one */
    unsigned count; /* shards + 1, so that there is one for each thread at work; the others stay zero */
    _Atomic uint64_t used; /* bytes of memory_max */
    uint64_t printed;      /* lines so far */
};

#define REDUCE_USES_LIMIT 1u
#define REDUCE_USES_SORT 2u
#define REDUCE_USES_TO 4u /* and metric */

struct reduce_aggregate {
    size_t partial; /* bytes */
    unsigned uses;  /* REDUCE_USES_...: parameters besides the bounds that the answer depends on */
    bool names;     /* map looks at the name */
    bool sizes;     /* map looks at flags and size only: the bytes of long values are not read */
    /* Checks parameters, makes run->state. NULL: nothing to do. */
    enum cht_rc (*prepare)(struct reduce_run *run, struct cht_err *err);
    /* One pair, never two at once into the same partial; e->value is all of the value (NULL: dangling, or `sizes` and long).
     * *malformed: its layout is wrong, nothing was changed. CHT_NO_MEMORY ends the sweep. Must not call the store: a lock
     * of it is held. */
    enum cht_rc (*map)(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err);
    /* Merges (it may empty the partials) and prints. */
    enum cht_rc (*lines)(struct reduce_run *run, struct cht_buf *out, struct cht_err *err);
    /* Frees what the partials and the state hold; NULL: nothing. Called after prepare, also if that failed. */
    void (*finish)(struct reduce_run *run);
};

/* Partials lie on cache lines of their own. */
static inline size_t reduce_partial_stride(const struct reduce_aggregate *a)
{
    return (a->partial + 63) / 64 * 64;
}
static inline void *reduce_partial(const struct reduce_run *run, const struct reduce_aggregate *a, unsigned i)
{
    return run->partials + i * reduce_partial_stride(a);
}

/* Books bytes of memory_max, on any thread; CHT_NO_MEMORY if they are used up. */
enum cht_rc reduce_take_memory(struct reduce_run *run, uint64_t bytes, struct cht_err *err);
void reduce_give_memory(struct reduce_run *run, uint64_t bytes);
/* Room for n more bytes of output after out->len, booked. */
enum cht_rc reduce_line_room(struct reduce_run *run, struct cht_buf *out, size_t n, struct cht_err *err);

/* The closed forms of modified Kneser-Ney discounts, from the numbers of followers with count 1, 2, 3, and 4 and over. */
struct reduce_discounts {
    double d1, d2, d3;
};
struct reduce_discounts reduce_discounts(uint64_t n1, uint64_t n2, uint64_t n3, uint64_t n4);
