/* request: see request.h: making, suspending and recycling a request, its jobs, its database, its commit. */
#include "http/access_log.h"
#include "http/admit.h"
#include "http/reply.h"
#include "http/secure.h"
#include "http/server.h"
#include "http/stream.h"
#include "http/turn.h"
#include "http/unpack.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/recycle.h"

#include <jansson.h>
#include <stdio.h>

#define SPARES_MAX 256u
#define AHEAD_DONE UINT32_MAX
#define KEEP_BYTES (64u << 10) /* memory a request may keep for the next one */

struct http_request *http_request_new(struct http_worker *w)
{
    struct http_request *r = w->spare;
    if (r != NULL) {
        w->spare = r->next;
        w->spares--;
    } else {
        r = cht_calloc(1, sizeof *r);
        if (r == NULL)
            return NULL;
    }
    r->w = w;
    r->memory.budget = &w->srv->memory;
    w->begun++;
    r->start_ns = w->now; /* of this round: the time that it waited for its turn counts */
    return r;
}

/* What must not survive into the next request; buffers stay unless they are large. */
static void reset(struct http_request *r)
{
    r->conn = NULL;
    r->mc = NULL;
    r->route = NULL;
    r->token = r->valid = NULL;
    r->head = r->early = r->close = r->body_over = r->certified = false;
    r->quick = r->handed = r->loose = false;
    r->booked = 0;
    r->conditional = r->twice = r->tagged = r->by_accept = r->owed = false;
    atomic_store_explicit(&r->phase, HTTP_PHASE_NEW, memory_order_relaxed);
    r->rest = NULL;
    r->rest_len = 0;
    memset(r->param, 0, sizeof r->param);
    r->coding = HTTP_CODING_NONE;
    r->packed = false;
    r->names = HTTP_NAMES_EITHER;
    r->text = false;
    memset(r->in, 0, sizeof r->in);
    r->cors = NULL;
    r->method_name[0] = 0; /* libmicrohttpd may answer the next one before its headers are looked at */
    r->id_len = 0;
    r->body_len = 0;
    r->body_max = r->body_dropped = r->skip_ns = r->moved_ns = 0;
    r->status = 0;
    r->headers = 0;
    r->fixed = NULL;
    r->sent = 0;
    r->lines = NULL;
    r->resume = NULL;
    r->job.owner = 0;
    r->ahead = 0;
    r->put_off = false;
    atomic_store_explicit(&r->cancel, false, memory_order_relaxed);
    r->rc = CHT_OK;
    r->err.code = CHT_OK;
    r->err.msg[0] = 0;
    r->value.len = 0;
    svc_out_reset(&r->out, KEEP_BYTES);
    if (r->body_cap > KEEP_BYTES) {
        cht_free(r->body);
        r->body = NULL;
        r->body_cap = 0;
    }
    if (r->value.cap > KEEP_BYTES)
        cht_buf_free(&r->value);
}

void http_request_free(struct http_request *r)
{
    cht_free(r->uri);
    cht_free(r->body);
    svc_out_free(&r->out);
    cht_buf_free(&r->value);
    cht_free(r);
}

/* What a job has parsed and no handler has asked for. */
static void forget_body(struct http_request *r)
{
    json_decref(r->json);
    r->json = NULL;
    r->parsed = false;
}

/* The connection has gone in the round that its commit came in: nobody was answered, and nothing is done. */
static void take_commit_back(struct http_request *r)
{
    struct http_request **at = &r->w->commits;
    while (*at != NULL && *at != r)
        at = &(*at)->next;
    if (*at == NULL)
        return;
    *at = r->next;
    if (*at == NULL)
        r->w->commits_end = at;
}

