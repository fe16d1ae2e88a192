/* gate_int: what the two halves of the gate (gate.h) share: gate.c has the states and the bytes, gate_check.c judges lines. */
#pragma once

#include "http/gate.h"

#define HTTP_GATE_KEEP 32u /* the end of a long line is never passed on before it is whole */
#define HTTP_GATE_PART_MIN \
    (HTTP_GATE_HELD - 2 * HTTP_GATE_KEEP) /* half a line of that many bytes is passed on */

/* A line, or the part of one that is there, without its end. */
struct http_gate_line {
    char *p;
    size_t n;
};

static inline bool http_blank(char c) { return c == ' ' || c == '\t'; }

/* The last request is wrong; false. why: static. */
static inline bool http_gate_refuse(struct http_gate *g, enum cht_rc rc, const char *why)
{
    g->bad = rc;
    g->why = why;
    return false;
}

#define HTTP_MALFORMED(g, why) http_gate_refuse((g), CHT_INVALID_REQUEST, (why))

/* How long the method is, which has a blank after it; 0: there is none. */
size_t http_gate_method(const char *p, size_t n);
/* Is there room in libmicrohttpd's memory for a request of `text` bytes and `entries` headers and parameters? repeated: as in http_gate. */
bool http_gate_fit(size_t memory, size_t text, size_t entries, size_t repeated);
bool http_gate_fits(const struct http_gate *g);
/* t: the request line or some of it; first: its beginning; last: its end, with the version. False: refused. */
bool http_gate_check_request(struct http_gate *g, struct http_gate_line t, bool first, bool last);
/* The same for a header or a trailer. */
bool http_gate_check_header(struct http_gate *g, struct http_gate_line t, bool first, bool last);
