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

static void work(struct http_feed *f)
{
    f->rc = lm_kn_arpa_write(http_shared(f->srv)->lm, f->db->store, ((struct exporting *)f)->words,
                             &f->cancel, sink, f, &f->err);
    if (f->rc == CHT_PAIR_NOT_FOUND)
        f->rc = CHT_FAIL(&f->err, CHT_NOT_LIVE, "database '%s' has no live model", f->db->name);
}

static void begin(struct http_feed *f, struct http_request *r, bool done)
{
    (void)f, (void)done;
    r->stream->arpa = true;
}

static void progress(struct http_feed *f, struct svc_out *o) { (void)f, (void)o; }

static enum http_more last(struct http_feed *f, struct http_stream *s, const char **p, size_t *n)
{
    (void)p, (void)n;
    s->cut = f->rc != CHT_OK;
    return HTTP_MORE_END;
}

static void export(struct http_request *r)
{
    static const struct http_feed_kind kind = {
        .memory = CHT_SCAN_MEMORY, .work = work, .begin = begin, .progress = progress, .last = last};
    if (r->head) {
        http_reply_media(r, 200, HTTP_MEDIA_ARPA);
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
