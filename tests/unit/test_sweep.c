/* test_sweep: a sweep shows exactly what a scan gives out, whatever the names, keys and values are; `totals` over texts of all
 * kinds of token numbers agrees with plain sums; a sweep beside writers; failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/sweep.h"
#include "reduce/aggregate.h"
#include "reduce/payload.h"

static char base[] = "/tmp/cht-sweep-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 4, .scan_workers = 3, .durability = CHT_DURABLE_OS};
    memset(&err, 0, sizeof err);
    return system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    return cht_env_close(env, &err) != CHT_OK;
}

static void use_database(const char *name, unsigned shards)
{
    assert_int_equal(cht_env_create(env, name, shards, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
}

static enum cht_rc run_op(struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc == CHT_OK ? op->rc : rc;
}

/* ---- a sweep against a scan ------------------------------------------------------------------------------------- */

/* One entry as a line that can be compared: what a sweep shows must be the set of what a scan gives out. */
struct seen {
    uint64_t key, sum; /* of the name's and value's bytes */
    uint32_t size, flags;
};
struct all {
    pthread_mutex_t mu;
    struct seen *v;
    size_t n, stop_at;
    bool names;
};

static uint64_t sum_of(const uint8_t *p, size_t n, uint64_t h)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001B3);
    return h;
}

static void note(struct all *a, const struct cht_entry *e)
{
    struct seen x = {.key = e->key, .size = e->size, .flags = e->flags, .sum = 14695981039346656037u};
    if (a->names)
        x.sum = sum_of(e->name, e->name_len, x.sum);
    if (e->value != NULL)
        x.sum = sum_of(e->value, e->value_len, x.sum);
    a->v = realloc(a->v, (a->n + 1) * sizeof *a->v);
    a->v[a->n++] = x;
}

static bool visit(void *ctx, const struct cht_entry *e, size_t n)
{
    struct all *a = ctx;
    pthread_mutex_lock(&a->mu);
    for (size_t i = 0; i < n; i++)
        note(a, &e[i]);
    bool more = a->stop_at == 0 || a->n < a->stop_at;
    pthread_mutex_unlock(&a->mu);
    return more;
}

static int compare(const void *x, const void *y) { return memcmp(x, y, sizeof(struct seen)); }

/* What a scan says; long values are read by key. */
static void by_scan(const struct cht_sweep_config *cfg, struct all *a)
{
    struct cht_scan_config sc = {
        .prefix = cfg->prefix, .after = cfg->after, .until = cfg->until, .values = true};
    struct cht_scan *scan;
    struct cht_entry e[50];
    struct cht_buf value = {0};
    size_t n = 1;
    assert_int_equal(cht_scan_open(s, &sc, &scan, &err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(scan, e, 50, &n, &err), CHT_OK);
        for (size_t i = 0; i < n; i++) {
            bool is_long = e[i].size > CHT_SCAN_INLINE_MAX;
            if ((e[i].flags & CHT_ENTRY_LARGE) != 0 && !(is_long && cfg->sizes)) {
                assert_int_equal(cht_store_get(s, e[i].key, &value, &e[i].size, &err), CHT_OK);
                e[i].value = value.data;
                e[i].value_len = e[i].size;
                e[i].flags = 0;
            }
            note(a, &e[i]);
        }
    }
    cht_scan_close(scan);
    cht_buf_free(&value);
}

static size_t agrees(const struct cht_sweep_config *bounds)
{
    size_t n = 0;
    for (unsigned k = 0; k < 4; k++) {
        struct all want = {.names = k & 1}, got = {.names = k & 1};
        pthread_mutex_init(&got.mu, NULL);
        struct cht_sweep_config cfg = *bounds;
        cfg.names = k & 1;
        cfg.sizes = k & 2;
        cfg.visit = visit;
        cfg.ctx = &got;
        by_scan(&cfg, &want);
        assert_int_equal(cht_store_sweep(s, &cfg, &err), CHT_OK);
        assert_int_equal(got.n, want.n);
        if (want.n > 0) {
            qsort(want.v, want.n, sizeof *want.v, compare);
            qsort(got.v, got.n, sizeof *got.v, compare);
            assert_memory_equal(got.v, want.v, want.n * sizeof *want.v);
        }
        n = got.n;
        pthread_mutex_destroy(&got.mu);
        free(want.v);
        free(got.v);
    }
    return n;
}

