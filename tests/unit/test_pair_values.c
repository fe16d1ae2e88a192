/* test_pair_values: many names read at once are what each of them is by itself, whatever state the pairs are in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "support/kept.h"

enum { N = 600, LONG = 3000, MORE = 200 };

static char name[N + MORE][LONG + 16]; /* the last ones are no pairs */
static char *long_value;

static void make_names(void)
{
    for (unsigned i = 0; i < N + MORE; i++) {
        (void)snprintf(name[i], sizeof name[i], "%c%u/%u", 'a' + i % 3, i * 7919 % 1009, i);
        if (i % 20 == 7) /* one that begins others */
            (void)snprintf(name[i], sizeof name[i], "%c%u", 'a' + (i + 1) % 3, (i + 1) * 7919 % 1009);
        if (i % 100 == 99) { /* a deep one */
            memset(name[i] + strlen(name[i]), 'x', LONG - strlen(name[i]));
            (void)snprintf(name[i] + LONG, 16, "%u", i);
        }
    }
}

/* Pairs of all kinds. */
static void make_pairs(void)
{
    uint64_t key;
    make_names();
    for (unsigned i = 0; i < N; i++) {
        char small[64];
        (void)snprintf(small, sizeof small, "the value of %u", i);
        assert_int_equal(kept_put(name[i], i % 61 == 0 ? long_value : small, &key), CHT_OK);
        struct cht_op op = {.kind = CHT_OP_DELETE, .key = key};
        if (i % 11 == 5) /* dangling */
            assert_int_equal(kept_run(&op, 0), CHT_OK);
        op = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = kept_str(name[i]), .key = key / 2 + 1};
        if (i % 13 == 6) /* a value of another shard, mostly */
            assert_int_equal(kept_run(&op, 0), CHT_OK);
        op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = kept_str(name[i]), .with_values = true};
        if (i % 17 == 3)
            assert_int_equal(kept_run(&op, 0), CHT_OK);
    }
}

static void same(struct cht_pair_read *r, size_t n, const struct cht_buf *all)
{
    struct cht_buf b = {0};
    for (size_t i = 0; i < n; i++) {
        struct cht_pair_value pv = {.out = &b};
        enum cht_rc rc = cht_store_pair_value_soon(kept.s, r[i].name, &pv, NULL, &kept.err);
        assert_int_equal(r[i].rc, rc);
        if (rc != CHT_OK)
            continue;
        assert_int_equal(r[i].key, pv.key);
        assert_int_equal(r[i].ends, pv.ends);
        assert_int_equal(r[i].size, pv.size);
        assert_true(r[i].at + r[i].size <= all->len);
        if (pv.size > 0)
            assert_memory_equal(all->data + r[i].at, b.data, pv.size);
    }
    cht_buf_free(&b);
}

static void compare(size_t most)
{
    struct cht_pair_read r[N + MORE];
    struct cht_buf all = {0};
    struct cht_rng rng;
    size_t found = 0;
    cht_rng_seed(&rng, 5);
    for (size_t begin = 0; begin < N + MORE; begin += most) {
        size_t n = N + MORE - begin < most ? N + MORE - begin : most;
        for (size_t i = 0; i < n; i++) /* some of them twice */
            r[i].name =
                kept_str(name[cht_rng_below(&rng, 4) == 0 ? cht_rng_below(&rng, N + MORE) : begin + i]);
        assert_int_equal(cht_store_pair_values(kept.s, r, n, &all, NULL, &kept.err), CHT_OK);
        same(r, n, &all);
        for (size_t i = 0; i < n; i++)
            found += r[i].rc == CHT_OK;
    }
    assert_true(found > N / 2 && found < N + MORE);
    cht_buf_free(&all);
}

static void test_same_as_alone(void **state)
{
    (void)state;
    make_pairs();
    compare(1);
    compare(30);
    compare(N + MORE);
    kept_reopen(); /* nothing has been compared with its sums yet */
    compare(30);
    assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
    compare(64);
}

/* As soon as one pair of the database ends, a read has to look when. */
static void test_pairs_that_end(void **state)
{
    (void)state;
    uint64_t key;
    make_pairs();
    for (unsigned i = 0; i < N; i += 9) {
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = kept_str(name[i]),
                            .value = kept_str("it ends"),
                            .ttl_ms = i % 2 == 0 ? 1 : 3600000};
        assert_int_equal(kept_run(&op, 0), CHT_OK);
        while (i % 2 == 0 && cht_store_pair(kept.s, op.name, &key, &kept.err) == CHT_OK)
            cht_sleep_ns(1000000);
    }
    compare(40);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    struct cht_buf all = {0};
    uint64_t key;
    char too_long[CHT_NAME_MAX + 1];
    memset(too_long, 'x', sizeof too_long);
    assert_int_equal(cht_store_pair_values(kept.s, NULL, 0, &all, NULL, &kept.err), CHT_OK);
    assert_int_equal(all.len, 0);
    assert_int_equal(kept_put("a", "one", &key), CHT_OK);
    struct cht_pair_read r[2] = {{.name = kept_str("a")}, {.name = {NULL, 0}}};
    assert_int_equal(cht_store_pair_values(kept.s, r, 2, &all, NULL, &kept.err), CHT_INVALID_PAIR);
    r[1].name = (struct cht_str){(const uint8_t *)too_long, sizeof too_long};
    assert_int_equal(cht_store_pair_values(kept.s, r, 2, &all, NULL, &kept.err), CHT_INVALID_PAIR);
    r[1].name.n--;
    assert_int_equal(cht_store_pair_values(kept.s, r, 2, &all, NULL, &kept.err), CHT_OK);
    assert_int_equal(r[0].rc, CHT_OK);
    assert_int_equal(r[1].rc, CHT_PAIR_NOT_FOUND);
    assert_int_equal(all.len, 3);
    assert_memory_equal(all.data, "one", 3);
    cht_buf_free(&all);
}

/* Without memory for the values it is refused, and what was read before is right. */
static void test_no_memory(void **state)
{
    (void)state;
    make_pairs();
    struct cht_pair_read r[100];
    unsigned failed = 0;
    for (uint64_t at = 1;; at++) {
        struct cht_buf all = {0};
        for (unsigned i = 0; i < 100; i++)
            r[i].name = kept_str(name[i]);
        cht_alloc_fail_at(at, true);
        enum cht_rc rc = cht_store_pair_values(kept.s, r, 100, &all, NULL, &kept.err);
        bool injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        size_t read = 0;
        while (read < 100 && (r[read].rc == CHT_OK || r[read].rc == CHT_PAIR_NOT_FOUND))
            read++;
        same(r, read, &all);
        assert_int_equal(rc, read < 100 ? CHT_NO_MEMORY : CHT_OK);
        cht_buf_free(&all);
        failed += rc != CHT_OK;
        if (!injected)
            break;
    }
    assert_true(failed > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {KEPT_TEST(test_same_as_alone), KEPT_TEST(test_pairs_that_end),
                                       KEPT_TEST(test_what_is_refused), KEPT_TEST(test_no_memory)};
    long_value = malloc(100001);
    memset(long_value, 'w', 100000);
    long_value[100000] = 0;
    int failed = KEPT_MAIN(tests);
    free(long_value);
    return failed;
}
