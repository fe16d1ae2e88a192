/* test_rados: the store on RADOS against the promises of cheetah/store.h and the model. CHT_RADOS_CONF: a cluster that is running
 * (tests/rados/run.sh starts one). Without it only what needs no cluster is tested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "cheetah/backup.h"
#include "cheetah/children.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "cheetah/sweep.h"
#include "os/code.h"
#include "store/rados/fold.h"
#include "store/rados/rdb.h"
#include "support/model.h"

static const char *conf;
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;
static char name[32];

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err.msg);
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

/* ---- without a cluster --------------------------------------------------------------------------------------------- */

static const uint8_t letters[] = {0, 1, 2, 3, 0x7f, 0xff};

static size_t word(size_t i, uint8_t *out)
{
    size_t n = 0;
    for (i++; i > 0; i = (i - 1) / sizeof letters)
        out[n++] = letters[(i - 1) % sizeof letters];
    return n;
}

static int order(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);
    return c != 0 ? (c > 0) - (c < 0) : (an > bn) - (an < bn);
}

/* R: order and prefixes stay, no NUL is left, and it can be undone: for all pairs of words of up to three letters. */
static void test_escape(void **state)
{
    (void)state;
    size_t words = 6 + 36 + 216;
    for (size_t i = 0; i < words; i++) {
        uint8_t a[4], ea[8], back[8];
        size_t an = word(i, a), ean = cht_row_escape(ea, a, an);
        assert_null(memchr(ea, 0, ean));
        assert_int_equal(cht_row_unescape(back, ea, ean), an);
        assert_memory_equal(back, a, an);
        for (size_t k = 0; k < words; k++) {
            uint8_t b[4], eb[8];
            size_t bn = word(k, b), ebn = cht_row_escape(eb, b, bn);
            assert_int_equal(order(a, an, b, bn), order(ea, ean, eb, ebn));
            bool prefix = an <= bn && memcmp(a, b, an) == 0;
            assert_int_equal(prefix, ean <= ebn && memcmp(ea, eb, ean) == 0);
        }
    }
    uint8_t out[4];
    assert_int_equal(cht_row_unescape(out, (const uint8_t *)"\x01", 1), SIZE_MAX);
    assert_int_equal(cht_row_unescape(out, (const uint8_t *)"\x01\x03", 2), SIZE_MAX);
    assert_int_equal(cht_row_unescape(out, (const uint8_t *)"a\0", 2), SIZE_MAX);
}

