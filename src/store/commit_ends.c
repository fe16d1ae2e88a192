/* commit_ends: what the committer does about pairs that end (ends.h): the maps of a database in which the first one is to end, and
 * the removal of what has ended.
 *
 * The first one: M1 makes the maps in all shards, which raises the version in the files' headers, M2 takes a checkpoint. Only then a group may
 * have an end in its record: an older program refuses the headers before it could read one. If M2 fails, the commits that want an end are
 * refused with its cause, and the next one tries again.
 */
#include "store/commit_int.h"
#include "store/expiry.h"

static bool wants_end(const struct cht_commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (cht_op_ends(&c->ops[i]))
            return true;
    }
    return false;
}

/* Does an operation look at more than its own name? Then all that has ended is removed before. */
static bool looks_wide(const struct cht_commit *c)
{
    for (size_t i = 0; i < c->count; i++) {
        enum cht_op_kind k = c->ops[i].kind;
        if (k != CHT_OP_INSERT && k != CHT_OP_PAIR_PUT && k != CHT_OP_PAIR_SET && k != CHT_OP_PAIR_DEL &&
            k != CHT_OP_PAIR_READ && k != CHT_OP_RESERVE)
            return true;
    }
    return c->many != NULL;
}

/* M1. commit_mu is held. */
static enum cht_rc make_maps(struct cht_committer *cm, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < cm->db->nshards && rc == CHT_OK; i++) {
        struct cht_shard *sh = &cm->db->shards[i];
        cht_rwlock_write(&sh->lock);
        cht_shard_use_spare(sh, false);
        cht_shard_undo_begin(sh);
        rc = cht_expiry_make(cht_shard_pairs(sh), err);
        if (rc == CHT_OK)
            cht_shard_undo_end(sh);
        else
            cht_shard_undo_rollback(sh);
        cht_rwlock_write_end(&sh->lock);
    }
    return rc;
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool cht_committer_ending(struct cht_committer *cm, const struct cht_commit *list)
{
    bool wanted = false;
    for (const struct cht_commit *c = list; c != NULL && !cm->ending && !wanted; c = c->next)
        wanted = wants_end(c);
    return wanted;
}

enum cht_rc cht_committer_make_ends(struct cht_committer *cm, struct cht_err *err)
{
    if (atomic_load_explicit(&cm->db->read_only, memory_order_acquire))
        return cht_trouble_stopped(&cm->db->trouble, err);
    enum cht_rc rc = make_maps(cm, err);
    cht_committer_count_dirty(cm);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_unlock(&cm->commit_mu);
    rc = cht_committer_checkpoint(cm, err);
    cht_mutex_lock(&cm->commit_mu);
    cm->ending = rc == CHT_OK;
    return rc;
}

struct cht_commit *cht_committer_refuse_ends(struct cht_commit *list, const struct cht_err *why,
                                             struct cht_commit **refused)
{
    struct cht_commit *rest = NULL, **end = &rest;
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        if (!wants_end(c)) {
            *end = c;
            end = &c->next;
            continue;
        }
        c->rc = why->code;
        c->err = *why;
        c->next = *refused;
        *refused = c;
    }
    return rest;
}

bool cht_committer_due(struct cht_committer *cm)
{
    struct cht_db *db = cm->db;
    return atomic_load_explicit(&db->ends.next, memory_order_relaxed) != CHT_ENDS_NONE &&
           cht_ends_due(db, cht_ends_now(db));
}

bool cht_committer_wide(const struct cht_commit *list)
{
    for (const struct cht_commit *c = list; c != NULL; c = c->next) {
        if (looks_wide(c))
            return true;
    }
    return false;
}

static void removed(struct cht_commit *c) { (void)c; /* nobody waits for it by this */ }

struct cht_commit *cht_committer_removal(struct cht_committer *cm, struct cht_commit *list)
{
    cm->purge_op = (struct cht_op){.kind = CHT_OP_PURGE};
    cm->purge = (struct cht_commit){.ops = &cm->purge_op, .count = 1, .done = removed, .next = list};
    return &cm->purge;
}

void cht_committer_removed(struct cht_committer *cm)
{
    if (cm->purge.rc != CHT_OK || cm->purge_op.rc != CHT_OK)
        cht_ends_pause(cm->db);
}

void cht_committer_note_ends(struct cht_committer *cm)
{
    struct cht_db *db = cm->db;
    const struct cht_apply *a = &cm->apply;
    if (a->purged)
        cht_ends_look(db);
    else if (a->least_end < atomic_load_explicit(&db->ends.next, memory_order_relaxed))
        atomic_store_explicit(&db->ends.next, a->least_end, memory_order_release); /* with cht_ends_due */
    atomic_fetch_add_explicit(&db->ends.removed, a->gone.n, memory_order_relaxed);
}

void cht_committer_purge(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    cm->purge_wanted = true;
    if (!cm->leading) {
        cm->leading = true;
        cht_jobs_submit(cm->crew->commits, &cm->lead_job);
    }
    cht_mutex_unlock(&cm->mu);
}

void cht_committer_calm(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    bool wanted = cm->purge_wanted;
    cm->purge_wanted = false;
    cht_mutex_unlock(&cm->mu);
    if (!wanted)
        return;
    if (cht_ends_clear(cm->db)) {
        cht_calm_settled(&cm->db->calm);
        return;
    }
    cht_mutex_lock(&cm->mu);
    cm->purge_wanted = true;
    cht_mutex_unlock(&cm->mu);
}
