/* line_client: commands of the line protocol to another server, for a migration: lines out, answers in.
 *
 * A payload may hold any byte, so the answer to READ is read by the length it states, not up to its line break.
 */
#pragma once

#include "cheetah/store.h"
#include "service/tls.h"

/* How to reach a server. Borrowed, while the client is open. */
struct tool_line_how {
    const char *where;                /* HOST:PORT */
    const char *token_file;           /* NULL: none */
    const char *database;             /* NULL: the one that a connection begins with */
    const struct svc_tls_config *tls; /* as for tool_line_secure; NULL: plain */
};

struct tool_line_client {
    int fd;
    struct svc_tls_conn *tls; /* owned; NULL: plain */
    struct cht_buf buf;       /* owned: received; answers are borrowed from it until the next call */
    size_t at;
    const char *where; /* borrowed: for messages */
};

/* TLS over a connection to `where`, whose host the certificate must be for (svc_tls_connect). */
enum cht_rc tool_line_secure(int fd, const char *where, const struct svc_tls_config *tls,
                             struct svc_tls_conn **out, struct cht_err *err);
/* Connects, says AUTH with the token of the file if there is one, and changes to the database. On an error, too, tool_line_close. */
enum cht_rc tool_line_open(struct tool_line_client *l, const struct tool_line_how *how, struct cht_err *err);
void tool_line_close(struct tool_line_client *l);
/* Commands, each with its line break. Not more at once than the answers that are waiting leave room for: a few KiB. */
enum cht_rc tool_line_send(struct tool_line_client *l, const char *p, size_t n, struct cht_err *err);
/* The next answer without its line break. */
enum cht_rc tool_line_answer(struct tool_line_client *l, const char **p, size_t *n, struct cht_err *err);
/* The answer to READ: the payload; *p NULL: ERROR,key_not_found, or the payload has a line break in it, which our own server
 * does not send this way (*hidden). Any other error is CHT_IO. */
enum cht_rc tool_line_value(struct tool_line_client *l, const char **p, size_t *n, bool *hidden,
                            struct cht_err *err);
/* Asks for the payload of a pair (its name in hexadecimal) as base64. */
enum cht_rc tool_line_payload(struct tool_line_client *l, const char *hex, size_t hex_n, const char **p,
                              size_t *n, struct cht_err *err);

/* A page of PAIR_SCAN. */
struct tool_line_page {
    char *text; /* owned: the answer */
    size_t text_n;
    const char *next;  /* the cursor to go on from, hexadecimal; NULL: it was the last page */
    const char *items; /* what is left to be read */
};
struct tool_line_item {
    const char *hex; /* of the name, hex_n characters */
    size_t hex_n;
    uint64_t key;
};
/* The page after the cursor (hexadecimal, without the x; NULL: the first). Free it with cht_free(page->text). */
enum cht_rc tool_line_scan(struct tool_line_client *l, const char *cursor, struct tool_line_page *page,
                           struct cht_err *err);
/* The next item; false at the end of the page. CHT_IO if it is none. */
enum cht_rc tool_line_next(struct tool_line_page *page, struct tool_line_item *item, bool *got,
                           struct cht_err *err);
