/* test_hostile: files that say what no program of ours wrote, under right checksums. Fields, blocks and pages of a small database's
 * files and log are changed, every checksum above them is made right again, and everything is done with the result: opened,
 * read, swept, written to, backed up, restored, checked. Whatever it says, nothing crashes, hangs or trips an invariant.
 *
 *   CHT_TEST_SEED=n      another sequence          CHT_TEST_MUTANT=n    only the n-th
 *   CHT_TEST_LONG=1      fifty times as many
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "cheetah/backup.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "cheetah/sweep.h"
#include "store/pagefile_int.h"
#include "support/copies.h"
#include "support/simdisk.h"

#define MUTANTS 400u
#define SECONDS 60u /* for one mutant: most take some milliseconds */
#define NAMES 400u

static const char *const dirs[] = {"/d"};
static const char *const files[CHT_PF_KINDS] = {"keys", "values", "recycle", "pairs", "sums"};
static char what[160]; /* for a crash: which mutant it was */

static void last_words(int number)
{
    ssize_t ignored = write(2, what, strlen(what));
    (void)ignored;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .durability = CHT_DURABLE_OS,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

/* ---- the database --------------------------------------------------------------------------------------------- */

/* Names of all shapes: dense, with a long common prefix, longer than a leaf takes, each a prefix of another. */
static struct cht_str name_of(unsigned i, uint8_t *out)
{
    size_t n = 0;
    switch (i % 5) {
    case 0:
        n = (size_t)sprintf((char *)out, "%c%c", 'A' + (int)(i % 50), (int)(1 + i % 250));
        break;
    case 1:
        n = (size_t)sprintf((char *)out, "a/common/prefix/of/some/length/%03u", i);
        break;
    case 2:
        n = 900 + i % 7 * 400;
        memset(out, 'x', n);
        n += (size_t)sprintf((char *)out + n, "%u", i % 40);
        break;
    case 3:
        n = 1 + i % 60;
        memset(out, 'p', n);
        break;
    default:
        n = (size_t)sprintf((char *)out, "ctx:%u:%u", i * 7919 % 97, i);
    }
    return (struct cht_str){out, n};
}

static uint8_t bytes[400000];

static size_t length_of(unsigned i)
{
    static const size_t some[] = {1, 8, 8, 8, 8, 40, 100, 100, 700, 5000};
    return i % 131 == 130 ? 300000 : some[i % 10];
}

static enum cht_rc run_op(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    return cht_store_commit(s, &c);
}

static void put(struct cht_store *s, unsigned i, unsigned length)
{
    uint8_t name[4200];
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = name_of(i, name), .value = {bytes, length_of(length)}};
    (void)run_op(s, &op, 1, 0);
}

static void del(struct cht_store *s, unsigned i, bool with)
{
    uint8_t name[4200];
    struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = name_of(i, name), .with_values = with};
    (void)run_op(s, &op, 1, 0);
}

static struct simdisk *build(bool clean)
{
    struct cht_err err = {0};
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    copy_must(cht_env_open(&cfg, &env, &err), &err);
    copy_must(cht_env_create(env, "default", 2, &err), &err);
    copy_must(cht_env_get(env, "default", &s, &err), &err);
    for (unsigned i = 0; i < NAMES; i++)
        put(s, i, i);
    for (unsigned i = 0; i < NAMES; i += 3)
        del(s, i, true);
    copy_must(cht_store_checkpoint(s, &err), &err);
    for (unsigned i = 0; i < NAMES; i += 4)
        put(s, i, i + 3);
    for (unsigned i = 1; i < NAMES; i += 9)
        del(s, i, i % 2 == 0);
    if (clean) {
        copy_must(cht_env_close(env, &err), &err);
    } else {
        copy_must(cht_store_checkpoint(s, &err), &err);
        for (unsigned i = 2; i < NAMES; i += 7)
            put(s, i, i + 1);
        struct cht_op op = {.kind = CHT_OP_PREFIX_DEL,
                            .name = {(const uint8_t *)"a/common/prefix/of/some/length/1", 32},
                            .with_values = true};
        (void)run_op(s, &op, 1, CHT_COMMIT_ATOMIC);
        cht_env_abandon(env);
    }
    return d;
}

/* ---- mutants -------------------------------------------------------------------------------------------------- */

struct mutant {
    struct simdisk *d;
    struct cht_rng r;
};

