/* commit_lead: who does the committer's work: the queue, and the roles of leading and syncing.
 *
 * Roles: `leading` and `syncing` are of one thread each, which hands them on when it stops: a caller of cht_committer_run to threads of the crew, a
 * thread of the crew when others wait for one. Nobody needs to lead while a sync is under way and little waits: the syncer does when it is done.
 */
#include "store/commit_int.h"

#include <stddef.h>
#include <string.h>

#define LEAD_TURNS 16u /* groups after which a thread looks whether another database waits for one */
#define SMALL_OPS 256u
#define SMALL_BYTES (256u << 10)

struct waiter {
    struct cht_mutex mu;
    struct cht_cond cond;
    bool done;
};

/* One group, if anything waits. */
static void lead_once(struct cht_committer *cm)
{
    struct cht_err tight = {0};
    cht_committer_room(cm, &tight);
    cht_pipe_await_turn(cm);
    bool any;
    cht_mutex_lock(&cm->commit_mu);
    struct cht_commit *list = cht_committer_turn(cm, &tight, &any);
    cht_mutex_unlock(&cm->commit_mu);
    cht_committer_answer(list);
    cht_followers_tell(cm->db); /* what had ended may have been removed */
    if (any)
        cht_committer_limits(cm);
    cht_committer_calm(cm);
}

/* Is there something to lead, now? mu held. */
static bool wanted_locked(const struct cht_committer *cm)
{
    return cm->purge_wanted || (cm->head != NULL && (!cm->syncing || cm->queued >= cm->least));
}

enum role { ROLE_NONE, ROLE_LEAD, ROLE_SYNC };

/* Gives the leadership to a thread of the crew, if there is something to lead. mu held. */
static void hand_on_locked(struct cht_committer *cm)
{
    cm->leading = wanted_locked(cm);
    if (cm->leading)
        cht_jobs_submit(cm->crew->commits, &cm->lead_job);
}

/* After a group was led: whoever has put it into an empty pipe syncs it. mu held. */
static enum role after_lead_locked(struct cht_committer *cm, bool pass)
{
    if (cm->pipe_count > 0 && !cm->syncing) {
        cm->syncing = true;
        hand_on_locked(cm);
        return ROLE_SYNC;
    }
    if (!pass && wanted_locked(cm))
        return ROLE_LEAD;
    hand_on_locked(cm);
    return ROLE_NONE;
}

/* leads: the thread may. */
static enum role after_sync_locked(struct cht_committer *cm, bool pass, bool leads)
{
    if (cm->pipe_count > 0) {
        if (pass)
            cht_jobs_submit(cm->crew->syncs, &cm->pipe_job);
        return pass ? ROLE_NONE : ROLE_SYNC;
    }
    cm->syncing = false;
    if (cm->leading || !wanted_locked(cm))
        return ROLE_NONE;
    if (pass || !leads) {
        hand_on_locked(cm);
        return ROLE_NONE;
    }
    cm->leading = true;
    return ROLE_LEAD;
}

/* Has the role, and does what comes after it. once: the caller's commit alone, and what must be done for others with it. cm may be gone after
 * this. */
static void work(struct cht_committer *cm, enum role role, bool once, bool leads)
{
    for (unsigned turns = 1, running, waiting = 0; role != ROLE_NONE; turns++) {
        bool led = role == ROLE_LEAD;
        if (led)
            lead_once(cm);
        else
            cht_pipe_round(cm);
        if (turns % LEAD_TURNS == 0)
            cht_jobs_count(cm->crew->commits, &running, &waiting);
        cht_mutex_lock(&cm->mu);
        role = led ? after_lead_locked(cm, once || waiting > 0)
                   : after_sync_locked(cm, once || waiting > 0, leads);
        if (!cm->leading && !cm->syncing)
            cht_cond_broadcast(&cm->rest);
        cht_mutex_unlock(&cm->mu);
    }
}

static void prepare(struct cht_commit *c)
{
    c->rc = CHT_OK;
    c->failed = 0;
    memset(&c->err, 0, sizeof c->err);
}

/* Queues; true if the caller now leads. While a sync is under way only what is worth a thread begins, see P1. */
static bool enqueue(struct cht_committer *cm, struct cht_commit *c, bool may_lead)
{
    bool lead = false;
    c->next = NULL;
    prepare(c);
    cht_mutex_lock(&cm->mu);
    *cm->tail = c;
    cm->tail = &c->next;
    cm->queued += cht_commit_weight(c);
    if (!cm->leading && wanted_locked(cm)) {
        cm->leading = true;
        lead = may_lead;
        if (!may_lead)
            cht_jobs_submit(cm->crew->commits, &cm->lead_job);
    }
    cht_mutex_unlock(&cm->mu);
    return lead;
}

/* On a thread of the crew, with the leadership. */
static void lead_run(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, lead_job));
    work(cm, ROLE_LEAD, false, true);
}

/* The same with the syncer's role. It hands the lead on: who leads may wait for a sync, so no thread that syncs waits in a pool after
 * those that lead. */
static void pipe_run(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, pipe_job));
    work(cm, ROLE_SYNC, false, false);
}

static void wake_waiter(struct cht_commit *c)
{
    struct waiter *w = c->ctx;
    cht_mutex_lock(&w->mu);
    w->done = true;
    cht_cond_signal(&w->cond);
    cht_mutex_unlock(&w->mu);
}

/* What may be run at once, in less than about a millisecond whatever the database holds. */
struct small {
    uint64_t ops, bytes;
};

