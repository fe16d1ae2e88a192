/* test_rados_servers: several processes on one pool, and processes that end in the middle. Needs CHT_RADOS_CONF (run.sh).
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
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "os/thread.h"

#define NAMES 120u
#define ACCOUNTS 12u
#define RICH 1000

static const char *conf;
static char name[32];
static char stop_at[32]; /* of this process: the step before which it ends */

#define WRITERS 16u
#define VICTIM 4u /* these two write until they are killed */
#define VICTIM_OF_TWO 12u
#define SOME 10u /* that each has done at least, however busy the machine is */
struct shared {  /* by all processes of a test */
    _Atomic uint64_t key[NAMES];
    _Atomic unsigned created[NAMES], acked[NAMES], wrong;
    _Atomic uint64_t transfers, unknown;
    _Atomic unsigned done[WRITERS]; /* by each of those that write for a while */
};
static struct shared *shared;

static void stop(void *ctx, const char *step)
{
    (void)ctx;
    if (stop_at[0] != 0 && strcmp(step, stop_at) == 0)
        _exit(9);
}

static bool open_pool(struct cht_env **env, struct cht_store **s, struct cht_err *err)
{
    struct cht_rados_config cfg = {
        .pool = "cheetah", .conf = conf, .settle_ms = 300, .default_shards = 8, .step = stop};
    enum cht_rc rc = cht_rados_open(&cfg, env, err);
    if (rc == CHT_OK && cht_env_get(*env, name, s, err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 8, err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, err);
    }
    if (rc != CHT_OK)
        print_error("%s\n", err->msg);
    return rc == CHT_OK;
}

/* A process that runs fn; its exit code is 0 if fn returns true. */
static pid_t start(bool (*fn)(struct cht_store *s, void *arg), void *arg, const char *at)
{
    pid_t p = fork();
    if (p != 0)
        return p;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    (void)snprintf(stop_at, sizeof stop_at, "%s", at);
    bool good = open_pool(&env, &s, &err) && fn(s, arg);
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

static void in_process(bool (*fn)(struct cht_store *s, void *arg), void *arg)
{
    assert_int_equal(end_of(start(fn, arg, "")), 0);
}

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    (void)snprintf(name, sizeof name, "s%u-%u", (unsigned)getpid(), n++);
    memset(shared, 0, sizeof *shared);
    return 0;
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

/* ---- a transaction that is cut off before each of its steps -------------------------------------------------------- */

static char names[16][16];

static void fill(struct cht_op *ops, const char *value)
{
    for (int i = 0; i < 16; i++) { /* of all shards */
        (void)snprintf(names[i], sizeof names[i], "cut:%d", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(value)};
    }
}

static bool write_all(struct cht_store *s, void *arg)
{
    struct cht_op ops[16];
    fill(ops, arg);
    struct cht_commit c = {.ops = ops, .count = 16, .flags = CHT_COMMIT_ATOMIC};
    if (cht_store_commit(s, &c) != CHT_OK)
        print_error("%s\n", c.err.msg);
    return c.rc == CHT_OK;
}

/* All names have the value, and the counts are those of the names. */
static bool all_are(struct cht_store *s, void *arg)
{
    struct cht_op ops[16];
    struct cht_buf b = {0};
    struct cht_err err = {0};
    struct cht_store_stats st;
    uint64_t key, n = 0;
    bool good = true;
    fill(ops, "");
    for (int i = 0; i < 16; i++) {
        enum cht_rc rc = cht_store_pair_value(s, ops[i].name, &key, &b, NULL, &err);
        bool same = rc == CHT_OK && b.len == strlen(arg) && memcmp(b.data, arg, b.len) == 0;
        if (!same)
            print_error("name %d: rc %d, not %s\n", i, (int)rc, (const char *)arg);
        good = good && same;
    }
    good = good && cht_store_count(s, str("cut:"), &n, &err) == CHT_OK && n == 16;
    good = good && cht_store_stats(s, &st, &err) == CHT_OK && st.pairs == 16 && st.values == 16 &&
           st.value_bytes == 16 * strlen(arg);
    if (!good)
        print_error("%llu names; %s\n", (unsigned long long)n, err.msg);
    cht_buf_free(&b);
    return good;
}

/* X1 to X4: before the commit nothing of it is seen, after it all; either way the names can be written at once afterwards. */
static void test_cut_off(void **state)
{
    (void)state;
    static const struct {
        const char *step;
        bool done;
    } cuts[] = {{"create", false}, {"lock", false}, {"lock-last", false},
                {"commit", false}, {"apply", true}, {"remove", true}};
    char last[32] = "first";
    in_process(write_all, last);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        char next[32];
        (void)snprintf(next, sizeof next, "value-%zu", i);
        assert_int_equal(end_of(start(write_all, next, cuts[i].step)), 9);
        if (cuts[i].done)
            (void)snprintf(last, sizeof last, "%s", next);
        in_process(all_are, last);
        (void)snprintf(last, sizeof last, "after-%zu", i);
        in_process(write_all, last);
        in_process(all_are, last);
    }
    assert_int_equal(end_of(start(write_all, last, "unlock")), 0); /* that step is another's */
}

