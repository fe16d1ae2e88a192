/* metrics: see metrics.h. */
#include "http/metrics.h"

#include "service/scrub.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <inttypes.h>

static const int statuses[HTTP_METRIC_STATUSES] = {200, 201, 204, 304, 400, 401, 403, 404, 405, 409,
                                                   410, 412, 413, 415, 499, 500, 503, 507, 0};

/* Upper bounds of the buckets; the last has none. */
static const uint64_t bounds_ns[HTTP_METRIC_BUCKETS - 1] = {
    UINT64_C(10000),    UINT64_C(25000),     UINT64_C(50000),      UINT64_C(100000),     UINT64_C(250000),
    UINT64_C(500000),   UINT64_C(1000000),   UINT64_C(2500000),    UINT64_C(5000000),    UINT64_C(10000000),
    UINT64_C(50000000), UINT64_C(250000000), UINT64_C(1000000000), UINT64_C(10000000000)};
static const char *const bound_names[HTTP_METRIC_BUCKETS] = {
    "0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025",
    "0.005",   "0.01",     "0.05",    "0.25",   "1",       "10",     "+Inf"};

static unsigned status_index(int status)
{
    unsigned i = 0;
    while (i < HTTP_METRIC_STATUSES - 1 && statuses[i] != status && statuses[i] != 0)
        i++;
    return i;
}

void http_metrics_count(struct http_metrics *m, unsigned route, int status, uint64_t nanos, uint64_t bytes)
{
    struct http_metric_cell *c = &m->cells[route * HTTP_METRIC_STATUSES + status_index(status)];
    unsigned b = 0;
    while (b < HTTP_METRIC_BUCKETS - 1 && nanos > bounds_ns[b])
        b++;
    http_metrics_add(&c->count, 1);
    http_metrics_add(&c->nanos, nanos);
    http_metrics_add(&c->bytes, bytes);
    http_metrics_add(&c->bucket[b], 1);
}

/* ---- the page ----------------------------------------------------------------------------------------------------- */

struct sums {
    uint64_t count, nanos, bytes, bucket[HTTP_METRIC_BUCKETS];
};

static struct sums sum_cell(const struct http_server *s, unsigned route, unsigned status)
{
    struct sums t = {0};
    for (unsigned i = 0; i < s->worker_count; i++) {
        const struct http_metric_cell *c =
            &s->workers[i].metrics.cells[route * HTTP_METRIC_STATUSES + status];
        t.count += atomic_load_explicit(&c->count, memory_order_relaxed);
        t.nanos += atomic_load_explicit(&c->nanos, memory_order_relaxed);
        t.bytes += atomic_load_explicit(&c->bytes, memory_order_relaxed);
        for (unsigned b = 0; b < HTTP_METRIC_BUCKETS; b++)
            t.bucket[b] += atomic_load_explicit(&c->bucket[b], memory_order_relaxed);
    }
    return t;
}

static void head(struct svc_out *o, const char *name, const char *type, const char *help)
{
    svc_out_format(o, "# HELP cheetah_%s %s\n# TYPE cheetah_%s %s\n", name, help, name, type);
}

static const char *method_name(const struct http_route *t)
{
    if (t == NULL)
        return "OTHER";
    return t->method == HTTP_METHOD_GET    ? "GET"
           : t->method == HTTP_METHOD_PUT  ? "PUT"
           : t->method == HTTP_METHOD_POST ? "POST"
                                           : "DELETE";
}

/* {route=,method=,status= without the closing brace */
static void labels(const struct http_server *s, struct svc_out *o, unsigned route, unsigned status)
{
    const struct http_route *t = route < s->routes->n ? &s->routes->v[route] : NULL;
    svc_out_format(o, "{route=\"%s\",method=\"%s\",status=\"%d\"", t != NULL ? t->label : "none",
                   method_name(t), statuses[status]);
}

static void print_requests(const struct http_server *s, struct svc_out *o)
{
    head(o, "http_requests_total", "counter", "Requests answered.");
    for (unsigned r = 0; r <= s->routes->n; r++) {
        for (unsigned i = 0; i < HTTP_METRIC_STATUSES; i++) {
            struct sums t = sum_cell(s, r, i);
            if (t.count == 0)
                continue;
            svc_out_text(o, "cheetah_http_requests_total");
            labels(s, o, r, i);
            svc_out_format(o, "} %" PRIu64 "\n", t.count);
        }
    }
    head(o, "http_response_bytes_total", "counter", "Bytes of answers' bodies.");
    for (unsigned r = 0; r <= s->routes->n; r++) {
        for (unsigned i = 0; i < HTTP_METRIC_STATUSES; i++) {
            struct sums t = sum_cell(s, r, i);
            if (t.count == 0)
                continue;
            svc_out_text(o, "cheetah_http_response_bytes_total");
            labels(s, o, r, i);
            svc_out_format(o, "} %" PRIu64 "\n", t.bytes);
        }
    }
}

