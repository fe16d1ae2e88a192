/* bench_lm: how fast n-grams are counted and smoothed. Generates a Zipf text from a seed, counts it into a fresh database in
 * requests of a given size, smooths it, asks some questions, adds up all counts, and prints a line each. "cpu" is the
 * processor time of all threads: on a machine that is not quiet the better measure.
 *
 *   bench_lm [--tokens N,N,..] [--order N] [--vocabulary N] [--request TOKENS] [--threads N] [--memory MiB] [--shards N]
 *            [--seed N] [--dir DIR] [--os]       --os: not durable (CHT_DURABLE_OS)
 *   bench_lm --payloads N [--followers N] ...    only adds up N counts payloads of so many followers (16)
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/store.h"
#include "lm/ngrams.h"
#include "lm/predict.h"
#include "lm/smooth.h"
#include "reduce/aggregate.h"
#include "reduce/payload.h"

#define DOCUMENT 32u
#define QUESTIONS 20000u

struct options {
    const char *tokens, *dir;
    unsigned order, vocabulary, request, threads, memory, shards, payloads, followers;
    uint64_t seed;
    enum cht_durability durability;
};

static struct cht_err err;

static void must(enum cht_rc rc)
{
    if (rc == CHT_OK)
        return;
    (void)fprintf(stderr, "bench_lm: %s: %s\n", cht_rc_slug(rc), err.msg);
    exit(1);
}

/* Token of rank r has a weight of 1 / r; drawn by bisection of the cumulative weights. */
static uint32_t *zipf_text(uint64_t n, unsigned vocabulary, uint64_t seed)
{
    double *sum = malloc(vocabulary * sizeof *sum), total = 0;
    uint32_t *text = malloc(n * sizeof *text);
    struct cht_rng rng;
    cht_rng_seed(&rng, seed);
    for (unsigned i = 0; i < vocabulary; i++)
        sum[i] = total += 1.0 / (i + 1.0);
    for (uint64_t i = 0; i < n; i++) {
        double x = (double)(cht_rng_next(&rng) >> 11) / 9007199254740992.0 * total;
        unsigned lo = 0, hi = vocabulary - 1;
        while (lo < hi) {
            unsigned mid = lo + (hi - lo) / 2;
            if (sum[mid] <= x)
                lo = mid + 1;
            else
                hi = mid;
        }
        text[i] = lo;
    }
    free(sum);
    return text;
}

static double seconds(uint64_t since) { return (double)(cht_now_ns() - since) / 1e9; }

