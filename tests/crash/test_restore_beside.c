/* test_restore_beside: a restore into an environment that serves other databases: until it is done the name is taken, and nothing that others
 * do takes its folders for something that was left unfinished.
 */
#include "support/copies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void count_unfinished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    (void)name, (void)rc, (void)what;
    ++*(unsigned *)ctx;
}

static void note_name(void *ctx, const char *name)
{
    bool *seen = ctx;
    *seen = *seen || strcmp(name, "copy") == 0;
}

/* Everything that another call can do about the name. */
static void others(struct cht_env *env, const struct cht_buf *stream)
{
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_restore *second;
    bool flag = false, listed = false;
    unsigned unfinished = 0;
    assert_int_equal(cht_env_create(env, "copy", 2, &err), CHT_DATABASE_BUSY);
    assert_int_equal(cht_env_create(env, "Copy", 2, &err), CHT_DATABASE_BUSY);
    assert_int_equal(cht_env_get(env, "copy", &s, &err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_drop(env, "copy", &err), CHT_DATABASE_BUSY);
    assert_int_equal(cht_env_release(env, "copy", &flag, &err), CHT_DATABASE_BUSY);
    assert_false(flag);
    assert_int_equal(cht_env_is_clean(env, "copy", &flag, &err), CHT_DATABASE_BUSY);
    copy_must(cht_restore_new(env, "copy", &second, &err), &err);
    assert_int_equal(cht_restore_feed(second, stream->data, stream->len, &err), CHT_DATABASE_BUSY);
    cht_restore_free(second);
    copy_must(cht_env_finish(env, count_unfinished, &unfinished, &err), &err);
    assert_int_equal(unfinished, 0);
    copy_must(cht_env_list(env, note_name, &listed, &err), &err);
    assert_false(listed);
    copy_must(cht_env_create(env, "elsewhere", 1, &err), &err);
    copy_must(cht_env_drop(env, "elsewhere", &err), &err);
}

/* Pieces of the stream with all of that after each; then it is whole. Before, one that is given up half way. */
static void test_a_restore_beside_others(void **state)
{
    struct copy_source o;
    struct cht_err err = {0};
    struct cht_buf stream = {0};
    struct cht_restore *r;
    struct cht_env *env;
    struct cht_store *s;
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = copy_config(d);
    char why[300] = "";
    (void)state;
    copy_source_open(&o, copy_number("CHT_TEST_SEED", 5));
    copy_make_stream(&o, &stream, 120);
    copy_must(cht_env_open(&cfg, &env, &err), &err);
    for (int whole = 0; whole < 2; whole++) {
        size_t step = stream.len / 5 + 1, upto = whole ? stream.len : stream.len / 2;
        copy_must(cht_restore_new(env, "copy", &r, &err), &err);
        for (size_t at = 0; at < upto; at += step) {
            copy_must(cht_restore_feed(r, stream.data + at, upto - at < step ? upto - at : step, &err), &err);
            others(env, &stream);
        }
        if (whole)
            copy_must(cht_restore_finish(r, &err), &err);
        else
            assert_int_equal(cht_restore_finish(r, &err), CHT_CORRUPT);
        cht_restore_free(r);
        if (!whole) { /* the name is free: one is made and dropped */
            copy_must(cht_env_create(env, "copy", 2, &err), &err);
            copy_must(cht_env_drop(env, "copy", &err), &err);
        }
    }
    copy_must(cht_env_get(env, "copy", &s, &err), &err);
    if (model_compare(&o.m, s, why, sizeof why) != 0)
        fail_msg("the copy is not the source: %s", why);
    copy_must(cht_env_close(env, &err), &err);
    simdisk_free(d);
    cht_buf_free(&stream);
    copy_source_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_restore_beside_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
