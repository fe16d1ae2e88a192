/* test_store: the promises of cheetah/store.h and cheetah/scan.h, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"

static char base[] = "/tmp/cht-store-XXXXXX";
static char dir_a[64], dir_b[64];
static const char *dirs[] = {dir_a, dir_b};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static struct cht_env_config config(void)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 4,
                                   .log_segment_bytes = 1u << 20,
                                   .durability = CHT_DURABLE_OS};
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    struct cht_env_config cfg = config();
    memset(&err, 0, sizeof err);
    return system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK ||
           cht_env_create(env, "default", 0, &err) != CHT_OK ||
           cht_env_get(env, "default", &s, &err) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    enum cht_rc rc = cht_env_close(env, &err);
    env = NULL;
    return rc != CHT_OK;
}

static void reopen(void)
{
    struct cht_env_config cfg = config();
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "default", &s, &err), CHT_OK);
}

/* Runs one operation; returns its code. */
static enum cht_rc run(struct cht_op *op, unsigned flags)
{
    struct cht_commit c = {.ops = op, .count = 1, .flags = flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc == CHT_OK ? op->rc : rc;
}

static uint64_t insert(const char *v)
{
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = str(v)};
    assert_int_equal(run(&op, 0), CHT_OK);
    return op.key;
}

static enum cht_rc put(const char *name, const char *v, uint64_t *key)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(v)};
    enum cht_rc rc = run(&op, 0);
    *key = op.key;
    return rc;
}

static void has_value(uint64_t key, const void *want, size_t n)
{
    struct cht_buf b = {0};
    uint32_t size;
    assert_int_equal(cht_store_get(s, key, &b, &size, &err), CHT_OK);
    assert_int_equal(size, n);
    assert_memory_equal(b.data, want, n);
    cht_buf_free(&b);
}

static void test_keys(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++)
        assert_int_equal(insert("v"), i); /* 1, 2, 3, ... in a fresh database */
    struct cht_op del = {.kind = CHT_OP_DELETE, .key = 20};
    assert_int_equal(run(&del, 0), CHT_OK);
    assert_int_equal(run(&del, 0), CHT_KEY_NOT_FOUND);
    assert_int_equal(cht_store_get(s, 20, NULL, NULL, &err), CHT_KEY_NOT_FOUND);
    reopen();
    assert_int_equal(insert("v"), 21); /* never given out twice, also across a restart */
    assert_int_equal(cht_store_get(s, 0, NULL, NULL, &err), CHT_INVALID_KEY);
    assert_int_equal(cht_store_get(s, CHT_KEY_MAX + 1, NULL, NULL, &err), CHT_INVALID_KEY);
}

static void test_edit_any_length(void **state)
{
    (void)state;
    uint64_t key = insert("first"), other = insert("other");
    size_t lengths[] = {1, 5, 4096, 100000, 300000, 5000000, 262144, 262143, 7, 16u << 20};
    uint8_t *v = malloc(16u << 20);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(v, (int)i + 1, lengths[i]);
        struct cht_op op = {.kind = CHT_OP_EDIT, .key = key, .value = {v, lengths[i]}};
        assert_int_equal(run(&op, 0), CHT_OK);
        has_value(key, v, lengths[i]);
        if (i % 3 == 0)
            assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
        if (i % 4 == 3)
            reopen();
    }
    has_value(other, "other", 5);
    struct cht_op big = {.kind = CHT_OP_EDIT, .key = key, .value = {v, (16u << 20) + 1}};
    assert_int_equal(run(&big, 0), CHT_VALUE_TOO_LARGE);
    struct cht_op none = {.kind = CHT_OP_EDIT, .key = key, .value = {v, 0}};
    assert_int_equal(run(&none, 0), CHT_EMPTY_VALUE);
    has_value(key, v, 16u << 20);
    free(v);
}

