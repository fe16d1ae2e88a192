/* test_backup: backups taken while commits and checkpoints go on, restored and compared with a model of the moment; the
 * same with threads; damaged and cut streams; faults of the disk and of the allocator on both sides; power cuts while
 * restoring. Shows B1 and B2 of src/store/backup_format.h.
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

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "cheetah/backup.h"
#include "os/thread.h"
#include "support/model.h"
#include "support/simdisk.h"

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

static const char *const dirs[] = {"/a", "/b"};

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 3,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .io = simdisk_io(d)};
}

/* One database, its model, and the disk it is on. */
struct source {
    struct simdisk *disk;
    struct cht_env *env;
    struct cht_store *s;
    struct model m;
    struct cht_rng r;
};

static void source_open(struct source *o, uint64_t seed)
{
    struct cht_err err = {0};
    memset(o, 0, sizeof *o);
    cht_rng_seed(&o->r, seed);
    model_init(&o->m, 80, seed);
    o->disk = simdisk_new();
    struct cht_env_config cfg = config(o->disk);
    must(cht_env_open(&cfg, &o->env, &err), &err);
    must(cht_env_create(o->env, "default", 0, &err), &err);
    must(cht_env_get(o->env, "default", &o->s, &err), &err);
}

static void source_close(struct source *o)
{
    struct cht_err err = {0};
    must(cht_env_close(o->env, &err), &err);
    simdisk_free(o->disk);
    model_free(&o->m);
}

static void commit(struct source *o)
{
    struct model_batch *b = malloc(sizeof *b);
    uint32_t max = cht_rng_below(&o->r, 6) == 0 ? 400000 : 3000;
    model_random_batch(&o->m, &o->r, max, b);
    struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
    (void)cht_store_commit(o->s, &c);
    model_apply(&o->m, b, &c);
    model_batch_free(b);
    free(b);
}

/* Something that a server does meanwhile. */
static void go_on(struct source *o)
{
    struct cht_err err = {0};
    for (unsigned n = (unsigned)cht_rng_below(&o->r, 4); n > 0; n--)
        commit(o);
    if (cht_rng_below(&o->r, 3) == 0)
        must(cht_store_checkpoint(o->s, &err), &err);
}

static void add(struct cht_buf *to, const uint8_t *p, size_t n)
{
    if (to->len + n > to->cap)
        assert_int_equal(cht_buf_reserve(to, (to->len + n) * 2, NULL), CHT_OK);
    memcpy(to->data + to->len, p, n);
    to->len += n;
}

/* The rest of a backup; with `busy` commits and checkpoints between the reads. */
static enum cht_rc read_all(struct source *o, struct cht_backup *b, bool busy, struct cht_buf *stream,
                            struct cht_err *err)
{
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    enum cht_rc rc;
    size_t n;
    while ((rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, err)) == CHT_OK && n > 0) {
        add(stream, buf, n);
        if (busy)
            go_on(o);
    }
    free(buf);
    return rc;
}

static enum cht_rc feed(struct cht_restore *r, const struct cht_buf *stream, size_t upto, uint64_t seed,
                        struct cht_err *err)
{
    struct cht_rng rng;
    cht_rng_seed(&rng, seed);
    enum cht_rc rc = CHT_OK;
    for (size_t at = 0, n; at < upto && rc == CHT_OK; at += n) {
        n = 1 + (size_t)cht_rng_below(&rng, cht_rng_below(&rng, 4) == 0 ? 100 : 200000);
        n = n < upto - at ? n : upto - at;
        rc = cht_restore_feed(r, stream->data + at, n, err);
    }
    return rc;
}

