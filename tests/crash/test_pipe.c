/* test_pipe: a group of commits is applied and written while the one before it is synced (src/store/commit_pipe.c). Syncs of the log are held, one
 * by one, or they or a write fail, or the power is cut at every point: nothing is answered, told or shown before it is on the disk, and what a
 * start finds is a prefix of the groups, with all that was answered.
 */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/changes.h"
#include "cheetah/store.h"
#include "os/thread.h"
#include "support/simdisk.h"

#define OPS 80u /* of a commit that begins while a sync is under way, see P1 */
#define FLIGHTS 4u

/* Between the store and the simulated disk: holds or fails what is done to the log. */
static struct {
    struct cht_mutex mu;
    struct cht_cond changed;
    const struct cht_io_ops *real;
    struct cht_io_ops ops;
    bool hold;        /* syncs wait ... */
    unsigned pass;    /* ... but for so many */
    unsigned waiting; /* that wait */
    unsigned fail_writes, fail_syncs;
    bool full;    /* a write fails for want of room */
    bool no_room; /* nor is there any for another segment ... */
    bool stops;   /* ... until a sync of something else fails */
    bool by_hand; /* no checkpoint comes by itself */
} gate;

static bool of_log(const struct cht_file *f) { return strstr(f->path, "/log/") != NULL; }

static bool fails(unsigned *n)
{
    cht_mutex_lock(&gate.mu);
    bool now = *n > 0;
    *n -= now;
    cht_mutex_unlock(&gate.mu);
    return now;
}

static enum cht_rc gate_sync(struct cht_file *f, struct cht_err *err)
{
    if (!of_log(f)) {
        cht_mutex_lock(&gate.mu);
        bool stops = gate.stops;
        gate.no_room = gate.no_room && !stops;
        cht_mutex_unlock(&gate.mu);
        if (stops)
            return CHT_FAIL(err, CHT_IO, "%s: no sync", f->path);
        return gate.real->sync(f, err);
    }
    cht_mutex_lock(&gate.mu);
    gate.waiting++;
    cht_cond_broadcast(&gate.changed);
    while (gate.hold && gate.pass == 0)
        cht_cond_wait(&gate.changed, &gate.mu);
    gate.waiting--;
    gate.pass -= gate.pass > 0;
    cht_mutex_unlock(&gate.mu);
    if (fails(&gate.fail_syncs))
        return CHT_FAIL(err, CHT_IO, "%s: no sync", f->path);
    return gate.real->sync(f, err);
}

static enum cht_rc gate_pwrite(struct cht_file *f, const void *p, size_t n, uint64_t off, size_t *done,
                               struct cht_err *err)
{
    if (of_log(f) && fails(&gate.fail_writes)) {
        (void)gate.real->pwrite(f, p, n / 2, off, done, err); /* half of it is there */
        return CHT_FAIL(err, gate.full ? CHT_DISK_FULL : CHT_IO, "%s: no write", f->path);
    }
    return gate.real->pwrite(f, p, n, off, done, err);
}

static enum cht_rc gate_allocate(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    cht_mutex_lock(&gate.mu);
    bool refused = gate.no_room && of_log(f);
    cht_mutex_unlock(&gate.mu);
    if (refused)
        return CHT_FAIL(err, CHT_DISK_FULL, "%s: no room", f->path);
    return gate.real->allocate(f, off, len, err);
}

static void gate_room(bool none, bool stops)
{
    cht_mutex_lock(&gate.mu);
    gate.no_room = none;
    gate.stops = stops;
    cht_mutex_unlock(&gate.mu);
}

static bool no_room(void)
{
    cht_mutex_lock(&gate.mu);
    bool none = gate.no_room;
    cht_mutex_unlock(&gate.mu);
    return none;
}

static void gate_set(bool hold, unsigned pass)
{
    cht_mutex_lock(&gate.mu);
    gate.hold = hold;
    gate.pass = pass;
    cht_cond_broadcast(&gate.changed);
    cht_mutex_unlock(&gate.mu);
}

static void gate_fail(unsigned writes, unsigned syncs)
{
    cht_mutex_lock(&gate.mu);
    gate.fail_writes = writes;
    gate.fail_syncs = syncs;
    cht_mutex_unlock(&gate.mu);
}

