/* restore: PUT /databases/{name}/restore: a database made of a backup's bytes, as they arrive (cheetah/backup.h).
 *
 *   feed      pieces of the body are collected to PIECE bytes; then a job writes them, and the connection is not read meanwhile, so that
 *             the sender goes no faster than the disk
 *   run       the body is all there: the last piece, then the database appears (cht_restore_finish), its log is redone, and every page is
 *             compared with its sum; of one that does not pass that is said, and it stays
 *
 * Until then there is none, whatever happens: a client that goes, a stop, a crash. Once it has appeared it is not removed: others may have
 * written to it, or have put another one in its place.
 */
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "cheetah/backup.h"

#define PIECE (1u << 20)

struct restoring {
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct cht_restore *restore; /* owned; NULL before the first piece is written */
    struct svc_out piece;        /* not written yet */
    struct svc_out more;         /* what comes in once more while a job writes the piece */
    enum cht_rc rc;              /* of the pieces */
    struct cht_job job;
};

/* Unless it was finished nothing of it stays: files are removed, so not on the HTTP thread. */
static void let_go(struct cht_job *t)
{
    struct restoring *s = (struct restoring *)(void *)((char *)t - offsetof(struct restoring, job));
    cht_restore_free(s->restore);
    svc_out_free(&s->piece);
    svc_out_free(&s->more);
    cht_free(s);
}

/* When the server has stopped its job threads there is one thread left, this one. */
static void release(struct http_request *r)
{
    struct restoring *s = r->own;
    s->job.run = let_go;
    if (s->restore != NULL && r->w->srv->jobs != NULL)
        cht_jobs_submit(r->w->srv->jobs, &s->job);
    else
        let_go(&s->job);
}

/* What is wrong with the bytes is the sender's: no value of ours is damaged. */
static enum cht_rc of_backup(enum cht_rc rc)
{
    return rc == CHT_CORRUPT || rc == CHT_VERSION ? CHT_INVALID_BACKUP : rc;
}

/* False after answering. */
static bool begin(struct http_request *r)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    if (!http_database_name(r, r->rest_len - strlen(r->route->suffix), name))
        return false;
    enum cht_rc rc = svc_memory_take(&r->memory, 2 * (uint64_t)PIECE, &r->err);
    struct restoring *s = rc == CHT_OK ? cht_calloc(1, sizeof *s) : NULL;
    if (s == NULL) {
        http_reply_err(r, rc != CHT_OK ? rc : CHT_NO_MEMORY, rc != CHT_OK ? &r->err : NULL);
        return false;
    }
    memcpy(s->name, name, sizeof name);
    r->own = s;
    r->release = release;
    return true;
}

/* On a job thread: what was collected goes to the disk. */
static void write_piece(struct http_request *r)
{
    struct restoring *s = r->own;
    if (atomic_load_explicit(&r->cancel, memory_order_relaxed))
        s->rc = CHT_FAIL(&r->err, CHT_CANCELLED, "cancelled");
    if (s->rc == CHT_OK && s->restore == NULL)
        s->rc = cht_restore_new(r->w->srv->env, s->name, &s->restore, &r->err);
    if (s->rc == CHT_OK)
        s->rc = of_backup(cht_restore_feed(s->restore, s->piece.p, s->piece.n, &r->err));
    s->piece.n = 0;
    if (s->rc != CHT_OK) { /* the name is free before it is answered */
        cht_restore_free(s->restore);
        s->restore = NULL;
    }
}

/* Every page with its sum: the stream has sums of its own, this finds what the disk made of it. A remote store has no such pages, and sums of its own. */
static enum cht_rc compare(struct http_request *r)
{
    struct cht_scrub scrub = {.bytes_per_second = 0};
    if (cht_store_remote(r->db->store))
        return CHT_OK;
    enum cht_rc rc = cht_store_scrub(r->db->store, &scrub, &r->err);
    if (rc == CHT_OK && scrub.bad > 0)
        rc = CHT_FAIL(&r->err, CHT_CORRUPT, "the database is there, but %.150s", scrub.first.msg);
    return rc;
}

static bool nobody_waits(void *ctx)
{
    const struct http_request *r = ctx;
    return atomic_load_explicit(&r->cancel, memory_order_relaxed);
}

/* On a job thread: the database appears. */
static void finish(struct http_request *r)
{
    struct restoring *s = r->own;
    struct svc_dbs *dbs = r->w->srv->dbs;
    bool created;
    write_piece(r);
    if (s->rc == CHT_OK) {
        cht_restore_ask(s->restore, nobody_waits, r);
        s->rc = of_backup(cht_restore_finish(s->restore, &r->err));
    }
    cht_restore_free(s->restore);
    s->restore = NULL;
    r->rc = s->rc;
    if (r->rc != CHT_OK)
        return;
    r->rc = svc_dbs_open(dbs, s->name, false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        r->rc = compare(r);
    if (r->rc == CHT_OK) {
        http_database_describe(r);
        return;
    }
    svc_log_say(r->w->srv->log, SVC_LOG_ERROR, "restore_failed",
                "%s is there and could not be found whole: %s", s->name, r->err.msg);
}

/* The piece is empty again: what came in meanwhile is the beginning of the next one. */
static void piece_is_written(struct http_request *r)
{
    struct restoring *s = r->own;
    struct svc_out empty = s->piece;
    s->piece = s->more;
    s->more = empty;
    if (s->rc == CHT_OK && s->piece.failed)
        s->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a piece of a backup");
}

static void answer(struct http_request *r)
{
    const struct restoring *s = r->own;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    svc_log_say(r->w->srv->log, SVC_LOG_INFO, "restored", "%s", s->name);
    http_reply_header(r, "Location", "/databases/%.64s", s->name);
    http_reply_json(r, 201);
}

/* ---------------------------------------------------------------------------------------------------------------- */

bool http_databases_restore_feed(struct http_request *r, const char *data, size_t n)
{
    if (r->own == NULL && !begin(r))
        return true;
    struct restoring *s = r->own;
    if (http_request_in_piece(r)) {
        svc_out_bytes(&s->more, data, n);
        return true;
    }
    r->moved_ns = r->w->now;
    if (s->rc == CHT_OK) {
        svc_out_bytes(&s->piece, data, n);
        if (s->piece.failed)
            s->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a piece of a backup");
    }
    if (s->rc != CHT_OK) {
        r->skip_ns = r->w->now;
        http_reply_err(r, s->rc, &r->err);
    } else if (s->piece.n >= PIECE) {
        http_request_piece(r, 0, write_piece, piece_is_written);
    }
    return true;
}

void http_databases_restore(struct http_request *r)
{
    if (r->own == NULL && !begin(r)) /* an empty body */
        return;
    http_request_long_job(r, 0, finish, answer);
}
