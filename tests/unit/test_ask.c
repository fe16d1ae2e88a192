/* test_ask: operations that are decided about when their turn comes (struct cht_ask): what the decider is shown, what becomes of its
 * answer, alone and in atomic commits, with the values of both shards and after a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cheetah/store.h"

static char base[] = "/tmp/cht-ask-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

/* A decider that notes what it is shown, and answers as it is told. */
struct asker {
    struct cht_ask ask;
    struct cht_found found;
    char value[64]; /* a copy of found.value */
    enum cht_rc answer;
    const char *put; /* becomes op->value; NULL: as it is */
    unsigned calls;
};

static enum cht_rc decide(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                          struct cht_err *e)
{
    struct asker *a = (struct asker *)(void *)ask;
    a->calls++;
    a->found = *found;
    (void)snprintf(a->value, sizeof a->value, "%.*s", (int)found->value.n, (const char *)found->value.p);
    if (a->put != NULL)
        op->value = str(a->put);
    return a->answer == CHT_OK ? CHT_OK : CHT_FAIL(e, a->answer, "refused");
}

static struct asker asker(enum cht_rc answer, const char *put)
{
    return (struct asker){.ask = {.decide = decide, .room = 64}, .answer = answer, .put = put};
}

static void open_env(void)
{
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 4, .durability = CHT_DURABLE_SYNC};
    memset(&err, 0, sizeof err);
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        fail_msg("%s", err.msg);
    assert_true(cht_env_get(env, "default", &s, &err) == CHT_OK ||
                (cht_env_create(env, "default", 0, &err) == CHT_OK &&
                 cht_env_get(env, "default", &s, &err) == CHT_OK));
}

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    if (system(cmd) != 0)
        return 1;
    open_env();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return cht_env_close(env, &err) != CHT_OK;
}

static enum cht_rc run(struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    return cht_store_commit(s, &c);
}

static enum cht_rc put(const char *name, const char *value, struct asker *a)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(value)};
    op.ask = a != NULL ? &a->ask : NULL;
    assert_int_equal(run(&op, 1, 0), CHT_OK);
    return op.rc;
}

static void expect(const char *name, const char *value)
{
    struct cht_buf b = {0};
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = cht_store_pair_value(s, str(name), &key, &b, &size, &err);
    assert_int_equal(rc, value != NULL ? CHT_OK : CHT_PAIR_NOT_FOUND);
    if (value != NULL) {
        assert_int_equal(size, strlen(value));
        assert_memory_equal(b.data, value, size);
    }
    cht_buf_free(&b);
}

/* ------------------------------------------------------------------------------------------------------------ */

static void test_what_is_shown(void **state)
{
    (void)state;
    struct asker a = asker(CHT_OK, "first");
    assert_int_equal(put("name", "", &a), CHT_OK); /* the decider has the value */
    assert_false(a.found.mapped || a.found.live);
    expect("name", "first");
    a = asker(CHT_OK, NULL);
    assert_int_equal(put("name", "second", &a), CHT_OK);
    assert_true(a.found.mapped && a.found.live && a.found.key > 0 && a.found.damage == CHT_OK);
    assert_string_equal(a.value, "first");
    expect("name", "second");
    struct cht_op dangling = {.kind = CHT_OP_PAIR_SET, .name = str("dangling"), .key = 4711};
    assert_int_equal(run(&dangling, 1, 0), CHT_OK);
    a = asker(CHT_OK, NULL);
    assert_int_equal(put("dangling", "new", &a), CHT_OK);
    assert_true(a.found.mapped && !a.found.live && a.found.key == 4711);
}

