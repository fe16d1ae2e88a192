/* grow: a shard with too many pairs becomes two (split.h). */
#pragma once

#include "store/rados/rdb.h"

/* Divides the fullest shard if it has more pairs than cht_rados_config.split_pairs, one time in two, since several servers see the same. All go
 * on meanwhile but for the writers of that shard. */
void cht_grow(struct cht_rdb *db);
