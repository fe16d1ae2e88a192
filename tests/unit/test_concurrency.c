/* test_concurrency: writers, deleters, checkpoints, point readers and scans in both directions at once. Pairs that are there
 * throughout are returned by every scan, in order, once; every value seen is whole. For the thread sanitizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "store/db_store.h"

#define STABLE 2000
#define MOVING 3000

static char dir[] = "/tmp/cht-conc-XXXXXX";
static const char *dirs[] = {dir};
static struct cht_store *store;
static _Atomic bool stop;
static _Atomic uint64_t commits, scans, reads, failures;

/* A value says which name it belongs to, and fills itself with one byte. */
static size_t make_value(const char *name, uint8_t salt, uint8_t *out)
{
    size_t n = strlen(name);
    memcpy(out, name, n);
    out[n] = 0;
    memset(out + n + 1, salt, 40 + salt % 60);
    return n + 41 + salt % 60;
}

static bool value_ok(const uint8_t *name, size_t len, const uint8_t *v, size_t n)
{
    if (n < len + 41 || memcmp(v, name, len) != 0 || v[len] != 0)
        return false;
    for (size_t i = len + 2; i < n; i++) {
        if (v[i] != v[len + 1])
            return false;
    }
    return n == len + 41 + v[len + 1] % 60;
}

static void put(const char *name, uint8_t salt)
{
    uint8_t v[256];
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                        .name = {(const uint8_t *)name, strlen(name)},
                        .value = {v, make_value(name, salt, v)}};
    struct cht_commit c = {.ops = &op, .count = 1};
    if (cht_store_commit(store, &c) != CHT_OK)
        atomic_fetch_add(&failures, 1);
}

static void *write_main(void *arg)
{
    struct cht_rng r;
    cht_rng_seed(&r, (uint64_t)(uintptr_t)arg);
    while (!atomic_load(&stop)) {
        char name[32];
        (void)snprintf(name, sizeof name, "m%05u", (unsigned)cht_rng_below(&r, MOVING));
        if (cht_rng_below(&r, 3) == 0) {
            struct cht_op op = {
                .kind = CHT_OP_PAIR_DEL, .with_values = true, .name = {(uint8_t *)name, strlen(name)}};
            struct cht_commit c = {.ops = &op, .count = 1};
            (void)cht_store_commit(store, &c);
        } else {
            put(name, (uint8_t)cht_rng_next(&r));
        }
        if (cht_rng_below(&r, 50) == 0) { /* stable names keep their place, their values change */
            (void)snprintf(name, sizeof name, "s%05u", (unsigned)cht_rng_below(&r, STABLE));
            put(name, (uint8_t)cht_rng_next(&r));
        }
        atomic_fetch_add(&commits, 1);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        if (cht_store_checkpoint(store, NULL) != CHT_OK)
            atomic_fetch_add(&failures, 1);
        cht_sleep_ns(30000000);
    }
    return NULL;
}

static void *read_main(void *arg)
{
    struct cht_rng r;
    struct cht_buf b = {0};
    cht_rng_seed(&r, (uint64_t)(uintptr_t)arg + 77);
    while (!atomic_load(&stop)) {
        char name[32];
        bool stable = cht_rng_below(&r, 2) == 0;
        uint64_t key;
        uint32_t size = 0;
        (void)snprintf(name, sizeof name, "%c%05u", stable ? 's' : 'm',
                       (unsigned)cht_rng_below(&r, stable ? STABLE : MOVING));
        struct cht_hint h[] = {{.name = {(uint8_t *)name, strlen(name)}},
                               {.key = 1 + cht_rng_below(&r, STABLE + MOVING)},
                               {.key = 1 + cht_rng_below(&r, STABLE + MOVING)}};
        (void)cht_store_prefetch(store, h, 3);
        enum cht_rc rc = cht_store_pair_value(store, (struct cht_str){(uint8_t *)name, strlen(name)}, &key,
                                              &b, &size, NULL);
        bool good = rc == CHT_OK ? size == 0 || value_ok((uint8_t *)name, strlen(name), b.data, size)
                                 : rc == CHT_PAIR_NOT_FOUND && !stable;
        if (!good)
            atomic_fetch_add(&failures, 1);
        atomic_fetch_add(&reads, 1);
    }
    cht_buf_free(&b);
    return NULL;
}

/* The same, many at once. */
static void *read_many_main(void *arg)
{
    enum { MANY = 40 };
    struct cht_rng r;
    struct cht_buf b = {0};
    cht_rng_seed(&r, (uint64_t)(uintptr_t)arg + 99);
    while (!atomic_load(&stop)) {
        char name[MANY][32];
        struct cht_pair_read read[MANY];
        for (unsigned i = 0; i < MANY; i++) {
            bool stable = cht_rng_below(&r, 2) == 0;
            (void)snprintf(name[i], sizeof name[i], "%c%05u", stable ? 's' : 'm',
                           (unsigned)cht_rng_below(&r, stable ? STABLE : MOVING));
            read[i].name = (struct cht_str){(uint8_t *)name[i], strlen(name[i])};
        }
        bool good = cht_store_pair_values(store, read, MANY, &b, NULL, NULL) == CHT_OK;
        for (unsigned i = 0; i < MANY && good; i++)
            good = read[i].rc == CHT_OK ? read[i].size == 0 || value_ok(read[i].name.p, read[i].name.n,
                                                                        b.data + read[i].at, read[i].size)
                                        : read[i].rc == CHT_PAIR_NOT_FOUND && name[i][0] != 's';
        if (!good)
            atomic_fetch_add(&failures, 1);
        atomic_fetch_add(&reads, 1);
    }
    cht_buf_free(&b);
    return NULL;
}

