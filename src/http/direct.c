/* direct: see direct.h. */
#include "http/direct.h"

#include "http/server.h"

#include "os/net.h"

#include <stdio.h>

#define MIN (32u << 10) /* of text: less is copied as fast */
#define STAND_IN 4096u  /* as many calls of send may find room for some of the text */
#define FRAME_MAX 24u   /* of libmicrohttpd's chunk around the stand-in */

static const char ending[] = "\r\n";

bool http_direct_fits(const struct http_stream *s) { return s->left >= MIN && !s->r->w->tap.tls; }

size_t http_direct_begin(struct http_stream *s, char *buf, size_t max)
{
    size_t n = max < STAND_IN ? max : STAND_IN;
    memset(buf, 0, n);
    s->direct = (struct http_direct){.on = true, .stand_in = n, .left = s->left};
    return n;
}

/* n bytes stand for the text: with a chunk around them, or, for a client of HTTP/1.0, without. */
static bool frame(struct http_direct *d, size_t n)
{
    if (n < d->stand_in || n > d->stand_in + FRAME_MAX)
        return false;
    d->framed = true;
    if (n > d->stand_in) {
        d->head_n = (size_t)snprintf(d->head, sizeof d->head, "%zx\r\n", d->left);
        d->tail_n = sizeof ending - 1;
    }
    return true;
}

static size_t some_of(size_t *sent, size_t left)
{
    size_t n = *sent < left ? *sent : left;
    *sent -= n;
    return n;
}

static void advance(struct http_stream *s, size_t sent)
{
    struct http_direct *d = &s->direct;
    d->head_at += some_of(&sent, d->head_n - d->head_at);
    size_t text = some_of(&sent, d->left);
    d->left -= text;
    s->at += text;
    s->left -= text;
    s->bytes += text;
    d->tail_at += sent;
}

ptrdiff_t http_direct_send(struct http_stream *s, int fd, size_t n)
{
    struct http_direct *d = &s->direct;
    if ((!d->framed && !frame(d, n)) || d->left != s->left) /* or its rest was lost when the stream was cut */
        return CHT_TAP_FAILED;
    const struct cht_net_part parts[CHT_NET_PARTS_MAX] = {{d->head + d->head_at, d->head_n - d->head_at},
                                                          {s->at, d->left},
                                                          {ending + d->tail_at, d->tail_n - d->tail_at}};
    ptrdiff_t sent = cht_net_send_parts(fd, parts, CHT_NET_PARTS_MAX);
    if (sent < 0)
        return sent == CHT_NET_LATER ? CHT_TAP_LATER : CHT_TAP_FAILED;
    advance(s, (size_t)sent);
    if (d->left == 0 && d->tail_at == d->tail_n) {
        d->on = false;
        return (ptrdiff_t)n;
    }
    return sent > 0 && n > 1 ? 1 : CHT_TAP_LATER;
}