static void test_rows(void **state)
{
    (void)state;
    uint8_t row[CHT_ROW_KEY_SIZE], last[CHT_ROW_KEY_SIZE] = {'K'};
    uint64_t keys[] = {1, 127, 128, 65536, 1u << 21, UINT64_C(1) << 35, CHT_KEY_MAX - 1, CHT_KEY_MAX};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) { /* the order of keys, no NUL */
        assert_int_equal(cht_row_of_key(row, keys[i]), CHT_ROW_KEY_SIZE);
        assert_null(memchr(row, 0, sizeof row));
        assert_int_equal(cht_row_key(row, sizeof row), keys[i]);
        assert_true(memcmp(last, row, sizeof row) < 0);
        memcpy(last, row, sizeof row);
    }
    assert_int_equal(cht_row_key((const uint8_t *)"K1234567", 8), 0);
    uint8_t bytes[64];
    struct cht_row r = {CHT_ROW_VALUE, 7, 3, cht_row_crc(7, str("abc")), str("abc"), 0}, got;
    cht_row_write(bytes, &r);
    assert_true(cht_row_read(bytes, CHT_ROW_HEAD + 3, &got));
    assert_true(cht_row_live(&got) && got.key == 7 && got.len == 3 && got.crc == r.crc);
    for (size_t n = 0; n < CHT_ROW_HEAD + 3; n++) /* cut off anywhere it is no row */
        assert_false(cht_row_read(bytes, n, &got));
    bytes[0] = 9;
    assert_false(cht_row_read(bytes, CHT_ROW_HEAD + 3, &got));
    struct cht_epoch e = {3, 77, 0}, e_got;
    assert_int_equal(cht_row_epoch_write(bytes, &e), 12); /* as long as no changes are kept */
    assert_true(cht_row_epoch_read(bytes, 12, &e_got) && e_got.lock == 77 && e_got.generation == 0);
    e.generation = UINT64_C(1) << 50;
    assert_int_equal(cht_row_epoch_write(bytes, &e), CHT_ROW_EPOCH_SIZE);
    assert_true(cht_row_epoch_read(bytes, CHT_ROW_EPOCH_SIZE, &e_got) && e_got.generation == e.generation);
    assert_false(cht_row_epoch_read(bytes, 19, &e_got) || cht_row_epoch_read(bytes, 11, &e_got));
    uint8_t change[CHT_ROW_CHANGED_NAME], said[CHT_ROW_CHANGED_SIZE];
    struct cht_changed c;
    size_t len = cht_row_of_change(change, e.generation, str("Pname"));
    assert_null(memchr(change, 0, len));
    cht_row_changed_write(said, true, 5);
    assert_true(cht_row_changed_read((struct cht_str){change, len}, (struct cht_str){said, sizeof said}, &c));
    assert_true(c.there && c.key == 5 && c.generation == e.generation && c.row.n == 5);
    assert_false(
        cht_row_changed_read((struct cht_str){change, len}, (struct cht_str){said, sizeof said - 1}, &c));
    assert_false(cht_row_changed_read((struct cht_str){change, CHT_ROW_GENERATION},
                                      (struct cht_str){said, sizeof said}, &c));
    len = cht_row_of_change(change, e.generation,
                            (struct cht_str){last, sizeof last}); /* of a key: after the names */
    assert_true(cht_row_changed_read((struct cht_str){change, len}, (struct cht_str){said, sizeof said}, &c));
    assert_int_equal(c.row.p[0], CHT_ROW_CHANGED_VALUE);
    for (uint32_t b = 0; b < CHT_ROW_BUCKETS; b += 77) { /* R3: a shard divides into two */
        for (unsigned level = 0; level < 8; level++) {
            unsigned at = b & ((1u << level) - 1), next = b & ((2u << level) - 1);
            assert_true(next == at || next == at + (1u << level));
        }
    }
    size_t lengths[3];
    assert_int_equal(cht_row_counted(str("cnt:1:x:y"), lengths), 3);
    assert_int_equal(lengths[1], 4);
    assert_int_equal(lengths[2], 6);
    assert_true(cht_row_is_counted(str("")) && cht_row_is_counted(str("a:")) &&
                cht_row_is_counted(str("a:b:")));
    assert_false(cht_row_is_counted(str("a")) || cht_row_is_counted(str("a:b:c:")) ||
                 cht_row_is_counted(str("a:b")));
}

/* ---- with a cluster ------------------------------------------------------------------------------------------------- */

static void open_env(void)
{
    struct cht_rados_config cfg = {.pool = "cheetah",
                                   .conf = conf,
                                   .id = getenv("CHT_RADOS_ID"),
                                   .settle_ms = 1000,
                                   .default_shards = 4};
    must(cht_rados_open(&cfg, &env, &err));
}

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    open_env();
    (void)snprintf(name, sizeof name, "t%u-%u", (unsigned)getpid(), n++);
    must(cht_env_create(env, name, 4, &err));
    must(cht_env_get(env, name, &s, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    must(cht_env_drop(env, name, &err));
    must(cht_env_close(env, &err));
    return 0;
}

static enum cht_rc run(struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    err = c.err;
    return rc == CHT_OK ? op->rc : rc;
}

static uint64_t put(const char *pair, const char *value)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = str(value)};
    must(run(&op));
    return op.key;
}

static void has(uint64_t key, const char *value)
{
    struct cht_buf b = {0};
    must(cht_store_get(s, key, &b, NULL, &err));
    assert_int_equal(b.len, strlen(value));
    assert_memory_equal(b.data, value, b.len);
    cht_buf_free(&b);
}

