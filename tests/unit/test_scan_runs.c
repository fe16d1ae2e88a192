/* test_scan_runs: scans that give out runs of rendered entries (cht_scan_config.runs): the same bytes in the same order as
 * a sorted list of what was stored, whatever the names, shards, bounds and direction. */
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
#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "store/shard.h"

struct pair {
    uint8_t *name;
    size_t len;
    uint64_t key;
};

static char base[] = "/tmp/cht-runs-XXXXXX";
static const char *dirs[] = {base};
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;
static struct cht_rng rng;
static struct pair *pairs; /* in order of names once sorted */
static size_t n;

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .scan_workers = 3, .durability = CHT_DURABLE_OS};
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    memset(&err, 0, sizeof err);
    cht_rng_seed(&rng, 11);
    return system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < n; i++)
        free(pairs[i].name);
    free(pairs);
    pairs = NULL;
    n = 0;
    return cht_env_close(env, &err) != CHT_OK;
}

static void database(const char *name, unsigned shards)
{
    assert_int_equal(cht_env_create(env, name, shards, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
}

static void add(const uint8_t *name, size_t len)
{
    if ((n & (n - 1)) == 0)
        pairs = realloc(pairs, (n > 0 ? 2 * n : 1) * sizeof *pairs);
    uint8_t *copy = malloc(len);
    memcpy(copy, name, len);
    pairs[n] = (struct pair){copy, len, cht_rng_next(&rng) % CHT_KEY_MAX + 1};
    n++;
}

static int by_name(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int c = memcmp(x->name, y->name, x->len < y->len ? x->len : y->len);
    return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

static void store_all(void)
{
    enum { GROUP = 1000 };
    struct cht_op ops[GROUP];
    for (size_t i = 0; i < n; i += GROUP) {
        size_t some = n - i < GROUP ? n - i : GROUP;
        for (size_t k = 0; k < some; k++)
            ops[k] = (struct cht_op){.kind = CHT_OP_PAIR_SET,
                                     .name = {pairs[i + k].name, pairs[i + k].len},
                                     .key = pairs[i + k].key};
        struct cht_commit c = {.ops = ops, .count = some};
        assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    }
    size_t kept =
        0; /* of equal names the last one counts, which qsort need not keep last: take what is stored */
    qsort(pairs, n, sizeof *pairs, by_name);
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && by_name(&pairs[kept - 1], &pairs[i]) == 0) {
            free(pairs[i].name);
            continue;
        }
        pairs[kept++] = pairs[i];
    }
    n = kept;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(
            cht_store_pair(s, (struct cht_str){pairs[i].name, pairs[i].len}, &pairs[i].key, &err), CHT_OK);
}

/* What an entry is shown as: its key and its name. ctx: entries with keys that it divides are left out, 0: none. */
static size_t show(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    unsigned skip = *(const unsigned *)ctx;
    if (room < e->name_len + 12u)
        return SIZE_MAX;
    if (skip > 0 && e->key % skip == 0)
        return CHT_SCAN_SKIP;
    memcpy(out, &e->key, 8);
    memcpy(out + 8, &e->name_len, 4);
    memcpy(out + 12, e->name, e->name_len);
    return e->name_len + 12u;
}

/* Takes the shown entry at p off the text; it must be the pair. */
static const uint8_t *expect(const uint8_t *p, const uint8_t *end, const struct pair *want)
{
    uint32_t len = (uint32_t)want->len;
    assert_true((size_t)(end - p) >= len + 12u);
    assert_memory_equal(p, &want->key, 8);
    assert_memory_equal(p + 8, &len, 4);
    assert_memory_equal(p + 12, want->name, len);
    return p + 12 + len;
}

static int compare_str(const struct pair *p, struct cht_str b)
{
    struct pair x = {.name = (uint8_t *)(uintptr_t)b.p, .len = b.n};
    return by_name(p, &x);
}

static bool wanted(const struct pair *p, const struct cht_scan_config *c, unsigned skip)
{
    int sign = c->reverse ? -1 : 1;
    return !(skip > 0 && p->key % skip == 0) && p->len >= c->prefix.n &&
           (c->prefix.n == 0 || memcmp(p->name, c->prefix.p, c->prefix.n) == 0) &&
           (c->after.n == 0 || sign * compare_str(p, c->after) > 0) &&
           (c->until.n == 0 || sign * compare_str(p, c->until) < 0);
}

/* Scans and compares with the sorted list. Returns the longest run. */
static uint32_t compare_scan(struct cht_scan_config c, unsigned skip)
{
    struct cht_scan *sc;
    struct cht_entry e[8];
    size_t got = 0, at = 0, shown = 0;
    uint32_t longest = 0;
    c.kind = CHT_SCAN_PAIRS;
    c.render = show;
    c.render_ctx = &skip;
    c.runs = true;
    assert_int_equal(cht_scan_open(s, &c, &sc, &err), CHT_OK);
    assert_true(cht_scan_memory(sc) <= CHT_SCAN_MEMORY);
    enum cht_rc rc;
    while ((rc = cht_scan_next(sc, e, 8, &got, &err)) == CHT_OK && got > 0) {
        for (size_t i = 0; i < got; i++) {
            const uint8_t *p = e[i].value, *end = p + e[i].value_len;
            const struct pair *last = NULL;
            longest = e[i].count > longest ? e[i].count : longest;
            for (uint32_t k = 0; k < e[i].count; k++, at++) {
                while (at < n && !wanted(&pairs[c.reverse ? n - 1 - at : at], &c, skip))
                    at++;
                assert_true(at < n);
                last = &pairs[c.reverse ? n - 1 - at : at];
                p = expect(p, end, last);
                shown++;
            }
            assert_ptr_equal(p, end);
            assert_non_null(last);
            if (skip == 0) {
                assert_int_equal(e[i].key, last->key);
                assert_int_equal(e[i].name_len, last->len);
                assert_memory_equal(e[i].name, last->name, last->len);
            }
        }
    }
    assert_int_equal(rc, CHT_OK);
    assert_true(cht_scan_exhausted(sc));
    for (; at < n; at++)
        assert_false(wanted(&pairs[c.reverse ? n - 1 - at : at], &c, skip));
    assert_int_equal(cht_scan_next(sc, e, 8, &got, &err), CHT_OK);
    assert_int_equal(got, 0);
    cht_scan_close(sc);
    return longest;
}

static struct cht_str name_at(size_t i) { return (struct cht_str){pairs[i].name, pairs[i].len}; }

/* All bounds, both ways. `big`: scans of everything must come in runs. */
static void compare_all(bool big)
{
    for (int reverse = 0; reverse < 2; reverse++) {
        struct cht_scan_config c = {.reverse = reverse != 0};
        struct cht_scan_config all = c;
        assert_true(compare_scan(c, 0) > 1 || !big);
        c.workers = 1;
        (void)compare_scan(c, 3);
        assert_int_equal(compare_scan(c, 1), 0);
        for (int i = 0; i < 3; i++) {
            size_t a = (size_t)cht_rng_below(&rng, n), b = (size_t)cht_rng_below(&rng, n);
            c = all;
            c.after = name_at(a);
            (void)compare_scan(c, 0);
            c.until = name_at(b); /* in half of the cases nothing lies between */
            (void)compare_scan(c, 0);
            c = all;
            c.until = name_at(a);
            (void)compare_scan(c, 0);
            c.prefix = (struct cht_str){pairs[b].name, 1 + (size_t)cht_rng_below(&rng, pairs[b].len)};
            (void)compare_scan(c, 0);
            c.after = name_at((a + b) % n);
            (void)compare_scan(c, 0);
        }
    }
}

/* Names that share long and short beginnings, that are beginnings of each other, with bytes 0 and 255. */
static size_t mixed_name(uint8_t *p)
{
    static const char *const stems[] = {"", "s", "https://example.org/a/long/way/down/", "ctx:", "\xff\xff"};
    const char *stem = stems[cht_rng_below(&rng, 5)];
    size_t len = strlen(stem), more = 1 + (size_t)cht_rng_below(&rng, 12);
    memcpy(p, stem, len);
    bool coarse = cht_rng_below(&rng, 2) == 0;
    for (size_t i = 0; i < more; i++) {
        static const uint8_t few[] = {0, 'a', 255};
        p[len++] = coarse ? few[cht_rng_below(&rng, 3)] : (uint8_t)cht_rng_next(&rng);
    }
    return len;
}

static void test_mixed_names(void **state)
{
    (void)state;
    static const unsigned shards[] = {1, 3, 8, 16, 17};
    for (int i = 0; i < 12000; i++) {
        uint8_t name[64];
        add(name, mixed_name(name));
    }
    for (size_t i = 0; i < 5; i++) {
        char db[8];
        (void)snprintf(db, sizeof db, "m%u", shards[i]);
        database(db, shards[i]);
        store_all();
        compare_all(shards[i] < 17); /* with more there are no runs, but all the rest holds */
    }
}

/* Blocks and names' room are full long before a range is at its end. */
static void test_long_names(void **state)
{
    (void)state;
    uint8_t name[CHT_NAME_MAX];
    memset(name, 'x', sizeof name);
    for (int i = 0; i < 4400; i++) {
        for (int k = 0; k < 8; k++) {
            size_t at = (size_t)cht_rng_below(&rng, sizeof name);
            name[at] = (uint8_t)cht_rng_next(&rng);
        }
        add(name, i % 2 == 0 ? sizeof name : 200 + (size_t)cht_rng_below(&rng, 3800));
    }
    database("long", 8);
    store_all();
    compare_all(true);
}

/* All names but a few in one shard, which is not the first, and the few in front, after or in between. */
static void test_uneven_shards(void **state)
{
    (void)state;
    for (uint32_t i = 0; n < 9000; i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "u%08u", (unsigned)(i * 2654435761u));
        unsigned shard = cht_shard_of_name((struct cht_str){(uint8_t *)name, (size_t)len}, 8);
        if (shard == 5 || (i % 4096 == 7 && shard < 4))
            add((uint8_t *)name, (size_t)len);
    }
    database("uneven", 8);
    store_all();
    compare_all(true);
}

