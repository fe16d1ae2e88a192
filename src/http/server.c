/* server: see server.h. The acceptor's thread, start and stop. */
#include "http/server.h"

#include "http/pages.h"
#include "http/peers.h"
#include "http/secure.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"

#include <string.h>

#define LINGER_MAX 64u
#define LINGER_NS UINT64_C(2000000000)
#define LINGER_BYTES (64u << 20)
#define CARE_WAIT_MS 200u
#define CARE_ROUNDS 20u
#define CARE_LATE_MS 5000u

/* Short ones do file work of milliseconds, long ones compute for seconds. They wait for disks and for each other, so there may be
 * many more than cores; of one database only as many as leave it a use for two cores. */
static const struct cht_jobs_config short_jobs = {
    .name = "cht-job", .threads = 64, .per_owner = 8, .idle_ns = UINT64_C(10000000000)};
static const struct cht_jobs_config care_jobs = {
    .name = "cht-care", .threads = 2, .per_owner = 2, .idle_ns = UINT64_C(10000000000)};
static const struct cht_jobs_config long_jobs = {
    .name = "cht-long", .threads = 64, .per_owner = 4, .idle_ns = UINT64_C(10000000000)};

/* ---- the acceptor ----------------------------------------------------------------------------------------------------- */

struct lingering {
    int fd;
    uint64_t until;
    size_t read;
};

struct acceptor {
    struct lingering list[LINGER_MAX];
    size_t n;
};

static struct http_worker *least_loaded(struct http_server *s)
{
    struct http_worker *best = &s->workers[0];
    for (unsigned i = 1; i < s->serving; i++) {
        if (atomic_load_explicit(&s->workers[i].count, memory_order_relaxed) <
            atomic_load_explicit(&best->count, memory_order_relaxed))
            best = &s->workers[i];
    }
    return best;
}

static void order_shedding(struct http_worker *w)
{
    atomic_store_explicit(&w->shed, true, memory_order_relaxed);
    http_worker_ring(w);
}

/* While tokens are needed, an eighth of the connections is kept for those that have shown one: beyond the rest the oldest one that
 * has not makes room for each that comes, which has a moment to show its own. */
static bool is_crowded(struct http_server *s)
{
    return atomic_load_explicit(&s->access, memory_order_acquire) != NULL &&
           atomic_load_explicit(&s->strangers, memory_order_relaxed) >= http_strangers_max(s);
}

static void serve_one(struct http_server *s, struct http_conn *c, bool crowded)
{
    struct http_worker *w = least_loaded(s);
    c->stranger = atomic_load_explicit(&s->access, memory_order_acquire) != NULL;
    if (c->stranger)
        atomic_fetch_add_explicit(&s->strangers, 1, memory_order_relaxed);
    http_worker_add(w, c);
    if (crowded)
        order_shedding(w);
}

/* Is there none to be had? Then the operator's worker has had time to make room, and was not only kept from a processor. */
static bool waited_in_vain(const struct http_worker *care, uint64_t first, unsigned ms)
{
    uint64_t rounds = atomic_load_explicit(&care->rounds, memory_order_relaxed) - first;
    return ms >= CARE_LATE_MS || (ms >= CARE_WAIT_MS && rounds >= CARE_ROUNDS);
}

/* The oldest ones of the operator's worker make room when they are told to, which may last where processors are busy: who is accepted meanwhile
 * waits. Not again before there was room once: those that are at work do not go. */
static bool care_has_room(struct http_server *s)
{
    struct http_worker *care = http_care_worker(s);
    uint64_t over = http_care_max(s), first = atomic_load_explicit(&care->rounds, memory_order_relaxed);
    for (unsigned ms = 0; atomic_load_explicit(&care->count, memory_order_relaxed) >= over; ms++) {
        if (atomic_load_explicit(&s->care_full, memory_order_relaxed) || waited_in_vain(care, first, ms)) {
            atomic_store_explicit(&s->care_full, true, memory_order_relaxed);
            return false;
        }
        order_shedding(care);
        cht_sleep_ns(1000000);
    }
    atomic_store_explicit(&s->care_full, false, memory_order_relaxed);
    return true;
}

