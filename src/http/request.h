/* request: one request from its first line to its answer. It lives on one HTTP thread (struct worker); while it is
 * suspended another thread fills in the result and wakes it, and touches nothing else.
 *
 *   NEW -> BODY -> [handler] -> READY -> (answered, recycled)
 *                      |  ^
 *                      v  | request_wake, from any thread
 *                     WAITING (the connection is suspended)
 *
 * A handler (route->run) ends in exactly one of: reply_* (READY), stream_begin (READY), request_suspend followed by
 * something that will call request_wake, or request_ahead (AHEAD: in a moment, with the others of this round); then
 * `resume` runs on the HTTP thread and ends likewise.
 */
#pragma once

#include "service/access.h"
#include "service/dbs.h"
#include "service/out.h"

#include <microhttpd.h>
#include <stdatomic.h>

#include "base/invariant.h"
#include "exec/jobs.h"

struct request;
struct worker;
struct conn;
struct stream;
struct prepared;

enum method { METHOD_GET = 1, METHOD_POST = 2, METHOD_PUT = 4, METHOD_DELETE = 8 };

/* Query parameters; names in params.c. */
enum param {
    P_DB,
    P_AFTER,
    P_UNTIL,
    P_LIMIT,
    P_SIZE,
    P_VALUES,
    P_KEYS,
    P_COUNT,
    P_EXACT,
    P_REVERSE,
    P_RECURSIVE,
    P_ATOMIC,
    P_RESULTS,
    P_DECODE,
    P_SORT,
    P_TO,
    P_METRIC,
    P_ORDERS,
    P_TOPK,
    P_ORDER,
    P_ONCE,
    P_CONFIRM,
    PARAMS
};
#define PARAM(p) (UINT32_C(1) << (p))

struct param_value {
    const char *p; /* percent-decoded, NULL: not given; borrowed from the request */
    size_t n;
};

/* What a route does with a body. */
enum body {
    BODY_NONE,   /* dropped */
    BODY_VALUE,  /* a value: raw or {"value":...} */
    BODY_JSON,   /* a small document */
    BODY_BATCH,  /* batch.c reads it as it arrives */
    BODY_NGRAMS, /* lm.c likewise */
};

struct route {
    unsigned method;
    const char *path; /* "/kv/" with rest: everything behind it is the rest */
    bool rest;
    const char
        *suffix; /* with rest: what the path must end with; NULL: any rest; "": a rest without a slash */
    const char *label; /* in metrics and logs: "/kv/{key}" */
    void (*run)(struct request *r);
    uint32_t params; /* PARAM(...) that are known here */
    bool any_params; /* others are ignored (service calls) */
    enum right right;
    enum body body;
    /* A part of the body, as it arrives; false: give the connection up. NULL: it is collected. */
    bool (*feed)(struct request *r, const char *data, size_t n);
    /* The methods of this path, where they depend on what is behind it; NULL: the row's. */
    unsigned (*methods)(const char *rest, size_t n);
};

/* All routes of a service, in the order in which they are tried. */
struct routes {
    const struct route *v;
    unsigned n;
};

/* The place of a route in the table and in the metrics; NULL: the place behind the last. */
static inline unsigned routes_index(const struct routes *all, const struct route *t)
{
    return t != NULL ? (unsigned)(t - all->v) : all->n;
}

enum phase { PHASE_NEW, PHASE_BODY, PHASE_AHEAD, PHASE_WAITING, PHASE_READY, PHASE_SENT };

enum media {
    MEDIA_JSON,
    MEDIA_PROBLEM,
    MEDIA_NDJSON,
    MEDIA_OCTETS,
    MEDIA_BACKUP,
    MEDIA_TEXT,
    MEDIA_METRICS,
    MEDIA_YAML,
    MEDIA_NONE
};

#define REQUEST_HEADERS 4
#define REQUEST_ID_MAX 128u
#define REQUEST_LOG_PATH 1024u
#define REQUEST_HOST_MAX 255u
#define REQUEST_OWN_MAX (CHT_NAME_MAX + 512u) /* a name, and some */

/* The request headers that are looked at. */
enum header {
    H_ACCEPT,
    H_AUTHORIZATION,
    H_CONTENT_LENGTH,
    H_CONTENT_TYPE,
    H_EXPECT,
    H_HOST,
    H_ORIGIN,
    H_SEC_FETCH_SITE,
    H_TRANSFER_ENCODING,
    H_REQUEST_ID,
    H_COUNT
};

struct request {
    struct worker *w; /* all of these: set when it begins, the HTTP thread's */
    struct conn *conn;
    struct MHD_Connection *mc;
    struct request *next; /* free list; the worker's list of commits */
    const struct route *route;
    const struct token *token; /* NULL without --tokens */
    const struct token *valid; /* the same as the file has it by now: the HTTP thread's (request_revoked) */
    enum method method;
    bool head, early, close;
    _Atomic int phase; /* enum phase */
    uint64_t start_ns;

