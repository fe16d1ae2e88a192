/* bench: `cheetah-db bench`: how many requests a server answers and how long they take, as redis-benchmark does for Redis; with two --connect
 * both in turn, so that what the machine does besides meets both.
 *
 * It works in a database that it makes (bench-TIME, or --database, which must not be there) and drops at the end. Each load runs in
 * ROUNDS parts, the servers one after the other in each; a part of a second before the first is not counted.
 *
 * --json: a line for each server and load.
 */
#include "tools/bench_load.h"
#include "tools/http_client.h"
#include "tools/progress.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "base/rng.h"
#include "os/io.h"
#include "os/net.h"
#include "service/out.h"
#include "service/tls.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROUNDS 3u
#define WARM_NS UINT64_C(300000000)
#define SERVERS 2u
#define LOADED 1000u    /* pairs of one batch of the preparation */
#define DOCUMENTS 2000u /* of the model that predict asks */
#define LENGTH 20u

static const char *const kinds[TOOL_BENCH_KINDS] = {
    [TOOL_BENCH_POINT] = "point", [TOOL_BENCH_PUT] = "put",         [TOOL_BENCH_BATCH] = "batch",
    [TOOL_BENCH_SCAN] = "scan",   [TOOL_BENCH_PREDICT] = "predict", [TOOL_BENCH_MIX] = "mix",
    [TOOL_BENCH_MIX50] = "mix50",
};

static const char help_before[] =
    "cheetah-db bench [OPTION ...]: how many requests a server answers, and how long each takes\n"
    "\n"
    "Loads: point (GET of one pair), put (PUT of one), batch (POST /batch), scan (1000 pairs with values),\n"
    "predict (POST /predict), mix (9 of 10 points, else puts), mix50 (half and half). Each connection has\n"
    "one request in flight, and asks again when it was answered (a closed loop); with --rate requests are\n"
    "due at fixed times (an open loop). A database is made for it, and dropped at the end: it needs the\n"
    "right admin.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Times are in microseconds, to three digits (HdrHistogram's layout). The client takes processor time, "
    "too: on one\n"
    "machine compare servers, not machines.\n"
    "Exit codes: 0 done; 1 it failed, or a request did; 2 the command line is wrong.\n";

struct server {
    struct tool_connect connect;
    struct tool_client *client;
    const char *where; /* host and port, in the client's URL */
    struct svc_tls_config files;
    bool tls;  /* by them */
    bool made; /* the database is there */
    struct tool_bench_result result;
};

struct job {
    struct tool_opt_list connect;
    struct tool_connect how;
    struct server server[SERVERS];
    size_t servers;
    const char *loads, *database;
    char name[CHT_DATABASE_NAME_MAX + 1];
    uint64_t keys, value_bytes, batch, connections, threads, seconds, rate;
    bool json, percentiles, wanted[TOOL_BENCH_KINDS];
    bool failed; /* a request was answered with a failure */
};

/* ---- before and after ------------------------------------------------------------------------------------------------ */

static enum cht_rc make_database(struct job *j, struct server *s, struct cht_err *err)
{
    char path[96];
    struct cht_buf answer = {0};
    (void)snprintf(path, sizeof path, "/databases/%.64s", j->name); /* fits */
    struct tool_request r = {.method = "PUT", .path = path, .body = "", .content_type = "application/json"};
    enum cht_rc rc = tool_client_ask(s->client, &r, &answer, err);
    cht_buf_free(&answer);
    if (rc == CHT_OK && r.status != 201)
        return CHT_FAIL(err, CHT_DATABASE_EXISTS,
                        "%.80s: database %s exists: the bench works in one of its own",
                        tool_client_url(s->client), j->name);
    s->made = rc == CHT_OK;
    return rc;
}

