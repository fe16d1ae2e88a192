/* crew: what the databases of one environment share instead of having it each: threads, the clock of interval syncs, and one
 * budget of changed memory.
 *
 * A database that is not written to has no thread. One that is has at most one for its groups of commits, one for their syncs and one for a checkpoint,
 * taken from `commits`, `syncs` and `checks` (exec/jobs.h) and given back when nothing waits: so one on a slow disk holds up no other, up to
 * the number of threads. What comes then waits its turn.
 *
 * The budget: a member tells how much it has dirty. While all together have more than the limit, the one with the most is
 * checkpointed, then the next. At twice the limit those that have more than the average wait for their own checkpoint before they
 * go on; the others never wait for anybody's, and can bring it to four times the limit at most.
 *
 * Threads: any; new and free: no other call. Locks: crew.mu -> a member's wake_mu, the locks of a member's log; crew.tick_mu is a leaf.
 */
#pragma once

#include "cheetah/store.h"
#include "exec/jobs.h"
#include "os/thread.h"

#include <stdatomic.h>

struct cht_committer;

struct cht_crew_member { /* embedded in a committer; the crew's */
    struct cht_crew_member *next;
    void (*relieve)(
        struct cht_crew_member *m); /* asks for a checkpoint, without waiting; set before the join */
    void (*sync)(struct cht_job
                     *j); /* on a thread: makes the log durable, then cht_crew_synced; set before the join */
    bool (*give_up)(
        struct cht_crew_member *m); /* of the disk: what is kept for others; set before the join */
    struct cht_job sync_job;
    _Atomic uint64_t dirty;  /* bytes, as last told */
    _Atomic uint64_t groups; /* the member counts them */
    uint64_t seen,
        brought;   /* guarded by crew.mu: groups at the last look, and when a checkpoint was last asked for */
    bool relieved; /* guarded by crew.mu: asked, and no checkpoint has ended since */
    bool syncing;  /* guarded by crew.tick_mu: in the list, queued, or running */
    uint64_t due;  /* guarded by crew.tick_mu, as is the next: ns */
    struct cht_crew_member *tick_next;
};

struct cht_crew {
    /* Set at start, then read-only: groups, and what is due of the log; syncs of groups, which wait for nobody; checkpoints; shards of one large
     * commit or of a recovery. */
    struct cht_jobs *commits, *syncs, *checks, *parts;
    uint64_t dirty_limit, interval_ns; /* set at start, then read-only */
    struct cht_mutex mu;
    struct cht_crew_member *members; /* guarded by mu */
    _Atomic unsigned count;          /* of the members; changed under mu */
    _Atomic unsigned asked;          /* members that are relieved; changed under mu */
    _Atomic uint64_t dirty;          /* bytes of all members */
    _Atomic unsigned recovering;     /* databases that are being opened: they share the budget too */

    struct cht_mutex tick_mu;
    struct cht_cond tick, synced;           /* something is due, or stop; a sync has ended */
    struct cht_crew_member *due, **due_end; /* guarded by tick_mu; in the order in which they are due */
    bool stop;                              /* guarded by tick_mu */
    struct cht_thread clock;
    bool clock_up, tick_mu_up; /* how far cht_crew_new came */
};

/* interval_ns 0: nothing is synced by the clock, and there is no thread for it. */
enum cht_rc cht_crew_new(uint64_t dirty_limit, uint64_t interval_ns, struct cht_crew **out,
                         struct cht_err *err);
void cht_crew_free(struct cht_crew *c); /* no member is left; NULL is legal */

void cht_crew_join(struct cht_crew *c, struct cht_crew_member *m);
/* Waits for a sync of m that is under way. */
void cht_crew_leave(struct cht_crew *c, struct cht_crew_member *m);

/* The disk is full: what members keep of their logs for those who follow changes goes. False: nothing was kept. Not with locks of a log. */
bool cht_crew_give_up(struct cht_crew *c);

/* How much m has dirty now. */
void cht_crew_tell(struct cht_crew *c, struct cht_crew_member *m, uint64_t dirty);
/* If all together are over the limit: asks the member with the most for a checkpoint, if none is asked yet. */
void cht_crew_relieve(struct cht_crew *c);
/* Asks each member for a checkpoint that has had no group since the last call and has much dirty: once, until there are more. For
 * a slow tick: what a burst has changed is brought home, and its memory and what it has set free on the disk are given back. */
void cht_crew_quiet(struct cht_crew *c);
/* A checkpoint of m has ended, successful or not. */
void cht_crew_checked(struct cht_crew *c, struct cht_crew_member *m);
/* m should wait for its own checkpoint before it makes more dirty. */
bool cht_crew_full(struct cht_crew *c, const struct cht_crew_member *m);

/* m's log has records that are not synced: m.sync runs within the interval. */
void cht_crew_tick(struct cht_crew *c, struct cht_crew_member *m);
/* The last thing that m.sync does; again: there are new records already. */
void cht_crew_synced(struct cht_crew *c, struct cht_crew_member *m, bool again);