/* Processor time of the process so far, s. */
static double cpu(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double peak_mib(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss / 1024 : 0;
}

static void count(const struct options *o, struct lm_engine *e, struct cht_store *s, const uint32_t *text,
                  uint64_t n)
{
    struct lm_ngrams_result all = {0};
    uint64_t start = cht_now_ns(), requests = 0;
    double before = cpu();
    for (uint64_t at = 0; at < n;) {
        struct lm_ngrams *g;
        struct lm_ngrams_result r;
        must(lm_ngrams_begin(o->order, &g, &err));
        for (uint64_t end = at + o->request < n ? at + o->request : n; at < end;) {
            size_t len = end - at < DOCUMENT ? (size_t)(end - at) : DOCUMENT;
            must(lm_ngrams_add_document(g, text + at, len, &err));
            at += len;
        }
        must(lm_ngrams_commit(e, s, g, &r, &err));
        lm_ngrams_free(g);
        all.tokens += r.tokens;
        all.ngrams += r.ngrams;
        all.contexts_created += r.contexts_created;
        requests++;
    }
    double t = seconds(start);
    printf("  count    %8.2f s, cpu %.2f  %9.0f tokens/s  %9.0f n-grams/s  %llu contexts, %llu requests, "
           "peak %.0f "
           "MiB\n",
           t, cpu() - before, (double)all.tokens / t, (double)all.ngrams / t,
           (unsigned long long)all.contexts_created, (unsigned long long)requests, peak_mib());
}

struct smoothing {
    uint64_t types, contexts, last;
};

static void on_result(void *ctx, const struct lm_smooth_result *r)
{
    struct smoothing *sm = ctx;
    printf("    order %u %6.2f s  %llu contexts, %llu followers\n", r->order, seconds(sm->last),
           (unsigned long long)r->contexts, (unsigned long long)r->types);
    sm->types += r->types;
    sm->contexts += r->contexts;
    sm->last = cht_now_ns();
}

static void smooth(const struct options *o, struct lm_engine *e, struct cht_store *s, const char *what)
{
    struct smoothing sm = {.last = cht_now_ns()};
    struct lm_smooth_config cfg = {.lo = 1,
                                   .hi = o->order,
                                   .threads = o->threads,
                                   .memory = (size_t)o->memory << 20,
                                   .result = on_result,
                                   .ctx = &sm};
    uint64_t start = cht_now_ns();
    double before = cpu();
    must(lm_smooth(e, s, &cfg, &err));
    double t = seconds(start);
    printf("  %s %8.2f s, cpu %.2f  %9.0f followers/s  %9.0f contexts/s  peak %.0f MiB\n", what, t,
           cpu() - before, (double)sm.types / t, (double)sm.contexts / t, peak_mib());
}

static void ignore(void *ctx, const struct lm_prediction *p) { *(uint64_t *)ctx += p->count; }

static void ask(const struct options *o, struct cht_store *s, const uint32_t *text, uint64_t n)
{
    static const char *const names[] = {"deepest", "levels", "blend"};
    uint64_t sink = 0;
    for (int mode = LM_PREDICT_DEEPEST; mode <= LM_PREDICT_BLEND; mode++) {
        unsigned questions = mode == LM_PREDICT_BLEND ? QUESTIONS / 10 : QUESTIONS;
        uint64_t start = cht_now_ns();
        for (unsigned i = 0; i < questions; i++) {
            uint64_t at = (uint64_t)i * 7919 % (n - 8);
            struct lm_predict_query q = {text + at, o->order, 20, o->order, (enum lm_predict_mode)mode,
                                         NULL,      NULL};
            must(lm_predict(s, &q, ignore, &sink, &err));
        }
        printf("  %-8s %8.1f us a question\n", names[mode], seconds(start) * 1e6 / questions);
    }
    struct lm_score score = {0};
    struct lm_scorer *sc;
    uint64_t start = cht_now_ns(), scored = 0;
    must(lm_scorer_open(s, &sc, &err));
    for (uint64_t i = 0; i + 1000 <= n && i < 20000; i += 1000) {
        const struct lm_score_query q = {.tokens = text + i, .n = 1000, .max_order = o->order};
        must(lm_score(sc, &q, NULL, NULL, &score, &err));
        scored += score.scored;
    }
    lm_scorer_close(sc);
    printf("  score    %8.1f us a token; perplexity of the last %.1f\n",
           seconds(start) * 1e6 / (double)scored, lm_score_perplexity(&score, false));
}

/* ---- totals ------------------------------------------------------------------------------------------------------ */

/* All counts payloads one after the other, each after its length. */
static uint8_t *copy_payloads(struct cht_store *s, size_t *size, uint64_t *payloads)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {(const uint8_t *)"cnt:", 4}, .values = true};
    struct cht_entry e[256];
    struct cht_buf value = {0};
    struct cht_scan *scan;
    uint8_t *all = NULL;
    size_t cap = 0, n = 1;
    *size = *payloads = 0;
    must(cht_scan_open(s, &cfg, &scan, &err));
    while (must(cht_scan_next(scan, e, 256, &n, &err)), n > 0) {
        for (size_t i = 0; i < n; i++) {
            const uint8_t *p = e[i].value;
            uint32_t len = e[i].size;
            if ((e[i].flags & CHT_ENTRY_LARGE) != 0) {
                must(cht_store_get(s, e[i].key, &value, &len, &err));
                p = value.data;
            }
            if (*size + 4 + len > cap)
                all = realloc(all, cap = 2 * cap + 4 + len);
            memcpy(all + *size, &len, 4);
            memcpy(all + *size + 4, p, len);
            *size += 4 + len;
            ++*payloads;
        }
    }
    cht_scan_close(scan);
    cht_buf_free(&value);
    return all;
}

struct total {
    uint64_t count, contexts;
    uint32_t token;
};

