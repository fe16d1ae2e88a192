/* commit: see commit.h. Order of one group, under commit_mu throughout:
 *
 *   G1 wait if the dirty set or the log is twice over its limit, until a checkpoint has made room
 *   G2 reserve log space for the whole group: a full disk is told here, before anything has changed
 *   G3 apply every commit (apply.c), collecting the log record
 *      then tell the watches, before any of it is answered and whether or not G4 succeeds
 *   G4 append the record; fdatasync under durability sync
 *   G5 answer
 *
 * A failure in G4, or an operation that could not be undone, makes the store read-only until it is opened again: what is
 * in memory is then ahead of the log. A checkpoint freezes a shard under commit_mu, so never in the middle of a group.
 *
 * Locking: commit_mu, then shard locks (apply.c) or mu. mu guards the queue and is held for moments only.
 */
#include "store/commit.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/apply.h"
#include "store/crew.h"
#include "store/pagefile_int.h"

#include <stddef.h>
#include <string.h>

#define GROUP_OPS 65536u
#define GROUP_BYTES (64u << 20)
#define SPARE_SEGMENTS 2u
#define LEAD_TURNS 16u /* groups after which a thread looks whether another database waits for one */
#define SMALL_OPS 256u
#define SMALL_BYTES (256u << 10)

struct cht_committer {
    struct cht_local *db;
    struct cht_commit_config cfg; /* set at open, then read-only */

    struct cht_mutex commit_mu; /* serialises groups, and the freeze of a checkpoint against them */
    struct cht_apply apply;     /* guarded by commit_mu */

    struct cht_crew *crew; /* borrowed; set at open, then read-only */
    struct cht_crew_member member;

    struct cht_mutex mu;
    struct cht_cond rest;            /* nobody leads any more */
    struct cht_commit *head, **tail; /* guarded by mu */
    bool leading;                    /* guarded by mu: someone takes groups, or lead_job is queued to do so */
    struct cht_job lead_job;         /* of whoever leads */

    struct cht_mutex check_mu;         /* one checkpoint at a time */
    struct cht_mutex wake_mu;          /* guards the next four */
    struct cht_cond room;              /* a checkpoint ended */
    bool wanted, checking, check_stop; /* checking: check_job is queued or runs */
    uint64_t checks_done;              /* bumped at the end of each attempt */
    struct cht_job check_job;

    _Atomic uint64_t commits, operations, groups, syncs, sync_ns, checkpoints, checkpoint_ns, inserted;
};

struct waiter {
    struct cht_mutex mu;
    struct cht_cond cond;
    bool done;
};

uint64_t cht_local_dirty(struct cht_local *db)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < db->nshards; i++)
        n += atomic_load_explicit(&db->shards[i].dirty_pages, memory_order_relaxed);
    return n * CHT_PAGE;
}

/* Only for the thread that holds commit_mu or the shard's lock. */
static void count_dirty(struct cht_committer *cm)
{
    struct cht_local *db = cm->db;
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        uint64_t n = 0;
        for (int k = 0; k < CHT_PF_KINDS; k++)
            n += sh->pf[k]->dirty_count;
        atomic_store_explicit(&sh->dirty_pages, n, memory_order_relaxed);
    }
    cht_crew_tell(cm->crew, &cm->member, cht_local_dirty(db));
}

static bool log_over(struct cht_committer *cm, unsigned times)
{
    return cht_wal_live(cm->db->wal) > cm->cfg.log_limit * times;
}

/* No commit may go on before a checkpoint has made room. */
static bool full(struct cht_committer *cm) { return log_over(cm, 2) || cht_crew_full(cm->crew, &cm->member); }

static void want_locked(struct cht_committer *cm)
{
    cm->wanted = true;
    if (!cm->checking && !cm->check_stop) {
        cm->checking = true;
        cht_jobs_submit(cm->crew->checks, &cm->check_job);
    }
}

static void want_checkpoint(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->wake_mu);
    want_locked(cm);
    cht_mutex_unlock(&cm->wake_mu);
}

/* After a group: the log's limit is each database's own, that of changed memory is of all together. */
static void check_limits(struct cht_committer *cm)
{
    if (cm->cfg.manual_checkpoint)
        return;
    if (log_over(cm, 1))
        want_checkpoint(cm);
    cht_crew_relieve(cm->crew);
}

static enum cht_rc stop_writing(struct cht_committer *cm, const struct cht_err *why, struct cht_err *err)
{
    atomic_store_explicit(&cm->db->read_only, true, memory_order_release);
    return CHT_FAIL(err, CHT_READ_ONLY, "writing stopped until restart: %.150s", why->msg);
}

