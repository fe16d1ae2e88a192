/* accept: see accept.h. */
#include "http/accept.h"

#include <string.h>
#include <strings.h>

/* How much a type or coding is wanted, by the most specific range of the header that it falls under. */
struct wanted {
    const char *name, *family; /* family: the range of it and its like; NULL: none */
    const char *any;           /* the range of all; NULL: it must be named */
    unsigned exact;            /* 0: by no range; 1: by that of all, 2: by the family, 3: by its name */
    unsigned q;                /* thousandths */
};

/* A part of the header between separators, without the blanks around it. */
struct text {
    const char *p;
    size_t n;
};

static struct text trim(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (p < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct text){p, (size_t)(end - p)};
}

/* The next separator outside quotes, or the end. */
static const char *until(const char *p, const char *end, char separator)
{
    bool quoted = false;
    for (; p < end; p++) {
        if (quoted && *p == '\\' && p + 1 < end)
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && *p == separator)
            break;
    }
    return p;
}

static bool is(struct text t, const char *word)
{
    return strlen(word) == t.n && strncasecmp(t.p, word, t.n) == 0;
}

/* "0", "0.5", "1.000": thousandths. False: it is none. */
static bool read_q(struct text t, unsigned *q)
{
    if (t.n == 0 || t.n > 5 || (t.p[0] != '0' && t.p[0] != '1') || (t.n > 1 && t.p[1] != '.'))
        return false;
    *q = t.p[0] == '1' ? 1000 : 0;
    unsigned unit = 100;
    for (size_t i = 2; i < t.n; i++, unit /= 10) {
        if (t.p[i] < '0' || t.p[i] > '9')
            return false;
        *q += (unsigned)(t.p[i] - '0') * unit;
    }
    return *q <= 1000;
}

/* One range with its parameters; one that cannot be read counts as not there. */
static void read_range(const char *p, const char *end, struct wanted *types, size_t n)
{
    const char *at = until(p, end, ';');
    struct text range = trim(p, at);
    unsigned q = 1000;
    while (at < end) {
        const char *next = until(at + 1, end, ';');
        struct text param = trim(at + 1, next);
        if (param.n >= 2 && (param.p[0] == 'q' || param.p[0] == 'Q') && param.p[1] == '=' &&
            !read_q((struct text){param.p + 2, param.n - 2}, &q))
            return;
        at = next;
    }
    for (size_t i = 0; i < n; i++) {
        struct wanted *w = &types[i];
        bool family = w->family != NULL && is(range, w->family);
        bool any = w->any != NULL && is(range, w->any);
        unsigned exact = is(range, w->name) ? 3 : family ? 2 : any ? 1 : 0;
        if (exact > w->exact) {
            w->exact = exact;
            w->q = q;
        }
    }
}

static void read_all(const char *p, struct wanted *types, size_t n)
{
    const char *end = p + strlen(p);
    while (p < end) {
        const char *comma = until(p, end, ',');
        read_range(p, comma, types, n);
        p = comma + 1;
    }
}

static bool rather_than_json(struct http_request *r, const char *type, const char *family)
{
    const char *p = r->in[HTTP_H_ACCEPT];
    r->by_accept = true;
    if (p == NULL || strcmp(p, "*/*") == 0)
        return false;
    struct wanted types[] = {
        {.name = type, .family = family, .any = "*/*"},
        {.name = "application/json", .family = "application/*", .any = "*/*"},
    };
    read_all(p, types, 2);
    return types[0].q > types[1].q || (types[0].q == types[1].q && types[0].q > 0 && types[0].exact == 3);
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool http_accepts_bytes(struct http_request *r)
{
    return rather_than_json(r, "application/octet-stream", "application/*");
}

bool http_accepts_html(struct http_request *r) { return rather_than_json(r, "text/html", "text/*"); }

enum http_coding http_accepts_coding(const struct http_request *r)
{
    const char *p = r->in[HTTP_H_ACCEPT_ENCODING];
    if (p == NULL)
        return HTTP_CODING_NONE;
    struct wanted codings[] = {
        {.name = "zstd"}, {.name = "gzip", .family = "x-gzip", .any = "*"}, {.name = "identity"}};
    read_all(p, codings, 3);
    const struct wanted *best = codings[1].q > codings[0].q ? &codings[1] : &codings[0];
    if (best->q == 0 || codings[2].q > best->q)
        return HTTP_CODING_NONE;
    return best == &codings[0] ? HTTP_CODING_ZSTD : HTTP_CODING_GZIP;
}

bool http_accepts_gzip(const struct http_request *r)
{
    struct wanted codings[] = {{.name = "gzip", .family = "x-gzip", .any = "*"}, {.name = "identity"}};
    if (r->in[HTTP_H_ACCEPT_ENCODING] == NULL)
        return false;
    read_all(r->in[HTTP_H_ACCEPT_ENCODING], codings, 2);
    return codings[0].q > 0 && codings[0].q >= codings[1].q;
}
