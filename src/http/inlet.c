/* inlet: see inlet.h. */
#include "http/inlet.h"

#include "http/direct.h"
#include "http/quick.h"
#include "http/stream.h"
#include "http/wake.h"

#include "base/alloc.h"

#include <string.h>

#define ENDS 64u /* of one call */

static struct http_conn *find(const struct http_worker *w, int fd)
{
    return fd >= 0 && (size_t)fd < w->by_fd_cap ? w->by_fd[fd] : NULL;
}

/* What libmicrohttpd gets for its recv. */
static ptrdiff_t inlet_read(struct cht_tap *t, int fd, char *buf, size_t n, struct cht_tap_source *from)
{
    struct http_worker *w = (struct http_worker *)(void *)((char *)t - offsetof(struct http_worker, tap));
    struct http_conn *c = find(w, fd);
    if (c == NULL)
        return CHT_TAP_FAILED; /* nothing is served that was not looked at */
    if (c->quick != NULL && !http_quick_before(c))
        return CHT_TAP_LATER;
    ptrdiff_t got = http_gate_read(&c->gate, buf, n, from);
    w->again = w->again || c->gate.again;
    if (got > 0 && c->gate.same > 0 && !t->tls && http_quick_take(c, buf))
        return CHT_TAP_LATER;
    return got;
}

/* In place of libmicrohttpd's send. */
static ptrdiff_t inlet_write(struct cht_tap *t, int fd, size_t n)
{
    const struct http_worker *w =
        (const struct http_worker *)(const void *)((char *)t - offsetof(struct http_worker, tap));
    const struct http_conn *c = find(w, fd);
    if (c == NULL || c->req == NULL || c->req->stream == NULL || !c->req->stream->direct.on)
        return CHT_TAP_AS_IS;
    return http_direct_send(c->req->stream, fd, n);
}

/* A job, a commit or a stream has its connection: libmicrohttpd reads again when it gives it back. Of a stream its own flag says so: who wakes
 * it takes two steps, and suspended twice libmicrohttpd's lists are broken. */
static bool is_suspended(const struct http_conn *c)
{
    const struct http_request *r = c->req;
    return r != NULL && !r->loose &&
           (atomic_load_explicit(&r->phase, memory_order_acquire) == HTTP_PHASE_WAITING ||
            (r->stream != NULL && r->stream->suspended));
}

static void take_ends(struct http_worker *w)
{
    int fds[ENDS];
    size_t n;
    do {
        n = cht_net_watch_take(w->watch, fds, ENDS);
        for (size_t i = 0; i < n; i++) {
            struct http_conn *c = find(w, fds[i]);
            if (c != NULL)
                http_quick_flush(c);
            if (c == NULL || !cht_net_ended(c->fd)) /* it was another's of that number */
                continue;
            c->gate.fin = true;
            if (http_gate_answered(&c->gate))
                c->gate.again = w->again = true;
            else
                cht_net_probe(c->fd); /* it may have gone altogether */
        }
    } while (n == ENDS);
}

/* ------------------------------------------------------------------------------------------------------------------------ */

enum cht_rc http_inlet_init(struct http_worker *w, struct cht_err *err)
{
    w->tap = (struct cht_tap){.read = inlet_read, .write = inlet_write, .tls = w->srv->tls != NULL};
    w->watch = cht_net_watch_new();
    return w->watch >= 0 ? CHT_OK : CHT_FAIL(err, CHT_IO, "no epoll descriptor for clients that end");
}

void http_inlet_fini(struct http_worker *w)
{
    if (w->watch >= 0)
        cht_net_close(w->watch);
    cht_free(w->by_fd);
    w->by_fd = NULL;
    w->by_fd_cap = 0;
}

bool http_inlet_add(struct http_worker *w, struct http_conn *c)
{
    size_t fd = (size_t)c->fd, cap = w->by_fd_cap > 0 ? w->by_fd_cap : 256;
    while (cap <= fd)
        cap *= 2;
    if (cap > w->by_fd_cap) {
        struct http_conn **p = cht_realloc(w->by_fd, cap * sizeof(struct http_conn *));
        if (p == NULL)
            return false;
        memset(p + w->by_fd_cap, 0, (cap - w->by_fd_cap) * sizeof(struct http_conn *));
        w->by_fd = p;
        w->by_fd_cap = cap;
    }
    if (!cht_net_watch(w->watch, c->fd))
        return false;
    c->gate.memory = w->srv->conf->header_bytes;
    w->by_fd[fd] = c;
    return true;
}

void http_inlet_remove(struct http_worker *w, struct http_conn *c)
{
    if (find(w, c->fd) == c) {
        w->by_fd[c->fd] = NULL;
        cht_net_unwatch(w->watch, c->fd);
    }
    http_gate_fini(&c->gate);
}

bool http_inlet_run(struct http_worker *w)
{
    cht_tap_set(&w->tap);
    bool ok = MHD_run(w->daemon) == MHD_YES;
    cht_tap_set(NULL);
    http_quick_run(w);
    return ok;
}

void http_inlet_look(struct http_worker *w, bool ended)
{
    if (ended)
        take_ends(w);
    if (!w->again)
        return;
    w->again = false;
    for (struct http_conn *c = w->conns; c != NULL; c = c->next) {
        if (!c->gate.again)
            continue;
        c->gate.again = false;
        if (is_suspended(c) || c->mc == NULL)
            continue;
        MHD_suspend_connection(c->mc); /* one that is resumed is read from */
        http_worker_resume(w, c->mc);
    }
}
