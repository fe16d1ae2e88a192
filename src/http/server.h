/* server: the HTTP service. N workers, each one thread with one libmicrohttpd daemon (epoll) that it drives itself; an
 * acceptor that hands new connections to the worker with the fewest.
 *
 * The worker waits on the daemon's epoll descriptor and then calls MHD_run, which never blocks: libmicrohttpd's own loop
 * asks again with its time-out when exactly 128 events were ready, before it has served them. A daemon that is driven from
 * outside has no wake-up of its own, so each worker has a bell.
 */
#pragma once

#include "http/gate.h"
#include "http/metrics.h"
#include "http/prepared.h"
#include "http/request.h"
#include "service/log.h"
#include "service/tls.h"

#include "base/rng.h"
#include "conf/conf.h"
#include "os/net.h"
#include "os/thread.h"

enum http_server_state { HTTP_SERVER_STARTING, HTTP_SERVER_READY, HTTP_SERVER_DRAINING, HTTP_SERVER_CLOSING };

/* One address with connections, in a small hash table. */
struct http_address {
    uint8_t key[16];
    uint32_t count;
    struct http_address *next;
};
#define HTTP_ADDRESS_SLOTS 1024u
#define HTTP_LINGER_SLOTS 32u
#define HTTP_HOST_KEPT 64u
#define HTTP_AUTHORIZATION_KEPT 128u

struct http_access_list {
    struct svc_access *access;
    struct http_access_list *next;
};

struct http_server {
    const struct http_routes *routes;    /* borrowed */
    const struct conf *conf;             /* borrowed */
    struct svc_log *log;                 /* borrowed */
    struct cht_env *env;                 /* set when the environment is open, before HTTP_SERVER_READY */
    struct svc_dbs *dbs;                 /* likewise */
    struct svc_scrub *scrub;             /* borrowed, set before http_server_ready; NULL: none runs */
    _Atomic(struct svc_access *) access; /* NULL without tokens */
    _Atomic int state;                   /* enum http_server_state */
    unsigned port;
    uint64_t start_ns;

    int listen_fd, admin_fd, acceptor_bell; /* admin_fd -1: no port of its own */
    unsigned admin_port;
    bool address_limit_is_default;
    struct cht_thread acceptor;
    bool acceptor_up;
    _Atomic bool accepting, stop;

    struct http_worker *workers;
    unsigned
        worker_count; /* `serving` of them take what comes; the last one is kept for the operator (care_worker) */
    unsigned serving;
    struct cht_jobs *jobs;
    struct cht_jobs *care_jobs; /* of the operator's calls alone */
    struct cht_jobs *long_jobs; /* those that may take seconds */

    struct cht_mutex addr_mu;
    struct http_address *addresses[HTTP_ADDRESS_SLOTS]; /* guarded by addr_mu */

    int linger[HTTP_LINGER_SLOTS]; /* guarded by addr_mu: on their way to the acceptor */
    size_t linger_n;
    struct http_access_list *old_access; /* the main thread's: replaced, freed at the end */

    struct svc_memory_budget memory; /* of all requests */
    struct svc_tls *tls;             /* owned; NULL: plain */
    _Atomic uint64_t connections, streams, refused;
    _Atomic uint64_t strangers;  /* connections that have shown no token yet, while tokens are needed */
    _Atomic uint64_t shed;       /* connections ended to make room */
    _Atomic uint64_t refusal_ns; /* when a refused write was logged last */
    _Atomic bool
        care_full; /* one has waited in vain for a place at the operator's worker, and there was none since */
    _Atomic uint64_t feeds; /* jobs of aggregates and smoothing under way */
    _Atomic uint64_t stream_entries, stream_bytes;
    bool writes_create;  /* a write makes the database it is for, if it is not there */
    bool inline_commits; /* a commit may be answered by the thread that makes it */
    void *shared;        /* owned: of the handlers, see struct http_routes */
    /* Appends the metrics of other servers of this process; set before server_ready. */
    void (*more_metrics)(void *ctx, struct svc_out *o);
    void *more_ctx;
};