static struct cht_file *open_file(struct mutant *m, unsigned shard, int kind, uint64_t *pages)
{
    char path[100];
    struct cht_file *f;
    struct cht_err err = {0};
    (void)snprintf(path, sizeof path, "/d/default/shard-%03u/%s", shard, files[kind]);
    copy_must(cht_io_open(simdisk_io(m->d), path, 0, &f, &err), &err);
    copy_must(f->io->ops->size(f, pages, &err), &err);
    *pages /= CHT_PAGE;
    return f;
}

static void get_page(struct cht_file *f, uint64_t page, uint8_t *p)
{
    assert_int_equal(cht_file_read(f, p, CHT_PAGE, page * CHT_PAGE, NULL), CHT_OK);
}

static void put_page(struct cht_file *f, uint64_t page, const uint8_t *p)
{
    assert_int_equal(cht_file_write(f, p, CHT_PAGE, page * CHT_PAGE, NULL), CHT_OK);
}

/* Writes the page with all the checksums above it. */
static void seal_page(struct mutant *m, unsigned shard, int kind, struct cht_file *f, uint64_t page,
                      uint8_t *p)
{
    uint8_t sums[CHT_PAGE];
    uint64_t pages, sp = 1 + page / CHT_SUMS_PER_PAGE * 4 + (uint64_t)kind;
    if (page == 0)
        cht_put32(p + CHT_PF_USER_END, cht_crc32c(0, p, CHT_PF_USER_END));
    if (kind == CHT_PF_SUMS)
        cht_put32(p + CHT_PAGE - 4, cht_crc32c(0, p, CHT_PAGE - 4));
    put_page(f, page, p);
    if (kind == CHT_PF_SUMS)
        return;
    struct cht_file *s = open_file(m, shard, CHT_PF_SUMS, &pages);
    if (sp < pages) {
        get_page(s, sp, sums);
        cht_put32(sums + page % CHT_SUMS_PER_PAGE * 4, cht_page_sum(p));
        cht_put32(sums + CHT_PAGE - 4, cht_crc32c(0, sums, CHT_PAGE - 4));
        put_page(s, sp, sums);
    }
    cht_file_close(s);
}

static uint64_t odd_number(struct mutant *m, uint64_t old, uint64_t pages)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   63,
                                   64,
                                   255,
                                   256,
                                   4095,
                                   4096,
                                   4097,
                                   32768,
                                   32769,
                                   65535,
                                   UINT64_C(1) << 30,
                                   UINT64_C(1) << 31,
                                   UINT32_MAX - 1,
                                   UINT32_MAX,
                                   (UINT64_C(1) << 48) - 1,
                                   UINT64_C(1) << 63,
                                   UINT64_MAX};
    switch (cht_rng_below(&m->r, 6)) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return old ^ UINT64_C(1) << cht_rng_below(&m->r, 64);
    case 3:
        return cht_rng_below(&m->r, pages * 64 + 2); /* a block */
    case 4:
        return cht_rng_below(&m->r, pages + 2) *
               (cht_rng_below(&m->r, 2) == 0 ? 64 : 8); /* a page, a granule */
    default:
        return odd[cht_rng_below(&m->r, sizeof odd / sizeof *odd)];
    }
}

/* A place in the page, most likely one that means something: where it is not zero, or just after. */
static unsigned place(struct mutant *m, const uint8_t *p, unsigned from)
{
    unsigned at = from + (unsigned)cht_rng_below(&m->r, CHT_PAGE - from);
    for (unsigned i = 0; i < CHT_PAGE && cht_rng_below(&m->r, 20) != 0; i++) {
        unsigned k = from + (at - from + i) % (CHT_PAGE - from);
        if (p[k] != 0)
            return k;
    }
    return at;
}

static void change_field(struct mutant *m, uint8_t *p, unsigned at, uint64_t pages)
{
    switch (cht_rng_below(&m->r, 5)) {
    case 0:
        p[at] = (uint8_t)odd_number(m, p[at], pages);
        break;
    case 1:
        at = at / 2 * 2;
        cht_put16(p + at, (uint16_t)odd_number(m, cht_get16(p + at), pages));
        break;
    case 2:
    case 3:
        at = at / 4 * 4;
        cht_put32(p + at, (uint32_t)odd_number(m, cht_get32(p + at), pages));
        break;
    default:
        at = at / 8 * 8;
        cht_put64(p + at, odd_number(m, cht_get64(p + at), pages));
    }
}

