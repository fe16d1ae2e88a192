/* request: one request from its first line to its answer. It lives on one HTTP thread (struct http_worker); while it is
 * suspended another thread fills in the result and wakes it, and touches nothing else.
 *
 *   NEW -> BODY -> [handler] -> READY -> (answered, recycled)
 *                      |  ^
 *                      v  | http_request_wake, from any thread
 *                     WAITING (the connection is suspended)
 *
 * A handler (route->run) ends in exactly one of: reply_* (READY), http_stream_begin (READY), http_request_suspend followed by
 * something that will call http_request_wake, or http_request_ahead (AHEAD: in a moment, with the others of this round); then
 * `resume` runs on the HTTP thread and ends likewise.
 */
#pragma once

#include "http/coding.h"
#include "http/ndjson.h"
#include "service/access.h"
#include "service/dbs.h"
#include "service/memory.h"
#include "service/out.h"

#include <microhttpd.h>
#include <stdatomic.h>

#include "base/invariant.h"
#include "exec/jobs.h"
#include "http/etag.h"

struct conf;
struct http_request;
struct http_worker;
struct http_conn;
struct http_stream;
struct http_prepared;
struct http_lines;
struct http_unpack;
struct http_quick;

enum http_method { HTTP_METHOD_GET = 1, HTTP_METHOD_POST = 2, HTTP_METHOD_PUT = 4, HTTP_METHOD_DELETE = 8 };

/* Query parameters; names in params.c. */
enum http_param {
    HTTP_P_DB,
    HTTP_P_AFTER,
    HTTP_P_UNTIL,
    HTTP_P_LIMIT,
    HTTP_P_SIZE,
    HTTP_P_VALUES,
    HTTP_P_KEYS,
    HTTP_P_COUNT,
    HTTP_P_EXACT,
    HTTP_P_REVERSE,
    HTTP_P_RECURSIVE,
    HTTP_P_ATOMIC,
    HTTP_P_RESULTS,
    HTTP_P_DECODE,
    HTTP_P_SORT,
    HTTP_P_TO,
    HTTP_P_METRIC,
    HTTP_P_ORDERS,
    HTTP_P_TOPK,
    HTTP_P_ORDER,
    HTTP_P_ONCE,
    HTTP_P_REMOVE,
    HTTP_P_CONFIRM,
    HTTP_P_CHILDREN,
    HTTP_P_SEPARATOR,
    HTTP_P_TEXT,
    HTTP_P_NAMES,
    HTTP_P_BOS,
    HTTP_P_EOS,
    HTTP_P_UNK,
    HTTP_P_UNMARKED,
    HTTP_P_FROM,
    HTTP_P_TTL,
    HTTP_P_K,
    HTTP_P_MIN,
    HTTP_P_WAIT,
    HTTP_P_TRANSPOSE,
    HTTP_P_EXPIRES,
    HTTP_P_ETAGS,
    HTTP_P_LENGTHS,
    HTTP_PARAMS
};
#define HTTP_PARAM(p) (UINT64_C(1) << (p))

struct http_param_value {
    const char *p; /* percent-decoded, NULL: not given; borrowed from the request */
    size_t n;
};

/* What a route does with a body. */
enum http_body {
    HTTP_BODY_NONE,   /* dropped */
    HTTP_BODY_VALUE,  /* a value: raw or {"value":...} */
    HTTP_BODY_JSON,   /* a small document */
    HTTP_BODY_ASK,    /* a question, or many */
    HTTP_BODY_NAMES,  /* a document with many names */
    HTTP_BODY_BATCH,  /* batch.c reads it as it arrives */
    HTTP_BODY_NGRAMS, /* lm.c likewise */
    HTTP_BODY_BACKUP, /* restore.c likewise, of any length, for as long as it moves */
    HTTP_BODY_ARPA,   /* arpa.c in pieces, of any length */
};

struct http_route {
    unsigned method;
    const char *path; /* "/kv/" with rest: everything after it is the rest */
    bool rest;
    const char
        *suffix; /* with rest: what the path must end with; NULL: any rest; "": a rest without a slash */
    const char *label; /* in metrics and logs: "/kv/{key}" */
    void (*run)(struct http_request *r);
    uint64_t params; /* HTTP_PARAM(...) that are known here */
    bool care;       /* for the operator: answered beyond the limits, and on --admin-listen, too */
    bool conditions; /* `run` looks at preconditions */
    /* Is it a read that mostly is answered at once, and shortly, or a short write? Then it need not go by libmicrohttpd (quick.h). Its
     * parameters are known. NULL: no. */
    bool (*quick)(const struct http_request *r);
    bool any_params; /* others are ignored (service calls) */
    enum svc_right right;
    bool reads; /* SVC_RIGHT_READ is enough if the body only reads; `run` sees to it (http_request_needs) */
    enum http_body body;
    /* A part of the body, as it arrives; false: give the connection up. NULL: it is collected. */
    bool (*feed)(struct http_request *r, const char *data, size_t n);
    /* The methods of this path, if they depend on what is after it; NULL: the row's. */
    unsigned (*methods)(const char *rest, size_t n);
};