static enum cht_rc post(struct server *s, const char *path, const struct svc_out *body, struct cht_err *err)
{
    struct tool_request r = {.method = "POST",
                             .path = path,
                             .body = body->n > 0 ? body->p : NULL,
                             .body_len = body->n,
                             .content_type = "application/x-ndjson"};
    if (body->failed)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a body");
    return tool_client_run(s->client, &r, err);
}

static enum cht_rc load_pairs(struct job *j, struct server *s, const uint8_t *value, struct cht_err *err)
{
    char path[128];
    struct svc_out body = {0};
    struct tool_progress progress;
    enum cht_rc rc = CHT_OK;
    (void)snprintf(path, sizeof path, "/batch?atomic=true&results=false&db=%.64s", j->name); /* fits */
    tool_progress_begin(&progress, "load", j->keys, false);
    for (uint64_t i = 0; i < j->keys && rc == CHT_OK;) {
        body.n = 0;
        for (uint64_t n = 0; n < LOADED && i < j->keys && body.n < (8u << 20); n++)
            tool_bench_operation(&body, i++, value, j->value_bytes);
        if (cht_os_interrupt_pending())
            rc = CHT_FAIL(err, CHT_CANCELLED, "interrupted");
        else
            rc = post(s, path, &body, err);
        tool_progress_at(&progress, i);
    }
    tool_progress_end(&progress);
    svc_out_free(&body);
    return rc;
}

/* Documents whose tokens are the less likely the larger they are, so that contexts come again. */
static enum cht_rc load_model(struct job *j, struct server *s, struct cht_err *err)
{
    char path[128];
    struct svc_out body = {0}, none = {0};
    struct cht_rng rng;
    cht_rng_seed(&rng, 7);
    for (unsigned i = 0; i < DOCUMENTS; i++) {
        svc_out_text(&body, "{\"tokens\":[");
        for (unsigned k = 0; k < LENGTH; k++) {
            uint64_t most = 1 + cht_rng_below(&rng, TOOL_BENCH_TOKENS);
            svc_out_format(&body, "%s%" PRIu64, k > 0 ? "," : "", cht_rng_below(&rng, most));
        }
        svc_out_text(&body, "]}\n");
    }
    (void)snprintf(path, sizeof path, "/ngrams?order=3&db=%.64s", j->name); /* fits, as the next */
    enum cht_rc rc = post(s, path, &body, err);
    (void)snprintf(path, sizeof path, "/reduce/smooth/cnt:?db=%.64s", j->name);
    if (rc == CHT_OK)
        rc = post(s, path, &none, err);
    svc_out_free(&body);
    return rc;
}

static enum cht_rc prepare(struct job *j, struct server *s, struct cht_err *err)
{
    uint8_t *value = cht_malloc(j->value_bytes + 1);
    struct cht_rng rng;
    if (value == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a value");
    cht_rng_seed(&rng, 3);
    for (uint64_t i = 0; i < j->value_bytes; i++)
        value[i] = (uint8_t)cht_rng_next(&rng);
    enum cht_rc rc = make_database(j, s, err);
    if (rc == CHT_OK)
        rc = load_pairs(j, s, value, err);
    if (rc == CHT_OK && j->wanted[TOOL_BENCH_PREDICT])
        rc = load_model(j, s, err);
    cht_free(value);
    return rc;
}

static enum cht_rc drop_database(struct job *j, struct server *s, struct cht_err *err)
{
    char path[192];
    (void)snprintf(path, sizeof path, "/databases/%.64s?confirm=%.64s", j->name, j->name); /* fits */
    struct tool_request r = {.method = "DELETE", .path = path};
    return tool_client_run(s->client, &r, err);
}

/* ---- a load ---------------------------------------------------------------------------------------------------------- */

static enum cht_rc measure(struct job *j, enum tool_bench_kind kind, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < j->servers; i++) {
        tool_hdr_fini(&j->server[i].result.times);
        j->server[i].result = (struct tool_bench_result){.requests = 0};
        rc = rc == CHT_OK ? tool_hdr_init(&j->server[i].result.times, err) : rc;
    }
    for (unsigned round = 0; round <= ROUNDS && rc == CHT_OK; round++) {
        for (size_t i = 0; i < j->servers && rc == CHT_OK; i++) {
            struct server *s = &j->server[i];
            struct tool_bench_result warm = {.requests = 0};
            struct tool_bench_load load = {.kind = kind,
                                           .where = s->where,
                                           .tls = s->tls ? &s->files : NULL,
                                           .authorization = tool_client_authorization(s->client),
                                           .database = j->name,
                                           .keys = j->keys,
                                           .value_bytes = j->value_bytes,
                                           .batch = j->batch,
                                           .connections = j->connections,
                                           .threads = j->threads,
                                           .rate = j->rate,
                                           .ns = round == 0 ? WARM_NS
                                                            : j->seconds * UINT64_C(1000000000) / ROUNDS,
                                           .seed = 1 + round * 1000};
            if (round == 0)
                rc = tool_hdr_init(&warm.times, err);
            if (rc == CHT_OK)
                rc = tool_bench_run(&load, round == 0 ? &warm : &s->result, err);
            tool_hdr_fini(&warm.times);
        }
    }
    return rc;
}

