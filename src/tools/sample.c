/* sample: see sample.h. The text format of Prometheus, as far as the server writes it: name{label="value",...} number. */
#include "tools/sample.h"

#include "base/literal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct metric {
    const char *metric; /* after "cheetah_" */
    const char *name;   /* in the output */
    bool counts;
};
static const struct metric gauges[TOOL_G_COUNT] = {
    [TOOL_G_READY] = {"ready", "ready", false},
    [TOOL_G_CONNECTIONS] = {"connections_open", "connections", false},
    [TOOL_G_STREAMS] = {"streams_open", "streams", false},
    [TOOL_G_RESIDENT] = {"resident_bytes", "resident_bytes", false},
    [TOOL_G_FILES] = {"open_files", "open_files", false},
    [TOOL_G_UPTIME] = {"uptime_seconds", "uptime", false},
    [TOOL_G_CPU] = {"cpu_seconds_total", "cpu", true},
    [TOOL_G_REFUSED] = {"requests_refused_total", "refused", true},
    [TOOL_G_ABORTED] = {"requests_aborted_total", "aborted", true},
    [TOOL_G_STREAM_ENTRIES] = {"stream_entries_total", "stream_entries", true},
    [TOOL_G_CACHE_HITS] = {"reduce_cache_hits_total", "cache_hits", true},
    [TOOL_G_CACHE_MISSES] = {"reduce_cache_misses_total", "cache_misses", true},
};
static const struct metric db_gauges[TOOL_D_COUNT] = {
    [TOOL_D_PAIRS] = {"database_pairs", "pairs", false},
    [TOOL_D_VALUES] = {"database_values", "values", false},
    [TOOL_D_BYTES] = {"database_bytes", "value_bytes", false},
    [TOOL_D_FILE_BYTES] = {"database_file_bytes", "file_bytes", false},
    [TOOL_D_LOG_LIVE] = {"log_live_bytes", "log_live", false},
    [TOOL_D_DIRTY] = {"dirty_bytes", "dirty_bytes", false},
    [TOOL_D_COMMITS] = {"commits_total", "commits", true},
    [TOOL_D_OPERATIONS] = {"commit_operations_total", "operations", true},
    [TOOL_D_GROUPS] = {"commit_groups_total", "groups", true},
    [TOOL_D_FSYNCS] = {"fsync_total", "fsyncs", true},
    [TOOL_D_FSYNC_SECONDS] = {"fsync_seconds_total", "fsync_seconds", true},
    [TOOL_D_CHECKPOINTS] = {"checkpoints_total", "checkpoints", true},
    [TOOL_D_INSERTED] = {"inserted_bytes_total", "inserted_bytes", true},
    [TOOL_D_WRITTEN] = {"written_bytes_total", "written_bytes", true},
    [TOOL_D_CORRUPT] = {"corrupt_values_total", "corrupt", false},
    [TOOL_D_READ_ONLY] = {"database_read_only", "read_only", false},
};

const char *tool_sample_gauge_name(unsigned i) { return gauges[i].name; }
const char *tool_sample_db_name(unsigned i) { return db_gauges[i].name; }
bool tool_sample_gauge_counts(unsigned i) { return gauges[i].counts; }
bool tool_sample_db_counts(unsigned i) { return db_gauges[i].counts; }

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

struct line {
    char name[64];
    char labels[256];
    double value;
};

static bool split(struct line *l, const char *p, size_t n)
{
    static const char prefix[] = "cheetah_";
    char number[48];
    const char *blank = n > 0 ? p + n : p;
    while (blank > p && blank[-1] != ' ')
        blank--;
    size_t digits = (size_t)(p + n - blank);
    if (n < sizeof prefix || memcmp(p, prefix, sizeof prefix - 1) != 0 || blank == p ||
        digits >= sizeof number)
        return false;
    memcpy(number, blank, digits);
    number[digits] = 0;
    p += sizeof prefix - 1;
    size_t head = (size_t)(blank - 1 - p);
    const char *brace = memchr(p, '{', head);
    size_t name = brace != NULL ? (size_t)(brace - p) : head;
    size_t labels = brace != NULL ? head - name : 0;
    if (name >= sizeof l->name || labels >= sizeof l->labels)
        return false;
    memcpy(l->name, p, name);
    l->name[name] = 0;
    if (labels > 0)
        memcpy(l->labels, brace, labels);
    l->labels[labels] = 0;
    char *end;
    l->value = strtod(number, &end);
    return end != number;
}

