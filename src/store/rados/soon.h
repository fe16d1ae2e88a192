/* soon: reads for a thread that must not wait. What is not there yet is read by others, and kept until whoever waits has asked again.
 *
 *   asked, w->held NULL -> made
 *     rows are known            -> answered
 *     rows are wanted -> asked for at once, no thread waits for them (rowset.h); a job takes them when they have come; CHT_PENDING
 *     a long value or a count is wanted -> a job reads it; CHT_PENDING
 *       done -> w->done; asked again: answered from what was read
 *   cht_soon_forget: nothing is kept, w->done is not called any more
 *
 * What was read once stays until then: so a call which starts again each time that something is CHT_PENDING sees the same rows, and
 * ends.
 *
 * Threads: one asks for a wait at a time, and it forgets.
 */
#pragma once

#include "store/rados/exec.h"

/* An operation that only reads. w NULL or &cht_ahead: waits. Else CHT_PENDING, as cht_store_get_soon. Its result is op->rc as well. */
enum cht_rc cht_soon_read(struct cht_rdb *db, struct cht_op *op, struct cht_wait *w, struct cht_err *err);
/* cht_store_pair_values. If it waits here, the rows of many names are asked for at once, one operation a shard. */
enum cht_rc cht_soon_pair_values(struct cht_rdb *db, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                                 struct cht_wait *w, struct cht_err *err);
enum cht_rc cht_soon_count(struct cht_rdb *db, struct cht_str prefix, uint64_t *pairs, struct cht_wait *w,
                           struct cht_err *err);
void cht_soon_forget(struct cht_wait *w);
