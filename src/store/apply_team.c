/* apply_team: see apply_team.h. The committer's thread is one of the team.
 *
 * Locking: `mu` guards `running`; it is taken at the end of a phase only. What the threads write while a phase runs (their own
 * part, the operations of their shards, the bits of their shards in held and undoing) is handed over by it.
 */
#include "store/apply_team.h"

#include "base/alloc.h"
#include "base/prefetch.h"
#include "store/apply_int.h"
#include "store/apply_team_int.h"
#include "store/db.h"
#include "store/values.h"

#include <string.h>

#define OPS_MIN 512u         /* a smaller commit is done sooner than threads are woken */
#define PLAN_KEEP (1u << 18) /* operations of a plan that is used again */
#define AHEAD 8u             /* operations fetched into the cache before their turn */

/* ---- the plan ------------------------------------------------------------------------------------------------ */

enum cht_rc cht_team_reserve(struct cht_team *t, size_t n, struct cht_err *err)
{
    uint32_t *order = n > t->cap ? cht_realloc(t->order, n * sizeof *order) : t->order;
    if (n > t->cap && order != NULL) {
        t->order = order;
        t->cap = n;
    }
    uint16_t *list = n > t->list_cap ? cht_realloc(t->list, n * sizeof *list) : t->list;
    if (n > t->list_cap && list != NULL) {
        t->list = list;
        t->list_cap = n;
    }
    return n <= t->cap && n <= t->list_cap
               ? CHT_OK
               : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a plan of %zu operations", n);
}

static bool is_put(const struct cht_op *op)
{
    return op->kind == CHT_OP_PAIR_PUT && op->value.n < CHT_LARGE_VALUE;
}

static uint16_t list_of(const struct cht_team *t, const struct cht_commit *c, size_t i)
{
    const struct cht_op *op = &c->ops[i];
    unsigned shard = cht_shard_of_name(op->name, t->shards);
    if (is_put(op))
        return (uint16_t)shard;
    if (op->kind == CHT_OP_PAIR_LINK && op->back > 0 && op->back <= i && is_put(op - op->back))
        return (uint16_t)(CHT_TEAM_LINKS * t->shards + shard);
    return CHT_TEAM_REST;
}

size_t cht_team_arrange(struct cht_team *t, size_t n)
{
    unsigned lists = CHT_TEAM_PHASES * t->shards;
    memset(t->start, 0, (lists + 1) * sizeof *t->start);
    for (size_t i = 0; i < n; i++) {
        if (t->list[i] != CHT_TEAM_REST)
            t->start[t->list[i] + 1]++;
    }
    for (unsigned l = 0; l < lists; l++)
        t->start[l + 1] += t->start[l];
    size_t planned = t->start[lists];
    for (size_t i = n; i-- > 0;) { /* from the end, so that start ends as the beginnings */
        if (t->list[i] != CHT_TEAM_REST)
            t->order[--t->start[t->list[i] + 1]] = (uint32_t)i;
    }
    memmove(t->start, t->start + 1, lists * sizeof *t->start);
    t->start[lists] = (uint32_t)planned;
    return planned;
}

void cht_team_arranged(struct cht_team *t)
{
    if (t->list_cap <= PLAN_KEEP)
        return;
    cht_free(t->list);
    t->list = NULL;
    t->list_cap = 0;
}

/* T1, and room for all that the threads will log: *planned operations have a list. */
static enum cht_rc make_plan(struct cht_team *t, const struct cht_commit *c, struct cht_logbuf *log,
                             size_t *planned, struct cht_err *err)
{
    size_t bytes = 0, parts = (size_t)CHT_TEAM_PHASES * t->n;
    enum cht_rc rc = cht_team_reserve(t, c->count, err);
    if (rc != CHT_OK)
        return rc;
    for (size_t i = 0; i < c->count; i++) {
        const struct cht_op *op = &c->ops[i];
        t->list[i] = list_of(t, c, i);
        if (t->list[i] == CHT_TEAM_REST)
            continue;
        bool borrowed = op->kind == CHT_OP_PAIR_PUT && op->value.n >= CHT_LOG_BORROW;
        bytes += 2 * CHT_LOGOP_HEAD_MAX + op->name.n + (borrowed ? 0 : op->value.n);
        parts += borrowed ? 2 : 0;
    }
    *planned = cht_team_arrange(t, c->count);
    return cht_logbuf_room(log, bytes, parts, (size_t)CHT_TEAM_PHASES * t->n, err);
}

/* ---- a phase ------------------------------------------------------------------------------------------------- */

