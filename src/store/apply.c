/* apply: commits, one after the other. Each operation is all or nothing (apply_ops.c).
 *
 *   not atomic   an operation that makes several changes runs under an undo of its own; locks are released now and then
 *   atomic       every shard it touches has its undo open and its lock held until the end
 *   unordered    large ones are split by shard first (apply_team.c); what is left runs here, in order
 */
#include "base/alloc.h"
#include "store/apply_int.h"
#include "store/apply_team.h"
#include "store/db.h"

#include <string.h>

enum cht_rc cht_apply_init(struct cht_apply *a, struct cht_db *db, uint32_t max_value, unsigned threads,
                           struct cht_err *err)
{
    memset(a, 0, sizeof *a);
    a->db = db;
    a->max_value = max_value;
    a->threads = threads;
    a->held = cht_calloc(db->nshards, sizeof *a->held);
    a->undoing = cht_calloc(db->nshards, sizeof *a->undoing);
    if (a->held == NULL || a->undoing == NULL) {
        cht_apply_fini(a);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the committer");
    }
    return CHT_OK;
}

void cht_apply_fini(struct cht_apply *a)
{
    cht_gone_fini(&a->gone);
    cht_team_free(a->team);
    cht_logbuf_fini(&a->log);
    cht_free(a->held);
    cht_free(a->undoing);
    memset(a, 0, sizeof *a);
}

void cht_apply_trim(struct cht_apply *a)
{
    cht_logbuf_trim(&a->log);
    if (a->team != NULL)
        cht_team_trim(a->team);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool cht_apply_frees(const struct cht_commit *c)
{
    bool frees = c->many == NULL;
    for (size_t i = 0; i < c->count && frees; i++) {
        frees = cht_op_frees(c->ops[i].kind);
    }
    return frees;
}

/* Of the value under a name, for an estimate. */
static uint64_t present_size(struct cht_db *db, struct cht_str name)
{
    struct cht_pair_value pv = {0};
    return cht_store_pair_value_soon(&db->base, name, &pv, &cht_ahead, NULL) == CHT_OK ? pv.size : 0;
}

uint64_t cht_apply_log_bound(struct cht_db *db, const struct cht_commit *c)
{
    uint64_t n = c->many != NULL ? c->many->bytes + (uint64_t)c->many->n * 2 * CHT_LOGOP_HEAD_MAX : 0;
    for (size_t i = 0; i < c->count; i++) {
        const struct cht_op *op = &c->ops[i];
        n += 2 * CHT_LOGOP_HEAD_MAX + op->name.n + op->value.n;
        uint64_t under = 0;
        if (op->ask != NULL)
            n += op->ask->room + (op->ask->extends ? present_size(db, op->name) : 0);
        if (op->kind == CHT_OP_PURGE)
            n += CHT_PURGE_BYTES;
        if (cht_op_ends(op) || op->ask != NULL)
            n += CHT_LOGOP_HEAD_MAX + op->name.n; /* its end */
        if (op->kind == CHT_OP_RESERVE)
            n += (uint64_t)db->nshards * 2 * (CHT_LOGOP_HEAD_MAX + 1);
        if (op->kind == CHT_OP_PREFIX_DEL && op->with_values &&
            cht_store_count_soon(&db->base, op->name, &under, &cht_ahead, NULL) == CHT_OK)
            n += under *
                 CHT_LOGOP_HEAD_MAX; /* a VALUE_DEL each; pairs of the same group come on top, see commit.c */
    }
    return n;
}

/* Runs the operations, but for those that the team has done. */
static void run_ops(struct cht_apply *a, struct cht_commit *c, const struct cht_team *done)
{
    uint64_t read = 0;
    for (size_t i = 0; i < c->count && !a->stuck; i++) {
        struct cht_op *op = &c->ops[i];
        struct cht_err err = {0};
        if (done != NULL && cht_team_did(done, c, i))
            continue;
        cht_apply_op(a, c, op, read, &err);
        if (op->buf != NULL && op->rc == CHT_OK)
            read += op->size;
        if (op->rc != CHT_OK) {
            if (c->err.code == CHT_OK)
                c->err = err;
            if (a->atomic) {
                c->failed = i;
                c->rc = CHT_BATCH_FAILED;
                break;
            }
            c->failed++;
        }
        if (!a->atomic && ++a->locked_ops >= CHT_APPLY_LOCKED_OPS)
            cht_apply_release(a);
    }
}

static void commit_once(struct cht_apply *a, struct cht_commit *c)
{
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    uint64_t inserted = a->inserted;
    size_t gone = a->gone.n;
    a->atomic = (c->flags & CHT_COMMIT_ATOMIC) != 0;
    if (a->atomic)
        cht_apply_release(a);
    c->rc = CHT_OK;
    c->failed = 0;
    if (c->many != NULL)
        cht_many_apply(a, c);
    bool split = c->rc == CHT_OK && cht_team_wanted(a, c) && cht_team_apply(a, c);
    if (c->rc == CHT_OK)
        run_ops(a, c, split ? a->team : NULL);
    if (a->atomic) {
        cht_apply_end_undo(a, c->rc != CHT_OK);
        if (c->rc != CHT_OK) {
            cht_logbuf_rewind(&a->log, mark);
            if (c->many != NULL)
                a->made = (struct cht_many_made){0};
            a->gone.n = gone;
            a->inserted = inserted;
        }
        cht_apply_release(a);
    }
}

/* An atomic one that found the disk full and has been taken back, once room was made for it. */
static bool again(struct cht_apply *a, struct cht_commit *c)
{
    if (c->rc != CHT_BATCH_FAILED || !a->atomic || a->stuck)
        return false;
    if ((c->failed < c->count ? c->ops[c->failed].rc : c->err.code) != CHT_DISK_FULL) /* one of many */
        return false;
    for (size_t i = 0; i < c->count; i++) {
        if (!cht_op_again(&c->ops[i]))
            return false;
    }
    c->err = (struct cht_err){0};
    return cht_crew_give_up(a->db->env->crew);
}

void cht_apply_commit(struct cht_apply *a, struct cht_commit *c)
{
    commit_once(a, c);
    struct cht_err why = c->err;
    if (again(a, c))
        commit_once(a, c);
    else
        c->err = why;
}
