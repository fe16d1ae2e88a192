/* kept: see kept.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "support/kept.h"

char kept_base[] = "/tmp/cht-store-XXXXXX";
char kept_a[64], kept_b[64];
static const char *dirs[] = {kept_a, kept_b};
struct kept kept;
enum cht_durability kept_durability = CHT_DURABLE_OS;

struct cht_env_config kept_config(void)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 4,
                                   .log_segment_bytes = 1u << 20,
                                   .durability = kept_durability};
}

struct cht_str kept_str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

int kept_setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", kept_base);
    struct cht_env_config cfg = kept_config();
    memset(&kept.err, 0, sizeof kept.err);
    return system(cmd) != 0 || cht_env_open(&cfg, &kept.env, &kept.err) != CHT_OK ||
           cht_env_create(kept.env, "default", 0, &kept.err) != CHT_OK ||
           cht_env_get(kept.env, "default", &kept.s, &kept.err) != CHT_OK;
}

int kept_teardown(void **state)
{
    (void)state;
    enum cht_rc rc = cht_env_close(kept.env, &kept.err);
    kept.env = NULL;
    return rc != CHT_OK;
}

void kept_open(void)
{
    struct cht_env_config cfg = kept_config();
    assert_int_equal(cht_env_open(&cfg, &kept.env, &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, "default", &kept.s, &kept.err), CHT_OK);
}

void kept_reopen(void)
{
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    kept_open();
}

enum cht_rc kept_commit(struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    return cht_store_commit(kept.s, &c);
}

enum cht_rc kept_run(struct cht_op *op, unsigned flags)
{
    enum cht_rc rc = kept_commit(op, 1, flags);
    return rc == CHT_OK ? op->rc : rc;
}

uint64_t kept_insert(const char *v)
{
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = kept_str(v)};
    assert_int_equal(kept_run(&op, 0), CHT_OK);
    return op.key;
}

enum cht_rc kept_put(const char *name, const char *v, uint64_t *key)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = kept_str(name), .value = kept_str(v)};
    enum cht_rc rc = kept_run(&op, 0);
    *key = op.key;
    return rc;
}

void kept_has_value(uint64_t key, const void *want, size_t n)
{
    struct cht_buf b = {0};
    uint32_t size;
    assert_int_equal(cht_store_get(kept.s, key, &b, &size, &kept.err), CHT_OK);
    assert_int_equal(size, n);
    assert_memory_equal(b.data, want, n);
    cht_buf_free(&b);
}

int kept_begin(void)
{
    if (mkdtemp(kept_base) == NULL)
        return 1;
    (void)snprintf(kept_a, sizeof kept_a, "%s/a", kept_base);
    (void)snprintf(kept_b, sizeof kept_b, "%s/b", kept_base);
    return 0;
}

int kept_end(int failed)
{
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", kept_base);
    return system(cmd) != 0 || failed != 0;
}
