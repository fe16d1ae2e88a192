/* serve: `cheetah-db serve`: HTTP (src/http) and the line protocol (src/tcp) over the same databases. The order of a life: configuration -> log -> ports -> databases -> ready -> signal -> drain ->
 * connections end -> checkpoint -> exit.
 */
#include "service/keeper.h"
#include "service/scrub.h"
#include "http/routes.h"
#include "http/server.h"
#include "tcp/server.h"
#include "tools/files.h"
#include "tools/place_rados.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"

#include <stdio.h>
#include <string.h>

#define DIRS_MAX 64u
#define CLOSE_WAIT_NS UINT64_C(10000000000)
#define MAKING_TRIES 100u
#define MAKING_NS UINT64_C(100000000)
#define QUIET_MS 10000 /* between two looks at what can be given back */
/* A stop waits no longer for a cluster: long enough for what is under way to be answered, or given up. One that is silent is not waited for. */
#define CLUSTER_WAIT_NS UINT64_C(15000000000)
#define SILENT_WAIT_NS UINT64_C(2000000000)
#define AGAIN_NS \
    UINT64_C(1000000000) /* between two tries to open databases in a cluster that does not answer */

struct service {
    struct conf conf;
    struct svc_log *log;
    struct http_server *server;
    struct line_server *line; /* NULL: off */
    struct cht_env *env;
    struct svc_dbs *dbs;
    struct svc_scrub *scrub; /* NULL: off */
    struct svc_keeper *keeper;
    _Atomic bool opened;
    char *dir_text; /* owned: --data cut at its commas */
    const char *dirs[DIRS_MAX];
    size_t dir_count;
};

static enum svc_log_level parse_level(const char *s)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    int i = 0;
    while (i < 3 && strcmp(names[i], s) != 0)
        i++;
    return (enum svc_log_level)i;
}

static enum cht_rc split_dirs(struct service *v, struct cht_err *err)
{
    v->dir_text = cht_strdup(v->conf.data);
    if (v->dir_text == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the configuration");
    for (char *p = v->dir_text; p != NULL;) {
        char *comma = strchr(p, ',');
        if (comma != NULL)
            *comma++ = 0;
        if (*p == 0 || v->dir_count == DIRS_MAX)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                            "data: '%.100s' is not a list of at most %u directories", v->conf.data, DIRS_MAX);
        v->dirs[v->dir_count++] = p;
        p = comma;
    }
    return CHT_OK;
}

/* What keeps a database from writing, when it begins and when it is over. */
static void log_trouble(void *ctx, const char *name, enum cht_trouble_kind kind, const struct cht_err *why)
{
    static const struct {
        const char *begins, *ends;
        enum svc_log_level level;
        const char *text;
    } kinds[CHT_TROUBLE_KINDS] = {
        [CHT_TROUBLE_STOPPED] = {"writing_stopped", "", SVC_LOG_ERROR, "reads go on; a restart recovers"},
        [CHT_TROUBLE_CHECKPOINT] = {"checkpoint_failed", "checkpoint_resumed", SVC_LOG_WARN, "tried again"},
        [CHT_TROUBLE_WRITE] = {"writes_refused", "writes_resumed", SVC_LOG_WARN, "until it is over"},
    };
    struct service *v = ctx;
    if (why->code == CHT_OK)
        svc_log_say(v->log, SVC_LOG_INFO, kinds[kind].ends, "%s: it is over", name);
    else
        svc_log_say(v->log, kinds[kind].level, kinds[kind].begins, "%s: %s: %s; %s", name,
                    cht_rc_slug(why->code), why->msg, kinds[kind].text);
}

