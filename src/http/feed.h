/* feed: an answer made by a job that may run for long, and goes on after its client has gone until it looks at `cancel`.
 *
 * Job and stream each hold the feed; it goes with the last of them. While the job is silent the stream says every half
 * second how far it is (the worker's tick), and the same tick cancels a job whose client has gone, whose database is being
 * dropped or whose server stops.
 *
 *   http_feed_begin   a stream from the start: what fails later is its last line
 *   http_feed_await   the request is suspended until the job is done (an error has a status of its own) or the first
 *                progress is due
 */
#pragma once

#include "http/stream.h"

#include "os/thread.h"

struct http_feed;

struct http_feed_kind {
    uint64_t
        memory; /* bytes that a job takes whatever it is asked: booked of --memory-bytes while it waits and runs */
    void (*work)(struct http_feed *f); /* on a job thread */
    /* Headers, before the stream begins; done: the job is done. NULL: none. */
    void (*begin)(struct http_feed *f, struct http_request *r, bool done);
    /* A line, while the job runs; mu is held. NULL: none, and http_feed_await waits for the first text. */
    void (*progress)(struct http_feed *f, struct svc_out *o);
    enum http_more (*last)(struct http_feed *f, struct http_stream *s, const char **p,
                           size_t *n); /* after the job's lines;
                                                                                       NULL: nothing */
    void (*fini)(struct http_feed *f); /* frees what it holds; NULL: nothing */
};

/* The first member of a job's own struct. */
struct http_feed {
    const struct http_feed_kind *kind;
    struct cht_mutex mu;
    struct cht_cond taken;        /* some of the text was */
    struct svc_out text;          /* guarded by mu: not yet taken */
    bool done;                    /* guarded by mu */
    bool ended;                   /* guarded by mu: its last line is said */
    bool waiting;                 /* guarded by mu: the stream wants to be woken */
    struct http_request *asleep;  /* guarded by mu: of http_feed_await, suspended */
    struct http_stream *stream;   /* guarded by mu: NULL when the client has gone */
    unsigned refs;                /* guarded by mu */
    uint64_t said_ns;             /* guarded by mu: when the last line was added */
    struct svc_memory_use memory; /* what it has booked beside the request */
    _Atomic bool cancel;
    struct http_server *srv;
    struct svc_database *db; /* held */
    struct cht_job job;      /* exclusive: the caller's, ALONE_... */
    uint64_t count;          /* the job's: lines */
    enum cht_rc rc;          /* the job's, of http_feed_await: set before it ends */
    struct cht_err err;      /* likewise */
};

/* Without memory for it the answer is that: 503. Answers r with the feed, which is taken (from cht_calloc, with `kind` set; its size is the caller's). */
void http_feed_begin(struct http_request *r, struct http_feed *f);
void http_feed_await(struct http_request *r, struct http_feed *f);
/* Appends whole lines (of the job). */
void http_feed_put(struct http_feed *f, const struct svc_out *lines);
/* The same with the last ones: no progress comes after them. */
void http_feed_end(struct http_feed *f, const struct svc_out *lines);
/* Waits until at most `bytes` of the text are not taken yet; false: nobody will take it, or has for a
 * minute. For jobs that make more than fits. */
bool http_feed_room(struct http_feed *f, size_t bytes);
