/* feed: see feed.h. */
#include "http/feed.h"

#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/clock.h"

#define SILENCE_NS UINT64_C(500000000) /* and at most a tick (0.2 s) more */

static void destroy(struct feed *f)
{
    if (f->kind->fini != NULL)
        f->kind->fini(f);
    out_free(&f->text);
    cht_free(f);
}

static void release(struct feed *f)
{
    cht_mutex_lock(&f->mu);
    bool last = --f->refs == 0;
    cht_mutex_unlock(&f->mu);
    if (!last)
        return;
    cht_mutex_fini(&f->mu);
    destroy(f);
}

/* mu held. */
static void wake(struct feed *f)
{
    if (f->asleep != NULL) {
        request_wake(f->asleep);
        f->asleep = NULL;
    } else if (f->waiting && f->stream != NULL) {
        f->waiting = false;
        stream_wake(f->stream);
    }
}

/* ---- the job --------------------------------------------------------------------------------------------------- */

void feed_put(struct feed *f, const struct out *lines)
{
    cht_mutex_lock(&f->mu);
    if (f->stream != NULL)
        out_bytes(&f->text, lines->p, lines->n);
    f->said_ns = cht_now_ns();
    wake(f);
    cht_mutex_unlock(&f->mu);
}

static void job(struct cht_job *t)
{
    struct feed *f = (struct feed *)(void *)((char *)t - offsetof(struct feed, job));
    struct server *srv = f->srv;
    atomic_fetch_add_explicit(&srv->feeds, 1, memory_order_relaxed);
    if (atomic_load_explicit(&f->cancel, memory_order_relaxed)) /* it waited for a thread for too long */
        f->rc = CHT_FAIL(&f->err, CHT_CANCELLED, "cancelled");
    else
        f->kind->work(f);
    dbs_put(f->db);
    atomic_fetch_sub_explicit(&srv->feeds, 1, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    f->done = true;
    wake(f);
    cht_mutex_unlock(&f->mu);
    release(f);
}

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static enum more next_of_feed(struct stream *s, const char **p, size_t *n)
{
    struct feed *f = s->source;
    enum more m = MORE_TEXT;
    s->stage.n = 0;
    cht_mutex_lock(&f->mu);
    if (f->text.n > 0) {
        struct out empty = s->stage;
        s->stage = f->text;
        f->text = empty;
        f->text.failed = false;
    } else if (f->done) {
        m = MORE_END;
    } else {
        f->waiting = true;
        m = MORE_LATER;
    }
    cht_mutex_unlock(&f->mu);
    *p = s->stage.p;
    *n = s->stage.n;
    return m == MORE_END && f->kind->last != NULL ? f->kind->last(f, s, p, n) : m;
}

static void let_go(struct stream *s)
{
    struct feed *f = s->source;
    atomic_store_explicit(&f->cancel, true, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    f->stream = NULL;
    cht_mutex_unlock(&f->mu);
    release(f);
}

static void tick(struct stream *s, uint64_t now, bool stop)
{
    struct feed *f = s->source;
    if (stop)
        atomic_store_explicit(&f->cancel, true, memory_order_relaxed);
    cht_mutex_lock(&f->mu);
    if (!f->done && f->text.n == 0 && now > f->said_ns + SILENCE_NS) {
        f->kind->progress(f, &f->text);
        f->said_ns = now;
        wake(f);
    }
    cht_mutex_unlock(&f->mu);
}

/* What feed_await waited for: the job is through, or it takes its time. */
static void go_on(struct request *r)
{
    struct feed *f = r->stream->source;
    cht_mutex_lock(&f->mu);
    bool done = f->done, failed = done && f->rc != CHT_OK && f->text.n == 0;
    cht_mutex_unlock(&f->mu);
    if (failed) {
        bool dropped = f->rc == CHT_CANCELLED && atomic_load_explicit(&r->db->dropping, memory_order_relaxed);
        bool stopping = f->rc == CHT_CANCELLED &&
                        atomic_load_explicit(&f->srv->state, memory_order_relaxed) == SERVER_CLOSING;
        struct cht_err err = f->err; /* the feed goes with the stream, which an error has no use for */
        enum cht_rc rc = dropped ? CHT_DATABASE_DROPPED : stopping ? CHT_DRAINING : f->rc;
        reply_err(r, rc, &err);
        return;
    }
    if (f->kind->begin != NULL)
        f->kind->begin(f, r, done);
    stream_begin(r);
}

/* Makes the stream and ties both together; false after answering. */
static bool join(struct request *r, struct feed *f)
{
    bool ok = stream_new(r, next_of_feed);
    if (ok && cht_mutex_init(&f->mu, &r->err) != CHT_OK) {
        reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
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
    dbs_hold(f->db);
    r->stream->source = f;
    r->stream->free_source = let_go;
    r->stream->tick = tick;
    return true;
}

/* ---------------------------------------------------------------------------------------------------------------- */

void feed_begin(struct request *r, struct feed *f)
{
    if (!join(r, f))
        return;
    cht_jobs_submit(f->srv->long_jobs, &f->job);
    stream_begin(r);
}

void feed_await(struct request *r, struct feed *f)
{
    if (!join(r, f))
        return;
    f->asleep = r;
    request_suspend(r, go_on);
    cht_jobs_submit(r->w->srv->long_jobs, &f->job);
}
