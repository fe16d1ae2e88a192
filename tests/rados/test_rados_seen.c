/* test_rados_seen: watches over RADOS (seen.h): whoever keeps an answer hears of every write that another server was answered for. Two
 * servers, two connections of one process. Needs CHT_RADOS_CONF (run.sh).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/sweep.h"
#include "os/thread.h"
#include "store/rados/rdb.h"
#include "store/rados/split.h"

#include "rados/support/two.h" /* last: its names are short */

static int setup(void **state)
{
    struct cht_rados_config cfg = two_config();
    (void)state;
    cfg.settle_ms = 300;
    two_new_name('s');
    two_open(cfg, 1);
    two_join();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    two_close();
    return 0;
}

static void put(struct cht_store *s, const char *pair, const char *value)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = str(value)};
    must(run(s, &op, 1, 0));
}

/* ---- what is heard of ------------------------------------------------------------------------------------------------ */

static struct cht_watch *w;
static uint64_t held; /* the version of an answer */

static void keep_answer(void)
{
    assert_true(cht_store_settle(two, true));
    held = cht_watch_begin(w, 1);
    cht_watch_end(w);
}

static bool holds(void)
{
    assert_false(cht_store_settle(two, false)); /* without asking nobody knows */
    (void)cht_store_settle(two, true);
    return cht_watch_version(w) == held;
}

static void heard(const char *what)
{
    if (holds())
        fail_msg("%s was not heard of", what);
    keep_answer();
    for (unsigned i = 0; i < 3; i++) {
        if (!holds())
            fail_msg("after %s an answer does not hold, and nobody writes", what);
    }
}

/* Whatever kind of write, by which server it was: the next look tells. */
static void test_kinds(void **state)
{
    (void)state;
    must(cht_watch_new(two, str("a:"), &w, &err));
    keep_answer();
    assert_true(holds());
    assert_true(cht_watch_memory(w) < 8192); /* there is no filter, however many pairs there are */
    for (unsigned i = 0; i < 2; i++) {
        struct cht_store *s = i == 0 ? one : two;
        struct cht_op edit = {.kind = CHT_OP_INSERT, .value = str("new")};
        put(s, "a:1", i == 0 ? "v" : "w");
        heard("a new pair or value");
        must(run(s, &edit, 1, 0));
        heard("an insert");
        uint64_t key = edit.key;
        edit = (struct cht_op){.kind = CHT_OP_EDIT, .key = key, .value = str("wen")};
        must(run(s, &edit, 1, 0));
        heard("an edit");
        struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("a:2"), .key = key};
        must(run(s, &set, 1, 0));
        heard("a mapped name");
        struct cht_op del = {.kind = CHT_OP_DELETE, .key = key};
        must(run(s, &del, 1, 0));
        heard("a deleted value");
        struct cht_op many[16];
        char names[16][8];
        for (unsigned k = 0; k < 16; k++) {
            (void)snprintf(names[k], sizeof names[k], "b:%u", k);
            many[k] = (struct cht_op){
                .kind = CHT_OP_PAIR_PUT, .name = str(names[k]), .value = str(i == 0 ? "1" : "2")};
        }
        must(run(s, many, 16, CHT_COMMIT_ATOMIC));
        heard("an atomic commit over shards");
        struct cht_op unmap = {.kind = CHT_OP_PAIR_DEL, .name = str("a:2")};
        must(run(s, &unmap, 1, 0));
        heard("a name that is gone");
    }
    struct cht_op prefix = {.kind = CHT_OP_PREFIX_DEL, .name = str("b:"), .with_values = true};
    must(run(one, &prefix, 1, 0));
    heard("a deleted prefix");
    cht_watch_free(w);
}

