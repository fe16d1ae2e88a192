/* shell: `cheetah-db shell`: commands of the line protocol, typed or piped, to a running server or to the data directories of
 * a stopped one.
 *
 * On a terminal: a prompt with editing, history and completion (libedit), answers for people. Otherwise the bare protocol: lines
 * from stdin, answers to stdout, many in flight.
 */
#include "tools/shell.h"

#include "base/literal.h"
#include "os/net.h"
#include "os/terminal.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_FILE_MAX 4096u

static const char help_before[] = "cheetah-db shell [OPTION ...]\n"
                                  "\n"
                                  "Commands of the line protocol, typed or piped. HELP lists them.\n"
                                  "\n";
static const char help_after[] =
    "\n"
    "The history is kept in ~/.cheetah_history, or in the file that CHEETAH_HISTORY names (empty:\n"
    "nowhere). If stdin or stdout is no terminal, lines and answers are the bare protocol.\n"
    "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 stored data is damaged.\n";

/* The token of the file or the environment, NULL for none; owned. */
static enum cht_rc read_token(const char *file, char **out, struct cht_err *err)
{
    const char *env = getenv("CHEETAH_TOKEN"); /* NOLINT(concurrency-mt-unsafe): one thread yet */
    size_t n;
    *out = NULL;
    if (file != NULL) {
        enum cht_rc rc = cht_os_read_file(file, TOKEN_FILE_MAX, out, &n, err);
        if (rc != CHT_OK)
            return rc;
        (*out)[strcspn(*out, " \t\r\n")] = 0;
    } else if (env != NULL && env[0] != 0) {
        *out = cht_strdup(env);
        if (*out == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the token");
    }
    return CHT_OK;
}

/* "cheetah_data" of "/srv/cheetah_data/". */
static void base_name(const char *path, char *out, size_t cap)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    (void)snprintf(out, cap, "%.*s", (int)(n - start), path + start); /* a long one is cut */
}

/* The server of CHEETAH_URL, at the port of the line protocol; without it the default. https is TLS here, too, so that a token does not
 * go where nobody can be sure who listens. */
static bool take_server(struct tool_shell *s)
{
    const char *url = getenv("CHEETAH_URL"); /* NOLINT(concurrency-mt-unsafe): one thread yet */
    s->connect = TOOL_LINK_DEFAULT;
    if (url == NULL || url[0] == 0)
        return true;
    if (CHT_BEGINS(url, "unix:")) /* that of HTTP: the line protocol's is another one */
        return false;
    const char *host = strstr(url, "://");
    s->secure = s->secure || CHT_BEGINS(url, "https://");
    host = host != NULL ? host + 3 : url;
    const char *end = host[0] == '[' ? strchr(host, ']') : NULL;
    size_t n = end != NULL ? (size_t)(end - host) + 1 : strcspn(host, ":/");
    int len =
        snprintf(s->from_url, sizeof s->from_url, "%.*s%s", (int)n, host, strrchr(TOOL_LINK_DEFAULT, ':'));
    s->connect = s->from_url;
    return n > 0 && len > 0 && (size_t)len < sizeof s->from_url && host[strcspn(host, "@?#")] == 0;
}

static int failed(const struct cht_err *err, enum cht_rc rc)
{
    struct cht_err e = *err;
    e.code = rc;
    return tool_failed(&e);
}

