/* apply_expiry: pairs that end. An operation by name meets none that has ended: it is deleted first. Changes of several maps are within an
 * undo, which such an operation has from its beginning. A part of a commit (apply_team.c) has no undo: it leaves them to the committer.
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "store/apply_int.h"
#include "store/expiry.h"

#include <string.h>

/* Room for one more, with its name; the entry itself counts when n says so. */
static enum cht_rc gone_reserve(struct cht_gone *g, struct cht_str name, struct cht_err *err)
{
    if (g->n == 0)
        g->names.len = 0;
    enum cht_rc rc = CHT_OK;
    size_t need = g->names.len + name.n;
    if (need > g->names.cap)
        rc = cht_buf_reserve(&g->names, need * 2, err);
    if (rc != CHT_OK || g->n < g->cap)
        return rc;
    size_t cap = g->cap > 0 ? 2 * g->cap : 64;
    struct cht_op *ops = cht_realloc(g->ops, cap * sizeof *ops);
    if (ops == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for what has ended");
    g->ops = ops;
    g->cap = cap;
    return CHT_OK;
}

static void gone_add(struct cht_gone *g, const struct cht_op *del)
{
    struct cht_op *op = &g->ops[g->n++];
    *op = *del;
    memcpy(g->names.data + g->names.len, del->name.p, del->name.n);
    op->name.p = NULL;
    op->ends = g->names.len;
    g->names.len += del->name.n;
}

/* The time of the group in the files, once a second: a clock that was set back meanwhile does not go back for this database. */
static enum cht_rc note_clock(struct cht_apply *a, struct cht_err *err)
{
    static const struct cht_str nobody = {(const uint8_t *)"", 0};
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_name(nobody, a->db->nshards), true);
    if (!cht_expiry_any(cht_shard_pairs(sh)) || a->now_ms < cht_expiry_clock(cht_shard_pairs(sh)) + 1000)
        return CHT_OK;
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, 0, err);
    if (rc == CHT_OK)
        rc = cht_expiry_set_clock(cht_shard_pairs(sh), a->now_ms, err);
    if (rc == CHT_OK)
        cht_logbuf_add(&a->log, CHT_LOG_PAIR_ENDS, a->now_ms, nobody);
    return rc;
}

/* The pair ends then, 0 never: in the maps and in the log. Its shard has an undo. */
static enum cht_rc note_end(struct cht_apply *a, struct cht_shard *sh, struct cht_str name, uint64_t at,
                            struct cht_err *err)
{
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, name.n, err);
    if (rc == CHT_OK)
        rc = cht_expiry_set(cht_shard_pairs(sh), name, at, err);
    if (rc == CHT_OK)
        cht_logbuf_add(&a->log, CHT_LOG_PAIR_ENDS, at, name);
    if (rc == CHT_OK && at != 0)
        rc = note_clock(a, err);
    if (rc == CHT_OK && at != 0 && at < a->least_end)
        a->least_end = at;
    return rc;
}

/* A pair that has ended goes, and its value. */
static enum cht_rc delete_ended(struct cht_apply *a, struct cht_str name, struct cht_err *err)
{
    struct cht_op del = {.kind = CHT_OP_PAIR_DEL, .with_values = true, .name = name};
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_name(name, a->db->nshards), true);
    enum cht_rc rc = gone_reserve(&a->gone, name, err);
    a->purged = true;
    if (rc == CHT_OK)
        rc = note_end(a, sh, name, 0, err);
    if (rc == CHT_OK)
        rc = cht_apply_delete_pair(a, &del, err);
    if (rc == CHT_OK)
        gone_add(&a->gone, &del);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* What a shard's order of time says of a pair. If the pair does not end then, or is none of this shard's (files that contradict themselves: E1),
 * that goes, and nothing else: without a record, for whoever redoes the log meets it again. */
static enum cht_rc remove_due(struct cht_apply *a, unsigned shard, struct cht_str name, uint64_t at,
                              struct cht_err *err)
{
    uint64_t ends;
    struct cht_shard *sh = cht_apply_take(a, shard, false);
    enum cht_rc rc = cht_expiry_get(cht_shard_pairs(sh), name, &ends, err);
    if (rc == CHT_OK && ends == at && cht_shard_of_name(name, a->db->nshards) == shard)
        return delete_ended(a, name, err);
    return rc != CHT_OK ? rc
                        : cht_expiry_drop(cht_shard_pairs(cht_apply_take(a, shard, true)), at, name, err);
}

