/* test_rados_split: shards that are divided while all goes on, and by servers that end before each step of it. Needs CHT_RADOS_CONF (run.sh). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "os/thread.h"
#include "store/rados/care.h"
#include "store/rados/split.h"
#include "support/model.h"

static const char *conf;
static char name[32];

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static char stop_at[32];
static struct cht_rdb *closes; /* when the first long value is removed that no row names */
static void stop(void *ctx, const char *step)
{
    (void)ctx;
    if (closes != NULL && strcmp(step, "left-remove") == 0)
        atomic_store(&closes->closing, true);
    if (stop_at[0] != 0 && strcmp(step, stop_at) == 0)
        _exit(9);
}

static bool open_pool(struct cht_env **env, struct cht_store **s)
{
    struct cht_err err = {0};
    struct cht_rados_config cfg = {
        .pool = "cheetah", .conf = conf, .settle_ms = 300, .default_shards = 2, .step = stop};
    enum cht_rc rc = cht_rados_open(&cfg, env, &err);
    if (rc == CHT_OK && cht_env_get(*env, name, s, &err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 2, &err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, &err);
    }
    if (rc != CHT_OK)
        print_error("%s: %s\n", cht_rc_slug(rc), err.msg);
    return rc == CHT_OK;
}

static void new_name(void)
{
    static unsigned n;
    (void)snprintf(name, sizeof name, "d%u-%u", (unsigned)getpid(), n++);
}

/* ---- the map, without a cluster --------------------------------------------------------------------------------------- */

/* R3: wherever shards are divided, each bucket lies in one of them, and a division moves buckets to the new one only. */
static void test_map(void **state)
{
    (void)state;
    struct cht_map m, next;
    struct cht_rng r;
    cht_rng_seed(&r, 7);
    cht_map_init(&m, 2);
    assert_int_equal(m.shards, 4);
    while (m.shards < CHT_MAP_MAX) {
        unsigned i = (unsigned)cht_rng_below(&r, CHT_MAP_MAX);
        if (!cht_map_has(&m, i) || m.level[i] == CHT_MAP_LEVEL_MAX)
            continue;
        uint8_t levels[CHT_MAP_MAX];
        unsigned other = i + (1u << m.level[i]);
        memcpy(levels, m.level, sizeof levels);
        levels[i]++;
        levels[other] = levels[i];
        assert_true(cht_map_read(&next, 2, levels, sizeof levels));
        assert_int_equal(next.shards, m.shards + 1);
        for (uint32_t b = 0; b < CHT_ROW_BUCKETS; b += 17) {
            unsigned was = cht_map_locate(&m, b), now = cht_map_locate(&next, b);
            assert_true(cht_map_has(&next, now));
            assert_true(now == was || (was == i && now == other));
            assert_true(cht_map_in_class(now, was, m.level[was])); /* a class stays what it is */
        }
        levels[other] = CHT_MAP_NONE; /* a map with a hole */
        assert_false(cht_map_read(&next, 2, levels, sizeof levels));
        levels[other] = levels[i];
        assert_true(cht_map_read(&m, 2, levels, sizeof levels));
    }
    assert_false(cht_map_read(&next, 3, m.level, 17));
    for (unsigned i = 0; i < CHT_MAP_MAX; i++)
        assert_int_equal(cht_map_epoch(&m, i), 1 + CHT_MAP_LEVEL_MAX - 2);
}

/* ---- the model while shards are divided -------------------------------------------------------------------------------- */

static _Atomic bool over;
static _Atomic unsigned divided;

/* Another server (a connection of its own), which divides one shard after the other. */
static void *divide(void *arg)
{
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    (void)arg;
    if (!open_pool(&env, &s))
        return NULL;
    for (unsigned i = 0; !atomic_load(&over) && atomic_load(&divided) < 30; i = (i + 1) % 32) {
        enum cht_rc rc = cht_split(cht_rdb(s), i, &err);
        atomic_fetch_add(&divided, rc == CHT_OK);
        if (rc != CHT_OK && rc != CHT_INVALID_ARGUMENT && rc != CHT_DATABASE_BUSY)
            print_error("dividing %u: %s %s\n", i, cht_rc_slug(rc), err.msg);
        if (rc != CHT_INVALID_ARGUMENT)
            cht_sleep_ns(UINT64_C(30000000));
    }
    (void)cht_env_close(env, &err);
    return NULL;
}

