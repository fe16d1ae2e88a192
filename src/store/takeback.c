/* takeback: what happens to the pages after the log has refused a group of commits and those after it (a failed write or sync, or an operation
 * that could not be undone): they are ahead of the log, and must not stay so. There are no before-images of a group: at a page for
 * each page it changes they would cost every commit what only a failing disk needs. What there is is what a start has, the last
 * checkpoint and the log:
 *
 *   B1 the committer (commit.c): no more writing; the record is revoked (cht_wal_revoke), so that it is certain that no start
 *      finds it; all shards are fenced; the commits are answered
 *   B2 a checkpoint that is under way ends, in the files (the checkpointer: check_mu)
 *   B3 every shard forgets its private pages and reads its files again, its journal first, as when it is opened
 *   B4 the log is redone up to the record before the refused one, through a handle of its own that only reads
 *   B5 the watches are told that everything has changed: an answer computed before B1 may have the group in it
 *   B6 the fence goes, from all shards at once: where one read goes on no count or scan is refused after it. Reads that waited go on
 *      with what a restart would show
 *
 * If B1 could not make sure of the record (the sync failed again: the disk may have the record or its end), a restart may show the
 * group or not. Then the group stays undecided: its names and keys are refused (CHT_OUTCOME_UNKNOWN) until that restart, and all
 * others are read. Under the other durabilities nothing is marked, so all point reads are refused then.
 *
 * Handles of large values that were open are refused from then on (taken_back): redoing the log may give their space to others.
 *
 * If the append failed for want of room, nothing was appended, and B1 made sure of it, all is as before the group then, and
 * writing goes on (B7). After anything else it has stopped until the database is opened again.
 *
 * If B3 or B4 fails nothing may be shown: the fence stays, and every read says so; it is tried again after a pause, as checkpoints
 * are, until it works or the database is closed. Nothing is written meanwhile. Takes as long as the start after a crash; memory as before. No checkpoint is taken
 * meanwhile, so the files are not changed but for what opening changes as well.
 */
#include "store/db.h"
#include "store/db_store.h"

static void set_limit(struct cht_shard *sh, uint64_t limit)
{
    cht_rwlock_write(&sh->lock);
    sh->marks.limit = limit;
    cht_rwlock_write_end(&sh->lock);
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_db_fence(struct cht_db *db)
{
    for (unsigned i = 0; i < db->nshards; i++)
        set_limit(&db->shards[i], CHT_FENCED);
}

enum cht_rc cht_db_take_back(struct cht_db *db, uint64_t seq, struct cht_err *err)
{
    struct cht_wal *log;
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < db->nshards && rc == CHT_OK; i++) {
        db->shards[i].taken_back++;
        rc = cht_shard_reread(&db->shards[i], err);
    }
    if (rc == CHT_OK)
        rc = cht_wal_open_reader(db->wal, &log, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_db_replay(db, log, seq, db->env->crew, err);
    (void)cht_wal_close(log, false, NULL); /* it only reads: there is nothing to fail */
    return rc;
}

void cht_db_unfence(struct cht_db *db, uint64_t decided, bool all)
{
    for (unsigned i = 0; i < db->nshards; i++)
        cht_rwlock_write(&db->shards[i].lock);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        if (all)
            cht_marks_all(&sh->marks, CHT_GROUP_ALL, decided);
        cht_shard_show(sh);
        cht_marks_unfence(&sh->marks, decided);
    }
    for (unsigned i = 0; i < db->nshards; i++)
        cht_rwlock_write_end(&db->shards[i].lock);
}