static void let_go(struct cht_apply *a, unsigned shard)
{
    if (a->atomic || !a->held[shard])
        return;
    cht_shard_show(&a->db->shards[shard]);
    cht_rwlock_write_end(&a->db->shards[shard].lock);
    a->held[shard] = false;
}

/* Operations of a shard lie far apart in the commit: no hardware sees the next one coming. An operation is two lines. */
static void fetch_op(const struct cht_op *op)
{
    cht_prefetch_write(op);
    cht_prefetch_write((const uint8_t *)op + 64);
}

static void fetch(const struct cht_team *t, uint32_t at, uint32_t end)
{
    if (at + 2 * AHEAD < end)
        fetch_op(&t->commit->ops[t->order[at + 2 * AHEAD]]);
    if (at + AHEAD >= end)
        return;
    const struct cht_op *op = &t->commit->ops[t->order[at + AHEAD]];
    cht_prefetch(op->name.p);
    if (t->phase == CHT_TEAM_LINKS)
        fetch_op(op - op->back);
    else
        cht_prefetch(op->value.p);
}

void cht_team_failed(struct cht_part *p, size_t i, const struct cht_err *err)
{
    if (p->failed++ == 0 || i < p->first) {
        p->first = i;
        p->err = *err;
    }
    if (p->apply.atomic || p->apply.stuck)
        atomic_store_explicit(&p->team->stop, true, memory_order_relaxed);
}

static void run_shard(struct cht_part *p, unsigned shard)
{
    struct cht_team *t = p->team;
    const uint32_t *start = t->start + (unsigned)t->phase * t->shards + shard;
    struct cht_err err = {0};
    uint32_t n = 0;
    for (uint32_t at = start[0]; at < start[1] && !atomic_load_explicit(&t->stop, memory_order_relaxed);
         at++) {
        struct cht_op *op = &t->commit->ops[t->order[at]];
        fetch(t, at, start[1]);
        cht_apply_op(&p->apply, t->commit, op, 0, &err);
        if (op->rc != CHT_OK && op->rc != CHT_PENDING)
            cht_team_failed(p, t->order[at], &err);
        if (op->rc != CHT_OK)
            err = (struct cht_err){0};
        if (++n % CHT_APPLY_LOCKED_OPS == 0)
            let_go(&p->apply, shard);
    }
    let_go(&p->apply, shard);
}

static void run_part(struct cht_part *p)
{
    struct cht_team *t = p->team;
    if (t->phase == CHT_TEAM_PLAN) {
        t->made->plan(p);
        return;
    }
    for (;;) {
        size_t shard = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (shard >= t->shards)
            return;
        if (t->made != NULL)
            t->made->shard(p, (unsigned)shard);
        else
            run_shard(p, (unsigned)shard);
    }
}

static void part_task(struct cht_job *job)
{
    struct cht_part *p = (struct cht_part *)job;
    run_part(p);
    cht_mutex_lock(&p->team->mu);
    if (--p->team->running == 0)
        cht_cond_signal(&p->team->done);
    cht_mutex_unlock(&p->team->mu);
}

void cht_team_run(struct cht_team *t, enum cht_team_phase phase)
{
    t->phase = phase;
    t->running = t->n - 1; /* they do not run yet */
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    for (unsigned i = 1; i < t->n; i++)
        cht_jobs_submit(t->jobs, &t->part[i].job);
    run_part(&t->part[0]);
    cht_mutex_lock(&t->mu);
    while (t->running > 0)
        cht_cond_wait(&t->done, &t->mu);
    cht_mutex_unlock(&t->mu);
}

/* T2 or T3, and T4 for it. */
static void run_phase(struct cht_team *t, enum cht_team_phase phase, struct cht_apply *a)
{
    if (t->start[(unsigned)phase * t->shards] == t->start[((unsigned)phase + 1) * t->shards] ||
        atomic_load_explicit(&t->stop, memory_order_relaxed))
        return;
    cht_team_run(t, phase);
    for (unsigned i = 0; i < t->n; i++)
        cht_logbuf_join(&a->log, &t->part[i].apply.log);
}

/* ---- the commit ---------------------------------------------------------------------------------------------- */

void cht_team_begin(struct cht_team *t, struct cht_apply *a, struct cht_commit *c)
{
    for (unsigned i = 0; i < t->n; i++) {
        struct cht_part *p = &t->part[i];
        p->failed = p->first = 0;
        p->apply.atomic = a->atomic;
        p->apply.group = a->group;
        p->apply.now_ms = a->now_ms;
        p->apply.names = a->names;
        p->apply.inserted = 0;
        p->logged = 0;
    }
    t->commit = c;
    t->many = NULL;
    atomic_store_explicit(&t->stop, false, memory_order_relaxed);
}

