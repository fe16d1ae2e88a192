/* server: see server.h: start, stop, counters. */
#include "tcp/loop.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"

#include <inttypes.h>
#include <string.h>

#define LOOPS_MAX 4u

/* As those of the HTTP service. */
static const struct cht_jobs_config short_jobs = {
    .name = "cht-line-job", .threads = 64, .per_owner = 8, .idle_ns = UINT64_C(10000000000)};
static const struct cht_jobs_config long_jobs = {
    .name = "cht-line-long", .threads = 64, .per_owner = 4, .idle_ns = UINT64_C(10000000000)};

static enum cht_rc open_port(struct line_server *s, struct cht_err *err)
{
    const struct conf *c = s->cfg.conf;
    bool loopback;
    enum cht_rc rc = cht_net_listen(c->line_listen, &s->listen_fd, &s->port, &loopback, err);
    if (rc != CHT_OK) {
        s->listen_fd = -1;
        return rc;
    }
    if (!loopback && c->tokens[0] == 0 && !c->allow_anonymous)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "line-listen: %.80s can be reached from other machines: give --tokens FILE, or "
                        "--allow-anonymous",
                        c->line_listen);
    if (!loopback && c->tokens[0] != 0 && s->cfg.tls == NULL)
        return CHT_FAIL(
            err, CHT_INVALID_ARGUMENT,
            "line-listen: %.80s can be reached from other machines, and AUTH would pass in clear: give "
            "--line-tls with --tls-cert and --tls-key, or listen on loopback",
            c->line_listen);
    if (!loopback && s->cfg.tls == NULL)
        svc_log_say(s->cfg.log, SVC_LOG_WARN, "line_plain",
                    "the line protocol on %.80s is not encrypted: what passes can be read on the way",
                    c->line_listen);
    return CHT_OK;
}

static unsigned loops_wanted(const struct conf *c)
{
    unsigned half = cht_os_cores() / 2;
    if (c->line_threads > 0)
        return (unsigned)c->line_threads;
    return half < 1 ? 1 : half < LOOPS_MAX ? half : LOOPS_MAX;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc line_server_start(const struct line_config *cfg, struct line_server **out, struct cht_err *err)
{
    struct line_server *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the line server");
    const struct conf *c = cfg->conf;
    s->cfg = *cfg;
    s->listen_fd = -1;
    s->host.max_value_size = (uint32_t)c->max_value_size;
    s->host.answer_max = c->line_answer_bytes;
    s->host.no_creating = strcmp(c->create_databases, "auto") != 0;
    s->host.inline_commits = strcmp(c->durability, "sync") != 0;
    s->host.memory = cfg->memory;
    s->host.access = cfg->access;
    s->host.ctx = cfg->ctx;
    s->host.lm = cfg->lm;
    s->line_max = c->max_value_size + LINE_OVERHEAD;
    enum cht_rc rc = open_port(s, err);
    if (rc == CHT_OK)
        rc = line_host_init(&s->host, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&short_jobs, &s->jobs, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&long_jobs, &s->long_jobs, err);
    if (rc == CHT_OK) {
        s->loop_count = loops_wanted(c);
        s->loops = cht_calloc(s->loop_count, sizeof *s->loops);
        if (s->loops == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u line threads", s->loop_count);
    }
    if (rc != CHT_OK) {
        line_server_stop(s, 0);
        line_server_free(s);
        return rc;
    }
    *out = s;
    return CHT_OK;
}

unsigned line_server_port(const struct line_server *s) { return s->port; }

/* The one that accepts is started last: it hands connections to the others. */
enum cht_rc line_server_ready(struct line_server *s, struct svc_dbs *dbs, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    s->host.dbs = dbs;
    for (unsigned i = s->loop_count; i-- > 0 && rc == CHT_OK;)
        rc = line_loop_start(&s->loops[i], s, i == 0, err);
    return rc;
}

void line_server_stop(struct line_server *s, uint64_t wait_ns)
{
    if (s == NULL)
        return;
    atomic_store_explicit(&s->stopping, true, memory_order_release);
    uint64_t end = cht_now_ns() + wait_ns;
    for (unsigned i = 0; s->loops != NULL && i < s->loop_count; i++) {
        if (s->loops[i].up)
            cht_bell_ring(s->loops[i].bell);
    }
    while (atomic_load_explicit(&s->open, memory_order_relaxed) > 0 && cht_now_ns() < end)
        cht_sleep_ns(2000000);
    atomic_store_explicit(&s->stop, true, memory_order_release);
    for (unsigned i = 0; s->loops != NULL && i < s->loop_count; i++)
        line_loop_join(&s->loops[i]);
    for (unsigned i = 0; s->loops != NULL && i < s->loop_count; i++)
        line_loop_fini(&s->loops[i]);
    cht_jobs_free(s->jobs);
    cht_jobs_free(s->long_jobs);
    s->jobs = s->long_jobs = NULL;
    cht_net_unlisten(s->listen_fd, s->cfg.conf->line_listen);
    s->listen_fd = -1;
}

void line_server_free(struct line_server *s)
{
    if (s == NULL)
        return;
    cht_free(s->loops);
    line_host_fini(&s->host);
    cht_free(s);
}

/* ---- metrics -------------------------------------------------------------------------------------------------------- */

static void one(struct svc_out *o, const char *name, const char *type, const char *help, uint64_t v)
{
    svc_out_format(o, "# HELP cheetah_%s %s\n# TYPE cheetah_%s %s\ncheetah_%s %" PRIu64 "\n", name, help,
                   name, type, name, v);
}

void line_server_metrics(void *ctx, struct svc_out *o)
{
    struct line_server *s = ctx;
    uint64_t received = 0, sent = 0, done[LINE_VERBS][2] = {{0}};
    for (unsigned i = 0; i < s->loop_count; i++) {
        struct line_loop_counts *c = &s->loops[i].counts;
        received += atomic_load_explicit(&c->received, memory_order_relaxed);
        sent += atomic_load_explicit(&c->sent, memory_order_relaxed);
        for (int k = 0; k < LINE_VERBS; k++) {
            done[k][0] += atomic_load_explicit(&c->session.done[k][0], memory_order_relaxed);
            done[k][1] += atomic_load_explicit(&c->session.done[k][1], memory_order_relaxed);
        }
    }
    one(o, "line_connections_open", "gauge", "Connections of the line protocol.", atomic_load(&s->open));
    one(o, "line_connections_total", "counter", "Connections of the line protocol that were accepted.",
        atomic_load(&s->total));
    one(o, "line_refused_total", "counter", "Connections beyond --line-connections.",
        atomic_load(&s->refused));
    one(o, "line_received_bytes_total", "counter", "Bytes received by the line protocol.", received);
    one(o, "line_sent_bytes_total", "counter", "Bytes sent by the line protocol.", sent);
    svc_out_text(o, "# HELP cheetah_line_commands_total Commands of the line protocol that were answered.\n"
                    "# TYPE cheetah_line_commands_total counter\n");
    for (int k = 0; k < LINE_VERBS; k++) {
        for (int failed = 0; failed < 2; failed++) {
            if (done[k][failed] > 0)
                svc_out_format(o, "cheetah_line_commands_total{command=\"%s\",result=\"%s\"} %" PRIu64 "\n",
                               line_verb_name((enum line_verb)k), failed ? "error" : "success",
                               done[k][failed]);
        }
    }
}
