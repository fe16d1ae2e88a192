/* test_reduce: the payload modes on good and bad payloads, sweeps, aggregates against plain loops over the same data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/b64.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "reduce/cache.h"
#include "reduce/payload.h"
#include "reduce/text.h"

static char base[] = "/tmp/cht-reduce-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static void open_env(void)
{
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 4,
                                 .scan_workers = 4,
                                 .log_segment_bytes = 1u << 20,
                                 .durability = CHT_DURABLE_OS};
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
}

static void use_database(const char *name, unsigned shards)
{
    assert_int_equal(cht_env_create(env, name, shards, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
}

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    memset(&err, 0, sizeof err);
    if (system(cmd) != 0)
        return 1;
    open_env();
    use_database("default", 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    enum cht_rc rc = cht_env_close(env, &err);
    env = NULL;
    return rc != CHT_OK;
}

static enum cht_rc run_op(struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc == CHT_OK ? op->rc : rc;
}

/* Many at once, but one by one if there are many shards: a commit holds the locks of all it touched, and the thread sanitizer
 * knows no more than 64 locks a thread. */
static void run_ops(struct cht_op *ops, size_t n, unsigned shards)
{
    size_t step = shards > 6 ? 1 : n;
    for (size_t i = 0; i < n; i += step) {
        struct cht_commit c = {.ops = ops + i, .count = step};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
        assert_int_equal(c.failed, 0);
    }
}

static uint64_t put(const char *name, const void *p, size_t n)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {p, n}};
    assert_int_equal(run_op(&op), CHT_OK);
    return op.key;
}

static const struct reduce_mode *mode(const char *name)
{
    const struct reduce_mode *m = reduce_mode_find(name, strlen(name));
    assert_non_null(m);
    return m;
}

/* Around each power of ten and of two, and at random. */
static void test_digits(void **state)
{
    (void)state;
    struct cht_rng r;
    cht_rng_seed(&r, 3);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t ten = 1, v = cht_rng_next(&r) >> cht_rng_below(&r, 64);
        for (unsigned k = 0; k < i % 20; k++)
            ten *= 10;
        v = i < 60 ? ten - 1 + i / 20 : i < 1000 ? (UINT64_C(1) << i % 64) - i % 3 : v;
        char want[32], got[REDUCE_U64_TEXT + 1] = {0};
        (void)snprintf(want, sizeof want, "%llu", (unsigned long long)v);
        assert_int_equal(reduce_put_u64(got, v), strlen(want));
        assert_string_equal(got, want);
    }
}

