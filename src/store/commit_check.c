/* commit_check: when the checkpoints of a database are made, one shard after the other, what they give room to, and what becomes
 * of those that fail. How one shard's is made: checkpoint.c.
 *
 *   over the limit     a checkpoint is asked for; writers go on
 *   twice over it      writers wait (G1 in commit.c) until it has made room: each shard that is done has no dirty pages any more.
 *                      If it is the log that is too long, each group waits for one shard; only if it is far too long, for all
 *   it fails           by a passing condition: all is as before; the next try comes after a pause, which doubles. Twice over the
 *                      limit, what needs room is refused meanwhile. Otherwise: no more writing
 */
#include "store/commit_int.h"

#include "base/clock.h"
#include "store/order.h"
#include "store/pagefile_int.h"

#include <stddef.h>

#define SPARE_SEGMENTS 2u
#define RETRY_NS UINT64_C(1000000000) /* after a checkpoint that failed; doubled by each further one ... */
#define LOG_MOST (UINT64_C(64) << 20) /* or four times its limit, if that is more */
#define PAUSE_MIN_NS UINT64_C(100000000)
#define RETRY_MAX 4u   /* ... at most that many times */
#define REST_GROUPS 8u /* with more of them since the checkpoint began, the database does not rest */

static bool log_over(struct cht_committer *cm, unsigned times)
{
    return cht_wal_live(cm->db->wal) > cm->cfg.log_limit * times;
}

static void want_locked(struct cht_committer *cm)
{
    cm->wanted = true;
    cht_cond_broadcast(&cm->room);
    if (!cm->checking && !cm->check_stop) {
        cm->checking = true;
        cht_jobs_submit(cm->crew->checks, &cm->check_job);
    }
}

/* Not at once after one that failed: that one is tried again by itself. */
static void want_checkpoint(struct cht_committer *cm)
{
    if (cht_trouble_age(&cm->db->trouble, CHT_TROUBLE_CHECKPOINT) < RETRY_NS)
        return;
    cht_mutex_lock(&cm->wake_mu);
    want_locked(cm);
    cht_mutex_unlock(&cm->wake_mu);
}

static void tell_room(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->wake_mu);
    cm->shards_done++;
    cht_cond_broadcast(&cm->room);
    cht_mutex_unlock(&cm->wake_mu);
}

/* F3 in commit.c. check_mu is held. */
static void take_back(struct cht_committer *cm)
{
    struct cht_db *db = cm->db;
    struct cht_err err = {0};
    cht_committer_lock(cm);
    bool sync = cm->mode == CHT_DURABLE_SYNC; /* of the refused group, which was the last */
    if (cm->refused) {
        enum cht_rc rc = cht_db_take_back(db, cm->good, &err);
        cht_watches_report(db->watches, NULL, true);
        if (rc == CHT_OK) {
            cht_durable_change(
                &db->durable,
                CHT_DURABLE_TAKING_BACK); /* not lost: who meets a mark waits for what it is now */
            cht_db_unfence(db,
                           cm->revoked ? cm->group
                                       : atomic_load_explicit(&db->durable.decided, memory_order_relaxed),
                           !cm->revoked && !sync);
            if (cm->revoked && sync)
                cht_durable_decide(&db->durable, cm->group);
            cht_committer_count_dirty(cm);
        }
        cht_durable_change(&db->durable, rc != CHT_OK  ? CHT_DURABLE_LOST
                                         : cm->revoked ? CHT_DURABLE_NORMAL
                                                       : CHT_DURABLE_UNKNOWN);
        cm->refused = rc != CHT_OK; /* the disk may come back: it is tried again */
        if (rc == CHT_OK && cm->lifts) {
            cht_wal_resume(db->wal);
            atomic_store_explicit(&db->read_only, false, memory_order_release);
            if (cht_trouble_is(&db->trouble,
                               CHT_TROUBLE_STOPPED)) /* a sync that was under way has failed since */
                atomic_store_explicit(&db->read_only, true, memory_order_release);
        }
    }
    cht_committer_unlock(cm);
}

/* check_mu, for whom a checkpoint stops to put values in order. */
static void lock_checks(struct cht_committer *cm)
{
    atomic_fetch_add_explicit(&cm->check_waiting, 1, memory_order_relaxed);
    cht_mutex_lock(&cm->check_mu);
    atomic_fetch_sub_explicit(&cm->check_waiting, 1, memory_order_relaxed);
}

/* A checkpoint that puts values in order first. */
struct ordering {
    struct cht_committer *cm;
    bool rest;       /* only while nobody writes */
    uint64_t groups; /* when it began */
};

