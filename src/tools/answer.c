/* answer: see answer.h.
 *
 *   STATUS -> HEADERS -> BODY (sized)                        -> end
 *                     -> SIZE -> CHUNK -> CRLF -> SIZE ... -> TRAILERS -> end
 */
#include "tools/answer.h"

#include "base/literal.h"

#include <string.h>

enum state { STATUS, HEADERS, BODY, SIZE, CHUNK, CRLF, TRAILERS };

#define LENGTH_MAX (UINT64_C(1) << 50)

/* A whole line is in a->line, without its end. False: there is no more of it in p[0..n). A line that is too long is cut: what we look for is
 * short. */
static bool take_line(struct tool_answer *a, const char *p, size_t n, size_t *used)
{
    const char *end = memchr(p, '\n', n);
    size_t some = end != NULL ? (size_t)(end - p) : n;
    size_t room = sizeof a->line - 1 - a->n, take = some < room ? some : room;
    memcpy(a->line + a->n, p, take);
    a->n += take;
    *used += some + (end != NULL);
    if (end == NULL)
        return false;
    if (a->n > 0 && a->line[a->n - 1] == '\r')
        a->n--;
    a->line[a->n] = 0;
    return true;
}

/* The text after "name:" of a header, NULL for another one. */
static const char *header(const char *line, const char *name)
{
    size_t i = 0;
    for (; name[i] != 0; i++) {
        char c = line[i] >= 'A' && line[i] <= 'Z' ? (char)(line[i] - 'A' + 'a') : line[i];
        if (c != name[i])
            return NULL;
    }
    if (line[i] != ':')
        return NULL;
    return line + i + 1 + strspn(line + i + 1, " \t");
}

static bool number(const char *s, unsigned base, uint64_t *out)
{
    uint64_t v = 0;
    size_t i = 0;
    for (;; i++) {
        char c = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        if (digit >= base)
            break;
        v = v * base + digit;
        if (v > LENGTH_MAX)
            return false;
    }
    *out = v;
    return i > 0 && (s[i] == 0 || s[i] == ' ' || s[i] == ';');
}

static bool status_line(struct tool_answer *a)
{
    uint64_t v;
    if (!CHT_BEGINS(a->line, "HTTP/1.") || a->n < 12 || !number(a->line + 9, 10, &v) || v < 100 || v > 599)
        return false;
    a->status = (unsigned)v;
    a->closes = a->line[7] == '0';
    a->at = HEADERS;
    return true;
}

/* An empty line: what follows the headers. */
static enum tool_answer_next headers_end(struct tool_answer *a)
{
    bool none = a->head || a->status == 204 || a->status == 304;
    if (a->status < 200) { /* 100 Continue and the like: the answer is still to come */
        tool_answer_begin(a, a->head);
        return TOOL_ANSWER_MORE;
    }
    if (none || (!a->chunked && a->sized && a->left == 0))
        return TOOL_ANSWER_DONE;
    if (!a->chunked && !a->sized)
        return TOOL_ANSWER_BAD; /* until the connection ends: ours does not do that */
    a->at = a->chunked ? SIZE : BODY;
    return TOOL_ANSWER_MORE;
}

static void keep(char *to, size_t room, const char *v)
{
    size_t n = strlen(v) < room ? strlen(v) : room - 1;
    memcpy(to, v, n);
    to[n] = 0;
}

static enum tool_answer_next header_line(struct tool_answer *a)
{
    const char *v;
    if (a->n == 0)
        return headers_end(a);
    if ((v = header(a->line, "content-length")) != NULL) {
        a->sized = number(v, 10, &a->left);
        return a->sized ? TOOL_ANSWER_MORE : TOOL_ANSWER_BAD;
    }
    if ((v = header(a->line, "transfer-encoding")) != NULL)
        a->chunked = strcmp(v, "chunked") == 0;
    else if ((v = header(a->line, "connection")) != NULL)
        a->closes = strcmp(v, "close") == 0 || strcmp(v, "Close") == 0;
    else if ((v = header(a->line, "content-type")) != NULL)
        keep(a->type, sizeof a->type, v);
    else if ((v = header(a->line, "etag")) != NULL)
        keep(a->etag, sizeof a->etag, v);
    return TOOL_ANSWER_MORE;
}

static enum tool_answer_next whole_line(struct tool_answer *a)
{
    switch (a->at) {
    case STATUS:
        return status_line(a) ? TOOL_ANSWER_MORE : TOOL_ANSWER_BAD;
    case HEADERS:
        return header_line(a);
    case SIZE:
        if (!number(a->line, 16, &a->left))
            return TOOL_ANSWER_BAD;
        a->at = a->left > 0 ? CHUNK : TRAILERS;
        return TOOL_ANSWER_MORE;
    case CRLF:
        a->at = SIZE;
        return a->n == 0 ? TOOL_ANSWER_MORE : TOOL_ANSWER_BAD;
    default: /* TRAILERS */
        return a->n == 0 ? TOOL_ANSWER_DONE : TOOL_ANSWER_MORE;
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

void tool_answer_begin(struct tool_answer *a, bool head)
{
    a->status = 0;
    a->closes = a->chunked = a->sized = false;
    a->head = head;
    a->type[0] = a->etag[0] = 0;
    a->at = STATUS;
    a->left = 0;
    a->n = 0;
}

enum tool_answer_next tool_answer_read(struct tool_answer *a, const char *p, size_t n, size_t *used,
                                       const char **body, size_t *body_n)
{
    *used = 0;
    if (a->at == BODY && a->left == 0)
        return TOOL_ANSWER_DONE;
    while (*used < n) {
        if (a->at == BODY || a->at == CHUNK) {
            *body = p + *used;
            *body_n = n - *used < a->left ? n - *used : (size_t)a->left;
            a->left -= *body_n;
            *used += *body_n;
            if (a->left == 0 && a->at == CHUNK)
                a->at = CRLF;
            return TOOL_ANSWER_BODY;
        }
        if (!take_line(a, p + *used, n - *used, used))
            return TOOL_ANSWER_MORE;
        enum tool_answer_next next = whole_line(a);
        a->n = 0;
        if (next != TOOL_ANSWER_MORE)
            return next;
    }
    return TOOL_ANSWER_MORE;
}