/* What is over a limit, and what comes to --admin-listen, goes to the operator's worker; when its places are half taken, the
 * oldest ones make room. */
static void accept_one(struct http_server *s, int fd, const struct cht_peer *peer, bool admin)
{
    struct http_worker *care = http_care_worker(s);
    uint64_t over = http_care_max(s), max = s->conf->max_connections;
    uint64_t apart = atomic_load_explicit(&care->count, memory_order_relaxed);
    uint64_t all = atomic_load_explicit(&s->connections, memory_order_relaxed);
    struct http_conn *c = cht_calloc(1, sizeof *c);
    bool crowded = is_crowded(s);
    if (c != NULL) {
        c->fd = fd;
        c->peer = *peer;
        c->admin = admin;
        c->refused = !admin && (all >= apart + max + (crowded ? over : 0) || !http_peers_count(s, c));
    }
    if (c == NULL || ((admin || c->refused) && !care_has_room(s))) {
        atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
        cht_net_close(fd);
        if (c != NULL)
            http_peers_uncount(s, c);
        cht_free(c);
        return;
    }
    atomic_fetch_add_explicit(&s->connections, 1, memory_order_relaxed);
    if (!admin && !c->refused) {
        serve_one(s, c, crowded);
        return;
    }
    http_worker_add(care, c);
    if (atomic_load_explicit(&care->count, memory_order_relaxed) > over / 2)
        order_shedding(care);
}

static void accept_all(struct http_server *s, int listen_fd)
{
    struct cht_peer peer;
    bool exhausted = false;
    int fd;
    while (cht_net_accept(listen_fd, &fd, &peer, &exhausted))
        accept_one(s, fd, &peer, listen_fd == s->admin_fd);
    if (exhausted) {
        svc_log_say(s->log, SVC_LOG_ERROR, "accept_failed", "out of descriptors or memory: waiting");
        cht_sleep_ns(100000000);
    }
}

/* New ones from the workers come through a pipe of one slot guarded by addr_mu. */
static void take_lingering(struct http_server *s, struct acceptor *a)
{
    cht_mutex_lock(&s->addr_mu);
    for (size_t i = 0; i < s->linger_n; i++) {
        if (a->n == LINGER_MAX) {
            cht_net_close(s->linger[i]);
            continue;
        }
        a->list[a->n++] = (struct lingering){.fd = s->linger[i], .until = cht_now_ns() + LINGER_NS};
    }
    s->linger_n = 0;
    cht_mutex_unlock(&s->addr_mu);
}

/* Reads what refused clients still send, so that closing does not destroy the answer they have not read yet. */
static void drop_input(struct acceptor *a, bool all)
{
    uint64_t now = cht_now_ns();
    for (size_t i = 0; i < a->n;) {
        struct lingering *l = &a->list[i];
        size_t n;
        bool open = cht_net_discard(l->fd, &n);
        l->read += n;
        if (open && now < l->until && l->read < LINGER_BYTES && !all) {
            i++;
            continue;
        }
        cht_net_close(l->fd);
        *l = a->list[--a->n];
    }
}

