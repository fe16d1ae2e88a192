/* commit: see commit.h; checkpoints are in commit_check.c. Order of one group, under commit_mu throughout:
 *
 *   G1 wait if the dirty set or the log is twice over its limit, until a checkpoint has made room
 *   G2 reserve log space for the whole group: a full disk is told here, before anything has changed. What needs room is then
 *      refused, what frees some goes on; so it is if no checkpoint can be made in G1
 *   G3 apply every commit (apply.c), collecting the log record; under durability sync (of any commit of the group) each name and key that changes is
 *      marked, and point reads that meet a mark wait for the group (durable.h)
 *      then tell the watches, before any of it is answered and whether or not G4 succeeds
 *   G4 append the record; fdatasync likewise; the group is decided
 *   G5 answer
 *
 * After a failure in G4, or an operation that could not be undone, what is in memory is ahead of the log, and nothing is
 * written: until the group is taken back if the append met a passing condition (no room) and F1 succeeds, otherwise until the
 * database is opened again:
 *
 *   F1 the record is written over, and that is synced (cht_wal_revoke): then no start will find it, and the group has never
 *      been. Otherwise nobody can know before the next start (after a failed sync the disk may have the record, a part of it, or
 *      nothing; asking again would only be told what the page cache has): the commits are answered with OUTCOME_UNKNOWN,
 *      and reads of what they touched with the same
 *   F2 all shards are fenced, the commits are answered
 *   F3 the pages are taken back by the thread that takes checkpoints (takeback.c); point reads wait until then, scans fail
 *
 * A checkpoint that meets a passing condition (no room, no memory, no descriptor) changes nothing and is tried again after a
 * pause. A checkpoint freezes a shard under commit_mu, so never in the middle of a group.
 *
 * Locking: commit_mu, then shard locks (apply.c) or mu. mu guards the queue and is held for moments only.
 */
#include "store/commit_int.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <stddef.h>
#include <string.h>

#define GROUP_OPS 65536u
#define GROUP_BYTES (64u << 20)
#define LEAD_TURNS 16u /* groups after which a thread looks whether another database waits for one */
#define SMALL_OPS 256u
#define LONG_OPS 4096u
#define SMALL_BYTES (256u << 10)

struct waiter {
    struct cht_mutex mu;
    struct cht_cond cond;
    bool done;
};

/* The stricter the less. */
_Static_assert(CHT_DURABLE_SYNC < CHT_DURABLE_INTERVAL && CHT_DURABLE_INTERVAL < CHT_DURABLE_OS,
               "their order");

static enum cht_durability mode_of(const struct cht_committer *cm, const struct cht_commit *c)
{
    return (c->flags & CHT_COMMIT_SYNC) != 0       ? CHT_DURABLE_SYNC
           : (c->flags & CHT_COMMIT_INTERVAL) != 0 ? CHT_DURABLE_INTERVAL
                                                   : cm->cfg.durability;
}

/* Takes the queue, at most one group's worth. */
static struct cht_commit *take_group(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    struct cht_commit *list = cm->head, **end = &list;
    uint64_t ops = 0, bytes = 0;
    while (*end != NULL && (end == &list || (ops < GROUP_OPS && bytes < GROUP_BYTES))) {
        ops += (*end)->count;
        for (size_t i = 0; i < (*end)->count; i++)
            bytes += (*end)->ops[i].value.n + (*end)->ops[i].name.n;
        end = &(*end)->next;
    }
    cm->head = *end;
    *end = NULL;
    if (cm->head == NULL)
        cm->tail = &cm->head;
    cht_mutex_unlock(&cm->mu);
    return list;
}

static void fail_group(struct cht_commit *list, const struct cht_err *err)
{
    for (struct cht_commit *c = list; c != NULL; c = c->next) {
        c->rc = err->code;
        c->err = *err;
    }
}

/* Operations refused for want of room are a trouble; one that took some ends it. */
static void note_refused(struct cht_committer *cm, const struct cht_commit *list)
{
    for (const struct cht_commit *c = list; c != NULL; c = c->next) {
        if (!cht_rc_passing(c->err.code))
            continue;
        cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_WRITE, &c->err);
        if (c->err.code == CHT_DISK_FULL) /* what was deleted before gives space back then */
            atomic_store_explicit(&cm->cramped, true, memory_order_relaxed);
        return;
    }
    if (cm->apply.inserted > 0 && !atomic_load_explicit(&cm->cramped, memory_order_relaxed))
        cht_trouble_clear(&cm->db->trouble, CHT_TROUBLE_WRITE);
}