static void test_databases(void **state)
{
    (void)state;
    struct cht_store *other;
    assert_int_equal(cht_env_create(env, name, 0, &err), CHT_DATABASE_EXISTS);
    assert_int_equal(cht_env_create(env, "no name", 0, &err), CHT_INVALID_DATABASE_NAME);
    assert_int_equal(cht_env_get(env, "nobody", &other, &err), CHT_DATABASE_NOT_FOUND);
    assert_int_equal(cht_env_drop(env, "nobody", &err), CHT_DATABASE_NOT_FOUND);
    char upper[32];
    (void)snprintf(upper, sizeof upper, "T%s", name + 1);
    assert_int_equal(cht_env_create(env, upper, 0, &err), CHT_DATABASE_CASE);
    struct cht_rados_config cfg = {.pool = "no-such-pool", .conf = conf, .id = getenv("CHT_RADOS_ID")};
    struct cht_env *none;
    assert_int_equal(cht_rados_open(&cfg, &none, &err), CHT_NOT_FOUND);
}

/* The second process of the pool drops it: the first is told, whatever it does. */
static void test_dropped_elsewhere(void **state)
{
    (void)state;
    struct cht_env *mine = env;
    struct cht_store *store = s;
    put("a", "1");
    open_env();
    must(cht_env_drop(env, name, &err));
    uint64_t key;
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("b"), .value = str("2")};
    assert_int_equal(cht_store_pair(store, str("a"), &key, &err), CHT_DATABASE_DROPPED);
    assert_int_equal(run(&op), CHT_DATABASE_DROPPED);
    must(cht_env_create(env, name, 4, &err));
    must(cht_env_close(env, &err));
    env = mine;
    bool closed;
    must(cht_env_release(env, name, &closed, &err));
    must(cht_env_get(env, name, &s, &err));
    assert_int_equal(cht_store_pair(s, str("a"), &key, &err), CHT_PAIR_NOT_FOUND);
}

static void test_values_and_names(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        struct cht_op op = {.kind = CHT_OP_INSERT, .value = str("v")};
        must(run(&op));
        assert_int_equal(op.key, i); /* 1, 2, 3, ... in a fresh database */
    }
    uint64_t k1 = put("ctx:a", "one"), key;
    assert_int_equal(put("ctx:a", "a longer one"), k1); /* the key is kept */
    has(k1, "a longer one");
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("ctxv:b"), .key = k1};
    must(run(&set));
    assert_true(set.created);
    assert_int_equal(put("ctxv:b", "through the other name"),
                     k1); /* one value, two names: perhaps of two shards */
    has(k1, "through the other name");
    struct cht_op dangle = {.kind = CHT_OP_PAIR_SET, .name = str("later"), .key = 123456};
    must(run(&dangle));
    uint32_t size = 99;
    struct cht_buf b = {0};
    must(cht_store_pair_value(s, str("later"), &key, &b, &size, &err));
    assert_int_equal(size, 0);
    assert_int_equal(key, 123456);
    struct cht_op del = {.kind = CHT_OP_PAIR_DEL, .name = str("ctx:a")}; /* its row had the value */
    must(run(&del));
    has(k1, "through the other name");
    struct cht_op gone = {.kind = CHT_OP_PAIR_DEL, .name = str("ctxv:b"), .with_values = true};
    must(run(&gone));
    assert_int_equal(gone.values, 1);
    assert_int_equal(cht_store_get(s, k1, &b, NULL, &err), CHT_KEY_NOT_FOUND);
    assert_int_equal(run(&gone), CHT_PAIR_NOT_FOUND);
    struct cht_op none = {.kind = CHT_OP_EDIT, .key = k1, .value = str("x")};
    assert_int_equal(run(&none), CHT_KEY_NOT_FOUND);
    struct cht_op again = {.kind = CHT_OP_PUT, .key = k1, .value = str("x")};
    must(run(&again));
    assert_true(again.created);
    again.key = CHT_KEY_MAX;
    assert_int_equal(run(&again), CHT_KEY_NOT_FOUND); /* it was never given out */
    struct cht_op empty = {.kind = CHT_OP_INSERT, .value = str("")};
    assert_int_equal(run(&empty), CHT_EMPTY_VALUE);
    cht_buf_free(&b);
}

