/* gate_check: is a line of a request one that can be read in one way only? See gate.h. */
#include "http/gate_int.h"

#include "http/controls.h"

#include <string.h>

#define DIGITS_MAX 18u /* of a length */
#define METHOD_MAX 31u
#define NAME_MAX 256u
#define REPEATED_MAX 300u /* of a value: longer origins and identifiers are not repeated */

/* libmicrohttpd's memory: for a header or a parameter besides its text; for the headers of an answer, but for what they repeat of the
 * request. Its buffer for reading grows by STEP, or by an eighth of what is free where that is at least EIGHTH_MIN. */
#define ENTRY 64u
#define ANSWER 400u
#define ANSWER_CORS 384u
#define STEP 128u
#define EIGHTH_MIN 1024u

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

/* ---- the request line -------------------------------------------------------------------------------------------------- */

size_t http_gate_method(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && i <= METHOD_MAX && p[i] > ' ' && p[i] < 0x7F)
        i++;
    return i < n && i <= METHOD_MAX && p[i] == ' ' ? i : 0;
}

/* " HTTP/1.1" at the end of what is left of the line. */
static bool take_version(struct http_gate *g, struct http_gate_line *t)
{
    static const char begin[] = " HTTP/";
    const char *v = t->p + t->n - 9;
    if (t->n < 9 || memcmp(v, begin, sizeof begin - 1) != 0 || v[7] != '.' || v[6] < '0' || v[6] > '9' ||
        v[8] < '0' || v[8] > '9')
        return HTTP_MALFORMED(g, "the request line is not METHOD TARGET HTTP/1.1");
    if (v[6] != '1')
        return http_gate_refuse(g, CHT_HTTP_VERSION, cht_rc_text(CHT_HTTP_VERSION));
    g->old = v[8] == '0';
    t->n -= 9;
    return true;
}

/* Is there room for that? libmicrohttpd's buffer for reading has half of its memory at the beginning, and grows when it is full of
 * headers; what is left is for entries and the answer. */
bool http_gate_fit(size_t memory, size_t text, size_t entries, size_t repeated)
{
    size_t buffer = memory / 2;
    if (text > buffer)
        buffer = text + (text + 7 * EIGHTH_MIN >= memory + STEP ? STEP : memory / 16);
    return buffer + entries * ENTRY + ANSWER + repeated <= memory;
}

bool http_gate_fits(const struct http_gate *g)
{
    return http_gate_fit(g->memory, g->text, g->entries, g->repeated);
}

static bool spend_on_target(struct http_gate *g, struct http_gate_line t, size_t line)
{
    const char *p = g->query ? t.p : memchr(t.p, '?', t.n);
    size_t parameters = p != NULL && !g->query;
    g->query = p != NULL;
    for (; p != NULL && (p = memchr(p, '&', (size_t)(t.p + t.n - p))) != NULL; p++)
        parameters++;
    g->text += line;
    g->entries += parameters;
    return http_gate_fits(g) ||
           http_gate_refuse(g, CHT_URI_TOO_LONG, "the target is longer than --max-header-bytes allows");
}

bool http_gate_check_request(struct http_gate *g, struct http_gate_line t, bool first, bool last)
{
    const size_t whole = t.n;
    if (first) {
        size_t n = http_gate_method(t.p, t.n);
        if (n == 0)
            return HTTP_MALFORMED(g, "the request line does not begin with a method");
        t.p += n + 1;
        t.n -= n + 1;
    }
    if (last && !take_version(g, &t))
        return false;
    if (http_any_below(t.p, t.n, ' ' + 1) || (t.n == 0 && first))
        return HTTP_MALFORMED(g, "the target is empty, or has a blank or a control character");
    return spend_on_target(g, t, whole + (last ? 2 : 0)); /* its end */
}

/* ---- headers ----------------------------------------------------------------------------------------------------------- */

static bool take_length(struct http_gate *g, const char *p, size_t n)
{
    uint64_t v = 0;
    if (n == 0 || n > DIGITS_MAX)
        return HTTP_MALFORMED(g, "Content-Length is not a number");
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return HTTP_MALFORMED(g, "Content-Length is not a number");
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    if (g->chunked)
        return HTTP_MALFORMED(g, "Content-Length and Transfer-Encoding");
    if (g->sized && v != g->length)
        return HTTP_MALFORMED(g, "two different Content-Lengths");
    g->sized = true;
    g->length = v;
    return true;
}

static bool take_coding(struct http_gate *g, const char *p, size_t n)
{
    if (g->sized)
        return HTTP_MALFORMED(g, "Content-Length and Transfer-Encoding");
    if (g->old)
        return HTTP_MALFORMED(g, "Transfer-Encoding in HTTP/1.0");
    if (g->chunked || !SAME(p, n, "chunked"))
        return http_gate_refuse(g, CHT_UNSUPPORTED_TRANSFER_CODING,
                                "chunked alone is the one transfer coding here");
    g->chunked = true;
    return true;
}

/* name: what the line begins with, value: what follows the colon, without blanks around. whole: all of it is there, and would be however
 * the line came. */
static bool take_header(struct http_gate *g, char *name, size_t name_n, struct http_gate_line value,
                        bool whole)
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
        return HTTP_MALFORMED(g, "a header that describes the request is too long");
    g->hosts += host;
    if (length)
        return take_length(g, value.p, value.n);
    return !coding || take_coding(g, value.p, value.n);
}

bool http_gate_check_header(struct http_gate *g, struct http_gate_line t, bool first, bool last)
{
    if (http_has_control(t.p, t.n))
        return HTTP_MALFORMED(g, "a control character in a header");
    if (!first)
        return true;
    size_t n = 0;
    while (n < t.n && n <= NAME_MAX && t.p[n] != ':' && !http_blank(t.p[n]))
        n++;
    if (n == 0)
        return HTTP_MALFORMED(g, http_blank(t.p[0]) ? "a folded header" : "a header without a name");
    if (n == t.n || t.p[n] != ':')
        return HTTP_MALFORMED(g, "the name of a header has a blank in it, or no end");
    struct http_gate_line value = {.p = t.p + n + 1, .n = t.n - n - 1};
    while (value.n > 0 && http_blank(value.p[0])) {
        value.p++;
        value.n--;
    }
    return g->state == HTTP_GATE_TRAILERS || take_header(g, t.p, n, value, last);
}
