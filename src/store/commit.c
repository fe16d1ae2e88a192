/* commit: groups of commits, see commit.h; who runs them is in commit_lead.c, checkpoints are in commit_check.c. Order of one group, under commit_mu up to G4:
 *
 *   G1 wait if the dirty set or the log is twice over its limit, until a checkpoint has made room
 *   G2 reserve log space for the whole group: a full disk is told here, before anything has changed. What needs room is then
 *      refused, what frees some goes on; so it is if no checkpoint can be made in G1
 *   G3 apply every commit (apply.c), collecting the log record; under durability sync (of any commit of the group) each name and key that changes is
 *      marked, and point reads that meet a mark wait for the group (durable.h)
 *      then tell the watches, before any of it is answered and whether or not G4 succeeds
 *   G4 append the record
 *   G5 under sync, fdatasync, without commit_mu: meanwhile the next group begins (commit_pipe.c); the group is decided
 *   G6 answer
 *
 * After a failure in G4 or G5, or an operation that could not be undone, what is in memory is ahead of the log, and nothing is
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

#include "base/clock.h"

#define GROUP_OPS 65536u
#define GROUP_BYTES (64u << 20)
#define LONG_OPS 4096u

/* The stricter the less. */
_Static_assert(CHT_DURABLE_SYNC < CHT_DURABLE_INTERVAL && CHT_DURABLE_INTERVAL < CHT_DURABLE_OS,
               "their order");

