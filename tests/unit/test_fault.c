/* test_fault: pages that the disk cannot give. Files are cut under mappings, which raises the same signal as a sector that cannot
 * be read: mappings alone, then whole databases: what is lost is told, everything else goes on, nothing is ever wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "os/fault.h"
#include "os/io.h"

#define PAGE 4096u
#define PAGES 64u

static char root[] = "/tmp/cht-fault-XXXXXX";

/* ---- mappings ------------------------------------------------------------------------------------------------- */

struct map {
    struct cht_file *file;
    uint8_t *base;
    struct cht_fault fault;
    _Atomic uint64_t trusted[16];
    char path[200];
};

static void map_file(struct map *m)
{
    static uint8_t page[PAGE];
    struct cht_io *io = cht_io_posix();
    memset(m, 0, sizeof *m);
    cht_fault_catch(); /* cmocka puts a handler of its own around each test */
    (void)snprintf(m->path, sizeof m->path, "%s/map", root);
    assert_int_equal(cht_io_open(io, m->path, CHT_OPEN_CREATE, &m->file, NULL), CHT_OK);
    for (unsigned i = 0; i < PAGES; i++) {
        memset(page, (int)i + 1, sizeof page);
        assert_int_equal(cht_file_write(m->file, page, PAGE, (uint64_t)i * PAGE, NULL), CHT_OK);
    }
    assert_int_equal(io->ops->map(m->file, (size_t)PAGES * PAGE, &m->base, NULL), CHT_OK);
    memset(m->trusted, 255, sizeof m->trusted);
    assert_int_equal(cht_fault_add(&m->fault, m->base, (size_t)PAGES * PAGE, m->trusted, NULL), CHT_OK);
}

static void unmap_file(struct map *m, unsigned pages)
{
    cht_fault_remove(&m->fault);
    m->file->io->ops->unmap(m->file, m->base, (size_t)pages * PAGE);
    cht_file_close(m->file);
    assert_int_equal(unlink(m->path), 0);
}

static unsigned look(const struct map *m, unsigned page)
{
    return *(volatile uint8_t *)(m->base + (size_t)page * PAGE + 7);
}

static bool trusted(const struct map *m, unsigned page)
{
    return (m->trusted[page / 64] >> (page % 64) & 1) != 0;
}

static void test_lost_pages(void **state)
{
    struct map m;
    (void)state;
    map_file(&m);
    m.base[(size_t)3 * PAGE + 7] = 99; /* private copies */
    m.base[(size_t)40 * PAGE + 7] = 98;
    assert_int_equal(truncate(m.path, (off_t)32 * PAGE), 0);
    assert_int_equal(look(&m, 3), 99);
    assert_int_equal(look(&m, 31), 32);
    assert_int_equal(cht_fault_events(&m.fault), 0);
    assert_int_equal(look(&m, 32), 0);
    assert_int_equal(look(&m, 40), 0); /* cutting takes copies away, too */
    assert_int_equal(look(&m, 63), 0);
    assert_int_equal(cht_fault_events(&m.fault), 3);
    for (unsigned i = 0; i < PAGES; i++) {
        bool lost = i == 32 || i == 40 || i == 63;
        assert_int_equal(cht_fault_lost(&m.fault, i), lost);
        assert_int_equal(trusted(&m, i), !lost);
    }
    /* what is lost shows the file again once somebody says so */
    static uint8_t page[PAGE];
    memset(page, 77, sizeof page);
    assert_int_equal(cht_file_write(m.file, page, PAGE, (uint64_t)32 * PAGE, NULL), CHT_OK);
    assert_int_equal(look(&m, 32), 0);
    assert_int_equal(
        m.file->io->ops->refresh(m.file, m.base + (size_t)32 * PAGE, (uint64_t)32 * PAGE, PAGE, NULL),
        CHT_OK);
    cht_fault_found(&m.fault, 32);
    assert_int_equal(look(&m, 32), 77);
    assert_false(cht_fault_lost(&m.fault, 32));
    unmap_file(&m, PAGES);
}

