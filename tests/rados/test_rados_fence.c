/* test_rados_fence: a server that stands still between its last question and a write, while its lock goes to another: what it had computed
 * before is not written, whatever it is (fence.h). Needs CHT_RADOS_CONF (run.sh). CHT_TEST_LONG=1: the lock ends by itself, after 30 s, in
 * place of being broken.
 */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
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
#include "cheetah/rados.h"
#include "store/rados/rdb.h"
#include "store/rados/split.h"

#define NAMES 8u

static struct cht_rados_config cfg = {.pool = "cheetah", .settle_ms = 300};
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

enum what { ONE, UNORDERED, ORDERED, ATOMIC, PREFIX, LOCKING };

/* A write of all names (or one, or their deletion) under the lock. */
static enum cht_rc write_all(struct cht_store *t, enum what what, const char *value)
{
    static const unsigned flags[] = {0, CHT_COMMIT_UNORDERED, 0, CHT_COMMIT_ATOMIC, 0, 0};
    char names[NAMES][16];
    struct cht_op ops[NAMES];
    for (unsigned i = 0; i < NAMES; i++) {
        (void)snprintf(names[i], sizeof names[i], "fenced:%u", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(value)};
    }
    if (what == PREFIX)
        ops[0] = (struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = str("fenced:")};
    struct cht_commit c = {.ops = ops,
                           .count = what == ONE || what == PREFIX ? 1 : NAMES,
                           .flags = flags[what] | CHT_COMMIT_FENCED};
    enum cht_rc rc = cht_store_commit(t, &c);
    err = c.err;
    for (size_t i = 0; i < c.count && rc == CHT_OK; i++)
        rc = ops[i].rc;
    return rc;
}

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    must(cht_rados_open(&cfg, &env, &err));
    (void)snprintf(name, sizeof name, "f%u-%u", (unsigned)getpid(), n++);
    must(cht_env_create(env, name, 4, &err));
    must(cht_env_get(env, name, &s, &err));
    must(write_all(s, UNORDERED, "old"));
    return 0;
}

static pid_t child; /* 0: there is none */

static int teardown(void **state)
{
    (void)state;
    if (child != 0) { /* the test has failed */
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        child = 0;
    }
    must(cht_env_drop(env, name, &err));
    must(cht_env_close(env, &err));
    return 0;
}

/* None of them is `value`. */
static void none_is(const char *value)
{
    struct cht_buf b = {0};
    char text[16];
    uint64_t key;
    for (unsigned i = 0; i < NAMES; i++) {
        (void)snprintf(text, sizeof text, "fenced:%u", i);
        must(cht_store_pair_value(s, str(text), &key, &b, NULL, &err));
        assert_true(b.len > 0 && (b.len != strlen(value) || memcmp(b.data, value, b.len) != 0));
    }
    cht_buf_free(&b);
}

/* ---- the server that stands still ------------------------------------------------------------------------------------- */

static const char *stop_step;
static _Atomic bool armed;

static void stop_there(void *ctx, const char *step)
{
    (void)ctx;
    if (strcmp(step, stop_step) == 0 && atomic_exchange(&armed, false))
        (void)raise(SIGSTOP);
}

/* 0: as it has to be. */
static int stand_still(enum what what, const char *step)
{
    struct cht_rados_config mine = cfg;
    struct cht_env *e;
    struct cht_store *t;
    mine.step = stop_there;
    stop_step = step;
    atomic_store(&armed, what == LOCKING);
    if (cht_rados_open(&mine, &e, &err) != CHT_OK || cht_env_get(e, name, &t, &err) != CHT_OK)
        return 10;
    enum cht_rc rc = cht_store_lock(t, "count", &err);
    if (what == LOCKING)
        return rc == CHT_LOCKED ? 0 : 11;
    if (rc != CHT_OK || cht_store_locks_kept(t, &err) != CHT_OK)
        return 12;
    if (write_all(t, what, "mine") != CHT_OK) /* it may */
        return 13;
    if (what == PREFIX && write_all(t, UNORDERED, "mine") != CHT_OK)
        return 14;
    atomic_store(&armed, true);
    rc = write_all(t, what, "stale");
    if (atomic_load(&armed))
        return 15; /* it has not stood still */
    if (rc != CHT_DATABASE_BUSY)
        return rc == CHT_OK ? 16 : 17;
    cht_store_unlock(t, "count"); /* not its own any more: nothing is taken from anybody */
    return 0;
}

