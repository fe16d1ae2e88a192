/* test_scan_values: scans with values that give out runs (cht_scan_config.runs) show the same bytes as those that give out entry by entry: values of all
 * lengths, in the shard of their name and in others, keys without a value, values that are damaged, entries that are left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/scan.h"

#define HEAD 24u

static char base[] = "/tmp/cht-run-values-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;
static struct cht_rng rng;
static uint8_t bytes[200u << 10];

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .scan_workers = 3, .durability = CHT_DURABLE_OS};
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    memset(&err, 0, sizeof err);
    cht_rng_seed(&rng, 17);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)cht_rng_next(&rng);
    return system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    return cht_env_close(env, &err) != CHT_OK;
}

static void database(const char *name, unsigned shards)
{
    assert_int_equal(cht_env_create(env, name, shards, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
}

static uint64_t commit(struct cht_op op)
{
    struct cht_commit c = {.ops = &op, .count = 1};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(op.rc, CHT_OK);
    return op.key;
}

static struct cht_str name_of(char *to, const char *prefix, uint32_t i)
{
    int len = snprintf(to, 32, "%s%08x", prefix, (unsigned)(i * 2654435761u));
    return (struct cht_str){(const uint8_t *)to, (size_t)len};
}

static uint64_t put(const char *prefix, uint32_t i, size_t size)
{
    char name[32];
    size_t from = (size_t)cht_rng_below(&rng, sizeof bytes - size + 1);
    return commit((struct cht_op){
        .kind = CHT_OP_PAIR_PUT, .name = name_of(name, prefix, i), .value = {bytes + from, size}});
}

static void set(const char *prefix, uint32_t i, uint64_t key)
{
    char name[32];
    commit((struct cht_op){.kind = CHT_OP_PAIR_SET, .name = name_of(name, prefix, i), .key = key});
}

/* ---- what a scan shows -------------------------------------------------------------------------------------------- */

struct shown {
    uint8_t *p;
    size_t n, cap;
    uint64_t count, large, corrupt;
    uint32_t longest; /* run */
};

static uint8_t *more(struct shown *to, size_t n)
{
    if (to->n + n > to->cap) {
        to->cap = 2 * (to->n + n);
        to->p = realloc(to->p, to->cap);
        assert_non_null(to->p);
    }
    to->n += n;
    return to->p + to->n - n;
}

static void put_head(uint8_t *out, const struct cht_entry *e)
{
    uint32_t flags = e->flags & ~CHT_ENTRY_LARGE, dangling = (flags & CHT_ENTRY_DANGLING) != 0;
    memset(out, 0, HEAD);
    memcpy(out, &e->key, 8);
    memcpy(out + 8, &e->name_len, 4);
    memcpy(out + 12, &flags, 4);
    if (!dangling)
        memcpy(out + 16, &e->size, 4);
}

/* Key, sizes, flags, name, value. ctx: entries with keys that it divides are left out, 0: none. */
static size_t show(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    unsigned skip = *(const unsigned *)ctx;
    if (skip > 0 && e->key % skip == 0)
        return CHT_SCAN_SKIP;
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    if (room < HEAD + e->name_len + e->value_len)
        return SIZE_MAX;
    put_head(out, e);
    memcpy(out + HEAD, e->name, e->name_len);
    if (e->value_len > 0)
        memcpy(out + HEAD + e->name_len, e->value, e->value_len);
    return HEAD + e->name_len + e->value_len;
}

static void show_large(struct shown *to, const struct cht_entry *e)
{
    struct cht_value *v;
    uint32_t size;
    size_t got;
    assert_int_equal(e->value_len, 0);
    assert_int_equal(cht_value_open(s, e->key, &v, &size, &err), CHT_OK);
    assert_int_equal(size, e->size);
    put_head(more(to, HEAD), e);
    memcpy(more(to, e->name_len), e->name, e->name_len);
    assert_int_equal(cht_value_read(v, 0, more(to, size), size, &got, &err), CHT_OK);
    assert_int_equal(got, size);
    cht_value_close(v);
    to->large++;
}

