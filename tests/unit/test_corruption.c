/* test_corruption: every byte of the files of a small database is flipped in turn. Opening, reading, scanning and checking
 * never crash, never give a wrong value or mapping, and check finds it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cheetah/scan.h"
#include "cheetah/store.h"

#define PAIRS 40

static char root[] = "/tmp/cht-corrupt-XXXXXX";
static const char *dirs[] = {root};

static struct cht_env_config config(void)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 1,
                                   .scan_workers = 1,
                                   .log_segment_bytes = 1u << 16,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .manual_checkpoint = true};
}

static size_t make_name(unsigned i, uint8_t *out)
{
    return (size_t)sprintf((char *)out, "ctx:%u:%u", i * 7919 % 97, i);
}

static size_t make_value(unsigned i, uint8_t *out)
{
    size_t n = 1 + i * 13 % 90;
    for (size_t k = 0; k < n; k++)
        out[k] = (uint8_t)(i * 31 + k);
    return n;
}

static void build(bool clean)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config();
    struct cht_env *env;
    struct cht_store *s;
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, "default", 1, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "default", &s, &err), CHT_OK);
    for (unsigned i = 0; i < PAIRS; i++) {
        uint8_t name[64], value[128];
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = {name, make_name(i, name)},
                            .value = {value, make_value(i, value)}};
        struct cht_commit c = {.ops = &op, .count = 1};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
        if (!clean && i == PAIRS / 2)
            assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    }
    if (clean)
        assert_int_equal(cht_env_close(env, &err), CHT_OK);
    else
        cht_env_abandon(env);
}

static void ignore(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    (void)where;
    (void)what;
}

static uint64_t check(void)
{
    uint64_t findings = 0;
    struct cht_err err = {0};
    struct cht_env_config cfg = config();
    enum cht_rc rc = cht_check(&cfg, NULL, ignore, NULL, &findings, &err);
    return rc != CHT_OK ? 1 : findings;
}

/* Everything that can be read must be right or be refused. */
static void read_all(struct cht_store *s)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint8_t name[64], value[128];
    for (unsigned i = 0; i < PAIRS; i++) {
        uint64_t key;
        uint32_t size;
        size_t n = make_value(i, value);
        enum cht_rc rc =
            cht_store_pair_value(s, (struct cht_str){name, make_name(i, name)}, &key, &b, &size, &err);
        if (rc == CHT_OK) {
            assert_int_equal(size, n);
            assert_memory_equal(b.data, value, n);
        }
    }
    struct cht_scan_config sc = {.kind = CHT_SCAN_PAIRS, .values = true};
    struct cht_scan *scan;
    struct cht_entry e[64];
    size_t got = 0, total = 0;
    if (cht_scan_open(s, &sc, &scan, &err) == CHT_OK) {
        while (cht_scan_next(scan, e, 64, &got, &err) == CHT_OK && got > 0 && total < 1000) {
            total += got;
            for (size_t k = 0; k < got; k++) {
                unsigned i = 0;
                while (i < PAIRS &&
                       (make_name(i, name) != e[k].name_len || memcmp(name, e[k].name, e[k].name_len) != 0))
                    i++;
                assert_true(i < PAIRS); /* no name that was never written */
                if (e[k].value != NULL) {
                    assert_int_equal(e[k].value_len, make_value(i, value));
                    assert_memory_equal(e[k].value, value, e[k].value_len);
                }
            }
        }
        cht_scan_close(scan);
    }
    cht_buf_free(&b);
}

/* All of it, once before anything is known to be good and once after: nothing may come of it but time. */
static void hint_all(struct cht_store *s)
{
    static uint8_t name[PAIRS][64];
    struct cht_hint h[CHT_HINTS_MAX];
    size_t n = 0;
    for (unsigned i = 0; i < PAIRS; i++) {
        h[n++] = (struct cht_hint){.name = {name[i], make_name(i, name[i])}};
        h[n++] = (struct cht_hint){.key = i + 1};
        if (n + 2 > CHT_HINTS_MAX || i + 1 == PAIRS) {
            assert_true(cht_store_prefetch(s, h, n) <= n);
            n = 0;
        }
    }
}