/* ---- beside writers, memory that runs out, cancelling ------------------------------------------------------------- */

static _Atomic bool stop;

static void *write_main(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; !atomic_load(&stop); i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "k%07um", (unsigned)(i * 7919u % 20000u));
        struct cht_op op = {.kind = i / 20000 % 2 == 0 ? CHT_OP_PAIR_SET : CHT_OP_PAIR_DEL,
                            .name = {(uint8_t *)name, (size_t)len},
                            .key = 1};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK)
            break;
    }
    return NULL;
}

/* Each stable name once, in order, and nothing twice. */
static void scan_beside_writer(bool reverse)
{
    unsigned none = 0;
    struct cht_scan_config c = {
        .kind = CHT_SCAN_PAIRS, .render = show, .render_ctx = &none, .runs = true, .reverse = reverse};
    struct cht_scan *sc;
    struct cht_entry e;
    size_t got = 0, at = 0;
    struct pair last = {0};
    uint8_t before[32];
    assert_int_equal(cht_scan_open(s, &c, &sc, &err), CHT_OK);
    enum cht_rc rc;
    while ((rc = cht_scan_next(sc, &e, 1, &got, &err)) == CHT_OK && got > 0) {
        const uint8_t *p = e.value;
        for (uint32_t k = 0; k < e.count; k++) {
            uint32_t len;
            memcpy(&len, p + 8, 4);
            struct pair now = {.name = (uint8_t *)(uintptr_t)p + 12, .len = len};
            assert_true(last.len == 0 || (reverse ? by_name(&now, &last) < 0 : by_name(&now, &last) > 0));
            assert_true(len <= sizeof before);
            if (p[12 + len - 1] != 'm') {
                assert_true(at < n);
                (void)expect(p, p + 12 + len, &pairs[reverse ? n - 1 - at : at]);
                at++;
            }
            memcpy(before, p + 12, len);
            last = (struct pair){.name = before, .len = len};
            p += 12 + len;
        }
    }
    assert_int_equal(rc, CHT_OK);
    assert_int_equal(at, n);
    cht_scan_close(sc);
}

