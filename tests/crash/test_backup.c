/* test_backup: backups taken while commits and checkpoints go on, restored and compared with a model of the moment; the
 * same with threads; damaged and cut streams. Shows B1 and B2 of src/store/backup_format.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "os/thread.h"
#include "support/copies.h"

/* ---- the moment ------------------------------------------------------------------------------------------------- */

static void one_backup(struct copy_source *o, const char *what)
{
    struct cht_err err = {0};
    struct cht_backup *b, *second;
    struct cht_buf stream = {0};
    struct model moment;
    copy_must(cht_backup_open(o->s, &b, &err), &err);
    model_copy(&moment, &o->m);
    struct cht_store_stats st;
    copy_must(cht_store_stats(o->s, &st, &err), &err);
    assert_int_equal(cht_backup_info(b)->position, st.log_seq);
    assert_int_equal(cht_backup_open(o->s, &second, &err), CHT_DATABASE_BUSY);
    for (unsigned n = (unsigned)cht_rng_below(&o->r, 20); n > 0; n--) /* the log it needs is overtaken */
        copy_go_on(o);
    bool given_up = cht_rng_below(&o->r, 8) == 0;
    if (!given_up)
        copy_must(copy_read_all(o, b, true, &stream, &err), &err);
    cht_backup_close(b);
    if (!given_up) {
        struct simdisk *d = simdisk_new();
        copy_must(copy_restore(d, &stream, stream.len, "copy", &err), &err);
        copy_verify(d, "copy", &moment, what);
        assert_int_equal(copy_restore(d, &stream, stream.len, "copy", &err), CHT_DATABASE_EXISTS);
        assert_int_equal(copy_databases(d), 1);
        simdisk_free(d);
    }
    model_copy_free(&moment);
    cht_buf_free(&stream);
}

static void test_interleavings(void **state)
{
    (void)state;
    uint64_t seed = copy_number("CHT_TEST_SEED", 3), runs = copy_number("CHT_TEST_RUNS", 12);
    for (uint64_t run = 0; run < runs; run++) {
        struct copy_source o;
        char what[80];
        copy_source_open(&o, seed + run);
        for (unsigned i = 0; i < 6; i++) {
            for (unsigned n = (unsigned)cht_rng_below(&o.r, 60); n > 0; n--)
                copy_commit(&o);
            (void)snprintf(what, sizeof what, "seed %llu, backup %u", (unsigned long long)(seed + run), i);
            one_backup(&o, what);
            if (i == 3) { /* one of a database that was opened again and not yet written to */
                struct cht_err err = {0};
                struct cht_env_config cfg = copy_config(o.disk);
                if (run % 2 == 0)
                    copy_must(cht_env_close(o.env, &err), &err);
                else
                    cht_env_abandon(o.env);
                copy_must(cht_env_open(&cfg, &o.env, &err), &err);
                copy_must(cht_env_get(o.env, "default", &o.s, &err), &err);
                one_backup(&o, what);
            }
        }
        char why[300] = "";
        if (model_compare(&o.m, o.s, why, sizeof why) != 0)
            fail_msg("the source is spoilt: %s", why);
        copy_source_close(&o);
    }
}

static void test_empty(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_err err = {0};
    struct cht_backup *b;
    struct cht_buf stream = {0};
    struct simdisk *d = simdisk_new();
    copy_source_open(&o, 1);
    copy_must(cht_backup_open(o.s, &b, &err), &err);
    copy_must(copy_read_all(&o, b, false, &stream, &err), &err);
    cht_backup_close(b);
    copy_must(copy_restore(d, &stream, stream.len, NULL, &err), &err);
    copy_verify(d, "default", &o.m, "an empty database");
    simdisk_free(d);
    cht_buf_free(&stream);
    copy_source_close(&o);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

/* Each writer's n-th commit is atomic: one pair of the sequence, and two names that hold n. */
struct writer {
    struct cht_store *s;
    unsigned index;
    _Atomic bool *stop;
    _Atomic uint64_t done;
};

static void *write_on(void *arg)
{
    struct writer *w = arg;
    uint8_t *large = malloc(300000), a[900], c[3000];
    for (uint64_t n = 1; !atomic_load(w->stop); n++) {
        struct cht_op op[3];
        char name[3][40];
        size_t len = n % 16 == 0 ? 260000 + n % 30000 : 20 + n * 7 % 800;
        copy_put(&op[0], name[0], 40, n % 16 == 0 ? large : a, len, n, "left-%u", w->index);
        copy_put(&op[1], name[1], 40, c, 8 + n * 13 % 2900, n, "right-%u", w->index);
        uint8_t seq[8];
        copy_put(&op[2], name[2], 40, seq, 8, n, "seq-%u-%llu", w->index);
        struct cht_commit cm = {.ops = op, .count = 3, .flags = CHT_COMMIT_ATOMIC};
        if (cht_store_commit(w->s, &cm) != CHT_OK)
            break;
        atomic_store(&w->done, n);
    }
    free(large);
    return NULL;
}

static uint64_t read_number(struct cht_store *s, const char *name, bool *there)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint64_t key, n = 0;
    uint32_t size = 0;
    enum cht_rc rc =
        cht_store_pair_value(s, (struct cht_str){(const uint8_t *)name, strlen(name)}, &key, &b, &size, &err);
    *there = rc == CHT_OK && size >= 8;
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        fail_msg("%s: %s", name, err.msg);
    if (*there)
        n = cht_get64(b.data);
    for (uint32_t i = 8; *there && i < size; i++) {
        if (b.data[i] != (n & 255))
            fail_msg("%s: byte %u is not of number %llu", name, i, (unsigned long long)n);
    }
    cht_buf_free(&b);
    return n;
}

