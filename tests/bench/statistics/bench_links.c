/* bench_links: how fast all links of N contexts are found (reduce/links.h). Contexts with F different followers each, drawn from a Zipf
 * distribution (weight 1/rank), counts 1 to 9 (small ones more often); beside it a plain loop over the same lists in memory: inverted lists, a
 * sum for each row that a list shows, the best k of them by a heap; both on the same number of threads. "cpu" is the processor time of
 * all threads: on a machine that is not quiet the better measure.
 *
 *   bench_links [--contexts N,N,..] [--followers F] [--vocabulary N] [--k K] [--min X] [--metric M] [--threads N] [--memory MiB] [--seed N]
 *               [--dir DIR] [--no-loop]
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/store.h"
#include "reduce/links.h"
#include "reduce/payload.h"

struct options {
    const char *contexts, *dir;
    unsigned followers, vocabulary, k, threads, memory;
    double min;
    int metric;
    bool loop;
    uint64_t seed;
};

static struct cht_err err;

static void must(enum cht_rc rc)
{
    if (rc == CHT_OK)
        return;
    (void)fprintf(stderr, "bench_links: %s: %s\n", cht_rc_slug(rc), err.msg);
    exit(1);
}

static double seconds(uint64_t since) { return (double)(cht_now_ns() - since) / 1e9; }

static struct rusage usage(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        memset(&u, 0, sizeof u);
    return u;
}

static double cpu(void)
{
    struct rusage u = usage();
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- the contexts ------------------------------------------------------------------------------------------------- */

struct lists {
    uint32_t n, *token, *count; /* n * followers */
};

static struct lists make_lists(const struct options *o, uint32_t n)
{
    struct lists l = {n, malloc((size_t)n * o->followers * 4), malloc((size_t)n * o->followers * 4)};
    double *sum = malloc(o->vocabulary * sizeof *sum), total = 0;
    struct cht_rng r;
    cht_rng_seed(&r, o->seed);
    for (unsigned i = 0; i < o->vocabulary; i++)
        sum[i] = total += 1.0 / (i + 1.0);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *t = l.token + (size_t)i * o->followers;
        for (unsigned k = 0; k < o->followers;) {
            double x = (double)(cht_rng_next(&r) >> 11) / 9007199254740992.0 * total;
            unsigned lo = 0, hi = o->vocabulary - 1, same = 0;
            while (lo < hi) {
                unsigned mid = lo + (hi - lo) / 2;
                if (sum[mid] <= x)
                    lo = mid + 1;
                else
                    hi = mid;
            }
            for (unsigned j = 0; j < k; j++)
                same += t[j] == lo;
            if (same > 0)
                continue;
            t[k] = lo;
            l.count[(size_t)i * o->followers + k++] = 1 + (uint32_t)(9 / (1 + cht_rng_below(&r, 9))) % 9;
        }
    }
    free(sum);
    return l;
}

