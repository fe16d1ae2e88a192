/* move: gives all pairs under some prefixes other names, at once if it fits the memory, else in parts.
 *
 *   at once   one atomic commit: first | a link a name | PREFIX_DEL of the old names | last
 *   parts     { first | links | under_way } -> { links | under_way } -> ... -> { links | PREFIX_DEL of the old names | last }, each atomic
 *   a store of other machines (cht_store_remote), whose atomic commits are bounded: the same parts, of REDUCE_REMOTE_OPS and REDUCE_REMOTE_BYTES
 *             at most, and each takes away the old names of its links. One part, if that is all
 *
 * Until the last commit the old names lead to all of it (of other machines: to what has no new name yet), with the first one the new names to more
 * and more. What was cut off between two commits is gone on with by the same call without `first`: names that are linked are linked again.
 */
#pragma once

#include "reduce/aggregate.h"

/* What fits an atomic commit of a store of other machines, whatever shards it has: operations, and bytes of what they write. */
#define REDUCE_REMOTE_OPS 10000u
#define REDUCE_REMOTE_BYTES (UINT64_C(24) << 20)
#define REDUCE_REMOTE_OLD \
    (REDUCE_REMOTE_OPS / 2) /* names that the commit of a switch takes away beside what it adds */

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
/* One atomic commit, under the locks that this process has (cht_store_lock). If an operation failed, the code and message are that operation's. */
enum cht_rc reduce_commit(struct cht_store *s, struct cht_op *ops, size_t n, struct cht_err *err);
/* Before an atomic commit that deletes these pairs and their values: on a store of other machines, where that is bounded, deletes them page by
 * page. If it is cut off the record of the run speaks of more than is there. Elsewhere nothing. */
enum cht_rc reduce_clear(struct cht_store *s, struct cht_str prefix, struct cht_err *err);
/* Has a switch more old pairs under these prefixes than it takes away in one commit? Then they go before, by reduce_clear, after a record that says so: who
 * is cut off there begins with it again. Only on a store of other machines. */
enum cht_rc reduce_too_many(struct cht_store *s, const struct cht_str *prefixes, size_t n, bool *are,
                            struct cht_err *err);
/* Takes a lock among all processes that have the database open (cht_store_lock) and waits for it, a minute at most: then CHT_LOCKED. CHT_CANCELLED. */
enum cht_rc reduce_lock(struct cht_store *s, const char *name, const _Atomic bool *cancel,
                        struct cht_err *err);