void cht_team_end(struct cht_team *t, struct cht_apply *a, struct cht_commit *c)
{
    size_t first = SIZE_MAX, failed = 0;
    for (unsigned i = 0; i < t->n; i++) {
        struct cht_part *p = &t->part[i];
        a->inserted += p->apply.inserted;
        if (p->apply.stuck && !a->stuck) {
            a->stuck = true;
            a->stuck_err = p->apply.stuck_err;
        }
        failed += p->failed;
        if (p->failed == 0 || p->first > first)
            continue;
        first = p->first;
        c->err = p->err;
    }
    if (failed > 0 && a->atomic)
        c->rc = CHT_BATCH_FAILED;
    c->failed = failed > 0 && a->atomic ? first : failed;
}

static void make_part(struct cht_team *t, struct cht_part *p, const struct cht_apply *a)
{
    p->team = t;
    p->job.run = part_task;
    p->apply = (struct cht_apply){.db = a->db,
                                  .held = a->held,
                                  .undoing = a->undoing,
                                  .max_value = a->max_value,
                                  .part = true,
                                  .threads = 1};
}

struct cht_team *cht_team_make(struct cht_apply *a)
{
    struct cht_err ignored = {0}; /* then there is none, and the committer does it all */
    struct cht_team *t = cht_calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->jobs = a->db->env->crew->parts;
    t->shards = a->db->nshards;
    t->n = a->threads < t->shards ? a->threads : t->shards;
    t->part = cht_calloc(t->n, sizeof *t->part);
    t->start = cht_calloc(CHT_TEAM_PHASES * (size_t)t->shards + 2, sizeof *t->start);
    if (t->part == NULL || t->start == NULL || cht_mutex_init(&t->mu, &ignored) != CHT_OK ||
        cht_cond_init(&t->done, &ignored) != CHT_OK) {
        cht_team_free(t);
        return NULL;
    }
    for (unsigned i = 0; i < t->n; i++)
        make_part(t, &t->part[i], a);
    return t;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool cht_team_wanted(struct cht_apply *a, const struct cht_commit *c)
{
    if ((c->flags & CHT_COMMIT_UNORDERED) == 0 || c->count < OPS_MIN || c->count > UINT32_MAX || a->stuck ||
        a->threads < 2 || a->db->nshards < 2)
        return false;
    if (a->team == NULL)
        a->team = cht_team_make(a);
    return a->team != NULL;
}

bool cht_team_apply(struct cht_apply *a, struct cht_commit *c)
{
    struct cht_team *t = a->team;
    struct cht_err ignored = {0};
    size_t planned;
    if (make_plan(t, c, &a->log, &planned, &ignored) != CHT_OK || planned < OPS_MIN)
        return false;
    if (!a->atomic) /* else it has none, or those of `many`, whose undos are open: not a moment without their locks */
        cht_apply_release(a);
    for (unsigned i = 0; a->atomic && i < t->shards; i++)
        (void)cht_apply_take(a, i, true);
    cht_team_begin(t, a, c);
    run_phase(t, CHT_TEAM_PUTS, a);
    run_phase(t, CHT_TEAM_LINKS, a);
    cht_team_end(t, a, c);
    return true;
}

bool cht_team_did(const struct cht_team *t, const struct cht_commit *c, size_t i)
{
    return t->list[i] != CHT_TEAM_REST && c->ops[i].rc != CHT_PENDING;
}

void cht_team_trim(struct cht_team *t)
{
    for (unsigned i = 0; i < t->n; i++)
        cht_logbuf_trim(&t->part[i].apply.log);
    cht_team_arranged(t);
    if (t->cap <= PLAN_KEEP)
        return;
    cht_free(t->order);
    t->order = NULL;
    t->cap = 0;
}

void cht_team_free(struct cht_team *t)
{
    if (t == NULL)
        return;
    for (unsigned i = 0; t->part != NULL && i < t->n; i++) {
        cht_logbuf_fini(&t->part[i].apply.log);
        cht_free(t->part[i].room);
    }
    cht_cond_fini(&t->done);
    cht_mutex_fini(&t->mu);
    cht_free(t->part);
    cht_free(t->list);
    cht_free(t->order);
    cht_free(t->start);
    cht_free(t);
}
