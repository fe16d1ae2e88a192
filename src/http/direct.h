/* direct: long text of a stream goes from where it lies to the socket, as one chunk, past libmicrohttpd, whose chunks are as long as half of a
 * connection's memory and are copied into that first.
 *
 *   http_stream_read  -> begin: libmicrohttpd gets a stand-in, of bytes that nobody will see
 *   its send()        -> inlet -> send: the text in place of the stand-in, with the head and the end of a chunk if the stand-in came with those
 *
 * libmicrohttpd waits for room, and counts what the client takes as life: while text moves, a byte of the stand-in counts as sent for each call, and
 * all of it when all of the text has gone. It asks for more text only then, so the text stays where it is until then. Not with TLS.
 */
#pragma once

#include "http/stream.h"

/* Is the text at s->at worth it? */
bool http_direct_fits(const struct http_stream *s);
/* The text at s->at will be sent so: what libmicrohttpd gets in its place, at most max bytes at buf. */
size_t http_direct_begin(struct http_stream *s, char *buf, size_t max);
/* For cht_tap.write, in place of n bytes. */
ptrdiff_t http_direct_send(struct http_stream *s, int fd, size_t n);