enum { NAMES = 6000 };

/* Names of all lengths, some beginning others, some alike up to their last byte; values of all lengths and none. */
static void load(unsigned seed)
{
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    uint8_t *value = malloc(200000);
    for (unsigned i = 0; i < 200000; i++)
        value[i] = (uint8_t)cht_rng_next(&r);
    uint64_t keys[64] = {0};
    for (unsigned i = 0; i < NAMES; i++) {
        uint8_t name[CHT_NAME_MAX];
        size_t n = i % 500 == 3   ? CHT_NAME_MAX - cht_rng_below(&r, 5)
                   : i % 40 == 11 ? 100 + cht_rng_below(&r, 200)
                                  : 2 + cht_rng_below(&r, 12);
        for (size_t k = 0; k < n; k++)
            name[k] = (uint8_t)('a' + cht_rng_below(&r, k < 6 ? 3 : 26));
        size_t size = i % 700 == 5   ? 60000 + cht_rng_below(&r, 140000)
                      : i % 30 == 21 ? 1 + cht_rng_below(&r, 5000)
                                     : 1 + cht_rng_below(&r, 60);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = {name, n}, .value = {value, size}};
        if (i % 9 == 4 || i % 23 == 1) /* another name for a value, mostly of another shard; or for none */
            op = (struct cht_op){.kind = CHT_OP_PAIR_SET,
                                 .name = {name, n},
                                 .key = i % 23 == 1 ? 900000000 + i : keys[cht_rng_below(&r, 64)]};
        if (op.kind == CHT_OP_PAIR_SET && op.key == 0)
            continue;
        assert_int_equal(run_op(&op), CHT_OK);
        if (op.kind == CHT_OP_PAIR_PUT)
            keys[i % 64] = op.key;
    }
    free(value);
}

static void test_like_a_scan(void **state)
{
    (void)state;
    static const unsigned shards[] = {1, 5, 60};
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "d%u", shards[i]);
        use_database(name, shards[i]);
        assert_int_equal(agrees(&(struct cht_sweep_config){0}), 0);
        load(i + 1);
        assert_true(agrees(&(struct cht_sweep_config){0}) > NAMES / 2);
        assert_true(agrees(&(struct cht_sweep_config){.prefix = str("a")}) > 1024);
        assert_true(agrees(&(struct cht_sweep_config){.prefix = str("abc")}) > 50); /* few: in this thread */
        assert_int_equal(agrees(&(struct cht_sweep_config){.prefix = str("x")}), 0);
        assert_true(agrees(&(struct cht_sweep_config){.after = str("ab"), .until = str("bca")}) > 1024);
        assert_int_equal(agrees(&(struct cht_sweep_config){.prefix = str("b"), .until = str("b")}), 0);
        assert_true(agrees(&(struct cht_sweep_config){.prefix = str("b"), .after = str("bb")}) > 500);
    }
    uint8_t bound[CHT_NAME_MAX + 1] = {0};
    struct cht_sweep_config cfg = {.until = {bound, sizeof bound}, .visit = visit};
    assert_int_equal(cht_store_sweep(s, &cfg, &err), CHT_INVALID_PAIR);
    cfg = (struct cht_sweep_config){.prefix = {bound, sizeof bound}, .visit = visit};
    assert_int_equal(cht_store_sweep(s, &cfg, &err), CHT_INVALID_PAIR);
}

/* The visitor says that it has enough. */
static void test_stop(void **state)
{
    (void)state;
    use_database("stop", 4);
    load(9);
    struct all got = {.stop_at = 10};
    pthread_mutex_init(&got.mu, NULL);
    struct cht_sweep_config cfg = {.visit = visit, .ctx = &got};
    assert_int_equal(cht_store_sweep(s, &cfg, &err), CHT_OK);
    assert_in_range(got.n, 10, 2000);
    pthread_mutex_destroy(&got.mu);
    free(got.v);
}

/* ---- totals ----------------------------------------------------------------------------------------------------- */

enum { PAYLOADS = 3000, FOLLOWERS = 12, SAMPLE = PAYLOADS * FOLLOWERS };

struct total {
    uint64_t count, contexts;
    uint32_t token;
};
static struct total want[SAMPLE];

