/* test_faults: a full disk, I/O errors and short transfers at the n-th call, failing allocations at the n-th, n = 1, 2, ...
 * until nothing fails any more, once and from then on. No crash, sensible codes; what was acknowledged is there after
 * reopening without faults, what was not is there wholly or not at all; after a failed write or sync the store only reads.
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
#include "support/model.h"
#include "support/simdisk.h"

static const char *const dirs[] = {"/a"};

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

static bool sensible(enum cht_rc rc)
{
    return rc == CHT_OK || rc == CHT_DISK_FULL || rc == CHT_IO || rc == CHT_READ_ONLY ||
           rc == CHT_OUTCOME_UNKNOWN || rc == CHT_NO_MEMORY || rc == CHT_BATCH_FAILED ||
           rc == CHT_DATABASE_NOT_FOUND;
}

struct outcome {
    struct model m;    /* what was acknowledged */
    struct model next; /* with the commit whose fate is not known, if `doubt` */
    bool doubt, created;
    bool lost;    /* nothing can be read before a restart */
    bool stopped; /* a commit was refused because the store only reads */
};

/* Operations that failed for want of memory in a commit that went through: the model takes them as not done. */
static void apply_partial(struct model *m, struct model_batch *b, struct cht_commit *c)
{
    for (unsigned i = 0; i < b->count; i++) {
        enum cht_rc rc = b->ops[i].rc;
        if (rc != CHT_NO_MEMORY && rc != CHT_DISK_FULL)
            continue;
        free(b->bytes[i]);
        cht_buf_free(&b->buf[i]);
        memmove(&b->ops[i], &b->ops[i + 1], (b->count - i - 1) * sizeof b->ops[0]);
        memmove(&b->seed[i], &b->seed[i + 1], (b->count - i - 1) * sizeof b->seed[0]);
        memmove(&b->name[i], &b->name[i + 1], (b->count - i - 1) * sizeof b->name[0]);
        memmove(&b->other[i], &b->other[i + 1], (b->count - i - 1) * sizeof b->other[0]);
        memmove(&b->bytes[i], &b->bytes[i + 1], (b->count - i - 1) * sizeof b->bytes[0]);
        memmove(&b->buf[i], &b->buf[i + 1], (b->count - i - 1) * sizeof b->buf[0]);
        b->count--;
        i--;
    }
    c->count = b->count;
    model_apply(m, b, c);
}

/* What a read found is not compared here: those operations are left out with the failed ones. */
static void leave_out_reads(struct model_batch *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        if (b->ops[i].kind == CHT_OP_READ || b->ops[i].kind == CHT_OP_PAIR_READ)
            b->ops[i].rc = CHT_DISK_FULL;
    }
}

/* A commit that failed with the log may have reached it: if all of it had been applied, the state with it is possible too. */
static void note_doubt(struct outcome *o, struct model_batch *b, struct cht_commit *c)
{
    bool all = true, good = true;
    for (unsigned i = 0; i < b->count; i++) {
        all = all && b->ops[i].rc != CHT_CLOSED; /* what it was before: not run */
        all = all && b->ops[i].rc != CHT_IO;     /* stops the group before it is logged */
        good = good && b->ops[i].rc == CHT_OK;
    }
    if (!all || ((b->flags & CHT_COMMIT_ATOMIC) != 0 && !good))
        return;
    model_copy(&o->next, &o->m);
    c->rc = CHT_OK;
    leave_out_reads(b);
    apply_partial(&o->next, b, c);
    o->doubt = true;
}

/* One commit; false when the workload should stop. */
static bool commit_one(struct outcome *o, struct cht_store *s, struct cht_rng *r, uint32_t max)
{
    struct model_batch *b = malloc(sizeof *b);
    model_random_batch(&o->m, r, max, b);
    for (unsigned i = 0; i < b->count; i++) {
        b->ops[i].buf = NULL;
        b->ops[i].rc = CHT_CLOSED;
    }
    struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    bool go_on = true;
    assert_true(sensible(rc));
    if (rc == CHT_OK) {
        leave_out_reads(b);
        apply_partial(&o->m, b, &c);
    } else if (rc == CHT_READ_ONLY || rc == CHT_OUTCOME_UNKNOWN || rc == CHT_IO) {
        if (rc == CHT_OUTCOME_UNKNOWN) /* the others were not done, for certain */
            note_doubt(o, b, &c);
        o->stopped = true;
        go_on = false;
    }
    model_batch_free(b);
    free(b);
    return go_on;
}

static void workload(struct simdisk *d, struct outcome *o, unsigned commits)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct cht_rng r;
    cht_rng_seed(&r, 11);
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    assert_true(sensible(rc));
    if (rc != CHT_OK)
        return;
    rc = cht_env_create(env, "default", 0, &err);
    assert_true(sensible(rc));
    o->created = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    assert_true(sensible(rc));
    for (unsigned i = 0; rc == CHT_OK && i < commits; i++) {
        if (!commit_one(o, s, &r, i % 12 == 5 ? 300000 : 1000))
            break;
        if (i % 17 == 16)
            assert_true(sensible(cht_store_checkpoint(s, &err)));
    }
    if (o->stopped) { /* reads go on, and the next write is refused */
        uint64_t n;
        struct cht_op op = {.kind = CHT_OP_INSERT, .value = {(const uint8_t *)"x", 1}};
        struct cht_commit c = {.ops = &op, .count = 1};
        char why[300] = "";
        /* Waits until what was refused is taken back, which the disk may refuse as well. */
        o->lost = cht_store_get(s, 1, NULL, NULL, &err) == CHT_READ_ONLY;
        assert_int_equal(cht_store_count(s, (struct cht_str){NULL, 0}, &n, &err),
                         o->lost ? CHT_READ_ONLY : CHT_OK);
        if (!o->lost && !o->doubt && model_compare(&o->m, s, why, sizeof why) != 0)
            fail_msg("before the restart: %s", why);
        assert_int_equal(cht_store_commit(s, &c), CHT_READ_ONLY);
    }
    assert_true(sensible(cht_env_close(env, &err)));
}

