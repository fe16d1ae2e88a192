/* commit: the committer of one database: takes everything that waits as one group, applies it, logs it in one record,
 * one fdatasync, then answers all of it. The next group may begin during the sync.
 *
 * Who does the work: a caller of cht_committer_run that finds no leader leads one group itself (no thread switch for
 * a lone writer); what came in meanwhile is left to a thread of the crew (crew.h), as are submits, checkpoints that
 * a limit asks for, and the syncs of an interval.
 */
#pragma once

#include "store/db_store.h"

struct cht_commit_config {
    enum cht_durability durability;
    unsigned interval_ms;
    uint32_t max_value;
    uint64_t
        log_limit; /* start a checkpoint when the log since the last one is longer; the limit of what is dirty is the crew's */
    bool manual_checkpoint;
    enum cht_value_order value_order;
    unsigned threads;      /* for one large unordered commit, the committer's included */
    struct cht_crew *crew; /* borrowed until the free */
};
enum cht_rc cht_committer_new(struct cht_db *db, const struct cht_commit_config *cfg,
                              struct cht_committer **out, struct cht_err *err);
/* Waits for what is queued and for what a thread of the crew does for it. No new commits may come. */
void cht_committer_free(struct cht_committer *cm);
enum cht_rc cht_committer_run(struct cht_committer *cm, struct cht_commit *c);
enum cht_rc cht_committer_submit(struct cht_committer *cm, struct cht_commit *c);
void cht_committer_submit_all(struct cht_committer *cm, struct cht_commit *list);
/* Removes what has ended, soon; cht_calm_settled is called then. */
void cht_committer_purge(struct cht_committer *cm);
/* A checkpoint of all shards, now, by the calling thread (one at a time); then the log is trimmed. */
enum cht_rc cht_committer_checkpoint(struct cht_committer *cm, struct cht_err *err);
void cht_committer_stats(struct cht_committer *cm, struct cht_store_stats *out);
/* Bytes of private pages of all shards. */
uint64_t cht_db_dirty(struct cht_db *db);
/* For the scrub: no checkpoint runs between these two; with `writers`, no group of commits either. */
void cht_committer_pause(struct cht_committer *cm, bool writers);
void cht_committer_resume(struct cht_committer *cm, bool writers);