/* Nothing may fork while an environment is open: the other servers are there from the beginning, and wait for what they are to do. */
#define SPARE 11u

struct order {
    enum what what;
    char step[32], name[32];
};
static struct {
    pid_t p;
    int fd; /* it reads its order from the other end; it ends if there is none */
} spare[SPARE];
static unsigned spares;

static void follow(int fd)
{
    struct order o;
    if (read(fd, &o, sizeof o) != (ssize_t)sizeof o)
        _exit(0);
    memcpy(name, o.name, sizeof name);
    _exit(stand_still(o.what, o.step));
}

static int fork_spares(void **state)
{
    (void)state;
    for (spares = 0; spares < SPARE; spares++) {
        int fds[2];
        if (pipe(fds) != 0)
            return -1;
        pid_t p = fork();
        if (p < 0)
            return -1;
        if (p == 0) {
            for (unsigned i = 0; i < spares; i++)
                (void)close(spare[i].fd);
            (void)close(fds[1]);
            follow(fds[0]);
        }
        (void)close(fds[0]);
        spare[spares].p = p;
        spare[spares].fd = fds[1];
    }
    return 0;
}

static int end_spares(void **state)
{
    (void)state;
    while (spares > 0) {
        (void)close(spare[--spares].fd);
        (void)waitpid(spare[spares].p, NULL, 0); /* it has opened nothing */
    }
    return 0;
}

static void break_lock(rados_ioctx_t io)
{
    int exclusive;
    char tag[64], clients[256], cookies[256], addrs[512];
    size_t tn = sizeof tag, cn = sizeof clients, kn = sizeof cookies, an = sizeof addrs;
    if (rados_list_lockers(io, "h", "count", &exclusive, tag, &tn, clients, &cn, cookies, &kn, addrs, &an) ==
        1)
        (void)rados_break_lock(io, "h", "count", clients, cookies);
}

static void take_over(void)
{
    enum cht_rc rc = CHT_LOCKED;
    uint64_t end = cht_now_ns() + UINT64_C(60000000000);
    if (getenv("CHT_TEST_LONG") == NULL)
        break_lock(cht_rdb(s)->io);
    while (rc == CHT_LOCKED && cht_now_ns() < end) {
        rc = cht_store_lock(s, "count", &err);
        if (rc == CHT_LOCKED)
            cht_sleep_ns(20000000);
    }
    must(rc);
}

/* waitpid of the child, for a minute at most: then teardown kills it. */
static int child_status(const char *step, int flags)
{
    int status = 0;
    uint64_t end = cht_now_ns() + UINT64_C(60000000000);
    for (;;) {
        pid_t p = waitpid(child, &status, flags | WNOHANG);
        if (p == child)
            break;
        if (p != 0 || cht_now_ns() > end)
            fail_msg("at %s: the other server neither stands still nor ends", step);
        cht_sleep_ns(2000000);
    }
    if (!WIFSTOPPED(status))
        child = 0;
    return status;
}