/* ---- payload modes --------------------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    (void)state;
    static const char *const alias[][2] = {{"count", "counts"},
                                           {"probs", "probabilities"},
                                           {"backoffs", "probabilities"},
                                           {"continuation", "continuations"}};
    for (size_t i = 0; i < 4; i++)
        assert_ptr_equal(mode(alias[i][0]), mode(alias[i][1]));
    char list[256], *rest = NULL;
    (void)snprintf(list, sizeof list, "%s", reduce_mode_names());
    int n = 0;
    for (char *p = strtok_r(list, ", ", &rest); p != NULL; p = strtok_r(NULL, ", ", &rest), n++)
        assert_string_equal(mode(p)->names[0], p);
    assert_int_equal(n, 14);
    assert_null(reduce_mode_find("nope", 4));
    assert_null(reduce_mode_find("counts", 5 - 1));
    assert_null(reduce_mode_find("", 0));
    assert_null(mode("payloads")->decoder);
    assert_int_equal(mode("queue-drain")->kind, REDUCE_QUEUE);
    assert_int_equal(mode("stats")->kind, REDUCE_AGGREGATE);
}

/* want NULL: malformed. Also with every room that is too small. */
static void decodes(const char *name, const void *p, size_t n, const char *want)
{
    const struct reduce_decoder *d = mode(name)->decoder;
    char out[512];
    memset(out, '#', sizeof out);
    size_t k = reduce_decode(d, p, n, out, sizeof out);
    if (want == NULL) {
        assert_int_equal(k, 0);
        return;
    }
    assert_int_equal(k, strlen(want));
    assert_memory_equal(out, want, k);
    for (size_t room = 0; room <= k; room++) {
        char *exact = malloc(room + 1);
        exact[room] = '#';
        assert_true(reduce_decode(d, p, n, exact, room) == (room == k ? k : SIZE_MAX));
        assert_int_equal(exact[room], '#');
        if (room == k)
            assert_memory_equal(exact, want, k);
        free(exact);
    }
}

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static void test_binary(void **state)
{
    (void)state;
    decodes("counts", BYTES(1, 3, 0, 2, 0, 0, 0, 5, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1, 0, 0),
            "\"order\":3,\"followers\":[[5,2],[4294967295,65536]]");
    decodes("counts", BYTES(1, 3, 0, 1, 0, 0, 0, 5, 0, 0, 0, 2, 9, 9, 9),
            "\"order\":3,\"followers\":[[5,2]]");
    decodes("counts", BYTES(1, 255, 0, 0), "\"order\":255,\"followers\":[]");
    decodes("counts", BYTES(2, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 2), "\"order\":3,\"followers\":[[5,2]]");
    decodes("counts", BYTES(2, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0), NULL);
    decodes("counts", BYTES(2, 3, 0, 0, 0), NULL);
    decodes("counts", BYTES(1, 3, 0, 2, 0, 0, 0, 5, 0, 0, 0, 2), NULL);
    decodes("counts", BYTES(1, 3, 255, 255, 0, 0, 0, 5, 0, 0, 0, 2), NULL);
    decodes("counts", BYTES(2, 3, 255, 255, 255, 255, 0, 0, 0, 5), NULL);
    decodes("counts", BYTES(3, 3, 0, 0), NULL);
    decodes("counts", BYTES(1, 3, 0), NULL);
    decodes("counts", NULL, 0, NULL);

    decodes("probabilities", BYTES(1, 2, 0, 2, 0, 0, 0, 7, 200, 1, 244, 0, 0, 0, 8, 0, 255, 255),
            "\"order\":2,\"entries\":[[7,200,500],[8,0,null]]");
    decodes("probabilities", BYTES(2, 2, 0, 0, 0, 1, 0, 0, 0, 7, 200, 255, 254, 0),
            "\"order\":2,\"entries\":[[7,200,65534]]");
    decodes("probabilities", BYTES(1, 2, 0, 2, 0, 0, 0, 7, 200, 1, 244), NULL);
    decodes("probabilities", NULL, 0, NULL);

    decodes("continuations", BYTES(1, 0, 0, 1, 0, 0, 0, 0, 9), "\"token\":256,\"contexts\":9");
    decodes("continuations", BYTES(1, 0, 0, 1, 0, 0, 0, 0, 9, 0), "\"token\":256,\"contexts\":9");
    decodes("continuations", BYTES(1, 0, 0, 1, 0, 0, 0, 0), NULL);
    decodes("continuations", BYTES(2, 0, 0, 1, 0, 0, 0, 0, 9), NULL);
    decodes("continuations", NULL, 0, NULL);

    decodes("topk", BYTES(1, 3, 2, 0, 0, 0, 9, 250, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0),
            "\"order\":3,\"ranked\":[[9,250],[1,3]]");
    decodes("topk", BYTES(1, 3, 3, 0, 0, 0, 9, 250, 0, 0, 0, 1, 3), NULL);
    decodes("topk", BYTES(2, 3, 0), NULL);
    decodes("topk", NULL, 0, NULL);

    decodes("contexts", BYTES(1, 2, 2, 0, 0, 0, 12, 0, 0, 0, 45), "\"order_size\":2,\"tokens\":[12,45]");
    decodes("contexts", BYTES(1, 0, 0), "\"order_size\":0,\"tokens\":[]");
    decodes("contexts", BYTES(1, 2, 2, 0, 0, 0, 12, 0, 0, 0), NULL);
    decodes("contexts", NULL, 0, NULL);
}