/* All routes of a service, in the order in which they are tried, and what their handlers share. The server keeps that, and does not
 * know what it is. */
struct lm_engine;
struct http_routes {
    const struct http_route *v;
    unsigned n;
    enum cht_rc (*open)(const struct conf *c, void **shared,
                        struct cht_err *err);                    /* before the first request */
    void (*close)(void *shared);                                 /* after the last; NULL is legal */
    void (*forget)(void *shared, const struct cht_store *store); /* this store was closed. Any thread */
    void (*print)(void *shared, struct svc_out *o);              /* its metrics */
    struct lm_engine *(*engine)(void *shared); /* who counts where, for the line protocol's; borrowed */
};

/* The place of a route in the table and in the metrics; NULL: the place after the last. */
static inline unsigned http_routes_index(const struct http_routes *all, const struct http_route *t)
{
    return t != NULL ? (unsigned)(t - all->v) : all->n;
}

enum http_phase {
    HTTP_PHASE_NEW,
    HTTP_PHASE_BODY,
    HTTP_PHASE_AHEAD,
    HTTP_PHASE_WAITING,
    HTTP_PHASE_READY,
    HTTP_PHASE_SENT
};

enum http_media {
    HTTP_MEDIA_JSON,
    HTTP_MEDIA_PROBLEM,
    HTTP_MEDIA_NDJSON,
    HTTP_MEDIA_OCTETS,
    HTTP_MEDIA_BACKUP,
    HTTP_MEDIA_ARPA,
    HTTP_MEDIA_TEXT,
    HTTP_MEDIA_METRICS,
    HTTP_MEDIA_YAML,
    HTTP_MEDIA_HTML,
    HTTP_MEDIA_SCRIPT,
    HTTP_MEDIA_STYLE,
    HTTP_MEDIA_SVG,
    HTTP_MEDIA_NONE
};

#define HTTP_REQUEST_HEADERS 4
#define HTTP_REQUEST_ID_MAX 128u
#define HTTP_REQUEST_LOG_PATH 1024u
#define HTTP_REQUEST_HOST_MAX 255u
#define HTTP_REQUEST_OWN_MAX (CHT_NAME_MAX + 512u) /* a name, and some */

/* The request headers that are looked at. */
enum http_header {
    HTTP_H_ACCEPT,
    HTTP_H_ACCEPT_ENCODING,
    HTTP_H_AUTHORIZATION,
    HTTP_H_CONTENT_ENCODING,
    HTTP_H_CONTENT_LENGTH,
    HTTP_H_CONTENT_TYPE,
    HTTP_H_EXPECT,
    HTTP_H_HOST,
    HTTP_H_ORIGIN,
    HTTP_H_IF_MATCH,
    HTTP_H_SEC_FETCH_SITE,
    HTTP_H_TRANSFER_ENCODING,
    HTTP_H_REQUEST_ID,
    HTTP_H_IF_NONE_MATCH,
    HTTP_H_IF_UNMODIFIED_SINCE,
    HTTP_H_COUNT
};

struct http_fixed_header {
    const char *name, *value;
};

struct http_request {
    struct http_worker *w; /* all of these: set when it begins, the HTTP thread's */
    struct http_conn *conn;
    struct MHD_Connection *mc;
    struct http_request *next; /* free list; the worker's list of commits */
    const struct http_route *route;
    const struct svc_token *token; /* NULL without --tokens */
    const struct svc_token
        *valid;           /* the same as the file has it by now: the HTTP thread's (http_request_revoked) */
    enum svc_right right; /* what is done needs it: the route's, or less (route->reads) */
    enum http_method method;
    bool head, early, close;
    bool conditional;  /* it has preconditions: If-Match, If-None-Match, If-Unmodified-Since */
    bool twice;        /* one of them more than once */
    bool tagged;       /* the answer has an ETag */
    bool by_accept;    /* it depends on Accept */
    bool owed;         /* what is answered is nowhere else any more: it is sent whatever memory that takes */
    bool quick;        /* it did not come by libmicrohttpd: see quick.h */
    bool handed;       /* but its answer goes out by it */
    bool loose;        /* its commit is under way, and its connection is not suspended; the HTTP thread's */
    bool certified;    /* `token` is that of the client's certificate */
    _Atomic int phase; /* enum http_phase */
    uint64_t start_ns;