static void stopped_at(enum what what, const char *step, bool divide)
{
    struct order o = {.what = what};
    assert_true(spares > 0);
    (void)snprintf(o.step, sizeof o.step, "%s", step);
    (void)snprintf(o.name, sizeof o.name, "%s", name);
    child = spare[--spares].p;
    int fd = spare[spares].fd;
    assert_int_equal(write(fd, &o, sizeof o), sizeof o);
    assert_int_equal(close(fd), 0);
    int status = child_status(step, WUNTRACED);
    if (!WIFSTOPPED(status))
        fail_msg("at %s: %d before it stood still", step, WEXITSTATUS(status));
    take_over();
    must(write_all(s, UNORDERED, "new"));
    if (divide)
        must(cht_split(cht_rdb(s), 1, &err));
    assert_int_equal(kill(child, SIGCONT), 0);
    status = child_status(step, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("at %s: %d", step, WEXITSTATUS(status));
    none_is("stale");
    must(write_all(s, ATOMIC, "newer")); /* whose lock it is may write on */
    must(write_all(s, UNORDERED, "newest"));
    none_is("new");
    cht_store_unlock(s, "count");
}

/* L2: the write of one that stood still is refused. */
static void test_stopped_before_a_write(void **state)
{
    (void)state;
    stopped_at(ONE, "write", false);
    stopped_at(UNORDERED, "write", false);
    stopped_at(PREFIX, "write", false);
}

/* L2, X3: of one over several shards too, at each step before the one that decides. */
static void test_stopped_in_a_transaction(void **state)
{
    (void)state;
    stopped_at(ORDERED, "create", false);
    stopped_at(ATOMIC, "lock", false);
    stopped_at(ATOMIC, "lock-last", false);
    stopped_at(ATOMIC, "commit", false);
}

/* L2: one that stood still while it put up its fences takes nothing from the next. */
static void test_stopped_in_fencing(void **state)
{
    (void)state;
    stopped_at(LOCKING, "fence", false);
    stopped_at(LOCKING, "fence-shards", false);
    stopped_at(LOCKING, "fence-up", false);
}

/* N-3: a shard that is divided has the fence in both halves: refused is who stood still, and nobody else. */
static void test_divided_meanwhile(void **state)
{
    (void)state;
    stopped_at(UNORDERED, "write", true);
}

/* ---- the numbers of fences -------------------------------------------------------------------------------------------- */

#define TOKEN 40u /* 8 digits, 32 characters */

static void set_row(const char *object, const char *row, const uint8_t *value, size_t n)
{
    struct cht_call call = cht_call_write();
    cht_call_set(&call, str(row), (struct cht_str){value, n});
    assert_int_equal(cht_call_run(&call, cht_rdb(s)->io, object), 0);
}

static void take_token(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    assert_int_equal(value.n, TOKEN + 1);
    memcpy(ctx, value.p, TOKEN);
}

static void header_token(uint8_t *out)
{
    const char *row = "fcount";
    size_t n = 6;
    memset(out, 0, TOKEN);
    assert_int_equal(
        cht_link_rows(cht_rdb(s)->io, "h", &(struct cht_rows_wanted){&row, &n, 1}, take_token, out), 0);
}

/* N-1: a number follows every other one, also if a digit goes over. An OSD compares signed characters: of bytes above 127 it would not find
 * that they are more, and the lock could never be taken again. */
static void test_numbers_go_over(void **state)
{
    (void)state;
    for (unsigned full = 1; full < 8; full += 6) { /* so many digits at the end are as high as can be */
        uint8_t was[TOKEN + 1] = {0}, now[TOKEN];
        memset(was + 8, '0', TOKEN - 8); /* another process's */
        memset(was + 8 - full, 0x7f, full);
        was[TOKEN] = 1;
        set_row("h", "fcount", was, TOKEN + 1);
        for (unsigned shard = 0; shard < 4; shard++) {
            char object[16];
            (void)snprintf(object, sizeof object, "s.%u", shard);
            set_row(object, "Fcount", was, TOKEN);
        }
        must(cht_store_lock(s, "count", &err));
        header_token(now);
        assert_int_equal(now[7 - full], 1);
        for (unsigned i = 0; i < TOKEN; i++)
            assert_true(now[i] < 0x80);
        must(write_all(s, full < 7 ? ONE : ATOMIC, "under the lock"));
        cht_store_unlock(s, "count");
    }
}

static unsigned tries;
static bool at_it;

/* Before each try a shard is locked by a transaction again, which does not exist. */
static void lock_a_shard(void *ctx, const char *step)
{
    (void)ctx;
    if (!at_it || strcmp(step, "fence-try") != 0)
        return;
    uint8_t e[CHT_ROW_EPOCH_SIZE];
    size_t n = cht_row_epoch_write(e, &(struct cht_epoch){.epoch = 1, .lock = 77});
    set_row("s.2", "E", e, n);
    tries++;
}

/* F1: taking a lock ends, also if a shard is never free, or has what is no fence. */
static void test_never_free(void **state)
{
    (void)state;
    struct cht_rados_config mine = cfg;
    struct cht_env *other_env;
    struct cht_store *other;
    mine.step = lock_a_shard;
    mine.settle_ms = 10;
    must(cht_rados_open(&mine, &other_env, &err));
    must(cht_env_get(other_env, name, &other, &err));
    tries = 0;
    at_it = true;
    assert_int_equal(cht_store_lock(other, "count", &err), CHT_TIMEOUT);
    assert_true(tries >= 8 && tries < 1000);
    at_it = false;
    must(cht_store_lock(s, "count", &err)); /* it was given back, and the shard is let go */
    cht_store_unlock(s, "count");
    set_row("s.1", "Fcount", (const uint8_t *)"\x7fno fence", 9);
    assert_int_equal(cht_store_lock(other, "count", &err), CHT_CORRUPT);
    must(cht_env_close(other_env, &err));
}

static _Thread_local bool unheard; /* the next answer of the cluster does not come in time */

static void miss_the_answer(void *ctx, const char *step)
{
    (void)ctx;
    if (atomic_load(&armed) && strcmp(step, stop_step) == 0 && atomic_exchange(&armed, false))
        unheard = true;
}

/* In place of librados's, which it calls. */
int rados_aio_get_return_value(rados_completion_t completion)
{
    union {
        void *object;
        int (*call)(rados_completion_t);
    } real = {.object = dlsym(RTLD_NEXT, "rados_aio_get_return_value")};
    int r = real.call(completion);
    if (unheard)
        r = -ETIMEDOUT;
    unheard = false;
    return r;
}

/* L2: of a commit that ended with CHT_TIMEOUT a write may still come: its fence is not used again, not even by the same process. */
static void test_late_writes(void **state)
{
    (void)state;
    static const char *const steps[] = {"write", "commit"};
    struct cht_rados_config mine = cfg;
    struct cht_env *other_env;
    struct cht_store *other;
    uint8_t first[TOKEN], next[TOKEN];
    mine.step = miss_the_answer;
    must(cht_rados_open(&mine, &other_env, &err));
    must(cht_env_get(other_env, name, &other, &err));
    must(cht_store_lock(other, "count", &err));
    for (unsigned i = 0; i < 2; i++) {
        header_token(first);
        cht_store_unlock(other, "count");
        must(cht_store_lock(other, "count", &err));
        header_token(next);
        assert_memory_equal(first, next, TOKEN); /* all is well: used again */
        stop_step = steps[i];
        atomic_store(&armed, true);
        assert_int_equal(write_all(other, i == 0 ? ONE : ATOMIC, "late"), CHT_TIMEOUT);
        assert_false(atomic_load(&armed));
        cht_store_unlock(other, "count");
        must(cht_store_lock(other, "count", &err));
        header_token(next);
        assert_true(memcmp(first, next, TOKEN) < 0);
        must(write_all(other, ATOMIC, "after it"));
    }
    none_is("late");
    cht_store_unlock(other, "count");
    must(cht_env_close(other_env, &err));
}

/* A lock that comes back to a process costs nothing; two names are two fences, and commits without the flag ask for none. */
static void test_fence_again(void **state)
{
    (void)state;
    struct cht_env *other_env;
    struct cht_store *other;
    must(cht_rados_open(&cfg, &other_env, &err));
    must(cht_env_get(other_env, name, &other, &err));
    must(cht_store_lock(s, "count", &err));
    must(cht_store_lock(s, "smooth", &err));
    must(write_all(s, ATOMIC, "1"));
    cht_store_unlock(s, "count");
    must(cht_store_lock(other, "count", &err));
    must(write_all(other, UNORDERED, "2"));
    must(write_all(s, UNORDERED, "3")); /* it still has the other lock */
    cht_store_unlock(other, "count");
    break_lock(cht_rdb(s)->io); /* there is none */
    must(cht_store_lock(s, "count", &err));
    must(write_all(s, ONE, "4"));
    must(write_all(other, UNORDERED, "5")); /* it has no lock: it asks for none */
    break_lock(cht_rdb(s)->io);
    must(cht_store_lock(other, "count", &err));
    assert_int_equal(write_all(s, ONE, "6"), CHT_DATABASE_BUSY);
    assert_int_equal(write_all(s, ORDERED, "6"), CHT_DATABASE_BUSY);
    must(write_all(other, ORDERED, "7"));
    cht_store_unlock(s, "count");
    must(write_all(s, ATOMIC, "8")); /* the lock for smoothing was kept all the time */
    none_is("6");
    cht_store_unlock(s, "smooth");
    cht_store_unlock(other, "count");
    must(cht_env_close(other_env, &err));
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest all[] = {WITH(test_stopped_before_a_write),
                                     WITH(test_stopped_in_a_transaction),
                                     WITH(test_stopped_in_fencing),
                                     WITH(test_divided_meanwhile),
                                     WITH(test_fence_again),
                                     WITH(test_numbers_go_over),
                                     WITH(test_never_free),
                                     WITH(test_late_writes)};
    cfg.conf = getenv("CHT_RADOS_CONF");
    cfg.id = getenv("CHT_RADOS_ID");
    if (cfg.conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): skipped\n");
        return 0;
    }
    if (getenv("CHT_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests_name("fence", all, fork_spares, end_spares);
}
