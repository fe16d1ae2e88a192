/* request: see request.h: making, suspending and recycling a request, its jobs, its database, its commit. */
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/recycle.h"
#include "reduce/cache.h"

#include <stdio.h>

#define SPARES_MAX 256u
#define AHEAD_DONE UINT32_MAX
#define KEEP_BYTES (64u << 10) /* memory a request may keep for the next one */

struct request *request_new(struct worker *w)
{
    struct request *r = w->spare;
    if (r != NULL) {
        w->spare = r->next;
        w->spares--;
    } else {
        r = cht_calloc(1, sizeof *r);
        if (r == NULL)
            return NULL;
    }
    r->w = w;
    w->begun++;
    r->start_ns = w->now; /* of this round: the time that it waited for its turn counts */
    return r;
}

/* What must not survive into the next request; buffers stay unless they are large. */
static void reset(struct request *r)
{
    r->conn = NULL;
    r->mc = NULL;
    r->route = NULL;
    r->token = r->valid = NULL;
    r->head = r->early = r->close = r->body_over = false;
    atomic_store_explicit(&r->phase, PHASE_NEW, memory_order_relaxed);
    r->rest = NULL;
    r->rest_len = 0;
    memset(r->param, 0, sizeof r->param);
    memset(r->in, 0, sizeof r->in);
    r->cors = NULL;
    r->method_name[0] = 0; /* libmicrohttpd may answer the next one before its headers are looked at */
    r->id_len = 0;
    r->body_len = 0;
    r->body_max = r->body_dropped = 0;
    r->status = 0;
    r->headers = 0;
    r->sent = 0;
    r->resume = NULL;
    r->job.owner = 0;
    r->ahead = 0;
    atomic_store_explicit(&r->cancel, false, memory_order_relaxed);
    r->rc = CHT_OK;
    r->err.code = CHT_OK;
    r->err.msg[0] = 0;
    r->value.len = 0;
    out_reset(&r->out, KEEP_BYTES);
    if (r->body_cap > KEEP_BYTES) {
        cht_free(r->body);
        r->body = NULL;
        r->body_cap = 0;
    }
    if (r->value.cap > KEEP_BYTES)
        cht_buf_free(&r->value);
}

void request_free(struct request *r)
{
    cht_free(r->uri);
    cht_free(r->body);
    out_free(&r->out);
    cht_buf_free(&r->value);
    cht_free(r);
}

void request_recycle(struct request *r)
{
    struct worker *w = r->w;
    if (r->ahead > 0 && r->ahead != AHEAD_DONE) {
        for (unsigned i = r->ahead - 1; i < w->aheads && w->ahead[i].r == r; i++)
            w->ahead[i].r = NULL;
    }
    prepared_give(&w->prepared, r->prepared);
    r->prepared = NULL;
    if (r->stream != NULL)
        r->stream->free(r);
    if (r->release != NULL)
        r->release(r);
    r->release = NULL;
    r->own = NULL;
    dbs_put(r->db);
    r->db = NULL;
    if (!CHT_RECYCLE || w->spares >= SPARES_MAX) {
        request_free(r);
        return;
    }
    reset(r);
    r->next = w->spare;
    w->spare = r;
    w->spares++;
}

void request_suspend(struct request *r, void (*resume)(struct request *r))
{
    r->resume = resume;
    atomic_store_explicit(&r->phase, PHASE_WAITING, memory_order_relaxed);
    MHD_suspend_connection(r->mc);
}

void request_wake(struct request *r) { worker_resume(r->w, r->mc); }

static void job_main(struct cht_job *j)
{
    struct request *r = (struct request *)(void *)((char *)j - offsetof(struct request, job));
    r->work(r);
    request_wake(r);
}

void request_owner(struct request *r, const char *database)
{
    r->job.owner = cht_jobs_owner(database, strlen(database));
}

bool request_revoked(struct request *r)
{
    struct access *a = atomic_load_explicit(&r->w->srv->access, memory_order_acquire);
    if (r->token == NULL || r->route == NULL)
        return false;
    const struct token *t = r->valid != NULL && a != NULL ? access_again(a, r->valid) : NULL;
    if (t != NULL && t != r->valid) {
        bool may = r->db != NULL ? access_allows(t, r->route->right, r->db->name)
                                 : access_has_right(t, r->route->right);
        t = may ? t : NULL;
    }
    r->valid = t; /* NULL: for good */
    return t == NULL;
}

static void begin_job(struct request *r, struct cht_jobs *jobs, unsigned alone,
                      void (*work)(struct request *r), void (*resume)(struct request *r))
{
    if (r->db != NULL)
        request_owner(r, r->db->name);
    r->work = work;
    r->job.run = job_main;
    r->job.exclusive = alone;
    request_suspend(r, resume);
    cht_jobs_submit(jobs, &r->job);
}

void request_job(struct request *r, void (*work)(struct request *r), void (*resume)(struct request *r))
{
    begin_job(r, r->w->srv->jobs, 0, work, resume);
}

void request_long_job(struct request *r, unsigned alone, void (*work)(struct request *r),
                      void (*resume)(struct request *r))
{
    begin_job(r, r->w->srv->long_jobs, alone, work, resume);
}

bool request_may_wait(const struct request *r)
{
    return r->w->busy && r->ahead == 0 && r->w->aheads < CHT_HINTS_MAX;
}

bool request_ahead_all(struct request *r, const struct cht_hint *hints, size_t n,
                       void (*then)(struct request *r))
{
    struct worker *w = r->w;
    if (!request_may_wait(r) || n == 0 || n > CHT_HINTS_MAX - w->aheads)
        return false;
    metrics_add(&w->metrics.ahead, 1);
    r->ahead = w->aheads + 1;
    for (size_t i = 0; i < n; i++)
        w->ahead[w->aheads++] = (struct ahead){r, hints[i]};
    r->resume = then;
    atomic_store_explicit(&r->phase, PHASE_AHEAD, memory_order_relaxed);
    return true;
}

