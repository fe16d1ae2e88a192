/* test_passing: a passing condition passes. No room, no descriptor, no memory, a disk mounted read-only at the n-th call that can
 * say so, n = 1, 2, ... until none is left; for one call, for five, and until it is lifted. While it lasts calls fail with its
 * code; when it is over the same open database goes on, holds exactly what was acknowledged, checkpoints, closes cleanly and
 * checks without a finding. No condition of these makes a database read-only or counts as damage, at a start neither.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/model.h"
#include "support/simdisk.h"

#define FOR_GOOD UINT64_MAX

static const char *const dirs[] = {"/a"};

/* Each at the calls that can say it. Appends to the log go into space that was allocated, and a failed one cannot be taken back. */
#define OPENING (1u << SIM_OPEN | 1u << SIM_SYNC_DIR | 1u << SIM_LIST)
#define WRITING (1u << SIM_PWRITE | 1u << SIM_ALLOCATE)
#define CHANGING (1u << SIM_TRUNCATE | 1u << SIM_PUNCH | 1u << SIM_RENAME | 1u << SIM_UNLINK)
struct condition {
    const char *name;
    int sys;
    unsigned calls;
};
static const struct condition conditions[] = {
    {"no room", ENOSPC, WRITING | 1u << SIM_OPEN},
    {"no descriptor", EMFILE, OPENING},
    {"no memory", ENOMEM, OPENING | 1u << SIM_MAP | 1u << SIM_REMAP | 1u << SIM_PREAD | 1u << SIM_PWRITE},
    {"read-only disk", EROFS, WRITING | CHANGING},
};
#define CONDITIONS (sizeof conditions / sizeof *conditions)

static void impose(struct simdisk *d, const struct condition *k, uint64_t n, uint64_t times)
{
    const struct sim_plan plan = {.sys = k->sys,
                                  .first = n,
                                  .times = times,
                                  .calls = k->calls,
                                  .unwritten = ".log",
                                  .missing = k->sys == ENOSPC};
    simdisk_plan(d, &plan);
}

static struct {
    unsigned begun, over, stopped;
    enum cht_rc last;
    char msg[200];
} told;

static void hear(void *ctx, const char *database, enum cht_trouble_kind kind, const struct cht_err *why)
{
    (void)ctx;
    assert_string_equal(database, "default");
    told.stopped += kind == CHT_TROUBLE_STOPPED;
    if (why->code == CHT_OK) {
        told.over++;
    } else {
        told.begun++;
        told.last = why->code;
        (void)snprintf(told.msg, sizeof told.msg, "%s", why->msg);
    }
}

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .trouble = hear,
                                   .io = simdisk_io(d)};
}

/* What an operation that met the condition left out: the model takes it as not done. */
static void apply_rest(struct model *m, struct model_batch *b, struct cht_commit *c)
{
    for (unsigned i = 0; i < b->count; i++) {
        bool read = b->ops[i].kind == CHT_OP_READ || b->ops[i].kind == CHT_OP_PAIR_READ;
        if (!read && !cht_rc_passing(b->ops[i].rc))
            continue;
        free(b->bytes[i]);
        cht_buf_free(&b->buf[i]);
        unsigned n = b->count - i - 1;
        memmove(&b->ops[i], &b->ops[i + 1], n * sizeof b->ops[0]);
        memmove(&b->seed[i], &b->seed[i + 1], n * sizeof b->seed[0]);
        memmove(&b->name[i], &b->name[i + 1], n * sizeof b->name[0]);
        memmove(&b->other[i], &b->other[i + 1], n * sizeof b->other[0]);
        memmove(&b->bytes[i], &b->bytes[i + 1], n * sizeof b->bytes[0]);
        memmove(&b->buf[i], &b->buf[i + 1], n * sizeof b->buf[0]);
        b->count--;
        i--;
    }
    c->count = b->count;
    model_apply(m, b, c);
}

