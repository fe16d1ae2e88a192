/* commit_int: what commit.c (groups, leadership) and commit_check.c (checkpoints) share. */
#pragma once

#include "store/apply.h"
#include "store/commit.h"
#include "store/crew.h"

struct cht_committer {
    struct cht_db *db;
    struct cht_commit_config cfg; /* set at open, then read-only */

    struct cht_mutex commit_mu; /* serialises groups, and the freeze of a checkpoint against them */
    struct cht_apply apply;     /* guarded by commit_mu, as are the next nine */
    uint64_t group;             /* the last one */
    enum cht_durability mode;   /* its */
    bool logged;                /* its record was begun */
    _Atomic bool refused;       /* its pages are to be taken back, to record `good` */
    bool revoked;               /* it is certain that the log does not have it */
    bool lifts;                 /* writing goes on when it is taken back: the cause passes */
    unsigned full;              /* appends in a row that met such a cause */
    uint64_t pause_ns;          /* nothing is tried before this; 0: no pause */
    uint64_t good;

    struct cht_crew *crew; /* borrowed; set at open, then read-only */
    struct cht_crew_member member;

    _Atomic bool cramped; /* no space for a journal could be had: a checkpoint is due */

    struct cht_mutex mu;
    struct cht_cond rest;            /* nobody leads any more */
    struct cht_commit *head, **tail; /* guarded by mu */
    bool leading;                    /* guarded by mu: someone takes groups, or lead_job is queued to do so */
    struct cht_job lead_job;         /* of whoever leads */

    struct cht_mutex check_mu;         /* one checkpoint at a time */
    struct cht_mutex wake_mu;          /* guards the next five */
    struct cht_cond room;              /* a checkpoint made room, ended, or is wanted */
    bool wanted, checking, check_stop; /* checking: check_job is queued, runs, or pauses */
    uint64_t shards_done;              /* guarded by wake_mu: bumped with each shard of a checkpoint */
    uint64_t checks_done;              /* bumped at the end of each attempt */
    unsigned failed;                   /* attempts of check_job in a row that met a passing condition */
    struct cht_job check_job;

    _Atomic uint64_t commits, operations, groups, syncs, sync_ns, checkpoints, checkpoint_ns, inserted,
        failures;
};

/* ---- commit_check.c */

/* No commit that needs room may go on before a checkpoint has made some. */
bool cht_committer_full(struct cht_committer *cm);
/* Only for the thread that holds commit_mu or the shards' locks. */
void cht_committer_count_dirty(struct cht_committer *cm);
/* After a group or a checkpoint, under commit_mu: space for the journals of what is dirty. */
void cht_committer_reserve(struct cht_committer *cm, bool after_checkpoint);
/* Makes room for commits that only delete: a checkpoint, and what page files have ahead of need. Called without commit_mu. */
void cht_committer_clear_out(struct cht_committer *cm);
/* After a group: the log's limit is each database's own, that of changed memory is of all together. */
void cht_committer_limits(struct cht_committer *cm);
/* No more writing. why and err may be the same. Returns CHT_READ_ONLY. */
enum cht_rc cht_committer_stop(struct cht_committer *cm, const struct cht_err *why, struct cht_err *err);
/* No writing before the refused group is taken back. From the second time in a row on there is a pause after that, which doubles each
 * time. why is a passing condition. */
void cht_committer_wait(struct cht_committer *cm, const struct cht_err *why);
/* G1: until there is room, which every shard that is done gives; at most until the checkpoint that is asked for here has ended.
 * If none can be made now, tight says why, and only what needs no room may go on. Called without commit_mu. */
void cht_committer_room(struct cht_committer *cm, struct cht_err *tight);
/* Now, whatever became of the last one. */
void cht_check_demand(struct cht_committer *cm);
/* The committer's check_job, and what the crew calls. */
void cht_check_run(struct cht_job *j);
void cht_check_relieve(struct cht_crew_member *m);