/* max: entries a call. */
static struct shown scan(struct cht_scan_config c, bool runs, unsigned skip, size_t max)
{
    struct shown to = {0};
    struct cht_scan *sc;
    struct cht_entry e[80];
    size_t got;
    enum cht_rc rc;
    c.kind = CHT_SCAN_PAIRS;
    c.values = true;
    c.render = show;
    c.render_ctx = &skip;
    c.runs = runs;
    assert_int_equal(cht_scan_open(s, &c, &sc, &err), CHT_OK);
    assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
    while ((rc = cht_scan_next(sc, e, max, &got, &err)) == CHT_OK && got > 0) {
        for (size_t i = 0; i < got; i++) {
            to.count += e[i].count;
            to.corrupt += (e[i].flags & CHT_ENTRY_CORRUPT) != 0;
            to.longest = e[i].count > to.longest ? e[i].count : to.longest;
            if ((e[i].flags & (CHT_ENTRY_CORRUPT | CHT_ENTRY_LARGE)) != 0)
                assert_int_equal(e[i].count, 1);
            if ((e[i].flags & CHT_ENTRY_LARGE) != 0)
                show_large(&to, &e[i]);
            else if (e[i].value_len > 0)
                memcpy(more(&to, e[i].value_len), e[i].value, e[i].value_len);
        }
    }
    assert_int_equal(rc, CHT_OK);
    assert_true(cht_scan_exhausted(sc));
    cht_scan_close(sc);
    return to;
}

static struct shown compare_one(struct cht_scan_config c, unsigned skip)
{
    struct shown a = scan(c, false, skip, 80);
    static const size_t max[] = {1, 7, 80};
    for (size_t i = 0; i < 3; i++) {
        struct shown b = scan(c, true, skip, max[i]);
        assert_int_equal(a.count, b.count);
        assert_int_equal(a.corrupt, b.corrupt);
        assert_int_equal(a.n, b.n);
        if (a.n > 0)
            assert_memory_equal(a.p, b.p, a.n);
        a.longest = b.longest;
        free(b.p);
    }
    free(a.p);
    return a;
}

/* Both ways, with bounds. Returns what was seen of all. */
static struct shown compare_all(const char *prefix)
{
    struct cht_str p = {(const uint8_t *)prefix, strlen(prefix)};
    char a[32], b[32];
    struct shown all = {0};
    for (int reverse = 0; reverse < 2; reverse++) {
        struct cht_scan_config c = {.prefix = p, .reverse = reverse != 0};
        all = compare_one(c, 0);
        c.workers = 1;
        (void)compare_one(c, 3);
        c.after = name_of(a, prefix, 17);
        (void)compare_one(c, 0);
        c.until = name_of(b, prefix, 99);
        (void)compare_one(c, 0);
    }
    return all;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static void test_short_values(void **state)
{
    (void)state;
    static const unsigned shards[] = {1, 8, 16, 17};
    for (size_t k = 0; k < 4; k++) {
        char db[8];
        (void)snprintf(db, sizeof db, "s%u", shards[k]);
        database(db, shards[k]);
        for (uint32_t i = 0; i < 5000; i++)
            (void)put("a:", i, 1 + (size_t)cht_rng_below(&rng, i % 16 == 0 ? 2000 : 80));
        struct shown all = compare_all("a:");
        assert_int_equal(all.count, 5000);
        assert_int_equal(all.large, 0);
        assert_true(all.longest > 100 || shards[k] > 16);
    }
}

/* Blocks end at values that do not fit, and long ones stand by themselves; many in a row. */
static void test_all_lengths(void **state)
{
    (void)state;
    database("lengths", 8);
    for (uint32_t i = 0; i < 6000; i++) /* so that values are short on the average */
        (void)put("short:", i, 4);
    for (uint32_t i = 0; i < 4400; i++) {
        uint64_t kind = cht_rng_below(&rng, 400);
        (void)put("m:", i,
                  kind == 0   ? (66u << 10) + (size_t)cht_rng_below(&rng, 130u << 10)
                  : kind < 12 ? (10u << 10) + (size_t)cht_rng_below(&rng, 54u << 10)
                              : 1 + (size_t)cht_rng_below(&rng, 300));
    }
    for (uint32_t i = 0; i < 4200; i++)
        (void)put("n:", i, i % 8 == 0 ? 5000 : 8); /* a row of them is more than a work area holds */
    struct shown all = compare_all("m:");
    assert_int_equal(all.count, 4400);
    assert_true(all.large > 0 && all.longest > 100);
    assert_true(compare_all("n:").longest > 100);
    assert_true(compare_one((struct cht_scan_config){.workers = 2}, 0).longest > 100);
}

/* Most values in other shards than their names, also long ones, and keys that have none. */
static void test_values_elsewhere(void **state)
{
    (void)state;
    enum { N = 4500 };
    static uint64_t keys[N];
    database("elsewhere", 8);
    for (uint32_t i = 0; i < N; i++)
        keys[i] = put("own:", i, i % 300 == 0 ? 60000 : 1 + (size_t)cht_rng_below(&rng, 64));
    for (uint32_t i = 0; i < N; i++)
        set("b:", i, keys[cht_rng_below(&rng, N)]);
    for (uint32_t i = 0; i < N; i += 7)
        commit((struct cht_op){.kind = CHT_OP_DELETE, .key = keys[i]});
    assert_true(compare_all("b:").longest > 100);
    assert_true(compare_all("own:").longest > 100);
}

/* ---- beside writers, without memory ----------------------------------------------------------------------------------- */

static _Atomic bool stop;

/* Each value tells its name: pairs are put with other lengths and deleted with their values. */
static void *write_main(void *arg)
{
    uint8_t value[2000];
    (void)arg;
    for (uint32_t i = 0; !atomic_load(&stop); i++) {
        char name[32];
        struct cht_op op = {.kind = i / 3000 % 3 == 2 ? CHT_OP_PAIR_DEL : CHT_OP_PAIR_PUT,
                            .with_values = true,
                            .name = name_of(name, "w:", i * 7 % 6000)};
        size_t size = op.name.n + i % (i % 50 == 0 ? 1900u : 60u);
        memset(value, '.', size);
        memcpy(value, op.name.p, op.name.n);
        op.value = (struct cht_str){value, op.kind == CHT_OP_PAIR_PUT ? size : 0};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK)
            break;
    }
    return NULL;
}

