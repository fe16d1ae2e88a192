/* test_os: the real file system behind the table of functions, the loops over short transfers (through a fake table),
 * and the striped lock. Temporary files live in $TMPDIR, or the current directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "os/io.h"
#include "os/thread.h"

#define PAGE 4096u

static char dir[200];

/* In place of the system's: what another process does between the opening of a file and its locking. */
static void (*before_lock)(void);
int flock(int fd, int how)
{
    if (before_lock != NULL)
        before_lock();
    return (int)syscall(SYS_flock, fd, how);
}

static const char *in_dir(const char *name)
{
    static char path[4][300];
    static unsigned next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", dir, name); /* dir is short */
    return p;
}

static bool exists(const char *path)
{
    enum cht_io_kind kind = CHT_IO_NOTHING;
    assert_int_equal(cht_io_kind(cht_io_posix(), path, &kind, NULL), CHT_OK);
    return kind != CHT_IO_NOTHING;
}

static struct cht_file *must_open(const char *name, unsigned flags)
{
    struct cht_file *f = NULL;
    struct cht_err e = {0};
    if (cht_io_open(cht_io_posix(), in_dir(name), flags, &f, &e) != CHT_OK)
        fail_msg("%s", e.msg);
    return f;
}

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof dir, "%.150s/test_os.XXXXXX", tmp != NULL ? tmp : ".");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return cht_io_remove_tree(cht_io_posix(), dir, NULL) == CHT_OK ? 0 : -1;
}

/* ---- loops over short transfers ---------------------------------------------------------------------------- */

/* A file of 100 bytes in memory that moves at most `step` bytes a call and fails the call number fail_at. */
struct fake {
    struct cht_file base;
    uint8_t bytes[100];
    size_t step;
    unsigned calls, fail_at;
};

static enum cht_rc fake_move(struct fake *f, size_t n, uint64_t off, size_t *done, struct cht_err *err)
{
    if (++f->calls == f->fail_at)
        return CHT_FAIL(err, CHT_DISK_FULL, "injected");
    size_t left = off < sizeof f->bytes ? sizeof f->bytes - (size_t)off : 0;
    *done = n < f->step ? n : f->step;
    *done = *done < left ? *done : left;
    return CHT_OK;
}

static enum cht_rc fake_pread(struct cht_file *base, void *buf, size_t n, uint64_t off, size_t *done,
                              struct cht_err *err)
{
    struct fake *f = (struct fake *)base;
    enum cht_rc rc = fake_move(f, n, off, done, err);
    if (rc == CHT_OK && *done > 0)
        memcpy(buf, f->bytes + off, *done);
    return rc;
}

static enum cht_rc fake_pwrite(struct cht_file *base, const void *buf, size_t n, uint64_t off, size_t *done,
                               struct cht_err *err)
{
    struct fake *f = (struct fake *)base;
    enum cht_rc rc = fake_move(f, n, off, done, err);
    if (rc == CHT_OK && *done > 0)
        memcpy(f->bytes + off, buf, *done);
    return rc;
}

static const struct cht_io_ops fake_ops = {.pread = fake_pread, .pwrite = fake_pwrite};
static struct cht_io fake_io = {&fake_ops};

static struct fake new_fake(size_t step, unsigned fail_at)
{
    return (struct fake){.base = {&fake_io, "fake"}, .step = step, .fail_at = fail_at};
}

static void test_short_transfers(void **state)
{
    (void)state;
    uint8_t data[100], back[100];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    for (size_t step = 1; step <= 101; step += 10) {
        struct fake f = new_fake(step, 0);
        assert_int_equal(cht_file_write(&f.base, data, 90, 10, NULL), CHT_OK);
        assert_int_equal(f.calls, (90 + step - 1) / step);
        assert_int_equal(f.bytes[9], 0);
        memset(back, 0, sizeof back);
        assert_int_equal(cht_file_read(&f.base, back, 90, 10, NULL), CHT_OK);
        assert_memory_equal(back, data, 90);
    }
}

