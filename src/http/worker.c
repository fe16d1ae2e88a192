/* worker: one HTTP thread: its loop, its connections, and libmicrohttpd's calls into us (structure in server.h).
 *
 * Time-outs. Idle connections and clients that do not read are libmicrohttpd's (MHD_OPTION_CONNECTION_TIMEOUT). It counts
 * every byte that arrives as life, so a client that sends a header or a body by drops is ended here, by the tick.
 */
#include "http/batch.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"

#include <stdio.h>

#define TICK_NS UINT64_C(200000000)
#define LOG_DELAY_NS UINT64_C(50000000)
#define LOG_BATCH (16u << 10)
#define SPARES_MAX 256u
#define KEEP_BYTES (64u << 10) /* memory a request may keep for the next one */
#define DRAIN_MAX \
    (UINT64_C(1) << 20) /* a refused body of at most this is read, so that the connection can go on */

/* Once for all that is to be looked at in one round. What is to be seen is written before; the worker silences the bell
 * before it looks. */
static void ring(struct worker *w)
{
    if (atomic_exchange_explicit(&w->rung, 1, memory_order_seq_cst) == 0)
        cht_bell_ring(w->bell);
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

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
    r->start_ns = cht_now_ns();
    return r;
}

/* What must not survive into the next request; buffers stay unless they are large. */
static void reset(struct request *r)
{
    r->conn = NULL;
    r->mc = NULL;
    r->route = NULL;
    r->token = NULL;
    r->head = r->early = r->close = r->body_over = false;
    atomic_store_explicit(&r->phase, PHASE_NEW, memory_order_relaxed);
    r->rest = NULL;
    r->rest_len = 0;
    memset(r->param, 0, sizeof r->param);
    r->body_len = 0;
    r->body_max = r->body_dropped = 0;
    r->status = 0;
    r->headers = 0;
    r->sent = 0;
    r->resume = NULL;
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

static void request_free(struct request *r)
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
    stream_free(r);
    batch_free(r);
    dbs_put(r->db);
    r->db = NULL;
    if (w->spares >= SPARES_MAX) {
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

static void job_main(struct cht_task *t)
{
    struct request *r = (struct request *)(void *)((char *)t - offsetof(struct request, task));
    r->work(r);
    request_wake(r);
}

void request_job(struct request *r, void (*work)(struct request *r), void (*resume)(struct request *r))
{
    r->work = work;
    r->task.run = job_main;
    request_suspend(r, resume);
    cht_pool_submit(r->w->srv->jobs, &r->task);
}

void request_long_job(struct request *r, void (*work)(struct request *r), void (*resume)(struct request *r))
{
    r->work = work;
    r->task.run = job_main;
    request_suspend(r, resume);
    cht_pool_submit(r->w->srv->long_jobs, &r->task);
}

static void open_database(struct request *r)
{
    bool created;
    char name[65] = "default";
    if (r->param[P_DB].p != NULL)
        (void)snprintf(name, sizeof name, "%.*s", (int)r->param[P_DB].n, r->param[P_DB].p);
    r->rc = dbs_open(r->w->srv->dbs, name, r->op.created, 0, &r->db, &created, &r->err);
}

static void database_opened(struct request *r)
{
    if (r->rc != CHT_OK)
        reply_err(r, r->rc, &r->err);
    else
        ((void (*)(struct request *))r->commit.ctx)(r);
}

void request_database(struct request *r, bool create, void (*then)(struct request *r))
{
    const struct param_value *v = &r->param[P_DB];
    char name[65] = "default";
    if (v->p != NULL) {
        if (v->n == 0 || v->n >= sizeof name) {
            reply_fail(r, CHT_INVALID_DATABASE_NAME, "database names are [A-Za-z0-9][A-Za-z0-9_-]{0,63}");
            return;
        }
        memcpy(name, v->p, v->n);
        name[v->n] = 0;
        if (memchr(v->p, 0, v->n) != NULL || !cht_database_name_valid(name)) {
            reply_fail(r, CHT_INVALID_DATABASE_NAME, "database names are [A-Za-z0-9][A-Za-z0-9_-]{0,63}");
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
    r->op.created = create; /* op and commit are free until then */
    r->commit.ctx = (void *)then;
    request_job(r, open_database, database_opened);
}

/* Pairs with the exchange in request_commit: whoever comes second knows of the other. */
static void commit_done(struct cht_commit *c)
{
    struct request *r = (struct request *)(void *)((char *)c - offsetof(struct request, commit));
    if (atomic_exchange_explicit(&r->woken, 2, memory_order_acq_rel) == 1)
        request_wake(r);
}

void request_commit(struct request *r, void (*then)(struct request *r))
{
    int running = 0;
    r->commit.done = commit_done;
    if (r->w->srv->inline_commits)
        r->commit.flags |= CHT_COMMIT_INLINE;
    atomic_store_explicit(&r->woken, 0, memory_order_relaxed);
    enum cht_rc rc = cht_store_submit(r->db->store, &r->commit);
    if (rc != CHT_PENDING) {
        r->commit.rc = rc;
        then(r);
        return;
    }
    request_suspend(r, then);
    if (!atomic_compare_exchange_strong_explicit(&r->woken, &running, 1, memory_order_acq_rel,
                                                 memory_order_acquire))
        request_wake(r); /* it was done before the connection was suspended */
}

/* ---- the access log ------------------------------------------------------------------------------------------ */

static const char *method_of(const struct request *r) { return r->method_name; }

static void log_request(struct request *r, uint64_t micros, bool aborted)
{
    struct worker *w = r->w;
    struct out *o = &w->access_log;
    char when[24];
    if (w->now - w->wall_at > 1000000 || w->wall == 0) { /* a clock call a millisecond is enough */
        w->wall = cht_wall_ns();
        w->wall_at = w->now;
    }
    log_time(when, w->wall + (w->now - w->wall_at));
    bool json = log_json(w->srv->log);
    out_text(o, json ? "{\"time\":\"" : "");
    out_bytes(o, when, sizeof when);
    out_text(o, json ? "\",\"level\":\"info\",\"event\":\"request\",\"method\":\"" : " info request ");
    out_text(o, method_of(r));
    out_text(o, json ? "\",\"path\":" : " ");
    out_string(o, r->log_path, r->log_path_len);
    out_text(o, json ? ",\"status\":" : " ");
    out_u64(o, (uint64_t)r->status);
    out_text(o, json ? ",\"bytes\":" : " ");
    out_u64(o, r->sent);
    out_text(o, json ? ",\"micros\":" : " bytes ");
    out_u64(o, micros);
    out_text(o, json ? (aborted ? ",\"aborted\":true,\"id\":" : ",\"id\":")
                     : (aborted ? " us, client gone, " : " us "));
    out_string(o, r->id, r->id_len);
    out_text(o, json ? "}\n" : "\n");
    if (w->access_lines++ == 0)
        w->access_since = w->now;
}

static void flush_access_log(struct worker *w)
{
    if (w->access_lines == 0 || (w->access_log.n < LOG_BATCH && w->now - w->access_since < LOG_DELAY_NS &&
                                 !atomic_load_explicit(&w->srv->stop, memory_order_relaxed)))
        return;
    if (!w->access_log.failed)
        log_lines(w->srv->log, w->access_log.p, w->access_log.n, w->access_lines);
    out_reset(&w->access_log, 4 * LOG_BATCH);
    w->access_lines = 0;
}

/* ---- libmicrohttpd's calls ------------------------------------------------------------------------------------ */

/* The request line is in: the only time that the path can be had as it was sent. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mc)
{
    struct worker *w = cls;
    struct request *r = request_new(w);
    if (r == NULL)
        return NULL;
    size_t n = strlen(uri);
    if (n >= r->uri_cap) {
        char *p = cht_realloc(r->uri, n + 256);
        if (p == NULL) {
            request_free(r);
            return NULL;
        }
        r->uri = p;
        r->uri_cap = n + 256;
    }
    memcpy(r->uri, uri, n + 1);
    r->uri_len = n;
    r->log_path_len = strcspn(uri, "?");
    if (r->log_path_len > REQUEST_LOG_PATH)
        r->log_path_len = REQUEST_LOG_PATH;
    memcpy(r->log_path, uri, r->log_path_len);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    r->conn = info != NULL ? info->socket_context : NULL;
    if (r->conn != NULL) {
        r->conn->req = r;
        r->conn->used = true;
    }
    return r;
}

static enum method parse_method(const char *m, bool *head)
{
    *head = false;
    if (strcmp(m, "GET") == 0)
        return METHOD_GET;
    if (strcmp(m, "PUT") == 0)
        return METHOD_PUT;
    if (strcmp(m, "POST") == 0)
        return METHOD_POST;
    if (strcmp(m, "DELETE") == 0)
        return METHOD_DELETE;
    *head = strcmp(m, "HEAD") == 0;
    return *head ? METHOD_GET : 0;
}

/* X-Request-Id if it is fit to be returned and logged, else 16 random hex digits. */
static void take_id(struct request *r)
{
    static const char hex[] = "0123456789abcdef";
    const char *given = MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, "X-Request-Id");
    size_t n = given != NULL ? strlen(given) : 0;
    if (n > 0 && n <= REQUEST_ID_MAX) {
        size_t ok = 0;
        while (ok < n && given[ok] > 0x20 && given[ok] < 0x7F)
            ok++;
        if (ok == n) {
            memcpy(r->id, given, n + 1);
            r->id_len = n;
            return;
        }
    }
    uint64_t v = cht_rng_next(&r->w->rng);
    for (int i = 0; i < 16; i++)
        r->id[i] = hex[v >> (60 - 4 * i) & 15];
    r->id[16] = 0;
    r->id_len = 16;
}

/* Path and query of the URI; false after answering. */
static bool route_request(struct request *r)
{
    char *query = memchr(r->uri, '?', r->uri_len);
    size_t path_len = query != NULL ? (size_t)(query - r->uri) : r->uri_len;
    unsigned allowed = 0;
    const char *rest;
    r->route = router_find(r->uri, path_len, r->method, &rest, &r->rest_len, &allowed);
    if (r->route == NULL && allowed == 0) {
        reply_fail(r, CHT_NOT_FOUND, "there is nothing at this path; see /openapi.yaml");
        return false;
    }
    if (r->route == NULL) {
        reply_header(
            r, "Allow", "%s%s%s%s", (allowed & METHOD_GET) != 0 ? "GET, HEAD" : "",
            (allowed & METHOD_POST) != 0 ? ((allowed & METHOD_GET) != 0 ? ", POST" : "POST") : "",
            (allowed & METHOD_PUT) != 0 ? ((allowed & (METHOD_GET | METHOD_POST)) != 0 ? ", PUT" : "PUT")
                                        : "",
            (allowed & METHOD_DELETE) != 0 ? (allowed != METHOD_DELETE ? ", DELETE" : "DELETE") : "");
        reply_fail(r, CHT_METHOD, "%s is not for this path", r->method_name);
        return false;
    }
    r->rest = rest;
    r->rest_len = url_decode((char *)(uintptr_t)rest, r->rest_len);
    if (r->rest_len == SIZE_MAX) {
        r->rest_len = 0;
        reply_fail(r, CHT_INVALID_ENCODING, "the path has a malformed percent escape");
        return false;
    }
    return query == NULL || params_read(r, query + 1, r->uri_len - path_len - 1);
}

static bool admit(struct request *r)
{
    struct server *s = r->w->srv;
    int state = atomic_load_explicit(&s->state, memory_order_acquire);
    if (r->conn == NULL || r->conn->refused) {
        r->close = true;
        atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
        reply_fail(r, CHT_OVERLOADED, "too many connections");
        return false;
    }
    if (state == SERVER_CLOSING) {
        r->close = true;
        reply_fail(r, CHT_DRAINING, "the server is stopping");
        return false;
    }
    if (state == SERVER_DRAINING)
        r->close = true; /* so that clients and balancers go elsewhere */
    if (r->route->right == RIGHT_OPEN)
        return true;
    struct access *a = atomic_load_explicit(&s->access, memory_order_acquire);
    if (a != NULL) {
        r->token = access_find(a, MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, "Authorization"));
        if (r->token == NULL) {
            reply_fail(r, CHT_UNAUTHORIZED, "send a valid token: Authorization: Bearer ...");
            return false;
        }
        if (!access_has_right(r->token, r->route->right)) {
            reply_fail(r, CHT_FORBIDDEN, "this token does not allow that");
            return false;
        }
    }
    if (state == SERVER_STARTING) {
        reply_fail(r, CHT_STARTING, "the server is starting");
        return false;
    }
    return true;
}

static uint64_t body_limit(const struct request *r)
{
    const struct conf *c = r->w->srv->conf;
    switch (r->route != NULL ? r->route->body : BODY_NONE) {
    case BODY_VALUE:
        return cht_b64_encoded(c->max_value_size) + 4096;
    case BODY_JSON:
        return 1u << 20;
    case BODY_BATCH:
        return c->max_batch_bytes;
    case BODY_NGRAMS:
        return c->max_ngrams_bytes;
    case BODY_NONE:
        break;
    }
    return DRAIN_MAX;
}

static void too_large(struct request *r)
{
    enum body b = r->route != NULL ? r->route->body : BODY_NONE;
    enum cht_rc rc = b == BODY_VALUE   ? CHT_VALUE_TOO_LARGE
                     : b == BODY_BATCH ? CHT_BATCH_TOO_LARGE
                                       : CHT_BODY_TOO_LARGE;
    uint64_t max = b == BODY_VALUE ? r->w->srv->conf->max_value_size : r->body_max;
    r->headers = 0;
    reply_fail(r, rc, "at most %llu bytes are taken", (unsigned long long)max);
}

/* The headers are in. Decides everything that does not need the body. */
static enum MHD_Result begin(struct request *r, struct MHD_Connection *mc, const char *method)
{
    r->mc = mc;
    r->method = parse_method(method, &r->head);
    (void)snprintf(r->method_name, sizeof r->method_name, "%s", method);
    take_id(r);
    uint64_t length = 0;
    bool body = false, expect = false;
    const char *v = MHD_lookup_connection_value(mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (v != NULL)
        body = !parse_decimal(v, strlen(v), UINT64_MAX, &length) || length > 0;
    if (MHD_lookup_connection_value(mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL)
        body = true;
    if (body)
        expect = MHD_lookup_connection_value(mc, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT) != NULL;
    bool answered = !route_request(r) || !admit(r);
    r->body_max = body_limit(r);
    if (!answered && body && length > r->body_max) {
        too_large(r);
        answered = true;
    }
    if (!body)
        return MHD_YES; /* to be answered in the next call: an answer in this one closes the connection */
    cht_net_quickack(r->conn != NULL ? r->conn->fd : -1);
    if (answered && (expect || length > DRAIN_MAX)) {
        r->early = r->close = true;
        if (r->conn != NULL)
            r->conn->linger = true;
        return reply_send(r);
    }
    return MHD_YES;
}

static bool body_append(struct request *r, const char *data, size_t n)
{
    if (r->body_len + n + 1 > r->body_cap) {
        size_t cap = r->body_cap < 1024 ? 1024 : r->body_cap;
        while (cap < r->body_len + n + 1)
            cap *= 2;
        uint8_t *p = cht_realloc(r->body, cap);
        if (p == NULL)
            return false;
        r->body = p;
        r->body_cap = cap;
    }
    memcpy(r->body + r->body_len, data, n);
    r->body_len += n;
    return true;
}

/* A part of the body. False closes the connection. */
static bool take_body(struct request *r, const char *data, size_t n)
{
    bool answered = atomic_load_explicit(&r->phase, memory_order_relaxed) == PHASE_READY;
    if (!answered && !r->body_over && r->body_len + r->body_dropped + n > r->body_max)
        r->body_over = true;
    if (answered || r->body_over || r->route->body == BODY_NONE) {
        r->body_dropped += n;
        return r->body_dropped <= r->body_max + DRAIN_MAX;
    }
    if (r->route->body == BODY_BATCH) {
        r->body_dropped += n; /* counted, read at once */
        return batch_feed(r, data, n);
    }
    if (!body_append(r, data, n)) {
        reply_fail(r, CHT_NO_MEMORY, "no memory for the body");
        return true;
    }
    return true;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **con)
{
    struct request *r = *con;
    (void)cls, (void)url, (void)version;
    if (r == NULL || atomic_load_explicit(&r->w->srv->stop, memory_order_relaxed))
        return MHD_NO;
    int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);
    if (r->mc == NULL) {
        enum MHD_Result ok = begin(r, mc, method);
        if (atomic_load_explicit(&r->phase, memory_order_relaxed) == PHASE_NEW)
            atomic_store_explicit(&r->phase, PHASE_BODY, memory_order_relaxed);
        return ok;
    }
    if (*n > 0) {
        bool ok = r->early || take_body(r, data, *n);
        *n = 0;
        return ok ? MHD_YES : MHD_NO;
    }
    if (phase == PHASE_SENT)
        return MHD_YES;
    if (phase == PHASE_WAITING) {
        void (*resume)(struct request *) = r->resume;
        if (resume == NULL)
            return MHD_YES; /* woken by nobody we know: go on waiting */
        r->resume = NULL;
        resume(r);
    } else if (phase == PHASE_BODY) {
        if (r->body_over)
            too_large(r);
        else
            r->route->run(r);
    }
    return atomic_load_explicit(&r->phase, memory_order_relaxed) == PHASE_READY ? reply_send(r) : MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *mc, void **con,
                         enum MHD_RequestTerminationCode why)
{
    struct worker *w = cls;
    struct request *r = *con;
    (void)mc;
    if (r == NULL)
        return;
    *con = NULL;
    w->now = cht_now_ns();
    bool aborted = why != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    if (r->conn != NULL) {
        r->conn->req = NULL;
        r->conn->since = w->now;
    }
    if (r->stream != NULL)
        r->sent = r->stream->bytes;
    else if (!r->head && r->status != 0)
        r->sent = r->out.n;
    if (r->status == 0)
        r->status = 499; /* it went away, or timed out, before it was answered */
    uint64_t ns = w->now - r->start_ns;
    metrics_count(&w->metrics, r->route != NULL ? r->route->index : router_count(), r->status, ns, r->sent);
    if (aborted)
        atomic_fetch_add_explicit(&w->metrics.aborted, 1, memory_order_relaxed);
    if (w->srv->conf->access_log && log_wants(w->srv->log, LOG_INFO))
        log_request(r, ns / 1000, aborted);
    request_recycle(r);
}

static void on_connection(void *cls, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct worker *w = cls;
    (void)mc;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct conn *c = w->incoming;
        w->incoming = NULL;
        *context = c;
        if (c == NULL)
            return;
        c->since = cht_now_ns();
        c->prev = NULL;
        c->next = w->conns;
        if (w->conns != NULL)
            w->conns->prev = c;
        w->conns = c;
        return;
    }
    struct conn *c = *context;
    if (c == NULL)
        return;
    *context = NULL;
    if (c->linger && !c->killed) {
        int fd = cht_net_dup(c->fd);
        if (fd >= 0)
            server_linger(w->srv, fd);
    }
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        w->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    server_uncount_address(w->srv, c);
    atomic_fetch_sub_explicit(&w->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&w->srv->connections, 1, memory_order_relaxed);
    cht_free(c);
}

/* Ours is params.c; libmicrohttpd is to leave everything as it is. */
static size_t no_unescape(void *cls, struct MHD_Connection *mc, char *s)
{
    (void)cls, (void)mc;
    return strlen(s);
}

/* ---- the loop ------------------------------------------------------------------------------------------------- */

static void take_inbox(struct worker *w)
{
    if (!atomic_load_explicit(&w->has_inbox, memory_order_acquire))
        return;
    cht_mutex_lock(&w->mu);
    struct conn *list = w->inbox;
    w->inbox = NULL;
    atomic_store_explicit(&w->has_inbox, false, memory_order_relaxed);
    cht_mutex_unlock(&w->mu);
    while (list != NULL) {
        struct conn *c = list;
        list = c->next;
        w->incoming = c;
        if (MHD_add_connection(w->daemon, c->fd, (const struct sockaddr *)(const void *)c->peer.storage,
                               c->peer.len) == MHD_YES &&
            w->incoming == NULL)
            continue;
        if (w->incoming == NULL)
            continue;       /* it was closed, and told so */
        w->incoming = NULL; /* libmicrohttpd has closed the descriptor */
        server_uncount_address(w->srv, c);
        atomic_fetch_sub_explicit(&w->count, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&w->srv->connections, 1, memory_order_relaxed);
        cht_free(c);
    }
}

static void kill_conn(struct conn *c)
{
    if (!c->killed)
        cht_net_shutdown(c->fd);
    c->killed = true;
}

/* A header or a body that does not end, a stream whose database goes or whose server stops. */
static void tick_conn(struct worker *w, struct conn *c, int state)
{
    const struct conf *cf = w->srv->conf;
    uint64_t second = UINT64_C(1000000000), since = w->now - c->since;
    struct request *r = c->req;
    if (r == NULL) {
        uint64_t limit = cf->header_timeout + (c->used ? cf->idle_timeout : 0);
        if (since > limit * second || state == SERVER_CLOSING)
            kill_conn(c);
        return;
    }
    int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);
    uint64_t age = w->now - r->start_ns;
    if (r->mc == NULL ? age > cf->header_timeout * second
                      : phase == PHASE_BODY && age > cf->body_timeout * second)
        kill_conn(c);
    struct stream *s = r->stream;
    if (s == NULL || s->ended || s->abort != CHT_OK)
        return;
    if (r->db != NULL && atomic_load_explicit(&r->db->dropping, memory_order_relaxed))
        stream_abort(s, CHT_DATABASE_DROPPED);
    else if (state == SERVER_CLOSING)
        stream_abort(s, CHT_DRAINING);
}

static void tick(struct worker *w)
{
    int state = atomic_load_explicit(&w->srv->state, memory_order_relaxed);
    for (struct conn *c = w->conns, *next; c != NULL; c = next) {
        next = c->next;
        tick_conn(w, c, state);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    uint64_t last_tick = 0;
    while (!atomic_load_explicit(&w->srv->stop, memory_order_acquire)) {
        const int fds[2] = {w->epoll_fd, w->bell};
        bool ready[2];
        MHD_UNSIGNED_LONG_LONG ms = 200, wanted;
        if (MHD_get_timeout(w->daemon, &wanted) == MHD_YES && wanted < ms)
            ms = wanted;
        if (w->access_lines > 0 && ms > 50)
            ms = 50;
        cht_net_poll(fds, ready, 2, (int)ms);
        if (ready[1])
            cht_bell_drain(w->bell);
        atomic_store_explicit(&w->rung, 0, memory_order_seq_cst); /* then look: see ring */
        take_inbox(w);
        w->now = cht_now_ns();
        (void)MHD_run(w->daemon); /* says no only of a daemon that is not driven from outside */
        flush_access_log(w);
        if (w->now - last_tick > TICK_NS) {
            last_tick = w->now;
            tick(w);
        }
    }
    w->now = cht_now_ns();
    flush_access_log(w);
    return NULL;
}

/* A daemon that listens nowhere: the acceptor gives it its connections. */
static enum cht_rc start_daemon(struct worker *w, struct cht_err *err)
{
    const struct conf *c = w->srv->conf;
    unsigned flags = MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, w},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, w},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)on_uri, w},
        {MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t)no_unescape, w},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)c->header_bytes, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)(c->max_connections + 4096), NULL}, /* the acceptor counts */
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)c->idle_timeout, NULL},
        {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
        {MHD_OPTION_END, 0, NULL},
        {MHD_OPTION_END, 0, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    if (w->srv->tls_cert != NULL) {
        flags |= MHD_USE_TLS;
        options[8] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, w->srv->tls_cert};
        options[9] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, w->srv->tls_key};
    }
    w->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_request, w, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (w->daemon == NULL)
        return CHT_FAIL(
            err, CHT_IO, "libmicrohttpd does not start%s",
            w->srv->tls_cert != NULL ? ": are certificate and key PEM, and do they belong together?" : "");
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL)
        return CHT_FAIL(err, CHT_IO, "libmicrohttpd has no epoll descriptor");
    w->epoll_fd = info->epoll_fd;
    return CHT_OK;
}

