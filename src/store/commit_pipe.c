/* commit_pipe: groups of commits between their record in the log and its sync: the next group is applied and written while the one before it is
 * synced. What is promised is what commit.h promises: nothing is answered, and no point read shows anything, before it is decided.
 *
 *     queue -> leader: applies, appends -> pipe: [ group ][ group ][ group ] -> syncer: one sync for all that is in it,
 *              (has commit_mu)                    number, place in the log       decides, answers, takes them out
 *
 *   P1 One thread leads, one syncs; both roles go from thread to thread (commit.c), and whoever has put something into an empty pipe
 *      takes the syncer's. While a sync is under way nobody leads before `least` operations wait: half of what the last sync brought to the
 *      disk, and no few (least_after). What is less is led by the syncer when it is done, as if there were no pipe, so small groups are not made
 *      smaller, and no thread is woken for what it would gain less than that costs.
 *   P2 Groups are decided in the order of their records. While there is one in the pipe each group goes through it, whatever its
 *      durability: what it has read may be of one that is not decided.
 *   P3 Who needs pages and log to be those of the last decided group (checkpoints, backups, the scrub) takes cht_committer_lock:
 *      no group begins, and the pipe is empty.
 *   P4 Databases in which something ends are not led ahead: what has ended is removed in turns of its own (commit_ends.c).
 *
 * Failures. F1 to F3 are those of commit.c; there is one place that refuses, here:
 *
 *   append fails, or an operation could not be undone: the group is the last one in the pipe, as `failed`, and nobody leads. The
 *       syncer syncs and decides those before it (cht_wal_sync_appended), then refuses it
 *   sync fails: all groups whose record is not known to be on the disk are refused, those that were applied meanwhile too. The first of
 *       their records is written over, which is the end of the log for all of them
 *
 * A cut between the sync of one group and that of the next leaves a log that ends with either: a record says up to which one the log was synced
 * when it was written, and none of the pipe says so of another one of the pipe, so what is missing is an end, and no damage.
 *
 * Locking: mu guards the pipe; the groups in it are not changed, and only the syncer takes them out. The syncer takes commit_mu when it refuses,
 * and for nothing else, so whoever waits for it with commit_mu released waits for a sync, not longer.
 */
#include "store/commit_int.h"

#include "base/clock.h"
#include "base/invariant.h"

#define SHORT_NS UINT64_C(800000) /* a sync during which other threads have better to do than small groups */
#define LEAST_SHORT 64u
#define LEAST_LONG 8u

static struct cht_group *at_locked(struct cht_committer *cm, size_t i)
{
    return &cm->pipe[(cm->pipe_first + i) % CHT_PIPE_GROUPS];
}

/* F1 and F2 but for the answers, which get err. Under the other durabilities no name is marked: if it is not known what the log
 * has, all are. */
static void refuse(struct cht_committer *cm, uint64_t good, struct cht_err *err)
{
    struct cht_db *db = cm->db;
    bool sync = cm->mode == CHT_DURABLE_SYNC, appended = cht_wal_seq(db->wal) > good;
    struct cht_err why = cm->apply.stuck ? cm->apply.stuck_err : *err, ignored = {0};
    cm->revoked = !cm->logged || cht_wal_revoke(db->wal, good, sync, &ignored) == CHT_OK;
    cm->lifts = cm->revoked && !appended && !cm->apply.stuck && cht_rc_passing(why.code);
    if (cm->lifts)
        cht_committer_wait(cm, &why);
    else
        (void)cht_committer_stop(cm, &why, err);
    if (!cm->revoked)
        (void)CHT_FAIL(err, CHT_OUTCOME_UNKNOWN, "only a restart tells whether it was done: %.140s", why.msg);
    cht_durable_change(&db->durable, CHT_DURABLE_TAKING_BACK);
    cht_db_fence(db);
    if (cm->ending) /* what was removed may be there again */
        atomic_store_explicit(&db->ends.next, 1, memory_order_release);
    cm->good = good;
    cm->refused = true;
    cht_check_demand(cm);
}

static enum cht_rc sync_pipe(struct cht_committer *cm, uint64_t *took, struct cht_err *err)
{
    struct cht_wal *w = cm->db->wal;
    if (cht_wal_synced(w) >= cht_wal_seq(w)) /* a new segment was begun meanwhile */
        return CHT_OK;
    uint64_t start = cht_now_ns();
    enum cht_rc rc = cht_wal_sync_appended(w, err);
    *took = cht_now_ns() - start;
    atomic_fetch_add_explicit(&cm->syncs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->sync_ns, *took, memory_order_relaxed);
    return rc;
}