/* A mapping with holes moves once the holes show the file again; what was lost stays known. */
static void test_moved(void **state)
{
    struct map m;
    uint8_t *base;
    (void)state;
    map_file(&m);
    m.base[(size_t)2 * PAGE + 7] = 99;
    assert_int_equal(truncate(m.path, (off_t)32 * PAGE), 0);
    assert_int_equal(look(&m, 50), 0);
    cht_fault_hide(&m.fault);
    assert_int_equal(
        m.file->io->ops->refresh(m.file, m.base + (size_t)50 * PAGE, (uint64_t)50 * PAGE, PAGE, NULL),
        CHT_OK);
    assert_int_equal(
        m.file->io->ops->remap(m.file, m.base, (size_t)PAGES * PAGE, (size_t)1024 * PAGE, &base, NULL),
        CHT_OK);
    m.base = base;
    cht_fault_show(&m.fault, base, (size_t)1024 * PAGE, m.trusted);
    assert_int_equal(look(&m, 2), 99);
    assert_true(cht_fault_lost(&m.fault, 50));
    assert_int_equal(look(&m, 50), 0); /* and once more */
    assert_int_equal(look(&m, 900), 0);
    assert_true(cht_fault_lost(&m.fault, 900));
    assert_false(cht_fault_lost(&m.fault, 2));
    unmap_file(&m, 1024);
}

static void *look_at_all(void *arg)
{
    struct map *m = arg;
    uintptr_t bad = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        unsigned is = look(m, i);
        bad += is != i + 1 && !cht_fault_lost(&m->fault, i); /* zeros are never seen before they are told */
    }
    return (void *)bad;
}

static void test_threads(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct map m;
        pthread_t t[4];
        map_file(&m);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&t[i], NULL, look_at_all, &m), 0);
        assert_int_equal(truncate(m.path, (off_t)(round % 40) * PAGE), 0);
        for (unsigned i = 0; i < 4; i++) {
            void *bad;
            assert_int_equal(pthread_join(t[i], &bad), 0);
            assert_null(bad);
        }
        unmap_file(&m, PAGES);
    }
}

static int status_of(void (*fn)(struct map *), struct map *m)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGBUS, SIG_DFL); /* and not what cmocka makes of it */
        cht_fault_catch();
        fn(m);
        _exit(7);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void touch_unknown(struct map *m)
{
    cht_fault_remove(&m->fault);
    (void)look(m, 60);
}

static void send_one(struct map *m)
{
    (void)m;
    (void)kill(getpid(), SIGBUS);
}

static bool deadly(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS; }

