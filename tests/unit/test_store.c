/* test_store: the promises of cheetah/store.h and cheetah/scan.h, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "cheetah/scan.h"
#include "support/kept.h"

static void test_keys(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++)
        assert_int_equal(kept_insert("v"), i); /* 1, 2, 3, ... in a fresh database */
    struct cht_op del = {.kind = CHT_OP_DELETE, .key = 20};
    assert_int_equal(kept_run(&del, 0), CHT_OK);
    assert_int_equal(kept_run(&del, 0), CHT_KEY_NOT_FOUND);
    assert_int_equal(cht_store_get(kept.s, 20, NULL, NULL, &kept.err), CHT_KEY_NOT_FOUND);
    kept_reopen();
    assert_int_equal(kept_insert("v"), 21); /* never given out twice, also across a restart */
    assert_int_equal(cht_store_get(kept.s, 0, NULL, NULL, &kept.err), CHT_INVALID_KEY);
    assert_int_equal(cht_store_get(kept.s, CHT_KEY_MAX + 1, NULL, NULL, &kept.err), CHT_INVALID_KEY);
}

static void test_edit_any_length(void **state)
{
    (void)state;
    uint64_t key = kept_insert("first"), other = kept_insert("other");
    size_t lengths[] = {1, 5, 4096, 100000, 300000, 5000000, 262144, 262143, 7, 16u << 20};
    uint8_t *v = malloc(16u << 20);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(v, (int)i + 1, lengths[i]);
        struct cht_op op = {.kind = CHT_OP_EDIT, .key = key, .value = {v, lengths[i]}};
        assert_int_equal(kept_run(&op, 0), CHT_OK);
        kept_has_value(key, v, lengths[i]);
        if (i % 3 == 0)
            assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
        if (i % 4 == 3)
            kept_reopen();
    }
    kept_has_value(other, "other", 5);
    struct cht_op big = {.kind = CHT_OP_EDIT, .key = key, .value = {v, (16u << 20) + 1}};
    assert_int_equal(kept_run(&big, 0), CHT_VALUE_TOO_LARGE);
    struct cht_op none = {.kind = CHT_OP_EDIT, .key = key, .value = {v, 0}};
    assert_int_equal(kept_run(&none, 0), CHT_EMPTY_VALUE);
    kept_has_value(key, v, 16u << 20);
    free(v);
}

static void test_upsert(void **state)
{
    (void)state;
    uint64_t k1, k2, k3;
    assert_int_equal(kept_put("ctx:a", "one", &k1), CHT_OK);
    assert_int_equal(kept_put("ctx:a", "a longer one", &k2), CHT_OK);
    assert_int_equal(k1, k2); /* the key is kept */
    kept_has_value(k1, "a longer one", 12);
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = kept_str("ctxv:b"), .key = k1};
    assert_int_equal(kept_run(&set, 0), CHT_OK);
    assert_true(set.created);
    assert_int_equal(kept_put("ctxv:b", "through the other name", &k3), CHT_OK);
    assert_int_equal(k3, k1); /* one value, two names */
    kept_has_value(k1, "through the other name", 22);
    struct cht_op dangle = {.kind = CHT_OP_PAIR_SET, .name = kept_str("later"), .key = 123456};
    assert_int_equal(kept_run(&dangle, 0), CHT_OK);
    uint32_t size = 99;
    struct cht_buf b = {0};
    assert_int_equal(cht_store_pair_value(kept.s, kept_str("later"), &k2, &b, &size, &kept.err), CHT_OK);
    assert_int_equal(size, 0);
    assert_int_equal(k2, 123456);
    assert_int_equal(cht_store_pair(kept.s, kept_str("nobody"), &k2, &kept.err), CHT_PAIR_NOT_FOUND);
    assert_int_equal(cht_store_pair(kept.s, (struct cht_str){(const uint8_t *)"", 0}, &k2, &kept.err),
                     CHT_INVALID_PAIR);
    cht_buf_free(&b);
}

