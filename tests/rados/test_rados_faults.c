/* test_rados_faults: faults of the cluster under load: a server that is shut out, OSDs that are gone or stopped, no monitor, a full pool. Needs
 * CHT_RADOS_CONF (run.sh), and but for the first CHT_TEST_LONG=1: they take 20 s each and disturb whoever else uses the cluster.
 *
 * The load: threads that each write names of their own, so that each knows what may be there. Checked by another process afterwards:
 *   nothing acknowledged is lost     a name has the number that was acknowledged last, or one whose outcome is unknown and that came after it
 *   nothing refused is there         also a number that was refused with another code than `timeout` is not there
 *   nothing is doubled               as many names, and as many values, as were acknowledged; inserts of unknown outcome may be there
 *   all or nothing                   two names of one atomic commit have the same number
 *   by itself                        writes are acknowledged again after the fault, by the same process, without a restart
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/changes.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "os/thread.h"
#include "store/rados/cut.h"
#include "store/rados/split.h"

#define THREADS 4u
#define NAMES 20u /* of each thread; as many pairs of names that are written as one */
#define UNKNOWN 64u
#define SECOND UINT64_C(1000000000)

struct record { /* of a name */
    unsigned acked, n, unknown[UNKNOWN];
};
struct shared {
    struct record one[THREADS][NAMES], two[THREADS][NAMES];
    _Atomic unsigned acks, timeouts, full, other, inserts, perhaps, deletes;
    _Atomic unsigned acks_after; /* since healed */
    _Atomic bool healed, over, deleting;
    _Atomic uint64_t slowest, silent, last_ack;
    char address[256];
    _Atomic unsigned made; /* new connections to the cluster */
};
static struct shared *shared;
static const char *conf;
static char name[32];

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static unsigned op_seconds = 3;
static bool open_pool(struct cht_env **env, struct cht_store **s, struct cht_err *err)
{
    struct cht_rados_config cfg = {.pool = "cheetah",
                                   .conf = conf,
                                   .settle_ms = 500,
                                   .timeout_seconds = op_seconds,
                                   .default_shards = 8};
    enum cht_rc rc = cht_rados_open(&cfg, env, err);
    if (rc == CHT_OK && cht_env_get(*env, name, s, err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 8, err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, err);
    }
    if (rc != CHT_OK)
        print_error("%s: %s\n", cht_rc_slug(rc), err->msg);
    return rc == CHT_OK;
}

/* ---- the load --------------------------------------------------------------------------------------------------------- */

struct loader {
    struct cht_store *s;
    unsigned thread;
};

static void raise_to(_Atomic uint64_t *v, uint64_t to)
{
    uint64_t was = atomic_load(v);
    while (was < to && !atomic_compare_exchange_weak(v, &was, to)) {
    }
}

static void tell(enum cht_rc rc, uint64_t began, const struct cht_err *err)
{
    uint64_t now = cht_now_ns(), last;
    raise_to(&shared->slowest, now - began);
    if (rc == CHT_OK) {
        atomic_fetch_add(&shared->acks, 1);
        last = atomic_exchange(&shared->last_ack, now);
        raise_to(&shared->silent, last != 0 && now > last ? now - last : 0);
        if (atomic_load(&shared->healed))
            atomic_fetch_add(&shared->acks_after, 1);
        return;
    }
    atomic_fetch_add(rc == CHT_TIMEOUT     ? &shared->timeouts
                     : rc == CHT_DISK_FULL ? &shared->full
                                           : &shared->other,
                     1);
    if (rc != CHT_TIMEOUT && rc != CHT_DISK_FULL && atomic_load(&shared->other) < 5)
        print_error("%s: %s\n", cht_rc_slug(rc), err->msg);
}

static void note(struct record *r, enum cht_rc rc, unsigned number)
{
    if (rc == CHT_OK) {
        r->acked = number;
        r->n = 0;
    } else if (rc == CHT_TIMEOUT && r->n < UNKNOWN) {
        r->unknown[r->n++] = number;
    }
}

static enum cht_rc commit(struct cht_store *s, struct cht_op *ops, size_t n)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = n > 1 ? CHT_COMMIT_ATOMIC : 0};
    uint64_t began = cht_now_ns();
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc == CHT_BATCH_FAILED)
        rc = ops[c.failed].rc;
    rc = rc == CHT_OK ? ops[0].rc : rc;
    tell(rc, began, &c.err);
    return rc;
}

