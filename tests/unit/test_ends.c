/* test_ends: pairs that end, in a database whose clock the test holds: every reader against a model, at the very millisecond; what each
 * kind of write does to an end; clocks that are set back, restarts, crashes; what removes them in the background; watches. Shows
 * invariant I13 of src/store/README.md.
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

#include "cheetah/children.h"
#include "cheetah/sweep.h"
#include "store/db.h"
#include "store/expiry.h"
#include "support/simdisk.h"

#define NAMES 60u
#define SECOND UINT64_C(1000)

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;
static _Atomic uint64_t wall, steady;

static void the_clock(void *ctx, uint64_t *w, uint64_t *m)
{
    (void)ctx;
    *w = wall;
    *m = steady;
}

static void pass(uint64_t ms)
{
    wall += ms;
    steady += ms;
}

static const char *const dirs[] = {"/a", "/b"};

static struct cht_env_config config(void)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 3,
                                   .scan_workers = 1,
                                   .log_segment_bytes = 1u << 16,
                                   .manual_checkpoint = true,
                                   .clock = the_clock,
                                   .io = simdisk_io(disk)};
}

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static void open_it(void)
{
    struct cht_env_config cfg = config();
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_get(env, "default", &s, &err));
}

static int setup(void **state)
{
    (void)state;
    disk = simdisk_new();
    simdisk_forget(disk);
    wall = UINT64_C(1700000000000);
    steady = 5000;
    struct cht_env_config cfg = config();
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    return 0;
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void check_files(void)
{
    struct cht_env_config cfg = config();
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err));
    assert_int_equal(findings, 0);
}

static int teardown(void **state)
{
    (void)state;
    must(cht_env_close(env, &err));
    check_files();
    simdisk_free(disk);
    return 0;
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static enum cht_rc commit(struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    err = c.err;
    return rc;
}

static uint64_t put(const char *name, const char *value, uint64_t ttl)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(value), .ttl_ms = ttl};
    must(commit(&op, 1, 0));
    must(op.rc);
    return op.key;
}

static uint64_t count(const char *prefix)
{
    uint64_t n;
    must(cht_store_count(s, str(prefix), &n, &err));
    return n;
}

static uint64_t left(void)
{
    struct cht_store_stats st;
    must(cht_store_stats(s, &st, &err));
    return st.ending;
}

/* ---- the model ------------------------------------------------------------------------------------------------------- */

struct pair {
    char name[12], value[12];
    uint64_t key, ends; /* key 0: not there; ends 0: never */
};
static struct pair pairs[NAMES];
static uint64_t gone_key[4096]; /* of values that ended */
static unsigned gone_n;

static void sort_out(void)
{
    for (unsigned i = 0; i < NAMES; i++) {
        struct pair *p = &pairs[i];
        if (p->key == 0 || p->ends == 0 || p->ends > wall)
            continue;
        gone_key[gone_n++ % 4096] = p->key;
        p->key = p->ends = 0;
    }
}

static unsigned alive(const char *prefix)
{
    unsigned n = 0;
    for (unsigned i = 0; i < NAMES; i++)
        n += pairs[i].key != 0 && strncmp(pairs[i].name, prefix, strlen(prefix)) == 0;
    return n;
}

static void by_name(void)
{
    struct cht_buf b = {0};
    for (unsigned i = 0; i < NAMES; i++) {
        struct cht_pair_value pv = {.out = &b};
        enum cht_rc rc = cht_store_pair_value_soon(s, str(pairs[i].name), &pv, NULL, &err);
        assert_int_equal(rc, pairs[i].key != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND);
        if (rc != CHT_OK)
            continue;
        assert_int_equal(pv.key, pairs[i].key);
        assert_int_equal(pv.ends, pairs[i].ends);
        assert_int_equal(pv.size, strlen(pairs[i].value));
        assert_memory_equal(b.data, pairs[i].value, pv.size);
        must(cht_store_get(s, pv.key, NULL, NULL, &err));
    }
    cht_buf_free(&b);
}

