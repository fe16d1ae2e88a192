/* callbacks: libmicrohttpd's calls into us: a request line, headers, a body, an answer that was sent, a connection. The
 * straight line from a request to its handler, on the worker's thread.
 */
#include "http/admit.h"
#include "http/body.h"
#include "http/inlet.h"
#include "http/pages.h"
#include "http/params.h"
#include "http/peers.h"
#include "http/quick.h"
#include "http/reply.h"
#include "http/secure.h"
#include "http/send.h"
#include "http/server.h"
#include "http/stream.h"
#include "http/turn.h"
#include "http/unpack.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"

#include <stdio.h>

#define DRAIN_MAX \
    (UINT64_C(1) << 20) /* a refused body of at most this is read, so that the connection can go on */

/* ---- libmicrohttpd's calls ------------------------------------------------------------------------------------ */

/* The request line is in: the only time that the path can be had as it was sent. */
void *http_call_uri(void *cls, const char *uri, struct MHD_Connection *mc)
{
    struct http_worker *w = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *c = info != NULL ? info->socket_context : NULL;
    if (c != NULL && c->req != NULL && c->req->handed)
        return c->req;
    struct http_request *r = http_request_new(w);
    if (r == NULL)
        return NULL;
    if (!http_admit_uri(r, uri, strlen(uri))) {
        http_request_free(r);
        return NULL;
    }
    r->conn = c;
    if (c != NULL) {
        c->req = r;
        c->used = true;
    }
    return r;
}

static enum http_method parse_method(const char *m, bool *head)
{
    *head = false;
    if (strcmp(m, "GET") == 0)
        return HTTP_METHOD_GET;
    if (strcmp(m, "PUT") == 0)
        return HTTP_METHOD_PUT;
    if (strcmp(m, "POST") == 0)
        return HTTP_METHOD_POST;
    if (strcmp(m, "DELETE") == 0)
        return HTTP_METHOD_DELETE;
    *head = strcmp(m, "HEAD") == 0;
    return *head ? HTTP_METHOD_GET : 0;
}

/* In one pass: libmicrohttpd would go through all of them for each. The first of several of a name counts. */
static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                   const char *value, size_t value_len)
{
    struct http_request *r = cls;
    enum http_header h = http_admit_header(name, name_len);
    (void)kind, (void)value_len;
    if (h == HTTP_H_COUNT)
        return MHD_YES;
    if (h == HTTP_H_IF_MATCH || h == HTTP_H_IF_NONE_MATCH || h == HTTP_H_IF_UNMODIFIED_SINCE) {
        r->conditional = true;
        r->twice = r->twice || r->in[h] != NULL;
    }
    if (r->in[h] == NULL)
        r->in[h] = value != NULL ? value : "";
    else if (h == HTTP_H_CONTENT_ENCODING)
        r->in[h] = "two codings"; /* none that is known: the body would be taken half decoded */
    return MHD_YES;
}

static uint64_t body_limit(const struct http_request *r)
{
    const struct conf *c = r->w->srv->conf;
    switch (r->route != NULL ? r->route->body : HTTP_BODY_NONE) {
    case HTTP_BODY_VALUE:
        return cht_b64_encoded(c->max_value_size) + 4096;
    case HTTP_BODY_JSON:
        return 1u << 20;
    case HTTP_BODY_NAMES:
    case HTTP_BODY_BATCH:
        return c->max_batch_bytes;
    case HTTP_BODY_NGRAMS:
    case HTTP_BODY_ASK:
        return c->max_ngrams_bytes;
    case HTTP_BODY_BACKUP:
    case HTTP_BODY_ARPA:
        return UINT64_MAX / 2;
    case HTTP_BODY_NONE:
        break;
    }
    return DRAIN_MAX;
}

static void too_large(struct http_request *r)
{
    enum http_body b = r->route != NULL ? r->route->body : HTTP_BODY_NONE;
    enum cht_rc rc = b == HTTP_BODY_VALUE                           ? CHT_VALUE_TOO_LARGE
                     : b == HTTP_BODY_BATCH || b == HTTP_BODY_NAMES ? CHT_BATCH_TOO_LARGE
                                                                    : CHT_BODY_TOO_LARGE;
    uint64_t max = b == HTTP_BODY_VALUE ? r->w->srv->conf->max_value_size : r->body_max;
    r->headers = 0;
    http_reply_fail(r, rc, "at most %llu bytes are taken", (unsigned long long)max);
}