bool request_ahead(struct request *r, struct cht_str name, uint64_t key, void (*then)(struct request *r))
{
    return request_ahead_all(r, &(struct cht_hint){name, key}, 1, then);
}

void request_look_ahead(struct worker *w)
{
    struct cht_hint hints[CHT_HINTS_MAX];
    for (unsigned i = 0; i < w->aheads;) { /* mostly all of one database */
        struct cht_store *store = NULL;
        size_t n = 0;
        for (; i < w->aheads; i++) {
            struct request *r = w->ahead[i].r;
            if (r == NULL)
                continue;
            if (n > 0 && r->db->store != store)
                break;
            store = r->db->store;
            hints[n++] = w->ahead[i].hint;
            r->ahead = AHEAD_DONE;
        }
        if (n > 0)
            (void)cht_store_prefetch(store, hints, n);
    }
    w->aheads = 0;
}

static void open_database(struct request *r)
{
    bool created;
    char name[CHT_DATABASE_NAME_MAX + 1] = CHT_DATABASE_DEFAULT;
    if (r->param[P_DB].p != NULL)
        (void)snprintf(name, sizeof name, "%.*s", (int)r->param[P_DB].n, r->param[P_DB].p);
    r->rc = dbs_open(r->w->srv->dbs, name, r->create, 0, &r->db, &created, &r->err);
}

static void database_opened(struct request *r)
{
    if (r->rc != CHT_OK)
        reply_err(r, r->rc, &r->err);
    else
        r->opened(r);
}

void request_database(struct request *r, bool create, void (*then)(struct request *r))
{
    const struct param_value *v = &r->param[P_DB];
    char name[CHT_DATABASE_NAME_MAX + 1] = CHT_DATABASE_DEFAULT;
    if (v->p != NULL) {
        if (v->n == 0 || v->n >= sizeof name) {
            reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
            return;
        }
        memcpy(name, v->p, v->n);
        name[v->n] = 0;
        if (memchr(v->p, 0, v->n) != NULL || !cht_database_name_valid(name)) {
            reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
            return;
        }
    }
    if (r->token != NULL && !access_allows(r->token, r->route->right, name)) {
        reply_fail(r, CHT_FORBIDDEN, "this token does not allow that in database '%s'", name);
        return;
    }
    r->db = dbs_get(r->w->srv->dbs, name);
    if (r->db != NULL) {
        then(r);
        return;
    }
    r->create = create && r->w->srv->writes_create;
    r->opened = then;
    request_owner(r, name);
    request_job(r, open_database, database_opened);
}

/* Pairs with the exchange in request_commit: whoever comes second knows of the other. */
static void commit_done(struct cht_commit *c)
{
    struct request *r = (struct request *)(void *)((char *)c - offsetof(struct request, commit));
    if (atomic_exchange_explicit(&r->woken, 2, memory_order_acq_rel) == 1)
        request_wake(r);
}

/* Pairs with request_await likewise. */
static void read_ready(struct cht_wait *w)
{
    struct request *r = w->ctx;
    if (atomic_exchange_explicit(&r->woken, 2, memory_order_acq_rel) == 1)
        request_wake(r);
}

struct cht_wait *request_waiter(struct request *r)
{
    r->wait.done = read_ready;
    r->wait.ctx = r;
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    return &r->wait;
}

/* What waits for what was begun: a commit, or a read. */
static void suspend_until(struct request *r, void (*then)(struct request *r))
{
    int running = 0;
    request_suspend(r, then);
    if (!atomic_compare_exchange_strong_explicit(&r->woken, &running, 1, memory_order_acq_rel,
                                                 memory_order_acquire))
        request_wake(r); /* it was done before the connection was suspended */
}

void request_await(struct request *r, void (*again)(struct request *r))
{
    metrics_add(&r->w->metrics.awaited, 1);
    suspend_until(r, again);
}

void request_commit(struct request *r, void (*then)(struct request *r))
{
    r->commit.done = commit_done;
    if (r->w->srv->inline_commits)
        r->commit.flags |= CHT_COMMIT_INLINE;
    else if (r->w->busy) {
        metrics_add(&r->w->metrics.together, 1);
        request_suspend(r, then);
        atomic_store_explicit(&r->woken, 1, memory_order_relaxed);
        r->next = NULL;
        *r->w->commits_end = r;
        r->w->commits_end = &r->next;
        return;
    }
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    enum cht_rc rc = cht_store_submit(r->db->store, &r->commit);
    if (rc != CHT_PENDING) {
        r->commit.rc = rc;
        then(r);
        return;
    }
    suspend_until(r, then);
}

struct cht_op *request_own_operation(struct request *r, enum cht_op_kind kind)
{
    struct cht_op *op = request_own(r, sizeof *op);
    *op = (struct cht_op){.kind = kind};
    return op;
}

void request_operation(struct request *r, struct cht_op *op, void (*then)(struct request *r))
{
    r->commit.ops = op;
    r->commit.count = 1;
    r->commit.flags = 0;
    r->commit.read_max = 0;
    request_commit(r, then);
}

void request_submit_commits(struct worker *w)
{
    struct request *r = w->commits;
    w->commits = NULL;
    w->commits_end = &w->commits;
    while (r != NULL) {
        struct request *next = r->next; /* it may be gone as soon as it is submitted */
        enum cht_rc rc = cht_store_submit(r->db->store, &r->commit);
        if (rc != CHT_PENDING) {
            r->commit.rc = rc;
            request_wake(r);
        }
        r = next;
    }
}
