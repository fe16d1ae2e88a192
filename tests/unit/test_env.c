/* test_env: databases of an environment: names, the lock, shards that move, and files of a later program. */
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
#include "support/kept.h"

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
    assert_int_equal(cht_env_create(kept.env, "default", 0, &kept.err), CHT_DATABASE_EXISTS);
    assert_int_equal(cht_env_create(kept.env, "../x", 0, &kept.err), CHT_INVALID_DATABASE_NAME);
    assert_int_equal(cht_env_create(kept.env, "", 0, &kept.err), CHT_INVALID_DATABASE_NAME);
    assert_int_equal(cht_env_create(kept.env, "many", 257, &kept.err), CHT_INVALID_ARGUMENT);
    assert_int_equal(cht_env_get(kept.env, "other", &o, &kept.err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(kept.env, "other", 16, &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, "other", &o, &kept.err), CHT_OK);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(o, &st, &kept.err), CHT_OK);
    assert_int_equal(st.shards, 16);
    assert_int_equal(cht_env_list(kept.env, count_name, &n, &kept.err), CHT_OK);
    assert_int_equal(n, 2);
    assert_int_equal(cht_env_drop(kept.env, "other", &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, "other", &o, &kept.err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(kept.env, "other", 2, &kept.err), CHT_OK); /* the name is free again */
    assert_int_equal(cht_env_create(kept.env, "oTher", 2, &kept.err), CHT_DATABASE_CASE);
    assert_non_null(strstr(kept.err.msg, "other"));
    assert_int_equal(cht_env_create(kept.env, "Default", 2, &kept.err), CHT_DATABASE_CASE);
    assert_int_equal(cht_env_get(kept.env, "oTher", &o, &kept.err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_create(kept.env, "other2", 2, &kept.err), CHT_OK);
    assert_int_equal(cht_env_create(kept.env, "othe", 2, &kept.err), CHT_OK);
}

static void test_lock(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) { /* no cmocka in here */
        struct cht_env_config cfg = kept_config();
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
    struct cht_env_config cfg = kept_config();
    assert_int_equal(cht_env_open(&cfg, &kept.env, &kept.err), CHT_OK);
    return cht_env_get(kept.env, "default", &kept.s, &kept.err);
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
        assert_int_equal(kept_put(name, "v", &key), CHT_OK);
    }
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    shell("mv %s/default/shard-000 %s/default/shard-000", kept_a, kept_b); /* a shard moves to another disk */
    assert_int_equal(try_open(), CHT_OK);
    assert_int_equal(cht_store_count(kept.s, kept_str("p"), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 100);
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    shell("mv %s/default/shard-000 %s/hidden", kept_b, kept_base);
    assert_int_equal(try_open(), CHT_SHARD_MISSING);
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    shell("cp -r %s/default/shard-001 %s/default/shard-000", kept_b,
          kept_a); /* a shard in another one's place */
    assert_int_equal(try_open(), CHT_SHARD_MISPLACED);
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    char back[300];
    (void)snprintf(back, sizeof back, "rm -rf %s/default/shard-000 && mv %s/hidden %s/default/shard-000",
                   kept_a, kept_base, kept_a);
    assert_int_equal(system(back), 0);
    assert_int_equal(try_open(), CHT_OK);
    assert_int_equal(cht_store_count(kept.s, kept_str("p"), &n, &kept.err), CHT_OK);
    assert_int_equal(n, 100);
}

static void test_newer_version(void **state)
{
    (void)state;
    char path[128];
    uint8_t h[512];
    assert_int_equal(kept_insert("x"), 1);
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    (void)snprintf(path, sizeof path, "%s/default/shard-000/values", kept_a);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, h, sizeof h, 0), sizeof h);
    cht_put32(h + 8, 99);
    cht_put32(h + 508, cht_crc32c(0, h, 508));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    assert_int_equal(try_open(), CHT_VERSION);
    assert_non_null(strstr(kept.err.msg, "99"));
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    cht_put32(h + 8, 1);
    cht_put32(h + 508, cht_crc32c(0, h, 508));
    assert_int_equal(pwrite(fd, h, sizeof h, 0), sizeof h);
    close(fd);
    assert_int_equal(try_open(), CHT_OK); /* nothing had been modified */
    kept_has_value(1, "x", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEPT_TEST(test_databases),
        KEPT_TEST(test_lock),
        KEPT_TEST(test_places),
        KEPT_TEST(test_newer_version),
    };
    return KEPT_MAIN(tests);
}