/* Adds a commit; false: it is none of those, or there are too many with it. */
static bool add_small(const struct cht_committer *cm, const struct cht_commit *c, struct small *sum)
{
    if ((c->flags & CHT_COMMIT_INLINE) == 0 || cht_commit_mode(cm, c) == CHT_DURABLE_SYNC || c->many != NULL)
        return false;
    sum->ops += c->count;
    if (sum->ops > SMALL_OPS)
        return false;
    for (size_t i = 0; i < c->count; i++) {
        const struct cht_op *op = &c->ops[i];
        if (op->kind == CHT_OP_PREFIX_DEL || (op->kind == CHT_OP_RESERVE && op->key > SMALL_OPS) ||
            (op->ask != NULL && op->ask->extends))
            return false;
        sum->bytes += op->name.n + op->value.n;
    }
    return sum->bytes <= SMALL_BYTES;
}

/* Cuts the list after as many, from the first on, as may be run at once together, and at least one; returns the rest. *fit: they may. */
static struct cht_commit *cut_small(const struct cht_committer *cm, struct cht_commit *list, bool *fit)
{
    struct small sum = {0};
    *fit = add_small(cm, list, &sum);
    while (*fit && list->next != NULL && add_small(cm, list->next, &sum))
        list = list->next;
    struct cht_commit *rest = list->next;
    list->next = NULL;
    return rest;
}

/* Without a new segment of the log, which waits for syncs. commit_mu held. */
static bool fits_log(const struct cht_committer *cm, const struct cht_commit *list)
{
    uint64_t bound = 0;
    for (const struct cht_commit *c = list; c != NULL; c = c->next)
        bound += cht_apply_log_bound(cm->db, c);
    return cht_wal_fits(cm->db->wal, bound);
}

/* A whole group by the caller, small ones, if nothing would make it wait: no sync, no other group, no checkpoint's freeze. *list:
 * those commits, perhaps in another order; as they were if it is not done. */
static bool run_at_once(struct cht_committer *cm, struct cht_commit **list)
{
    if (cht_committer_full(cm) || cht_trouble_is(&cm->db->trouble, CHT_TROUBLE_WRITE) ||
        cht_committer_due(cm) || !cht_mutex_try(&cm->commit_mu))
        return false;
    if (cht_committer_ending(cm, *list) || !fits_log(cm, *list)) {
        cht_mutex_unlock(&cm->commit_mu);
        return false;
    }
    cht_mutex_lock(&cm->mu);
    bool mine = !cm->leading && cm->head == NULL && !cm->syncing && cm->pipe_count == 0;
    if (mine)
        cm->leading = true;
    cht_mutex_unlock(&cm->mu);
    if (mine) {
        for (struct cht_commit *c = *list; c != NULL; c = c->next)
            prepare(c);
        *list = cht_committer_alone(cm, *list);
    }
    cht_mutex_unlock(&cm->commit_mu);
    if (!mine)
        return false;
    cht_followers_tell(cm->db);
    cht_committer_limits(cm);
    cht_mutex_lock(&cm->mu);
    hand_on_locked(cm);
    if (!cm->leading)
        cht_cond_broadcast(&cm->rest);
    cht_mutex_unlock(&cm->mu);
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_lead_init(struct cht_committer *cm)
{
    cm->lead_job.run = lead_run;
    cm->pipe_job.run = pipe_run;
}

enum cht_rc cht_committer_run(struct cht_committer *cm, struct cht_commit *c)
{
    struct waiter w = {.done = false};
    if (cht_mutex_init(&w.mu, &c->err) != CHT_OK)
        return c->rc = c->err.code;
    if (cht_cond_init(&w.cond, &c->err) != CHT_OK) {
        cht_mutex_fini(&w.mu);
        return c->rc = c->err.code;
    }
    void *ctx = c->ctx;
    void (*done)(struct cht_commit *) = c->done;
    c->ctx = &w;
    c->done = wake_waiter;
    if (enqueue(cm, c, true))
        work(cm, ROLE_LEAD, true, true); /* at least this commit, which was queued */
    cht_mutex_lock(&w.mu);
    while (!w.done)
        cht_cond_wait(&w.cond, &w.mu);
    cht_mutex_unlock(&w.mu);
    cht_cond_fini(&w.cond);
    cht_mutex_fini(&w.mu);
    c->ctx = ctx;
    c->done = done;
    return c->rc;
}

enum cht_rc cht_committer_submit(struct cht_committer *cm, struct cht_commit *c)
{
    struct small sum = {0};
    c->next = NULL;
    if (add_small(cm, c, &sum) && run_at_once(cm, &c))
        return c->rc;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        return cht_trouble_stopped(&cm->db->trouble, &c->err);
    (void)enqueue(cm, c, false);
    return CHT_PENDING;
}

void cht_committer_submit_all(struct cht_committer *cm, struct cht_commit *list)
{
    while (list != NULL) { /* one that is large makes no other wait but those after it */
        bool fit;
        struct cht_commit *rest = cut_small(cm, list, &fit);
        if (!fit || !run_at_once(cm, &list)) {
            struct cht_commit *last = list;
            while (last->next != NULL)
                last = last->next;
            last->next = rest;
            break;
        }
        cht_committer_answer(list);
        list = rest;
    }
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        if (!atomic_load_explicit(&cm->db->read_only, memory_order_acquire)) {
            (void)enqueue(cm, c, false);
            continue;
        }
        prepare(c);
        c->rc = cht_trouble_stopped(&cm->db->trouble, &c->err);
        c->done(c);
    }
}