/* A fault elsewhere, or a signal that somebody sent, is as deadly as it was. */
static void test_others(void **state)
{
    struct map m;
    (void)state;
    map_file(&m);
    assert_int_equal(truncate(m.path, (off_t)32 * PAGE), 0);
    assert_true(deadly(status_of(touch_unknown, &m)));
    assert_true(deadly(status_of(send_one, &m)));
    unmap_file(&m, PAGES);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NO_LIMIT 77 /* the system takes no notice of it: qemu-user */

/* No memory for notes: all of the mapping counts as lost. */
static void without_memory(struct map *m)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%lu", &pages) != 1)
        _exit(2);
    (void)fclose(f);
    struct rlimit now = {pages * PAGE, pages * PAGE};
    (void)setrlimit(RLIMIT_AS, &now);
    if (mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        _exit(NO_LIMIT);
    bool ok = look(m, 60) == 0 && cht_fault_lost(&m->fault, 60) && cht_fault_lost(&m->fault, 1) &&
              look(m, 1) == 0 && !trusted(m, 1);
    _exit(ok ? 0 : 1);
}

static void test_given_up(void **state)
{
    struct map m;
    (void)state;
    map_file(&m);
    assert_int_equal(truncate(m.path, (off_t)32 * PAGE), 0);
    int status = status_of(without_memory, &m);
    assert_true(WIFEXITED(status));
    unmap_file(&m, PAGES);
    if (WEXITSTATUS(status) == NO_LIMIT)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}
#endif

/* Many mappings come and go, in use at the same time. */
static void test_table(void **state)
{
    enum { MANY = 3000 };
    static struct map m[2];
    static struct cht_fault f[MANY];
    static uint8_t none[MANY];
    (void)state;
    map_file(&m[0]);
    for (unsigned round = 0; round < 2; round++) {
        memset(f, 0, sizeof f);
        for (unsigned i = 0; i < MANY; i++)
            assert_int_equal(cht_fault_add(&f[i], &none[i], 1, NULL, NULL), CHT_OK);
        for (unsigned i = 0; i < MANY; i++)
            cht_fault_remove(&f[(i * 7) % MANY]);
    }
    assert_int_equal(truncate(m[0].path, 0), 0);
    assert_int_equal(look(&m[0], 5), 0);
    assert_true(cht_fault_lost(&m[0].fault, 5));
    unmap_file(&m[0], PAGES);
}

/* ---- databases ------------------------------------------------------------------------------------------------ */

#define PAIRS 3000u

static const char *dirs[] = {root};
static struct cht_env *env;
static struct cht_store *db, *other;
static enum cht_read_ahead read_ahead;

static void open_env(void)
{
    cht_fault_catch();
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 1,
                                 .scan_workers = 2,
                                 .durability = CHT_DURABLE_OS,
                                 .log_segment_bytes = 1u << 20,
                                 .read_ahead = read_ahead,
                                 .manual_checkpoint = true};
    struct cht_err err = {0};
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
}

static struct cht_str name_of(unsigned i, char out[32])
{
    return (struct cht_str){(uint8_t *)out, (size_t)snprintf(out, 32, "name:%05u", i * 7919 % PAIRS)};
}

static size_t value_of(unsigned i, uint8_t *out)
{
    static const size_t sizes[] = {64, 500, 3000, 9000};
    size_t n = sizes[i % 4];
    for (size_t k = 0; k < n; k++)
        out[k] = (uint8_t)(i * 31 + k * 7 + 1);
    return n;
}

static enum cht_rc put(struct cht_store *s, unsigned i)
{
    static uint8_t value[16384];
    char name[32];
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = name_of(i, name), .value = {value, value_of(i, value)}};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc != CHT_OK ? rc : op.rc;
}

