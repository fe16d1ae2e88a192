/* commit_int: what commit.c (groups), commit_lead.c (who runs them), commit_pipe.c (their syncs), commit_check.c (checkpoints), commit_ends.c,
 * commit_sync.c, commit_new.c and commit_base.c share. */
#pragma once

#include "store/apply.h"
#include "store/commit.h"
#include "store/crew.h"

#define CHT_PIPE_GROUPS 16u /* less than CHT_WAL_RECENT */

/* A group that is applied and not decided (commit_pipe.c). */
struct cht_group {
    struct cht_commit *list; /* answered when it is decided */
    uint64_t number;         /* for the marks (durable.h) */
    uint64_t good, seq;      /* the record before its own, and its own; the same: it has none */
    uint64_t next_key;       /* the lowest after it */
    uint64_t commits, operations, inserted;
    bool logged; /* its record was begun */
    bool failed; /* it is to be refused */
};

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
    struct cht_cond rest;            /* nobody leads or syncs any more */
    struct cht_commit *head, **tail; /* guarded by mu, as are all up to lead_job */
    uint64_t queued;                 /* their weight (cht_commit_weight) */
    bool leading;                    /* someone takes groups, or lead_job is queued to do so */
    bool purge_wanted;               /* what has ended is to be removed, though nothing may be queued */
    bool syncing;                    /* someone syncs what is in the pipe, or pipe_job is queued to do so */
    struct cht_group pipe[CHT_PIPE_GROUPS]; /* a ring; the leader puts in, the syncer takes out */
    size_t pipe_first, pipe_count;
    bool pipe_failed; /* the last one has */
    struct cht_err pipe_why;
    uint64_t least;          /* weight of what is led while a sync is under way */
    unsigned quiet;          /* who has, or waits for, an empty pipe */
    struct cht_cond moved;   /* a group was taken out, or one of those goes on */
    struct cht_job pipe_job; /* of whoever syncs */
    struct cht_job lead_job; /* of whoever leads, as are the next three */
    bool plain;              /* the group under way does not go through the pipe */
    struct cht_commit purge; /* removes what has ended */
    struct cht_op purge_op;
    bool ending; /* guarded by commit_mu: pairs can end, and the headers on the disk say so */

    struct cht_mutex check_mu;         /* one checkpoint at a time */
    struct cht_mutex wake_mu;          /* guards the next five */
    struct cht_cond room;              /* a checkpoint made room, ended, or is wanted */
    bool wanted, checking, check_stop; /* checking: check_job is queued, runs, or pauses */
    uint64_t shards_done;              /* guarded by wake_mu: bumped with each shard of a checkpoint */
    uint64_t checks_done;              /* bumped at the end of each attempt */
    unsigned failed;                   /* attempts of check_job in a row that met a passing condition */
    struct cht_job check_job;
    _Atomic unsigned check_waiting; /* who wants check_mu: values are not put in order any more */

    _Atomic uint64_t commits, operations, groups, syncs, sync_ns, checkpoints, checkpoint_ns, inserted,
        failures, ordered;
};

/* ---- commit.c; the leader's */

/* Runs what is queued, with commit_mu held; any: there was something. Returns what is to be answered. tight: why nothing that needs room may be
 * run; CHT_OK: it may. */
struct cht_commit *cht_committer_turn(struct cht_committer *cm, const struct cht_err *tight, bool *any);
/* Runs one group of these; the pipe is empty, and no sync is wanted. Returns them, perhaps in another order. */
struct cht_commit *cht_committer_alone(struct cht_committer *cm, struct cht_commit *list);

/* ---- commit_base.c */

enum cht_durability cht_commit_mode(const struct cht_committer *cm, const struct cht_commit *c);
/* What a commit weighs when it is decided whether to lead now. */
uint64_t cht_commit_weight(const struct cht_commit *c);
/* The commits get this error. */
void cht_committer_fail(struct cht_commit *list, const struct cht_err *err);
/* Calls `done` of each; they may be gone after this. No lock is held. */
void cht_committer_answer(struct cht_commit *list);
/* A group was done. */
void cht_committer_count(struct cht_committer *cm, const struct cht_group *g);
/* Is a group not decided? Without leadership that may be over, or true, at once. */
bool cht_pipe_any(struct cht_committer *cm);
/* commit_mu with no group that is not decided. Not with commit_mu, nor as syncer. Waits for a group and its sync, at most. */
void cht_committer_lock(struct cht_committer *cm);
void cht_committer_unlock(struct cht_committer *cm);

/* ---- commit_lead.c */

void cht_lead_init(struct cht_committer *cm);

/* ---- commit_pipe.c */

/* Refuses a group that does not go through the pipe: F1 and F2. `good`: the record before it. err: why, and what it is answered. commit_mu is
 * held, the pipe is empty. */
void cht_committer_refuse(struct cht_committer *cm, struct cht_commit *list, uint64_t good,
                          struct cht_err *err);
/* Leader: waits until a group may begin. No lock is held. */
void cht_pipe_await_turn(struct cht_committer *cm);
/* Leader, commit_mu held: puts a group in. why: if it failed. */
void cht_pipe_put(struct cht_committer *cm, const struct cht_group *g, const struct cht_err *why);
/* Syncer: decides and answers what is in the pipe, which is not empty. No lock is held. */
void cht_pipe_round(struct cht_committer *cm);

/* ---- commit_ends.c; commit_mu held but for the last */

/* Is there one among them that needs what cht_committer_make_ends makes? That releases commit_mu in between. */
bool cht_committer_ending(struct cht_committer *cm, const struct cht_commit *list);
enum cht_rc cht_committer_make_ends(struct cht_committer *cm, struct cht_err *err);
/* Takes the commits that want an end out of a list. */
struct cht_commit *cht_committer_refuse_ends(struct cht_commit *list, const struct cht_err *why,
                                             struct cht_commit **refused);
/* Has anything ended? And does any of these look at more than names? */
bool cht_committer_due(struct cht_committer *cm);
bool cht_committer_wide(const struct cht_commit *list);
/* The list with the commit before it that removes some of what has ended; what became of that one. */
struct cht_commit *cht_committer_removal(struct cht_committer *cm, struct cht_commit *list);
void cht_committer_removed(struct cht_committer *cm);
/* A group was applied and logged: when the next pair ends. */
void cht_committer_note_ends(struct cht_committer *cm);
/* After a turn: whoever waits for what has ended goes on, or the next turn removes more. Without commit_mu. */
void cht_committer_calm(struct cht_committer *cm);
/* ---- commit_sync.c */

/* Brings the log to the disk, if it is not there. A failure ends writing, as it does in a group. */
enum cht_rc cht_committer_sync(struct cht_committer *cm, struct cht_err *err);
/* For the crew's clock: the same, the committer's. */
void cht_committer_sync_job(struct cht_job *j);

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
bool cht_check_give_up(struct cht_crew_member *m);
