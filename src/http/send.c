/* send: see send.h. */
#include "http/send.h"

#include "http/pack.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"
#include "http/turn.h"

#include "base/literal.h"

static const char *const media_types[] = {
    [HTTP_MEDIA_JSON] = "application/json",
    [HTTP_MEDIA_PROBLEM] = "application/problem+json",
    [HTTP_MEDIA_NDJSON] = "application/x-ndjson",
    [HTTP_MEDIA_OCTETS] = "application/octet-stream",
    [HTTP_MEDIA_BACKUP] = "application/octet-stream",
    [HTTP_MEDIA_ARPA] = "text/plain; charset=utf-8",
    [HTTP_MEDIA_TEXT] = "text/plain; charset=utf-8",
    [HTTP_MEDIA_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
    [HTTP_MEDIA_YAML] = "application/yaml",
    [HTTP_MEDIA_HTML] = "text/html; charset=utf-8",
    [HTTP_MEDIA_SCRIPT] = "text/javascript; charset=utf-8",
    [HTTP_MEDIA_STYLE] = "text/css; charset=utf-8",
    [HTTP_MEDIA_SVG] = "image/svg+xml",
    [HTTP_MEDIA_NONE] = NULL,
};

/* What pages may read besides what they always may. */
static const char exposed[] = "Allow, Cheetah-Cache, Cheetah-Expires, Cheetah-Key, ETag, Location, "
                              "Retry-After, WWW-Authenticate, X-Request-Id";

static char no_memory[] = "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,"
                          "\"code\":\"out_of_memory\",\"detail\":\"out of memory\"}";

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    return http_stream_read(cls, buf, max);
}

static ssize_t read_packed(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    return http_pack_read(cls, buf, max);
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

static struct MHD_Response *make_response(struct http_request *r)
{
    if (r->head &&
        (r->media == HTTP_MEDIA_NDJSON || r->media == HTTP_MEDIA_BACKUP || r->media == HTTP_MEDIA_ARPA))
        return head_of_stream();
    if (r->stream != NULL)
        return MHD_create_response_from_callback(
            MHD_SIZE_UNKNOWN, 128u << 10, r->stream->pack != NULL ? read_packed : read_stream, r, NULL);
    if (r->out.failed) {
        r->status = 503;
        r->media = HTTP_MEDIA_PROBLEM;
        return MHD_create_response_from_buffer(sizeof no_memory - 1, no_memory, MHD_RESPMEM_PERSISTENT);
    }
    /* out lives until the request is recycled, which is after the answer was sent. */
    return MHD_create_response_from_buffer(r->out.n, r->out.p, MHD_RESPMEM_PERSISTENT);
}

/* With --cors-origins the answer to a request without Origin has no CORS headers, and is for no other. */
static bool by_origin(const struct http_request *r)
{
    return r->cors != NULL || r->w->srv->conf->cors_origins[0] != 0;
}

/* A short answer without headers of its own goes out in an object that is there: those with a tag are point reads. */
static bool send_prepared(struct http_request *r)
{
    if (r->media != HTTP_MEDIA_JSON || r->stream != NULL || r->coding != HTTP_CODING_NONE || r->headers > 0 ||
        r->fixed != NULL || r->close || by_origin(r) || r->tagged != r->by_accept || r->out.failed ||
        r->out.n == 0 || r->out.n > HTTP_PREPARED_BYTES || r->id_len != HTTP_PREPARED_ID ||
        r->prepared != NULL)
        return false;
    r->prepared =
        http_prepared_take(&r->w->prepared, r->w->now, r->out.p, r->out.n, r->id, r->tagged ? r->etag : NULL);
    if (r->prepared == NULL ||
        MHD_queue_response(r->mc, (unsigned)r->status, r->prepared->response) != MHD_YES)
        return false;
    atomic_store_explicit(&r->phase, HTTP_PHASE_SENT, memory_order_relaxed);
    return true;
}

/* Of which of the request's headers the answer depends, for caches; NULL: of none. A 304 of a value does not know how long it is. */
static const char *varies(const struct http_request *r)
{
    static const char *const names[2][2][2] = {
        {{NULL, "Accept-Encoding"}, {"Accept", "Accept, Accept-Encoding"}},
        {{"Origin", "Origin, Accept-Encoding"}, {"Origin, Accept", "Origin, Accept, Accept-Encoding"}}};
    bool unknown = r->by_accept && r->status == 304;
    bool coding = unknown || (r->fixed == NULL && http_pack_varies(r));
    return names[by_origin(r)][r->by_accept][coding];
}

void http_send_book(struct http_request *r)
{
    uint64_t need = r->out.cap + r->value.cap;
    need = need > 2 * SVC_MEMORY_SMALL ? need : 0;
    if (need < r->booked)
        svc_memory_give(&r->memory, r->booked - need);
    if (need <= r->booked || svc_memory_take(&r->memory, need - r->booked, &r->err) == CHT_OK) {
        r->booked = need;
        return;
    }
    if (r->owed)
        return;
    svc_out_free(&r->out);
    cht_buf_free(&r->value);
    r->headers = 0;
    r->coding = HTTP_CODING_NONE;
    http_reply_err(r, r->err.code, &r->err);
}

enum MHD_Result http_send_answer(struct http_request *r)
{
    http_send_book(r);
    if (r->in[HTTP_H_ACCEPT_ENCODING] != NULL && http_pack_answer(r))
        return MHD_YES; /* it comes again */
    r->close = r->close || http_turn_last(r);
    if (send_prepared(r))
        return MHD_YES;
    struct MHD_Response *resp = make_response(r);
    if (resp == NULL)
        return MHD_NO;
    bool ok = true;
    if (media_types[r->media] != NULL)
        ok = MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, media_types[r->media]) == MHD_YES;
    ok = ok && MHD_add_response_header(resp, "X-Request-Id", r->id) == MHD_YES;
    if (r->tagged)
        ok = ok && MHD_add_response_header(resp, MHD_HTTP_HEADER_ETAG, r->etag) == MHD_YES;
    for (unsigned i = 0; i < r->headers && ok; i++)
        ok = MHD_add_response_header(resp, r->header[i].name, r->header[i].value) == MHD_YES;
    for (const struct http_fixed_header *h = r->fixed; h != NULL && h->name != NULL && ok; h++)
        ok = MHD_add_response_header(resp, h->name, h->value) == MHD_YES;
    if (r->coding != HTTP_CODING_NONE)
        ok = ok && MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_ENCODING,
                                           http_coding_name(r->coding)) == MHD_YES;
    if (varies(r) != NULL)
        ok = ok && MHD_add_response_header(resp, MHD_HTTP_HEADER_VARY, varies(r)) == MHD_YES;
    if (r->cors != NULL) {
        ok = ok && MHD_add_response_header(resp, "Access-Control-Allow-Origin", r->cors) == MHD_YES &&
             MHD_add_response_header(resp, "Access-Control-Expose-Headers", exposed) == MHD_YES;
    }
    if (r->close)
        ok = ok && MHD_add_response_header(resp, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES;
    enum MHD_Result sent = ok ? MHD_queue_response(r->mc, (unsigned)r->status, resp) : MHD_NO;
    MHD_destroy_response(resp);
    if (sent == MHD_YES)
        atomic_store_explicit(&r->phase, HTTP_PHASE_SENT, memory_order_relaxed);
    return sent;
}

