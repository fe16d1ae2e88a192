/* commit_sync: the log brought to the disk outside a group: after an interval, and for those who follow what changes. */
#include "store/commit_int.h"

#include "base/clock.h"

#include <stddef.h>

enum cht_rc cht_committer_sync(struct cht_committer *cm, struct cht_err *err)
{
    struct cht_err told;
    uint64_t start = cht_now_ns();
    if (cht_wal_synced(cm->db->wal) >= cht_wal_seq(cm->db->wal))
        return CHT_OK;
    enum cht_rc rc = cht_wal_sync(cm->db->wal, err);
    if (rc != CHT_OK && rc != CHT_READ_ONLY)
        (void)cht_committer_stop(cm, err, &told);
    atomic_fetch_add_explicit(&cm->syncs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->sync_ns, cht_now_ns() - start, memory_order_relaxed);
    return rc;
}

void cht_committer_sync_job(struct cht_job *j)
{
    struct cht_committer *cm =
        (struct cht_committer *)(void *)((char *)j - offsetof(struct cht_committer, member.sync_job));
    struct cht_err err = {0};
    enum cht_rc rc = cht_committer_sync(cm, &err);
    if (rc == CHT_READ_ONLY) /* an append has failed, whose group may be taken back: then writing goes on */
        rc = cht_trouble_is(&cm->db->trouble, CHT_TROUBLE_STOPPED) ? rc : CHT_OK;
    cht_followers_tell(cm->db);
    cht_crew_synced(cm->crew, &cm->member,
                    rc == CHT_OK && cht_wal_synced(cm->db->wal) < cht_wal_seq(cm->db->wal));
}