static void check_writers(struct cht_store *s, unsigned writers, const uint64_t *before,
                          const uint64_t *after)
{
    for (unsigned i = 0; i < writers; i++) {
        char name[40];
        bool l, r, there = true;
        (void)snprintf(name, sizeof name, "left-%u", i);
        uint64_t left = read_number(s, name, &l);
        (void)snprintf(name, sizeof name, "right-%u", i);
        uint64_t right = read_number(s, name, &r), n = 1;
        assert_int_equal(left, right);
        assert_true(left >= before[i] && left <= after[i] + 1);
        for (;; n++) {
            (void)snprintf(name, sizeof name, "seq-%u-%llu", i, (unsigned long long)n);
            uint64_t is = read_number(s, name, &there);
            if (!there)
                break;
            assert_int_equal(is, n);
        }
        assert_int_equal(n - 1, left);
        (void)snprintf(name, sizeof name, "seq-%u-", i); /* none after the last either */
        uint64_t count = 0;
        assert_int_equal(
            cht_store_count(s, (struct cht_str){(const uint8_t *)name, strlen(name)}, &count, NULL), CHT_OK);
        assert_int_equal(count, left);
    }
}

#define WRITERS 3u

static void backup_beside(struct copy_source *o, struct writer *w)
{
    struct cht_err err = {0};
    struct cht_backup *b;
    struct cht_buf stream = {0};
    uint64_t before[WRITERS], after[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        before[i] = atomic_load(&w[i].done);
    copy_must(cht_backup_open(o->s, &b, &err), &err);
    for (unsigned i = 0; i < WRITERS; i++)
        after[i] = atomic_load(&w[i].done);
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    size_t n;
    do {
        copy_must(cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, &err), &err);
        copy_add(&stream, buf, n);
        cht_sleep_ns(1000000);
    } while (n > 0);
    free(buf);
    cht_backup_close(b);
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = copy_config(d);
    struct cht_env *env;
    struct cht_store *s;
    uint64_t findings;
    copy_must(copy_restore(d, &stream, stream.len, NULL, &err), &err);
    copy_must(cht_env_open(&cfg, &env, &err), &err);
    copy_must(cht_env_get(env, "default", &s, &err), &err);
    check_writers(s, WRITERS, before, after);
    copy_must(cht_env_close(env, &err), &err);
    copy_must(cht_check(&cfg, NULL, copy_finding, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
    simdisk_free(d);
    cht_buf_free(&stream);
}

static void test_beside_writers(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_err err = {0};
    _Atomic bool stop = false;
    struct writer w[WRITERS];
    struct cht_thread t[WRITERS];
    copy_source_open(&o, 5);
    struct cht_env_config cfg = copy_config(o.disk); /* opened again with checkpoints of its own */
    copy_must(cht_env_close(o.env, &err), &err);
    cfg.manual_checkpoint = false;
    cfg.checkpoint_log_bytes = 2u << 20;
    copy_must(cht_env_open(&cfg, &o.env, &err), &err);
    copy_must(cht_env_get(o.env, "default", &o.s, &err), &err);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i].s = o.s;
        w[i].index = i;
        w[i].stop = &stop;
        atomic_init(&w[i].done, 0);
        copy_must(cht_thread_start(&t[i], "writer", write_on, &w[i], &err), &err);
    }
    uint64_t rounds = copy_number("CHT_TEST_ROUNDS", 6);
    struct cht_store_stats st;
    for (uint64_t i = 0; i < rounds; i++) {
        cht_sleep_ns(50000000);
        backup_beside(&o, w);
    }
    do { /* those of the backups and others */
        cht_sleep_ns(10000000);
        copy_must(cht_store_stats(o.s, &st, &err), &err);
    } while (st.checkpoints <= rounds);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WRITERS; i++)
        cht_thread_join(&t[i]);
    print_message("%llu commits, %llu checkpoints during %llu backups\n", (unsigned long long)st.commits,
                  (unsigned long long)st.checkpoints, (unsigned long long)rounds);
    copy_source_close(&o);
}