static double rate(const struct tool_bench_result *r)
{
    return r->ns > 0 ? (double)r->requests * 1e9 / (double)r->ns : 0;
}

static double micros(uint64_t ns) { return (double)ns / 1000.0; }

static void print_json(const struct job *j, const struct server *s, enum tool_bench_kind kind)
{
    const struct tool_bench_result *r = &s->result;
    const struct tool_hdr *h = &r->times;
    char open[80] = "";
    if (j->rate > 0)
        (void)snprintf(open, sizeof open, ",\"rate\":%" PRIu64 ",\"unsent\":%" PRIu64, j->rate,
                       r->unsent); /* fits */
    (void)printf("{\"server\":\"%s\",\"load\":\"%s\",\"connections\":%" PRIu64 "%s,\"requests\":%" PRIu64
                 ",\"failed\":%" PRIu64 ",\"per_second\":%.1f,\"bytes\":%" PRIu64
                 ",\"mean_us\":%.3f,\"p50_us\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_"
                 "us\":%.3f}\n",
                 tool_client_url(s->client), kinds[kind], j->connections, open, r->requests, r->failed,
                 rate(r), r->bytes, h->total > 0 ? h->sum / (double)h->total / 1000.0 : 0.0,
                 micros(tool_hdr_percentile(h, 50)), micros(tool_hdr_percentile(h, 90)),
                 micros(tool_hdr_percentile(h, 99)), micros(tool_hdr_percentile(h, 99.9)),
                 micros(h->most)); /* a URL needs no escape: http_client.c has read it */
}

static void print_row(const struct job *j, const struct server *s, enum tool_bench_kind kind)
{
    const struct tool_hdr *h = &s->result.times;
    char bytes[16];
    tool_progress_number(
        bytes, (uint64_t)(s->result.ns > 0 ? (double)s->result.bytes * 1e9 / (double)s->result.ns : 0), true);
    (void)printf("%-8s %10.0f %9s/s %9.0f %9.0f %9.0f %9.0f %9.0f", kinds[kind], rate(&s->result), bytes,
                 micros(tool_hdr_percentile(h, 50)), micros(tool_hdr_percentile(h, 90)),
                 micros(tool_hdr_percentile(h, 99)), micros(tool_hdr_percentile(h, 99.9)), micros(h->most));
    if (j->servers > 1)
        (void)printf("  %s", tool_client_url(s->client));
    if (j->servers > 1 && s != &j->server[0] && rate(&j->server[0].result) > 0)
        (void)printf("  %.2f x", rate(&s->result) / rate(&j->server[0].result));
    (void)fputc('\n', stdout);
}