/* G1: at most until the checkpoint that is asked for here has ended, successful or not. Called without commit_mu. */
static void make_room(struct cht_committer *cm)
{
    if (cm->cfg.manual_checkpoint || !full(cm))
        return;
    cht_mutex_lock(&cm->wake_mu);
    uint64_t seen = cm->checks_done;
    want_locked(cm);
    while (cm->checks_done == seen && !cm->check_stop)
        cht_cond_wait(&cm->room, &cm->wake_mu);
    cht_mutex_unlock(&cm->wake_mu);
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
    if (rc == CHT_OK)
        rc = cht_wal_append(cm->db->wal, parts, n, &seq, err);
    if (rc == CHT_OK && cm->cfg.durability == CHT_DURABLE_SYNC) {
        uint64_t start = cht_now_ns();
        rc = cht_wal_sync(cm->db->wal, err);
        atomic_fetch_add_explicit(&cm->syncs, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&cm->sync_ns, cht_now_ns() - start, memory_order_relaxed);
    }
    if (rc == CHT_OK && cm->cfg.durability == CHT_DURABLE_INTERVAL)
        cht_crew_tick(cm->crew, &cm->member);
    return rc;
}

/* G2 to G4 for a list of commits. */
static void run_group(struct cht_committer *cm, struct cht_commit *list)
{
    struct cht_apply *a = &cm->apply;
    struct cht_err err = {0};
    uint64_t bound = 0, ops = 0, commits = 0;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire)) {
        (void)CHT_FAIL(&err, CHT_READ_ONLY, "writing stopped after a disk fault; restart recovers");
        fail_group(list, &err);
        return;
    }
    for (struct cht_commit *c = list; c != NULL; c = c->next) {
        bound += cht_apply_log_bound(cm->db, c);
        ops += c->count;
        commits++;
    }
    enum cht_rc rc = cht_wal_reserve(cm->db->wal, bound, &err);
    if (rc != CHT_OK) {
        struct cht_err why = err;
        if (rc != CHT_DISK_FULL && rc != CHT_NO_MEMORY)
            (void)stop_writing(cm, &why, &err);
        fail_group(list, &err);
        return;
    }
    cht_logbuf_clear(&a->log);
    a->inserted = 0;
    for (struct cht_commit *c = list; c != NULL; c = c->next)
        cht_apply_commit(a, c);
    cht_apply_release(a);
    cht_watches_report(cm->db->watches, list, a->stuck);
    rc = a->stuck ? CHT_IO : log_group(cm, &err);
    if (rc != CHT_OK) {
        struct cht_err why = a->stuck ? a->stuck_err : err;
        (void)stop_writing(cm, &why, &err);
        fail_group(list, &err);
        return;
    }
    cht_apply_trim(a);
    count_dirty(cm);
    atomic_fetch_add_explicit(&cm->commits, commits, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->operations, ops, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->groups, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->inserted, a->inserted, memory_order_relaxed);
}

/* One group, if anything waits; false if not. */
static bool lead_once(struct cht_committer *cm)
{
    make_room(cm);
    cht_mutex_lock(&cm->commit_mu);
    struct cht_commit *list = take_group(cm);
    if (list != NULL)
        run_group(cm, list);
    cht_mutex_unlock(&cm->commit_mu);
    bool any = list != NULL;
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        c->done(c); /* c may be gone after this */
    }
    if (any)
        check_limits(cm);
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

static void check_run(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, check_job));
    cht_mutex_lock(&cm->wake_mu);
    bool run = !cm->check_stop;
    cm->wanted = false;
    cht_mutex_unlock(&cm->wake_mu);
    struct cht_err err = {0};
    if (run)
        (void)cht_committer_checkpoint(
            cm, &err); /* a failure shows in read_only; without memory it is tried again */
    cht_crew_checked(cm->crew, &cm->member);
    if (run && err.code == CHT_OK)
        cht_crew_relieve(cm->crew); /* the next one, if that was not enough */
    cht_mutex_lock(&cm->wake_mu);
    cm->checks_done++;
    cm->checking = cm->wanted && !cm->check_stop;
    if (cm->checking)
        cht_jobs_submit(cm->crew->checks, &cm->check_job);
    cht_cond_broadcast(&cm->room);
    cht_mutex_unlock(&cm->wake_mu); /* cm may be gone after this */
}