/* G4. */
static enum cht_rc log_group(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_apply *a = &cm->apply;
    if (a->log.bytes == 0)
        return CHT_OK;
    size_t n;
    uint64_t seq;
    enum cht_rc rc =
        cht_wal_reserve(cm->db->wal, a->log.bytes, err); /* nothing to do unless G2 guessed too low */
    const struct cht_wal_part *parts = cht_logbuf_parts(&a->log, &n);
    cm->logged = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_wal_append(cm->db->wal, parts, n, &seq, err);
    if (rc == CHT_OK && cm->mode == CHT_DURABLE_SYNC) {
        uint64_t start = cht_now_ns();
        rc = cht_wal_sync(cm->db->wal, err);
        atomic_fetch_add_explicit(&cm->syncs, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&cm->sync_ns, cht_now_ns() - start, memory_order_relaxed);
    }
    if (rc == CHT_OK && cm->mode == CHT_DURABLE_INTERVAL)
        cht_crew_tick(cm->crew, &cm->member);
    return rc;
}

/* Will it hold locks for more than a few milliseconds? Counting reads all shards: the locks of the commits before are released. */
static bool holds_long(struct cht_committer *cm, const struct cht_commit *c)
{
    if ((c->flags & CHT_COMMIT_ATOMIC) != 0 && c->count > LONG_OPS)
        return true;
    for (size_t i = 0; i < c->count; i++) {
        const struct cht_op *op = &c->ops[i];
        uint64_t under = 0;
        if (op->kind == CHT_OP_RESERVE && op->key > LONG_OPS)
            return true;
        if (op->kind != CHT_OP_PREFIX_DEL)
            continue;
        cht_apply_release(&cm->apply);
        if (cht_store_count(&cm->db->base, op->name, &under, NULL) != CHT_OK || under > LONG_OPS)
            return true;
    }
    return false;
}

/* Readers and tasks of the database that must not wait for such locks are told later (calm.h). */
static void apply_commit(struct cht_committer *cm, struct cht_commit *c)
{
    struct cht_apply *a = &cm->apply;
    bool quiet = holds_long(cm, c);
    if (quiet) {
        cht_apply_release(a);
        cht_calm_begin(&cm->db->calm);
    }
    cht_apply_commit(a, c);
    if (quiet) {
        cht_apply_release(a);
        cht_calm_end(&cm->db->calm);
    }
}

/* F1 and F2 but for the answers, which get err. Under the other durabilities no name is marked: if it is not known what the log
 * has, all are. */
static void refuse_group(struct cht_committer *cm, uint64_t good, struct cht_err *err)
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
    cm->good = good;
    cm->refused = true;
    cht_check_demand(cm);
}

/* G3 and G4 for a list of commits. */
static void run_group(struct cht_committer *cm, struct cht_commit *list)
{
    struct cht_apply *a = &cm->apply;
    struct cht_err err = {0};
    uint64_t ops = 0, commits = 0;
    uint64_t good = cht_wal_seq(cm->db->wal);
    cht_logbuf_clear(&a->log);
    a->inserted = 0;
    cm->logged = false;
    cm->mode = CHT_DURABLE_OS;
    for (const struct cht_commit *c = list; c != NULL; c = c->next)
        cm->mode = mode_of(cm, c) < cm->mode ? mode_of(cm, c) : cm->mode;
    a->group = cm->mode == CHT_DURABLE_SYNC ? ++cm->group : 0;
    for (struct cht_commit *c = list; c != NULL; c = c->next) {
        apply_commit(cm, c);
        ops += c->count;
        commits++;
    }
    cht_apply_release(a);
    cht_watches_report(cm->db->watches, list, a->stuck);
    enum cht_rc rc = a->stuck ? CHT_IO : log_group(cm, &err);
    if (rc != CHT_OK) {
        refuse_group(cm, good, &err);
        fail_group(list, &err);
        return;
    }
    cm->full = 0;
    if (a->group != 0)
        cht_durable_decide(&cm->db->durable, a->group);
    cht_db_show_next_key(cm->db);
    cht_apply_trim(a);
    cht_committer_count_dirty(cm);
    cht_committer_reserve(cm, false);
    note_refused(cm, list);
    atomic_fetch_add_explicit(&cm->commits, commits, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->operations, ops, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->groups, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->inserted, a->inserted, memory_order_relaxed);
}

