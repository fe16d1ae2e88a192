/* gate: reads what a client sends before libmicrohttpd does, and lets only requests through whose length nobody can take for another
 * (RFC 9112, sections 2.2, 3, 5 and 6). One for a connection; its thread's.
 *
 *   the socket -> http_gate_read -> libmicrohttpd's buffer
 *
 * Only what was judged is passed on: whole lines, and the beginning of a long one; half a line is kept here until its end has come. What
 * is wrong is not passed on: the request ends there, in a form that libmicrohttpd takes for a whole one, gate.bad says which error it gets, and nothing after it is read.
 * Blanks around values, chunk extensions and trailers are left out on the way, and cookies are made unreadable, since
 * libmicrohttpd would make copies of them.
 *
 *   LINE -> HEADERS -> LINE                                 no body
 *                   -> BODY -> LINE                         Content-Length
 *                   -> SIZE -> DATA -> DATA_END -> SIZE     chunked
 *                      SIZE (0) -> TRAILERS -> LINE
 *   any -> OVER                                             bad, or the end
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"
#include "os/tap.h"

#define HTTP_GATE_LAST 480u /* of headers that are remembered */
#define HTTP_GATE_HELD \
    1024u /* of a line that has not ended yet; of a longer one the beginning is passed on */

enum http_gate_state {
    HTTP_GATE_LINE,
    HTTP_GATE_HEADERS,
    HTTP_GATE_BODY,
    HTTP_GATE_SIZE,
    HTTP_GATE_DATA,
    HTTP_GATE_DATA_END,
    HTTP_GATE_TRAILERS,
    HTTP_GATE_OVER
};

/* Headers that were judged, of a request without a body or with a Content-Length. */
struct http_gate_headers {
    unsigned n;                      /* bytes of text: with the empty line */
    bool old;                        /* of HTTP/1.0 */
    bool sized;                      /* with a Content-Length, */
    uint64_t length;                 /* of that many bytes */
    uint64_t serial;                 /* another one each time that they are other headers */
    size_t spent, entries, repeated; /* as in http_gate, of the headers alone */
    char text[HTTP_GATE_LAST];
};

struct http_gate {
    enum http_gate_state state;
    enum cht_rc bad;       /* of the last request that was begun; CHT_OK: none */
    const char *why;       /* for people; static */
    uint64_t begun, ended; /* requests whose first line was passed on, and those that were whole */
    uint64_t done;         /* answered; the owner's */
    uint64_t left;         /* bytes of the body or the chunk that are still to come */
    bool fin;              /* the client has ended its side, though not all may be read yet; the owner's */
    bool eof;              /* all is read */
    bool again;            /* there may be more to read, which libmicrohttpd does not know */
    bool mid;              /* the beginning of this line was passed on */
    bool old;              /* HTTP/1.0 */
    bool query;            /* the target has a question mark */
    bool chunked, sized;   /* there was a Transfer-Encoding, a Content-Length */
    unsigned hosts;        /* headers of that name */
    unsigned trailers;     /* bytes of them */
    size_t memory;         /* of libmicrohttpd for a request (--max-header-bytes); set at the start */
    size_t text;           /* bytes of the request line and the headers so far */
    size_t entries;        /* headers and parameters so far */
    size_t repeated; /* bytes that the answer's headers repeat of the request's, or add because of them */
    uint64_t length; /* Content-Length */
    char *
        held; /* owned, twice HTTP_GATE_HELD bytes: half a line, and what `ready_n` counts; NULL: never needed */
    struct http_gate_headers *last; /* owned; NULL: none yet */
    size_t
        same; /* of what was read last, if that is one request with all of its body and its headers are `last`: bytes of its line; 0: it is not */
    size_t held_n;    /* bytes of half a line */
    size_t ready_n;   /* that were judged, and had no room */
    const char *tail; /* static: the end of a bad request, still to be passed on */
    size_t tail_n;
};

/* As cht_tap.read. */
ptrdiff_t http_gate_read(struct http_gate *g, char *buf, size_t cap, struct cht_tap_source *from);
/* What came from the socket: n bytes at p, which has room for cap. Rewrites them; how many are passed on. */
size_t http_gate_pass(struct http_gate *g, char *p, size_t n, size_t cap);
/* What http_gate_read gives next, before anything from the socket: it was judged, as it stands for a request that was, and has at most
 * HTTP_GATE_HELD bytes. There is nothing that was judged and had no room. False: no memory. */
bool http_gate_put(struct http_gate *g, const char *p, size_t n);
void http_gate_fini(struct http_gate *g);

/* All that was whole is answered. */
static inline bool http_gate_answered(const struct http_gate *g) { return g->done >= g->ended; }