static struct cht_env_config env_config(struct service *v)
{
    const struct conf *c = &v->conf;
    enum cht_durability d = CHT_DURABLE_SYNC;
    if (strcmp(c->durability, "interval") == 0)
        d = CHT_DURABLE_INTERVAL;
    else if (strcmp(c->durability, "os") == 0)
        d = CHT_DURABLE_OS;
    enum cht_value_order order = strcmp(c->value_order, "always") == 0  ? CHT_ORDER_ALWAYS
                                 : strcmp(c->value_order, "never") == 0 ? CHT_ORDER_NEVER
                                                                        : CHT_ORDER_RESTING;
    enum cht_read_ahead ahead = strcmp(c->read_ahead, "always") == 0  ? CHT_READ_AHEAD_ALWAYS
                                : strcmp(c->read_ahead, "never") == 0 ? CHT_READ_AHEAD_NEVER
                                                                      : CHT_READ_AHEAD_AUTO;
    return (struct cht_env_config){.dirs = v->dirs,
                                   .dir_count = v->dir_count,
                                   .durability = d,
                                   .interval_ms = (unsigned)c->interval_ms,
                                   .max_value_size = (uint32_t)c->max_value_size,
                                   .checkpoint_log_bytes = c->checkpoint_log_bytes,
                                   .changes_bytes =
                                       c->changes_bytes > 0 ? c->changes_bytes : CHT_CHANGES_NONE,
                                   .changes = c->changes_bytes > 0,
                                   .value_order = order,
                                   .read_ahead = ahead,
                                   .dirty_bytes = c->dirty_bytes,
                                   .scan_workers = (unsigned)c->scan_workers,
                                   .default_shards = (unsigned)c->shards,
                                   .max_databases = c->max_databases,
                                   .trouble = log_trouble,
                                   .trouble_ctx = v};
}

/* With its own code: "damaged" is said of damage alone. */
static enum cht_rc open_default(struct service *v, struct cht_err *err)
{
    struct svc_database *d = NULL;
    struct cht_err why = {0};
    bool created;
    uint64_t start = cht_now_ns();
    enum cht_rc rc = svc_dbs_open(v->dbs, CHT_DATABASE_DEFAULT, true, 0, &d, &created, &why);
    for (unsigned i = 0; i < MAKING_TRIES && rc == CHT_DATABASE_BUSY; i++) { /* another server makes it */
        cht_sleep_ns(MAKING_NS);
        rc = svc_dbs_open(v->dbs, CHT_DATABASE_DEFAULT, true, 0, &d, &created, &why);
    }
    svc_dbs_put(d);
    if (rc == CHT_OK) {
        svc_log_say(v->log, SVC_LOG_INFO, "database_open", CHT_DATABASE_DEFAULT " in %llu ms%s",
                    (unsigned long long)((cht_now_ns() - start) / 1000000), created ? ", created" : "");
        return CHT_OK;
    }
    svc_log_say(v->log, SVC_LOG_ERROR, "database_failed", CHT_DATABASE_DEFAULT ": %s: %s", cht_rc_slug(rc),
                why.msg);
    return CHT_FAIL(err, rc, "the database " CHT_DATABASE_DEFAULT " cannot be opened: %.150s", why.msg);
}

/* What the last process left unfinished, and what should be there and is not. */
static void tell_unfinished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    const struct service *v = ctx;
    if (rc == CHT_OK)
        svc_log_say(v->log, SVC_LOG_WARN, "unfinished_work", "%s: %s", name, what);
    else
        svc_log_say(v->log, SVC_LOG_ERROR, "unfinished_work", "%s: %s: %s", name, cht_rc_slug(rc), what);
}

static enum cht_rc write_port(const char *path, unsigned port, struct cht_err *err)
{
    char text[16];
    if (path[0] == 0)
        return CHT_OK;
    int n = snprintf(text, sizeof text, "%u\n", port);
    FILE *f = fopen(path, "w");
    bool ok = f != NULL && fwrite(text, 1, (size_t)n, f) == (size_t)n;
    if (f != NULL && fclose(f) != 0)
        ok = false;
    return ok ? CHT_OK : CHT_FAIL(err, CHT_IO, "cannot write the port to %s", path);
}

/* Not before the data directories are locked: the files may be those of a server that has them. */
static enum cht_rc write_ports(struct service *v, struct cht_err *err)
{
    enum cht_rc rc = write_port(v->conf.port_file, v->server->port, err);
    if (rc == CHT_OK && v->server->admin_fd >= 0)
        rc = write_port(v->conf.admin_port_file, v->server->admin_port, err);
    if (rc == CHT_OK && v->line != NULL)
        rc = write_port(v->conf.line_port_file, line_server_port(v->line), err);
    return rc;
}

