/* worker: one HTTP thread: its loop and its connections (structure in server.h).
 *
 * Time-outs. Idle connections and clients that do not read are libmicrohttpd's (MHD_OPTION_CONNECTION_TIMEOUT). It counts
 * every byte that arrives as life, so a client that sends a header or a body by drops is ended here, by the tick.
 */
#include "http/access_log.h"
#include "http/inlet.h"
#include "http/peers.h"
#include "http/quick.h"
#include "http/secure.h"
#include "http/server.h"
#include "http/stream.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"

#define TICK_NS UINT64_C(200000000)
#define SKIP_NS UINT64_C(10000000000) /* for the rest of a body that was refused */

/* ---- the loop ------------------------------------------------------------------------------------------------- */

static void take_inbox(struct http_worker *w)
{
    if (!atomic_load_explicit(&w->has_inbox, memory_order_acquire))
        return;
    cht_mutex_lock(&w->mu);
    struct http_conn *list = NULL;
    while (w->inbox != NULL) { /* the first one that came comes first */
        struct http_conn *next = w->inbox->next;
        w->inbox->next = list;
        list = w->inbox;
        w->inbox = next;
    }
    atomic_store_explicit(&w->has_inbox, false, memory_order_relaxed);
    cht_mutex_unlock(&w->mu);
    while (list != NULL) {
        struct http_conn *c = list;
        list = c->next;
        w->incoming = c;
        if (!http_inlet_add(w, c))
            cht_net_close(c->fd);
        else if (MHD_add_connection(w->daemon, c->fd, (const struct sockaddr *)(const void *)c->peer.storage,
                                    c->peer.len) == MHD_YES &&
                 w->incoming == NULL)
            continue;
        if (w->incoming == NULL)
            continue;       /* it was closed, and told so */
        w->incoming = NULL; /* the descriptor is closed */
        http_inlet_remove(w, c);
        http_conn_known(c);
        http_peers_uncount(w->srv, c);
        atomic_fetch_sub_explicit(&w->count, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&w->srv->connections, 1, memory_order_relaxed);
        http_secure_end(c);
        cht_free(c);
    }
}

static void kill_conn(struct http_conn *c)
{
    if (!c->killed)
        cht_net_shutdown(c->fd);
    c->killed = true;
}

/* The oldest connection that may go: of the operator's worker one for which no job works, of another one that has shown no token.
 * *n: how many are there that are not on their way out. */
static struct http_conn *oldest(struct http_worker *w, uint64_t *n)
{
    bool care = w == http_care_worker(w->srv);
    struct http_conn *found = NULL;
    *n = 0;
    for (struct http_conn *c = w->conns; c != NULL; c = c->next) {
        const struct http_request *r = c->req;
        bool at_work =
            r != NULL && atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_WAITING;
        *n += !c->killed;
        if ((care || c->stranger) && !c->killed && !at_work && c->prev != NULL)
            found = c; /* the newest one is first, and stays */
    }
    return found;
}

/* As many as are too many by now, and no more: what was ordered for a burst may be done already. */
static void shed(struct http_worker *w)
{
    struct http_server *s = w->srv;
    bool care = w == http_care_worker(s);
    struct http_conn *c;
    uint64_t n;
    if (!atomic_load_explicit(&w->shed, memory_order_relaxed))
        return;
    atomic_store_explicit(&w->shed, false, memory_order_relaxed);
    while ((c = oldest(w, &n)) != NULL &&
           (care ? n > http_care_max(s) / 2
                 : atomic_load_explicit(&s->strangers, memory_order_relaxed) > http_strangers_max(s))) {
        http_conn_known(c);
        kill_conn(c);
        atomic_fetch_add_explicit(&s->shed, 1, memory_order_relaxed);
    }
}

/* A stream whose database goes, whose token is not valid any more, or whose server stops. */
static void tick_stream(struct http_worker *w, struct http_conn *c, struct http_request *r, bool revoked)
{
    struct http_stream *s = r->stream;
    bool closing = atomic_load_explicit(&w->srv->state, memory_order_relaxed) == HTTP_SERVER_CLOSING;
    if (s == NULL || s->ended || s->abort != CHT_OK)
        return;
    bool dropping = r->db != NULL && atomic_load_explicit(&r->db->dropping, memory_order_relaxed);
    if (s->tick != NULL)
        s->tick(s, w->now, closing || revoked || dropping || cht_net_gone(c->fd));
    if (atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_WAITING)
        return; /* a job works with the database; its stream has not begun */
    if (dropping)
        http_stream_abort(s, CHT_DATABASE_DROPPED);
    else if (revoked)
        http_stream_abort(s, CHT_UNAUTHORIZED);
    else if (closing)
        http_stream_abort(s, CHT_DRAINING);
}

/* From when on its time runs: a body of any length may take as long as it moves. */
static uint64_t begun(const struct http_request *r) { return r->moved_ns > 0 ? r->moved_ns : r->start_ns; }