/* The same sums by a plain loop over the copy; returns their number. */
static size_t plain_totals(const uint8_t *p, const uint8_t *end)
{
    size_t slots = 1024, used = 0;
    struct total *t = calloc(slots, sizeof *t);
    while (p < end) {
        uint32_t len;
        memcpy(&len, p, 4);
        const uint8_t *r = p + 4 + (p[4] == 1 ? 4 : 6);
        p += 4 + len;
        for (; r + 8 <= p; r += 8) {
            uint32_t token = (uint32_t)r[0] << 24 | (uint32_t)r[1] << 16 | (uint32_t)r[2] << 8 | r[3];
            uint32_t n = (uint32_t)r[4] << 24 | (uint32_t)r[5] << 16 | (uint32_t)r[6] << 8 | r[7];
            size_t at = (token * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (slots - 1);
            while (t[at].contexts != 0 && t[at].token != token)
                at = (at + 1) & (slots - 1);
            used += t[at].contexts == 0;
            t[at] = (struct total){t[at].count + n, t[at].contexts + 1, token};
            if (used * 2 < slots)
                continue;
            struct total *bigger = calloc(2 * slots, sizeof *t);
            for (size_t i = 0; i < slots; i++) {
                size_t to = (t[i].token * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (2 * slots - 1);
                while (t[i].contexts != 0 && bigger[to].contexts != 0)
                    to = (to + 1) & (2 * slots - 1);
                if (t[i].contexts != 0)
                    bigger[to] = t[i];
            }
            free(t);
            t = bigger;
            slots *= 2;
        }
    }
    free(t);
    return used;
}

static void totals(struct cht_store *s)
{
    static const char *const names[] = {"totals", "stats"};
    size_t size;
    uint64_t payloads, lines = 0, malformed;
    uint8_t *all = copy_payloads(s, &size, &payloads);
    double best[3] = {1e9, 1e9, 1e9}, least = 1e9;
    for (int round = 0; round < 5; round++) {
        uint64_t start = cht_now_ns();
        size_t tokens = plain_totals(all, all + size);
        best[2] = seconds(start) < best[2] ? seconds(start) : best[2];
        for (int i = 0; i < 2; i++) {
            struct reduce_params p = {.prefix = {(const uint8_t *)"cnt:", 4}};
            struct cht_buf out = {0};
            double before = cpu();
            start = cht_now_ns();
            must(reduce_aggregate_run(s, reduce_mode_find(names[i], strlen(names[i])), &p, &out, &lines,
                                      &malformed, NULL, &err));
            best[i] = seconds(start) < best[i] ? seconds(start) : best[i];
            least = i == 0 && cpu() - before < least ? cpu() - before : least;
            cht_buf_free(&out);
            if (i == 0 && lines != tokens) {
                (void)fprintf(stderr, "bench_lm: %llu totals, %zu expected\n", (unsigned long long)lines,
                              tokens);
                exit(1);
            }
        }
    }
    printf("  totals   %8.3f s, cpu %.3f: %llu payloads, %.1f MB; stats %.3f s; a loop over a copy in memory "
           "%.3f s; "
           "best of 5\n",
           best[0], least, (unsigned long long)payloads, (double)size / 1e6, best[1], best[2]);
    free(all);
}

/* Counts payloads of o->followers tokens each, evenly over the vocabulary. */
static void fill(const struct options *o, struct cht_store *s)
{
    enum { GROUP = 1000 };
    static struct cht_op ops[GROUP];
    static uint8_t names[GROUP][14];
    size_t size = REDUCE_PAYLOAD_HEAD_MAX + (size_t)o->followers * REDUCE_PAYLOAD_COUNTS_RECORD;
    uint8_t *values = malloc(GROUP * size);
    unsigned step = o->vocabulary / o->followers;
    struct cht_rng rng;
    cht_rng_seed(&rng, o->seed);
    for (unsigned i = 0; i < o->payloads; i += GROUP) {
        for (unsigned k = 0; k < GROUP; k++) {
            uint64_t hash = cht_rng_next(&rng);
            uint8_t *v = values + k * size, *r = v + reduce_payload_begin(v, 2, o->followers);
            memcpy(names[k], "cnt:2:", 6);
            memcpy(names[k] + 6, &hash, 8);
            for (unsigned t = 0; t < o->followers; t++, r += REDUCE_PAYLOAD_COUNTS_RECORD) {
                reduce_payload_put32(r, t * step + (uint32_t)(cht_rng_next(&rng) % step));
                reduce_payload_put32(r + 4, 1 + (uint32_t)(cht_rng_next(&rng) % 9));
            }
            ops[k] = (struct cht_op){
                .kind = CHT_OP_PAIR_PUT, .name = {names[k], 14}, .value = {v, (size_t)(r - v)}};
        }
        struct cht_commit c = {.ops = ops, .count = GROUP};
        must(cht_store_commit(s, &c));
    }
    free(values);
}

static void run(const struct options *o, uint64_t n)
{
    char dir[256], cmd[300];
    (void)snprintf(dir, sizeof dir, "%s/cht-bench-lm-XXXXXX", o->dir);
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        exit(1);
    }
    const char *dirs[] = {dir};
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = o->shards, .durability = o->durability};
    struct cht_env *env;
    struct cht_store *s;
    struct lm_engine *e;
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    must(lm_engine_new(&e, &err));
    uint32_t *text = NULL;
    if (o->payloads > 0) {
        printf("%u payloads of %u followers, vocabulary %u\n", o->payloads, o->followers, o->vocabulary);
        fill(o, s);
        totals(s);
        goto out;
    }
    text = zipf_text(n, o->vocabulary, o->seed);
    printf("%llu tokens, order %u, vocabulary %u\n", (unsigned long long)n, o->order, o->vocabulary);
    count(o, e, s, text, n);
    smooth(o, e, s, "smooth  ");
    smooth(o, e, s, "again   ");
    ask(o, s, text, n);
    totals(s);
    uint32_t *more = zipf_text(n, o->vocabulary, o->seed + 1);
    count(o, e, s, more, n / 100);
    smooth(o, e, s, "grown   "); /* by a hundredth */
    count(o, e, s, more + n / 100, n - n / 100);
    smooth(o, e, s, "doubled ");
    free(more);
out:
    free(text);
    lm_engine_free(e);
    must(cht_env_close(env, &err));
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    if (system(cmd) != 0)
        (void)fprintf(stderr, "bench_lm: %s is left behind\n", dir);
}

