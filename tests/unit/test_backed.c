/* test_backed: a page whose space was given back asks for space again before it is used, however often that happens. A full disk is
 * then told to the write (disk_full), not met by a reader or a checkpoint. Counts the calls that allocate.
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
#include "os/io.h"

#define VALUES 10u /* fewer pages than are asked for at once */
#define SIZE 4000u

static char dir[] = "/tmp/cht-backed-XXXXXX";
static unsigned allocated, punched; /* calls for `values` */

static bool is_values(const struct cht_file *f)
{
    size_t n = strlen(f->path);
    return n > 7 && strcmp(f->path + n - 7, "/values") == 0;
}

static enum cht_rc allocate(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    allocated += is_values(f);
    return cht_io_posix()->ops->allocate(f, off, len, err);
}

static enum cht_rc punch(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    punched += is_values(f);
    return cht_io_posix()->ops->punch(f, off, len, err);
}

static void put_all(struct cht_store *s, uint64_t *keys)
{
    uint8_t v[SIZE];
    memset(v, 7, sizeof v);
    for (unsigned i = 0; i < VALUES; i++) {
        struct cht_op op = {.kind = CHT_OP_INSERT, .value = {v, sizeof v}};
        struct cht_commit c = {.ops = &op, .count = 1};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
        keys[i] = op.key;
    }
}

static void delete_all(struct cht_store *s, const uint64_t *keys)
{
    for (unsigned i = 0; i < VALUES; i++) {
        struct cht_op op = {.kind = CHT_OP_DELETE, .key = keys[i]};
        struct cht_commit c = {.ops = &op, .count = 1};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(cht_store_checkpoint(s, NULL), CHT_OK);
}

static void test_space_is_asked_for_each_time(void **state)
{
    (void)state;
    struct cht_io_ops ops = *cht_io_posix()->ops;
    ops.allocate = allocate;
    ops.punch = punch;
    struct cht_io io = {&ops};
    const char *dirs[] = {mkdtemp(dir)};
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 1,
                                 .durability = CHT_DURABLE_OS,
                                 .manual_checkpoint = true,
                                 .io = &io};
    struct cht_env *env;
    struct cht_store *s;
    uint64_t keys[VALUES];
    assert_int_equal(cht_env_open(&cfg, &env, NULL), CHT_OK);
    assert_int_equal(cht_env_create(env, "default", 0, NULL), CHT_OK);
    assert_int_equal(cht_env_get(env, "default", &s, NULL), CHT_OK);
    put_all(s, keys);
    delete_all(s, keys);
    for (unsigned round = 0; round < 5; round++) {
        assert_true(punched > 0); /* else there is nothing to see */
        allocated = punched = 0;
        put_all(s, keys);
        assert_true(allocated > 0);
        delete_all(s, keys);
    }
    assert_int_equal(cht_env_close(env, NULL), CHT_OK);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_space_is_asked_for_each_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
