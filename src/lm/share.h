/* share: a loop over 0 .. n-1 shared out among threads, piece by piece.
 *
 * Internal to src/lm. Blocks until all is done.
 */
#pragma once

#include "cheetah/err.h"

#include <stddef.h>

#define LM_SHARE_THREADS_MAX 16u
#define LM_SHARE_PIECE \
    ((size_t)2048) /* iterations a piece; fewer than two pieces are done by the caller alone */

/* Iterations from .. to - 1; `worker` is this thread's own. */
typedef enum cht_rc lm_share_fn(void *worker, size_t from, size_t to, struct cht_err *err);

/* workers: one a thread, the first the caller's. If threads cannot be started, fewer do the work. Returns the first failure,
 * after which no piece is begun. */
enum cht_rc lm_share(size_t n, lm_share_fn *fn, void *const *workers, unsigned threads, struct cht_err *err);