/* Takes the queue, at most one group's worth. */
static struct cht_commit *take_group(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    struct cht_commit *list = cm->head, **end = &list;
    uint64_t ops = 0, bytes = 0;
    while (*end != NULL &&
           (end == &list || (ops < GROUP_OPS && bytes < GROUP_BYTES && (*end)->many == NULL))) {
        cm->queued -= cht_commit_weight(*end);
        ops += (*end)->many != NULL ? GROUP_OPS : (*end)->count; /* they are a group of their own */
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

/* Operations refused for want of room are a trouble; one that took some ends it. */
static void note_refused(struct cht_committer *cm, const struct cht_commit *list)
{
    for (const struct cht_commit *c = list; c != NULL; c = c->next) {
        if (!cht_rc_passing(c->err.code))
            continue;
        cht_trouble_set(&cm->db->trouble, CHT_TROUBLE_WRITE, &c->err);
        if (c->err.code == CHT_DISK_FULL) { /* what was deleted before gives space back then */
            atomic_store_explicit(&cm->cramped, true, memory_order_relaxed);
            (void)cht_crew_give_up(cm->crew);
        }
        return;
    }
    if (cm->apply.inserted > 0 && !atomic_load_explicit(&cm->cramped, memory_order_relaxed))
        cht_trouble_clear(&cm->db->trouble, CHT_TROUBLE_WRITE);
}

/* G4, and G5 if it is not to be done by the syncer. */
static enum cht_rc log_group(struct cht_committer *cm, bool later, struct cht_err *err)
{
    struct cht_apply *a = &cm->apply;
    if (a->log.bytes + a->made.bytes == 0)
        return CHT_OK;
    size_t n;
    uint64_t seq;
    const struct cht_wal_made made = {a->made.bytes, a->made.after, cht_many_fill, &a->made};
    enum cht_rc rc = cht_wal_reserve(cm->db->wal, a->log.bytes + a->made.bytes,
                                     err); /* nothing to do unless G2 guessed too low */
    const struct cht_wal_part *parts = cht_logbuf_parts(&a->log, &n);
    cm->logged = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_wal_append_made(cm->db->wal, parts, n, made.n > 0 ? &made : NULL, &seq, err);
    if (rc == CHT_OK && cm->mode == CHT_DURABLE_SYNC && !later) {
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
    if (c->many != NULL || ((c->flags & CHT_COMMIT_ATOMIC) != 0 && c->count > LONG_OPS))
        return true;
    for (size_t i = 0; i < c->count; i++) {
        const struct cht_op *op = &c->ops[i];
        uint64_t under = 0;
        if (op->kind == CHT_OP_RESERVE && op->key > LONG_OPS)
            return true;
        if (op->kind != CHT_OP_PREFIX_DEL)
            continue;
        cht_apply_release(&cm->apply);
        if (cht_store_count_soon(&cm->db->base, op->name, &under, &cht_ahead, NULL) != CHT_OK ||
            under > LONG_OPS)
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

/* It is in the log. */
static void note_logged(struct cht_committer *cm, const struct cht_commit *list)
{
    cm->full = 0;
    cht_committer_note_ends(cm);
    cht_apply_trim(&cm->apply);
    cht_committer_count_dirty(cm);
    cht_committer_reserve(cm, false);
    note_refused(cm, list);
}

/* G3 of a group. */
static void apply_group(struct cht_committer *cm, struct cht_group *g)
{
    struct cht_apply *a = &cm->apply;
    cht_logbuf_clear(&a->log);
    a->made = (struct cht_many_made){0};
    a->inserted = 0;
    a->names = cht_wal_origin(cm->db->wal) != 0;
    a->group = cm->mode == CHT_DURABLE_SYNC ? ++cm->group : 0;
    cht_apply_begin(a, cm->ending || !cht_ends_none(cm->db) ? cht_ends_now(cm->db) : 0);
    for (struct cht_commit *c = g->list; c != NULL; c = c->next) {
        apply_commit(cm, c);
        g->operations += c->count + (c->many != NULL ? c->many->n : 0);
        g->commits++;
    }
    cht_apply_release(a);
    struct cht_commit gone = cht_apply_gone(a);
    gone.next = g->list;
    cht_watches_report(cm->db->watches, &gone, a->stuck);
    g->number = cm->group;
    g->inserted = a->inserted;
    g->next_key = cht_db_lowest_key(cm->db);
}

/* G3 and G4 for a list of commits. False: the syncer does the rest, answering them as well. */
static bool run_group(struct cht_committer *cm, struct cht_commit *list)
{
    struct cht_err err = {0};
    struct cht_group g = {.list = list, .good = cht_wal_seq(cm->db->wal)};
    bool joins = cht_pipe_any(cm);
    cm->logged = false;
    cm->mode = joins ? CHT_DURABLE_SYNC : CHT_DURABLE_OS; /* P2 */
    for (const struct cht_commit *c = list; c != NULL; c = c->next)
        cm->mode = cht_commit_mode(cm, c) < cm->mode ? cht_commit_mode(cm, c) : cm->mode;
    apply_group(cm, &g);
    bool later = joins || (cm->mode == CHT_DURABLE_SYNC && !cm->plain);
    enum cht_rc rc = cm->apply.stuck ? CHT_IO : log_group(cm, later, &err);
    g.seq = cht_wal_seq(cm->db->wal);
    g.logged = cm->logged;
    g.failed = rc != CHT_OK;
    if (rc == CHT_OK)
        note_logged(cm, list);
    if (joins || (later && g.seq > g.good)) {
        cht_pipe_put(cm, &g, &err);
        return false;
    }
    if (rc != CHT_OK) {
        cht_committer_refuse(cm, list, g.good, &err);
        return true;
    }
    if (cm->apply.group != 0)
        cht_durable_decide(&cm->db->durable, g.number);
    cht_db_show_next_key(cm->db, g.next_key);
    cht_committer_count(cm, &g);
    return true;
}

/* G2. A failure has changed nothing, but for an I/O error, after which nobody knows. */
static enum cht_rc reserve_log(struct cht_committer *cm, const struct cht_commit *list, struct cht_err *err)
{
    uint64_t bound = 0;
    for (const struct cht_commit *c = list; c != NULL; c = c->next)
        bound += cht_apply_log_bound(cm->db, c);
    enum cht_rc rc = cht_wal_reserve(cm->db->wal, bound, err);
    if (rc == CHT_DISK_FULL && cht_crew_give_up(cm->crew))
        rc = cht_wal_reserve(cm->db->wal, bound, err);
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
            cht_committer_fail(c, why);
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
 * those that delete; commit_mu is released meanwhile. Returns those that are to be answered now, perhaps in another order. */
static struct cht_commit *run_list(struct cht_committer *cm, struct cht_commit *list,
                                   const struct cht_err *tight, bool may_wait)
{
    struct cht_err err = *tight;
    struct cht_commit *refused = NULL, *all;
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire) || pausing(cm)) {
        (void)cht_trouble_stopped(&cm->db->trouble, &err);
        cht_committer_fail(list, &err);
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
            rc = atomic_load_explicit(&cm->db->read_only, memory_order_acquire) /* since then */
                     ? cht_trouble_stopped(&cm->db->trouble, &err)
                     : reserve_log(cm, list, &err);
        }
    }
    if (rc != CHT_OK)
        cht_committer_fail(list, &err);
    else if (list != NULL && !run_group(cm, list))
        list = NULL;
    if (list == NULL)
        return refused;
    for (all = list; all->next != NULL;)
        all = all->next;
    all->next = refused;
    return list;
}

static struct cht_commit *join(struct cht_commit *list, struct cht_commit *rest)
{
    struct cht_commit **end = &list;
    while (*end != NULL)
        end = &(*end)->next;
    *end = rest;
    return list;
}

/* What was taken from the queue, perhaps nothing. What has ended is removed in the same group, or, if an operation looks at more than its
 * name, all of it before. Returns what is to be answered. */
static struct cht_commit *run_turn(struct cht_committer *cm, struct cht_commit *list,
                                   const struct cht_err *tight)
{
    struct cht_commit *refused = NULL;
    struct cht_err err = {0};
    if (cht_committer_ending(cm, list) && cht_committer_make_ends(cm, &err) != CHT_OK)
        list = cht_committer_refuse_ends(list, &err, &refused);
    bool wide = cht_committer_wide(list), due;
    while ((due = cht_committer_due(cm)) && wide) {
        (void)run_list(cm, cht_committer_removal(cm, NULL), tight, true);
        cht_committer_removed(cm);
    }
    if (due)
        list = cht_committer_removal(cm, list);
    if (list != NULL)
        list = run_list(cm, list, tight, true);
    if (due)
        cht_committer_removed(cm);
    return join(list, refused);
}

/* ------------------------------------------------------------------------------------------------------------ */

struct cht_commit *cht_committer_turn(struct cht_committer *cm, const struct cht_err *tight, bool *any)
{
    struct cht_commit *taken = take_group(cm), *list = run_turn(cm, taken, tight);
    *any = taken != NULL || list != NULL;
    return list;
}

struct cht_commit *cht_committer_alone(struct cht_committer *cm, struct cht_commit *list)
{
    return run_list(cm, list, &(struct cht_err){0}, false);
}
