/* report: medians, the table, the targets, JSON. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *slug, *unit, *text;
} metric_info[M_COUNT] = {
#define METRIC_INFO(name, slug, unit, text) {slug, unit, text},
    METRICS(METRIC_INFO)
#undef METRIC_INFO
};

/* ours / theirs (or ours alone, theirs < 0) is to be at least (or at most) the limit. */
static const struct target {
    const char *text;
    enum metric ours;
    int their_peer;
    enum metric theirs;
    bool at_least;
    double limit;
} targets[] = {
    {"random point read / LMDB", M_READ1, P_LMDB, M_READ1, true, 2.0},
    {"random point read, 2 threads / 1", M_READ2, P_CHEETAH, M_READ1, true, 1.8},
    {"random upsert, 1000 a commit / LMDB", M_LOAD, P_LMDB, M_LOAD, true, 3.0},
    {"random upsert, 1000 a commit / RocksDB", M_LOAD, P_ROCKSDB, M_LOAD, true, 1.2},
    {"single upserts, 32 threads / LMDB", M_SINGLE, P_LMDB, M_SINGLE, true, 10.0},
    {"scan with values, 1 worker / RocksDB", M_SCAN_V1, P_ROCKSDB, M_SCAN_V1, true, 1.0},
    {"scan with values, 2 workers / LMDB", M_SCAN_V2, P_LMDB, M_SCAN_V1, true, 0.4},
    {"scan, names only, 1 worker / LMDB", M_SCAN_N1, P_LMDB, M_SCAN_N1, true, 0.4},
    {"scan, names only, 2 workers / LMDB", M_SCAN_N2, P_LMDB, M_SCAN_N1, true, 0.7},
    {"bytes to disk / RocksDB", M_WCALLS, P_ROCKSDB, M_WCALLS, false, 1.5},
    {"  by io write_bytes", M_WBYTES, P_ROCKSDB, M_WBYTES, false, 1.5},
    {"bytes to disk, limited memory / LMDB", M_LIM_WCALLS, P_LMDB, M_LIM_WCALLS, false, 1.0},
    {"  by io write_bytes (overcounts LMDB)", M_LIM_WBYTES, P_LMDB, M_LIM_WBYTES, false, 1.0},
    {"disk used / LMDB", M_DISK, P_LMDB, M_DISK, false, 1.0},
    {"disk, apparent size / LMDB", M_APPARENT, P_LMDB, M_APPARENT, false, 1.0},
    {"start after a clean stop, s", M_START_CLEAN, -1, M_START_CLEAN, false, 0.5},
};
#define TARGET_COUNT (sizeof targets / sizeof *targets)

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_in_place(double *v, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(v, n, sizeof *v, compare);
    return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

double median(const double *v, size_t n)
{
    double w[MAX_ROUNDS];
    size_t k = 0;
    for (size_t i = 0; i < n && k < MAX_ROUNDS; i++) {
        if (!isnan(v[i]))
            w[k++] = v[i];
    }
    return median_in_place(w, k);
}

/* The median of the ratios of each round, which the noise of the machine hits on both sides; NaN if not measured. */
static double target_ratio(const struct conf *c, const struct results *r, const struct target *t)
{
    double ratio[MAX_ROUNDS];
    for (unsigned i = 0; i < c->rounds; i++) {
        ratio[i] = r->v[P_CHEETAH][t->ours][i];
        if (t->their_peer >= 0)
            ratio[i] /= r->v[t->their_peer][t->theirs][i];
    }
    return median(ratio, c->rounds);
}

static bool target_met(const struct target *t, double ratio)
{
    return t->at_least ? ratio >= t->limit : ratio <= t->limit;
}

static void print_metrics(const struct conf *c, const struct results *r)
{
    (void)printf("%-44s %-5s", "median", "");
    for (int p = 0; p < (int)MAX_PEERS; p++) {
        if (c->peers[p])
            (void)printf(" %11s", peers[p]->name);
    }
    (void)printf("\n");
    for (int m = 0; m < M_SUM_V; m++) {
        bool any = false;
        for (int p = 0; p < (int)MAX_PEERS; p++)
            any = any || !isnan(median(r->v[p][m], c->rounds));
        if (!any)
            continue;
        (void)printf("%-44s %-5s", metric_info[m].text, metric_info[m].unit);
        for (int p = 0; p < (int)MAX_PEERS; p++) {
            double v = median(r->v[p][m], c->rounds);
            if (c->peers[p] && isnan(v))
                (void)printf(" %11s", "-");
            else if (c->peers[p])
                (void)printf(" %11.*f", v >= 1000 ? 0 : v >= 10 ? 1 : v >= 0.1 ? 2 : 4, v);
        }
        (void)printf("\n");
    }
}

static void print_targets(const struct conf *c, const struct results *r)
{
    bool head = false;
    for (size_t i = 0; i < TARGET_COUNT; i++) {
        const struct target *t = &targets[i];
        double ratio = target_ratio(c, r, t);
        if (isnan(ratio))
            continue;
        if (!head)
            (void)printf("\n%-44s %9s %9s\n", "target (median of the rounds' ratios)", "measured", "wanted");
        head = true;
        (void)printf("%-44s %9.3f %5s %.1f  %s\n", t->text, ratio, t->at_least ? ">=" : "<=", t->limit,
                     target_met(t, ratio) ? "met" : "NOT MET");
    }
}

static void json_number(double v)
{
    if (isnan(v))
        (void)printf("null");
    else
        (void)printf("%.6g", v);
}

static void json_metric(const struct conf *c, const struct results *r, int p, int m, const char *comma)
{
    (void)printf("%s\"%s\":{\"unit\":\"%s\",\"median\":", comma, metric_info[m].slug, metric_info[m].unit);
    json_number(median(r->v[p][m], c->rounds));
    (void)printf(",\"rounds\":[");
    for (unsigned i = 0; i < c->rounds; i++) {
        (void)printf("%s", i == 0 ? "" : ",");
        json_number(r->v[p][m][i]);
    }
    (void)printf("]}");
}

static void print_json(const struct conf *c, const struct results *r)
{
    const char *comma = "";
    (void)printf("{\"pairs\":%llu,\"rounds\":%u,\"peers\":{", (unsigned long long)c->pairs, c->rounds);
    for (int p = 0; p < (int)MAX_PEERS; p++) {
        if (!c->peers[p])
            continue;
        (void)printf("%s\"%s\":{", comma, peers[p]->name);
        comma = "";
        for (int m = 0; m < M_SUM_V; m++) {
            if (isnan(median(r->v[p][m], c->rounds)))
                continue;
            json_metric(c, r, p, m, comma);
            comma = ",";
        }
        (void)printf("}");
        comma = ",";
    }
    (void)printf("},\"targets\":[");
    comma = "";
    for (size_t i = 0; i < TARGET_COUNT; i++) {
        double ratio = target_ratio(c, r, &targets[i]);
        if (isnan(ratio))
            continue;
        (void)printf("%s{\"what\":\"%s\",\"measured\":%.6g,\"%s\":%g,\"met\":%s}", comma, targets[i].text,
                     ratio, targets[i].at_least ? "at_least" : "at_most", targets[i].limit,
                     target_met(&targets[i], ratio) ? "true" : "false");
        comma = ",";
    }
    (void)printf("]}\n");
}

/* The largest over the least of a row: of costs at most 2 is wanted. */
static double spread(const double *v, size_t n)
{
    double least = NAN;
    double most = NAN;
    for (size_t i = 0; i < n; i++) {
        least = isnan(least) || v[i] < least ? v[i] : least;
        most = isnan(most) || v[i] > most ? v[i] : most;
    }
    return least > 0 ? most / least : NAN;
}

static void growth_cell(double v)
{
    if (isnan(v))
        (void)printf(" %11s", "-");
    else
        (void)printf(" %11.*f", v >= 100 ? 0 : v >= 10 ? 1 : 2, v);
}

static void growth_table(const uint64_t *sizes, size_t n, const struct results *r)
{
    (void)printf("\n%-44s", "pairs");
    for (size_t i = 0; i < n; i++)
        (void)printf(" %11llu", (unsigned long long)sizes[i]);
    (void)printf(" %11s\n", "most/least");
    for (int m = M_GROW_LOAD_CPU; m <= M_GROW_NAMES; m++) {
        (void)printf("%-39s %-4s", metric_info[m].text, metric_info[m].unit);
        for (size_t i = 0; i < n; i++)
            growth_cell(r->v[P_CHEETAH][m][i]);
        growth_cell(spread(r->v[P_CHEETAH][m], n));
        (void)printf("\n");
    }
    (void)fflush(stdout);
}

static void growth_json(const uint64_t *sizes, size_t n, const struct results *r)
{
    (void)printf("{\"pairs\":[");
    for (size_t i = 0; i < n; i++)
        (void)printf("%s%llu", i == 0 ? "" : ",", (unsigned long long)sizes[i]);
    (void)printf("]");
    for (int m = M_GROW_LOAD_CPU; m <= M_GROW_NAMES; m++) {
        (void)printf(",\"%s\":{\"unit\":\"%s\",\"sizes\":[", metric_info[m].slug, metric_info[m].unit);
        for (size_t i = 0; i < n; i++) {
            (void)printf("%s", i == 0 ? "" : ",");
            json_number(r->v[P_CHEETAH][m][i]);
        }
        (void)printf("]}");
    }
    (void)printf("}\n");
}

void report_growth(const struct conf *c, const uint64_t *sizes, size_t n, const struct results *r)
{
    if (c->json)
        growth_json(sizes, n, r);
    else
        growth_table(sizes, n, r);
}

/* Every peer returned the same names and values. */
static bool sums_agree(const struct conf *c, const struct results *r, enum metric m)
{
    double first = NAN;
    bool ok = true;
    for (int p = 0; p < (int)MAX_PEERS; p++) {
        for (unsigned i = 0; i < c->rounds; i++) {
            double v = r->v[p][m][i];
            if (isnan(v))
                continue;
            if (isnan(first))
                first = v;
            if (v != first) {
                (void)fprintf(stderr, "bench_store: the scan of %s returned other bytes\n", peers[p]->name);
                ok = false;
            }
        }
    }
    return ok;
}

bool report(const struct conf *c, const struct results *r)
{
    if (c->json) {
        print_json(c, r);
    } else {
        print_metrics(c, r);
        print_targets(c, r);
    }
    bool values = sums_agree(c, r, M_SUM_V);
    return sums_agree(c, r, M_SUM_N) && values;
}