static void by_scan(enum cht_scan_kind kind, bool reverse, bool values)
{
    struct cht_scan_config cfg = {.kind = kind, .reverse = reverse, .values = values, .ends = true};
    struct cht_scan *sc;
    struct cht_entry e[16];
    size_t n, sum = 0;
    must(cht_scan_open(s, &cfg, &sc, &err));
    do {
        must(cht_scan_next(sc, e, 16, &n, &err));
        sum += n;
        for (size_t i = 0; i < n && kind == CHT_SCAN_PAIRS; i++) {
            unsigned at = 0;
            while (strlen(pairs[at].name) != e[i].name_len ||
                   memcmp(pairs[at].name, e[i].name, e[i].name_len) != 0)
                at++;
            assert_int_equal(e[i].ends, pairs[at].ends);
        }
    } while (n > 0);
    cht_scan_close(sc);
    assert_int_equal(sum, alive(""));
}

static bool add_swept(void *ctx, const struct cht_entry *e, size_t n)
{
    (void)e;
    atomic_fetch_add((_Atomic unsigned *)ctx, (unsigned)n);
    return true;
}

static bool add_child(void *ctx, const struct cht_child *c)
{
    *(unsigned *)ctx += (unsigned)c->pairs;
    return true;
}

static void by_group(void)
{
    _Atomic unsigned swept = 0;
    unsigned children = 0;
    struct cht_sweep_config sweep = {.prefix = str(""), .visit = add_swept, .ctx = &swept};
    struct cht_children_config kids = {.prefix = str(""), .each = add_child, .ctx = &children};
    must(cht_store_sweep(s, &sweep, &err));
    assert_int_equal(swept, alive(""));
    must(cht_store_children(s, &kids, &err));
    assert_int_equal(children, alive(""));
}

static void by_op(unsigned i)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = str(pairs[i].name)};
    must(commit(&op, 1, 0));
    assert_int_equal(op.rc, pairs[i].key != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND);
    assert_int_equal(op.ends, pairs[i].key != 0 ? pairs[i].ends : 0);
}

/* One kind of reader, the first to look since the clock moved. */
static void look(unsigned which)
{
    sort_out();
    switch (which) {
    case 0:
        by_name();
        break;
    case 1:
        for (unsigned i = gone_n > 20 ? gone_n - 20 : 0; i < gone_n; i++)
            assert_int_equal(cht_store_get(s, gone_key[i % 4096], NULL, NULL, &err), CHT_KEY_NOT_FOUND);
        break;
    case 2:
        assert_int_equal(count(""), alive(""));
        assert_int_equal(count("b"), alive("b"));
        break;
    case 3:
        by_scan(CHT_SCAN_PAIRS, false, true);
        break;
    case 4:
        by_scan(CHT_SCAN_PAIRS, true, false);
        break;
    case 5:
        by_scan(CHT_SCAN_VALUES, false, true);
        break;
    case 6:
        by_group();
        break;
    default:
        by_op((unsigned)(steady % NAMES));
    }
}

/* What the operation did, if it did: as a user of Redis would expect. */
static void apply(struct pair *p, const struct cht_op *op, uint64_t now)
{
    if (op->rc != CHT_OK)
        return;
    if (op->kind == CHT_OP_PAIR_DEL) {
        if (op->with_values)
            gone_key[gone_n++ % 4096] = p->key;
        p->key = p->ends = 0;
        return;
    }
    uint64_t kept = p->key != 0 && op->keep_end ? p->ends : 0;
    p->ends = kept != 0 ? kept : op->ttl_ms != 0 ? now + op->ttl_ms : 0;
    p->key = op->key;
    assert_int_equal(op->ends, p->ends);
    (void)snprintf(p->value, sizeof p->value, "%.*s", (int)op->value.n, (const char *)op->value.p);
}

static void random_commit(struct cht_rng *r, unsigned step)
{
    struct cht_op op[3] = {{0}};
    unsigned at[3], n = 1 + (unsigned)cht_rng_below(r, 3);
    char value[12];
    (void)snprintf(value, sizeof value, "v%u", step);
    sort_out();
    for (unsigned i = 0; i < n; i++) {
        bool again = true;
        while (again) {
            at[i] = (unsigned)cht_rng_below(r, NAMES);
            again = false;
            for (unsigned j = 0; j < i; j++)
                again = again || at[j] == at[i];
        }
        uint64_t kind = cht_rng_below(r, 10);
        op[i] = (struct cht_op){.kind = kind == 0 ? CHT_OP_PAIR_DEL : CHT_OP_PAIR_PUT,
                                .with_values = true,
                                .name = str(pairs[at[i]].name),
                                .value = str(value),
                                .keep_end = kind > 7,
                                .ttl_ms = kind > 2 ? 1 + cht_rng_below(r, 3000) : 0};
    }
    unsigned flags = cht_rng_below(r, 3) == 0 ? CHT_COMMIT_ATOMIC : 0;
    bool whole = true;
    for (unsigned i = 0; i < n; i++)
        whole = whole && (op[i].kind != CHT_OP_PAIR_DEL || pairs[at[i]].key != 0);
    assert_int_equal(commit(op, n, flags), flags != 0 && !whole ? CHT_BATCH_FAILED : CHT_OK);
    if (flags != 0 && !whole)
        return;
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(op[i].rc, op[i].kind == CHT_OP_PAIR_DEL && pairs[at[i]].key == 0 ? CHT_PAIR_NOT_FOUND
                                                                                          : CHT_OK);
        apply(&pairs[at[i]], &op[i], wall);
    }
}

