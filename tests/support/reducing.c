/* reducing: see reducing.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "support/reducing.h"

struct reducing red;

static char base[] = "/tmp/cht-reduce-XXXXXX";
static const char *dirs[] = {base};

struct cht_str str(const char *text) { return (struct cht_str){(const uint8_t *)text, strlen(text)}; }

void reducing_open(void)
{
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 4,
                                 .scan_workers = 4,
                                 .log_segment_bytes = 1u << 20,
                                 .durability = CHT_DURABLE_OS};
    assert_int_equal(cht_env_open(&cfg, &red.env, &red.err), CHT_OK);
}

void reducing_database(const char *name, unsigned shards)
{
    assert_int_equal(cht_env_create(red.env, name, shards, &red.err), CHT_OK);
    assert_int_equal(cht_env_get(red.env, name, &red.s, &red.err), CHT_OK);
}

int reducing_setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    memset(&red.err, 0, sizeof red.err);
    if (system(cmd) != 0)
        return 1;
    reducing_open();
    reducing_database("default", 0);
    return 0;
}

int reducing_teardown(void **state)
{
    (void)state;
    enum cht_rc rc = cht_env_close(red.env, &red.err);
    red.env = NULL;
    return rc != CHT_OK;
}

int reducing_begin(void) { return mkdtemp(base) == NULL; }

int reducing_end(int failed)
{
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed != 0;
}

enum cht_rc run_op(struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    enum cht_rc rc = cht_store_commit(red.s, &c);
    return rc == CHT_OK ? op->rc : rc;
}

void run_ops(struct cht_op *ops, size_t n, unsigned shards)
{
    size_t step = shards > 6 ? 1 : n;
    for (size_t i = 0; i < n; i += step) {
        struct cht_commit c = {.ops = ops + i, .count = step};
        assert_int_equal(cht_store_commit(red.s, &c), CHT_OK);
        assert_int_equal(c.failed, 0);
    }
}

uint64_t put(const char *name, const void *p, size_t n)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {p, n}};
    assert_int_equal(run_op(&op), CHT_OK);
    return op.key;
}

const struct reduce_mode *mode(const char *name)
{
    const struct reduce_mode *m = reduce_mode_find(name, strlen(name));
    assert_non_null(m);
    return m;
}

void fill_counts(const char *prefix, unsigned n, unsigned followers)
{
    size_t size = 4 + (size_t)followers * 8;
    for (unsigned at = 0; at < n;) {
        enum { STEP = 500 };
        static struct cht_op ops[STEP];
        static char names[STEP][40];
        uint8_t *bytes = calloc(STEP, size);
        unsigned k = 0;
        for (; k < STEP && at < n; k++, at++) {
            uint8_t *p = bytes + k * size;
            p[0] = p[1] = 1;
            reduce_payload_put16(p + 2, (uint16_t)followers);
            for (unsigned f = 0; f < followers; f++) {
                reduce_payload_put32(p + 4 + (size_t)f * 8, at * followers + f);
                reduce_payload_put32(p + 8 + (size_t)f * 8, 1);
            }
            (void)snprintf(names[k], sizeof names[k], "%s%07u", prefix, at);
            ops[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[k]), .value = {p, size}};
        }
        struct cht_commit c = {.ops = ops, .count = k};
        assert_int_equal(cht_store_commit(red.s, &c), CHT_OK);
        free(bytes);
    }
}