/* S-1 to S-3: random commits of every kind, counts, scans and reads have the answers of the model while shards are divided by another server. */
static void test_model_divided(void **state)
{
    (void)state;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    struct cht_thread t;
    struct model m;
    struct cht_rng r;
    char why[300] = "";
    const char *ops_text = getenv("CHT_TEST_OPS");
    uint64_t ops = ops_text != NULL ? strtoull(ops_text, NULL, 10) : 700;
    new_name();
    assert_true(open_pool(&env, &s));
    assert_int_equal(cht_thread_start(&t, "divide", divide, NULL, &err), CHT_OK);
    cht_rng_seed(&r, 3);
    model_init(&m, 200, 3);
    m.sparse = true;
    for (uint64_t done = 0; done < ops;) {
        struct model_batch *b = malloc(sizeof *b);
        model_random_batch(&m, &r, 100000, b);
        struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
        enum cht_rc rc = cht_store_commit(s, &c);
        if (rc != CHT_OK && rc != CHT_BATCH_FAILED)
            fail_msg("%s: %s", cht_rc_slug(rc), c.err.msg);
        model_apply(&m, b, &c);
        done += b->count;
        model_batch_free(b);
        free(b);
        if (cht_rng_below(&r, 40) == 0 && model_compare(&m, s, why, sizeof why) != 0)
            fail_msg("after %llu operations: %s", (unsigned long long)done, why);
    }
    atomic_store(&over, true);
    cht_thread_join(&t);
    if (model_compare(&m, s, why, sizeof why) != 0)
        fail_msg("at the end: %s", why);
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    print_message("%u divisions, %u shards\n", atomic_load(&divided), st.shards);
    assert_int_equal(st.shards, 2 + atomic_load(&divided));
    assert_true(atomic_load(&divided) >= 3);
    model_free(&m);
    assert_int_equal(cht_env_drop(env, name, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

/* ---- a server that ends before each step -------------------------------------------------------------------------------- */

#define MANY 1500u
static char names[MANY][16];

static bool write_all(struct cht_store *s, const char *value)
{
    static struct cht_op ops[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "%c:%u", i % 2 == 0 ? 'a' : 'b', i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(value)};
    }
    struct cht_commit c = {.ops = ops, .count = MANY, .flags = CHT_COMMIT_UNORDERED};
    if (cht_store_commit(s, &c) != CHT_OK || c.failed > 0)
        print_error("%s: %zu failed\n", c.err.msg, c.failed);
    return c.rc == CHT_OK && c.failed == 0;
}

/* Each name once, in order, with this value; counters and the pages say the same. */
static bool all_are(struct cht_store *s, const char *value)
{
    struct cht_scan *scan;
    struct cht_entry e[64];
    struct cht_err err = {0};
    struct cht_store_stats st;
    size_t got = 1, seen = 0;
    uint64_t a = 0, b = 0, under = 0;
    char last[16] = "";
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true};
    if (cht_scan_open(s, &cfg, &scan, &err) != CHT_OK)
        return false;
    bool good = true;
    while (good && got > 0) {
        good = cht_scan_next(scan, e, 64, &got, &err) == CHT_OK;
        for (size_t i = 0; i < got && good; i++, seen++) {
            char text[16] = "";
            memcpy(text, e[i].name, e[i].name_len < 15 ? e[i].name_len : 15);
            good = strcmp(last, text) < 0 && e[i].value_len == strlen(value) &&
                   memcmp(e[i].value, value, e[i].value_len) == 0;
            memcpy(last, text, sizeof last);
        }
    }
    cht_scan_close(scan);
    good = good && seen == MANY && cht_store_count(s, str("a:"), &a, &err) == CHT_OK && a == MANY / 2 &&
           cht_store_count(s, str("b:"), &b, &err) == CHT_OK && b == MANY / 2 &&
           cht_store_count(s, str("b"), &under, &err) == CHT_OK && under == MANY / 2;
    good = good && cht_store_stats(s, &st, &err) == CHT_OK && st.pairs == MANY && st.values == MANY &&
           st.value_bytes == MANY * strlen(value);
    if (!good)
        print_error("%zu names, after %s; %llu and %llu (%llu) are counted; %s\n", seen, last,
                    (unsigned long long)a, (unsigned long long)b, (unsigned long long)under, err.msg);
    return good;
}

static int in_process(bool (*fn)(struct cht_store *s, const char *arg), const char *arg, const char *at)
{
    pid_t p = fork();
    if (p == 0) {
        struct cht_env *env;
        struct cht_store *s;
        struct cht_err err = {0};
        (void)snprintf(stop_at, sizeof stop_at, "%s", at);
        bool good = open_pool(&env, &s) && fn(s, arg);
        _exit(good && cht_env_close(env, &err) == CHT_OK ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Divides the first shard that has not the level; until it is done. */
static bool divide_one(struct cht_store *s, const char *arg)
{
    struct cht_err err = {0};
    for (unsigned tries = 0; tries < 20; tries++) {
        enum cht_rc rc = cht_split(cht_rdb(s), (unsigned)atoi(arg), &err);
        if (rc == CHT_OK)
            return true;
        if (rc != CHT_DATABASE_BUSY) {
            print_error("%s: %s\n", cht_rc_slug(rc), err.msg);
            return false;
        }
    }
    return false;
}

static bool level_is(struct cht_store *s, const char *arg)
{
    struct cht_err err = {0};
    return cht_rdb_reload(cht_rdb(s), &err) == CHT_OK &&
           cht_rdb_map(cht_rdb(s))->level[0] == (unsigned)atoi(arg);
}

/* S-1 to S-4: whatever step a server ends before, all names are there, once; they can be written; the shard can be divided afterwards. */
static void test_cut_division(void **state)
{
    (void)state;
    static const struct {
        const char *step;
        bool done;   /* it is decided: it is done, by whoever comes next */
        bool always; /* not in the long form only */
    } cuts[] = {
        {"split-record", false, false}, {"split-make", false, false},   {"split-lock", false, false},
        {"split-copy", false, false},   {"split-copying", false, true}, {"split-decide", false, false},
        {"split-map", true, false},     {"split-share", true, true},    {"split-open", true, false},
        {"split-end", true, false},     {"split-clean", true, false},   {"split-cleaning", true, true}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        char value[24];
        if (getenv("CHT_TEST_LONG") == NULL && !cuts[i].always)
            continue;
        new_name();
        (void)snprintf(value, sizeof value, "first-%zu", i);
        assert_int_equal(in_process(write_all, value, ""), 0);
        assert_int_equal(in_process(divide_one, "0", cuts[i].step), 9);
        assert_int_equal(in_process(all_are, value, ""), 0);
        (void)snprintf(value, sizeof value, "second-%zu", i);
        assert_int_equal(in_process(write_all, value, ""), 0);
        assert_int_equal(in_process(all_are, value, ""), 0);
        assert_int_equal(in_process(level_is, cuts[i].done ? "2" : "1", ""), 0);
        assert_int_equal(in_process(divide_one, "0", ""), 0);
        assert_int_equal(in_process(all_are, value, ""), 0);
        assert_int_equal(in_process(level_is, cuts[i].done ? "3" : "2", ""), 0);
    }
}

/* ---- many counters ------------------------------------------------------------------------------------------------------- */

#define COUNTED 70000u

static void open_one_shard(struct cht_env **env, struct cht_store **s, void (*step)(void *, const char *))
{
    struct cht_err err = {0};
    struct cht_rados_config cfg = {.pool = "cheetah", .conf = conf, .settle_ms = 300, .step = step};
    new_name();
    assert_int_equal(cht_rados_open(&cfg, env, &err), CHT_OK);
    assert_int_equal(cht_env_create(*env, name, 1, &err), CHT_OK);
    assert_int_equal(cht_env_get(*env, name, s, &err), CHT_OK);
}

/* S7 with more counters than an operation may have steps (65 535), which follow from names. */
static void test_many_counters(void **state)
{
    (void)state;
    if (getenv("CHT_TEST_LONG") == NULL)
        skip();
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    struct cht_op *ops = calloc(COUNTED, sizeof *ops);
    char(*text)[24] = calloc(COUNTED, sizeof *text);
    uint64_t n = 0, key;
    open_one_shard(&env, &s, NULL);
    for (unsigned i = 0; i < COUNTED; i++) {
        (void)snprintf(text[i], sizeof text[i], "%u:%u:x", i, i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(text[i]), .value = str("1")};
    }
    struct cht_commit c = {.ops = ops, .count = COUNTED, .flags = CHT_COMMIT_UNORDERED};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(c.failed, 0);
    enum cht_rc rc = cht_split(cht_rdb(s), 0, &err);
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err.msg);
    assert_int_equal(cht_rdb_map(cht_rdb(s))->shards, 2);
    assert_int_equal(cht_store_count(s, str(""), &n, &err), CHT_OK);
    assert_int_equal(n, COUNTED);
    for (unsigned i = 0; i < COUNTED; i += 997) {
        text[i][strlen(text[i]) - 1] = 0; /* the prefix */
        assert_int_equal(cht_store_count(s, str(text[i]), &n, &err), CHT_OK);
        assert_int_equal(n, 1);
        text[i][strlen(text[i])] = 'x';
        assert_int_equal(cht_store_pair(s, ops[i].name, &key, &err), CHT_OK);
        assert_int_equal(key, ops[i].key);
    }
    for (unsigned i = 0; i < COUNTED; i++)
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = ops[i].name, .key = 0};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(c.failed, 0); /* each is there */
    free(text);
    free(ops);
    assert_int_equal(cht_env_drop(env, name, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

static struct {
    struct cht_store *s; /* NULL: none are added */
    unsigned rows;
    size_t length; /* of a row's name */
} added;

/* Counters: 2 in the first shard, 1 in the new one. */
static void add_counters(void *ctx, const char *step)
{
    enum { PART = 1000 };
    static char row[PART][8000];
    const char *names_of[PART], *twos[PART], *ones[PART];
    size_t lens[PART], one[PART];
    char text[20];
    (void)ctx;
    if (added.s == NULL || strcmp(step, "split-copying") != 0)
        return;
    for (unsigned i = 0; i < added.rows;) {
        unsigned n = 0;
        for (; n < PART && i < added.rows; n++, i++) {
            memset(row[n], 'z', added.length);
            (void)snprintf(text, sizeof text, "C%06u::", i);
            memcpy(row[n], text, 9);
            names_of[n] = row[n];
            lens[n] = added.length;
            twos[n] = "2";
            ones[n] = "1";
            one[n] = 1;
        }
        struct cht_call call = cht_call_write(), other = cht_call_write();
        rados_write_op_omap_set2(call.w, names_of, twos, lens, one, n);
        rados_write_op_omap_set2(other.w, names_of, ones, lens, one, n);
        assert_int_equal(cht_call_run(&call, cht_rdb(added.s)->io, "s.0"), 0);
        assert_int_equal(cht_call_run(&other, cht_rdb(added.s)->io, "s.1"), 0);
    }
}

static void take_number(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    *(char *)ctx = value.n == 1 ? (char)value.p[0] : '?';
}

/* S7 with more counters than an operation may have steps (65 535), and then with more bytes than the cluster takes: nothing is divided
 * then, and nothing else is changed. */
static void test_added_counters(void **state)
{
    (void)state;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    const char *row = "C065999::z";
    size_t len = 10;
    char number = 0;
    open_one_shard(&env, &s, add_counters);
    assert_true(write_all(s, "x"));
    added.s = s;
    added.rows = 6500;
    added.length = 8000;
    assert_int_equal(cht_split(cht_rdb(s), 0, &err), CHT_BATCH_TOO_LARGE);
    assert_int_equal(cht_rdb_map(cht_rdb(s))->shards, 1);
    assert_true(all_are(s, "x"));
    assert_true(write_all(s, "y"));
    added.rows = 66000;
    added.length = len;
    enum cht_rc rc = cht_split(cht_rdb(s), 0, &err);
    added.s = NULL;
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err.msg);
    assert_int_equal(cht_rdb_map(cht_rdb(s))->shards, 2);
    assert_true(all_are(s, "y"));
    int r =
        cht_link_rows(cht_rdb(s)->io, "s.0", &(struct cht_rows_wanted){&row, &len, 1}, take_number, &number);
    assert_int_equal(r, 0);
    assert_int_equal(number, '1');
    assert_int_equal(cht_env_drop(env, name, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

/* ---- by itself ---------------------------------------------------------------------------------------------------------- */

/* cht_env_quiet divides what is too large, until nothing is. */
static void test_by_itself(void **state)
{
    (void)state;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    struct cht_store_stats st = {0};
    struct cht_rados_config cfg = {.pool = "cheetah", .conf = conf, .split_pairs = 400};
    new_name();
    assert_int_equal(cht_rados_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, name, 2, &err), CHT_OK);
    assert_int_equal(cht_env_get(env, name, &s, &err), CHT_OK);
    assert_true(write_all(s, "x"));
    for (unsigned i = 0; i < 300 && st.shards < 5; i++) { /* 1500 pairs */
        cht_env_quiet(env);
        cht_sleep_ns(UINT64_C(20000000));
        assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    }
    assert_true(st.shards >= 4);
    assert_true(all_are(s, "x"));
    assert_int_equal(cht_env_drop(env, name, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

/* ---- what crashes left --------------------------------------------------------------------------------------------------- */

static bool write_long(struct cht_store *s, const char *arg)
{
    uint8_t *v = calloc(1, 100000);
    struct cht_op ops[2] = {{.kind = CHT_OP_PAIR_PUT, .name = str("p"), .value = {v, 100000}},
                            {.kind = CHT_OP_PAIR_PUT, .name = str("q"), .value = {v, 100000}}};
    struct cht_commit c = {.ops = ops, .count = 2, .flags = CHT_COMMIT_ATOMIC};
    (void)arg;
    enum cht_rc rc = cht_store_commit(s, &c);
    free(v);
    return rc == CHT_OK;
}

static unsigned objects(struct cht_store *s, char kind)
{
    rados_list_ctx_t ctx;
    const char *object;
    unsigned n = 0;
    assert_int_equal(rados_nobjects_list_open(cht_rdb(s)->io, &ctx), 0);
    while (rados_nobjects_list_next(ctx, &object, NULL, NULL) == 0)
        n += object[0] == kind && object[1] == '.';
    rados_nobjects_list_close(ctx);
    return n;
}

/* D3: long values that no row names, transactions whose server ended and counters that are zero are removed; what is in use stays. */
static void test_left(void **state)
{
    (void)state;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    struct cht_buf b = {0};
    uint64_t key, n, removed;
    new_name();
    assert_int_equal(in_process(write_long, "", ""), 0);     /* two that stay */
    assert_int_equal(in_process(write_long, "", "lock"), 9); /* a transaction and two values */
    assert_true(open_pool(&env, &s));
    assert_int_equal(objects(s, 'v'), 4);
    assert_int_equal(objects(s, 't'), 1);
    struct cht_op put = {.kind = CHT_OP_PAIR_PUT, .name = str("gone:1:x"), .value = str("1")};
    struct cht_op del = {.kind = CHT_OP_PAIR_DEL, .name = str("gone:1:x"), .with_values = true};
    struct cht_commit c = {.ops = &put, .count = 1}, d = {.ops = &del, .count = 1};
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(cht_store_commit(s, &d), CHT_OK);
    assert_int_equal(cht_left_sweep(cht_rdb(s), 1000, &removed, &err), CHT_OK); /* the objects are younger */
    assert_int_equal(removed, 2);                                               /* gone: and gone:1: */
    assert_int_equal(objects(s, 'v'), 4);
    assert_int_equal(cht_left_sweep(cht_rdb(s), 0, &removed, &err), CHT_OK);
    assert_int_equal(
        removed,
        1); /* the transaction; the values are seen for the first time: their age is another clock's */
    assert_int_equal(objects(s, 'v'), 4);
    closes = cht_rdb(s); /* who drops the database, or ends, waits for one */
    assert_int_equal(cht_left_sweep(closes, 0, &removed, &err), CHT_CANCELLED);
    assert_int_equal(removed, 1);
    assert_int_equal(objects(s, 'v'), 3);
    atomic_store(&closes->closing, false);
    closes = NULL;
    assert_int_equal(cht_left_sweep(cht_rdb(s), 0, &removed, &err), CHT_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(objects(s, 'v'), 2);
    assert_int_equal(objects(s, 't'), 0);
    assert_int_equal(cht_store_pair_value(s, str("q"), &key, &b, NULL, &err), CHT_OK);
    assert_int_equal(b.len, 100000);
    assert_int_equal(cht_store_count(s, str("gone:"), &n, &err), CHT_OK);
    assert_int_equal(n, 0);
    assert_int_equal(cht_store_commit(s, &c), CHT_OK);
    assert_int_equal(cht_store_count(s, str("gone:1:"), &n, &err), CHT_OK);
    assert_int_equal(n, 1);
    cht_buf_free(&b);
    assert_int_equal(cht_env_drop(env, name, &err), CHT_OK);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
}

int main(void)
{
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_map)};
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_cut_division),   cmocka_unit_test(test_model_divided),
        cmocka_unit_test(test_by_itself),      cmocka_unit_test(test_many_counters),
        cmocka_unit_test(test_added_counters), cmocka_unit_test(test_left)};
    if (getenv("CHT_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    int failed = cmocka_run_group_tests_name("map", alone, NULL, NULL);
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): the other tests are skipped\n");
        return failed;
    }
    return failed + cmocka_run_group_tests_name("divided", all, NULL, NULL);
}