static void test_model(void **state)
{
    (void)state;
    struct cht_rng r;
    const char *seed = getenv("CHT_TEST_SEED");
    unsigned steps = getenv("CHT_TEST_LONG") != NULL ? 200000 : 3000;
    cht_rng_seed(&r, seed != NULL ? strtoull(seed, NULL, 10) : 15);
    memset(pairs, 0, sizeof pairs);
    gone_n = 0;
    for (unsigned i = 0; i < NAMES; i++)
        (void)snprintf(pairs[i].name, sizeof pairs[i].name, "%c%03u", 'a' + (int)(i % 3), i);
    for (unsigned step = 0; step < steps; step++) {
        uint64_t what = cht_rng_below(&r, 100);
        random_commit(&r, step);
        if (what < 70)
            pass(cht_rng_below(&r, 400));
        look((unsigned)cht_rng_below(&r, 8));
        if (what == 80)
            must(cht_store_checkpoint(s, &err));
        if (what == 81) {
            cht_env_abandon(env);
            open_it();
        } else if (what == 82) {
            must(cht_env_close(env, &err));
            open_it();
        }
    }
    sort_out();
    for (unsigned i = 0; i < 7; i++)
        look(i);
    pass(4000);
    sort_out();
    assert_int_equal(count(""), alive(""));
    assert_int_equal(left(), 0);
}

/* ---- single questions ------------------------------------------------------------------------------------------------- */

static void test_to_the_millisecond(void **state)
{
    (void)state;
    uint64_t key = put("n", "v", SECOND);
    pass(SECOND - 1);
    assert_int_equal(count(""), 1);
    must(cht_store_get(s, key, NULL, NULL, &err));
    pass(1);
    assert_int_equal(cht_store_get(s, key, NULL, NULL, &err), CHT_KEY_NOT_FOUND);
    assert_int_equal(count(""), 0);
}

/* A put makes it lasting, a put that keeps the end keeps it, a mapping makes it lasting, an edit of the value leaves it. */
static void test_what_writes_do(void **state)
{
    (void)state;
    (void)put("put", "v", SECOND);
    (void)put("put", "w", 0);
    uint64_t key = put("edit", "v", SECOND), other = put("set", "v", SECOND);
    (void)put("renewed", "v", SECOND);
    (void)put("longer", "v", SECOND);
    struct cht_op ops[] = {
        {.kind = CHT_OP_EDIT, .key = key, .value = str("w")},
        {.kind = CHT_OP_PAIR_SET, .name = str("set"), .key = other},
        {.kind = CHT_OP_PAIR_PUT,
         .name = str("renewed"),
         .value = str("w"),
         .ttl_ms = 5 * SECOND,
         .keep_end = true},
        {.kind = CHT_OP_PAIR_PUT, .name = str("longer"), .value = str("w"), .ttl_ms = 5 * SECOND},
        {.kind = CHT_OP_PAIR_PUT,
         .name = str("fresh"),
         .value = str("w"),
         .ttl_ms = SECOND,
         .keep_end = true},
    };
    must(commit(ops, 5, 0));
    pass(SECOND);
    struct cht_op reads[] = {
        {.kind = CHT_OP_PAIR_READ, .name = str("put")},
        {.kind = CHT_OP_PAIR_READ, .name = str("set")},
        {.kind = CHT_OP_PAIR_READ, .name = str("longer")},
        {.kind = CHT_OP_PAIR_READ, .name = str("edit")},
        {.kind = CHT_OP_PAIR_READ, .name = str("renewed")},
        {.kind = CHT_OP_PAIR_READ, .name = str("fresh")},
        {.kind = CHT_OP_READ, .key = key},
    };
    must(commit(reads, 7, 0));
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(reads[i].rc, i < 3 ? CHT_OK : CHT_PAIR_NOT_FOUND);
    assert_int_equal(reads[6].rc, CHT_KEY_NOT_FOUND);
}