/* A browser asks, without a token, whether a page of a listed origin may ask. Answered, if it is that. */
static bool is_preflight(struct http_request *r, const struct http_target *t)
{
    return r->cors != NULL && r->route == NULL && t->allowed != 0 && http_pages_options(r, t->allowed);
}

/* Its end is not known, so nothing of the connection is read any more. */
static void refuse_framing(struct http_request *r)
{
    r->close = r->conn->linger = true;
    r->headers = 0;
    http_reply_fail(r, r->conn->gate.bad, "%s", r->conn->gate.why);
}

/* The headers are in. Decides everything that does not need the body. */
static enum MHD_Result begin(struct http_request *r, struct MHD_Connection *mc, const char *method)
{
    r->mc = mc;
    if (r->handed) /* what libmicrohttpd has read stands for it: see quick.h */
        return MHD_YES;
    (void)MHD_get_connection_values_n(mc, MHD_HEADER_KIND, take_header, r);
    r->method = parse_method(method, &r->head);
    size_t n = strlen(method) + 1;
    memcpy(r->method_name, method, n <= sizeof r->method_name ? n : sizeof r->method_name);
    r->method_name[sizeof r->method_name - 1] = 0;
    http_admit_id(r);
    uint64_t length = 0;
    bool body = false, expect = false;
    const char *v = r->in[HTTP_H_CONTENT_LENGTH];
    if (v != NULL)
        body = !http_parse_decimal(v, strlen(v), UINT64_MAX, &length) || length > 0;
    body = body || r->in[HTTP_H_TRANSFER_ENCODING] != NULL;
    expect = body && r->in[HTTP_H_EXPECT] != NULL;
    if (http_turn_refused(r)) {
        refuse_framing(r);
        r->early = true;
        return http_send_answer(r);
    }
    struct http_target target = http_admit_route(r);
    bool answered =
        !http_pages_admit(r) || is_preflight(r, &target) || !http_admit(r) || !http_admit_target(r, &target);
    r->body_max = body_limit(r);
    if (!answered && body && r->in[HTTP_H_CONTENT_ENCODING] != NULL)
        answered = !http_unpack_begin(r);
    if (!answered && body && length > r->body_max + (r->unpack != NULL ? HTTP_UNPACK_MORE : 0)) {
        too_large(r);
        answered = true;
    }
    if (!body)
        return MHD_YES; /* to be answered in the next call: an answer in this one closes the connection */
    if (r->conn != NULL && !r->conn->want_ack) {
        r->conn->want_ack = true;
        r->w->acks++;
    }
    if (answered && (expect || length > DRAIN_MAX || r->in[HTTP_H_TRANSFER_ENCODING] != NULL)) {
        r->early = r->close = true;
        if (r->conn != NULL)
            r->conn->linger = true;
        return http_send_answer(r);
    }
    return MHD_YES;
}

/* A part of the body as the handlers take it. False closes the connection. */
static bool take_plain(struct http_request *r, const char *data, size_t n)
{
    bool answered = atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_READY;
    if (!answered && !r->body_over && r->body_len + r->body_dropped + n > r->body_max)
        r->body_over = true;
    if (answered || r->body_over || r->route->body == HTTP_BODY_NONE) {
        if (r->skip_ns == 0)
            r->skip_ns = r->w->now;
        r->body_dropped += n;
        return r->body_dropped <= r->body_max + DRAIN_MAX;
    }
    if (r->route->feed != NULL) {
        r->body_dropped += n; /* counted, read at once */
        return r->route->feed(r, data, n);
    }
    enum cht_rc rc = http_body_append(r, data, n);
    if (rc != CHT_OK) {
        cht_free(r->body);
        r->body = NULL;
        r->body_len = r->body_cap = 0;
        svc_memory_end(&r->memory);
        http_reply_err(r, rc, &r->err);
    }
    return true;
}

