/* changes: what changed under a prefix, in the order of the commits, read from the log of a database; for caches and mirrors.
 *
 *     cht_changes_open (after = where it stopped last time) -> cht_changes_next until CHT_PENDING -> cht_changes_await -> next ...
 *
 * Numbers. Every group of commits has one; they ascend, never repeat, and survive restarts, crashes and checkpoints. What is told was on the
 * disk before. The number of a change is what to go on after when it has been dealt with: the changes of one group but the last have the
 * number of the group before, so that who stops in between gets all of the group again and misses nothing.
 *
 * A database keeps its changes from its first commit on (cht_env_config.changes when it is made), or from the first cht_changes_open on; then each
 * upsert of a pair that is there costs the bytes of its name in the log. How far back it can tell: as far as the log reaches, and cht_env_config.changes_bytes beyond that. A database that was dropped and made again, or restored, begins
 * anew, with higher numbers.
 *
 * Over RADOS (rados.h) a group is what all servers have committed between two looks of any follower: each name once in it, an atomic commit never divided, PREFIX_DEL
 * never told, but each name. Changes are kept from the first cht_changes_open on, up to cht_rados_config.changes_bytes, until nobody has opened any or had one open for an hour, on any server (cht_env_quiet); cht_changes_range tells what is known, without a trip.
 *
 * Threads: one at a time for each handle; any number of handles.
 */
#pragma once

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum cht_change_kind {
    CHT_CHANGE_PAIR_SET, /* name leads to key, or the value under it was put by that name */
    CHT_CHANGE_PAIR_DEL, /* name leads nowhere */
    CHT_CHANGE_PREFIX_DEL, /* no name under `name` leads anywhere; it may be shorter than the prefix that is followed */
    CHT_CHANGE_VALUE_SET, /* by its key; only told to who follows everything (an empty prefix), as the next */
    CHT_CHANGE_VALUE_DEL
};
struct cht_change {
    enum cht_change_kind kind;
    uint64_t number;
    uint64_t key;        /* PAIR_SET, VALUE_SET, VALUE_DEL */
    struct cht_str name; /* borrowed until `each` returns */
    bool more;           /* more of the same group may follow */
};

#define CHT_CHANGES_BEGIN UINT64_C(0)       /* all that ever changed */
#define CHT_CHANGES_OLDEST (UINT64_MAX - 1) /* all that can be told */
#define CHT_CHANGES_NOW UINT64_MAX          /* nothing older is wanted */

struct cht_changes;
/* after: the number of the last change that was seen, or CHT_CHANGES_BEGIN, CHT_CHANGES_OLDEST, CHT_CHANGES_NOW. Blocks; writes to the log if it is the first
 * of the database. CHT_GONE: what came after that number cannot be told any more, or the number is of another database's life;
 * cht_changes_range says what can be. CHT_NOT_SUPPORTED if the store cannot tell; CHT_READ_ONLY, CHT_DISK_FULL and the
 * like if it is the first and the log cannot be written to. The store must stay open until close. */
enum cht_rc cht_changes_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                             struct cht_changes **out, struct cht_err *err);
void cht_changes_close(struct cht_changes *c); /* NULL is legal; not while it waits (cht_changes_forget) */
/* Tells what is new, at most some megabytes of the log; `each` false: enough for now. CHT_OK: there may be more. CHT_PENDING: that was all
 * for now. CHT_GONE: too slow, the log has moved on. CHT_IO, CHT_NO_MEMORY, ... : nothing was skipped, it can be called again. Blocks for
 * file reads. */
enum cht_rc cht_changes_next(struct cht_changes *c, bool (*each)(void *ctx, const struct cht_change *change),
                             void *ctx, struct cht_err *err);
/* After CHT_PENDING: w->done is called once when there may be more (CHT_PENDING), or there is already (CHT_OK). Any thread may call forget:
 * w->done is not called any more once it has returned. */
enum cht_rc cht_changes_await(struct cht_changes *c, struct cht_wait *w);
void cht_changes_forget(struct cht_changes *c);
/* What to go on after when all that was told so far has been dealt with. */
uint64_t cht_changes_position(const struct cht_changes *c);
/* oldest <= after <= newest can be asked for. Both 0: no changes are kept yet. */
struct cht_changes_range {
    uint64_t oldest, newest;
    uint64_t kept;      /* bytes of the log, or of rows, that are there for this alone */
    uint64_t followers; /* handles that are open */
    bool whole;         /* oldest is the beginning of the database */
};
enum cht_rc cht_changes_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
