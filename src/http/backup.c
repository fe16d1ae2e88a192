/* backup: see backup.h. One piece is sent while a job reads the next; whoever comes second, the stream or the job, finds the
 * other's mark under mu.
 */
#include "http/backup.h"

#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "cheetah/backup.h"

#define PIECE_BYTES (1u << 20)

struct serving {
    struct cht_backup *backup; /* owned; the job's while running */
    struct server *srv;
    struct database *db; /* held */
    struct cht_mutex mu;
    bool running;          /* guarded by mu, as all below: a job reads into piece[1 - sending] */
    bool ready;            /* that piece is to be sent next */
    bool waiting;          /* the stream wants to be woken */
    bool gone;             /* the client has gone: the last to notice frees all */
    struct stream *stream; /* NULL: none yet, or gone */
    uint8_t *piece[2];     /* owned */
    size_t len;            /* of the one that is ready */
    unsigned sending;
    bool told; /* how it ended */
    enum cht_rc rc;
    struct cht_err err;
    struct cht_task task;
};

static void free_serving(struct serving *s)
{
    cht_backup_close(s->backup);
    dbs_put(s->db);
    cht_mutex_fini(&s->mu);
    cht_free(s->piece[0]);
    cht_free(s->piece[1]);
    cht_free(s);
}

static void close_job(struct cht_task *t)
{
    free_serving((struct serving *)(void *)((char *)t - offsetof(struct serving, task)));
}

static void read_job(struct cht_task *t)
{
    struct serving *s = (struct serving *)(void *)((char *)t - offsetof(struct serving, task));
    size_t n = 0;
    struct cht_err err = {0};
    enum cht_rc rc = cht_backup_read(s->backup, s->piece[1 - s->sending], PIECE_BYTES, &n, &err);
    if (rc != CHT_OK)
        log_say(s->srv->log, LOG_ERROR, "backup_failed", "%s: %s", s->db->name, err.msg);
    cht_mutex_lock(&s->mu);
    s->running = false;
    s->ready = true;
    s->len = n;
    s->rc = rc;
    s->err = err;
    bool gone = s->gone;
    if (s->waiting && s->stream != NULL) {
        s->waiting = false;
        stream_wake(s->stream);
    }
    cht_mutex_unlock(&s->mu);
    if (gone)
        free_serving(s);
}

/* When the server has stopped its job threads there is one thread left, this one. */
static void start(struct serving *s, void (*run)(struct cht_task *t))
{
    s->task.run = run;
    if (s->srv->jobs != NULL)
        cht_pool_submit(s->srv->jobs, &s->task);
    else
        run(&s->task);
}

static enum more end_badly(struct stream *st, const struct serving *s, const char **p, size_t *n)
{
    st->stage.n = 0;
    stream_error_line(st, s->rc, s->err.msg);
    *p = st->stage.p;
    *n = st->stage.n;
    return st->stage.failed ? MORE_END : MORE_TEXT;
}

static enum more next_of_backup(struct stream *st, const char **p, size_t *n)
{
    struct serving *s = st->source;
    enum more m = MORE_LATER;
    bool read_on = false;
    *n = 0;
    cht_mutex_lock(&s->mu);
    if (!s->running && s->ready) {
        s->ready = false;
        m = s->told || (s->rc == CHT_OK && s->len == 0) ? MORE_END : MORE_TEXT;
        if (m == MORE_TEXT && s->rc == CHT_OK) {
            s->sending = 1 - s->sending;
            *p = (const char *)s->piece[s->sending];
            *n = s->len;
            read_on = true;
        } else if (m == MORE_TEXT) {
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

static void let_go(struct stream *st)
{
    struct serving *s = st->source;
    cht_mutex_lock(&s->mu);
    s->stream = NULL;
    s->gone = true;
    bool running = s->running;
    cht_mutex_unlock(&s->mu);
    if (!running)
        start(s, close_job);
}

/* ------------------------------------------------------------------------------------------------------------ */

void backup_prepare(struct request *r)
{
    struct serving *s = cht_calloc(1, sizeof *s);
    if (s == NULL || cht_mutex_init(&s->mu, &r->err) != CHT_OK) {
        cht_free(s);
        r->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a backup");
        return;
    }
    s->srv = r->w->srv;
    s->db = r->db;
    dbs_hold(s->db);
    for (int i = 0; i < 2; i++) {
        s->piece[i] = cht_malloc(PIECE_BYTES);
        if (s->piece[i] == NULL)
            r->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a backup");
    }
    if (r->rc == CHT_OK)
        r->rc = cht_backup_open(r->db->store, &s->backup, &r->err);
    if (r->rc != CHT_OK)
        free_serving(s);
    else
        r->backup = s;
}

void backup_reply(struct request *r)
{
    struct serving *s = r->backup;
    if (!stream_new(r, next_of_backup))
        return;
    r->backup = NULL;
    s->stream = r->stream;
    r->stream->source = s;
    r->stream->free_source = let_go;
    reply_media(r, 200, MEDIA_BACKUP);
}

void backup_drop(struct serving *s)
{
    if (s != NULL)
        start(s, close_job);
}