void http_request_recycle(struct http_request *r)
{
    struct http_worker *w = r->w;
    if (r->put_off)
        take_commit_back(r);
    if (r->ahead > 0 && r->ahead != AHEAD_DONE) {
        for (unsigned i = r->ahead - 1; i < w->aheads && w->ahead[i].r == r; i++)
            w->ahead[i].r = NULL;
    }
    http_prepared_give(&w->prepared, r->prepared);
    r->prepared = NULL;
    if (r->stream != NULL)
        r->stream->free(r);
    if (r->release != NULL)
        r->release(r);
    if (r->parsed)
        forget_body(r);
    if (r->unpack != NULL)
        http_unpack_free(r);
    r->release = NULL;
    r->own = NULL;
    http_request_forget(r);
    svc_memory_end(&r->memory); /* a few small buffers may stay with it */
    svc_dbs_put(r->db);
    r->db = NULL;
    if (!CHT_RECYCLE || w->spares >= SPARES_MAX) {
        http_request_free(r);
        return;
    }
    reset(r);
    r->next = w->spare;
    w->spare = r;
    w->spares++;
}

void http_request_over(struct http_request *r, bool aborted)
{
    struct http_worker *w = r->w;
    if (r->conn != NULL) {
        r->conn->req = NULL;
        r->conn->since = w->now;
        http_turn_over(w, r->conn);
    }
    if (r->stream != NULL)
        r->sent = r->stream->bytes;
    else if (!r->head && r->status != 0)
        r->sent = r->out.n;
    if (r->status == 0)
        r->status = 499; /* it went away, or timed out, before it was answered */
    uint64_t ns = w->now - r->start_ns;
    http_metrics_count(&w->metrics, http_routes_index(w->srv->routes, r->route), r->status, ns, r->sent);
    if (aborted)
        atomic_fetch_add_explicit(&w->metrics.aborted, 1, memory_order_relaxed);
    if (w->srv->conf->access_log && svc_log_wants(w->srv->log, SVC_LOG_INFO)) {
        if (r->id_len == 0) /* libmicrohttpd has answered it, or it was not whole */
            http_admit_id(r);
        http_access_log(r, ns / 1000, aborted);
    }
    http_request_recycle(r);
}

void http_request_suspend(struct http_request *r, void (*resume)(struct http_request *r))
{
    r->resume = resume;
    atomic_store_explicit(&r->phase, HTTP_PHASE_WAITING, memory_order_relaxed);
    MHD_suspend_connection(r->mc);
}

void http_request_wake(struct http_request *r) { http_worker_resume(r->w, r->mc); }

static void job_main(struct cht_job *j)
{
    struct http_request *r = (struct http_request *)(void *)((char *)j - offsetof(struct http_request, job));
    r->work(r);
    http_request_wake(r);
}

void http_request_owner(struct http_request *r, const char *database)
{
    r->job.owner = cht_jobs_owner(database, strlen(database));
}

void http_request_owner_of_db(struct http_request *r)
{
    const struct http_param_value *db = &r->param[HTTP_P_DB];
    if (db->p != NULL)
        r->job.owner = cht_jobs_owner(db->p, db->n);
    else
        http_request_owner(r, CHT_DATABASE_DEFAULT);
}

bool http_request_revoked(struct http_request *r)
{
    struct svc_access *a = atomic_load_explicit(&r->w->srv->access, memory_order_acquire);
    if (r->token == NULL || r->route == NULL)
        return false;
    bool holds = r->valid != NULL && a != NULL && !(r->certified && http_secure_expired(r->conn));
    const struct svc_token *t = holds ? svc_access_again(a, r->valid) : NULL;
    if (t != NULL && t != r->valid) {
        bool may =
            r->db != NULL ? svc_access_allows(t, r->right, r->db->name) : svc_access_has_right(t, r->right);
        t = may ? t : NULL;
    }
    r->valid = t; /* NULL: for good */
    return t == NULL;
}

