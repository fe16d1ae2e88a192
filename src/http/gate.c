/* gate: see gate.h. */
#include "http/gate.h"

#include "base/alloc.h"
#include "base/literal.h"

#include <string.h>

#define KEEP 32u /* the end of a long line is never passed on before it is whole */
#define PART_MIN (HTTP_GATE_HELD - 2 * KEEP) /* half a line of that many bytes is passed on */
#define DIGITS_MAX 18u                       /* of a length */
#define METHOD_MAX 31u
#define NAME_MAX 256u
#define TRAILERS_MAX 16384u
#define LEGIBLE_MAX 1024u
#define REPEATED_MAX 300u /* of a value: longer origins and identifiers are not repeated */

/* libmicrohttpd's memory: for a header or a parameter besides its text; for the headers of an answer, but for what they repeat of the
 * request. Its buffer for reading grows by STEP, or by an eighth of what is free where that is at least EIGHTH_MIN. */
#define ENTRY 64u
#define ANSWER 400u
#define ANSWER_CORS 384u
#define STEP 128u
#define EIGHTH_MIN 1024u

#define ONES UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* A line, or the part of one that is there, without its end. */
struct text {
    char *p;
    size_t n;
};

static const char line_end[2] = {'\r', '\n'};

static bool blank(char c) { return c == ' ' || c == '\t'; }

/* Is one of eight bytes less than `least`, which is at most 128, or DEL? */
static bool near(const char *p, uint64_t least)
{
    uint64_t v, del;
    memcpy(&v, p, sizeof v);
    del = v ^ (ONES * 0x7F);
    return ((((v - ONES * least) & ~v) | ((del - ONES) & ~del)) & HIGHS) != 0;
}

static bool any_below(const char *p, size_t n, unsigned char least)
{
    if (n >= 8) {
        const char *last = p + n - 8;
        for (; p < last; p += 8) {
            if (near(p, least))
                return true;
        }
        return near(last, least); /* some of it once more */
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)p[i] < least || p[i] == 0x7F)
            return true;
    }
    return false;
}

/* A control character other than the tab. */
static bool has_control(const char *p, size_t n)
{
    if (!any_below(p, n, 0x20))
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return true;
    }
    return false;
}

static bool same(const char *p, size_t n, const char *lower)
{
    for (size_t i = 0; i < n; i++) {
        char c = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] | 0x20) : p[i];
        if (c != lower[i])
            return false;
    }
    return true;
}
#define SAME(p, n, literal) ((n) == sizeof(literal) - 1 && same((p), (n), literal))

static bool refuse(struct http_gate *g, enum cht_rc rc, const char *why)
{
    g->bad = rc;
    g->why = why;
    return false;
}
#define MALFORMED(g, why) refuse((g), CHT_INVALID_REQUEST, (why))

/* ---- the request line -------------------------------------------------------------------------------------------------- */

/* How long the method is, which has a blank after it; 0: there is none. */
static size_t method_length(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && i <= METHOD_MAX && p[i] > ' ' && p[i] < 0x7F)
        i++;
    return i < n && i <= METHOD_MAX && p[i] == ' ' ? i : 0;
}

/* " HTTP/1.1" at the end of what is left of the line. */
static bool take_version(struct http_gate *g, struct text *t)
{
    static const char begin[] = " HTTP/";
    const char *v = t->p + t->n - 9;
    if (t->n < 9 || memcmp(v, begin, sizeof begin - 1) != 0 || v[7] != '.' || v[6] < '0' || v[6] > '9' ||
        v[8] < '0' || v[8] > '9')
        return MALFORMED(g, "the request line is not METHOD TARGET HTTP/1.1");
    if (v[6] != '1')
        return MALFORMED(g, "HTTP/1.1 is spoken here");
    g->old = v[8] == '0';
    t->n -= 9;
    return true;
}

/* Is there room for that? libmicrohttpd's buffer for reading has half of its memory at the beginning, and grows when it is full of
 * headers; what is left is for entries and the answer. */
static bool fits(const struct http_gate *g)
{
    size_t buffer = g->memory / 2;
    if (g->text > buffer)
        buffer = g->text + (g->text + 7 * EIGHTH_MIN >= g->memory + STEP ? STEP : g->memory / 16);
    return buffer + g->entries * ENTRY + ANSWER + g->repeated <= g->memory;
}

static bool spend_on_target(struct http_gate *g, struct text t, size_t line)
{
    const char *p = g->query ? t.p : memchr(t.p, '?', t.n);
    size_t parameters = p != NULL && !g->query;
    g->query = p != NULL;
    for (; p != NULL && (p = memchr(p, '&', (size_t)(t.p + t.n - p))) != NULL; p++)
        parameters++;
    g->text += line;
    g->entries += parameters;
    return fits(g) || refuse(g, CHT_URI_TOO_LONG, "the target is longer than --max-header-bytes allows");
}

