/* gate: see gate.h. */
#include "http/gate_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "http/controls.h"

#include <string.h>

#define TRAILERS_MAX 16384u
#define LEGIBLE_MAX 1024u

/* Where the headers of a request begin in what was read, and what its line has spent. */
struct before {
    const char *at; /* NULL: they did not begin in it */
    size_t text, entries;
};

static const char line_end[2] = {'\r', '\n'};

/* ---- states ------------------------------------------------------------------------------------------------------------ */

static void end_request(struct http_gate *g)
{
    g->ended++;
    g->state = HTTP_GATE_LINE;
    g->text = g->entries = g->repeated = 0;
    g->query = false;
}

static void begin_body(struct http_gate *g)
{
    g->left = g->length;
    if (g->chunked)
        g->state = HTTP_GATE_SIZE;
    else if (g->sized && g->left > 0)
        g->state = HTTP_GATE_BODY;
    else
        end_request(g);
}

static bool end_headers(struct http_gate *g)
{
    if (g->hosts > 1 || (g->hosts == 0 && !g->old))
        return HTTP_MALFORMED(g, "a request has one Host");
    begin_body(g);
    return true;
}

/* ---- the headers of the connection's last request ---------------------------------------------------------------------- */

/* Most clients send the same headers with each request of a connection: those are compared, and not judged again. Only whole headers are
 * remembered, as they came, with their empty line, and none of a chunked request. */
static void remember(struct http_gate *g, const char *p, size_t n, const struct before *b)
{
    struct http_gate_headers *last = g->last;
    if (g->chunked || n > sizeof last->text || g->begun < 2)
        return; /* begun: a connection of one request is not worth it */
    if (last == NULL)
        last = g->last = cht_calloc(1, sizeof *last);
    if (last == NULL)
        return; /* they are judged again */
    last->serial++;
    last->n = (unsigned)n;
    last->old = g->old;
    last->sized = g->sized;
    last->length = g->length;
    last->spent = g->text - b->text;
    last->entries = g->entries - b->entries;
    last->repeated = g->repeated;
    memcpy(last->text, p, n);
}

/* Are the same headers at p? Then how many bytes, and they have ended; 0: they are to be judged. Below half of the memory, what fits
 * does not depend on the order in which it was spent. */
static size_t take_remembered(struct http_gate *g, const char *p, size_t n)
{
    const struct http_gate_headers *last = g->last;
    if (last == NULL || n < last->n || g->old != last->old || memcmp(p, last->text, last->n) != 0)
        return 0;
    size_t text = g->text + last->spent;
    if (text > g->memory / 2 || !http_gate_fit(g->memory, text, g->entries + last->entries, last->repeated))
        return 0;
    g->sized = last->sized;
    g->length = last->length;
    begin_body(g);
    return last->n;
}

static void begin_request(struct http_gate *g)
{
    g->begun++;
    g->state = HTTP_GATE_HEADERS;
    g->chunked = g->sized = false;
    g->hosts = g->trailers = 0;
    g->length = 0;
}