static struct cht_store *make(const char *name, unsigned pairs)
{
    struct cht_store *s;
    struct cht_err err = {0};
    assert_int_equal(cht_env_create(env, name, 1, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
    for (unsigned i = 0; i < pairs; i++)
        assert_int_equal(put(s, i), CHT_OK);
    assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    return s;
}

static void path_of(char *out, size_t cap, const char *file)
{
    (void)snprintf(out, cap, "%s/default/shard-000/%s", root, file);
}

static off_t size_of(const char *file)
{
    char path[200];
    struct stat st;
    path_of(path, sizeof path, file);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void cut(const char *file, off_t size)
{
    char path[200];
    path_of(path, sizeof path, file);
    assert_int_equal(truncate(path, size), 0);
}

static void clear(void)
{
    char cmd[200];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", root);
    assert_int_equal(system(cmd), 0);
}

static void set_up(bool reopen)
{
    struct cht_err err = {0};
    clear();
    open_env();
    db = make("default", PAIRS);
    other = make("other", 100);
    if (!reopen)
        return;
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    open_env();
    assert_int_equal(cht_env_get(env, "default", &db, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "other", &other, &err), CHT_OK);
}

struct seen {
    unsigned right, damaged;
};

/* Each pair's value: the right one or CHT_CORRUPT with a place. */
static struct seen read_all(struct cht_store *s, unsigned pairs)
{
    static uint8_t value[16384];
    struct cht_buf b = {0};
    struct seen seen = {0};
    for (unsigned i = 0; i < pairs; i++) {
        char name[32];
        struct cht_err err = {0};
        uint64_t key;
        uint32_t size;
        enum cht_rc rc = cht_store_pair_value(s, name_of(i, name), &key, &b, &size, &err);
        if (rc == CHT_OK) {
            assert_int_equal(size, value_of(i, value));
            assert_memory_equal(b.data, value, size);
            seen.right++;
        } else {
            assert_int_equal(rc, CHT_CORRUPT);
            assert_non_null(strstr(err.msg, "offset"));
            seen.damaged++;
        }
    }
    cht_buf_free(&b);
    return seen;
}

/* All of it as a stream; an error ends it. */
static enum cht_rc scan_all(struct cht_store *s, struct seen *seen)
{
    struct cht_scan_config sc = {.kind = CHT_SCAN_PAIRS, .values = true};
    struct cht_scan *scan;
    struct cht_entry e[64];
    size_t got = 0;
    struct cht_err err = {0};
    *seen = (struct seen){0};
    assert_int_equal(cht_scan_open(s, &sc, &scan, &err), CHT_OK);
    enum cht_rc rc;
    while ((rc = cht_scan_next(scan, e, 64, &got, &err)) == CHT_OK && got > 0) {
        for (size_t k = 0; k < got; k++) {
            seen->right += e[k].value != NULL;
            seen->damaged += (e[k].flags & CHT_ENTRY_CORRUPT) != 0;
        }
    }
    cht_scan_close(scan);
    return rc;
}

static void other_is_well(void)
{
    struct cht_err err = {0};
    struct seen seen = read_all(other, 100);
    assert_int_equal(seen.right, 100);
    assert_int_equal(put(other, 5), CHT_OK);
    assert_int_equal(cht_store_checkpoint(other, &err), CHT_OK);
}

static uint64_t corrupt_count(struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    return st.corrupt;
}

static enum cht_rc delete_pair(unsigned i)
{
    char name[32];
    struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = name_of(i, name), .with_values = true};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(db, &c);
    return rc != CHT_OK ? rc : op.rc;
}

/* After the damage: it is told, counted, and what is on the disk stays as it was cut. */
static void after_the_cut(const char *file, off_t size, bool stream)
{
    struct seen seen, again;
    struct cht_err err = {0};
    uint64_t before = corrupt_count(db);
    seen = read_all(db, PAIRS);
    print_message("%s: %u right, %u damaged\n", file, seen.right, seen.damaged);
    assert_true(seen.damaged > 0);
    assert_true(corrupt_count(db) >= before + seen.damaged);
    enum cht_rc rc = scan_all(db, &again);
    assert_int_equal(rc, stream ? CHT_OK : CHT_CORRUPT);
    if (stream) {
        assert_int_equal(again.right, seen.right);
        assert_int_equal(again.damaged, seen.damaged);
    }
    other_is_well();
    for (unsigned i = 0; i < PAIRS; i += 3) { /* right or refused, whatever is hit */
        rc = i % 2 == 0 ? put(db, i) : delete_pair(i);
        assert_true(rc == CHT_OK || rc == CHT_CORRUPT);
        if (i % 2 != 0 && rc == CHT_OK)
            assert_int_equal(put(other, i % 100), CHT_OK);
    }
    assert_int_equal(cht_store_checkpoint(db, &err), CHT_CORRUPT);
    assert_non_null(strstr(err.msg, file));
    assert_int_equal(size_of(file), size);
    assert_int_equal(put(db, 1), CHT_READ_ONLY);
    other_is_well();
    (void)cht_env_close(env, &err);
    assert_int_equal(size_of(file), size);
    open_env();
    assert_int_equal(cht_env_get(env, "default", &db, &err), CHT_CORRUPT);
    assert_non_null(strstr(err.msg, file));
    assert_int_equal(cht_env_get(env, "other", &other, &err), CHT_OK);
    other_is_well();
    assert_int_equal(size_of(file), size);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

static void cut_and_look(const char *file, unsigned of, bool stream)
{
    for (unsigned reopen = 0; reopen < 2; reopen++) {
        set_up(reopen != 0);
        off_t size = size_of(file) / (off_t)PAGE / (off_t)of * (off_t)PAGE;
        size = size < (off_t)PAGE ? (off_t)PAGE : size;
        cut(file, size);
        after_the_cut(file, size, stream);
    }
}

static void test_values_cut(void **state)
{
    (void)state;
    cut_and_look("values", 2, true);
}
static void test_pairs_cut(void **state)
{
    (void)state;
    cut_and_look("pairs", 2, false);
}
static void test_keys_cut(void **state)
{
    (void)state;
    cut_and_look("keys", 2, true);
}

/* Only writing needs it. */
static void test_recycle_cut(void **state)
{
    struct cht_err err = {0};
    (void)state;
    for (unsigned pages = 0; pages < 3; pages++) {
        set_up(true);
        cut("recycle", (off_t)pages * PAGE);
        struct seen seen = read_all(db, PAIRS);
        assert_int_equal(seen.right, PAIRS);
        for (unsigned i = 0; i < 300; i++) {
            enum cht_rc rc = i % 2 == 0 ? put(db, PAIRS + i) : delete_pair(i);
            assert_true(rc == CHT_OK || rc == CHT_CORRUPT);
        }
        assert_int_equal(cht_store_checkpoint(db, &err), CHT_CORRUPT);
        assert_int_equal(size_of("recycle"), pages * PAGE);
        other_is_well();
        cht_env_abandon(env);
    }
}

/* Nothing left of a file: no key may be given out again and none counts as never given out. */
static void test_nothing_left(void **state)
{
    static const char *const files[] = {"keys", "pairs", "values", "recycle", "sums"};
    (void)state;
    for (unsigned f = 0; f < 5; f++) {
        struct cht_err err = {0};
        set_up(true);
        cut(files[f], 0);
        struct seen seen = read_all(db, PAIRS);
        assert_true(f > 2 || seen.right == 0);
        for (unsigned i = 0; i < 20; i++) {
            struct cht_op op = {.kind = CHT_OP_INSERT, .value = {(const uint8_t *)"x", 1}};
            struct cht_commit c = {.ops = &op, .count = 1};
            enum cht_rc rc = cht_store_commit(db, &c);
            rc = rc != CHT_OK ? rc : op.rc;
            assert_true(rc == CHT_CORRUPT || (rc == CHT_OK && op.key > PAIRS));
            rc = put(db, PAIRS + i);
            assert_true(rc == CHT_CORRUPT || rc == CHT_OK);
        }
        assert_int_equal(cht_store_checkpoint(db, &err), CHT_CORRUPT);
        other_is_well();
        assert_int_equal(size_of(files[f]), 0);
        cht_env_abandon(env);
        clear();
    }
}

/* What was lost and is there again is no obstacle to a file that grows out of its mapping, however its pages are read. */
static void test_grows_after_a_loss(void **state)
{
    static uint8_t bytes[1u << 20];
    static const enum cht_read_ahead how[] = {CHT_READ_AHEAD_ALWAYS, CHT_READ_AHEAD_NEVER};
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        char path[200];
        struct cht_err err = {0};
        clear();
        read_ahead = how[k];
        open_env();
        read_ahead = CHT_READ_AHEAD_AUTO;
        db = make("default", 100);
        off_t size = size_of("values");
        path_of(path, sizeof path, "values");
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0 && size <= (off_t)sizeof bytes);
        assert_int_equal(pread(fd, bytes, (size_t)size, 0), size);
        cut("values", (off_t)20 * PAGE);
        assert_int_not_equal(read_all(db, 100).damaged, 0);
        assert_int_equal(pwrite(fd, bytes, (size_t)size, 0), size);
        close(fd);
        for (unsigned i = 0; i < 500; i++)
            assert_int_equal(put(db, i), CHT_OK);
        assert_int_equal(read_all(db, 500).right, 500);
        assert_int_equal(cht_store_checkpoint(db, &err), CHT_OK);
        assert_int_equal(cht_env_close(env, &err), CHT_OK);
    }
}

/* Between the store and the file system: mappings that cannot grow, and whether what is discarded is a mapping's. */
static struct {
    const struct cht_io_ops *real;
    struct cht_io_ops ops;
    pthread_mutex_t mu;
    uint8_t *at[64];
    size_t len[64];
    unsigned n, beyond, refused;
    bool refuse;
} maps = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void note_map(const uint8_t *old, uint8_t *at, size_t len)
{
    unsigned i = 0;
    (void)pthread_mutex_lock(&maps.mu);
    while (i < maps.n && maps.at[i] != old)
        i++;
    assert_true(i < 64);
    maps.n = i < maps.n ? maps.n : i + 1;
    maps.at[i] = at;
    maps.len[i] = len;
    (void)pthread_mutex_unlock(&maps.mu);
}

static enum cht_rc map_noted(struct cht_file *f, size_t len, uint8_t **out, struct cht_err *err)
{
    enum cht_rc rc = maps.real->map(f, len, out, err);
    if (rc == CHT_OK)
        note_map(NULL, *out, len);
    return rc;
}

static enum cht_rc remap_noted(struct cht_file *f, uint8_t *old, size_t old_len, size_t len, uint8_t **out,
                               struct cht_err *err)
{
    if (maps.refuse) {
        maps.refused++;
        return CHT_FAIL(err, CHT_IO, "remap: refused by the test");
    }
    enum cht_rc rc = maps.real->remap(f, old, old_len, len, out, err);
    if (rc == CHT_OK)
        note_map(old, *out, len);
    return rc;
}

static void unmap_noted(struct cht_file *f, uint8_t *p, size_t len)
{
    note_map(p, NULL, 0);
    maps.real->unmap(f, p, len);
}

static enum cht_rc discard_noted(struct cht_file *f, uint8_t *p, size_t len, struct cht_err *err)
{
    bool inside = false;
    (void)pthread_mutex_lock(&maps.mu);
    for (unsigned i = 0; i < maps.n; i++)
        inside = inside || (p >= maps.at[i] && p < maps.at[i] + maps.len[i] &&
                            len <= maps.len[i] - (size_t)(p - maps.at[i]));
    maps.beyond += !inside;
    (void)pthread_mutex_unlock(&maps.mu);
    return inside ? maps.real->discard(f, p, len, err) : CHT_OK;
}

/* A file that has grown, and its mapping could not: what is taken back is no more than the mapping. */
static void test_mapping_that_cannot_grow(void **state)
{
    struct cht_io *io = cht_io_posix();
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    (void)state;
    clear();
    maps.real = io->ops;
    maps.ops = *io->ops;
    maps.ops.map = map_noted;
    maps.ops.remap = remap_noted;
    maps.ops.unmap = unmap_noted;
    maps.ops.discard = discard_noted;
    io->ops = &maps.ops;
    open_env();
    db = make("default", 100);
    maps.refuse = true;
    for (unsigned i = 100; i < PAIRS && rc == CHT_OK; i++)
        rc = put(db, i);
    assert_int_not_equal(rc, CHT_OK);
    assert_int_equal(read_all(db, 100).right, 100); /* waits until it is taken back */
    assert_int_not_equal(maps.refused, 0);
    assert_int_equal(maps.beyond, 0);
    maps.refuse = false;
    (void)cht_env_close(env, &err);
    open_env();
    assert_int_equal(cht_env_get(env, "default", &db, &err), CHT_OK);
    assert_int_equal(read_all(db, 100).right, 100);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    io->ops = maps.real;
}

/* ---- readers meanwhile ---------------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void *read_on(void *arg)
{
    static _Thread_local uint8_t value[16384];
    struct cht_buf b = {0};
    uintptr_t bad = 0;
    unsigned i = (unsigned)(uintptr_t)arg * 731;
    while (!stop) {
        char name[32];
        uint64_t key;
        uint32_t size;
        i = (i + 37) % PAIRS;
        enum cht_rc rc = cht_store_pair_value(db, name_of(i, name), &key, &b, &size, NULL);
        if (rc == CHT_OK)
            bad += size != value_of(i, value) || memcmp(b.data, value, size) != 0;
        else
            bad += rc != CHT_CORRUPT;
    }
    cht_buf_free(&b);
    return (void *)bad;
}

static void *scan_on(void *arg)
{
    uintptr_t bad = 0;
    (void)arg;
    while (!stop) {
        struct seen seen;
        enum cht_rc rc = scan_all(db, &seen);
        bad += rc == CHT_OK ? seen.right + seen.damaged != PAIRS : rc != CHT_CORRUPT;
    }
    return (void *)bad;
}

/* The file is cut while others read: at any moment what they get is right, or they are told. */
static void test_while_reading(void **state)
{
    static const char *const files[] = {"values", "pairs", "keys"};
    unsigned rounds = getenv("CHT_TEST_LONG") != NULL ? 90 : 9;
    (void)state;
    for (unsigned round = 0; round < rounds; round++) {
        const char *file = files[round % 3];
        pthread_t t[3];
        set_up(round % 2 != 0);
        off_t size = size_of(file);
        stop = false;
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&t[i], NULL, i < 2 ? read_on : scan_on, (void *)(uintptr_t)i), 0);
        for (unsigned k = 8; k > 0;
             k--) { /* from the end, so that several readers meet it in several places */
            (void)usleep(1000);
            cut(file, size / (off_t)PAGE * (off_t)k / 9 * (off_t)PAGE);
        }
        (void)usleep(2000);
        stop = true;
        for (unsigned i = 0; i < 3; i++) {
            void *bad;
            assert_int_equal(pthread_join(t[i], &bad), 0);
            assert_null(bad);
        }
        other_is_well();
        cht_env_abandon(env);
    }
}