/* ---- upserts of the same names -------------------------------------------------------------------------------------- */

static void note(unsigned i, const struct cht_op *op)
{
    uint64_t none = 0;
    if (!atomic_compare_exchange_strong(&shared->key[i], &none, op->key) && none != op->key)
        atomic_fetch_add(&shared->wrong, 1);
    atomic_fetch_add(&shared->created[i], op->created);
    atomic_fetch_add(&shared->acked[i], 1);
}

static bool goes_on(unsigned who, uint64_t end)
{
    bool wanted = who == VICTIM || who == VICTIM_OF_TWO || atomic_load(&shared->done[who]) < SOME;
    return cht_now_ns() < end + (wanted ? UINT64_C(60000000000) : 0);
}

static void kill_in_the_middle(pid_t p, unsigned who)
{
    for (unsigned i = 0; i < 6000 && atomic_load(&shared->done[who]) < SOME; i++)
        cht_sleep_ns(UINT64_C(10000000));
    assert_true(atomic_load(&shared->done[who]) >= SOME);
    assert_int_equal(kill(p, SIGKILL), 0);
}

struct upserting {
    struct cht_store *s;
    unsigned who;
    uint64_t seed, ns;
    bool good;
};

static void *upsert(void *arg)
{
    struct upserting *u = arg;
    struct cht_rng r;
    char text[32], value[32];
    uint64_t end = cht_now_ns() + u->ns;
    cht_rng_seed(&r, u->seed);
    u->good = true;
    while (goes_on(u->who, end) && u->good) {
        unsigned i = (unsigned)cht_rng_below(&r, NAMES);
        (void)snprintf(text, sizeof text, "up:%u:x", i);
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)cht_rng_next(&r));
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(text), .value = str(value)};
        struct cht_commit c = {.ops = &op, .count = 1};
        enum cht_rc rc = cht_store_commit(u->s, &c);
        if (rc == CHT_OK && op.rc == CHT_OK) {
            note(i, &op);
            atomic_fetch_add(&shared->done[u->who], 1);
        } else if (rc == CHT_TIMEOUT)
            atomic_fetch_add(&shared->unknown, 1);
        else {
            print_error("upsert: %d %d %s\n", (int)rc, (int)op.rc, c.err.msg);
            u->good = false;
        }
    }
    return NULL;
}

static uint64_t race_ns = UINT64_C(1200000000);

static bool upsert_many(struct cht_store *s, void *arg)
{
    struct upserting u[4];
    struct cht_thread t[4];
    bool good = true;
    for (unsigned i = 0; i < 4; i++) {
        u[i] = (struct upserting){s, (unsigned)(uintptr_t)arg, (uint64_t)(uintptr_t)arg * 100 + i, race_ns,
                                  false};
        if (cht_thread_start(&t[i], "upsert", upsert, &u[i], NULL) != CHT_OK)
            return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        cht_thread_join(&t[i]);
        good = good && u[i].good;
    }
    return good;
}

/* The database is made before several want to make it. */
static bool check_empty_is_made(struct cht_store *s, void *arg)
{
    uint64_t n = 1;
    (void)arg;
    return cht_store_count(s, str(""), &n, NULL) == CHT_OK && n == 0;
}

