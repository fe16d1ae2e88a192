/* test_rados_move: prefixes that are deleted within atomic commits (under.h), also while other servers write there; and the switch of links and
 * matrices (reduce/move.h), whose server ends before each step. Needs CHT_RADOS_CONF (run.sh).
 *
 * librados does not survive a fork, so each part of a test is a process of its own that connects by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cheetah/rados.h"
#include "reduce/move.h"

#define NAMES 60u
#define READ_BYTES ((size_t)64 << 10)
#define LONG_NAME 2000u

static const char *conf;
static char name[32];
static unsigned end_at, steps; /* of this process: the number of the step before which it ends; 0: none */

struct shared { /* by all processes of a test */
    _Atomic uint64_t made, gone;
    _Atomic bool over;
};
static struct shared *shared;

static void count_step(void *ctx, const char *step)
{
    (void)ctx;
    (void)step;
    if (end_at != 0 && ++steps == end_at)
        _exit(9);
}

static bool open_pool(struct cht_env **env, struct cht_store **s, struct cht_err *err)
{
    struct cht_rados_config cfg = {.pool = "cheetah",
                                   .conf = conf,
                                   .settle_ms = 300,
                                   .default_shards = 4,
                                   .read_bytes = READ_BYTES,
                                   .step = count_step};
    enum cht_rc rc = cht_rados_open(&cfg, env, err);
    if (rc == CHT_OK && cht_env_get(*env, name, s, err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 4, err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, err);
    }
    if (rc != CHT_OK)
        print_error("%s\n", err->msg);
    return rc == CHT_OK;
}

static pid_t start(bool (*fn)(struct cht_store *s), unsigned at)
{
    pid_t p = fork();
    if (p != 0)
        return p;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    bool good = open_pool(&env, &s, &err);
    end_at = at; /* from here on */
    good = good && fn(s);
    end_at = 0;
    if (good)
        good = cht_env_close(env, &err) == CHT_OK;
    _exit(good ? 0 : 1);
}

static int end_of(pid_t p)
{
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void in_process(bool (*fn)(struct cht_store *s)) { assert_int_equal(end_of(start(fn, 0)), 0); }

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    (void)snprintf(name, sizeof name, "m%u-%u", (unsigned)getpid(), n++);
    atomic_store(&shared->made, 0);
    atomic_store(&shared->over, false);
    return 0;
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static bool said(bool good, const char *what)
{
    if (!good)
        print_error("%s\n", what);
    return good;
}
#define CHECK(x) said((x), #x)

static uint64_t count(struct cht_store *s, const char *prefix)
{
    struct cht_err err = {0};
    uint64_t n = 0;
    if (cht_store_count(s, str(prefix), &n, &err) != CHT_OK)
        print_error("%s: %s\n", prefix, err.msg);
    return n;
}

static bool is(struct cht_store *s, const char *pair, const char *value)
{
    struct cht_buf b = {0};
    uint64_t key;
    enum cht_rc rc = cht_store_pair_value(s, str(pair), &key, &b, NULL, NULL);
    bool same = value == NULL ? rc == CHT_PAIR_NOT_FOUND
                              : rc == CHT_OK && b.len == strlen(value) && memcmp(b.data, value, b.len) == 0;
    cht_buf_free(&b);
    return same;
}

static struct cht_op put(const char *pair, const char *value)
{
    return (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = str(value)};
}

static struct cht_op drop(const char *prefix, bool values)
{
    return (struct cht_op){.kind = CHT_OP_PREFIX_DEL, .name = str(prefix), .with_values = values};
}

static enum cht_rc all(struct cht_store *s, struct cht_op *ops, size_t n)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = CHT_COMMIT_ATOMIC};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc == CHT_BATCH_FAILED ? ops[c.failed].rc : rc;
}

static char made[NAMES][24], value_of[NAMES][24];

static bool begin(struct cht_store *s)
{
    struct cht_op ops[NAMES + 3];
    for (unsigned i = 0; i < NAMES; i++) {
        (void)snprintf(made[i], sizeof made[i], "making:m:%u", i);
        (void)snprintf(value_of[i], sizeof value_of[i], "value %u", i);
        ops[i] = put(made[i], value_of[i]);
    }
    ops[NAMES] = put("made:m:0", "old");
    ops[NAMES + 1] = put("made:m:gone", "old");
    ops[NAMES + 2] = put("run:m", "all is made");
    struct cht_op clear = drop("", true);
    return CHECK(all(s, &clear, 1) == CHT_OK) && CHECK(all(s, ops, NAMES + 3) == CHT_OK);
}

/* ---- deleting a prefix within an atomic commit ----------------------------------------------------------------------- */

