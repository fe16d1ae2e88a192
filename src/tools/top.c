/* top: `cheetah-db top`: what a running server is doing, from /metrics: on a terminal a page that is drawn again every interval, with
 * --json a line a sample, otherwise the page as text.
 *
 * A number of requests, commits, bytes is what happened in the interval, divided by its seconds. q, Escape and Ctrl-C end it.
 */
#include "tools/http_client.h"
#include "tools/json.h"
#include "tools/progress.h"
#include "tools/sample.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/net.h"
#include "os/terminal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STDIN 0
#define STDOUT 1
#define ESCAPE 27
#define STEP_MS 100
#define NS 1e9

static const char help_before[] =
    "cheetah-db top [OPTION ...]\n"
    "\n"
    "Live figures of a running server: requests and their latency by route, streams, commits, syncs and\n"
    "sizes by database. On a terminal a page that is drawn again; q ends it.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Exit codes: 0 done; 1 the server cannot be asked; 2 the command line is wrong.\n";

struct job {
    struct tool_connect connect;
    uint64_t interval, count;
    bool once, json;
    struct tool_client *client;
    struct tool_sample *before, *now, *since; /* owned */
    bool screen;                              /* a terminal is drawn on */
    unsigned rows, columns, line;
    char problem[160]; /* why the last look failed */
};

/* ---- a page ------------------------------------------------------------------------------------------------------------- */

/* One line; on the screen cut at its width, and none after its last row. */
static void put(struct job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct job *j, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* a long line is cut */
    va_end(args);
    if (!j->screen) {
        (void)printf("%s\n", text);
        return;
    }
    if (++j->line >= j->rows)
        return;
    if (strlen(text) >= j->columns)
        text[j->columns - 1] = 0;
    (void)printf("%s\033[K\n", text);
}

static void duration(char out[16], double seconds)
{
    if (seconds <= 0)
        (void)snprintf(out, 16, "-");
    else if (seconds < 0.001)
        (void)snprintf(out, 16, "%.0f us", seconds * 1e6);
    else if (seconds < 1)
        (void)snprintf(out, 16, "%.1f ms", seconds * 1e3);
    else
        (void)snprintf(out, 16, "%.2f s", seconds < 99999 ? seconds : 99999); /* fits */
}

static void rate(char out[16], double n, double seconds)
{
    double r = n / seconds;
    if (r < 100 && r > 0)
        (void)snprintf(out, 16, "%.1f", r); /* fits */
    else
        tool_progress_number(out, (uint64_t)r, false);
}

static void bytes(char out[16], double n) { tool_progress_number(out, n > 0 ? (uint64_t)n : 0, true); }

struct totals {
    double requests, errors, bytes;
};

static struct totals sum(const struct tool_sample *s)
{
    struct totals t = {0, 0, 0};
    for (size_t i = 0; i < s->routes; i++) {
        t.requests += s->route[i].requests;
        t.errors += s->route[i].errors;
        t.bytes += s->route[i].bytes;
    }
    return t;
}

static void page_head(struct job *j, double seconds)
{
    const struct tool_sample *s = j->since;
    struct totals t = sum(s);
    char a[16], b[16], c[16], d[16], e[16];
    unsigned up = (unsigned)s->v[TOOL_G_UPTIME];
    put(j, "cheetah-db %s  %s  up %u:%02u:%02u%s%s", tool_client_url(j->client),
        s->v[TOOL_G_READY] > 0 ? "ready" : "NOT READY", up / 3600, up / 60 % 60, up % 60,
        j->problem[0] != 0 ? "  " : "", j->problem);
    rate(a, t.requests, seconds);
    rate(b, t.errors, seconds);
    duration(c, tool_sample_quantile(s, NULL, 0.5));
    duration(d, tool_sample_quantile(s, NULL, 0.99));
    bytes(e, t.bytes / seconds);
    put(j, "requests %s/s  errors %s/s  p50 %s  p99 %s  sent %s/s", a, b, c, d, e);
    rate(a, s->v[TOOL_G_STREAM_ENTRIES], seconds);
    bytes(b, s->v[TOOL_G_RESIDENT]);
    put(j,
        "connections %.0f  streams %.0f (%s entries/s)  refused %.0f  aborted %.0f  cpu %.0f%%  memory %s  "
        "files %.0f",
        s->v[TOOL_G_CONNECTIONS], s->v[TOOL_G_STREAMS], a, s->v[TOOL_G_REFUSED], s->v[TOOL_G_ABORTED],
        s->v[TOOL_G_CPU] / seconds * 100, b, s->v[TOOL_G_FILES]);
}