static void test_upsert(void **state)
{
    (void)state;
    uint64_t k1, k2, k3;
    assert_int_equal(put("ctx:a", "one", &k1), CHT_OK);
    assert_int_equal(put("ctx:a", "a longer one", &k2), CHT_OK);
    assert_int_equal(k1, k2); /* the key is kept */
    has_value(k1, "a longer one", 12);
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("ctxv:b"), .key = k1};
    assert_int_equal(run(&set, 0), CHT_OK);
    assert_true(set.created);
    assert_int_equal(put("ctxv:b", "through the other name", &k3), CHT_OK);
    assert_int_equal(k3, k1); /* one value, two names */
    has_value(k1, "through the other name", 22);
    struct cht_op dangle = {.kind = CHT_OP_PAIR_SET, .name = str("later"), .key = 123456};
    assert_int_equal(run(&dangle, 0), CHT_OK);
    uint32_t size = 99;
    struct cht_buf b = {0};
    assert_int_equal(cht_store_pair_value(s, str("later"), &k2, &b, &size, &err), CHT_OK);
    assert_int_equal(size, 0);
    assert_int_equal(k2, 123456);
    assert_int_equal(cht_store_pair(s, str("nobody"), &k2, &err), CHT_PAIR_NOT_FOUND);
    assert_int_equal(cht_store_pair(s, (struct cht_str){(const uint8_t *)"", 0}, &k2, &err),
                     CHT_INVALID_PAIR);
    cht_buf_free(&b);
}

static void test_atomic(void **state)
{
    (void)state;
    uint64_t key = insert("old"), n;
    struct cht_op ops[] = {{.kind = CHT_OP_PAIR_PUT, .name = str("a"), .value = str("1")},
                           {.kind = CHT_OP_EDIT, .key = key, .value = str("new")},
                           {.kind = CHT_OP_INSERT, .value = str("x")},
                           {.kind = CHT_OP_DELETE, .key = 999}};
    struct cht_commit c = {.ops = ops, .count = 4, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(s, &c), CHT_BATCH_FAILED);
    assert_int_equal(c.failed, 3);
    assert_int_equal(ops[3].rc, CHT_KEY_NOT_FOUND);
    has_value(key, "old", 3);
    assert_int_equal(cht_store_pair(s, str("a"), &n, &err), CHT_PAIR_NOT_FOUND);
    c.flags = 0; /* the same, each for itself */
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(c.failed, 1);
    has_value(key, "new", 3);
    struct cht_buf b = {0};
    struct cht_op seen[] = {{.kind = CHT_OP_PAIR_PUT, .name = str("q"), .value = str("in this commit")},
                            {.kind = CHT_OP_PAIR_READ, .name = str("q"), .with_values = true, .buf = &b}};
    struct cht_commit d = {.ops = seen, .count = 2, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(s, &d), CHT_OK);
    assert_int_equal(b.len, 14);
    cht_buf_free(&b);
}

static void test_prefix_delete(void **state)
{
    (void)state;
    uint64_t key, n;
    char name[32];
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "%s%d", i % 3 == 0 ? "cnt:1:" : i % 3 == 1 ? "cnt:10:" : "x", i);
        assert_int_equal(put(name, "value", &key), CHT_OK);
    }
    assert_int_equal(cht_store_count(s, str("cnt:1"), &n, &err), CHT_OK);
    assert_int_equal(n, 2000);
    assert_int_equal(cht_store_count(s, str("cnt:1:"), &n, &err), CHT_OK);
    assert_int_equal(n, 1000);
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .name = str("cnt:1:"), .with_values = true};
    assert_int_equal(run(&op, 0), CHT_OK);
    assert_int_equal(op.pairs, 1000);
    assert_int_equal(op.values, 1000);
    assert_int_equal(cht_store_count(s, str(""), &n, &err), CHT_OK);
    assert_int_equal(n, 2000);
    reopen();
    assert_int_equal(cht_store_count(s, str("cnt:1:"), &n, &err), CHT_OK);
    assert_int_equal(n, 0);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    assert_int_equal(st.values, 2000);
}

static void test_value_handle(void **state)
{
    (void)state;
    uint8_t *v = malloc(2u << 20), *got = malloc(2u << 20);
    memset(v, 5, 2u << 20);
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = {v, 2u << 20}};
    assert_int_equal(run(&op, 0), CHT_OK);
    struct cht_value *h;
    uint32_t size;
    assert_int_equal(cht_value_open(s, op.key, &h, &size, &err), CHT_OK);
    assert_int_equal(size, 2u << 20);
    for (int i = 0; i < 6;
         i++) { /* its bytes stay, whatever happens to the key and however often pages are written back */
        memset(v, 6 + i, 2u << 20);
        struct cht_op edit = {.kind = CHT_OP_EDIT, .key = op.key, .value = {v, 2u << 20}};
        assert_int_equal(run(&edit, 0), CHT_OK);
        assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    }
    size_t n, at = 0;
    while (cht_value_read(h, (uint32_t)at, got + at, (2u << 20) - at, &n, &err) == CHT_OK && n > 0)
        at += n;
    assert_int_equal(at, 2u << 20);
    for (size_t i = 0; i < at; i++)
        assert_int_equal(got[i], 5);
    cht_value_close(h);
    free(v);
    free(got);
}

