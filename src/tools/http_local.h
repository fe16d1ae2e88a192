/* http_local: one request over a socket that is connected already, in place of libcurl, which cannot be given one (in 7.88 it connects it again).
 */
#pragma once

#include "tools/answer.h"
#include "tools/http_client.h"

/* Takes a piece of the body; a->status is known. False: no more is wanted. */
typedef bool tool_local_body(void *ctx, const struct tool_answer *a, const char *p, size_t n);

/* Sends r (body or source) and reads the answer. fd is blocking; it can be used again if CHT_OK is returned and !a->closes. CHT_IO: the
 * connection ended, or what came is no answer; CHT_CANCELLED: fn, or the source, gave up; CHT_NO_MEMORY. a->status is that of the answer, 0
 * for none, also with a failure. */
enum cht_rc tool_local_run(int fd, const struct tool_request *r, tool_local_body *fn, void *ctx,
                           struct tool_answer *a, struct cht_err *err);
