/* here: see here.h. The order of a life is that of serve.c, without ports, signals, scrubbing and the access log. */
#include "tools/here.h"

#include "http/routes.h"
#include "http/server.h"
#include "service/dbs.h"
#include "tools/files.h"
#include "tools/tools.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

#define CLOSE_WAIT_NS UINT64_C(2000000000)

struct tool_here {
    struct conf conf;
    struct svc_log *log;
    struct http_server *server;
    struct cht_env *env;
    struct svc_dbs *dbs;
};

static const char *no_environment(const char *name)
{
    (void)name;
    return NULL; /* the options of a server that listens are not for this one */
}

/* One client, who owns the data: the limits are as far as they go. */
static enum cht_rc configure(struct tool_here *h, struct cht_err *err)
{
    static const char *const flags[] = {
        "--listen=none",
        "--line-listen=none",
        "--http-threads=1",
        "--max-value-size=1G",
        "--max-batch-bytes=1G",
        "--max-batch-ops=10000000",
        "--max-ngrams-bytes=1G",
        "--body-timeout=86400",
        "--max-document-tokens=100000000",
        "--access-log=false",
        "--log-format=text",
        "--log-level=error",
        "--request-memory-bytes=1024G",
        "--idle-timeout=86400",
        "--max-connections=16",
    };
    char *argv[sizeof flags / sizeof *flags];
    int n = 0;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        argv[i] = cht_strdup(flags[i]);
        n += argv[i] != NULL;
    }
    enum cht_rc rc = CHT_OK;
    if (n < (int)(sizeof flags / sizeof *flags))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the configuration");
    if (rc == CHT_OK)
        rc = conf_read(&h->conf, n, argv, no_environment, err);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        cht_free(argv[i]);
    return rc;
}

/* dirs: opened, if there is no environment yet; else NULL. */
static enum cht_rc open_all(struct tool_here *h, const struct tool_dirs *dirs, bool writes,
                            struct cht_err *err)
{
    enum cht_rc rc = configure(h, err);
    if (rc == CHT_OK)
        rc = svc_log_new(false, SVC_LOG_ERROR, &h->log, err);
    if (rc == CHT_OK)
        rc = tool_files_budget(&h->conf, h->log, err);
    if (rc == CHT_OK)
        rc = http_server_start(&h->conf, &http_routes, h->log, &h->server, err);
    if (rc == CHT_OK && h->env == NULL && dirs != NULL) {
        struct cht_env_config cfg = {.dirs = (const char *const *)dirs->v,
                                     .dir_count = dirs->n,
                                     .mode = writes ? CHT_DIRS_JOIN : CHT_DIRS_AS_FOUND,
                                     .max_value_size = CHT_VALUE_MAX};
        rc = cht_env_open(&cfg, &h->env, err);
    }
    if (rc == CHT_OK)
        rc = svc_dbs_new(h->env, &h->dbs, err);
    if (rc == CHT_OK)
        http_server_ready(h->server, h->env, h->dbs);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc begin(struct cht_env *env, const struct tool_dirs *dirs, bool writes,
                         struct tool_here **out, struct cht_err *err)
{
    struct tool_here *h = cht_calloc(1, sizeof *h);
    *out = NULL;
    if (h == NULL) {
        if (env != NULL)
            (void)cht_env_close(env, NULL); /* the failure to tell is the other one */
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a server");
    }
    h->env = env;
    cht_os_ignore_pipe();
    enum cht_rc rc = open_all(h, dirs, writes, err);
    if (rc != CHT_OK)
        (void)tool_here_close(h, NULL); /* the first failure is the one to tell */
    else
        *out = h;
    return rc;
}

enum cht_rc tool_here_open(const struct tool_dirs *dirs, bool writes, struct tool_here **out,
                           struct cht_err *err)
{
    return begin(NULL, dirs, writes, out, err);
}

enum cht_rc tool_here_over(struct cht_env *env, struct tool_here **out, struct cht_err *err)
{
    return begin(env, NULL, true, out, err);
}

int tool_here_dial(void *here)
{
    struct tool_here *h = here;
    struct cht_peer peer;
    int served, asking;
    if (cht_net_pair(&served, &peer, &asking, NULL) != CHT_OK)
        return -1;
    http_server_adopt(h->server, served, &peer);
    return asking;
}

enum cht_rc tool_here_close(struct tool_here *h, struct cht_err *err)
{
    if (h == NULL)
        return CHT_OK;
    http_server_stop(h->server, CLOSE_WAIT_NS);
    svc_dbs_free(h->dbs);
    enum cht_rc rc = h->env != NULL ? cht_env_close(h->env, err) : CHT_OK;
    http_server_free(h->server); /* after the threads that ring its bells */
    svc_log_free(h->log);
    conf_fini(&h->conf);
    cht_free(h);
    return rc;
}
