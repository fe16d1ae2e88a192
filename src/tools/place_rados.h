/* place_rados: `--store rados`: the databases lie in a pool of a Ceph cluster (cheetah/rados.h). Of `cheetah-db serve`, whose options are its
 * configuration, and of the tools that work on a pool without a server; servers may go on meanwhile.
 */
#pragma once

#include "cheetah/store.h"
#include "conf/conf.h"
#include "tools/args.h"

static inline bool tool_rados_wanted(const struct conf *c) { return c->store[0] == 'r'; }
/* CHT_INVALID_ARGUMENT: an option that means nothing there, or nothing without it; a program that was built without it. */
enum cht_rc tool_rados_check(const struct conf *c, struct cht_err *err);
enum cht_rc tool_rados_open(const struct conf *c, struct cht_env **out, struct cht_err *err);

/* ---- of a tool ------------------------------------------------------------------------------------------------------ */

/* What the command line says; zero-initialise. Strings are borrowed. */
struct tool_rados {
    const char *store, *pool, *conf, *id;
    uint64_t timeout;
    const char *
        spool; /* not an option: where a backup of files is laid out, as large as it is; NULL: none is restored */
};
/* clang-format off: rows of a table */
#define TOOL_RADOS_OPTS(r)                                                                          \
    {"store",                                                                                       \
     0,                                                                                             \
     TOOL_OPT_STRING,                                                                               \
     &(r)->store,                                                                                   \
     0,                                                                                             \
     "rados",                                                                                       \
     "a pool of a Ceph cluster, in place of a running server;\nservers on it may go on meanwhile"}, \
        {"rados-pool", 0, TOOL_OPT_STRING, &(r)->pool, 0, "NAME", "which pool"},                    \
        {"rados-conf",                                                                              \
         0,                                                                                         \
         TOOL_OPT_STRING,                                                                           \
         &(r)->conf,                                                                                \
         0,                                                                                         \
         "FILE",                                                                                    \
         "its ceph.conf (default: where Ceph looks for it)"},                                       \
        {"rados-id",                                                                                \
         0,                                                                                         \
         TOOL_OPT_STRING,                                                                           \
         &(r)->id,                                                                                  \
         0,                                                                                         \
         "ID",                                                                                      \
         "the Ceph user, without \"client.\" (default: admin)"},                                    \
    {                                                                                               \
        "rados-timeout", 0, TOOL_OPT_NUMBER, &(r)->timeout, 600, "S",                               \
            "seconds for an operation (default: 10)"                                                \
    }
/* clang-format on */

/* Is it a pool that the tool is to work on? */
static inline bool tool_rados_named(const struct tool_rados *r) { return r->store != NULL; }
/* Do the options go together? TOOL_EXIT_USAGE after a message, also in a program that was built without it. other: what else names a place,
 * "--data"; NULL: nothing does. */
int tool_rados_options(const char *command, const struct tool_rados *r, const char *other);
/* What cht_rados_open says; without `writes` a pool in which there is nothing of this program is CHT_NOT_FOUND and stays so. Nothing may fork from here until the environment is closed. */
enum cht_rc tool_rados_open_pool(const struct tool_rados *r, bool writes, struct cht_env **out,
                                 struct cht_err *err);
/* cht_rados_check of the pool's databases, or of one. */
enum cht_rc tool_rados_verify(const struct tool_rados *r, const char *database,
                              void (*finding)(void *ctx, const char *where, const char *what),
                              void (*notice)(void *ctx, const char *database, const char *what), void *ctx,
                              uint64_t *findings, struct cht_err *err);
