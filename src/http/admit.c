/* admit: see admit.h. */
#include "http/admit.h"

#include "http/pages.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/secure.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/literal.h"

/* "http://host/path?query" as "/path?query"; the host goes after it, and counts in place of the header (RFC 9112, 3.2.2). */
static void take_absolute(struct http_request *r)
{
    size_t scheme = 0;
    if (r->uri_len > 7 && http_same_name(r->uri, CHT_LITERAL("http://")))
        scheme = 7;
    else if (r->uri_len > 8 && http_same_name(r->uri, CHT_LITERAL("https://")))
        scheme = 8;
    if (scheme == 0)
        return;
    char host[HTTP_REQUEST_HOST_MAX + 1];
    const char *rest = r->uri + scheme;
    size_t n = strcspn(rest, "/?"), left = r->uri_len - scheme - n, slash = rest[n] != '/';
    if (n == 0 || n > HTTP_REQUEST_HOST_MAX)
        return;
    memcpy(host, rest, n);
    host[n] = 0;
    memmove(r->uri + slash, rest + n, left + 1);
    r->uri[0] = '/';
    r->uri_len = left + slash;
    r->in[HTTP_H_HOST] = memcpy(r->uri + r->uri_len + 1, host, n + 1);
}

/* A precondition is never ignored. False after answering. */
static bool may_be_conditional(struct http_request *r)
{
    if (!r->conditional || (r->route->conditions && r->in[HTTP_H_IF_UNMODIFIED_SINCE] == NULL))
        return true;
    http_reply_fail(r, CHT_UNSUPPORTED_PRECONDITION, "%s %s has no such precondition", r->method_name,
                    r->route->label);
    return false;
}

