/* test_identity: a power cut at any point while databases are made and dropped, in two directories: afterwards each is there wholly or
 * not at all, nothing is left of what was unfinished, its name can be used, and another database is as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cheetah/store.h"
#include "support/simdisk.h"

static const char *const dirs[] = {"/a", "/b"};

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 15,
                                   .scan_workers = 1,
                                   .commit_threads = 1,
                                   .manual_checkpoint = true,
                                   .io = simdisk_io(d)};
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err->msg);
}

static struct cht_env *open_env(struct simdisk *d)
{
    struct cht_env_config cfg = config(d);
    struct cht_env *env = NULL;
    struct cht_err err = {0};
    must(cht_env_open(&cfg, &env, &err), &err);
    return env;
}

static void put(struct cht_env *env, const char *name)
{
    struct cht_store *s = NULL;
    struct cht_err err = {0};
    must(cht_env_get(env, name, &s, &err), &err);
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                        .name = {(const uint8_t *)"n", 1},
                        .value = {(const uint8_t *)name, strlen(name)}};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c), &c.err);
}

static bool has(struct cht_env *env, const char *name)
{
    struct cht_store *s = NULL;
    struct cht_err err = {0};
    struct cht_buf b = {0};
    uint64_t key;
    uint32_t size = 0;
    must(cht_env_get(env, name, &s, &err), &err);
    enum cht_rc rc =
        cht_store_pair_value(s, (struct cht_str){(const uint8_t *)"n", 1}, &key, &b, &size, &err);
    bool there = rc == CHT_OK && b.len == strlen(name) && memcmp(b.data, name, b.len) == 0;
    assert_true(there || rc == CHT_PAIR_NOT_FOUND);
    cht_buf_free(&b);
    return there;
}

static void add_name(void *ctx, const char *name)
{
    (void)strcat(ctx, name);
    (void)strcat(ctx, " ");
}

static void see_finished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    (void)ctx;
    if (rc != CHT_OK)
        fail_msg("unfinished: %s: %s", name, what);
}

static void see_entry(void *ctx, const char *name, enum cht_io_kind kind)
{
    char word[300];
    (void)snprintf(word, sizeof word, "%.200s ", name);
    if (kind == CHT_IO_FOLDER && strstr(ctx, word) == NULL)
        fail_msg("the folder %s is left; databases: %s", name, (const char *)ctx);
}

static void see_finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    fail_msg("check: %s: %s", where, what);
}

/* keep was there before; victim was dropped and fresh made while the power was cut. */
enum moment { DROPPING, DROPPED, MADE }; /* what was answered before the cut */

static void verify(struct simdisk *d, enum moment answered)
{
    struct cht_env_config cfg = config(d);
    struct cht_err err = {0};
    char list[400] = "";
    uint64_t findings = 0;
    struct cht_env *env = open_env(d);
    must(cht_env_finish(env, see_finished, NULL, &err), &err);
    must(cht_env_list(env, add_name, list, &err), &err);
    for (int i = 0; i < 2; i++)
        must(simdisk_io(d)->ops->list(simdisk_io(d), dirs[i], see_entry, list, &err), &err);
    assert_true(has(env, "keep"));
    if (strstr(list, "victim ") != NULL) {
        assert_int_equal(answered, DROPPING);
        assert_true(has(env, "victim"));
    } else {
        must(cht_env_create(env, "victim", 0, &err), &err);
    }
    if (strstr(list, "fresh ") != NULL) {
        assert_int_not_equal(answered, DROPPING);
        assert_false(has(env, "fresh"));
    } else {
        assert_int_not_equal(answered, MADE);
        must(cht_env_create(env, "fresh", 0, &err), &err);
    }
    must(cht_env_close(env, &err), &err);
    must(cht_check(&cfg, NULL, see_finding, NULL, &findings, &err), &err);
}

static void test_cuts(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    struct cht_err err = {0};
    struct cht_rng r;
    cht_rng_seed(&r, 11);
    struct cht_env *env = open_env(d);
    must(cht_env_create(env, "keep", 0, &err), &err);
    must(cht_env_create(env, "victim", 0, &err), &err);
    put(env, "keep");
    put(env, "victim");
    size_t begin = simdisk_events(d);
    must(cht_env_drop(env, "victim", &err), &err);
    size_t dropped = simdisk_events(d);
    must(cht_env_create(env, "fresh", 0, &err), &err);
    size_t end = simdisk_events(d);
    cht_env_abandon(env);
    struct simcut *c = simcut_new(d);
    unsigned runs = 0, stride = getenv("CHT_TEST_LONG") != NULL ? 1 : 3;
    while (simcut_step(c)) {
        size_t at = simcut_at(c);
        if (at < begin || at > end || (at % stride != 0 && at != dropped && at != end))
            continue;
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            struct simdisk *after = simcut_disk(c, (enum sim_mode)mode, &r);
            verify(after, at == end ? MADE : at >= dropped ? DROPPED : DROPPING);
            if (at == end && mode == SIM_DROP)
                runs += 1000; /* the last cut was reached */
            simdisk_free(after);
            runs++;
        }
    }
    print_message("%u cuts\n", runs - 1000);
    assert_true(runs > 1100);
    simcut_free(c);
    simdisk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