/* G2. A failure has changed nothing, but for an I/O error, after which nobody knows. */
static enum cht_rc reserve_log(struct cht_committer *cm, const struct cht_commit *list, struct cht_err *err)
{
    uint64_t bound = 0;
    for (const struct cht_commit *c = list; c != NULL; c = c->next)
        bound += cht_apply_log_bound(cm->db, c);
    enum cht_rc rc = cht_wal_reserve(cm->db->wal, bound, err);
    if (rc == CHT_IO || (rc != CHT_OK && cht_wal_broken(cm->db->wal)))
        return cht_committer_stop(cm, err, err);
    if (rc != CHT_OK)
        cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_WRITE, err);
    return rc;
}

/* Takes the commits that need room out of a list and refuses them. */
static struct cht_commit *refuse_growth(struct cht_commit *list, const struct cht_err *why,
                                        struct cht_commit **refused)
{
    struct cht_commit *rest = NULL, **end = &rest;
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        if (cht_apply_frees(c)) {
            *end = c;
            end = &c->next;
        } else {
            fail_group(c, why);
            c->next = *refused;
            *refused = c;
        }
    }
    return rest;
}

/* A group that the log had no room for is taken back with all reads waiting: it is not tried again and again without a pause. */
static bool pausing(struct cht_committer *cm)
{
    if (cm->pause_ns == 0)
        return false;
    if (cht_now_ns() < cm->pause_ns && cht_trouble_is(&cm->db->trouble, CHT_TROUBLE_WRITE))
        return true;
    cm->pause_ns = 0;
    return false;
}

/* G2 to G4 for what was taken from the queue. tight: why nothing that needs room may be run; CHT_OK: it may. may_wait: for room for
 * those that delete; commit_mu is released meanwhile. Returns the list, perhaps in another order. */
static struct cht_commit *run_list(struct cht_committer *cm, struct cht_commit *list,
                                   const struct cht_err *tight, bool may_wait)
{
    struct cht_err err = *tight;
    struct cht_commit *refused = NULL, *all;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire) || pausing(cm)) {
        (void)cht_trouble_stopped(&cm->db->trouble, &err);
        fail_group(list, &err);
        return list;
    }
    enum cht_rc rc = err.code != CHT_OK ? err.code : reserve_log(cm, list, &err);
    if (rc != CHT_OK && rc != CHT_READ_ONLY) {
        list = refuse_growth(list, &err, &refused);
        rc = list == NULL ? CHT_OK : reserve_log(cm, list, &err);
        if (rc == CHT_DISK_FULL && may_wait) {
            cht_mutex_unlock(&cm->commit_mu);
            cht_committer_clear_out(cm);
            cht_mutex_lock(&cm->commit_mu);
            rc = reserve_log(cm, list, &err);
        }
    }
    if (rc != CHT_OK)
        fail_group(list, &err);
    else if (list != NULL)
        run_group(cm, list);
    if (list == NULL)
        return refused;
    for (all = list; all->next != NULL;)
        all = all->next;
    all->next = refused;
    return list;
}

/* One group, if anything waits; false if not. */
static bool lead_once(struct cht_committer *cm)
{
    struct cht_err tight = {0};
    cht_committer_room(cm, &tight);
    cht_mutex_lock(&cm->commit_mu);
    struct cht_commit *list = take_group(cm);
    if (list != NULL)
        list = run_list(cm, list, &tight, true);
    cht_mutex_unlock(&cm->commit_mu);
    bool any = list != NULL;
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        c->done(c); /* c may be gone after this */
    }
    if (any)
        cht_committer_limits(cm);
    return any;
}

/* Gives the leadership up, or over to a thread if more has come in. */
static void stop_leading(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    if (cm->head != NULL) {
        cht_jobs_submit(cm->crew->commits, &cm->lead_job);
    } else {
        cm->leading = false;
        cht_cond_broadcast(&cm->rest);
    }
    cht_mutex_unlock(&cm->mu);
}

