/* backup_feed: see backup_feed.h. One piece is sent while a job reads the next; whoever comes second, the stream or the job, finds the
 * other's mark under mu.
 */
#include "http/calls/backup_feed.h"

#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "cheetah/backup.h"

#define PIECE_BYTES (1u << 20)

struct serving {
    struct cht_backup *backup; /* owned; NULL: not open yet; the job's while running */
    struct http_server *srv;
    struct svc_database *db; /* held; NULL before */
    struct cht_mutex mu;
    bool running;               /* guarded by mu, as all below: a job reads into piece[1 - sending] */
    bool ready;                 /* that piece is to be sent next */
    bool waiting;               /* the stream wants to be woken */
    bool gone;                  /* the client has gone: the last to notice frees all */
    struct http_stream *stream; /* NULL: gone */
    uint8_t *piece[2];          /* owned */
    size_t len;                 /* of the one that is ready */
    unsigned sending;
    bool told; /* how it ended */
    enum cht_rc rc;
    struct cht_err err;
    struct cht_job job;
};

static void free_serving(struct serving *s)
{
    cht_backup_close(s->backup);
    svc_dbs_put(s->db);
    cht_mutex_fini(&s->mu);
    cht_free(s->piece[0]);
    cht_free(s->piece[1]);
    cht_free(s);
}

static void close_job(struct cht_job *t)
{
    free_serving((struct serving *)(void *)((char *)t - offsetof(struct serving, job)));
}

static void read_job(struct cht_job *t)
{
    struct serving *s = (struct serving *)(void *)((char *)t - offsetof(struct serving, job));
    size_t n = 0;
    struct cht_err err = {0};
    enum cht_rc rc = cht_backup_read(s->backup, s->piece[1 - s->sending], PIECE_BYTES, &n, &err);
    if (rc != CHT_OK)
        svc_log_say(s->srv->log, SVC_LOG_ERROR, "backup_failed", "%s: %s", s->db->name, err.msg);
    cht_mutex_lock(&s->mu);
    s->running = false;
    s->ready = true;
    s->len = n;
    s->rc = rc;
    s->err = err;
    bool gone = s->gone;
    if (s->waiting && s->stream != NULL) {
        s->waiting = false;
        http_stream_wake(s->stream);
    }
    cht_mutex_unlock(&s->mu);
    if (gone)
        free_serving(s);
}

/* When the server has stopped its job threads there is one thread left, this one. */
static void start(struct serving *s, void (*run)(struct cht_job *t))
{
    s->job.run = run;
    if (s->srv->jobs != NULL)
        cht_jobs_submit(s->srv->jobs, &s->job);
    else
        run(&s->job);
}

static enum http_more end_badly(struct http_stream *st, const struct serving *s, const char **p, size_t *n)
{
    st->stage.n = 0;
    http_stream_error_line(st, s->rc, s->err.msg);
    *p = st->stage.p;
    *n = st->stage.n;
    return st->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static enum http_more next_of_backup(struct http_stream *st, const char **p, size_t *n)
{
    struct serving *s = st->source;
    enum http_more m = HTTP_MORE_LATER;
    bool read_on = false;
    *n = 0;
    cht_mutex_lock(&s->mu);
    if (!s->running && s->ready) {
        s->ready = false;
        m = s->told || (s->rc == CHT_OK && s->len == 0) ? HTTP_MORE_END : HTTP_MORE_TEXT;
        if (m == HTTP_MORE_TEXT && s->rc == CHT_OK) {
            s->sending = 1 - s->sending;
            *p = (const char *)s->piece[s->sending];
            *n = s->len;
            read_on = true;
        } else if (m == HTTP_MORE_TEXT) {
            m = end_badly(st, s, p, n);
            s->told = s->ready = true;
        }
    } else {
        s->waiting = true;
        read_on = !s->running;
    }
    s->running |= read_on;
    cht_mutex_unlock(&s->mu);
    if (read_on)
        start(s, read_job);
    return m;
}

static void let_go(struct http_stream *st)
{
    struct serving *s = st->source;
    cht_mutex_lock(&s->mu);
    s->stream = NULL;
    s->gone = true;
    bool running = s->running;
    cht_mutex_unlock(&s->mu);
    if (running)
        return; /* the job may have freed it by now */
    if (s->backup == NULL)
        free_serving(s);
    else
        start(s, close_job);
}

/* ------------------------------------------------------------------------------------------------------------ */

/* The stream is `ended` until there is something to send: nobody looks at it before, and it is freed with the request
 * whatever happens.
 */
bool http_backup_begin(struct http_request *r)
{
    if (!http_stream_new(r, next_of_backup))
        return false;
    r->stream->ended = true;
    struct serving *s = cht_calloc(1, sizeof *s);
    if (s == NULL || cht_mutex_init(&s->mu, &r->err) != CHT_OK) {
        cht_free(s);
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a backup");
        return false;
    }
    s->srv = r->w->srv;
    s->stream = r->stream;
    s->piece[0] = cht_malloc(PIECE_BYTES);
    s->piece[1] = cht_malloc(PIECE_BYTES);
    r->stream->source = s;
    r->stream->free_source = let_go;
    if (s->piece[0] == NULL || s->piece[1] == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a backup");
        return false;
    }
    return true;
}

void http_backup_prepare(struct http_request *r)
{
    struct serving *s = r->stream->source;
    s->db = r->db;
    svc_dbs_hold(s->db);
    r->rc = cht_backup_open(r->db->store, &s->backup, &r->err);
    if (r->rc != CHT_OK)
        s->backup = NULL;
}

void http_backup_reply(struct http_request *r)
{
    r->stream->ended = false;
    http_reply_media(r, 200, HTTP_MEDIA_BACKUP);
}
