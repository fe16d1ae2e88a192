/* reduce: the reducers over an open database: aggregates of a namespace, and payloads as text. Modes, payloads and what each line holds:
 * src/reduce/README.md.
 *
 * Threads: any. The calls block until they are done. Ownership: inputs are borrowed during the call.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum cht_reduce_sort { CHT_REDUCE_BY_TOKEN, CHT_REDUCE_BY_COUNT };
enum cht_reduce_metric { CHT_REDUCE_COSINE, CHT_REDUCE_JACCARD };

/* Zero is the default of each; what a mode has no use for is ignored. */
struct cht_reduce_config {
    struct cht_str prefix, after, until; /* which pairs, as in struct cht_scan_config */
    uint64_t limit;                      /* lines; 0: all ("totals"), 10 ("similar") */
    enum cht_reduce_sort sort;           /* "totals" */
    struct cht_str to;                   /* "similar": the target pair */
    enum cht_reduce_metric metric;       /* "similar" */
    uint64_t memory_max;                 /* 0: 256 MiB */
};

struct cht_reduced {
    struct cht_buf lines;      /* JSON, a line each; cht_buf_free */
    uint64_t count, malformed; /* lines; payloads that were left out */
};

/* Runs an aggregate ("totals", "counts-of-counts", "similar", "stats"). CHT_UNKNOWN_MODE: there is none of that name; CHT_NO_MEMORY (also:
 * memory_max), CHT_INVALID_ARGUMENT, CHT_PAIR_NOT_FOUND (no target) and what a scan returns: `out` is empty then. cfg may be NULL. */
enum cht_rc cht_reduce(struct cht_store *s, const char *mode, const struct cht_reduce_config *cfg,
                       struct cht_reduced *out, struct cht_err *err);

/* The members of a payload of a mode ("counts", "probabilities", "topk", ...) as JSON, without braces, appended to `out`.
 * CHT_UNKNOWN_MODE, CHT_MALFORMED_PAYLOAD, CHT_NO_MEMORY: `out` is as it was. */
enum cht_rc cht_reduce_decode(const char *mode, const uint8_t *payload, size_t n, struct cht_buf *out,
                              struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