/* The next one of a shard that has ended, with an undo of its own. *any: there was one. */
static enum cht_rc purge_one(struct cht_apply *a, unsigned shard, bool *any, struct cht_err *err)
{
    uint8_t name[CHT_NAME_MAX];
    size_t len, gone = a->gone.n;
    uint64_t at;
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    struct cht_shard *sh = cht_apply_take(a, shard, false);
    enum cht_rc rc = cht_expiry_first(cht_shard_pairs(sh), &at, name, &len, err);
    *any = rc == CHT_OK && at != 0 && at <= a->now_ms;
    if (!*any)
        return rc;
    rc = remove_due(a, shard, (struct cht_str){name, len}, at, err);
    cht_apply_end_undo(a, rc != CHT_OK);
    if (rc != CHT_OK) {
        cht_logbuf_rewind(&a->log, mark);
        a->gone.n = gone;
    }
    return rc;
}

/* -------------------------------------------------------------------------------------------------------------------- */

void cht_gone_fini(struct cht_gone *g)
{
    cht_free(g->ops);
    cht_buf_free(&g->names);
    *g = (struct cht_gone){0};
}

void cht_apply_begin(struct cht_apply *a, uint64_t now_ms)
{
    if (a->gone.cap > 2 * CHT_PURGE_OPS)
        cht_gone_fini(&a->gone);
    a->gone.n = 0;
    a->now_ms = now_ms;
    a->least_end = UINT64_MAX;
    a->purged = false;
}

struct cht_commit cht_apply_gone(struct cht_apply *a)
{
    struct cht_gone *g = &a->gone;
    for (size_t i = 0; i < g->n; i++)
        g->ops[i].name.p = g->names.data + g->ops[i].ends;
    return (struct cht_commit){.ops = g->ops, .count = g->n};
}

enum cht_rc cht_apply_ended(struct cht_apply *a, const struct cht_op *op, uint64_t *ends, struct cht_err *err)
{
    *ends = 0;
    if (op->name.n == 0 || op->name.n > CHT_NAME_MAX) /* the operation says so */
        return CHT_OK;
    bool wanted = cht_op_ends(op);
    if (a->part && wanted)
        return CHT_PENDING;
    if (a->now_ms == 0 && !wanted) /* a database in which nothing ends */
        return CHT_OK;
    unsigned at = cht_shard_of_name(op->name, a->db->nshards);
    struct cht_shard *sh = cht_apply_take(a, at, a->atomic || wanted);
    if (wanted &&
        (a->now_ms == 0 || !cht_expiry_any(cht_shard_pairs(sh)))) /* commit_ends.c makes sure of it */
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "this operation cannot have an end");
    enum cht_rc rc = cht_expiry_get(cht_shard_pairs(sh), op->name, ends, err);
    if (rc != CHT_OK || *ends == 0 || (op->kind == CHT_OP_PAIR_READ && *ends > a->now_ms))
        return rc;
    if (a->part) /* its value may lie in another shard */
        return CHT_PENDING;
    (void)cht_apply_take(a, at, true);
    if (*ends > a->now_ms)
        return CHT_OK;
    *ends = 0;
    return delete_ended(a, op->name, err);
}

enum cht_rc cht_apply_ends(struct cht_apply *a, struct cht_op *op, uint64_t ends, struct cht_err *err)
{
    uint64_t wanted = op->kind == CHT_OP_PAIR_READ || op->keep_end ? ends : 0;
    if (op->kind == CHT_OP_PAIR_PUT && op->ttl_ms > 0 && wanted == 0)
        wanted = a->now_ms + (op->ttl_ms < CHT_TTL_MAX_MS ? op->ttl_ms : CHT_TTL_MAX_MS);
    if (op->kind == CHT_OP_PAIR_SET)
        wanted = op->until_ms < CHT_EXPIRY_MAX ? op->until_ms : CHT_EXPIRY_MAX;
    op->ends = wanted;
    if (wanted == ends)
        return CHT_OK;
    unsigned at = cht_shard_of_name(op->name, a->db->nshards);
    return note_end(a, cht_apply_take(a, at, true), op->name, wanted, err);
}

enum cht_rc cht_apply_purge(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    static const size_t one = 3 * (CHT_LOGOP_HEAD_MAX + CHT_NAME_MAX);
    uint64_t full = a->log.bytes + CHT_PURGE_BYTES - one;
    enum cht_rc rc = CHT_OK;
    if (a->now_ms == 0)
        return CHT_OK;
    if (a->atomic) /* each pair is removed by itself */
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "what has ended is not removed by an atomic commit");
    a->purged = true;
    for (unsigned i = 0; i < a->db->nshards && rc == CHT_OK; i++) {
        bool any = true;
        while (any && rc == CHT_OK && op->pairs < CHT_PURGE_OPS && a->log.bytes < full) {
            rc = purge_one(a, i, &any, err);
            op->pairs += rc == CHT_OK && any;
            if (++a->locked_ops >= CHT_APPLY_LOCKED_OPS)
                cht_apply_release(a);
        }
    }
    if (rc == CHT_OK)
        rc = note_clock(a, err);
    return op->pairs > 0 && rc != CHT_IO
               ? CHT_OK
               : rc; /* what was removed stays so; the next one meets the cause again */
}
