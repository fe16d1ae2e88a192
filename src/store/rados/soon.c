/* soon: see soon.h. */
#include "store/rados/soon.h"

#include "base/alloc.h"
#include "store/rados/prefix.h"

#include <string.h>

#define TOGETHER 64u /* names that are asked for at once */

enum what { ROWS, VALUE, COUNT };

/* A long value or a count, kept until all is forgotten. */
struct result {
    struct result *next;
    enum what what;
    struct cht_op op; /* which one; its results */
    uint64_t key;     /* as it was asked */
    enum cht_rc rc;
    struct cht_err err;
    struct cht_buf value; /* owned */
    uint64_t pairs;
    uint8_t name[]; /* op.name */
};
struct held {
    struct cht_job job; /* first */
    struct cht_rdb *db;
    struct cht_mutex mu;
    struct cht_wait *w; /* guarded by mu, as is the next; NULL: nobody waits */
    bool busy;          /* the job has what follows, else the thread that asks */
    struct cht_rowset set;
    struct result *results;      /* owned; the newest first */
    enum what what;              /* of the job: of its rows, or of the first of results */
    struct cht_reading *reading; /* what has been asked for; NULL: the job asks */
    enum cht_rc rc;              /* of the rows: not told yet */
    struct cht_err err;
};

static bool waits_here(const struct cht_wait *w) { return w == NULL || w == &cht_ahead; }

static void held_free(struct held *h)
{
    while (h->results != NULL) {
        struct result *r = h->results;
        h->results = r->next;
        cht_buf_free(&r->value);
        cht_free(r);
    }
    cht_rowset_fini(&h->set);
    cht_mutex_fini(&h->mu);
    cht_free(h);
}

/* Runs one operation until it has what it wants, or (soon) once. */
static enum cht_rc run(struct cht_exec *x, struct cht_op *op)
{
    struct cht_exec_op o = {.op = op};
    for (;;) {
        cht_rowset_restart(x->set);
        if (cht_exec_run(x, &o) != CHT_PENDING)
            return op->rc;
        enum cht_rc rc = x->soon ? CHT_PENDING : cht_rowset_fetch(x->set, false, x->err);
        if (rc != CHT_OK)
            return rc;
    }
}

static enum cht_rc read_here(struct cht_rdb *db, struct cht_op *op, struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_exec x = {.db = db, .set = &set, .err = err};
    cht_rowset_init(&set, db, -1);
    enum cht_rc rc = run(&x, op);
    cht_rowset_fini(&set);
    return rc;
}

/* ---- many names ------------------------------------------------------------------------------------------------------ */

/* What the operation has read, in `one`. */
static enum cht_rc take(struct cht_pair_read *r, const struct cht_op *op, const struct cht_buf *one,
                        struct cht_buf *out, struct cht_err *err)
{
    r->key = op->key;
    r->ends = op->ends;
    r->size = op->size;
    r->at = out->len;
    if (op->size > 0 && one->data != NULL) {
        size_t need = out->len + op->size;
        enum cht_rc rc = need <= out->cap ? CHT_OK : cht_buf_reserve(out, need + need / 2, err);
        if (rc != CHT_OK)
            return r->rc = rc;
        memcpy(out->data + out->len, one->data, op->size);
        out->len = need;
    }
    r->rc = CHT_OK;
    return CHT_OK;
}

static bool was_read(enum cht_rc rc) { return rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND; }

/* One round: those that were not read yet, but for long values. *wants: rows are missing. */
static enum cht_rc run_all(struct cht_exec *x, struct cht_pair_read *r, struct cht_exec_op *o, size_t n,
                           struct cht_buf *out, bool *wants)
{
    struct cht_buf one = {NULL, 0, 0};
    enum cht_rc rc = CHT_OK;
    *wants = false;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (r[i].rc != CHT_PENDING || o[i].done)
            continue;
        size_t mark = cht_rowset_mark(x->set);
        o[i].op->buf = &one;
        x->long_value = false;
        r[i].rc = cht_exec_run(x, &o[i]);
        cht_rowset_rewind(x->set, mark); /* that a pair has ended is no news for the next one */
        o[i].done = r[i].rc != CHT_PENDING || x->long_value;
        *wants = *wants || !o[i].done;
        if (r[i].rc != CHT_PENDING)
            rc = r[i].rc == CHT_OK ? take(&r[i], o[i].op, &one, out, x->err) : r[i].rc;
        rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    }
    cht_buf_free(&one);
    return rc;
}