static unsigned number(const char *s) { return (unsigned)strtoul(s, NULL, 10); }

int main(int argc, char **argv)
{
    struct options o = {.tokens = "100000,1000000",
                        .dir = "/tmp",
                        .order = 3,
                        .vocabulary = 50000,
                        .request = 1000000,
                        .followers = 16,
                        .seed = 1,
                        .durability = CHT_DURABLE_SYNC};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--os") == 0) {
            o.durability = CHT_DURABLE_OS;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--tokens") == 0)
            o.tokens = value;
        else if (strcmp(argv[i - 1], "--dir") == 0)
            o.dir = value;
        else if (strcmp(argv[i - 1], "--order") == 0)
            o.order = number(value);
        else if (strcmp(argv[i - 1], "--vocabulary") == 0)
            o.vocabulary = number(value);
        else if (strcmp(argv[i - 1], "--request") == 0)
            o.request = number(value);
        else if (strcmp(argv[i - 1], "--threads") == 0)
            o.threads = number(value);
        else if (strcmp(argv[i - 1], "--memory") == 0)
            o.memory = number(value);
        else if (strcmp(argv[i - 1], "--shards") == 0)
            o.shards = number(value);
        else if (strcmp(argv[i - 1], "--payloads") == 0) {
            o.payloads = number(value);
            o.tokens = "1";
        } else if (strcmp(argv[i - 1], "--followers") == 0)
            o.followers = number(value);
        else if (strcmp(argv[i - 1], "--seed") == 0)
            o.seed = number(value);
        else {
            (void)fprintf(stderr, "bench_lm: unknown option %s (see the head of bench_lm.c)\n", argv[i - 1]);
            return 2;
        }
    }
    for (const char *p = o.tokens; *p != 0; p += strcspn(p, ","), p += *p == ',')
        run(&o, strtoull(p, NULL, 10));
    return 0;
}