static bool delete_at_once(struct cht_store *s)
{
    struct cht_op first[] = {put("p:q:1", "a"), put("p:q:2", "b"), put("p:q:x:1", "c"), put("p:r", "d")};
    bool good = CHECK(all(s, first, 4) == CHT_OK);
    struct cht_op fails[] = {put("p:q:3", "e"), drop("p:q:", true), {.kind = CHT_OP_DELETE, .key = 4711}};
    good = CHECK(all(s, fails, 3) == CHT_KEY_NOT_FOUND) && good;
    good = CHECK(count(s, "p:q:") == 3 && is(s, "p:q:1", "a") && is(s, "p:q:3", NULL)) && good;
    /* under a prefix that is not counted; what was made before it in the commit goes, what comes after stays */
    struct cht_op some[] = {put("p:q:x:2", "e"), drop("p:q:x:", true), put("p:q:x:3", "f")};
    good = CHECK(all(s, some, 3) == CHT_OK && some[1].pairs == 2 && some[1].values == 2) && good;
    good = CHECK(is(s, "p:q:x:1", NULL) && is(s, "p:q:x:2", NULL) && is(s, "p:q:x:3", "f")) && good;
    good = CHECK(count(s, "p:q:") == 3) && good;
    struct cht_op names[] = {drop("p:", false), put("p:q:2", "new")}; /* the values stay under their keys */
    good = CHECK(all(s, names, 2) == CHT_OK && names[0].pairs == 4 && names[0].values == 0) && good;
    struct cht_op read = {.kind = CHT_OP_READ, .key = first[0].key};
    good = CHECK(all(s, &read, 1) == CHT_OK && is(s, "p:q:1", NULL) && is(s, "p:q:2", "new")) && good;
    struct cht_op everything[] = {drop("", true), drop("none:", true)};
    return CHECK(all(s, everything, 2) == CHT_OK && everything[0].pairs == 1 && count(s, "") == 0) && good;
}

static void test_at_once(void **state)
{
    (void)state;
    in_process(delete_at_once);
}

/* More bytes of names than one commit may look at: nothing is done. They go a part at a time. */
static bool too_many_bytes_of_names(struct cht_store *s)
{
    enum { N = READ_BYTES / LONG_NAME + 8 };
    static char names[N][LONG_NAME + 1];
    struct cht_op ops[N];
    for (unsigned i = 0; i < N; i++) {
        memset(names[i], 'n', LONG_NAME);
        int n = snprintf(names[i], sizeof names[i], "long:%u:%u:", i % 2, i);
        names[i][n] = 'n'; /* in place of the end */
        ops[i] = put(names[i], "v");
    }
    bool good = CHECK(all(s, ops, N) == CHT_OK);
    struct cht_op whole[] = {put("before", "1"), drop("long:", true)};
    good = CHECK(all(s, whole, 2) == CHT_BATCH_TOO_LARGE && whole[1].rc == CHT_BATCH_TOO_LARGE) && good;
    good = CHECK(count(s, "long:") == N && is(s, "before", NULL)) && good;
    struct cht_op parts[] = {drop("long:0:", true), put("before", "1")};
    good = CHECK(all(s, parts, 2) == CHT_OK && parts[0].pairs == (N + 1) / 2) && good;
    return CHECK(count(s, "long:") == N / 2 && is(s, "before", "1")) && good;
}

static void test_many_bytes_of_names(void **state)
{
    (void)state;
    in_process(too_many_bytes_of_names);
}

/* One name, which is there, or gives its place to another: their number stays, and so do all counters. */
static bool swap_names(struct cht_store *s)
{
    char old[32], new[32];
    uint64_t i = 0;
    while (!atomic_load(&shared->over)) {
        (void)snprintf(old, sizeof old, "swap:a:b:%llu", (unsigned long long)i);
        (void)snprintf(new, sizeof new, "swap:a:b:%llu", (unsigned long long)++i);
        struct cht_op ops[] = {{.kind = CHT_OP_PAIR_DEL, .name = str(old), .with_values = true},
                               put(new, "here")};
        enum cht_rc rc = all(s, ops, 2);
        if (rc == CHT_PAIR_NOT_FOUND) { /* it was deleted */
            rc = all(s, &ops[1], 1);
            atomic_fetch_add(&shared->made, 1);
        }
        if (rc != CHT_OK)
            return said(false, cht_rc_slug(rc));
        cht_sleep_ns(10000000); /* so that the other has its turn */
    }
    return true;
}

