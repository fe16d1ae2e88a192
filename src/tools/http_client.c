/* http_client: see http_client.h. Proxies of the environment and redirections are not followed: the token goes to the server
 * the operator named and to no other.
 */
#include "tools/http_client.h"

#include "tools/http_local.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/net.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM_MAX (64u << 10)
#define ANSWER_MAX (64u << 20)
#define TOKEN_MAX 4096u
#define CONNECT_SECONDS 10L
#define IDLE_SECONDS 300u

struct tool_client {
    CURL *curl;
    char *url;                         /* owned: scheme, host, port; or unix:/path */
    char *authorization;               /* owned: the header; NULL: none */
    char *tls_ca, *tls_cert, *tls_key; /* owned */
    bool any_name;
    int (*dial)(void *ctx); /* NULL: over the net, by libcurl */
    void *dial_ctx;
    int fd;                    /* dialled; -1: none */
    struct tool_answer answer; /* of the last request over it */
    char *label;               /* owned: in messages, in place of url; NULL: url */
    char message[CURL_ERROR_SIZE];
};

struct running {
    struct tool_client *c;
    struct tool_request *r;
    struct cht_buf problem; /* the body of an answer that is a failure */
    bool cancelled;
};

/* ---- the client ---------------------------------------------------------------------------------------------------- */

/* scheme://host:port of what the operator wrote. */
static char *make_url(const char *s)
{
    size_t n = strlen(s);
    bool scheme = strstr(s, "://") != NULL || CHT_BEGINS(s, "unix:");
    while (n > 0 && s[n - 1] == '/')
        n--;
    char *url = cht_malloc(n + 8);
    if (url != NULL) /* "http://" and a zero are 8 */
        (void)snprintf(url, n + 8, "%s%.*s", scheme ? "" : "http://", (int)n, s);
    return url;
}

static enum cht_rc check_url(const char *url, struct cht_err *err)
{
    if (CHT_BEGINS(url, "unix:/"))
        return CHT_OK;
    CURLU *u = curl_url();
    char *path = NULL, *query = NULL, *user = NULL;
    bool http = CHT_BEGINS(url, "http://") || CHT_BEGINS(url, "https://");
    bool ok = u != NULL && http && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;
    ok = ok && curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0;
    ok = ok && curl_url_get(u, CURLUPART_QUERY, &query, 0) != CURLUE_OK;
    ok = ok && curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK;
    curl_free(path);
    curl_free(query);
    curl_free(user);
    curl_url_cleanup(u);
    if (!ok)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "--connect (or CHEETAH_URL) '%.100s': HOST:PORT, http[s]://HOST:PORT or unix:/path",
                        url);
    return CHT_OK;
}

static enum cht_rc take_token(struct tool_client *c, const char *file, struct cht_err *err)
{
    static const char head[] = "Authorization: Bearer ";
    const char *token = file == NULL ? getenv("CHEETAH_TOKEN") : NULL; /* NOLINT(concurrency-mt-unsafe) */
    char *text = NULL;
    size_t n = token != NULL ? strlen(token) : 0;
    if (file != NULL) {
        enum cht_rc rc = cht_os_read_file(file, TOKEN_MAX, &text, &n, err);
        if (rc != CHT_OK)
            return rc;
        token = text;
        n = strcspn(text, "\r\n");
        while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'))
            n--;
    }
    bool good = true;
    for (size_t i = 0; i < n; i++)
        good = good && token[i] > ' ' && token[i] < 127;
    enum cht_rc rc = CHT_OK;
    if (!good || (file != NULL && n == 0))
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s: a token is one line of printable characters",
                      file != NULL ? file : "CHEETAH_TOKEN");
    if (rc == CHT_OK && n > 0) {
        c->authorization = cht_malloc(sizeof head + n);
        if (c->authorization == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a token");
        else /* fits: its size is the sum of both */
            (void)snprintf(c->authorization, sizeof head + n, "%s%.*s", head, (int)n, token);
    }
    cht_free(text);
    return rc;
}

