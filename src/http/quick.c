/* quick: see quick.h. */
#include "http/quick.h"

#include "http/admit.h"
#include "http/body.h"
#include "http/inlet.h"
#include "http/pages.h"
#include "http/send.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"

#define LINE_MAX 1024u       /* of a request line */
#define BODY_MAX (32u << 10) /* of an answer; longer ones go out by libmicrohttpd */
#define WRITE_MAX 4096u      /* of a body that is taken */
#define ORPHANS_MAX 64u      /* requests without a connection; while there are as many, no writes are taken */
#define TOGETHER 32u         /* requests that are read together, and then answered together */
#define HEAD 2048u           /* of an answer; short ones are sent with their body from there */
#define PAUSE 32u
#define PAUSE_MAX 1024u
#define SECOND_NS UINT64_C(1000000000)

/* Of a connection. */
struct http_quick {
    uint64_t serial; /* of the headers (gate.h) that were looked at; 0: none */
    bool fit;        /* a request that has them can be taken */
    unsigned pause;  /* requests that go by libmicrohttpd after the next answer that does; 0: PAUSE */
    unsigned left;   /* of them */
    unsigned row;    /* answers in a row that did not */
    bool used;       /* since libmicrohttpd has seen it last */
    bool asked;      /* libmicrohttpd wanted to read while a commit was waited for */
    uint64_t seen;   /* ns: when that was */
    const char *in[HTTP_H_COUNT];
    char text[HTTP_GATE_LAST + 1]; /* the headers, each value with a NUL after it: what `in` points to */
    struct svc_out rest;           /* what the client has not taken, from rest_at */
    size_t rest_at;
};

/* ---- headers ---------------------------------------------------------------------------------------------------- */

static bool is(const char *a, size_t a_n, const char *b, size_t b_n)
{
    return a_n == b_n && http_same_name(a, b, b_n);
}

/* Those that change nothing about such a call, or that the handlers look at; NUL after the value. */
static bool is_harmless(struct http_quick *q, const char *name, size_t n, const char *value)
{
    enum http_header h = http_admit_header(name, n);
    if (h == HTTP_H_HOST || h == HTTP_H_ACCEPT || h == HTTP_H_ACCEPT_ENCODING || h == HTTP_H_AUTHORIZATION ||
        h == HTTP_H_CONTENT_TYPE || h == HTTP_H_CONTENT_LENGTH) {
        bool once = q->in[h] == NULL;
        q->in[h] = value;
        return once;
    }
    if (is(name, n, CHT_LITERAL("User-Agent")) || is(name, n, CHT_LITERAL("Accept-Language")) ||
        is(name, n, CHT_LITERAL("Cache-Control")) || is(name, n, CHT_LITERAL("Pragma")))
        return true;
    return is(name, n, CHT_LITERAL("Connection")) && is(value, strlen(value), CHT_LITERAL("keep-alive"));
}

/* All of q->text, n bytes with the empty line. */
static bool read_headers(struct http_quick *q, size_t n)
{
    char *p = q->text, *end = p + n;
    while (p < end && *p != '\r' && *p != '\n') {
        char *stop = memchr(p, '\n', (size_t)(end - p)), *colon = memchr(p, ':', (size_t)(end - p));
        if (stop == NULL || colon == NULL || colon > stop)
            return false;
        char *value = colon + 1, *last = stop > p && stop[-1] == '\r' ? stop - 1 : stop;
        while (value < last && (*value == ' ' || *value == '\t'))
            value++;
        *last = 0;
        if (!is_harmless(q, p, (size_t)(colon - p), value))
            return false;
        p = stop + 1;
    }
    return q->in[HTTP_H_HOST] != NULL;
}

