/* reply: see reply.h. */
#include "http/reply.h"

#include "http/server.h"
#include "http/stream.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

#define REFUSAL_NS UINT64_C(1000000000)

/* ------------------------------------------------------------------------------------------------------------ */

const char *http_status_title(int status)
{
    static const struct {
        int status;
        const char *title;
    } titles[] = {{200, "OK"},
                  {201, "Created"},
                  {204, "No Content"},
                  {303, "See Other"},
                  {304, "Not Modified"},
                  {400, "Bad Request"},
                  {401, "Unauthorized"},
                  {403, "Forbidden"},
                  {404, "Not Found"},
                  {405, "Method Not Allowed"},
                  {409, "Conflict"},
                  {410, "Gone"},
                  {412, "Precondition Failed"},
                  {413, "Content Too Large"},
                  {414, "URI Too Long"},
                  {415, "Unsupported Media Type"},
                  {431, "Request Header Fields Too Large"},
                  {499, "Client Closed Request"},
                  {500, "Internal Server Error"},
                  {501, "Not Implemented"},
                  {503, "Service Unavailable"},
                  {505, "HTTP Version Not Supported"},
                  {507, "Insufficient Storage"}};
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
        if (titles[i].status == status)
            return titles[i].title;
    }
    return "Error";
}

void http_problem_text(struct svc_out *o, enum cht_rc rc, const char *detail)
{
    int status = cht_rc_http(rc);
    svc_out_text(o, "{\"type\":\"about:blank\",\"title\":\"");
    svc_out_text(o, http_status_title(status));
    svc_out_text(o, "\",\"status\":");
    svc_out_u64(o, (uint64_t)status);
    svc_out_text(o, ",\"code\":\"");
    svc_out_text(o, cht_rc_slug(rc));
    svc_out_text(o, "\",\"detail\":");
    svc_out_string(o, detail, strlen(detail));
}

void http_problem_line(struct svc_out *o, enum cht_rc rc, const struct cht_err *err)
{
    svc_out_text(o, "{\"error\":");
    http_problem_text(o, rc, err->msg[0] != 0 ? err->msg : cht_rc_text(rc));
    svc_out_text(o, "}}\n");
}

void http_reply_media(struct http_request *r, int status, enum http_media media)
{
    r->status = status;
    r->media = media;
    atomic_store_explicit(&r->phase, HTTP_PHASE_READY, memory_order_relaxed);
}

void http_reply_json(struct http_request *r, int status) { http_reply_media(r, status, HTTP_MEDIA_JSON); }

void http_reply_tag(struct http_request *r, uint64_t tag)
{
    http_etag_text(r->etag, tag);
    r->tagged = true;
}

void http_reply_empty(struct http_request *r, int status)
{
    r->out.n = 0;
    http_reply_media(r, status, HTTP_MEDIA_NONE);
}

void http_reply_header(struct http_request *r, const char *name, const char *fmt, ...)
{
    va_list ap;
    if (r->headers == HTTP_REQUEST_HEADERS)
        return;
    r->header[r->headers].name = name;
    va_start(ap, fmt);
    (void)vsnprintf(r->header[r->headers].value, sizeof r->header[0].value, fmt, ap); /* ours, short */
    va_end(ap);
    r->headers++;
}

static void reply_problem(struct http_request *r, enum cht_rc rc, const char *detail)
{
    if (r->stream != NULL)
        r->stream->free(r);
    r->tagged = r->by_accept = false;
    svc_out_reset(&r->out, SIZE_MAX);
    http_problem_text(&r->out, rc, detail);
    svc_out_text(&r->out, "}");
    if (cht_rc_http(rc) == 503)
        http_reply_header(r, "Retry-After", rc == CHT_TIMEOUT ? "5" : "1");
    if (rc == CHT_UNAUTHORIZED)
        http_reply_header(r, "WWW-Authenticate", "Bearer");
    http_reply_media(r, cht_rc_http(rc), HTTP_MEDIA_PROBLEM);
}

void http_reply_fail(struct http_request *r, enum cht_rc rc, const char *fmt, ...)
{
    char detail[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    reply_problem(r, rc, n < 0 ? cht_rc_text(rc) : detail);
}

/* A failure of the server's own is logged; of conditions that last, which the store tells by itself, a line a second. */
static bool worth_a_line(struct http_request *r, enum cht_rc rc)
{
    int status = cht_rc_http(rc);
    if (status < 500 || status == 501 || status == 505 || rc == CHT_STARTING || rc == CHT_OVERLOADED ||
        rc == CHT_DRAINING)
        return false;
    if (rc != CHT_READ_ONLY && rc != CHT_TIMEOUT && (!cht_rc_passing(rc) || rc == CHT_NO_MEMORY))
        return true;
    uint64_t now = cht_now_ns(), last = atomic_load_explicit(&r->w->srv->refusal_ns, memory_order_relaxed);
    return now - last >= REFUSAL_NS &&
           atomic_compare_exchange_strong_explicit(&r->w->srv->refusal_ns, &last, now, memory_order_relaxed,
                                                   memory_order_relaxed);
}

void http_reply_err(struct http_request *r, enum cht_rc rc, const struct cht_err *err)
{
    bool own = err != NULL && err->code == rc && err->msg[0] != 0;
    if (rc == CHT_DATABASE_DROPPED && r->db != NULL)
        svc_dbs_gone(r->db);
    if (worth_a_line(r, rc))
        svc_log_say(r->w->srv->log, SVC_LOG_ERROR, "request_failed", "%s: %s", cht_rc_slug(rc),
                    own ? err->msg : cht_rc_text(rc));
    reply_problem(r, rc, own ? err->msg : cht_rc_text(rc));
}