static void *load(void *arg)
{
    const struct loader *l = arg;
    struct cht_rng r;
    char text[2][32], value[24];
    cht_rng_seed(&r, l->thread + 1);
    for (unsigned number = 1; !atomic_load(&shared->over); number++) {
        unsigned i = (unsigned)cht_rng_below(&r, NAMES), kind = (unsigned)cht_rng_below(&r, 8);
        (void)snprintf(value, sizeof value, "%u", number);
        struct cht_op op[2] = {{.kind = CHT_OP_PAIR_PUT, .name = str(text[0]), .value = str(value)},
                               {.kind = CHT_OP_PAIR_PUT, .name = str(text[1]), .value = str(value)}};
        enum cht_rc rc;
        if (kind == 0) {
            op[0].kind = CHT_OP_INSERT;
            rc = commit(l->s, op, 1);
            atomic_fetch_add(rc == CHT_OK ? &shared->inserts : &shared->perhaps,
                             rc == CHT_OK || rc == CHT_TIMEOUT);
            if (rc == CHT_OK && atomic_load(&shared->deleting)) { /* goes again, also in a full pool: below */
                struct cht_op del = {.kind = CHT_OP_DELETE, .key = op[0].key};
                atomic_fetch_sub(&shared->inserts, commit(l->s, &del, 1) == CHT_OK);
            }
        } else if (kind == 1) {
            (void)snprintf(text[0], sizeof text[0], "x:%u:%u", l->thread, i);
            (void)snprintf(text[1], sizeof text[1], "y:%u:%u", l->thread, i);
            op[0].name = str(text[0]);
            op[1].name = str(text[1]);
            rc = commit(l->s, op, 2);
            note(&shared->two[l->thread][i], rc, number);
        } else {
            (void)snprintf(text[0], sizeof text[0], "n:%u:%u", l->thread, i);
            op[0].name = str(text[0]);
            rc = commit(l->s, op, 1);
            note(&shared->one[l->thread][i], rc, number);
        }
        if (rc == CHT_DISK_FULL)
            cht_sleep_ns(SECOND / 50);
    }
    return NULL;
}

static bool run_load(struct cht_env *env, struct cht_store *s)
{
    struct cht_thread t[THREADS];
    struct loader l[THREADS];
    char *address = NULL;
    if (rados_getaddrs(((struct cht_renv *)(void *)env)->link.cluster, &address) == 0) {
        (void)snprintf(shared->address, sizeof shared->address, "%s", address);
        rados_buffer_free(address);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        l[i] = (struct loader){s, i};
        if (cht_thread_start(&t[i], "load", load, &l[i], NULL) != CHT_OK)
            return false;
    }
    while (!atomic_load(&shared->over)) {
        atomic_store(&shared->made, atomic_load(&((struct cht_renv *)(void *)env)->link.made));
        cht_sleep_ns(SECOND / 20);
    }
    for (unsigned i = 0; i < THREADS; i++)
        cht_thread_join(&t[i]);
    return true;
}

/* ---- the check -------------------------------------------------------------------------------------------------------- */

static bool may_be(const struct record *r, unsigned number)
{
    bool good = number == r->acked;
    for (unsigned i = 0; i < r->n; i++)
        good = good || number == r->unknown[i];
    return good;
}

static unsigned number_of(struct cht_store *s, char kind, unsigned t, unsigned i, bool *failed)
{
    char text[32];
    uint64_t key;
    struct cht_buf b = {0};
    struct cht_err err = {0};
    unsigned number = 0;
    (void)snprintf(text, sizeof text, "%c:%u:%u", kind, t, i);
    enum cht_rc rc = cht_store_pair_value(s, str(text), &key, &b, NULL, &err);
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND) {
        print_error("%s: %s %s\n", text, cht_rc_slug(rc), err.msg);
        *failed = true;
    }
    for (size_t k = 0; rc == CHT_OK && k < b.len; k++)
        number = number * 10 + (unsigned)(b.data[k] - '0');
    cht_buf_free(&b);
    return number;
}

