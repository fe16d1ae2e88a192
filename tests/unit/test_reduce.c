/* test_reduce: the payload modes on good and bad payloads, and sweeps. */
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
    assert_int_equal(n, 16);
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
    assert_int_equal(cht_scan_open(red.s, cfg, &sc, &red.err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(sc, e, 50, &n, &red.err), CHT_OK);
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
    reducing_database("wide", 64);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDUCING_TEST(test_digits), REDUCING_TEST(test_names), REDUCING_TEST(test_binary),
        REDUCING_TEST(test_json),   REDUCING_TEST(test_skip),
    };
    return REDUCING_MAIN(tests);
}