/* A connection between two requests, or in the header of one. */
static void tick_idle(struct http_conn *c, int state)
{
    const struct conf *cf = c->w->srv->conf;
    uint64_t limit = cf->header_timeout + (c->used ? cf->idle_timeout : 0);
    bool late = c->w->now - c->since > limit * UINT64_C(1000000000);
    if (late || (state == HTTP_SERVER_CLOSING && !http_quick_owes(c)))
        kill_conn(c);
}

/* A header or a body that does not end. */
static void tick_conn(struct http_worker *w, struct http_conn *c, int state)
{
    const struct conf *cf = w->srv->conf;
    uint64_t second = UINT64_C(1000000000);
    struct http_request *r = c->req;
    if (r == NULL) {
        tick_idle(c, state);
        return;
    }
    int phase = atomic_load_explicit(&r->phase, memory_order_relaxed);
    uint64_t age = w->now - begun(r);
    bool closing = state == HTTP_SERVER_CLOSING; /* it has had the time of the drain */
    uint64_t skipped = phase == HTTP_PHASE_READY || r->skip_ns > 0
                           ? w->now - (r->skip_ns > 0 ? r->skip_ns : r->start_ns)
                           : 0;
    if (skipped > SKIP_NS && (phase == HTTP_PHASE_READY || phase == HTTP_PHASE_BODY))
        kill_conn(c); /* the rest of a body that nobody wants */
    if (r->mc == NULL ? closing || age > cf->header_timeout * second
                      : (phase == HTTP_PHASE_BODY || phase == HTTP_PHASE_READY) &&
                            (closing || age > cf->body_timeout * second))
        kill_conn(c);
    if (phase == HTTP_PHASE_WAITING && (closing || cht_net_gone(c->fd)))
        atomic_store_explicit(&r->cancel, true, memory_order_relaxed);
    bool revoked =
        phase != HTTP_PHASE_WAITING && http_request_revoked(r); /* a job: what it answers is seen to */
    if (revoked && phase == HTTP_PHASE_BODY)
        kill_conn(c);
    tick_stream(w, c, r, revoked);
}

static void tick(struct http_worker *w)
{
    int state = atomic_load_explicit(&w->srv->state, memory_order_relaxed);
    w->now = cht_now_ns(); /* not before what began in this round: ages are unsigned */
    for (struct http_conn *c = w->conns, *next; c != NULL; c = next) {
        next = c->next;
        tick_conn(w, c, state);
    }
}

/* Is it time for a tick? Then also before libmicrohttpd looks who is idle: this thread may have had to wait for a processor for longer than
 * that. */
static bool touch(struct http_worker *w, uint64_t last_tick)
{
    if (w->now - last_tick <= TICK_NS)
        return false;
    for (struct http_conn *c = w->conns; c != NULL; c = c->next)
        http_quick_tick(c);
    http_inlet_look(w, false);
    return true;
}

/* A client that sends its body in a segment of its own may wait for this before it does (Nagle). Costs a packet, so only
 * if the body did not come with the headers. */
static void send_acks(struct http_worker *w)
{
    for (struct http_conn *c = w->conns; c != NULL && w->acks > 0; c = c->next) {
        if (!c->want_ack)
            continue;
        cht_net_quickack(c->fd);
        http_conn_no_ack(c);
    }
}

/* What the requests of this round had put off. */
static void do_together(struct http_worker *w)
{
    if (w->aheads > 0)
        http_request_look_ahead(w);
    if (w->commits != NULL)
        http_request_submit_commits(w);
    if (w->quick != NULL)
        http_quick_answer(w);
}

static void *worker_main(void *arg)
{
    struct http_worker *w = arg;
    uint64_t last_tick = 0;
    while (!atomic_load_explicit(&w->srv->stop, memory_order_acquire)) {
        const int fds[3] = {w->epoll_fd, w->bell, w->watch};
        bool ready[3] = {false};
        MHD_UNSIGNED_LONG_LONG ms = 200, wanted;
        if (MHD_get_timeout(w->daemon, &wanted) == MHD_YES && wanted < ms)
            ms = wanted;
        if (w->access_lines > 0 && ms > 50)
            ms = 50;
        if (ms > 0)
            cht_net_poll(fds, ready, 3, (int)ms);
        else
            ready[1] = atomic_load_explicit(&w->rung, memory_order_relaxed) !=
                       0; /* it looks at the sockets itself */
        if (ready[1])
            cht_bell_drain(w->bell);
        (void)atomic_exchange_explicit(&w->rung, 0, memory_order_acq_rel); /* then look: see ring */
        w->now = cht_now_ns();
        atomic_fetch_add_explicit(&w->rounds, 1, memory_order_relaxed);
        take_inbox(w);
        http_request_take_pieces(w);
        http_quick_take_done(w);
        shed(w);
        bool due = touch(w, last_tick);
        (void)http_inlet_run(w); /* says no only of a daemon that is not driven from outside */
        if (w->begun > 0) {
            w->load -= (w->load + 3) / 4; /* a few small rounds between large ones do not count */
            if (w->load < w->begun)
                w->load = w->begun;
            w->busy = w->load >= HTTP_AHEAD_LEAST;
            w->begun = 0;
        }
        do_together(w);
        send_acks(w);
        /* A thread that is never idle does not wait for what is ready; what clients have not taken may go on. */
        http_inlet_look(w, ready[2] || due || (ms == 0 && w->owing > 0));
        http_access_log_flush(w);
        if (due) {
            last_tick = w->now;
            tick(w);
        }
    }
    w->now = cht_now_ns();
    http_access_log_flush(w);
    return NULL;
}