static void relieve(struct cht_crew_member *m)
{
    want_checkpoint((struct cht_committer *)(void *)((char *)m - offsetof(struct cht_committer, member)));
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
        if (rc != CHT_OK)
            (void)stop_writing(cm, &err, &told);
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

enum cht_rc cht_committer_new(struct cht_local *db, const struct cht_commit_config *cfg,
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
    cm->check_job.run = check_run;
    cm->member.relieve = relieve;
    cm->member.sync = sync_run;
    cht_crew_join(cm->crew, &cm->member);
    enum cht_rc rc = init_locks(cm, err);
    if (rc == CHT_OK)
        rc = cht_apply_init(&cm->apply, db, cfg->max_value, cfg->threads, err);
    if (rc != CHT_OK) {
        cht_committer_free(cm);
        return rc;
    }
    count_dirty(cm); /* what a recovery has redone */
    check_limits(cm);
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
        if (op->kind == CHT_OP_PREFIX_DEL || (op->kind == CHT_OP_RESERVE && op->key > SMALL_OPS))
            return false;
        bytes += op->name.n + op->value.n;
    }
    return c->count <= SMALL_OPS && bytes <= SMALL_BYTES;
}

/* The whole of a commit by the caller, if it is small and nothing would make it wait: no sync, no other group, no checkpoint's
 * freeze. */
static bool run_at_once(struct cht_committer *cm, struct cht_commit *c)
{
    if (cm->cfg.durability == CHT_DURABLE_SYNC || !is_small(c) || full(cm) || !cht_mutex_try(&cm->commit_mu))
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
        run_group(cm, c);
    }
    cht_mutex_unlock(&cm->commit_mu);
    if (!mine)
        return false;
    check_limits(cm);
    stop_leading(cm);
    return true;
}

enum cht_rc cht_committer_submit(struct cht_committer *cm, struct cht_commit *c)
{
    if ((c->flags & CHT_COMMIT_INLINE) != 0 && run_at_once(cm, c))
        return c->rc;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        return CHT_FAIL(&c->err, CHT_READ_ONLY, "writing stopped after a disk fault; restart recovers");
    (void)enqueue(cm, c, false);
    return CHT_PENDING;
}

/* Freezes one shard between two groups and makes the log durable up to there. */
static enum cht_rc begin_shard(struct cht_committer *cm, unsigned i, struct cht_checkpoint **ck,
                               struct cht_err *err)
{
    cht_mutex_lock(&cm->commit_mu);
    uint64_t seq = cht_wal_seq(cm->db->wal);
    enum cht_rc rc = CHT_OK;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        rc = CHT_FAIL(err, CHT_READ_ONLY, "writing stopped after a disk fault; restart recovers");
    if (rc == CHT_OK && cht_wal_synced(cm->db->wal) < seq)
        rc = cht_wal_sync(cm->db->wal, err);
    if (rc == CHT_OK)
        rc = cht_checkpoint_begin(&cm->db->shards[i], seq, ck, err);
    count_dirty(cm);
    cht_mutex_unlock(&cm->commit_mu);
    return rc;
}

enum cht_rc cht_committer_checkpoint(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_err local = {0};
    if (err == NULL)
        err = &local;
    cht_mutex_lock(&cm->check_mu);
    uint64_t start = cht_now_ns(), trim = UINT64_MAX;
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < cm->db->nshards && rc == CHT_OK; i++) {
        struct cht_shard *sh = &cm->db->shards[i];
        struct cht_checkpoint *ck;
        rc = begin_shard(cm, i, &ck, err);
        if (rc == CHT_OK)
            rc = cht_checkpoint_run(ck, err);
        uint64_t at = atomic_load_explicit(&sh->checkpoint_seq, memory_order_acquire);
        trim = at < trim ? at : trim;
    }
    if (rc == CHT_OK)
        rc = cht_wal_trim(cm->db->wal, trim, SPARE_SEGMENTS, err);
    if (rc != CHT_OK && rc != CHT_NO_MEMORY && rc != CHT_READ_ONLY) {
        struct cht_err why = *err;
        atomic_store_explicit(&cm->db->read_only, true, memory_order_release);
        *err = why;
    }
    atomic_fetch_add_explicit(&cm->checkpoints, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->checkpoint_ns, cht_now_ns() - start, memory_order_relaxed);
    cht_mutex_unlock(&cm->check_mu);
    return rc;
}

void cht_committer_stats(struct cht_committer *cm, struct cht_store_stats *out)
{
    out->commits = atomic_load_explicit(&cm->commits, memory_order_relaxed);
    out->operations = atomic_load_explicit(&cm->operations, memory_order_relaxed);
    out->groups = atomic_load_explicit(&cm->groups, memory_order_relaxed);
    out->syncs = atomic_load_explicit(&cm->syncs, memory_order_relaxed);
    out->sync_ns = atomic_load_explicit(&cm->sync_ns, memory_order_relaxed);
    out->checkpoints = atomic_load_explicit(&cm->checkpoints, memory_order_relaxed);
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
