/* apply_team_int: what apply_team.c (threads, operations in an array) and apply_many.c (operations that are made when they are looked at)
 * share. */
#pragma once

#include "store/apply_int.h"
#include "store/apply_team.h"
#include "store/crew.h"

#include <stdatomic.h>

#define CHT_TEAM_REST UINT16_MAX /* in `list`: the committer's own */

enum cht_team_phase { CHT_TEAM_PUTS, CHT_TEAM_LINKS, CHT_TEAM_PHASES, CHT_TEAM_PLAN = CHT_TEAM_PHASES };

struct cht_part { /* one thread's */
    struct cht_job job;
    struct cht_team *team;
    struct cht_apply apply; /* held and undoing are the committer's */
    size_t failed, first;   /* how many operations, and the first of them */
    struct cht_err err;     /* of that one */
    uint8_t *room;          /* owned: of cht_many */
    uint64_t logged;        /* bytes of its record that are made when it is written */
};

/* What a part does in a phase, for operations that are no array (apply_many.c). */
struct cht_team_many {
    void (*plan)(struct cht_part *p);
    void (*shard)(struct cht_part *p, unsigned shard);
};

struct cht_team {
    struct cht_jobs *jobs; /* the crew's: n - 1 threads at a time */
    struct cht_part *part; /* owned: n; the first is the committer's */
    unsigned n, shards;
    /* the plan: list l = phase * shards + shard has order[start[l] .. start[l + 1]) */
    uint16_t *list;       /* owned: by operation */
    uint32_t *order;      /* owned: indices of operations */
    uint32_t *start;      /* owned: CHT_TEAM_PHASES * shards + 1 */
    size_t cap, list_cap; /* operations that order and list hold */
    /* under way */
    struct cht_commit *commit;
    const struct cht_team_many *made; /* how those of `many` are run; NULL: there are none, its ops are */
    struct cht_many *many;            /* of the commit */
    enum cht_team_phase phase;
    _Atomic size_t next; /* shard, or piece of the plan, that nobody has taken */
    _Atomic bool stop;   /* an atomic commit has failed, or a thread is stuck */
    struct cht_mutex mu;
    struct cht_cond done;
    unsigned running; /* guarded by mu */
};

/* Of that many operations; list and order are there then. */
enum cht_rc cht_team_reserve(struct cht_team *t, size_t n, struct cht_err *err);
/* `list` is there: order and start. Returns how many operations have one. */
size_t cht_team_arrange(struct cht_team *t, size_t n);
/* `list` is not needed any more: that of a large plan goes. */
void cht_team_arranged(struct cht_team *t);
void cht_team_begin(struct cht_team *t, struct cht_apply *a, struct cht_commit *c);
/* All threads work on a phase, until it is done. */
void cht_team_run(struct cht_team *t, enum cht_team_phase phase);
/* The results of the parts are those of the commit; the first operation that failed speaks for all. */
void cht_team_end(struct cht_team *t, struct cht_apply *a, struct cht_commit *c);
struct cht_team *cht_team_make(struct cht_apply *a);
/* An operation that failed; err says why, or nothing. */
void cht_team_failed(struct cht_part *p, size_t i, const struct cht_err *err);
