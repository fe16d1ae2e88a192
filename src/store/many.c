/* many: operations that are made when they are looked at (struct cht_many), for implementations that know only an array: all of them are
 * made at once, and are the first operations of the commit. */
#include "base/alloc.h"
#include "store/store_int.h"

#include <string.h>

struct expanded {
    struct cht_op *ops; /* owned: those of many, then the commit's own */
    uint8_t *bytes;     /* owned: names and values of many */
    size_t n;           /* of many */
};

static enum cht_rc expand(const struct cht_commit *c, struct expanded *e, struct cht_err *err)
{
    const struct cht_many *m = c->many;
    size_t used = 0, *at = cht_calloc(m->n + 1, sizeof *at); /* by i: the operation + 1, 0 if there is none */
    e->ops = cht_calloc(m->n + c->count + 1, sizeof *e->ops);
    e->bytes = cht_malloc(m->bytes + m->room + 1);
    if (at == NULL || e->ops == NULL || e->bytes == NULL) {
        cht_free(at);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a commit of %zu operations", m->n);
    }
    for (size_t i = 0; i < m->n; i++) {
        struct cht_op *op = &e->ops[e->n], made = {0};
        if (!m->make(m->ctx, i, e->bytes + used, &made))
            continue;
        *op = made;
        if (made.kind == CHT_OP_PAIR_LINK && made.back <= i && at[i - made.back] > 0) {
            const struct cht_op *put = &e->ops[at[i - made.back] - 1];
            op->back = (uint32_t)(op - put);
            op->value = put->name;
        }
        if (made.name.p == e->bytes + used)
            used += made.name.n;
        if (made.value.n > 0 && made.value.p == e->bytes + used)
            used += made.value.n;
        at[i] = ++e->n;
    }
    cht_free(at);
    if (c->count > 0) /* ops may be NULL */
        memcpy(e->ops + e->n, c->ops, c->count * sizeof *c->ops);
    return CHT_OK;
}

enum cht_rc cht_many_commit(struct cht_store *s, struct cht_commit *c)
{
    struct expanded e = {0};
    c->rc = expand(c, &e, &c->err);
    if (c->rc == CHT_OK) {
        struct cht_commit all = {.ops = e.ops, .count = e.n + c->count, .flags = c->flags};
        c->rc = s->ops->commit(s, &all);
        c->err = all.err;
        if (c->rc == CHT_BATCH_FAILED && all.failed < e.n && c->err.code == CHT_OK)
            (void)CHT_FAIL(&c->err, e.ops[all.failed].rc, "%s", cht_rc_text(e.ops[all.failed].rc));
        c->failed = c->rc != CHT_BATCH_FAILED ? 0 : all.failed < e.n ? c->count : all.failed - e.n;
        if (c->count > 0)
            memcpy(c->ops, e.ops + e.n, c->count * sizeof *c->ops);
    }
    cht_free(e.ops);
    cht_free(e.bytes);
    return c->rc;
}