/* Who asks, and may he? Before a word is said of the path: without a token all paths look alike. False after answering. */
static bool admit_token(struct http_request *r)
{
    struct svc_access *a = atomic_load_explicit(&r->w->srv->access, memory_order_acquire);
    if (r->route != NULL)
        r->right = r->route->reads ? SVC_RIGHT_READ : r->route->right;
    if (a == NULL || (r->route != NULL && r->route->right == SVC_RIGHT_OPEN))
        return true;
    http_secure_who(r, a);
    if (r->token != NULL)
        http_conn_known(r->conn);
    if (r->token == NULL) {
        http_reply_fail(r, CHT_UNAUTHORIZED, "send a valid token: Authorization: Bearer ...");
        return false;
    }
    if (r->route != NULL && !svc_access_has_right(r->token, r->right)) {
        http_reply_fail(r, CHT_FORBIDDEN, "this token does not allow that");
        return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_same_name(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char x = a[i] >= 'A' && a[i] <= 'Z' ? (char)(a[i] | 0x20) : a[i];
        char y = b[i] >= 'A' && b[i] <= 'Z' ? (char)(b[i] | 0x20) : b[i];
        if (x != y)
            return false;
    }
    return true;
}

bool http_admit_uri(struct http_request *r, const char *uri, size_t n)
{
    if (n >= r->uri_cap) {
        char *p = cht_realloc(r->uri, n + 256);
        if (p == NULL)
            return false;
        r->uri = p;
        r->uri_cap = n + 256;
    }
    memcpy(r->uri, uri, n);
    r->uri[n] = 0;
    r->uri_len = n;
    if (n == 0 || uri[0] != '/')
        take_absolute(r);
    const char *query = memchr(r->uri, '?', r->uri_len);
    r->log_path_len = query != NULL ? (size_t)(query - r->uri) : r->uri_len;
    if (r->log_path_len > HTTP_REQUEST_LOG_PATH)
        r->log_path_len = HTTP_REQUEST_LOG_PATH;
    memcpy(r->log_path, r->uri, r->log_path_len);
    return true;
}

enum http_header http_admit_header(const char *name, size_t n)
{
    static const struct {
        enum http_header header;
        const char *name;
        size_t len;
    } names[] = {
        {HTTP_H_HOST, CHT_LITERAL("host")},
        {HTTP_H_ACCEPT, CHT_LITERAL("accept")},
        {HTTP_H_EXPECT, CHT_LITERAL("expect")},
        {HTTP_H_ORIGIN, CHT_LITERAL("origin")},
        {HTTP_H_IF_MATCH, CHT_LITERAL("if-match")},
        {HTTP_H_CONTENT_TYPE, CHT_LITERAL("content-type")},
        {HTTP_H_REQUEST_ID, CHT_LITERAL("x-request-id")},
        {HTTP_H_AUTHORIZATION, CHT_LITERAL("authorization")},
        {HTTP_H_IF_NONE_MATCH, CHT_LITERAL("if-none-match")},
        {HTTP_H_CONTENT_LENGTH, CHT_LITERAL("content-length")},
        {HTTP_H_SEC_FETCH_SITE, CHT_LITERAL("sec-fetch-site")},
        {HTTP_H_ACCEPT_ENCODING, CHT_LITERAL("accept-encoding")},
        {HTTP_H_CONTENT_ENCODING, CHT_LITERAL("content-encoding")},
        {HTTP_H_TRANSFER_ENCODING, CHT_LITERAL("transfer-encoding")},
        {HTTP_H_IF_UNMODIFIED_SINCE, CHT_LITERAL("if-unmodified-since")},
    };
    /* The first of each length, and one more, so that 0 is none. */
    static const unsigned char first[20] = {
        [4] = 1, [6] = 2, [8] = 5, [12] = 6, [13] = 8, [14] = 10, [15] = 12, [16] = 13, [17] = 14, [19] = 15};
    _Static_assert(sizeof names / sizeof *names == HTTP_H_COUNT, "each once");
    if (n >= sizeof first || first[n] == 0)
        return HTTP_H_COUNT;
    for (unsigned i = first[n] - 1u; i < HTTP_H_COUNT && names[i].len == n; i++) {
        if (http_same_name(name, names[i].name, n))
            return names[i].header;
    }
    return HTTP_H_COUNT;
}

void http_admit_id(struct http_request *r)
{
    const char *given = r->in[HTTP_H_REQUEST_ID];
    size_t n = given != NULL ? strlen(given) : 0;
    if (n > 0 && n <= HTTP_REQUEST_ID_MAX) {
        size_t ok = 0;
        while (ok < n && given[ok] > 0x20 && given[ok] < 0x7F)
            ok++;
        if (ok == n) {
            memcpy(r->id, given, n + 1);
            r->id_len = n;
            return;
        }
    }
    uint64_t v = cht_rng_next(&r->w->rng);
    http_hex(r->id, v);
    r->id[16] = 0;
    r->id_len = 16;
}

struct http_target http_admit_route(struct http_request *r)
{
    struct http_target t = {.query = memchr(r->uri, '?', r->uri_len), .path_len = r->uri_len};
    if (t.query != NULL)
        t.path_len = (size_t)(t.query - r->uri);
    r->route =
        http_router_find(r->w->srv->routes, r->uri, t.path_len, r->method, &t.rest, &r->rest_len, &t.allowed);
    return t;
}

bool http_admit_target(struct http_request *r, const struct http_target *t)
{
    unsigned allowed = t->allowed;
    if (r->route == NULL && allowed == 0) {
        http_reply_fail(r, CHT_NOT_FOUND, "there is nothing at this path; see /openapi.yaml");
        return false;
    }
    if (r->route == NULL && http_pages_options(r, allowed))
        return false;
    if (r->route == NULL) {
        http_reply_header(
            r, "Allow", "%s%s%s%s", (allowed & HTTP_METHOD_GET) != 0 ? "GET, HEAD" : "",
            (allowed & HTTP_METHOD_POST) != 0 ? ((allowed & HTTP_METHOD_GET) != 0 ? ", POST" : "POST") : "",
            (allowed & HTTP_METHOD_PUT) != 0
                ? ((allowed & (HTTP_METHOD_GET | HTTP_METHOD_POST)) != 0 ? ", PUT" : "PUT")
                : "",
            (allowed & HTTP_METHOD_DELETE) != 0 ? (allowed != HTTP_METHOD_DELETE ? ", DELETE" : "DELETE")
                                                : "");
        http_reply_fail(r, CHT_METHOD, "%s is not for this path", r->method_name);
        return false;
    }
    r->rest = t->rest;
    r->rest_len = http_url_decode(r->uri + (t->rest - r->uri), r->rest_len);
    if (r->rest_len == SIZE_MAX) {
        r->rest_len = 0;
        http_reply_fail(r, CHT_INVALID_ENCODING, "the path has a malformed percent escape");
        return false;
    }
    return may_be_conditional(r) &&
           (t->query == NULL || http_params_read(r, t->query + 1, r->uri_len - t->path_len - 1));
}

bool http_admit(struct http_request *r)
{
    struct http_server *s = r->w->srv;
    int state = atomic_load_explicit(&s->state, memory_order_acquire);
    bool care = r->route != NULL && r->route->care;
    if (r->conn == NULL || r->conn->refused)
        r->close = true;
    if (r->conn == NULL || (r->conn->refused && !care)) {
        atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
        http_reply_fail(r, CHT_OVERLOADED, "too many connections");
        return false;
    }
    if (state == HTTP_SERVER_CLOSING) {
        r->close = true;
        http_reply_fail(r, CHT_DRAINING, "the server is stopping");
        return false;
    }
    if (state == HTTP_SERVER_DRAINING)
        r->close = true; /* so that clients and balancers go elsewhere */
    if (!admit_token(r))
        return false;
    if (r->conn->admin && r->route != NULL && !care) {
        http_reply_fail(r, CHT_NOT_FOUND, "/healthz, /readyz and /metrics are all there is at this port");
        return false;
    }
    if (state == HTTP_SERVER_STARTING && r->route != NULL && r->route->right != SVC_RIGHT_OPEN) {
        http_reply_fail(r, CHT_STARTING, "the server is starting");
        return false;
    }
    return true;
}
