/* pages: see pages.h. */
#include "http/pages.h"

#include "http/reply.h"
#include "http/server.h"

#include "base/literal.h"

#include <string.h>

/* host, host:port or [v6]:port */
struct authority {
    struct cht_str host; /* v6 without the brackets */
    unsigned port;       /* 0: none */
    bool v6;
};

static struct cht_str str(const char *p, size_t n) { return (struct cht_str){(const uint8_t *)p, n}; }

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static bool same(struct cht_str a, struct cht_str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (lower((char)a.p[i]) != lower((char)b.p[i]))
            return false;
    }
    return true;
}

/* The entry of a list with commas. */
static bool next(const char **at, struct cht_str *out)
{
    const char *p = *at + strspn(*at, ", \t");
    size_t n = strcspn(p, ", \t");
    *at = p + n;
    *out = str(p, n);
    return n > 0;
}

static bool parse_port(const char *p, size_t n, unsigned *out)
{
    unsigned v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || i == 5)
            return false;
        v = v * 10 + (unsigned)(p[i] - '0');
    }
    *out = v;
    return v <= 65535;
}

static bool parse_authority(const char *p, size_t n, struct authority *out)
{
    const char *colon, *end = p + n;
    *out = (struct authority){.v6 = n > 0 && p[0] == '['};
    if (out->v6) {
        const char *close = memchr(p, ']', n);
        if (close == NULL)
            return false;
        out->host = str(p + 1, (size_t)(close - p) - 1);
        colon = close + 1;
    } else {
        colon = memchr(p, ':', n);
        colon = colon != NULL ? colon : end;
        out->host = str(p, (size_t)(colon - p));
    }
    if (colon < end && *colon != ':')
        return false;
    return out->host.n > 0 && (colon == end || parse_port(colon + 1, (size_t)(end - colon) - 1, &out->port));
}

/* Browsers write addresses in their one usual form; anything else is a name. */
static bool is_v4(struct cht_str h)
{
    unsigned dots = 0, value = 0, digits = 0;
    for (size_t i = 0; i < h.n; i++) {
        if (h.p[i] == '.') {
            if (digits == 0 || ++dots > 3)
                return false;
            value = digits = 0;
        } else if (h.p[i] >= '0' && h.p[i] <= '9' && digits < 3) {
            value = value * 10 + (unsigned)(h.p[i] - '0');
            digits++;
        } else {
            return false;
        }
        if (value > 255)
            return false;
    }
    return dots == 3 && digits > 0;
}

static bool is_v6(struct cht_str h)
{
    unsigned colons = 0;
    for (size_t i = 0; i < h.n; i++) {
        char c = lower((char)h.p[i]);
        colons += c == ':';
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f') && c != ':' && c != '.')
            return false;
    }
    return colons >= 2;
}

static bool host_allowed(const struct conf *c, const char *p, size_t n)
{
    struct authority a;
    struct cht_str one;
    if (!parse_authority(p, n, &a))
        return false;
    if (a.v6)
        return is_v6(a.host);
    if (is_v4(a.host))
        return true;
    if (a.host.p[a.host.n - 1] == '.')
        a.host.n--; /* the same name, written in full */
    if (same(a.host, str(CHT_LITERAL("localhost"))))
        return true;
    for (const char *at = c->allow_hosts; next(&at, &one);) {
        if (same(one, a.host) || same(one, str(CHT_LITERAL("*"))))
            return true;
    }
    return false;
}

/* scheme://host[:port], the port filled in. */
static bool parse_origin(const char *p, size_t n, bool *tls, struct authority *out)
{
    static const char plain[] = "http://", secret[] = "https://";
    size_t scheme = sizeof plain - 1;
    *tls = n >= sizeof secret - 1 && memcmp(p, secret, sizeof secret - 1) == 0;
    if (*tls)
        scheme = sizeof secret - 1;
    else if (n < scheme || memcmp(p, plain, scheme) != 0)
        return false;
    if (!parse_authority(p + scheme, n - scheme, out))
        return false;
    for (size_t i = 0; i < out->host.n; i++) {
        if (strchr("/?#@,* ", out->host.p[i]) != NULL)
            return false;
    }
    if (out->port == 0)
        out->port = *tls ? 443 : 80;
    return true;
}

static bool same_origin(const char *a, size_t a_n, const char *b, size_t b_n)
{
    struct authority x, y;
    bool x_tls, y_tls;
    return parse_origin(a, a_n, &x_tls, &x) && parse_origin(b, b_n, &y_tls, &y) && x_tls == y_tls &&
           x.port == y.port && x.v6 == y.v6 && same(x.host, y.host);
}