/* Long values stay CHT_PENDING: all of them would be held together. */
static enum cht_rc read_together(struct cht_rdb *db, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                                 struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_exec x = {.db = db, .set = &set, .soon = true, .err = err};
    struct cht_op op[TOGETHER];
    struct cht_exec_op o[TOGETHER];
    bool wants;
    for (size_t i = 0; i < n; i++) {
        op[i] = (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = r[i].name, .with_values = true};
        o[i] = (struct cht_exec_op){.op = &op[i]};
    }
    cht_rowset_init(&set, db, -1);
    enum cht_rc rc;
    do {
        cht_rowset_restart(&set);
        rc = run_all(&x, r, o, n, out, &wants);
        if (rc == CHT_OK && wants)
            rc = cht_rowset_fetch(&set, false, err);
    } while (rc == CHT_OK && wants);
    cht_rowset_fini(&set);
    return rc;
}

/* One after the other, each by itself. */
static enum cht_rc read_each(struct cht_rdb *db, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                             struct cht_wait *w, struct cht_err *err)
{
    struct cht_buf one = {NULL, 0, 0};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (was_read(r[i].rc))
            continue;
        struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = r[i].name, .with_values = true, .buf = &one};
        r[i].rc = cht_soon_read(db, &op, w, err);
        rc = r[i].rc == CHT_OK ? take(&r[i], &op, &one, out, err) : r[i].rc;
        rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    }
    cht_buf_free(&one);
    return rc;
}

/* ---- the job --------------------------------------------------------------------------------------------------------- */

static void work(struct held *h)
{
    struct result *r = h->results;
    switch (h->what) {
    case ROWS:
        h->rc = h->reading != NULL ? cht_rowset_end(&h->set, h->reading, &h->err)
                                   : cht_rowset_fetch(&h->set, false, &h->err);
        h->reading = NULL;
        break;
    case VALUE:
        r->op.buf = &r->value;
        r->rc = read_here(h->db, &r->op, &r->err);
        break;
    case COUNT:
        r->rc = cht_prefix_count(h->db, r->op.name, &r->pairs, &r->err);
        break;
    }
}

/* After `done` whoever waited may have forgotten it: it is gone once mu is free. */
static void run_job(struct cht_job *job)
{
    struct held *h = (struct held *)job;
    struct cht_rdb *db = h->db;
    work(h);
    cht_mutex_lock(&h->mu);
    h->busy = false;
    struct cht_wait *w = h->w;
    if (w != NULL)
        w->done(w);
    cht_mutex_unlock(&h->mu);
    if (w == NULL)
        held_free(h);
    cht_rdb_put(db);
}

static void rows_have_come(void *ctx)
{
    struct held *h = ctx;
    cht_jobs_submit(h->db->env->jobs, &h->job);
}