/* A condition meets what has ended as what is not there; a name that had ended is new. */
static enum cht_rc decide_absent(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                                 struct cht_err *e)
{
    (void)ask;
    (void)op;
    return found->mapped ? CHT_FAIL(e, CHT_PRECONDITION_FAILED, "there") : CHT_OK;
}

/* An end by the clock, of a pair that is mapped: kept across a crash; one that has been takes both away at once. */
static void test_until(void **state)
{
    (void)state;
    uint64_t key = put("from", "value", 0), at = wall + 5000;
    struct cht_op ops[] = {{.kind = CHT_OP_PAIR_SET, .name = str("to"), .key = key, .until_ms = at},
                           {.kind = CHT_OP_PAIR_READ, .name = str("to")}};
    must(commit(ops, 2, CHT_COMMIT_ATOMIC));
    assert_int_equal(ops[1].ends, at);
    cht_env_abandon(env);
    open_it();
    assert_int_equal(left(), 1);
    struct cht_pair_value pv = {.mapping = true};
    must(cht_store_pair_value_soon(s, str("to"), &pv, NULL, &err));
    assert_int_equal(pv.ends, at);
    pass(4999);
    assert_int_equal(count(""), 2);
    pass(1);
    assert_int_equal(count(""), 1);
    assert_int_equal(cht_store_get(s, key, NULL, NULL, &err), CHT_KEY_NOT_FOUND);

    key = put("other", "value", 0);
    struct cht_op past[] = {
        {.kind = CHT_OP_PAIR_SET, .name = str("past"), .key = key, .until_ms = 1},
        {.kind = CHT_OP_PAIR_SET, .name = str("far"), .key = key, .until_ms = UINT64_MAX}};
    must(commit(past, 2, CHT_COMMIT_UNORDERED));
    assert_int_equal(cht_store_get(s, key, NULL, NULL, &err), CHT_KEY_NOT_FOUND);
    assert_int_equal(cht_store_pair_value_soon(s, str("past"), &pv, NULL, &err), CHT_PAIR_NOT_FOUND);
    must(cht_store_pair_value_soon(s, str("far"), &pv, NULL, &err));
    assert_int_equal(pv.ends, (UINT64_C(1) << 48) - 1);
    struct cht_op lasting = {.kind = CHT_OP_PAIR_SET, .name = str("far"), .key = key};
    must(commit(&lasting, 1, 0));
    assert_int_equal(left(), 0);
}

static void test_conditions(void **state)
{
    (void)state;
    struct cht_ask absent = {.decide = decide_absent};
    uint64_t key = put("lock", "a", SECOND);
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = str("lock"), .value = str("b"), .ttl_ms = SECOND, .ask = &absent};
    struct cht_op again = op;
    must(commit(&op, 1, 0));
    assert_int_equal(op.rc, CHT_PRECONDITION_FAILED);
    pass(SECOND);
    must(commit(&again, 1, 0));
    must(again.rc);
    assert_true(again.created && again.key != key);
    struct cht_op del = {.kind = CHT_OP_PREFIX_DEL, .name = str("lo"), .with_values = true};
    pass(SECOND);
    must(commit(&del, 1, 0));
    assert_int_equal(del.pairs, 0);
}

/* Set back while it runs, and over a restart: what is gone stays so, and ends are met on time by the clock that goes on. */
static void test_clock_set_back(void **state)
{
    (void)state;
    (void)put("a", "v", 10 * SECOND);
    (void)put("b", "v", 20 * SECOND);
    pass(10 * SECOND);
    wall -= 3600 * SECOND;
    assert_int_equal(count("a"), 0);
    pass(5 * SECOND);
    assert_int_equal(count(""), 1);
    must(cht_env_close(env, &err));
    steady = 77; /* another boot */
    open_it();
    assert_int_equal(count("a"), 0);
    assert_int_equal(count("b"), 1);
    pass(5 * SECOND);
    assert_int_equal(count("b"), 0);
    (void)put("c", "v", 10 * SECOND);
    pass(4 * SECOND);
    (void)put("d", "v", 10 * SECOND); /* notes the clock */
    cht_env_abandon(env);
    wall -= 86400 * SECOND;
    open_it();
    pass(6 * SECOND - 1);
    assert_int_equal(count("c"), 1);
    pass(1);
    assert_int_equal(count("c"), 0);
}