static void print_seconds(const struct http_server *s, struct svc_out *o)
{
    head(o, "http_request_seconds", "histogram", "From the request line to the end of the answer.");
    for (unsigned r = 0; r <= s->routes->n; r++) {
        for (unsigned i = 0; i < HTTP_METRIC_STATUSES; i++) {
            struct sums t = sum_cell(s, r, i);
            uint64_t below = 0;
            for (unsigned b = 0; b < HTTP_METRIC_BUCKETS && t.count > 0; b++) {
                below += t.bucket[b];
                svc_out_text(o, "cheetah_http_request_seconds_bucket");
                labels(s, o, r, i);
                svc_out_format(o, ",le=\"%s\"} %" PRIu64 "\n", bound_names[b], below);
            }
            if (t.count == 0)
                continue;
            svc_out_text(o, "cheetah_http_request_seconds_sum");
            labels(s, o, r, i);
            svc_out_format(o, "} %.9f\n", (double)t.nanos / 1e9);
            svc_out_text(o, "cheetah_http_request_seconds_count");
            labels(s, o, r, i);
            svc_out_format(o, "} %" PRIu64 "\n", below);
        }
    }
}

static void one(struct svc_out *o, const char *name, const char *type, const char *help, uint64_t v)
{
    head(o, name, type, help);
    svc_out_format(o, "cheetah_%s %" PRIu64 "\n", name, v);
}

static void count_one(void *ctx, const char *name)
{
    (void)name;
    ++*(uint64_t *)ctx;
}

static void print_codings(const struct http_server *s, struct svc_out *o)
{
    uint64_t answers = 0, in = 0, out = 0, came = 0, made = 0;
    for (unsigned i = 0; i < s->worker_count; i++) {
        const struct http_metrics *m = &s->workers[i].metrics;
        answers += atomic_load_explicit(&m->packed, memory_order_relaxed);
        in += atomic_load_explicit(&m->packed_in, memory_order_relaxed);
        out += atomic_load_explicit(&m->packed_out, memory_order_relaxed);
        came += atomic_load_explicit(&m->unpacked_in, memory_order_relaxed);
        made += atomic_load_explicit(&m->unpacked_out, memory_order_relaxed);
    }
    one(o, "compressed_answers_total", "counter", "Answers sent with a Content-Encoding.", answers);
    one(o, "compressed_answers_plain_bytes_total", "counter", "Their bytes before compression.", in);
    one(o, "compressed_answers_bytes_total", "counter", "Their bytes as they were sent.", out);
    one(o, "compressed_bodies_bytes_total", "counter", "Bytes of bodies that came with a Content-Encoding.",
        came);
    one(o, "compressed_bodies_plain_bytes_total", "counter", "What came out of them.", made);
}