static bool stop_ordering(void *ctx)
{
    const struct ordering *o = ctx;
    struct cht_committer *cm = o->cm;
    uint64_t groups = atomic_load_explicit(&cm->member.groups, memory_order_relaxed);
    return atomic_load_explicit(&cm->check_waiting, memory_order_relaxed) > 0 ||
           (o->rest && groups - o->groups > REST_GROUPS) || cht_committer_full(cm);
}

/* Between the checkpoints of a shard. */
static void order_shard(struct ordering *o, struct cht_shard *sh)
{
    if (!stop_ordering(o) && cht_order_due(sh))
        atomic_fetch_add_explicit(&o->cm->ordered, cht_order_values(sh, stop_ordering, o),
                                  memory_order_relaxed);
}

/* Freezes one shard between two groups and makes the log durable up to there. */
static enum cht_rc begin_shard(struct cht_committer *cm, unsigned i, struct cht_checkpoint **ck,
                               struct cht_err *err)
{
    cht_committer_lock(cm);
    uint64_t seq = cht_wal_seq(cm->db->wal);
    enum cht_rc rc = CHT_OK;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        rc = cht_trouble_stopped(&cm->db->trouble, err);
    if (rc == CHT_OK && cht_wal_synced(cm->db->wal) < seq)
        rc = cht_wal_sync(cm->db->wal, err);
    if (rc == CHT_OK)
        rc = cht_checkpoint_begin(&cm->db->shards[i], seq, ck, err);
    cht_committer_count_dirty(cm);
    cht_committer_unlock(cm);
    cht_followers_tell(cm->db);
    return rc;
}

/* The journal is dropped, unless the checkpoint is unfinished: its space is taken again before anybody else takes it. */
static void end_shard(struct cht_committer *cm, unsigned i)
{
    struct cht_shard *sh = &cm->db->shards[i];
    struct cht_err ignored;
    cht_committer_lock(cm);
    if (sh->journal_busy && sh->unfinished == NULL) {
        sh->journal_busy = false;
        sh->journal_space = sh->reserved_at = 0;
        (void)cht_shard_reserve(sh, &ignored); /* the next group tries again and knows what to do */
    }
    cht_committer_unlock(cm);
}

/* Gives up the log that no shard needs any more. */
static enum cht_rc trim_log(struct cht_committer *cm, struct cht_err *err)
{
    uint64_t trim = UINT64_MAX;
    for (unsigned i = 0; i < cm->db->nshards; i++) {
        uint64_t at = atomic_load_explicit(&cm->db->shards[i].checkpoint_seq, memory_order_acquire);
        trim = at < trim ? at : trim;
    }
    enum cht_rc rc = cht_wal_trim(cm->db->wal, trim, SPARE_SEGMENTS, err);
    tell_room(cm);
    return rc;
}

/* Those of a passing condition leave all as it was. */
static void note_checkpoint(struct cht_committer *cm, enum cht_rc rc, struct cht_err *err)
{
    struct cht_err told;
    atomic_fetch_add_explicit(&cm->checkpoints, 1, memory_order_relaxed);
    if (rc == CHT_OK) {
        cht_trouble_clear(&cm->db->trouble, CHT_TROUBLE_CHECKPOINT);
        return;
    }
    atomic_fetch_add_explicit(&cm->failures, 1, memory_order_relaxed);
    if (cht_rc_passing(rc)) {
        cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_CHECKPOINT, err);
        cht_mutex_lock(&cm->wake_mu);
        if (!cm->checking &&
            !cm->cfg.manual_checkpoint) /* whoever asked for it goes on: check_job tries again */
            want_locked(cm);
        cht_mutex_unlock(&cm->wake_mu);
    } else if (rc != CHT_READ_ONLY)
        (void)cht_committer_stop(cm, err, &told);
}

/* The pause after an attempt that met a passing condition: until it is over, somebody wants one, or another database waits for the
 * thread, but never so short that the attempts keep a processor busy. wake_mu is held. */
static void pause_after(struct cht_committer *cm)
{
    uint64_t end = cht_now_ns() + (RETRY_NS << cm->failed), least = cht_now_ns() + PAUSE_MIN_NS;
    for (uint64_t now = cht_now_ns(); now < end && !cm->check_stop; now = cht_now_ns()) {
        unsigned running, waiting;
        cht_jobs_count(cm->crew->checks, &running, &waiting);
        if (now >= least && (cm->wanted || waiting > 0))
            break;
        uint64_t left = (now < least ? least : end) - now;
        (void)cht_cond_wait_ns(&cm->room, &cm->wake_mu, left < PAUSE_MIN_NS ? left : PAUSE_MIN_NS);
    }
    cm->failed += cm->failed < RETRY_MAX;
    cm->wanted = true;
}

