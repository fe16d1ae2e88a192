/* commit_new: a committer is made and goes. See commit.h. */
#include "store/commit_int.h"

#include "base/alloc.h"
#include "store/expiry.h"

static enum cht_rc init_locks(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_mutex *mutexes[] = {&cm->commit_mu, &cm->mu, &cm->check_mu, &cm->wake_mu};
    struct cht_cond *conds[] = {&cm->rest, &cm->room, &cm->moved};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < 4 && rc == CHT_OK; i++)
        rc = cht_mutex_init(mutexes[i], err);
    for (size_t i = 0; i < 3 && rc == CHT_OK; i++)
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
    cht_lead_init(cm);
    cm->check_job.run = cht_check_run;
    cm->member.relieve = cht_check_relieve;
    cm->member.sync = cht_committer_sync_job;
    cm->member.give_up = cht_check_give_up;
    cht_crew_join(cm->crew, &cm->member);
    enum cht_rc rc = init_locks(cm, err);
    if (rc == CHT_OK)
        rc = cht_apply_init(&cm->apply, db, cfg->max_value, cfg->threads, err);
    if (rc != CHT_OK) {
        cht_committer_free(cm);
        return rc;
    }
    cm->ending = true;
    for (unsigned i = 0; i < db->nshards; i++)
        cm->ending = cm->ending && cht_expiry_any(cht_shard_pairs(&db->shards[i]));
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
    while (cm->leading || cm->syncing)
        cht_cond_wait(&cm->rest, &cm->mu);
    cht_mutex_unlock(&cm->mu);
    atomic_fetch_add_explicit(&cm->check_waiting, 1,
                              memory_order_relaxed); /* a checkpoint that puts values in order */
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
    cht_cond_fini(&cm->moved);
    cht_cond_fini(&cm->room);
    cht_free(cm);
}

void cht_committer_stats(struct cht_committer *cm, struct cht_store_stats *out)
{
    out->commits = atomic_load_explicit(&cm->commits, memory_order_relaxed);
    out->operations = atomic_load_explicit(&cm->operations, memory_order_relaxed);
    out->groups = atomic_load_explicit(&cm->groups, memory_order_relaxed);
    out->syncs = atomic_load_explicit(&cm->syncs, memory_order_relaxed);
    out->sync_ns = atomic_load_explicit(&cm->sync_ns, memory_order_relaxed);
    out->checkpoints = atomic_load_explicit(&cm->checkpoints, memory_order_relaxed);
    out->values_ordered = atomic_load_explicit(&cm->ordered, memory_order_relaxed);
    out->read_alone = atomic_load_explicit(&cm->db->alone, memory_order_relaxed);
    out->checkpoints_failed = atomic_load_explicit(&cm->failures, memory_order_relaxed);
    out->checkpoint_ns = atomic_load_explicit(&cm->checkpoint_ns, memory_order_relaxed);
    out->bytes_inserted = atomic_load_explicit(&cm->inserted, memory_order_relaxed);
}