static enum cht_rc restore(struct simdisk *d, const struct cht_buf *stream, size_t upto, const char *name,
                           struct cht_err *err)
{
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_restore *r = NULL;
    enum cht_rc rc = cht_env_open(&cfg, &env, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_restore_new(env, name, &r, err);
    if (rc == CHT_OK)
        rc = feed(r, stream, upto, upto, err);
    if (rc == CHT_OK)
        rc = cht_restore_finish(r, err);
    cht_restore_free(r);
    cht_env_abandon(env);
    return rc;
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void note_name(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
}

/* How many databases a disk has. */
static unsigned databases(struct simdisk *d)
{
    struct cht_env_config cfg = config(d);
    struct cht_err err = {0};
    struct cht_env *env;
    unsigned n = 0;
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_list(env, note_name, &n, &err), &err);
    cht_env_abandon(env);
    return n;
}

/* The restored database is the model, also after a clean stop, which check finds whole. */
static void verify(struct simdisk *d, const char *name, const struct model *m, const char *what)
{
    struct cht_env_config cfg = config(d);
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_store *s;
    char why[300] = "";
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    if (findings != 0)
        fail_msg("%s: check of the restored files: %llu findings", what, (unsigned long long)findings);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_get(env, name, &s, &err), &err);
    if (model_compare(m, s, why, sizeof why) != 0)
        fail_msg("%s: %s", what, why);
    uint8_t v[100] = {1};
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"again", 5}, .value = {v, sizeof v}};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c), &c.err);
    must(cht_env_close(env, &err), &err);
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    if (findings != 0)
        fail_msg("%s: check after a clean stop: %llu findings", what, (unsigned long long)findings);
}

/* ---- the moment ------------------------------------------------------------------------------------------------- */

static void one_backup(struct source *o, const char *what)
{
    struct cht_err err = {0};
    struct cht_backup *b, *second;
    struct cht_buf stream = {0};
    struct model moment;
    must(cht_backup_open(o->s, &b, &err), &err);
    model_copy(&moment, &o->m);
    struct cht_store_stats st;
    must(cht_store_stats(o->s, &st, &err), &err);
    assert_int_equal(cht_backup_info(b)->position, st.log_seq);
    assert_int_equal(cht_backup_open(o->s, &second, &err), CHT_DATABASE_BUSY);
    for (unsigned n = (unsigned)cht_rng_below(&o->r, 20); n > 0; n--) /* the log it needs is overtaken */
        go_on(o);
    bool given_up = cht_rng_below(&o->r, 8) == 0;
    if (!given_up)
        must(read_all(o, b, true, &stream, &err), &err);
    cht_backup_close(b);
    if (!given_up) {
        struct simdisk *d = simdisk_new();
        must(restore(d, &stream, stream.len, "copy", &err), &err);
        verify(d, "copy", &moment, what);
        assert_int_equal(restore(d, &stream, stream.len, "copy", &err), CHT_DATABASE_EXISTS);
        assert_int_equal(databases(d), 1);
        simdisk_free(d);
    }
    model_copy_free(&moment);
    cht_buf_free(&stream);
}

static void test_interleavings(void **state)
{
    (void)state;
    uint64_t seed = number("CHT_TEST_SEED", 3), runs = number("CHT_TEST_RUNS", 12);
    for (uint64_t run = 0; run < runs; run++) {
        struct source o;
        char what[80];
        source_open(&o, seed + run);
        for (unsigned i = 0; i < 6; i++) {
            for (unsigned n = (unsigned)cht_rng_below(&o.r, 60); n > 0; n--)
                commit(&o);
            (void)snprintf(what, sizeof what, "seed %llu, backup %u", (unsigned long long)(seed + run), i);
            one_backup(&o, what);
            if (i == 3) { /* one of a database that was opened again and not yet written to */
                struct cht_err err = {0};
                struct cht_env_config cfg = config(o.disk);
                if (run % 2 == 0)
                    must(cht_env_close(o.env, &err), &err);
                else
                    cht_env_abandon(o.env);
                must(cht_env_open(&cfg, &o.env, &err), &err);
                must(cht_env_get(o.env, "default", &o.s, &err), &err);
                one_backup(&o, what);
            }
        }
        char why[300] = "";
        if (model_compare(&o.m, o.s, why, sizeof why) != 0)
            fail_msg("the source is spoilt: %s", why);
        source_close(&o);
    }
}