    char *uri; /* owned, cap uri_cap: as it was sent, decoded in place */
    size_t uri_len, uri_cap;
    char log_path[REQUEST_LOG_PATH]; /* the path as it was sent, cut there */
    size_t log_path_len;
    const char *rest; /* decoded, behind route->path */
    size_t rest_len;
    struct param_value param[PARAMS];
    const char *in[H_COUNT]; /* their values, libmicrohttpd's; NULL: not sent */
    const char *cors;        /* the origin whose pages may read the answer; NULL: those of no other */
    char method_name[16];
    char id[REQUEST_ID_MAX + 1];
    size_t id_len;

    struct database *db; /* held until the end */

    uint8_t *body; /* owned, cap body_cap */
    size_t body_len, body_cap;
    uint64_t body_max;
    bool body_over; /* longer than allowed: dropped, answered 413 */
    uint64_t body_dropped;
    void *own;                          /* the handler's arguments, until the request is over; NULL: none */
    void (*release)(struct request *r); /* frees what `own` holds; NULL: nothing to free */
    _Atomic bool cancel;                /* the client has gone: a job may stop */

    /* the answer */
    int status;
    enum media media;
    struct out out;
    struct prepared
        *prepared; /* held until the answer is through; NULL: the answer has an object of its own */
    struct {
        const char *name;
        char value[64];
    } header[REQUEST_HEADERS];
    unsigned headers;
    struct stream *stream; /* owned; NULL: the answer is `out` */
    uint64_t sent;         /* bytes of the body so far */

    /* while suspended, or put off */
    unsigned ahead; /* 1 + its place in the worker's list; AHEAD_DONE: it has been there */
    void (*resume)(struct request *r);
    void (*work)(struct request *r);   /* on a job thread */
    void (*opened)(struct request *r); /* of request_database, while it opens one */
    bool create;                       /* likewise: one that is not there is made */
    struct cht_job job;
    struct cht_commit commit;
    struct cht_wait wait; /* of a read that meets what is not durable yet */
    _Atomic int woken;    /* of a commit or such a read: 0 running, 1 the connection is suspended, 2 done */
    struct cht_buf value; /* owned */
    enum cht_rc rc;       /* of the work */
    struct cht_err err;
    _Alignas(max_align_t) uint8_t own_space[REQUEST_OWN_MAX]; /* request_own */
};

/* Memory for the handler's arguments, n bytes at most REQUEST_OWN_MAX, not initialised: in r->own from now on. What is larger, or
 * lives longer than the request, the handler allocates, and frees in `release`. */
static inline void *request_own(struct request *r, size_t n)
{
    CHT_INVARIANT(n <= sizeof r->own_space);
    r->own = r->own_space;
    return r->own;
}

/* Suspends the connection; then something must call request_wake. resume runs on the HTTP thread. */
void request_suspend(struct request *r, void (*resume)(struct request *r));
/* From any thread, once for each suspension. The request may be gone when it returns. */
void request_wake(struct request *r);
/* Runs `work` on a job thread, then `resume` here. The connection is suspended meanwhile. Threads are shared out fairly among
 * databases (exec/jobs.h): the one of r->db, else the one that request_owner named, else none. */
void request_job(struct request *r, void (*work)(struct request *r), void (*resume)(struct request *r));
void request_owner(struct request *r, const char *database);
/* On the HTTP thread, while no job works for it: has the token that let it in been taken out of the file since, has it lost the right, or expired? */
bool request_revoked(struct request *r);

/* What only one job of a database may do at a time. */
enum { ALONE_COUNT = 1, ALONE_SMOOTH = 2, ALONE_CHECKPOINT = 4, ALONE_DROP = 8 };
/* The same on the threads for work of seconds. alone: bits of ALONE_; whoever waits for his turn waits without a thread. */
void request_long_job(struct request *r, unsigned alone, void (*work)(struct request *r),
                      void (*resume)(struct request *r));

/* The database of ?db=, held in r->db, then `then` runs: at once where it is open, else on the way back from a job thread.
 * create: a write, which makes a database that is not there (unless --create-databases admin). Errors are answered. */
void request_database(struct request *r, bool create, void (*then)(struct request *r));

/* Before a point read, while many requests come in at once: puts it off until all of this round have come so far, and what
 * they will read is on its way into the cache; then `then` runs. False: there are few requests, read now. True once at
 * most for a request. r->db is set; the name is borrowed from the request. */
bool request_ahead(struct request *r, struct cht_str name, uint64_t key, void (*then)(struct request *r));
/* The same with several hints, and whether it is of any use to make them. */
bool request_ahead_all(struct request *r, const struct cht_hint *hints, size_t n,
                       void (*then)(struct request *r));
bool request_may_wait(const struct request *r);

/* For a point read on this thread, which must not wait: rc = cht_store_get_soon(..., request_waiter(r), ...); where that is
 * CHT_PENDING the handler ends with request_await, and `again`, which is to read again, runs when there is something to see. */
struct cht_wait *request_waiter(struct request *r);
void request_await(struct request *r, void (*again)(struct request *r));

/* Commits r->commit (its ops, count and flags are set) and runs `then`; c->rc is the result. */
void request_commit(struct request *r, void (*then)(struct request *r));
/* r->own of a call that is one operation. */
struct cht_op *request_own_operation(struct request *r, enum cht_op_kind kind);
/* A commit of one operation, which lives until then. */
void request_operation(struct request *r, struct cht_op *op, void (*then)(struct request *r));