static void print_service(struct http_server *s, struct svc_out *o)
{
    uint64_t aborted = 0, ahead = 0, quick = 0, quick_writes = 0, together = 0, awaited = 0, resident, cpu,
             files;
    struct svc_scrub_stats scrub = {0};
    if (atomic_load_explicit(&s->state, memory_order_acquire) != HTTP_SERVER_STARTING)
        svc_scrub_read_stats(s->scrub, &scrub);
    struct svc_dbs_stats dbs = {0};
    uint64_t databases = 0;
    struct cht_err ignored;
    if (s->dbs != NULL)
        svc_dbs_read_stats(s->dbs, &dbs);
    if (s->dbs != NULL && svc_dbs_list(s->dbs, count_one, &databases, &ignored) != CHT_OK)
        databases = 0; /* the list itself tells why it cannot be read */
    for (unsigned i = 0; i < s->worker_count; i++) {
        ahead += atomic_load_explicit(&s->workers[i].metrics.ahead, memory_order_relaxed);
        quick += atomic_load_explicit(&s->workers[i].metrics.quick, memory_order_relaxed);
        quick_writes += atomic_load_explicit(&s->workers[i].metrics.quick_writes, memory_order_relaxed);
        together += atomic_load_explicit(&s->workers[i].metrics.together, memory_order_relaxed);
        awaited += atomic_load_explicit(&s->workers[i].metrics.awaited, memory_order_relaxed);
        aborted += atomic_load_explicit(&s->workers[i].metrics.aborted, memory_order_relaxed);
    }
    cht_os_usage(&resident, &cpu, &files);
    one(o, "ready", "gauge", "1 while requests are served.", atomic_load(&s->state) == HTTP_SERVER_READY);
    one(o, "connections_open", "gauge", "Client connections.", atomic_load(&s->connections));
    one(o, "requests_refused_total", "counter", "Requests on connections beyond a limit.",
        atomic_load(&s->refused));
    one(o, "connections_shed_total", "counter",
        "Connections without a token, or over a limit, ended to make room.", atomic_load(&s->shed));
    one(o, "reads_ahead_total", "counter",
        "Point reads fetched together with others that came at the same time.", ahead);
    one(o, "reads_quick_total", "counter",
        "Point reads of connections that had asked before with the same headers.", quick);
    one(o, "writes_quick_total", "counter",
        "Short writes of connections that had asked before with the same headers.", quick_writes);
    one(o, "commits_together_total", "counter",
        "Commits submitted together with others that came at the same time.", together);
    one(o, "reads_awaited_total", "counter", "Point reads that waited for a write on its way to the disk.",
        awaited);
    one(o, "requests_aborted_total", "counter", "Answers that the client did not take.", aborted);
    print_codings(s, o);
    one(o, "databases", "gauge", "Databases.", databases);
    one(o, "databases_limit", "gauge", "Databases at most: --max-databases.", s->conf->max_databases);
    one(o, "databases_open", "gauge", "Databases that are open; only of these there are figures below.",
        dbs.open);
    one(o, "databases_opened_total", "counter", "Databases opened.", dbs.opened);
    one(o, "databases_closed_total", "counter", "Databases closed because they were not used.", dbs.closed);
    one(o, "streams_open", "gauge", "Streams under way.", atomic_load(&s->streams));
    one(o, "stream_entries_total", "counter", "Entries of streams that have ended.",
        atomic_load(&s->stream_entries));
    one(o, "stream_bytes_total", "counter", "Bytes of streams that have ended.",
        atomic_load(&s->stream_bytes));
    one(o, "statistics_jobs", "gauge", "Aggregates and smoothing runs under way.", atomic_load(&s->feeds));
    s->routes->print(s->shared, o);
    one(o, "scrub_bytes_total", "counter", "Bytes of files compared with their sums in the background.",
        scrub.bytes);
    one(o, "scrub_passes_total", "counter", "Passes over the files of all databases.", scrub.passes);
    one(o, "scrub_bad_pages_total", "counter", "Damaged pages seen, again in every pass.", scrub.bad);
    one(o, "log_lines_dropped_total", "counter", "Log lines that found no room.", svc_log_dropped(s->log));
    one(o, "request_memory_bytes", "gauge",
        "Memory booked by requests: large bodies, batches, statistics, answers.",
        atomic_load(&s->memory.used));
    one(o, "request_memory_limit_bytes", "gauge", "What all requests together may book: --memory-bytes.",
        s->memory.max);
    one(o, "requests_too_large_total", "counter", "Requests refused with 413 request_too_large.",
        atomic_load(&s->memory.large));
    one(o, "requests_over_memory_total", "counter",
        "Requests refused with 503 because --memory-bytes are booked.", atomic_load(&s->memory.overbook));
    one(o, "resident_bytes", "gauge", "Resident memory.", resident);
    one(o, "open_files", "gauge", "Open descriptors.", files);
    one(o, "open_files_limit", "gauge", "Descriptors that this process may have.", s->conf->file_limit);
    one(o, "connections_limit", "gauge",
        "Client connections at most, as far as the limit of descriptors goes.", s->conf->max_connections);
    head(o, "cpu_seconds_total", "counter", "Processor time.");
    svc_out_format(o, "cheetah_cpu_seconds_total %.6f\n", (double)cpu / 1e9);
    head(o, "uptime_seconds", "gauge", "Since the start.");
    svc_out_format(o, "cheetah_uptime_seconds %.3f\n", (double)(cht_now_ns() - s->start_ns) / 1e9);
}

