/* http: whole requests, from the path to the last byte of the answer, in all handlers over a real store; libmicrohttpd is the part that is not
 * there. Input: requests, each
 *
 *   METHOD /path?query          the next lines: "Content-Type: ..." and so on; "Piece: n", the body comes in pieces of n bytes
 *
 *   body, up to a line "----"
 *
 * An answer is one of its media type: JSON is JSON, each line of a stream is, and it ends with an end line or an error; a failure has its code; and
 * 500 is nobody's fault but ours.
 */
#include "fuzz/fuzz.h"

#include <errno.h>
#include <jansson.h>
#include <semaphore.h>
#include <strings.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/routes.h"
#include "http/server.h"
#include "http/stream.h"
#include "os/sock.h"

#define ANSWER_MAX (4u << 20)
#define REQUESTS 12u

/* ---- what libmicrohttpd would do ------------------------------------------------------------------------------------------ */

static sem_t resumed;

void MHD_suspend_connection(struct MHD_Connection *mc) { (void)mc; }
void MHD_resume_connection(struct MHD_Connection *mc)
{
    (void)mc;
    FUZZ_CHECK(sem_post(&resumed) == 0);
}

static bool come(int64_t ns)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    int64_t sum = until.tv_nsec + ns;
    until.tv_sec += (time_t)(sum / 1000000000);
    until.tv_nsec = (long)(sum % 1000000000);
    int rc;
    while ((rc = sem_timedwait(&resumed, &until)) != 0 && errno == EINTR) {
    } /* libFuzzer's clock */
    FUZZ_CHECK(rc == 0 || errno == ETIMEDOUT);
    return rc == 0;
}

static void wait_for_it(void) { FUZZ_CHECK(come(INT64_C(50000000000))); }

/* A stream that waits for its time or for news has its tick, of a day on which every time is over. */
static void wait_for_stream(struct http_stream *s)
{
    for (unsigned i = 0; i < 5000; i++) {
        if (come(s->tick != NULL ? 1000000 : INT64_C(50000000000)))
            return;
        FUZZ_CHECK(s->tick != NULL);
        s->tick(s, UINT64_MAX, false);
    }
    FUZZ_CHECK(!"a stream that is not woken");
}

/* ---- the server ------------------------------------------------------------------------------------------------------------ */

static struct fuzz_store store;
static struct http_server server;
static struct http_worker worker;
static struct conf conf;

static void forget(void *ctx, const struct cht_store *s)
{
    (void)ctx;
    http_routes.forget(server.shared, s);
}

static void start(void)
{
    static const struct cht_jobs_config jobs = {
        .name = "fuzz-job", .threads = 2, .per_owner = 2, .idle_ns = UINT64_C(1000000000)};
    struct cht_err err = {0};
    fuzz_must(conf_read(&conf, 0, NULL, NULL, &err), &err);
    conf.max_value_size = 1u << 20;
    conf.max_batch_ops = 100;
    conf.max_document_tokens = 1000;
    conf.reduce_memory_bytes = 16u << 20;
    server = (struct http_server){.conf = &conf,
                                  .routes = &http_routes,
                                  .writes_create = true,
                                  .inline_commits = true,
                                  .workers = &worker,
                                  .worker_count = 1};
    fuzz_must(svc_log_new(true, SVC_LOG_ERROR, &server.log, &err), &err);
    fuzz_must(cht_mutex_init(&server.addr_mu, &err), &err);
    fuzz_must(cht_jobs_new(&jobs, &server.jobs, &err), &err);
    fuzz_must(cht_jobs_new(&jobs, &server.care_jobs, &err), &err);
    fuzz_must(cht_jobs_new(&jobs, &server.long_jobs, &err), &err);
    fuzz_must(http_routes.open(&conf, &server.shared, &err), &err);
    svc_memory_init(&server.memory, 256u << 20, 64u << 20);
    worker.srv = &server;
    worker.commits_end = &worker.commits;
    fuzz_must(cht_mutex_init(&worker.mu, &err), &err);
    fuzz_must(cht_bell_new(&worker.bell, &err), &err);
    worker.metrics.cells =
        cht_calloc(HTTP_METRIC_ROUTES * HTTP_METRIC_STATUSES, sizeof *worker.metrics.cells);
    FUZZ_CHECK(worker.metrics.cells != NULL && sem_init(&resumed, 0, 0) == 0);
}

/* A job that has answered may have something to put away. */
static void wait_for_jobs(void)
{
    struct cht_jobs *const all[] = {server.jobs, server.care_jobs, server.long_jobs};
    unsigned running = 1, waiting = 0;
    for (size_t i = 0; i < 3; i += running + waiting == 0) {
        cht_jobs_count(all[i], &running, &waiting);
        if (running + waiting > 0) {
            cht_sleep_ns(100000);
            i = 0; /* a job may submit another */
        }
    }
}

static void renew(void)
{
    wait_for_jobs();
    if (store.env != NULL)
        fuzz_store_close(&store);
    fuzz_store_open(&store, true);
    http_server_ready(&server, store.env, store.dbs);
    svc_dbs_on_close(store.dbs, forget, NULL);
    store.used = 1;
}

