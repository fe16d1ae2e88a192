/* test_wal: the log's files, from the outside: what was appended is what is replayed; what was damaged is told. support/logs.h has the log and
 * its records.
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
#include "support/logs.h"

/* ---- round trips ----------------------------------------------------------------------------------------------- */

static void test_empty(void **state)
{
    (void)state;
    struct logs_seen s = {.max = 10};
    struct cht_wal *w = logs_open(0, 0, &s);
    assert_int_equal(s.count, 0);
    assert_int_equal(logs_look().files, 0);
    assert_int_equal(cht_wal_bytes(w), 0);
    OK(cht_wal_close(w, true, E));
    struct logs_sum a = logs_look();
    assert_int_equal(a.files, 1);
    assert_int_equal(a.bytes, LOGS_HEADER);
    w = logs_open(0, 0, &s);
    assert_int_equal(cht_wal_seq(w), 0);
    OK(cht_wal_close(w, true, E)); /* nothing was written: the file stays as it is */
    assert_int_equal(logs_look().crc, a.crc);
    w = logs_open(0, 0, &s);
    OK(cht_wal_sync(w, E));
    logs_append(w, 0, true); /* an empty record is one too */
    assert_int_equal(cht_wal_seq(w), 1);
    OK(cht_wal_close(w, false, E));
    s.exact = 0;
    s.max = 0;
    w = logs_open(0, 1, &s);
    assert_int_equal(s.count, 1);
    OK(cht_wal_close(w, false, E));
}