static void test_atomic(void **state)
{
    (void)state;
    uint64_t key = kept_insert("old"), n;
    struct cht_op ops[] = {{.kind = CHT_OP_PAIR_PUT, .name = kept_str("a"), .value = kept_str("1")},
                           {.kind = CHT_OP_EDIT, .key = key, .value = kept_str("new")},
                           {.kind = CHT_OP_INSERT, .value = kept_str("x")},
                           {.kind = CHT_OP_DELETE, .key = 999}};
    struct cht_commit c = {.ops = ops, .count = 4, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_BATCH_FAILED);
    assert_int_equal(c.failed, 3);
    assert_int_equal(ops[3].rc, CHT_KEY_NOT_FOUND);
    kept_has_value(key, "old", 3);
    assert_int_equal(cht_store_pair(kept.s, kept_str("a"), &n, &kept.err), CHT_PAIR_NOT_FOUND);
    c.flags = 0; /* the same, each for itself */
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_OK);
    assert_int_equal(c.failed, 1);
    kept_has_value(key, "new", 3);
    struct cht_buf b = {0};
    struct cht_op seen[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = kept_str("q"), .value = kept_str("in this commit")},
        {.kind = CHT_OP_PAIR_READ, .name = kept_str("q"), .with_values = true, .buf = &b}};
    struct cht_commit d = {.ops = seen, .count = 2, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(kept.s, &d), CHT_OK);
    assert_int_equal(b.len, 14);
    cht_buf_free(&b);
}

static void test_prefix_delete(void **state)
{
    (void)state;
    uint64_t key, n;
    char name[32];
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "%s%d", i % 3 == 0 ? "cnt:1:" : i % 3 == 1 ? "cnt:10:" : "x", i);
        assert_int_equal(kept_put(name, "value", &key), CHT_OK);
    }
    assert_int_equal(cht_store_count(kept.s, kept_str("cnt:1"), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 2000);
    assert_int_equal(cht_store_count(kept.s, kept_str("cnt:1:"), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 1000);
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .name = kept_str("cnt:1:"), .with_values = true};
    assert_int_equal(kept_run(&op, 0), CHT_OK);
    assert_int_equal(op.pairs, 1000);
    assert_int_equal(op.values, 1000);
    assert_int_equal(cht_store_count(kept.s, kept_str(""), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 2000);
    kept_reopen();
    assert_int_equal(cht_store_count(kept.s, kept_str("cnt:1:"), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 0);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);
    assert_int_equal(st.values, 2000);
}

static void test_value_handle(void **state)
{
    (void)state;
    uint8_t *v = malloc(2u << 20), *got = malloc(2u << 20);
    memset(v, 5, 2u << 20);
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = {v, 2u << 20}};
    assert_int_equal(kept_run(&op, 0), CHT_OK);
    struct cht_value *h;
    uint32_t size;
    assert_int_equal(cht_value_open(kept.s, op.key, &h, &size, &kept.err), CHT_OK);
    assert_int_equal(size, 2u << 20);
    for (int i = 0; i < 6;
         i++) { /* its bytes stay, whatever happens to the key and however often pages are written back */
        memset(v, 6 + i, 2u << 20);
        struct cht_op edit = {.kind = CHT_OP_EDIT, .key = op.key, .value = {v, 2u << 20}};
        assert_int_equal(kept_run(&edit, 0), CHT_OK);
        assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
    }
    size_t n, at = 0;
    while (cht_value_read(h, (uint32_t)at, got + at, (2u << 20) - at, &n, &kept.err) == CHT_OK && n > 0)
        at += n;
    assert_int_equal(at, 2u << 20);
    for (size_t i = 0; i < at; i++)
        assert_int_equal(got[i], 5);
    cht_value_close(h);
    free(v);
    free(got);
}