/* A daemon that listens nowhere: the acceptor gives it its connections. */
static enum cht_rc start_daemon(struct http_worker *w, struct cht_err *err)
{
    const struct conf *c = w->srv->conf;
    unsigned flags = MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)http_call_completed, w},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)http_call_connection, w},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)http_call_uri, w},
        {MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t)http_call_unescape, w},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)c->header_bytes, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)(c->max_connections + 4096), NULL}, /* the acceptor counts */
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)c->idle_timeout, NULL},
        {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
        {MHD_OPTION_END, 0, NULL},
        {MHD_OPTION_END, 0, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    flags |= http_secure_options(w->srv, &options[8]);
    w->daemon = MHD_start_daemon(flags, 0, NULL, NULL, http_call_request, w, MHD_OPTION_ARRAY, options,
                                 MHD_OPTION_END);
    if (w->daemon == NULL)
        return CHT_FAIL(err, CHT_IO, "libmicrohttpd does not start");
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL)
        return CHT_FAIL(err, CHT_IO, "libmicrohttpd has no epoll descriptor");
    w->epoll_fd = info->epoll_fd;
    return CHT_OK;
}

/* -------------------------------------------------------------------------------------------------------------- */

enum cht_rc http_worker_start(struct http_worker *w, struct http_server *s, unsigned index,
                              struct cht_err *err)
{
    uint64_t seed;
    w->srv = s;
    w->index = index;
    w->bell = w->watch = -1;
    w->commits_end = &w->commits;
    w->quick_end = &w->quick;
    cht_os_random(&seed, sizeof seed);
    cht_rng_seed(&w->rng, seed);
    enum cht_rc rc = cht_mutex_init(&w->mu, err);
    if (rc == CHT_OK)
        rc = cht_bell_new(&w->bell, err);
    w->metrics.cells = cht_calloc(HTTP_METRIC_ROUTES * HTTP_METRIC_STATUSES, sizeof *w->metrics.cells);
    if (rc == CHT_OK && w->metrics.cells == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the metrics");
    if (rc == CHT_OK)
        rc = http_inlet_init(w, err);
    if (rc == CHT_OK)
        rc = start_daemon(w, err);
    if (rc == CHT_OK) {
        rc = cht_thread_start(&w->thread, "cht-http", worker_main, w, err);
        w->up = rc == CHT_OK;
    }
    return rc;
}

void http_worker_add(struct http_worker *w, struct http_conn *c)
{
    c->w = w;
    atomic_fetch_add_explicit(&w->count, 1, memory_order_relaxed);
    cht_mutex_lock(&w->mu);
    c->next = w->inbox;
    w->inbox = c;
    atomic_store_explicit(&w->has_inbox, true, memory_order_release);
    cht_mutex_unlock(&w->mu);
    http_worker_ring(w);
}

void http_worker_join(struct http_worker *w)
{
    if (!w->up)
        return;
    cht_bell_ring(w->bell);
    cht_thread_join(&w->thread);
    w->up = false;
    take_inbox(w);
    tick(w); /* cancels the jobs that are still at work for a client */
}

/* Connections that wait for a commit must be woken before libmicrohttpd lets them be closed. */
static bool any_suspended(const struct http_worker *w)
{
    for (const struct http_conn *c = w->conns; c != NULL; c = c->next) {
        const struct http_request *r = c->req;
        if (r != NULL && (atomic_load_explicit(&r->phase, memory_order_acquire) == HTTP_PHASE_WAITING ||
                          (r->stream != NULL && r->stream->suspended)))
            return true;
    }
    return w->orphans > 0;
}

void http_worker_close(struct http_worker *w)
{
    if (w->srv == NULL)
        return;
    w->now = cht_now_ns();
    if (w->daemon != NULL) {
        tick(w); /* ends the streams */
        http_request_take_pieces(w);
        for (bool more = true; more;) {
            more = http_inlet_run(w);
            http_request_submit_commits(w); /* of what came last */
            http_quick_answer(w);
            http_quick_take_done(w);
            more = more && any_suspended(w);
            cht_sleep_ns(more ? 1000000 : 0);
        }
        MHD_stop_daemon(w->daemon); /* closes what is left, and says so */
    }
    w->now = cht_now_ns();
    http_access_log_flush(w);
    while (w->spare != NULL) {
        struct http_request *r = w->spare;
        w->spare = r->next;
        http_request_free(r);
    }
    http_inlet_fini(w);
    http_prepared_clear(&w->prepared);
    svc_out_free(&w->access_log);
    cht_free(w->metrics.cells);
}

void http_worker_free(struct http_worker *w)
{
    if (w->srv == NULL)
        return;
    if (w->bell >= 0)
        cht_net_close(w->bell);
    cht_mutex_fini(&w->mu);
}
