/* test_put: CHT_OP_PUT and CHT_OP_RESERVE, which copies of a database are made with: keys in a row that nobody else gets, and
 * values under keys that the caller names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "support/kept.h"

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_error("%s: %s\n", where, what);
}

/* Closes (or abandons, so that the log is replayed), checks the files, opens again. */
static void reopen(bool crash)
{
    struct cht_env_config cfg = kept_config();
    uint64_t findings = 99;
    if (crash)
        cht_env_abandon(kept.env);
    else
        assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    if (!crash) {
        assert_int_equal(cht_check(&cfg, NULL, finding, NULL, &findings, &kept.err), CHT_OK);
        assert_int_equal(findings, 0);
    }
    kept_open();
}

static enum cht_rc put(uint64_t key, struct cht_str v, bool *created)
{
    struct cht_op op = {.kind = CHT_OP_PUT, .key = key, .value = v};
    assert_int_equal(kept_commit(&op, 1, 0), CHT_OK);
    if (op.rc == CHT_OK)
        assert_int_equal(op.size, v.n);
    *created = op.created;
    return op.rc;
}

static enum cht_rc reserve(uint64_t n, uint64_t *first)
{
    struct cht_op op = {.kind = CHT_OP_RESERVE, .key = n};
    assert_int_equal(kept_commit(&op, 1, 0), CHT_OK);
    *first = op.key;
    return op.rc;
}

static void expect(uint64_t key, const char *v)
{
    struct cht_buf b = {0};
    enum cht_rc rc = cht_store_get(kept.s, key, &b, NULL, &kept.err);
    assert_int_equal(rc, v == NULL ? CHT_KEY_NOT_FOUND : CHT_OK);
    if (v != NULL) {
        assert_int_equal(b.len, strlen(v));
        assert_memory_equal(b.data, v, b.len);
    }
    cht_buf_free(&b);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void test_put_under_a_reserved_key(void **state)
{
    (void)state;
    uint64_t first;
    bool created;
    assert_int_equal(put(1, kept_str("x"), &created), CHT_KEY_NOT_FOUND); /* never given out */
    assert_int_equal(reserve(100, &first), CHT_OK);
    assert_int_equal(first, 1); /* a fresh database */
    expect(50, NULL);
    assert_int_equal(put(50, kept_str("fifty"), &created), CHT_OK);
    assert_true(created);
    assert_int_equal(put(50, kept_str("50"), &created), CHT_OK); /* again: replaced */
    assert_false(created);
    assert_int_equal(put(100, kept_str("last"), &created), CHT_OK);
    assert_int_equal(put(0, kept_str("x"), &created), CHT_INVALID_KEY);
    assert_int_equal(put(UINT64_C(1) << 48, kept_str("x"), &created), CHT_INVALID_KEY);
    assert_int_equal(put(7, (struct cht_str){NULL, 0}, &created), CHT_EMPTY_VALUE);
    assert_true(kept_insert("new") > 100);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);
    assert_int_equal(st.values, 3);
    assert_int_equal(st.value_bytes, 2 + 4 + 3);
    reopen(true);
    expect(50, "50");
    expect(100, "last");
    expect(99, NULL);
    assert_true(kept_insert("newer") > 101);
    reopen(false);
    expect(50, "50");
}

/* Nobody gets a key of the range, whichever way, and none below the range is touched. */
static void test_the_range_is_the_callers(void **state)
{
    (void)state;
    uint64_t first, again;
    bool created;
    for (unsigned i = 0; i < 10; i++)
        (void)kept_insert("before");
    struct cht_op up = {.kind = CHT_OP_PAIR_PUT, .name = kept_str("name"), .value = kept_str("v")};
    assert_int_equal(kept_commit(&up, 1, 0), CHT_OK);
    assert_int_equal(reserve(1000, &first), CHT_OK);
    assert_true(first > 10 && first > up.key);
    assert_int_equal(first % 4, 1); /* keys moved by first - 1 stay with their shard */
    for (unsigned i = 0; i < 200; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = kept_str(name), .value = kept_str("v")};
        assert_int_equal(kept_commit(&op, 1, 0), CHT_OK);
        assert_true(op.key >= first + 1000);
        assert_true(kept_insert("v") >= first + 1000);
    }
    assert_int_equal(reserve(3, &again), CHT_OK); /* fewer than there are shards */
    assert_true(again >= first + 1000);
    for (uint64_t k = again; k < again + 3; k++)
        assert_int_equal(put(k, kept_str("mine"), &created), CHT_OK);
    assert_true(kept_insert("v") >= first + 1000);
    expect(again, "mine");
    expect(again + 2, "mine");
    assert_int_equal(reserve(0, &again), CHT_INVALID_ARGUMENT);
    assert_int_equal(reserve(CHT_RESERVE_MAX + 1, &again), CHT_INVALID_ARGUMENT);
    reopen(true);
    reopen(false);
    expect(10, "before");
}