static void test_transfer_failures(void **state)
{
    (void)state;
    uint8_t data[200] = {0};
    struct cht_err e = {0};
    size_t got = 0;
    struct fake f = new_fake(30, 0);
    assert_int_equal(cht_file_read(&f.base, data, 61, 40, &e), CHT_CORRUPT); /* one byte too many */
    assert_int_equal(cht_file_read_some(&f.base, data, 61, 40, &got, &e), CHT_OK);
    assert_int_equal(got, 60);
    assert_int_equal(cht_file_read_some(&f.base, data, 10, 100, &got, &e), CHT_OK);
    assert_int_equal(got, 0);
    assert_int_equal(cht_file_write(&f.base, data, 101, 0, &e),
                     CHT_IO); /* a write of nothing must not spin */
    f = new_fake(30, 3);
    assert_int_equal(cht_file_write(&f.base, data, 100, 0, &e), CHT_DISK_FULL);
    assert_int_equal(f.calls, 3);
    f = new_fake(30, 2);
    assert_int_equal(cht_file_read(&f.base, data, 100, 0, &e), CHT_DISK_FULL);
    assert_int_equal(f.calls, 2);
}

/* ---- the real file system ---------------------------------------------------------------------------------- */

static void test_missing(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_file *f = NULL;
    struct cht_err e = {0};
    assert_int_equal(cht_io_open(io, in_dir("missing"), 0, &f, &e), CHT_NO_FILE);
    assert_null(f);
    assert_true(e.sys != 0);
    assert_non_null(strstr(e.msg, "missing"));
    assert_int_equal(cht_io_open(io, in_dir("no/such"), CHT_OPEN_CREATE, &f, &e), CHT_NO_FILE);
    assert_int_equal(io->ops->unlink(io, in_dir("missing"), &e), CHT_NO_FILE);
    assert_int_equal(io->ops->rename(io, in_dir("missing"), in_dir("x"), &e), CHT_NO_FILE);
    assert_int_equal(io->ops->rmdir(io, in_dir("missing"), &e), CHT_NO_FILE);
    assert_int_equal(io->ops->sync_dir(io, in_dir("missing"), &e), CHT_NO_FILE);
    assert_int_equal(cht_io_remove_tree(io, in_dir("missing"), &e), CHT_NO_FILE);
    assert_int_equal(cht_io_open(io, dir, CHT_OPEN_RDONLY, &f, &e), CHT_IO); /* a folder is not a file */
    assert_false(exists(in_dir("missing")));
    assert_true(exists(dir));
}

static void test_open_flags(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    struct cht_file *f = must_open("flags", CHT_OPEN_CREATE | CHT_OPEN_EXCL), *g = NULL;
    assert_int_equal(cht_file_write(f, "abc", 3, 0, &e), CHT_OK);
    assert_int_equal(cht_io_open(io, in_dir("flags"), CHT_OPEN_CREATE | CHT_OPEN_EXCL, &g, &e), CHT_IO);
    cht_file_close(f);
    f = must_open("flags", CHT_OPEN_CREATE); /* must not empty it */
    uint64_t size = 0;
    assert_int_equal(io->ops->size(f, &size, &e), CHT_OK);
    assert_int_equal(size, 3);
    cht_file_close(f);
    f = must_open("flags", CHT_OPEN_RDONLY);
    assert_int_equal(cht_file_write(f, "x", 1, 0, &e), CHT_IO);
    char back[3];
    assert_int_equal(cht_file_read(f, back, 3, 0, &e), CHT_OK);
    assert_memory_equal(back, "abc", 3);
    cht_file_close(f);
    cht_file_close(NULL);
}

static void test_lock(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    struct cht_file *f = must_open("lock", CHT_OPEN_CREATE | CHT_OPEN_LOCK), *g = NULL;
    assert_int_equal(cht_io_open(io, in_dir("lock"), CHT_OPEN_LOCK, &g, &e), CHT_LOCKED);
    assert_null(g);
    assert_non_null(strstr(e.msg, "in use"));
    g = must_open("lock", 0); /* the lock binds those who ask for it */
    cht_file_close(g);
    cht_file_close(f);
    f = must_open("lock", CHT_OPEN_LOCK); /* closing let it go */
    cht_file_close(f);
}

/* As a backup does that ends: its file gets its name, and nobody may write to it by the old one. */
static void finish_other(void) { assert_int_equal(rename(in_dir("part"), in_dir("whole")), 0); }

static void finish_other_and_begin(void)
{
    finish_other();
    cht_file_close(must_open("part", CHT_OPEN_CREATE));
}