static void store_lists(const struct options *o, struct cht_store *s, const struct lists *l)
{
    enum { GROUP = 1000 };
    static struct cht_op ops[GROUP];
    static char names[GROUP][24];
    size_t size = REDUCE_PAYLOAD_HEAD_MAX + (size_t)o->followers * REDUCE_PAYLOAD_COUNTS_RECORD;
    uint8_t *values = malloc(GROUP * size);
    for (uint32_t i = 0; i < l->n;) {
        unsigned k = 0;
        for (; k < GROUP && i < l->n; k++, i++) {
            uint8_t *v = values + k * size, *r = v + reduce_payload_begin(v, 2, o->followers);
            int n = snprintf(names[k], sizeof names[k], "cnt:2:%08x", i * 2654435761u);
            for (unsigned t = 0; t < o->followers; t++, r += REDUCE_PAYLOAD_COUNTS_RECORD) {
                reduce_payload_put32(r, l->token[(size_t)i * o->followers + t]);
                reduce_payload_put32(r + 4, l->count[(size_t)i * o->followers + t]);
            }
            ops[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                     .name = {(uint8_t *)names[k], (size_t)n},
                                     .value = {v, (size_t)(r - v)}};
        }
        struct cht_commit c = {.ops = ops, .count = k};
        must(cht_store_commit(s, &c));
    }
    free(values);
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

struct loop {
    const struct options *o;
    const struct lists *l;
    uint64_t *start; /* of each token's list */
    uint32_t *row;
    float *weight, *own;
    _Atomic uint32_t next;
    _Atomic uint64_t links;
};

static void sink(float *h, uint32_t *id, unsigned n, float v, uint32_t row)
{
    unsigned i = 0;
    for (unsigned k = 1; k < n; k = 2 * i + 1) {
        if (k + 1 < n && h[k + 1] < h[k])
            k++;
        if (!(h[k] < v))
            break;
        h[i] = h[k];
        id[i] = id[k];
        i = k;
    }
    h[i] = v;
    id[i] = row;
}

static unsigned best_of(const struct loop *x, float *acc, const uint32_t *met, uint32_t n, uint32_t self)
{
    float heap[1000];
    uint32_t id[1000];
    unsigned k = x->o->k, have = 0;
    for (uint32_t i = 0; i < n; i++) {
        float v = acc[met[i]];
        acc[met[i]] = 0;
        if (met[i] == self || v < (float)x->o->min)
            continue;
        if (have < k) {
            unsigned at = have++;
            for (; at > 0 && v < heap[(at - 1) / 2]; at = (at - 1) / 2) {
                heap[at] = heap[(at - 1) / 2];
                id[at] = id[(at - 1) / 2];
            }
            heap[at] = v;
            id[at] = met[i];
        } else if (v > heap[0]) {
            sink(heap, id, k, v, met[i]);
        }
    }
    return have;
}

static void *loop_work(void *arg)
{
    struct loop *x = arg;
    unsigned f = x->o->followers;
    float *acc = calloc(x->l->n, sizeof *acc);
    uint32_t *met = malloc(((size_t)x->l->n + 1) * sizeof *met);
    uint64_t links = 0;
    for (uint32_t i; (i = x->next++) < x->l->n;) {
        uint32_t n = 0;
        for (unsigned t = 0; t < f; t++) {
            uint32_t token = x->l->token[(size_t)i * f + t];
            float w = x->own[(size_t)i * f + t];
            for (uint64_t at = x->start[token]; at < x->start[token + 1]; at++) {
                float old = acc[x->row[at]];
                met[n] = x->row[at];
                n += old == 0;
                acc[x->row[at]] = old + w * x->weight[at];
            }
        }
        links += best_of(x, acc, met, n, i);
    }
    x->links += links;
    free(acc);
    free(met);
    return NULL;
}

static uint64_t loop(const struct options *o, const struct lists *l, unsigned threads)
{
    struct loop x = {.o = o, .l = l};
    size_t terms = (size_t)l->n * o->followers;
    pthread_t t[REDUCE_LINKS_THREADS_MAX];
    x.start = calloc(o->vocabulary + 2, sizeof *x.start);
    x.row = malloc(terms * sizeof *x.row);
    x.weight = malloc(terms * sizeof *x.weight);
    x.own = malloc(terms * sizeof *x.own);
    for (size_t i = 0; i < terms; i++)
        x.start[l->token[i] + 2]++;
    for (unsigned i = 2; i < o->vocabulary + 2; i++)
        x.start[i] += x.start[i - 1];
    for (uint32_t i = 0; i < l->n; i++) {
        double square = 0;
        for (size_t k = (size_t)i * o->followers; k < (size_t)(i + 1) * o->followers; k++)
            square += (double)l->count[k] * l->count[k];
        for (size_t k = (size_t)i * o->followers; k < (size_t)(i + 1) * o->followers; k++) {
            uint64_t at = x.start[l->token[k] + 1]++;
            x.own[k] = (float)((double)l->count[k] / sqrt(square));
            x.row[at] = i;
            x.weight[at] = x.own[k];
        }
    }
    for (unsigned i = 0; i < threads; i++)
        (void)pthread_create(&t[i], NULL, loop_work, &x);
    for (unsigned i = 0; i < threads; i++)
        (void)pthread_join(t[i], NULL);
    free(x.start);
    free(x.row);
    free(x.weight);
    free(x.own);
    return x.links;
}

/* ---- a run -------------------------------------------------------------------------------------------------------- */

static void run(const struct options *o, uint32_t n)
{
    char dir[256], cmd[300];
    (void)snprintf(dir, sizeof dir, "%s/cht-bench-links-XXXXXX", o->dir);
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        exit(1);
    }
    const char *dirs[] = {dir};
    struct cht_env_config cfg = {.dirs = dirs, .dir_count = 1};
    struct cht_env *env;
    struct cht_store *s;
    struct lists l = make_lists(o, n);
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    store_lists(o, s, &l);
    struct reduce_links_config links = {.prefix = {(const uint8_t *)"cnt:2:", 6},
                                        .metric = (enum reduce_metric)o->metric,
                                        .k = o->k,
                                        .min = o->min,
                                        .threads = o->threads,
                                        .memory_max = (uint64_t)o->memory << 20};
    struct reduce_links_result result;
    uint64_t start = cht_now_ns();
    double before = cpu();
    must(reduce_links_run(s, &links, &result, &err));
    double t = seconds(start), c = cpu() - before;
    printf("%u contexts: links %8.2f s, cpu %8.2f, %llu links, peak %.0f MiB\n", n, t, c,
           (unsigned long long)result.links, (double)usage().ru_maxrss / 1024);
    (void)fflush(stdout);
    if (o->loop) {
        before = cpu();
        start = cht_now_ns();
        uint64_t found = loop(o, &l, o->threads);
        double tl = seconds(start), cl = cpu() - before;
        printf("  the loop: %8.2f s, cpu %8.2f, %llu links: %.2f of it, by cpu %.2f\n", tl, cl,
               (unsigned long long)found, t / tl, c / cl);
        (void)fflush(stdout);
    }
    must(cht_env_close(env, &err));
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    if (system(cmd) != 0)
        perror(cmd);
    free(l.token);
    free(l.count);
}