static bool check(struct cht_env *env, struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    unsigned names = 0;
    bool failed = false;
    (void)env;
    for (unsigned t = 0; t < THREADS; t++) {
        for (unsigned i = 0; i < NAMES; i++) {
            unsigned n = number_of(s, 'n', t, i, &failed), x = number_of(s, 'x', t, i, &failed);
            unsigned y = number_of(s, 'y', t, i, &failed);
            names += (unsigned)((n != 0) + (x != 0) + (y != 0));
            if (may_be(&shared->one[t][i], n) && may_be(&shared->two[t][i], x) && x == y)
                continue;
            print_error("thread %u, name %u: %u (acknowledged %u), %u and %u (acknowledged %u)\n", t, i, n,
                        shared->one[t][i].acked, x, y, shared->two[t][i].acked);
            failed = true;
        }
    }
    if (cht_store_stats(s, &st, &err) != CHT_OK)
        return false;
    uint64_t least = names + shared->inserts, most = least + shared->perhaps;
    print_message(
        "%u acknowledged, %u timeout, %u disk_full, %u other; the slowest %.1f s, %.1f s without an answer\n",
        shared->acks, shared->timeouts, shared->full, shared->other, (double)shared->slowest / 1e9,
        (double)shared->silent / 1e9);
    if (st.pairs != names || st.values < least || st.values > most)
        print_error("%llu pairs of %u, %llu values of %llu to %llu\n", (unsigned long long)st.pairs, names,
                    (unsigned long long)st.values, (unsigned long long)least, (unsigned long long)most);
    return !failed && st.pairs == names && st.values >= least && st.values <= most;
}

/* ---- processes --------------------------------------------------------------------------------------------------------- */

static pid_t start(bool (*fn)(struct cht_env *env, struct cht_store *s))
{
    pid_t p = fork();
    if (p != 0)
        return p;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    bool good = open_pool(&env, &s, &err) && fn(env, s);
    if (good)
        good = cht_env_close(env, &err) == CHT_OK;
    _exit(good ? 0 : 1);
}

/* The one that writes: a test that fails on the way leaves it, and it must not write into the next one's memory. */
static pid_t writer;

static void end(pid_t p)
{
    int status = 1;
    assert_int_equal(waitpid(p, &status, 0), p);
    writer = p == writer ? 0 : writer;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void sleep_s(unsigned seconds) { cht_sleep_ns(seconds * SECOND); }

static int stop_writer(void **state)
{
    (void)state;
    if (writer > 0 && kill(writer, SIGKILL) == 0)
        (void)waitpid(writer, NULL, 0);
    writer = 0;
    return 0;
}

static pid_t begin(void)
{
    pid_t p = writer = start(run_load);
    for (unsigned i = 0; i < 600 && atomic_load(&shared->acks) < 50; i++)
        cht_sleep_ns(SECOND / 10);
    assert_true(atomic_load(&shared->acks) >= 50);
    return p;
}

/* The fault is over: goes on until much is acknowledged again, by itself. */
static void finish(pid_t p)
{
    atomic_store(&shared->healed, true);
    for (unsigned i = 0; i < 600 && atomic_load(&shared->acks_after) < 100; i++)
        cht_sleep_ns(SECOND / 10);
    bool again = atomic_load(&shared->acks_after) >= 100;
    atomic_store(&shared->over, true);
    end(p);
    assert_true(again);
    assert_int_equal(shared->other, 0);
    end(start(check));
}

static bool shell(const char *form, const char *arg, int osd)
{
    char cmd[700];
    (void)snprintf(cmd, sizeof cmd, form, arg, osd);
    return system(cmd) == 0;
}

static void daemon_call(const char *what, int osd)
{
    char form[400];
    (void)snprintf(form, sizeof form, "%s %%s %s %%d", getenv("CHT_RADOS_SHELL"), getenv("CHT_RADOS_DIR"));
    assert_true(shell(form, what, osd));
}

static void ceph(const char *command)
{
    char form[400];
    (void)snprintf(form, sizeof form, "ceph -c %s %%s >/dev/null 2>&1", conf);
    assert_true(shell(form, command, 0));
}

static bool is_long(void) { return getenv("CHT_TEST_LONG") != NULL && getenv("CHT_RADOS_SHELL") != NULL; }

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    (void)snprintf(name, sizeof name, "f%u-%u", (unsigned)getpid(), n++);
    memset(shared, 0, sizeof *shared);
    return 0;
}

/* ---- faults ------------------------------------------------------------------------------------------------------------ */

