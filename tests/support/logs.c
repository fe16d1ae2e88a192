/* logs: see logs.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
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
#include "support/logs.h"

/* ---- a disk that fails on demand ------------------------------------------------------------------------------- */

struct logs_disk logs_disk;

const struct cht_io_ops *logs_real;

static bool hit(enum logs_op op)
{
    long one = ++logs_disk.calls[op], any = ++logs_disk.all, n = logs_disk.op == OP_COUNT ? any : one;
    bool mine = logs_disk.fail_at > 0 && (logs_disk.op == OP_COUNT || logs_disk.op == op);
    bool now = mine && (n == logs_disk.fail_at || (logs_disk.forever && n > logs_disk.fail_at));
    logs_disk.failed += now;
    return now;
}
#define TRY(op)                                                                  \
    do {                                                                         \
        if (hit(op))                                                             \
            return CHT_FAIL(err, logs_disk.code, "injected failure of %s", #op); \
    } while (0)

static enum cht_rc d_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                          struct cht_err *err)
{
    if (flags & CHT_OPEN_CREATE)
        TRY(OP_OPEN);
    return logs_real->open(io, path, flags, out, err);
}
static enum cht_rc d_pwrite(struct cht_file *f, const void *b, size_t n, uint64_t off, size_t *done,
                            struct cht_err *err)
{
    if (logs_disk.fail_at > 0 && hit(OP_WRITE)) { /* half of it gets there */
        if (n > 1)
            (void)logs_real->pwrite(f, b, n / 2, off, done, NULL);
        return CHT_FAIL(err, logs_disk.code, "injected failure of OP_WRITE");
    }
    if (logs_disk.fail_at == 0)
        (void)hit(OP_WRITE);
    return logs_real->pwrite(f, b, n > 3000 ? n - 1000 : n, off, done,
                             err); /* short writes are always possible */
}
static enum cht_rc d_sync(struct cht_file *f, struct cht_err *err)
{
    TRY(OP_SYNC);
    return logs_real->sync(f, err);
}
static enum cht_rc d_allocate(struct cht_file *f, uint64_t off, uint64_t n, struct cht_err *err)
{
    TRY(OP_ALLOCATE);
    return logs_real->allocate(f, off, n, err);
}
static enum cht_rc d_truncate(struct cht_file *f, uint64_t n, struct cht_err *err)
{
    TRY(OP_TRUNCATE);
    return logs_real->truncate(f, n, err);
}
static enum cht_rc d_rename(struct cht_io *io, const char *a, const char *b, struct cht_err *err)
{
    TRY(OP_RENAME);
    return logs_real->rename(io, a, b, err);
}
static enum cht_rc d_unlink(struct cht_io *io, const char *path, struct cht_err *err)
{
    TRY(OP_UNLINK);
    return logs_real->unlink(io, path, err);
}
static enum cht_rc d_sync_dir(struct cht_io *io, const char *path, struct cht_err *err)
{
    TRY(OP_SYNC_DIR);
    return logs_real->sync_dir(io, path, err);
}

void logs_fault(enum logs_op op, long nth, bool forever, enum cht_rc code)
{
    for (int i = 0; i < OP_COUNT; i++)
        logs_disk.calls[i] = 0;
    logs_disk.all = logs_disk.failed = 0;
    logs_disk.op = op;
    logs_disk.fail_at = nth;
    logs_disk.forever = forever;
    logs_disk.code = code;
}
void logs_heal(void) { logs_fault(OP_COUNT, 0, false, CHT_OK); }

/* ---- fixture ----------------------------------------------------------------------------------------------------- */

char logs_dir[64];
uint64_t logs_seed = 1;

int logs_setup(void **state)
{
    (void)state;
    const char *s = getenv("CHT_TEST_SEED");
    logs_seed = s != NULL ? strtoull(s, NULL, 10) : 1;
    logs_real = cht_io_posix()->ops;
    logs_disk.ops = *logs_real;
    logs_disk.ops.open = d_open;
    logs_disk.ops.pwrite = d_pwrite;
    logs_disk.ops.sync = d_sync;
    logs_disk.ops.allocate = d_allocate;
    logs_disk.ops.truncate = d_truncate;
    logs_disk.ops.rename = d_rename;
    logs_disk.ops.unlink = d_unlink;
    logs_disk.ops.sync_dir = d_sync_dir;
    logs_disk.io.ops = &logs_disk.ops;
    logs_heal();
    (void)snprintf(logs_dir, sizeof logs_dir, "/tmp/test_wal.XXXXXX");
    return mkdtemp(logs_dir) == NULL;
}

int logs_teardown(void **state)
{
    (void)state;
    return cht_io_remove_tree(cht_io_posix(), logs_dir, NULL) != CHT_OK;
}

void logs_wipe(void)
{
    assert_int_equal(cht_io_remove_tree(cht_io_posix(), logs_dir, NULL), CHT_OK);
    assert_int_equal(mkdir(logs_dir, 0700), 0);
}