static void test_empty(void **state)
{
    (void)state;
    struct source o;
    struct cht_err err = {0};
    struct cht_backup *b;
    struct cht_buf stream = {0};
    struct simdisk *d = simdisk_new();
    source_open(&o, 1);
    must(cht_backup_open(o.s, &b, &err), &err);
    must(read_all(&o, b, false, &stream, &err), &err);
    cht_backup_close(b);
    must(restore(d, &stream, stream.len, NULL, &err), &err);
    verify(d, "default", &o.m, "an empty database");
    simdisk_free(d);
    cht_buf_free(&stream);
    source_close(&o);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

/* Each writer's n-th commit is atomic: one pair of the sequence, and two names that hold n. */
struct writer {
    struct cht_store *s;
    unsigned index;
    _Atomic bool *stop;
    _Atomic uint64_t done;
};

static void put(struct cht_op *op, char *name, size_t cap, uint8_t *value, size_t len, uint64_t n,
                const char *fmt, unsigned index)
{
    (void)snprintf(name, cap, fmt, index, (unsigned long long)n);
    memset(value, (int)(n & 255), len);
    cht_put64(value, n);
    *op = (struct cht_op){
        .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)name, strlen(name)}, .value = {value, len}};
}

static void *write_on(void *arg)
{
    struct writer *w = arg;
    uint8_t *large = malloc(300000), a[900], c[3000];
    for (uint64_t n = 1; !atomic_load(w->stop); n++) {
        struct cht_op op[3];
        char name[3][40];
        size_t len = n % 16 == 0 ? 260000 + n % 30000 : 20 + n * 7 % 800;
        put(&op[0], name[0], 40, n % 16 == 0 ? large : a, len, n, "left-%u", w->index);
        put(&op[1], name[1], 40, c, 8 + n * 13 % 2900, n, "right-%u", w->index);
        uint8_t seq[8];
        put(&op[2], name[2], 40, seq, 8, n, "seq-%u-%llu", w->index);
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
        (void)snprintf(name, sizeof name, "seq-%u-", i); /* none behind the last either */
        uint64_t count = 0;
        assert_int_equal(
            cht_store_count(s, (struct cht_str){(const uint8_t *)name, strlen(name)}, &count, NULL), CHT_OK);
        assert_int_equal(count, left);
    }
}

#define WRITERS 3u

static void backup_beside(struct source *o, struct writer *w)
{
    struct cht_err err = {0};
    struct cht_backup *b;
    struct cht_buf stream = {0};
    uint64_t before[WRITERS], after[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        before[i] = atomic_load(&w[i].done);
    must(cht_backup_open(o->s, &b, &err), &err);
    for (unsigned i = 0; i < WRITERS; i++)
        after[i] = atomic_load(&w[i].done);
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    size_t n;
    do {
        must(cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, &err), &err);
        add(&stream, buf, n);
        cht_sleep_ns(1000000);
    } while (n > 0);
    free(buf);
    cht_backup_close(b);
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    uint64_t findings;
    must(restore(d, &stream, stream.len, NULL, &err), &err);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_get(env, "default", &s, &err), &err);
    check_writers(s, WRITERS, before, after);
    must(cht_env_close(env, &err), &err);
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
    simdisk_free(d);
    cht_buf_free(&stream);
}

static void test_beside_writers(void **state)
{
    (void)state;
    struct source o;
    struct cht_err err = {0};
    _Atomic bool stop = false;
    struct writer w[WRITERS];
    struct cht_thread t[WRITERS];
    source_open(&o, 5);
    struct cht_env_config cfg = config(o.disk); /* opened again with checkpoints of its own */
    must(cht_env_close(o.env, &err), &err);
    cfg.manual_checkpoint = false;
    cfg.checkpoint_log_bytes = 2u << 20;
    must(cht_env_open(&cfg, &o.env, &err), &err);
    must(cht_env_get(o.env, "default", &o.s, &err), &err);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i].s = o.s;
        w[i].index = i;
        w[i].stop = &stop;
        atomic_init(&w[i].done, 0);
        must(cht_thread_start(&t[i], "writer", write_on, &w[i], &err), &err);
    }
    uint64_t rounds = number("CHT_TEST_ROUNDS", 6);
    struct cht_store_stats st;
    for (uint64_t i = 0; i < rounds; i++) {
        cht_sleep_ns(50000000);
        backup_beside(&o, w);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WRITERS; i++)
        cht_thread_join(&t[i]);
    must(cht_store_stats(o.s, &st, &err), &err);
    print_message("%llu commits, %llu checkpoints during %llu backups\n", (unsigned long long)st.commits,
                  (unsigned long long)st.checkpoints, (unsigned long long)rounds);
    assert_true(st.checkpoints > rounds); /* those of the backups and others */
    source_close(&o);
}

