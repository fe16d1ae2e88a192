/* move: gives all pairs under some prefixes other names, at once if it fits the memory, else in parts.
 *
 *   at once   one atomic commit: first | a link a name | PREFIX_DEL of the old names | last
 *   parts     { first | links | under_way } -> { links | under_way } -> ... -> { links | PREFIX_DEL of the old names | last }, each atomic
 *
 * Until the last commit the old names lead to all of it, with the first one the new names to more and more. What was cut off between
 * two commits is gone on with by the same call without `first`: names that are linked are linked again.
 */
#pragma once

#include "reduce/aggregate.h"

#define REDUCE_MOVE_OPS 4u /* the most that first and last may have */

struct reduce_move {
    struct cht_str from[2], to[2]; /* prefixes; nobody else writes under them meanwhile */
    unsigned n;
    const struct cht_op *first, *last; /* borrowed, as what they borrow */
    size_t n_first, n_last;
    struct cht_op under_way;
    uint64_t
        bytes; /* about what it takes at once: REDUCE_MOVE_EACH a name, and twice the names; it takes less if there is less */
    const _Atomic bool *cancel; /* NULL: never; looked at between two commits */
};
#define REDUCE_MOVE_EACH (sizeof(struct cht_op) + 48u)

/* CHT_NO_MEMORY (not even a few names at a time), CHT_CANCELLED, and what scans and commits return. */
enum cht_rc reduce_move(struct reduce_run *run, const struct reduce_move *m, struct cht_err *err);
/* One atomic commit. If an operation failed, the code and message are that operation's. */
enum cht_rc reduce_commit(struct cht_store *s, struct cht_op *ops, size_t n, struct cht_err *err);