/* One commit. What fails as a whole has changed nothing. */
static void commit_one(struct model *m, struct cht_store *s, struct cht_rng *r, uint32_t max,
                       const char *what)
{
    struct model_batch *b = malloc(sizeof *b);
    model_random_batch(m, r, max, b);
    for (unsigned i = 0; i < b->count; i++) {
        b->ops[i].buf = NULL;
        b->ops[i].rc = CHT_CLOSED;
    }
    struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc == CHT_OK)
        apply_rest(m, b, &c);
    else if (rc != CHT_BATCH_FAILED && !cht_rc_passing(rc))
        fail_msg("%s: a commit says %s: %s", what, cht_rc_slug(rc), c.err.msg);
    model_batch_free(b);
    free(b);
}

static void try_checkpoint(struct cht_store *s, const char *what)
{
    struct cht_err err = {0};
    enum cht_rc rc = cht_store_checkpoint(s, &err);
    if (rc != CHT_OK && !cht_rc_passing(rc))
        fail_msg("%s: a checkpoint says %s: %s", what, cht_rc_slug(rc), err.msg);
}

static void must_hold(const struct model *m, struct cht_store *s, const char *what, const char *when)
{
    char why[300] = "";
    if (model_compare(m, s, why, sizeof why) != 0)
        fail_msg("%s: %s: %s", what, when, why);
}

static void must_check(struct simdisk *d, const char *what)
{
    struct cht_err err = {0};
    uint64_t findings = 0;
    struct cht_env_config cfg = config(d);
    enum cht_rc rc =
        cht_check(&cfg, NULL, (void (*)(void *, const char *, const char *))(void (*)(void))print_error, NULL,
                  &findings, &err);
    if (rc != CHT_OK || findings != 0)
        fail_msg("%s: check: %llu findings %s", what, (unsigned long long)findings, err.msg);
}

static struct cht_store *open_store(struct simdisk *d, struct cht_env **env, bool create)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_store *s = NULL;
    assert_int_equal(cht_env_open(&cfg, env, &err), CHT_OK);
    if (create)
        assert_int_equal(cht_env_create(*env, "default", 0, &err), CHT_OK);
    if (cht_env_get(*env, "default", &s, &err) != CHT_OK)
        fail_msg("opening without faults: %s", err.msg);
    return s;
}

/* The condition comes while the database is in use. How many calls met it. */
static uint64_t run_used(const struct condition *k, uint64_t times, uint64_t n)
{
    char what[80];
    struct cht_err err = {0};
    struct model m;
    struct cht_rng r;
    struct cht_env *env;
    struct simdisk *d = simdisk_new();
    (void)snprintf(what, sizeof what, "%s at call %llu, %lld times", k->name, (unsigned long long)n,
                   (long long)times);
    memset(&told, 0, sizeof told);
    model_init(&m, 60, 5);
    cht_rng_seed(&r, 11);
    struct cht_store *s = open_store(d, &env, true);
    for (unsigned i = 0; i < 10; i++)
        commit_one(&m, s, &r, 3000, what);
    impose(d, k, n, times);
    for (unsigned i = 0; i < 24; i++) {
        commit_one(&m, s, &r, i % 6 == 5 ? 300000 : 3000, what);
        if (i % 8 == 5)
            try_checkpoint(s, what);
    }
    uint64_t injected = simdisk_injected(d);
    must_hold(&m, s, what, "while it lasts");
    simdisk_plan(d, NULL);

    struct cht_op op = {.kind = CHT_OP_DELETE, .key = CHT_KEY_MAX};
    struct cht_commit c = {.ops = &op, .count = 1};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK); /* goes on: the key is not there */
    for (unsigned i = 0; i < 6; i++)
        commit_one(&m, s, &r, 3000, what);
    if (cht_store_checkpoint(s, &err) != CHT_OK)
        fail_msg("%s: the checkpoint after it: %s", what, err.msg);
    struct cht_scrub scrub = {0};
    assert_int_equal(cht_store_scrub(s, &scrub, &err), CHT_OK);
    if (scrub.bad != 0)
        fail_msg("%s: the scrub finds %s", what, scrub.first.msg);
    must_hold(&m, s, what, "when it is over");
    assert_int_equal(told.stopped, 0);
    assert_true(told.begun == 0 || injected > 0);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    must_check(d, what);
    s = open_store(d, &env, false);
    must_hold(&m, s, what, "after opening again");
    cht_env_abandon(env);
    simdisk_free(d);
    model_free(&m);
    return injected;
}

