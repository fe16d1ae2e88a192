/* host: what all sessions share beside their limits: what the machine had used when it was last asked, and answers that are kept to be
 * fetched (detached.h).
 *
 * Threads: any; init and fini: no other call.
 */
#pragma once

#include "os/io.h"
#include "os/thread.h"
#include "tcp/session.h"

struct line_detached;

struct line_host {
    struct cht_mutex mu;
    struct cht_os_usage used,
        before; /* guarded by mu: when it was last asked, and at least a tenth of a second earlier */
    struct line_detached *newest; /* guarded by mu, as are the next: detached.c */
    size_t kept;
    uint64_t kept_bytes, serial;
    struct lm_engine *lm; /* owned: that of all sessions, if they were given none */
};