static void round_trip(uint64_t count, size_t max, uint64_t reopen_every)
{
    struct cht_wal *w = logs_open(0, 0, NULL);
    uint64_t bytes = 0;
    for (uint64_t i = 1; i <= count; i++) {
        logs_append(w, logs_size_of(i, max), i % 3 == 0);
        bytes += logs_size_of(i, max);
        if (i % reopen_every == 0) {
            OK(cht_wal_close(w, false, E));
            struct logs_seen s = {.max = max};
            w = logs_open(0, i - i % 3, &s);
            assert_int_equal(s.count, i);
        }
    }
    assert_true(cht_wal_live(w) >= bytes);
    assert_int_equal(logs_look().bytes, cht_wal_bytes(w));
    OK(cht_wal_close(w, false, E));
    for (uint64_t from = 0; from <= count; from += 1 + count / 7) {
        struct logs_seen s = {.max = max};
        w = logs_open(from, count, &s);
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
    logs_wipe();
    round_trip(700, 300, 1000); /* many segments */
    logs_wipe();
    round_trip(60, 300, 7); /* a fresh segment after each opening */
    logs_wipe();
    round_trip(60, 40000, 13); /* most records are longer than a segment */
}

static void test_oversized(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        10,         9u << 20,  100, LOGS_SEGMENT - LOGS_HEADER - 32, LOGS_SEGMENT - LOGS_HEADER - 31,
        200u << 10, 63u << 10, 0};
    struct cht_wal *w = logs_open(0, 0, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        logs_append(w, sizes[i], true);
    OK(cht_wal_close(w, false, E));
    for (uint64_t from = 0; from < 8; from++) {
        struct logs_seen s = {.sizes = sizes};
        OK(logs_try(from, 8, true, &s, E));
        assert_false(s.wrong);
        assert_int_equal(s.first, from + 1);
        assert_int_equal(s.last, 8);
    }
    w = logs_open(8, 8, NULL);
    logs_append(w, 1, true);
    OK(cht_wal_trim(w, 8, 5, E));
    assert_true(cht_wal_bytes(w) <= 6 * LOGS_SEGMENT); /* the long ones were deleted, not kept */
    assert_int_equal(logs_look().bytes, cht_wal_bytes(w));
    OK(cht_wal_close(w, false, E));
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void test_truncated_anywhere(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = logs_six(&n, ends);
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
            struct logs_seen s = {.max = 50};
            struct cht_err err = {0};
            logs_spit(1, copy, zeros ? n : cut);
            enum cht_rc rc = logs_try(0, 0, true, &s, &err);
            assert_false(s.wrong);
            if (zeros && cut > 0 && cut < LOGS_HEADER) /* half a header, in a sector that is written wholly */
                assert_true(rc == CHT_CORRUPT || s.count == 0);
            else
                logs_check(rc, &err, __LINE__);
            if (!zeros)
                assert_int_equal(s.count, whole);
            s = (struct logs_seen){.max = 50};
            if (!zeros && whole < 6) /* a checkpoint knows of more: damage, with its place */
                assert_int_equal(logs_try(0, 6, true, &s, &err), CHT_CORRUPT);
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
    uint8_t *image = logs_six(&n, ends);
    for (size_t at = 0; at < ends[5] + 40; at++) {
        for (int bit = 0; bit < 8; bit++) {
            struct logs_seen s = {.max = 50}, k = {.max = 50};
            struct cht_err err = {0}, told = {0};
            image[at] ^= (uint8_t)(1 << bit);
            logs_spit(1, image, n);
            enum cht_rc rc = logs_try(0, 0, true, &s, &err);
            enum cht_rc rck = logs_try(0, 6, true, &k, &told);
            image[at] ^= (uint8_t)(1 << bit);
            assert_false(s.wrong || k.wrong);
            if (rc == CHT_OK) /* the last one has no witness; padding and the space after say nothing */
                assert_true(s.count == 6 || (s.count == 5 && at >= ends[4]));
            else
                assert_true(rc == CHT_CORRUPT && strstr(err.msg, "offset") != NULL &&
                            strstr(err.msg, ".log") != NULL);
            assert_true(rck == CHT_CORRUPT || (rck == CHT_OK && k.count == 6));
            if (at < LOGS_HEADER)
                assert_int_equal(rc, CHT_CORRUPT);
        }
    }
    free(image);
}

/* The same over several segments: only the end of the last one may be lost. */
static void test_flip_in_older_segments(void **state)
{
    (void)state;
    struct cht_wal *w = logs_open(0, 0, NULL);
    for (uint64_t i = 1; i <= 20; i++)
        logs_append(w, logs_size_of(i, 3000), true);
    OK(cht_wal_close(w, false, E));
    uint64_t segments = logs_look().files;
    assert_true(segments >= 3);
    for (uint64_t number = 1; number <= segments; number++) {
        size_t n;
        uint8_t *image = logs_slurp(number, &n);
        for (size_t at = 0; at < n; at += at < 600 ? 1 : 37) {
            struct logs_seen s = {.max = 3000};
            struct cht_err err = {0};
            image[at] ^= 0x10;
            logs_spit(number, image, n);
            image[at] ^= 0x10;
            enum cht_rc rc = logs_try(0, 0, true, &s, &err);
            assert_false(s.wrong);
            assert_true(rc == CHT_CORRUPT || (rc == CHT_OK && s.count >= (number == segments ? 19 : 20)));
        }
        logs_spit(number, image, n);
        if (number < segments || segments == 1) { /* a segment is missing */
            struct logs_seen s = {.max = 3000};
            struct cht_err err = {0};
            assert_int_equal(unlink(logs_path(number)), 0);
            assert_int_equal(logs_try(0, 0, true, &s, &err), CHT_CORRUPT);
            logs_spit(number, image, n);
        }
        free(image);
    }
    struct logs_seen s = {.max = 3000};
    OK(logs_try(0, 20, true, &s, E));
}

/* Records that were not synced may be lost in any order: the log ends at the first gap, and what lies after it must not
 * come back, not even when new records end exactly where the old ones began. */
static void test_unsynced_end(void **state)
{
    (void)state;
    struct cht_wal *w = logs_open(0, 0, NULL);
    for (uint64_t i = 1; i <= 8; i++)
        logs_append(w, 104, i == 3);
    OK(cht_wal_close(w, false, E));
    size_t n;
    uint8_t *image = logs_slurp(1, &n);
    memset(image + LOGS_HEADER + 4 * 136, 0, 136); /* record 5 */
    logs_spit(1, image, n);
    free(image);
    struct logs_seen s = {.exact = 104};
    w = logs_open(0, 3, &s);
    assert_int_equal(s.last, 4);
    logs_append(w, 104, true); /* another record 5 */
    OK(cht_wal_close(w, false, E));
    s = (struct logs_seen){.exact = 104};
    w = logs_open(0, 5, &s);
    assert_int_equal(s.last, 5);
    assert_int_equal(s.count, 5);
    OK(cht_wal_close(w, false, E));
    /* but after a sync it is damage */
    logs_wipe();
    w = logs_open(0, 0, NULL);
    for (uint64_t i = 1; i <= 8; i++)
        logs_append(w, 104, i == 6);
    OK(cht_wal_close(w, false, E));
    image = logs_slurp(1, &n);
    memset(image + LOGS_HEADER + 4 * 136, 0, 136);
    logs_spit(1, image, n);
    free(image);
    struct cht_err err = {0};
    assert_int_equal(logs_try(0, 0, false, &s, &err), CHT_CORRUPT);
    assert_non_null(strstr(err.msg, "offset 1056")); /* 512 + 4 * 136 */
}

static void seal(uint8_t *h) { cht_put32(h + 508, cht_crc32c(0, h, 508)); }

static void test_headers(void **state)
{
    (void)state;
    size_t n;
    uint64_t ends[6];
    uint8_t *image = logs_six(&n, ends), *h = malloc(n);
    assert_non_null(h);
    struct logs_seen s = {.max = 50};
    struct cht_err err = {0};
    memcpy(h, image, n); /* another version: said so, although everything else is in order */
    cht_put32(h + 8, 99);
    seal(h);
    logs_spit(1, h, n);
    assert_int_equal(logs_try(0, 0, true, &s, &err), CHT_VERSION);
    memcpy(h, image, n);
    h[16] ^= 1;
    seal(h);
    logs_spit(1, h, n);
    assert_int_equal(logs_try(0, 0, true, &s, &err), CHT_SHARD_MISPLACED);
    /* a second segment that begins too late */
    logs_spit(1, image, n);
    memcpy(h, image, LOGS_HEADER);
    memset(h + LOGS_HEADER, 0, n - LOGS_HEADER);
    cht_put64(h + 32, 2);
    cht_put64(h + 48, 8);
    seal(h);
    logs_spit(2, h, n);
    assert_int_equal(logs_try(0, 0, true, &s, &err), CHT_CORRUPT);
    /* segments that do not reach back far enough */
    assert_int_equal(unlink(logs_path(1)), 0);
    assert_int_equal(logs_try(6, 6, true, &s, &err), CHT_CORRUPT);
    s = (struct logs_seen){.max = 50};
    OK(logs_try(7, 7, true, &s, E));
    assert_int_equal(s.count, 0);
    assert_int_equal(unlink(logs_path(2)), 0);
    assert_int_equal(logs_try(7, 7, true, &s, &err),
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
        uint8_t *image = logs_six(&n, ends), *h = calloc(1, n);
        assert_non_null(h);
        size_t len = kind == 0 ? 0 : kind == 1 ? 511 : n; /* empty, half a sector, zeros */
        if (kind >= 3)
            memcpy(h, image, n); /* the segment's last life: number 1, seqs from 1 */
        if (kind == 4)
            h[45] ^= 1; /* a header that does not match its checksum */
        if (kind == 5)
            cht_put64(h + LOGS_HEADER + 16, 7); /* the record that follows: so the header was there once */
        logs_spit(2, h, len);
        struct logs_seen s = {.max = 50};
        struct cht_err err = {0};
        enum cht_rc rc = logs_try(0, 6, true, &s, &err);
        assert_false(s.wrong);
        if (kind == 5) {
            assert_int_equal(rc, CHT_CORRUPT);
        } else {
            logs_check(rc, &err, __LINE__);
            assert_int_equal(s.count, 6);
            logs_spit(3, h, len);
            assert_int_equal(logs_try(0, 6, true, &s, &err), CHT_CORRUPT);
            assert_int_equal(unlink(logs_path(3)), 0);
            struct logs_seen all = {.max = 50};
            struct cht_wal *w = logs_open(0, 6, &all); /* from 0: segment 1 is needed and not reused */
            for (uint64_t i = 7; i <= 300; i++)
                logs_append(w, logs_size_of(i, 50), true);
            OK(cht_wal_close(w, false, E));
            s = (struct logs_seen){.max = 50};
            w = logs_open(0, 300, &s);
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
    uint8_t *image = logs_six(&n, ends);
    image[ends[5] - 1] ^= 1; /* a torn end */
    logs_spit(1, image, n);
    free(image);
    logs_spit(2, (const uint8_t *)"", 0);
    logs_spit(0xabc, (const uint8_t *)"x", 1);
    char other[128];
    (void)snprintf(other, sizeof other, "%s/notes.txt", logs_dir);
    assert_int_equal(rename(logs_path(0xabc), other), 0);
    struct logs_sum before = logs_look();
    logs_heal();
    struct logs_seen s = {.max = 50};
    struct cht_wal_config c = logs_config(true);
    struct cht_wal *w;
    OK(cht_wal_open(&c, &w, E));
    OK(cht_wal_replay(w, 0, 5, logs_see, &s, E));
    assert_int_equal(s.count, 5);
    OK(cht_wal_close(w, true, E)); /* even if asked to */
    assert_int_equal(logs_disk.all, 0);
    assert_int_equal(logs_look().crc, before.crc);
    s = (struct logs_seen){.max = 50}; /* UINT64_MAX: no record is needed */
    OK(logs_try(UINT64_MAX, 0, true, &s, E));
    assert_int_equal(s.count, 0);
}

/* ---- reuse --------------------------------------------------------------------------------------------------------- */

static void test_reuse(void **state)
{
    (void)state;
    struct cht_wal *w = logs_open(0, 0, NULL);
    struct cht_rng r;
    cht_rng_seed(&r, logs_seed);
    uint64_t trimmed = 0, most = 0;
    for (uint64_t i = 1; i <= 4000; i++) {
        logs_append(w, 104, i % 2 == 0); /* all of one size: old records lie exactly where new ones will */
        if (cht_rng_below(&r, 40) == 0) {
            trimmed = i - cht_rng_below(&r, 20) % i;
            OK(cht_wal_trim(w, trimmed, 2, E));
            assert_true(cht_wal_live(w) <= (i - trimmed) * 136 + LOGS_SEGMENT / 64 + 136);
        }
        most = cht_wal_bytes(w) > most ? cht_wal_bytes(w) : most;
        if (i % 97 == 0) {
            assert_int_equal(logs_look().bytes, cht_wal_bytes(w));
            OK(cht_wal_close(w, false, E));
            struct logs_seen s = {.exact = 104};
            w = logs_open(trimmed, i - i % 2, &s);
            assert_int_equal(s.count, i - trimmed);
            assert_int_equal(cht_wal_live(w), (i - trimmed) * 136);
        }
    }
    assert_true(most <= 20 * LOGS_SEGMENT);
    OK(cht_wal_trim(w, 4000, 0, E));
    assert_int_equal(cht_wal_live(w), 0);
    assert_int_equal(logs_look().files, 1);
    long allocated = logs_disk.calls[OP_ALLOCATE];
    for (uint64_t i = 4001; i <= 6000; i++) {
        logs_append(w, 104, true);
        OK(cht_wal_trim(w, i, 2, E));
    }
    assert_true(logs_disk.calls[OP_ALLOCATE] <= allocated + 3); /* from then on the segments go round */
    assert_true(logs_disk.calls[OP_RENAME] > 10);
    OK(cht_wal_close(w, true, E));
    assert_int_equal(logs_look().bytes, LOGS_HEADER);
    w = logs_open(6000, 6000, NULL);
    assert_int_equal(cht_wal_seq(w), 6000);
    logs_append(w, 10, true);
    assert_int_equal(cht_wal_seq(w), 6001);
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
    struct cht_wal *w = logs_open(0, 0, NULL);
    logs_append(w, 200, true);
    pthread_t t[2];
    atomic_store(&stop, false);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, sync_and_trim, w), 0);
    for (uint64_t i = 2; i <= 3000; i++)
        logs_append(w, 200, i % 64 == 0);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    OK(cht_wal_close(w, false, E));
    struct logs_seen s = {.exact = 200};
    w = logs_open(2990, 2980, &s);
    assert_int_equal(s.count, 10);
    OK(cht_wal_close(w, false, E));
}

/* ---- numbers of files ------------------------------------------------------------------------------------------------ */

static bool is_open(const char *path)
{
    char link[64], to[512];
    bool found = false;
    for (int fd = 0; fd < 256 && !found; fd++) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, to, sizeof to - 1);
        found = n > 0 && (size_t)n == strlen(path) && memcmp(to, path, (size_t)n) == 0;
    }
    return found;
}

