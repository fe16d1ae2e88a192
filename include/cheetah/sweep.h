/* sweep: all pairs under a prefix, visited once each on the workers of all shards at once: for sums, which need no order.
 *
 * Each shard is gone through in the order of its names, in batches; values are shown where they lie, under their shard's lock,
 * after they were compared with their checksums. Nothing is merged or copied, so a sweep costs much less than a scan.
 * It is no snapshot: every pair that was there from its start to its end is visited once, no pair twice.
 *
 * Memory: CHT_NAME_MAX bytes a shard, CHT_SWEEP_MEMORY a worker, and one long value (over CHT_SCAN_INLINE_MAX) at a time.
 */
#pragma once

#include "cheetah/scan.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CHT_SWEEP_MEMORY (64u << 10)

struct cht_sweep_config {
    struct cht_str prefix, after,
        until;  /* exclusive bounds in ascending order, n == 0: none; borrowed for the call */
    bool names; /* names are wanted; without them e->name is NULL (and the sweep is faster) */
    bool sizes; /* long values are shown as CHT_ENTRY_LARGE, without their bytes */
    /* A group of entries: on a worker, or in the calling thread if there are few. Must not block nor call the store; the
     * entries are borrowed for the call. false ends the sweep soon, with CHT_OK. */
    bool (*visit)(void *ctx, const struct cht_entry *e, size_t n);
    void *ctx;
};

/* Runs a sweep and waits for it. CHT_OK also if `visit` ended it; CHT_INVALID_PAIR (a bound), CHT_CORRUPT (the names; a value
 * that does not match its checksum is shown as CHT_ENTRY_CORRUPT), CHT_NO_MEMORY. */
enum cht_rc cht_store_sweep(struct cht_store *s, const struct cht_sweep_config *cfg, struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