static void json(const char *in, const char *want) { decodes("cache", in, strlen(in), want); }

static void test_json(void **state)
{
    (void)state;
    json(" {\n \"b\" : 1.10,\t\"a\":[1, 2 ,\"x \\\" \\\\\"] }\r\n",
         "\"json\":{\"b\":1.10,\"a\":[1,2,\"x \\\" \\\\\"]}");
    json("123456789012345678901234567890", "\"json\":123456789012345678901234567890");
    json("\"a\\nb\"", "\"json\":\"a\\nb\"");
    json("null", "\"json\":null");
    json("\"\\u0000\"", "\"json\":\"\\u0000\"");
    json("", NULL);
    json("  ", NULL);
    json("{\"a\":1", NULL);
    json("{} x", NULL);
    json("\"a\nb\"", NULL);
    json("\"\xff\"", NULL);
    json("01", NULL);
    decodes("meta", "7", 1, "\"json\":7");
    decodes("bias", "[]", 2, "\"json\":[]");
    decodes("meta", "{}\0", 3, NULL);
}

/* ---- sweeps ---------------------------------------------------------------------------------------------------- */

struct sweep_count {
    _Atomic unsigned seen[256], inside[256];
    _Atomic bool overlapped;
    bool keep_odd;
};

static size_t count_entry(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    struct sweep_count *c = ctx;
    if (room < 100)
        return SIZE_MAX;
    if (atomic_fetch_add(&c->inside[e->shard], 1) != 0)
        atomic_store(&c->overlapped, true);
    atomic_fetch_add(&c->seen[e->shard], 1);
    bool skip = !c->keep_odd || e->name[e->name_len - 1] % 2 == 0;
    if (!skip)
        memset(out, 'x', 100);
    atomic_fetch_sub(&c->inside[e->shard], 1);
    return skip ? CHT_SCAN_SKIP : 100;
}

static size_t drain(const struct cht_scan_config *cfg, bool *exhausted)
{
    struct cht_scan *sc;
    struct cht_entry e[50];
    size_t n = 1, sum = 0;
    char last[32] = "";
    assert_int_equal(cht_scan_open(s, cfg, &sc, &err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(sc, e, 50, &n, &err), CHT_OK);
        for (size_t i = 0; i < n; i++) {
            char name[32] = "";
            memcpy(name, e[i].name, e[i].name_len);
            assert_true(strcmp(last, name) < 0);
            memcpy(last, name, sizeof last);
            assert_true(e[i].shard < 64 && e[i].value_len == 100 && e[i].value[99] == 'x');
        }
        sum += n;
    }
    *exhausted = cht_scan_exhausted(sc);
    cht_scan_close(sc);
    return sum;
}

static void test_skip(void **state)
{
    (void)state;
    enum { N = 20000 };
    use_database("wide", 64);
    struct cht_op *ops = calloc(N, sizeof *ops);
    char(*names)[16] = calloc(N, sizeof *names);
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "k%05d", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(names[i])};
    }
    run_ops(ops, N, 64);
    struct {
        const char *prefix;
        bool odd;
        uint64_t limit;
        unsigned workers;
        size_t want, seen;
        bool exhausted;
    } t[] = {{"k", false, 0, 0, 0, N, true},       {"k", true, 0, 0, N / 2, N, true},
             {"k0001", true, 0, 0, 5, 10, true},   {"k0001", false, 0, 0, 0, 10, true},
             {"k", true, 100, 0, 100, 0, false},   {"k", false, 100, 0, 0, N, true},
             {"k", true, 5000, 2, 5000, 0, false}, {"none", false, 0, 0, 0, 0, true},
             {"k", false, 0, 1, 0, N, true}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct sweep_count sum = {.keep_odd = t[i].odd};
        bool exhausted;
        struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS,
                                      .prefix = str(t[i].prefix),
                                      .values = true,
                                      .limit = t[i].limit,
                                      .workers = t[i].workers,
                                      .render = count_entry,
                                      .render_ctx = &sum};
        assert_int_equal(drain(&cfg, &exhausted), t[i].want);
        size_t seen = 0;
        for (int k = 0; k < 256; k++)
            seen += sum.seen[k];
        if (t[i].exhausted) { /* an entry that found no room is shown again */
            assert_true(seen >= t[i].seen);
            assert_true(t[i].odd || seen == t[i].seen);
        }
        assert_int_equal(exhausted, t[i].exhausted);
        assert_false(atomic_load(&sum.overlapped));
    }
    free(ops);
    free(names);
}

