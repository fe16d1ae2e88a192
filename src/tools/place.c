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
    p->connect.dial = tool_here_dial;
    p->connect.dial_ctx = p->here;
    p->connect.label = p->label;
    return TOOL_EXIT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_place_check(const char *command, const struct tool_place *p)
{
    const struct tool_connect *c = &p->connect;
    if (p->data.n > 0 && (c->connect != NULL || c->token_file != NULL || c->tls_ca != NULL ||
                          c->tls_cert != NULL || c->tls_key != NULL))
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