/* All 0 for a store on files. */
static void print_cluster(struct http_server *s, struct svc_out *o)
{
    struct cht_remote_stats r;
    cht_env_remote_stats(s->env, &r);
    head(o, "rados_operations_total", "counter",
         "Operations on objects of the Ceph cluster that have ended.");
    svc_out_format(o, "cheetah_rados_operations_total{kind=\"read\"} %" PRIu64 "\n", r.reads);
    svc_out_format(o, "cheetah_rados_operations_total{kind=\"write\"} %" PRIu64 "\n", r.writes);
    head(o, "rados_operation_seconds_total", "counter",
         "From their start until they were answered, added up.");
    svc_out_format(o, "cheetah_rados_operation_seconds_total{kind=\"read\"} %.6f\n", (double)r.read_ns / 1e9);
    svc_out_format(o, "cheetah_rados_operation_seconds_total{kind=\"write\"} %.6f\n",
                   (double)r.write_ns / 1e9);
    one(o, "rados_refused_total", "counter",
        "Writes whose compares did not hold and that were made again: another server was first.", r.refused);
    one(o, "rados_timeouts_total", "counter", "Operations that the cluster did not answer in time.",
        r.timeouts);
    one(o, "rados_failures_total", "counter", "Operations that failed otherwise.", r.failed);
    one(o, "rados_reconnects_total", "counter", "Connections after the cluster had shut this server out.",
        r.reconnects);
    head(o, "rados_silent_seconds", "gauge", "Since the cluster answered a write of the pulse.");
    svc_out_format(o, "cheetah_rados_silent_seconds %.3f\n", (double)r.silent_ns / 1e9);
    one(o, "rados_waiting_operations", "gauge", "Operations of commits that wait for the cluster.",
        r.waiting);
    one(o, "rados_locks", "gauge", "Locks among servers that are held, to count or smooth.", r.locks);
    one(o, "rados_locks_lost", "gauge",
        "Of these, those that have ended: nothing is written under them any more.", r.locks_lost);
    one(o, "rados_pool_full", "gauge", "1: the pool has no room.", r.full);
}

#define DATABASES_MAX 256u
#define FIGURES_WAIT_NS UINT64_C(500000000) /* for those of databases that lie elsewhere; then older ones */
#define FIGURES_LOOK_NS UINT64_C(3000000)
struct listing {
    const struct svc_token *token;
    uint64_t since; /* when the figures were asked for */
    bool late;      /* some have not come yet */
    unsigned n;
    char name[DATABASES_MAX][CHT_DATABASE_NAME_MAX + 1];
    struct cht_store_stats stats[DATABASES_MAX];
};

static bool may_see(const struct listing *l, const struct svc_database *d)
{
    return l->token == NULL || svc_access_allows(l->token, SVC_RIGHT_READ, d->name);
}

static void ask(void *ctx, struct svc_database *d)
{
    if (may_see(ctx, d))
        cht_store_stats_ask(d->store);
}

static void collect(void *ctx, struct svc_database *d)
{
    struct listing *l = ctx;
    uint64_t asked;
    if (l->n == DATABASES_MAX || !may_see(l, d))
        return;
    if (cht_store_stats_kept(d->store, &l->stats[l->n], &asked))
        memcpy(l->name[l->n++], d->name, sizeof d->name);
    l->late = l->late || asked < l->since;
}

/* All are asked at once, and waited for for a moment: an operator is answered while a cluster is slow. */
static void collect_all(struct svc_dbs *dbs, struct listing *l)
{
    l->since = cht_now_ns();
    svc_dbs_each(dbs, ask, l);
    for (;;) {
        l->n = 0;
        l->late = false;
        svc_dbs_each(dbs, collect, l);
        if (!l->late || cht_now_ns() - l->since > FIGURES_WAIT_NS)
            return;
        cht_sleep_ns(FIGURES_LOOK_NS);
    }
}

static void each(struct svc_out *o, const struct listing *l, const char *name, const char *type,
                 const char *help, size_t offset, double scale)
{
    head(o, name, type, help);
    for (unsigned i = 0; i < l->n; i++) {
        uint64_t v = *(const uint64_t *)(const void *)((const char *)&l->stats[i] + offset);
        if (scale == 1)
            svc_out_format(o, "cheetah_%s{database=\"%s\"} %" PRIu64 "\n", name, l->name[i], v);
        else
            svc_out_format(o, "cheetah_%s{database=\"%s\"} %.9f\n", name, l->name[i], (double)v * scale);
    }
}

