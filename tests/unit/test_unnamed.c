/* test_unnamed: files without names (os/io.h): as on a disk for who made them, not there for anybody else, and never more than there is room for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "cheetah/store.h"
#include "os/io.h"

static char dir[200];

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    (void)snprintf(dir, sizeof dir, "%.150s/test_unnamed.XXXXXX", tmp != NULL ? tmp : ".");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(dir); /* nothing is in it */
}

static void count(void *ctx, const char *name, enum cht_io_kind kind)
{
    unsigned *n = ctx;
    n[kind == CHT_IO_FOLDER]++;
    n[2] += strcmp(name, "b") == 0;
}

static enum cht_io_kind kind_of(struct cht_io *io, const char *path)
{
    enum cht_io_kind kind = CHT_IO_OTHER;
    assert_int_equal(cht_io_kind(io, path, &kind, NULL), CHT_OK);
    return kind;
}

/* Names, folders, what replaces what. */
static void names(const char *where)
{
    struct cht_io *io;
    struct cht_file *f, *g;
    struct cht_err e = {0};
    struct cht_io_stat before, after;
    uint8_t b[8] = {0};
    unsigned n[3] = {0};
    assert_int_equal(cht_io_unnamed_new(where, NULL, &io, &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, "d", &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, "d/in", &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, "d", &e), CHT_OK);
    assert_int_equal(cht_io_open(io, "d/a", 0, &f, &e), CHT_NO_FILE);
    assert_int_equal(cht_io_open(io, "d/a", CHT_OPEN_CREATE | CHT_OPEN_EXCL, &f, &e), CHT_OK);
    assert_int_equal(cht_io_open(io, "d/a", CHT_OPEN_CREATE | CHT_OPEN_EXCL, &g, &e), CHT_IO);
    assert_int_equal(io->ops->mkdir(io, "d/a", &e), CHT_IO);
    assert_int_equal(cht_file_write(f, "hello", 5, 3, &e), CHT_OK);
    assert_int_equal(cht_file_sync(f, &e), CHT_OK);
    cht_file_close(f);
    assert_int_equal(cht_io_replace(io, "d/in", "c", "xy", 2, &e), CHT_OK);
    assert_int_equal(io->ops->stat(io, "d/a", 0, &before, &e), CHT_OK);
    assert_true(before.kind == CHT_IO_FILE && before.size == 8 && before.inode != 0);
    assert_int_equal(io->ops->rename(io, "d/in/c", "d/b", &e), CHT_OK);
    assert_int_equal(io->ops->list(io, "d", count, n, &e), CHT_OK);
    assert_true(n[0] == 2 && n[1] == 1 && n[2] == 1);
    assert_int_equal(io->ops->rename(io, "d/a", "d/b", &e), CHT_OK);
    assert_int_equal(kind_of(io, "d/a"), CHT_IO_NOTHING);
    assert_int_equal(io->ops->rename(io, "d/a", "d/b", &e), CHT_NO_FILE);
    assert_int_equal(io->ops->rename(io, "d/b", "d/b", &e), CHT_OK); /* to itself: it stays */
    assert_int_equal(io->ops->rename(io, "d", "moved", &e), CHT_OK);
    assert_int_equal(kind_of(io, "d/b"), CHT_IO_NOTHING);
    assert_int_equal(kind_of(io, "moved/in"), CHT_IO_FOLDER);
    assert_int_equal(io->ops->stat(io, "moved/b", 0, &after, &e), CHT_OK);
    assert_true(after.inode == before.inode && after.size == 8);
    assert_int_equal(cht_io_open(io, "moved/b", CHT_OPEN_RDONLY | CHT_OPEN_NOLINK | CHT_OPEN_REST, &f, &e),
                     CHT_OK);
    assert_int_equal(cht_file_read(f, b, 8, 0, &e), CHT_OK);
    assert_memory_equal(b, "\0\0\0hello", 8);
    cht_file_close(f);
    assert_int_equal(io->ops->rmdir(io, "moved", &e), CHT_IO);
    assert_int_equal(io->ops->unlink(io, "moved/in", &e), CHT_NO_FILE);
    assert_int_equal(io->ops->unlink(io, "moved/b", &e), CHT_OK);
    assert_int_equal(io->ops->rmdir(io, "moved/in", &e), CHT_OK);
    assert_int_equal(io->ops->rmdir(io, "moved", &e), CHT_OK);
    assert_int_equal(io->ops->rmdir(io, "moved", &e), CHT_IO);
    char deep[200];
    memset(deep, 'x', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_int_equal(cht_io_open(io, deep, CHT_OPEN_CREATE, &f, &e), CHT_INVALID_ARGUMENT);
    assert_int_equal(io->ops->mkdir(io, "d", &e), CHT_OK);
    assert_int_equal(io->ops->rename(io, "d", deep, &e), CHT_INVALID_ARGUMENT);
    assert_int_equal(kind_of(io, "d"), CHT_IO_FOLDER);
    cht_io_unnamed_free(io);
}

static void test_names(void **state)
{
    (void)state;
    names(NULL);
    names(dir);
    cht_io_unnamed_free(NULL);
}

static void test_no_place(void **state)
{
    struct cht_io *io;
    struct cht_file *f;
    (void)state;
    assert_int_equal(cht_io_unnamed_new("/nothing/is/there", NULL, &io, NULL), CHT_OK);
    assert_int_equal(cht_io_open(io, "a", CHT_OPEN_CREATE, &f, NULL), CHT_NO_FILE);
    assert_int_equal(kind_of(io, "a"), CHT_IO_NOTHING);
    cht_io_unnamed_free(io);
}

/* Two tables share it. What is written over takes nothing more; what is removed is given back. */
static void test_room(void **state)
{
    struct cht_io *io[2];
    struct cht_file *f[2];
    struct cht_io_room room = {.most = 2 << 20};
    struct cht_err e = {0};
    uint8_t *bytes = calloc(1, 1 << 20);
    (void)state;
    memset(bytes, 1, 1 << 20);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(cht_io_unnamed_new(dir, &room, &io[i], &e), CHT_OK);
        assert_int_equal(cht_io_open(io[i], "a", CHT_OPEN_CREATE, &f[i], &e), CHT_OK);
    }
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(cht_file_write(f[0], bytes, 1 << 20, 0, &e), CHT_OK);
    assert_int_equal(cht_file_write(f[1], bytes, 512 << 10, 0, &e), CHT_OK);
    assert_int_equal(cht_file_write(f[1], bytes, 1 << 20, 1 << 20, &e), CHT_DISK_FULL);
    assert_int_equal(f[1]->io->ops->allocate(f[1], 1 << 20, 1 << 20, &e), CHT_DISK_FULL);
    assert_int_equal(f[1]->io->ops->truncate(f[1], UINT64_C(1) << 30, &e), CHT_OK); /* a hole */
    assert_int_equal(cht_file_write(f[1], bytes, 4096, 1 << 20, &e), CHT_OK);
    cht_file_close(f[0]);
    cht_io_unnamed_free(io[0]);
    assert_int_equal(cht_file_write(f[1], bytes, 1 << 20, 1 << 20, &e), CHT_OK);
    cht_file_close(f[1]);
    cht_io_unnamed_free(io[1]);
    assert_true(atomic_load(&room.taken) == 0);
    free(bytes);
}