static void print_load(struct job *j, enum tool_bench_kind kind)
{
    for (size_t i = 0; i < j->servers; i++) {
        const struct server *s = &j->server[i];
        if (j->json)
            print_json(j, s, kind);
        else
            print_row(j, s, kind);
        if (j->percentiles)
            tool_hdr_print(&s->result.times, stdout);
        if (s->result.unsent > 0)
            (void)fprintf(stderr,
                          "cheetah-db bench: %s: %s: %" PRIu64
                          " requests were due and could not be sent: it takes less than --rate %" PRIu64 "\n",
                          tool_client_url(s->client), kinds[kind], s->result.unsent, j->rate);
        if (s->result.failed > 0)
            (void)fprintf(
                stderr, "cheetah-db bench: %s: %s: %" PRIu64 " requests failed, the first with %u: %.100s\n",
                tool_client_url(s->client), kinds[kind], s->result.failed, s->result.status, s->result.why);
        j->failed = j->failed || s->result.failed > 0;
    }
    (void)fflush(stdout); /* main looks at ferror */
}

/* ---- the command line ------------------------------------------------------------------------------------------------- */

static bool take_loads(struct job *j)
{
    const char *p = j->loads != NULL ? j->loads : "point,put,batch,scan,predict,mix";
    for (;;) {
        size_t n = strcspn(p, ","), k = 0;
        while (k < TOOL_BENCH_KINDS && (strlen(kinds[k]) != n || memcmp(kinds[k], p, n) != 0))
            k++;
        if (k == TOOL_BENCH_KINDS)
            return false;
        j->wanted[k] = true;
        if (p[n] == 0)
            return true;
        p += n + 1;
    }
}

static enum cht_rc open_servers(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    j->servers = j->connect.n > 0 ? j->connect.n : 1;
    for (size_t i = 0; i < j->servers && rc == CHT_OK; i++) {
        struct server *s = &j->server[i];
        s->connect = j->how;
        s->connect.connect = j->connect.n > 0 ? j->connect.v[i] : NULL;
        rc = tool_client_new(&s->connect, &s->client, err);
        const char *url = rc == CHT_OK ? tool_client_url(s->client) : "";
        bool local = CHT_BEGINS(url, "unix:"), plain = CHT_BEGINS(url, "http://");
        s->tls = CHT_BEGINS(url, "https://");
        s->files = (struct svc_tls_config){
            .client_ca = j->how.tls_ca, .cert = j->how.tls_cert, .key = j->how.tls_key};
        s->where = url + (plain ? strlen("http://") : s->tls ? strlen("https://") : 0);
        if (rc == CHT_OK && !local && ((!plain && !s->tls) || strrchr(s->where, ':') == NULL))
            rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                          "%.100s: the bench wants http://HOST:PORT, https://HOST:PORT or unix:/path", url);
    }
    return rc;
}

static enum cht_rc run_all(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = open_servers(j, err);
    for (size_t i = 0; i < j->servers && rc == CHT_OK; i++)
        rc = prepare(j, &j->server[i], err);
    if (rc == CHT_OK && !j->json)
        (void)printf("%-8s %10s %11s %9s %9s %9s %9s %9s\n", "LOAD", "REQUESTS/S", "ANSWERED", "P50 us",
                     "P90 us", "P99 us", "P99.9 us", "MAX us");
    for (unsigned k = 0; k < TOOL_BENCH_KINDS && rc == CHT_OK; k++) {
        if (!j->wanted[k])
            continue;
        rc = measure(j, (enum tool_bench_kind)k, err);
        if (rc == CHT_OK)
            print_load(j, (enum tool_bench_kind)k);
    }
    return rc;
}