/* A connection; the worker's. */
struct http_conn {
    struct http_worker *w;
    struct http_conn *prev, *next;
    struct http_request *req; /* under way, NULL between requests */
    int fd;
    bool refused;  /* over a limit: every request but the operator's is answered 503 */
    bool admin;    /* of --admin-listen */
    bool stranger; /* counted in srv->strangers */
    bool counted;  /* in the table of addresses */
    bool linger;   /* was answered before its body was read */
    bool killed;
    bool used;                 /* has had a request */
    bool want_ack;             /* the headers are in and the body is not: counted in w->acks */
    uint64_t since;            /* ns: connected, or the last request ended */
    struct MHD_Connection *mc; /* set once libmicrohttpd has it */
    struct http_gate gate;
    struct http_quick *quick; /* owned, see quick.h; NULL: never needed */
    size_t host_len;          /* of a Host that was admitted; 0: none, or a long one */
    char host[HTTP_HOST_KEPT];
    struct cht_peer peer;
    struct svc_tls_keys *keys;                  /* held until it is closed; NULL: plain */
    struct svc_access_certificate *certificate; /* owned: the client's, once `looked` at; NULL: none */
    bool looked;
    const struct svc_token *token; /* that `authorization` stands for; NULL: none has been kept */
    size_t authorization_len;
    char authorization
        [HTTP_AUTHORIZATION_KEPT]; /* the last header that was valid: it need not be hashed again */
};

/* A read that was put off: request_ahead. */
struct http_ahead {
    struct http_request *r; /* NULL: it is gone */
    struct cht_hint hint;
};
#define HTTP_AHEAD_LEAST 4u /* requests in a round from which on it pays */

struct http_worker {
    struct http_server *srv;
    unsigned index;
    struct MHD_Daemon *daemon;
    int epoll_fd, bell;
    struct cht_thread thread;
    bool up;
    struct cht_mutex mu;
    struct http_conn *inbox; /* guarded by mu: accepted, not yet taken */
    _Atomic bool has_inbox;
    struct http_request *pieces; /* guarded by mu: whose piece of a body is read */
    _Atomic bool has_pieces;
    _Atomic bool shed; /* it is to end connections that are too many */
    _Atomic uint64_t count;
    _Atomic uint64_t rounds; /* of its loop that have begun */
    _Atomic int
        rung; /* 1: the bell rings or has been heard, and what it was rung for is still to be looked at */
    struct http_conn *conns;    /* the thread's, like all below */
    struct http_conn *incoming; /* being added */
    struct http_request *spare;
    unsigned spares;
    struct http_prepared_list prepared;
    struct svc_out access_log;
    uint64_t access_lines, access_since;
    uint64_t now;             /* this round's time, or later */
    uint64_t wall_at;         /* `now` when `wall` was made */
    char wall[24];            /* the date and time of lines of the access log */
    unsigned acks;            /* connections with want_ack */
    struct cht_tap tap;       /* what libmicrohttpd reads goes through inlet.c */
    struct http_conn **by_fd; /* owned, by_fd_cap: the connection of a descriptor, NULL: none */
    size_t by_fd_cap;
    int watch;      /* tells of clients that end their side */
    bool again;     /* some connection's gate.again */
    unsigned begun; /* requests of this round */
    unsigned load;  /* requests of a round of late */
    bool busy;      /* they were several */
    struct http_ahead ahead[CHT_HINTS_MAX];
    unsigned aheads;
    struct http_request *quick, **quick_end; /* taken in this round: see quick.h */
    struct http_request *_Atomic done;       /* whose commits are done, the last one first; of any thread */
    unsigned orphans; /* requests that wait for their commit and have no connection any more */
    unsigned owing;   /* connections with something of an answer of quick.c that is not taken */
    bool together;    /* several of those are read at once just now */
    struct http_request *commits, **commits_end; /* of this round, to be submitted at its end */
    struct cht_rng rng;
    struct http_metrics metrics;
};

static inline struct http_worker *http_care_worker(struct http_server *s) { return &s->workers[s->serving]; }