static uint32_t draw(struct cht_rng *r, unsigned kind)
{
    uint32_t x = (uint32_t)cht_rng_next(r);
    switch (kind) {
    case 0:
        return x % 5000; /* dense */
    case 1:
        return x; /* sparse */
    case 2:
        return x % 3 == 0 ? UINT32_MAX - x % 700 : (uint32_t)cht_rng_below(r, 3000) * 3; /* both */
    case 3:
        return x % 2 == 0 ? UINT32_MAX - x % 20 : x % 20; /* few */
    case 4:
        return x >> cht_rng_below(r, 32); /* all lengths */
    default:
        return x % 4096 * 4; /* exactly as thin as still is dense, nearly all of it met */
    }
}

static int by_token(const void *a, const void *b)
{
    uint32_t x = ((const struct total *)a)->token, y = ((const struct total *)b)->token;
    return (x > y) - (x < y);
}

static int by_count(const void *a, const void *b)
{
    uint64_t x = ((const struct total *)a)->count, y = ((const struct total *)b)->count;
    return x != y ? (x < y) - (x > y) : by_token(a, b);
}

/* Writes the payloads; the sums, by token, go to `want`. */
static size_t make_payloads(unsigned kind, const char *prefix)
{
    struct cht_rng r;
    size_t n = 0, m = 0;
    cht_rng_seed(&r, 77 + kind);
    for (unsigned i = 0; i < PAYLOADS; i++) {
        uint8_t p[4 + 8 * FOLLOWERS] = {1, 2, 0, FOLLOWERS};
        uint32_t t[FOLLOWERS];
        char name[32];
        for (unsigned k = 0; k < FOLLOWERS; k++) {
            bool again = true;
            while (again) { /* a payload has a token once */
                t[k] = draw(&r, kind);
                again = false;
                for (unsigned j = 0; j < k; j++)
                    again |= t[j] == t[k];
            }
            uint32_t count = k == 0 ? UINT32_MAX : (uint32_t)cht_rng_below(&r, 9);
            reduce_payload_put32(p + 4 + (size_t)8 * k, t[k]);
            reduce_payload_put32(p + 8 + (size_t)8 * k, count);
            want[n++] = (struct total){count, 1, t[k]};
        }
        (void)snprintf(name, sizeof name, "%s%u", prefix, i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {p, sizeof p}};
        assert_int_equal(run_op(&op), CHT_OK);
    }
    qsort(want, n, sizeof *want, by_token);
    for (size_t i = 0; i < n; i++) {
        if (m > 0 && want[m - 1].token == want[i].token) {
            want[m - 1].count += want[i].count;
            want[m - 1].contexts++;
        } else {
            want[m++] = want[i];
        }
    }
    return m;
}

static void check_totals(const char *prefix, size_t n, struct reduce_params p)
{
    struct cht_buf got = {0};
    uint64_t count, malformed;
    char *text = malloc(n * 90 + 1);
    size_t used = 0, lines = p.limit > 0 && p.limit < n ? (size_t)p.limit : n;
    p.prefix = str(prefix);
    qsort(want, n, sizeof *want, p.sort == REDUCE_SORT_COUNT ? by_count : by_token);
    for (size_t i = 0; i < lines; i++)
        used +=
            (size_t)sprintf(text + used, "{\"token\":%u,\"count\":%llu,\"contexts\":%llu}\n", want[i].token,
                            (unsigned long long)want[i].count, (unsigned long long)want[i].contexts);
    const struct reduce_mode *mode = reduce_mode_find("totals", 6);
    assert_int_equal(reduce_aggregate_run(s, mode, &p, &got, &count, &malformed, NULL, &err), CHT_OK);
    assert_int_equal(count, lines);
    assert_int_equal(malformed, 0);
    assert_int_equal(got.len, used);
    assert_memory_equal(got.data, text, used);
    cht_buf_free(&got);
    free(text);
}