static void mutate_page(struct mutant *m)
{
    static const int likely[] = {CHT_PF_KEYS,  CHT_PF_RECYCLE, CHT_PF_RECYCLE, CHT_PF_RECYCLE, CHT_PF_PAIRS,
                                 CHT_PF_PAIRS, CHT_PF_PAIRS,   CHT_PF_SUMS,    CHT_PF_VALUES};
    uint8_t p[CHT_PAGE], q[CHT_PAGE];
    uint64_t pages, n = 1 + cht_rng_below(&m->r, 3);
    unsigned shard = (unsigned)cht_rng_below(&m->r, 2);
    int kind = likely[cht_rng_below(&m->r, sizeof likely / sizeof *likely)];
    struct cht_file *f = open_file(m, shard, kind, &pages);
    uint64_t page = cht_rng_below(&m->r, 3) == 0 ? 0 : cht_rng_below(&m->r, pages);
    get_page(f, page, p);
    unsigned from = page == 0 ? 40 : 0; /* what comes before is who it is */
    switch (cht_rng_below(&m->r, 8)) {
    case 0: /* another page in its place */
        if (page != 0)
            get_page(f, cht_rng_below(&m->r, pages), p);
        break;
    case 1: { /* a block of another page */
        unsigned size = 64u << cht_rng_below(&m->r, 5),
                 to = (unsigned)cht_rng_below(&m->r, CHT_PAGE / size) * size;
        get_page(f, cht_rng_below(&m->r, pages), q);
        if (to >= from)
            memcpy(p + to, q + cht_rng_below(&m->r, CHT_PAGE / size) * size, size);
        break;
    }
    default:
        for (; n > 0; n--)
            change_field(m, p, place(m, p, from), pages);
    }
    seal_page(m, shard, kind, f, page, p);
    cht_file_close(f);
}

static void first_log(void *ctx, const char *name, enum cht_io_kind kind)
{
    char *out = ctx;
    if (kind == CHT_IO_FILE && strlen(name) == 20 && (out[0] == 0 || strcmp(name, out) > 0))
        memcpy(out, name, 21);
}

/* Bytes of a record's payload, or its head, sealed as the log does it. */
static void mutate_log(struct mutant *m)
{
    char name[32] = "", path[100];
    uint8_t *b, head[512];
    uint64_t size, at = 512, chosen = 0, n = 0;
    struct cht_file *f;
    struct cht_io *io = simdisk_io(m->d);
    assert_int_equal(io->ops->list(io, "/d/default/log", first_log, name, NULL), CHT_OK);
    (void)snprintf(path, sizeof path, "/d/default/log/%s", name);
    assert_int_equal(cht_io_open(io, path, 0, &f, NULL), CHT_OK);
    assert_int_equal(io->ops->size(f, &size, NULL), CHT_OK);
    b = calloc(1, size + 8);
    assert_non_null(b);
    assert_int_equal(cht_file_read(f, b, size, 0, NULL), CHT_OK);
    memcpy(head, b, sizeof head);
    for (; at + 32 <= size && cht_get64(b + at + 8) <= size - at - 32 && cht_get64(b + at + 16) != 0;
         at += (32 + cht_get64(b + at + 8) + 7) & ~UINT64_C(7)) {
        if (cht_rng_below(&m->r, ++n) == 0)
            chosen = at;
    }
    if (chosen != 0) {
        uint64_t len = cht_get64(b + chosen + 8);
        for (unsigned k = 1 + (unsigned)cht_rng_below(&m->r, 3); k > 0 && len > 0; k--) {
            uint64_t off =
                chosen + 32 +
                cht_rng_below(&m->r, len < 24 || cht_rng_below(&m->r, 2) == 0 ? (len < 24 ? len : 24) : len);
            b[off] = (uint8_t)odd_number(m, b[off], 4);
        }
        cht_put32(b + chosen, cht_crc32c(cht_crc32c(0, head + 40, 8), b + chosen + 4, 28 + len));
        assert_int_equal(cht_file_write(f, b, size, 0, NULL), CHT_OK);
    }
    free(b);
    cht_file_close(f);
}

/* ---- everything ----------------------------------------------------------------------------------------------- */

static void see_length(void *ctx, const struct cht_length_stat *st)
{
    (void)ctx;
    (void)st;
}

static void see_finding(void *ctx, const char *where, const char *finding)
{
    (void)ctx;
    assert_non_null(where);
    assert_non_null(finding);
}

static bool see_entries(void *ctx, const struct cht_entry *e, size_t n)
{
    _Atomic unsigned *sum = ctx;
    for (size_t i = 0; i < n; i++)
        *sum += e[i].value != NULL ? e[i].value[0] : 0;
    return true;
}

