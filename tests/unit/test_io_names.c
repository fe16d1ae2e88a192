/* test_io_names: what is done by name: a folder and its entry, a file that is known again, links and pipes in the place of files. On the real file
 * system, and with the simulated one for what fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/io.h"
#include "support/simdisk.h"

static char dir[200];

static const char *in_dir(const char *name)
{
    static char path[4][300];
    static unsigned next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", dir, name); /* dir is short */
    return p;
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof dir, "%.150s/test_io_names.XXXXXX", tmp != NULL ? tmp : ".");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return cht_io_remove_tree(cht_io_posix(), dir, NULL) == CHT_OK ? 0 : -1;
}

static void write_file(const char *name, const char *text)
{
    struct cht_file *f = NULL;
    assert_int_equal(cht_io_open(cht_io_posix(), in_dir(name), CHT_OPEN_CREATE, &f, NULL), CHT_OK);
    assert_int_equal(cht_file_write(f, text, strlen(text), 0, NULL), CHT_OK);
    cht_file_close(f);
}

static void test_known_again(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_io_id id, none;
    struct cht_err e = {0};
    write_file("one", "1");
    write_file("two", "2");
    assert_int_equal(cht_io_note(io, in_dir("one"), &id, &e), CHT_OK);
    assert_int_equal(cht_io_same(io, in_dir("one"), id, &e), CHT_OK);
    assert_int_equal(cht_io_same(io, in_dir("two"), id, &e), CHT_IO);
    assert_non_null(strstr(e.msg, "two: is another file than was opened: was its folder moved?"));
    assert_int_equal(symlink("one", in_dir("link")), 0);
    assert_int_equal(cht_io_same(io, in_dir("link"), id, &e), CHT_OK);
    assert_int_equal(io->ops->rename(io, in_dir("one"), in_dir("three"), &e), CHT_OK);
    assert_int_equal(cht_io_same(io, in_dir("three"), id, &e), CHT_OK);
    assert_int_equal(cht_io_same(io, in_dir("one"), id, &e), CHT_IO);
    assert_non_null(strstr(e.msg, "one: is not there any more"));
    assert_int_equal(cht_io_note(io, in_dir("nothing"), &none, &e), CHT_OK);
    assert_int_equal(cht_io_same(io, in_dir("two"), none, &e), CHT_OK); /* not known */
}

/* What is cut as soon as it is open is not what a link leads to; a pipe is no file, and nobody waits for who would write to it. */
static void test_links_and_pipes(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    struct cht_file *f = NULL;
    struct stat st;
    write_file("precious", "bytes");
    assert_int_equal(symlink("precious", in_dir("part")), 0);
    assert_int_equal(cht_io_open(io, in_dir("part"), CHT_OPEN_CREATE | CHT_OPEN_NOLINK, &f, &e), CHT_IO);
    assert_int_equal(cht_io_open(io, in_dir("part"), CHT_OPEN_CREATE, &f, &e), CHT_OK);
    cht_file_close(f);
    assert_int_equal(symlink("precious", in_dir("mark.new")), 0);
    assert_int_equal(cht_io_replace(io, dir, "mark", "x", 1, &e), CHT_IO);
    assert_int_equal(stat(in_dir("precious"), &st), 0);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    assert_int_equal(cht_io_open(io, in_dir("pipe"), CHT_OPEN_RDONLY, &f, &e), CHT_IO);
    assert_non_null(strstr(e.msg, "not a regular file"));
}

static void test_make_folder(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    char cwd[1000];
    assert_int_equal(cht_io_make_folder(io, in_dir("new//"), &e), CHT_OK);
    assert_int_equal(cht_io_make_folder(io, in_dir("new"), &e), CHT_OK);
    assert_int_equal(cht_io_make_folder(io, in_dir("new/below/"), &e), CHT_OK);
    assert_int_equal(rmdir(in_dir("new/below")), 0); /* test_io_names removes one level */
    assert_int_equal(cht_io_make_folder(io, in_dir("none/below"), &e), CHT_NO_FILE);
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(cht_io_make_folder(io, "here", &e), CHT_OK);
    assert_int_equal(chdir(cwd), 0);
    assert_int_equal(access(in_dir("here"), F_OK), 0);
    assert_int_equal(cht_io_make_folder(io, "/", &e), CHT_OK); /* it is there */
}

/* Its entry is on the disk, or it is told that it may not be. */
static void test_make_folder_fails(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    struct cht_io *io = simdisk_io(d);
    struct cht_err e = {0};
    assert_int_equal(cht_io_make_folder(io, "/a", &e), CHT_OK);
    const struct sim_plan plan = {.sys = 5, .first = 1, .times = 1, .calls = 1u << SIM_SYNC_DIR};
    simdisk_plan(d, &plan);
    assert_int_equal(cht_io_make_folder(io, "/a/b", &e), CHT_IO);
    assert_non_null(strstr(e.msg, "/a"));
    simdisk_plan(d, NULL);
    simdisk_chmod(d, "/a", 0300); /* to make, not to read */
    assert_int_equal(cht_io_make_folder(io, "/a/c", &e), CHT_OK);
    simdisk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_again), cmocka_unit_test(test_links_and_pipes),
        cmocka_unit_test(test_make_folder), cmocka_unit_test(test_make_folder_fails)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
