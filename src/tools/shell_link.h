/* shell_link: who answers the shell's lines: a running server over the line protocol, or the same interpreter in this process
 * on the data directories of a stopped one.
 *
 * Threads: one at a time, but for feed and drain, which are two ends of one pipe.
 */
#pragma once

#include "base/alloc.h"
#include "cheetah/store.h"
#include "service/tls.h"
#include "tools/args.h"

#define TOOL_LINK_DEFAULT "127.0.0.1:4455"

struct tool_link;

/* token: NULL for none. tls: whom to trust (client_ca) and the certificate to show; NULL: plain. CHT_UNAUTHORIZED if the server does not
 * take the token. */
enum cht_rc tool_link_connect(const char *where, const char *token, const struct svc_tls_config *tls,
                              struct tool_link **out, struct cht_err *err);
/* Opens the directories, and in them "default". */
enum cht_rc tool_link_open(const struct tool_dirs *dirs, struct tool_link **out, struct cht_err *err);
/* In-process: what was written is checkpointed. NULL is legal. */
enum cht_rc tool_link_close(struct tool_link *l, struct cht_err *err);
/* The answer to one line (without its newline, which the answer lacks, too), borrowed until the next call. CHT_CLOSED if the
 * server, or EXIT, has ended the connection. */
enum cht_rc tool_link_ask(struct tool_link *l, const char *line, size_t n, struct cht_str *answer,
                          struct cht_err *err);
/* Everything from descriptor `in` to the interpreter and its answers to `out`, until the end of both: bare protocol, pipelined.
 * A last line without a newline counts. CHT_IO if answers are missing. */
enum cht_rc tool_link_relay(struct tool_link *l, int in, int out, struct cht_err *err);