/* Queues; true if the caller now leads. */
static bool enqueue(struct cht_committer *cm, struct cht_commit *c, bool may_lead)
{
    bool lead = false;
    c->next = NULL;
    c->rc = CHT_OK;
    c->failed = 0;
    memset(&c->err, 0, sizeof c->err);
    cht_mutex_lock(&cm->mu);
    *cm->tail = c;
    cm->tail = &c->next;
    if (!cm->leading) {
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
    unsigned turns = 0, running, waiting = 0;
    while (waiting == 0 && lead_once(cm)) {
        if (++turns % LEAD_TURNS == 0)
            cht_jobs_count(cm->crew->commits, &running, &waiting);
    }
    stop_leading(cm); /* cm may be gone after this */
}

static void sync_run(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, member.sync_job));
    struct cht_err err = {0}, told;
    uint64_t start = cht_now_ns();
    enum cht_rc rc = CHT_OK;
    if (cht_wal_synced(cm->db->wal) < cht_wal_seq(cm->db->wal)) {
        rc = cht_wal_sync(cm->db->wal, &err);
        if (rc ==
            CHT_READ_ONLY) /* an append has failed, whose group may be taken back: then writing goes on */
            rc = cht_trouble_is(&cm->db->trouble, CHT_TROUBLE_STOPPED) ? rc : CHT_OK;
        else if (rc != CHT_OK)
            (void)cht_committer_stop(cm, &err, &told);
        atomic_fetch_add_explicit(&cm->syncs, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&cm->sync_ns, cht_now_ns() - start, memory_order_relaxed);
    }
    cht_crew_synced(cm->crew, &cm->member,
                    rc == CHT_OK && cht_wal_synced(cm->db->wal) < cht_wal_seq(cm->db->wal));
}

static void wake_waiter(struct cht_commit *c)
{
    struct waiter *w = c->ctx;
    cht_mutex_lock(&w->mu);
    w->done = true;
    cht_cond_signal(&w->cond);
    cht_mutex_unlock(&w->mu);
}

static enum cht_rc init_locks(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_mutex *mutexes[] = {&cm->commit_mu, &cm->mu, &cm->check_mu, &cm->wake_mu};
    struct cht_cond *conds[] = {&cm->rest, &cm->room};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < 4 && rc == CHT_OK; i++)
        rc = cht_mutex_init(mutexes[i], err);
    for (size_t i = 0; i < 2 && rc == CHT_OK; i++)
        rc = cht_cond_init(conds[i], err);
    return rc; /* initialised ones hold no resources on this system: nothing to undo */
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_committer_new(struct cht_db *db, const struct cht_commit_config *cfg,
                              struct cht_committer **out, struct cht_err *err)
{
    struct cht_committer *cm = cht_calloc(1, sizeof *cm);
    if (cm == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the committer");
    cm->db = db;
    cm->cfg = *cfg;
    cm->crew = cfg->crew;
    cm->tail = &cm->head;
    cm->lead_job.run = lead_run;
    cm->check_job.run = cht_check_run;
    cm->member.relieve = cht_check_relieve;
    cm->member.sync = sync_run;
    cht_crew_join(cm->crew, &cm->member);
    enum cht_rc rc = init_locks(cm, err);
    if (rc == CHT_OK)
        rc = cht_apply_init(&cm->apply, db, cfg->max_value, cfg->threads, err);
    if (rc != CHT_OK) {
        cht_committer_free(cm);
        return rc;
    }
    cht_committer_count_dirty(cm); /* what a recovery has redone */
    if (cht_db_dirty(db) > 0)
        cht_committer_reserve(cm, false);
    cht_committer_limits(cm);
    *out = cm;
    return CHT_OK;
}

void cht_committer_free(struct cht_committer *cm)
{
    if (cm == NULL)
        return;
    cht_mutex_lock(&cm->mu);
    while (cm->leading)
        cht_cond_wait(&cm->rest, &cm->mu);
    cht_mutex_unlock(&cm->mu);
    cht_mutex_lock(&cm->wake_mu);
    cm->check_stop = true;
    cht_cond_broadcast(&cm->room); /* the pause of one that failed */
    while (cm->checking)
        cht_cond_wait(&cm->room, &cm->wake_mu);
    cht_mutex_unlock(&cm->wake_mu);
    cht_crew_leave(cm->crew, &cm->member);
    cht_apply_fini(&cm->apply);
    cht_mutex_fini(&cm->commit_mu);
    cht_mutex_fini(&cm->mu);
    cht_mutex_fini(&cm->check_mu);
    cht_mutex_fini(&cm->wake_mu);
    cht_cond_fini(&cm->rest);
    cht_cond_fini(&cm->room);
    cht_free(cm);
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
    if (enqueue(cm, c, true)) {
        (void)lead_once(
            cm); /* takes at least this commit: the queue is taken from its head and this was alone in it */
        stop_leading(cm);
    }
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

/* Done in less than about a millisecond, whatever the database holds? */
static bool is_small(const struct cht_commit *c)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->count && i < SMALL_OPS; i++) {
        const struct cht_op *op = &c->ops[i];
        if (op->kind == CHT_OP_PREFIX_DEL || (op->kind == CHT_OP_RESERVE && op->key > SMALL_OPS) ||
            (op->ask != NULL && op->ask->extends))
            return false;
        bytes += op->name.n + op->value.n;
    }
    return c->count <= SMALL_OPS && bytes <= SMALL_BYTES;
}