    char *uri; /* owned, cap uri_cap: as it was sent, decoded in place */
    size_t uri_len, uri_cap;
    char log_path[HTTP_REQUEST_LOG_PATH]; /* the path as it was sent, cut there */
    size_t log_path_len;
    const char *rest; /* decoded, after route->path */
    size_t rest_len;
    struct http_param_value param[HTTP_PARAMS];
    enum http_names names;
    bool text;                    /* what is text is shown as that (text=true) */
    const char *in[HTTP_H_COUNT]; /* their values, libmicrohttpd's; NULL: not sent */
    const char *cors;             /* the origin whose pages may read the answer; NULL: those of no other */
    char method_name[16];
    char id[HTTP_REQUEST_ID_MAX + 1];
    size_t id_len;

    struct svc_database *db; /* held until the end */

    uint8_t *body; /* owned, cap body_cap */
    size_t body_len, body_cap;
    uint64_t body_max;
    bool body_over; /* longer than allowed: dropped, answered 413 */
    uint64_t body_dropped;
    uint64_t skip_ns;           /* since when it is dropped; 0: it is not */
    uint64_t moved_ns;          /* when some of a body of any length came last; 0: a body of limited length */
    struct http_unpack *unpack; /* owned: the body comes compressed; NULL: as it is */
    struct svc_memory_use memory; /* all that it has booked */
    uint64_t booked;              /* of that: of `out` and `value` (http_send_book) */
    struct http_lines *lines;     /* the handler's, while a job reads them */
    struct json_t *json; /* owned: the body, parsed by a job; NULL with `parsed`: r->err says why not */
    bool parsed;
    void *own; /* the handler's arguments, until the request is over; NULL: none */
    void (*release)(struct http_request *r); /* frees what `own` holds; NULL: nothing to free */
    _Atomic bool cancel;                     /* the client has gone: a job may stop */

    /* the answer */
    int status;
    enum http_media media;
    struct svc_out out;
    struct http_prepared
        *prepared; /* held until the answer was sent; NULL: the answer has an object of its own */
    struct {
        const char *name;
        char value[96];
    } header[HTTP_REQUEST_HEADERS];
    unsigned headers;
    char etag[HTTP_ETAG_LEN + 1];          /* if tagged */
    const struct http_fixed_header *fixed; /* further ones, the last without a name; static; NULL: none */
    struct http_stream *stream;            /* owned; NULL: the answer is `out` */
    enum http_coding coding;               /* of what is sent */
    size_t plain;                          /* bytes of `out` before it was compressed */
    bool packed;                           /* whether it is compressed has been decided (http_pack_answer) */
    uint64_t sent;                         /* bytes of the body so far */

    /* while suspended, or put off */
    unsigned ahead; /* 1 + its place in the worker's list; AHEAD_DONE: it has been there */
    bool put_off;   /* its commit is in the worker's list, and the connection is not suspended */
    void (*committed)(struct http_request *r); /* after that */
    void (*resume)(struct http_request *r);
    void (*work)(struct http_request *r);   /* on a job thread */
    void (*opened)(struct http_request *r); /* of http_request_database, while it opens one */
    bool create;                            /* likewise: one that is not there is made */
    struct cht_job job;
    struct cht_commit commit;
    struct cht_wait wait; /* of a read that meets what is not durable yet */
    _Atomic int woken;    /* of a commit or such a read: 0 running, 1 the connection is suspended, 2 done */
    struct cht_buf value; /* owned */
    enum cht_rc rc;       /* of the work */
    struct cht_err err;
    _Alignas(max_align_t) uint8_t own_space[HTTP_REQUEST_OWN_MAX]; /* http_request_own */
};

/* Memory for the handler's arguments, n bytes at most HTTP_REQUEST_OWN_MAX, not initialised: in r->own from now on. What is larger, or
 * lives longer than the request, the handler allocates, and frees in `release`. */
static inline void *http_request_own(struct http_request *r, size_t n)
{
    CHT_INVARIANT(n <= sizeof r->own_space);
    r->own = r->own_space;
    return r->own;
}