/* As FAT does, and many file systems in user space: a file that nobody has open gets another number each time. */
static enum cht_rc forgetful_stat(struct cht_io *io, const char *path, unsigned flags,
                                  struct cht_io_stat *out, struct cht_err *err)
{
    static uint64_t numbers = UINT64_C(1) << 40;
    enum cht_rc rc = logs_real->stat(io, path, flags, out, err);
    if (rc == CHT_OK && out->inode != 0 && !is_open(path))
        out->inode = numbers++;
    return rc;
}

static void test_numbers_change(void **state)
{
    (void)state;
    logs_disk.ops.stat = forgetful_stat;
    struct cht_wal *w = logs_open(0, 0, NULL);
    for (int i = 0; i < 30; i++)
        logs_append(w, 5000, true);
    OK(cht_wal_close(w, false, E));
    struct logs_seen s = {.exact = 5000};
    w = logs_open(0, 30, &s); /* the newest segment was found, and is not written to */
    OK(cht_wal_trim(w, 20, 0, E));
    logs_append(w, 5000, true);
    OK(cht_wal_trim(w, 31, 0, E));
    OK(cht_wal_close(w, false, E));
    s = (struct logs_seen){.exact = 5000};
    w = logs_open(30, 31, &s);
    OK(cht_wal_close(w, true, E));
    assert_int_equal(logs_look().bytes, LOGS_HEADER);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, logs_setup, logs_teardown)
    const struct CMUnitTest tests[] = {
        T(test_empty),          T(test_round_trip),
        T(test_oversized),      T(test_truncated_anywhere),
        T(test_flip_anywhere),  T(test_flip_in_older_segments),
        T(test_unsynced_end),   T(test_headers),
        T(test_leftover),       T(test_read_only),
        T(test_reuse),          T(test_threads),
        T(test_numbers_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