static void test_totals(void **state)
{
    (void)state;
    use_database("totals", 3);
    for (unsigned kind = 0; kind < 6; kind++) {
        char prefix[16];
        (void)snprintf(prefix, sizeof prefix, "k%u:", kind);
        size_t n = make_payloads(kind, prefix);
        check_totals(prefix, n, (struct reduce_params){0});
        check_totals(prefix, n, (struct reduce_params){.limit = n - 1});
        check_totals(prefix, n, (struct reduce_params){.limit = 5, .sort = REDUCE_SORT_COUNT});
        check_totals(prefix, n, (struct reduce_params){.sort = REDUCE_SORT_COUNT});
        /* a table for each of up to four threads, each while it moves twice, 64 bytes a token; the lines */
        uint64_t bytes = n * (4 * 2 * 64 + 24 + 2 * 64) + 65536;
        check_totals(prefix, n, (struct reduce_params){.memory_max = bytes});
        check_totals(prefix, n, (struct reduce_params){.memory_max = bytes, .sort = REDUCE_SORT_COUNT});
    }
}

/* Every allocation of a run fails once: CHT_NO_MEMORY, nothing lost or leaked, and then it works. */
static void test_no_memory(void **state)
{
    (void)state;
    use_database("memory", 3);
    size_t n = make_payloads(2, "cnt:");
    unsigned failed = 0;
    for (uint64_t at = 1, injected = 1; injected > 0; at++) {
        struct reduce_params p = {.prefix = str("cnt:"), .sort = REDUCE_SORT_COUNT};
        struct cht_buf got = {0};
        uint64_t count, malformed;
        cht_alloc_fail_at(at, false);
        enum cht_rc rc =
            reduce_aggregate_run(s, reduce_mode_find("totals", 6), &p, &got, &count, &malformed, NULL, &err);
        injected = cht_alloc_failures();
        cht_alloc_fail_at(0, false);
        failed += rc == CHT_NO_MEMORY;
        assert_true(rc == CHT_OK || (rc == CHT_NO_MEMORY && got.len == 0));
        cht_buf_free(&got);
    }
    assert_true(failed > 10);
    check_totals("cnt:", n, (struct reduce_params){0});
}

/* ---- beside writers --------------------------------------------------------------------------------------------- */

static _Atomic bool done;

/* Changes the lengths of values and adds and removes names between those that stay. */
static void *write_on(void *arg)
{
    struct cht_rng r;
    cht_rng_seed(&r, 5);
    (void)arg;
    for (unsigned i = 0; !atomic_load(&done); i++) {
        char name[32];
        uint8_t value[300] = {1};
        (void)snprintf(name, sizeof name, "n%05u%s", (unsigned)cht_rng_below(&r, 3000),
                       i % 3 == 0 ? "+" : "");
        struct cht_op op = {
            .kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {value, 100 + cht_rng_below(&r, 200)}};
        if (i % 3 == 0 && i % 2 == 0)
            op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = str(name)};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK)
            return &done;
    }
    return NULL;
}

static void test_writers(void **state)
{
    (void)state;
    use_database("writers", 4);
    for (unsigned i = 0; i < 3000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "n%05u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = {(const uint8_t *)"xyz", 3}};
        assert_int_equal(run_op(&op), CHT_OK);
    }
    pthread_t writer;
    atomic_store(&done, false);
    assert_int_equal(pthread_create(&writer, NULL, write_on, NULL), 0);
    for (unsigned i = 0; i < 50; i++) {
        struct all got = {.names = i % 2};
        pthread_mutex_init(&got.mu, NULL);
        struct cht_sweep_config cfg = {.prefix = str("n"), .names = i % 2, .visit = visit, .ctx = &got};
        assert_int_equal(cht_store_sweep(s, &cfg, &err), CHT_OK);
        assert_in_range(got.n, 3000, 6000);
        qsort(got.v, got.n, sizeof *got.v, compare);
        for (size_t k = 0; k < got.n; k++) {
            assert_int_equal(got.v[k].flags & ~CHT_ENTRY_DANGLING, 0); /* its name may be removed meanwhile */
            assert_true(k == 0 || got.v[k].key != got.v[k - 1].key);
        }
        pthread_mutex_destroy(&got.mu);
        free(got.v);
    }
    void *bad;
    atomic_store(&done, true);
    assert_int_equal(pthread_join(writer, &bad), 0);
    assert_null(bad);
}

static int make_base(void **state)
{
    (void)state;
    return mkdtemp(base) == NULL;
}

static int remove_base(void **state)
{
    (void)state;
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_like_a_scan, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_totals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
