/* test_space: what is deleted takes no space any more: pages of dead keys, pages of the trie after a namespace has gone, values.
 * On a real file system, so that what is measured is what `du` says. Longer with CHT_TEST_LONG=1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cmocka.h>

#include "cheetah/backup.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "store/pagefile_int.h"

#define BATCH 500u
#define SHARDS 2u

static struct cht_err err;

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static bool is_long(void)
{
    const char *s = getenv("CHT_TEST_LONG");
    return s != NULL && *s == '1';
}

struct fixture {
    char dir[40];
    struct cht_env *env;
    struct cht_store *s;
    uint64_t first, next; /* items in the queue: [first, next) */
    uint64_t *key;        /* owned: of item i at i % key_cap */
    size_t key_cap;
};

static struct cht_env_config config(const char *const *dir)
{
    return (struct cht_env_config){.dirs = dir,
                                   .dir_count = 1,
                                   .default_shards = SHARDS,
                                   .log_segment_bytes = 4u << 20,
                                   .durability = CHT_DURABLE_OS,
                                   .scan_workers = 1,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .manual_checkpoint = true};
}

static void open_env(struct fixture *f, bool create)
{
    const char *dir = f->dir;
    struct cht_env_config cfg = config(&dir);
    must(cht_env_open(&cfg, &f->env, &err));
    if (create)
        must(cht_env_create(f->env, "default", 0, &err));
    must(cht_env_get(f->env, "default", &f->s, &err));
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void check(struct fixture *f)
{
    const char *dir = f->dir;
    struct cht_env_config cfg = config(&dir);
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err));
    assert_int_equal(findings, 0);
}

/* Stops cleanly, checks, goes on. */
static void restart(struct fixture *f)
{
    must(cht_env_close(f->env, &err));
    check(f);
    open_env(f, false);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->dir, "/tmp/cht-space-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->key_cap = 1u << 20;
    f->key = calloc(f->key_cap, sizeof *f->key);
    assert_non_null(f->key);
    open_env(f, true);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[64];
    must(cht_env_close(f->env, &err));
    check(f);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f->key);
    free(f);
    return 0;
}

/* What a file of all shards takes on the disk. */
static uint64_t disk(const struct fixture *f, const char *name)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        char path[128];
        struct stat st;
        (void)snprintf(path, sizeof path, "%s/default/shard-%03u/%s", f->dir, i, name);
        assert_int_equal(stat(path, &st), 0);
        n += (uint64_t)st.st_blocks * 512;
    }
    return n;
}

static uint64_t size_of(const struct fixture *f, const char *name)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        char path[128];
        struct stat st;
        (void)snprintf(path, sizeof path, "%s/default/shard-%03u/%s", f->dir, i, name);
        assert_int_equal(stat(path, &st), 0);
        n += (uint64_t)st.st_size;
    }
    return n;
}

static uint64_t disk_all(const struct fixture *f)
{
    static const char *const names[] = {"keys", "values", "recycle", "pairs", "sums", "journal"};
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        n += disk(f, names[i]);
    return n;
}

static void show(const struct fixture *f, const char *when)
{
    print_message("%-28s keys %8llu values %8llu recycle %8llu pairs %8llu sums %8llu KiB\n", when,
                  (unsigned long long)disk(f, "keys") >> 10, (unsigned long long)disk(f, "values") >> 10,
                  (unsigned long long)disk(f, "recycle") >> 10, (unsigned long long)disk(f, "pairs") >> 10,
                  (unsigned long long)disk(f, "sums") >> 10);
}

/* ---- a queue --------------------------------------------------------------------------------------------------- */

static uint32_t item_len(uint64_t i) { return 20 + (uint32_t)(i * 2654435761u % 31); }

static void item_fill(uint8_t *p, uint64_t i)
{
    memset(p, (int)(i & 255), item_len(i));
    memcpy(p, &i, sizeof i);
}

/* Adds n items. */
static void push(struct fixture *f, unsigned n)
{
    static uint8_t bytes[BATCH][64];
    struct cht_op ops[BATCH];
    while (n > 0) {
        unsigned count = n < BATCH ? n : BATCH;
        for (unsigned i = 0; i < count; i++) {
            item_fill(bytes[i], f->next + i);
            ops[i] = (struct cht_op){.kind = CHT_OP_INSERT, .value = {bytes[i], item_len(f->next + i)}};
        }
        struct cht_commit c = {.ops = ops, .count = count};
        must(cht_store_commit(f->s, &c));
        for (unsigned i = 0; i < count; i++)
            f->key[(f->next + i) % f->key_cap] = ops[i].key;
        f->next += count;
        n -= count;
    }
}