/* Exactly what was acknowledged, or that and the commit in doubt. */
static void verify(struct simdisk *d, struct outcome *o, const char *what)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    char why[300] = "";
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    enum cht_rc rc = cht_env_get(env, "default", &s, &err);
    if (rc == CHT_DATABASE_NOT_FOUND && !o->created) {
        rc = cht_env_create(env, "default", 0, &err); /* what was left does not stand in the way */
        if (rc == CHT_OK)
            rc = cht_env_get(env, "default", &s, &err);
    }
    if (rc != CHT_OK)
        fail_msg("%s: opening without faults: %s", what, err.msg);
    if (model_compare(&o->m, s, why, sizeof why) != 0 &&
        (!o->doubt || model_compare(&o->next, s, why, sizeof why) != 0))
        fail_msg("%s%s: %s", what, o->doubt ? " (nor with the commit in doubt)" : "", why);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    uint64_t findings = 0;
    struct cht_env_config again = config(d);
    rc = cht_check(&again, NULL, (void (*)(void *, const char *, const char *))(void (*)(void))print_error,
                   NULL, &findings, &err);
    if (rc != CHT_OK || findings != 0)
        fail_msg("%s: check: %llu findings %s", what, (unsigned long long)findings, err.msg);
}

/* One run with the fault at call n; how many were injected. */
static uint64_t run_fault(enum sim_fault kind, bool forever, uint64_t n, unsigned commits)
{
    char what[80];
    struct outcome o = {0};
    struct simdisk *d = simdisk_new();
    (void)snprintf(what, sizeof what, "fault %d at call %llu%s", (int)kind, (unsigned long long)n,
                   forever ? " and after" : "");
    model_init(&o.m, 60, 5);
    simdisk_fail_at(d, n, kind, forever);
    workload(d, &o, commits);
    uint64_t injected = simdisk_injected(d);
    simdisk_fail_at(d, 0, SIM_NONE, false);
    if (o.lost && !forever)
        fail_msg("%s: the pages could not be taken back", what);
    verify(d, &o, what);
    simdisk_free(d);
    model_free(&o.m);
    if (o.doubt)
        model_copy_free(&o.next);
    return injected;
}

static void loop(enum sim_fault kind, bool forever)
{
    unsigned commits = (unsigned)number("CHT_TEST_COMMITS", 40);
    uint64_t n = 1, stride = number("CHT_TEST_STRIDE", 1);
    assert_true(run_fault(kind, forever, 1, commits) > 0);
    while (run_fault(kind, forever, n, commits) > 0)
        n += stride;
    print_message("%llu calls\n", (unsigned long long)n);
    assert_true(n > 100);
}

static void test_full_once(void **state)
{
    (void)state;
    loop(SIM_FULL, false);
}
static void test_full_forever(void **state)
{
    (void)state;
    loop(SIM_FULL, true);
}
static void test_error_once(void **state)
{
    (void)state;
    loop(SIM_EIO, false);
}
static void test_error_forever(void **state)
{
    (void)state;
    loop(SIM_EIO, true);
}
static void test_short_forever(void **state)
{
    (void)state;
    loop(SIM_SHORT, true);
}

static void alloc_loop(bool forever)
{
    unsigned commits = (unsigned)number("CHT_TEST_COMMITS", 40);
    uint64_t n = 1, stride = number("CHT_TEST_STRIDE", 1), injected;
    do {
        char what[80];
        struct outcome o = {0};
        struct simdisk *d = simdisk_new();
        (void)snprintf(what, sizeof what, "allocation %llu fails%s", (unsigned long long)n,
                       forever ? " and all after" : "");
        model_init(&o.m, 60, 5);
        cht_alloc_fail_at(n, forever);
        workload(d, &o, commits);
        injected = cht_alloc_failures();
        cht_alloc_fail_at(0, false);
        assert_true(n > 1 || injected > 0);
        verify(d, &o, what);
        simdisk_free(d);
        model_free(&o.m);
        if (o.doubt)
            model_copy_free(&o.next);
        n += stride;
    } while (injected > 0);
    print_message("%llu allocations\n", (unsigned long long)n);
}

static void test_memory_once(void **state)
{
    (void)state;
    alloc_loop(false);
}
static void test_memory_forever(void **state)
{
    (void)state;
    alloc_loop(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_once),      cmocka_unit_test(test_full_forever),
        cmocka_unit_test(test_error_once),     cmocka_unit_test(test_error_forever),
        cmocka_unit_test(test_short_forever),  cmocka_unit_test(test_memory_once),
        cmocka_unit_test(test_memory_forever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
