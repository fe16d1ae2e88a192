/* changes: who follows the log of a database (cheetah/changes.h). One of these a database.
 *
 *   follower   next: reads records up to what is on the disk -> CHT_PENDING -> await: listed
 *   committer  the record is on the disk -> tell: everybody who is listed is called
 *
 * Nobody is missed: await lists itself, adds to `waiting` and then looks at the log's end; the committer moves that end and then adds
 * nothing to `waiting`. Both are read-modify-writes of one number, so one of the two sees the other. Without a follower a group pays
 * that one addition.
 * Locking: mu is a leaf, but that `done` of what waits is called with it held.
 */
#pragma once

#include "os/thread.h"
#include "store/store_int.h"
#include "store/wal.h"

#include <stdatomic.h>

struct cht_db;

struct cht_follower {
    struct cht_changes base; /* first */
    struct cht_db *db;
    struct cht_wal_place place;
    uint64_t origin;                   /* of the numbers */
    struct cht_wait *wait;             /* guarded by followers.mu, as the next two; NULL: not listed */
    struct cht_follower *listed, **at; /* in followers.listed */
    size_t len;
    uint8_t prefix[]; /* len */
};

struct cht_followers {
    struct cht_mutex mu;
    _Atomic unsigned waiting;    /* changed under mu */
    struct cht_follower *listed; /* guarded by mu */
    uint64_t told;               /* guarded by mu: up to which record they were told */
    _Atomic unsigned open;
};

enum cht_rc cht_followers_init(struct cht_followers *f, struct cht_err *err);
/* The last record that may be told. */
uint64_t cht_followers_end(const struct cht_db *db);
void cht_followers_fini(struct cht_followers *f);
/* After what was appended to the log is on the disk, or may be asked to be. Any thread that keeps the database open. */
void cht_followers_tell(struct cht_db *db);

static inline struct cht_follower *cht_follower(struct cht_changes *c)
{
    return (struct cht_follower *)(void *)c;
}
enum cht_rc cht_follower_await(struct cht_changes *base, struct cht_wait *w);
void cht_follower_forget(struct cht_changes *base);

/* After a database was opened and before anybody writes to it: if nobody ever has, its log names what changes from the beginning. */
void cht_db_begin_with_changes(struct cht_db *db);

/* The calls of the store on files. */
enum cht_rc cht_db_changes_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                                struct cht_changes **out, struct cht_err *err);
enum cht_rc cht_db_changes_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err);