static void test_space_comes_back(void **state)
{
    (void)state;
    struct cht_store_stats st;
    uint8_t v[1000];
    uint64_t sizes[4];
    memset(v, 1, sizeof v);
    for (int round = 0; round < 4; round++) { /* each round another length; the round before is deleted */
        for (int i = 0; i < 4000; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "n%d", i);
            struct cht_op op = {
                .kind = CHT_OP_PAIR_PUT, .name = kept_str(name), .value = {v, 700 + 50 * (size_t)round}};
            assert_int_equal(kept_run(&op, 0), CHT_OK);
        }
        assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
        assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
        assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);
        sizes[round] = st.file_bytes;
    }
    assert_true(sizes[3] < 3 * sizes[0]); /* not one more copy a round */
    for (int i = 0; i < 4000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "n%d", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = kept_str(name), .with_values = true};
        assert_int_equal(kept_run(&op, 0), CHT_OK);
    }
    kept_reopen();
    assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);
    assert_int_equal(st.values, 0);
    assert_true(st.file_bytes < sizes[0]);
}

static _Atomic int done_count;
static void on_done(struct cht_commit *c)
{
    (void)c;
    atomic_fetch_add(&done_count, 1);
}

static void test_submit(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct cht_op ops[N];
    static struct cht_commit c[N];
    atomic_store(&done_count, 0);
    for (int i = 0; i < N; i++) {
        ops[i] = (struct cht_op){.kind = CHT_OP_INSERT, .value = kept_str("async")};
        c[i] = (struct cht_commit){.ops = &ops[i], .count = 1, .done = on_done};
        assert_int_equal(cht_store_submit(kept.s, &c[i]), CHT_PENDING);
    }
    while (atomic_load(&done_count) < N)
        cht_sleep_ns(1000000);
    for (int i = 0; i < N; i++)
        assert_int_equal(ops[i].key, i + 1);
}

static size_t render(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    if (room < 64)
        return SIZE_MAX;
    return (size_t)snprintf((char *)out, room, "%.*s=%llu\n", (int)e->name_len, (const char *)e->name,
                            (unsigned long long)e->key);
}

static void *cancel_later(void *arg)
{
    cht_sleep_ns(2000000);
    cht_scan_cancel(arg);
    return NULL;
}

static void test_scans(void **state)
{
    (void)state;
    enum { N = 30000 };
    struct cht_op *ops = calloc(N, sizeof *ops);
    char(*names)[16] = calloc(N, sizeof *names);
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "k%05d", (i * 7919) % N);
        ops[i] =
            (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = kept_str(names[i]), .value = kept_str(names[i])};
    }
    struct cht_commit c = {.ops = ops, .count = N};
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_OK);
    struct cht_scan_config cfgs[] = {
        {.kind = CHT_SCAN_PAIRS, .prefix = kept_str("k"), .values = true},
        {.kind = CHT_SCAN_PAIRS,
         .prefix = kept_str("k1"),
         .after = kept_str("k10500"),
         .until = kept_str("k10600")},
        {.kind = CHT_SCAN_PAIRS,
         .prefix = kept_str("k1"),
         .after = kept_str("k10500"),
         .until = kept_str("k10400"),
         .reverse = true},
        {.kind = CHT_SCAN_PAIRS, .limit = 777, .workers = 1},
        {.kind = CHT_SCAN_PAIRS, .prefix = kept_str("k29"), .render = render},
    };
    size_t want[] = {N, 99, 99, 777, 1000};
    for (size_t i = 0; i < 5; i++) {
        struct cht_scan *sc;
        struct cht_entry e[100];
        size_t got, total = 0;
        char last[16] = "";
        assert_int_equal(cht_scan_open(kept.s, &cfgs[i], &sc, &kept.err), CHT_OK);
        while (cht_scan_next(sc, e, 1 + total % 100, &got, &kept.err) == CHT_OK && got > 0) {
            for (size_t k = 0; k < got; k++) {
                char name[16] = "";
                memcpy(name, e[k].name, e[k].name_len);
                assert_true(total == 0 ||
                            (cfgs[i].reverse ? strcmp(name, last) < 0 : strcmp(name, last) > 0));
                memcpy(last, name, sizeof last);
                if (cfgs[i].values)
                    assert_memory_equal(e[k].value, name, e[k].value_len);
                if (cfgs[i].render != NULL)
                    assert_memory_equal(e[k].value, name, e[k].name_len);
                total++;
            }
        }
        assert_int_equal(total, want[i]);
        assert_int_equal(cht_scan_exhausted(sc), i != 3);
        assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
        cht_scan_close(sc);
    }
    struct cht_scan_config all = {.kind = CHT_SCAN_PAIRS, .values = true};
    struct cht_scan *sc;
    struct cht_entry e[1];
    size_t got;
    pthread_t t;
    assert_int_equal(cht_scan_open(kept.s, &all, &sc, &kept.err), CHT_OK);
    assert_int_equal(pthread_create(&t, NULL, cancel_later, sc), 0);
    enum cht_rc rc;
    size_t total = 0;
    while ((rc = cht_scan_next(sc, e, 1, &got, &kept.err)) == CHT_OK && got > 0) {
        if (++total == N / 2) /* it is to be cancelled before its end */
            pthread_join(t, NULL);
        cht_sleep_ns(10000);
    }
    assert_int_equal(rc, CHT_CANCELLED);
    if (total < N / 2)
        pthread_join(t, NULL);
    cht_scan_close(sc);
    free(ops);
    free(names);
}