/* The whole of a commit by the caller, if it is small and nothing would make it wait: no sync, no other group, no checkpoint's
 * freeze. */
static bool run_at_once(struct cht_committer *cm, struct cht_commit *c)
{
    if (mode_of(cm, c) == CHT_DURABLE_SYNC || !is_small(c) || cht_committer_full(cm) ||
        cht_trouble_is(&cm->db->trouble, CHT_TROUBLE_WRITE) || !cht_mutex_try(&cm->commit_mu))
        return false;
    cht_mutex_lock(&cm->mu);
    bool mine = !cm->leading && cm->head == NULL;
    if (mine)
        cm->leading = true;
    cht_mutex_unlock(&cm->mu);
    if (mine) {
        c->next = NULL;
        c->rc = CHT_OK;
        c->failed = 0;
        memset(&c->err, 0, sizeof c->err);
        (void)run_list(cm, c, &(struct cht_err){0}, false); /* of one commit the same */
    }
    cht_mutex_unlock(&cm->commit_mu);
    if (!mine)
        return false;
    cht_committer_limits(cm);
    stop_leading(cm);
    return true;
}

enum cht_rc cht_committer_submit(struct cht_committer *cm, struct cht_commit *c)
{
    if ((c->flags & CHT_COMMIT_INLINE) != 0 && run_at_once(cm, c))
        return c->rc;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        return cht_trouble_stopped(&cm->db->trouble, &c->err);
    (void)enqueue(cm, c, false);
    return CHT_PENDING;
}

void cht_committer_stats(struct cht_committer *cm, struct cht_store_stats *out)
{
    out->commits = atomic_load_explicit(&cm->commits, memory_order_relaxed);
    out->operations = atomic_load_explicit(&cm->operations, memory_order_relaxed);
    out->groups = atomic_load_explicit(&cm->groups, memory_order_relaxed);
    out->syncs = atomic_load_explicit(&cm->syncs, memory_order_relaxed);
    out->sync_ns = atomic_load_explicit(&cm->sync_ns, memory_order_relaxed);
    out->checkpoints = atomic_load_explicit(&cm->checkpoints, memory_order_relaxed);
    out->checkpoints_failed = atomic_load_explicit(&cm->failures, memory_order_relaxed);
    out->checkpoint_ns = atomic_load_explicit(&cm->checkpoint_ns, memory_order_relaxed);
    out->bytes_inserted = atomic_load_explicit(&cm->inserted, memory_order_relaxed);
}

void cht_committer_pause(struct cht_committer *cm, bool writers)
{
    cht_mutex_lock(&cm->check_mu);
    if (writers)
        cht_mutex_lock(&cm->commit_mu);
}

void cht_committer_resume(struct cht_committer *cm, bool writers)
{
    if (writers)
        cht_mutex_unlock(&cm->commit_mu);
    cht_mutex_unlock(&cm->check_mu);
}
