/* calm: what must not block, beside commits that hold a database's shard locks for long: a namespace of millions of pairs that is
 * deleted, an atomic commit of many operations. HTTP threads and the scans' workers serve other databases too, so instead of
 * waiting for such a lock a reader is told later and a task is put aside.
 *
 *   committer   begin (waits for the tasks that are inside, each a bounded batch) -> locks, work, locks released -> end
 *   task        enter -> shard locks, one after the other -> leave        or: put aside by enter, submitted again by end
 *   reader      tries the lock for a moment; if that fails and the database is busy: await, told by end (db_store.c)
 *
 * Pairs that have ended and are not removed yet (ends.h) keep the same readers and tasks waiting: ask, then `asked` until settled. That
 * waits for no task, and point reads that need not wait go on.
 *
 * Without a commit of that kind a batch of a task pays two atomic additions, a reader that gets its lock nothing.
 * Locking: mu is a leaf, but that `done` of what waits is called with it held.
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/store.h"
#include "exec/pool.h"
#include "os/thread.h"

struct cht_calm {
    _Atomic unsigned inside; /* tasks that hold shard locks, or may take them */
    _Atomic bool busy;       /* holding or asked: changes with mu held */
    struct cht_mutex mu;
    bool holding;             /* guarded by mu: a commit of that kind is under way */
    bool asked;               /* guarded by mu: what has ended is to be removed first */
    uint64_t rounds;          /* guarded by mu: how often it was busy and is no more */
    struct cht_cond left;     /* a task left while it is busy */
    struct cht_cond over;     /* a round has ended */
    struct cht_wait *waiting; /* guarded by mu */
    struct cht_aside {        /* guarded by mu: tasks put aside, by the pool that they belong to */
        struct cht_pool *pool;
        struct cht_task *head, **tail;
    } * aside; /* owned */
    size_t pools;
};

/* The pools are borrowed. */
enum cht_rc cht_calm_init(struct cht_calm *c, struct cht_pool *const *pools, size_t n, struct cht_err *err);
void cht_calm_fini(struct cht_calm *c);

enum cht_calm_turn {
    CHT_CALM_INSIDE,   /* it may take locks, until cht_calm_leave */
    CHT_CALM_ASIDE,    /* it was put aside and is the pool's again later; it may run already */
    CHT_CALM_CANCELLED /* it is to end, without locks */
};
/* A task of `pool` asks before its first lock. cancelled: of what the task is for; NULL: never. */
enum cht_calm_turn cht_calm_enter(struct cht_calm *c, struct cht_pool *pool, struct cht_task *t,
                                  const _Atomic bool *cancelled);
/* Work on a thread that must not block either: false if it is busy. Then leave. */
bool cht_calm_try(struct cht_calm *c);
void cht_calm_leave(struct cht_calm *c);
/* After *cancelled was set: if the task was put aside, the pool has it again, and it ends. */
void cht_calm_recall(struct cht_calm *c, struct cht_task *t);

static inline bool cht_calm_busy(const struct cht_calm *c)
{
    return atomic_load_explicit(&c->busy, memory_order_relaxed);
}
/* CHT_PENDING: w->done will be called. CHT_OK: it is calm again, ask again. NULL for w waits here. */
enum cht_rc cht_calm_await(struct cht_calm *c, struct cht_wait *w);
void cht_calm_forget(struct cht_calm *c, struct cht_wait *w);

/* The committer's, with no shard lock held. */
void cht_calm_begin(struct cht_calm *c);
void cht_calm_end(struct cht_calm *c);
/* What has ended is to be removed: busy until settled. */
void cht_calm_ask(struct cht_calm *c);
void cht_calm_settled(struct cht_calm *c);