static void await_failed_write(void)
{
    for (bool failed = false; !failed;) {
        cht_sleep_ns(100000);
        cht_mutex_lock(&gate.mu);
        failed = gate.fail_writes == 0;
        cht_mutex_unlock(&gate.mu);
    }
}

static void await_held(void)
{
    cht_mutex_lock(&gate.mu);
    while (gate.waiting == 0 || gate.pass > 0)
        cht_cond_wait(&gate.changed, &gate.mu);
    cht_mutex_unlock(&gate.mu);
}

/* ---- the store -------------------------------------------------------------------------------------------------- */

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;

static void open_env(void)
{
    static const char *const dirs[] = {"/a"};
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 3,
                                 .durability = CHT_DURABLE_SYNC,
                                 .log_segment_bytes = 1u << 20,
                                 .scan_workers = 1,
                                 .manual_checkpoint = gate.by_hand,
                                 .value_order = CHT_ORDER_ALWAYS,
                                 .changes = true,
                                 .changes_bytes = 1u << 20,
                                 .io = simdisk_io(disk)};
    memset(&err, 0, sizeof err);
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        fail_msg("%s", err.msg);
    enum cht_rc rc = cht_env_get(env, "d", &s, &err);
    if (rc == CHT_DATABASE_NOT_FOUND && (rc = cht_env_create(env, "d", 0, &err)) == CHT_OK)
        rc = cht_env_get(env, "d", &s, &err);
    if (rc != CHT_OK)
        fail_msg("%s", err.msg);
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static enum cht_rc put(const char *name, const char *value)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(value)};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc != CHT_OK ? rc : op.rc;
}

static enum cht_rc del(const char *name)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = str(name), .with_values = true};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc != CHT_OK ? rc : op.rc;
}

static int setup(void **state)
{
    (void)state;
    memset(&gate, 0, sizeof gate);
    disk = simdisk_new();
    struct cht_io *io = simdisk_io(disk);
    if (cht_mutex_init(&gate.mu, &err) != CHT_OK || cht_cond_init(&gate.changed, &err) != CHT_OK)
        return 1;
    gate.real = io->ops;
    gate.ops = *io->ops;
    gate.ops.sync = gate_sync;
    gate.ops.pwrite = gate_pwrite;
    gate.ops.allocate = gate_allocate;
    io->ops = &gate.ops;
    open_env();
    return put("before", "all of it") != CHT_OK; /* the log has its first segment */
}

static int teardown(void **state)
{
    (void)state;
    gate_set(false, 0);             /* of a test that failed */
    (void)cht_env_close(env, &err); /* a store that has stopped writing cannot be closed cleanly */
    simdisk_free(disk);
    cht_mutex_fini(&gate.mu);
    cht_cond_fini(&gate.changed);
    return 0;
}

/* As after a SIGKILL: the disk has all it was given, synced or not. */
static void restart(void)
{
    cht_env_abandon(env);
    open_env();
}

static enum cht_rc value_of(const char *name, char out[64])
{
    struct cht_buf buf = {0};
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = cht_store_pair_value(s, str(name), &key, &buf, &size, &err);
    (void)snprintf(out, 64, "%.*s", rc == CHT_OK ? (int)size : 0,
                   rc == CHT_OK && size > 0 ? (char *)buf.data : "");
    cht_buf_free(&buf);
    return rc;
}

static void assert_value(const char *name, const char *value)
{
    char have[64];
    assert_int_equal(value_of(name, have), value[0] != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND);
    assert_string_equal(have, value);
}

static struct cht_store_stats stats(void)
{
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    return st;
}

/* ---- commits on their way --------------------------------------------------------------------------------------- */

/* Commit i puts "all" with its letter, and OPS - 1 names of its own. */
struct flight {
    struct cht_commit c;
    struct cht_op op[OPS];
    char name[OPS][16];
    char letter[2];
    _Atomic bool done;
};
static struct flight flights[FLIGHTS];

static void landed(struct cht_commit *c) { atomic_store(&((struct flight *)c->ctx)->done, true); }

static struct flight *submit(unsigned i, unsigned ops, unsigned flags)
{
    struct flight *f = &flights[i];
    memset(f, 0, sizeof *f);
    f->letter[0] = (char)('a' + i);
    for (unsigned k = 0; k < ops; k++) {
        (void)snprintf(f->name[k], sizeof f->name[k], k == 0 ? "all" : "%s%02u", f->letter, k);
        f->op[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(f->name[k]), .value = str(f->letter)};
    }
    f->c = (struct cht_commit){.ops = f->op, .count = ops, .flags = flags, .done = landed, .ctx = f};
    assert_int_equal(cht_store_submit(s, &f->c), CHT_PENDING);
    return f;
}

