/* changes: GET /changes/{prefix}: what changed under a prefix, from the log of the database, as a stream that follows it for a while.
 *
 *     job     reads the log and writes lines, at most a piece; the stream takes them, and starts it again
 *     at the end of the log: no thread, no job, nothing but the listed wait, until on_news (a commit), the time is over, or the server stops
 *
 * One of three has the follower: the job while `running`, the store's list while `listed` (it calls on_news), else the HTTP thread. So the
 * stream is woken once for each HTTP_MORE_LATER: by the job, by on_news, or by the tick after it has taken the follower off the list.
 */
#include "cheetah/changes.h"

#include "http/calls/handlers.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"

#define PIECE (48u << 10)                /* of lines, for one job */
#define WAIT_MAX UINT64_C(86400)         /* seconds */
#define SILENCE_NS UINT64_C(10000000000) /* then a line says how far it is */
#define SECOND UINT64_C(1000000000)

/* What the request asked. */
struct asked {
    struct cht_str prefix; /* borrowed from the URI */
    uint64_t after, limit, wait;
};

struct following {
    struct cht_changes *changes; /* owned; NULL: not open yet */
    struct svc_database *db;     /* held; NULL before */
    struct http_server *srv;
    bool text;
    uint64_t limit, end_ns, said_ns, count;
    bool tip;        /* the last step has read all that there was */
    bool greeted;    /* it has said where it waits */
    bool over;       /* the last line is made */
    bool stop;       /* the time is over: what there was when it began is still told */
    uint64_t target; /* the newest change then */
    struct cht_wait wait;
    _Atomic bool listed;
    struct cht_mutex mu;
    bool running;               /* guarded by mu, as all below */
    bool waiting;               /* the stream wants to be woken by the job */
    struct http_stream *stream; /* NULL: gone; the last to notice frees all */
    struct svc_out lines;       /* the job's while running */
    bool enough;                /* the limit is reached */
    enum cht_rc rc;             /* of the last step */
    struct cht_err err;
    struct cht_job job;
};

