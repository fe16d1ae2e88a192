/* feed: see feed.h. */
#include "http/feed.h"

#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/clock.h"

#define LOOK_NS UINT64_C(100000000)    /* how often a job that waits looks whether it is still wanted */
#define STALL_NS UINT64_C(60000000000) /* a client that takes nothing for that long has gone */
#define SILENCE_NS UINT64_C(500000000) /* and at most a tick (0.2 s) more */

static void destroy(struct http_feed *f)
{
    if (f->kind->fini != NULL)
        f->kind->fini(f);
    svc_out_free(&f->text);
    if (f->memory.budget != NULL)
        svc_memory_end(&f->memory);
    cht_free(f);
}

static void release(struct http_feed *f)
{
    cht_mutex_lock(&f->mu);
    bool last = --f->refs == 0;
    cht_mutex_unlock(&f->mu);
    if (!last)
        return;
    cht_cond_fini(&f->taken);
    cht_mutex_fini(&f->mu);
    destroy(f);
}

/* mu held. */
static void wake(struct http_feed *f)
{
    if (f->asleep != NULL) {
        http_request_wake(f->asleep);
        f->asleep = NULL;
    } else if (f->waiting && f->stream != NULL) {
        f->waiting = false;
        http_stream_wake(f->stream);
    }
}

/* ---- the job --------------------------------------------------------------------------------------------------- */

static void put(struct http_feed *f, const struct svc_out *lines, bool last)
{
    cht_mutex_lock(&f->mu);
    f->ended = last;
    if (f->stream != NULL)
        svc_out_bytes(&f->text, lines->p, lines->n);
    f->said_ns = cht_now_ns();
    wake(f);
    cht_mutex_unlock(&f->mu);
}

void http_feed_put(struct http_feed *f, const struct svc_out *lines) { put(f, lines, false); }

void http_feed_end(struct http_feed *f, const struct svc_out *lines) { put(f, lines, true); }

bool http_feed_room(struct http_feed *f, size_t bytes)
{
    uint64_t end = cht_now_ns() + STALL_NS;
    cht_mutex_lock(&f->mu);
    while (f->text.n > bytes && f->stream != NULL &&
           !atomic_load_explicit(&f->cancel, memory_order_relaxed) && cht_now_ns() < end)
        (void)cht_cond_wait_ns(&f->taken, &f->mu, LOOK_NS); /* a cancellation wakes nobody */
    if (f->text.n > bytes)                                  /* the client has taken nothing for so long */
        atomic_store_explicit(&f->cancel, true, memory_order_relaxed);
    bool ok = f->stream != NULL && !atomic_load_explicit(&f->cancel, memory_order_relaxed);
    cht_mutex_unlock(&f->mu);
    return ok;
}

