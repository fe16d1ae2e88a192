/* pack: answers that are compressed, for clients that ask for it (Accept-Encoding): streams, and whole ones over HTTP_PACK_LEAST bytes.
 *
 * Nothing is compressed on an HTTP thread. A whole answer is compressed by a job before it is sent. Of a stream, a job compresses one block
 * while the next one is filled and the last one sent; a block ends when it is full or the source has nothing more for now, and what comes out
 * of it can be decoded at once: a slow stream arrives line by line. A stream that ends within HTTP_PACK_LEAST bytes goes out as it is; to know
 * that, its headers wait for its first text.
 */
#pragma once

#include "http/request.h"

#define HTTP_PACK_LEAST 1024u

struct http_pack;

/* Before an answer is sent, once it is HTTP_PHASE_READY: what is to be done about its coding. True: in a moment; the request is suspended, and
 * ready again then. False: r->coding is decided, and r->stream->pack is there if the stream has been looked into. */
bool http_pack_answer(struct http_request *r);
/* Could it have been compressed, had the client asked for it? Then caches are told (Vary). */
bool http_pack_varies(const struct http_request *r);
/* In place of http_stream_read where r->stream->pack is there. */
ssize_t http_pack_read(struct http_request *r, char *buf, size_t max);