static void test_lock_of_what_got_another_name(void **state)
{
    (void)state;
    static void (*const others[])(void) = {finish_other, finish_other_and_begin};
    struct cht_io *io = cht_io_posix();
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct cht_file *f = must_open("part", CHT_OPEN_CREATE), *g = NULL;
        struct cht_err e = {0};
        assert_int_equal(cht_file_write(f, "whole", 5, 0, &e), CHT_OK);
        cht_file_close(f);
        before_lock = others[i];
        enum cht_rc rc = cht_io_open(io, in_dir("part"), CHT_OPEN_CREATE | CHT_OPEN_LOCK, &g, &e);
        before_lock = NULL;
        assert_int_equal(rc, CHT_LOCKED);
        f = must_open("whole", CHT_OPEN_LOCK); /* nobody has it */
        cht_file_close(f);
        f = must_open("part", CHT_OPEN_CREATE | CHT_OPEN_LOCK); /* the next attempt */
        cht_file_close(f);
        assert_int_equal(unlink(in_dir("part")), 0);
        assert_int_equal(unlink(in_dir("whole")), 0);
    }
}

static void test_open_without_memory(void **state)
{
    (void)state;
    unsigned n = 1;
    for (;; n++) {
        struct cht_file *f = NULL;
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = cht_io_open(cht_io_posix(), in_dir("memory"), CHT_OPEN_CREATE, &f, NULL);
        uint64_t injected = cht_alloc_failures();
        cht_alloc_fail_at(0, false);
        cht_file_close(f);
        if (injected == 0) {
            assert_int_equal(rc, CHT_OK);
            break;
        }
        assert_int_equal(rc, CHT_NO_MEMORY);
    }
    assert_true(n > 1);
}

static void test_replace(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    char back[8];
    uint64_t size = 0;
    assert_int_equal(cht_io_replace(io, dir, "small", "first try", 9, &e), CHT_OK);
    struct cht_file *old = must_open("small", CHT_OPEN_RDONLY);
    struct cht_file *left =
        must_open("small.new", CHT_OPEN_CREATE); /* what a crash may leave is in the way of nobody */
    assert_int_equal(cht_file_write(left, "something longer", 16, 0, &e), CHT_OK);
    cht_file_close(left);
    assert_int_equal(cht_io_replace(io, dir, "small", "second", 6, &e), CHT_OK);
    assert_false(exists(in_dir("small.new")));
    struct cht_file *f = must_open("small", CHT_OPEN_RDONLY);
    assert_int_equal(io->ops->size(f, &size, &e), CHT_OK);
    assert_int_equal(size, 6);
    assert_int_equal(cht_file_read(f, back, 6, 0, &e), CHT_OK);
    assert_memory_equal(back, "second", 6);
    assert_int_equal(cht_file_read(old, back, 5, 0, &e),
                     CHT_OK); /* a new file, not the old one overwritten */
    assert_memory_equal(back, "first", 5);
    cht_file_close(old);
    cht_file_close(f);
    assert_int_equal(cht_io_replace(io, in_dir("nowhere"), "small", "x", 1, &e), CHT_NO_FILE);
}

static void test_allocate_punch(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    enum { SIZE = 64 * PAGE };
    struct cht_file *f = must_open("space", CHT_OPEN_CREATE);
    uint64_t size = 0, before = 0, after = 0;
    assert_int_equal(io->ops->allocate(f, 0, SIZE, &e), CHT_OK);
    assert_int_equal(io->ops->size(f, &size, &e), CHT_OK);
    assert_int_equal(size, SIZE);
    uint8_t *b = malloc(SIZE);
    memset(b, 0xAB, SIZE);
    assert_int_equal(cht_file_write(f, b, SIZE, 0, &e), CHT_OK);
    assert_int_equal(cht_file_sync(f, &e), CHT_OK);
    assert_int_equal(io->ops->usage(f, &before, &e), CHT_OK);
    assert_true(before >= SIZE);
    assert_int_equal(io->ops->punch(f, 8 * PAGE, 48 * PAGE, &e), CHT_OK);
    assert_int_equal(io->ops->punch(f, SIZE - 100, 5000, &e), CHT_OK); /* over the end: size is kept */
    assert_int_equal(io->ops->usage(f, &after, &e), CHT_OK);
    assert_int_equal(io->ops->size(f, &size, &e), CHT_OK);
    assert_int_equal(size, SIZE);
    assert_true(after + 40 * PAGE <= before);
    assert_int_equal(cht_file_read(f, b, SIZE, 0, &e), CHT_OK);
    for (size_t i = 0; i < SIZE; i++) {
        bool hole = (i >= 8 * PAGE && i < 56 * PAGE) || i >= SIZE - 100;
        if (b[i] != (hole ? 0 : 0xAB))
            fail_msg("byte %zu is %u", i, b[i]);
    }
    assert_int_equal(io->ops->truncate(f, 10, &e), CHT_OK);
    assert_int_equal(io->ops->size(f, &size, &e), CHT_OK);
    assert_int_equal(size, 10);
    free(b);
    cht_file_close(f);
}