/* ---- aggregates ------------------------------------------------------------------------------------------------ */

enum { PAIRS = 3000, TOKENS = 400 };

struct pair {
    char name[24];
    uint8_t *p;
    size_t n;
    uint32_t followers;
    uint64_t counts[TOKENS]; /* by number of the token */
    bool has[TOKENS];
    bool dangling, malformed;
};
static struct pair *pairs;

static uint32_t token_of(unsigned i) { return i * UINT32_C(10000019) + 3; }

static void make_pair(struct pair *x, unsigned i, struct cht_rng *r)
{
    memset(x, 0, sizeof *x);
    (void)snprintf(x->name, sizeof x->name, "%s%06x",
                   i % 10 == 9 ? "cnt:10:" : "cnt:1:", i * 2654435761u >> 8);
    x->dangling = i % 97 == 5;
    x->malformed = i % 89 == 7;
    x->followers = (uint32_t)cht_rng_below(r, i % 50 == 0 ? TOKENS : 12);
    bool shuffled = i % 7 == 3, wide = i % 11 == 4;
    size_t padding = i % 401 == 17 ? 70000 : i % 5; /* some are longer than a scan carries */
    x->p = calloc(1, 8 + (size_t)x->followers * 8 + padding);
    x->n = 4;
    x->p[0] = wide ? 2 : 1;
    x->p[1] = 3;
    if (wide) {
        reduce_payload_put32(x->p + 2, x->followers);
        x->n = 6;
    } else {
        reduce_payload_put16(x->p + 2, (uint16_t)x->followers);
    }
    for (uint32_t k = 0; k < x->followers; k++) {
        unsigned id = (unsigned)cht_rng_below(r, TOKENS);
        while (x->has[id])
            id = (id + 1) % TOKENS;
        x->has[id] = true;
        x->counts[id] = 1 + cht_rng_below(r, i % 13 == 0 ? 100000 : 5);
    }
    for (unsigned k = 0; k < TOKENS; k++) {
        unsigned id = shuffled ? TOKENS - 1 - k : k;
        if (!x->has[id])
            continue;
        reduce_payload_put32(x->p + x->n, token_of(id));
        reduce_payload_put32(x->p + x->n + 4, (uint32_t)x->counts[id]);
        x->n += 8;
    }
    x->n = x->malformed ? x->n - (x->followers > 0) - (x->followers == 0 ? 2 : 0) : x->n + padding;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->name, ((const struct pair *)b)->name);
}

static void make_pairs(void)
{
    struct cht_rng r;
    cht_rng_seed(&r, 20240601);
    pairs = calloc(PAIRS, sizeof *pairs);
    for (unsigned i = 0; i < PAIRS; i++)
        make_pair(&pairs[i], i, &r);
    qsort(pairs, PAIRS, sizeof *pairs, by_name);
}

static void free_pairs(void)
{
    for (unsigned i = 0; i < PAIRS; i++)
        free(pairs[i].p);
    free(pairs);
}

static void load_pairs(unsigned shards)
{
    struct cht_op *ops = calloc(PAIRS, sizeof *ops);
    for (unsigned i = 0; i < PAIRS; i++) {
        ops[i] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT, .name = str(pairs[i].name), .value = {pairs[i].p, pairs[i].n}};
        if (pairs[i].dangling)
            ops[i] =
                (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(pairs[i].name), .key = 1000000000 + i};
    }
    run_ops(ops, PAIRS, shards);
    free(ops);
}

