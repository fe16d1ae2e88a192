/* bench_load: see bench_load.h. */
#include "tools/bench_load.h"

#include "tools/answer.h"
#include "tools/line_client.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "base/rng.h"
#include "os/net.h"
#include "os/sock.h"
#include "os/thread.h"
#include "service/out.h"
#include "service/tls.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EVENTS 64u
#define PIECE (256u << 10)
#define TAIL 96u
#define WAIT_MS 100
#define SILENT_NS UINT64_C(60000000000)

struct conn {
    int fd;
    struct svc_tls_conn *tls; /* owned; NULL: plain */
    struct svc_out out;       /* the request; [sent..n) is not written yet */
    size_t sent;
    uint64_t begun;
    struct tool_answer answer;
    bool batch;
    char tail[TAIL]; /* the end of the body */
    size_t tail_n;
};

struct worker {
    const struct tool_bench_load *load;
    struct cht_thread thread;
    struct conn *conns; /* owned, n of them */
    size_t n;
    int poller;
    uint64_t end, last;
    double due, step;   /* with a rate: when the next request is due, and how far apart they are */
    struct conn **idle; /* owned: those without a request, idle_n of them */
    size_t idle_n;
    struct cht_rng rng;
    uint8_t *value; /* owned: load->value_bytes of it */
    char *buf;      /* owned */
    struct svc_out body;
    struct tool_bench_result result;
    struct cht_err err;
    enum cht_rc rc;
};

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static void end_head(const struct worker *w, struct svc_out *o, const char *type, size_t body)
{
    svc_out_text(o, " HTTP/1.1\r\nHost: ");
    svc_out_text(o, CHT_BEGINS(w->load->where, "unix:") ? "localhost" : w->load->where);
    if (w->load->authorization != NULL) {
        svc_out_text(o, "\r\n");
        svc_out_text(o, w->load->authorization);
    }
    if (type != NULL)
        svc_out_format(o, "\r\nContent-Type: %s\r\nContent-Length: %zu", type, body);
    svc_out_text(o, "\r\n\r\n");
}

static void make_point(struct worker *w, struct svc_out *o)
{
    svc_out_text(o, "GET /pairs/");
    tool_bench_name(o, cht_rng_below(&w->rng, w->load->keys));
    svc_out_format(o, "?exact=true&values=true&db=%s", w->load->database);
    end_head(w, o, NULL, 0);
}

static void make_put(struct worker *w, struct svc_out *o)
{
    svc_out_text(o, "PUT /pairs/");
    tool_bench_name(o, cht_rng_below(&w->rng, w->load->keys));
    svc_out_format(o, "?db=%s", w->load->database);
    end_head(w, o, "application/octet-stream", w->load->value_bytes);
    svc_out_bytes(o, w->value, w->load->value_bytes);
}

static void make_batch(struct worker *w, struct svc_out *o)
{
    w->body.n = 0;
    for (uint64_t i = 0; i < w->load->batch; i++)
        tool_bench_operation(&w->body, cht_rng_below(&w->rng, w->load->keys), w->value, w->load->value_bytes);
    svc_out_format(o, "POST /batch?results=false&db=%s", w->load->database);
    end_head(w, o, "application/x-ndjson", w->body.n);
    svc_out_bytes(o, w->body.p, w->body.n);
}

static void make_scan(struct worker *w, struct svc_out *o)
{
    svc_out_text(o, "GET /pairs/bench:?values=true&after=");
    tool_bench_name(o, cht_rng_below(&w->rng, w->load->keys));
    svc_out_format(o, "&limit=%u&db=%s", TOOL_BENCH_SCANNED, w->load->database);
    end_head(w, o, NULL, 0);
}

static void make_predict(struct worker *w, struct svc_out *o)
{
    char body[96];
    int n = snprintf(body, sizeof body, "{\"tokens\":[%u,%u],\"k\":10}",
                     (unsigned)cht_rng_below(&w->rng, TOOL_BENCH_TOKENS),
                     (unsigned)cht_rng_below(&w->rng, TOOL_BENCH_TOKENS));
    svc_out_format(o, "POST /predict?db=%s", w->load->database);
    end_head(w, o, "application/json", (size_t)n);
    svc_out_bytes(o, body, (size_t)n);
}

