/* apply_one: one operation of a commit: what can be refused before it runs, its undo, what its failure means for the store. */
#include "store/apply_int.h"

bool cht_op_frees(enum cht_op_kind k)
{
    return k == CHT_OP_DELETE || k == CHT_OP_PAIR_DEL || k == CHT_OP_PREFIX_DEL || k == CHT_OP_READ ||
           k == CHT_OP_PAIR_READ;
}

/* An operation of a commit that is not atomic: on failure what its undo covers is put back. */
static enum cht_rc run_alone(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    enum cht_rc rc = cht_apply_fn_of(op->kind)(a, op, err);
    cht_apply_end_undo(a, rc != CHT_OK);
    if (rc != CHT_OK)
        cht_logbuf_rewind(&a->log, mark);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_apply_op(struct cht_apply *a, const struct cht_commit *c, struct cht_op *op, uint64_t read,
                  struct cht_err *err)
{
    bool known = cht_apply_fn_of(op->kind) != NULL;
    a->frees = cht_op_frees(op->kind);
    if (op->kind == CHT_OP_PAIR_LINK && op->back > (size_t)(op - c->ops))
        op->rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "there are no %u operations before this one",
                          (unsigned)op->back);
    else if (!known)
        op->rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "operation kind %d", (int)op->kind);
    else if (op->buf != NULL && c->read_max > 0 && read >= c->read_max)
        op->rc = CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "the commit has read its %llu bytes",
                          (unsigned long long)c->read_max);
    else
        op->rc = a->atomic ? cht_apply_fn_of(op->kind)(a, op, err) : run_alone(a, op, err);
    if (op->rc == CHT_IO) { /* a failed write stops all writing: who knows what the disk has */
        a->stuck = true;
        a->stuck_err = *err;
    }
}
