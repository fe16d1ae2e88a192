/* test_calm: while a commit holds the locks of one database, its readers are told later and its scans are put aside: no thread
 * that another database needs waits for it. The commit is played by the test: it takes the locks itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "os/thread.h"
#include "store/db_store.h"

#define PAIRS 20000u

static char dir[] = "/tmp/cht-calm-XXXXXX";
static struct cht_env *env;
static struct cht_store *a, *b;

static void fill(struct cht_store *s)
{
    struct cht_op *ops = calloc(PAIRS, sizeof *ops);
    char(*names)[16] = calloc(PAIRS, sizeof *names);
    assert_true(ops != NULL && names != NULL);
    for (unsigned i = 0; i < PAIRS; i++) {
        int n = snprintf(names[i], sizeof names[i], "n:%08u", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                 .name = {(uint8_t *)names[i], (size_t)n},
                                 .value = {(uint8_t *)names[i], (size_t)n}};
    }
    struct cht_commit c = {.ops = ops, .count = PAIRS};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    free(names);
    free(ops);
}

static int setup(void **state)
{
    (void)state;
    const char *dirs[] = {mkdtemp(dir)};
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .scan_workers = 1, .durability = CHT_DURABLE_OS, .default_shards = 4};
    assert_int_equal(cht_env_open(&cfg, &env, NULL), CHT_OK);
    assert_int_equal(cht_env_create(env, "a", 0, NULL), CHT_OK);
    assert_int_equal(cht_env_create(env, "b", 0, NULL), CHT_OK);
    assert_int_equal(cht_env_get(env, "a", &a, NULL), CHT_OK);
    assert_int_equal(cht_env_get(env, "b", &b, NULL), CHT_OK);
    fill(a);
    fill(b);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(cht_env_close(env, NULL), CHT_OK);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* What the committer does around a commit of that kind, on a thread of its own. */
static struct cht_thread holder;
static _Atomic bool held, let_go;

static void *hold_main(void *arg)
{
    (void)arg;
    struct cht_db *db = cht_db(a);
    cht_calm_begin(&db->calm);
    for (unsigned i = 0; i < db->nshards; i++)
        cht_rwlock_write(&db->shards[i].lock);
    atomic_store(&held, true);
    while (!atomic_load(&let_go))
        cht_sleep_ns(100000);
    for (unsigned i = 0; i < db->nshards; i++)
        cht_rwlock_write_end(&db->shards[i].lock);
    cht_calm_end(&db->calm);
    return NULL;
}

static void hold(void)
{
    atomic_store(&held, false);
    atomic_store(&let_go, false);
    assert_int_equal(cht_thread_start(&holder, "holder", hold_main, NULL, NULL), CHT_OK);
    while (!atomic_load(&held))
        cht_sleep_ns(100000);
}

static void release(void)
{
    atomic_store(&let_go, true);
    cht_thread_join(&holder);
}

static void told(struct cht_wait *w) { atomic_fetch_add((_Atomic unsigned *)w->ctx, 1); }

static void ready(void *ctx) { atomic_fetch_add((_Atomic unsigned *)ctx, 1); }

static unsigned scan_all(struct cht_store *s, struct cht_scan *sc)
{
    struct cht_entry e[100];
    size_t n;
    unsigned sum = 0;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true};
    if (sc == NULL)
        assert_int_equal(cht_scan_open(s, &cfg, &sc, NULL), CHT_OK);
    do {
        assert_int_equal(cht_scan_next(sc, e, 100, &n, NULL), CHT_OK);
        sum += (unsigned)n;
    } while (n > 0);
    cht_scan_close(sc);
    return sum;
}

