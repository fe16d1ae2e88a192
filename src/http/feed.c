/* feed: see feed.h. */
#include "http/feed.h"

#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"

static void release(struct feed *f)
{
    cht_mutex_lock(&f->mu);
    bool last = --f->refs == 0;
    cht_mutex_unlock(&f->mu);
    if (!last)
        return;
    cht_mutex_fini(&f->mu);
    out_free(&f->text);
    cht_free(f);
}

/* mu held. */
static void wake(struct feed *f)
{
    if (f->waiting && f->stream != NULL) {
        f->waiting = false;
        stream_wake(f->stream);
    }
}

void feed_put(struct feed *f, const struct out *lines)
{
    cht_mutex_lock(&f->mu);
    if (f->stream != NULL)
        out_bytes(&f->text, lines->p, lines->n);
    wake(f);
    cht_mutex_unlock(&f->mu);
}

static void job(struct cht_task *t)
{
    struct feed *f = (struct feed *)(void *)((char *)t - offsetof(struct feed, task));
    f->work(f);
    dbs_put(f->db);
    cht_mutex_lock(&f->mu);
    f->done = true;
    wake(f);
    cht_mutex_unlock(&f->mu);
    release(f);
}

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
    return m;
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

bool feed_begin(struct request *r, void (*work)(struct feed *f), const uint64_t args[4])
{
    if (!stream_new(r, next_of_feed))
        return false;
    struct feed *f = cht_calloc(1, sizeof *f);
    if (f == NULL || cht_mutex_init(&f->mu, &r->err) != CHT_OK) {
        cht_free(f);
        reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return false;
    }
    f->refs = 2;
    f->stream = r->stream;
    f->srv = r->w->srv;
    f->db = r->db;
    f->work = work;
    f->task.run = job;
    memcpy(f->args, args, sizeof f->args);
    dbs_hold(f->db);
    r->stream->source = f;
    r->stream->free_source = let_go;
    cht_pool_submit(f->srv->long_jobs, &f->task);
    stream_begin(r);
    return true;
}