static void job(struct cht_job *t)
{
    struct http_feed *f = (struct http_feed *)(void *)((char *)t - offsetof(struct http_feed, job));
    struct http_server *srv = f->srv;
    atomic_fetch_add_explicit(&srv->feeds, 1, memory_order_relaxed);
    if (atomic_load_explicit(&f->cancel, memory_order_relaxed)) /* it waited for a thread for too long */
        f->rc = CHT_FAIL(&f->err, CHT_CANCELLED, "cancelled");
    else
        f->kind->work(f);
    svc_dbs_put(f->db);
    atomic_fetch_sub_explicit(&srv->feeds, 1, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    f->done = true;
    wake(f);
    cht_mutex_unlock(&f->mu);
    release(f);
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static enum http_more next_of_feed(struct http_stream *s, const char **p, size_t *n)
{
    struct http_feed *f = s->source;
    enum http_more m = HTTP_MORE_TEXT;
    s->stage.n = 0;
    cht_mutex_lock(&f->mu);
    if (f->text.failed) { /* lines are missing, before others perhaps */
        s->cut = true;
        m = HTTP_MORE_END;
    } else if (f->text.n > 0) {
        struct svc_out empty = s->stage;
        s->stage = f->text;
        f->text = empty;
        f->text.failed = false;
        cht_cond_signal(&f->taken);
    } else if (f->done) {
        m = HTTP_MORE_END;
    } else {
        f->waiting = true;
        m = HTTP_MORE_LATER;
    }
    cht_mutex_unlock(&f->mu);
    *p = s->stage.p;
    *n = s->stage.n;
    return m == HTTP_MORE_END && !s->cut && f->kind->last != NULL ? f->kind->last(f, s, p, n) : m;
}

static void let_go(struct http_stream *s)
{
    struct http_feed *f = s->source;
    atomic_store_explicit(&f->cancel, true, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    f->stream = NULL;
    cht_cond_signal(&f->taken);
    cht_mutex_unlock(&f->mu);
    release(f);
}

static void tick(struct http_stream *s, uint64_t now, bool stop)
{
    struct http_feed *f = s->source;
    if (stop)
        atomic_store_explicit(&f->cancel, true, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    if (f->kind->progress != NULL && !f->done && !f->ended && f->text.n == 0 &&
        now > f->said_ns + SILENCE_NS) {
        f->kind->progress(f, &f->text);
        f->said_ns = now;
        wake(f);
    }
    cht_mutex_unlock(&f->mu);
}

/* What http_feed_await waited for: the job is done, or it takes its time. */
static void go_on(struct http_request *r)
{
    struct http_feed *f = r->stream->source;
    cht_mutex_lock(&f->mu);
    bool done = f->done, failed = done && f->rc != CHT_OK && f->text.n == 0;
    cht_mutex_unlock(&f->mu);
    if (failed) {
        bool dropped = f->rc == CHT_CANCELLED && atomic_load_explicit(&r->db->dropping, memory_order_relaxed);
        bool stopping = f->rc == CHT_CANCELLED &&
                        atomic_load_explicit(&f->srv->state, memory_order_relaxed) == HTTP_SERVER_CLOSING;
        struct cht_err err = f->err; /* the feed goes with the stream, which an error has no use for */
        enum cht_rc rc = dropped ? CHT_DATABASE_DROPPED : stopping ? CHT_DRAINING : f->rc;
        http_reply_err(r, rc, &err);
        return;
    }
    if (f->kind->begin != NULL)
        f->kind->begin(f, r, done);
    http_stream_begin(r);
}

static bool init(struct http_feed *f, struct cht_err *err)
{
    if (cht_mutex_init(&f->mu, err) != CHT_OK)
        return false;
    if (cht_cond_init(&f->taken, err) == CHT_OK)
        return true;
    cht_mutex_fini(&f->mu);
    return false;
}

/* Makes the stream and ties both together; false after answering. */
static bool join(struct http_request *r, struct http_feed *f)
{
    f->memory = (struct svc_memory_use){.budget = &r->w->srv->memory, .beside = true};
    bool ok = svc_memory_take(&f->memory, f->kind->memory, &r->err) == CHT_OK;
    if (!ok)
        http_reply_err(r, r->err.code, &r->err);
    ok = ok && http_stream_new(r, next_of_feed);
    if (ok && !init(f, &r->err)) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        ok = false;
    }
    if (!ok) {
        destroy(f);
        return false;
    }
    f->refs = 2;
    f->stream = r->stream;
    f->srv = r->w->srv;
    f->db = r->db;
    f->job.run = job;
    f->job.owner = cht_jobs_owner(f->db->name, strlen(f->db->name));
    f->said_ns = cht_now_ns();
    svc_dbs_hold(f->db);
    r->stream->source = f;
    r->stream->free_source = let_go;
    r->stream->tick = tick;
    return true;
}

/* ---------------------------------------------------------------------------------------------------------------- */

void http_feed_begin(struct http_request *r, struct http_feed *f)
{
    if (!join(r, f))
        return;
    cht_jobs_submit(f->srv->long_jobs, &f->job);
    http_stream_begin(r);
}

void http_feed_await(struct http_request *r, struct http_feed *f)
{
    if (!join(r, f))
        return;
    f->asleep = r;
    http_request_suspend(r, go_on);
    cht_jobs_submit(r->w->srv->long_jobs, &f->job);
}