static void test_reads_are_told_later(void **state)
{
    (void)state;
    _Atomic unsigned told_n = 0;
    struct cht_wait w[4];
    struct cht_value *v;
    uint64_t key, pairs;
    uint32_t size;
    struct cht_buf buf = {0};
    struct cht_pair_value pv = {.out = &buf};
    struct cht_str name = {(const uint8_t *)"n:00000001", 10};
    for (unsigned i = 0; i < 4; i++)
        w[i] = (struct cht_wait){.done = told, .ctx = &told_n};
    hold(); /* until release: what waits for these locks never comes back */
    assert_int_equal(cht_store_pair_soon(a, name, &key, &w[0], NULL), CHT_PENDING);
    assert_int_equal(cht_store_pair_value_soon(a, name, &pv, &w[1], NULL), CHT_PENDING);
    assert_int_equal(cht_store_count_soon(a, name, &pairs, &w[2], NULL), CHT_PENDING);
    assert_int_equal(cht_value_open_soon(a, 5, &v, &size, &w[3], NULL), CHT_PENDING);
    cht_store_forget(a, &w[3]);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(a, &st, NULL), CHT_OK); /* waits for no lock */
    assert_int_equal(st.pairs, PAIRS);
    assert_int_equal(atomic_load(&told_n), 0);
    release();
    assert_int_equal(atomic_load(&told_n), 3);
    assert_int_equal(cht_store_pair_soon(a, name, &key, &w[0], NULL), CHT_OK);
    assert_int_equal(cht_store_pair_value_soon(a, name, &pv, &w[1], NULL), CHT_OK);
    assert_int_equal(cht_store_count_soon(a, name, &pairs, &w[2], NULL), CHT_OK);
    assert_int_equal(pairs, 1);
    assert_int_equal(pv.size, 10);
    assert_int_equal(atomic_load(&told_n), 3);
    cht_buf_free(&buf);
}

/* There is one worker for both databases. */
static void test_scans_are_put_aside(void **state)
{
    (void)state;
    _Atomic unsigned ready_n = 0;
    struct cht_scan *kept, *names, *closed;
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .values = true, .ready = ready, .ready_ctx = &ready_n};
    struct cht_entry e[10];
    size_t n;
    hold();
    assert_int_equal(cht_scan_open(a, &cfg, &kept, NULL), CHT_OK);
    assert_int_equal(cht_scan_open(a, &cfg, &closed, NULL), CHT_OK);
    cfg.values = false;
    assert_int_equal(cht_scan_open(a, &cfg, &names, NULL), CHT_OK);
    assert_int_equal(cht_scan_poll(kept, e, 10, &n, NULL), CHT_PENDING);
    assert_int_equal(scan_all(b, NULL), PAIRS);
    cht_scan_close(closed); /* does not wait for the commit either */
    assert_int_equal(atomic_load(&ready_n), 0);
    release();
    assert_int_equal(scan_all(a, kept), PAIRS);
    assert_int_equal(scan_all(a, names), PAIRS);
}

static void *sweep_main(void *arg)
{
    (void)arg;
    assert_int_equal(scan_all(b, NULL), PAIRS);
    return NULL;
}

/* Scans that are under way when such a commit begins: it waits for their batches, and they go on after it. */
static void test_scans_under_way(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct cht_scan *sc;
        struct cht_thread other;
        struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true};
        assert_int_equal(cht_scan_open(a, &cfg, &sc, NULL), CHT_OK);
        assert_int_equal(cht_thread_start(&other, "other", sweep_main, NULL, NULL), CHT_OK);
        hold();
        cht_sleep_ns(round * 100000);
        release();
        assert_int_equal(scan_all(a, sc), PAIRS);
        cht_thread_join(&other);
    }
}

/* A real one: readers and scans of both databases beside deletions of a whole namespace, again and again. */
static _Atomic bool stop;
static _Atomic unsigned reads;

static void *read_main(void *arg)
{
    struct cht_store *s = arg;
    struct cht_str name = {(const uint8_t *)"n:00000001", 10};
    while (!atomic_load(&stop)) {
        struct cht_buf buf = {0};
        uint64_t key, pairs;
        uint32_t size;
        enum cht_rc rc = cht_store_pair_value(s, name, &key, &buf, &size, NULL);
        assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
        assert_int_equal(cht_store_count(s, name, &pairs, NULL), CHT_OK);
        (void)scan_all(s, NULL);
        cht_buf_free(&buf);
        atomic_fetch_add(&reads, 1);
    }
    return NULL;
}

static void test_deletions_beside_readers(void **state)
{
    (void)state;
    struct cht_thread readers[4];
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(cht_thread_start(&readers[i], "reader", read_main, i % 2 ? a : b, NULL), CHT_OK);
    while (atomic_load(&reads) == 0)
        cht_sleep_ns(100000);
    for (unsigned round = 0; round < 5; round++) {
        struct cht_op op = {
            .kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = {(const uint8_t *)"n:", 2}};
        struct cht_commit c = {.ops = &op, .count = 1};
        assert_int_equal(cht_store_commit(a, &c), CHT_OK);
        assert_int_equal(op.pairs, PAIRS);
        fill(a);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 4; i++)
        cht_thread_join(&readers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_are_told_later),
        cmocka_unit_test(test_scans_are_put_aside),
        cmocka_unit_test(test_scans_under_way),
        cmocka_unit_test(test_deletions_beside_readers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
