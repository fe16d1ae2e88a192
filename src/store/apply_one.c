/* apply_one: one operation of a commit: what can be refused before it runs, its undo, what its failure means for the store. */
#include "store/apply_int.h"
#include "store/db.h"
#include "store/trie.h"

bool cht_op_frees(enum cht_op_kind k)
{
    return k == CHT_OP_PURGE || k == CHT_OP_DELETE || k == CHT_OP_PAIR_DEL || k == CHT_OP_PREFIX_DEL ||
           k == CHT_OP_READ || k == CHT_OP_PAIR_READ;
}

bool cht_op_again(const struct cht_op *op)
{
    enum cht_op_kind k = op->kind;
    return op->ask == NULL &&
           (k == CHT_OP_INSERT || k == CHT_OP_EDIT || k == CHT_OP_DELETE || k == CHT_OP_PAIR_SET ||
            k == CHT_OP_PAIR_PUT || k == CHT_OP_PAIR_DEL || k == CHT_OP_PAIR_LINK || k == CHT_OP_PUT);
}

static cht_apply_fn *fn_of(enum cht_op_kind kind)
{
    return kind == CHT_OP_PURGE ? cht_apply_purge : cht_apply_fn_of(kind);
}

static bool has_name(const struct cht_op *op)
{
    return op->kind == CHT_OP_PAIR_SET || op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_PAIR_DEL ||
           op->kind == CHT_OP_PAIR_READ;
}

static bool has_key(const struct cht_op *op)
{
    return op->kind == CHT_OP_EDIT || op->kind == CHT_OP_DELETE || op->kind == CHT_OP_PUT ||
           op->kind == CHT_OP_READ;
}

/* What is under found->key; *sh and *ref: where its bytes are. */
static enum cht_rc find_value(struct cht_apply *a, struct cht_found *found, struct cht_shard **sh,
                              struct cht_value_ref *ref, struct cht_err *err)
{
    if (found->key == 0 || found->key > CHT_KEY_MAX)
        return CHT_FAIL(err, CHT_INVALID_KEY, "key %llu; keys are 1 to 2^48-1",
                        (unsigned long long)found->key);
    *sh = cht_apply_take(a, cht_shard_of_key(found->key, a->db->nshards), a->atomic);
    enum cht_rc rc = cht_values_find(&(*sh)->values, found->key, ref, err);
    if (rc != CHT_OK)
        return rc == CHT_KEY_NOT_FOUND ? CHT_OK : rc;
    const uint8_t *p = NULL;
    found->live = true;
    rc = cht_values_view(&(*sh)->values, found->key, ref, &p, err);
    if (rc == CHT_CORRUPT) {
        atomic_fetch_add_explicit(&a->db->corrupt, 1, memory_order_relaxed);
        found->damage = rc;
    } else if (rc == CHT_OK) {
        found->value = (struct cht_str){.p = p, .n = ref->len};
    }
    return rc == CHT_CORRUPT ? CHT_OK : rc;
}

/* Whether an operation may run, and with which value, is decided by what is there now. */
static enum cht_rc ask(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    struct cht_found found = {.key = op->key};
    struct cht_shard *sh = NULL;
    struct cht_value_ref ref;
    enum cht_rc rc = CHT_OK;
    bool named = has_name(op);
    if (!named && !has_key(op))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "nothing decides about operations of kind %d",
                        (int)op->kind);
    if (named) {
        if (op->name.n == 0 || op->name.n > CHT_NAME_MAX)
            return CHT_FAIL(err, CHT_INVALID_PAIR, "a pair name of %zu bytes; 1 to %u are allowed",
                            op->name.n, CHT_NAME_MAX);
        struct cht_shard *home = cht_apply_take(a, cht_shard_of_name(op->name, a->db->nshards), a->atomic);
        found.key = 0;
        rc = cht_trie_get(cht_shard_pairs(home), op->name.p, op->name.n, &found.key, err);
        found.mapped = rc == CHT_OK;
    }
    if (rc == CHT_OK)
        rc = find_value(a, &found, &sh, &ref, err);
    if (!named)
        found.mapped = found.live;
    if (rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND)
        rc = op->ask->decide(op->ask, op, &found, err);
    if (rc == CHT_OK && sh != NULL && found.value.n > 0) /* the disk may have failed while it was looked at */
        rc = cht_values_copied(&sh->values, &ref, err);
    return rc;
}

static enum cht_rc run(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    uint64_t ends = 0;
    bool named = has_name(op) || op->kind == CHT_OP_PAIR_LINK;
    enum cht_rc rc = named ? cht_apply_ended(a, op, &ends, err) : CHT_OK;
    if (rc == CHT_OK && op->ask != NULL)
        rc = ask(a, op, err);
    if (rc == CHT_OK &&
        named) /* before the change, which may be of several shards: this is of one, and under an undo */
        rc = cht_apply_ends(a, op, ends, err);
    return rc == CHT_OK ? fn_of(op->kind)(a, op, err) : rc;
}

/* An operation of a commit that is not atomic: on failure what its undo covers is put back. */
static enum cht_rc run_alone(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    size_t gone = a->gone.n;
    enum cht_rc rc = run(a, op, err);
    cht_apply_end_undo(a, rc != CHT_OK);
    if (rc != CHT_OK) {
        cht_logbuf_rewind(&a->log, mark);
        a->gone.n = gone;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_apply_op(struct cht_apply *a, const struct cht_commit *c, struct cht_op *op, uint64_t read,
                  struct cht_err *err)
{
    bool known = fn_of(op->kind) != NULL;
    a->frees = cht_op_frees(op->kind);
    if (op->kind == CHT_OP_PAIR_LINK && op->back > (size_t)(op - c->ops))
        op->rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "there are no %u operations before this one",
                          (unsigned)op->back);
    else if (!known)
        op->rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "operation kind %d", (int)op->kind);
    else if (op->ask != NULL && (c->flags & CHT_COMMIT_UNORDERED) != 0)
        op->rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "nothing decides in a commit without an order");
    else if (op->buf != NULL && c->read_max > 0 && read >= c->read_max)
        op->rc = CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "the commit has read its %llu bytes",
                          (unsigned long long)c->read_max);
    else
        op->rc = a->atomic ? run(a, op, err) : run_alone(a, op, err);
    if (op->rc == CHT_DISK_FULL && !a->atomic && !a->part && cht_op_again(op) &&
        cht_crew_give_up(a->db->env->crew)) { /* it has changed nothing */
        *err = (struct cht_err){0};
        op->rc = run_alone(a, op, err);
    }
    if (op->rc == CHT_IO) { /* a failed write stops all writing: who knows what the disk has */
        a->stuck = true;
        a->stuck_err = *err;
    }
}