static bool is_own(const struct http_request *r, const char *origin)
{
    char own[300];
    const char *host = r->in[HTTP_H_HOST];
    int n = snprintf(own, sizeof own, "%s://%s", r->w->srv->tls != NULL ? "https" : "http",
                     host != NULL ? host : "");
    return host != NULL && n > 0 && (size_t)n < sizeof own &&
           same_origin(origin, strlen(origin), own, (size_t)n);
}

static bool is_listed(const struct conf *c, const char *origin)
{
    struct cht_str one;
    size_t n = strlen(origin);
    for (const char *at = c->cors_origins; next(&at, &one);) {
        if (same_origin(origin, n, (const char *)one.p, one.n))
            return true;
    }
    return false;
}

/* A client sends the same Host again and again: the last good one of the connection is kept. */
static bool host_admitted(const struct http_request *r, const char *host)
{
    struct http_conn *c = r->conn;
    size_t n = strlen(host);
    if (c != NULL && n == c->host_len && memcmp(host, c->host, n) == 0 && n > 0)
        return true;
    if (!host_allowed(r->w->srv->conf, host, n))
        return false;
    if (c != NULL && n <= sizeof c->host) {
        memcpy(c->host, host, n);
        c->host_len = n;
    }
    return true;
}

/* They say nothing that is worth reading, and balancers ask for them under any name. */
static bool is_open(const struct http_request *r)
{
    static const char *const paths[] = {"/healthz", "/readyz", "/version"};
    size_t n = strcspn(r->uri, "?");
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (strlen(paths[i]) == n && memcmp(paths[i], r->uri, n) == 0)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------------------------ */

enum cht_rc http_pages_check(const char *allow_hosts, const char *cors_origins, struct cht_err *err)
{
    struct cht_str one;
    struct authority a;
    bool tls;
    for (const char *at = allow_hosts; next(&at, &one);) {
        if (memchr(one.p, '/', one.n) != NULL || memchr(one.p, ':', one.n) != NULL)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                            "--allow-hosts: '%.*s' is not a name (without scheme and port) or *",
                            one.n > 80 ? 80 : (int)one.n, (const char *)one.p);
    }
    for (const char *at = cors_origins; next(&at, &one);) {
        if (!parse_origin((const char *)one.p, one.n, &tls, &a))
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                            "--cors-origins: '%.*s' is not http://host[:port] or https://host[:port]",
                            one.n > 80 ? 80 : (int)one.n, (const char *)one.p);
    }
    return CHT_OK;
}

bool http_pages_admit(struct http_request *r)
{
    const struct http_server *s = r->w->srv;
    const struct conf *c = s->conf;
    const char *host = r->in[HTTP_H_HOST], *origin = r->in[HTTP_H_ORIGIN],
               *site = r->in[HTTP_H_SEC_FETCH_SITE];
    bool named = c->allow_hosts[0] != 0 || atomic_load_explicit(&s->access, memory_order_acquire) == NULL;
    if (named && host != NULL && !host_admitted(r, host) && !is_open(r)) {
        http_reply_fail(r, CHT_FORBIDDEN_HOST, "this server is not asked as '%.100s'; see --allow-hosts",
                        host);
        return false;
    }
    if (origin == NULL && site == NULL)
        return true;
    if (origin != NULL && is_listed(c, origin)) {
        r->cors = origin;
        return true;
    }
    bool asks = strcmp(r->method_name, "OPTIONS") == 0 && c->cors_origins[0] == 0; /* that is 405 */
    if (r->method == HTTP_METHOD_GET || asks)
        return true;
    if (origin != NULL ? is_own(r, origin) : strcmp(site, "cross-site") != 0)
        return true;
    http_reply_fail(r, CHT_FORBIDDEN_ORIGIN, "pages of '%.100s' may not ask that; see --cors-origins",
                    origin != NULL ? origin : "another site");
    return false;
}

bool http_pages_options(struct http_request *r, unsigned allowed)
{
    if (strcmp(r->method_name, "OPTIONS") != 0 || r->w->srv->conf->cors_origins[0] == 0)
        return false;
    http_reply_header(r, "Allow", "%s%s%s%sOPTIONS", (allowed & HTTP_METHOD_GET) != 0 ? "GET, HEAD, " : "",
                      (allowed & HTTP_METHOD_POST) != 0 ? "POST, " : "",
                      (allowed & HTTP_METHOD_PUT) != 0 ? "PUT, " : "",
                      (allowed & HTTP_METHOD_DELETE) != 0 ? "DELETE, " : "");
    if (r->cors != NULL) {
        http_reply_header(r, "Access-Control-Allow-Methods", "%s", r->header[r->headers - 1].value);
        http_reply_header(r, "Access-Control-Allow-Headers",
                          "Authorization, Content-Type, Content-Encoding, Accept, X-Request-Id, If-Match, "
                          "If-None-Match");
        http_reply_header(r, "Access-Control-Max-Age", "600");
    }
    http_reply_empty(r, 204);
    return true;
}