static void page_databases(struct job *j, double seconds)
{
    const struct tool_sample *s = j->since;
    put(j, "%s", "");
    put(j, "%-20s %8s %8s %10s %9s %9s %8s %9s %10s %10s %10s", "DATABASE", "pairs", "values", "bytes",
        "commits/s", "ops/s", "fsync/s", "fsync", "written/s", "log", "dirty");
    for (size_t i = 0; i < s->dbs; i++) {
        const double *v = s->db[i].v;
        char pairs[16], values[16], size[16], commits[16], ops[16], syncs[16], sync[16], written[16], log[16],
            dirty[16];
        tool_progress_number(pairs, (uint64_t)v[TOOL_D_PAIRS], false);
        tool_progress_number(values, (uint64_t)v[TOOL_D_VALUES], false);
        bytes(size, v[TOOL_D_BYTES]);
        rate(commits, v[TOOL_D_COMMITS], seconds);
        rate(ops, v[TOOL_D_OPERATIONS], seconds);
        rate(syncs, v[TOOL_D_FSYNCS], seconds);
        duration(sync, v[TOOL_D_FSYNCS] > 0 ? v[TOOL_D_FSYNC_SECONDS] / v[TOOL_D_FSYNCS] : 0);
        bytes(written, v[TOOL_D_WRITTEN] / seconds);
        bytes(log, v[TOOL_D_LOG_LIVE]);
        bytes(dirty, v[TOOL_D_DIRTY]);
        put(j, "%-20.20s %8s %8s %10s %9s %9s %8s %9s %10s %10s %10s%s%s", s->db[i].name, pairs, values, size,
            commits, ops, syncs, sync, written, log, dirty, v[TOOL_D_READ_ONLY] > 0 ? "  READ-ONLY" : "",
            v[TOOL_D_CORRUPT] > 0 ? "  CORRUPT VALUES" : "");
    }
}

static void page_routes(struct job *j, double seconds)
{
    const struct tool_sample *s = j->since;
    bool shown[TOOL_SAMPLE_ROUTES] = {false};
    put(j, "%s", "");
    put(j, "%-36s %-7s %9s %8s %9s %9s %9s %10s", "ROUTE", "", "/s", "err/s", "mean", "p50", "p99", "sent/s");
    for (size_t n = 0; n < s->routes; n++) { /* the busiest first */
        size_t best = s->routes;
        for (size_t i = 0; i < s->routes; i++) {
            if (!shown[i] && (best == s->routes || s->route[i].requests > s->route[best].requests))
                best = i;
        }
        const struct tool_sample_route *r = &s->route[best];
        char count[16], errors[16], mean[16], half[16], most[16], sent[16];
        shown[best] = true;
        if (r->requests <= 0)
            break;
        rate(count, r->requests, seconds);
        rate(errors, r->errors, seconds);
        duration(mean, r->seconds / r->requests);
        duration(half, tool_sample_quantile(s, r, 0.5));
        duration(most, tool_sample_quantile(s, r, 0.99));
        bytes(sent, r->bytes / seconds);
        put(j, "%-36.36s %-7s %9s %8s %9s %9s %9s %10s", r->name, r->method, count, errors, mean, half, most,
            sent);
    }
}

/* How many a second, and which part of them was found. */
static void found(char out[32], double hits, double misses, double seconds)
{
    char n[16];
    rate(n, hits + misses, seconds);
    if (hits + misses > 0)
        (void)snprintf(out, 32, "%s/s %3.0f%%", n, hits / (hits + misses) * 100); /* fits */
    else
        (void)snprintf(out, 32, "-");
}

/* What a decoder feels; the latency of /predict is that of its route. */
static void page_orders(struct job *j, double seconds)
{
    const struct tool_sample *s = j->since;
    char predictions[32], followers[32], cache[32];
    bool any = false;
    for (unsigned n = 1; n < TOOL_SAMPLE_ORDERS; n++) {
        const struct tool_sample_order *now = &j->now->order[n], *o = &s->order[n];
        if (now->predictions + now->predictions_missed + now->followers + now->followers_missed <= 0)
            continue;
        if (!any) {
            found(cache, s->v[TOOL_G_CACHE_HITS], s->v[TOOL_G_CACHE_MISSES], seconds);
            put(j, "%s", "");
            put(j, "%-20s %20s %20s   aggregates from the cache: %s", "ORDER", "predictions found",
                "best followers found", cache);
        }
        any = true;
        found(predictions, o->predictions, o->predictions_missed, seconds);
        found(followers, o->followers, o->followers_missed, seconds);
        put(j, "%-20u %20s %20s", n, predictions, followers);
    }
}