static void test_beside_a_writer(void **state)
{
    (void)state;
    pthread_t t;
    database("writer", 8);
    for (uint32_t i = 0; i < 6000; i++) {
        char name[32];
        struct cht_str p = name_of(name, "w:", i);
        commit((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = p, .value = p});
        (void)name_of(name, "x:", i);
        commit((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = p, .value = p});
    }
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&t, NULL, write_main, NULL), 0);
    for (int k = 0; k < 12; k++) {
        struct shown all = scan((struct cht_scan_config){.reverse = k % 2 == 1}, true, 0, 80);
        size_t lasting = 0;
        for (const uint8_t *p = all.p, *end = p + all.n; p < end;) {
            uint32_t len, flags, size;
            memcpy(&len, p + 8, 4);
            memcpy(&flags, p + 12, 4);
            memcpy(&size, p + 16, 4);
            assert_int_equal(flags,
                             0); /* also what is deleted meanwhile is there with its value, or not at all */
            assert_true(size >= len);
            assert_memory_equal(p + HEAD, p + HEAD + len, len);
            lasting += p[HEAD] == 'x';
            p += HEAD + len + size;
        }
        assert_int_equal(lasting, 6000);
        free(all.p);
    }
    atomic_store(&stop, true);
    pthread_join(t, NULL);
}

static void test_no_memory(void **state)
{
    (void)state;
    unsigned none = 0;
    struct cht_scan_config c = {.kind = CHT_SCAN_PAIRS,
                                .values = true,
                                .ends = true,
                                .render = show,
                                .render_ctx = &none,
                                .runs = true};
    struct cht_scan *sc;
    enum cht_rc rc = CHT_NO_MEMORY;
    database("memory", 8);
    for (uint32_t i = 0; i < 5000; i++)
        (void)put("a:", i, 10);
    for (uint64_t i = 1; rc == CHT_NO_MEMORY; i++) {
        assert_true(i < 100);
        cht_alloc_fail_at(i, false);
        rc = cht_scan_open(s, &c, &sc, &err);
        bool failed = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        assert_int_equal(rc, failed ? CHT_NO_MEMORY : CHT_OK);
    }
    assert_int_equal(rc, CHT_OK);
    cht_scan_close(sc);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_short_values), T(test_all_lengths), T(test_values_elsewhere),
                                       T(test_beside_a_writer), T(test_no_memory)};
    if (mkdtemp(base) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed;
}