/* ---- damaged pages of values ---------------------------------------------------------------------------------- */

/* A value on a damaged page can be replaced and deleted, and values of its length go on being stored. */
static void test_damaged_place(void **state)
{
    struct cht_err err = {0};
    char path[200];
    struct seen seen;
    (void)state;
    set_up(false);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    path_of(path, sizeof path, "values");
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (off_t at = (off_t)5 * PAGE; at < size_of("values"); at += (off_t)17 * PAGE) {
        static const uint8_t garbage[200] = {1, 2, 3};
        assert_int_equal(pwrite(fd, garbage, sizeof garbage, at + 100), sizeof garbage);
    }
    close(fd);
    open_env();
    assert_int_equal(cht_env_get(env, "default", &db, &err), CHT_OK);
    seen = read_all(db, PAIRS);
    print_message("%u right, %u damaged\n", seen.right, seen.damaged);
    assert_true(seen.damaged > 10);
    for (unsigned i = 0; i < PAIRS; i += 2)
        assert_int_equal(delete_pair(i), CHT_OK);
    for (unsigned i = 0; i < PAIRS; i++)
        assert_int_equal(put(db, i), CHT_OK);
    assert_int_equal(read_all(db, PAIRS).right, PAIRS);
    assert_int_equal(cht_store_checkpoint(db, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    open_env();
    assert_int_equal(cht_env_get(env, "default", &db, &err), CHT_OK);
    assert_int_equal(read_all(db, PAIRS).right, PAIRS);
    cht_env_abandon(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_pages),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_others),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(test_given_up),
#endif
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_values_cut),
        cmocka_unit_test(test_pairs_cut),
        cmocka_unit_test(test_keys_cut),
        cmocka_unit_test(test_recycle_cut),
        cmocka_unit_test(test_nothing_left),
        cmocka_unit_test(test_grows_after_a_loss),
        cmocka_unit_test(test_mapping_that_cannot_grow),
        cmocka_unit_test(test_while_reading),
        cmocka_unit_test(test_damaged_place),
    };
    char cmd[200];
    if (mkdtemp(root) == NULL)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", root);
    return system(cmd) == 0 ? rc : 1;
}