/* What --connect says, else the environment, else the default. */
static const char *wanted_server(const struct tool_connect *how)
{
    const char *env = getenv("CHEETAH_URL"); /* NOLINT(concurrency-mt-unsafe): nobody changes it */
    if (how->connect != NULL)
        return how->connect;
    return env != NULL && env[0] != 0 && how->dial == NULL ? env : TOOL_CONNECT_DEFAULT;
}

enum cht_rc tool_client_new(const struct tool_connect *how, struct tool_client **out, struct cht_err *err)
{
    struct tool_client *c = cht_calloc(1, sizeof *c);
    enum cht_rc rc = CHT_OK;
    *out = NULL;
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a client");
    bool global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    c->curl = global ? curl_easy_init() : NULL;
    c->url = make_url(wanted_server(how));
    c->any_name = how->any_name;
    c->dial = how->dial;
    c->fd = -1;
    c->dial_ctx = how->dial_ctx;
    c->label = how->label != NULL ? cht_strdup(how->label) : NULL;
    c->tls_ca = how->tls_ca != NULL ? cht_strdup(how->tls_ca) : NULL;
    c->tls_cert = how->tls_cert != NULL ? cht_strdup(how->tls_cert) : NULL;
    c->tls_key = how->tls_key != NULL ? cht_strdup(how->tls_key) : NULL;
    if (c->curl == NULL || c->url == NULL || (how->label != NULL && c->label == NULL) ||
        (how->tls_ca != NULL && c->tls_ca == NULL) || (how->tls_cert != NULL && c->tls_cert == NULL) ||
        (how->tls_key != NULL && c->tls_key == NULL))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a client");
    if (rc == CHT_OK)
        rc = check_url(c->url, err);
    if (rc == CHT_OK && (c->tls_cert == NULL) != (c->tls_key == NULL))
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-cert and --tls-key go together");
    if (rc == CHT_OK && c->dial == NULL)
        rc = take_token(c, how->token_file, err);
    if (rc != CHT_OK)
        tool_client_free(c);
    else
        *out = c;
    return rc;
}

void tool_client_free(struct tool_client *c)
{
    if (c == NULL)
        return;
    if (c->curl != NULL)
        curl_easy_cleanup(c->curl);
    curl_global_cleanup();
    if (c->fd >= 0)
        cht_net_close(c->fd);
    cht_free(c->url);
    cht_free(c->label);
    cht_free(c->authorization);
    cht_free(c->tls_ca);
    cht_free(c->tls_cert);
    cht_free(c->tls_key);
    cht_free(c);
}

const char *tool_client_url(const struct tool_client *c) { return c->label != NULL ? c->label : c->url; }

const char *tool_client_authorization(const struct tool_client *c) { return c->authorization; }

/* ---- one request ---------------------------------------------------------------------------------------------------- */

static bool buf_add(struct cht_buf *b, const char *p, size_t n)
{
    size_t need = b->len + n + 1, twice = b->cap * 2;
    if (need > b->cap && cht_buf_reserve(b, need > twice ? need : twice, NULL) != CHT_OK)
        return false;
    memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return true;
}

/* A piece of an answer's body; false ends the request. */
static bool deliver(struct running *run, unsigned status, const char *p, size_t n)
{
    if (status < 200 || status > 299) { /* what is too long for a problem is cut */
        size_t room = PROBLEM_MAX - run->problem.len;
        return buf_add(&run->problem, p, n < room ? n : room);
    }
    if (run->r->sink == NULL || run->r->sink(run->r->sink_ctx, p, n))
        return true;
    run->cancelled = true;
    return false;
}

static size_t on_body(char *p, size_t one, size_t n, void *ctx)
{
    struct running *run = ctx;
    long status = 0;
    (void)curl_easy_getinfo(run->c->curl, CURLINFO_RESPONSE_CODE, &status); /* 0 is a failure, too */
    run->r->type = NULL;
    (void)curl_easy_getinfo(run->c->curl, CURLINFO_CONTENT_TYPE, &run->r->type); /* NULL is one without */
    n *= one;
    return deliver(run, (unsigned)status, p, n) ? n : n == 0 ? 1 : 0;
}

static size_t on_read(char *buf, size_t one, size_t n, void *ctx)
{
    struct running *run = ctx;
    size_t got = run->r->source(run->r->source_ctx, buf, one * n);
    if (got != TOOL_CLIENT_ABORT)
        return got;
    run->cancelled = true;
    return CURL_READFUNC_ABORT;
}