/* F3: an administrator shuts the server's address out: it connects anew. */
static void test_shut_out(void **state)
{
    (void)state;
    char command[400];
    pid_t p = begin();
    assert_true(shared->address[0] != 0);
    (void)snprintf(command, sizeof command, "osd blocklist add %s", shared->address);
    ceph(command);
    for (unsigned i = 0; i < 600 && atomic_load(&shared->made) == 0; i++) {
        cht_sleep_ns(SECOND / 10); /* the OSDs hear of it one from the other */
        if (i % 50 ==
            49) /* or, on a busy machine, from a client that has the newest map and asks all of them */
            (void)shell("rados -c %s -p cheetah ls >/dev/null 2>&1", conf, 0);
    }
    assert_true(atomic_load(&shared->made) > 0);
    finish(p);
    (void)snprintf(command, sizeof command, "osd blocklist rm %s", shared->address);
    ceph(command);
}

static _Atomic bool scan_gone;
static _Atomic unsigned rendered, late;

static size_t render(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    (void)e;
    atomic_fetch_add(&rendered, 1);
    atomic_fetch_add(&late, atomic_load(&scan_gone));
    if (room > 0)
        out[0] = 'x';
    return 1;
}

/* 0: as it has to be. */
static int close_scans(void)
{
    struct cht_env *env;
    struct cht_store *s;
    struct cht_scan *scan;
    struct cht_err err;
    char text[16];
    if (!open_pool(&env, &s, &err))
        return 10;
    for (unsigned i = 0; i < 32; i++) {
        (void)snprintf(text, sizeof text, "closed:%u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(text), .value = str("v")};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
            return 11;
    }
    const struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true, .render = render};
    struct cht_entry e[64];
    size_t got;
    if (cht_scan_open(s, &cfg, &scan, &err) != CHT_OK || cht_scan_next(scan, e, 64, &got, &err) != CHT_OK ||
        got == 0)
        return 12;
    cht_scan_close(scan);
    for (int i = 0; i < 3; i++)
        daemon_call("pause-osd", i);
    if (cht_scan_open(s, &cfg, &scan, &err) != CHT_OK)
        return 13;
    uint64_t start = cht_now_ns();
    cht_scan_close(scan);
    uint64_t took = cht_now_ns() - start;
    atomic_store(&scan_gone, true);
    for (int i = 0; i < 3; i++)
        daemon_call("resume-osd", i);
    if (cht_env_drop(env, name, &err) != CHT_OK ||
        cht_env_close(env, &err) != CHT_OK) /* waits for what was under way */
        return 14;
    if (took > 20 * SECOND) /* it has not waited for them: that would be without an end */
        return 15;
    return atomic_load(&rendered) == 32 && atomic_load(&late) == 0 ? 0 : 16;
}