/* ---- damage -------------------------------------------------------------------------------------------------------- */

/* Where each frame begins; the last entry is the end. */
static size_t frames(const struct cht_buf *s, size_t *at, size_t cap)
{
    size_t n = 0, off = 512;
    for (; off < s->len; off += 32 + cht_get32(s->data + off + 8)) {
        assert_true(n + 1 < cap);
        at[n++] = off;
    }
    at[n] = off;
    assert_int_equal(off, s->len);
    return n;
}

static void ignore(void *ctx, const char *where, const char *what) { (void)ctx, (void)where, (void)what; }

static void refused(struct cht_buf *s, size_t n, const char *what, size_t at)
{
    struct cht_err err = {0};
    enum cht_rc rc = copy_check_stream(s->data, n, &err);
    if (rc != CHT_CORRUPT && rc != CHT_VERSION)
        fail_msg("%s at %zu was not refused: %d", what, at, (int)rc);
    assert_true(err.msg[0] != 0);
}

static void test_damage(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_buf s = {0}, t = {0};
    struct cht_err err = {0};
    static size_t at[4096];
    copy_source_open(&o, 9);
    copy_make_stream(&o, &s, 60);
    copy_must(copy_check_stream(s.data, s.len, &err), &err);
    size_t n = frames(&s, at, 4096), flips = 0;
    assert_true(n > 20);
    /* every byte of the head and of the frames' heads, some of the payloads: one bit */
    for (size_t i = 0; i < s.len; i++) {
        size_t f = 0;
        if (i >= 512) {
            while (at[f + 1] <= i)
                f++;
            if (i - at[f] >= 40 && cht_rng_below(&o.r, s.len / 400 + 1) != 0)
                continue;
            if (f > 40 && f + 40 < n && f % 16 != 0)
                continue;
        } else if (i % 3 != 0 && i > 140) {
            continue;
        }
        uint8_t bit = (uint8_t)(1u << cht_rng_below(&o.r, 8));
        s.data[i] ^= bit;
        refused(&s, s.len, "a changed bit", i);
        s.data[i] ^= bit;
        flips++;
    }
    print_message("%zu frames, %zu bits changed\n", n, flips);
    for (size_t f = 0; f <= n; f++) { /* cut at and around the borders of frames */
        if (at[f] < s.len)
            refused(&s, at[f], "a cut", at[f]);
        refused(&s, at[f] - 1, "a cut", at[f] - 1);
    }
    refused(&s, 0, "nothing", 0);
    copy_add(&t, s.data, s.len); /* more after the end */
    copy_add(&t, (const uint8_t *)"x", 1);
    refused(&t, t.len, "a byte after the end", s.len);
    for (size_t f = 0; f < n; f++) { /* a frame left out, a frame twice */
        t.len = 0;
        copy_add(&t, s.data, at[f]);
        copy_add(&t, s.data + at[f + 1], s.len - at[f + 1]);
        refused(&t, t.len, "a missing frame", at[f]);
        t.len = 0;
        copy_add(&t, s.data, at[f + 1]);
        copy_add(&t, s.data + at[f], s.len - at[f]);
        refused(&t, t.len, "a doubled frame", at[f]);
    }
    t.len = 0; /* what a server says that gives up */
    copy_add(&t, s.data, at[3]);
    static const char line[] =
        "{\"error\":{\"type\":\"about:blank\",\"title\":\"x\",\"status\":500,\"code\":\"io_error\","
        "\"detail\":\"the disk is gone\"}}\n";
    copy_add(&t, (const uint8_t *)line, sizeof line - 1);
    assert_int_equal(copy_check_stream(t.data, t.len, &err), CHT_CANCELLED);
    assert_non_null(strstr(err.msg, "the disk is gone"));
    cht_buf_free(&s);
    cht_buf_free(&t);
    copy_source_close(&o);
}

/* The checksums of a stream made right again. */
static void reseal(struct cht_buf *s, const size_t *at, size_t n)
{
    cht_put32(s->data + 508, cht_crc32c(0, s->data, 508));
    uint32_t crc = cht_get32(s->data + 508);
    for (size_t f = 0; f < n; f++) {
        uint8_t *p = s->data + at[f];
        crc = cht_crc32c(crc, p + 4, at[f + 1] - at[f] - 4);
        cht_put32(p, crc);
    }
}

