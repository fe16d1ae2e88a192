/* loop: see loop.h: waiting, accepting, time-outs. */
#include "tcp/loop.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/sock.h"

#include <string.h>

#define EVENTS 256u
#define TICK_NS UINT64_C(500000000)
#define ACCEPTS 64u /* of one round */

static char of_bell, of_listener; /* what the poller says of these two, in place of a connection */

/* ---- the list of those with something to do ------------------------------------------------------------------------- */

void line_loop_again(struct line_conn *c)
{
    struct line_loop *l = c->loop;
    if (c->queued)
        return;
    c->queued = true;
    c->run_next = NULL;
    *l->run_tail = c;
    l->run_tail = &c->run_next;
}

static void log_end(const struct line_conn *c)
{
    const struct line_server *s = c->loop->srv;
    struct svc_out fields = {0};
    char peer[CHT_ADDR_TEXT];
    double seconds = (double)(cht_now_ns() - c->since) / 1e9;
    if (!s->cfg.conf->access_log || !svc_log_wants(s->cfg.log, SVC_LOG_INFO))
        return;
    cht_net_peer_text(&c->peer, peer);
    svc_out_text(&fields, "\"client\":");
    svc_out_string(&fields, peer, strlen(peer));
    svc_out_format(&fields,
                   ",\"commands\":%llu,\"errors\":%llu,\"received\":%llu,\"sent\":%llu,\"seconds\":%.3f,"
                   "\"reason\":\"%s\"",
                   (unsigned long long)c->session.commands, (unsigned long long)c->session.errors,
                   (unsigned long long)c->received, (unsigned long long)c->sent, seconds,
                   c->why != NULL ? c->why : "closed");
    svc_out_bytes(&fields, "", 1);
    if (!fields.failed)
        svc_log_event(s->cfg.log, SVC_LOG_INFO, "line_connection", fields.p, fields.p);
    svc_out_free(&fields);
}

static void unlist_run(struct line_conn *c)
{
    struct line_loop *l = c->loop;
    if (!c->queued)
        return;
    struct line_conn **at = &l->run;
    while (*at != c)
        at = &(*at)->run_next;
    *at = c->run_next;
    if (*at == NULL)
        l->run_tail = at;
}

static void end_conn(struct line_conn *c)
{
    struct line_loop *l = c->loop;
    log_end(c);
    unlist_run(c);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        l->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    line_conn_free(c);
    atomic_fetch_sub_explicit(&l->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&l->srv->open, 1, memory_order_relaxed);
}

static void serve(struct line_conn *c)
{
    if (!line_conn_serve(c))
        end_conn(c);
}

/* ---- accepting ------------------------------------------------------------------------------------------------------ */

static void refuse(struct line_server *s, int fd)
{
    static const char text[] = "ERROR,overloaded\n";
    size_t dropped;
    atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
    if (s->cfg.tls == NULL)
        (void)cht_sock_write(fd, text, sizeof text - 1); /* a courtesy */
    (void)cht_net_discard(fd, &dropped);                 /* closing with unread input would destroy it */
    cht_net_close(fd);
}

static struct line_loop *least_loaded(struct line_server *s)
{
    struct line_loop *best = &s->loops[0];
    for (unsigned i = 1; i < s->loop_count; i++) {
        if (atomic_load_explicit(&s->loops[i].count, memory_order_relaxed) <
            atomic_load_explicit(&best->count, memory_order_relaxed))
            best = &s->loops[i];
    }
    return best;
}

static void accept_all(struct line_server *s)
{
    struct cht_peer peer;
    bool exhausted = false;
    int fd;
    for (unsigned i = 0; i < ACCEPTS && cht_net_accept(s->listen_fd, &fd, &peer, &exhausted); i++) {
        struct line_loop *to = least_loaded(s);
        bool room = atomic_load_explicit(&s->open, memory_order_relaxed) < s->cfg.conf->line_connections;
        struct line_conn *c = room ? line_conn_new(to, fd, &peer) : NULL;
        if (c == NULL) {
            refuse(s, fd);
            continue;
        }
        cht_net_nodelay(fd);
        atomic_fetch_add_explicit(&s->open, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->total, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&to->count, 1, memory_order_relaxed);
        line_loop_arrive(to, c);
    }
    if (exhausted) {
        svc_log_say(s->cfg.log, SVC_LOG_ERROR, "accept_failed", "out of descriptors or memory: waiting");
        cht_sleep_ns(100000000);
    }
}

/* ---- the loop ------------------------------------------------------------------------------------------------------- */

static void begin(struct line_conn *c)
{
    struct line_loop *l = c->loop;
    struct cht_err err = {0};
    c->fresh = false;
    c->prev = NULL;
    c->next = l->conns;
    if (c->next != NULL)
        c->next->prev = c;
    l->conns = c;
    if (cht_poller_add(l->poller, c->fd, c, &err) != CHT_OK) {
        c->why = "out of descriptors or memory";
        end_conn(c);
        return;
    }
    serve(c);
}

static void take_arrived(struct line_loop *l)
{
    cht_mutex_lock(&l->mu);
    struct line_conn *list = l->arrived;
    l->arrived = NULL;
    cht_mutex_unlock(&l->mu);
    while (list != NULL) {
        struct line_conn *c = list;
        list = c->arrived_next;
        if (c->fresh) {
            begin(c);
            continue;
        }
        line_conn_arrived(c);
        serve(c);
    }
}

