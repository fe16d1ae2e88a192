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

#include "support/kept.h"

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
        op->value = kept_str(a->put);
    return a->answer == CHT_OK ? CHT_OK : CHT_FAIL(e, a->answer, "refused");
}

static struct asker asker(enum cht_rc answer, const char *put)
{
    return (struct asker){.ask = {.decide = decide, .room = 64}, .answer = answer, .put = put};
}

static enum cht_rc put(const char *name, const char *value, struct asker *a)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = kept_str(name), .value = kept_str(value)};
    op.ask = a != NULL ? &a->ask : NULL;
    assert_int_equal(kept_commit(&op, 1, 0), CHT_OK);
    return op.rc;
}

static void expect(const char *name, const char *value)
{
    struct cht_buf b = {0};
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = cht_store_pair_value(kept.s, kept_str(name), &key, &b, &size, &kept.err);
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
    struct cht_op dangling = {.kind = CHT_OP_PAIR_SET, .name = kept_str("dangling"), .key = 4711};
    assert_int_equal(kept_commit(&dangling, 1, 0), CHT_OK);
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
        {.kind = CHT_OP_INSERT, .value = kept_str("value")},
        {.kind = CHT_OP_EDIT, .key = 1, .value = kept_str("edited"), .ask = &a[0].ask},
        {.kind = CHT_OP_EDIT, .key = 99, .value = kept_str("none"), .ask = &a[1].ask},
        {.kind = CHT_OP_DELETE, .key = 1, .ask = &a[2].ask},
        {.kind = CHT_OP_DELETE, .key = 1, .ask = &a[3].ask},
    };
    assert_int_equal(kept_commit(ops, 5, 0), CHT_OK);
    assert_string_equal(a[0].value, "value");
    assert_false(a[1].found.live);
    assert_string_equal(a[3].value, "edited"); /* a commit sees what it has done */
    assert_int_equal(ops[2].rc, CHT_KEY_NOT_FOUND);
    assert_int_equal(ops[3].rc, CHT_NOT_A_NUMBER);
    assert_int_equal(ops[4].rc, CHT_OK);
    assert_int_equal(cht_store_get(kept.s, 1, NULL, NULL, &kept.err), CHT_KEY_NOT_FOUND);
}

static void test_a_refusal_undoes_an_atomic_commit(void **state)
{
    (void)state;
    struct asker yes = asker(CHT_OK, "yes"), no = asker(CHT_NUMBER_OVERFLOW, "no");
    assert_int_equal(put("b", "before", NULL), CHT_OK);
    struct cht_op ops[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = kept_str("a"), .ask = &yes.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = kept_str("b"), .ask = &no.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = kept_str("c"), .value = kept_str("c")},
    };
    struct cht_commit c = {.ops = ops, .count = 3, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(kept.s, &c), CHT_BATCH_FAILED);
    assert_int_equal(c.failed, 1);
    assert_string_equal(c.err.msg, "refused");
    expect("a", NULL);
    expect("b", "before");
    assert_int_equal(kept_commit(ops, 3, 0), CHT_OK); /* by themselves */
    expect("a", "yes");
    expect("b", "before");
    expect("c", "c");
    no.answer = CHT_OK;
    assert_int_equal(kept_commit(ops, 3, CHT_COMMIT_ATOMIC), CHT_OK);
    cht_env_abandon(kept.env);
    kept_open();
    expect("b", "no");
    expect("c", "c");
}

static void test_where_nothing_is_decided(void **state)
{
    (void)state;
    struct asker a = asker(CHT_OK, NULL);
    struct cht_op ops[] = {
        {.kind = CHT_OP_PREFIX_DEL, .name = kept_str("n"), .ask = &a.ask},
        {.kind = CHT_OP_INSERT, .value = kept_str("v"), .ask = &a.ask},
        {.kind = CHT_OP_PAIR_PUT, .name = {NULL, 0}, .value = kept_str("v"), .ask = &a.ask},
        {.kind = CHT_OP_EDIT, .key = 0, .value = kept_str("v"), .ask = &a.ask},
    };
    assert_int_equal(put("name", "v", NULL), CHT_OK);
    assert_int_equal(kept_commit(ops, 4, 0), CHT_OK);
    assert_int_equal(ops[0].rc, CHT_INVALID_ARGUMENT);
    assert_int_equal(ops[1].rc, CHT_INVALID_ARGUMENT);
    assert_int_equal(ops[2].rc, CHT_INVALID_PAIR);
    assert_int_equal(ops[3].rc, CHT_INVALID_KEY);
    struct cht_op put_op = {
        .kind = CHT_OP_PAIR_PUT, .name = kept_str("x"), .value = kept_str("v"), .ask = &a.ask};
    assert_int_equal(kept_commit(&put_op, 1, CHT_COMMIT_UNORDERED), CHT_OK);
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
        KEPT_TEST(test_what_is_shown),
        KEPT_TEST(test_by_key),
        KEPT_TEST(test_a_refusal_undoes_an_atomic_commit),
        KEPT_TEST(test_where_nothing_is_decided),
        KEPT_TEST(test_the_value_is_checked),
    };
    kept_durability = CHT_DURABLE_SYNC;
    return KEPT_MAIN(tests);
}