static void *acceptor_main(void *arg)
{
    struct http_server *s = arg;
    struct acceptor a = {.n = 0};
    while (!atomic_load_explicit(&s->stop, memory_order_acquire)) {
        int fds[LINGER_MAX + 3] = {s->acceptor_bell, s->listen_fd, s->admin_fd};
        bool ready[LINGER_MAX + 3] = {false};
        bool accepting = atomic_load_explicit(&s->accepting, memory_order_acquire);
        for (size_t i = 0; i < a.n; i++)
            fds[3 + i] = a.list[i].fd;
        if (!accepting)
            fds[1] = fds[2] = -1;
        cht_net_poll(fds, ready, 3 + a.n, a.n > 0 ? 100 : 1000);
        if (ready[0]) {
            cht_bell_drain(s->acceptor_bell);
            take_lingering(s, &a);
        }
        if (accepting && ready[2])
            accept_all(s, s->admin_fd);
        if (accepting && ready[1])
            accept_all(s, s->listen_fd);
        drop_input(&a, false);
    }
    take_lingering(s, &a);
    drop_input(&a, true);
    return NULL;
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------ */

static enum cht_rc read_tokens(struct http_server *s, struct cht_err *err)
{
    struct svc_access *a = NULL;
    if (s->conf->tokens[0] == 0)
        return CHT_OK;
    enum cht_rc rc = svc_access_load(s->conf->tokens, &a, err);
    if (rc != CHT_OK)
        return rc;
    if (svc_access_has_secrets(a) && cht_os_file_is_open_to_all(s->conf->tokens))
        svc_log_say(s->log, SVC_LOG_WARN, "tokens_readable", "others can read the token file; chmod 600 %s",
                    s->conf->tokens);
    struct svc_access *old = atomic_exchange_explicit(&s->access, a, memory_order_acq_rel);
    if (old != NULL) { /* requests may still look at it; it is small and reloads are rare */
        struct http_access_list *l = cht_malloc(sizeof *l);
        if (l != NULL) {
            *l = (struct http_access_list){.access = old, .next = s->old_access};
            s->old_access = l;
        }
    }
    return CHT_OK;
}

static enum cht_rc listen_on(const struct http_server *s, const char *where, int *fd, unsigned *port,
                             struct cht_err *err)
{
    bool loopback;
    enum cht_rc rc = cht_net_listen(where, fd, port, &loopback, err);
    if (rc != CHT_OK)
        *fd = -1;
    if (rc == CHT_OK && !loopback && s->conf->tokens[0] == 0 && !s->conf->allow_anonymous)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                      "%s can be reached from other machines: give --tokens FILE, or --allow-anonymous",
                      where);
    return rc;
}

static enum cht_rc open_ports(struct http_server *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (strcmp(s->conf->listen, "none") != 0)
        rc = listen_on(s, s->conf->listen, &s->listen_fd, &s->port, err);
    if (rc == CHT_OK && strcmp(s->conf->admin_listen, "none") != 0)
        rc = listen_on(s, s->conf->admin_listen, &s->admin_fd, &s->admin_port, err);
    return rc;
}

static enum cht_rc start_workers(struct http_server *s, struct cht_err *err)
{
    unsigned n = s->conf->http_threads > 0 ? (unsigned)s->conf->http_threads : cht_os_cores();
    s->workers = cht_calloc(n + 1, sizeof *s->workers);
    if (s->workers == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u HTTP threads", n);
    s->serving = n;
    s->worker_count = n + 1;
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < s->worker_count && rc == CHT_OK; i++)
        rc = http_worker_start(&s->workers[i], s, i, err);
    return rc;
}

enum cht_rc http_server_start(const struct conf *c, const struct http_routes *routes, struct svc_log *log,
                              struct http_server **out, struct cht_err *err)
{
    struct http_server *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the server");
    s->conf = c;
    s->routes = routes;
    s->log = log;
    s->start_ns = cht_now_ns();
    s->listen_fd = s->admin_fd = s->acceptor_bell = -1;
    s->address_limit_is_default = !conf_given(c, "max-connections-per-address");
    s->writes_create = strcmp(c->create_databases, "auto") == 0;
    s->inline_commits = strcmp(c->durability, "sync") != 0;
    svc_memory_init(&s->memory, c->memory_bytes, c->request_memory_bytes);
    enum cht_rc rc = cht_mutex_init(&s->addr_mu, err);
    if (rc == CHT_OK)
        rc = http_pages_check(c->allow_hosts, c->cors_origins, err);
    if (rc == CHT_OK)
        rc = http_secure_open(s, err);
    if (rc == CHT_OK)
        rc = read_tokens(s, err);
    if (rc == CHT_OK)
        rc = open_ports(s, err);
    if (rc == CHT_OK)
        rc = cht_bell_new(&s->acceptor_bell, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&short_jobs, &s->jobs, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&care_jobs, &s->care_jobs, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&long_jobs, &s->long_jobs, err);
    if (rc == CHT_OK)
        rc = routes->open(c, &s->shared, err);
    if (rc == CHT_OK)
        rc = start_workers(s, err);
    if (rc == CHT_OK) {
        atomic_store_explicit(&s->accepting, true, memory_order_release);
        rc = cht_thread_start(&s->acceptor, "cht-accept", acceptor_main, s, err);
        s->acceptor_up = rc == CHT_OK;
    }
    if (rc != CHT_OK) {
        http_server_stop(s, 0);
        http_server_free(s);
        return rc;
    }
    *out = s;
    return CHT_OK;
}