/* V3: a division is heard of, and then writes to the shard that it made, by a server that knew nothing of it. */
static void test_division(void **state)
{
    (void)state;
    char names[64][8];
    for (unsigned i = 0; i < 64; i++) {
        (void)snprintf(names[i], sizeof names[i], "a:%u", i);
        put(one, names[i], "1");
    }
    must(cht_watch_new(two, str("a:"), &w, &err));
    keep_answer();
    for (unsigned s = 0; s < 4; s++) {
        must(cht_split(cht_rdb(one), s, &err));
        heard("a division");
    }
    assert_int_equal(cht_rdb_map(cht_rdb(two))->shards, 8);
    for (unsigned i = 0; i < 64; i++) {
        put(one, names[i], "2");
        if (holds())
            fail_msg("pair %u", i);
        keep_answer();
    }
    cht_watch_free(w);
}

static unsigned looked;
static void look_at(const char *what)
{
    if (strcmp(what, "commit") ==
        0) { /* all shards are locked, nothing is committed: rows are as they were */
        keep_answer();
        assert_false(holds());
        keep_answer();
        looked |= 1;
    } else if (strcmp(what, "apply") == 0) { /* committed: no shard has changed since then */
        if (holds())
            fail_msg("an answer from before a commit holds after it");
        keep_answer();
        looked |= 2;
    }
}

/* V2: what was read between the lock and the commit of a transaction does not hold after it. */
static void test_transaction(void **state)
{
    (void)state;
    must(cht_watch_new(two, str("a:"), &w, &err));
    keep_answer();
    struct cht_op ops[8];
    char names[8][8];
    for (unsigned i = 0; i < 8; i++) {
        (void)snprintf(names[i], sizeof names[i], "a:%u", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str("1")};
    }
    at_step = look_at;
    looked = 0;
    must(run(one, ops, 8, CHT_COMMIT_ATOMIC));
    at_step = NULL;
    assert_int_equal(looked, 3);
    heard("what was done after the commit");
    cht_watch_free(w);
}

/* V4, and the end: a database that is gone, no memory. */
static void test_failures(void **state)
{
    (void)state;
    struct cht_watch *all[CHT_WATCH_MAX], *more;
    for (unsigned i = 0; i < CHT_WATCH_MAX; i++)
        must(cht_watch_new(two, str(""), &all[i], &err));
    assert_int_equal(cht_watch_new(two, str(""), &more, &err), CHT_OVERLOADED);
    for (unsigned i = 1; i < CHT_WATCH_MAX; i++)
        cht_watch_free(all[i]);
    w = all[0];
    keep_answer();
    assert_true(holds());
    cht_alloc_fail_at(1, false);
    (void)cht_store_settle(two, true);
    cht_alloc_fail_at(0, false);
    assert_true(cht_watch_version(w) != held);
    keep_answer();
    must(cht_env_drop(envs[0], name, &err));
    assert_false(holds());
    keep_answer();
    assert_false(holds());
    assert_false(cht_watch_closed(w));
    bool closed;
    must(cht_env_release(envs[1], name, &closed, &err));
    assert_true(cht_watch_closed(w) && cht_watch_version(w) != held);
    cht_watch_free(w);
}

static _Atomic bool has_looked, goes_on;
static void stand_still(const char *what)
{
    if (strcmp(what, "looked") != 0 || atomic_exchange(&has_looked, true))
        return;
    while (!atomic_load(&goes_on))
        cht_sleep_ns(UINT64_C(1000000));
}

static void *look(void *arg) { return cht_store_settle(arg, true) ? arg : NULL; }