static void read_points(struct cht_store *s)
{
    struct cht_buf b = {0};
    struct cht_hint h[CHT_HINTS_MAX];
    static uint8_t name[CHT_HINTS_MAX][4200];
    for (unsigned i = 0; i < NAMES; i++) {
        uint64_t key = i;
        uint32_t size;
        h[i % CHT_HINTS_MAX] = (struct cht_hint){.name = name_of(i, name[i % CHT_HINTS_MAX])};
        (void)cht_store_pair_value(s, name_of(i, name[i % CHT_HINTS_MAX]), &key, &b, &size, NULL);
        (void)cht_store_get(s, i, &b, &size, NULL);
        (void)cht_store_count(s, (struct cht_str){name[0], i % 40}, &key, NULL);
        if (i % CHT_HINTS_MAX == CHT_HINTS_MAX - 1) {
            struct cht_pair_read r[CHT_HINTS_MAX];
            (void)cht_store_prefetch(s, h, CHT_HINTS_MAX);
            for (unsigned k = 0; k < CHT_HINTS_MAX; k++)
                r[k].name = h[k].name;
            (void)cht_store_pair_values(s, r, CHT_HINTS_MAX, &b, NULL, NULL);
        }
    }
    cht_buf_free(&b);
}

static void read_streams(struct cht_store *s)
{
    _Atomic unsigned sum = 0;
    struct cht_entry e[64];
    struct cht_store_stats st;
    struct cht_shape_stat shape;
    for (unsigned i = 0; i < 4; i++) {
        struct cht_scan_config sc = {.kind = i < 3 ? CHT_SCAN_PAIRS : CHT_SCAN_VALUES,
                                     .values = i != 1,
                                     .reverse = i == 1,
                                     .limit = i == 2 ? 100 : 0};
        struct cht_scan *scan;
        size_t got;
        if (cht_scan_open(s, &sc, &scan, NULL) != CHT_OK)
            continue;
        while (cht_scan_next(scan, e, 64, &got, NULL) == CHT_OK && got > 0)
            (void)see_entries(&sum, e, got);
        cht_scan_close(scan);
    }
    struct cht_sweep_config sweep = {.visit = see_entries, .ctx = &sum, .names = true};
    (void)cht_store_sweep(s, &sweep, NULL);
    sweep.names = false;
    (void)cht_store_sweep(s, &sweep, NULL);
    (void)cht_store_stats(s, &st, NULL);
    (void)cht_store_shape(s, &shape, NULL);
    (void)cht_store_lengths(s, see_length, NULL, NULL);
}

static void write_all(struct cht_store *s, struct cht_rng *r)
{
    for (unsigned i = 0; i < 120; i++) {
        unsigned k = (unsigned)cht_rng_below(r, NAMES + 40);
        if (cht_rng_below(r, 3) == 0)
            del(s, k, cht_rng_below(r, 2) == 0);
        else
            put(s, k, (unsigned)cht_rng_below(r, cht_rng_below(r, 20) == 0 ? 131 : 12));
        struct cht_op op = {.kind = cht_rng_below(r, 2) == 0 ? CHT_OP_DELETE : CHT_OP_EDIT,
                            .key = k + 1,
                            .value = {bytes, length_of(k % 10)}};
        (void)run_op(s, &op, 1, 0);
        if (i % 40 == 39)
            (void)cht_store_checkpoint(s, NULL);
    }
    struct cht_op many[] = {
        {.kind = CHT_OP_INSERT, .value = {bytes, 300000}},
        {.kind = CHT_OP_INSERT, .value = {bytes, 77}},
        {.kind = CHT_OP_RESERVE, .key = 10},
        {.kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"p", 1}, .with_values = true},
        {.kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"x", 1}}};
    (void)run_op(s, many, 5, CHT_COMMIT_ATOMIC);
    for (size_t i = 0; i < 5; i++)
        (void)run_op(s, &many[i], 1, 0);
    struct cht_op all = {
        .kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"", 0}, .with_values = cht_rng_below(r, 2) == 0};
    if (cht_rng_below(r, 3) == 0)
        (void)run_op(s, &all, 1, 0);
}

/* A copy of it, as far as there is one, made into a database again. */
static void copy_it(struct cht_store *s, struct cht_rng *r)
{
    struct cht_backup *b;
    struct cht_restore *to;
    struct cht_env *env;
    struct cht_store *again;
    struct cht_err err = {0};
    size_t n = 0;
    if (cht_backup_open(s, &b, NULL) != CHT_OK)
        return;
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = config(d);
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    assert_non_null(buf);
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_restore_new(env, "default", &to, &err), CHT_OK);
    enum cht_rc rc;
    while ((rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, NULL)) == CHT_OK && n > 0)
        assert_int_equal(cht_restore_feed(to, buf, n, &err), CHT_OK);
    cht_backup_close(b);
    if (rc == CHT_OK)
        rc = cht_restore_finish(to, &err);
    cht_restore_free(to);
    if (rc == CHT_OK && cht_env_get(env, "default", &again, NULL) == CHT_OK) {
        read_points(again);
        write_all(again, r);
    }
    cht_env_abandon(env);
    free(buf);
    simdisk_free(d);
}