/* A table of 2000 files, and none more. */
static void test_many(void **state)
{
    struct cht_io *io;
    char path[16];
    unsigned n = 0;
    enum cht_rc rc = CHT_OK;
    (void)state;
    assert_int_equal(cht_io_unnamed_new(NULL, NULL, &io, NULL), CHT_OK);
    while (rc == CHT_OK) {
        (void)snprintf(path, sizeof path, "f%u", n++);
        rc = io->ops->mkdir(io, path, NULL);
    }
    assert_int_equal(rc, CHT_NO_DESCRIPTORS);
    assert_int_equal(n, 2001);
    cht_io_unnamed_free(io);
}

/* A database lies in them as on a disk, and is there again as long as they are. */
static void test_database(void **state)
{
    struct cht_io *io;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err e = {0};
    const char *dirs[] = {"data"};
    struct cht_buf b = {0};
    uint64_t key;
    (void)state;
    assert_int_equal(cht_io_unnamed_new(dir, NULL, &io, &e), CHT_OK);
    const struct cht_env_config cfg = {.dirs = dirs, .dir_count = 1, .io = io, .scan_workers = 1};
    assert_int_equal(cht_env_open(&cfg, &env, &e), CHT_OK);
    assert_int_equal(cht_env_create(env, "one", 4, &e), CHT_OK);
    assert_int_equal(cht_env_get(env, "one", &s, &e), CHT_OK);
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"n", 1}, .value = {(const uint8_t *)"v", 1}};
    struct cht_commit c = {.ops = &op, .count = 1};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(cht_env_close(env, &e), CHT_OK);
    assert_int_equal(cht_env_open(&cfg, &env, &e), CHT_OK);
    assert_int_equal(cht_env_get(env, "one", &s, &e), CHT_OK);
    assert_int_equal(cht_store_pair_value(s, op.name, &key, &b, NULL, &e), CHT_OK);
    assert_true(b.len == 1 && b.data[0] == 'v');
    assert_int_equal(cht_env_drop(env, "one", &e), CHT_OK);
    cht_env_abandon(env);
    cht_io_unnamed_free(io);
    cht_buf_free(&b);
}

static void test_allocations(void **state)
{
    (void)state;
    for (uint64_t n = 1, reached = 1; reached; n++) {
        struct cht_io *io = NULL;
        struct cht_file *f = NULL;
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = cht_io_unnamed_new(dir, NULL, &io, NULL);
        if (rc == CHT_OK)
            rc = cht_io_open(io, "a", CHT_OPEN_CREATE, &f, NULL);
        reached = cht_alloc_failures();
        cht_alloc_fail_at(0, false);
        assert_int_equal(rc, reached ? CHT_NO_MEMORY : CHT_OK);
        cht_file_close(f);
        cht_io_unnamed_free(io);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test(test_no_place),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test(test_many),
        cmocka_unit_test_setup_teardown(test_database, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocations, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