static void make_request(struct worker *w, struct conn *c)
{
    static void (*const makers[TOOL_BENCH_KINDS])(struct worker *, struct svc_out *) = {
        [TOOL_BENCH_POINT] = make_point, [TOOL_BENCH_PUT] = make_put,         [TOOL_BENCH_BATCH] = make_batch,
        [TOOL_BENCH_SCAN] = make_scan,   [TOOL_BENCH_PREDICT] = make_predict, [TOOL_BENCH_MIX] = make_put,
        [TOOL_BENCH_MIX50] = make_put};
    enum tool_bench_kind kind = w->load->kind;
    unsigned points = kind == TOOL_BENCH_MIX ? 9 : kind == TOOL_BENCH_MIX50 ? 5 : 0;
    c->out.n = c->sent = c->tail_n = 0;
    c->batch = kind == TOOL_BENCH_BATCH;
    if (points > 0 && cht_rng_below(&w->rng, 10) < points)
        make_point(w, &c->out);
    else
        makers[kind](w, &c->out);
    tool_answer_begin(&c->answer, false);
}

/* ---- one connection --------------------------------------------------------------------------------------------------- */

static enum cht_rc lost(struct worker *w, const char *what)
{
    return CHT_FAIL(&w->err, CHT_IO, "%.80s: %s", w->load->where, what);
}

static enum cht_rc push(struct worker *w, struct conn *c)
{
    while (c->sent < c->out.n) {
        const char *p = c->out.p + c->sent;
        size_t left = c->out.n - c->sent;
        ptrdiff_t n = c->tls != NULL ? svc_tls_write(c->tls, p, left) : cht_sock_write(c->fd, p, left);
        if (n == CHT_SOCK_LATER)
            return CHT_OK;
        if (n <= 0)
            return lost(w, "the connection ended while a request was sent");
        c->sent += (size_t)n;
    }
    return CHT_OK;
}

static enum cht_rc ask(struct worker *w, struct conn *c, uint64_t due)
{
    make_request(w, c);
    if (c->out.failed)
        return CHT_FAIL(&w->err, CHT_NO_MEMORY, "no memory for a request");
    c->begun = due > 0 ? due : cht_now_ns();
    return push(w, c);
}

/* Keeps the end of the body. */
static void keep_tail(struct conn *c, const char *p, size_t n)
{
    size_t take = n < TAIL ? n : TAIL, keep = c->tail_n < TAIL - take ? c->tail_n : TAIL - take;
    memmove(c->tail, c->tail + c->tail_n - keep, keep);
    memcpy(c->tail + keep, p + n - take, take);
    c->tail_n = keep + take;
}

static bool all_done(const struct conn *c)
{
    static const char good[] = ",\"failed\":0}}\n";
    size_t n = sizeof good - 1;
    return !c->batch || (c->tail_n >= n && memcmp(c->tail + c->tail_n - n, good, n) == 0);
}

/* An answer is complete: it counts, and the next request goes out, unless the time is over. */
static enum cht_rc answered(struct worker *w, struct conn *c)
{
    struct tool_bench_result *r = &w->result;
    uint64_t now = cht_now_ns();
    w->last = now;
    r->requests++;
    tool_hdr_record(&r->times, now - c->begun);
    if (c->answer.status >= 400 || !all_done(c)) {
        if (r->failed++ == 0) {
            r->status = c->answer.status;
            (void)snprintf(r->why, sizeof r->why, "%.*s", (int)c->tail_n, c->tail);
        }
    }
    if (c->answer.closes)
        return lost(w, "the server ends its connections");
    c->begun = 0;
    if (w->load->rate > 0)
        w->idle[w->idle_n++] = c;
    return w->load->rate == 0 && now < w->end ? ask(w, c, 0) : CHT_OK;
}

static enum cht_rc take(struct worker *w, struct conn *c, size_t got)
{
    size_t at = 0, used;
    for (;;) {
        const char *body;
        size_t n;
        enum tool_answer_next next = tool_answer_read(&c->answer, w->buf + at, got - at, &used, &body, &n);
        at += used;
        if (next == TOOL_ANSWER_BAD)
            return lost(w, "what came is no answer of HTTP/1.1");
        if (next == TOOL_ANSWER_MORE)
            return CHT_OK;
        if (next == TOOL_ANSWER_BODY) {
            w->result.bytes += n;
            keep_tail(c, body, n);
            continue;
        }
        return at < got ? lost(w, "an answer came that nothing asked for") : answered(w, c);
    }
}