static void begin_job(struct http_request *r, struct cht_jobs *jobs, unsigned alone,
                      void (*work)(struct http_request *r), void (*resume)(struct http_request *r))
{
    if (r->db != NULL)
        http_request_owner(r, r->db->name);
    r->work = work;
    r->job.run = job_main;
    r->job.exclusive = alone;
    http_request_suspend(r, resume);
    cht_jobs_submit(jobs, &r->job);
}

void http_request_job(struct http_request *r, void (*work)(struct http_request *r),
                      void (*resume)(struct http_request *r))
{
    begin_job(r, r->w->srv->jobs, 0, work, resume);
}

void http_request_care_job(struct http_request *r, void (*work)(struct http_request *r),
                           void (*resume)(struct http_request *r))
{
    begin_job(r, r->w->srv->care_jobs, 0, work, resume);
}

void http_request_long_job(struct http_request *r, unsigned alone, void (*work)(struct http_request *r),
                           void (*resume)(struct http_request *r))
{
    begin_job(r, r->w->srv->long_jobs, alone, work, resume);
}

/* The connection goes on once its worker has taken it from the list: what it thinks of the request until then is true. */
static void piece_main(struct cht_job *j)
{
    struct http_request *r = (struct http_request *)(void *)((char *)j - offsetof(struct http_request, job));
    struct http_worker *w = r->w;
    r->work(r);
    cht_mutex_lock(&w->mu);
    r->next = w->pieces;
    w->pieces = r;
    atomic_store_explicit(&w->has_pieces, true, memory_order_relaxed);
    cht_mutex_unlock(&w->mu);
    http_worker_ring(w);
}

void http_request_piece(struct http_request *r, unsigned alone, void (*work)(struct http_request *r),
                        void (*resume)(struct http_request *r))
{
    r->work = work;
    r->job.run = piece_main;
    r->job.exclusive = alone;
    http_request_suspend(r, resume);
    cht_jobs_submit(r->w->srv->long_jobs, &r->job);
}

void http_request_take_pieces(struct http_worker *w)
{
    if (!atomic_load_explicit(&w->has_pieces, memory_order_relaxed))
        return;
    cht_mutex_lock(&w->mu);
    struct http_request *r = w->pieces;
    w->pieces = NULL;
    atomic_store_explicit(&w->has_pieces, false, memory_order_relaxed);
    cht_mutex_unlock(&w->mu);
    while (r != NULL) {
        struct http_request *next = r->next;
        void (*resume)(struct http_request *) = r->resume;
        r->resume = NULL;
        r->moved_ns = w->now;
        atomic_store_explicit(&r->phase, HTTP_PHASE_BODY, memory_order_relaxed);
        resume(r);
        MHD_resume_connection(r->mc);
        r = next;
    }
}

bool http_request_may_wait(const struct http_request *r)
{
    return (r->quick ? r->w->together : r->w->busy) && r->ahead == 0 && r->w->aheads < CHT_HINTS_MAX;
}

bool http_request_ahead_all(struct http_request *r, const struct cht_hint *hints, size_t n,
                            void (*then)(struct http_request *r))
{
    struct http_worker *w = r->w;
    if (!http_request_may_wait(r) || n == 0 || n > CHT_HINTS_MAX - w->aheads)
        return false;
    http_metrics_add(&w->metrics.ahead, 1);
    r->ahead = w->aheads + 1;
    for (size_t i = 0; i < n; i++)
        w->ahead[w->aheads++] = (struct http_ahead){r, hints[i]};
    r->resume = then;
    atomic_store_explicit(&r->phase, HTTP_PHASE_AHEAD, memory_order_relaxed);
    return true;
}

bool http_request_ahead(struct http_request *r, struct cht_str name, uint64_t key,
                        void (*then)(struct http_request *r))
{
    return http_request_ahead_all(r, &(struct cht_hint){name, key}, 1, then);
}

