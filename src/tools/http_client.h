/* http_client: requests to a running server, over libcurl: one connection that is kept, one request at a time.
 *
 * A client is built from what the operator said (--connect, --token-file or CHEETAH_TOKEN, --tls-ca, --tls-cert). The body of an answer
 * is handed out piece by piece as it arrives, a body to send is asked for piece by piece, so neither is held in memory.
 * An answer of 400 or over is a failure: its problem+json becomes err, with the code the server gave and a message for
 * people. A stream that ends with {"error":...} is the caller's to notice (tool_lines hands it the line).
 *
 * Threads: one at a time per client.
 */
#pragma once

#include "cheetah/err.h"
#include "cheetah/store.h"
#include "tools/args.h"

#define TOOL_CONNECT_DEFAULT "http://127.0.0.1:8080"

/* What the command line says about the server; zero-initialise. Strings are borrowed. */
struct tool_connect {
    const char *
        connect; /* URL, HOST:PORT or unix:/path; NULL: the environment's CHEETAH_URL, or TOOL_CONNECT_DEFAULT */
    const char *token_file;         /* NULL: the environment's CHEETAH_TOKEN, or none */
    const char *tls_ca;             /* file of certificates to trust; NULL: the system's */
    const char *tls_cert, *tls_key; /* files: what to show in place of a token; NULL: nothing */
    bool any_name; /* whoever has the port is believed to be the server; for health, over loopback */
    /* For a server within this process: gives a connection to it, -1 for none. NULL: `connect` is dialled. */
    int (*dial)(void *ctx);
    void *dial_ctx;
    const char *label; /* with dial: what messages call the server */
};
/* Rows for a table of options. */
/* clang-format off: rows of a table */
#define TOOL_CONNECT_OPTS(c)                                                       \
    {"connect",                                                                    \
     0,                                                                            \
     TOOL_OPT_STRING,                                                              \
     &(c)->connect,                                                                \
     0,                                                                            \
     "URL",                                                                        \
     "the server, HOST:PORT, a URL or unix:/path (default: CHEETAH_URL,\n"         \
     "else " TOOL_CONNECT_DEFAULT ")"},                                            \
        {"token-file",                                                             \
         0,                                                                        \
         TOOL_OPT_STRING,                                                          \
         &(c)->token_file,                                                         \
         0,                                                                        \
         "FILE",                                                                   \
         "its token, if it wants one; or the environment's CHEETAH_TOKEN"},        \
        {"tls-ca",                                                                 \
         0,                                                                        \
         TOOL_OPT_STRING,                                                          \
         &(c)->tls_ca,                                                             \
         0,                                                                        \
         "FILE",                                                                   \
         "the certificates to trust in place of the system's"},                    \
        {"tls-cert",                                                               \
         0,                                                                        \
         TOOL_OPT_STRING,                                                          \
         &(c)->tls_cert,                                                           \
         0,                                                                        \
         "FILE",                                                                   \
         "the certificate to show, in place of a token"},                          \
    {                                                                              \
        "tls-key", 0, TOOL_OPT_STRING, &(c)->tls_key, 0, "FILE", "its private key" \
    }
/* clang-format on */

struct tool_client;
/* Reads the token; connects to nothing yet. CHT_INVALID_ARGUMENT (URL, token file), CHT_NO_FILE, CHT_NO_MEMORY. */
enum cht_rc tool_client_new(const struct tool_connect *how, struct tool_client **out, struct cht_err *err);
void tool_client_free(struct tool_client *c);             /* NULL is legal */
const char *tool_client_url(const struct tool_client *c); /* "http://127.0.0.1:8080", or the label */

/* "Authorization: Bearer ...", NULL without a token. Borrowed. */
const char *tool_client_authorization(const struct tool_client *c);

/* Takes a piece of the answer's body. False ends the request, which then fails with CHT_CANCELLED. */
typedef bool tool_client_sink(void *ctx, const char *p, size_t n);
/* Fills buf with at most room bytes of the body and returns how many; 0 ends it. TOOL_CLIENT_ABORT ends the request, which
 * then fails with CHT_CANCELLED. */
typedef size_t tool_client_source(void *ctx, char *buf, size_t room);
#define TOOL_CLIENT_ABORT SIZE_MAX

#define TOOL_CLIENT_TAG 40u
struct tool_request {
    const char *method;                /* NULL: GET */
    const char *path;                  /* with its query, encoded: "/pairs/%2A?db=default" */
    const char *accept, *content_type; /* NULL: none */
    const char *body;                  /* body_len bytes; NULL: what `source` gives, or none */
    size_t body_len;
    tool_client_source *source; /* sent chunked */
    tool_client_sink *sink;     /* NULL: the body is dropped */
    void *source_ctx, *sink_ctx;
    const char *condition; /* a header, "If-None-Match: *"; NULL: none */
    size_t answer_max;     /* of tool_client_ask; 0: 64 MiB */
    unsigned idle_seconds; /* without a byte in either direction; 0: 300 */
    unsigned status;       /* out: of the answer, 0 if there was none */
    const char *type;      /* out: its Content-Type, for the sink and until the next request; NULL: none */
    char tag[TOOL_CLIENT_TAG]; /* out: its ETag, without quotes; empty: none */
    int64_t index;             /* out: the operation that failed an atomic batch; -1: none */
};
/* One request, sent once; one that only asks (GET, HEAD) perhaps twice. Codes: that of the problem; CHT_IO if the server cannot be reached, or the connection broke off before the
 * end of the answer; CHT_CANCELLED by a callback. */
enum cht_rc tool_client_run(struct tool_client *c, struct tool_request *r, struct cht_err *err);
/* One request with a small answer, into out (reused): r's sink is set. At most r->answer_max bytes, with a zero after it. */
enum cht_rc tool_client_ask(struct tool_client *c, struct tool_request *r, struct cht_buf *out,
                            struct cht_err *err);
/* GET of a small answer into out (reused), at most 64 MiB, with a zero after it. */
enum cht_rc tool_client_get(struct tool_client *c, const char *path, struct cht_buf *out,
                            struct cht_err *err);

/* Cuts what a sink gets into lines. */
struct tool_lines {
    bool (*line)(void *ctx, const char *p, size_t n); /* without its line break; false ends the request */
    void *ctx;
    struct cht_buf rest; /* owned: a line that has not ended */
    bool no_memory;
};
bool tool_lines_feed(void *lines, const char *p, size_t n); /* a tool_client_sink */
void tool_lines_fini(struct tool_lines *l);