static void test_space_comes_back(void **state)
{
    (void)state;
    struct cht_store_stats st;
    uint8_t v[1000];
    uint64_t sizes[4];
    memset(v, 1, sizeof v);
    for (int round = 0; round < 4; round++) { /* each round another length; the round before is deleted */
        for (int i = 0; i < 4000; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "n%d", i);
            struct cht_op op = {
                .kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {v, 700 + 50 * (size_t)round}};
            assert_int_equal(run(&op, 0), CHT_OK);
        }
        assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
        assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
        assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
        sizes[round] = st.file_bytes;
    }
    assert_true(sizes[3] < 3 * sizes[0]); /* not one more copy a round */
    for (int i = 0; i < 4000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "n%d", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = str(name), .with_values = true};
        assert_int_equal(run(&op, 0), CHT_OK);
    }
    reopen();
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    assert_int_equal(st.values, 0);
    assert_true(st.file_bytes < sizes[0]);
}

static void count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
}

static void test_databases(void **state)
{
    (void)state;
    struct cht_store *o;
    int n = 0;
    assert_int_equal(cht_env_create(env, "default", 0, &err), CHT_DATABASE_EXISTS);
    assert_int_equal(cht_env_create(env, "../x", 0, &err), CHT_INVALID_DATABASE_NAME);
    assert_int_equal(cht_env_create(env, "", 0, &err), CHT_INVALID_DATABASE_NAME);
    assert_int_equal(cht_env_create(env, "many", 257, &err), CHT_INVALID_ARGUMENT);
    assert_int_equal(cht_env_get(env, "other", &o, &err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(env, "other", 16, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "other", &o, &err), CHT_OK);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(o, &st, &err), CHT_OK);
    assert_int_equal(st.shards, 16);
    assert_int_equal(cht_env_list(env, count_name, &n, &err), CHT_OK);
    assert_int_equal(n, 2);
    assert_int_equal(cht_env_drop(env, "other", &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "other", &o, &err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(env, "other", 2, &err), CHT_OK); /* the name is free again */
    assert_int_equal(cht_env_create(env, "oTher", 2, &err), CHT_DATABASE_CASE);
    assert_non_null(strstr(err.msg, "other"));
    assert_int_equal(cht_env_create(env, "Default", 2, &err), CHT_DATABASE_CASE);
    assert_int_equal(cht_env_get(env, "oTher", &o, &err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(env, "other2", 2, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, "othe", 2, &err), CHT_OK);
}

static void test_lock(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) { /* no cmocka in here */
        struct cht_env_config cfg = config();
        struct cht_env *mine;
        struct cht_err e = {0};
        _exit(cht_env_open(&cfg, &mine, &e) == CHT_LOCKED ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Opens the stopped database; the code of getting it. */
static enum cht_rc try_open(void)
{
    struct cht_env_config cfg = config();
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    return cht_env_get(env, "default", &s, &err);
}

static void shell(const char *fmt, const char *a, const char *b)
{
    char cmd[300];
    (void)snprintf(cmd, sizeof cmd, fmt, a, b);
    assert_int_equal(system(cmd), 0);
}

static void test_places(void **state)
{
    (void)state;
    uint64_t key, n;
    for (int i = 0; i < 100; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "p%d", i);
        assert_int_equal(put(name, "v", &key), CHT_OK);
    }
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    shell("mv %s/default/shard-000 %s/default/shard-000", dir_a, dir_b); /* a shard moves to another disk */
    assert_int_equal(try_open(), CHT_OK);
    assert_int_equal(cht_store_count(s, str("p"), &n, &err), CHT_OK);
    assert_int_equal(n, 100);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    shell("mv %s/default/shard-000 %s/hidden", dir_b, base);
    assert_int_equal(try_open(), CHT_SHARD_MISSING);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    shell("cp -r %s/default/shard-001 %s/default/shard-000", dir_b,
          dir_a); /* a shard in another one's place */
    assert_int_equal(try_open(), CHT_SHARD_MISPLACED);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    char back[300];
    (void)snprintf(back, sizeof back, "rm -rf %s/default/shard-000 && mv %s/hidden %s/default/shard-000",
                   dir_a, base, dir_a);
    assert_int_equal(system(back), 0);
    assert_int_equal(try_open(), CHT_OK);
    assert_int_equal(cht_store_count(s, str("p"), &n, &err), CHT_OK);
    assert_int_equal(n, 100);
}

static void test_newer_version(void **state)
{
    (void)state;
    char path[128];
    uint8_t h[512];
    assert_int_equal(insert("x"), 1);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    (void)snprintf(path, sizeof path, "%s/default/shard-000/values", dir_a);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, h, sizeof h, 0), sizeof h);
    cht_put32(h + 8, 99);
    cht_put32(h + 508, cht_crc32c(0, h, 508));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    assert_int_equal(try_open(), CHT_VERSION);
    assert_non_null(strstr(err.msg, "99"));
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    cht_put32(h + 8, 1);
    cht_put32(h + 508, cht_crc32c(0, h, 508));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
    assert_int_equal(try_open(), CHT_OK); /* nothing had been modified */
    has_value(1, "x", 1);
}

static _Atomic int done_count;
static void on_done(struct cht_commit *c)
{
    (void)c;
    atomic_fetch_add(&done_count, 1);
}

static void test_submit(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct cht_op ops[N];
    static struct cht_commit c[N];
    atomic_store(&done_count, 0);
    for (int i = 0; i < N; i++) {
        ops[i] = (struct cht_op){.kind = CHT_OP_INSERT, .value = str("async")};
        c[i] = (struct cht_commit){.ops = &ops[i], .count = 1, .done = on_done};
        assert_int_equal(cht_store_submit(s, &c[i]), CHT_PENDING);
    }
    for (int i = 0; i < 5000 && atomic_load(&done_count) < N; i++)
        cht_sleep_ns(1000000);
    assert_int_equal(atomic_load(&done_count), N);
    for (int i = 0; i < N; i++)
        assert_int_equal(ops[i].key, i + 1);
}

static size_t render(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    if (room < 64)
        return SIZE_MAX;
    return (size_t)snprintf((char *)out, room, "%.*s=%llu\n", (int)e->name_len, (const char *)e->name,
                            (unsigned long long)e->key);
}

static void *cancel_later(void *arg)
{
    cht_sleep_ns(2000000);
    cht_scan_cancel(arg);
    return NULL;
}

static void test_scans(void **state)
{
    (void)state;
    enum { N = 30000 };
    struct cht_op *ops = calloc(N, sizeof *ops);
    char(*names)[16] = calloc(N, sizeof *names);
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "k%05d", (i * 7919) % N);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(names[i])};
    }
    struct cht_commit c = {.ops = ops, .count = N};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    struct cht_scan_config cfgs[] = {
        {.kind = CHT_SCAN_PAIRS, .prefix = str("k"), .values = true},
        {.kind = CHT_SCAN_PAIRS, .prefix = str("k1"), .after = str("k10500"), .until = str("k10600")},
        {.kind = CHT_SCAN_PAIRS,
         .prefix = str("k1"),
         .after = str("k10500"),
         .until = str("k10400"),
         .reverse = true},
        {.kind = CHT_SCAN_PAIRS, .limit = 777, .workers = 1},
        {.kind = CHT_SCAN_PAIRS, .prefix = str("k29"), .render = render},
    };
    size_t want[] = {N, 99, 99, 777, 1000};
    for (size_t i = 0; i < 5; i++) {
        struct cht_scan *sc;
        struct cht_entry e[100];
        size_t got, total = 0;
        char last[16] = "";
        assert_int_equal(cht_scan_open(s, &cfgs[i], &sc, &err), CHT_OK);
        while (cht_scan_next(sc, e, 1 + total % 100, &got, &err) == CHT_OK && got > 0) {
            for (size_t k = 0; k < got; k++) {
                char name[16] = "";
                memcpy(name, e[k].name, e[k].name_len);
                assert_true(total == 0 ||
                            (cfgs[i].reverse ? strcmp(name, last) < 0 : strcmp(name, last) > 0));
                memcpy(last, name, sizeof last);
                if (cfgs[i].values)
                    assert_memory_equal(e[k].value, name, e[k].value_len);
                if (cfgs[i].render != NULL)
                    assert_memory_equal(e[k].value, name, e[k].name_len);
                total++;
            }
        }
        assert_int_equal(total, want[i]);
        assert_int_equal(cht_scan_exhausted(sc), i != 3);
        assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
        cht_scan_close(sc);
    }
    struct cht_scan_config all = {.kind = CHT_SCAN_PAIRS, .values = true};
    struct cht_scan *sc;
    struct cht_entry e[1];
    size_t got;
    pthread_t t;
    assert_int_equal(cht_scan_open(s, &all, &sc, &err), CHT_OK);
    assert_int_equal(pthread_create(&t, NULL, cancel_later, sc), 0);
    enum cht_rc rc;
    while ((rc = cht_scan_next(sc, e, 1, &got, &err)) == CHT_OK && got > 0)
        cht_sleep_ns(10000);
    assert_int_equal(rc, CHT_CANCELLED);
    pthread_join(t, NULL);
    cht_scan_close(sc);
    free(ops);
    free(names);
}