static enum cht_rc code_of(const char *slug, unsigned status)
{
    static const enum cht_rc codes[] = {
#define CODE(name, num, http, text, what) CHT_##name,
        CHT_ERRORS(CODE)
#undef CODE
    };
    for (size_t i = 0; slug != NULL && i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(slug, cht_rc_slug(codes[i])) == 0)
            return codes[i];
    }
    return status == 401   ? CHT_UNAUTHORIZED
           : status == 403 ? CHT_FORBIDDEN
           : status == 404 ? CHT_NOT_FOUND
           : status == 413 ? CHT_BODY_TOO_LARGE
                           : CHT_IO;
}

/* The message of an answer that is a failure. */
static enum cht_rc refused(const struct running *run, struct cht_err *err)
{
    unsigned status = run->r->status;
    const char *where = tool_client_url(run->c);
    json_t *o =
        run->problem.len > 0 ? json_loadb((const char *)run->problem.data, run->problem.len, 0, NULL) : NULL;
    const char *slug = json_string_value(json_object_get(o, "code"));
    const char *detail = json_string_value(json_object_get(o, "detail"));
    const json_t *index = json_object_get(o, "index"), *inner = json_object_get(o, "operation");
    const char *why = json_string_value(json_object_get(inner, "detail"));
    const char *what = json_string_value(json_object_get(inner, "code"));
    enum cht_rc rc = code_of(slug, status);
    if (rc == CHT_OK || rc == CHT_PENDING)
        rc = CHT_IO;
    if (json_is_integer(index) && why != NULL) {
        run->r->index = json_integer_value(index);
        (void)CHT_FAIL(err, rc, "%.90s: %.80s (%.22s)", where, why, what != NULL ? what : "batch_failed");
    } else if (slug != NULL)
        (void)CHT_FAIL(err, rc, "%.90s: %.80s (%.22s)", where, detail != NULL ? detail : "the server refused",
                       slug);
    else
        (void)CHT_FAIL(err, rc, "%.100s answered %u without saying why; is it a cheetah-db server?", where,
                       status);
    json_decref(o);
    return rc;
}

/* A tag that is no quoted text of that length is none that a server of ours gives. */
static void take_tag(struct tool_request *r, const char *etag)
{
    size_t n = strlen(etag);
    if (n >= 2 && n - 2 < sizeof r->tag && etag[0] == '"' && etag[n - 1] == '"') {
        memcpy(r->tag, etag + 1, n - 2);
        r->tag[n - 2] = 0;
    }
}

/* Why there was no answer. What libcurl says of a socket in the file system is of a port that nobody asked for. */
static const char *reason(const struct tool_client *c, CURLcode code)
{
    if (code == CURLE_COULDNT_CONNECT && CHT_BEGINS(c->url, "unix:"))
        return "no server listens at this socket";
    if (code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_WEIRD_SERVER_REPLY)
        return "what answers does not speak HTTP (the line protocol has a port of its own)";
    if (code == CURLE_GOT_NOTHING && CHT_BEGINS(c->url, "http:"))
        return "the connection was closed without an answer (perhaps it wants https://)";
    return c->message[0] != 0 ? c->message : curl_easy_strerror(code);
}

static enum cht_rc outcome(const struct running *run, CURLcode code, struct cht_err *err)
{
    const struct tool_client *c = run->c;
    if (run->cancelled)
        return CHT_FAIL(err, CHT_CANCELLED, "the request was given up");
    if (run->r->status >= 300) /* also if the server hung up while the body was being sent */
        return refused(run, err);
    if (code == CURLE_OK)
        return CHT_OK;
    if (code == CURLE_OUT_OF_MEMORY)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a request");
    return CHT_FAIL(err, CHT_IO, "%.90s: %.105s", tool_client_url(c), reason(c, code));
}

static bool add_header(struct curl_slist **list, const char *name, const char *value)
{
    char text[TOKEN_MAX + 64];
    int n = snprintf(text, sizeof text, "%s%s", name, value);
    struct curl_slist *more = n > 0 && (size_t)n < sizeof text ? curl_slist_append(*list, text) : NULL;
    if (more != NULL)
        *list = more;
    return more != NULL;
}