/* Takes n items, in the order they came; looks at one in each batch. */
static void drain(struct fixture *f, unsigned n)
{
    struct cht_op ops[BATCH];
    struct cht_buf out = {0};
    while (n > 0) {
        unsigned count = n < BATCH ? n : BATCH;
        uint8_t want[64];
        uint32_t size;
        uint64_t look = f->first + n % count;
        item_fill(want, look);
        must(cht_store_get(f->s, f->key[look % f->key_cap], &out, &size, &err));
        assert_int_equal(size, item_len(look));
        assert_memory_equal(out.data, want, size);
        for (unsigned i = 0; i < count; i++)
            ops[i] = (struct cht_op){.kind = CHT_OP_DELETE, .key = f->key[(f->first + i) % f->key_cap]};
        struct cht_commit c = {.ops = ops, .count = count};
        must(cht_store_commit(f->s, &c));
        assert_int_equal(c.failed, 0);
        f->first += count;
        n -= count;
    }
    cht_buf_free(&out);
}

static void test_queue_takes_nothing(void **state)
{
    struct fixture *f = *state;
    unsigned rounds = is_long() ? 400 : 24, per_round = 100000;
    uint64_t most_early = 0, most_late = 0, last_key = 0;
    push(f, 20000);
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < per_round; i += 20000) {
            push(f, 20000);
            drain(f, 20000);
        }
        must(cht_store_checkpoint(f->s, &err));
        if (r % 10 == 9)
            restart(f);
        assert_true(f->key[(f->next - 1) % f->key_cap] > last_key); /* never given out twice */
        last_key = f->key[(f->next - 1) % f->key_cap];
        uint64_t now = disk_all(f);
        if (r < rounds / 2)
            most_early = now > most_early ? now : most_early;
        else
            most_late = now > most_late ? now : most_late;
        if (r % (rounds / 4) == rounds / 4 - 1)
            show(f, "queue");
    }
    print_message(
        "%llu items: at most %llu KiB in the first half, %llu KiB in the second; keys are %llu KiB long\n",
        (unsigned long long)f->next, (unsigned long long)most_early >> 10,
        (unsigned long long)most_late >> 10, (unsigned long long)size_of(f, "keys") >> 10);
    assert_true(most_late <= most_early + (256u << 10));
    assert_true(size_of(f, "keys") >= f->next * 16); /* so there was something to give back */
    assert_true(disk(f, "keys") < f->next * 16 / 4);
    drain(f, (unsigned)(f->next - f->first));
    must(cht_store_checkpoint(f->s, &err));
    must(cht_store_checkpoint(f->s, &err)); /* what the first set free is free on the disk */
    show(f, "empty");
    assert_true(disk(f, "keys") <= SHARDS * (64u << 10) + SHARDS * (256u << 10));
    assert_true(disk(f, "values") <= SHARDS * (512u << 10));
    struct cht_store_stats st;
    must(cht_store_stats(f->s, &st, &err));
    assert_int_equal(st.values, 0);
    assert_true(st.file_bytes <= disk_all(f) && st.file_bytes < f->next * 16 / 2);
    restart(f);
    push(f, 1000);
    assert_true(f->key[f->next % f->key_cap - 1] > last_key);
}

/* ---- a namespace ----------------------------------------------------------------------------------------------- */

static void put_names(struct fixture *f, const char *space, uint64_t from, uint64_t n)
{
    static uint8_t names[BATCH][64], value[BATCH][32];
    struct cht_op ops[BATCH];
    for (uint64_t i = from; i < from + n;) {
        unsigned count = 0;
        for (; count < BATCH && i < from + n; count++, i++) {
            uint64_t x = i * UINT64_C(0x9E3779B97F4A7C15);
            int len = snprintf((char *)names[count], sizeof names[count], "%s/%016llx", space,
                               (unsigned long long)x);
            memset(value[count], (int)(i & 255), sizeof value[count]);
            ops[count] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                         .name = {names[count], (size_t)len},
                                         .value = {value[count], 8 + (size_t)(i % 24)}};
        }
        struct cht_commit c = {.ops = ops, .count = count};
        must(cht_store_commit(f->s, &c));
        assert_int_equal(c.failed, 0);
    }
}

static void delete_names(struct fixture *f, const char *space)
{
    struct cht_op op = {
        .kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)space, strlen(space)}, .with_values = true};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(f->s, &c));
}

static uint64_t count_names(struct fixture *f, const char *space)
{
    uint64_t n = 0;
    must(cht_store_count(f->s, (struct cht_str){(const uint8_t *)space, strlen(space)}, &n, &err));
    return n;
}