static void put_page(struct cht_file *f, unsigned page, uint8_t byte)
{
    uint8_t b[PAGE];
    memset(b, byte, sizeof b);
    assert_int_equal(cht_file_write(f, b, sizeof b, (uint64_t)page * PAGE, NULL), CHT_OK);
}

static uint8_t file_byte(struct cht_file *f, uint64_t off)
{
    uint8_t b = 0;
    assert_int_equal(cht_file_read(f, &b, 1, off, NULL), CHT_OK);
    return b;
}

static void test_map(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    struct cht_file *f = must_open("map", CHT_OPEN_CREATE);
    for (unsigned i = 0; i < 4; i++)
        put_page(f, i, (uint8_t)(10 + i));
    uint8_t *m = NULL;
    assert_int_equal(io->ops->map(f, 16 * PAGE, &m, &e), CHT_OK); /* longer than the file */
    assert_int_equal(m[0], 10);
    assert_int_equal(m[3 * PAGE], 13);
    put_page(f, 0, 20); /* an unchanged page shows later writes, even one that was read before */
    assert_int_equal(m[0], 20);
    m[PAGE] = 99; /* a changed one does not, nor does the file see the change */
    put_page(f, 1, 21);
    assert_int_equal(m[PAGE], 99);
    assert_int_equal(m[PAGE + 1], 11);
    assert_int_equal(file_byte(f, PAGE), 21);
    put_page(f, 4, 14); /* grown: what was after the end appears */
    assert_int_equal(m[4 * PAGE], 14);
    assert_int_equal(io->ops->remap(f, m, 16 * PAGE, 4096 * PAGE, &m, &e), CHT_OK);
    assert_int_equal(m[PAGE], 99); /* private pages move along */
    m[2 * PAGE] = 98;
    assert_int_equal(io->ops->discard(f, m + PAGE, PAGE, &e), CHT_OK);
    assert_int_equal(m[PAGE], 21);
    assert_int_equal(m[2 * PAGE], 98); /* only the range asked for */
    cht_file_close(f);
    assert_int_equal(m[4 * PAGE], 14); /* maps outlive the file */
    io->ops->unmap(NULL, m, 4096 * PAGE);
}

struct seen {
    unsigned files, dirs, links, other;
};

static void count_entry(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct seen *s = ctx;
    if (strcmp(name, "f1") == 0 || strcmp(name, "f2") == 0)
        s->files += kind == CHT_IO_FILE;
    else if (strcmp(name, "d") == 0)
        s->dirs += kind == CHT_IO_FOLDER;
    else if (strcmp(name, "link") == 0)
        s->links += kind == CHT_IO_LINK;
    else
        s->other++;
}

static void test_folders(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    assert_int_equal(io->ops->mkdir(io, in_dir("tree"), &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, in_dir("tree"), &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, in_dir("tree/d"), &e), CHT_OK);
    assert_int_equal(io->ops->mkdir(io, in_dir("elsewhere"), &e), CHT_OK);
    cht_file_close(must_open("tree/f1", CHT_OPEN_CREATE));
    cht_file_close(must_open("tree/f2", CHT_OPEN_CREATE));
    cht_file_close(must_open("tree/d/f3", CHT_OPEN_CREATE));
    cht_file_close(must_open("elsewhere/f4", CHT_OPEN_CREATE));
    assert_int_equal(symlink("../elsewhere", in_dir("tree/link")), 0); /* a shard on another disk */
    struct seen s = {0};
    assert_int_equal(io->ops->list(io, in_dir("tree"), count_entry, &s, &e), CHT_OK);
    assert_int_equal(s.files, 2);
    assert_int_equal(s.dirs, 1);
    assert_int_equal(s.links, 1);
    assert_int_equal(s.other, 0);
    assert_int_equal(io->ops->mkdir(io, in_dir("tree/f1"), &e), CHT_IO); /* a file is in the way */
    assert_int_equal(io->ops->rmdir(io, in_dir("tree"), &e), CHT_IO);    /* not empty */
    assert_int_equal(io->ops->rmdir(io, in_dir("tree/f1"), &e), CHT_IO); /* not a folder, and not a link */
    assert_int_equal(io->ops->sync_dir(io, in_dir("tree"), &e), CHT_OK);
    assert_int_equal(cht_io_remove_tree(io, in_dir("tree"), &e), CHT_OK);
    assert_false(exists(in_dir("tree")));
    assert_true(exists(in_dir("elsewhere/f4"))); /* a link is never followed */
    assert_int_equal(cht_io_remove_tree(io, in_dir("elsewhere"), &e), CHT_OK);
}