static void as_a_process(int (*run)(void))
{
    if (getenv("CHT_RADOS_SHELL") == NULL)
        skip();
    int status = 0;
    pid_t p = fork();
    op_seconds =
        p == 0 ? 300 : op_seconds; /* who waits for the OSDs does so for longer than this process may take */
    if (p == 0)
        _exit(run());
    pid_t ended = 0;
    for (unsigned i = 0; i < 1200 && ended == 0; i++, cht_sleep_ns(SECOND / 20))
        ended = waitpid(p, &status, WNOHANG);
    if (ended == 0 && kill(p, SIGKILL) == 0)
        (void)waitpid(p, &status, 0);
    for (int i = 0; i < 3; i++) /* also if it failed */
        daemon_call("resume-osd", i);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* A scan is closed while no OSD answers: its reader, a thread that serves others as well, does not wait, and is not called any more. */
static void test_scan_closed(void **state)
{
    (void)state;
    as_a_process(close_scans);
}

#define MANY 100u /* more than there are threads */

static _Atomic unsigned told;
static _Atomic bool worked;

static void is_told(struct cht_wait *w)
{
    (void)w;
    atomic_fetch_add(&told, 1);
}

static void work_off(struct cht_job *job)
{
    (void)job;
    atomic_store(&worked, true);
}

static bool within(_Atomic unsigned *n, unsigned wanted)
{
    uint64_t end = cht_now_ns() + 20 * SECOND;
    while (atomic_load(n) < wanted && cht_now_ns() < end)
        cht_sleep_ns(SECOND / 200);
    return atomic_load(n) == wanted;
}

/* Reads of MANY names, or what became of them. */
static enum cht_rc ask_many(struct cht_store *s, struct cht_wait *waits, struct cht_buf *b)
{
    struct cht_err err;
    enum cht_rc rc = CHT_OK;
    char text[16];
    for (unsigned i = 0; i < MANY; i++) {
        struct cht_pair_value pv = {.out = b};
        (void)snprintf(text, sizeof text, "soon:%u", i);
        enum cht_rc one = cht_store_pair_value_soon(s, str(text), &pv, &waits[i], &err);
        rc = one != CHT_OK ? one : rc;
        if (one == CHT_OK && (b->len != strlen(text) || memcmp(b->data, text, b->len) != 0))
            return CHT_CORRUPT;
    }
    return rc;
}

/* 0: as it has to be. */
static int read_many(void)
{
    static struct cht_wait waits[MANY];
    struct cht_env *env;
    struct cht_store *s;
    struct cht_buf b = {0};
    struct cht_err err;
    char text[16];
    struct cht_job job = {.run = work_off};
    if (!open_pool(&env, &s, &err))
        return 10;
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(text, sizeof text, "soon:%u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(text), .value = str(text)};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
            return 11;
        waits[i].done = is_told;
    }
    for (int i = 0; i < 3; i++)
        daemon_call("pause-osd", i);
    enum cht_rc rc = ask_many(s, waits, &b);
    cht_jobs_submit(cht_rdb(s)->env->jobs, &job);
    for (unsigned i = 0; i < 4000 && !atomic_load(&worked);
         i++) /* it would never be, if all threads waited */
        cht_sleep_ns(SECOND / 200);
    bool free_thread = atomic_load(&worked);
    unsigned early = atomic_load(&told);
    for (int i = 0; i < 3; i++)
        daemon_call("resume-osd", i);
    if (rc != CHT_PENDING || early > 0 || !within(&told, MANY))
        return 12;
    if (!free_thread)
        return 13;
    if (ask_many(s, waits, &b) != CHT_OK)
        return 14;
    for (unsigned i = 0; i < MANY; i++)
        cht_store_forget(s, &waits[i]);
    for (int i = 0; i < 3; i++)
        daemon_call("pause-osd", i);
    (void)ask_many(s, waits, &b);
    for (unsigned i = 0; i < MANY; i++)
        cht_store_forget(s, &waits[i]); /* nobody waits any more: it ends by itself */
    if (atomic_load(&told) != MANY)
        return 15;
    for (int i = 0; i < 3; i++)
        daemon_call("resume-osd", i);
    cht_buf_free(&b);
    if (cht_env_drop(env, name, &err) != CHT_OK || cht_env_close(env, &err) != CHT_OK)
        return 16;
    return atomic_load(&told) == MANY ? 0 : 17;
}

/* ---- who follows what changes ---------------------------------------------------------------------------------------------- */

static const char *down, *up; /* what is done to the OSDs */
static int downs;
static _Atomic bool falls, fallen;

/* The OSDs go in the middle of a cut: its locks are not answered. */
static void fall(void *ctx, const char *step)
{
    bool now = true;
    (void)ctx;
    if (strcmp(step, "cut-lock") != 0 || !atomic_compare_exchange_strong(&falls, &now, false))
        return;
    for (int i = 0; i < downs; i++)
        daemon_call(down, i);
    atomic_store(&fallen, true);
}

static bool count_change(void *ctx, const struct cht_change *c)
{
    (void)c;
    ++*(unsigned *)ctx;
    return true;
}

static bool is_looked_at(struct cht_store *s)
{
    struct cht_follow *f = &cht_rdb(s)->env->follow;
    cht_mutex_lock(&f->mu);
    bool looking = cht_rdb(s)->told.looking;
    cht_mutex_unlock(&f->mu);
    return looking;
}

/* The time-out is short: on a busy machine an operation may take longer, and is done again. */
static enum cht_rc put_one(struct cht_store *s, const char *pair)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = str("v")};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = CHT_TIMEOUT;
    for (unsigned i = 0; i < 20 && rc == CHT_TIMEOUT; i++) {
        rc = cht_store_commit(s, &c);
        rc = rc == CHT_OK ? op.rc : rc;
    }
    return rc;
}

static bool begin_to_follow(struct cht_env **env, struct cht_store **s, struct cht_changes **c)
{
    struct cht_err err;
    struct cht_rados_config cfg = {
        .pool = "cheetah", .conf = conf, .settle_ms = 300, .timeout_seconds = 1, .step = fall};
    if (!open_pool(env, s, &err) || put_one(*s, "a") != CHT_OK || cht_env_close(*env, &err) != CHT_OK)
        return false;
    enum cht_rc rc = CHT_TIMEOUT;
    for (unsigned i = 0; i < 20 && rc == CHT_TIMEOUT; i++)
        rc = cht_rados_open(&cfg, env, &err);
    for (unsigned i = 0; i < 20 && (rc == CHT_OK || rc == CHT_TIMEOUT); i++) {
        rc = cht_env_get(*env, name, s, &err);
        if (rc == CHT_OK)
            rc = cht_changes_open(*s, str(""), CHT_CHANGES_NOW, c, &err);
        if (rc == CHT_OK)
            return true;
    }
    print_error("%s: %s\n", cht_rc_slug(rc), err.msg);
    return false;
}