/* The log gets shorter only when the last shard of a checkpoint is done, and nothing is written while all wait for that: so a group
 * waits for one more shard, as long as the log is all there is too much of, and not far too much. */
static bool only_log_long(struct cht_committer *cm)
{
    uint64_t most = cm->cfg.log_limit * 4 > LOG_MOST ? cm->cfg.log_limit * 4 : LOG_MOST;
    return !atomic_load_explicit(&cm->cramped, memory_order_relaxed) &&
           !cht_crew_full(cm->crew, &cm->member) && cht_wal_live(cm->db->wal) <= most;
}

/* by_itself: nobody waits for it. */
static enum cht_rc make_checkpoint(struct cht_committer *cm, bool by_itself, struct cht_err *err)
{
    bool rest = cm->cfg.value_order == CHT_ORDER_RESTING;
    lock_checks(cm);
    struct ordering o = {cm, rest, atomic_load_explicit(&cm->member.groups, memory_order_relaxed)};
    bool order = cm->cfg.value_order == CHT_ORDER_ALWAYS || (rest && by_itself);
    take_back(cm);
    uint64_t start = cht_now_ns();
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < cm->db->nshards && rc == CHT_OK; i++) {
        struct cht_checkpoint *ck = NULL;
        rc = cht_checkpoint_resume(&cm->db->shards[i], err);
        if (rc == CHT_OK && order)
            order_shard(&o, &cm->db->shards[i]);
        if (rc == CHT_OK)
            rc = begin_shard(cm, i, &ck, err);
        if (rc == CHT_OK)
            rc = cht_checkpoint_run(ck, err);
        end_shard(cm, i);
        if (rc == CHT_OK)
            rc = trim_log(cm, err);
    }
    note_checkpoint(cm, rc, err);
    if (rc == CHT_OK) {
        cht_committer_lock(cm);
        cht_committer_reserve(cm, true);
        cht_committer_unlock(cm);
        cht_db_note_size(cm->db);
    }
    atomic_fetch_add_explicit(&cm->checkpoint_ns, cht_now_ns() - start, memory_order_relaxed);
    cht_mutex_unlock(&cm->check_mu);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint64_t cht_db_dirty(struct cht_db *db)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < db->nshards; i++)
        n += atomic_load_explicit(&db->shards[i].dirty_pages, memory_order_relaxed);
    return n * CHT_PAGE;
}

void cht_committer_count_dirty(struct cht_committer *cm)
{
    struct cht_db *db = cm->db;
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        uint64_t n = 0;
        for (int k = 0; k < CHT_PF_KINDS; k++)
            n += sh->pf[k]->dirty_count;
        atomic_store_explicit(&sh->dirty_pages, n, memory_order_relaxed);
    }
    cht_crew_tell(cm->crew, &cm->member, cht_db_dirty(db));
}

bool cht_committer_full(struct cht_committer *cm)
{
    return atomic_load_explicit(&cm->cramped, memory_order_relaxed) || log_over(cm, 2) ||
           cht_crew_full(cm->crew, &cm->member);
}

static enum cht_rc reserve_shards(struct cht_committer *cm, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < cm->db->nshards && rc == CHT_OK; i++)
        rc = cht_shard_reserve(&cm->db->shards[i], err);
    return rc;
}

bool cht_check_give_up(struct cht_crew_member *m)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)m - offsetof(struct cht_committer, member));
    return cht_wal_give_up(cm->db->wal);
}

void cht_committer_reserve(struct cht_committer *cm, bool after_checkpoint)
{
    struct cht_err err = {0};
    enum cht_rc rc = reserve_shards(cm, &err);
    if (rc == CHT_DISK_FULL && cht_crew_give_up(cm->crew)) /* what is kept for changes alone goes first */
        rc = reserve_shards(cm, &err);
    if (rc != CHT_OK && after_checkpoint) /* there is no more room to be made */
        cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_WRITE, &err);
    atomic_store_explicit(&cm->cramped, rc != CHT_OK, memory_order_relaxed);
}

void cht_committer_clear_out(struct cht_committer *cm)
{
    struct cht_err ignored;
    (void)cht_committer_checkpoint(cm, &ignored); /* told as trouble; what else there is may do */
    cht_committer_lock(cm);
    for (unsigned i = 0; i < cm->db->nshards; i++)
        cht_shard_give_tails(&cm->db->shards[i]);
    cht_committer_unlock(cm);
}