/* The value of a label; the server's hold no quote and no backslash. */
static bool label(const struct line *l, const char *name, char *out, size_t cap)
{
    const char *p = l->labels;
    size_t n = strlen(name);
    while ((p = strstr(p, name)) != NULL) {
        const char *value = p + n + 2, *end = strchr(p, '"');
        if (p > l->labels && (p[-1] == '{' || p[-1] == ',') && p[n] == '=' && p[n + 1] == '"') {
            end = strchr(value, '"');
            size_t len = end != NULL ? (size_t)(end - value) : cap;
            if (len >= cap)
                return false;
            memcpy(out, value, len);
            out[len] = 0;
            return true;
        }
        p += n;
        if (end == NULL)
            return false;
    }
    return false;
}

static struct tool_sample_route *route_of(struct tool_sample *s, const struct line *l)
{
    char name[sizeof s->route->name], method[sizeof s->route->method];
    if (!label(l, "route", name, sizeof name) || !label(l, "method", method, sizeof method))
        return NULL;
    for (size_t i = 0; i < s->routes; i++) {
        if (strcmp(s->route[i].name, name) == 0 && strcmp(s->route[i].method, method) == 0)
            return &s->route[i];
    }
    if (s->routes == TOOL_SAMPLE_ROUTES)
        return NULL;
    struct tool_sample_route *r = &s->route[s->routes++];
    memset(r, 0, sizeof *r);
    memcpy(r->name, name, sizeof name);
    memcpy(r->method, method, sizeof method);
    return r;
}

static struct tool_sample_db *db_of(struct tool_sample *s, const struct line *l)
{
    char name[sizeof s->db->name];
    if (!label(l, "database", name, sizeof name))
        return NULL;
    for (size_t i = 0; i < s->dbs; i++) {
        if (strcmp(s->db[i].name, name) == 0)
            return &s->db[i];
    }
    if (s->dbs == TOOL_SAMPLE_DATABASES)
        return NULL;
    struct tool_sample_db *d = &s->db[s->dbs++];
    memset(d, 0, sizeof *d);
    memcpy(d->name, name, sizeof name);
    return d;
}

static void bucket(struct tool_sample *s, struct tool_sample_route *r, const struct line *l)
{
    char text[32];
    if (!label(l, "le", text, sizeof text))
        return;
    double bound = strcmp(text, "+Inf") == 0 ? INFINITY : strtod(text, NULL);
    size_t i = 0;
    while (i < s->bounds && s->bound[i] < bound)
        i++;
    if (i == s->bounds && i < TOOL_SAMPLE_BUCKETS) /* they come in ascending order */
        s->bound[s->bounds++] = bound;
    if (i < s->bounds && !(s->bound[i] < bound))
        r->bucket[i] += l->value;
}

static void take_route(struct tool_sample *s, const struct line *l)
{
    char status[8];
    struct tool_sample_route *r = route_of(s, l);
    if (r == NULL)
        return;
    if (strcmp(l->name, "http_requests_total") == 0) {
        r->requests += l->value;
        if (label(l, "status", status, sizeof status) && strtol(status, NULL, 10) >= 400)
            r->errors += l->value;
    } else if (strcmp(l->name, "http_response_bytes_total") == 0) {
        r->bytes += l->value;
    } else if (strcmp(l->name, "http_request_seconds_sum") == 0) {
        r->seconds += l->value;
    } else if (strcmp(l->name, "http_request_seconds_bucket") == 0) {
        bucket(s, r, l);
    }
}

static void take_order(struct tool_sample *s, const struct line *l)
{
    char order[8], result[8];
    bool predictions = strcmp(l->name, "predictions_total") == 0;
    if (!predictions && strcmp(l->name, "best_followers_total") != 0)
        return;
    if (!label(l, "order", order, sizeof order) || !label(l, "result", result, sizeof result))
        return;
    unsigned long n = strtoul(order, NULL, 10);
    if (n >= TOOL_SAMPLE_ORDERS)
        return;
    struct tool_sample_order *t = &s->order[n];
    bool hit = strcmp(result, "hit") == 0;
    *(predictions ? hit ? &t->predictions : &t->predictions_missed
      : hit       ? &t->followers
                  : &t->followers_missed) = l->value;
}

