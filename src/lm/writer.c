/* writer: see writer.h. A buffer never moves while it holds operations: it is grown when it is empty only. */
#include "lm/writer.h"

#include <string.h>

#include "base/alloc.h"

/* From the committer. */
static void half_done(struct cht_commit *c)
{
    struct lm_writer_half *h = c->ctx;
    struct lm_writer *w = h->writer;
    cht_mutex_lock(&w->mu);
    h->under_way = false;
    cht_cond_signal(&w->done);
    cht_mutex_unlock(&w->mu);
}

static void await(struct lm_writer *w, struct lm_writer_half *h)
{
    cht_mutex_lock(&w->mu);
    while (h->under_way)
        cht_cond_wait(&w->done, &w->mu);
    cht_mutex_unlock(&w->mu);
}

/* Waits until the half is free; what has become of its operations. */
static enum cht_rc settle(struct lm_writer *w, struct lm_writer_half *h, struct cht_err *err)
{
    if (!h->unread)
        return CHT_OK;
    await(w, h);
    const struct cht_commit *c = &h->commit;
    enum cht_rc rc = c->rc == CHT_BATCH_FAILED ? h->ops[c->failed].rc : c->rc;
    for (size_t i = 0; rc == CHT_OK && c->failed > 0 && i < c->count; i++) {
        bool gone = h->ops[i].kind == CHT_OP_PAIR_DEL && h->ops[i].rc == CHT_PAIR_NOT_FOUND;
        if (!gone)
            rc = h->ops[i].rc;
    }
    h->unread = false;
    h->n = h->bytes.len = 0;
    if (rc == CHT_OK)
        return CHT_OK;
    if (c->err.code != rc)
        return CHT_FAIL(err, rc, "%s", cht_rc_text(rc));
    if (err != NULL)
        *err = c->err;
    return rc;
}

/* Hands the half that was filled to the store. */
static void hand_over(struct lm_writer *w)
{
    struct lm_writer_half *h = &w->half[w->at];
    if (h->n == 0)
        return;
    h->commit = (struct cht_commit){.ops = h->ops,
                                    .count = h->n,
                                    .flags = CHT_COMMIT_UNORDERED | CHT_COMMIT_FENCED | w->flags,
                                    .done = half_done,
                                    .ctx = h};
    h->unread = h->under_way = true;
    enum cht_rc rc = cht_store_locks_kept(w->store, &h->commit.err); /* what it is made of may be old */
    if (rc == CHT_OK)
        rc = cht_store_submit(w->store, &h->commit);
    if (rc != CHT_PENDING) { /* not accepted; half_done is not called */
        h->commit.rc = rc;
        h->under_way = false;
    }
    w->at ^= 1;
}

static enum cht_rc start_up(struct lm_writer *w, struct cht_err *err)
{
    enum cht_rc rc = cht_mutex_cond_init(&w->mu, &w->done, err);
    if (rc != CHT_OK)
        return rc;
    w->half[0].writer = w->half[1].writer = w;
    w->up = true;
    return CHT_OK;
}

static struct cht_op *start(struct lm_writer_half *h, enum cht_op_kind kind, struct cht_str name)
{
    struct cht_op *op = &h->ops[h->n];
    uint8_t *p = h->bytes.data + h->bytes.len;
    memcpy(p, name.p, name.n);
    *op = (struct cht_op){.kind = kind, .with_values = true, .name = {p, name.n}};
    h->bytes.len += name.n;
    return op;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_writer_reserve(struct lm_writer *w, size_t ops, size_t bytes, struct cht_err *err)
{
    enum cht_rc rc = w->up ? CHT_OK : start_up(w, err);
    if (rc != CHT_OK)
        return rc;
    struct lm_writer_half *h = &w->half[w->at];
    if (h->n + ops > LM_WRITER_OPS || (h->n > 0 && h->bytes.len + bytes > h->bytes.cap)) {
        hand_over(w);
        h = &w->half[w->at];
    }
    rc = settle(w, h, err);
    if (rc == CHT_OK && h->ops == NULL) {
        h->ops = cht_malloc(LM_WRITER_OPS * sizeof *h->ops);
        if (h->ops == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u operations", LM_WRITER_OPS);
    }
    if (rc == CHT_OK && h->bytes.len + bytes > h->bytes.cap)
        rc = cht_buf_reserve(&h->bytes, bytes < LM_WRITER_BYTES ? LM_WRITER_BYTES : bytes, err);
    return rc;
}

uint8_t *lm_writer_put(struct lm_writer *w, struct cht_str name, size_t value_max, enum cht_rc *rc,
                       struct cht_err *err)
{
    *rc = lm_writer_reserve(w, 1, name.n + value_max, err);
    if (*rc != CHT_OK)
        return NULL;
    struct lm_writer_half *h = &w->half[w->at];
    struct cht_op *op = start(h, CHT_OP_PAIR_PUT, name);
    uint8_t *v = h->bytes.data + h->bytes.len;
    op->value.p = v;
    return v;
}

void lm_writer_put_end(struct lm_writer *w, size_t n)
{
    struct lm_writer_half *h = &w->half[w->at];
    h->ops[h->n++].value.n = n;
    h->bytes.len += n;
}

enum cht_rc lm_writer_del(struct lm_writer *w, struct cht_str name, struct cht_err *err)
{
    enum cht_rc rc = lm_writer_reserve(w, 1, name.n, err);
    if (rc == CHT_OK) {
        (void)start(&w->half[w->at], CHT_OP_PAIR_DEL, name);
        w->half[w->at].n++;
    }
    return rc;
}

enum cht_rc lm_writer_flush(struct lm_writer *w, struct cht_err *err)
{
    hand_over(w);
    enum cht_rc first = settle(w, &w->half[w->at], err);
    enum cht_rc second = settle(w, &w->half[w->at ^ 1], first == CHT_OK ? err : NULL);
    return first != CHT_OK ? first : second;
}

void lm_writer_free(struct lm_writer *w)
{
    for (unsigned i = 0; i < 2; i++) {
        struct lm_writer_half *h = &w->half[i];
        if (h->unread)
            await(w, h);
        cht_free(h->ops);
        cht_buf_free(&h->bytes);
    }
    if (w->up) {
        cht_cond_fini(&w->done);
        cht_mutex_fini(&w->mu);
    }
    *w = (struct lm_writer){0};
}