/* first: the line's beginning; last: its end, with the version. */
static bool check_request_line(struct http_gate *g, struct text t, bool first, bool last)
{
    const size_t whole = t.n;
    if (first) {
        size_t n = method_length(t.p, t.n);
        if (n == 0)
            return MALFORMED(g, "the request line does not begin with a method");
        t.p += n + 1;
        t.n -= n + 1;
    }
    if (last && !take_version(g, &t))
        return false;
    if (any_below(t.p, t.n, ' ' + 1) || (t.n == 0 && first))
        return MALFORMED(g, "the target is empty, or has a blank or a control character");
    return spend_on_target(g, t, whole + sizeof line_end);
}

/* ---- headers ----------------------------------------------------------------------------------------------------------- */

static bool take_length(struct http_gate *g, const char *p, size_t n)
{
    uint64_t v = 0;
    if (n == 0 || n > DIGITS_MAX)
        return MALFORMED(g, "Content-Length is not a number");
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return MALFORMED(g, "Content-Length is not a number");
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    if (g->chunked)
        return MALFORMED(g, "Content-Length and Transfer-Encoding");
    if (g->sized && v != g->length)
        return MALFORMED(g, "two different Content-Lengths");
    g->sized = true;
    g->length = v;
    return true;
}

static bool take_coding(struct http_gate *g, const char *p, size_t n)
{
    if (g->sized)
        return MALFORMED(g, "Content-Length and Transfer-Encoding");
    if (g->old)
        return MALFORMED(g, "Transfer-Encoding in HTTP/1.0");
    if (g->chunked || !SAME(p, n, "chunked"))
        return refuse(g, CHT_UNSUPPORTED_TRANSFER_CODING, "chunked alone is the one transfer coding here");
    g->chunked = true;
    return true;
}

/* name: what the line begins with, value: what follows the colon, without blanks around. whole: all of it is there, and would be however
 * the line came. */
static bool take_header(struct http_gate *g, char *name, size_t name_n, struct text value, bool whole)
{
    bool length = false, coding = false, host = false;
    size_t again = value.n < REPEATED_MAX ? value.n : REPEATED_MAX; /* also of half a line */
    switch (name_n) {
    case 4:
        host = SAME(name, name_n, "host");
        break;
    case 6:
        g->repeated += SAME(name, name_n, "origin") ? again + ANSWER_CORS : 0;
        if (SAME(name, name_n, "cookie"))
            name[0] = '-';
        break;
    case 12:
        g->repeated += SAME(name, name_n, "x-request-id") ? again : 0;
        break;
    case 14:
        length = SAME(name, name_n, "content-length");
        break;
    case 17:
        coding = SAME(name, name_n, "transfer-encoding");
        break;
    default:
        break;
    }
    if ((length || coding || host) && !whole)
        return MALFORMED(g, "a header that describes the request is too long");
    g->hosts += host;
    if (length)
        return take_length(g, value.p, value.n);
    return !coding || take_coding(g, value.p, value.n);
}

static bool check_header(struct http_gate *g, struct text t, bool first, bool last)
{
    if (has_control(t.p, t.n))
        return MALFORMED(g, "a control character in a header");
    if (!first)
        return true;
    size_t n = 0;
    while (n < t.n && n <= NAME_MAX && t.p[n] != ':' && !blank(t.p[n]))
        n++;
    if (n == 0)
        return MALFORMED(g, blank(t.p[0]) ? "a folded header" : "a header without a name");
    if (n == t.n || t.p[n] != ':')
        return MALFORMED(g, "the name of a header has a blank in it, or no end");
    struct text value = {.p = t.p + n + 1, .n = t.n - n - 1};
    while (value.n > 0 && blank(value.p[0])) {
        value.p++;
        value.n--;
    }
    return g->state == HTTP_GATE_TRAILERS || take_header(g, t.p, n, value, last);
}

/* ---- states ------------------------------------------------------------------------------------------------------------ */

static void end_request(struct http_gate *g)
{
    g->ended++;
    g->state = HTTP_GATE_LINE;
    g->text = g->entries = g->repeated = 0;
    g->query = false;
}

static bool end_headers(struct http_gate *g)
{
    if (g->hosts > 1 || (g->hosts == 0 && !g->old))
        return MALFORMED(g, "a request has one Host");
    g->left = g->length;
    if (g->chunked)
        g->state = HTTP_GATE_SIZE;
    else if (g->sized && g->left > 0)
        g->state = HTTP_GATE_BODY;
    else
        end_request(g);
    return true;
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
    if (i == 0 || i > 15 || (i < len && p[i] != ';') || has_control(p + i, len - i))
        return MALFORMED(g, "the size of a chunk cannot be read");
    *n = i;
    g->left = v;
    g->state = v == 0 ? HTTP_GATE_TRAILERS : HTTP_GATE_DATA;
    return true;
}