static void test_namespace_gives_back(void **state)
{
    struct fixture *f = *state;
    uint64_t n = is_long() ? 10000000 : 300000;
    static const char *const files[] = {"keys", "values", "pairs"};
    uint64_t before[3], full[3];
    put_names(f, "stays", 0, n / 100);
    must(cht_store_checkpoint(f->s, &err));
    for (unsigned i = 0; i < 3; i++)
        before[i] = disk(f, files[i]);
    put_names(f, "goes", 0, n);
    must(cht_store_checkpoint(f->s, &err));
    for (unsigned i = 0; i < 3; i++)
        full[i] = disk(f, files[i]);
    show(f, "with the namespace");
    delete_names(f, "goes");
    must(cht_store_checkpoint(f->s, &err));
    must(cht_store_checkpoint(f->s, &err));
    show(f, "without it");
    for (unsigned i = 0; i < 3; i++) {
        uint64_t now = disk(f, files[i]), grown = full[i] - before[i],
                 kept = now > before[i] ? now - before[i] : 0;
        print_message("%s: %llu KiB of %llu KiB kept\n", files[i], (unsigned long long)kept >> 10,
                      (unsigned long long)grown >> 10);
        assert_true(kept * 10 <= grown);
    }
    restart(f);
    assert_int_equal(count_names(f, "stays"), n / 100);
    assert_int_equal(count_names(f, "goes"), 0);
    /* The holes are used again before the file grows. */
    uint64_t size = size_of(f, "pairs");
    put_names(f, "again", 7, n * 8 / 10);
    must(cht_store_checkpoint(f->s, &err));
    show(f, "used again");
    assert_int_equal(count_names(f, "again"), n * 8 / 10);
    assert_true(size_of(f, "pairs") <= size + size / 8);
    restart(f);
    assert_int_equal(count_names(f, "again"), n * 8 / 10);
}

/* ---- backups --------------------------------------------------------------------------------------------------- */

/* Reads the rest of a backup into the database "copy". Returns the bytes of the stream. */
static uint64_t copy_rest(struct fixture *f, struct cht_backup *b, struct cht_restore *r)
{
    static uint8_t buf[CHT_BACKUP_BUFFER_MIN * 2];
    uint64_t total = 0;
    size_t n = 1;
    while (n > 0) {
        must(cht_backup_read(b, buf, sizeof buf, &n, &err));
        must(cht_restore_feed(r, buf, n, &err));
        total += n;
    }
    must(cht_restore_finish(r, &err));
    cht_restore_free(r);
    cht_backup_close(b);
    (void)f;
    return total;
}

static uint64_t disk_of_copy(struct fixture *f, uint64_t *keys)
{
    uint64_t n = 0;
    static const char *const names[] = {"keys", "values", "recycle", "pairs", "sums"};
    for (unsigned i = 0; i < SHARDS; i++) {
        for (unsigned k = 0; k < 5; k++) {
            char path[128];
            struct stat st;
            (void)snprintf(path, sizeof path, "%s/copy/shard-%03u/%s", f->dir, i, names[k]);
            assert_int_equal(stat(path, &st), 0);
            n += (uint64_t)st.st_blocks * 512;
            *keys += k == 0 ? (uint64_t)st.st_size : 0;
        }
    }
    return n;
}

/* Holes are holes in the stream and in what is made from it; and a backup that is read while the namespace goes, the tail of
 * its file is cut off and filled again, is that of its moment. */
static void test_backups(void **state)
{
    struct fixture *f = *state;
    struct cht_backup *b;
    struct cht_restore *r;
    uint64_t n = 30000, keys = 0;
    for (unsigned i = 0; i < 20; i++) {
        push(f, 20000);
        drain(f, 20000);
    }
    push(f, 1000);
    put_names(f, "goes", 0, n);
    must(cht_store_checkpoint(f->s, &err));
    uint64_t pages = size_of(f, "pairs"), values = disk(f, "values");
    must(cht_backup_open(f->s, &b, &err));
    must(cht_restore_new(f->env, "copy", &r, &err));
    delete_names(f, "goes");
    for (unsigned i = 0; i < 3; i++)
        must(cht_store_checkpoint(f->s, &err));
    put_names(f, "comes", 1, n); /* over the pages that the backup has not read */
    must(cht_store_checkpoint(f->s, &err));
    must(cht_store_checkpoint(f->s, &err));
    uint64_t bytes = copy_rest(f, b, r), on_disk = disk_of_copy(f, &keys);
    print_message("a stream of %llu KiB, a copy of %llu KiB, keys of %llu KiB\n",
                  (unsigned long long)bytes >> 10, (unsigned long long)on_disk >> 10,
                  (unsigned long long)keys >> 10);
    assert_true(keys >= f->next * 16 && bytes < keys / 2 + pages + values + (4u << 20));
    assert_true(on_disk < keys / 2 + pages + values + (4u << 20));
    struct fixture copy = *f;
    must(cht_env_get(f->env, "copy", &copy.s, &err));
    assert_int_equal(count_names(&copy, "goes"), n);
    assert_int_equal(count_names(&copy, "comes"), 0);
    drain(&copy, (unsigned)(copy.next - copy.first));
    delete_names(f, "comes");
    for (unsigned i = 0; i < 3; i++)
        must(cht_store_checkpoint(f->s, &err));
    assert_true(size_of(f, "pairs") < pages / 2); /* nobody reads the tail any more */
    must(cht_env_drop(f->env, "copy", &err));
}

int main(void)
{
    struct statfs fs;
    if (statfs("/tmp", &fs) != 0 ||
        fs.f_type == TMPFS_MAGIC) { /* there no holes are made, see pagefile_holes.c */
        print_message("skipped: /tmp is a tmpfs\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_queue_takes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_namespace_gives_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backups, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