/* It is all there. */
static void end_body(struct http_request *r)
{
    if (r->unpack != NULL && !r->body_over) {
        atomic_store_explicit(&r->phase, HTTP_PHASE_BODY, memory_order_relaxed);
        enum http_unpacked u = http_unpack_end(r, take_plain);
        if (u == HTTP_UNPACK_AGAIN) { /* others have their turn */
            http_request_suspend(r, end_body);
            http_request_wake(r);
        }
        if (u != HTTP_UNPACK_DONE)
            return;
    }
    if (r->body_over)
        too_large(r);
    else if (!http_body_parse_later(r))
        r->route->run(r);
}

static bool take_body(struct http_request *r, const char *data, size_t n)
{
    bool answered = atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_READY;
    if (r->unpack == NULL || answered || r->body_over)
        return take_plain(r, data, n);
    return http_unpack_take(r, data, n, take_plain);
}

/* What libmicrohttpd shows as a body. No bytes are not its end: they are shown if the next request is there, after one that has no body
 * but `Expect: 100-continue`. */
static enum MHD_Result take_shown(struct http_request *r, const char *data, size_t *n)
{
    if (*n == 0)
        return MHD_YES;
    if (r->conn != NULL)
        http_conn_no_ack(r->conn);
    r->body_dropped += r->early ? *n : 0;
    bool ok = r->early ? r->body_dropped <= DRAIN_MAX : take_body(r, data, *n);
    *n = 0;
    return ok ? MHD_YES : MHD_NO;
}

enum MHD_Result http_call_request(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **con)
{
    struct http_request *r = *con;
    (void)cls, (void)url, (void)version;
    if (r == NULL || atomic_load_explicit(&r->w->srv->stop, memory_order_relaxed))
        return MHD_NO;
    int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);
    if (r->mc == NULL) {
        enum MHD_Result ok = begin(r, mc, method);
        if (atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_NEW)
            atomic_store_explicit(&r->phase, HTTP_PHASE_BODY, memory_order_relaxed);
        return ok;
    }
    if (data != NULL)
        return take_shown(r, data, n);
    if (phase == HTTP_PHASE_SENT)
        return MHD_YES;
    if (phase == HTTP_PHASE_WAITING || phase == HTTP_PHASE_AHEAD) {
        void (*resume)(struct http_request *) = r->resume;
        if (resume == NULL)
            return MHD_YES; /* woken by nobody we know: go on waiting */
        r->resume = NULL;
        resume(r);
    } else if (phase == HTTP_PHASE_BODY) {
        if (http_turn_refused(r))
            refuse_framing(r);
        else
            end_body(r);
    }
    return atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_READY ? http_send_answer(r)
                                                                                     : MHD_YES;
}

void http_call_completed(void *cls, struct MHD_Connection *mc, void **con,
                         enum MHD_RequestTerminationCode why)
{
    struct http_worker *w = cls;
    struct http_request *r = *con;
    (void)mc;
    if (r == NULL)
        return;
    *con = NULL;
    w->now = cht_now_ns();
    http_request_over(r, why != MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

void http_call_connection(void *cls, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_worker *w = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct http_conn *c = w->incoming;
        w->incoming = NULL;
        *context = c;
        if (c == NULL)
            return;
        c->mc = mc;
        c->since = cht_now_ns();
        c->prev = NULL;
        c->next = w->conns;
        if (w->conns != NULL)
            w->conns->prev = c;
        w->conns = c;
        if (!http_secure_begin(c)) {
            cht_net_shutdown(c->fd);
            c->killed = true;
        }
        return;
    }
    struct http_conn *c = *context;
    if (c == NULL)
        return;
    *context = NULL;
    http_quick_end(c);
    http_conn_no_ack(c);
    http_conn_known(c);
    http_inlet_remove(w, c);
    http_secure_end(c);
    if (c->linger && !c->killed) {
        int fd = cht_net_dup(c->fd);
        if (fd >= 0)
            http_peers_linger(w->srv, fd);
    }
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        w->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    http_peers_uncount(w->srv, c);
    atomic_fetch_sub_explicit(&w->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&w->srv->connections, 1, memory_order_relaxed);
    cht_free(c);
}

/* Ours is params.c; libmicrohttpd is to leave everything as it is. */
size_t http_call_unescape(void *cls, struct MHD_Connection *mc, char *s)
{
    (void)cls, (void)mc;
    return strlen(s);
}