/* A database in which nothing ends keeps its format; the first end changes it, on the disk, before it is answered. */
static unsigned version_on_disk(const char *path)
{
    struct cht_file *f;
    uint8_t head[12];
    must(cht_io_open(simdisk_io(disk), path, CHT_OPEN_RDONLY, &f, &err));
    must(cht_file_read(f, head, sizeof head, 0, &err));
    cht_file_close(f);
    return head[8];
}

static void test_format(void **state)
{
    (void)state;
    (void)put("lasting", "v", 0);
    must(cht_store_checkpoint(s, &err));
    assert_int_equal(version_on_disk("/a/default/shard-000/pairs"), 1);
    (void)put("ending", "v", SECOND);
    assert_int_equal(version_on_disk("/a/default/shard-000/pairs"), 3);
    assert_int_equal(version_on_disk("/b/default/shard-001/pairs"), 3);
}

/* Nobody reads: the tick has it removed. */
static void test_background(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        (void)put(name, "v", SECOND);
    }
    assert_int_equal(left(), 5000);
    pass(SECOND);
    cht_env_quiet(env);
    struct cht_store_stats st = {0};
    for (unsigned i = 0; i < 20000 && st.ended < 5000; i++) { /* counted after they have gone */
        (void)usleep(5000);
        must(cht_store_stats(s, &st, &err));
    }
    assert_int_equal(left(), 0);
    assert_int_equal(st.ending, 0);
    assert_int_equal(st.ended, 5000);
    assert_int_equal(st.pairs, 0);
    assert_int_equal(st.values, 0);
}

/* An answer that was kept does not outlive a pair that it counted. */
static void test_watches(void **state)
{
    (void)state;
    struct cht_watch *near, *far;
    (void)put("near:1", "v", SECOND);
    (void)put("far:1", "v", 0);
    must(cht_watch_new(s, str("near:"), &near, &err));
    must(cht_watch_new(s, str("far:"), &far, &err));
    uint64_t n = cht_watch_begin(near, 1), f = cht_watch_begin(far, 1);
    cht_watch_end(near);
    cht_watch_end(far);
    assert_true(cht_store_settle(s, false));
    pass(SECOND);
    assert_false(cht_store_settle(s, false));
    assert_true(cht_store_settle(s, true));
    assert_int_not_equal(cht_watch_version(near), n);
    assert_int_equal(cht_watch_version(far), f);
    cht_watch_free(near);
    cht_watch_free(far);
}

/* ---- readers beside the removal ------------------------------------------------------------------------------------------ */

static _Atomic bool stop;
static _Atomic uint64_t born; /* pairs put so far, each of one second */

static void *reader(void *arg)
{
    struct cht_buf b = {0};
    struct cht_err e = {0};
    uint64_t gone = 0, which = (uint64_t)(uintptr_t)arg;
    while (!stop) {
        uint64_t n, from = born;
        char name[16];
        if (which == 0) {
            must(cht_store_count(s, str(""), &n, &e));
            assert_true(n <= born + 1 - gone);
        } else {
            (void)snprintf(name, sizeof name, "n%05u", (unsigned)gone);
            uint32_t size;
            enum cht_rc rc = cht_store_pair_value(s, str(name), &n, &b, &size, &e);
            assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
            gone += rc == CHT_PAIR_NOT_FOUND && gone < from; /* once gone, gone */
            if (gone > 0) {
                (void)snprintf(name, sizeof name, "n%05u", (unsigned)gone - 1);
                assert_int_equal(cht_store_pair(s, str(name), &n, &e), CHT_PAIR_NOT_FOUND);
            }
        }
    }
    cht_buf_free(&b);
    return NULL;
}

static void test_side_by_side(void **state)
{
    (void)state;
    pthread_t t[3];
    stop = false;
    born = 0;
    for (uintptr_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)i), 0);
    for (unsigned i = 0; i < 1500; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%05u", i);
        (void)put(name, "value", SECOND);
        born = i + 1;
        pass(7);
    }
    pass(SECOND);
    assert_int_equal(count(""), 0);
    stop = true;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
}

