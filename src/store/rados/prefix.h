/* prefix: what concerns all names under a prefix. */
#pragma once

#include "store/rados/fence.h"

/* Deletes the pairs under op->name, page by page, and with op->with_values their values; adds up op->pairs and op->values. Each page of a
 * shard is one guarded write, which compares the fences, too; a failure on the way leaves those that were done. */
enum cht_rc cht_prefix_delete(struct cht_rdb *db, const struct cht_fences *fences, struct cht_op *op,
                              struct cht_err *err);
/* How many pairs lie under the prefix: from the counters if the prefix is one that is counted (rows.h), else by going through them. */
enum cht_rc cht_prefix_count(struct cht_rdb *db, struct cht_str prefix, uint64_t *pairs, struct cht_err *err);
/* The counters of one shard. */
struct cht_shard_counts {
    uint64_t pairs, values, value_bytes, ending;
};
enum cht_rc cht_prefix_totals(struct cht_rdb *db, struct cht_shard_counts *out, struct cht_err *err);