void http_server_adopt(struct http_server *s, int fd, const struct cht_peer *peer)
{
    accept_one(s, fd, peer, false);
}

static void forget(void *ctx, const struct cht_store *store)
{
    struct http_server *s = ctx;
    s->routes->forget(s->shared, store);
}

void http_server_ready(struct http_server *s, struct cht_env *env, struct svc_dbs *dbs)
{
    svc_dbs_on_close(dbs, forget, s);
    s->env = env;
    s->dbs = dbs;
    atomic_store_explicit(&s->state, HTTP_SERVER_READY, memory_order_release);
}

enum cht_rc http_server_reload(struct http_server *s, struct cht_err *err) { return read_tokens(s, err); }

enum cht_rc http_server_reload_keys(struct http_server *s, struct cht_err *err)
{
    return s->tls != NULL ? svc_tls_reload(s->tls, err) : CHT_OK;
}

void http_server_stop(struct http_server *s, uint64_t wait_ns)
{
    if (s == NULL)
        return;
    atomic_store_explicit(&s->accepting, false, memory_order_release);
    atomic_store_explicit(&s->state, HTTP_SERVER_CLOSING,
                          memory_order_release); /* the ticks end streams and idle connections */
    uint64_t end = cht_now_ns() + wait_ns;
    while (atomic_load_explicit(&s->connections, memory_order_relaxed) > 0 && cht_now_ns() < end)
        cht_sleep_ns(5000000);
    atomic_store_explicit(&s->stop, true, memory_order_release);
    if (s->acceptor_up) { /* before the workers: it may be handing one of them a connection just now */
        cht_bell_ring(s->acceptor_bell);
        cht_thread_join(&s->acceptor);
    }
    for (unsigned i = 0; i < s->worker_count; i++)
        http_worker_join(&s->workers[i]);
    cht_jobs_free(s->jobs); /* runs what is queued; nothing new comes from the workers */
    s->jobs = NULL;         /* what a backup still has to do is done by this thread */
    cht_jobs_free(s->care_jobs);
    cht_jobs_free(s->long_jobs);
    for (unsigned i = 0; i < s->worker_count; i++)
        http_worker_close(&s->workers[i]);
    if (s->acceptor_bell >= 0)
        cht_net_close(s->acceptor_bell);
    cht_net_unlisten(s->listen_fd, s->conf->listen);
    cht_net_unlisten(s->admin_fd, s->conf->admin_listen);
    svc_access_free(atomic_load(&s->access));
    while (s->old_access != NULL) {
        struct http_access_list *l = s->old_access;
        s->old_access = l->next;
        svc_access_free(l->access);
        cht_free(l);
    }
    svc_tls_free(s->tls);
    s->tls = NULL;
    s->routes->close(s->shared);
    s->shared = NULL;
}

void http_server_free(struct http_server *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < s->worker_count; i++)
        http_worker_free(&s->workers[i]);
    cht_free(s->workers);
    cht_mutex_fini(&s->addr_mu);
    cht_free(s);
}