static void page(struct job *j, double seconds)
{
    j->line = 0;
    if (j->screen) {
        cht_os_terminal_size(STDOUT, &j->rows, &j->columns);
        (void)fputs("\033[H", stdout);
    }
    page_head(j, seconds);
    page_databases(j, seconds);
    page_orders(j, seconds);
    page_routes(j, seconds);
    (void)fputs(j->screen ? "\033[J" : "\n", stdout);
    (void)fflush(stdout);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------------- */

static void member(const char *name, double v) { (void)printf(",\"%s\":%.9g", name, v); }

static void json_orders(const struct tool_sample *s, double seconds)
{
    bool first = true;
    for (unsigned n = 1; n < TOOL_SAMPLE_ORDERS; n++) {
        const struct tool_sample_order *o = &s->order[n];
        if (o->predictions + o->predictions_missed + o->followers + o->followers_missed <= 0)
            continue;
        (void)printf("%s\"%u\":{\"order\":%u", first ? "" : ",", n, n);
        member("predictions", o->predictions / seconds);
        member("predictions_missed", o->predictions_missed / seconds);
        member("followers", o->followers / seconds);
        member("followers_missed", o->followers_missed / seconds);
        (void)fputc('}', stdout);
        first = false;
    }
}

static void json_line(const struct job *j, double seconds)
{
    const struct tool_sample *s = j->since;
    struct totals t = sum(s);
    (void)printf("{\"server\":");
    tool_json_string(stdout, tool_client_url(j->client));
    member("seconds", seconds);
    for (unsigned i = 0; i < TOOL_G_COUNT; i++)
        member(tool_sample_gauge_name(i), tool_sample_gauge_counts(i) ? s->v[i] / seconds : s->v[i]);
    member("requests", t.requests / seconds);
    member("errors", t.errors / seconds);
    member("sent_bytes", t.bytes / seconds);
    member("p50", tool_sample_quantile(s, NULL, 0.5));
    member("p99", tool_sample_quantile(s, NULL, 0.99));
    (void)fputs(",\"databases\":{", stdout);
    for (size_t i = 0; i < s->dbs; i++) {
        (void)printf("%s\"%s\":{\"name\":\"%s\"", i > 0 ? "," : "", s->db[i].name, s->db[i].name);
        for (unsigned k = 0; k < TOOL_D_COUNT; k++)
            member(tool_sample_db_name(k),
                   tool_sample_db_counts(k) ? s->db[i].v[k] / seconds : s->db[i].v[k]);
        (void)fputc('}', stdout);
    }
    (void)fputs("},\"orders\":{", stdout);
    json_orders(s, seconds);
    (void)fputs("},\"routes\":[", stdout);
    bool first = true;
    for (size_t i = 0; i < s->routes; i++) {
        const struct tool_sample_route *r = &s->route[i];
        if (r->requests <= 0)
            continue;
        (void)printf("%s{\"route\":", first ? "" : ",");
        tool_json_string(stdout, r->name);
        (void)printf(",\"method\":\"%s\"", r->method);
        member("requests", r->requests / seconds);
        member("errors", r->errors / seconds);
        member("sent_bytes", r->bytes / seconds);
        member("mean", r->seconds / r->requests);
        member("p50", tool_sample_quantile(s, r, 0.5));
        member("p99", tool_sample_quantile(s, r, 0.99));
        (void)fputc('}', stdout);
        first = false;
    }
    (void)fputs("]}\n", stdout);
    (void)fflush(stdout);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------------ */

static enum cht_rc look(struct job *j, struct tool_sample *s, struct cht_err *err)
{
    struct cht_buf b = {0};
    enum cht_rc rc = tool_client_get(j->client, "/metrics", &b, err);
    uint64_t now = cht_now_ns();
    if (rc == CHT_OK && !tool_sample_parse(s, (const char *)b.data, b.len))
        rc = CHT_FAIL(err, CHT_IO, "%s has no metrics; is it a cheetah-db server?",
                      tool_client_url(j->client));
    s->taken_ns = now;
    cht_buf_free(&b);
    return rc;
}

/* Waits for the next look; false if it is over: a key, or a signal. */
static bool wait_until(const struct job *j, uint64_t end_ns)
{
    for (;;) {
        uint64_t now = cht_now_ns();
        if (cht_os_wait_signal(0) != 0)
            return false;
        if (now >= end_ns)
            return true;
        int ms = (int)((end_ns - now) / 1000000) + 1;
        ms = ms > STEP_MS ? STEP_MS : ms;
        int key = j->screen ? cht_os_read_key(STDIN, ms) : -1;
        if (key == 'q' || key == 'Q' || key == ESCAPE || key == -2)
            return false;
        if (!j->screen)
            cht_sleep_ns((uint64_t)ms * 1000000);
    }
}

static void show(struct job *j)
{
    double seconds = (double)(j->now->taken_ns - j->before->taken_ns) / NS;
    tool_sample_since(j->since, j->before, j->now);
    if (j->json)
        json_line(j, seconds);
    else
        page(j, seconds);
}

static enum cht_rc watch(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = look(j, j->before, err);
    if (rc != CHT_OK)
        return rc;
    j->screen = !j->json && j->count != 1 && cht_os_is_terminal(STDOUT) && cht_os_terminal_raw(STDIN);
    if (j->screen)
        (void)fputs("\033[?1049h\033[?25l\033[H\033[J", stdout); /* a page of its own, no cursor */
    uint64_t next = j->before->taken_ns, step = j->interval * UINT64_C(1000000000);
    for (uint64_t n = 0; (j->count == 0 || n < j->count) && !ferror(stdout); n++) {
        next += step;
        if (!wait_until(j, next))
            break;
        rc = look(j, j->now, err);
        if (rc != CHT_OK && !j->screen)
            break;
        (void)snprintf(j->problem, sizeof j->problem, "%.150s",
                       rc != CHT_OK ? err->msg : ""); /* a long one is cut */
        if (rc != CHT_OK) {                           /* what was there stays on the screen */
            page(j, (double)step / NS);
            rc = CHT_OK;
            continue;
        }
        show(j);
        struct tool_sample *old = j->before;
        j->before = j->now;
        j->now = old;
    }
    if (j->screen)
        (void)fputs("\033[?25h\033[?1049l", stdout);
    (void)fflush(stdout); /* main looks at what became of it */
    cht_os_terminal_restore();
    return rc;
}

static int run(struct job *j)
{
    struct cht_err err = {0};
    cht_os_block_signals(); /* they are asked for, so that the terminal is put back */
    j->before = cht_calloc(1, sizeof *j->before);
    j->now = cht_calloc(1, sizeof *j->now);
    j->since = cht_calloc(1, sizeof *j->since);
    enum cht_rc rc = CHT_OK;
    if (j->before == NULL || j->now == NULL || j->since == NULL)
        rc = CHT_FAIL(&err, CHT_NO_MEMORY, "no memory for the figures");
    if (rc == CHT_OK)
        rc = tool_client_new(&j->connect, &j->client, &err);
    if (rc == CHT_OK)
        rc = watch(j, &err);
    tool_client_free(j->client);
    cht_free(j->before);
    cht_free(j->now);
    cht_free(j->since);
    return rc == CHT_OK ? TOOL_EXIT_OK : tool_failed(&err);
}

/* -------------------------------------------------------------------------------------------------------------------------------- */

int tool_top(int argc, char **argv)
{
    struct job j = {.interval = 1};
    bool wants_help = false;
    int rest;
    const struct tool_opt opts[] = {
        {"interval", 0, TOOL_OPT_NUMBER, &j.interval, 3600, "N", "seconds between two looks (default 1)"},
        {"count", 0, TOOL_OPT_NUMBER, &j.count, UINT64_MAX, "N", "look N times, then end"},
        {"once", 0, TOOL_OPT_FLAG, &j.once, 0, NULL, "--count 1"},
        {"json", 0, TOOL_OPT_FLAG, &j.json, 0, NULL,
         "a JSON object a line: rates a second, and what is there now"},
        TOOL_CONNECT_OPTS(&j.connect),
        {"help", 'h', TOOL_OPT_FLAG, &wants_help, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (wants_help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest > 0)
        return tool_usage("top", "takes no names; see cheetah-db top --help");
    if (j.once)
        j.count = 1;
    return run(&j);
}