static enum cht_rc pull(struct worker *w, struct conn *c)
{
    for (;;) {
        ptrdiff_t n =
            c->tls != NULL ? svc_tls_read(c->tls, w->buf, PIECE) : cht_sock_read(c->fd, w->buf, PIECE);
        if (n == CHT_SOCK_LATER)
            return CHT_OK;
        if (n <= 0)
            return c->begun > 0 ? lost(w, "the connection ended before the answer did") : CHT_OK;
        enum cht_rc rc = take(w, c, (size_t)n);
        if (rc != CHT_OK)
            return rc;
    }
}

/* ---- one thread --------------------------------------------------------------------------------------------------------- */

static bool busy(const struct worker *w)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->conns[i].begun > 0)
            return true;
    }
    return false;
}

/* All that is due goes out, as far as connections are free. */
static enum cht_rc ask_due(struct worker *w)
{
    enum cht_rc rc = CHT_OK;
    uint64_t now = cht_now_ns();
    while (rc == CHT_OK && w->idle_n > 0 && now < w->end && w->due <= (double)now) {
        rc = ask(w, w->idle[--w->idle_n], (uint64_t)w->due);
        w->due += w->step;
    }
    return rc;
}

/* The next request is due, or something has come. */
static void wait_due(const struct worker *w)
{
    uint64_t now = cht_now_ns();
    if (w->idle_n > 0 && now < w->end && w->due > (double)now) {
        double left = w->due - (double)now, most = WAIT_MS * 1e6;
        cht_poller_sleep(w->poller, (uint64_t)(left < most ? left : most));
    }
}

/* What no connection was free for has waited at least until now. */
static void count_unsent(struct worker *w)
{
    uint64_t now = cht_now_ns();
    while (w->due < (double)w->end) {
        tool_hdr_record(&w->result.times, now > (uint64_t)w->due ? now - (uint64_t)w->due : 0);
        w->result.unsent++;
        w->due += w->step;
    }
}

static enum cht_rc begin(struct worker *w)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < w->n && rc == CHT_OK; i++) {
        if (w->load->rate > 0)
            w->idle[w->idle_n++] = &w->conns[i];
        else
            rc = ask(w, &w->conns[i], 0);
    }
    return rc;
}

/* With a rate: what is due goes out, then it waits until the next one is. Returns how long the poller may wait, in ms. */
static int keep_time(struct worker *w, enum cht_rc *rc)
{
    if (w->load->rate == 0)
        return WAIT_MS;
    *rc = ask_due(w);
    if (*rc == CHT_OK)
        wait_due(w);
    return w->idle_n > 0 && cht_now_ns() < w->end ? 0 : WAIT_MS;
}

static enum cht_rc handle(struct worker *w, const struct cht_event *e)
{
    enum cht_rc rc = CHT_OK;
    if ((e->what & CHT_POLL_WRITE) != 0)
        rc = push(w, e->data);
    if (rc == CHT_OK && (e->what & ~CHT_POLL_WRITE) != 0)
        rc = pull(w, e->data);
    return rc;
}

static enum cht_rc run_events(struct worker *w)
{
    struct cht_event events[EVENTS];
    enum cht_rc rc = begin(w);
    while (rc == CHT_OK && (cht_now_ns() < w->end || busy(w))) {
        int ms = keep_time(w, &rc);
        size_t n = cht_poller_wait(w->poller, events, EVENTS, ms);
        if (cht_os_interrupt_pending())
            return CHT_FAIL(&w->err, CHT_CANCELLED, "interrupted");
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = handle(w, &events[i]);
        if (n == 0 && cht_now_ns() > w->last + SILENT_NS && cht_now_ns() > w->end)
            return lost(w, "it does not answer any more");
    }
    if (w->load->rate > 0)
        count_unsent(w);
    return rc;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    w->rc = run_events(w);
    return NULL;
}

