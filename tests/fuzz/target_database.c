/* database: the files of a database that say what no program of ours wrote, under right checksums (image.h; they are made right before each run,
 * so that no check is switched off in the program). Input: how (u8), what is done with it (u8), an image. Whatever the files say,
 * nothing crashes, hangs or trips an invariant: they are checked, opened, read, swept, written to, backed up, closed and opened again.
 *
 *   how   1: checksums stay as they are   2: only checked   4: no clean close   8: scans   16: a backup   32: writes   64: once more
 *
 * The environment stays from one input to the next: what takes time is making threads.
 */
#include "fuzz/image.h"

#include "cheetah/backup.h"
#include "cheetah/scan.h"
#include "cheetah/sweep.h"
#include "store/db.h"

enum { KEPT_AS_IT_IS = 1, ONLY_CHECKED = 2, ABANDONED = 4, SCANS = 8, BACKUP = 16, WRITES = 32, AGAIN = 64 };
enum { NAMES = 24 };

static struct simdisk *disk;
static struct cht_env *env;
static struct image image;
static unsigned used;
static uint8_t bytes[20000];

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    FUZZ_CHECK(where[0] != 0 && what[0] != 0);
}

static void check(const char *dir)
{
    const char *const dirs[] = {dir};
    struct cht_env_config cfg = fuzz_config(disk);
    struct cht_err err = {0};
    uint64_t findings;
    cfg.dirs = dirs;
    enum cht_rc rc = cht_check(&cfg, NULL, finding, NULL, &findings, &err);
    FUZZ_CHECK(rc == CHT_OK || err.msg[0] != 0);
}

/* Those that make_seeds.c has put in, and some that are not there. */
static struct cht_str name_of(unsigned i, uint8_t *out)
{
    size_t n = 0;
    switch (i % 4) {
    case 0:
        n = (size_t)sprintf((char *)out, "%c%u", 'A' + (int)(i % 50), i);
        break;
    case 1:
        n = (size_t)sprintf((char *)out, "a/common/prefix/%03u", i);
        break;
    case 2:
        n = 900 + i % 7 * 400;
        memset(out, 'x', n);
        n += (size_t)sprintf((char *)out + n, "%u", i % 40);
        break;
    default:
        n = 1 + i % 60;
        memset(out, 'p', n);
    }
    return (struct cht_str){out, n};
}

static void read_points(struct cht_store *s)
{
    static uint8_t name[CHT_HINTS_MAX][4200];
    struct cht_hint hints[NAMES];
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint32_t size;
    for (unsigned i = 0; i < NAMES; i++) {
        uint64_t key = i;
        hints[i] = (struct cht_hint){.name = name_of(i, name[i]), .key = i};
        (void)cht_store_pair_value(s, hints[i].name, &key, &b, &size, &err);
        (void)cht_store_get(s, i, &b, &size, &err);
        (void)cht_store_count(s, (struct cht_str){name[0], i % 20}, &key, &err);
    }
    (void)cht_store_prefetch(s, hints, NAMES);
    struct cht_pair_read reads[NAMES];
    for (unsigned i = 0; i < NAMES; i++)
        reads[i].name = hints[i].name;
    (void)cht_store_pair_values(s, reads, NAMES, &b, NULL, &err);
    cht_buf_free(&b);
}

static bool see(void *ctx, const struct cht_entry *e, size_t n)
{
    _Atomic unsigned *sum = ctx;
    for (size_t i = 0; i < n; i++)
        *sum += e[i].value != NULL && e[i].value_len > 0 ? e[i].value[0] : 0;
    return true;
}

static void scan(struct cht_store *s)
{
    _Atomic unsigned sum = 0;
    for (unsigned i = 0; i < 3; i++) {
        struct cht_scan_config cfg = {
            .kind = i < 2 ? CHT_SCAN_PAIRS : CHT_SCAN_VALUES, .values = i != 1, .reverse = i == 1};
        struct cht_scan *c;
        struct cht_entry e[64];
        size_t got;
        if (cht_scan_open(s, &cfg, &c, NULL) != CHT_OK)
            continue;
        while (cht_scan_next(c, e, 64, &got, NULL) == CHT_OK && got > 0)
            (void)see(&sum, e, got);
        cht_scan_close(c);
    }
    struct cht_sweep_config sweep = {.visit = see, .ctx = &sum, .names = true};
    (void)cht_store_sweep(s, &sweep, NULL);
}

static void commit(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    (void)cht_store_commit(s, &c);
}

