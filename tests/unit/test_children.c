/* test_children: memory that fails, a client that goes, names that are too long; what children of a prefix are, tests/http/test_children.py says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "cheetah/children.h"

#define GROUPS 30u
#define EACH 7u

static char base[] = "/tmp/cht-children-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static int setup(void **state)
{
    (void)state;
    char cmd[128], name[32];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 4, .scan_workers = 2, .durability = CHT_DURABLE_OS};
    memset(&err, 0, sizeof err);
    if (system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK ||
        cht_env_create(env, "names", 4, &err) != CHT_OK || cht_env_get(env, "names", &s, &err) != CHT_OK)
        return 1;
    for (unsigned i = 0; i < GROUPS * EACH; i++) {
        (void)snprintf(name, sizeof name, "g%02u:%u", i % GROUPS, i);
        struct cht_op op = {.kind = CHT_OP_PAIR_SET, .name = str(name), .key = i + 1};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
            return 1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return cht_env_close(env, &err) != CHT_OK;
}

struct seen {
    unsigned n;
    unsigned most;           /* 0: all */
    _Atomic bool *cancel_it; /* after the second */
};

static bool see(void *ctx, const struct cht_child *c)
{
    struct seen *seen = ctx;
    char want[8];
    (void)snprintf(want, sizeof want, "g%02u:", seen->n++);
    assert_int_equal(c->name.n, 4);
    assert_memory_equal(c->name.p, want, 4);
    assert_int_equal(c->pairs, EACH);
    assert_int_equal(c->key, 0);
    if (seen->cancel_it != NULL && seen->n == 2)
        atomic_store(seen->cancel_it, true);
    return seen->n != seen->most;
}

static enum cht_rc ask(struct seen *seen)
{
    struct cht_children_config cfg = {
        .prefix = str("g"), .separator = str(":"), .cancel = seen->cancel_it, .each = see, .ctx = seen};
    return cht_store_children(s, &cfg, &err);
}

static void test_all_and_some(void **state)
{
    (void)state;
    struct seen all = {0}, some = {.most = 5};
    assert_int_equal(ask(&all), CHT_OK);
    assert_int_equal(all.n, GROUPS);
    assert_int_equal(ask(&some), CHT_OK);
    assert_int_equal(some.n, 5);
}

static void test_memory_fails(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        struct seen seen = {0};
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = ask(&seen);
        cht_alloc_fail_at(0, false);
        if (rc == CHT_OK) {
            assert_int_equal(seen.n, GROUPS);
            break;
        }
        assert_int_equal(rc, CHT_NO_MEMORY);
        assert_int_equal(seen.n, 0);
        failed++;
    }
    assert_int_equal(failed, 3);
}

static void test_cancelled(void **state)
{
    (void)state;
    _Atomic bool stop = false;
    struct seen seen = {.cancel_it = &stop};
    assert_int_equal(ask(&seen), CHT_CANCELLED);
    assert_int_equal(seen.n, 2);
}

static void test_too_long(void **state)
{
    (void)state;
    static uint8_t name[CHT_NAME_MAX + 1];
    struct seen seen = {0};
    struct cht_children_config cfg = {.prefix = {name, sizeof name}, .each = see, .ctx = &seen};
    assert_int_equal(cht_store_children(s, &cfg, &err), CHT_INVALID_PAIR);
    cfg.prefix.n = 0;
    cfg.after = (struct cht_str){name, sizeof name};
    assert_int_equal(cht_store_children(s, &cfg, &err), CHT_INVALID_PAIR);
    assert_int_equal(seen.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_and_some),
        cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_too_long),
    };
    if (mkdtemp(base) == NULL)
        return 1;
    int rc = cmocka_run_group_tests(tests, setup, teardown);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 ? 1 : rc;
}