static void destroy(struct following *f)
{
    cht_changes_close(f->changes);
    svc_dbs_put(f->db);
    svc_out_free(&f->lines);
    cht_mutex_fini(&f->mu);
    cht_free(f);
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static void put_change(struct svc_out *o, const struct cht_change *c, bool text)
{
    bool named = c->kind <= CHT_CHANGE_PREFIX_DEL;
    bool deleted = c->kind != CHT_CHANGE_PAIR_SET && c->kind != CHT_CHANGE_VALUE_SET;
    svc_out_text(o, "{\"seq\":");
    svc_out_u64(o, c->number);
    svc_out_text(o, ",");
    if (named)
        http_ndjson_put_member(o, HTTP_MEMBER_PAIR, c->name, text);
    else
        svc_out_text(o, text ? "\"name\":null" : "\"pair\":null");
    svc_out_text(o, ",\"key\":");
    if (c->kind == CHT_CHANGE_PAIR_DEL || c->kind == CHT_CHANGE_PREFIX_DEL)
        svc_out_text(o, "null");
    else
        svc_out_u64(o, c->key);
    svc_out_text(o, deleted ? ",\"deleted\":true" : ",\"deleted\":false");
    if (c->kind == CHT_CHANGE_PREFIX_DEL)
        svc_out_text(o, ",\"recursive\":true");
    svc_out_text(o, c->more ? ",\"more\":true}\n" : "}\n");
}

static bool take(void *ctx, const struct cht_change *c)
{
    struct following *f = ctx;
    put_change(&f->lines, c, f->text);
    f->count++;
    f->enough = f->limit > 0 && f->count >= f->limit && !c->more;
    return !f->enough && f->lines.n < PIECE && !f->lines.failed;
}

static void put_range(struct svc_out *o, struct cht_store *s)
{
    struct cht_changes_range range = {0};
    (void)cht_changes_range(s, &range, NULL); /* both 0 then: not known */
    svc_out_text(o, ",\"oldest\":");
    svc_out_u64(o, range.oldest);
    svc_out_text(o, ",\"newest\":");
    svc_out_u64(o, range.newest);
}

/* The line that ends it. */
static void put_end(struct http_stream *s, struct following *f)
{
    if (f->rc != CHT_OK && f->rc != CHT_PENDING) {
        svc_out_text(&s->stage, "{\"error\":");
        http_problem_text(&s->stage, f->rc, f->err.msg[0] != 0 ? f->err.msg : cht_rc_text(f->rc));
        if (f->rc == CHT_GONE)
            put_range(&s->stage, f->db->store);
        svc_out_text(&s->stage, "}}\n");
        s->failed = true;
        return;
    }
    svc_out_text(&s->stage, "{\"end\":{\"count\":");
    svc_out_u64(&s->stage, f->count);
    svc_out_text(&s->stage, ",\"next\":");
    svc_out_u64(&s->stage, cht_changes_position(f->changes));
    svc_out_text(&s->stage, "}}\n");
}

static void put_progress(struct http_stream *s, struct following *f)
{
    svc_out_text(&s->stage, "{\"progress\":{\"seq\":");
    svc_out_u64(&s->stage, cht_changes_position(f->changes));
    svc_out_text(&s->stage, "}}\n");
    f->greeted = true;
    f->said_ns = cht_now_ns();
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static void read_job(struct cht_job *t)
{
    struct following *f = (struct following *)(void *)((char *)t - offsetof(struct following, job));
    struct cht_err err = {0};
    enum cht_rc rc = cht_changes_next(f->changes, take, f, &err);
    if (f->lines.failed)
        rc = CHT_FAIL(&err, CHT_NO_MEMORY, "no memory for the changes");
    cht_mutex_lock(&f->mu);
    f->running = false;
    f->rc = rc;
    f->err = err;
    f->tip = rc == CHT_PENDING;
    f->said_ns = cht_now_ns();
    bool gone = f->stream == NULL;
    if (f->waiting && !gone) {
        f->waiting = false;
        http_stream_wake(f->stream);
    }
    cht_mutex_unlock(&f->mu);
    if (gone)
        destroy(f);
}

/* When the server has stopped its job threads there is one thread left, this one. */
static void start(struct following *f)
{
    f->job.run = read_job;
    if (f->srv->jobs != NULL)
        cht_jobs_submit(f->srv->jobs, &f->job);
    else
        read_job(&f->job);
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

static void on_news(struct cht_wait *w)
{
    struct following *f = w->ctx;
    atomic_store_explicit(&f->listed, false, memory_order_release);
    http_stream_wake(f->stream); /* it is there: who frees it takes the follower off the list first */
}

/* At the end of the log: true if it is listed, false if there is more already. */
static bool await_news(struct following *f)
{
    f->wait.done = on_news;
    f->wait.ctx = f;
    atomic_store_explicit(&f->listed, true, memory_order_relaxed);
    if (cht_changes_await(f->changes, &f->wait) == CHT_PENDING)
        return true;
    atomic_store_explicit(&f->listed, false, memory_order_relaxed);
    return false;
}

static enum http_more give(struct http_stream *s, const char **p, size_t *n)
{
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

/* What a step has left: lines, or a reason to end. False: neither. The job is not running. */
static bool result(struct http_stream *s, struct following *f)
{
    s->stage.n = 0;
    if (f->lines.n > 0) {
        struct svc_out empty = s->stage;
        s->stage = f->lines;
        f->lines = empty;
        f->lines.failed = false;
        return true;
    }
    bool leaving = atomic_load_explicit(&f->srv->state, memory_order_relaxed) != HTTP_SERVER_READY;
    bool seen = f->tip || cht_changes_position(f->changes) >= f->target;
    f->stop = f->stop || cht_now_ns() >= f->end_ns;
    f->over = f->enough || (f->rc != CHT_OK && f->rc != CHT_PENDING) || leaving || (seen && f->stop);
    if (f->over)
        put_end(s, f);
    return f->over;
}

static enum http_more next_of_changes(struct http_stream *s, const char **p, size_t *n)
{
    struct following *f = s->source;
    if (f->over)
        return HTTP_MORE_END;
    if (atomic_load_explicit(&f->listed, memory_order_acquire))
        return HTTP_MORE_LATER;
    cht_mutex_lock(&f->mu);
    bool running = f->running;
    f->waiting = running;
    cht_mutex_unlock(&f->mu);
    if (running)
        return HTTP_MORE_LATER;
    if (result(s, f))
        return give(s, p, n);
    if (f->tip && !f->greeted) {
        put_progress(s, f);
        return give(s, p, n);
    }
    if (f->tip && await_news(f))
        return HTTP_MORE_LATER;
    f->tip = false;
    f->running = f->waiting = true; /* nobody else looks at them before the job begins */
    start(f);
    return HTTP_MORE_LATER;
}

/* The follower is the HTTP thread's again; false if it was not listed. */
static bool take_off(struct following *f)
{
    if (!atomic_load_explicit(&f->listed, memory_order_acquire))
        return false;
    cht_changes_forget(f->changes);
    return atomic_exchange_explicit(&f->listed, false, memory_order_acq_rel);
}

static void let_go(struct http_stream *s)
{
    struct following *f = s->source;
    if (f->changes != NULL)
        cht_changes_forget(f->changes); /* also if it is on no list any more: on_news is over after this */
    cht_mutex_lock(&f->mu);
    f->stream = NULL;
    bool running = f->running;
    cht_mutex_unlock(&f->mu);
    if (!running)
        destroy(f);
}

static void tick(struct http_stream *s, uint64_t now, bool stop)
{
    struct following *f = s->source;
    if (!atomic_load_explicit(&f->listed, memory_order_acquire))
        return; /* a job has it, or a commit has woken the stream: only this thread begins the next job */
    bool leaving = atomic_load_explicit(&f->srv->state, memory_order_relaxed) != HTTP_SERVER_READY;
    bool fin = s->r->conn->gate.fin; /* it may still read: what is sent to it tells */
    bool due = now >= f->end_ns || leaving || stop,
         silent = now > f->said_ns + (fin ? SECOND / 2 : SILENCE_NS);
    if (s->ended || (!due && !silent) || !take_off(f))
        return;
    f->stop = f->stop || due;
    f->greeted = due;
    http_stream_wake(s);
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

static void open_job(struct http_request *r)
{
    struct following *f = r->stream->source;
    const struct asked *a = r->own;
    f->db = r->db;
    svc_dbs_hold(f->db);
    r->rc = cht_changes_open(r->db->store, a->prefix, a->after, &f->changes, &r->err);
    if (r->rc != CHT_OK) {
        f->changes = NULL;
        return;
    }
    struct cht_changes_range range = {0};
    (void)cht_changes_range(r->db->store, &range, NULL); /* 0 then: the time alone ends it */
    f->target = range.newest;
}

static void reply_gone(struct http_request *r)
{
    r->stream->free(r);
    svc_out_reset(&r->out, SIZE_MAX);
    http_problem_text(&r->out, CHT_GONE, r->err.msg);
    put_range(&r->out, r->db->store);
    svc_out_text(&r->out, "}");
    http_reply_media(r, cht_rc_http(CHT_GONE), HTTP_MEDIA_PROBLEM);
}

static void opened(struct http_request *r)
{
    if (r->rc == CHT_GONE) {
        reply_gone(r);
    } else if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
    } else if (r->head) {
        r->stream->free(r);
        http_reply_media(r, 200, HTTP_MEDIA_NDJSON);
    } else {
        r->stream->ended = false;
        http_stream_begin(r);
    }
}

/* The stream is `ended` until it begins: nobody looks at it before, and it is freed with the request whatever happens. */
static void begin(struct http_request *r)
{
    const struct asked *a = r->own;
    if (!http_stream_new(r, next_of_changes))
        return;
    r->stream->ended = true;
    struct following *f = cht_calloc(1, sizeof *f);
    if (f == NULL || cht_mutex_init(&f->mu, &r->err) != CHT_OK) {
        cht_free(f);
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    f->srv = r->w->srv;
    f->stream = r->stream;
    f->text = r->text;
    f->limit = a->limit;
    f->said_ns = cht_now_ns();
    f->end_ns = f->said_ns + a->wait * SECOND;
    f->job.owner = cht_jobs_owner(r->db->name, strlen(r->db->name));
    r->stream->source = f;
    r->stream->free_source = let_go;
    r->stream->tick = tick;
    http_request_job(r, open_job, opened);
}

/* ------------------------------------------------------------------------------------------------------------------ */

void http_changes_get(struct http_request *r)
{
    struct asked *a = http_request_own(r, sizeof *a);
    *a = (struct asked){0};
    const struct http_param_value *after = &r->param[HTTP_P_AFTER];
    bool now = after->p != NULL && CHT_IS(after->p, after->n, "now");
    a->after = CHT_CHANGES_NOW;
    if ((now || http_param_number(r, HTTP_P_AFTER, 0, UINT64_MAX / 2, CHT_CHANGES_OLDEST, &a->after)) &&
        http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &a->limit) &&
        http_param_number(r, HTTP_P_WAIT, 0, WAIT_MAX, 0, &a->wait) && http_rest_bytes(r, true, &a->prefix))
        http_request_database(r, false, begin);
}
