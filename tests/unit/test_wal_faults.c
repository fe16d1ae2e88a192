/* test_wal_faults: a failure of any call to the disk, of an allocation or of who replays leaves a log that opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "support/logs.h"

/* ---- failures ------------------------------------------------------------------------------------------------------- */

static void test_disk_full(void **state)
{
    (void)state;
    struct cht_wal *w = logs_open(0, 0, NULL);
    struct cht_err err = {0};
    logs_fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    assert_int_equal(cht_wal_reserve(w, 10, &err), CHT_DISK_FULL);
    assert_int_equal(logs_look().files, 0);
    logs_heal();
    logs_append(w, 4000, true);
    logs_fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    assert_int_equal(cht_wal_reserve(w, 5000, &err), CHT_DISK_FULL);
    assert_int_equal(logs_look().files, 1);
    logs_append(w, 2000, true); /* there is still room for this one */
    assert_int_equal(cht_wal_reserve(w, 5000, NULL), CHT_DISK_FULL);
    logs_fault(OP_WRITE, 1, true, CHT_DISK_FULL); /* a file system that tells it late */
    assert_int_equal(cht_wal_reserve(w, 5000, &err), CHT_DISK_FULL);
    logs_fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    OK(cht_wal_reserve(w, 500, E));
    logs_heal();
    logs_append(w, 5000, true);
    OK(cht_wal_trim(w, 3, 2, E));
    logs_fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    logs_append(w, 5000, true); /* into a spare segment, which needs no space */
    logs_heal();
    OK(cht_wal_close(w, false, E));
    struct logs_seen s = {.max = 0, .exact = 5000};
    w = logs_open(3, 4, &s);
    assert_int_equal(s.count, 1);
    OK(cht_wal_close(w, false, E));
    assert_int_equal(cht_wal_close(NULL, true, NULL), CHT_OK);
}