static void on_ready(void *ctx) { atomic_fetch_add((_Atomic int *)ctx, 1); }

/* poll never blocks and calls back; 256 shards stay within the memory of a scan; long values come by handle. */
static void test_poll_many_shards(void **state)
{
    (void)state;
    struct cht_store *saved = kept.s;
    uint8_t *v = malloc(100000);
    _Atomic int ready = 0;
    memset(v, 9, 100000);
    assert_int_equal(cht_env_create(kept.env, "wide", 256, &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, "wide", &kept.s, &kept.err), CHT_OK);
    for (int i = 0; i < 600; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "w%05d", i);
        struct cht_op op = {
            .kind = CHT_OP_PAIR_PUT, .name = kept_str(name), .value = {v, i % 50 == 0 ? 100000 : 20}};
        assert_int_equal(kept_run(&op, 0), CHT_OK);
    }
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .values = true, .ready = on_ready, .ready_ctx = (void *)&ready};
    struct cht_scan *sc;
    struct cht_entry e[64];
    size_t got = 1, total = 0, large = 0;
    int pending = 0;
    assert_int_equal(cht_scan_open(kept.s, &cfg, &sc, &kept.err), CHT_OK);
    while (got > 0) {
        int seen = atomic_load(&ready);
        enum cht_rc rc = cht_scan_poll(sc, e, 64, &got, &kept.err);
        if (rc == CHT_PENDING) {
            while (atomic_load(&ready) == seen)
                cht_sleep_ns(1000000);
            pending++;
            got = 1;
            continue;
        }
        assert_int_equal(rc, CHT_OK);
        for (size_t i = 0; i < got; i++)
            large += (e[i].flags & CHT_ENTRY_LARGE) != 0 && e[i].size == 100000 && e[i].value == NULL;
        total += got;
    }
    assert_int_equal(total, 600);
    assert_int_equal(large, 12);
    assert_int_equal(atomic_load(&ready), pending);
    assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
    cht_scan_close(sc);
    free(v);
    kept.s = saved;
}

static void test_sweep(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        (void)kept_insert(i % 10 == 0 ? "three" : "seven77");
    struct cht_scan_config cfg = {.kind = CHT_SCAN_VALUES, .values = true, .size = 5, .after_key = 101};
    struct cht_scan *sc;
    struct cht_entry e[64];
    size_t got, total = 0;
    uint64_t last = 101;
    assert_int_equal(cht_scan_open(kept.s, &cfg, &sc, &kept.err), CHT_OK);
    while (cht_scan_next(sc, e, 64, &got, &kept.err) == CHT_OK && got > 0) {
        for (size_t i = 0; i < got; i++) {
            assert_true(e[i].key > last && e[i].size == 5 && memcmp(e[i].value, "three", 5) == 0);
            last = e[i].key;
        }
        total += got;
    }
    assert_int_equal(total, 89); /* 111, 121, ... 991 */
    cht_scan_close(sc);
    struct cht_scrub scrub = {.bad = 1};
    assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
    assert_int_equal(cht_store_scrub(kept.s, &scrub, &kept.err), CHT_OK);
    assert_int_equal(scrub.bad, 0);
    assert_true(scrub.bytes > 0);
}