/* Looks at the headers that the gate remembers, once. False: no request that has them is taken. */
static bool know_headers(struct http_conn *c)
{
    const struct http_gate_headers *last = c->gate.last;
    struct http_quick *q = c->quick;
    if (q == NULL)
        q = c->quick = cht_calloc(1, sizeof *q);
    if (q == NULL)
        return false;
    if (q->serial == last->serial)
        return q->fit;
    q->serial = last->serial;
    memset(q->in, 0, sizeof q->in);
    memcpy(q->text, last->text, last->n);
    q->text[last->n] = 0;
    q->fit = !last->old && read_headers(q, last->n);
    return q->fit;
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void cut(struct http_conn *c)
{
    cht_net_shutdown(c->fd);
    c->killed = true;
}

/* The answer goes out by libmicrohttpd. That is dearer than if the request had come by it, so the next ones do, and the more of them the
 * more often it happens. */
static void hand_over(struct http_request *r)
{
    struct http_conn *c = r->conn;
    struct http_quick *q = c->quick;
    unsigned pause = q->pause > 0 ? q->pause : PAUSE;
    q->left = pause;
    q->pause = pause < PAUSE_MAX ? 2 * pause : pause;
    q->row = 0;
    r->mc = NULL;
    r->handed = true;
    if (!http_gate_put(&c->gate, CHT_LITERAL(HTTP_QUICK_STAND_IN)))
        cut(c);
    c->gate.again = r->w->again = true;
}

/* What of head and body was not sent. False: no memory. */
static bool keep_rest(struct http_conn *c, const char *head, size_t n, const struct svc_out *body,
                      size_t sent)
{
    struct http_quick *q = c->quick;
    size_t skip = sent > n ? sent - n : 0;
    if (sent < n)
        svc_out_bytes(&q->rest, head + sent, n - sent);
    svc_out_bytes(&q->rest, body->p + skip, body->n - skip);
    q->rest_at = 0;
    c->w->owing += q->rest.n > 0;
    return !q->rest.failed && cht_net_watch_room(c->w->watch, c->fd, true);
}

/* Sends the answer of a request that is ready. False: it was handed over. */
static bool deliver(struct http_request *r)
{
    struct http_conn *c = r->conn;
    char head[HEAD];
    size_t n = 0;
    http_send_book(r);
    if (r->out.n <= BODY_MAX && r->out.cap + r->value.cap <= 2 * SVC_MEMORY_SMALL)
        n = http_send_head(r, head, sizeof head);
    if (n == 0) {
        hand_over(r);
        return false;
    }
    struct svc_out body = r->out;
    if (body.n <= sizeof head - n) {
        memcpy(head + n, body.p, body.n);
        n += body.n;
        body.n = 0;
    }
    ptrdiff_t sent = cht_net_send(c->fd, head, n, body.p, body.n);
    bool whole = sent == (ptrdiff_t)(n + body.n);
    if (sent == CHT_NET_FAILED || (!whole && !keep_rest(c, head, n, &body, sent > 0 ? (size_t)sent : 0))) {
        cut(c);
        r->early = true;
    }
    atomic_store_explicit(&r->phase, HTTP_PHASE_SENT, memory_order_relaxed);
    return true;
}

/* It was delivered. */
static void settle(struct http_request *r)
{
    struct http_quick *q = r->conn->quick;
    q->used = true;
    if (q->asked) { /* there may be something that nobody tells of again */
        q->asked = false;
        r->conn->gate.again = r->w->again = true;
    }
    if (++q->row >= PAUSE_MAX)
        q->pause = 0;
    http_request_over(r, r->early);
}

static int phase_of(const struct http_request *r)
{
    return atomic_load_explicit(&r->phase, memory_order_relaxed);
}

static void go_on(struct http_request *r)
{
    void (*resume)(struct http_request *) = r->resume;
    r->resume = NULL;
    resume(r);
}

/* At most TOGETHER of them, from r on; where the others begin. */
static struct http_request *run_some(struct http_worker *w, struct http_request *r)
{
    struct http_request *some[TOGETHER];
    unsigned n = 0, sent = 0;
    for (; r != NULL && n < TOGETHER; r = r->next)
        some[n++] = r;
    w->together = n >= HTTP_AHEAD_LEAST;
    for (unsigned i = 0; i < n; i++) {
        some[i]->route->run(some[i]);
        if (phase_of(some[i]) == HTTP_PHASE_READY)
            http_send_book(some[i]);
    }
    w->together = false;
    if (n >= HTTP_AHEAD_LEAST && w->aheads > 0)
        http_request_look_ahead(w);
    for (unsigned i = 0; i < n; i++) {
        if (phase_of(some[i]) == HTTP_PHASE_AHEAD)
            go_on(some[i]);
        if (phase_of(some[i]) == HTTP_PHASE_READY && deliver(some[i]))
            some[sent++] = some[i];
    }
    w->now = cht_now_ns();
    for (unsigned i = 0; i < sent; i++)
        settle(some[i]);
    return r;
}

/* A list of those that can go on. */
static void answer(struct http_worker *w, struct http_request *list)
{
    struct http_request *sent = NULL;
    for (struct http_request *r = list, *next; r != NULL; r = next) {
        next = r->next;
        if (r->conn == NULL) { /* it has gone meanwhile */
            w->orphans--;
            http_request_over(r, true);
            continue;
        }
        r->loose = false;
        go_on(r);
        if (phase_of(r) == HTTP_PHASE_READY && deliver(r)) {
            r->next = sent;
            sent = r;
        }
    }
    w->now = cht_now_ns();
    while (sent != NULL) {
        struct http_request *r = sent;
        sent = r->next;
        settle(r);
    }
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

static struct http_request *take_list(struct http_worker *w)
{
    struct http_request *r = w->quick;
    w->quick = NULL;
    w->quick_end = &w->quick;
    return r;
}

/* Nothing else of the connection is under way, and nothing special is the matter with it. */
static bool is_alone(const struct http_conn *c)
{
    const struct http_gate *g = &c->gate;
    return c->req == NULL && !c->refused && !c->admin && !c->killed && c->keys == NULL && c->mc != NULL &&
           g->begun == g->done + 1 && g->ended == g->begun && !g->fin && !g->eof && !g->again &&
           g->ready_n == 0 && g->held_n == 0;
}

struct asked {
    enum http_method method;
    char name[4]; /* of the method */
    const char *target;
    size_t n;
    const char *body;
    size_t body_n;
};

/* "GET /... HTTP/1.1\r\n", or PUT with a short body; the line has n bytes, the headers after it are `last`. False: it is something else. */
static bool read_line(const char *line, size_t n, const struct http_gate_headers *last, struct asked *a)
{
    static const char begin[] = "GET ", end[] = " HTTP/1.1\r\n";
    size_t b = sizeof begin - 1, e = sizeof end - 1;
    bool put = n > b && memcmp(line, "PUT ", b) == 0;
    if (n <= b + e || n > LINE_MAX || (!put && memcmp(line, begin, b) != 0) || line[b] != '/' ||
        memcmp(line + n - e, end, e) != 0)
        return false;
    a->method = put ? HTTP_METHOD_PUT : HTTP_METHOD_GET;
    memcpy(a->name, line, b);
    a->name[b - 1] = 0;
    a->target = line + b;
    a->n = n - b - e;
    a->body = line + n + last->n;
    a->body_n = (size_t)last->length;
    return put ? last->sized && last->length <= WRITE_MAX : !last->sized;
}

/* As `begin` in callbacks.c. False: refused, or no such call. */
static bool prepare(struct http_request *r, const struct asked *a)
{
    if (!http_admit_uri(r, a->target, a->n))
        return false;
    memcpy(r->in, r->conn->quick->in, sizeof r->in);
    memcpy(r->method_name, a->name, sizeof a->name);
    r->method = a->method;
    struct http_target target = http_admit_route(r);
    if (r->route == NULL || r->route->quick == NULL || !http_pages_admit(r) || !http_admit(r) ||
        !http_admit_target(r, &target) || r->close || r->cors != NULL || !r->route->quick(r))
        return false;
    if (a->body_n > 0 && http_body_append(r, a->body, a->body_n) != CHT_OK)
        return false;
    http_admit_id(r);
    return true;
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool http_quick_before(struct http_conn *c)
{
    struct http_request *r = c->req;
    struct http_quick *q = c->quick;
    if (c->killed)
        return true;
    if (q->rest.n > 0) /* http_quick_flush sees to it that it is read then */
        return false;
    if (r == NULL || !r->quick || r->handed)
        return true;
    if (r->loose) {
        q->asked = true;
        return false;
    }
    if (phase_of(r) != HTTP_PHASE_WAITING) { /* its answer comes at the end of this round */
        c->gate.again = c->w->again = true;
        return false;
    }
    if (r->resume != NULL)
        go_on(r);
    if (phase_of(r) != HTTP_PHASE_READY)
        return false;
    if (!deliver(r))
        return true;
    c->w->now = cht_now_ns();
    settle(r);
    return q->rest.n == 0;
}

bool http_quick_take(struct http_conn *c, const char *line)
{
    struct http_worker *w = c->w;
    struct asked a;
    if (!read_line(line, c->gate.same, c->gate.last, &a) || !is_alone(c) || !know_headers(c) ||
        (a.method != HTTP_METHOD_GET && w->orphans >= ORPHANS_MAX) ||
        atomic_load_explicit(&w->srv->state, memory_order_acquire) != HTTP_SERVER_READY)
        return false;
    if (c->quick->left > 0) {
        c->quick->left--;
        return false;
    }
    struct http_request *r = http_request_new(w);
    if (r == NULL)
        return false;
    if (a.method == HTTP_METHOD_GET)
        w->begun--; /* it makes no round for others larger */
    r->conn = c;
    r->quick = true;
    if (!prepare(r, &a)) {
        http_request_recycle(r);
        return false;
    }
    http_metrics_add(a.method == HTTP_METHOD_GET ? &w->metrics.quick : &w->metrics.quick_writes, 1);
    c->req = r;
    c->used = true;
    r->mc = c->mc;
    atomic_store_explicit(&r->phase, HTTP_PHASE_BODY, memory_order_relaxed);
    http_worker_enlist(w, r);
    return true;
}

void http_quick_run(struct http_worker *w)
{
    struct http_request *r = take_list(w);
    while (r != NULL)
        r = run_some(w, r);
}

void http_quick_answer(struct http_worker *w) { answer(w, take_list(w)); }

void http_quick_take_done(struct http_worker *w)
{
    struct http_request *r = NULL, *list = NULL;
    if (atomic_load_explicit(&w->done, memory_order_relaxed) != NULL)
        r = atomic_exchange_explicit(&w->done, NULL, memory_order_acquire);
    while (r != NULL) { /* the last one is first in it */
        struct http_request *next = r->next;
        r->next = list;
        list = r;
        r = next;
    }
    answer(w, list);
}

bool http_quick_owes(const struct http_conn *c) { return c->quick != NULL && c->quick->rest.n > 0; }

void http_quick_flush(struct http_conn *c)
{
    struct http_quick *q = c->quick;
    if (q == NULL || q->rest.n == 0)
        return;
    ptrdiff_t sent = cht_net_send(c->fd, q->rest.p + q->rest_at, q->rest.n - q->rest_at, NULL, 0);
    if (sent == CHT_NET_FAILED)
        cut(c);
    if (sent > 0) { /* it moves */
        q->rest_at += (size_t)sent;
        q->used = true;
        c->since = c->w->now;
    }
    if (q->rest_at < q->rest.n)
        return;
    svc_out_reset(&q->rest, 0);
    c->w->owing--;
    (void)cht_net_watch_room(c->w->watch, c->fd, false); /* else it tells once more than it has to */
    q->used = true;
    c->since = c->w->now;
    c->gate.again = c->w->again = true;
}

void http_quick_tick(struct http_conn *c)
{
    struct http_quick *q = c->quick;
    uint64_t now = c->w->now;
    bool waits = c->req != NULL && c->req->loose;
    if (q == NULL || (!q->used && !waits) || now - q->seen < c->w->srv->conf->idle_timeout * SECOND_NS / 16)
        return;
    q->used = false;
    q->seen = now;
    c->gate.again = c->w->again = true; /* suspended and resumed, its time begins anew */
}

void http_quick_end(struct http_conn *c)
{
    struct http_worker *w = c->w;
    struct http_request *r = c->req;
    if (r != NULL && r->loose) { /* its memory is the commit's until that is done */
        r->conn = NULL;
        c->req = NULL;
        w->orphans++;
    } else if (r != NULL) { /* libmicrohttpd has told of all that it knew */
        struct http_request **at = &w->quick;
        while (*at != NULL && *at != r)
            at = &(*at)->next;
        if (*at == r) {
            *at = r->next;
            w->quick_end = r->next != NULL ? w->quick_end : at;
        }
        w->now = cht_now_ns();
        http_request_over(r, true);
    }
    if (http_quick_owes(c)) { /* it was counted when it was answered */
        atomic_fetch_add_explicit(&w->metrics.aborted, 1, memory_order_relaxed);
        w->owing--;
    }
    if (c->quick != NULL)
        svc_out_free(&c->quick->rest);
    cht_free(c->quick);
    c->quick = NULL;
}