static bool check_upserts(struct cht_store *s, void *arg)
{
    struct cht_err err = {0};
    struct cht_store_stats st;
    uint64_t n = 0, there = 0, acks = 0;
    bool good = true;
    char text[32];
    for (unsigned i = 0; i < NAMES; i++) {
        uint64_t key = 0;
        (void)snprintf(text, sizeof text, "up:%u:x", i);
        enum cht_rc rc = cht_store_pair(s, str(text), &key, &err);
        there += rc == CHT_OK;
        acks += shared->acked[i];
        bool one = rc == CHT_OK ? shared->key[i] == 0 || shared->key[i] == key : shared->acked[i] == 0;
        if (!one || shared->created[i] > 1)
            print_error("name %u: rc %d, key %llu, told %llu, created %u\n", i, (int)rc,
                        (unsigned long long)key, (unsigned long long)shared->key[i], shared->created[i]);
        good = good && one && shared->created[i] <= 1;
    }
    good = good && cht_store_count(s, str("up:"), &n, &err) == CHT_OK && n == there;
    good = good && cht_store_stats(s, &st, &err) == CHT_OK && st.pairs == there &&
           st.values == there; /* no orphan */
    print_message("%llu upserts acknowledged, %llu unknown, %llu names, wrong keys %u\n",
                  (unsigned long long)acks, (unsigned long long)shared->unknown, (unsigned long long)there,
                  shared->wrong);
    (void)arg;
    return good && shared->wrong == 0 && acks > 0;
}

/* Two servers, four threads each, the same names: one key a name, made once, none lost, none left over. */
static void test_upserts(void **state)
{
    (void)state;
    in_process(check_empty_is_made, NULL);
    pid_t a = start(upsert_many, (void *)1, ""), b = start(upsert_many, (void *)2, "");
    assert_int_equal(end_of(a), 0);
    assert_int_equal(end_of(b), 0);
    in_process(check_upserts, NULL);
}

/* The same while one of them is killed, and another takes its place. */
static void test_upserts_killed(void **state)
{
    (void)state;
    in_process(check_empty_is_made, NULL);
    pid_t a = start(upsert_many, (void *)3, ""), b = start(upsert_many, (void *)VICTIM, "");
    kill_in_the_middle(b, VICTIM);
    pid_t c = start(upsert_many, (void *)5, "");
    assert_int_equal(end_of(b), 128 + SIGKILL);
    assert_int_equal(end_of(a), 0);
    assert_int_equal(end_of(c), 0);
    in_process(check_upserts, NULL);
}

/* ---- transfers: the sum stays --------------------------------------------------------------------------------------- */

struct transfer {
    struct cht_ask ask; /* first */
    int by;
    char value[24];
};

static enum cht_rc decide(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                          struct cht_err *err)
{
    struct transfer *t = (struct transfer *)(void *)ask;
    char text[24] = "";
    (void)err;
    if (!found->live || found->value.n >= sizeof text)
        return CHT_NOT_A_NUMBER;
    memcpy(text, found->value.p, found->value.n);
    (void)snprintf(t->value, sizeof t->value, "%d", atoi(text) + t->by);
    op->value = str(t->value);
    return CHT_OK;
}

static bool open_accounts(struct cht_store *s, void *arg)
{
    char text[24];
    (void)arg;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        (void)snprintf(text, sizeof text, "account:%u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(text), .value = str("1000")};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
            return false;
    }
    return true;
}

static bool transfer(struct cht_store *s, void *arg)
{
    struct cht_rng r;
    char text[2][24];
    uint64_t end = cht_now_ns() + race_ns;
    cht_rng_seed(&r, (uint64_t)(uintptr_t)arg);
    while (goes_on((unsigned)(uintptr_t)arg, end)) {
        unsigned from = (unsigned)cht_rng_below(&r, ACCOUNTS),
                 to = (from + 1 + (unsigned)cht_rng_below(&r, ACCOUNTS - 1)) % ACCOUNTS;
        struct transfer t[2] = {{.ask = {.decide = decide, .room = 24}, .by = -7},
                                {.ask = {.decide = decide, .room = 24}, .by = 7}};
        struct cht_op ops[2];
        for (int i = 0; i < 2; i++) {
            (void)snprintf(text[i], sizeof text[i], "account:%u", i == 0 ? from : to);
            ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(text[i]), .ask = &t[i].ask};
        }
        struct cht_commit c = {.ops = ops, .count = 2, .flags = CHT_COMMIT_ATOMIC};
        if (cht_store_commit(s, &c) != CHT_OK) {
            print_error("transfer: %s\n", c.err.msg);
            return false;
        }
        atomic_fetch_add(&shared->transfers, 1);
        atomic_fetch_add(&shared->done[(uintptr_t)arg], 1);
    }
    return true;
}