static enum cht_rc open_databases(struct service *v, struct cht_err *err)
{
    struct cht_env_config cfg = env_config(v);
    bool rados = tool_rados_wanted(&v->conf);
    enum cht_rc rc = rados ? tool_rados_open(&v->conf, &v->env, err) : cht_env_open(&cfg, &v->env, err);
    if (rc == CHT_OK && !rados)
        rc = write_ports(v, err);
    if (rc == CHT_OK)
        rc = cht_env_finish(v->env, tell_unfinished, v, err);
    if (rc == CHT_OK)
        rc = svc_dbs_new(v->env, &v->dbs, err);
    if (rc != CHT_OK)
        return rc;
    if (!rados)
        svc_dbs_limit(v->dbs, cht_os_maps() / 4 * 3);
    return open_default(v, err); /* the others are opened when they are used */
}

/* A second signal to stop while this one is being obeyed. */
static void leave_if_told(char signal)
{
    if (signal != 'T' && signal != 'I')
        return;
    (void)fputs("cheetah-db: second signal: ending at once; the log has all that was acknowledged\n", stderr);
    cht_os_exit_now(TOOL_EXIT_OK);
}

struct watch {
    uint64_t until; /* cht_now_ns: the end is not waited for any longer; 0: as long as it takes */
};

/* It is not joined and may outlive the service: it touches nothing of it. */
static void *watch_signals(void *arg)
{
    struct watch w = *(const struct watch *)arg;
    cht_free(arg);
    for (;;) {
        leave_if_told(cht_os_wait_signal(w.until != 0 ? 100 : -1));
        if (w.until == 0 || cht_now_ns() < w.until)
            continue;
        (void)fputs("cheetah-db: the cluster does not answer: ending without it; it has all that was "
                    "acknowledged\n",
                    stderr);
        cht_os_exit_now(TOOL_EXIT_OK);
    }
    return NULL;
}

/* Without it only SIGKILL is quicker. What was acknowledged is in the cluster, so there is nothing to bring home there. */
static void watch_stop(struct service *v)
{
    struct cht_thread watcher;
    struct watch *w = cht_calloc(1, sizeof *w);
    if (w == NULL)
        return;
    if (tool_rados_wanted(&v->conf))
        w->until = cht_now_ns() + (cht_env_health(v->env, NULL) == CHT_OK ? CLUSTER_WAIT_NS : SILENT_WAIT_NS);
    if (cht_thread_start(&watcher, "cht-signals", watch_signals, w, NULL) != CHT_OK)
        cht_free(w);
}

/* From the first signal to the last connection. */
static void drain(struct service *v, char signal)
{
    (void)cht_os_notify("STOPPING=1\nSTATUS=draining, then a checkpoint");
    uint64_t end = cht_now_ns() + (signal == 'T' ? v->conf.drain_seconds : 0) * UINT64_C(1000000000);
    atomic_store_explicit(&v->server->state, HTTP_SERVER_DRAINING, memory_order_release);
    svc_log_say(v->log, SVC_LOG_INFO, "draining", "for %llu s",
                (unsigned long long)(signal == 'T' ? v->conf.drain_seconds : 0));
    while (cht_now_ns() < end) {
        uint64_t left = (end - cht_now_ns()) / 1000000 + 1;
        leave_if_told(cht_os_wait_signal(left < 200 ? (int)left : 200));
    }
}

/* Each by itself: a bad certificate does not keep a token that was taken out in force. */
static void reload(struct service *v)
{
    struct cht_err err = {0};
    if (http_server_reload(v->server, &err) != CHT_OK)
        svc_log_say(v->log, SVC_LOG_ERROR, "reload_failed", "%s", err.msg);
    else
        svc_log_say(v->log, SVC_LOG_INFO, "reloaded", "tokens");
    if (v->server->tls == NULL)
        return;
    if (http_server_reload_keys(v->server, &err) != CHT_OK)
        svc_log_say(v->log, SVC_LOG_ERROR, "reload_failed", "%s; the certificate that was in force stays",
                    err.msg);
    else
        svc_log_say(v->log, SVC_LOG_INFO, "reloaded", "certificate, valid for %lld more days",
                    ((long long)svc_tls_expires(v->server->tls) - (long long)(cht_wall_ns() / 1000000000)) /
                        86400);
}

/* Nothing is served yet, and nothing under way has to be brought to its end. */
static void *watch_opening(void *arg)
{
    struct service *v = arg;
    while (!atomic_load(&v->opened)) {
        char signal = cht_os_wait_signal(100);
        if (signal == 'H')
            reload(v);
        if (signal != 'T' && signal != 'I')
            continue;
        svc_log_say(v->log, SVC_LOG_INFO, "stopped", "while it waited for the cluster");
        cht_os_exit_now(TOOL_EXIT_OK);
    }
    return NULL;
}