static void test_put_revives_a_deleted_key(void **state)
{
    (void)state;
    bool created;
    uint64_t key = kept_insert("first");
    struct cht_op del = {.kind = CHT_OP_DELETE, .key = key};
    assert_int_equal(kept_commit(&del, 1, 0), CHT_OK);
    expect(key, NULL);
    assert_int_equal(put(key, kept_str("second"), &created), CHT_OK);
    assert_true(created);
    expect(key, "second");
    reopen(true);
    expect(key, "second");
    reopen(false);
    expect(key, "second");
}

/* An atomic commit that fails takes the range and the values back. */
static void test_atomic(void **state)
{
    (void)state;
    uint64_t first;
    struct cht_op ops[] = {
        {.kind = CHT_OP_RESERVE, .key = 5000},
        {.kind = CHT_OP_PUT, .key = 17, .value = kept_str("kept")},
        {.kind = CHT_OP_PAIR_SET, .name = kept_str("n"), .key = 17},
        {.kind = CHT_OP_DELETE, .key = 18},
    };
    assert_int_equal(kept_commit(ops, 4, CHT_COMMIT_ATOMIC), CHT_BATCH_FAILED);
    expect(17, NULL);
    assert_int_equal(kept_insert("one"), 1);
    ops[0].key = 5000;
    ops[1].key = 4 + 17; /* after the key that is there now, by whole shards */
    assert_int_equal(kept_commit(ops, 3, CHT_COMMIT_ATOMIC), CHT_OK);
    assert_int_equal(ops[0].key, 5);
    expect(21, "kept");
    reopen(true);
    expect(21, "kept");
    assert_int_equal(reserve(8, &first), CHT_OK);
    assert_true(first > 5004);
}

/* Values of every kind of length under random keys of a range, against a table; large ones too. */
static void test_random(void **state)
{
    (void)state;
    enum { KEYS = 400, MAX = 3u << 20 };
    static uint32_t len[KEYS + 1], seed[KEYS + 1];
    static uint8_t v[MAX], got[1];
    uint64_t first;
    struct cht_rng r;
    memset(len, 0, sizeof len);
    cht_rng_seed(&r, 4711);
    assert_int_equal(reserve(KEYS, &first), CHT_OK);
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t k = 1 + cht_rng_below(&r, KEYS);
        bool created, del = cht_rng_below(&r, 4) == 0;
        if (del) {
            struct cht_op op = {.kind = CHT_OP_DELETE, .key = k};
            assert_int_equal(kept_commit(&op, 1, 0), CHT_OK);
            assert_int_equal(op.rc, len[k] > 0 ? CHT_OK : CHT_KEY_NOT_FOUND);
            len[k] = 0;
            continue;
        }
        uint32_t n = (uint32_t)(1 + cht_rng_below(&r, cht_rng_below(&r, 50) == 0 ? MAX : 2000));
        seed[k] = (uint32_t)cht_rng_next(&r);
        struct cht_rng fill;
        cht_rng_seed(&fill, seed[k]);
        for (uint32_t j = 0; j < n; j++)
            v[j] = (uint8_t)cht_rng_next(&fill);
        assert_int_equal(put(k, (struct cht_str){v, n}, &created), CHT_OK);
        assert_int_equal(created, len[k] == 0);
        len[k] = n;
        if (i % 500 == 499)
            reopen(i % 1000 == 499);
    }
    reopen(true);
    reopen(false);
    for (uint64_t k = 1; k <= KEYS; k++) {
        struct cht_buf b = {0};
        assert_int_equal(cht_store_get(kept.s, k, &b, NULL, &kept.err),
                         len[k] > 0 ? CHT_OK : CHT_KEY_NOT_FOUND);
        assert_int_equal(len[k] > 0 ? b.len : 0, len[k]);
        struct cht_rng fill;
        cht_rng_seed(&fill, seed[k]);
        for (uint32_t j = 0; j < len[k]; j++) {
            got[0] = (uint8_t)cht_rng_next(&fill);
            if (got[0] != b.data[j])
                fail_msg("key %llu, byte %u", (unsigned long long)k, j);
        }
        cht_buf_free(&b);
    }
}

/* A long range leaves pages of the key table that nobody has written. */
static void test_long_range(void **state)
{
    (void)state;
    uint64_t first;
    bool created;
    assert_int_equal(reserve(1000000, &first), CHT_OK);
    assert_int_equal(put(500000, kept_str("middle"), &created), CHT_OK);
    assert_int_equal(reserve(1000000, &first), CHT_OK);
    assert_int_equal(first, 1000001);
    expect(499999, NULL);
    reopen(true);
    expect(500000, "middle");
    expect(1, NULL);
    reopen(false);
    assert_int_equal(put(1999999, kept_str("end"), &created), CHT_OK);
    reopen(false);
    expect(1999999, "end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEPT_TEST(test_put_under_a_reserved_key),
        KEPT_TEST(test_the_range_is_the_callers),
        KEPT_TEST(test_put_revives_a_deleted_key),
        KEPT_TEST(test_atomic),
        KEPT_TEST(test_random),
        KEPT_TEST(test_long_range),
    };
    return KEPT_MAIN(tests);
}
