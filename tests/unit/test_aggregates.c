/* test_aggregates: aggregates against plain loops over the same data, without room, and cancelled. */
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
#include "reduce/text.h"
#include "support/reducing.h"

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
        assert_int_equal(cht_store_pair(red.s, name, &key, &red.err), CHT_OK);
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
    enum cht_rc rc = reduce_aggregate_run(red.s, mode(name), p, &got, &count, &malformed, NULL, &red.err);
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
        reducing_database(name, shards[i]);
        load_pairs(shards[i]);
        all_agree();
    }
    free_pairs();
}

static void answers(const char *name, const struct reduce_params *p, const char *want)
{
    struct cht_buf got = {0};
    uint64_t count, malformed;
    enum cht_rc rc = reduce_aggregate_run(red.s, mode(name), p, &got, &count, &malformed, NULL, &red.err);
    assert_int_equal(rc, CHT_OK);
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.data == NULL ? (const uint8_t *)"" : got.data, want, got.len);
    cht_buf_free(&got);
}

static enum cht_rc fails(const char *name, const struct reduce_params *p, _Atomic bool *cancel)
{
    struct cht_buf got = {0};
    uint64_t count = 1, malformed = 1;
    memset(&red.err, 0, sizeof red.err);
    enum cht_rc rc = reduce_aggregate_run(red.s, mode(name), p, &got, &count, &malformed, cancel, &red.err);
    assert_int_equal(got.len, 0);
    assert_true(rc != CHT_OK && red.err.code == rc && red.err.msg[0] != 0);
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

/* A token that a context names twice is one follower, whose count stops at 2^32 - 1, as in smoothing; sums over contexts go on. */
static void test_sums(void **state)
{
    (void)state;
    struct reduce_params p = {.prefix = str("c")};
    const uint8_t full[] = {1, 1, 0, 2, 0, 0, 0, 9, 255, 255, 255, 255, 0, 0, 0, 9, 255, 255, 255, 255};
    put("c1", full, sizeof full);
    put("c2", full, sizeof full);
    answers("totals", &p, "{\"token\":9,\"count\":8589934590,\"contexts\":2}\n");
    p.to = str("c1");
    char want[128];
    uint64_t key;
    assert_int_equal(cht_store_pair(red.s, str("c2"), &key, &red.err), CHT_OK);
    (void)snprintf(want, sizeof want, "{\"pair\":\"YzI=\",\"key\":%llu,\"score\":1}\n",
                   (unsigned long long)key);
    answers("similar", &p, want);
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
    assert_non_null(strstr(red.err.msg, "1048576"));
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
        enum cht_rc rc = reduce_aggregate_run(red.s, mode(i % 2 == 0 ? "totals" : "similar"), &p, &got,
                                              &count, &malformed, &cancel, &red.err);
        assert_true(rc == CHT_CANCELLED || (rc == CHT_OK && count == 3));
        pthread_join(t, NULL);
        cht_buf_free(&got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDUCING_TEST(test_aggregates),
        REDUCING_TEST(test_empty_and_wrong),
        REDUCING_TEST(test_sums),
        REDUCING_TEST(test_memory_and_cancel),
    };
    return REDUCING_MAIN(tests);
}