static bool inside(const struct pair *x, const struct reduce_params *p)
{
    struct cht_str n = str(x->name);
    return n.n >= p->prefix.n && memcmp(n.p, p->prefix.p, p->prefix.n) == 0 &&
           (p->after.n == 0 || strcmp(x->name, (const char *)p->after.p) > 0) &&
           (p->until.n == 0 || strcmp(x->name, (const char *)p->until.p) < 0);
}

static const char *real(double v)
{
    static char text[4][40];
    static int at;
    char *t = text[at++ % 4];
    for (int d = 15; d <= 17; d++) {
        (void)snprintf(t, 40, "%.*g", d, v);
        if (strtod(t, NULL) == v)
            break;
    }
    return t;
}

static size_t want_stats(char *out, size_t cap, const struct reduce_params *p)
{
    uint64_t n = 0, dangling = 0, bytes = 0, min = UINT64_MAX, max = 0;
    for (unsigned i = 0; i < PAIRS; i++) {
        if (!inside(&pairs[i], p))
            continue;
        n++;
        dangling += pairs[i].dangling;
        if (pairs[i].dangling)
            continue;
        bytes += pairs[i].n;
        min = pairs[i].n < min ? pairs[i].n : min;
        max = pairs[i].n > max ? pairs[i].n : max;
    }
    return (size_t)snprintf(
        out, cap, "{\"pairs\":%llu,\"dangling\":%llu,\"bytes\":%llu,\"min\":%llu,\"max\":%llu,\"mean\":%s}\n",
        (unsigned long long)n, (unsigned long long)dangling, (unsigned long long)bytes,
        (unsigned long long)min, (unsigned long long)max, real((double)bytes / (double)(n - dangling)));
}

struct total {
    uint64_t count, contexts;
    uint32_t token;
};

static int by_token(const void *a, const void *b)
{
    uint32_t x = ((const struct total *)a)->token, y = ((const struct total *)b)->token;
    return (x > y) - (x < y);
}

static int by_count(const void *a, const void *b)
{
    uint64_t x = ((const struct total *)a)->count, y = ((const struct total *)b)->count;
    return x != y ? (x < y) - (x > y) : by_token(a, b);
}

static bool good(const struct pair *x, const struct reduce_params *p)
{
    return inside(x, p) && !x->dangling && !x->malformed;
}

static size_t want_totals(char *out, size_t cap, const struct reduce_params *p)
{
    struct total t[TOKENS] = {0};
    size_t n = 0, used = 0;
    for (unsigned k = 0; k < TOKENS; k++) {
        t[n] = (struct total){.token = token_of(k)};
        for (unsigned i = 0; i < PAIRS; i++) {
            t[n].count += good(&pairs[i], p) ? pairs[i].counts[k] : 0;
            t[n].contexts += good(&pairs[i], p) && pairs[i].has[k];
        }
        n += t[n].contexts > 0;
    }
    qsort(t, n, sizeof *t, p->sort == REDUCE_SORT_COUNT ? by_count : by_token);
    n = p->limit > 0 && p->limit < n ? p->limit : n;
    for (size_t i = 0; i < n; i++)
        used +=
            (size_t)snprintf(out + used, cap - used, "{\"token\":%u,\"count\":%llu,\"contexts\":%llu}\n",
                             t[i].token, (unsigned long long)t[i].count, (unsigned long long)t[i].contexts);
    return used;
}

static size_t want_coc(char *out, size_t cap, const struct reduce_params *p)
{
    uint64_t contexts = 0, types = 0, n[5] = {0};
    for (unsigned i = 0; i < PAIRS; i++) {
        if (!good(&pairs[i], p))
            continue;
        contexts++;
        types += pairs[i].followers;
        for (unsigned k = 0; k < TOKENS; k++)
            n[pairs[i].counts[k] < 4 ? pairs[i].counts[k] : 4]++;
    }
    double n1 = (double)n[1], n2 = (double)n[2], n3 = (double)n[3], n4 = (double)n[4];
    return (size_t)snprintf(
        out, cap,
        "{\"contexts\":%llu,\"types\":%llu,\"n1\":%llu,\"n2\":%llu,\"n3\":%llu,\"n4\":%llu,"
        "\"d1\":%s,\"d2\":%s,\"d3\":%s}\n",
        (unsigned long long)contexts, (unsigned long long)types, (unsigned long long)n[1],
        (unsigned long long)n[2], (unsigned long long)n[3], (unsigned long long)n[4],
        real(1 - 2 * n2 / (n1 + 2 * n2)), real(2 - 3 * n3 / (n2 + 2 * n3)), real(3 - 4 * n4 / (n3 + 2 * n4)));
}