static const char *option(int argc, char **argv, const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    }
    return fallback;
}

static unsigned number(int argc, char **argv, const char *name, unsigned fallback)
{
    const char *text = option(argc, argv, name, NULL);
    return text != NULL ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

int main(int argc, char **argv)
{
    const char *metric = option(argc, argv, "--metric", "cosine");
    struct options o = {.contexts = option(argc, argv, "--contexts", "10000,100000"),
                        .dir = option(argc, argv, "--dir", "/tmp"),
                        .followers = number(argc, argv, "--followers", 10),
                        .vocabulary = number(argc, argv, "--vocabulary", 50000),
                        .k = number(argc, argv, "--k", 20),
                        .threads = number(argc, argv, "--threads", 2),
                        .memory = number(argc, argv, "--memory", 1024),
                        .min = strtod(option(argc, argv, "--min", "0.1"), NULL),
                        .metric = reduce_links_metric(metric, strlen(metric)),
                        .seed = number(argc, argv, "--seed", 1),
                        .loop = strcmp(argv[argc - 1], "--no-loop") != 0 && strcmp(metric, "cosine") == 0};
    if (o.metric < 0 || o.k < 1 || o.k > 1000 || o.threads < 1 || o.threads > REDUCE_LINKS_THREADS_MAX) {
        (void)fprintf(stderr, "bench_links: see the head of bench_links.c\n");
        return 2;
    }
    for (const char *p = o.contexts; *p != 0;) {
        char *end;
        run(&o, (uint32_t)strtoul(p, &end, 10));
        p = *end == ',' ? end + 1 : end;
    }
    return 0;
}