static void on_ready(void *ctx) { atomic_fetch_add((_Atomic int *)ctx, 1); }

/* poll never blocks and calls back; 256 shards stay within the memory of a scan; long values come by handle. */
static void test_poll_many_shards(void **state)
{
    (void)state;
    struct cht_store *saved = s;
    uint8_t *v = malloc(100000);
    _Atomic int ready = 0;
    memset(v, 9, 100000);
    assert_int_equal(cht_env_create(env, "wide", 256, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, "wide", &s, &err), CHT_OK);
    for (int i = 0; i < 600; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "w%05d", i);
        struct cht_op op = {
            .kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {v, i % 50 == 0 ? 100000 : 20}};
        assert_int_equal(run(&op, 0), CHT_OK);
    }
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .values = true, .ready = on_ready, .ready_ctx = (void *)&ready};
    struct cht_scan *sc;
    struct cht_entry e[64];
    size_t got = 1, total = 0, large = 0;
    int pending = 0;
    assert_int_equal(cht_scan_open(s, &cfg, &sc, &err), CHT_OK);
    while (got > 0) {
        int seen = atomic_load(&ready);
        enum cht_rc rc = cht_scan_poll(sc, e, 64, &got, &err);
        if (rc == CHT_PENDING) {
            for (int i = 0; i < 5000 && atomic_load(&ready) == seen; i++)
                cht_sleep_ns(1000000);
            assert_int_not_equal(atomic_load(&ready), seen);
            pending++;
            got = 1;
            continue;
        }
        assert_int_equal(rc, CHT_OK);
        for (size_t i = 0; i < got; i++)
            large += (e[i].flags & CHT_ENTRY_LARGE) != 0 && e[i].size == 100000 && e[i].value == NULL;
        total += got;
    }
    assert_int_equal(total, 600);
    assert_int_equal(large, 12);
    assert_int_equal(atomic_load(&ready), pending);
    assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
    cht_scan_close(sc);
    free(v);
    s = saved;
}

