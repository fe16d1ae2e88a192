/* server: the line protocol over TCP. A few loops, each one thread with its own epoll and its connections; the first also
 * accepts. A loop reads, parses, asks the store for values and sends; commits are submitted and answered when they are
 * durable, pages and databases are done by job threads. A connection with something under way is not read: its client waits in
 * the kernel's buffers, as does one that does not take its answers.
 */
#pragma once

#include "conf/conf.h"
#include "service/access.h"
#include "service/dbs.h"
#include "service/log.h"
#include "service/tls.h"

struct line_server;
struct lm_engine;

struct line_config {
    const struct conf *conf;          /* borrowed */
    struct svc_log *log;              /* borrowed */
    struct svc_tls *tls;              /* borrowed; NULL: plain */
    struct svc_memory_budget *memory; /* borrowed */
    /* The tokens as they are now, NULL if none are needed. */
    const struct svc_access *(*access)(void *ctx);
    void *ctx;
    struct lm_engine *lm; /* borrowed: who counts into which database */
};

/* Opens the port; connections wait until line_server_ready. CHT_INVALID_ARGUMENT, CHT_IO, CHT_NO_MEMORY. */
enum cht_rc line_server_start(const struct line_config *cfg, struct line_server **out, struct cht_err *err);
unsigned line_server_port(const struct line_server *s);
/* The databases are there: connections are served. */
enum cht_rc line_server_ready(struct line_server *s, struct svc_dbs *dbs, struct cht_err *err);
/* No new connections; what was received is answered, for at most wait_ns; then all are closed and the threads have ended. The
 * counters can be read on. NULL is legal. */
void line_server_stop(struct line_server *s, uint64_t wait_ns);
void line_server_free(struct line_server *s); /* after line_server_stop; NULL is legal */
/* Appends the counters in Prometheus text format. ctx is the server. */
void line_server_metrics(void *ctx, struct svc_out *o);
