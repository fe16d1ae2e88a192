/* test_model: random commits of every kind against a plain model, with checkpoints, clean and unclean reopening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/model.h"

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

/* `ops` operations; the database is compared at each reopening and at the end. */
static void run(uint64_t seed, uint64_t ops, unsigned shards, unsigned names, uint32_t max_value)
{
    char dir[] = "/tmp/cht-model-XXXXXX", cmd[64], why[300] = "";
    assert_non_null(mkdtemp(dir));
    const char *dirs[] = {dir};
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = shards,
                                 .durability = CHT_DURABLE_OS,
                                 .log_segment_bytes = 1u << 20,
                                 .checkpoint_log_bytes = 8u << 20,
                                 .value_order = CHT_ORDER_ALWAYS,
                                 .dirty_bytes = 8u << 20};
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_store *s;
    struct model m;
    struct cht_rng r;
    print_message("seed %llu, %llu operations, %u shards\n", (unsigned long long)seed,
                  (unsigned long long)ops, shards);
    cht_rng_seed(&r, seed);
    model_init(&m, names, seed);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    must(cht_env_get(env, "default", &s, &err), &err);
    for (uint64_t done = 0; done < ops;) {
        struct model_batch *b = malloc(sizeof *b);
        model_random_batch(&m, &r, max_value, b);
        struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
        (void)cht_store_commit(s, &c);
        model_apply(&m, b, &c);
        done += b->count;
        model_batch_free(b);
        free(b);
        uint64_t dice = cht_rng_below(&r, 4000);
        if (dice == 0)
            must(cht_store_checkpoint(s, &err), &err);
        if (dice != 1 && dice != 2)
            continue;
        if (dice == 1)
            cht_env_abandon(env);
        else
            must(cht_env_close(env, &err), &err);
        uint64_t findings;
        must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
        assert_int_equal(findings, 0);
        must(cht_env_open(&cfg, &env, &err), &err);
        must(cht_env_get(env, "default", &s, &err), &err);
        if (model_compare(&m, s, why, sizeof why) != 0)
            fail_msg("after %llu operations (seed %llu): %s", (unsigned long long)done,
                     (unsigned long long)seed, why);
    }
    if (model_compare(&m, s, why, sizeof why) != 0)
        fail_msg("at the end (seed %llu): %s", (unsigned long long)seed, why);
    must(cht_env_close(env, &err), &err);
    uint64_t findings;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
    model_free(&m);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_few_names(void **state)
{
    (void)state;
    run(number("CHT_TEST_SEED", 1), number("CHT_TEST_OPS", 1200000) / 4, 3, 300, 1u << 20);
}

static void test_many_names(void **state)
{
    (void)state;
    run(number("CHT_TEST_SEED", 2), number("CHT_TEST_OPS", 1200000) / 2, 8, 20000, 1u << 16);
}

static void test_one_shard(void **state)
{
    (void)state;
    run(number("CHT_TEST_SEED", 3), number("CHT_TEST_OPS", 1200000) / 4, 1, 5000, 1u << 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_few_names), cmocka_unit_test(test_many_names),
                                       cmocka_unit_test(test_one_shard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