/* P1: what the next group has to weigh, after a sync that brought `ops` operations to the disk. */
static uint64_t least_after(uint64_t ops, uint64_t took)
{
    uint64_t least = took < SHORT_NS ? LEAST_SHORT : LEAST_LONG;
    return ops / 2 > least ? ops / 2 : least;
}

/* The first n groups are on the disk. Returns their operations. */
static uint64_t decide(struct cht_committer *cm, size_t n)
{
    uint64_t ops = 0;
    const struct cht_group *g = NULL;
    for (size_t i = 0; i < n; i++) {
        g = at_locked(cm, i); /* they are not changed while they are there */
        ops += g->operations;
        cht_committer_count(cm, g);
    }
    if (g == NULL)
        return 0;
    cht_durable_decide(&cm->db->durable, g->number);
    cht_db_show_next_key(cm->db, g->next_key);
    return ops;
}

/* Those after the first `ok`, with commit_mu held. */
static void refuse_rest(struct cht_committer *cm, size_t ok, size_t n, struct cht_err *err)
{
    cm->logged = false;
    for (size_t i = ok; i < n; i++)
        cm->logged = cm->logged || at_locked(cm, i)->logged;
    cm->mode = CHT_DURABLE_SYNC;
    refuse(cm, at_locked(cm, ok)->good, err);
    for (size_t i = ok; i < n; i++)
        cht_committer_fail(at_locked(cm, i)->list, err);
}

/* Takes the first n out; returns their commits. */
static struct cht_commit *take_out(struct cht_committer *cm, size_t n)
{
    struct cht_commit *list = NULL, **end = &list;
    cht_mutex_lock(&cm->mu);
    for (size_t i = 0; i < n; i++) {
        for (*end = at_locked(cm, i)->list; *end != NULL;)
            end = &(*end)->next;
    }
    cm->pipe_first = (cm->pipe_first + n) % CHT_PIPE_GROUPS;
    cm->pipe_count -= n;
    if (cm->pipe_count == 0)
        cm->pipe_failed = false;
    cht_cond_broadcast(&cm->moved);
    cht_mutex_unlock(&cm->mu);
    return list;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_committer_refuse(struct cht_committer *cm, struct cht_commit *list, uint64_t good,
                          struct cht_err *err)
{
    refuse(cm, good, err);
    cht_committer_fail(list, err);
}

void cht_pipe_put(struct cht_committer *cm, const struct cht_group *g, const struct cht_err *why)
{
    cht_mutex_lock(&cm->mu);
    CHT_INVARIANT(cm->pipe_count < CHT_PIPE_GROUPS && !cm->pipe_failed);
    *at_locked(cm, cm->pipe_count) = *g;
    cm->pipe_count++;
    cm->pipe_failed = g->failed;
    if (g->failed)
        cm->pipe_why = *why;
    cht_mutex_unlock(&cm->mu);
}

void cht_pipe_round(struct cht_committer *cm)
{
    struct cht_err err = {0};
    uint64_t took = 0;
    cht_mutex_lock(&cm->mu);
    size_t n = cm->pipe_count, ok = n - cm->pipe_failed;
    cht_mutex_unlock(&cm->mu);
    enum cht_rc rc = ok > 0 ? sync_pipe(cm, &took, &err) : CHT_OK;
    bool refused = rc != CHT_OK || ok < n;
    if (refused) {
        cht_mutex_lock(&cm->commit_mu); /* nobody applies, and nothing more comes */
        cht_mutex_lock(&cm->mu);
        n = cm->pipe_count;
        size_t all = n - cm->pipe_failed;
        if (rc == CHT_OK && cm->pipe_failed)
            err = cm->pipe_why;
        cht_mutex_unlock(&cm->mu);
        for (ok = 0; ok < all && at_locked(cm, ok)->seq <= cht_wal_synced(cm->db->wal);)
            ok++;
    }
    uint64_t ops = decide(cm, ok);
    if (refused && ok < n)
        refuse_rest(cm, ok, n, &err);
    struct cht_commit *list = take_out(cm, n);
    if (refused)
        cht_mutex_unlock(&cm->commit_mu);
    cht_mutex_lock(&cm->mu);
    cm->least = least_after(ops, took);
    cht_mutex_unlock(&cm->mu);
    cht_committer_answer(list);
    cht_followers_tell(cm->db);
}

void cht_pipe_await_turn(struct cht_committer *cm)
{
    cm->plain = atomic_load_explicit(&cm->db->ends.next, memory_order_relaxed) != CHT_ENDS_NONE; /* P4 */
    cht_mutex_lock(&cm->mu);
    while (cm->quiet > 0 || cm->pipe_failed || cm->pipe_count == CHT_PIPE_GROUPS ||
           (cm->plain && cm->pipe_count > 0))
        cht_cond_wait(&cm->moved, &cm->mu);
    cht_mutex_unlock(&cm->mu);
}
