/* test_backup_faults: backup and restore with faults of the disk and of the allocator at the n-th call, n = 1, 2, ..., on
 * either side, and with power cuts while restoring: a copy is exact or refused, a database is there wholly or not at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "support/copies.h"

/* ---- faults -------------------------------------------------------------------------------------------------------- */

/* A backup during which the n-th call fails: it is refused or exact, and the commits go on unless it was one of theirs that
 * failed. Returns whether anything failed. */
static bool faulty_backup(uint64_t n, enum sim_fault kind, bool alloc)
{
    struct copy_source o;
    struct cht_err err = {0};
    struct cht_backup *b = NULL;
    struct cht_buf stream = {0};
    struct model moment;
    copy_source_open(&o, 21);
    for (unsigned i = 0; i < 25; i++)
        copy_commit(&o);
    uint64_t failures = cht_alloc_failures();
    model_copy(&moment, &o.m);
    if (alloc)
        cht_alloc_fail_at(n, false);
    else
        simdisk_fail_at(o.disk, n, kind, false);
    enum cht_rc rc = cht_backup_open(o.s, &b, &err);
    if (rc == CHT_OK) {
        uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
        size_t got = 1;
        for (unsigned i = 0; rc == CHT_OK && got > 0; i++) {
            rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &got, &err);
            if (rc == CHT_OK && got > 0)
                copy_add(&stream, buf, got);
            if (i % 2 == 0) {
                struct cht_op op[2];
                uint8_t *v = malloc(300000);
                char name[2][40];
                copy_put(&op[0], name[0], 40, v, 300000, i, "large-%u", i % 3);
                copy_put(&op[1], name[1], 40, v, 300000, i, "large-%u", i % 2);
                struct cht_commit c = {.ops = op, .count = 2};
                (void)cht_store_commit(o.s, &c); /* its own fault is test_faults' matter */
                (void)cht_store_checkpoint(o.s, NULL);
                free(v);
            }
        }
        free(buf);
        cht_backup_close(b);
    }
    bool any = alloc ? cht_alloc_failures() > failures : simdisk_injected(o.disk) > 0;
    cht_alloc_fail_at(0, false);
    simdisk_fail_at(o.disk, 0, SIM_NONE, false);
    if (rc == CHT_OK) {
        struct simdisk *d = simdisk_new();
        char what[60];
        (void)snprintf(what, sizeof what, "fault at call %llu", (unsigned long long)n);
        copy_must(copy_restore(d, &stream, stream.len, "copy", &err), &err);
        copy_verify(d, "copy", &moment, what);
        simdisk_free(d);
    } else {
        assert_true(any);
        assert_true(err.msg[0] != 0);
        assert_int_not_equal(copy_check_stream(stream.data, stream.len, &err), CHT_OK);
        rc = cht_backup_open(o.s, &b, &err); /* the failed one is forgotten */
        assert_true(rc == CHT_OK || rc == CHT_READ_ONLY);
        if (rc == CHT_OK)
            cht_backup_close(b);
    }
    model_copy_free(&moment);
    cht_buf_free(&stream);
    cht_env_abandon(o.env);
    simdisk_free(o.disk);
    model_free(&o.m);
    return any;
}

static void test_faults_source(void **state)
{
    (void)state;
    uint64_t stride = copy_number("CHT_TEST_STRIDE", 7), runs = 0;
    static const enum sim_fault kinds[] = {SIM_EIO, SIM_FULL};
    for (int k = 0; k < 2; k++) {
        for (uint64_t n = 1; faulty_backup(n, kinds[k], false); n += n < 40 ? 1 : stride)
            runs++;
    }
    assert_true(runs > 100);
    print_message("%llu runs with disk faults\n", (unsigned long long)runs);
    for (uint64_t n = 1; faulty_backup(n, SIM_NONE, true); n += n < 40 ? 1 : stride * 5)
        runs++;
    print_message("%llu runs in all\n", (unsigned long long)runs);
}

static void test_faults_target(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    copy_source_open(&o, 22);
    copy_make_stream(&o, &s, 30);
    uint64_t runs = 0;
    for (int kind = SIM_FULL; kind <= SIM_EIO + 1; kind++) { /* the last round: the allocator */
        for (uint64_t n = 1;; n++) {
            struct simdisk *d = simdisk_new();
            uint64_t failures = cht_alloc_failures();
            if (kind > SIM_EIO)
                cht_alloc_fail_at(n, false);
            else
                simdisk_fail_at(d, n, (enum sim_fault)kind, false);
            enum cht_rc rc = copy_restore(d, &s, s.len, "copy", &err);
            bool any = kind > SIM_EIO ? cht_alloc_failures() > failures : simdisk_injected(d) > 0;
            cht_alloc_fail_at(0, false);
            simdisk_fail_at(d, 0, SIM_NONE, false);
            assert_int_equal(copy_databases(d), rc == CHT_OK ? 1 : 0);
            if (rc != CHT_OK) /* the same disk takes it the next time */
                copy_must(copy_restore(d, &s, s.len, "copy", &err), &err);
            if (n % 8 == 1)
                copy_verify(d, "copy", &o.m, "a target with faults");
            simdisk_free(d);
            runs++;
            if (!any)
                break;
        }
    }
    print_message("%llu runs\n", (unsigned long long)runs);
    assert_true(runs > 50);
    cht_buf_free(&s);
    copy_source_close(&o);
}

static void test_cut_restore(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    struct cht_rng r;
    cht_rng_seed(&r, 4);
    copy_source_open(&o, 23);
    copy_make_stream(&o, &s, 30);
    struct simdisk *d = simdisk_new();
    copy_must(copy_restore(d, &s, s.len, "copy", &err), &err);
    struct simcut *c = simcut_new(d);
    unsigned whole = 0, none = 0;
    do {
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            unsigned n = copy_databases(cut);
            if (n == 0) {
                none++;
                if (none % 16 == 0)
                    copy_must(copy_restore(cut, &s, s.len, "copy", &err), &err);
            } else {
                whole++;
            }
            if (n == 1 || none % 16 == 0)
                copy_verify(cut, "copy", &o.m, "a restore that was cut off");
            simdisk_free(cut);
        }
    } while (simcut_step(c));
    print_message("cut at %zu events: %u times whole, %u times none\n", simcut_at(c), whole, none);
    assert_true(whole > 0 && none > 50);
    simcut_free(c);
    simdisk_free(d);
    cht_buf_free(&s);
    copy_source_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_source),
        cmocka_unit_test(test_faults_target),
        cmocka_unit_test(test_cut_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