/* A cluster that does not answer is waited for, with /readyz 503: a manager of services would start this anew after longer and longer
 * times. */
static enum cht_rc open_cluster(struct service *v, struct cht_err *err)
{
    struct cht_thread watcher;
    enum cht_rc rc = write_ports(v, err); /* nothing is locked there, and who asks is told that it waits */
    if (rc == CHT_OK)
        rc = cht_thread_start(&watcher, "cht-signals", watch_opening, v, err);
    if (rc != CHT_OK)
        return rc;
    while ((rc = open_databases(v, err)) == CHT_TIMEOUT) {
        svc_log_say(v->log, SVC_LOG_WARN, "cluster_silent", "%s; tried again", err->msg);
        (void)cht_os_notify("STATUS=waiting for the cluster");
        svc_dbs_free(v->dbs);
        v->dbs = NULL;
        if (v->env != NULL)
            (void)cht_env_close(v->env, NULL); /* there is nothing to bring home */
        v->env = NULL;
        *err = (struct cht_err){0};
        cht_sleep_ns(AGAIN_NS);
    }
    atomic_store(&v->opened, true);
    cht_thread_join(&watcher);
    return rc;
}

static void wait_for_end(struct service *v)
{
    uint64_t memory_low = 0;
    for (;;) {
        char signal = cht_os_wait_signal(QUIET_MS);
        if (signal == 0) {
            cht_env_quiet(v->env);
            (void)cht_os_give_memory_back(&memory_low);
        }
        if (signal == 'H')
            reload(v);
        if (signal == 'T' || signal == 'I') {
            drain(v, signal);
            return;
        }
    }
}

static enum cht_rc stop(struct service *v, struct cht_err *err)
{
    watch_stop(v);
    svc_keeper_stop(v->keeper); /* these before the server: it drops its answers of what they close */
    v->keeper = NULL;
    svc_scrub_halt(v->scrub);
    line_server_stop(v->line, CLOSE_WAIT_NS);
    http_server_stop(v->server, CLOSE_WAIT_NS);
    svc_scrub_stop(v->scrub);
    v->scrub = NULL;
    svc_dbs_free(v->dbs);
    v->dbs = NULL;
    enum cht_rc rc = cht_env_close(v->env, err);
    v->env = NULL;
    http_server_free(v->server); /* after the threads that ring its bells */
    v->server = NULL;
    line_server_free(v->line);
    v->line = NULL;
    return rc;
}

/* Damage is what starting again cannot mend; all else may have passed by then, so that the service manager tries. */
static int exit_code(enum cht_rc rc)
{
    if (rc == CHT_OK)
        return TOOL_EXIT_OK;
    if (rc == CHT_INVALID_ARGUMENT)
        return TOOL_EXIT_USAGE;
    bool damaged = rc == CHT_CORRUPT || rc == CHT_VERSION; /* what is missing can be put back: no damage */
    return damaged ? TOOL_EXIT_DAMAGED : TOOL_EXIT_FAILED;
}

static const struct svc_access *tokens_now(void *ctx)
{
    const struct http_server *s = ctx;
    return atomic_load_explicit(&s->access, memory_order_acquire);
}

static enum cht_rc start_line(struct service *v, struct cht_err *err)
{
    struct line_config cfg = {.conf = &v->conf,
                              .log = v->log,
                              .tls = v->conf.line_tls ? v->server->tls : NULL,
                              .memory = &v->server->memory,
                              .access = tokens_now,
                              .ctx = v->server,
                              .lm = http_routes.engine(v->server->shared)};
    if (strcmp(v->conf.line_listen, "none") == 0)
        return CHT_OK;
    enum cht_rc rc = line_server_start(&cfg, &v->line, err);
    if (rc != CHT_OK)
        return rc;
    v->server->more_ctx = v->line;
    v->server->more_metrics = line_server_metrics;
    return CHT_OK;
}