/* ---- a request ---------------------------------------------------------------------------------------------------------------- */

struct part {
    const char *p;
    size_t n;
};

static struct part take_line(struct part *in)
{
    const char *end = memchr(in->p, '\n', in->n);
    struct part line = {in->p, end != NULL ? (size_t)(end - in->p) : in->n};
    size_t used = line.n + (end != NULL);
    in->p += used;
    in->n -= used;
    return line;
}

static char *text_of(struct part s)
{
    char *t = malloc(s.n + 1);
    FUZZ_CHECK(t != NULL);
    memcpy(t, s.p, s.n);
    t[s.n] = 0;
    return t;
}

static enum http_method method_of(struct part m)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {{"GET", HTTP_METHOD_GET},
                   {"PUT", HTTP_METHOD_PUT},
                   {"HEAD", HTTP_METHOD_GET},
                   {"POST", HTTP_METHOD_POST},
                   {"DELETE", HTTP_METHOD_DELETE}};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strlen(methods[i].name) == m.n && memcmp(methods[i].name, m.p, m.n) == 0)
            return methods[i].method;
    }
    return 0;
}

static bool starts(const char *line, const char *name) { return strncasecmp(line, name, strlen(name)) == 0; }

static enum http_header header_of(const char *line)
{
    static const struct {
        const char *name;
        enum http_header header;
    } headers[] = {{"content-type:", HTTP_H_CONTENT_TYPE},
                   {"accept:", HTTP_H_ACCEPT},
                   {"if-match:", HTTP_H_IF_MATCH},
                   {"if-none-match:", HTTP_H_IF_NONE_MATCH},
                   {"if-unmodified-since:", HTTP_H_IF_UNMODIFIED_SINCE}};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        if (starts(line, headers[i].name))
            return headers[i].header;
    }
    return HTTP_H_COUNT;
}

static bool conditional(enum http_header h)
{
    return h == HTTP_H_IF_MATCH || h == HTTP_H_IF_NONE_MATCH || h == HTTP_H_IF_UNMODIFIED_SINCE;
}

/* The header lines; returns how long the pieces of the body are. */
static size_t take_headers(struct http_request *r, struct part *in, char **kept, size_t *n)
{
    size_t piece = SIZE_MAX;
    for (struct part line = take_line(in); line.n > 0; line = take_line(in)) {
        char *t = text_of(line), *value = strchr(t, ':');
        value = value == NULL ? t + strlen(t) : value + 1 + strspn(value + 1, " ");
        if (starts(t, "piece:"))
            piece = strtoul(value, NULL, 10) % 1000 + 1;
        enum http_header h = header_of(t);
        if (conditional(h)) {
            r->conditional = true;
            r->twice = r->twice || r->in[h] != NULL;
        }
        if (h == HTTP_H_COUNT || r->in[h] != NULL || *n == 4) {
            free(t);
            continue;
        }
        kept[(*n)++] = t;
        r->in[h] = value;
    }
    return piece;
}

/* Path and query, as callbacks.c does it; false where that is an answer already. */
static bool take_target(struct http_request *r, struct part target)
{
    unsigned allowed;
    const char *rest;
    cht_free(r->uri); /* of its last life */
    r->uri = cht_malloc(target.n + 1);
    FUZZ_CHECK(r->uri != NULL);
    memcpy(r->uri, target.p, target.n);
    r->uri[target.n] = 0;
    r->uri_len = target.n;
    r->uri_cap = target.n + 1;
    char *query = memchr(r->uri, '?', r->uri_len);
    size_t path = query != NULL ? (size_t)(query - r->uri) : r->uri_len;
    r->route = http_router_find(&http_routes, r->uri, path, r->method, &rest, &r->rest_len, &allowed);
    if (r->route == NULL)
        return false;
    r->rest = rest;
    r->rest_len = http_url_decode(r->uri + (rest - r->uri), r->rest_len);
    if (r->rest_len == SIZE_MAX)
        return false;
    return query == NULL || http_params_read(r, query + 1, r->uri_len - path - 1);
}

static bool ready(const struct http_request *r) { return atomic_load(&r->phase) == HTTP_PHASE_READY; }

static void give_body(struct http_request *r, struct part body, size_t piece)
{
    if (r->route->feed == NULL) {
        cht_free(r->body);
        r->body = cht_malloc(body.n + 1);
        FUZZ_CHECK(r->body != NULL);
        memcpy(r->body, body.p, body.n);
        r->body_len = r->body_cap = body.n;
        return;
    }
    while (body.n > 0 && !ready(r)) {
        size_t n = piece < body.n ? piece : body.n;
        char *p = fuzz_exact(body.p, n);
        FUZZ_CHECK(r->route->feed(r, p, n));
        free(p);
        body.p += n;
        body.n -= n;
    }
}

/* ---- its answer ---------------------------------------------------------------------------------------------------------------- */