/* A question that cannot be answered is never "nothing". */
static void test_stat(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_err e = {0};
    struct cht_io_stat a, b;
    assert_int_equal(io->ops->mkdir(io, in_dir("st"), &e), CHT_OK);
    cht_file_close(must_open("st/file", CHT_OPEN_CREATE));
    assert_int_equal(symlink("file", in_dir("st/link")), 0);
    assert_int_equal(symlink("nowhere", in_dir("st/dangling")), 0);
    assert_int_equal(symlink("round", in_dir("st/round")), 0);
    assert_int_equal(mkfifo(in_dir("st/pipe"), 0600), 0);
    const struct {
        const char *path;
        unsigned flags;
        enum cht_io_kind kind;
    } t[] = {
        {"st", 0, CHT_IO_FOLDER},
        {"st/file", 0, CHT_IO_FILE},
        {"st/link", 0, CHT_IO_LINK},
        {"st/link", CHT_STAT_FOLLOW, CHT_IO_FILE},
        {"st/dangling", 0, CHT_IO_LINK},
        {"st/dangling", CHT_STAT_FOLLOW, CHT_IO_LINK},
        {"st/pipe", 0, CHT_IO_OTHER},
        {"st/none", 0, CHT_IO_NOTHING},
        {"st/none/below", CHT_STAT_FOLLOW, CHT_IO_NOTHING},
        {"st/file/below", 0, CHT_IO_NOTHING},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_int_equal(io->ops->stat(io, in_dir(t[i].path), t[i].flags, &a, &e), CHT_OK);
        assert_int_equal(a.kind, t[i].kind);
    }
    assert_int_equal(io->ops->stat(io, in_dir("st/link"), CHT_STAT_FOLLOW, &a, &e), CHT_OK);
    assert_int_equal(io->ops->stat(io, in_dir("st/file"), 0, &b, &e), CHT_OK);
    assert_true(a.device == b.device && a.inode == b.inode);
    assert_int_equal(io->ops->stat(io, in_dir("st/round"), CHT_STAT_FOLLOW, &a, &e), CHT_IO); /* ELOOP */
    assert_non_null(strstr(e.msg, "st/round"));
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(io->ops->stat(io, longer, 0, &a, &e), CHT_IO); /* ENAMETOOLONG */
    assert_int_equal(cht_io_remove_tree(io, in_dir("st"), &e), CHT_OK);
}

static void test_path_join(void **state)
{
    (void)state;
    char b[8];
    struct cht_err e = {0};
    assert_int_equal(cht_path_join(b, sizeof b, "abc", "def", &e), CHT_OK);
    assert_string_equal(b, "abc/def");
    assert_int_equal(cht_path_join(b, sizeof b, "abc", "defg", &e), CHT_INVALID_ARGUMENT);
}

static void test_system(void **state)
{
    (void)state;
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    assert_in_range(cht_os_memory(), 1u << 20, (uint64_t)pages * (uint64_t)size);
    assert_int_equal(cht_os_cores(), sysconf(_SC_NPROCESSORS_ONLN));
    uint8_t a[1000] = {0}, b[1000] = {0};
    cht_os_random(a, sizeof a);
    cht_os_random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + 984, (uint8_t[16]){0}, 16); /* filled to the end */
}

/* ---- locks and threads ------------------------------------------------------------------------------------- */

#define READERS (CHT_RW_STRIPES + 2) /* some share a stripe */
#define WRITERS 3
#define ROUNDS 4000

/* Writers change two numbers, readers want them equal. The numbers are plain: the lock alone protects them, which is
 * also what the thread sanitizer looks at. */
struct contest {
    struct cht_rwlock lock;
    uint64_t a, b;            /* guarded by lock */
    _Atomic unsigned inside;  /* readers holding it: 0 for a writer */
    _Atomic unsigned overlap; /* most readers seen together */
    _Atomic unsigned broken;
};