static void test_long_values(void **state)
{
    (void)state;
    size_t lengths[] = {65536, 65537, 1u << 20, (4u << 20) + 5, 10, 16u << 20};
    uint8_t *v = malloc(16u << 20);
    struct cht_buf b = {0};
    uint64_t key;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(v, (int)i + 1, lengths[i]);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("long"), .value = {v, lengths[i]}};
        must(run(&op));
        must(cht_store_pair_value(s, str("long"), &key, &b, NULL, &err));
        assert_int_equal(b.len, lengths[i]);
        assert_memory_equal(b.data, v, b.len);
    }
    struct cht_op big = {.kind = CHT_OP_PAIR_PUT, .name = str("long"), .value = {v, (16u << 20) + 1}};
    assert_int_equal(run(&big), CHT_VALUE_TOO_LARGE);
    struct cht_store_stats st;
    must(cht_store_stats(s, &st, &err));
    assert_int_equal(st.value_bytes, 16u << 20);
    assert_int_equal(st.values, 1);
    free(v);
    cht_buf_free(&b);
}

/* Many names at once: pairs of all kinds, twice, names that are none, and a long value among them. */
static void test_many_names(void **state)
{
    (void)state;
    enum { PAIRS = 150, MORE = 20, LONG = 200000 };
    static char names[PAIRS + MORE][16];
    struct cht_pair_read r[PAIRS + MORE];
    struct cht_buf all = {0}, b = {0};
    uint8_t *v = malloc(LONG);
    for (unsigned i = 0; i < PAIRS + MORE; i++) {
        (void)snprintf(names[i], sizeof names[i], "%u:n", i % 120 * 7919 % 1009 + (i < PAIRS ? 0 : 2000));
        r[i].name = str(names[i]);
        struct cht_op op = {.kind = i % 9 == 4 ? CHT_OP_PAIR_SET : CHT_OP_PAIR_PUT,
                            .name = str(names[i]),
                            .key = 1,
                            .value = {v, i % 50 == 7 ? LONG : 1 + i},
                            .ttl_ms = i % 9 == 5 ? 3600000 : 0};
        memset(v, (int)i, op.value.n);
        if (op.kind == CHT_OP_PAIR_SET)
            op.value = (struct cht_str){NULL, 0};
        if (i < PAIRS)
            must(run(&op));
    }
    must(cht_store_pair_values(s, r, PAIRS + MORE, &all, NULL, &err));
    for (unsigned i = 0; i < PAIRS + MORE; i++) {
        struct cht_pair_value pv = {.out = &b};
        assert_int_equal(r[i].rc, cht_store_pair_value_soon(s, r[i].name, &pv, NULL, &err));
        assert_int_equal(r[i].rc, i < PAIRS ? CHT_OK : CHT_PAIR_NOT_FOUND);
        if (r[i].rc != CHT_OK)
            continue;
        assert_int_equal(r[i].key, pv.key);
        assert_int_equal(r[i].ends, pv.ends);
        assert_int_equal(r[i].size, pv.size);
        if (pv.size > 0)
            assert_memory_equal(all.data + r[i].at, b.data, pv.size);
    }
    free(v);
    cht_buf_free(&all);
    cht_buf_free(&b);
}

static void test_atomic(void **state)
{
    (void)state;
    struct cht_op first = {.kind = CHT_OP_INSERT, .value = str("old")};
    must(run(&first));
    struct cht_op ops[12];
    char names[8][16];
    for (int i = 0; i < 8; i++) { /* names of all shards */
        (void)snprintf(names[i], sizeof names[i], "n:%d", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str("1")};
    }
    ops[8] = (struct cht_op){.kind = CHT_OP_EDIT, .key = first.key, .value = str("new")};
    ops[9] = (struct cht_op){.kind = CHT_OP_PAIR_LINK, .name = str("link"), .value = str("n:3")};
    ops[10] = (struct cht_op){.kind = CHT_OP_DELETE, .key = 999};
    struct cht_commit c = {.ops = ops, .count = 11, .flags = CHT_COMMIT_ATOMIC};
    assert_int_equal(cht_store_commit(s, &c), CHT_BATCH_FAILED);
    assert_int_equal(c.failed, 10);
    has(first.key, "old");
    uint64_t n, key;
    must(cht_store_count(s, str("n:"), &n, &err));
    assert_int_equal(n, 0);
    c.count = 10;
    must(cht_store_commit(s, &c));
    has(first.key, "new");
    must(cht_store_count(s, str("n:"), &n, &err));
    assert_int_equal(n, 8);
    must(cht_store_pair(s, str("link"), &key, &err));
    assert_int_equal(key, ops[3].key);
}