void logs_check(enum cht_rc rc, const struct cht_err *err, int line)
{
    if (rc != CHT_OK)
        fail_msg("line %d: %s: %s (seed %" PRIu64 ")", line, cht_rc_slug(rc), err->msg, logs_seed);
}

struct cht_wal_config logs_config(bool read_only)
{
    struct cht_wal_config c = {
        .io = &logs_disk.io, .dir = logs_dir, .segment_bytes = LOGS_SEGMENT, .read_only = read_only};
    memset(c.uuid, 0xAB, sizeof c.uuid);
    return c;
}

size_t logs_size_of(uint64_t i, size_t max)
{
    return (size_t)(i * UINT64_C(0x9E3779B97F4A7C15) >> 33) % (max + 1);
}
void logs_fill(uint64_t i, uint8_t *p, size_t n)
{
    struct cht_rng r;
    cht_rng_seed(&r, i * 31 + 7);
    for (size_t k = 0; k < n; k++)
        p[k] = (uint8_t)(cht_rng_next(&r) >> 20);
}

enum cht_rc logs_see(void *ctx, uint64_t seq, const uint8_t *p, size_t n, struct cht_err *err)
{
    struct logs_seen *s = ctx;
    (void)err;
    size_t want = s->sizes != NULL ? s->sizes[seq - 1] : s->exact != 0 ? s->exact : logs_size_of(seq, s->max);
    uint8_t *w = malloc(want + 1);
    assert_non_null(w);
    logs_fill(seq, w, want);
    s->wrong |= n != want || memcmp(p, w, n) != 0 || (s->count > 0 && seq != s->last + 1);
    free(w);
    if (s->count++ == 0)
        s->first = seq;
    s->last = seq;
    return CHT_OK;
}

void logs_append(struct cht_wal *w, size_t n, bool sync)
{
    uint64_t seq, next = cht_wal_seq(w) + 1;
    uint8_t *p = malloc(n + 1);
    assert_non_null(p);
    logs_fill(next, p, n);
    struct cht_wal_part parts[3] = {{p, n / 3}, {NULL, 0}, {p + n / 3, n - n / 3}};
    OK(cht_wal_reserve(w, n, E));
    OK(cht_wal_append(w, parts, 3, &seq, E));
    assert_int_equal(seq, next);
    if (sync)
        OK(cht_wal_sync(w, E));
    free(p);
}

struct cht_wal *logs_open(uint64_t from, uint64_t known, struct logs_seen *s)
{
    struct cht_wal_config c = logs_config(false);
    struct cht_wal *w;
    struct logs_seen dummy = {.max = 100};
    s = s == NULL ? &dummy : s;
    OK(cht_wal_open(&c, &w, E));
    OK(cht_wal_replay(w, from, known, logs_see, s, E));
    assert_false(s->wrong);
    return w;
}

enum cht_rc logs_try(uint64_t from, uint64_t known, bool read_only, struct logs_seen *s, struct cht_err *err)
{
    struct cht_wal_config c = logs_config(read_only);
    struct cht_wal *w;
    enum cht_rc rc = cht_wal_open(&c, &w, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_wal_replay(w, from, known, logs_see, s, err);
    assert_int_equal(cht_wal_close(w, false, NULL), CHT_OK);
    return rc;
}

/* ---- files from the outside ---------------------------------------------------------------------------------------- */

const char *logs_path(uint64_t number)
{
    static char p[128];
    (void)snprintf(p, sizeof p, "%s/%016" PRIx64 ".log", logs_dir, number);
    return p;
}

uint8_t *logs_slurp(uint64_t number, size_t *n)
{
    FILE *f = fopen(logs_path(number), "rb");
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

void logs_spit(uint64_t number, const uint8_t *p, size_t n)
{
    FILE *f = fopen(logs_path(number), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void add_file(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct logs_sum *s = ctx;
    char path[400];
    assert_int_equal(kind, CHT_IO_FILE);
    (void)snprintf(path, sizeof path, "%s/%s", logs_dir, name);
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
struct logs_sum logs_look(void)
{
    struct logs_sum s = {0};
    assert_int_equal(logs_real->list(&logs_disk.io, logs_dir, add_file, &s, NULL), CHT_OK);
    return s;
}

uint8_t *logs_six(size_t *n, uint64_t ends[6])
{
    logs_wipe();
    struct cht_wal *w = logs_open(0, 0, NULL);
    uint64_t at = LOGS_HEADER;
    for (uint64_t i = 1; i <= 6; i++) {
        logs_append(w, logs_size_of(i, 50), true);
        ends[i - 1] = at + 32 + logs_size_of(i, 50);
        at += (32 + logs_size_of(i, 50) + 7) & ~UINT64_C(7);
    }
    OK(cht_wal_close(w, false, E));
    return logs_slurp(1, n);
}
