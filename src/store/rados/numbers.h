/* numbers: those of changes (cut.h) only rise, also of a database that is made anew by a server whose clock is late.
 *
 * The object `cheetah` in the namespace "" has a row `changes` -> u64: no database that was dropped has told a higher number. It is raised before the
 * last shard from which one could come is gone: shard 0, without which no generation is closed.
 */
#pragma once

#include "store/rados/rdb.h"

/* What the row says; 0: there is none. */
enum cht_rc cht_numbers_last(struct cht_renv *env, uint64_t *last, struct cht_err *err);
/* Of a database that is being dropped, whose objects io has: raises the row, and removes shard 0. */
enum cht_rc cht_numbers_end(struct cht_renv *env, rados_ioctx_t io, struct cht_err *err);