/* A window of a scan in either direction is what sorting says. */
static void test_scans(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct cht_op *ops = calloc(N, sizeof *ops);
    char(*names)[16] = calloc(N, sizeof *names);
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s:%05d", i % 3 == 0 ? "b" : "a", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(names[i])};
    }
    struct cht_commit c = {.ops = ops, .count = N, .flags = CHT_COMMIT_UNORDERED};
    must(cht_store_commit(s, &c));
    for (int reverse = 0; reverse < 2; reverse++) {
        for (int after = 0; after < 2; after++) {
            struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS,
                                          .prefix = str("a:"),
                                          .after = after ? str("a:01001") : str(""),
                                          .until = after ? str(reverse ? "a:00500" : "a:02001") : str(""),
                                          .reverse = reverse,
                                          .values = true};
            struct cht_scan *sc;
            struct cht_entry e[100];
            size_t got;
            int at = reverse ? (after ? 1000 : N - 1) : (after ? 1002 : 0), step = reverse ? -1 : 1, seen = 0;
            must(cht_scan_open(s, &cfg, &sc, &err));
            for (;;) {
                must(cht_scan_next(sc, e, 100, &got, &err));
                for (size_t i = 0; i < got; i++, at += step, seen++) {
                    at += at % 3 == 0 ? step : 0;
                    assert_int_equal(e[i].name_len, 7);
                    assert_memory_equal(e[i].name, names[at], 7);
                    assert_int_equal(e[i].value_len, 7);
                    assert_memory_equal(e[i].value, names[at], 7);
                    assert_int_equal(e[i].key, ops[at].key);
                }
                if (got == 0)
                    break;
            }
            assert_int_equal(seen, !after ? 2000 : reverse ? 333 : 666);
            cht_scan_close(sc);
        }
    }
    uint64_t n;
    must(cht_store_count(s, str("b"), &n, &err));
    assert_int_equal(n, 1000);
    must(cht_store_count(s, str("a:000"), &n, &err));
    assert_int_equal(n, 66);
    struct cht_op del = {.kind = CHT_OP_PREFIX_DEL, .name = str("a:"), .with_values = true};
    must(run(&del));
    assert_int_equal(del.pairs, 2000);
    assert_int_equal(del.values, 2000);
    struct cht_store_stats st;
    must(cht_store_stats(s, &st, &err));
    assert_int_equal(st.pairs, 1000);
    assert_int_equal(st.values, 1000);
    assert_int_equal(st.value_bytes, 7000);
    free(ops);
    free(names);
}

static bool add_child(void *ctx, const struct cht_child *c)
{
    char *out = ctx;
    size_t n = strlen(out);
    (void)snprintf(out + n, 200 - n, "%.*s=%llu ", (int)c->name.n, (const char *)c->name.p,
                   (unsigned long long)c->pairs);
    return true;
}

static bool add_size(void *ctx, const struct cht_entry *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *(size_t *)ctx += e[i].value_len;
    return true;
}

static void test_levels_and_sweeps(void **state)
{
    (void)state;
    const char *const all[] = {"a:b:c", "a:b:d", "a:x", "b", "a:", "a:z:\x01q"};
    for (size_t i = 0; i < 6; i++)
        put(all[i], "12345");
    char out[200] = "";
    struct cht_children_config cfg = {
        .prefix = str("a:"), .separator = str(":"), .each = add_child, .ctx = out};
    must(cht_store_children(s, &cfg, &err));
    assert_string_equal(out, "a:=1 a:b:=2 a:x=1 a:z:=1 ");
    size_t bytes = 0;
    struct cht_sweep_config sweep = {.prefix = str("a:"), .visit = add_size, .ctx = &bytes};
    must(cht_store_sweep(s, &sweep, &err));
    assert_int_equal(bytes, 25);
}