static void scan_once(bool reverse)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true, .reverse = reverse};
    struct cht_scan *sc;
    struct cht_entry e[128];
    struct cht_err err = {0};
    uint8_t last[32] = {0};
    size_t got = 0, last_len = 0;
    unsigned stable = 0;
    bool good = cht_scan_open(store, &cfg, &sc, &err) == CHT_OK;
    while (good && cht_scan_next(sc, e, 128, &got, &err) == CHT_OK && got > 0) {
        for (size_t i = 0; i < got && good; i++) {
            int c = last_len == 0
                        ? (reverse ? 1 : -1)
                        : memcmp(last, e[i].name, last_len < e[i].name_len ? last_len : e[i].name_len);
            good = reverse ? c > 0 : c < 0;
            if (e[i].value != NULL)
                good = good && value_ok(e[i].name, e[i].name_len, e[i].value, e[i].value_len);
            good = good && (e[i].flags & CHT_ENTRY_CORRUPT) == 0;
            stable += e[i].name[0] == 's';
            memcpy(last, e[i].name, e[i].name_len);
            last_len = e[i].name_len;
        }
    }
    if (!good || stable != STABLE || err.code != CHT_OK) {
        print_error("scan: good %d, %u stable pairs, %s\n", good, stable, err.msg);
        atomic_fetch_add(&failures, 1);
    }
    cht_scan_close(sc);
    atomic_fetch_add(&scans, 1);
}

static void *scan_main(void *arg)
{
    while (!atomic_load(&stop))
        scan_once(arg != NULL);
    return NULL;
}

static void test_all_at_once(void **state)
{
    (void)state;
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .value_order = CHT_ORDER_ALWAYS,
                                 .default_shards = 3,
                                 .scan_workers = 2,
                                 .durability = CHT_DURABLE_INTERVAL,
                                 .interval_ms = 5,
                                 .log_segment_bytes = 1u << 20};
    struct cht_env *env;
    struct cht_err err = {0};
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, "default", 0, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "default", &store, &err), CHT_OK);
    for (unsigned i = 0; i < STABLE; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%05u", i);
        put(name, (uint8_t)i);
    }
    pthread_t t[8];
    void *(*const mains[8])(void *) = {write_main, write_main, checkpoint_main, read_main,
                                       scan_main,  scan_main,  read_main,       read_many_main};
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, mains[i], (void *)(i == 4 ? 0 : i)), 0);
    const char *s = getenv("CHT_TEST_SECONDS");
    cht_sleep_ns((uint64_t)(s != NULL ? atoi(s) : 6) * 1000000000u);
    while (commits <= 10 || scans <= 2 || reads <= 10) /* others have the processors */
        cht_sleep_ns(10000000);
    atomic_store(&stop, true);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    print_message("%llu commits, %llu reads, %llu scans, %llu failures\n", (unsigned long long)commits,
                  (unsigned long long)reads, (unsigned long long)scans, (unsigned long long)failures);
    assert_int_equal(failures, 0);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

static _Atomic unsigned done_count;
static void count_done(struct cht_commit *c)
{
    assert_int_equal(c->rc, CHT_OK);
    atomic_fetch_add(&done_count, 1);
}

/* Puts and recursive deletes that share groups: the first one is held up until all of them are there. */
static void test_deletes_in_a_group(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    static const struct cht_str gone = {(const uint8_t *)"gone", 4};
    struct cht_env_config cfg = {.dirs = dirs, .dir_count = 1, .default_shards = 4};
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    static struct cht_op ops[COUNT];
    static struct cht_commit c[COUNT];
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, "groups", 0, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "groups", &s, &err), CHT_OK);
    struct cht_rwlock *held = &cht_db(s)->shards[cht_shard_of_name(gone, 4)].lock;
    cht_rwlock_write(held);
    for (unsigned i = 0; i < COUNT; i++) {
        bool put = i % 3 != 2;
        ops[i] =
            (struct cht_op){.kind = put ? CHT_OP_PAIR_PUT : CHT_OP_PREFIX_DEL, .name = gone, .value = gone};
        c[i] = (struct cht_commit){.ops = &ops[i], .count = 1, .done = count_done};
        assert_int_equal(cht_store_submit(s, &c[i]), CHT_PENDING);
    }
    cht_rwlock_write_end(held);
    while (atomic_load(&done_count) < COUNT)
        cht_sleep_ns(1000000);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    assert_true(st.groups < 10); /* else it has shown nothing */
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_deletes_in_a_group),
                                       cmocka_unit_test(test_all_at_once)};
    if (mkdtemp(dir) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
