/* conn: one connection of the line protocol: bytes in, commands, bytes out. See session.h for the commands. */
#include "tcp/loop.h"

#include "tcp/answer.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/recycle.h"
#include "os/sock.h"

#include <string.h>

#define READ_MIN 4096u
#define READ_BLOCK (256u << 10)
#define IN_FIRST 16384u
#define IN_KEEP (64u << 10)
#define STRANGER_LINE 1024u /* the longest line before AUTH */
#define STRANGER_NS UINT64_C(30000000000)
#define SECOND UINT64_C(1000000000)
#define LINGER_NS UINT64_C(2000000000)
#define READS 16u /* blocks of one turn */

static size_t waiting(const struct line_conn *c) { return c->session.out.n - c->out_at; }

static void give_up(struct line_conn *c, const char *why)
{
    c->dead = true;
    if (c->why == NULL)
        c->why = why;
    atomic_store_explicit(&c->session.cancel, true, memory_order_relaxed);
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

static ptrdiff_t take(struct line_conn *c, void *buf, size_t n)
{
    return c->tls != NULL ? svc_tls_read(c->tls, buf, n) : cht_sock_read(c->fd, buf, n);
}

static ptrdiff_t give(struct line_conn *c, const void *buf, size_t n)
{
    return c->tls != NULL ? svc_tls_write(c->tls, buf, n) : cht_sock_write(c->fd, buf, n);
}

static bool shaking(const struct line_conn *c) { return c->tls != NULL && !svc_tls_shaken(c->tls); }

/* Goes on with the handshake. False: there is nothing else to be done yet, or ever (c->dead). */
static bool shake(struct line_conn *c)
{
    if (!shaking(c))
        return true;
    enum svc_tls_step step = c->dead ? SVC_TLS_FAILED : svc_tls_shake(c->tls);
    if (step == SVC_TLS_READY && svc_tls_conn_peer(c->tls, &c->certificate))
        line_session_show(&c->session, &c->certificate);
    if (step == SVC_TLS_FAILED)
        give_up(c, "the TLS handshake failed");
    else if (step == SVC_TLS_LATER && atomic_load_explicit(&c->loop->srv->stopping, memory_order_relaxed))
        give_up(c, "the server stops");
    return step == SVC_TLS_READY;
}

/* ---- out ---------------------------------------------------------------------------------------------------------- */

static void send_answers(struct line_conn *c)
{
    struct line_session *s = &c->session;
    if (c->dead)
        return;
    if (s->out.failed) {
        give_up(c, "out of memory");
        return;
    }
    while (c->writable && waiting(c) > 0) {
        ptrdiff_t n = give(c, s->out.p + c->out_at, waiting(c));
        if (n == CHT_SOCK_FAILED) {
            give_up(c, "the client went away");
            return;
        }
        if (n < 0) {
            c->writable = false;
            break;
        }
        c->out_at += (size_t)n;
        c->sent += (uint64_t)n;
        c->moved = c->loop->now;
        atomic_fetch_add_explicit(&c->loop->counts.sent, (uint64_t)n, memory_order_relaxed);
    }
    if (waiting(c) == 0 && c->out_at > 0) {
        c->out_at = 0;
        line_session_taken(s);
    }
}

/* ---- in ----------------------------------------------------------------------------------------------------------- */

static size_t line_max(struct line_conn *c)
{
    return line_session_trusted(&c->session) ? c->loop->srv->line_max : STRANGER_LINE;
}

/* Nothing points into lines that are done. AddressSanitizer sees that only if their memory is given back. */
static bool forget_lines(struct line_conn *c, size_t left)
{
    char *in = cht_malloc(c->in_cap);
    if (in == NULL)
        return false;
    memcpy(in, c->in + c->in_at, left);
    cht_free(c->in);
    c->in = in;
    c->lines_end = c->lines_end > c->in_at ? c->lines_end - c->in_at : 0;
    c->in_n = left;
    c->in_at = 0;
    return true;
}

/* Room to read a block: what is done is moved out of the way, then the buffer grows. */
static bool make_room(struct line_conn *c)
{
    size_t left = c->in_n - c->in_at;
    if (!CHT_RECYCLE && c->in_at > 0 && !forget_lines(c, left))
        return false;
    if (c->in_at > 0 && (left == 0 || c->in_cap - c->in_n < READ_MIN)) {
        memmove(c->in, c->in + c->in_at, left);
        c->lines_end = c->lines_end > c->in_at ? c->lines_end - c->in_at : 0;
        c->in_n = left;
        c->in_at = 0;
    }
    if (c->in_cap - c->in_n >= READ_MIN)
        return true;
    size_t cap = c->in_cap == 0 ? IN_FIRST : c->in_cap * 2, most = c->loop->srv->line_max + READ_BLOCK;
    cap = cap < most ? cap : most;
    char *in = cht_realloc(c->in, cap);
    if (in == NULL)
        return false;
    c->in = in;
    c->in_cap = cap;
    return true;
}

/* The last newline after `from`; lines_end says where lines end. */
static void find_lines(struct line_conn *c, size_t from)
{
    for (size_t i = c->in_n; i > from; i--) {
        if (c->in[i - 1] == '\n') {
            c->lines_end = i;
            return;
        }
    }
}

/* What follows a line that was too long, up to its newline, is dropped. */
static void skip(struct line_conn *c)
{
    char *end = memchr(c->in + c->in_at, '\n', c->in_n - c->in_at);
    c->in_at = end == NULL ? c->in_n : (size_t)(end + 1 - c->in);
    c->skipping = end == NULL;
}

/* The first byte of the binary protocol that other servers speak on this port: it has no line to wait for. */
static void refuse_binary(struct line_conn *c)
{
    line_session_error(&c->session, LINE_NONE, "binary_protocol_unsupported");
    c->session.closing = true;
    c->in_at = c->lines_end = c->in_n;
    c->skipping = true;
}

static void receive(struct line_conn *c)
{
    if (!make_room(c)) {
        give_up(c, "out of memory");
        return;
    }
    size_t room = c->in_cap - c->in_n;
    ptrdiff_t n = take(c, c->in + c->in_n, room);
    if (n == CHT_SOCK_LATER) {
        c->readable = false;
        return;
    }
    if (n == CHT_SOCK_FAILED) {
        give_up(c, "the client went away");
        return;
    }
    if (n == 0) {
        c->ended = true; /* half a line at the end is not executed: it may be half a value */
        return;
    }
    if ((size_t)n < room && !c->ending && c->tls == NULL) /* that was all; the poller tells of more */
        c->readable = false;
    size_t from = c->in_n;
    bool binary = c->received == 0 && (unsigned char)c->in[from] >= 0x80;
    c->in_n += (size_t)n;
    c->received += (uint64_t)n;
    c->moved = c->loop->now;
    atomic_fetch_add_explicit(&c->loop->counts.received, (uint64_t)n, memory_order_relaxed);
    if (binary) {
        refuse_binary(c);
        return;
    }
    if (c->skipping) {
        skip(c);
        from = c->in_at;
    }
    find_lines(c, from);
    /* A buffer that was filled in one read is too small for this client. */
    if ((size_t)n == room && c->in_cap < READ_BLOCK) {
        char *in = cht_realloc(c->in, READ_BLOCK);
        if (in != NULL) {
            c->in = in;
            c->in_cap = READ_BLOCK;
        }
    }
}

/* Half a line that is longer than any may be. */
static void refuse_long(struct line_conn *c)
{
    if (c->lines_end > c->in_at || c->in_n - c->in_at <= line_max(c))
        return;
    line_session_error(&c->session, LINE_NONE, "line_too_long");
    if (!line_session_trusted(&c->session))
        c->session.closing = true;
    c->in_at = c->in_n;
    c->skipping = true;
}

/* ---- commands ----------------------------------------------------------------------------------------------------- */

/* Any thread. */
static void commit_done(struct cht_commit *commit)
{
    struct line_conn *c = commit->ctx;
    line_loop_arrive(c->loop, c);
}

/* Likewise: a read may be tried again. */
static void read_ready(struct cht_wait *w)
{
    struct line_conn *c = w->ctx;
    line_loop_arrive(c->loop, c);
}

static void job_main(struct cht_job *j)
{
    struct line_conn *c = (struct line_conn *)(void *)((char *)j - offsetof(struct line_conn, job));
    line_session_job(&c->session);
    line_loop_arrive(c->loop, c);
}

/* While something is under way the answers are not touched: what is there goes first. */
static void begin_commit(struct line_conn *c)
{
    struct line_session *s = &c->session;
    send_answers(c);
    s->commit.done = commit_done;
    s->commit.ctx = c;
    c->busy = c->committing = true;
    enum cht_rc rc = cht_store_submit(s->db->store, &s->commit);
    if (rc == CHT_PENDING)
        return;
    s->commit.rc = rc;
    line_conn_arrived(c);
}

static void begin_wait(struct line_conn *c)
{
    send_answers(c);
    c->busy = true;
    c->committing = false;
}

static void begin_job(struct line_conn *c)
{
    struct line_server *srv = c->loop->srv;
    send_answers(c);
    c->busy = true;
    c->committing = false;
    c->job.run = job_main;
    c->job.owner = cht_jobs_owner(c->session.database, strlen(c->session.database));
    cht_jobs_submit(line_session_job_is_long(&c->session) ? srv->long_jobs : srv->jobs, &c->job);
}

/* Runs the lines that are there. True: others should have their turn. */
static bool run_lines(struct line_conn *c)
{
    struct line_session *s = &c->session;
    while (!c->busy && !c->dead && !s->closing && waiting(c) < LINE_SESSION_OUT_HIGH &&
           (s->pending || c->lines_end > c->in_at)) {
        size_t used, n = c->lines_end > c->in_at ? c->lines_end - c->in_at : 0;
        enum line_session_next next = line_session_run(s, n > 0 ? c->in + c->in_at : NULL, n, &used);
        c->in_at += used;
        if (next == LINE_SESSION_COMMIT)
            begin_commit(c);
        else if (next == LINE_SESSION_WAIT)
            begin_wait(c);
        else if (next == LINE_SESSION_JOB)
            begin_job(c);
        else if (next == LINE_SESSION_FULL)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ */

struct line_conn *line_conn_new(struct line_loop *l, int fd, const struct cht_peer *peer)
{
    struct line_conn *c = cht_calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    line_session_init(&c->session, &l->srv->host, &l->counts.session);
    c->loop = l;
    c->wait.done = read_ready;
    c->wait.ctx = c;
    c->session.wait = &c->wait;
    c->fd = fd;
    c->peer = *peer;
    c->fresh = c->writable = c->readable = true;
    c->since = c->moved = cht_now_ns();
    if (l->srv->cfg.tls != NULL) {
        c->tls = svc_tls_accept(l->srv->cfg.tls, fd);
        if (c->tls == NULL) {
            line_session_fini(&c->session);
            cht_free(c);
            return NULL;
        }
    }
    return c;
}

void line_conn_free(struct line_conn *c)
{
    svc_tls_close(c->tls);
    cht_net_close(c->fd);
    line_session_fini(&c->session);
    cht_free(c->in);
    cht_free(c);
}

void line_conn_arrived(struct line_conn *c)
{
    c->moved = c->loop->now;
    c->busy = c->committing && !line_session_committed(&c->session);
    c->committing = c->busy;
}

/* Nothing more is read from it; says why, once. */
static bool at_end(struct line_conn *c)
{
    const char *why = NULL;
    if (c->session.closing)
        why = "EXIT";
    else if (c->ended)
        why = "the client ended";
    else if (atomic_load_explicit(&c->loop->srv->stopping, memory_order_relaxed))
        why = "the server stops";
    if (c->why == NULL)
        c->why = why;
    return why != NULL;
}

/* Everything is answered. Closing with unread input would destroy answers that the client has not read yet: after EXIT, and after
 * the commands that end a connection, what still comes is read and dropped for a while. False: it is over. */
static bool linger(struct line_conn *c)
{
    size_t n;
    if (!c->session.closing || c->ended)
        return false;
    if (!c->lingering && c->tls != NULL)
        svc_tls_end(c->tls);
    if (!c->lingering)
        cht_sock_end(c->fd);
    c->lingering = true;
    c->readable = false;
    return cht_net_discard(c->fd, &n);
}

/* Lines wait to be run. */
static bool has_lines(const struct line_conn *c)
{
    return !c->session.closing && (c->session.pending || c->lines_end > c->in_at);
}

bool line_conn_serve(struct line_conn *c)
{
    if (!shake(c))
        return !c->dead;
    for (unsigned reads = 0;; reads++) {
        bool again = run_lines(c);
        if (c->busy) /* s->out is being written to, or soon */
            return true;
        refuse_long(c);
        send_answers(c);
        if (c->dead)
            return false;
        if (waiting(c) >= LINE_SESSION_OUT_HIGH) /* the client is to read first; told when there is room */
            return true;
        if (again || reads == READS) {
            line_loop_again(c);
            return true;
        }
        if (has_lines(c))
            continue;
        if (at_end(c))
            return waiting(c) > 0 || linger(c);
        if (!c->readable)
            return true;
        receive(c);
    }
}

/* What happened in this round is later than the clock of the round. */
static uint64_t age(uint64_t now, uint64_t then) { return now > then ? now - then : 0; }

bool line_conn_expired(struct line_conn *c, uint64_t now)
{
    uint64_t idle = c->loop->srv->cfg.conf->line_idle_timeout * SECOND;
    if (c->busy)
        return false;
    if (c->lingering && age(now, c->moved) > LINGER_NS)
        return true;
    if (shaking(c) && age(now, c->since) > STRANGER_NS)
        give_up(c, "no TLS handshake in time");
    else if (!line_session_trusted(&c->session) && age(now, c->since) > STRANGER_NS)
        give_up(c, "no token in time");
    else if (idle > 0 && age(now, c->moved) > idle)
        give_up(c, waiting(c) > 0 ? "the client does not read" : "idle");
    if (!c->dead && waiting(c) == 0 && age(now, c->moved) > SECOND) {
        line_session_trim(&c->session);
        if (c->in_cap > 0 && c->in_at == c->in_n) {
            cht_free(c->in);
            c->in = NULL;
            c->in_cap = c->in_at = c->in_n = c->lines_end = 0;
        }
    }
    return c->dead;
}