static void test_by_key(void **state)
{
    (void)state;
    struct asker a[4];
    for (int i = 0; i < 4; i++)
        a[i] = asker(CHT_OK, NULL);
    a[2].answer = CHT_NOT_A_NUMBER;
    struct cht_op ops[] = {
        {.kind = CHT_OP_INSERT, .value = str("value")},
        {.kind = CHT_OP_EDIT, .key = 1, .value = str("edited"), .ask = &a[0].ask},
        {.kind = CHT_OP_EDIT, .key = 99, .value = str("none"), .ask = &a[1].ask},
        {.kind = CHT_OP_DELETE, .key = 1, .ask = &a[2].ask},
        {.kind = CHT_OP_DELETE, .key = 1, .ask = &a[3].ask},
    };
    assert_int_equal(run(ops, 5, 0), CHT_OK);
    assert_string_equal(a[0].value, "value");
    assert_false(a[1].found.live);
    assert_string_equal(a[3].value, "edited"); /* a commit sees what it has done */
    assert_int_equal(ops[2].rc, CHT_KEY_NOT_FOUND);
    assert_int_equal(ops[3].rc, CHT_NOT_A_NUMBER);
    assert_int_equal(ops[4].rc, CHT_OK);
    assert_int_equal(cht_store_get(s, 1, NULL, NULL, &err), CHT_KEY_NOT_FOUND);
}

static void test_a_refusal_undoes_an_atomic_commit(void **state)
{
    (void)state;
    struct asker yes = asker(CHT_OK, "yes"), no = asker(CHT_NUMBER_OVERFLOW, "no");
    assert_int_equal(put("b", "before", NULL), CHT_OK);
    struct cht_op ops[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = str("a"), .ask = &yes.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = str("b"), .ask = &no.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = str("c"), .value = str("c")},
    };
    struct cht_commit c = {.ops = ops, .count = 3, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(s, &c), CHT_BATCH_FAILED);
    assert_int_equal(c.failed, 1);
    assert_string_equal(c.err.msg, "refused");
    expect("a", NULL);
    expect("b", "before");
    assert_int_equal(run(ops, 3, 0), CHT_OK); /* by themselves */
    expect("a", "yes");
    expect("b", "before");
    expect("c", "c");
    no.answer = CHT_OK;
    assert_int_equal(run(ops, 3, CHT_COMMIT_ATOMIC), CHT_OK);
    cht_env_abandon(env);
    open_env();
    expect("b", "no");
    expect("c", "c");
}

static void test_where_nothing_is_decided(void **state)
{
    (void)state;
    struct asker a = asker(CHT_OK, NULL);
    struct cht_op ops[] = {
        {.kind = CHT_OP_PREFIX_DEL, .name = str("n"), .ask = &a.ask},
        {.kind = CHT_OP_INSERT, .value = str("v"), .ask = &a.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = {NULL, 0}, .value = str("v"), .ask = &a.ask},
        {.kind = CHT_OP_EDIT, .key = 0, .value = str("v"), .ask = &a.ask},
    };
    assert_int_equal(put("name", "v", NULL), CHT_OK);
    assert_int_equal(run(ops, 4, 0), CHT_OK);
    assert_int_equal(ops[0].rc, CHT_INVALID_ARGUMENT);
    assert_int_equal(ops[1].rc, CHT_INVALID_ARGUMENT);
    assert_int_equal(ops[2].rc, CHT_INVALID_PAIR);
    assert_int_equal(ops[3].rc, CHT_INVALID_KEY);
    struct cht_op put_op = {.kind = CHT_OP_PAIR_PUT, .name = str("x"), .value = str("v"), .ask = &a.ask};
    assert_int_equal(run(&put_op, 1, CHT_COMMIT_UNORDERED), CHT_OK);
    assert_int_equal(put_op.rc, CHT_INVALID_ARGUMENT);
    assert_int_equal(a.calls, 0);
    expect("name", "v");
}

/* A value that the decider makes must be legal too; long ones are written while readers go on. */
static void test_the_value_is_checked(void **state)
{
    (void)state;
    struct asker a = asker(CHT_OK, "");
    assert_int_equal(put("name", "v", &a), CHT_EMPTY_VALUE);
    expect("name", NULL);
    size_t n = 3u << 20;
    char *large = malloc(n + 1);
    assert_non_null(large);
    memset(large, 'l', n);
    large[n] = 0;
    a = asker(CHT_OK, large);
    a.ask.room = n;
    assert_int_equal(put("name", "v", &a), CHT_OK);
    a = asker(CHT_OK, "short");
    assert_int_equal(put("name", "v", &a), CHT_OK);
    assert_int_equal(a.found.value.n, n);
    expect("name", "short");
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_by_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refusal_undoes_an_atomic_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_where_nothing_is_decided, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_value_is_checked, setup, teardown),
    };
    assert_non_null(mkdtemp(base));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 ? 1 : failed;
}