/* The condition lasts when the database is killed: what was acknowledged is there at the next start. */
static uint64_t run_killed(const struct condition *k, uint64_t n)
{
    char what[80];
    struct model m;
    struct cht_rng r;
    struct cht_env *env;
    struct simdisk *d = simdisk_new();
    (void)snprintf(what, sizeof what, "%s at call %llu, then killed", k->name, (unsigned long long)n);
    model_init(&m, 60, 5);
    cht_rng_seed(&r, 12);
    struct cht_store *s = open_store(d, &env, true);
    for (unsigned i = 0; i < 10; i++)
        commit_one(&m, s, &r, 3000, what);
    impose(d, k, n, FOR_GOOD);
    for (unsigned i = 0; i < 10; i++)
        commit_one(&m, s, &r, i % 6 == 5 ? 300000 : 3000, what);
    try_checkpoint(s, what);
    uint64_t injected = simdisk_injected(d);
    cht_env_abandon(env);
    simdisk_plan(d, NULL);
    must_check(d, what);
    s = open_store(d, &env, false);
    must_hold(&m, s, what, "after the kill");
    cht_env_abandon(env);
    simdisk_free(d);
    model_free(&m);
    return injected;
}

/* The condition comes at a start after a kill: refused with its code and no other, and the next start has everything. */
static uint64_t run_start(const struct condition *k, uint64_t n)
{
    char what[80];
    struct cht_err err = {0};
    struct model m;
    struct cht_rng r;
    struct cht_env *env = NULL;
    struct simdisk *d = simdisk_new();
    (void)snprintf(what, sizeof what, "%s at call %llu of a start", k->name, (unsigned long long)n);
    model_init(&m, 60, 5);
    cht_rng_seed(&r, 13);
    struct cht_store *s = open_store(d, &env, true);
    for (unsigned i = 0; i < 20; i++) {
        commit_one(&m, s, &r, i % 6 == 5 ? 300000 : 3000, what);
        if (i == 9)
            try_checkpoint(s, what);
    }
    cht_env_abandon(env);

    struct cht_env_config cfg = config(d);
    impose(d, k, n, FOR_GOOD);
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    if (rc == CHT_OK) {
        rc = cht_env_get(env, "default", &s, &err);
        cht_env_abandon(env);
    }
    if (rc != CHT_OK && !cht_rc_passing(rc))
        fail_msg("%s: %s: %s", what, cht_rc_slug(rc), err.msg);
    uint64_t injected = simdisk_injected(d);
    simdisk_plan(d, NULL);
    must_check(d, what);
    s = open_store(d, &env, false);
    must_hold(&m, s, what, "at the next start");
    cht_env_abandon(env);
    simdisk_free(d);
    model_free(&m);
    return injected;
}

static uint64_t stride(void)
{
    return getenv("CHT_TEST_LONG") != NULL ? 1 : 3; /* every call in the long form */
}

static void used_loop(uint64_t times)
{
    for (const struct condition *k = conditions; k < conditions + CONDITIONS; k++) {
        uint64_t n = 1;
        assert_true(run_used(k, times, 1) > 0);
        while (run_used(k, times, n) > 0)
            n += stride();
        print_message("%s: %llu calls\n", k->name, (unsigned long long)n);
        assert_true(n > 3);
    }
}

static void test_once(void **state)
{
    (void)state;
    used_loop(1);
}

static void test_for_a_while(void **state)
{
    (void)state;
    used_loop(5);
}

static void test_until_lifted(void **state)
{
    (void)state;
    used_loop(FOR_GOOD);
}

static void test_killed(void **state)
{
    (void)state;
    for (const struct condition *k = conditions; k < conditions + CONDITIONS; k++) {
        assert_true(run_killed(k, 1) > 0);
        for (uint64_t n = 1; run_killed(k, n) > 0;)
            n += stride();
    }
}

static void test_start(void **state)
{
    (void)state;
    for (const struct condition *k = conditions; k < conditions + CONDITIONS; k++) {
        assert_true(run_start(k, 1) > 0);
        for (uint64_t n = 1; run_start(k, n) > 0;)
            n += stride();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),         cmocka_unit_test(test_for_a_while),
        cmocka_unit_test(test_until_lifted), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