/* Until the log has so many records more than at `before`. */
static void await_records(uint64_t before, unsigned n)
{
    while (stats().log_seq < before + n)
        cht_sleep_ns(100000);
}

static void land(struct flight *f, enum cht_rc rc)
{
    while (!atomic_load(&f->done))
        cht_sleep_ns(100000);
    assert_int_equal(f->c.rc, rc);
}

/* The sync of commit 0 is held, and commit 1 is in the log, not synced. Returns the number of the record before them. */
static uint64_t two(struct flight *f[2])
{
    uint64_t seq = stats().log_seq;
    gate_set(true, 0);
    f[0] = submit(0, OPS, 0);
    await_held();
    f[1] = submit(1, OPS, 0);
    await_records(seq, 2);
    return seq;
}

static void no_wake(struct cht_wait *w) { (void)w; }

static void assert_waits(const char *name)
{
    struct cht_wait w = {.done = no_wake};
    struct cht_pair_value pv = {.out = NULL};
    assert_int_equal(cht_store_pair_value_soon(s, str(name), &pv, &w, &err), CHT_PENDING);
    cht_store_forget(s, &w);
}

static bool count_change(void *ctx, const struct cht_change *change)
{
    (void)change;
    ++*(unsigned *)ctx;
    return true;
}

/* How many changes the follower is told of now. */
static unsigned told(struct cht_changes *follower)
{
    unsigned n = 0;
    enum cht_rc rc = cht_changes_next(follower, count_change, &n, &err);
    assert_true(rc == CHT_OK || rc == CHT_PENDING);
    return n;
}

static void test_order(void **state)
{
    (void)state;
    struct cht_changes *follower;
    struct flight *f[FLIGHTS];
    uint64_t next = stats().next_key;
    assert_int_equal(cht_changes_open(s, str(""), CHT_CHANGES_NOW, &follower, &err), CHT_OK);
    uint64_t seq = two(f);
    assert_waits("all");
    assert_waits("a01");
    assert_waits("b01");
    assert_value("before", "all of it");
    assert_value("c01", "");
    assert_int_equal(told(follower), 0);
    assert_int_equal(stats().next_key, next);
    f[2] = submit(2, 1, 0); /* too little: it is led when the sync is done */
    cht_sleep_ns(20000000);
    assert_int_equal(stats().log_seq, seq + 2);
    assert_false(atomic_load(&f[0]->done) || atomic_load(&f[1]->done) || atomic_load(&f[2]->done));
    gate_set(true, 1);
    land(f[0], CHT_OK);
    await_held(); /* the sync of the second */
    assert_value("a01", "a");
    assert_waits("b01");
    assert_waits("all");
    assert_true(told(follower) >= OPS && !atomic_load(&f[1]->done));
    f[3] = submit(3, OPS, 0);
    await_records(seq, 3); /* of two commits */
    assert_value("a01", "a");
    assert_waits("b01");
    assert_waits("d01");
    assert_int_equal(told(follower), 0);
    gate_set(false, 0);
    for (unsigned i = 1; i < FLIGHTS; i++)
        land(f[i], CHT_OK);
    assert_value("b01", "b");
    assert_value("d01", "d");
    assert_true(stats().next_key > next);
    assert_true(told(follower) > OPS);
    cht_changes_close(follower);
    restart();
    assert_value("all", "d");
    assert_value("b01", "b");
}

/* A commit that waits for no sync has read what is not decided, and is answered when it is. */
static void interval_after(unsigned fail, enum cht_rc want)
{
    struct flight *f[2];
    uint64_t seq = stats().log_seq;
    gate_set(true, 0);
    f[0] = submit(0, OPS, 0);
    await_held();
    f[1] = submit(1, OPS, CHT_COMMIT_INTERVAL);
    await_records(seq, 2);
    cht_sleep_ns(10000000);
    assert_false(atomic_load(&f[1]->done));
    assert_waits("b01");
    gate_fail(0, fail);
    gate_set(false, 0);
    land(f[0], want);
    land(f[1], want);
    gate_fail(0, 0);
    assert_value("b01", want == CHT_OK ? "b" : "");
}