/* Each once; those that come back wait for the next round. */
static void run_queued(struct line_loop *l)
{
    struct line_conn *list = l->run;
    l->run = NULL;
    l->run_tail = &l->run;
    while (list != NULL) {
        struct line_conn *c = list;
        list = c->run_next;
        c->queued = false;
        serve(c);
    }
}

static void tick(struct line_loop *l, bool stopping)
{
    if (l->now - l->tick < TICK_NS && !stopping)
        return;
    l->tick = l->now;
    for (struct line_conn *c = l->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (!line_conn_expired(c, l->now)) {
            if (stopping)
                serve(c);
        } else {
            end_conn(c);
        }
    }
}

static void handle(struct line_loop *l, const struct cht_event *e)
{
    if (e->data == &of_bell || e->data == &of_listener) {
        if (e->data == &of_bell)
            cht_bell_drain(l->bell);
        return;
    }
    struct line_conn *c = e->data;
    c->readable = c->readable || (e->what & CHT_POLL_READ) != 0;
    c->ending = c->ending || (e->what & CHT_POLL_END) != 0;
    c->writable = c->writable || (e->what & CHT_POLL_WRITE) != 0;
    if ((e->what & CHT_POLL_DEAD) != 0) {
        c->dead = true;
        c->why = c->why != NULL ? c->why : "the client went away";
        atomic_store_explicit(&c->session.cancel, true, memory_order_relaxed);
    }
    line_loop_again(c);
}

static void stop_listening(struct line_loop *l)
{
    if (l->listening)
        cht_poller_remove(l->poller, l->srv->listen_fd);
    l->listening = false;
}

static void *loop_main(void *arg)
{
    struct line_loop *l = arg;
    struct cht_event events[EVENTS];
    struct line_server *s = l->srv;
    while (!atomic_load_explicit(&s->stop, memory_order_acquire)) {
        bool stopping = atomic_load_explicit(&s->stopping, memory_order_acquire), knock = false;
        size_t n = cht_poller_wait(l->poller, events, EVENTS, l->run != NULL ? 0 : stopping ? 20 : 500);
        atomic_store_explicit(&l->rung, false, memory_order_seq_cst); /* then look: see line_loop_arrive */
        l->now = cht_now_ns();
        if (stopping)
            stop_listening(l);
        for (size_t i = 0; i < n; i++) {
            knock = knock || events[i].data == &of_listener;
            handle(l, &events[i]);
        }
        if (knock && l->listening)
            accept_all(s);
        take_arrived(l);
        run_queued(l);
        tick(l, stopping);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc line_loop_start(struct line_loop *l, struct line_server *s, bool accepts, struct cht_err *err)
{
    l->srv = s;
    l->poller = l->bell = -1;
    l->run_tail = &l->run;
    l->now = l->tick = cht_now_ns();
    enum cht_rc rc = cht_mutex_init(&l->mu, err);
    if (rc == CHT_OK)
        rc = cht_poller_new(&l->poller, err);
    if (rc == CHT_OK)
        rc = cht_bell_new(&l->bell, err);
    if (rc == CHT_OK)
        rc = cht_poller_add_level(l->poller, l->bell, &of_bell, err);
    if (rc == CHT_OK && accepts) {
        rc = cht_poller_add_level(l->poller, s->listen_fd, &of_listener, err);
        l->listening = rc == CHT_OK;
    }
    if (rc == CHT_OK)
        rc = cht_thread_start(&l->thread, "cht-line", loop_main, l, err);
    l->up = rc == CHT_OK;
    return rc;
}

/* One ring for all that is to be looked at in one round: the list is written before, the loop says "heard" before it looks. */
void line_loop_arrive(struct line_loop *l, struct line_conn *c)
{
    cht_mutex_lock(&l->mu);
    c->arrived_next = l->arrived;
    l->arrived = c;
    if (!atomic_exchange_explicit(&l->rung, true, memory_order_seq_cst))
        cht_bell_ring(
            l->bell); /* under the lock: after it the connection, and with it the loop, may be gone */
    cht_mutex_unlock(&l->mu);
}

void line_loop_join(struct line_loop *l)
{
    if (!l->up)
        return;
    cht_bell_ring(l->bell);
    cht_thread_join(&l->thread);
    l->up = false;
}

static bool any_busy(const struct line_loop *l)
{
    for (const struct line_conn *c = l->conns; c != NULL; c = c->next) {
        if (c->busy)
            return true;
    }
    return false;
}

/* The thread has ended: this one takes its place. What is under way is waited for: a commit ends by itself, a job is told to. */
void line_loop_fini(struct line_loop *l)
{
    if (l->srv == NULL)
        return;
    for (struct line_conn *c = l->conns; c != NULL; c = c->next) {
        c->dead = true;
        atomic_store_explicit(&c->session.cancel, true, memory_order_relaxed);
    }
    for (;;) {
        cht_mutex_lock(&l->mu);
        struct line_conn *list = l->arrived;
        l->arrived = NULL;
        cht_mutex_unlock(&l->mu);
        while (list != NULL) {
            struct line_conn *c = list;
            list = c->arrived_next;
            c->busy = false;
            if (c->fresh) {
                line_conn_free(c);
                atomic_fetch_sub_explicit(&l->srv->open, 1, memory_order_relaxed);
            }
        }
        if (!any_busy(l))
            break;
        cht_sleep_ns(1000000);
    }
    while (l->conns != NULL)
        end_conn(l->conns);
    if (l->bell >= 0)
        cht_net_close(l->bell);
    if (l->poller >= 0)
        cht_net_close(l->poller);
    cht_mutex_fini(&l->mu);
}
