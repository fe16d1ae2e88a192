/* guard: locks among processes (cht_store_lock), by the class `lock` of the OSDs on the header of a database. A lock ends by itself
 * CHT_GUARD_SECONDS after its holder has fallen silent: each beat of the pulse renews all of them. One that has ended is not taken again by
 * that: it is lost, as is one that was not renewed for CHT_GUARD_KEPT_SECONDS, and nothing is to be written under it (cht_guards_kept). What
 * a server writes all the same that has not noticed yet is refused by the shards (fence.h).
 *
 * Threads: any.
 */
#pragma once

#include "os/thread.h"
#include "store/rados/link.h"

#define CHT_GUARD_SECONDS 30
#define CHT_GUARD_KEPT_SECONDS 20
#define CHT_GUARD_NAME_MAX 31u

struct cht_rdb;
struct cht_fences; /* fence.h */
struct cht_guard;
struct cht_guards {
    struct cht_mutex mu;
    struct cht_guard *held;       /* guarded by mu; owned */
    _Atomic unsigned locks, lost; /* how many are held; of these, how many are lost */
    char cookie[33];              /* of this process */
    bool up;
};
enum cht_rc cht_guards_init(struct cht_guards *g, struct cht_err *err);
void cht_guards_fini(struct cht_guards *g);
/* CHT_LOCKED: somebody else has it. The database stays open until it is given back. */
enum cht_rc cht_guard_take(struct cht_rdb *db, const char *name, struct cht_err *err);
/* The same without a fence: for what writes nothing under it. */
enum cht_rc cht_guard_take_plain(struct cht_rdb *db, const char *name, struct cht_err *err);
void cht_guard_give(struct cht_rdb *db, const char *name);
void cht_guards_renew(struct cht_guards *g);
/* CHT_DATABASE_BUSY: a lock of this database is lost, until it is given back. */
enum cht_rc cht_guards_kept(struct cht_rdb *db, struct cht_err *err);