/* 0: as it has to be. */
static int follow(void)
{
    struct cht_env *env;
    struct cht_store *s;
    struct cht_changes *c;
    struct cht_err err;
    struct cht_wait w = {.done = is_told};
    unsigned heard = 0;
    if (!begin_to_follow(&env, &s, &c))
        return 10;
    atomic_store(&falls, true);
    if (cht_changes_await(c, &w) != CHT_PENDING || put_one(s, "b") != CHT_OK)
        return 11;
    while (!atomic_load(&fallen) || is_looked_at(s))
        cht_sleep_ns(SECOND / 200);
    if (atomic_load(&told) != 0) /* silence is no news, and no end */
        return 12;
    for (int i = 0; i < downs; i++)
        daemon_call(up, i);
    if (!within(&told, 1))
        return 13;
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < 100 && (rc == CHT_OK || rc == CHT_TIMEOUT); i++)
        rc = cht_changes_next(c, count_change, &heard, &err);
    if (rc != CHT_PENDING || heard == 0)
        return 14;
    cht_changes_close(c);
    return cht_env_close(env, &err) == CHT_OK ? 0 : 15;
}

/* Who waits while no OSD answers (long form: two are gone, too) hears of what was written before, soon after they are back. */
static void test_followers_wait(void **state)
{
    (void)state;
    down = "pause-osd";
    up = "resume-osd";
    downs = 3;
    as_a_process(follow);
    if (!is_long())
        return;
    (void)setup(state);
    down = "kill-osd";
    up = "start-osd";
    downs = 2;
    as_a_process(follow);
}

/* Point reads hold no thread while they wait: what else there is to do is done, however many there are. */
static void test_reads_wait(void **state)
{
    (void)state;
    as_a_process(read_many);
}

static bool divide(struct cht_env *env, struct cht_store *s)
{
    struct cht_err err = {0};
    (void)env;
    for (unsigned i = 0; i < CHT_MAP_MAX; i++) {
        enum cht_rc rc = cht_split(cht_rdb(s), i, &err);
        if (rc != CHT_OK && rc != CHT_DATABASE_BUSY && rc != CHT_INVALID_ARGUMENT) {
            print_error("dividing: %s %s\n", cht_rc_slug(rc), err.msg);
            return false;
        }
        if (rc == CHT_OK && cht_rdb_map(cht_rdb(s))->shards >= 14)
            return true;
    }
    return true;
}

/* S-1 to S-4 under load, by servers that are killed anywhere. */
static void test_divided(void **state)
{
    (void)state;
    struct cht_rng r;
    pid_t p = begin();
    cht_rng_seed(&r, (uint64_t)getpid());
    for (unsigned i = 0; i < (is_long() ? 20u : 4u); i++) {
        pid_t d = start(divide);
        cht_sleep_ns(SECOND / 20 + cht_rng_below(&r, SECOND / 4));
        (void)kill(d, SIGKILL);
        (void)waitpid(d, NULL, 0);
    }
    end(start(divide));
    finish(p);
    assert_int_equal(shared->timeouts, 0);
}

/* F1: two of three OSDs: what has no copy left is 503 timeout, and goes on by itself. */
static void test_two_osds(void **state)
{
    (void)state;
    if (!is_long())
        skip();
    pid_t p = begin();
    daemon_call("kill-osd", 0);
    daemon_call("kill-osd", 1);
    sleep_s(10);
    daemon_call("start-osd", 0);
    daemon_call("start-osd", 1);
    finish(p);
    assert_true(shared->timeouts > 0);
    assert_true(shared->slowest < 20 * SECOND); /* every call ended: 3 s, and a transaction is several */
}

/* F1: a stopped OSD does not answer and is not gone. */
static void test_osd_stopped(void **state)
{
    (void)state;
    if (!is_long())
        skip();
    pid_t p = begin();
    daemon_call("pause-osd", 2);
    sleep_s(10);
    daemon_call("resume-osd", 2);
    finish(p);
    assert_true(shared->slowest < 20 * SECOND);
}