static bool spend_on_header(struct http_gate *g, size_t n, bool first)
{
    g->text += n;
    g->entries += first;
    return fits(g) ||
           refuse(g, CHT_HEADERS_TOO_LARGE, "the headers are longer than --max-header-bytes allows");
}

/* A line of the headers; see take_line. */
static bool take_header_line(struct http_gate *g, struct text t, bool first, size_t *out)
{
    const struct text whole = t;
    if (t.n == 0 && first)
        return end_headers(g);
    while (t.n > 0 && blank(t.p[t.n - 1]))
        t.n--;
    if (!check_header(g, t.n == 0 ? (struct text){t.p, 1} : t, first, whole.n + 1 < PART_MIN))
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
    struct text t = {.p = p, .n = len - end};
    bool first = !g->mid;
    *out = len;
    g->mid = false;
    if (len > PART_MIN && g->state >= HTTP_GATE_SIZE)
        return MALFORMED(g, "a line of a chunked body is too long"); /* also where it came in one piece */
    switch (g->state) {
    case HTTP_GATE_LINE:
        if (t.n == 0 && first) {
            *out = 0; /* empty lines before a request are passed over */
            return true;
        }
        if (!check_request_line(g, t, first, true))
            return false;
        if (first)
            begin_request(g);
        g->state = HTTP_GATE_HEADERS;
        return true;
    case HTTP_GATE_HEADERS:
        return take_header_line(g, t, first, out);
    case HTTP_GATE_SIZE:
        if (end != 2 || !take_size(g, t.p, t.n, &t.n))
            return MALFORMED(g, "the size of a chunk cannot be read");
        memcpy(t.p + t.n, line_end, sizeof line_end);
        *out = t.n + 2;
        return true;
    case HTTP_GATE_DATA_END:
        if (len != 2 || end != 2)
            return MALFORMED(g, "a chunk is longer than it says");
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
            return MALFORMED(g, "the trailers are too long");
        return check_header(g, t, first, true);
    }
}

/* Half a line, of which the beginning is to be passed on. */
static bool take_part(struct http_gate *g, char *p, size_t n)
{
    struct text t = {.p = p, .n = n};
    bool first = !g->mid;
    if (g->state == HTTP_GATE_LINE) {
        if (!check_request_line(g, t, first, false))
            return false;
        if (first) {
            begin_request(g);
            g->state = HTTP_GATE_LINE;
        }
    } else if (g->state == HTTP_GATE_HEADERS) {
        if (!check_header(g, t, first, false) || !spend_on_header(g, n, first))
            return false;
    } else {
        return MALFORMED(g, "a line of a chunked body is too long");
    }
    g->mid = true;
    return true;
}

/* ---- the end of a bad request ------------------------------------------------------------------------------------------ */

/* How much of a bad request line is passed on all the same, so that the log tells what was asked: method and path, as far as they are. */
static size_t legible(const char *line, size_t len)
{
    size_t n = method_length(line, len);
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
    if (n > 0)
        memcpy(p, g->tail, n);
    g->tail += n;
    g->tail_n -= n;
    g->again = g->again || g->tail_n > 0;
    return n;
}

/* Keeps half a line. */
static bool hold(struct http_gate *g, const char *p, size_t n)
{
    if (n > 0 && g->held == NULL)
        g->held = cht_malloc(2 * HTTP_GATE_HELD);
    if (n > 0 && g->held == NULL)
        return refuse(g, CHT_NO_MEMORY, "no memory for a line");
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

size_t http_gate_pass(struct http_gate *g, char *p, size_t n, size_t cap)
{
    size_t at = 0, to = 0;
    while (at < n && g->state != HTTP_GATE_OVER) {
        enum http_gate_state state = g->state;
        bool mid = g->mid, ok;
        size_t used, out;
        char *end;
        if (cannot_go_on(state, p + at, n - at)) {
            used = n - at;
            ok = MALFORMED(g, "a chunk cannot be read");
        } else if (state == HTTP_GATE_BODY || state == HTTP_GATE_DATA) {
            used = out = take_data(g, n - at);
            ok = true;
        } else if (state == HTTP_GATE_HEADERS && !mid && n - at >= 2 && memcmp(p + at, line_end, 2) == 0) {
            used = out = 2;
            ok = end_headers(g);
        } else if ((end = memchr(p + at, '\n', n - at)) != NULL) {
            used = (size_t)(end + 1 - (p + at));
            ok = take_line(g, p + at, used, used > 1 && end[-1] == '\r' ? 2 : 1, &out);
        } else if (n - at >= PART_MIN) {
            used = out = n - at - KEEP;
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
    if (narrow)
        passed = give(g, own, passed, buf, cap);
    g->again = (g->again && passed < cap) || (g->eof && http_gate_answered(g));
    return passed > 0 ? (ptrdiff_t)passed : CHT_TAP_LATER;
}

void http_gate_fini(struct http_gate *g)
{
    cht_free(g->held);
    g->held = NULL;
}
