/* figures: the statistics of a database, and what they were when they were asked last, for whoever asks many databases at once and must not
 * wait for long (/metrics).
 *
 * Threads: any.
 */
#pragma once

#include "store/rados/prefix.h"

struct cht_figures {
    struct cht_job job; /* first */
    struct cht_rdb *db;
    struct cht_mutex mu;
    bool busy, again; /* guarded by mu, as all below: the job is queued or runs; it is to run once more */
    uint64_t asked;   /* when what follows was begun to be asked for, ns; 0: never */
    struct cht_store_stats last;
};

/* Each blocks for a trip or some: the counters of all shards, owned by the caller; cht_store_stats, without what has ended, which is removed
 * first. */
enum cht_rc cht_figures_totals(struct cht_rdb *db, struct cht_shard_counts **out, struct cht_err *err);
enum cht_rc cht_figures_stats(struct cht_rdb *db, struct cht_store_stats *out, struct cht_err *err);
/* cht_store_stats_ask and cht_store_stats_kept. */
void cht_figures_ask(struct cht_rdb *db);
bool cht_figures_kept(struct cht_rdb *db, struct cht_store_stats *out, uint64_t *asked);
