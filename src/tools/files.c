/* files: see files.h.
 *
 *   base        listeners, pipes, a few a thread, connections that linger, page files at rest, backups
 *   databases   the log of each that is open, what a checkpoint opens: an eighth of the limit
 *   over        connections beyond --max-connections, which are told so
 *   clients     --max-connections and --line-connections, each less in proportion if they do not fit
 */
#include "tools/files.h"

#include "os/io.h"
#include "os/net.h"

#include <inttypes.h>
#include <string.h>

#define BASE 192u
#define A_THREAD 4u
#define DATABASES_MIN 96u
#define DATABASES_MAX 16384u
#define OVER_MIN 16u
#define OVER_MAX 512u
#define CLIENTS_MIN 16u

static uint64_t clamp(uint64_t v, uint64_t least, uint64_t most)
{
    return v < least ? least : v > most ? most : v;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc tool_files_budget(struct conf *c, struct svc_log *log, struct cht_err *err)
{
    uint64_t limit = cht_os_raise_files(), cores = cht_os_cores();
    bool line = strcmp(c->line_listen, "none") != 0;
    uint64_t threads =
        (c->http_threads > 0 ? c->http_threads : cores) + (c->line_threads > 0 ? c->line_threads : 4);
    uint64_t databases = clamp(limit / 8, DATABASES_MIN, DATABASES_MAX);
    uint64_t kept = BASE + A_THREAD * threads + databases, least = kept + OVER_MIN + CLIENTS_MIN;
    uint64_t want = c->max_connections + (line ? c->line_connections : 0);
    c->file_limit = limit;
    if (limit < least)
        return CHT_FAIL(err, CHT_NO_DESCRIPTORS,
                        "the limit of open files is %" PRIu64 ", at least %" PRIu64
                        " are needed: raise nofile",
                        limit, least);
    uint64_t over = clamp(limit / 16, OVER_MIN, OVER_MAX);
    over = clamp(over, OVER_MIN, limit - kept - CLIENTS_MIN);
    c->connections_over = over;
    uint64_t left = limit - kept - over;
    if (want <= left) {
        svc_log_say(log, SVC_LOG_INFO, "descriptors",
                    "limit %" PRIu64 ": %" PRIu64 " for clients, %" PRIu64 " for databases and the log",
                    limit, want, limit - want - over);
        return CHT_OK;
    }
    uint64_t http = c->max_connections, tcp = c->line_connections;
    c->max_connections = clamp(left * http / want, 1, http);
    c->line_connections = clamp(left * tcp / want, 1, tcp);
    svc_log_say(
        log, SVC_LOG_WARN, "descriptors",
        "the limit of open files is %" PRIu64 ", of which %" PRIu64
        " are kept for databases and the log: --max-connections is %" PRIu64 " instead of %" PRIu64
        ", --line-connections %" PRIu64 " instead of %" PRIu64 "; raise nofile (LimitNOFILE) to %" PRIu64,
        limit, kept, c->max_connections, http, c->line_connections, tcp, (kept + over + want) * 8 / 7 + 8);
    return CHT_OK;
}