static int run(struct tool_shell *s)
{
    struct cht_err err = {0};
    int code = TOOL_EXIT_OK;
    enum cht_rc rc = tool_shell_connect(s, &err);
    if (rc != CHT_OK)
        return failed(&err, rc);
    if (cht_os_is_terminal(0) && cht_os_is_terminal(1)) {
        rc = tool_shell_interact(s, &err);
    } else {
        rc = tool_link_relay(s->link, 0, 1, &err);
    }
    if (rc != CHT_OK)
        code = failed(&err, rc);
    rc = tool_link_close(s->link, &err);
    return rc != CHT_OK && code == TOOL_EXIT_OK ? failed(&err, rc) : code;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc tool_shell_connect(struct tool_shell *s, struct cht_err *err)
{
    s->link = NULL;
    return s->dirs.n > 0 ? tool_link_open(&s->dirs, &s->link, err)
                         : tool_link_connect(s->connect, s->token, s->secure ? &s->tls : NULL, &s->link, err);
}

int tool_shell(int argc, char **argv)
{
    struct tool_shell s = {.database = CHT_DATABASE_DEFAULT};
    const char *token_file = NULL;
    bool asked = false;
    struct tool_opt_list data = {.n = 0};
    int rest, code = TOOL_EXIT_OK;
    struct cht_err err = {0};
    const struct tool_opt opts[] = {
        {"connect", 0, TOOL_OPT_STRING, &s.connect, 0, "HOST:PORT",
         "a running server's line protocol (default: port 4455 of the host of "
         "CHEETAH_URL,\nelse " TOOL_LINK_DEFAULT ")"},
        {"data", 0, TOOL_OPT_LIST, &data, 0, "A,B,C",
         "the data directories of a server that is stopped, all of them"},
        {"token-file", 0, TOOL_OPT_STRING, &token_file, 0, "FILE",
         "the server's token, if it wants one; or the environment's CHEETAH_TOKEN"},
        {"tls", 0, TOOL_OPT_FLAG, &s.secure, 0, NULL, "the server was started with --line-tls"},
        {"tls-ca", 0, TOOL_OPT_STRING, &s.tls.client_ca, 0, "FILE",
         "the certificates to trust in place of the system's; implies --tls"},
        {"tls-cert", 0, TOOL_OPT_STRING, &s.tls.cert, 0, "FILE",
         "the certificate to show, in place of a token; implies --tls"},
        {"tls-key", 0, TOOL_OPT_STRING, &s.tls.key, 0, "FILE", "its private key"},
        {"help", 'h', TOOL_OPT_FLAG, &asked, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (asked)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest > 0)
        return tool_usage("shell", "takes options only; see cheetah-db shell --help");
    if (data.n > 0 && s.connect != NULL)
        return tool_usage("shell", "--connect and --data exclude each other");
    s.secure = s.secure || s.tls.client_ca != NULL || s.tls.cert != NULL || s.tls.key != NULL;
    if (data.n > 0 && s.secure)
        return tool_usage("shell", "--tls goes with a running server, not with --data");
    if ((s.tls.cert == NULL) != (s.tls.key == NULL))
        return tool_usage("shell", "--tls-cert and --tls-key go together");
    if (data.n == 0 && s.connect == NULL && !take_server(&s))
        return tool_usage(
            "shell", "CHEETAH_URL is no http[s]://HOST:PORT; --connect HOST:PORT names the line protocol");
    if (s.connect != NULL && strstr(s.connect, "://") != NULL)
        return tool_usage("shell",
                          "--connect wants HOST:PORT of the line protocol, which is not that of HTTP");
    if (data.n > 0 && !tool_dirs(&data, &s.dirs))
        code = TOOL_EXIT_USAGE;
    if (code == TOOL_EXIT_OK && s.dirs.n > 0)
        code = tool_need_dirs(&s.dirs);
    if (code == TOOL_EXIT_OK && read_token(token_file, &s.token, &err) != CHT_OK)
        code = tool_failed(&err);
    if (s.dirs.n > 0)
        base_name(s.dirs.v[0], s.place, sizeof s.place);
    else
        (void)snprintf(s.place, sizeof s.place, "%s", s.connect); /* a long one is cut */
    cht_os_ignore_pipe();
    if (code == TOOL_EXIT_OK)
        code = run(&s);
    cht_free(s.token);
    tool_dirs_fini(&s.dirs);
    return code;
}