static void test_interval_after(void **state)
{
    (void)state;
    interval_after(0, CHT_OK);
}

static void test_interval_after_failure(void **state)
{
    (void)state;
    interval_after(1, CHT_READ_ONLY);
}

/* ---- failures --------------------------------------------------------------------------------------------------- */

/* After the restart: which of the two are there, each wholly or not at all. */
static unsigned there(void)
{
    char have[64], first[64], last[64];
    unsigned n = 0;
    assert_value("before", "all of it");
    enum cht_rc rc = value_of("all", have);
    for (unsigned i = 0; i < 2; i++) {
        char letter = (char)('a' + i), name[16];
        (void)snprintf(name, sizeof name, "%c%02u", letter, OPS - 1);
        enum cht_rc at_end = value_of(name, last);
        (void)snprintf(name, sizeof name, "%c01", letter);
        assert_int_equal(value_of(name, first), at_end);
        assert_string_equal(first, last);
        n |= at_end == CHT_OK ? 1u << i : 0;
    }
    assert_int_equal(rc, n == 0 ? CHT_PAIR_NOT_FOUND : CHT_OK);
    assert_string_equal(have, n == 0 ? "" : n == 1 ? "a" : "b");
    assert_true(n != 2);
    return n;
}

static void test_sync_fails(void **state)
{
    (void)state;
    struct flight *f[2];
    (void)two(f);
    gate_fail(0, 1);
    gate_set(false, 0);
    land(f[0], CHT_READ_ONLY);
    land(f[1], CHT_READ_ONLY);
    assert_int_equal(there(), 0);
    assert_int_equal(put("late", "x"), CHT_READ_ONLY);
    restart();
    assert_int_equal(there(), 0);
    assert_int_equal(put("late", "x"), CHT_OK);
    restart();
    assert_value("late", "x");
}

static void test_sync_fails_for_good(void **state)
{
    (void)state;
    struct flight *f[2];
    char have[64];
    (void)two(f);
    gate_fail(0, 1000);
    gate_set(false, 0);
    land(f[0], CHT_OUTCOME_UNKNOWN);
    land(f[1], CHT_OUTCOME_UNKNOWN);
    assert_int_equal(value_of("a01", have), CHT_OUTCOME_UNKNOWN);
    assert_int_equal(value_of("b01", have), CHT_OUTCOME_UNKNOWN);
    assert_value("before", "all of it");
    gate_fail(0, 0);
    restart();
    (void)there();
}

/* The first of the two is on the disk. */
static void test_second_sync_fails(void **state)
{
    (void)state;
    struct flight *f[2];
    (void)two(f);
    gate_set(true, 1);
    land(f[0], CHT_OK);
    await_held();
    gate_fail(0, 1);
    gate_set(false, 0);
    land(f[1], CHT_READ_ONLY);
    assert_int_equal(there(), 1);
    restart();
    assert_int_equal(there(), 1);
}

/* The write of the second fails while the first is synced, which it is all the same. */
static void second_write_fails(bool full)
{
    struct flight *f[2];
    gate.full = full;
    gate_set(true, 0);
    f[0] = submit(0, OPS, 0);
    await_held();
    gate_fail(1, 0);
    f[1] = submit(1, OPS, 0);
    await_failed_write();
    cht_sleep_ns(10000000);
    assert_false(atomic_load(&f[0]->done) || atomic_load(&f[1]->done));
    gate_set(false, 0);
    land(f[0], CHT_OK);
    land(f[1], full ? CHT_DISK_FULL : CHT_READ_ONLY);
    assert_int_equal(there(), 1);
    enum cht_rc rc = CHT_DISK_FULL;
    for (unsigned i = 0; i < 600 && rc == CHT_DISK_FULL; i++) {
        rc = put("late", "x");
        cht_sleep_ns(rc == CHT_DISK_FULL ? 50000000 : 0);
    }
    assert_int_equal(rc, full ? CHT_OK : CHT_READ_ONLY);
    restart();
    assert_int_equal(there(), 1);
    assert_value("late", full ? "x" : "");
}

static void test_second_write_fails(void **state)
{
    (void)state;
    second_write_fails(false);
}

static void test_no_room_for_second(void **state)
{
    (void)state;
    second_write_fails(true);
}