static enum cht_rc pair_of(const char *name)
{
    uint64_t key;
    return cht_store_pair(s, str(name), &key, &err);
}

/* The order of time of every shard says that the name ends now. */
static void say_due(struct cht_pagefile *pairs_file, const char *name)
{
    uint8_t due[32];
    uint64_t ignored;
    for (unsigned i = 0; i < 6; i++)
        due[i] = (uint8_t)(wall >> (8 * (5 - i)));
    memcpy(due + 6, name, strlen(name));
    must(cht_trie_set_in(pairs_file, CHT_TRIE_DUE, (struct cht_str){due, 6 + strlen(name)}, 1, &ignored,
                         &err));
}

/* Files whose two maps contradict each other (E1): nobody waits for ever, and no pair goes that does not end. */
static void test_contradictions(void **state)
{
    (void)state;
    struct cht_db *db = cht_db(s);
    put("lasting", "1", 0);
    put("later", "2", 60 * SECOND);
    put("lost", "3", SECOND);
    put("usual", "4", SECOND);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        cht_shard_use_spare(sh, false);
        cht_shard_undo_begin(sh);
        (void)cht_expiry_drop(cht_shard_pairs(sh), wall + SECOND, str("lost"), &err);
        say_due(cht_shard_pairs(sh), "lasting");
        say_due(cht_shard_pairs(sh), "later");
        say_due(cht_shard_pairs(sh), "nobody");
        cht_shard_undo_end(sh);
    }
    pass(2 * SECOND);
    assert_int_equal(pair_of("lost"), CHT_PAIR_NOT_FOUND);
    assert_int_equal(pair_of("usual"), CHT_PAIR_NOT_FOUND);
    must(pair_of("lasting"));
    must(pair_of("later"));
    assert_int_equal(count(""), 3); /* it counts until somebody writes to it */
    put("lost", "5", 0);
    must(pair_of("lost"));
    pass(60 * SECOND);
    assert_int_equal(pair_of("later"), CHT_PAIR_NOT_FOUND);
    must(pair_of("lost"));
    must(pair_of("lasting"));
    assert_int_equal(count(""), 2);
}

/* A value so large that its bytes are written without the locks, in another shard than the pair's, whose end changes with it. */
static void test_large_elsewhere(void **state)
{
    struct cht_db *db = cht_db(s);
    uint8_t *bytes = malloc(CHT_LARGE_VALUE);
    uint64_t key = 0;
    (void)state;
    assert_non_null(bytes);
    memset(bytes, 'v', CHT_LARGE_VALUE);
    for (unsigned i = 0;
         key == 0 || cht_shard_of_key(key, db->nshards) == cht_shard_of_name(str("name"), db->nshards); i++) {
        struct cht_op insert = {.kind = CHT_OP_INSERT, .value = str("short")};
        assert_true(i < 10);
        must(commit(&insert, 1, 0));
        key = insert.key;
    }
    struct cht_op map = {.kind = CHT_OP_PAIR_SET, .name = str("name"), .key = key};
    must(commit(&map, 1, 0));
    for (unsigned i = 0; i < 4; i++) {
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("name"), .value = {bytes, CHT_LARGE_VALUE}};
        op.ttl_ms = i % 2 == 0 ? (i + 1) * SECOND : 0; /* it ends, lasts, ends, lasts */
        must(commit(&op, 1, 0));
        must(op.rc);
        assert_int_equal(op.key, key);
        assert_int_equal(left(), i % 2 == 0);
    }
    pass(10 * SECOND);
    must(pair_of("name"));
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = str("name"), .value = {bytes, CHT_LARGE_VALUE}, .ttl_ms = SECOND};
    must(commit(&op, 1, 0));
    must(op.rc);
    pass(2 * SECOND); /* has ended: the value goes, a new one is put */
    op.ttl_ms = 0;
    must(commit(&op, 1, 0));
    must(op.rc);
    assert_true(op.key != key);
    assert_int_equal(left(), 0);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_to_the_millisecond, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_writes_do, setup, teardown),
        cmocka_unit_test_setup_teardown(test_until, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_set_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_format, setup, teardown),
        cmocka_unit_test_setup_teardown(test_background, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watches, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contradictions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_side_by_side, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
