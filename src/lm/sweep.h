/* sweep: the pairs under a prefix with their values, one after the other in byte order, however long the values are. Threads: one at a time a
 * call. */
#pragma once

#include "cheetah/store.h"

/* name and value are borrowed for the call; value.n 0: it has none. Any other code than CHT_OK ends the sweep. */
typedef enum cht_rc lm_sweep_fn(void *ctx, struct cht_str name, struct cht_str value, struct cht_err *err);
/* What fn returned, CHT_CORRUPT, and what a scan returns. */
enum cht_rc lm_sweep(struct cht_store *s, struct cht_str prefix, lm_sweep_fn *fn, void *ctx,
                     struct cht_err *err);