static void test_poison(void **state)
{
    (void)state;
    static const struct {
        enum logs_op op;
        bool switching; /* needs a new segment */
    } cases[] = {{OP_WRITE, false}, {OP_SYNC, false}, {OP_WRITE, true}, {OP_SYNC, true}, {OP_SYNC_DIR, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        logs_wipe();
        logs_heal();
        struct cht_wal *w = logs_open(0, 0, NULL);
        logs_append(w, 100, true);
        logs_append(w, 100, true);
        struct cht_err err = {0};
        uint8_t b[7000] = {1};
        struct cht_wal_part part = {b, cases[i].switching ? sizeof b : 100};
        uint64_t seq;
        if (!cases[i].switching)
            logs_append(w, 100, false);
        logs_fault(cases[i].op, 1, false, CHT_IO);
        enum cht_rc rc = cht_wal_reserve(w, cases[i].switching ? 7900 : 100, &err);
        if (rc == CHT_OK)
            rc = cht_wal_append(w, &part, 1, &seq, &err);
        if (rc == CHT_OK)
            rc = cht_wal_sync(w, &err);
        assert_int_equal(rc, CHT_IO);
        assert_int_equal(logs_disk.failed, 1);
        logs_heal(); /* the disk is well again, the log is not */
        assert_int_equal(cht_wal_reserve(w, 1, &err), CHT_READ_ONLY);
        assert_non_null(strstr(err.msg, "injected failure"));
        assert_int_equal(cht_wal_append(w, &part, 1, &seq, NULL), CHT_READ_ONLY);
        assert_int_equal(cht_wal_sync(w, &err), CHT_READ_ONLY);
        assert_int_equal(cht_wal_trim(w, 1, 0, &err), CHT_READ_ONLY);
        assert_int_equal(cht_wal_synced(w), 2);
        assert_int_equal(cht_wal_close(w, true, &err), CHT_READ_ONLY);
        struct cht_wal_config c = logs_config(false);
        OK(cht_wal_open(&c, &w, E));
        struct logs_seen s = {.exact = 100};
        OK(cht_wal_replay(w, 0, 2, logs_see, &s, E));
        assert_true(s.count >= 2 && s.count <= 4);
        OK(cht_wal_close(w, false, E));
    }
}

/* Every call fails in its turn, and from there on all of them, as if the process had been killed there. Whatever happened,
 * the log opens with everything that was synced. */
static uint64_t workload(uint64_t *acked)
{
    struct cht_wal_config c = logs_config(false);
    struct cht_wal *w;
    struct logs_seen s = {.exact = 500};
    struct cht_err err = {0};
    uint8_t b[500];
    uint64_t trimmed = 0;
    *acked = 0;
    if (cht_wal_open(&c, &w, &err) != CHT_OK)
        return 0;
    enum cht_rc rc = cht_wal_replay(w, 0, 0, logs_see, &s, &err);
    for (uint64_t i = 1; i <= 90 && rc == CHT_OK; i++) {
        logs_fill(i, b, sizeof b);
        struct cht_wal_part part = {b, sizeof b};
        uint64_t seq;
        rc = cht_wal_reserve(w, sizeof b, &err);
        if (rc == CHT_OK)
            rc = cht_wal_append(w, &part, 1, &seq, &err);
        if (rc == CHT_OK && i % 2 == 0)
            rc = cht_wal_sync(w, &err);
        if (rc == CHT_OK && i % 2 == 0)
            *acked = i;
        if (rc == CHT_OK && i % 20 == 0) {
            trimmed = i - 4;
            rc = cht_wal_trim(w, trimmed, 1, &err);
        }
    }
    if (rc == CHT_OK) /* everything is checkpointed */
        trimmed = 90;
    (void)cht_wal_close(w, rc == CHT_OK, &err); /* may be the call that fails */
    return trimmed;
}

static void test_every_call_fails(void **state)
{
    (void)state;
    for (int forever = 0; forever < 2; forever++) {
        bool reached = true;
        for (long n = 1; reached; n++) {
            logs_wipe();
            logs_fault(OP_COUNT, n, forever, CHT_IO);
            uint64_t acked, trimmed = workload(&acked);
            reached = logs_disk.failed > 0;
            assert_true(reached || n > 1);
            logs_heal();
            struct logs_seen s = {.exact = 500};
            struct cht_wal *w = logs_open(trimmed, acked, &s);
            assert_true(cht_wal_seq(w) >= acked && cht_wal_seq(w) <= acked + 2);
            uint64_t last = cht_wal_seq(w);
            logs_append(w, 500, true);
            OK(cht_wal_close(w, false, E));
            s = (struct logs_seen){.exact = 500};
            w = logs_open(trimmed, last + 1, &s);
            assert_int_equal(s.count, last + 1 - trimmed);
            OK(cht_wal_close(w, true, E));
            assert_int_equal(logs_look().bytes, LOGS_HEADER);
        }
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        logs_wipe();
        cht_alloc_fail_at(n, true);
        uint64_t before = cht_alloc_failures();
        uint64_t acked, trimmed = workload(&acked);
        uint64_t failures = cht_alloc_failures() - before;
        cht_alloc_fail_at(0, false);
        reached = failures > 0;
        assert_true(reached || n > 1);
        struct logs_seen s = {.exact = 500};
        struct cht_wal *w = logs_open(trimmed, acked, &s);
        OK(cht_wal_close(w, false, E));
    }
}

/* A failing callback ends the replay with its code. */
static enum cht_rc refuse(void *ctx, uint64_t seq, const uint8_t *p, size_t n, struct cht_err *err)
{
    (void)ctx;
    (void)p;
    (void)n;
    return seq == 3 ? CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "no") : CHT_OK;
}

static void test_callback_fails(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    free(logs_six(&n, ends));
    struct cht_wal_config c = logs_config(false);
    struct cht_wal *w;
    struct cht_err err = {0};
    OK(cht_wal_open(&c, &w, E));
    assert_int_equal(cht_wal_replay(w, 0, 0, refuse, NULL, &err), CHT_KEYS_EXHAUSTED);
    OK(cht_wal_close(w, true, E)); /* not replayed: nothing may be deleted */
    struct logs_seen s = {.max = 50};
    w = logs_open(0, 6, &s);
    assert_int_equal(s.count, 6);
    OK(cht_wal_close(w, false, E));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, logs_setup, logs_teardown)
    const struct CMUnitTest tests[] = {
        T(test_disk_full), T(test_poison),         T(test_every_call_fails),
        T(test_no_memory), T(test_callback_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
