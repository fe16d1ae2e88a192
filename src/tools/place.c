/* place: see place.h. */
#include "tools/place.h"

#include "tools/here.h"
#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

static int open_stopped(struct tool_place *p, bool writes, struct cht_err *err)
{
    int code = tool_dirs(&p->data, &p->dirs) ? tool_need_dirs(&p->dirs) : TOOL_EXIT_USAGE;
    if (code != TOOL_EXIT_OK)
        return code;
    if (tool_here_open(&p->dirs, writes, &p->here, err) != CHT_OK)
        return tool_failed(err);
    size_t n = strlen(p->dirs.v[0]); /* of a long one the end says more */
    (void)snprintf(p->label, sizeof p->label, "%s%s", n < sizeof p->label ? "" : "...",
                   p->dirs.v[0] + (n < sizeof p->label ? 0 : n - (sizeof p->label - 4)));
    return TOOL_EXIT_OK;
}

static int open_pool(struct tool_place *p, bool writes, struct cht_err *err)
{
    struct cht_env *env;
    enum cht_rc rc = tool_rados_open_pool(&p->rados, writes, &env, err);
    if (rc == CHT_OK)
        rc = tool_here_over(env, &p->here, err);
    (void)snprintf(p->label, sizeof p->label, "pool %.80s", p->rados.pool); /* a long one is cut */
    return rc == CHT_OK ? TOOL_EXIT_OK : tool_failed(err);
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_place_check(const char *command, const struct tool_place *p)
{
    const struct tool_connect *c = &p->connect;
    bool there = c->connect != NULL || c->token_file != NULL || c->tls_ca != NULL || c->tls_cert != NULL ||
                 c->tls_key != NULL;
    int code = tool_rados_options(command, &p->rados,
                                  p->data.n > 0 ? "--data"
                                  : there       ? "--connect (with --token-file, --tls-...)"
                                                : NULL);
    if (code != TOOL_EXIT_OK)
        return code;
    if (p->data.n > 0 && there)
        return tool_usage(command,
                          "--connect, --token-file and --tls-... are for a running server, --data is "
                          "for a stopped one");
    return TOOL_EXIT_OK;
}

int tool_place_open(const char *command, struct tool_place *p, bool writes)
{
    struct cht_err err = {0};
    int code = tool_place_check(command, p);
    if (code == TOOL_EXIT_OK && tool_place_stopped(p))
        code = open_stopped(p, writes, &err);
    if (code == TOOL_EXIT_OK && tool_rados_named(&p->rados))
        code = open_pool(p, writes, &err);
    if (code == TOOL_EXIT_OK && p->here != NULL) {
        p->connect.dial = tool_here_dial;
        p->connect.dial_ctx = p->here;
        p->connect.label = p->label;
    }
    if (code == TOOL_EXIT_OK && tool_client_new(&p->connect, &p->client, &err) != CHT_OK)
        code = tool_failed(&err);
    return code;
}

const char *tool_place_name(const struct tool_place *p) { return tool_client_url(p->client); }

int tool_place_close(struct tool_place *p, int code)
{
    struct cht_err err = {0};
    tool_client_free(p->client);
    if (tool_here_close(p->here, &err) != CHT_OK && code == TOOL_EXIT_OK)
        code = tool_failed(&err);
    tool_dirs_fini(&p->dirs);
    p->client = NULL;
    p->here = NULL;
    return code;
}
