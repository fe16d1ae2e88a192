/* loop: one thread of the line server and its connections. */
#pragma once

#include "conf/conf.h"
#include "exec/jobs.h"
#include "service/log.h"
#include "os/net.h"
#include "os/thread.h"
#include "tcp/server.h"
#include "tcp/session.h"

struct line_loop;

struct line_conn {
    struct line_session session;
    struct line_loop *loop;
    struct line_conn *prev, *next;  /* of the loop */
    struct line_conn *run_next;     /* in the list of those that have something to do */
    struct line_conn *arrived_next; /* guarded by the loop's mu: new, or its commit or job is done */
    int fd;
    struct svc_tls_conn *tls;                  /* owned; NULL: plain */
    struct svc_access_certificate certificate; /* the client's, if the session points to it */
    struct cht_peer peer;
    struct cht_job job;
    char *in;                   /* owned: what was received; lines are parsed in place */
    size_t in_cap, in_at, in_n; /* in[in_at..in_n) is not done yet */
    size_t lines_end;           /* after the last newline in it; <= in_at if there is none */
    size_t out_at;              /* of session.out: sent */
    bool fresh;                 /* not in the loop yet */
    bool busy;                  /* a commit or a job is under way */
    bool committing;            /* it is a commit, or what is read to answer it */
    struct cht_wait wait;       /* the session's */
    bool queued;                /* in the run list */
    bool readable, writable;    /* as far as is known */
    bool ending;                /* its end has been seen, and may still lie after other bytes */
    bool ended;                 /* the client sends nothing more */
    bool skipping;              /* the rest of a line that was too long */
    bool lingering;             /* our side has ended: what still comes is dropped */
    bool dead;                  /* cannot be written to */
    const char *why;            /* it is closed, for the log */
    uint64_t since, moved;      /* ns: connected; when a byte last moved */
    uint64_t received, sent;
};

/* Read by whoever prints the metrics. */
struct line_loop_counts {
    struct line_session_counts session;
    _Atomic uint64_t received, sent;
};

struct line_server {
    struct line_config cfg;
    struct line_session_host host;
    int listen_fd;
    unsigned port;
    struct line_loop *loops;
    unsigned loop_count, next_loop;
    struct cht_jobs *jobs, *long_jobs;
    size_t line_max;
    _Atomic uint64_t open, total, refused;
    _Atomic bool stopping; /* read no more, answer what is there */
    _Atomic bool stop;     /* end */
};

struct line_loop {
    struct line_server *srv;
    int poller, bell;
    struct cht_thread thread;
    bool up;
    struct cht_mutex mu;
    struct line_conn *arrived; /* guarded by mu */
    _Atomic bool rung;         /* the bell rings and has not been heard */
    _Atomic uint64_t count;
    struct line_conn *conns; /* the thread's, like all below */
    struct line_conn *run, **run_tail;
    bool listening;
    uint64_t now, tick;
    struct line_loop_counts counts;
};

enum cht_rc line_loop_start(struct line_loop *l, struct line_server *s, bool accepts, struct cht_err *err);
/* Hands a connection to its loop: a new one, or one whose commit or job is done. Any thread. */
void line_loop_arrive(struct line_loop *l, struct line_conn *c);
void line_loop_join(struct line_loop *l); /* after srv->stop */
void line_loop_fini(struct line_loop *l);

/* conn.c, on the loop's thread */
struct line_conn *line_conn_new(struct line_loop *l, int fd, const struct cht_peer *peer);
void line_conn_free(struct line_conn *c);
/* Does what can be done. False: it is over, and nothing of it is under way. */
bool line_conn_serve(struct line_conn *c);
/* Its commit or job is done. */
void line_conn_arrived(struct line_conn *c);
/* loop.c: it has more to do when others had their turn. */
void line_loop_again(struct line_conn *c);
/* Is it over time? Sets why. */
bool line_conn_expired(struct line_conn *c, uint64_t now);
