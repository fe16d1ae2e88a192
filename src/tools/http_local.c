/* http_local: see http_local.h. A body of unknown length goes out in chunks. If the server ends the connection while it is sent, there
 * may be an answer that says why, so it is read all the same.
 */
#include "tools/http_local.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/sock.h"
#include "service/out.h"

#include <stdio.h>
#include <string.h>

#define PIECE (256u << 10)

static bool send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ptrdiff_t some = cht_sock_write(fd, p, n);
        if (some <= 0)
            return false;
        p += some;
        n -= (size_t)some;
    }
    return true;
}

static void make_head(const struct tool_request *r, struct svc_out *o)
{
    bool body = r->body != NULL || r->source != NULL;
    const char *method = r->method != NULL ? r->method : body ? "POST" : "GET";
    svc_out_format(o, "%s ", method);
    svc_out_text(o, r->path);
    svc_out_text(o, " HTTP/1.1\r\nHost: localhost\r\n");
    if (r->accept != NULL)
        svc_out_format(o, "Accept: %s\r\n", r->accept);
    if (r->condition != NULL)
        svc_out_format(o, "%s\r\n", r->condition);
    if (body)
        svc_out_format(o, "Content-Type: %s\r\n",
                       r->content_type != NULL ? r->content_type : "application/octet-stream");
    if (r->body != NULL)
        svc_out_format(o, "Content-Length: %zu\r\n", r->body_len);
    else if (r->source != NULL)
        svc_out_text(o, "Transfer-Encoding: chunked\r\n");
    svc_out_text(o, "\r\n");
}

/* *cancelled: the source gave up. False also if the server does not read any more. */
static bool send_chunks(int fd, const struct tool_request *r, char *buf, bool *cancelled)
{
    for (;;) {
        char head[24];
        size_t n = r->source(r->source_ctx, buf, PIECE);
        *cancelled = n == TOOL_CLIENT_ABORT;
        if (*cancelled)
            return false;
        int len = snprintf(head, sizeof head, "%zx\r\n", n);
        if (!send_all(fd, head, (size_t)len) || !send_all(fd, buf, n) || !send_all(fd, CHT_LITERAL("\r\n")))
            return false;
        if (n == 0)
            return true;
    }
}

static enum cht_rc receive(int fd, char *buf, tool_local_body *fn, void *ctx, struct tool_answer *a,
                           struct cht_err *err)
{
    for (;;) {
        ptrdiff_t got = cht_sock_read(fd, buf, PIECE);
        if (got <= 0)
            return CHT_FAIL(err, CHT_IO, "the connection ended before the answer did");
        size_t at = 0, used;
        for (;;) {
            const char *body;
            size_t n;
            enum tool_answer_next next = tool_answer_read(a, buf + at, (size_t)got - at, &used, &body, &n);
            at += used;
            if (next == TOOL_ANSWER_DONE)
                return CHT_OK;
            if (next == TOOL_ANSWER_BAD)
                return CHT_FAIL(err, CHT_IO, "what came is no answer of HTTP/1.1");
            if (next == TOOL_ANSWER_MORE)
                break;
            if (!fn(ctx, a, body, n))
                return CHT_FAIL(err, CHT_CANCELLED, "the request was given up");
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc tool_local_run(int fd, const struct tool_request *r, tool_local_body *fn, void *ctx,
                           struct tool_answer *a, struct cht_err *err)
{
    struct svc_out head = {0};
    char *buf = cht_malloc(PIECE);
    bool cancelled = false, sent = false;
    tool_answer_begin(a, r->method != NULL && strcmp(r->method, "HEAD") == 0);
    make_head(r, &head);
    enum cht_rc rc = CHT_OK;
    if (buf == NULL || head.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a request");
    if (rc == CHT_OK) {
        sent = send_all(fd, head.p, head.n);
        if (sent && r->body != NULL)
            sent = send_all(fd, r->body, r->body_len);
        else if (sent && r->source != NULL)
            sent = send_chunks(fd, r, buf, &cancelled);
        if (cancelled)
            rc = CHT_FAIL(err, CHT_CANCELLED, "the request was given up");
    }
    if (rc == CHT_OK)
        rc = receive(fd, buf, fn, ctx, a, err);
    if (rc == CHT_OK && !sent)
        a->closes = true;
    svc_out_free(&head);
    cht_free(buf);
    return rc;
}