/* The size of a chunk; *n: of the line, without what follows the number. */
static bool take_size(struct http_gate *g, const char *p, size_t len, size_t *n)
{
    uint64_t v = 0;
    size_t i = 0;
    for (; i < len; i++) {
        char c = p[i] >= 'A' && p[i] <= 'F' ? (char)(p[i] | 0x20) : p[i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            break;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (i == 0 || i > 15 || (i < len && p[i] != ';') || http_has_control(p + i, len - i))
        return HTTP_MALFORMED(g, "the size of a chunk cannot be read");
    *n = i;
    g->left = v;
    g->state = v == 0 ? HTTP_GATE_TRAILERS : HTTP_GATE_DATA;
    return true;
}

static bool spend_on_header(struct http_gate *g, size_t n, bool first)
{
    g->text += n;
    g->entries += first;
    return http_gate_fits(g) || http_gate_refuse(g, CHT_HEADERS_TOO_LARGE,
                                                 "the headers are longer than --max-header-bytes allows");
}

/* A line of the headers; see take_line. */
static bool take_header_line(struct http_gate *g, struct http_gate_line t, bool first, size_t *out)
{
    const struct http_gate_line whole = t;
    if (t.n == 0 && first)
        return end_headers(g);
    while (t.n > 0 && http_blank(t.p[t.n - 1]))
        t.n--;
    if (!http_gate_check_header(g, t.n == 0 ? (struct http_gate_line){t.p, 1} : t, first,
                                whole.n + 1 < HTTP_GATE_PART_MIN))
        return false;
    if (t.n < whole.n) {
        memcpy(t.p + t.n, line_end, sizeof line_end);
        *out = t.n + sizeof line_end;
    }
    return spend_on_header(g, *out, first);
}

/* A whole line of `len` bytes with its end, which is `end` bytes. *out: what of it is passed on, with an end. */
static bool take_line(struct http_gate *g, char *p, size_t len, size_t end, size_t *out)
{
    struct http_gate_line t = {.p = p, .n = len - end};
    bool first = !g->mid;
    *out = len;
    g->mid = false;
    if (len > HTTP_GATE_PART_MIN && g->state >= HTTP_GATE_SIZE)
        return HTTP_MALFORMED(g,
                              "a line of a chunked body is too long"); /* also where it came in one piece */
    switch (g->state) {
    case HTTP_GATE_LINE:
        if (t.n == 0 && first) {
            *out = 0; /* empty lines before a request are passed over */
            return true;
        }
        if (!http_gate_check_request(g, t, first, true))
            return false;
        if (first)
            begin_request(g);
        g->state = HTTP_GATE_HEADERS;
        return true;
    case HTTP_GATE_HEADERS:
        return take_header_line(g, t, first, out);
    case HTTP_GATE_SIZE:
        if (end != 2 || !take_size(g, t.p, t.n, &t.n))
            return HTTP_MALFORMED(g, "the size of a chunk cannot be read");
        memcpy(t.p + t.n, line_end, sizeof line_end);
        *out = t.n + 2;
        return true;
    case HTTP_GATE_DATA_END:
        if (len != 2 || end != 2)
            return HTTP_MALFORMED(g, "a chunk is longer than it says");
        g->state = HTTP_GATE_SIZE;
        return true;
    default: /* trailers */
        g->trailers += (unsigned)len;
        if (t.n == 0 && first) {
            end_request(g);
            return true;
        }
        *out = 0;
        if (g->trailers > TRAILERS_MAX)
            return HTTP_MALFORMED(g, "the trailers are too long");
        return http_gate_check_header(g, t, first, true);
    }
}

/* Half a line, of which the beginning is to be passed on. */
static bool take_part(struct http_gate *g, char *p, size_t n)
{
    struct http_gate_line t = {.p = p, .n = n};
    bool first = !g->mid;
    if (g->state == HTTP_GATE_LINE) {
        if (!http_gate_check_request(g, t, first, false))
            return false;
        if (first) {
            begin_request(g);
            g->state = HTTP_GATE_LINE;
        }
    } else if (g->state == HTTP_GATE_HEADERS) {
        if (!http_gate_check_header(g, t, first, false) || !spend_on_header(g, n, first))
            return false;
    } else {
        return HTTP_MALFORMED(g, "a line of a chunked body is too long");
    }
    g->mid = true;
    return true;
}

/* ---- the end of a bad request ------------------------------------------------------------------------------------------ */

/* How much of a bad request line is passed on all the same, so that the log tells what was asked: method and path, as far as they are. */
static size_t legible(const char *line, size_t len)
{
    size_t n = http_gate_method(line, len);
    if (n == 0)
        return 0;
    for (n++; n < len && n < LEGIBLE_MAX; n++) {
        if ((unsigned char)line[n] <= ' ' || line[n] == 0x7F || line[n] == '?')
            break;
    }
    return n;
}

/* What makes a whole request of that which was passed on. line: the one that is bad, of which the beginning is passed on as well: that many
 * bytes. mid: some of it was passed on before. */
static size_t end_badly(struct http_gate *g, enum http_gate_state state, const char *line, size_t len,
                        bool mid)
{
    size_t n = 0;
    const char *tail = "\r\n";
    switch (state) {
    case HTTP_GATE_LINE:
        n = mid ? 0 : legible(line, len);
        tail = mid || (n > 0 && line[n - 1] != ' ') ? " HTTP/1.1\r\n\r\n"
               : n > 0                              ? "- HTTP/1.1\r\n\r\n"
                                                    : "- - HTTP/1.1\r\n\r\n";
        g->begun += !mid;
        break;
    case HTTP_GATE_HEADERS:
        tail = mid ? "\r\n\r\n" : "\r\n";
        break;
    case HTTP_GATE_SIZE:
        tail = "0\r\n\r\n";
        break;
    case HTTP_GATE_DATA_END:
        tail = "\r\n0\r\n\r\n";
        break;
    default:
        break;
    }
    g->tail = tail;
    g->tail_n = strlen(tail);
    g->ended = g->begun;
    g->state = HTTP_GATE_OVER;
    return n;
}

/* As much of the end of a bad request as fits. */
static size_t pass_tail(struct http_gate *g, char *p, size_t cap)
{
    size_t n = g->tail_n < cap ? g->tail_n : cap;
    if (n > 0) { /* there may be no tail at all */
        memcpy(p, g->tail, n);
        g->tail += n;
        g->tail_n -= n;
    }
    g->again = g->again || g->tail_n > 0;
    return n;
}

/* Keeps half a line. */
static bool hold(struct http_gate *g, const char *p, size_t n)
{
    if (n > 0 && g->held == NULL)
        g->held = cht_malloc(2 * HTTP_GATE_HELD);
    if (n > 0 && g->held == NULL)
        return http_gate_refuse(g, CHT_NO_MEMORY, "no memory for a line");
    if (n > 0)
        memcpy(g->held, p, n);
    g->held_n = n;
    return true;
}

/* Half a line of a chunked body that no end makes right: its client may wait for an answer before it sends one. */
static bool cannot_go_on(enum http_gate_state state, const char *p, size_t n)
{
    if (state == HTTP_GATE_DATA_END)
        return p[0] != '\r' || (n > 1 && p[1] != '\n');
    return state == HTTP_GATE_SIZE &&
           (p[0] < '0' || (p[0] > '9' && p[0] < 'A') || (p[0] > 'F' && p[0] < 'a') || p[0] > 'f');
}

/* The bytes of a body that are there. */
static size_t take_data(struct http_gate *g, size_t n)
{
    size_t part = g->left < n ? (size_t)g->left : n;
    g->left -= part;
    if (g->left == 0 && g->state == HTTP_GATE_BODY)
        end_request(g);
    else if (g->left == 0)
        g->state = HTTP_GATE_DATA_END;
    return part;
}

/* ------------------------------------------------------------------------------------------------------------------------ */

/* A whole line of *used bytes at p, and with the request line the headers after it, if they are those of the last request. n: all that is
 * there; *out: what is passed on. */
static bool take_lines(struct http_gate *g, char *p, size_t n, size_t *used, size_t *out, struct before *b)
{
    bool request = g->state == HTTP_GATE_LINE;
    if (!take_line(g, p, *used, *used > 1 && p[*used - 2] == '\r' ? 2 : 1, out))
        return false;
    if (request && g->state == HTTP_GATE_HEADERS) {
        size_t same = take_remembered(g, p + *used, n - *used);
        *b = (struct before){.at = p + *used, .text = g->text, .entries = g->entries};
        bool whole = same > 0 && n - *used - same == g->last->length; /* 0: without a body */
        g->same = whole ? *used : 0;
        *used += same;
        *out += same;
    }
    return true;
}

size_t http_gate_pass(struct http_gate *g, char *p, size_t n, size_t cap)
{
    size_t at = 0, to = 0;
    struct before b = {.at = NULL};
    g->same = 0;
    while (at < n && g->state != HTTP_GATE_OVER) {
        enum http_gate_state state = g->state;
        bool mid = g->mid, ok;
        size_t used, out;
        char *end;
        if (cannot_go_on(state, p + at, n - at)) {
            used = n - at;
            ok = HTTP_MALFORMED(g, "a chunk cannot be read");
        } else if (state == HTTP_GATE_BODY || state == HTTP_GATE_DATA) {
            used = out = take_data(g, n - at);
            ok = true;
        } else if (state == HTTP_GATE_HEADERS && !mid && n - at >= 2 && memcmp(p + at, line_end, 2) == 0) {
            if (to == at && b.at != NULL)
                remember(g, b.at, (size_t)(p + at + 2 - b.at), &b);
            used = out = 2;
            ok = end_headers(g);
        } else if ((end = memchr(p + at, '\n', n - at)) != NULL) {
            used = (size_t)(end + 1 - (p + at));
            ok = take_lines(g, p + at, n - at, &used, &out, &b);
            if (at > 0)
                g->same = 0;
        } else if (n - at >= HTTP_GATE_PART_MIN) {
            used = out = n - at - HTTP_GATE_KEEP;
            ok = take_part(g, p + at, used);
        } else {
            used = n - at;
            out = 0;
            ok = hold(g, p + at, used);
        }
        if (!ok)
            out = end_badly(g, state, p + at, used, mid);
        if (to != at && out > 0)
            memmove(p + to, p + at, out);
        at += used;
        to += out;
    }
    return to + pass_tail(g, p + to, cap - to);
}

/* What is there, to buf + *n; a negative result if that is nothing. */
static ptrdiff_t take_more(struct http_gate *g, char *buf, size_t cap, size_t *n, struct cht_tap_source *from)
{
    size_t before = *n;
    while (!g->eof && *n < cap) {
        size_t room = cap - *n;
        ptrdiff_t got = cht_tap_take(from, buf + *n, room);
        if (got == CHT_TAP_FAILED && g->fin && !http_gate_answered(g))
            got = 0; /* a TLS session that ended without saying so */
        if (got < 0)
            return *n == before ? got : 0;
        g->eof = got == 0;
        *n += (size_t)got;
        g->again = (size_t)got == room;
        if (!g->fin || g->again)
            break; /* once the client has ended its side, nothing tells of what comes after this */
    }
    return 0;
}

/* Of n bytes that were judged as many as there is room for; the others are kept. */
static size_t give(struct http_gate *g, const char *p, size_t n, char *buf, size_t cap)
{
    size_t k = n < cap ? n : cap;
    if (k > 0)
        memcpy(buf, p, k);
    g->ready_n = n - k;
    if (n > k)
        memmove(g->held + HTTP_GATE_HELD, p + k, n - k);
    return k;
}

/* Nothing is passed on before it is judged, so where the room is less than the half line that is kept, lines are put together in `own`. */
ptrdiff_t http_gate_read(struct http_gate *g, char *buf, size_t cap, struct cht_tap_source *from)
{
    char own[HTTP_GATE_HELD];
    g->same = 0;
    if (g->ready_n > 0) {
        g->again = true; /* what comes after it may be there */
        return (ptrdiff_t)give(g, g->held + HTTP_GATE_HELD, g->ready_n, buf, cap);
    }
    size_t n = g->held_n, passed;
    if (g->state == HTTP_GATE_OVER) {
        passed = pass_tail(g, buf, cap);
        return passed > 0 ? (ptrdiff_t)passed : CHT_TAP_LATER;
    }
    bool narrow = n >= cap;
    char *to = narrow ? own : buf;
    size_t room = narrow ? sizeof own : cap;
    ptrdiff_t got = take_more(g, to, room, &n, from);
    if (got < 0)
        return got;
    if (n == g->held_n) /* the end, perhaps in the middle of a request */
        return http_gate_answered(g) ? 0 : CHT_TAP_LATER;
    if (g->held_n > 0)
        memcpy(to, g->held, g->held_n);
    g->held_n = 0;
    passed = http_gate_pass(g, to, n, room);
    if (narrow) {
        passed = give(g, own, passed, buf, cap);
        g->same = 0;
    }
    g->again = (g->again && passed < cap) || (g->eof && http_gate_answered(g));
    return passed > 0 ? (ptrdiff_t)passed : CHT_TAP_LATER;
}

bool http_gate_put(struct http_gate *g, const char *p, size_t n)
{
    if (g->held == NULL)
        g->held = cht_malloc(2 * HTTP_GATE_HELD);
    if (g->held == NULL)
        return false;
    memcpy(g->held + HTTP_GATE_HELD, p, n);
    g->ready_n = n;
    return true;
}

void http_gate_fini(struct http_gate *g)
{
    cht_free(g->held);
    cht_free(g->last);
    g->held = NULL;
    g->last = NULL;
}