/* V6: the look of another is enough only if it was begun after the question: here one has looked, and is not at its end, when there is a write. */
static void test_shared(void **state)
{
    (void)state;
    struct cht_thread first, second;
    must(cht_watch_new(one, str("a:"), &w, &err));
    assert_true(cht_store_settle(one, true));
    held = cht_watch_begin(w, 1);
    cht_watch_end(w);
    atomic_store(&has_looked, false);
    atomic_store(&goes_on, false);
    at_step = stand_still;
    must(cht_thread_start(&first, "first", look, one, &err));
    while (!atomic_load(&has_looked))
        cht_sleep_ns(UINT64_C(1000000));
    put(two, "a:1", "v");
    must(cht_thread_start(&second, "second", look, one, &err));
    atomic_store(&goes_on, true);
    cht_thread_join(&second);
    assert_true(cht_watch_version(w) != held);
    cht_thread_join(&first);
    at_step = NULL;
    uint64_t looks = atomic_load(&cht_rdb(one)->seen.looks);
    assert_true(cht_store_settle(one, true));
    assert_int_equal(atomic_load(&cht_rdb(one)->seen.looks), looks + 1);
    cht_watch_free(w);
}

static void remove_by_other(const char *what)
{
    if (strcmp(what, "looked") != 0 || atomic_exchange(&has_looked, true))
        return;
    assert_true(cht_store_settle(two, true));
}

static void keep_first(void) /* of `one`, and nothing is removed before */
{
    (void)cht_seen_look(cht_rdb(one));
    held = cht_watch_begin(w, 1);
    cht_watch_end(w);
}

/* V7: a pair that had ended when somebody asked, and that another server removes after the look. */
static void test_removed_by_others(void **state)
{
    (void)state;
    struct cht_op lasts = {.kind = CHT_OP_PAIR_PUT, .name = str("a:l"), .value = str("v"), .ttl_ms = 3600000};
    struct cht_op ends = {.kind = CHT_OP_PAIR_PUT, .name = str("a:e"), .value = str("v"), .ttl_ms = 1};
    must(cht_watch_new(one, str("a:"), &w, &err));
    must(run(two, &lasts, 1, 0));
    keep_first();
    assert_true(cht_store_settle(one, true));
    assert_true(cht_watch_version(w) == held); /* nothing has ended */
    must(run(two, &ends, 1, 0));
    keep_first();
    while (cht_wall_ns() / 1000000 <= ends.ends)
        cht_sleep_ns(UINT64_C(1000000));
    atomic_store(&has_looked, false);
    at_step = remove_by_other;
    assert_true(cht_store_settle(one, true));
    at_step = NULL;
    assert_true(atomic_load(&has_looked));
    assert_true(cht_watch_version(w) != held);
    cht_watch_free(w);
}

/* ---- under load ------------------------------------------------------------------------------------------------------ */

#define NAMES 12u

static _Atomic uint64_t
    acked[2]; /* what a writer was answered for: every name of its prefix has this number at least */
static _Atomic bool over;
static _Atomic unsigned hits, sums, stale, failed;

/* By both servers in turn: atomic commits, or one write after the other; now and then nothing, until an answer has held. */
static void *write_numbers(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct cht_op ops[NAMES];
    char names[NAMES][8], value[24];
    for (uint64_t n = 1; !atomic_load(&over); n++) {
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)n);
        for (unsigned i = 0; i < NAMES; i++) {
            (void)snprintf(names[i], sizeof names[i], "%c:%u", me == 0 ? 'a' : 's', i);
            ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(value)};
        }
        if (run(n % 2 == 0 ? one : two, ops, NAMES, me == 0 ? CHT_COMMIT_ATOMIC : CHT_COMMIT_UNORDERED) !=
            CHT_OK)
            atomic_fetch_add(&failed, 1);
        else
            atomic_store(&acked[me], n);
        unsigned held_before = atomic_load(&hits);
        while (n % 8 == 0 && atomic_load(&hits) == held_before && !atomic_load(&over))
            cht_sleep_ns(UINT64_C(1000000));
    }
    return NULL;
}

static bool divided(void) { return cht_rdb_map(cht_rdb(one))->shards > 4; }

/* A shard that is written to all the time may be busy each time it is asked, and its second half is not there then. */
static void *divide(void *arg)
{
    (void)arg;
    for (unsigned i = 0; (i < 8 || !divided()) && !atomic_load(&over); i++) {
        cht_sleep_ns(UINT64_C(150000000));
        enum cht_rc rc = cht_split(cht_rdb(one), i % 8, NULL);
        if (rc != CHT_OK && rc != CHT_DATABASE_BUSY && rc != CHT_INVALID_ARGUMENT)
            atomic_fetch_add(&failed, 1);
    }
    return NULL;
}