static double score(const struct pair *a, const struct pair *b, enum reduce_metric metric)
{
    uint64_t dot = 0, aa = 0, bb = 0, both = 0, any = 0;
    for (unsigned k = 0; k < TOKENS; k++) {
        dot += a->counts[k] * b->counts[k];
        aa += a->counts[k] * a->counts[k];
        bb += b->counts[k] * b->counts[k];
        both += a->has[k] && b->has[k];
        any += a->has[k] || b->has[k];
    }
    if (metric == REDUCE_JACCARD)
        return any > 0 ? (double)both / (double)any : 0;
    double c = aa > 0 && bb > 0 ? (double)dot / sqrt((double)aa * (double)bb) : 0;
    return c < 1 ? c : 1;
}

struct ranked {
    double score;
    const struct pair *pair;
};

static int best_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return strcmp(x->pair->name, y->pair->name);
}

static size_t want_similar(char *out, size_t cap, const struct reduce_params *p)
{
    struct ranked *all = calloc(PAIRS, sizeof *all);
    const struct pair *to = NULL;
    size_t n = 0, used = 0;
    for (unsigned i = 0; i < PAIRS; i++) {
        if (strcmp(pairs[i].name, (const char *)p->to.p) == 0)
            to = &pairs[i];
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        if (good(&pairs[i], p) && &pairs[i] != to)
            all[n++] = (struct ranked){score(&pairs[i], to, p->metric), &pairs[i]};
    }
    qsort(all, n, sizeof *all, best_first);
    size_t limit = p->limit > 0 ? p->limit : 10;
    n = n < limit ? n : limit;
    for (size_t i = 0; i < n; i++) {
        char b64[64];
        uint64_t key;
        struct cht_str name = str(all[i].pair->name);
        b64[cht_b64_encode(b64, name.p, name.n)] = 0;
        assert_int_equal(cht_store_pair(s, name, &key, &err), CHT_OK);
        used += (size_t)snprintf(out + used, cap - used, "{\"pair\":\"%s\",\"key\":%llu,\"score\":%s}\n", b64,
                                 (unsigned long long)key, real(all[i].score));
    }
    free(all);
    return used;
}

static uint64_t lines_in(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

static void agrees(const char *name, const struct reduce_params *p,
                   size_t (*want)(char *, size_t, const struct reduce_params *))
{
    enum { CAP = 1 << 20 };
    char *text = malloc(CAP);
    struct cht_buf got = {0};
    uint64_t count, malformed, bad = 0;
    for (unsigned i = 0; i < PAIRS; i++)
        bad += inside(&pairs[i], p) && pairs[i].malformed && !pairs[i].dangling;
    size_t n = want(text, CAP, p);
    enum cht_rc rc = reduce_aggregate_run(s, mode(name), p, &got, &count, &malformed, NULL, &err);
    assert_int_equal(rc, CHT_OK);
    if (n != got.len || memcmp(text, got.data, n) != 0) {
        (void)fprintf(stderr, "%s: want\n%.*s got\n%.*s\n", name, (int)(n < 800 ? n : 800), text,
                      (int)(got.len < 800 ? got.len : 800), (char *)got.data);
        fail();
    }
    assert_int_equal(count, lines_in(text, n));
    assert_int_equal(malformed, strcmp(name, "stats") == 0 ? 0 : bad);
    cht_buf_free(&got);
    free(text);
}

static void all_agree(void)
{
    const char *first = pairs[PAIRS / 4].name, *second = pairs[PAIRS / 2].name;
    struct reduce_params bounds[] = {{.prefix = str("cnt:1:")},
                                     {.prefix = str("cnt:")},
                                     {.prefix = str("")},
                                     {.prefix = str("cnt:10:8")},
                                     {.prefix = str("cnt:"), .after = str(first), .until = str(second)}};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        struct reduce_params p = bounds[i];
        agrees("stats", &p, want_stats);
        agrees("counts-of-counts", &p, want_coc);
        agrees("totals", &p, want_totals);
        p.sort = REDUCE_SORT_COUNT;
        agrees("totals", &p, want_totals);
        p.limit = 7;
        agrees("totals", &p, want_totals);
        for (unsigned k = 100; k < PAIRS; k += 1400) {
            while (pairs[k].dangling || pairs[k].malformed)
                k++;
            p.to = str(pairs[k].name);
            p.metric = REDUCE_COSINE;
            p.limit = 0;
            agrees("similar", &p, want_similar);
            p.limit = 10000;
            agrees("similar", &p, want_similar);
            p.metric = REDUCE_JACCARD;
            p.limit = 33;
            agrees("similar", &p, want_similar);
        }
    }
}

