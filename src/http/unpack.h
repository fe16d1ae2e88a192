/* unpack: bodies that come compressed (Content-Encoding). What comes out goes to the handlers as any body does, and all limits are of that.
 *
 * No thread is held for long by a body that expands to much: of each part that comes in no more than 256 KiB of output is made, what input is
 * left waits, and when the body is all there it is done in turns with other connections. What waits is booked (service/memory.h), and so is
 * the decoder's window.
 */
#pragma once

#include "http/request.h"

#define HTTP_UNPACK_MORE (64u << 10) /* by how much compressed bytes may be more than what comes out */

/* By the Content-Encoding of a request with a body; false after answering 415 or 503. */
bool http_unpack_begin(struct http_request *r);
/* Frees r->unpack. */
void http_unpack_free(struct http_request *r);
/* A part of the body; `take` gets what comes out, and its false is passed on. Errors are answered. */
bool http_unpack_take(struct http_request *r, const char *data, size_t n,
                      bool (*take)(struct http_request *r, const char *data, size_t n));

enum http_unpacked {
    HTTP_UNPACK_DONE,    /* all has been taken, or it is too long (r->body_over) */
    HTTP_UNPACK_AGAIN,   /* there is more to do */
    HTTP_UNPACK_BUSY,    /* a job has what came out (http_request_piece): ask again when it is done */
    HTTP_UNPACK_ANSWERED /* with an error */
};
/* The body is all there, and no job is at work for it: the phase is BODY. */
enum http_unpacked http_unpack_end(struct http_request *r,
                                   bool (*take)(struct http_request *r, const char *data, size_t n));