static uint64_t check(struct simdisk *d)
{
    uint64_t findings = 0;
    struct cht_env_config cfg = config(d);
    struct cht_err err = {0};
    enum cht_rc rc = cht_check(&cfg, NULL, see_finding, NULL, &findings, &err);
    return rc != CHT_OK ? 1 : findings;
}

/* Returns whether it could be opened. */
static bool use(struct simdisk *d, struct cht_rng *r)
{
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        return false;
    bool open = cht_env_get(env, "default", &s, &err) == CHT_OK;
    if (open) {
        struct cht_scrub scrub = {.bad = 0};
        read_points(s);
        read_streams(s);
        if (cht_rng_below(r, 4) == 0)
            copy_it(s, r);
        write_all(s, r);
        read_points(s);
        read_streams(s);
        (void)cht_store_scrub(s, &scrub, NULL);
    }
    if (cht_rng_below(r, 2) == 0)
        cht_env_abandon(env);
    else
        (void)cht_env_close(env, NULL);
    return open;
}

static void run_mutant(const struct simdisk *base, uint64_t seed, bool log, unsigned *opened, unsigned *found)
{
    struct mutant m = {.d = simdisk_clone(base)};
    cht_rng_seed(&m.r, seed);
    if (log)
        mutate_log(&m);
    else
        for (uint64_t n = 1 + cht_rng_below(&m.r, 4) / 2; n > 0; n--)
            mutate_page(&m);
    *found += check(m.d) > 0;
    bool open = use(m.d, &m.r);
    *opened += open;
    if (open && use(m.d, &m.r)) /* what it has become */
        (void)check(m.d);
    simdisk_free(m.d);
}

static void run(bool clean, unsigned share)
{
    uint64_t seed = copy_number("CHT_TEST_SEED", 20), only = copy_number("CHT_TEST_MUTANT", UINT64_MAX);
    unsigned count = MUTANTS / share * (getenv("CHT_TEST_LONG") != NULL ? 50 : 1), opened = 0, found = 0;
    struct simdisk *base = build(clean);
    struct simdisk *same = simdisk_clone(base);
    assert_int_equal(check(same), 0);
    simdisk_free(same);
    (void)signal(SIGALRM, last_words);
    (void)signal(SIGABRT, last_words);
    (void)signal(SIGSEGV, last_words); /* cmocka would only say that it was one */
    for (uint64_t i = 0; i < count; i++) {
        if (only != UINT64_MAX && i != only)
            continue;
        (void)snprintf(what, sizeof what, "\n%s database: mutant %llu of seed %llu\n",
                       clean ? "clean" : "unclean", (unsigned long long)i, (unsigned long long)seed);
        (void)alarm(SECONDS);
        run_mutant(base, seed * 1000003 + i, !clean && i % 3 == 0, &opened, &found);
    }
    (void)alarm(0);
    simdisk_free(base);
    print_message("%u mutants: %u opened, check found %u\n", count, opened, found);
    /* Neither refused at the door nor harmless. A change of the log is mostly no damage but other data. */
    assert_true(only != UINT64_MAX || (opened > count / 20 && found > count / (clean ? 4 : 8)));
}

static void test_clean(void **state)
{
    (void)state;
    run(true, 1);
}

/* Mutants of clean databases that the long form has found something with. 5741: names of a leaf out of order, so that a scan's
 * cursor went back and the scan had no end. */
static void test_found(void **state)
{
    static const uint64_t found[] = {5741};
    (void)state;
    struct simdisk *base = build(true);
    unsigned opened = 0, damaged = 0;
    for (size_t i = 0; i < sizeof found / sizeof *found; i++) {
        (void)alarm(SECONDS);
        run_mutant(base, UINT64_C(20) * 1000003 + found[i], false, &opened, &damaged);
    }
    (void)alarm(0);
    simdisk_free(base);
    assert_int_equal(damaged, sizeof found / sizeof *found);
}

static void test_unclean(void **state)
{
    (void)state;
    run(false, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clean), cmocka_unit_test(test_found),
                                       cmocka_unit_test(test_unclean)};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