void http_request_look_ahead(struct http_worker *w)
{
    struct cht_hint hints[CHT_HINTS_MAX];
    for (unsigned i = 0; i < w->aheads;) { /* mostly all of one database */
        struct cht_store *store = NULL;
        size_t n = 0;
        for (; i < w->aheads; i++) {
            struct http_request *r = w->ahead[i].r;
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

static void open_database(struct http_request *r)
{
    bool created;
    char name[CHT_DATABASE_NAME_MAX + 1] = CHT_DATABASE_DEFAULT;
    if (r->param[HTTP_P_DB].p != NULL)
        (void)snprintf(name, sizeof name, "%.*s", (int)r->param[HTTP_P_DB].n, r->param[HTTP_P_DB].p);
    r->rc = svc_dbs_open(r->w->srv->dbs, name, r->create, 0, &r->db, &created, &r->err);
}

static void database_opened(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        r->opened(r);
}

bool http_request_database_name(struct http_request *r, char name[CHT_DATABASE_NAME_MAX + 1])
{
    const struct http_param_value *v = &r->param[HTTP_P_DB];
    memcpy(name, CHT_DATABASE_DEFAULT, sizeof CHT_DATABASE_DEFAULT);
    if (v->p != NULL) {
        if (v->n == 0 || v->n > CHT_DATABASE_NAME_MAX) {
            http_reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
            return false;
        }
        memcpy(name, v->p, v->n);
        name[v->n] = 0;
        if (memchr(v->p, 0, v->n) != NULL || !cht_database_name_valid(name)) {
            http_reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
            return false;
        }
    }
    if (r->token != NULL && !svc_access_allows(r->token, r->right, name)) {
        http_reply_fail(r, CHT_FORBIDDEN, "this token does not allow that in database '%s'", name);
        return false;
    }
    return true;
}

void http_request_database(struct http_request *r, bool create, void (*then)(struct http_request *r))
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    if (!http_request_database_name(r, name))
        return;
    r->db = svc_dbs_get(r->w->srv->dbs, name);
    if (r->db != NULL) {
        then(r);
        return;
    }
    r->create = create && r->w->srv->writes_create;
    r->opened = then;
    http_request_owner(r, name);
    http_request_job(r, open_database, database_opened);
}

/* From any thread: r may be gone when it returns. */
static void wake_commit(struct http_request *r)
{
    if (r->loose)
        http_worker_done(r);
    else
        http_request_wake(r);
}

/* Pairs with the exchange in wait_commit: whoever comes second knows of the other. */
static void commit_done(struct cht_commit *c)
{
    struct http_request *r =
        (struct http_request *)(void *)((char *)c - offsetof(struct http_request, commit));
    if (atomic_exchange_explicit(&r->woken, 2, memory_order_acq_rel) == 1)
        wake_commit(r);
}

/* The connection of one that did not come by libmicrohttpd need not be suspended: libmicrohttpd gets nothing to read while it waits. */
static void suspend_commit(struct http_request *r, void (*then)(struct http_request *r))
{
    if (!r->quick) {
        http_request_suspend(r, then);
        return;
    }
    r->loose = true;
    r->resume = then;
    atomic_store_explicit(&r->phase, HTTP_PHASE_WAITING, memory_order_relaxed);
}

/* Pairs with http_request_await likewise. */
static void read_ready(struct cht_wait *w)
{
    struct http_request *r = w->ctx;
    if (atomic_exchange_explicit(&r->woken, 2, memory_order_acq_rel) == 1)
        http_request_wake(r);
}

struct cht_wait *http_request_waiter(struct http_request *r)
{
    r->wait.done = read_ready;
    r->wait.ctx = r;
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    return &r->wait;
}

/* False: what r waits for was done before it was suspended. */
static bool is_running(struct http_request *r)
{
    int running = 0;
    return atomic_compare_exchange_strong_explicit(&r->woken, &running, 1, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* What waits for a commit that was begun. */
static void wait_commit(struct http_request *r, void (*then)(struct http_request *r))
{
    suspend_commit(r, then);
    if (!is_running(r))
        wake_commit(r);
}

void http_request_await(struct http_request *r, void (*again)(struct http_request *r))
{
    http_metrics_add(&r->w->metrics.awaited, 1);
    http_request_suspend(r, again);
    if (!is_running(r))
        http_request_wake(r);
}

static void list_commit(struct http_request *r)
{
    http_metrics_add(&r->w->metrics.together, 1);
    r->next = NULL;
    *r->w->commits_end = r;
    r->w->commits_end = &r->next;
}

/* The next time that libmicrohttpd asks after a commit that was put off, which may be before it was submitted. */
static void look_at_commit(struct http_request *r)
{
    if (r->put_off)
        r->resume = look_at_commit;
    else
        r->committed(r);
}

/* Until all of this round have come, which are one group then. The answer is made in the next round, and the connection is not suspended:
 * what would have to wait is when that is known. */
static void put_off(struct http_request *r, void (*then)(struct http_request *r))
{
    r->put_off = true;
    r->committed = then;
    r->resume = look_at_commit;
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    atomic_store_explicit(&r->phase, HTTP_PHASE_AHEAD, memory_order_relaxed);
    list_commit(r);
}

void http_request_commit(struct http_request *r, void (*then)(struct http_request *r))
{
    r->commit.done = commit_done;
    if (r->w->srv->inline_commits) {
        r->commit.flags |= CHT_COMMIT_INLINE;
        if (r->w->busy) {
            put_off(r, then);
            return;
        }
    } else if (r->w->busy) {
        suspend_commit(r, then);
        atomic_store_explicit(&r->woken, 1, memory_order_relaxed);
        list_commit(r);
        return;
    }
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    enum cht_rc rc = cht_store_submit(r->db->store, &r->commit);
    if (rc != CHT_PENDING) {
        r->commit.rc = rc;
        then(r);
        return;
    }
    wait_commit(r, then);
}

struct cht_op *http_request_own_operation(struct http_request *r, enum cht_op_kind kind)
{
    struct cht_op *op = http_request_own(r, sizeof *op);
    *op = (struct cht_op){.kind = kind};
    return op;
}

void http_request_operation(struct http_request *r, struct cht_op *op, void (*then)(struct http_request *r))
{
    r->commit.ops = op;
    r->commit.count = 1;
    r->commit.flags = 0;
    r->commit.read_max = 0;
    http_request_commit(r, then);
}

/* Commits that were put off, of one database: those from r on, up to `end`. */
static void submit_put_off(struct http_request *r, const struct http_request *end)
{
    struct cht_store *store = r->db->store;
    struct cht_commit *list = NULL, **tail = &list;
    for (struct http_request *q = r; q != end; q = q->next) {
        *tail = &q->commit;
        tail = &q->commit.next;
    }
    *tail = NULL;
    cht_store_submit_all(store, list);
    while (r != end) { /* they are this thread's: none is gone */
        struct http_request *next = r->next;
        r->put_off = false;
        if (atomic_load_explicit(&r->woken, memory_order_acquire) != 2)
            wait_commit(r, r->committed);
        else if (r->quick)
            http_worker_enlist(r->w, r);
        r = next;
    }
}

void http_request_submit_commits(struct http_worker *w)
{
    struct http_request *r = w->commits;
    w->commits = NULL;
    w->commits_end = &w->commits;
    while (r != NULL) {
        struct http_request *next = r->next; /* it may be gone as soon as it is submitted */
        if (r->put_off) {
            while (next != NULL && next->put_off && next->db == r->db)
                next = next->next;
            submit_put_off(r, next);
        } else {
            enum cht_rc rc = cht_store_submit(r->db->store, &r->commit);
            if (rc != CHT_PENDING) {
                r->commit.rc = rc;
                wake_commit(r);
            }
        }
        r = next;
    }
}