static void *reader_main(void *arg)
{
    struct contest *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        cht_rwlock_read(&c->lock);
        unsigned n = atomic_fetch_add(&c->inside, 1) + 1, most = atomic_load(&c->overlap);
        while (n > most && !atomic_compare_exchange_weak(&c->overlap, &most, n)) {
        }
        if (c->a != c->b)
            atomic_fetch_add(&c->broken, 1);
        while (i == 0 && atomic_load(&c->overlap) < READERS) /* all readers at once must be possible */
            cht_sleep_ns(1000000);
        atomic_fetch_sub(&c->inside, 1);
        cht_rwlock_read_end(&c->lock);
    }
    return NULL;
}

static void *writer_main(void *arg)
{
    struct contest *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        cht_rwlock_write(&c->lock);
        c->a++;
        if (atomic_load(&c->inside) != 0)
            atomic_fetch_add(&c->broken, 1);
        c->b++;
        cht_rwlock_write_end(&c->lock);
    }
    return NULL;
}

static void test_rwlock(void **state)
{
    (void)state;
    struct contest *c = cht_aligned_alloc(64, sizeof *c);
    assert_non_null(c);
    memset(c, 0, sizeof *c);
    struct cht_thread t[READERS + WRITERS];
    assert_int_equal(cht_rwlock_init(&c->lock, NULL), CHT_OK);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(cht_thread_start(&t[i], "reader", reader_main, c, NULL), CHT_OK);
    while (atomic_load(&c->overlap) < READERS)
        cht_sleep_ns(1000000); /* a writer that waits would keep the later readers out */
    for (unsigned i = READERS; i < READERS + WRITERS; i++)
        assert_int_equal(cht_thread_start(&t[i], "writer", writer_main, c, NULL), CHT_OK);
    for (unsigned i = 0; i < READERS + WRITERS; i++)
        cht_thread_join(&t[i]);
    assert_int_equal(atomic_load(&c->broken), 0);
    assert_int_equal(c->a, WRITERS * ROUNDS);
    assert_int_equal(c->b, WRITERS * ROUNDS);
    cht_rwlock_fini(&c->lock);
    cht_free(c);
}

struct http_gate {
    struct cht_mutex mu;
    struct cht_cond changed;
    unsigned turn; /* guarded by mu */
};

static void *turn_main(void *arg)
{
    struct http_gate *g = arg;
    cht_sleep_ns(20000000); /* so that the other thread waits first */
    cht_mutex_lock(&g->mu);
    for (unsigned i = 0; i < 100; i++) {
        while (g->turn % 2 == 0)
            cht_cond_wait(&g->changed, &g->mu);
        g->turn++;
        cht_cond_signal(&g->changed);
    }
    cht_mutex_unlock(&g->mu);
    return NULL;
}

static void test_cond(void **state)
{
    (void)state;
    struct http_gate g = {.turn = 0};
    struct cht_thread t;
    assert_int_equal(cht_mutex_init(&g.mu, NULL), CHT_OK);
    assert_int_equal(cht_cond_init(&g.changed, NULL), CHT_OK);
    uint64_t start = cht_now_ns();
    cht_mutex_lock(&g.mu);
    while (cht_cond_wait_ns(&g.changed, &g.mu, 5000000)) {
    }
    assert_true(cht_now_ns() - start >= 4900000);
    assert_int_equal(cht_thread_start(&t, "turns", turn_main, &g, NULL), CHT_OK);
    for (unsigned i = 0; i < 100; i++) {
        while (g.turn % 2 == 1)
            assert_true(cht_cond_wait_ns(&g.changed, &g.mu, UINT64_MAX)); /* for ever is not at once */
        g.turn++;
        cht_cond_broadcast(&g.changed);
    }
    cht_mutex_unlock(&g.mu);
    cht_thread_join(&t);
    assert_int_equal(g.turn, 200);
    cht_cond_fini(&g.changed);
    cht_mutex_fini(&g.mu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_transfers),
        cmocka_unit_test(test_transfer_failures),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_open_flags),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_lock_of_what_got_another_name),
        cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_allocate_punch),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_stat),
        cmocka_unit_test(test_path_join),
        cmocka_unit_test(test_system),
        cmocka_unit_test(test_rwlock),
        cmocka_unit_test(test_cond),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