/* ---- damage -------------------------------------------------------------------------------------------------------- */

static enum cht_rc check_stream(const uint8_t *p, size_t n, struct cht_err *err)
{
    struct cht_backup_check *c;
    must(cht_backup_check_new(&c, err), err);
    enum cht_rc rc = cht_backup_check_feed(c, p, n, err);
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(c, err);
    cht_backup_check_free(c);
    return rc;
}

static void make_stream(struct source *o, struct cht_buf *stream, unsigned commits)
{
    struct cht_err err = {0};
    struct cht_backup *b;
    for (unsigned i = 0; i < commits; i++)
        commit(o);
    must(cht_backup_open(o->s, &b, &err), &err);
    must(read_all(o, b, false, stream, &err), &err);
    cht_backup_close(b);
}

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

static void refused(struct cht_buf *s, size_t n, const char *what, size_t at)
{
    struct cht_err err = {0};
    enum cht_rc rc = check_stream(s->data, n, &err);
    if (rc != CHT_CORRUPT && rc != CHT_VERSION)
        fail_msg("%s at %zu was not refused: %d", what, at, (int)rc);
    assert_true(err.msg[0] != 0);
}

static void test_damage(void **state)
{
    (void)state;
    struct source o;
    struct cht_buf s = {0}, t = {0};
    struct cht_err err = {0};
    static size_t at[4096];
    source_open(&o, 9);
    make_stream(&o, &s, 60);
    must(check_stream(s.data, s.len, &err), &err);
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
    add(&t, s.data, s.len); /* more behind the end */
    add(&t, (const uint8_t *)"x", 1);
    refused(&t, t.len, "a byte behind the end", s.len);
    for (size_t f = 0; f < n; f++) { /* a frame left out, a frame twice */
        t.len = 0;
        add(&t, s.data, at[f]);
        add(&t, s.data + at[f + 1], s.len - at[f + 1]);
        refused(&t, t.len, "a missing frame", at[f]);
        t.len = 0;
        add(&t, s.data, at[f + 1]);
        add(&t, s.data + at[f], s.len - at[f]);
        refused(&t, t.len, "a doubled frame", at[f]);
    }
    t.len = 0; /* what a server says that gives up */
    add(&t, s.data, at[3]);
    static const char line[] =
        "{\"error\":{\"type\":\"about:blank\",\"title\":\"x\",\"status\":500,\"code\":\"io_error\","
        "\"detail\":\"the disk is gone\"}}\n";
    add(&t, (const uint8_t *)line, sizeof line - 1);
    assert_int_equal(check_stream(t.data, t.len, &err), CHT_CANCELLED);
    assert_non_null(strstr(err.msg, "the disk is gone"));
    cht_buf_free(&s);
    cht_buf_free(&t);
    source_close(&o);
}

/* A refused backup leaves no database, and the name can be used again. */
static void test_damaged_restore(void **state)
{
    (void)state;
    struct source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    source_open(&o, 10);
    make_stream(&o, &s, 60);
    struct simdisk *d = simdisk_new();
    for (size_t n = 0; n < s.len; n = n * 2 + 100) {
        assert_int_equal(restore(d, &s, n, "copy", &err), CHT_CORRUPT);
        assert_int_equal(databases(d), 0);
    }
    assert_int_equal(restore(d, &s, s.len - 1, "copy", &err), CHT_CORRUPT);
    s.data[s.len / 2] ^= 1;
    assert_int_equal(restore(d, &s, s.len, "copy", &err), CHT_CORRUPT);
    assert_int_equal(databases(d), 0);
    s.data[s.len / 2] ^= 1;
    must(restore(d, &s, s.len, "copy", &err), &err);
    verify(d, "copy", &o.m, "after refused attempts");
    simdisk_free(d);
    cht_buf_free(&s);
    source_close(&o);
}