/* While tokens are needed an eighth of the connections is kept for those that have shown one. */
static inline uint64_t http_strangers_max(const struct http_server *s)
{
    uint64_t max = s->conf->max_connections;
    return max >= 8 ? max - max / 8 : max > 1 ? max - 1 : 1;
}

/* Connections that the operator's worker has at most; half of connections_over, the other half is for those that have not made room yet. */
static inline uint64_t http_care_max(const struct http_server *s)
{
    return s->conf->connections_over >= 16 ? s->conf->connections_over / 2 : 8;
}

/* It has shown a token, or it ends. */
static inline void http_conn_known(struct http_conn *c)
{
    if (c->stranger)
        atomic_fetch_sub_explicit(&c->w->srv->strangers, 1, memory_order_relaxed);
    c->stranger = false;
}

/* The body has begun, or the request is over: no acknowledgement is owed any more. */
static inline void http_conn_no_ack(struct http_conn *c)
{
    c->w->acks -= c->want_ack;
    c->want_ack = false;
}

/* Starts workers, then listens, if conf's `listen` is not "none"; state is HTTP_SERVER_STARTING until the caller sets env and dbs and calls server_ready. */
enum cht_rc http_server_start(const struct conf *c, const struct http_routes *routes, struct svc_log *log,
                              struct http_server **out, struct cht_err *err);
/* Serves a connection that was not accepted here (cht_net_pair); fd is taken. Any thread, until http_server_stop. */
void http_server_adopt(struct http_server *s, int fd, const struct cht_peer *peer);
void http_server_ready(struct http_server *s, struct cht_env *env, struct svc_dbs *dbs);
/* Stops accepting, ends streams, waits for what is under way (at most wait_ns) and joins the threads. NULL is legal. */
void http_server_stop(struct http_server *s, uint64_t wait_ns);
/* After http_server_stop and cht_env_close: a thread of the store that has answered the last request may still be ringing the
 * worker's bell. env and dbs are the caller's. NULL is legal. */
void http_server_free(struct http_server *s);
/* Reads the token file again; the old one stays on an error. */
enum cht_rc http_server_reload(struct http_server *s, struct cht_err *err);
/* Likewise certificate, key and authorities; nothing to do without them. */
enum cht_rc http_server_reload_keys(struct http_server *s, struct cht_err *err);

/* worker.c */
enum cht_rc http_worker_start(struct http_worker *w, struct http_server *s, unsigned index,
                              struct cht_err *err);
void http_worker_add(struct http_worker *w, struct http_conn *c); /* any thread */
void http_worker_join(struct http_worker *w);                     /* after srv->stop is set */
/* After the job threads have ended: waits for commits, frees all but its bell. */
void http_worker_close(struct http_worker *w);
void http_worker_free(struct http_worker *w); /* after the store's threads have ended, which ring it */

/* router.c */
const struct http_route *http_router_find(const struct http_routes *routes, const char *path, size_t len,
                                          unsigned method, const char **rest, size_t *rest_len,
                                          unsigned *allowed);

/* request.c */
struct http_request *http_request_new(struct http_worker *w);
/* Fetches what the reads that were put off will touch; the next MHD_run goes on with them. */
void http_request_look_ahead(struct http_worker *w);
/* Submits the commits of this round: together they make one group, where the first by itself would set off a sync that all
 * others then wait for. */
void http_request_submit_commits(struct http_worker *w);
/* Lets the requests go on whose piece of a body was read. */
void http_request_take_pieces(struct http_worker *w);
/* Its answer is over: counts, logs and recycles it. aborted: the client has not taken all of it. w->now is set. */
void http_request_over(struct http_request *r, bool aborted);
void http_request_recycle(struct http_request *r);
void http_request_free(struct http_request *r);

/* callbacks.c: what libmicrohttpd is given */
void *http_call_uri(void *cls, const char *uri, struct MHD_Connection *mc);
enum MHD_Result http_call_request(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **con);
void http_call_completed(void *cls, struct MHD_Connection *mc, void **con,
                         enum MHD_RequestTerminationCode why);
void http_call_connection(void *cls, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode what);
size_t http_call_unescape(void *cls, struct MHD_Connection *mc, char *s);
