/* writer: see writer.h. The buffer never moves while it holds operations: it is grown when it is empty only. */
#include "lm/writer.h"

#include <string.h>

#include "base/alloc.h"

/* Room for one more operation and its bytes. */
static enum cht_rc room(struct lm_writer *w, size_t bytes, struct cht_err *err)
{
    if (w->ops == NULL) {
        w->ops = cht_malloc(LM_WRITER_OPS * sizeof *w->ops);
        if (w->ops == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u operations", LM_WRITER_OPS);
    }
    enum cht_rc rc = CHT_OK;
    if (w->n == LM_WRITER_OPS || w->bytes.len + bytes > w->bytes.cap)
        rc = lm_writer_flush(w, err);
    if (rc == CHT_OK && w->bytes.len + bytes > w->bytes.cap)
        rc = cht_buf_reserve(&w->bytes, bytes < LM_WRITER_BYTES ? LM_WRITER_BYTES : bytes, err);
    return rc;
}

static struct cht_op *start(struct lm_writer *w, enum cht_op_kind kind, struct cht_str name)
{
    struct cht_op *op = &w->ops[w->n];
    uint8_t *p = w->bytes.data + w->bytes.len;
    memcpy(p, name.p, name.n);
    *op = (struct cht_op){.kind = kind, .with_values = true, .name = {p, name.n}};
    w->bytes.len += name.n;
    return op;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint8_t *lm_writer_put(struct lm_writer *w, struct cht_str name, size_t value_max, enum cht_rc *rc,
                       struct cht_err *err)
{
    *rc = room(w, name.n + value_max, err);
    if (*rc != CHT_OK)
        return NULL;
    struct cht_op *op = start(w, CHT_OP_PAIR_PUT, name);
    uint8_t *v = w->bytes.data + w->bytes.len;
    op->value.p = v;
    return v;
}

void lm_writer_put_end(struct lm_writer *w, size_t n)
{
    w->ops[w->n++].value.n = n;
    w->bytes.len += n;
}

enum cht_rc lm_writer_del(struct lm_writer *w, struct cht_str name, struct cht_err *err)
{
    enum cht_rc rc = room(w, name.n, err);
    if (rc == CHT_OK) {
        (void)start(w, CHT_OP_PAIR_DEL, name);
        w->n++;
    }
    return rc;
}

enum cht_rc lm_writer_flush(struct lm_writer *w, struct cht_err *err)
{
    size_t n = w->n;
    w->n = w->bytes.len = 0;
    if (n == 0)
        return CHT_OK;
    struct cht_commit c = {.ops = w->ops, .count = n, .flags = CHT_COMMIT_UNORDERED};
    enum cht_rc rc = cht_store_commit(w->store, &c);
    for (size_t i = 0; rc == CHT_OK && c.failed > 0 && i < n; i++) {
        bool gone = w->ops[i].kind == CHT_OP_PAIR_DEL && w->ops[i].rc == CHT_PAIR_NOT_FOUND;
        if (!gone)
            rc = w->ops[i].rc;
    }
    if (rc == CHT_OK)
        return CHT_OK;
    if (c.err.code != rc)
        return CHT_FAIL(err, rc, "%s", cht_rc_text(rc));
    if (err != NULL)
        *err = c.err;
    return rc;
}

void lm_writer_free(struct lm_writer *w)
{
    cht_free(w->ops);
    cht_buf_free(&w->bytes);
    *w = (struct lm_writer){0};
}