/* Whatever name is there, it goes; so none is left over. */
static bool delete_swapped(struct cht_store *s)
{
    uint64_t gone = 0, end = cht_now_ns() + 800000000;
    unsigned commits = 0;
    while (cht_now_ns() < end || (gone == 0 && commits < 1000)) {
        struct cht_op ops[] = {drop(++commits % 2 == 0 ? "swap:a:" : "swap:a:b:", true), put("mark", "x")};
        enum cht_rc rc = all(s, ops, 2);
        if (rc != CHT_OK && rc != CHT_OVERLOADED)
            return said(false, cht_rc_slug(rc));
        gone += rc == CHT_OK ? ops[0].pairs : 0;
    }
    atomic_store(&shared->gone, gone);
    print_message("%u commits deleted %llu names\n", commits, (unsigned long long)gone);
    return CHECK(gone > 0);
}

static bool none_is_left_over(struct cht_store *s)
{
    uint64_t put_there = atomic_load(&shared->made), there = count(s, "swap:a:");
    print_message("%llu made, %llu are there\n", (unsigned long long)put_there, (unsigned long long)there);
    return CHECK(there <= 1 && atomic_load(&shared->gone) + there == put_there);
}

static void test_while_names_change(void **state)
{
    (void)state;
    in_process(begin); /* it is made */
    pid_t other = start(swap_names, 0);
    int mine = end_of(start(delete_swapped, 0));
    atomic_store(&shared->over, true);
    assert_int_equal(end_of(other), 0);
    assert_int_equal(mine, 0);
    in_process(none_is_left_over);
}

/* ---- the switch ------------------------------------------------------------------------------------------------------ */

/* In parts: the memory is little. Without the lock that links take, which a server that ended keeps for half a minute. */
static enum cht_rc move(struct cht_store *s, bool anew, struct cht_err *err)
{
    struct reduce_params params = {.memory_max = 16 << 10};
    struct reduce_run run = {.store = s, .p = &params};
    struct cht_op first = drop("made:m:", true),
                  last = {.kind = CHT_OP_PAIR_DEL, .name = str("run:m"), .with_values = true};
    struct reduce_move m = {.from = {str("making:m:")},
                            .to = {str("made:m:")},
                            .n = 1,
                            .first = &first,
                            .n_first = anew,
                            .last = &last,
                            .n_last = 1,
                            .under_way = put("run:m", "under way"),
                            .bytes = 1 << 20};
    return reduce_move(&run, &m, err);
}

static bool switch_all(struct cht_store *s)
{
    struct cht_err err = {0};
    enum cht_rc rc = is(s, "run:m", NULL) ? CHT_OK : move(s, is(s, "run:m", "all is made"), &err);
    return said(rc == CHT_OK, cht_rc_slug(rc)) || said(false, err.msg);
}

/* The old ones and none of the new, or all of the new, under one name or the other. */
static bool no_mixture(struct cht_store *s)
{
    bool before = is(s, "run:m", "all is made"), done = is(s, "run:m", NULL);
    bool good = before ? CHECK(is(s, "made:m:0", "old") && is(s, "made:m:gone", "old") &&
                               count(s, "made:m:") == 2 && count(s, "making:m:") == NAMES)
                       : CHECK(is(s, "made:m:gone", NULL) && !is(s, "made:m:0", "old") &&
                               count(s, "made:m:") + count(s, "making:m:") == NAMES);
    for (unsigned i = 0; i < NAMES; i++) {
        char new[24], old[24], value[24];
        (void)snprintf(new, sizeof new, "made:m:%u", i);
        (void)snprintf(old, sizeof old, "making:m:%u", i);
        (void)snprintf(value, sizeof value, "value %u", i);
        good = CHECK(is(s, new, value) || (!done && is(s, old, value))) && good;
    }
    return good && CHECK(!done || count(s, "making:m:") == 0);
}

static bool is_done(struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    return CHECK(is(s, "run:m", NULL) && count(s, "made:m:") == NAMES && count(s, "") == NAMES) &&
           no_mixture(s) && CHECK(cht_store_stats(s, &st, &err) == CHT_OK && st.values == NAMES);
}

static void test_switch_cut_off(void **state)
{
    (void)state;
    unsigned at = 1, each = getenv("CHT_TEST_LONG") != NULL ? 1 : 3;
    int ended = 9;
    for (; ended == 9; at += each) {
        in_process(begin);
        ended = end_of(start(switch_all, at));
        in_process(no_mixture);
        in_process(switch_all); /* another server */
        in_process(is_done);
    }
    assert_int_equal(ended, 0);
    print_message("%u steps\n", at - each);
    assert_true(at > 12); /* several transactions */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_at_once, setup),
                                       cmocka_unit_test_setup(test_many_bytes_of_names, setup),
                                       cmocka_unit_test_setup(test_while_names_change, setup),
                                       cmocka_unit_test_setup(test_switch_cut_off, setup)};
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): skipped\n");
        return 0;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared == MAP_FAILED ? 1 : cmocka_run_group_tests_name("move", tests, NULL, NULL);
}