/* Random commits of every kind against the model, with closing and opening in between. */
static void test_model(void **state)
{
    (void)state;
    const char *seed_text = getenv("CHT_TEST_SEED"), *ops_text = getenv("CHT_TEST_OPS");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 1;
    uint64_t ops = ops_text != NULL ? strtoull(ops_text, NULL, 10) : 4000;
    struct model m;
    struct cht_rng r;
    char why[300] = "";
    print_message("seed %llu, %llu operations\n", (unsigned long long)seed, (unsigned long long)ops);
    cht_rng_seed(&r, seed);
    model_init(&m, 200, seed);
    m.sparse = true;
    for (uint64_t done = 0; done < ops;) {
        struct model_batch *b = malloc(sizeof *b);
        model_random_batch(&m, &r, 100000, b);
        struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
        (void)cht_store_commit(s, &c);
        model_apply(&m, b, &c);
        done += b->count;
        model_batch_free(b);
        free(b);
        if (cht_rng_below(&r, 300) == 0) {
            must(cht_env_close(env, &err));
            open_env();
            must(cht_env_get(env, name, &s, &err));
        }
    }
    if (model_compare(&m, s, why, sizeof why) != 0)
        fail_msg("at the end (seed %llu): %s", (unsigned long long)seed, why);
    model_free(&m);
}

/* W1: many rows that are compared in one step: one that is another, there or absent refuses all, as with a step each. */
static void test_folded(void **state)
{
    (void)state;
    enum { ROWS = 700 };
    static uint8_t names[ROWS][8], values[ROWS][200];
    static const size_t lengths[] = {1, 17, 200, 0}; /* 0: absent */
    rados_ioctx_t io = cht_rdb(s)->io;
    struct cht_str row[ROWS], value[ROWS];
    static struct cht_fold f;
    assert_true(cht_fold_works(io, "h"));
    assert_false(cht_rdb(s)->apart);
    for (unsigned i = 0; i < ROWS; i++) { /* not in order */
        row[i] = (struct cht_str){names[i], (size_t)snprintf((char *)names[i], 8, "%u", i * 37 % ROWS)};
        memset(values[i], (int)(i % 256), sizeof values[i]);
        value[i] = (struct cht_str){values[i], lengths[i % 4]};
    }
    struct cht_call call = cht_call_write();
    cht_fold_begin(&f, CHT_FOLD_SET, &call);
    for (unsigned i = 0; i < ROWS; i++)
        if (value[i].n > 0)
            cht_fold_add(&f, row[i], value[i]);
    cht_fold_end(&f);
    assert_int_equal(cht_call_run(&call, io, "folded"), 0);
    for (unsigned other = 0; other <= ROWS; other += other % 9 == 0 ? 1 : 23) {
        for (unsigned apart = 0; apart < 2; apart++) {
            call = cht_call_write();
            cht_fold_begin(&f, CHT_FOLD_COMPARE, &call);
            f.apart = apart != 0;
            for (unsigned i = 0; i < ROWS; i++)
                cht_fold_add(&f, row[i], i == other ? str("another") : value[i]);
            cht_fold_end(&f);
            cht_call_set(&call, CHT_ROW_TEXT("done"), CHT_ROW_TEXT("x"));
            int r = cht_call_run(&call, io, "folded");
            assert_int_equal(cht_os_code(r), other < ROWS ? CHT_OS_CANCELED : CHT_OS_OK);
        }
    }
    call = cht_call_write();
    cht_fold_begin(&f, CHT_FOLD_REMOVE, &call);
    for (unsigned i = 0; i < ROWS; i++)
        cht_fold_add(&f, row[i], (struct cht_str){NULL, 0});
    cht_fold_end(&f);
    assert_int_equal(cht_call_run(&call, io, "folded"), 0);
    call = cht_call_write(); /* none is left */
    cht_fold_begin(&f, CHT_FOLD_COMPARE, &call);
    for (unsigned i = 0; i < ROWS; i++)
        cht_fold_add(&f, row[i], str(""));
    cht_fold_end(&f);
    cht_call_set(&call, CHT_ROW_TEXT("done"), CHT_ROW_TEXT("y"));
    assert_int_equal(cht_call_run(&call, io, "folded"), 0);
    assert_int_equal(rados_remove(io, "folded"), 0);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_escape), cmocka_unit_test(test_rows)};
    const struct CMUnitTest all[] = {
        WITH(test_databases),   WITH(test_dropped_elsewhere), WITH(test_values_and_names),
        WITH(test_long_values), WITH(test_many_names),        WITH(test_atomic),
        WITH(test_scans),       WITH(test_levels_and_sweeps), WITH(test_folded),
        WITH(test_model)};
    int failed = cmocka_run_group_tests_name("rows", alone, NULL, NULL);
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): the other tests are skipped\n");
        return failed;
    }
    return failed + cmocka_run_group_tests_name("cluster", all, NULL, NULL);
}