static enum cht_rc open_worker(struct worker *w, struct cht_err *err)
{
    const struct tool_bench_load *load = w->load;
    w->poller = -1;
    w->conns = cht_calloc(w->n, sizeof *w->conns);
    w->value = cht_malloc(load->value_bytes + 8);
    w->buf = cht_malloc(PIECE);
    w->idle = cht_calloc(w->n, sizeof(struct conn *));
    enum cht_rc rc = tool_hdr_init(&w->result.times, err);
    if (w->conns == NULL || w->value == NULL || w->buf == NULL || w->idle == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a load");
    for (size_t i = 0; w->conns != NULL && i < w->n; i++)
        w->conns[i].fd = -1;
    for (uint64_t i = 0; w->value != NULL && i < load->value_bytes; i++)
        w->value[i] = (uint8_t)cht_rng_next(&w->rng);
    if (rc == CHT_OK)
        rc = cht_poller_new(&w->poller, err);
    for (size_t i = 0; i < w->n && rc == CHT_OK; i++) {
        rc = cht_sock_connect(load->where, &w->conns[i].fd, err);
        if (rc == CHT_OK && load->tls != NULL)
            rc = tool_line_secure(w->conns[i].fd, load->where, load->tls, &w->conns[i].tls, err);
        if (rc == CHT_OK && !cht_sock_unblock(w->conns[i].fd))
            rc = CHT_FAIL(err, CHT_IO, "a connection cannot be changed");
        if (rc == CHT_OK)
            rc = cht_poller_add(w->poller, w->conns[i].fd, &w->conns[i], err);
    }
    return rc;
}

static void close_worker(struct worker *w)
{
    for (size_t i = 0; w->conns != NULL && i < w->n; i++) {
        svc_tls_close(w->conns[i].tls);
        if (w->conns[i].fd >= 0)
            cht_net_close(w->conns[i].fd);
        svc_out_free(&w->conns[i].out);
    }
    if (w->poller >= 0)
        cht_net_close(w->poller);
    cht_free(w->conns);
    cht_free(w->value);
    cht_free(w->buf);
    cht_free(w->idle);
    svc_out_free(&w->body);
    tool_hdr_fini(&w->result.times);
}

static void gather(struct tool_bench_result *out, const struct tool_bench_result *one)
{
    tool_hdr_add(&out->times, &one->times);
    out->requests += one->requests;
    out->bytes += one->bytes;
    out->unsent += one->unsent;
    if (out->failed == 0 && one->failed > 0) {
        out->status = one->status;
        memcpy(out->why, one->why, sizeof out->why);
    }
    out->failed += one->failed;
}

/* ------------------------------------------------------------------------------------------------------------ */

void tool_bench_name(struct svc_out *o, uint64_t i) { svc_out_format(o, "bench:%08" PRIx64, i); }

void tool_bench_operation(struct svc_out *o, uint64_t i, const uint8_t *value, uint64_t n)
{
    char name[32];
    int len = snprintf(name, sizeof name, "bench:%08" PRIx64, i);
    svc_out_text(o, "{\"op\":\"pair_put\",\"pair\":");
    svc_out_b64(o, name, (size_t)len);
    svc_out_text(o, ",\"value\":");
    svc_out_b64(o, value, n);
    svc_out_text(o, "}\n");
}

enum cht_rc tool_bench_run(const struct tool_bench_load *load, struct tool_bench_result *out,
                           struct cht_err *err)
{
    size_t threads = load->threads < load->connections ? load->threads : load->connections, made = 0,
           started = 0;
    struct worker *w = cht_calloc(threads, sizeof *w);
    enum cht_rc rc = CHT_OK;
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a load");
    for (; made < threads && rc == CHT_OK; made++) {
        w[made].load = load;
        w[made].n = load->connections / threads + (made < load->connections % threads);
        cht_rng_seed(&w[made].rng, load->seed + made);
        rc = open_worker(&w[made], err);
    }
    uint64_t start = cht_now_ns();
    for (; started < threads && rc == CHT_OK; started++) {
        w[started].end = start + load->ns;
        w[started].last = start;
        if (load->rate > 0) { /* each thread has its share of the times */
            w[started].step = 1e9 * (double)threads / (double)load->rate;
            w[started].due = (double)start + w[started].step * (double)started / (double)threads;
        }
        rc = cht_thread_start(&w[started].thread, "bench", worker_main, &w[started], err);
        started -= rc != CHT_OK;
    }
    uint64_t last = start;
    for (size_t i = 0; i < started; i++) {
        cht_thread_join(&w[i].thread);
        if (rc == CHT_OK && w[i].rc != CHT_OK) {
            *err = w[i].err;
            rc = w[i].rc;
        }
        last = w[i].last > last ? w[i].last : last;
        gather(out, &w[i].result);
    }
    out->ns += last - start;
    for (size_t i = 0; i < made; i++)
        close_worker(&w[i]);
    cht_free(w);
    return rc;
}
