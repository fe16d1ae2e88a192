/* unpack: see unpack.h. */
#include "http/unpack.h"

#include "http/coding.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"

#define PIECE (32u << 10)
#define TURN (256u << 10) /* of output, made at a time */

struct http_unpack {
    struct http_decoder *decoder; /* owned */
    uint64_t came, made;          /* bytes before and after */
    size_t booked;                /* of the decoder's memory */
    struct cht_buf rest;          /* owned: input that waits, from `at` on */
    size_t at;
    bool full;     /* the decoder may have more, without input */
    bool given_up; /* the handler wants no more of the connection */
    uint8_t piece[PIECE];
};

static bool is_answered(const struct http_request *r)
{
    return r->body_over || atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_READY;
}

/* A job has what came out last (http_request_piece), and nothing is decoded before it is done. */
static bool is_busy(const struct http_request *r)
{
    return atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_WAITING;
}

static enum cht_rc book(struct http_request *r, struct http_unpack *u)
{
    size_t now = http_decoder_memory(u->decoder);
    if (now <= SVC_MEMORY_SMALL * 4 || now <= u->booked)
        return CHT_OK;
    enum cht_rc rc = svc_memory_take(&r->memory, now - u->booked, &r->err);
    if (rc == CHT_OK)
        u->booked = now;
    return rc;
}

/* Decodes for one turn; *data and *n are moved on. */
static void turn(struct http_request *r, const uint8_t **data, size_t *n,
                 bool (*take)(struct http_request *r, const char *data, size_t n))
{
    struct http_unpack *u = r->unpack;
    size_t made = 0;
    bool full = u->full;
    while ((*n > 0 || full) && made < TURN && !is_answered(r) && !is_busy(r) && !u->given_up) {
        struct http_decoding io = {.in = *data, .in_len = *n, .out = u->piece, .room = PIECE};
        enum cht_rc rc = http_decoder_run(u->decoder, &io, &r->err);
        if (rc == CHT_OK)
            rc = book(r, u);
        if (rc != CHT_OK) {
            http_reply_err(r, rc, &r->err);
            return;
        }
        *data = io.in;
        *n = io.in_len;
        full = u->full = io.room == 0;
        u->given_up = io.room < PIECE && !take(r, (const char *)u->piece, PIECE - io.room);
        made += PIECE - io.room;
    }
    u->made += made;
}

/* Input waits. It is at most as long as a body may be. */
static void keep(struct http_request *r, const uint8_t *data, size_t n)
{
    struct http_unpack *u = r->unpack;
    size_t before = u->rest.cap;
    enum cht_rc rc = CHT_OK;
    if (u->at > 0 && u->at == u->rest.len)
        u->at = u->rest.len = 0;
    if (u->rest.len + n > before) {
        size_t cap = before < PIECE ? PIECE : before;
        while (cap < u->rest.len + n)
            cap *= 2;
        rc = svc_memory_take(&r->memory, cap - before, &r->err);
        if (rc == CHT_OK)
            rc = cht_buf_reserve(&u->rest, cap, &r->err);
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return;
    }
    memcpy(u->rest.data + u->rest.len, data, n);
    u->rest.len += n;
}

/* A turn's worth of what waits. True: some is left. */
static bool go_on(struct http_request *r, bool (*take)(struct http_request *r, const char *data, size_t n))
{
    struct http_unpack *u = r->unpack;
    const uint8_t *data = u->rest.data + u->at;
    size_t n = u->rest.len - u->at, had = n;
    turn(r, &data, &n, take);
    u->at += had - n;
    return n > 0 || u->full;
}

/* ---------------------------------------------------------------------------------------------------------------- */

bool http_unpack_begin(struct http_request *r)
{
    enum http_coding coding;
    bool known = http_coding_find(r->in[HTTP_H_CONTENT_ENCODING], &coding);
    if (known && coding != HTTP_CODING_NONE && r->route->body == HTTP_BODY_BACKUP) {
        http_reply_header(r, "Accept-Encoding", "identity");
        http_reply_fail(r, CHT_UNSUPPORTED_CODING, "a backup is taken as it is");
        return false;
    }
    if (!known) {
        http_reply_header(r, "Accept-Encoding", "zstd, gzip");
        http_reply_fail(r, CHT_UNSUPPORTED_CODING, "bodies are taken as they are, with zstd, or with gzip");
        return false;
    }
    if (coding == HTTP_CODING_NONE || r->route->body == HTTP_BODY_NONE)
        return true;
    struct http_unpack *u = cht_calloc(1, sizeof *u);
    if (u != NULL)
        u->decoder = http_decoder_new(coding);
    if (u == NULL || u->decoder == NULL) {
        cht_free(u);
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a decoder");
        return false;
    }
    r->unpack = u;
    return true;
}

void http_unpack_free(struct http_request *r)
{
    struct http_unpack *u = r->unpack;
    http_metrics_add(&r->w->metrics.unpacked_in, u->came);
    http_metrics_add(&r->w->metrics.unpacked_out, u->made);
    http_decoder_free(u->decoder);
    cht_buf_free(&u->rest);
    cht_free(u);
    r->unpack = NULL;
}

bool http_unpack_take(struct http_request *r, const char *data, size_t n,
                      bool (*take)(struct http_request *r, const char *data, size_t n))
{
    struct http_unpack *u = r->unpack;
    const uint8_t *p = (const uint8_t *)data;
    u->came += n;
    if (u->came > r->body_max + HTTP_UNPACK_MORE)
        r->body_over = true;
    if (!is_answered(r) && (u->at < u->rest.len || is_busy(r))) {
        keep(r, p, n);
        if (!is_answered(r) && !is_busy(r))
            (void)go_on(r, take);
    } else if (!is_answered(r)) {
        turn(r, &p, &n, take);
        if (n > 0 && !is_answered(r) && !u->given_up)
            keep(r, p, n);
    }
    return !u->given_up;
}

enum http_unpacked http_unpack_end(struct http_request *r,
                                   bool (*take)(struct http_request *r, const char *data, size_t n))
{
    struct http_unpack *u = r->unpack;
    bool more = go_on(r, take);
    if (r->body_over)
        return HTTP_UNPACK_DONE;
    if (is_answered(r))
        return HTTP_UNPACK_ANSWERED;
    if (is_busy(r))
        return HTTP_UNPACK_BUSY;
    if (u->given_up || atomic_load_explicit(&r->cancel, memory_order_relaxed)) {
        r->close = true;
        http_reply_err(r, CHT_CANCELLED, NULL);
        return HTTP_UNPACK_ANSWERED;
    }
    if (more)
        return HTTP_UNPACK_AGAIN;
    if (http_decoder_complete(u->decoder))
        return HTTP_UNPACK_DONE;
    http_reply_fail(r, CHT_INVALID_CODING, "the body ends before what its Content-Encoding says is whole");
    return HTTP_UNPACK_ANSWERED;
}
