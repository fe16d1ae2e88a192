/* fence: a server whose lock (guard.h) has gone to another writes nothing under it any more, however long it stood still between its last
 * question and the write. Who takes a lock puts up a fence in every shard first; each write under the lock compares it, in the operation
 * that writes.
 *
 *   shard: row F<name of the lock>  -> number, 8 digits of 7 bits, the highest first | who, 32 hexadecimal digits
 *   h:     row f<name of the lock>  -> the same | u8: it is up in all shards
 *
 * Every byte of both is below 0x80: an OSD that is asked whether a value is lower compares signed characters, and would take 0x80 for less
 * than 0x7f.
 *
 *   N1  h: f is as it was read -> number + 1, this process, not up. If it is up and this process's it stays: nothing else is done
 *   N2  every shard, all at once: E is (epoch, 0) and F is absent or lower -> F is this one
 *   N3  h: f is this one -> it is up
 *
 * Invariants
 *   N-1 F of a shard only rises. So one that comes late takes nothing from the next holder.
 *   N-2 a holder reads nothing of what it computes with before its fence is up: what the one before it still writes was written by then,
 *       or is refused.
 *   N-3 a shard that is made by a division has the F rows of the one that was divided (split.h, S4).
 * A process's own fence is used again by its next lock of that name if nobody else has had it in between: its threads take turns, and who
 * gives the lock back has no write under way. After a commit that ended with CHT_TIMEOUT it may have one all the same, which an OSD still does
 * later: such a fence is doubted, and not used again.
 */
#pragma once

#include "store/rados/rowset.h"

#define CHT_FENCE_SIZE 40u
#define CHT_FENCES_MAX 4u

struct cht_fence {
    uint8_t row[2 + CHT_GUARD_NAME_MAX]; /* its name in a shard */
    size_t n;
    uint8_t token[CHT_FENCE_SIZE];
};
struct cht_fences { /* of all locks that this process has of a database */
    struct cht_fence v[CHT_FENCES_MAX];
    unsigned n;
};

/* N1 to N3, by whoever has been given the lock. CHT_LOCKED: it is another's by now. CHT_TIMEOUT: also after four times
 * cht_rados_config.settle_ms, at most CHT_GUARD_KEPT_SECONDS, in which a shard was never without a transaction. CHT_CORRUPT, ... */
enum cht_rc cht_fence_raise(struct cht_rdb *db, const char *name, struct cht_fence *out, struct cht_err *err);
/* A commit under them ended like this: if a write of it may still come they are doubted. */
void cht_fences_doubt(struct cht_rdb *db, const struct cht_fences *f, enum cht_rc ended);
/* What is written to this shard compares them. guess: without having read them. CHT_PENDING: rows are wanted. CHT_DATABASE_BUSY: one is
 * another's: nothing is to be written. */
enum cht_rc cht_fences_look(const struct cht_fences *f, struct cht_rowset *s, unsigned shard, bool guess,
                            struct cht_err *err);
/* The same, of all shards that the set changes. */
enum cht_rc cht_fences_look_all(const struct cht_fences *f, struct cht_rowset *s, struct cht_err *err);
/* Of all locks that this process has of the database (guard.c). */
void cht_guards_fences(struct cht_rdb *db, struct cht_fences *out);