/* Suspends the connection; then something must call request_wake. resume runs on the HTTP thread. */
void http_request_suspend(struct http_request *r, void (*resume)(struct http_request *r));
/* From any thread, once for each suspension. The request may be gone when it returns. */
void http_request_wake(struct http_request *r);
/* Runs `work` on a job thread, then `resume` here. The connection is suspended meanwhile. Threads are shared out fairly among
 * databases (exec/jobs.h): the one of r->db, else the one that http_request_owner named, else none. */
void http_request_job(struct http_request *r, void (*work)(struct http_request *r),
                      void (*resume)(struct http_request *r));
/* The same for the operator's calls: on threads that nothing else has. */
void http_request_care_job(struct http_request *r, void (*work)(struct http_request *r),
                           void (*resume)(struct http_request *r));
void http_request_owner(struct http_request *r, const char *database);
void http_request_owner_of_db(struct http_request *r); /* the one that ?db= names, before it is looked at */
/* On the HTTP thread, while no job works for it: has the token that let it in been taken out of the file since, has it lost the right, or expired? */
bool http_request_revoked(struct http_request *r);

/* What only one job of a database may do at a time. */
enum {
    HTTP_ALONE_COUNT = 1,
    HTTP_ALONE_SMOOTH = 2,
    HTTP_ALONE_CHECKPOINT = 4,
    HTTP_ALONE_DROP = 8,
    HTTP_ALONE_LINKS = 16
};
/* The same on the threads for work of seconds. alone: bits of ALONE_; whoever waits for his turn waits without a thread. */
void http_request_long_job(struct http_request *r, unsigned alone, void (*work)(struct http_request *r),
                           void (*resume)(struct http_request *r));

/* From route->feed: runs `work` on a thread for work of seconds, while nothing more of the body is read, then `resume` here; it answers, or
 * does nothing, and the body goes on. A little more of it may come in before that (http_request_in_piece): libmicrohttpd hands over what it has
 * read already. */
void http_request_piece(struct http_request *r, unsigned alone, void (*work)(struct http_request *r),
                        void (*resume)(struct http_request *r));
static inline bool http_request_in_piece(const struct http_request *r)
{
    return atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_WAITING;
}

/* The name that ?db= says; false after answering: it is none, or the token does not allow it. */
bool http_request_database_name(struct http_request *r, char name[CHT_DATABASE_NAME_MAX + 1]);
/* The database of ?db=, held in r->db, then `then` runs: at once if it is open, else on the way back from a job thread.
 * create: a write, which makes a database that is not there (unless --create-databases admin). Errors are answered. */
void http_request_database(struct http_request *r, bool create, void (*then)(struct http_request *r));

/* The body of a call with route->reads does more than read: what follows asks for the route's own right. */
static inline void http_request_needs(struct http_request *r) { r->right = r->route->right; }

/* Before a point read, while many requests come in at once: puts it off until all of this round have come so far, and what
 * they will read is on its way into the cache; then `then` runs. False: there are few requests, read now. True once at
 * most for a request. r->db is set; the name is borrowed from the request. */
bool http_request_ahead(struct http_request *r, struct cht_str name, uint64_t key,
                        void (*then)(struct http_request *r));
/* The same with several hints, and whether it is of any use to make them. */
bool http_request_ahead_all(struct http_request *r, const struct cht_hint *hints, size_t n,
                            void (*then)(struct http_request *r));
bool http_request_may_wait(const struct http_request *r);

/* For a point read on this thread, which must not wait: rc = cht_store_get_soon(..., http_request_waiter(r), ...); if that is
 * CHT_PENDING the handler ends with http_request_await, and `again`, which is to read again, runs when there is something to see. */
struct cht_wait *http_request_waiter(struct http_request *r);
void http_request_await(struct http_request *r, void (*again)(struct http_request *r));

/* What such reads left with the store is not needed any more. */
static inline void http_request_forget(struct http_request *r)
{
    if (r->wait.held != NULL)
        cht_store_forget(r->db->store, &r->wait);
}

/* Commits r->commit (its ops, count and flags are set) and runs `then`; c->rc is the result. */
void http_request_commit(struct http_request *r, void (*then)(struct http_request *r));
/* r->own of a call that is one operation. */
struct cht_op *http_request_own_operation(struct http_request *r, enum cht_op_kind kind);
/* A commit of one operation, which lives until then. */
void http_request_operation(struct http_request *r, struct cht_op *op, void (*then)(struct http_request *r));