static void write_some(struct cht_store *s, uint8_t what)
{
    static const size_t lengths[] = {1, 8, 8, 40, 100, 700, 5000, 20000};
    struct cht_rng r;
    uint8_t name[4200];
    cht_rng_seed(&r, what);
    for (unsigned i = 0; i < 12; i++) {
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = name_of((unsigned)cht_rng_below(&r, 60), name),
                            .key = 1 + cht_rng_below(&r, 60),
                            .value = {bytes, lengths[cht_rng_below(&r, 8)]}};
        static const enum cht_op_kind kinds[] = {CHT_OP_PAIR_PUT, CHT_OP_PAIR_DEL, CHT_OP_DELETE, CHT_OP_EDIT,
                                                 CHT_OP_PAIR_SET};
        op.kind = kinds[cht_rng_below(&r, 8) % 5];
        op.with_values = cht_rng_below(&r, 2) == 0;
        if (op.kind == CHT_OP_PAIR_PUT && what % 2 == 1)
            op.ttl_ms = cht_rng_below(&r, 3) * 30000; /* one in three: a put makes it lasting */
        commit(s, &op, 1, 0);
        if (i % 6 == 5)
            (void)cht_store_checkpoint(s, NULL);
    }
    struct cht_op many[] = {
        {.kind = CHT_OP_INSERT, .value = {bytes, 20000}},
        {.kind = CHT_OP_RESERVE, .key = 10},
        {.kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"p", 1}, .with_values = true}};
    commit(s, many, 3, CHT_COMMIT_ATOMIC);
    struct cht_op all = {
        .kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"", 0}, .with_values = what % 2 == 0};
    if (what % 3 == 0)
        commit(s, &all, 1, 0);
}

static void back_up(struct cht_store *s)
{
    static uint8_t buf[CHT_BACKUP_BUFFER_MIN];
    struct cht_backup *b;
    size_t n = 1;
    if (cht_backup_open(s, &b, NULL) != CHT_OK)
        return;
    while (n > 0 && cht_backup_read(b, buf, sizeof buf, &n, NULL) == CHT_OK) {
    }
    cht_backup_close(b);
}

static void length(void *ctx, const struct cht_length_stat *st)
{
    (void)ctx;
    (void)st;
}

static void look_around(struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_shape_stat shape;
    struct cht_scrub scrub = {.bad = 0};
    (void)cht_store_stats(s, &st, NULL);
    (void)cht_store_shape(s, &shape, NULL);
    (void)cht_store_lengths(s, length, NULL, NULL);
    (void)cht_store_scrub(s, &scrub, NULL);
}

/* False if it cannot be opened. */
static bool use(uint8_t how, uint8_t what)
{
    struct cht_db *db = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = cht_db_open(env, "default", &db, &err);
    FUZZ_CHECK(rc == CHT_OK || err.msg[0] != 0);
    if (rc != CHT_OK)
        return false;
    struct cht_store *s = &db->base;
    read_points(s);
    if ((how & SCANS) != 0)
        scan(s);
    if ((how & BACKUP) != 0)
        back_up(s);
    if ((how & WRITES) != 0) {
        write_some(s, what);
        read_points(s);
    }
    look_around(s);
    (void)cht_db_close(db, (how & ABANDONED) == 0, &err);
    return true;
}

static void renew(void)
{
    static const char *const dirs[] = {"/d"};
    struct cht_err err = {0};
    if (env != NULL) {
        cht_env_abandon(env);
        simdisk_free(disk);
    }
    disk = simdisk_new();
    simdisk_forget(disk);
    struct cht_env_config cfg = fuzz_config(disk);
    cfg.dirs = dirs;
    fuzz_must(cht_env_open(&cfg, &env, &err), &err);
    fuzz_must(simdisk_io(disk)->ops->mkdir(simdisk_io(disk), "/c", &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct fuzz_in in = {data, n};
    uint8_t how = fuzz_u8(&in), what = fuzz_u8(&in);
    if (used++ % 512 == 0)
        renew();
    image_read(&image, &in);
    if ((how & KEPT_AS_IT_IS) == 0)
        image_seal(&image);
    if ((how & ONLY_CHECKED) != 0) {
        image_put(&image, disk, "/c");
        check("/c");
        return 0;
    }
    struct image_file *set = image_find(&image, "cheetah.set");
    if (set != NULL)
        (void)snprintf(set->name, sizeof set->name, "not.the.set"); /* the environment has its own */
    image_put(&image, disk, "/d");
    if (use(how, what) && (how & AGAIN) != 0)
        (void)use((uint8_t)(how & ~BACKUP), what); /* what it has become */
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    static struct image im;
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    if (n < 3 || cht_rng_below(&r, 10) == 0)
        return LLVMFuzzerMutate(data, n, max);
    if (cht_rng_below(&r, 4) == 0) { /* each of what takes long in one of four */
        data[0] = (uint8_t)(cht_rng_below(&r, 256) & cht_rng_below(&r, 256));
        data[1] = (uint8_t)cht_rng_below(&r, 256);
    }
    struct fuzz_in in = {data + 2, n - 2};
    image_read(&im, &in);
    image_mutate(&im, &r);
    size_t len = image_write(&im, data + 2, max - 2);
    return len > 0 ? 2 + len : LLVMFuzzerMutate(data, n, max);
}