struct sum {
    uint64_t least, n;
};
static bool add_up(void *ctx, const struct cht_entry *e, size_t n)
{
    struct sum *s = ctx;
    for (size_t i = 0; i < n; i++) {
        char text[24] = "";
        memcpy(text, e[i].value, e[i].value_len < sizeof text ? e[i].value_len : 0);
        uint64_t v = strtoull(text, NULL, 10);
        s->least = s->n == 0 || v < s->least ? v : s->least;
        s->n++;
        cht_watch_note(w, e[i].key);
    }
    return true;
}

/* A cache as that of aggregates: an answer is given out while its version holds. It never misses what was acknowledged before it was asked. */
static void *ask(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct cht_store *s = two;
    struct sum kept = {0};
    uint64_t version = 0;
    while (!atomic_load(&over)) {
        uint64_t least = atomic_load(&acked[me]);
        (void)cht_store_settle(s, true);
        if (cht_watch_version(w) == version) {
            atomic_fetch_add(&hits, 1);
        } else {
            struct cht_sweep_config cfg = {
                .prefix = str(me == 0 ? "a:" : "s:"), .visit = add_up, .ctx = &kept};
            kept = (struct sum){0};
            version = cht_watch_begin(w, 1);
            enum cht_rc rc = cht_store_sweep(s, &cfg, NULL);
            cht_watch_end(w);
            if (rc != CHT_OK) {
                atomic_fetch_add(&failed, 1);
                version = 0;
                continue;
            }
        }
        atomic_fetch_add(&sums, 1);
        if (least > 0 && (kept.least < least || kept.n != NAMES))
            atomic_fetch_add(&stale, 1);
    }
    return NULL;
}

static bool enough(void)
{
    return atomic_load(&hits) >= 20 && atomic_load(&acked[0]) > 0 && atomic_load(&acked[1]) > 0 && divided();
}

static void test_under_load(void **state)
{
    (void)state;
    struct cht_thread t[7];
    const char *seconds = getenv("CHT_TEST_LONG") != NULL ? "30" : "2";
    atomic_store(&over, false);
    atomic_store(&acked[0], 0);
    atomic_store(&acked[1], 0);
    must(cht_watch_new(two, str(""), &w, &err));
    for (uintptr_t i = 0; i < 2; i++)
        must(cht_thread_start(&t[i], "writer", write_numbers, (void *)i, &err));
    for (uintptr_t i = 0; i < 4; i++)
        must(cht_thread_start(&t[2 + i], "reader", ask, (void *)(i % 2), &err));
    must(cht_thread_start(&t[6], "divider", divide, NULL, &err));
    uint64_t end = cht_now_ns() + strtoull(seconds, NULL, 10) * UINT64_C(1000000000);
    while (cht_now_ns() < end || (!enough() && cht_now_ns() < end + UINT64_C(60000000000)))
        cht_sleep_ns(UINT64_C(20000000));
    atomic_store(&over, true);
    for (unsigned i = 0; i < 7; i++)
        cht_thread_join(&t[i]);
    print_message("%u answers, %u of them kept ones, after %llu and %llu writes; %u shards\n",
                  atomic_load(&sums), atomic_load(&hits), (unsigned long long)atomic_load(&acked[0]),
                  (unsigned long long)atomic_load(&acked[1]), cht_rdb_map(cht_rdb(two))->shards);
    assert_int_equal(atomic_load(&stale), 0);
    assert_int_equal(atomic_load(&failed), 0);
    assert_true(enough());
    cht_watch_free(w);
}

int main(void)
{
    if (!two_ready())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_division, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removed_by_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_under_load, setup, teardown),
    };
    cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