static void test_aggregates(void **state)
{
    (void)state;
    static const unsigned shards[] = {1, 3, 8, 64};
    make_pairs();
    for (size_t i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "shards%u", shards[i]);
        use_database(name, shards[i]);
        load_pairs(shards[i]);
        all_agree();
    }
    free_pairs();
}

static void answers(const char *name, const struct reduce_params *p, const char *want)
{
    struct cht_buf got = {0};
    uint64_t count, malformed;
    enum cht_rc rc = reduce_aggregate_run(s, mode(name), p, &got, &count, &malformed, NULL, &err);
    assert_int_equal(rc, CHT_OK);
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.data == NULL ? (const uint8_t *)"" : got.data, want, got.len);
    cht_buf_free(&got);
}

static enum cht_rc fails(const char *name, const struct reduce_params *p, _Atomic bool *cancel)
{
    struct cht_buf got = {0};
    uint64_t count = 1, malformed = 1;
    memset(&err, 0, sizeof err);
    enum cht_rc rc = reduce_aggregate_run(s, mode(name), p, &got, &count, &malformed, cancel, &err);
    assert_int_equal(got.len, 0);
    assert_true(rc != CHT_OK && err.code == rc && err.msg[0] != 0);
    cht_buf_free(&got);
    return rc;
}

static void test_empty_and_wrong(void **state)
{
    (void)state;
    struct reduce_params p = {.prefix = str("cnt:")};
    answers("stats", &p,
            "{\"pairs\":0,\"dangling\":0,\"bytes\":0,\"min\":null,\"max\":null,\"mean\":null}\n");
    answers("totals", &p, "");
    answers(
        "counts-of-counts", &p,
        "{\"contexts\":0,\"types\":0,\"n1\":0,\"n2\":0,\"n3\":0,\"n4\":0,\"d1\":0.5,\"d2\":1,\"d3\":1.5}\n");
    assert_int_equal(fails("similar", &p, NULL), CHT_INVALID_ARGUMENT);
    p.to = str("cnt:1:x");
    assert_int_equal(fails("similar", &p, NULL), CHT_PAIR_NOT_FOUND);
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("cnt:1:x"), .key = 12345};
    assert_int_equal(run_op(&set), CHT_OK);
    assert_int_equal(fails("similar", &p, NULL), CHT_INVALID_ARGUMENT);
    answers("stats", &p,
            "{\"pairs\":1,\"dangling\":1,\"bytes\":0,\"min\":null,\"max\":null,\"mean\":null}\n");
    put("cnt:1:x", "\1\3\0", 3);
    assert_int_equal(fails("similar", &p, NULL), CHT_INVALID_ARGUMENT);
    put("cnt:1:x", "\1\3\0\0", 4);
    answers("similar", &p, "");
    p.limit = 10001;
    assert_int_equal(fails("similar", &p, NULL), CHT_INVALID_ARGUMENT);
    assert_int_equal(fails("counts", &p, NULL), CHT_INVALID_ARGUMENT);
    _Atomic bool cancel = true;
    p.limit = 0;
    assert_int_equal(fails("stats", &p, &cancel), CHT_CANCELLED);
}