static enum cht_rc start_both(struct service *v, struct cht_err *err)
{
    enum cht_rc rc = http_server_start(&v->conf, &http_routes, v->log, &v->server, err);
    if (rc == CHT_OK)
        rc = start_line(v, err);
    if (rc != CHT_OK)
        return rc;
    svc_log_say(v->log, SVC_LOG_INFO, "listening", "%s://%s, port %u",
                v->conf.tls_cert[0] != 0 ? "https" : "http", v->conf.listen, v->server->port);
    if (v->server->admin_fd >= 0)
        svc_log_say(v->log, SVC_LOG_INFO, "listening", "admin://%s, port %u", v->conf.admin_listen,
                    v->server->admin_port);
    if (v->line != NULL)
        svc_log_say(v->log, SVC_LOG_INFO, "listening", "%s://%s, port %u",
                    v->conf.line_tls ? "line+tls" : "line", v->conf.line_listen, line_server_port(v->line));
    return CHT_OK;
}

static enum cht_rc run(struct service *v, struct cht_err *err)
{
    enum cht_rc rc = tool_rados_check(&v->conf, err);
    if (rc == CHT_OK)
        rc = split_dirs(v, err);
    cht_os_block_signals();
    if (rc == CHT_OK)
        rc = svc_log_new(strcmp(v->conf.log_format, "json") == 0, parse_level(v->conf.log_level), &v->log,
                         err);
    if (rc == CHT_OK)
        rc = tool_files_budget(&v->conf, v->log, err);
    if (rc == CHT_OK)
        rc = start_both(v, err);
    if (rc == CHT_OK) {
        (void)cht_os_notify("STATUS=opening databases: logs are read");
        rc = tool_rados_wanted(&v->conf) ? open_cluster(v, err) : open_databases(v, err);
    }
    if (rc == CHT_OK && v->line != NULL)
        rc = line_server_ready(v->line, v->dbs, err);
    if (rc == CHT_OK && v->conf.scrub_bytes_per_second > 0 && !tool_rados_wanted(&v->conf))
        rc = svc_scrub_start(v->dbs, v->log, v->conf.scrub_bytes_per_second, &v->scrub, err);
    if (rc == CHT_OK) {
        v->server->scrub = v->scrub;
        http_server_ready(v->server, v->env, v->dbs);
        rc = svc_keeper_start(v->dbs, v->log, v->conf.idle_close_seconds, &v->keeper, err);
    }
    if (rc == CHT_OK) {
        svc_log_say(v->log, SVC_LOG_INFO, "ready", "version " CHEETAH_VERSION);
        (void)cht_os_notify("READY=1\nSTATUS=serving"); /* nobody may have asked */
        wait_for_end(v);
        rc = stop(v, err);
        if (rc == CHT_OK)
            svc_log_say(v->log, SVC_LOG_INFO, "stopped", "cleanly");
        else
            svc_log_say(v->log, SVC_LOG_ERROR, "stopped",
                        "not cleanly: the log has what no checkpoint holds, and the next start reads it");
        return rc;
    }
    svc_keeper_stop(v->keeper);
    v->keeper = NULL;
    svc_scrub_halt(v->scrub);
    line_server_stop(v->line, 0);
    http_server_stop(v->server, 0);
    svc_scrub_stop(v->scrub);
    v->scrub = NULL;
    svc_dbs_free(v->dbs);
    if (v->env != NULL)
        (void)cht_env_close(v->env, NULL); /* the first failure is the one to tell */
    http_server_free(v->server);
    v->server = NULL;
    line_server_free(v->line);
    v->line = NULL;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

int tool_serve(int argc, char **argv)
{
    struct service *v = cht_calloc(1, sizeof *v);
    struct cht_err err = {0};
    if (v == NULL)
        return TOOL_EXIT_FAILED;
    enum cht_rc rc = conf_read(&v->conf, argc, argv, NULL, &err);
    if (rc == CHT_OK && v->conf.help)
        conf_help(stdout);
    else if (rc == CHT_OK && v->conf.print)
        conf_print(&v->conf, stdout);
    else if (rc == CHT_OK)
        rc = run(v, &err);
    if (rc != CHT_OK && v->log != NULL)
        svc_log_say(v->log, SVC_LOG_ERROR, "failed", "%s: %s", cht_rc_slug(rc), err.msg);
    svc_log_free(v->log);
    if (rc != CHT_OK)
        (void)fprintf(stderr, "cheetah-db: %s\n", err.msg);
    conf_fini(&v->conf);
    cht_free(v->dir_text);
    cht_free(v);
    return exit_code(rc);
}