static void test_sweep(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        (void)insert(i % 10 == 0 ? "three" : "seven77");
    struct cht_scan_config cfg = {.kind = CHT_SCAN_VALUES, .values = true, .size = 5, .after_key = 101};
    struct cht_scan *sc;
    struct cht_entry e[64];
    size_t got, total = 0;
    uint64_t last = 101;
    assert_int_equal(cht_scan_open(s, &cfg, &sc, &err), CHT_OK);
    while (cht_scan_next(sc, e, 64, &got, &err) == CHT_OK && got > 0) {
        for (size_t i = 0; i < got; i++) {
            assert_true(e[i].key > last && e[i].size == 5 && memcmp(e[i].value, "three", 5) == 0);
            last = e[i].key;
        }
        total += got;
    }
    assert_int_equal(total, 89); /* 111, 121, ... 991 */
    cht_scan_close(sc);
    struct cht_scrub scrub = {.bad = 1};
    assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    assert_int_equal(cht_store_scrub(s, &scrub, &err), CHT_OK);
    assert_int_equal(scrub.bad, 0);
    assert_true(scrub.bytes > 0);
}

/* A link to an operation before the first of the commit. */
static void test_link_too_far_back(void **state)
{
    (void)state;
    struct cht_op ops[2] = {
        {.kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"a", 1}, .value = {(const uint8_t *)"v", 1}},
        {.kind = CHT_OP_PAIR_LINK,
         .name = {(const uint8_t *)"b", 1},
         .value = {(const uint8_t *)"a", 1},
         .back = 2}};
    struct cht_commit c = {.ops = ops, .count = 2};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(ops[0].rc, CHT_OK);
    assert_int_equal(ops[1].rc, CHT_INVALID_ARGUMENT);
    ops[1].back = 1;
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(ops[1].rc, CHT_OK);
    assert_int_equal(ops[1].key, ops[0].key);
}