static json_t *json(const char *p, size_t n)
{
    json_t *o = json_loadb(p, n, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
    if (o == NULL)
        (void)fprintf(stderr, "no JSON: %.*s\n", (int)n, p);
    FUZZ_CHECK(o != NULL);
    return o;
}

/* The last line is the end or an error; of many questions each may have an error, nothing else has lines after it. */
static void check_lines(const char *p, size_t n, bool whole)
{
    const char *begin = p;
    bool ended = false, failed = false;
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        if (end == NULL) {
            FUZZ_CHECK(!whole);
            return;
        }
        json_t *o = json(p, (size_t)(end - p));
        FUZZ_CHECK(json_is_object(o) && !ended);
        ended = json_object_get(o, "end") != NULL;
        failed = json_object_get(o, "error") != NULL;
        json_decref(o);
        n -= (size_t)(end - p) + 1;
        p = end + 1;
    }
    if (whole && !ended && !failed)
        (void)fprintf(stderr, "no end: %.*s\n", (int)(p - begin), begin);
    FUZZ_CHECK(!whole || ended || failed);
}

static void read_stream(struct http_request *r)
{
    static char answer[ANSWER_MAX];
    size_t n = 0;
    ssize_t got;
    while (n < sizeof answer &&
           (got = http_stream_read(r, answer + n, sizeof answer - n < 8192 ? sizeof answer - n : 8192)) >=
               0) {
        if (got == 0)
            wait_for_stream(r->stream);
        n += (size_t)got;
    }
    if (r->media == HTTP_MEDIA_NDJSON)
        check_lines(answer, n, n < sizeof answer && !r->stream->cut);
}

static void check_answer(struct http_request *r)
{
    FUZZ_CHECK(r->status >= 200 && r->status < 600 && r->status != 500 && !r->out.failed);
    if (r->head && (r->stream != NULL || r->media == HTTP_MEDIA_NDJSON))
        return; /* the head of a stream: nobody reads it, and it may have no source */
    if (r->stream != NULL) {
        read_stream(r);
        return;
    }
    if (r->media == HTTP_MEDIA_JSON || r->media == HTTP_MEDIA_PROBLEM) {
        json_t *o = json(r->out.p, r->out.n);
        FUZZ_CHECK(json_is_object(o) || json_is_array(o));
        FUZZ_CHECK(r->media == HTTP_MEDIA_JSON || json_is_string(json_object_get(o, "code")));
        FUZZ_CHECK((r->status >= 400) == (r->media == HTTP_MEDIA_PROBLEM) || r->status == 503);
        json_decref(o);
    } else if (r->media == HTTP_MEDIA_NDJSON) {
        check_lines(r->out.p, r->out.n, true);
    }
}

static void run(struct http_request *r)
{
    r->route->run(r);
    while (!ready(r)) {
        int phase = atomic_load(&r->phase);
        FUZZ_CHECK(phase ==
                   HTTP_PHASE_WAITING); /* nothing else is put off while there is one request at a time */
        wait_for_it();
        void (*resume)(struct http_request *) = r->resume;
        FUZZ_CHECK(resume != NULL);
        r->resume = NULL;
        resume(r);
    }
}

static void one_request(struct part in)
{
    static struct http_conn conn;
    char *kept[4];
    size_t keeps = 0;
    conn = (struct http_conn){.w = &worker, .fd = -1};
    struct http_request *r = http_request_new(&worker);
    FUZZ_CHECK(r != NULL);
    r->conn = &conn;
    r->mc = (struct MHD_Connection *)(void *)&conn; /* nobody looks into it */
    struct part target = take_line(&in);
    const char *blank = memchr(target.p, ' ', target.n);
    struct part method = {target.p, blank != NULL ? (size_t)(blank - target.p) : target.n};
    r->head = CHT_IS(method.p, method.n, "HEAD");
    size_t skip = method.n + (blank != NULL);
    r->method = method_of(method);
    static const char id[] = "0123456789abcdef";
    memcpy(r->id, id, sizeof id);
    r->id_len = sizeof id - 1;
    size_t piece = take_headers(r, &in, kept, &keeps);
    if (take_target(r, (struct part){target.p + skip, target.n - skip})) {
        if (r->route->body != HTTP_BODY_NONE)
            give_body(r, in, piece);
        if (!ready(r))
            run(r);
        check_answer(r);
    } else {
        FUZZ_CHECK(r->route == NULL || r->rest_len == SIZE_MAX || ready(r));
    }
    http_request_recycle(r);
    while (keeps > 0)
        free(kept[--keeps]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char between[] = "\n----\n";
    struct part in = {(const char *)data, n};
    if (server.conf == NULL)
        start();
    if (store.used++ % FUZZ_STORE_USES == 0)
        renew();
    for (unsigned i = 0; i < REQUESTS && in.n > 0; i++) {
        const char *cut = memmem(in.p, in.n, between, sizeof between - 1);
        size_t len = cut != NULL ? (size_t)(cut - in.p) : in.n;
        one_request((struct part){in.p, len});
        len += cut != NULL ? sizeof between - 1 : 0;
        in.p += len;
        in.n -= len;
    }
    fuzz_store_empty(&store);
    return 0;
}