/* The same, all names at once. */
static void read_together(struct cht_store *s)
{
    static uint8_t name[PAIRS][64];
    uint8_t value[128];
    struct cht_pair_read r[PAIRS];
    struct cht_buf b = {0};
    struct cht_err err = {0};
    for (unsigned i = 0; i < PAIRS; i++)
        r[i].name = (struct cht_str){name[i], make_name(i, name[i])};
    (void)cht_store_pair_values(s, r, PAIRS, &b, NULL, &err);
    for (unsigned i = 0; i < PAIRS; i++) {
        if (r[i].rc != CHT_OK)
            continue;
        assert_int_equal(r[i].size, make_value(i, value));
        assert_memory_equal(b.data + r[i].at, value, r[i].size);
    }
    cht_buf_free(&b);
}

/* False: it was refused. */
static bool open_and_read(void)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config();
    struct cht_env *env;
    struct cht_store *s;
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        return false;
    bool opened = cht_env_get(env, "default", &s, &err) == CHT_OK;
    if (opened) {
        hint_all(s);
        read_together(s);
        read_all(s);
        hint_all(s);
        read_together(s);
    }
    cht_env_abandon(env);
    return opened;
}

/* The folder as it was: opening may repair, so every turn begins with a copy. */
static void restore(void)
{
    char cmd[200];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/default && cp -r --sparse=always %s.orig %s/default", root,
                   root, root);
    assert_int_equal(system(cmd), 0);
}

static void flip(const char *path, off_t off)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, off), 1);
    b ^= (uint8_t)(1u << (off % 8));
    assert_int_equal(pwrite(fd, &b, 1, off), 1);
    close(fd);
}

struct tally {
    uint64_t flips, missed;
};

static void flip_file(const char *rel, bool clean, struct tally *t)
{
    char path[300];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/default/%s", root, rel);
    assert_int_equal(stat(path, &st), 0);
    bool log = strncmp(rel, "log/", 4) == 0;
    off_t end = log && !clean && st.st_size > 4096 ? 4096 : st.st_size;
    off_t stride = getenv("CHT_TEST_FULL") != NULL ? 1 : 101;
    for (off_t off = 0; off < end;
         off += off < 200 || end <= 1024 ? 1 + (stride > 1 && off >= 64) * 2 : stride) {
        flip(path, off);
        uint64_t findings = check();
        t->flips++;
        if (findings == 0 && clean) {
            print_error("%s: flip at %lld was not found\n", rel, (long long)off);
            t->missed++;
        }
        if (t->flips % 4 == 0 || off < 512) {
            if (!open_and_read() && findings == 0) {
                print_error("%s: a flip at %lld that was not found keeps it from opening\n", rel,
                            (long long)off);
                t->missed++;
            }
            restore();
        } else {
            flip(path, off);
        }
    }
}

static void run(bool clean)
{
    char cmd[200];
    struct tally t = {0, 0};
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s %s.orig && mkdir -p %s", root, root, root);
    assert_int_equal(system(cmd), 0);
    build(clean);
    assert_int_equal(check(), 0);
    (void)snprintf(cmd, sizeof cmd, "cp -r --sparse=always %s/default %s.orig", root, root);
    assert_int_equal(system(cmd), 0);
    static const char *const shard_files[] = {"manifest",          "shard-000/keys",  "shard-000/values",
                                              "shard-000/recycle", "shard-000/pairs", "shard-000/sums"};
    for (size_t i = 0; i < 6; i++)
        flip_file(shard_files[i], clean, &t);
    (void)snprintf(cmd, sizeof cmd, "%s/default/log", root);
    DIR *d = opendir(cmd);
    assert_non_null(d);
    char log_name[300] = "";
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.')
            (void)snprintf(log_name, sizeof log_name, "log/%s", e->d_name);
    }
    closedir(d);
    flip_file(log_name, clean, &t);
    print_message("%llu flips, %llu not found\n", (unsigned long long)t.flips, (unsigned long long)t.missed);
    assert_true(t.flips > 500);
    assert_int_equal(t.missed, 0);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s %s.orig", root, root);
    assert_int_equal(system(cmd), 0);
}

static void test_clean(void **state)
{
    (void)state;
    run(true);
}
static void test_unclean(void **state)
{
    (void)state;
    run(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clean), cmocka_unit_test(test_unclean)};
    if (mkdtemp(root) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