/* -------------------------------------------------------------------------------------------------------------- */

enum cht_rc worker_start(struct worker *w, struct server *s, unsigned index, struct cht_err *err)
{
    uint64_t seed;
    w->srv = s;
    w->index = index;
    w->bell = -1;
    cht_os_random(&seed, sizeof seed);
    cht_rng_seed(&w->rng, seed);
    enum cht_rc rc = cht_mutex_init(&w->mu, err);
    if (rc == CHT_OK)
        rc = cht_bell_new(&w->bell, err);
    w->metrics.cells = cht_calloc(METRIC_ROUTES * METRIC_STATUSES, sizeof *w->metrics.cells);
    if (rc == CHT_OK && w->metrics.cells == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the metrics");
    if (rc == CHT_OK)
        rc = start_daemon(w, err);
    if (rc == CHT_OK) {
        rc = cht_thread_start(&w->thread, "cht-http", worker_main, w, err);
        w->up = rc == CHT_OK;
    }
    return rc;
}

void worker_add(struct worker *w, struct conn *c)
{
    c->w = w;
    atomic_fetch_add_explicit(&w->count, 1, memory_order_relaxed);
    cht_mutex_lock(&w->mu);
    c->next = w->inbox;
    w->inbox = c;
    atomic_store_explicit(&w->has_inbox, true, memory_order_release);
    cht_mutex_unlock(&w->mu);
    ring(w);
}

void worker_resume(struct worker *w, struct MHD_Connection *mc)
{
    MHD_resume_connection(mc);
    ring(w);
}

void worker_join(struct worker *w)
{
    if (!w->up)
        return;
    cht_bell_ring(w->bell);
    cht_thread_join(&w->thread);
    w->up = false;
    take_inbox(w);
}

/* Connections that wait for a commit must be woken before libmicrohttpd lets them be closed. */
static bool any_suspended(const struct worker *w)
{
    for (const struct conn *c = w->conns; c != NULL; c = c->next) {
        const struct request *r = c->req;
        if (r != NULL &&
            (atomic_load_explicit(&r->phase, memory_order_acquire) == PHASE_WAITING ||
             (r->stream != NULL && atomic_load_explicit(&r->stream->wake, memory_order_acquire) == 1)))
            return true;
    }
    return false;
}

void worker_close(struct worker *w)
{
    if (w->srv == NULL)
        return;
    w->now = cht_now_ns();
    if (w->daemon != NULL) {
        tick(w); /* ends the streams */
        while (MHD_run(w->daemon) == MHD_YES && any_suspended(w))
            cht_sleep_ns(1000000);
        MHD_stop_daemon(w->daemon); /* closes what is left, and says so */
    }
    w->now = cht_now_ns();
    flush_access_log(w);
    while (w->spare != NULL) {
        struct request *r = w->spare;
        w->spare = r->next;
        request_free(r);
    }
    out_free(&w->access_log);
    cht_free(w->metrics.cells);
    if (w->bell >= 0)
        cht_net_close(w->bell);
    cht_mutex_fini(&w->mu);
}
