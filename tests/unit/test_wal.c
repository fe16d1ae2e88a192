/* test_wal: the log's files, from the outside: what was appended is what is replayed; what was damaged is told; a failure of
 * any call leaves a log that opens. Record i of a test has a payload that only i decides (fill), so a wrong record cannot
 * pass for the right one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "store/wal.h"

#define SEGMENT 8192u
#define HEADER 512u

/* ---- a disk that fails on demand ------------------------------------------------------------------------------- */

enum op { OP_OPEN, OP_WRITE, OP_SYNC, OP_ALLOCATE, OP_TRUNCATE, OP_RENAME, OP_UNLINK, OP_SYNC_DIR, OP_COUNT };

static struct {
    struct cht_io io;
    struct cht_io_ops ops;
    _Atomic long calls[OP_COUNT], all;
    enum op op;   /* fail_at counts calls of this one; OP_COUNT: of all that change something */
    long fail_at; /* 0: never */
    bool forever;
    enum cht_rc code;
    _Atomic long failed;
} disk;

static const struct cht_io_ops *real;

static bool hit(enum op op)
{
    long one = ++disk.calls[op], any = ++disk.all, n = disk.op == OP_COUNT ? any : one;
    bool mine = disk.fail_at > 0 && (disk.op == OP_COUNT || disk.op == op);
    bool now = mine && (n == disk.fail_at || (disk.forever && n > disk.fail_at));
    disk.failed += now;
    return now;
}
#define TRY(op)                                                             \
    do {                                                                    \
        if (hit(op))                                                        \
            return CHT_FAIL(err, disk.code, "injected failure of %s", #op); \
    } while (0)

static enum cht_rc d_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                          struct cht_err *err)
{
    if (flags & CHT_OPEN_CREATE)
        TRY(OP_OPEN);
    return real->open(io, path, flags, out, err);
}
static enum cht_rc d_pwrite(struct cht_file *f, const void *b, size_t n, uint64_t off, size_t *done,
                            struct cht_err *err)
{
    if (disk.fail_at > 0 && hit(OP_WRITE)) { /* half of it gets there */
        if (n > 1)
            (void)real->pwrite(f, b, n / 2, off, done, NULL);
        return CHT_FAIL(err, disk.code, "injected failure of OP_WRITE");
    }
    if (disk.fail_at == 0)
        (void)hit(OP_WRITE);
    return real->pwrite(f, b, n > 3000 ? n - 1000 : n, off, done, err); /* short writes are always possible */
}
static enum cht_rc d_sync(struct cht_file *f, struct cht_err *err)
{
    TRY(OP_SYNC);
    return real->sync(f, err);
}
static enum cht_rc d_allocate(struct cht_file *f, uint64_t off, uint64_t n, struct cht_err *err)
{
    TRY(OP_ALLOCATE);
    return real->allocate(f, off, n, err);
}
static enum cht_rc d_truncate(struct cht_file *f, uint64_t n, struct cht_err *err)
{
    TRY(OP_TRUNCATE);
    return real->truncate(f, n, err);
}
static enum cht_rc d_rename(struct cht_io *io, const char *a, const char *b, struct cht_err *err)
{
    TRY(OP_RENAME);
    return real->rename(io, a, b, err);
}
static enum cht_rc d_unlink(struct cht_io *io, const char *path, struct cht_err *err)
{
    TRY(OP_UNLINK);
    return real->unlink(io, path, err);
}
static enum cht_rc d_sync_dir(struct cht_io *io, const char *path, struct cht_err *err)
{
    TRY(OP_SYNC_DIR);
    return real->sync_dir(io, path, err);
}

static void fault(enum op op, long nth, bool forever, enum cht_rc code)
{
    for (int i = 0; i < OP_COUNT; i++)
        disk.calls[i] = 0;
    disk.all = disk.failed = 0;
    disk.op = op;
    disk.fail_at = nth;
    disk.forever = forever;
    disk.code = code;
}
static void heal(void) { fault(OP_COUNT, 0, false, CHT_OK); }

/* ---- fixture ----------------------------------------------------------------------------------------------------- */

static char dir[64];
static uint64_t seed = 1;

