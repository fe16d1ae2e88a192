/* under: all names under a prefix, for an operation of an atomic commit that removes them (CHT_OP_PREFIX_DEL): their rows are looked at,
 * and so are the counters of the longest prefix that is counted and begins the given one, in every shard. What is looked at is compared by the
 * write. So no name is there that was not looked at: it would have moved a counter, or another is gone instead, which was looked at.
 *
 * Under a prefix that is not counted itself (longer than up to the second ':') the rows of all that its counted one has are looked at.
 */
#pragma once

#include "store/rados/rowset.h"

struct cht_under; /* which names were found; kept between two runs of the operation */

/* CHT_OK: the set has a row for each name that was stored under the prefix. CHT_PENDING: rows are wanted. CHT_BATCH_TOO_LARGE: a shard has more
 * of them than CHT_ROWSET_STEPS_MAX. CHT_OVERLOADED: names came and went at each of many tries. Blocks for the names, page by page. */
enum cht_rc cht_under_look(struct cht_rowset *s, struct cht_str prefix, struct cht_under **u,
                           struct cht_err *err);
void cht_under_free(struct cht_under *u); /* NULL is legal */