/* Hints reach what reads reach, and nothing else. */
static void test_hints(void **state)
{
    (void)state;
    enum { N = 400, LONG = 3000 };
    static char name[N][LONG + 8];
    static uint64_t key[N];
    static char long_value[5000];
    struct cht_hint h[2 * CHT_HINTS_MAX];
    memset(long_value, 'w', sizeof long_value - 1);
    for (unsigned i = 0; i < N; i++) {
        (void)snprintf(name[i], sizeof name[i], "%c%u/%u", 'a' + i % 3, i * 7919 % 1009, i);
        if (i % 100 == 99) { /* a deep one */
            memset(name[i] + strlen(name[i]), 'x', LONG - strlen(name[i]));
            name[i][LONG] = 0;
        }
        assert_int_equal(put(name[i], i % 7 == 0 ? long_value : "v", &key[i]), CHT_OK);
    }
    for (unsigned i = 0; i < N; i++) {
        h[0] = (struct cht_hint){.name = str(name[i])};
        h[1] = (struct cht_hint){.key = key[i]};
        assert_int_equal(cht_store_prefetch(s, h, 2), 2);
    }
    for (unsigned i = 0; i < 2 * CHT_HINTS_MAX; i++)
        h[i] = (struct cht_hint){.key = key[i]};
    assert_int_equal(cht_store_prefetch(s, h, 2 * CHT_HINTS_MAX), CHT_HINTS_MAX);
    assert_int_equal(cht_store_prefetch(s, h, 0), 0);
    struct cht_op del = {.kind = CHT_OP_DELETE, .key = key[3]};
    assert_int_equal(run(&del, 0), CHT_OK);
    const struct cht_hint none[] = {
        {.key = 0},
        {.key = CHT_KEY_MAX + 1},
        {.key = UINT64_MAX},
        {.key = CHT_KEY_MAX},
        {.key = key[N - 1] + 1},
        {.key = key[3]},
        {.name = str(name[3])}, /* dangling */
        {.name = str("nothing like it")},
        {.name = {(const uint8_t *)name, CHT_NAME_MAX + 1}},
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(cht_store_prefetch(s, &none[i], 1), 0);
    reopen(); /* nothing has been compared with its sums yet: that is for the reads */
    h[0] = (struct cht_hint){.name = str(name[5])};
    h[1] = (struct cht_hint){.key = key[5]};
    assert_int_equal(cht_store_prefetch(s, h, 2), 0);
    has_value(key[5], "v", 1);
    assert_int_equal(cht_store_prefetch(s, h + 1, 1), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_link_too_far_back),
                                       T(test_hints),
                                       T(test_keys),
                                       T(test_edit_any_length),
                                       T(test_upsert),
                                       T(test_atomic),
                                       T(test_prefix_delete),
                                       T(test_value_handle),
                                       T(test_space_comes_back),
                                       T(test_databases),
                                       T(test_lock),
                                       T(test_places),
                                       T(test_newer_version),
                                       T(test_submit),
                                       T(test_scans),
                                       T(test_sweep),
                                       T(test_poll_many_shards)};
    if (mkdtemp(base) == NULL)
        return 1;
    (void)snprintf(dir_a, sizeof dir_a, "%s/a", base);
    (void)snprintf(dir_b, sizeof dir_b, "%s/b", base);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed;
}