/* A link to an operation before the first of the commit. */
static void test_link_too_far_back(void **state)
{
    (void)state;
    struct cht_op ops[2] = {
        {.kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"a", 1}, .value = {(const uint8_t *)"v", 1}},
        {.kind = CHT_OP_PAIR_LINK,
         .name = {(const uint8_t *)"b", 1},
         .value = {(const uint8_t *)"a", 1},
         .back = 2}};
    struct cht_commit c = {.ops = ops, .count = 2};
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_OK);
    assert_int_equal(ops[0].rc, CHT_OK);
    assert_int_equal(ops[1].rc, CHT_INVALID_ARGUMENT);
    ops[1].back = 1;
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_OK);
    assert_int_equal(ops[1].rc, CHT_OK);
    assert_int_equal(ops[1].key, ops[0].key);
}

/* Hints reach what reads reach, and nothing else. */
static void test_hints(void **state)
{
    (void)state;
    enum { N = 400, LONG = 3000 };
    static char name[N][LONG + 8];
    static uint64_t key[N];
    static char long_value[5000];
    struct cht_hint h[2 * CHT_HINTS_MAX];
    memset(long_value, 'w', sizeof long_value - 1);
    for (unsigned i = 0; i < N; i++) {
        (void)snprintf(name[i], sizeof name[i], "%c%u/%u", 'a' + i % 3, i * 7919 % 1009, i);
        if (i % 100 == 99) { /* a deep one */
            memset(name[i] + strlen(name[i]), 'x', LONG - strlen(name[i]));
            name[i][LONG] = 0;
        }
        assert_int_equal(kept_put(name[i], i % 7 == 0 ? long_value : "v", &key[i]), CHT_OK);
    }
    for (unsigned i = 0; i < N; i++) {
        h[0] = (struct cht_hint){.name = kept_str(name[i])};
        h[1] = (struct cht_hint){.key = key[i]};
        assert_int_equal(cht_store_prefetch(kept.s, h, 2), 2);
    }
    for (unsigned i = 0; i < 2 * CHT_HINTS_MAX; i++)
        h[i] = (struct cht_hint){.key = key[i]};
    assert_int_equal(cht_store_prefetch(kept.s, h, 2 * CHT_HINTS_MAX), CHT_HINTS_MAX);
    assert_int_equal(cht_store_prefetch(kept.s, h, 0), 0);
    struct cht_op del = {.kind = CHT_OP_DELETE, .key = key[3]};
    assert_int_equal(kept_run(&del, 0), CHT_OK);
    const struct cht_hint none[] = {
        {.key = 0},
        {.key = CHT_KEY_MAX + 1},
        {.key = UINT64_MAX},
        {.key = CHT_KEY_MAX},
        {.key = key[N - 1] + 1},
        {.key = key[3]},
        {.name = kept_str(name[3])}, /* dangling */
        {.name = kept_str("nothing like it")},
        {.name = {(const uint8_t *)name, CHT_NAME_MAX + 1}},
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(cht_store_prefetch(kept.s, &none[i], 1), 0);
    kept_reopen(); /* nothing has been compared with its sums yet: that is for the reads */
    h[0] = (struct cht_hint){.name = kept_str(name[5])};
    h[1] = (struct cht_hint){.key = key[5]};
    assert_int_equal(cht_store_prefetch(kept.s, h, 2), 0);
    kept_has_value(key[5], "v", 1);
    assert_int_equal(cht_store_prefetch(kept.s, h + 1, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEPT_TEST(test_link_too_far_back),
        KEPT_TEST(test_hints),
        KEPT_TEST(test_keys),
        KEPT_TEST(test_edit_any_length),
        KEPT_TEST(test_upsert),
        KEPT_TEST(test_atomic),
        KEPT_TEST(test_prefix_delete),
        KEPT_TEST(test_value_handle),
        KEPT_TEST(test_space_comes_back),
        KEPT_TEST(test_submit),
        KEPT_TEST(test_scans),
        KEPT_TEST(test_sweep),
        KEPT_TEST(test_poll_many_shards),
    };
    return KEPT_MAIN(tests);
}