static int setup(void **state)
{
    (void)state;
    const char *s = getenv("CHT_TEST_SEED");
    seed = s != NULL ? strtoull(s, NULL, 10) : 1;
    real = cht_io_posix()->ops;
    disk.ops = *real;
    disk.ops.open = d_open;
    disk.ops.pwrite = d_pwrite;
    disk.ops.sync = d_sync;
    disk.ops.allocate = d_allocate;
    disk.ops.truncate = d_truncate;
    disk.ops.rename = d_rename;
    disk.ops.unlink = d_unlink;
    disk.ops.sync_dir = d_sync_dir;
    disk.io.ops = &disk.ops;
    heal();
    (void)snprintf(dir, sizeof dir, "/tmp/test_wal.XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return cht_io_remove_tree(cht_io_posix(), dir, NULL) != CHT_OK;
}

/* An empty folder again. */
static void wipe(void)
{
    assert_int_equal(cht_io_remove_tree(cht_io_posix(), dir, NULL), CHT_OK);
    assert_int_equal(mkdir(dir, 0700), 0);
}

static void check_ok(enum cht_rc rc, const struct cht_err *err, int line)
{
    if (rc != CHT_OK)
        fail_msg("line %d: %s: %s (seed %" PRIu64 ")", line, cht_rc_slug(rc), err->msg, seed);
}
#define OK(call)                               \
    do {                                       \
        struct cht_err err_ = {0}, *E = &err_; \
        check_ok((call), E, __LINE__);         \
    } while (0)

static struct cht_wal_config config(bool read_only)
{
    struct cht_wal_config c = {.io = &disk.io, .dir = dir, .segment_bytes = SEGMENT, .read_only = read_only};
    memset(c.uuid, 0xAB, sizeof c.uuid);
    return c;
}

/* The payload of record i. */
static size_t size_of(uint64_t i, size_t max)
{
    return (size_t)(i * UINT64_C(0x9E3779B97F4A7C15) >> 33) % (max + 1);
}
static void fill(uint64_t i, uint8_t *p, size_t n)
{
    struct cht_rng r;
    cht_rng_seed(&r, i * 31 + 7);
    for (size_t k = 0; k < n; k++)
        p[k] = (uint8_t)(cht_rng_next(&r) >> 20);
}

struct seen {
    uint64_t first, last, count;
    size_t max; /* payload sizes are size_of(seq, max), or exactly `exact` */
    size_t exact;
    const size_t *sizes; /* or sizes[seq - 1] */
    bool wrong;
};

static enum cht_rc see(void *ctx, uint64_t seq, const uint8_t *p, size_t n, struct cht_err *err)
{
    struct seen *s = ctx;
    (void)err;
    size_t want = s->sizes != NULL ? s->sizes[seq - 1] : s->exact != 0 ? s->exact : size_of(seq, s->max);
    uint8_t *w = malloc(want + 1);
    assert_non_null(w);
    fill(seq, w, want);
    s->wrong |= n != want || memcmp(p, w, n) != 0 || (s->count > 0 && seq != s->last + 1);
    free(w);
    if (s->count++ == 0)
        s->first = seq;
    s->last = seq;
    return CHT_OK;
}

static void append(struct cht_wal *w, size_t n, bool sync)
{
    uint64_t seq, next = cht_wal_seq(w) + 1;
    uint8_t *p = malloc(n + 1);
    assert_non_null(p);
    fill(next, p, n);
    struct cht_wal_part parts[3] = {{p, n / 3}, {NULL, 0}, {p + n / 3, n - n / 3}};
    OK(cht_wal_reserve(w, n, E));
    OK(cht_wal_append(w, parts, 3, &seq, E));
    assert_int_equal(seq, next);
    if (sync)
        OK(cht_wal_sync(w, E));
    free(p);
}

static struct cht_wal *open_log(uint64_t from, uint64_t known, struct seen *s)
{
    struct cht_wal_config c = config(false);
    struct cht_wal *w;
    struct seen dummy = {.max = 100};
    s = s == NULL ? &dummy : s;
    OK(cht_wal_open(&c, &w, E));
    OK(cht_wal_replay(w, from, known, see, s, E));
    assert_false(s->wrong);
    return w;
}

/* Opens, replays, closes; the code of the first failure. */
static enum cht_rc try_log(uint64_t from, uint64_t known, bool read_only, struct seen *s, struct cht_err *err)
{
    struct cht_wal_config c = config(read_only);
    struct cht_wal *w;
    enum cht_rc rc = cht_wal_open(&c, &w, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_wal_replay(w, from, known, see, s, err);
    assert_int_equal(cht_wal_close(w, false, NULL), CHT_OK);
    return rc;
}

/* ---- files from the outside ---------------------------------------------------------------------------------------- */

static const char *seg_path(uint64_t number)
{
    static char p[128];
    (void)snprintf(p, sizeof p, "%s/%016" PRIx64 ".log", dir, number);
    return p;
}

static uint8_t *slurp(uint64_t number, size_t *n)
{
    FILE *f = fopen(seg_path(number), "rb");
    if (f == NULL)
        return NULL;
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *n = (size_t)st.st_size;
    uint8_t *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    assert_int_equal(fclose(f), 0);
    return p;
}

static void spit(uint64_t number, const uint8_t *p, size_t n)
{
    FILE *f = fopen(seg_path(number), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

struct sum {
    uint64_t files, bytes, crc;
};
static void add_file(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct sum *s = ctx;
    char path[400];
    assert_int_equal(kind, CHT_IO_FILE);
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t b[4096];
    uint32_t crc = cht_crc32c(0, name, strlen(name));
    for (size_t n; (n = fread(b, 1, sizeof b, f)) > 0; s->bytes += n)
        crc = cht_crc32c(crc, b, n);
    assert_int_equal(fclose(f), 0);
    s->files++;
    s->crc += crc; /* the order of a listing is any */
}
static struct sum look(void)
{
    struct sum s = {0};
    assert_int_equal(real->list(&disk.io, dir, add_file, &s, NULL), CHT_OK);
    return s;
}

/* ---- round trips ----------------------------------------------------------------------------------------------- */

static void test_empty(void **state)
{
    (void)state;
    struct seen s = {.max = 10};
    struct cht_wal *w = open_log(0, 0, &s);
    assert_int_equal(s.count, 0);
    assert_int_equal(look().files, 0);
    assert_int_equal(cht_wal_bytes(w), 0);
    OK(cht_wal_close(w, true, E));
    struct sum a = look();
    assert_int_equal(a.files, 1);
    assert_int_equal(a.bytes, HEADER);
    w = open_log(0, 0, &s);
    assert_int_equal(cht_wal_seq(w), 0);
    OK(cht_wal_close(w, true, E)); /* nothing was written: the file stays as it is */
    assert_int_equal(look().crc, a.crc);
    w = open_log(0, 0, &s);
    OK(cht_wal_sync(w, E));
    append(w, 0, true); /* an empty record is one too */
    assert_int_equal(cht_wal_seq(w), 1);
    OK(cht_wal_close(w, false, E));
    s.exact = 0;
    s.max = 0;
    w = open_log(0, 1, &s);
    assert_int_equal(s.count, 1);
    OK(cht_wal_close(w, false, E));
}

static void round_trip(uint64_t count, size_t max, uint64_t reopen_every)
{
    struct cht_wal *w = open_log(0, 0, NULL);
    uint64_t bytes = 0;
    for (uint64_t i = 1; i <= count; i++) {
        append(w, size_of(i, max), i % 3 == 0);
        bytes += size_of(i, max);
        if (i % reopen_every == 0) {
            OK(cht_wal_close(w, false, E));
            struct seen s = {.max = max};
            w = open_log(0, i - i % 3, &s);
            assert_int_equal(s.count, i);
        }
    }
    assert_true(cht_wal_live(w) >= bytes);
    assert_int_equal(look().bytes, cht_wal_bytes(w));
    OK(cht_wal_close(w, false, E));
    for (uint64_t from = 0; from <= count; from += 1 + count / 7) {
        struct seen s = {.max = max};
        w = open_log(from, count, &s);
        assert_int_equal(s.count, count - from);
        assert_true(s.count == 0 || s.first == from + 1);
        assert_int_equal(cht_wal_seq(w), count);
        assert_int_equal(cht_wal_synced(w), count);
        OK(cht_wal_close(w, false, E));
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    round_trip(1, 100, 1000);
    wipe();
    round_trip(700, 300, 1000); /* many segments */
    wipe();
    round_trip(60, 300, 7); /* a fresh segment after each opening */
    wipe();
    round_trip(60, 40000, 13); /* most records are longer than a segment */
}

static void test_oversized(void **state)
{
    (void)state;
    static const size_t sizes[] = {10,         9u << 20,  100, SEGMENT - HEADER - 32, SEGMENT - HEADER - 31,
                                   200u << 10, 63u << 10, 0};
    struct cht_wal *w = open_log(0, 0, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        append(w, sizes[i], true);
    OK(cht_wal_close(w, false, E));
    for (uint64_t from = 0; from < 8; from++) {
        struct seen s = {.sizes = sizes};
        OK(try_log(from, 8, true, &s, E));
        assert_false(s.wrong);
        assert_int_equal(s.first, from + 1);
        assert_int_equal(s.last, 8);
    }
    w = open_log(8, 8, NULL);
    append(w, 1, true);
    OK(cht_wal_trim(w, 8, 5, E));
    assert_true(cht_wal_bytes(w) <= 6 * SEGMENT); /* the long ones were deleted, not kept */
    assert_int_equal(look().bytes, cht_wal_bytes(w));
    OK(cht_wal_close(w, false, E));
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

/* Six synced records in one segment; ends[i] is where record i + 1 ends. */
static uint8_t *small_log(size_t *n, uint64_t ends[6])
{
    wipe();
    struct cht_wal *w = open_log(0, 0, NULL);
    uint64_t at = HEADER;
    for (uint64_t i = 1; i <= 6; i++) {
        append(w, size_of(i, 50), true);
        ends[i - 1] = at + 32 + size_of(i, 50);
        at += (32 + size_of(i, 50) + 7) & ~UINT64_C(7);
    }
    OK(cht_wal_close(w, false, E));
    return slurp(1, n);
}

static void test_truncated_anywhere(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = small_log(&n, ends);
    for (size_t cut = 0; cut <= ends[5] + 9; cut++) {
        uint64_t whole = 0;
        while (whole < 6 && ends[whole] <= cut)
            whole++;
        for (int zeros = 0; zeros < 2;
             zeros++) { /* the file ends there, or it reads as zeros from there on */
            uint8_t *copy = calloc(1, n);
            assert_non_null(copy);
            memcpy(copy, image, cut);
            if (zeros && cut > 0 && cut < ends[5] &&
                copy[cut - 1] == 0) { /* no difference to a shorter cut */
                free(copy);
                continue;
            }
            struct seen s = {.max = 50};
            struct cht_err err = {0};
            spit(1, copy, zeros ? n : cut);
            enum cht_rc rc = try_log(0, 0, true, &s, &err);
            assert_false(s.wrong);
            if (zeros && cut > 0 && cut < HEADER) /* half a header, in a sector that is written wholly */
                assert_true(rc == CHT_CORRUPT || s.count == 0);
            else
                check_ok(rc, &err, __LINE__);
            if (!zeros)
                assert_int_equal(s.count, whole);
            s = (struct seen){.max = 50};
            if (!zeros && whole < 6) /* a checkpoint knows of more: damage, with its place */
                assert_int_equal(try_log(0, 6, true, &s, &err), CHT_CORRUPT);
            free(copy);
        }
    }
    free(image);
}

static void test_flip_anywhere(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = small_log(&n, ends);
    for (size_t at = 0; at < ends[5] + 40; at++) {
        for (int bit = 0; bit < 8; bit++) {
            struct seen s = {.max = 50}, k = {.max = 50};
            struct cht_err err = {0}, told = {0};
            image[at] ^= (uint8_t)(1 << bit);
            spit(1, image, n);
            enum cht_rc rc = try_log(0, 0, true, &s, &err);
            enum cht_rc rck = try_log(0, 6, true, &k, &told);
            image[at] ^= (uint8_t)(1 << bit);
            assert_false(s.wrong || k.wrong);
            if (rc == CHT_OK) /* the last one has no witness; padding and the space after say nothing */
                assert_true(s.count == 6 || (s.count == 5 && at >= ends[4]));
            else
                assert_true(rc == CHT_CORRUPT && strstr(err.msg, "offset") != NULL &&
                            strstr(err.msg, ".log") != NULL);
            assert_true(rck == CHT_CORRUPT || (rck == CHT_OK && k.count == 6));
            if (at < HEADER)
                assert_int_equal(rc, CHT_CORRUPT);
        }
    }
    free(image);
}

/* The same over several segments: only the end of the last one may be lost. */
static void test_flip_in_older_segments(void **state)
{
    (void)state;
    struct cht_wal *w = open_log(0, 0, NULL);
    for (uint64_t i = 1; i <= 20; i++)
        append(w, size_of(i, 3000), true);
    OK(cht_wal_close(w, false, E));
    uint64_t segments = look().files;
    assert_true(segments >= 3);
    for (uint64_t number = 1; number <= segments; number++) {
        size_t n;
        uint8_t *image = slurp(number, &n);
        for (size_t at = 0; at < n; at += at < 600 ? 1 : 37) {
            struct seen s = {.max = 3000};
            struct cht_err err = {0};
            image[at] ^= 0x10;
            spit(number, image, n);
            image[at] ^= 0x10;
            enum cht_rc rc = try_log(0, 0, true, &s, &err);
            assert_false(s.wrong);
            assert_true(rc == CHT_CORRUPT || (rc == CHT_OK && s.count >= (number == segments ? 19 : 20)));
        }
        spit(number, image, n);
        if (number < segments || segments == 1) { /* a segment is missing */
            struct seen s = {.max = 3000};
            struct cht_err err = {0};
            assert_int_equal(unlink(seg_path(number)), 0);
            assert_int_equal(try_log(0, 0, true, &s, &err), CHT_CORRUPT);
            spit(number, image, n);
        }
        free(image);
    }
    struct seen s = {.max = 3000};
    OK(try_log(0, 20, true, &s, E));
}

/* Records that were not synced may be lost in any order: the log ends at the first gap, and what lies after it must not
 * come back, not even when new records end exactly where the old ones began. */
static void test_unsynced_end(void **state)
{
    (void)state;
    struct cht_wal *w = open_log(0, 0, NULL);
    for (uint64_t i = 1; i <= 8; i++)
        append(w, 104, i == 3);
    OK(cht_wal_close(w, false, E));
    size_t n;
    uint8_t *image = slurp(1, &n);
    memset(image + HEADER + 4 * 136, 0, 136); /* record 5 */
    spit(1, image, n);
    free(image);
    struct seen s = {.exact = 104};
    w = open_log(0, 3, &s);
    assert_int_equal(s.last, 4);
    append(w, 104, true); /* another record 5 */
    OK(cht_wal_close(w, false, E));
    s = (struct seen){.exact = 104};
    w = open_log(0, 5, &s);
    assert_int_equal(s.last, 5);
    assert_int_equal(s.count, 5);
    OK(cht_wal_close(w, false, E));
    /* but after a sync it is damage */
    wipe();
    w = open_log(0, 0, NULL);
    for (uint64_t i = 1; i <= 8; i++)
        append(w, 104, i == 6);
    OK(cht_wal_close(w, false, E));
    image = slurp(1, &n);
    memset(image + HEADER + 4 * 136, 0, 136);
    spit(1, image, n);
    free(image);
    struct cht_err err = {0};
    assert_int_equal(try_log(0, 0, false, &s, &err), CHT_CORRUPT);
    assert_non_null(strstr(err.msg, "offset 1056")); /* 512 + 4 * 136 */
}

static void seal(uint8_t *h) { cht_put32(h + 508, cht_crc32c(0, h, 508)); }

static void test_headers(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = small_log(&n, ends), *h = malloc(n);
    assert_non_null(h);
    struct seen s = {.max = 50};
    struct cht_err err = {0};
    memcpy(h, image, n); /* another version: said so, although everything else is in order */
    cht_put32(h + 8, 99);
    seal(h);
    spit(1, h, n);
    assert_int_equal(try_log(0, 0, true, &s, &err), CHT_VERSION);
    memcpy(h, image, n);
    h[16] ^= 1;
    seal(h);
    spit(1, h, n);
    assert_int_equal(try_log(0, 0, true, &s, &err), CHT_SHARD_MISPLACED);
    /* a second segment that begins too late */
    spit(1, image, n);
    memcpy(h, image, HEADER);
    memset(h + HEADER, 0, n - HEADER);
    cht_put64(h + 32, 2);
    cht_put64(h + 48, 8);
    seal(h);
    spit(2, h, n);
    assert_int_equal(try_log(0, 0, true, &s, &err), CHT_CORRUPT);
    /* segments that do not reach back far enough */
    assert_int_equal(unlink(seg_path(1)), 0);
    assert_int_equal(try_log(6, 6, true, &s, &err), CHT_CORRUPT);
    s = (struct seen){.max = 50};
    OK(try_log(7, 7, true, &s, E));
    assert_int_equal(s.count, 0);
    assert_int_equal(unlink(seg_path(2)), 0);
    assert_int_equal(try_log(7, 7, true, &s, &err),
                     CHT_CORRUPT); /* nothing at all, but there was something */
    free(h);
    free(image);
}

/* A newest file that never got its header on disk is ignored and its number used again; with a record in it, or with another
 * file after it, it is damage. */
static void test_leftover(void **state)
{
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        size_t n;
        uint64_t ends[6];
        uint8_t *image = small_log(&n, ends), *h = calloc(1, n);
        assert_non_null(h);
        size_t len = kind == 0 ? 0 : kind == 1 ? 511 : n; /* empty, half a sector, zeros */
        if (kind >= 3)
            memcpy(h, image, n); /* the segment's last life: number 1, seqs from 1 */
        if (kind == 4)
            h[45] ^= 1; /* a header that does not match its checksum */
        if (kind == 5)
            cht_put64(h + HEADER + 16, 7); /* the record that follows: so the header was there once */
        spit(2, h, len);
        struct seen s = {.max = 50};
        struct cht_err err = {0};
        enum cht_rc rc = try_log(0, 6, true, &s, &err);
        assert_false(s.wrong);
        if (kind == 5) {
            assert_int_equal(rc, CHT_CORRUPT);
        } else {
            check_ok(rc, &err, __LINE__);
            assert_int_equal(s.count, 6);
            spit(3, h, len);
            assert_int_equal(try_log(0, 6, true, &s, &err), CHT_CORRUPT);
            assert_int_equal(unlink(seg_path(3)), 0);
            struct seen all = {.max = 50};
            struct cht_wal *w = open_log(0, 6, &all); /* from 0: segment 1 is needed and not reused */
            for (uint64_t i = 7; i <= 300; i++)
                append(w, size_of(i, 50), true);
            OK(cht_wal_close(w, false, E));
            s = (struct seen){.max = 50};
            w = open_log(0, 300, &s);
            assert_int_equal(s.count, 300);
            OK(cht_wal_close(w, false, E));
        }
        free(h);
        free(image);
    }
}

static void test_read_only(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = small_log(&n, ends);
    image[ends[5] - 1] ^= 1; /* a torn end */
    spit(1, image, n);
    free(image);
    spit(2, (const uint8_t *)"", 0);
    spit(0xabc, (const uint8_t *)"x", 1);
    assert_int_equal(rename(seg_path(0xabc), "/tmp/test_wal_other"), 0);
    char other[128];
    (void)snprintf(other, sizeof other, "%s/notes.txt", dir);
    assert_int_equal(rename("/tmp/test_wal_other", other), 0);
    struct sum before = look();
    heal();
    struct seen s = {.max = 50};
    struct cht_wal_config c = config(true);
    struct cht_wal *w;
    OK(cht_wal_open(&c, &w, E));
    OK(cht_wal_replay(w, 0, 5, see, &s, E));
    assert_int_equal(s.count, 5);
    OK(cht_wal_close(w, true, E)); /* even if asked to */
    assert_int_equal(disk.all, 0);
    assert_int_equal(look().crc, before.crc);
    s = (struct seen){.max = 50}; /* UINT64_MAX: no record is needed */
    OK(try_log(UINT64_MAX, 0, true, &s, E));
    assert_int_equal(s.count, 0);
}

/* ---- reuse --------------------------------------------------------------------------------------------------------- */

static void test_reuse(void **state)
{
    (void)state;
    struct cht_wal *w = open_log(0, 0, NULL);
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    uint64_t trimmed = 0, most = 0;
    for (uint64_t i = 1; i <= 4000; i++) {
        append(w, 104, i % 2 == 0); /* all of one size: old records lie exactly where new ones will */
        if (cht_rng_below(&r, 40) == 0) {
            trimmed = i - cht_rng_below(&r, 20) % i;
            OK(cht_wal_trim(w, trimmed, 2, E));
            assert_true(cht_wal_live(w) <= (i - trimmed) * 136 + SEGMENT / 64 + 136);
        }
        most = cht_wal_bytes(w) > most ? cht_wal_bytes(w) : most;
        if (i % 97 == 0) {
            assert_int_equal(look().bytes, cht_wal_bytes(w));
            OK(cht_wal_close(w, false, E));
            struct seen s = {.exact = 104};
            w = open_log(trimmed, i - i % 2, &s);
            assert_int_equal(s.count, i - trimmed);
            assert_int_equal(cht_wal_live(w), (i - trimmed) * 136);
        }
    }
    assert_true(most <= 20 * SEGMENT);
    OK(cht_wal_trim(w, 4000, 0, E));
    assert_int_equal(cht_wal_live(w), 0);
    assert_int_equal(look().files, 1);
    long allocated = disk.calls[OP_ALLOCATE];
    for (uint64_t i = 4001; i <= 6000; i++) {
        append(w, 104, true);
        OK(cht_wal_trim(w, i, 2, E));
    }
    assert_true(disk.calls[OP_ALLOCATE] <= allocated + 3); /* from then on the segments go round */
    assert_true(disk.calls[OP_RENAME] > 10);
    OK(cht_wal_close(w, true, E));
    assert_int_equal(look().bytes, HEADER);
    w = open_log(6000, 6000, NULL);
    assert_int_equal(cht_wal_seq(w), 6000);
    append(w, 10, true);
    assert_int_equal(cht_wal_seq(w), 6001);
    OK(cht_wal_close(w, false, E));
}

/* ---- failures ------------------------------------------------------------------------------------------------------- */

static void test_disk_full(void **state)
{
    (void)state;
    struct cht_wal *w = open_log(0, 0, NULL);
    struct cht_err err = {0};
    fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    assert_int_equal(cht_wal_reserve(w, 10, &err), CHT_DISK_FULL);
    assert_int_equal(look().files, 0);
    heal();
    append(w, 4000, true);
    fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    assert_int_equal(cht_wal_reserve(w, 5000, &err), CHT_DISK_FULL);
    assert_int_equal(look().files, 1);
    append(w, 2000, true); /* there is still room for this one */
    assert_int_equal(cht_wal_reserve(w, 5000, NULL), CHT_DISK_FULL);
    fault(OP_WRITE, 1, true, CHT_DISK_FULL); /* a file system that tells it late */
    assert_int_equal(cht_wal_reserve(w, 5000, &err), CHT_DISK_FULL);
    fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    OK(cht_wal_reserve(w, 500, E));
    heal();
    append(w, 5000, true);
    OK(cht_wal_trim(w, 3, 2, E));
    fault(OP_ALLOCATE, 1, true, CHT_DISK_FULL);
    append(w, 5000, true); /* into a spare segment, which needs no space */
    heal();
    OK(cht_wal_close(w, false, E));
    struct seen s = {.max = 0, .exact = 5000};
    w = open_log(3, 4, &s);
    assert_int_equal(s.count, 1);
    OK(cht_wal_close(w, false, E));
    assert_int_equal(cht_wal_close(NULL, true, NULL), CHT_OK);
}

static void test_poison(void **state)
{
    (void)state;
    static const struct {
        enum op op;
        bool switching; /* needs a new segment */
    } cases[] = {{OP_WRITE, false}, {OP_SYNC, false}, {OP_WRITE, true}, {OP_SYNC, true}, {OP_SYNC_DIR, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wipe();
        heal();
        struct cht_wal *w = open_log(0, 0, NULL);
        append(w, 100, true);
        append(w, 100, true);
        struct cht_err err = {0};
        uint8_t b[7000] = {1};
        struct cht_wal_part part = {b, cases[i].switching ? sizeof b : 100};
        uint64_t seq;
        if (!cases[i].switching)
            append(w, 100, false);
        fault(cases[i].op, 1, false, CHT_IO);
        enum cht_rc rc = cht_wal_reserve(w, cases[i].switching ? 7900 : 100, &err);
        if (rc == CHT_OK)
            rc = cht_wal_append(w, &part, 1, &seq, &err);
        if (rc == CHT_OK)
            rc = cht_wal_sync(w, &err);
        assert_int_equal(rc, CHT_IO);
        assert_int_equal(disk.failed, 1);
        heal(); /* the disk is well again, the log is not */
        assert_int_equal(cht_wal_reserve(w, 1, &err), CHT_READ_ONLY);
        assert_non_null(strstr(err.msg, "injected failure"));
        assert_int_equal(cht_wal_append(w, &part, 1, &seq, NULL), CHT_READ_ONLY);
        assert_int_equal(cht_wal_sync(w, &err), CHT_READ_ONLY);
        assert_int_equal(cht_wal_trim(w, 1, 0, &err), CHT_READ_ONLY);
        assert_int_equal(cht_wal_synced(w), 2);
        assert_int_equal(cht_wal_close(w, true, &err), CHT_READ_ONLY);
        struct cht_wal_config c = config(false);
        OK(cht_wal_open(&c, &w, E));
        struct seen s = {.exact = 100};
        OK(cht_wal_replay(w, 0, 2, see, &s, E));
        assert_true(s.count >= 2 && s.count <= 4);
        OK(cht_wal_close(w, false, E));
    }
}

/* Every call fails in its turn, and from there on all of them, as if the process had been killed there. Whatever happened,
 * the log opens with everything that was synced. */
static uint64_t workload(uint64_t *acked)
{
    struct cht_wal_config c = config(false);
    struct cht_wal *w;
    struct seen s = {.exact = 500};
    struct cht_err err = {0};
    uint8_t b[500];
    uint64_t trimmed = 0;
    *acked = 0;
    if (cht_wal_open(&c, &w, &err) != CHT_OK)
        return 0;
    enum cht_rc rc = cht_wal_replay(w, 0, 0, see, &s, &err);
    for (uint64_t i = 1; i <= 90 && rc == CHT_OK; i++) {
        fill(i, b, sizeof b);
        struct cht_wal_part part = {b, sizeof b};
        uint64_t seq;
        rc = cht_wal_reserve(w, sizeof b, &err);
        if (rc == CHT_OK)
            rc = cht_wal_append(w, &part, 1, &seq, &err);
        if (rc == CHT_OK && i % 2 == 0)
            rc = cht_wal_sync(w, &err);
        if (rc == CHT_OK && i % 2 == 0)
            *acked = i;
        if (rc == CHT_OK && i % 20 == 0) {
            trimmed = i - 4;
            rc = cht_wal_trim(w, trimmed, 1, &err);
        }
    }
    if (rc == CHT_OK) /* everything is checkpointed */
        trimmed = 90;
    (void)cht_wal_close(w, rc == CHT_OK, &err); /* may be the call that fails */
    return trimmed;
}

static void test_every_call_fails(void **state)
{
    (void)state;
    for (int forever = 0; forever < 2; forever++) {
        bool reached = true;
        for (long n = 1; reached; n++) {
            wipe();
            fault(OP_COUNT, n, forever, CHT_IO);
            uint64_t acked, trimmed = workload(&acked);
            reached = disk.failed > 0;
            assert_true(reached || n > 1);
            heal();
            struct seen s = {.exact = 500};
            struct cht_wal *w = open_log(trimmed, acked, &s);
            assert_true(cht_wal_seq(w) >= acked && cht_wal_seq(w) <= acked + 2);
            uint64_t last = cht_wal_seq(w);
            append(w, 500, true);
            OK(cht_wal_close(w, false, E));
            s = (struct seen){.exact = 500};
            w = open_log(trimmed, last + 1, &s);
            assert_int_equal(s.count, last + 1 - trimmed);
            OK(cht_wal_close(w, true, E));
            assert_int_equal(look().bytes, HEADER);
        }
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        wipe();
        cht_alloc_fail_at(n, true);
        uint64_t before = cht_alloc_failures();
        uint64_t acked, trimmed = workload(&acked);
        uint64_t failures = cht_alloc_failures() - before;
        cht_alloc_fail_at(0, false);
        reached = failures > 0;
        assert_true(reached || n > 1);
        struct seen s = {.exact = 500};
        struct cht_wal *w = open_log(trimmed, acked, &s);
        OK(cht_wal_close(w, false, E));
    }
}

/* A failing callback ends the replay with its code. */
static enum cht_rc refuse(void *ctx, uint64_t seq, const uint8_t *p, size_t n, struct cht_err *err)
{
    (void)ctx;
    (void)p;
    (void)n;
    return seq == 3 ? CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "no") : CHT_OK;
}

static void test_callback_fails(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    free(small_log(&n, ends));
    struct cht_wal_config c = config(false);
    struct cht_wal *w;
    struct cht_err err = {0};
    OK(cht_wal_open(&c, &w, E));
    assert_int_equal(cht_wal_replay(w, 0, 0, refuse, NULL, &err), CHT_KEYS_EXHAUSTED);
    OK(cht_wal_close(w, true, E)); /* not replayed: nothing may be deleted */
    struct seen s = {.max = 50};
    w = open_log(0, 6, &s);
    assert_int_equal(s.count, 6);
    OK(cht_wal_close(w, false, E));
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void *sync_and_trim(void *arg)
{
    struct cht_wal *w = arg;
    while (!atomic_load(&stop)) {
        OK(cht_wal_sync(w, E));
        uint64_t synced = cht_wal_synced(w);
        assert_true(synced <= cht_wal_seq(w));
        OK(cht_wal_trim(w, synced > 50 ? synced - 50 : 0, 1, E));
        assert_true(cht_wal_live(w) < UINT64_C(1) << 40 && cht_wal_bytes(w) > 0 && cht_wal_written(w) > 0);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct cht_wal *w = open_log(0, 0, NULL);
    append(w, 200, true);
    pthread_t t[2];
    atomic_store(&stop, false);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, sync_and_trim, w), 0);
    for (uint64_t i = 2; i <= 3000; i++)
        append(w, 200, i % 64 == 0);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    OK(cht_wal_close(w, false, E));
    struct seen s = {.exact = 200};
    w = open_log(2990, 2980, &s);
    assert_int_equal(s.count, 10);
    OK(cht_wal_close(w, false, E));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_empty),         T(test_round_trip),
        T(test_oversized),     T(test_truncated_anywhere),
        T(test_flip_anywhere), T(test_flip_in_older_segments),
        T(test_unsynced_end),  T(test_headers),
        T(test_leftover),      T(test_read_only),
        T(test_reuse),         T(test_disk_full),
        T(test_poison),        T(test_every_call_fails),
        T(test_no_memory),     T(test_callback_fails),
        T(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