static void take(struct tool_sample *s, const struct line *l)
{
    if (CHT_BEGINS(l->name, "http_")) {
        take_route(s, l);
        return;
    }
    take_order(s, l);
    for (unsigned i = 0; i < TOOL_G_COUNT && l->labels[0] == 0; i++) {
        if (strcmp(l->name, gauges[i].metric) == 0)
            s->v[i] = l->value;
    }
    for (unsigned i = 0; i < TOOL_D_COUNT && l->labels[0] != 0; i++) {
        struct tool_sample_db *d = strcmp(l->name, db_gauges[i].metric) == 0 ? db_of(s, l) : NULL;
        if (d != NULL)
            d->v[i] = l->value;
    }
}

/* -------------------------------------------------------------------------------------------------------------------------- */

bool tool_sample_parse(struct tool_sample *s, const char *text, size_t n)
{
    struct line l;
    const char *end = text + n;
    bool any = false;
    memset(s, 0, sizeof *s);
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t len = stop != NULL ? (size_t)(stop - text) : (size_t)(end - text);
        if (split(&l, text, len)) {
            take(s, &l);
            any = any || strcmp(l.name, "uptime_seconds") == 0;
        }
        text += len + 1;
    }
    return any;
}

/* A counter that went down has begun anew. */
static double since(double before, double now) { return now >= before ? now - before : now; }

static void route_since(struct tool_sample_route *r, const struct tool_sample *before, size_t bounds)
{
    for (size_t i = 0; i < before->routes; i++) {
        const struct tool_sample_route *b = &before->route[i];
        if (strcmp(b->name, r->name) != 0 || strcmp(b->method, r->method) != 0)
            continue;
        r->requests = since(b->requests, r->requests);
        r->errors = since(b->errors, r->errors);
        r->bytes = since(b->bytes, r->bytes);
        r->seconds = since(b->seconds, r->seconds);
        for (size_t k = 0; k < bounds && before->bounds == bounds; k++)
            r->bucket[k] = since(b->bucket[k], r->bucket[k]);
    }
}

static void orders_since(struct tool_sample *out, const struct tool_sample *before)
{
    for (unsigned n = 0; n < TOOL_SAMPLE_ORDERS; n++) {
        struct tool_sample_order *o = &out->order[n];
        const struct tool_sample_order *b = &before->order[n];
        o->predictions = since(b->predictions, o->predictions);
        o->predictions_missed = since(b->predictions_missed, o->predictions_missed);
        o->followers = since(b->followers, o->followers);
        o->followers_missed = since(b->followers_missed, o->followers_missed);
    }
}

void tool_sample_since(struct tool_sample *out, const struct tool_sample *before,
                       const struct tool_sample *now)
{
    *out = *now;
    for (unsigned i = 0; i < TOOL_G_COUNT; i++) {
        if (gauges[i].counts)
            out->v[i] = since(before->v[i], now->v[i]);
    }
    orders_since(out, before);
    for (size_t i = 0; i < out->routes; i++)
        route_since(&out->route[i], before, now->bounds);
    for (size_t i = 0; i < out->dbs; i++) {
        for (size_t k = 0; k < before->dbs; k++) {
            for (unsigned g = 0; g < TOOL_D_COUNT && strcmp(before->db[k].name, out->db[i].name) == 0; g++) {
                if (db_gauges[g].counts)
                    out->db[i].v[g] = since(before->db[k].v[g], out->db[i].v[g]);
            }
        }
    }
}

double tool_sample_quantile(const struct tool_sample *s, const struct tool_sample_route *r, double q)
{
    double sum[TOOL_SAMPLE_BUCKETS] = {0};
    for (size_t i = 0; i < s->routes; i++) {
        for (size_t k = 0; k < s->bounds && (r == NULL || r == &s->route[i]); k++)
            sum[k] += s->route[i].bucket[k];
    }
    double total = s->bounds > 0 ? sum[s->bounds - 1] : 0;
    for (size_t k = 0; k < s->bounds && total > 0; k++) {
        if (sum[k] < q * total)
            continue;
        double low = k > 0 ? s->bound[k - 1] : 0, under = k > 0 ? sum[k - 1] : 0;
        if (isinf(s->bound[k]))
            return low;
        return low + (s->bound[k] - low) * (sum[k] > under ? (q * total - under) / (sum[k] - under) : 1);
    }
    return 0;
}