/* Both fail: the write of the second, then the sync of the first. */
static void test_both_fail(void **state)
{
    (void)state;
    struct flight *f[2];
    gate.full = true;
    gate_set(true, 0);
    f[0] = submit(0, OPS, 0);
    await_held();
    gate_fail(1, 1);
    f[1] = submit(1, OPS, 0);
    await_failed_write();
    gate_set(false, 0);
    land(f[0], CHT_READ_ONLY);
    land(f[1], CHT_READ_ONLY);
    assert_int_equal(there(), 0);
    restart();
    assert_int_equal(there(), 0);
}

/* ---- what else needs the pages ----------------------------------------------------------------------------------- */

static void *checkpoint_main(void *arg)
{
    struct cht_err why = {0};
    *(_Atomic int *)arg = (int)cht_store_checkpoint(s, &why);
    return NULL;
}

/* A checkpoint, which has what is decided, waits for both; a new commit waits for it, or comes before. */
static void test_checkpoint(void **state)
{
    (void)state;
    struct flight *f[3];
    struct cht_thread t;
    _Atomic int rc = -1;
    (void)two(f);
    assert_int_equal(cht_thread_start(&t, "checkpoint", checkpoint_main, (void *)&rc, &err), CHT_OK);
    cht_sleep_ns(20000000);
    assert_int_equal(atomic_load(&rc), -1);
    f[2] = submit(2, OPS, 0);
    cht_sleep_ns(10000000);
    assert_int_equal(atomic_load(&rc), -1);
    gate_set(false, 0);
    for (unsigned i = 0; i < 3; i++)
        land(f[i], CHT_OK);
    cht_thread_join(&t);
    assert_int_equal(atomic_load(&rc), CHT_OK);
    restart();
    assert_value("all", "c");
    assert_value("a01", "a");
}

/* The log has no room for a delete, and the checkpoint that is to make some stops the database: there is room now, but nothing is written any more. */
static void test_stopped_for_room(void **state)
{
    (void)state;
    static char value[20001];
    unsigned n = 0;
    enum cht_rc rc;
    memset(value, 'v', sizeof value - 1);
    gate.by_hand = true;
    restart();
    gate_room(true, false);
    while ((rc = put("long", value)) == CHT_OK && n++ < 1000)
        ;
    assert_int_equal(rc, CHT_DISK_FULL);
    gate_room(true, true);
    assert_int_equal(del("before"), CHT_READ_ONLY);
    assert_false(no_room()); /* that is how it came */
    gate_room(false, false);
    restart();
    assert_value("before", "all of it");
}

/* ---- power cuts -------------------------------------------------------------------------------------------------- */

/* The disk that a cut leaves, opened: what was answered up to then is there, and of the rest a prefix. */
static void check_cut(struct simdisk *left, size_t at, const size_t answered[2])
{
    disk = left;
    open_env();
    unsigned n = there();
    assert_true(at < answered[0] || (n & 1) != 0);
    assert_true(at < answered[1] || (n & 2) != 0);
    assert_int_equal(put("late", "x"), CHT_OK);
    cht_env_abandon(env);
    simdisk_free(left);
}

/* Cuts at every point of two groups of which the second is written before the sync of the first, and synced after it. */
static void test_cuts(void **state)
{
    (void)state;
    static const enum sim_mode modes[] = {SIM_KEEP, SIM_DROP, SIM_TORN, SIM_SUBSET, SIM_SUBSET};
    struct flight *f[2];
    size_t from = simdisk_events(disk), answered[2];
    struct cht_rng r;
    cht_rng_seed(&r, 20);
    (void)two(f);
    gate_set(true, 1);
    land(f[0], CHT_OK);
    answered[0] = simdisk_events(disk);
    await_held();
    gate_set(false, 0);
    land(f[1], CHT_OK);
    answered[1] = simdisk_events(disk);
    cht_env_abandon(env);
    struct simdisk *whole = disk;
    struct simcut *c = simcut_new(whole);
    bool more = true;
    while (more) {
        for (size_t m = 0; m < sizeof modes / sizeof modes[0] && simcut_at(c) >= from; m++)
            check_cut(simcut_disk(c, modes[m], &r), simcut_at(c), answered);
        more = simcut_step(c);
    }
    simcut_free(c);
    disk = whole;
    open_env();
    assert_int_equal(there(), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interval_after, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interval_after_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_fails_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_sync_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_write_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_second, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_for_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cuts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