/* F4: without a monitor reads and writes go on. */
static void test_no_monitor(void **state)
{
    (void)state;
    if (!is_long())
        skip();
    pid_t p = begin();
    daemon_call("kill-mon", 0);
    sleep_s(2);
    unsigned before = atomic_load(&shared->acks);
    sleep_s(8);
    unsigned during = atomic_load(&shared->acks) - before;
    daemon_call("start-mon", 0);
    finish(p);
    print_message("%u acknowledged in 8 s without a monitor\n", during);
    assert_true(during > 100);
    assert_int_equal(shared->timeouts, 0);
}

/* F1: neither a monitor nor OSDs: every call ends, and the server goes on when they are back. */
static void test_nothing_there(void **state)
{
    (void)state;
    if (!is_long())
        skip();
    pid_t p = begin();
    daemon_call("kill-mon", 0);
    for (int i = 0; i < 3; i++)
        daemon_call("kill-osd", i);
    sleep_s(10);
    daemon_call("start-mon", 0);
    for (int i = 0; i < 3; i++)
        daemon_call("start-osd", i);
    finish(p);
    assert_true(shared->timeouts > 0);
    assert_true(shared->slowest < 40 * SECOND);
}

static bool is_full(void) { return atomic_load(&shared->full) > 0; }

/* What changes is kept and told also in a full pool, from the first who asks on, and what is kept can be less. */
static bool follow_when_full(struct cht_store *s)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .name = str("n:1:"), .with_values = true};
    struct cht_commit commit = {.ops = &op, .count = 1};
    struct cht_changes *c, *other;
    struct cht_changes_range r;
    struct cht_err err = {0};
    unsigned heard = 0;
    if (cht_changes_open(s, str("n:1:"), CHT_CHANGES_NOW, &c, &err) != CHT_OK ||
        cht_store_commit(s, &commit) != CHT_OK || op.rc != CHT_OK || op.pairs == 0 ||
        cht_changes_open(s, str(""), CHT_CHANGES_NOW, &other, &err) != CHT_OK)
        return print_message("full: %s\n", err.msg), false;
    cht_changes_close(other);
    enum cht_rc rc = cht_changes_next(c, count_change, &heard, &err);
    cht_changes_close(c);
    cht_rdb(s)->env->cfg.changes_bytes = CHT_CHANGES_NONE;
    bool good = rc == CHT_PENDING && heard == op.pairs && cht_cut_trim(cht_rdb(s), &err) == CHT_OK &&
                cht_changes_range(s, &r, &err) == CHT_OK && r.kept == 0;
    print_message("full: %u of %llu told, %s\n", heard, (unsigned long long)op.pairs, err.msg);
    return good;
}

static bool delete_all(struct cht_env *env, struct cht_store *s)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .name = str("n:0:"), .with_values = true};
    struct cht_op two[2] = {{.kind = CHT_OP_PAIR_DEL, .name = str("x:0:0"), .with_values = true},
                            {.kind = CHT_OP_PAIR_DEL, .name = str("y:0:0"), .with_values = true}};
    struct cht_op put = {.kind = CHT_OP_PAIR_PUT, .name = str("grows"), .value = str("1")};
    struct cht_commit c = {.ops = &op, .count = 1},
                      both = {.ops = two, .count = 2, .flags = CHT_COMMIT_ATOMIC};
    struct cht_commit grows = {.ops = &put, .count = 1};
    (void)env;
    bool good =
        cht_store_commit(s, &grows) == CHT_OK && put.rc == CHT_DISK_FULL && cht_rc_http(put.rc) == 507;
    good = cht_store_commit(s, &c) == CHT_OK && op.rc == CHT_OK && op.pairs > 0 && good;
    enum cht_rc rc = cht_store_commit(s, &both);
    good = good && (rc == CHT_OK || (rc == CHT_BATCH_FAILED && two[both.failed].rc == CHT_PAIR_NOT_FOUND));
    print_message("full: put %s, %llu deleted, two at once %s %s\n", cht_rc_slug(put.rc),
                  (unsigned long long)op.pairs, cht_rc_slug(rc), both.err.msg);
    return follow_when_full(s) && good;
}