/* A page of the source that does not match its sum: no backup. */
static void test_damaged_source(void **state)
{
    (void)state;
    struct source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    source_open(&o, 12);
    for (unsigned i = 0; i < 40; i++)
        commit(&o);
    must(cht_store_checkpoint(o.s, &err), &err);
    static const char *const files[] = {"/b/default/shard-001/keys", "/b/default/shard-001/recycle",
                                        "/b/default/shard-001/pairs", "/b/default/shard-001/sums"};
    for (unsigned i = 0; i < 4; i++) {
        struct cht_file *f;
        struct cht_backup *b;
        uint8_t byte;
        must(cht_io_open(simdisk_io(o.disk), files[i], 0, &f, &err), &err);
        must(cht_file_read(f, &byte, 1, 4096 + 100, &err), &err);
        byte ^= 4;
        must(cht_file_write(f, &byte, 1, 4096 + 100, &err), &err);
        must(cht_backup_open(o.s, &b, &err), &err);
        s.len = 0;
        assert_int_equal(read_all(&o, b, false, &s, &err), CHT_CORRUPT);
        assert_non_null(strstr(err.msg, files[i]));
        size_t n = 1;
        uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
        assert_int_equal(cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, &err),
                         CHT_CORRUPT); /* for good */
        free(buf);
        cht_backup_close(b);
        assert_int_equal(check_stream(s.data, s.len, &err), CHT_CORRUPT);
        byte ^= 4;
        must(cht_file_write(f, &byte, 1, 4096 + 100, &err), &err);
        cht_file_close(f);
    }
    cht_buf_free(&s);
    source_close(&o);
}

/* ---- faults -------------------------------------------------------------------------------------------------------- */

/* A backup during which the n-th call fails: it is refused or exact, and the commits go on unless it was one of theirs that
 * failed. Returns whether anything failed. */
static bool faulty_backup(uint64_t n, enum sim_fault kind, bool alloc)
{
    struct source o;
    struct cht_err err = {0};
    struct cht_backup *b = NULL;
    struct cht_buf stream = {0};
    struct model moment;
    source_open(&o, 21);
    for (unsigned i = 0; i < 25; i++)
        commit(&o);
    uint64_t failures = cht_alloc_failures();
    model_copy(&moment, &o.m);
    if (alloc)
        cht_alloc_fail_at(n, false);
    else
        simdisk_fail_at(o.disk, n, kind, false);
    enum cht_rc rc = cht_backup_open(o.s, &b, &err);
    if (rc == CHT_OK) {
        uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
        size_t got = 1;
        for (unsigned i = 0; rc == CHT_OK && got > 0; i++) {
            rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &got, &err);
            if (rc == CHT_OK && got > 0)
                add(&stream, buf, got);
            if (i % 2 == 0) {
                struct cht_op op[2];
                uint8_t *v = malloc(300000);
                char name[2][40];
                put(&op[0], name[0], 40, v, 300000, i, "large-%u", i % 3);
                put(&op[1], name[1], 40, v, 300000, i, "large-%u", i % 2);
                struct cht_commit c = {.ops = op, .count = 2};
                (void)cht_store_commit(o.s, &c); /* its own fault is test_faults' matter */
                (void)cht_store_checkpoint(o.s, NULL);
                free(v);
            }
        }
        free(buf);
        cht_backup_close(b);
    }
    bool any = alloc ? cht_alloc_failures() > failures : simdisk_injected(o.disk) > 0;
    cht_alloc_fail_at(0, false);
    simdisk_fail_at(o.disk, 0, SIM_NONE, false);
    if (rc == CHT_OK) {
        struct simdisk *d = simdisk_new();
        char what[60];
        (void)snprintf(what, sizeof what, "fault at call %llu", (unsigned long long)n);
        must(restore(d, &stream, stream.len, "copy", &err), &err);
        verify(d, "copy", &moment, what);
        simdisk_free(d);
    } else {
        assert_true(any);
        assert_true(err.msg[0] != 0);
        assert_int_not_equal(check_stream(stream.data, stream.len, &err), CHT_OK);
        rc = cht_backup_open(o.s, &b, &err); /* the failed one is forgotten */
        assert_true(rc == CHT_OK || rc == CHT_READ_ONLY);
        if (rc == CHT_OK)
            cht_backup_close(b);
    }
    model_copy_free(&moment);
    cht_buf_free(&stream);
    cht_env_abandon(o.env);
    simdisk_free(o.disk);
    model_free(&o.m);
    return any;
}