void cht_committer_limits(struct cht_committer *cm)
{
    atomic_fetch_add_explicit(&cm->member.groups, 1, memory_order_relaxed);
    if (cm->cfg.manual_checkpoint)
        return;
    if (log_over(cm, 1) || atomic_load_explicit(&cm->cramped, memory_order_relaxed))
        want_checkpoint(cm);
    cht_crew_relieve(cm->crew);
}

enum cht_rc cht_committer_stop(struct cht_committer *cm, const struct cht_err *why, struct cht_err *err)
{
    struct cht_err cause = *why; /* err may be the same */
    cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_STOPPED, &cause);
    atomic_store_explicit(&cm->db->read_only, true, memory_order_release);
    return cht_trouble_stopped(&cm->db->trouble, err);
}

void cht_committer_wait(struct cht_committer *cm, const struct cht_err *why)
{
    cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_WRITE, why);
    cm->pause_ns = cm->full == 0 ? 0 : cht_now_ns() + (RETRY_NS << (cm->full - 1));
    cm->full += cm->full <= RETRY_MAX;
    atomic_store_explicit(&cm->db->read_only, true, memory_order_release);
}

void cht_committer_room(struct cht_committer *cm, struct cht_err *tight)
{
    if (cm->cfg.manual_checkpoint || !cht_committer_full(cm))
        return;
    struct cht_trouble *t = &cm->db->trouble;
    if (atomic_load_explicit(&cm->cramped, memory_order_relaxed) &&
        cht_trouble_age(t, CHT_TROUBLE_WRITE) < RETRY_NS) {
        (void)cht_trouble_get(t, tight); /* a checkpoint has made no room a moment ago */
        return;
    }
    cht_mutex_lock(&cm->wake_mu);
    uint64_t seen = cm->checks_done, shards = cm->shards_done;
    if (cht_trouble_age(t, CHT_TROUBLE_CHECKPOINT) >= RETRY_NS) { /* also if there is no trouble */
        want_locked(cm);
        while (cm->checks_done == seen && cht_committer_full(cm) && !cm->check_stop &&
               (cm->shards_done == shards || !only_log_long(cm)))
            cht_cond_wait(&cm->room, &cm->wake_mu);
    }
    cht_mutex_unlock(&cm->wake_mu);
    if (cht_trouble_is(t, CHT_TROUBLE_CHECKPOINT) && cht_committer_full(cm))
        (void)cht_trouble_get(t, tight); /* STOPPED, which is graver, is told by whoever runs the group */
}

void cht_check_demand(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->wake_mu);
    want_locked(cm);
    cht_mutex_unlock(&cm->wake_mu);
}

void cht_check_run(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, check_job));
    cht_mutex_lock(&cm->wake_mu);
    bool run = !cm->check_stop;
    cm->wanted = false;
    cht_mutex_unlock(&cm->wake_mu);
    struct cht_err err = {0}; /* a failure is told as trouble */
    if (run)
        (void)make_checkpoint(cm, true, &err);
    cht_crew_checked(cm->crew, &cm->member);
    if (run && err.code == CHT_OK)
        cht_crew_relieve(cm->crew); /* the next one, if that was not enough */
    cht_mutex_lock(&cm->wake_mu);
    cm->checks_done++;
    cht_cond_broadcast(&cm->room);
    if (cht_rc_passing(err.code) || (run && cm->refused))
        pause_after(cm);
    else
        cm->failed = 0;
    cm->checking = cm->wanted && !cm->check_stop;
    if (cm->checking)
        cht_jobs_submit(cm->crew->checks, &cm->check_job);
    cht_cond_broadcast(&cm->room);
    cht_mutex_unlock(&cm->wake_mu); /* cm may be gone after this */
}

void cht_check_relieve(struct cht_crew_member *m)
{
    want_checkpoint((struct cht_committer *)(void *)((char *)m - offsetof(struct cht_committer, member)));
}

enum cht_rc cht_committer_checkpoint(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_err local = {0};
    return make_checkpoint(cm, false, err != NULL ? err : &local);
}

void cht_committer_pause(struct cht_committer *cm, bool writers)
{
    lock_checks(cm);
    if (writers)
        cht_committer_lock(cm);
}

void cht_committer_resume(struct cht_committer *cm, bool writers)
{
    if (writers)
        cht_committer_unlock(cm);
    cht_mutex_unlock(&cm->check_mu);
}
