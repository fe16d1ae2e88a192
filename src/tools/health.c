/* health: `cheetah-db health`: asks a running server whether it is ready; for containers, scripts and service managers.
 *
 * Without --connect it asks the server of this machine whose configuration it shares: the address of CHEETAH_LISTEN or of
 * the file in CHEETAH_CONFIG, over TLS if those name a certificate. The name in that certificate is not compared with
 * the loopback address; nothing secret is sent.
 */
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "conf/conf.h"
#include "os/net.h"
#include "tools/http_client.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_SECONDS 5u
#define PAUSE_MS 100
#define WAIT_MAX 86400u

/* http://127.0.0.1:8080 of "0.0.0.0:8080", ":8080" and the like; *url is owned by the caller. */
static enum cht_rc local_url(const struct conf *c, char **url, struct cht_err *err)
{
    const char *host = c->listen, *colon = strrchr(host, ':');
    if (CHT_BEGINS(host, "unix:")) {
        *url = cht_strdup(host);
        return *url != NULL ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an address");
    }
    if (colon == NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "listen: '%.80s' is not HOST:PORT", c->listen);
    size_t n = (size_t)(colon - host);
    if (n == 0 || CHT_IS(host, n, "0.0.0.0")) {
        host = "127.0.0.1";
        n = strlen(host);
    } else if (CHT_IS(host, n, "[::]")) {
        host = "[::1]";
        n = strlen(host);
    }
    size_t cap = sizeof "https://" + n + strlen(colon);
    *url = cht_malloc(cap);
    if (*url == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an address");
    (void)snprintf(*url, cap, "%s://%.*s%s", c->tls_cert[0] != 0 ? "https" : "http", (int)n, host,
                   colon); /* fits */
    return CHT_OK;
}

static enum cht_rc ask(struct tool_client *client, const char *path, uint64_t seconds, struct cht_err *err)
{
    uint64_t end = cht_now_ns() + seconds * UINT64_C(1000000000);
    for (;;) {
        struct tool_request r = {.path = path, .idle_seconds = ANSWER_SECONDS};
        enum cht_rc rc = tool_client_run(client, &r, err);
        if (rc == CHT_OK || cht_now_ns() >= end)
            return rc;
        cht_net_poll(NULL, NULL, 0, PAUSE_MS);
    }
}

static int run(struct tool_connect *how, bool live, uint64_t seconds)
{
    struct conf conf = {0};
    struct tool_client *client = NULL;
    struct cht_err err = {0};
    char *url = NULL;
    enum cht_rc rc = CHT_OK;
    if (how->connect == NULL) {
        how->any_name = true;
        rc = conf_read(&conf, 0, NULL, NULL, &err);
        if (rc == CHT_OK)
            rc = local_url(&conf, &url, &err);
        how->connect = url;
    }
    if (rc == CHT_OK)
        rc = tool_client_new(how, &client, &err);
    int code = rc == CHT_INVALID_ARGUMENT ? TOOL_EXIT_USAGE : TOOL_EXIT_FAILED;
    if (rc == CHT_OK) {
        rc = ask(client, live ? "/healthz" : "/readyz", seconds, &err);
        code = rc == CHT_OK ? TOOL_EXIT_OK : TOOL_EXIT_FAILED;
    }
    if (rc != CHT_OK)
        (void)fprintf(stderr, "cheetah-db health: %s\n", err.msg);
    else
        (void)puts(live ? "alive" : "ready"); /* main looks at ferror */
    tool_client_free(client);
    cht_free(url);
    conf_fini(&conf);
    return code;
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_health(int argc, char **argv)
{
    struct tool_connect how = {0};
    uint64_t seconds = 0;
    bool live = false, asked = false;
    int rest;
    const struct tool_opt opts[] = {
        {"connect", 0, TOOL_OPT_STRING, &how.connect, 0, "URL",
         "HOST:PORT or unix:/path; without it the server of this machine with the same configuration\n"
         "(CHEETAH_LISTEN, CHEETAH_CONFIG)"},
        {"tls-ca", 0, TOOL_OPT_STRING, &how.tls_ca, 0, "FILE", "whom to trust with https"},
        {"live", 0, TOOL_OPT_FLAG, &live, 0, NULL, "it answers; it need not be ready"},
        {"wait", 0, TOOL_OPT_NUMBER, &seconds, WAIT_MAX, "N", "asks again for up to N seconds"},
        {"help", 'h', TOOL_OPT_FLAG, &asked, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (asked)
        return tool_args_help(
            "cheetah-db health [OPTION ...]: exit code 0 if a server is ready, 1 if it is not\n\n", opts,
            sizeof opts / sizeof *opts, "");
    if (rest > 0)
        return tool_usage("health", "takes options only; see cheetah-db health --help");
    return run(&how, live, seconds);
}