static void test_faults_source(void **state)
{
    (void)state;
    uint64_t stride = number("CHT_TEST_STRIDE", 7), runs = 0;
    static const enum sim_fault kinds[] = {SIM_EIO, SIM_FULL};
    for (int k = 0; k < 2; k++) {
        for (uint64_t n = 1; faulty_backup(n, kinds[k], false); n += n < 40 ? 1 : stride)
            runs++;
    }
    assert_true(runs > 100);
    print_message("%llu runs with disk faults\n", (unsigned long long)runs);
    for (uint64_t n = 1; faulty_backup(n, SIM_NONE, true); n += n < 40 ? 1 : stride * 5)
        runs++;
    print_message("%llu runs in all\n", (unsigned long long)runs);
}

static void test_faults_target(void **state)
{
    (void)state;
    struct source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    source_open(&o, 22);
    make_stream(&o, &s, 30);
    uint64_t runs = 0;
    for (int kind = SIM_FULL; kind <= SIM_EIO + 1; kind++) { /* the last round: the allocator */
        for (uint64_t n = 1;; n++) {
            struct simdisk *d = simdisk_new();
            uint64_t failures = cht_alloc_failures();
            if (kind > SIM_EIO)
                cht_alloc_fail_at(n, false);
            else
                simdisk_fail_at(d, n, (enum sim_fault)kind, false);
            enum cht_rc rc = restore(d, &s, s.len, "copy", &err);
            bool any = kind > SIM_EIO ? cht_alloc_failures() > failures : simdisk_injected(d) > 0;
            cht_alloc_fail_at(0, false);
            simdisk_fail_at(d, 0, SIM_NONE, false);
            assert_int_equal(databases(d), rc == CHT_OK ? 1 : 0);
            if (rc != CHT_OK) /* the same disk takes it the next time */
                must(restore(d, &s, s.len, "copy", &err), &err);
            if (n % 8 == 1)
                verify(d, "copy", &o.m, "a target with faults");
            simdisk_free(d);
            runs++;
            if (!any)
                break;
        }
    }
    print_message("%llu runs\n", (unsigned long long)runs);
    assert_true(runs > 50);
    cht_buf_free(&s);
    source_close(&o);
}

static void test_cut_restore(void **state)
{
    (void)state;
    struct source o;
    struct cht_buf s = {0};
    struct cht_err err = {0};
    struct cht_rng r;
    cht_rng_seed(&r, 4);
    source_open(&o, 23);
    make_stream(&o, &s, 30);
    struct simdisk *d = simdisk_new();
    must(restore(d, &s, s.len, "copy", &err), &err);
    struct simcut *c = simcut_new(d);
    unsigned whole = 0, none = 0;
    do {
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            unsigned n = databases(cut);
            if (n == 0) {
                none++;
                if (none % 16 == 0)
                    must(restore(cut, &s, s.len, "copy", &err), &err);
            } else {
                whole++;
            }
            if (n == 1 || none % 16 == 0)
                verify(cut, "copy", &o.m, "a restore that was cut off");
            simdisk_free(cut);
        }
    } while (simcut_step(c));
    print_message("cut at %zu events: %u times whole, %u times none\n", simcut_at(c), whole, none);
    assert_true(whole > 0 && none > 50);
    simcut_free(c);
    simdisk_free(d);
    cht_buf_free(&s);
    source_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),           cmocka_unit_test(test_interleavings),
        cmocka_unit_test(test_beside_writers),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_damaged_restore), cmocka_unit_test(test_damaged_source),
        cmocka_unit_test(test_faults_source),   cmocka_unit_test(test_faults_target),
        cmocka_unit_test(test_cut_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