/* Lies that no checksum finds: nothing is read or written where it must not be, and what is taken can be checked. */
static void test_lies(void **state)
{
    (void)state;
    static size_t at[4096];
    static const uint64_t odd[] = {0, 1, 2, 255, 256, 4095, 4096, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX};
    struct copy_source o;
    struct cht_buf s = {0}, t = {0};
    struct cht_err err = {0};
    unsigned taken = 0, runs = (unsigned)copy_number("CHT_TEST_LIES", 1500);
    copy_source_open(&o, 11);
    copy_make_stream(&o, &s, 30);
    size_t n = frames(&s, at, 4096);
    for (unsigned i = 0; i < runs; i++) {
        t.len = 0;
        copy_add(&t, s.data, s.len);
        bool head = cht_rng_below(&o.r, 8) == 0;
        size_t f = (size_t)cht_rng_below(&o.r, n);
        uint8_t *p = head ? t.data + cht_rng_below(&o.r, 136) : t.data + at[f] + 4 + cht_rng_below(&o.r, 36);
        uint64_t v = cht_rng_below(&o.r, 3) == 0 ? cht_rng_next(&o.r) : odd[cht_rng_below(&o.r, 10)];
        memcpy(p, &v, 1u << cht_rng_below(&o.r, 4));
        reseal(&t, at, n);
        struct simdisk *d = simdisk_new();
        if (copy_restore(d, &t, t.len, "copy", &err) == CHT_OK) {
            struct cht_env_config cfg = copy_config(d);
            uint64_t findings;
            (void)cht_check(&cfg, NULL, ignore, NULL, &findings, &err); /* any result, but one */
            taken++;
        } else {
            assert_int_equal(copy_databases(d), 0);
        }
        simdisk_free(d);
    }
    print_message("%u of %u lies were taken\n", taken, runs);
    assert_true(taken < runs / 2);
    cht_buf_free(&s);
    cht_buf_free(&t);
    copy_source_close(&o);
}

/* A refused backup leaves no database, and the name can be used again. */
static void test_damaged_restore(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    copy_source_open(&o, 10);
    copy_make_stream(&o, &s, 60);
    struct simdisk *d = simdisk_new();
    for (size_t n = 0; n < s.len; n = n * 2 + 100) {
        assert_int_equal(copy_restore(d, &s, n, "copy", &err), CHT_CORRUPT);
        assert_int_equal(copy_databases(d), 0);
    }
    assert_int_equal(copy_restore(d, &s, s.len - 1, "copy", &err), CHT_CORRUPT);
    s.data[s.len / 2] ^= 1;
    assert_int_equal(copy_restore(d, &s, s.len, "copy", &err), CHT_CORRUPT);
    assert_int_equal(copy_databases(d), 0);
    s.data[s.len / 2] ^= 1;
    copy_must(copy_restore(d, &s, s.len, "copy", &err), &err);
    copy_verify(d, "copy", &o.m, "after refused attempts");
    simdisk_free(d);
    cht_buf_free(&s);
    copy_source_close(&o);
}

/* A page of the source that does not match its sum: no backup. */
static void test_damaged_source(void **state)
{
    (void)state;
    struct copy_source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    copy_source_open(&o, 12);
    for (unsigned i = 0; i < 40; i++)
        copy_commit(&o);
    copy_must(cht_store_checkpoint(o.s, &err), &err);
    static const char *const files[] = {"/b/default/shard-001/keys", "/b/default/shard-001/recycle",
                                        "/b/default/shard-001/pairs", "/b/default/shard-001/sums"};
    for (unsigned i = 0; i < 4; i++) {
        struct cht_file *f;
        struct cht_backup *b;
        uint8_t byte;
        copy_must(cht_io_open(simdisk_io(o.disk), files[i], 0, &f, &err), &err);
        copy_must(cht_file_read(f, &byte, 1, 4096 + 100, &err), &err);
        byte ^= 4;
        copy_must(cht_file_write(f, &byte, 1, 4096 + 100, &err), &err);
        copy_must(cht_backup_open(o.s, &b, &err), &err);
        s.len = 0;
        assert_int_equal(copy_read_all(&o, b, false, &s, &err), CHT_CORRUPT);
        assert_non_null(strstr(err.msg, files[i]));
        size_t n = 1;
        uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
        assert_int_equal(cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, &err),
                         CHT_CORRUPT); /* for good */
        free(buf);
        cht_backup_close(b);
        assert_int_equal(copy_check_stream(s.data, s.len, &err), CHT_CORRUPT);
        byte ^= 4;
        copy_must(cht_file_write(f, &byte, 1, 4096 + 100, &err), &err);
        cht_file_close(f);
    }
    cht_buf_free(&s);
    copy_source_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_interleavings),
        cmocka_unit_test(test_beside_writers),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_damaged_restore),
        cmocka_unit_test(test_damaged_source),
        cmocka_unit_test(test_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
