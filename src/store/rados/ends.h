/* ends: pairs that have ended (rows.h: T rows) are removed. To readers they are gone at their end, by the reader's clock (exec_int.h); so servers
 * need clocks that agree, as is usual.
 */
#pragma once

#include "store/rados/exec.h"
#include "store/rados/fence.h"

/* Removes what had ended when it began, by any server; *removed: how many pairs. */
enum cht_rc cht_ends_purge(struct cht_rdb *db, uint64_t *removed, struct cht_err *err);
/* Operations as one transaction, which is made again until it is not refused; each that fails fails for itself. */
enum cht_rc cht_ends_commit(struct cht_rdb *db, const struct cht_fences *fences, struct cht_exec_op *ops,
                            size_t n, struct cht_err *err);