static void print_databases(const struct listing *l, struct svc_out *o)
{
#define STAT(field) offsetof(struct cht_store_stats, field)
    static const struct {
        const char *name, *type, *help;
        size_t offset;
        double scale;
    } rows[] = {
        {"database_pairs", "gauge", "Pairs.", STAT(pairs), 1},
        {"database_pairs_ending", "gauge", "Pairs with a ttl that are not removed yet.", STAT(ending), 1},
        {"database_pairs_expired_total", "counter", "Pairs that were removed after their ttl.", STAT(ended),
         1},
        {"database_values", "gauge", "Values.", STAT(values), 1},
        {"database_bytes", "gauge", "Bytes of values.", STAT(value_bytes), 1},
        {"database_file_bytes", "gauge", "Bytes on disk without the log.", STAT(file_bytes), 1},
        {"log_bytes", "gauge", "Bytes of log segments.", STAT(log_bytes), 1},
        {"log_live_bytes", "gauge", "Log since the oldest checkpoint.", STAT(log_live), 1},
        {"dirty_bytes", "gauge", "Changed memory that no checkpoint holds.", STAT(dirty_bytes), 1},
        {"commits_total", "counter", "Commits.", STAT(commits), 1},
        {"commit_operations_total", "counter", "Operations of commits.", STAT(operations), 1},
        {"commit_groups_total", "counter", "Groups of commits that shared a log record.", STAT(groups), 1},
        {"fsync_total", "counter", "Syncs of the log.", STAT(syncs), 1},
        {"fsync_seconds_total", "counter", "Time in them.", STAT(sync_ns), 1e-9},
        {"checkpoints_total", "counter", "Checkpoints.", STAT(checkpoints), 1},
        {"checkpoints_failed_total", "counter", "Checkpoints that could not be made, tried again or not.",
         STAT(checkpoints_failed), 1},
        {"checkpoint_seconds_total", "counter", "Time in them.", STAT(checkpoint_ns), 1e-9},
        {"values_ordered_total", "counter",
         "Values that changed their places before a checkpoint, for the order of their names.",
         STAT(values_ordered), 1},
        {"pages_read_alone", "gauge",
         "1: the disk reads pages one by one, since the databases do not fit into the memory.",
         STAT(read_alone), 1},
        {"inserted_bytes_total", "counter", "Bytes of names and values taken.", STAT(bytes_inserted), 1},
        {"written_bytes_total", "counter", "Bytes handed to the disk.", STAT(bytes_written), 1},
        {"changes_oldest", "gauge", "After this number changes can be asked for; 0: none are kept.",
         STAT(changes_oldest), 1},
        {"changes_newest", "gauge", "The number of the newest change.", STAT(changes_newest), 1},
        {"changes_kept_bytes", "gauge", "Bytes of the log that are kept for changes alone.",
         STAT(changes_kept), 1},
        {"changes_followers", "gauge", "Streams of changes that are open.", STAT(changes_followers), 1},
        {"corrupt_values_total", "counter", "Checksum failures seen.", STAT(corrupt), 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        each(o, l, rows[i].name, rows[i].type, rows[i].help, rows[i].offset, rows[i].scale);
    head(o, "database_read_only", "gauge", "1 after a disk fault.");
    for (unsigned i = 0; i < l->n; i++)
        svc_out_format(o, "cheetah_database_read_only{database=\"%s\"} %d\n", l->name[i],
                       l->stats[i].read_only);
}

/* Why: the code that a refused write is answered with; writing that has stopped is read_only. */
static void print_refused(const struct listing *l, struct svc_out *o)
{
    head(o, "database_writes_refused", "gauge",
         "1 while writes are refused or checkpoints fail, with the reason.");
    for (unsigned i = 0; i < l->n; i++) {
        enum cht_rc why = l->stats[i].read_only ? CHT_READ_ONLY : l->stats[i].trouble.code;
        svc_out_format(o, "cheetah_database_writes_refused{database=\"%s\",reason=\"%s\"} %d\n", l->name[i],
                       why == CHT_OK ? "none" : cht_rc_slug(why), why != CHT_OK);
    }
}

void http_metrics_one(struct svc_out *o, const char *name, const char *type, const char *help, uint64_t v)
{
    one(o, name, type, help, v);
}

void http_metrics_print(struct http_server *s, const struct svc_token *t, struct svc_out *o)
{
    struct listing *l = cht_calloc(1, sizeof *l);
    if (l == NULL) {
        o->failed = true;
        return;
    }
    l->token = t;
    print_service(s, o);
    svc_tls_metrics(s->tls, o);
    print_requests(s, o);
    print_seconds(s, o);
    if (s->more_metrics != NULL)
        s->more_metrics(s->more_ctx, o);
    print_cluster(s, o);
    if (cht_env_health(s->env, NULL) == CHT_OK) /* else each database would be waited for */
        collect_all(s->dbs, l);
    print_databases(l, o);
    print_refused(l, o);
    cht_free(l);
}