static bool headers(const struct tool_client *c, const struct tool_request *r, struct curl_slist **list)
{
    bool ok = add_header(list, "Expect:", ""); /* no 100-continue: it costs a second if it is not answered */
    if (c->authorization != NULL)
        ok = ok && add_header(list, c->authorization, "");
    if (r->accept != NULL)
        ok = ok && add_header(list, "Accept: ", r->accept);
    if (r->content_type != NULL)
        ok = ok && add_header(list, "Content-Type: ", r->content_type);
    else if (r->body != NULL || r->source != NULL)
        ok = ok && add_header(list, "Content-Type: application/octet-stream", "");
    if (r->condition != NULL)
        ok = ok && add_header(list, r->condition, "");
    return ok;
}

static bool body_options(const struct tool_client *c, struct running *run)
{
    CURL *h = c->curl;
    const struct tool_request *r = run->r;
    bool ok = true;
    if (r->body != NULL) {
        ok = ok && curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_POSTFIELDS, r->body) == CURLE_OK;
    } else if (r->source != NULL) { /* of unknown length: sent in chunks */
        ok = ok && curl_easy_setopt(h, CURLOPT_POST, 1L) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)-1) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_READFUNCTION, on_read) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_READDATA, run) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10) == CURLE_OK;
    }
    return ok;
}

static bool only_asks(const struct tool_request *r)
{
    if (r->method == NULL)
        return r->body == NULL && r->source == NULL;
    return strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
}

/* libcurl sends a request again by itself if a connection that was used before ends without a byte of the answer: what does not only ask
 * gets one of its own. */
static bool sent_once(CURL *h, const struct tool_request *r)
{
    return only_asks(r) || (curl_easy_setopt(h, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
                            curl_easy_setopt(h, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK);
}

static bool options(struct tool_client *c, const char *url, struct running *run, struct curl_slist *list)
{
    CURL *h = c->curl;
    struct tool_request *r = run->r;
    long idle = r->idle_seconds > 0 ? (long)r->idle_seconds : (long)IDLE_SECONDS;
    bool ok = curl_easy_setopt(h, CURLOPT_URL, url) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_HTTPHEADER, list) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_NOPROXY, "*") == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->message) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, idle) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_WRITEDATA, run) == CURLE_OK;
    ok = ok && curl_easy_setopt(h, CURLOPT_BUFFERSIZE, 256L << 10) == CURLE_OK;
    if (c->any_name) {
        ok = ok && curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 0L) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L) == CURLE_OK;
    }
    if (c->tls_ca != NULL)
        ok = ok && curl_easy_setopt(h, CURLOPT_CAINFO, c->tls_ca) == CURLE_OK;
    if (c->tls_cert != NULL) {
        ok = ok && curl_easy_setopt(h, CURLOPT_SSLCERT, c->tls_cert) == CURLE_OK;
        ok = ok && curl_easy_setopt(h, CURLOPT_SSLKEY, c->tls_key) == CURLE_OK;
    }
    ok = ok && body_options(c, run) && sent_once(h, r);
    if (r->method != NULL)
        ok = ok && curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, r->method) == CURLE_OK;
    return ok;
}

/* ---- over a connection within the process --------------------------------------------------------------------------- */

static bool on_local_body(void *ctx, const struct tool_answer *a, const char *p, size_t n)
{
    struct running *run = ctx;
    run->r->type = a->type[0] != 0 ? a->type : NULL;
    return deliver(run, a->status, p, n);
}

static enum cht_rc run_local(struct tool_client *c, struct tool_request *r, struct cht_err *err)
{
    struct running run = {.c = c, .r = r};
    c->fd = c->fd >= 0 ? c->fd : c->dial(c->dial_ctx);
    if (c->fd < 0)
        return CHT_FAIL(err, CHT_NO_DESCRIPTORS, "%.80s: no descriptor for a connection", tool_client_url(c));
    struct cht_err why = {0};
    enum cht_rc rc = tool_local_run(c->fd, r, on_local_body, &run, &c->answer, &why);
    r->status = c->answer.status;
    take_tag(r, c->answer.etag);
    if (rc != CHT_OK || c->answer.closes) {
        cht_net_close(c->fd);
        c->fd = -1;
    }
    if (run.cancelled || rc == CHT_CANCELLED)
        rc = CHT_FAIL(err, CHT_CANCELLED, "the request was given up");
    else if (r->status >= 300)
        rc = refused(&run, err);
    else if (rc != CHT_OK)
        rc = CHT_FAIL(err, rc, "%.90s: %.105s", tool_client_url(c), why.msg);
    cht_buf_free(&run.problem);
    return rc;
}