/* h may be gone when this returns. */
static enum cht_rc begin(struct held *h, enum what what)
{
    h->what = what;
    h->busy = true;
    cht_rdb_hold(h->db);
    if (what != ROWS || !cht_rowset_begin(&h->set, rows_have_come, h, &h->reading))
        cht_jobs_submit(h->db->env->jobs, &h->job);
    return CHT_PENDING;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

static enum cht_rc held_of(struct cht_rdb *db, struct cht_wait *w, struct held **out, struct cht_err *err)
{
    *out = w->held;
    if (*out != NULL)
        return CHT_OK;
    struct held *h = cht_calloc(1, sizeof *h);
    if (h == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a read");
    enum cht_rc rc = cht_mutex_init(&h->mu, err);
    if (rc != CHT_OK) {
        cht_free(h);
        return rc;
    }
    h->job.run = run_job;
    h->db = db;
    h->w = w;
    cht_rowset_init(&h->set, db, -1);
    w->held = *out = h;
    return CHT_OK;
}

static bool is_busy(struct held *h)
{
    cht_mutex_lock(&h->mu);
    bool busy = h->busy;
    cht_mutex_unlock(&h->mu);
    return busy;
}

static const struct result *find(const struct held *h, enum what what, const struct cht_op *op)
{
    const struct result *r = h->results;
    while (r != NULL && (r->what != what || r->op.kind != op->kind || r->key != op->key ||
                         r->op.name.n != op->name.n || memcmp(r->name, op->name.p, op->name.n) != 0))
        r = r->next;
    return r;
}

static enum cht_rc begin_result(struct held *h, enum what what, const struct cht_op *op, struct cht_err *err)
{
    struct result *r = cht_calloc(1, sizeof *r + op->name.n + 1);
    if (r == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a read");
    r->what = what;
    r->op = *op;
    r->key = op->key;
    if (op->name.n > 0)
        memcpy(r->name, op->name.p, op->name.n);
    r->op.name.p = r->name;
    r->next = h->results;
    h->results = r;
    return begin(h, what);
}

static enum cht_rc tell(enum cht_rc rc, const struct cht_err *why, struct cht_err *err)
{
    if (rc != CHT_OK && why->code == rc && err != NULL)
        *err = *why;
    return rc;
}

static enum cht_rc give_value(const struct result *r, struct cht_op *op, struct cht_err *err)
{
    struct cht_op asked = *op;
    *op = r->op;
    op->name = asked.name;
    op->buf = asked.buf;
    if (r->rc != CHT_OK)
        return tell(r->rc, &r->err, err);
    if (op->buf == NULL)
        return CHT_OK;
    op->rc = cht_buf_reserve(op->buf, r->value.len, err);
    if (op->rc != CHT_OK)
        return op->rc;
    if (r->value.len > 0)
        memcpy(op->buf->data, r->value.data, r->value.len);
    op->buf->len = r->value.len;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_soon_read(struct cht_rdb *db, struct cht_op *op, struct cht_wait *w, struct cht_err *err)
{
    struct held *h;
    if (waits_here(w))
        return op->rc = read_here(db, op, err);
    enum cht_rc rc = held_of(db, w, &h, err);
    if (rc != CHT_OK || is_busy(h))
        return rc != CHT_OK ? rc : CHT_PENDING;
    const struct cht_op asked = *op;
    const struct result *known = find(h, VALUE, op);
    if (known != NULL)
        return give_value(known, op, err);
    struct cht_exec x = {.db = db, .set = &h->set, .soon = true, .err = err};
    rc = run(&x, op);
    if (rc != CHT_PENDING)
        return rc;
    if (x.long_value)
        return begin_result(h, VALUE, &asked, err);
    if (h->rc == CHT_OK)
        return begin(h, ROWS);
    rc = tell(h->rc, &h->err, err);
    h->rc = CHT_OK; /* told: they may be asked for again */
    return rc;
}

enum cht_rc cht_soon_pair_values(struct cht_rdb *db, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                                 struct cht_wait *w, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (!waits_here(w))
        return read_each(db, r, n, out, w, err);
    for (size_t i = 0; i < n && rc == CHT_OK; i += TOGETHER) {
        size_t some = n - i < TOGETHER ? n - i : TOGETHER;
        rc = read_together(db, r + i, some, out, err);
        if (rc == CHT_OK)
            rc = read_each(db, r + i, some, out, w, err);
    }
    return rc;
}

enum cht_rc cht_soon_count(struct cht_rdb *db, struct cht_str prefix, uint64_t *pairs, struct cht_wait *w,
                           struct cht_err *err)
{
    struct held *h;
    const struct cht_op op = {.name = prefix}; /* never run */
    if (waits_here(w))
        return cht_prefix_count(db, prefix, pairs, err);
    enum cht_rc rc = held_of(db, w, &h, err);
    if (rc != CHT_OK || is_busy(h))
        return rc != CHT_OK ? rc : CHT_PENDING;
    const struct result *known = find(h, COUNT, &op);
    if (known == NULL)
        return begin_result(h, COUNT, &op, err);
    *pairs = known->pairs;
    return tell(known->rc, &known->err, err);
}

void cht_soon_forget(struct cht_wait *w)
{
    struct held *h = w->held;
    if (h == NULL)
        return;
    w->held = NULL;
    cht_mutex_lock(&h->mu);
    h->w = NULL;
    bool busy = h->busy;
    cht_mutex_unlock(&h->mu);
    if (!busy)
        held_free(h);
}
