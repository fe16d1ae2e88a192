/* reply: see reply.h. */
#include "http/reply.h"

#include "http/server.h"
#include "http/stream.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const media_types[] = {
    [MEDIA_JSON] = "application/json",
    [MEDIA_PROBLEM] = "application/problem+json",
    [MEDIA_NDJSON] = "application/x-ndjson",
    [MEDIA_OCTETS] = "application/octet-stream",
    [MEDIA_BACKUP] = "application/octet-stream",
    [MEDIA_TEXT] = "text/plain; charset=utf-8",
    [MEDIA_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
    [MEDIA_YAML] = "application/yaml",
    [MEDIA_NONE] = NULL,
};

static char no_memory[] = "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
                          "\"code\":\"out_of_memory\",\"detail\":\"out of memory\"}";

/* ------------------------------------------------------------------------------------------------------------ */

const char *status_title(int status)
{
    static const struct {
        int status;
        const char *title;
    } titles[] = {{200, "OK"},
                  {201, "Created"},
                  {204, "No Content"},
                  {400, "Bad Request"},
                  {401, "Unauthorized"},
                  {403, "Forbidden"},
                  {404, "Not Found"},
                  {405, "Method Not Allowed"},
                  {409, "Conflict"},
                  {410, "Gone"},
                  {413, "Content Too Large"},
                  {499, "Client Closed Request"},
                  {500, "Internal Server Error"},
                  {503, "Service Unavailable"},
                  {507, "Insufficient Storage"}};
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
        if (titles[i].status == status)
            return titles[i].title;
    }
    return "Error";
}

void problem_text(struct out *o, enum cht_rc rc, const char *detail)
{
    int status = cht_rc_http(rc);
    out_text(o, "{\"type\":\"about:blank\",\"title\":\"");
    out_text(o, status_title(status));
    out_text(o, "\",\"status\":");
    out_u64(o, (uint64_t)status);
    out_text(o, ",\"code\":\"");
    out_text(o, cht_rc_slug(rc));
    out_text(o, "\",\"detail\":");
    out_string(o, detail, strlen(detail));
}

void reply_media(struct request *r, int status, enum media media)
{
    r->status = status;
    r->media = media;
    atomic_store_explicit(&r->phase, PHASE_READY, memory_order_relaxed);
}

void reply_json(struct request *r, int status) { reply_media(r, status, MEDIA_JSON); }

void reply_empty(struct request *r, int status)
{
    r->out.n = 0;
    reply_media(r, status, MEDIA_NONE);
}

void reply_header(struct request *r, const char *name, const char *fmt, ...)
{
    va_list ap;
    if (r->headers == REQUEST_HEADERS)
        return;
    r->header[r->headers].name = name;
    va_start(ap, fmt);
    (void)vsnprintf(r->header[r->headers].value, sizeof r->header[0].value, fmt, ap); /* ours, short */
    va_end(ap);
    r->headers++;
}

static void reply_problem(struct request *r, enum cht_rc rc, const char *detail)
{
    stream_free(r);
    out_reset(&r->out, SIZE_MAX);
    problem_text(&r->out, rc, detail);
    out_text(&r->out, "}");
    if (cht_rc_http(rc) == 503)
        reply_header(r, "Retry-After", "1");
    if (rc == CHT_UNAUTHORIZED)
        reply_header(r, "WWW-Authenticate", "Bearer");
    reply_media(r, cht_rc_http(rc), MEDIA_PROBLEM);
}

void reply_fail(struct request *r, enum cht_rc rc, const char *fmt, ...)
{
    char detail[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    reply_problem(r, rc, n < 0 ? cht_rc_text(rc) : detail);
}

void reply_err(struct request *r, enum cht_rc rc, const struct cht_err *err)
{
    bool own = err != NULL && err->code == rc && err->msg[0] != 0;
    if (cht_rc_http(rc) >= 500 && rc != CHT_STARTING && rc != CHT_OVERLOADED && rc != CHT_DRAINING)
        log_say(r->w->srv->log, LOG_ERROR, "request_failed", "%s: %s", cht_rc_slug(rc),
                own ? err->msg : cht_rc_text(rc));
    reply_problem(r, rc, own ? err->msg : cht_rc_text(rc));
}

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    return stream_read(cls, buf, max);
}

static ssize_t read_nothing(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)cls, (void)pos, (void)buf, (void)max;
    return MHD_CONTENT_READER_END_OF_STREAM;
}

/* HEAD on a stream. libmicrohttpd would send the last chunk of a chunked answer also here, where no body may follow, so
 * the answer says nothing of the body's length, and the connection ends with it. */
static struct MHD_Response *head_of_stream(void)
{
    struct MHD_Response *resp =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, read_nothing, NULL, NULL);
    if (resp != NULL &&
        MHD_set_response_options(resp, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END) != MHD_YES) {
        MHD_destroy_response(resp);
        return NULL;
    }
    return resp;
}

static struct MHD_Response *make_response(struct request *r)
{
    if (r->head && (r->media == MEDIA_NDJSON || r->media == MEDIA_BACKUP))
        return head_of_stream();
    if (r->stream != NULL)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 128u << 10, read_stream, r, NULL);
    if (r->out.failed) {
        r->status = 503;
        r->media = MEDIA_PROBLEM;
        return MHD_create_response_from_buffer(sizeof no_memory - 1, no_memory, MHD_RESPMEM_PERSISTENT);
    }
    /* out lives until the request is recycled, which is after the answer was sent. */
    return MHD_create_response_from_buffer(r->out.n, r->out.p, MHD_RESPMEM_PERSISTENT);
}

/* A short answer without headers of its own goes out in an object that is there. */
static bool send_prepared(struct request *r)
{
    if (r->media != MEDIA_JSON || r->stream != NULL || r->headers > 0 || r->close || r->out.failed ||
        r->out.n == 0 || r->out.n > PREPARED_BYTES || r->id_len != PREPARED_ID || r->prepared != NULL)
        return false;
    r->prepared = prepared_take(&r->w->prepared, r->out.p, r->out.n, r->id);
    if (r->prepared == NULL ||
        MHD_queue_response(r->mc, (unsigned)r->status, r->prepared->response) != MHD_YES)
        return false;
    atomic_store_explicit(&r->phase, PHASE_SENT, memory_order_relaxed);
    return true;
}

enum MHD_Result reply_send(struct request *r)
{
    if (send_prepared(r))
        return MHD_YES;
    struct MHD_Response *resp = make_response(r);
    if (resp == NULL)
        return MHD_NO;
    bool ok = true;
    if (media_types[r->media] != NULL)
        ok = MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, media_types[r->media]) == MHD_YES;
    ok = ok && MHD_add_response_header(resp, "X-Request-Id", r->id) == MHD_YES;
    for (unsigned i = 0; i < r->headers && ok; i++)
        ok = MHD_add_response_header(resp, r->header[i].name, r->header[i].value) == MHD_YES;
    if (r->close)
        ok = ok && MHD_add_response_header(resp, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES;
    enum MHD_Result sent = ok ? MHD_queue_response(r->mc, (unsigned)r->status, resp) : MHD_NO;
    MHD_destroy_response(resp);
    if (sent == MHD_YES)
        atomic_store_explicit(&r->phase, PHASE_SENT, memory_order_relaxed);
    return sent;
}