/* F5: a full pool: what grows it is 507, deleting works, also as a transaction; afterwards it goes on by itself. */
static void test_full(void **state)
{
    (void)state;
    if (!is_long())
        skip();
    pid_t p = begin();
    ceph("osd set-nearfull-ratio 0.00008");
    ceph("osd set-backfillfull-ratio 0.00009");
    ceph("osd set-full-ratio 0.0001");
    for (unsigned i = 0; i < 600 && !is_full(); i++)
        cht_sleep_ns(SECOND / 10);
    sleep_s(2);
    bool full = is_full();
    unsigned before = atomic_load(&shared->acks);
    sleep_s(1);
    unsigned grown = atomic_load(&shared->acks) - before;
    atomic_store(&shared->over, true);
    end(p);
    end(start(check)); /* nothing that was refused is there */
    end(start(delete_all));
    ceph("osd set-full-ratio 0.95");
    ceph("osd set-backfillfull-ratio 0.94");
    ceph("osd set-nearfull-ratio 0.93");
    assert_true(full);
    assert_int_equal(grown, 0);
    assert_int_equal(shared->other, 0);
    memset(shared, 0, sizeof *shared);
    (void)snprintf(name, sizeof name, "g%u", (unsigned)getpid());
    for (unsigned i = 0; i < 60 && system("true") == 0; i++) { /* a new database needs room */
        pid_t q = start(run_load);
        cht_sleep_ns(SECOND);
        if (atomic_load(&shared->acks) > 0) {
            finish(q);
            return;
        }
        atomic_store(&shared->over, true);
        assert_int_equal(waitpid(q, NULL, 0), q);
        memset(shared, 0, sizeof *shared);
    }
    fail_msg("the pool stays full");
}

/* ---- a soak: CHT_SOAK_SECONDS=1800 ------------------------------------------------------------------------------------------ */

static unsigned rss_mib(pid_t p)
{
    char path[64], line[128];
    unsigned long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)p);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtoul(line + 6, NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    return (unsigned)(kib / 1024);
}

static void one_fault(struct cht_rng *r)
{
    int osd = (int)cht_rng_below(r, 3);
    switch (cht_rng_below(r, 4)) {
    case 0:
        daemon_call("kill-osd", osd);
        sleep_s(5);
        daemon_call("start-osd", osd);
        break;
    case 1:
        daemon_call("pause-osd", osd);
        sleep_s(2);
        daemon_call("resume-osd", osd);
        break;
    case 2:
        daemon_call("kill-mon", 0);
        sleep_s(3);
        daemon_call("start-mon", 0);
        break;
    default: {
        pid_t d = start(divide);
        cht_sleep_ns(SECOND / 20 + cht_rng_below(r, SECOND / 2));
        (void)kill(d, SIGKILL);
        (void)waitpid(d, NULL, 0);
    }
    }
}

/* All of it for long: faults one after the other, 15 s between them; a line a minute. */
static void test_soak(void **state)
{
    (void)state;
    const char *text = getenv("CHT_SOAK_SECONDS");
    if (text == NULL || getenv("CHT_RADOS_SHELL") == NULL)
        skip();
    struct cht_rng r;
    unsigned faults = 0, first = 0;
    uint64_t began = cht_now_ns(), end_ns = began + strtoull(text, NULL, 10) * SECOND,
             minute = began + 60 * SECOND;
    cht_rng_seed(&r, (uint64_t)getpid());
    pid_t p = begin();
    while (cht_now_ns() < end_ns) {
        one_fault(&r);
        faults++;
        sleep_s(15);
        if (cht_now_ns() < minute)
            continue;
        minute += 60 * SECOND;
        first = first == 0 ? rss_mib(p) : first;
        print_message("%4.0f s: %u faults, %u acknowledged, %u timeout, %u MiB\n",
                      (double)(cht_now_ns() - began) / 1e9, faults, atomic_load(&shared->acks),
                      atomic_load(&shared->timeouts), rss_mib(p));
        assert_true(first == 0 || rss_mib(p) < first + 100); /* nothing piles up */
    }
    finish(p);
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, stop_writer)

int main(void)
{
    const struct CMUnitTest all[] = {
        WITH(test_shut_out),       WITH(test_divided),  WITH(test_scan_closed), WITH(test_reads_wait),
        WITH(test_followers_wait), WITH(test_two_osds), WITH(test_osd_stopped), WITH(test_no_monitor),
        WITH(test_nothing_there),  WITH(test_full),     WITH(test_soak)};
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("skipped: no cluster (CHT_RADOS_CONF)\n");
        return 77;
    }
    if (getenv("CHT_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(all, NULL, NULL);
}