/* A token that is there twice counts twice; counts beyond 32 bits add up. */
static void test_sums(void **state)
{
    (void)state;
    struct reduce_params p = {.prefix = str("c")};
    const uint8_t full[] = {1, 1, 0, 2, 0, 0, 0, 9, 255, 255, 255, 255, 0, 0, 0, 9, 255, 255, 255, 255};
    put("c1", full, sizeof full);
    put("c2", full, sizeof full);
    answers("totals", &p, "{\"token\":9,\"count\":17179869180,\"contexts\":2}\n");
    p.to = str("c1");
    char want[128];
    uint64_t key;
    assert_int_equal(cht_store_pair(s, str("c2"), &key, &err), CHT_OK);
    (void)snprintf(want, sizeof want, "{\"pair\":\"YzI=\",\"key\":%llu,\"score\":1}\n",
                   (unsigned long long)key);
    answers("similar", &p, want);
}

static void fill_counts(const char *prefix, unsigned n, unsigned followers)
{
    size_t size = 4 + (size_t)followers * 8;
    for (unsigned at = 0; at < n;) {
        enum { STEP = 500 };
        static struct cht_op ops[STEP];
        static char names[STEP][40];
        uint8_t *bytes = calloc(STEP, size);
        unsigned k = 0;
        for (; k < STEP && at < n; k++, at++) {
            uint8_t *p = bytes + k * size;
            p[0] = p[1] = 1;
            reduce_payload_put16(p + 2, (uint16_t)followers);
            for (unsigned f = 0; f < followers; f++) {
                reduce_payload_put32(p + 4 + (size_t)f * 8, at * followers + f);
                reduce_payload_put32(p + 8 + (size_t)f * 8, 1);
            }
            (void)snprintf(names[k], sizeof names[k], "%s%07u", prefix, at);
            ops[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[k]), .value = {p, size}};
        }
        struct cht_commit c = {.ops = ops, .count = k};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
        free(bytes);
    }
}

static void *set_later(void *arg)
{
    cht_sleep_ns(3000000);
    atomic_store((_Atomic bool *)arg, true);
    return NULL;
}

static void test_memory_and_cancel(void **state)
{
    (void)state;
    fill_counts("c", 20000, 10);
    struct reduce_params p = {.prefix = str("c"), .memory_max = 1u << 20};
    assert_int_equal(fails("totals", &p, NULL), CHT_NO_MEMORY);
    assert_non_null(strstr(err.msg, "1048576"));
    p.memory_max = 100;
    assert_int_equal(fails("stats", &p, NULL), CHT_NO_MEMORY);
    p.memory_max = 100000;
    p.to = str("c0000001");
    p.limit = 10000;
    assert_int_equal(fails("similar", &p, NULL), CHT_NO_MEMORY);
    p.memory_max = 0;
    p.limit = 3;
    for (int i = 0; i < 20; i++) { /* somewhere in it, or never noticed */
        struct cht_buf got = {0};
        uint64_t count, malformed;
        pthread_t t;
        _Atomic bool cancel = false;
        assert_int_equal(pthread_create(&t, NULL, set_later, &cancel), 0);
        enum cht_rc rc = reduce_aggregate_run(s, mode(i % 2 == 0 ? "totals" : "similar"), &p, &got, &count,
                                              &malformed, &cancel, &err);
        assert_true(rc == CHT_CANCELLED || (rc == CHT_OK && count == 3));
        pthread_join(t, NULL);
        cht_buf_free(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_json),
        cmocka_unit_test_setup_teardown(test_skip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_aggregates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_and_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sums, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_and_cancel, setup, teardown),
    };
    if (mkdtemp(base) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed != 0;
}