static bool sum_stays(struct cht_store *s, void *arg)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    char text[24];
    uint64_t key;
    int sum = 0;
    (void)arg;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        char number[24] = "";
        (void)snprintf(text, sizeof text, "account:%u", i);
        if (cht_store_pair_value(s, str(text), &key, &b, NULL, &err) != CHT_OK || b.len >= sizeof number)
            return false;
        memcpy(number, b.data, b.len);
        sum += atoi(number);
    }
    cht_buf_free(&b);
    print_message("%llu transfers, sum %d\n", (unsigned long long)shared->transfers, sum);
    return sum == (int)ACCOUNTS * RICH && shared->transfers > 0;
}

/* Transactions of two servers over the same shards, one killed on the way. */
static void test_transfers(void **state)
{
    (void)state;
    in_process(open_accounts, NULL);
    pid_t a = start(transfer, (void *)11, ""), b = start(transfer, (void *)VICTIM_OF_TWO, "");
    kill_in_the_middle(b, VICTIM_OF_TWO);
    assert_int_equal(end_of(b), 128 + SIGKILL);
    assert_int_equal(end_of(a), 0);
    in_process(sum_stays, NULL);
}

/* ---- an OSD that dies ------------------------------------------------------------------------------------------------ */

static bool daemon_call(const char *what, int osd)
{
    char cmd[400];
    (void)snprintf(cmd, sizeof cmd, "%s %s %s %d", getenv("CHT_RADOS_SHELL"), what, getenv("CHT_RADOS_DIR"),
                   osd);
    return system(cmd) == 0;
}

/* Nothing acknowledged is lost, and the servers go on by themselves. */
static void test_osd_killed(void **state)
{
    (void)state;
    if (getenv("CHT_TEST_LONG") == NULL || getenv("CHT_RADOS_SHELL") == NULL)
        skip();
    uint64_t before = race_ns;
    race_ns = UINT64_C(15000000000);
    in_process(check_empty_is_made, NULL);
    pid_t a = start(upsert_many, (void *)6, ""), b = start(upsert_many, (void *)7, "");
    cht_sleep_ns(UINT64_C(3000000000));
    assert_true(daemon_call("kill-osd", 1));
    cht_sleep_ns(UINT64_C(5000000000));
    assert_true(daemon_call("start-osd", 1));
    assert_int_equal(end_of(a), 0);
    assert_int_equal(end_of(b), 0);
    in_process(check_upserts, NULL);
    race_ns = before;
}

static bool says_timeout(struct cht_store *s, void *arg)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("during"), .value = str("1")};
    struct cht_commit c = {.ops = &op, .count = 1};
    uint64_t key, start = cht_now_ns();
    struct cht_err err = {0};
    (void)arg;
    bool good = daemon_call("kill-osd", 0) && daemon_call("kill-osd", 1) && daemon_call("kill-osd", 2);
    good = good && cht_store_commit(s, &c) == CHT_TIMEOUT && cht_rc_http(c.rc) == 503;
    good = good && cht_store_pair(s, str("before"), &key, &err) == CHT_TIMEOUT;
    double seconds = (double)(cht_now_ns() - start) / 1e9;
    for (int i = 0; i < 3; i++)
        good = daemon_call("start-osd", i) && good;
    print_message("without OSDs: %s, %s after %.1f s\n", cht_rc_slug(c.rc), cht_rc_slug(err.code), seconds);
    enum cht_rc read = CHT_TIMEOUT;
    for (int i = 0; i < 20 && good && (c.rc != CHT_OK || op.rc != CHT_OK || read == CHT_TIMEOUT);
         i++) { /* by itself, the same connection */
        (void)cht_store_commit(s, &c);
        read = cht_store_pair(s, str("during"), &key, &err);
    }
    print_message("with them: %s, %s\n", cht_rc_slug(c.rc), cht_rc_slug(read));
    return good && c.rc == CHT_OK && op.rc == CHT_OK && read == CHT_OK;
}

/* Without OSDs every call ends with 503 timeout; when they are back the server goes on. */
static void test_no_osd(void **state)
{
    (void)state;
    if (getenv("CHT_TEST_LONG") == NULL || getenv("CHT_RADOS_SHELL") == NULL)
        skip();
    in_process(check_empty_is_made, NULL);
    in_process(says_timeout, NULL);
}

#define WITH(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest all[] = {WITH(test_cut_off),   WITH(test_upserts),    WITH(test_upserts_killed),
                                     WITH(test_transfers), WITH(test_osd_killed), WITH(test_no_osd)};
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("skipped: no cluster (CHT_RADOS_CONF)\n");
        return 77;
    }
    if (getenv("CHT_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    if (getenv("CHT_TEST_LONG") != NULL)
        race_ns *= 10;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(all, NULL, NULL);
}