enum cht_rc tool_client_run(struct tool_client *c, struct tool_request *r, struct cht_err *err)
{
    struct running run = {.c = c, .r = r};
    struct curl_slist *list = NULL;
    enum cht_rc rc;
    r->status = 0;
    r->type = NULL;
    r->tag[0] = 0;
    r->index = -1;
    if (c->dial != NULL)
        return run_local(c, r, err);
    const char *path = CHT_BEGINS(c->url, "unix:") ? c->url + CHT_LEN("unix:") : NULL;
    const char *base = path != NULL ? "http://localhost" : c->url;
    size_t cap = strlen(base) + strlen(r->path) + 1;
    char *url = cht_malloc(cap);
    c->message[0] = 0;
    curl_easy_reset(c->curl); /* the connection stays */
    bool ok = url != NULL && headers(c, r, &list);
    if (ok) {
        (void)snprintf(url, cap, "%s%s", base, r->path); /* fits: its size is the sum of both */
        ok = options(c, url, &run, list) &&
             (path == NULL || curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, path) == CURLE_OK);
    }
    if (ok) {
        CURLcode code = curl_easy_perform(c->curl);
        struct curl_header *etag;
        long status = 0;
        if (curl_easy_header(c->curl, "ETag", 0, CURLH_HEADER, -1, &etag) == CURLHE_OK)
            take_tag(r, etag->value);
        (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status); /* 0 if there was no answer */
        r->status = (unsigned)status;
        rc = outcome(&run, code, err);
    } else {
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a request");
    }
    curl_slist_free_all(list);
    cht_buf_free(&run.problem);
    cht_free(url);
    return rc;
}

/* ---- small answers, lines -------------------------------------------------------------------------------------------- */

struct whole {
    struct cht_buf *to;
    size_t most;
};

static bool take_answer(void *ctx, const char *p, size_t n)
{
    const struct whole *w = ctx;
    return n <= w->most - w->to->len && buf_add(w->to, p, n);
}

enum cht_rc tool_client_ask(struct tool_client *c, struct tool_request *r, struct cht_buf *out,
                            struct cht_err *err)
{
    struct whole whole = {.to = out, .most = r->answer_max > 0 ? r->answer_max : ANSWER_MAX};
    r->sink = take_answer;
    r->sink_ctx = &whole;
    out->len = 0;
    enum cht_rc rc = tool_client_run(c, r, err);
    r->sink_ctx = NULL;
    if (rc == CHT_OK && !buf_add(out, "", 0))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an answer");
    if (rc == CHT_CANCELLED)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "the answer of %.100s is too long", r->path);
    return rc;
}

enum cht_rc tool_client_get(struct tool_client *c, const char *path, struct cht_buf *out, struct cht_err *err)
{
    struct tool_request r = {.path = path};
    return tool_client_ask(c, &r, out, err);
}

bool tool_lines_feed(void *lines, const char *p, size_t n)
{
    struct tool_lines *l = lines;
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t len = end != NULL ? (size_t)(end - p) : n;
        if ((end == NULL || l->rest.len > 0) && !buf_add(&l->rest, p, len)) {
            l->no_memory = true;
            return false;
        }
        if (end == NULL)
            return true;
        bool held = l->rest.len > 0;
        bool go = held ? l->line(l->ctx, (const char *)l->rest.data, l->rest.len) : l->line(l->ctx, p, len);
        l->rest.len = 0;
        if (!go)
            return false;
        p += len + 1;
        n -= len + 1;
    }
    return true;
}

void tool_lines_fini(struct tool_lines *l) { cht_buf_free(&l->rest); }