static void many_names(void)
{
    for (unsigned i = 0; i < 20000; i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "k%07u", i);
        add((uint8_t *)name, (size_t)len);
    }
    database("many", 8);
    store_all();
}

static void test_beside_a_writer(void **state)
{
    (void)state;
    pthread_t t;
    many_names();
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&t, NULL, write_main, NULL), 0);
    for (int i = 0; i < 40; i++)
        scan_beside_writer(i % 2 == 1);
    atomic_store(&stop, true);
    pthread_join(t, NULL);
}

static void test_no_memory(void **state)
{
    (void)state;
    unsigned none = 0;
    struct cht_scan_config c = {.kind = CHT_SCAN_PAIRS, .render = show, .render_ctx = &none, .runs = true};
    struct cht_scan *sc;
    enum cht_rc rc = CHT_NO_MEMORY;
    many_names();
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

/* A reader that stops early; poll that calls back. */
static void on_ready(void *ctx) { atomic_fetch_add((_Atomic int *)ctx, 1); }

static void test_cancel_and_poll(void **state)
{
    (void)state;
    unsigned none = 0;
    _Atomic int ready = 0;
    struct cht_scan_config c = {.kind = CHT_SCAN_PAIRS,
                                .render = show,
                                .render_ctx = &none,
                                .runs = true,
                                .ready = on_ready,
                                .ready_ctx = (void *)&ready};
    struct cht_scan *sc;
    struct cht_entry e;
    size_t got = 1, total = 0;
    int pending = 0;
    many_names();
    for (int i = 0; i < 50; i++) { /* closed at any moment */
        assert_int_equal(cht_scan_open(s, &c, &sc, &err), CHT_OK);
        if (i % 3 > 0)
            assert_int_equal(cht_scan_next(sc, &e, 1, &got, &err), CHT_OK);
        if (i % 3 > 1) {
            cht_scan_cancel(sc);
            assert_int_equal(cht_scan_next(sc, &e, 1, &got, &err), CHT_CANCELLED);
        }
        cht_scan_close(sc);
    }
    atomic_store(&ready, 0);
    assert_int_equal(cht_scan_open(s, &c, &sc, &err), CHT_OK);
    while (got > 0) {
        int seen = atomic_load(&ready);
        enum cht_rc rc = cht_scan_poll(sc, &e, 1, &got, &err);
        if (rc == CHT_PENDING) {
            while (atomic_load(&ready) == seen)
                cht_sleep_ns(1000000);
            pending++;
            got = 1;
            continue;
        }
        assert_int_equal(rc, CHT_OK);
        total += got > 0 ? e.count : 0;
    }
    assert_int_equal(total, n);
    assert_int_equal(atomic_load(&ready), pending);
    cht_scan_close(sc);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_mixed_names),     T(test_long_names), T(test_uneven_shards),
                                       T(test_beside_a_writer), T(test_no_memory),  T(test_cancel_and_poll)};
    if (mkdtemp(base) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed;
}
