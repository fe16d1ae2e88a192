/* arpa: GET /arpa, the live model as text. What fails before the first text has a status of its own; later the stream is cut off, and the
 * text has no \end\: nobody takes it for a model. */
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/feed.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "lm/kn_arpa.h"

#define WAITING (4u << 20) /* text that was not taken yet: the job waits */

struct exporting {
    struct http_feed feed; /* first */
    bool words;
};

static bool sink(void *ctx, const char *p, size_t n)
{
    struct http_feed *f = ctx;
    struct svc_out text = {0};
    svc_out_bytes(&text, p, n);
    bool ok = !text.failed;
    if (ok)
        http_feed_put(f, &text);
    svc_out_free(&text);
    return ok && http_feed_room(f, WAITING);
}

static enum cht_rc write_model(struct http_server *srv, struct svc_database *db, bool words,
                               const _Atomic bool *cancel, lm_kn_arpa_sink *to, void *ctx,
                               struct cht_err *err)
{
    enum cht_rc rc = lm_kn_arpa_write(http_shared(srv)->lm, db->store, words, cancel, to, ctx, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        rc = CHT_FAIL(err, CHT_NOT_LIVE, "database '%s' has no live model", db->name);
    return rc;
}

static void work(struct http_feed *f)
{
    f->rc = write_model(f->srv, f->db, ((struct exporting *)f)->words, &f->cancel, sink, f, &f->err);
}

static void begin(struct http_feed *f, struct http_request *r, bool done)
{
    (void)f, (void)done;
    r->stream->arpa = true;
}

static enum http_more last(struct http_feed *f, struct http_stream *s, const char **p, size_t *n)
{
    (void)p, (void)n;
    s->cut = f->rc != CHT_OK;
    return HTTP_MORE_END;
}

/* HEAD: the model is looked at until there is a first text. */
static bool first_text(void *ctx, const char *p, size_t n)
{
    (void)p, (void)n;
    *(bool *)ctx = true;
    return false;
}

static void look(struct http_request *r)
{
    bool begun = false;
    r->rc = write_model(r->w->srv, r->db, r->text, &r->cancel, first_text, &begun, &r->err);
    if (begun)
        r->rc = CHT_OK;
}

static void looked(struct http_request *r)
{
    if (r->rc == CHT_OK)
        http_reply_media(r, 200, HTTP_MEDIA_ARPA);
    else
        http_reply_err(r, r->rc, &r->err);
}

static void export(struct http_request *r)
{
    static const struct http_feed_kind kind = {
        .memory = CHT_SCAN_MEMORY, .work = work, .begin = begin, .last = last};
    if (r->head) {
        http_request_long_job(r, HTTP_ALONE_COUNT, look, looked);
        return;
    }
    struct exporting *e = cht_calloc(1, sizeof *e);
    if (e == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    e->feed.kind = &kind;
    e->feed.job.exclusive = HTTP_ALONE_COUNT;
    e->words = r->text;
    http_feed_await(r, &e->feed);
}

void http_arpa_get(struct http_request *r) { http_request_database(r, false, export); }