static int run(struct job *j)
{
    struct cht_err err = {0}, later = {0};
    cht_os_catch_interrupts(true); /* the database goes before the program does */
    enum cht_rc rc = run_all(j, &err);
    cht_os_catch_interrupts(false);
    for (size_t i = 0; i < SERVERS; i++) {
        struct server *s = &j->server[i];
        if (s->made && drop_database(j, s, &later) != CHT_OK) {
            (void)fprintf(stderr, "cheetah-db bench: the database %s is left: %s\n", j->name, later.msg);
            j->failed = true;
        }
        tool_hdr_fini(&s->result.times);
        tool_client_free(s->client);
    }
    if (rc != CHT_OK)
        return tool_failed(&err);
    return j->failed ? TOOL_EXIT_FAILED : TOOL_EXIT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_bench(int argc, char **argv)
{
    struct job j = {
        .keys = 100000, .value_bytes = 100, .batch = 1000, .connections = 16, .threads = 1, .seconds = 6};
    bool asked = false;
    int rest;
    const struct tool_opt opts[] = {
        {"connect", 0, TOOL_OPT_LIST, &j.connect, 0, "URL",
         "the server (default: the environment's CHEETAH_URL, else\n" TOOL_CONNECT_DEFAULT
         "); given twice: two servers side by side"},
        {"load", 0, TOOL_OPT_STRING, &j.loads, 0, "A,B,...",
         "which loads (default: point,put,batch,scan,predict,mix)"},
        {"seconds", 0, TOOL_OPT_NUMBER, &j.seconds, 86400, "N", "for each load and server (default: 6)"},
        {"connections", 'c', TOOL_OPT_NUMBER, &j.connections, 10000, "N", "at once (default: 16)"},
        {"rate", 0, TOOL_OPT_NUMBER, &j.rate, 10000000, "N",
         "requests a second, due at fixed times (an open loop): what waits for a free\nconnection waits in "
         "the times, too"},
        {"threads", 0, TOOL_OPT_NUMBER, &j.threads, 256, "N", "of the client (default: 1)"},
        {"keys", 0, TOOL_OPT_NUMBER, &j.keys, 100000000, "N",
         "pairs that are there before (default: 100000)"},
        {"value-bytes", 0, TOOL_OPT_NUMBER, &j.value_bytes, 1 << 20, "N", "of each value (default: 100)"},
        {"batch", 0, TOOL_OPT_NUMBER, &j.batch, 100000, "N", "operations of a batch (default: 1000)"},
        {"database", 'd', TOOL_OPT_STRING, &j.database, 0, "NAME",
         "to make and drop (default: bench- and the time)"},
        {"percentiles", 0, TOOL_OPT_FLAG, &j.percentiles, 0, NULL,
         "the whole distribution, as HdrHistogram prints it"},
        {"json", 0, TOOL_OPT_FLAG, &j.json, 0, NULL, "one JSON object a line"},
        {"token-file", 0, TOOL_OPT_STRING, &j.how.token_file, 0, "FILE",
         "its token, if it wants one; or the environment's CHEETAH_TOKEN"},
        {"tls-ca", 0, TOOL_OPT_STRING, &j.how.tls_ca, 0, "FILE",
         "the certificates to trust in place of the system's"},
        {"tls-cert", 0, TOOL_OPT_STRING, &j.how.tls_cert, 0, "FILE",
         "the certificate to show, in place of a token"},
        {"tls-key", 0, TOOL_OPT_STRING, &j.how.tls_key, 0, "FILE", "its private key"},
        {"help", 'h', TOOL_OPT_FLAG, &asked, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (asked)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest > 0)
        return tool_usage("bench", "takes options only; see cheetah-db bench --help");
    if (j.connect.n > SERVERS)
        return tool_usage("bench", "compares two servers at most");
    if (!take_loads(&j))
        return tool_usage("bench", "--load wants some of point,put,batch,scan,predict,mix,mix50");
    if (j.database != NULL && !cht_database_name_valid(j.database))
        return tool_usage("bench", "--database wants a name of " CHT_DATABASE_NAME_RULE);
    (void)snprintf(j.name, sizeof j.name, "%s", j.database != NULL ? j.database : "");
    if (j.database == NULL)
        (void)snprintf(j.name, sizeof j.name, "bench-%" PRIu64, cht_wall_ns() / 1000000);
    cht_os_ignore_pipe();
    return run(&j);
}