static bool is_plain(const struct http_request *r)
{
    bool coded =
        r->coding != HTTP_CODING_NONE || (r->in[HTTP_H_ACCEPT_ENCODING] != NULL && http_pack_varies(r));
    bool whole = r->stream == NULL && !r->out.failed && r->out.n > 0 && media_types[r->media] != NULL;
    return whole && !coded && !r->head && !r->close && !r->early && r->status >= 200 && r->status != 204 &&
           r->status != 304;
}

/* Appends to what has n of cap bytes; false: there is no room. */
static bool put(char *to, size_t cap, size_t *n, const char *text, size_t len)
{
    if (cap - *n < len)
        return false;
    memcpy(to + *n, text, len);
    *n += len;
    return true;
}

static bool put_header(char *to, size_t cap, size_t *n, const char *name, const char *value)
{
    return put(to, cap, n, name, strlen(name)) && put(to, cap, n, CHT_LITERAL(": ")) &&
           put(to, cap, n, value, strlen(value)) && put(to, cap, n, CHT_LITERAL("\r\n"));
}
#define PUT(literal) put(head, cap, &n, CHT_LITERAL(literal))

/* "HTTP/1.1 200 OK" and its end. */
static bool put_status(char *head, size_t cap, size_t *at, int status)
{
    size_t n = *at;
    char digits[20];
    const char *phrase = MHD_get_reason_phrase_for((unsigned)status);
    if (status == 200) {
        *at += sizeof "HTTP/1.1 200 OK\r\n" - 1;
        return PUT("HTTP/1.1 200 OK\r\n");
    }
    bool ok = PUT("HTTP/1.1 ") && put(head, cap, &n, digits, svc_out_digits(digits, (uint64_t)status)) &&
              PUT(" ") && put(head, cap, &n, phrase, strlen(phrase)) && PUT("\r\n");
    *at = n;
    return ok;
}

/* What short answers mostly lack. */
static bool put_more(const struct http_request *r, char *head, size_t cap, size_t *n)
{
    bool ok = true;
    for (unsigned i = 0; i < r->headers && ok; i++)
        ok = put_header(head, cap, n, r->header[i].name, r->header[i].value);
    for (const struct http_fixed_header *h = r->fixed; h != NULL && h->name != NULL && ok; h++)
        ok = put_header(head, cap, n, h->name, h->value);
    if (varies(r) != NULL)
        ok = ok && put_header(head, cap, n, MHD_HTTP_HEADER_VARY, varies(r));
    return ok;
}

size_t http_send_head(struct http_request *r, char *head, size_t cap)
{
    size_t n = 0;
    char digits[20];
    const char *media = media_types[r->media];
    if (!is_plain(r) || r->cors != NULL)
        return 0;
    bool ok = put_status(head, cap, &n, r->status) && PUT("Content-Type: ") &&
              put(head, cap, &n, media, strlen(media)) && PUT("\r\nDate: ") &&
              put(head, cap, &n, http_prepared_today(&r->w->prepared, r->w->now), HTTP_PREPARED_DATE) &&
              PUT("\r\nX-Request-Id: ") && put(head, cap, &n, r->id, r->id_len) && PUT("\r\n");
    if (r->tagged)
        ok = ok && PUT("ETag: ") && put(head, cap, &n, r->etag, HTTP_ETAG_LEN) && PUT("\r\n");
    ok = ok && put_more(r, head, cap, &n) && PUT("Content-Length: ") &&
         put(head, cap, &n, digits, svc_out_digits(digits, r->out.n)) && PUT("\r\n\r\n");
    return ok ? n : 0;
}
