/* test_durable: what a point read shows is durable. The log's sync is held, or its write or sync fails, while commits are on their
 * way: reads of what they touch wait, others do not; what was refused is never seen, neither before nor after a restart, in reads,
 * counts, scans and cached answers alike; what only a restart can tell is said to be so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "lm/lookup.h"
#include "lm/names.h"
#include "os/thread.h"
#include "support/simdisk.h"

#define LARGE (300u << 10)
#define INTERVAL_MS 20u

/* Between the store and the simulated disk: holds or fails what is done to the log. */
static struct {
    struct cht_mutex mu;
    struct cht_cond changed;
    const struct cht_io_ops *real;
    struct cht_io_ops ops;
    bool hold, held; /* a sync is to wait; one waits */
    uint64_t begun;  /* syncs so far */
    uint64_t before; /* of them, when the last write had ended */
    uint64_t synced; /* the last of them that has ended well */
    unsigned fail_writes, fail_syncs, fail_reads;
    bool full, nothing; /* a write fails for want of room; none of its bytes is taken */
} gate;

static bool fails(unsigned *n)
{
    cht_mutex_lock(&gate.mu);
    bool now = *n > 0;
    if (now)
        --*n;
    cht_mutex_unlock(&gate.mu);
    return now;
}

static void gate_fail(unsigned writes, unsigned syncs, unsigned reads)
{
    cht_mutex_lock(&gate.mu);
    gate.fail_writes = writes;
    gate.fail_syncs = syncs;
    gate.fail_reads = reads;
    cht_mutex_unlock(&gate.mu);
}

static bool of_log(const struct cht_file *f) { return strstr(f->path, "/log/") != NULL; }

static enum cht_rc gate_sync(struct cht_file *f, struct cht_err *err)
{
    if (!of_log(f))
        return gate.real->sync(f, err);
    cht_mutex_lock(&gate.mu);
    uint64_t number = ++gate.begun;
    while (gate.hold) {
        gate.held = true;
        cht_cond_broadcast(&gate.changed);
        cht_cond_wait(&gate.changed, &gate.mu);
    }
    gate.held = false;
    cht_mutex_unlock(&gate.mu);
    if (fails(&gate.fail_syncs))
        return CHT_FAIL(err, CHT_IO, "%s: no sync", f->path);
    enum cht_rc rc = gate.real->sync(f, err);
    cht_mutex_lock(&gate.mu);
    if (rc == CHT_OK && gate.synced < number)
        gate.synced = number;
    cht_cond_broadcast(&gate.changed);
    cht_mutex_unlock(&gate.mu);
    return rc;
}

/* Until a sync that began after the last write has ended. */
static void await_sync(void)
{
    cht_mutex_lock(&gate.mu);
    while (gate.synced <= gate.before)
        cht_cond_wait(&gate.changed, &gate.mu);
    cht_mutex_unlock(&gate.mu);
}

static enum cht_rc gate_pwrite(struct cht_file *f, const void *p, size_t n, uint64_t off, size_t *done,
                               struct cht_err *err)
{
    if (of_log(f) && fails(&gate.fail_writes)) {
        if (!gate.nothing)
            (void)gate.real->pwrite(f, p, n / 2, off, done, err); /* half of it is there */
        return CHT_FAIL(err, gate.full ? CHT_DISK_FULL : CHT_IO, "%s: no write", f->path);
    }
    enum cht_rc rc = gate.real->pwrite(f, p, n, off, done, err);
    if (of_log(f)) {
        cht_mutex_lock(&gate.mu);
        gate.before = gate.begun;
        cht_mutex_unlock(&gate.mu);
    }
    return rc;
}

static enum cht_rc gate_pread(struct cht_file *f, void *p, size_t n, uint64_t off, size_t *done,
                              struct cht_err *err)
{
    if (of_log(f) && fails(&gate.fail_reads))
        return CHT_FAIL(err, CHT_IO, "%s: no read", f->path);
    return gate.real->pread(f, p, n, off, done, err);
}

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct cht_err err;
static enum cht_durability durability;

static void open_env(void)
{
    static const char *const dirs[] = {"/a"};
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 3,
                                 .durability = durability,
                                 .interval_ms = INTERVAL_MS,
                                 .log_segment_bytes = 1u << 20,
                                 .scan_workers = 1,
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

static int begin(void **state, enum cht_durability mode)
{
    (void)state;
    memset(&gate, 0, sizeof gate);
    durability = mode;
    disk = simdisk_new();
    struct cht_io *io = simdisk_io(disk);
    if (cht_mutex_init(&gate.mu, &err) != CHT_OK || cht_cond_init(&gate.changed, &err) != CHT_OK)
        return 1;
    gate.real = io->ops;
    gate.ops = *io->ops;
    gate.ops.sync = gate_sync;
    gate.ops.pwrite = gate_pwrite;
    gate.ops.pread = gate_pread;
    io->ops = &gate.ops;
    open_env();
    return 0;
}

static int setup(void **state) { return begin(state, CHT_DURABLE_SYNC); }
static int setup_os(void **state) { return begin(state, CHT_DURABLE_OS); }
static int setup_interval(void **state) { return begin(state, CHT_DURABLE_INTERVAL); }

static void let_go(void)
{
    cht_mutex_lock(&gate.mu);
    gate.hold = false;
    cht_cond_broadcast(&gate.changed);
    cht_mutex_unlock(&gate.mu);
}

static int teardown(void **state)
{
    (void)state;
    let_go();                       /* of a test that failed */
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

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static enum cht_rc put(const char *name, struct cht_str value, uint64_t *key)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = value};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (key != NULL)
        *key = op.key;
    return rc != CHT_OK ? rc : op.rc;
}

/* The value of the name, waiting for it; "" if there is none. */
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
    enum cht_rc rc = value_of(name, have);
    assert_int_equal(rc, value[0] != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND);
    assert_string_equal(have, value);
}

/* ---- a commit that is on its way ------------------------------------------------------------------------------- */

struct flight {
    struct cht_commit c;
    struct cht_op op[1200];
    char name[1200][16];
    size_t n;
    _Atomic bool done;
};

static void landed(struct cht_commit *c) { atomic_store(&((struct flight *)c->ctx)->done, true); }

static struct cht_op *add(struct flight *f, enum cht_op_kind kind, const char *name, const char *value)
{
    (void)snprintf(f->name[f->n], sizeof f->name[0], "%s", name);
    f->op[f->n] = (struct cht_op){.kind = kind, .name = str(f->name[f->n]), .value = str(value)};
    return &f->op[f->n++];
}

/* Submits it and returns when its record is written and its sync is held. */
static void take_off(struct flight *f)
{
    f->c.ops = f->op;
    f->c.count = f->n;
    f->c.done = landed;
    f->c.ctx = f;
    cht_mutex_lock(&gate.mu);
    gate.hold = true;
    cht_mutex_unlock(&gate.mu);
    assert_int_equal(cht_store_submit(s, &f->c), CHT_PENDING);
    cht_mutex_lock(&gate.mu);
    while (!gate.held)
        cht_cond_wait(&gate.changed, &gate.mu);
    cht_mutex_unlock(&gate.mu);
}

static void land(struct flight *f)
{
    let_go();
    while (!atomic_load(&f->done))
        cht_sleep_ns(100000);
}

static struct flight *flight_new(void)
{
    struct flight *f = calloc(1, sizeof *f);
    assert_non_null(f);
    return f;
}

/* ---- waits ------------------------------------------------------------------------------------------------------ */

static _Atomic unsigned woken;
static void count_wake(struct cht_wait *w)
{
    (void)w;
    atomic_fetch_add(&woken, 1);
}

static enum cht_rc pair_soon(const char *name, struct cht_wait *w)
{
    struct cht_pair_value pv = {.out = NULL};
    return cht_store_pair_value_soon(s, str(name), &pv, w, &err);
}

struct reader {
    struct cht_thread t;
    const char *name;
    char value[64];
    enum cht_rc rc;
    _Atomic bool done;
};

static void *read_main(void *arg)
{
    struct reader *r = arg;
    r->rc = value_of(r->name, r->value);
    atomic_store(&r->done, true);
    return NULL;
}

static void test_waits(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct reader r = {.name = "p"};
    struct cht_wait w[6];
    uint64_t key, other, pairs;
    for (unsigned i = 0; i < 6; i++)
        w[i] = (struct cht_wait){.done = count_wake};
    atomic_store(&woken, 0);
    assert_int_equal(put("p", str("old"), &key), CHT_OK);
    assert_int_equal(put("q", str("other"), &other), CHT_OK);
    add(f, CHT_OP_PAIR_PUT, "p", "new");
    add(f, CHT_OP_PAIR_PUT, "fresh", "new");
    take_off(f);

    struct cht_value *v;
    uint32_t size;
    uint64_t got;
    assert_int_equal(pair_soon("p", &w[0]), CHT_PENDING);
    assert_int_equal(cht_store_get_soon(s, key, NULL, &size, &w[1], &err), CHT_PENDING);
    assert_int_equal(cht_value_open_soon(s, key, &v, &size, &w[2], &err), CHT_PENDING);
    assert_int_equal(cht_store_pair_soon(s, str("fresh"), &got, &w[3], &err), CHT_PENDING);
    assert_int_equal(pair_soon("p", &w[4]), CHT_PENDING);
    cht_store_forget(s, &w[4]);
    cht_store_forget(s, &w[5]);                      /* never waited */
    assert_int_equal(pair_soon("q", &w[5]), CHT_OK); /* nobody else waits */
    assert_int_equal(cht_store_get_soon(s, other, NULL, &size, &w[5], &err), CHT_OK);
    assert_int_equal(pair_soon("none", &w[5]), CHT_PAIR_NOT_FOUND);
    assert_int_equal(pair_soon("p", &cht_ahead), CHT_OK); /* as scans and counts */
    assert_int_equal(cht_store_count(s, str(""), &pairs, &err), CHT_OK);
    assert_int_equal(pairs, 3);
    assert_int_equal(cht_thread_start(&r.t, "reader", read_main, &r, &err), CHT_OK);
    cht_sleep_ns(20000000);
    assert_false(atomic_load(&r.done));
    assert_int_equal(atomic_load(&woken), 0);
    assert_false(atomic_load(&f->done));

    land(f);
    cht_thread_join(&r.t);
    assert_int_equal(f->c.rc, CHT_OK);
    assert_string_equal(r.value, "new");
    assert_int_equal(atomic_load(&woken), 4);
    assert_int_equal(pair_soon("p", &w[0]), CHT_OK);
    free(f);
}

/* More names than are kept one by one: all wait, and most others do not. */
static void test_many(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct cht_wait w = {.done = count_wake};
    char name[32];
    unsigned others = 0;
    assert_int_equal(put("p", str("old"), NULL), CHT_OK);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "many%u", i);
        add(f, CHT_OP_PAIR_PUT, name, "x");
    }
    take_off(f);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(pair_soon(f->name[i], &w), CHT_PENDING);
        cht_store_forget(s, &w);
        (void)snprintf(name, sizeof name, "other%u", i);
        enum cht_rc rc = pair_soon(name, &w);
        others += rc == CHT_PENDING;
        cht_store_forget(s, &w);
    }
    assert_in_range(others, 0, 100);
    land(f);
    assert_value("many999", "x");
    free(f);
}

/* Deletes, by name and by prefix, and what a commit that only reads says. */
static void test_deletes(void **state)
{
    (void)state;
    struct flight *f = flight_new(), *reads = flight_new();
    struct cht_wait w = {.done = count_wake};
    uint64_t key;
    assert_int_equal(put("a1", str("1"), &key), CHT_OK);
    assert_int_equal(put("a2", str("2"), NULL), CHT_OK);
    assert_int_equal(put("b", str("3"), NULL), CHT_OK);
    add(f, CHT_OP_PAIR_DEL, "b", "");
    take_off(f);
    assert_int_equal(pair_soon("b", &w), CHT_PENDING); /* "not found" is not durable either */
    cht_store_forget(s, &w);
    assert_int_equal(pair_soon("a1", &w), CHT_OK);
    struct cht_op *op = add(reads, CHT_OP_PAIR_READ, "b", "");
    reads->c = (struct cht_commit){.ops = op, .count = 1, .done = landed, .ctx = reads};
    assert_int_equal(cht_store_submit(s, &reads->c), CHT_PENDING);
    cht_sleep_ns(20000000);
    assert_false(atomic_load(&reads->done));
    land(f);
    while (!atomic_load(&reads->done))
        cht_sleep_ns(100000);
    assert_int_equal(op->rc, CHT_PAIR_NOT_FOUND);
    memset(f, 0, sizeof *f);
    add(f, CHT_OP_PREFIX_DEL, "a", "")->with_values = true;
    take_off(f);
    assert_int_equal(pair_soon("a1", &w), CHT_PENDING);
    cht_store_forget(s, &w);
    assert_int_equal(cht_store_get_soon(s, key, NULL, NULL, &w, &err), CHT_PENDING);
    cht_store_forget(s, &w);
    land(f);
    assert_value("a1", "");
    free(f);
    free(reads);
}

static void no_prediction(void *ctx, const struct lm_prediction *p)
{
    (void)ctx;
    assert_int_equal(p->order, 0);
}

static void test_predict(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct cht_wait w = {.done = count_wake};
    struct lm_predict_query q = {.n = 0, .wait = &w};
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = lm_entry_name(LM_PROB, 1, (const uint8_t *)LM_ROOT, text);
    struct cht_op *op = add(f, CHT_OP_PAIR_PUT, "", "no payload");
    op->name = name;
    assert_int_equal(put("p", str("old"), NULL), CHT_OK); /* the log is begun */
    assert_int_equal(lm_predict(s, &q, no_prediction, NULL, &err), CHT_NOT_SMOOTHED);
    take_off(f);
    assert_int_equal(lm_predict(s, &q, no_prediction, NULL, &err), CHT_PENDING);
    land(f);
    assert_int_equal(lm_predict(s, &q, no_prediction, NULL, &err), CHT_MALFORMED_PAYLOAD);
    free(f);
}

/* ---- what the log refuses ---------------------------------------------------------------------------------------- */

static unsigned scanned(void)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS};
    struct cht_scan *sc;
    struct cht_entry e[16];
    unsigned sum = 0;
    size_t n = 1;
    assert_int_equal(cht_scan_open(s, &cfg, &sc, &err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(sc, e, 16, &n, &err), CHT_OK);
        sum += (unsigned)n;
    }
    cht_scan_close(sc);
    return sum;
}

/* Two pairs with a value each, of which one is overwritten and one deleted by a commit that the log refuses in one way or another. */
static void fill(struct flight *f, struct cht_value **v)
{
    uint8_t *big = malloc(LARGE);
    uint32_t size;
    uint64_t key;
    memset(big, 7, LARGE);
    assert_int_equal(put("p", str("old"), NULL), CHT_OK);
    assert_int_equal(put("q", str("other"), NULL), CHT_OK);
    assert_int_equal(put("gone", str("there"), NULL), CHT_OK);
    assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    assert_int_equal(put("late", str("in the log only"), NULL), CHT_OK);
    assert_int_equal(put("big", (struct cht_str){big, LARGE}, &key), CHT_OK);
    assert_int_equal(cht_value_open(s, key, v, &size, &err), CHT_OK);
    add(f, CHT_OP_PAIR_PUT, "p", "new");
    add(f, CHT_OP_PAIR_PUT, "fresh", "new");
    add(f, CHT_OP_PAIR_DEL, "gone", "")->with_values = true;
    free(big);
}

static void assert_as_before(void)
{
    uint64_t pairs;
    assert_value("p", "old");
    assert_value("fresh", "");
    assert_value("gone", "there");
    assert_value("q", "other");
    assert_value("late", "in the log only");
    assert_int_equal(cht_store_count(s, str(""), &pairs, &err), CHT_OK);
    assert_int_equal(pairs, 5);
    assert_int_equal(scanned(), 5);
}

/* How often writes, syncs and reads of the log fail, and whether it is certain then that the commit was not done. */
static void refuse(unsigned writes, unsigned syncs, unsigned reads, bool certain)
{
    struct flight *f = flight_new();
    struct cht_value *v;
    uint8_t some[16];
    size_t got;
    fill(f, &v);
    gate_fail(writes, syncs, reads);
    f->c = (struct cht_commit){.ops = f->op, .count = f->n};
    assert_int_equal(cht_store_commit(s, &f->c), certain ? CHT_READ_ONLY : CHT_OUTCOME_UNKNOWN);
    if (certain) {
        assert_as_before();
    } else {
        char have[64];
        assert_int_equal(value_of("p", have), CHT_OUTCOME_UNKNOWN);
        assert_int_equal(value_of("fresh", have), CHT_OUTCOME_UNKNOWN);
        assert_int_equal(value_of("gone", have), CHT_OUTCOME_UNKNOWN);
        if (durability == CHT_DURABLE_SYNC)
            assert_value("q", "other");
        else
            assert_int_equal(value_of("q", have), CHT_OUTCOME_UNKNOWN);
        assert_int_equal(scanned(), 5);
    }
    assert_int_equal(cht_value_read(v, 0, some, sizeof some, &got, &err), CHT_READ_ONLY);
    cht_value_close(v);
    assert_int_equal(put("q", str("again"), NULL), CHT_READ_ONLY);
    gate_fail(0, 0, 0);
    restart();
    if (certain)
        assert_as_before();
    assert_value("q", "other");
    assert_int_equal(put("q", str("again"), NULL), CHT_OK);
    free(f);
}

static void test_write_fails(void **state)
{
    (void)state;
    refuse(1, 0, 0, true);
}

/* The record is in the kernel, and is taken out of it again. */
static void test_sync_fails(void **state)
{
    (void)state;
    refuse(0, 1, 0, true);
}

static void test_sync_fails_for_good(void **state)
{
    (void)state;
    refuse(0, 1000, 0, false);
}

/* Half of the record is there, and cannot be written over. */
static void test_write_fails_for_good(void **state)
{
    (void)state;
    refuse(1000, 0, 0, false);
}

/* A put that goes through in the end; until then it is refused for want of room. */
static void put_soon(const char *name, const char *value)
{
    enum cht_rc rc = CHT_DISK_FULL;
    for (unsigned i = 0; i < 2400 && (rc = put(name, str(value), NULL)) == CHT_DISK_FULL; i++)
        cht_sleep_ns(50000000);
    assert_int_equal(rc, CHT_OK);
}

/* No room for the record (a file system that keeps no promise of space): the group is taken back, and writing goes on without a
 * restart when there is room again. `writes` of them fail. */
static void no_room(unsigned writes, bool nothing)
{
    struct flight *f = flight_new();
    struct cht_value *v;
    struct cht_store_stats st;
    fill(f, &v);
    cht_value_close(v);
    gate.full = true;
    gate.nothing = nothing;
    gate_fail(writes, 0, 0);
    f->c = (struct cht_commit){.ops = f->op, .count = f->n};
    assert_int_equal(cht_store_commit(s, &f->c), CHT_DISK_FULL);
    assert_as_before();
    gate_fail(writes, 0, 0);
    assert_int_equal(put("q", str("at once"), NULL), CHT_DISK_FULL); /* tried, or refused before that */
    assert_value("q", "other");
    gate_fail(0, 0, 0);
    put_soon("q", "again");
    assert_int_equal(cht_store_stats(s, &st, &err), CHT_OK);
    assert_false(st.read_only);
    assert_value("q", "again");
    assert_value("p", "old");
    assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    gate_fail(1, 0, 0);
    assert_int_equal(put("r", str("not this"), NULL), CHT_DISK_FULL);
    assert_int_equal(gate.fail_writes, 0);
    gate_fail(0, 0, 0);
    assert_value("r", "");
    put_soon("r", "but this");
    restart();
    assert_value("q", "again");
    assert_value("r", "but this");
    assert_value("p", "old");
    assert_value("gone", "there");
    assert_value("late", "in the log only");
    free(f);
}

static void test_no_room(void **state)
{
    (void)state;
    no_room(1, false);
}

/* The sync of an interval comes while the group is still to be taken back: it has nothing to say about that. */
static void test_no_room_at_a_tick(void **state)
{
    (void)state;
    gate.full = true;
    assert_int_equal(put("p", str("old"), NULL), CHT_OK);
    gate_fail(1, 0, 1000); /* the log cannot be read, so taking back fails until it can */
    assert_int_equal(put("p", str("new"), NULL), CHT_DISK_FULL);
    cht_sleep_ns(10 * INTERVAL_MS * UINT64_C(1000000));
    gate_fail(0, 0, 0);
    put_soon("q", "again");
    assert_value("p", "old");
    assert_int_equal(cht_store_checkpoint(s, &err), CHT_OK);
    restart();
    assert_value("p", "old");
    assert_value("q", "again");
}

/* The record cannot be written over either, but is not there: that is read. */
static void test_no_room_for_long(void **state)
{
    (void)state;
    no_room(1000, true);
}

/* Nothing can be read again: nothing is shown. */
static void test_all_fails(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct cht_value *v;
    char have[64];
    uint64_t pairs;
    fill(f, &v);
    cht_value_close(v);
    gate_fail(1000, 0, 1000);
    f->c = (struct cht_commit){.ops = f->op, .count = f->n};
    assert_int_equal(cht_store_commit(s, &f->c), CHT_OUTCOME_UNKNOWN);
    assert_int_equal(value_of("q", have), CHT_READ_ONLY);
    assert_int_equal(value_of("p", have), CHT_READ_ONLY);
    assert_int_equal(cht_store_count(s, str(""), &pairs, &err), CHT_READ_ONLY);
    gate_fail(0, 0, 0); /* the disk comes back: reads do, but for what nobody knows */
    enum cht_rc rc = CHT_READ_ONLY;
    for (unsigned i = 0; i < 2400 && (rc = value_of("q", have)) == CHT_READ_ONLY; i++)
        cht_sleep_ns(50000000);
    assert_int_equal(rc, CHT_OK);
    assert_string_equal(have, "other");
    assert_int_equal(value_of("p", have), CHT_OUTCOME_UNKNOWN);
    restart();
    assert_as_before();
    free(f);
}

/* An answer that was computed from what was refused is not kept. */
static void test_watch(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct cht_watch *w;
    assert_int_equal(put("p", str("old"), NULL), CHT_OK);
    assert_int_equal(cht_watch_new(s, str(""), &w, &err), CHT_OK);
    add(f, CHT_OP_PAIR_PUT, "fresh", "new");
    gate_fail(0, 1, 0);
    take_off(f);
    uint64_t version = cht_watch_begin(w, 1);
    assert_int_equal(scanned(), 2); /* ahead, as scans may be */
    cht_watch_end(w);
    assert_int_equal(cht_watch_version(w), version);
    land(f);
    assert_int_equal(f->c.rc, CHT_READ_ONLY);
    assert_value("fresh", "");
    assert_int_equal(scanned(), 1);
    assert_int_not_equal(cht_watch_version(w), version);
    cht_watch_free(w);
    free(f);
}

/* Readers that wait while the commit fails are told the old value. */
static void test_waits_for_failure(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct reader r = {.name = "p"};
    assert_int_equal(put("p", str("old"), NULL), CHT_OK);
    add(f, CHT_OP_PAIR_PUT, "p", "new");
    gate_fail(0, 1, 0);
    take_off(f);
    assert_int_equal(cht_thread_start(&r.t, "reader", read_main, &r, &err), CHT_OK);
    cht_sleep_ns(20000000);
    assert_false(atomic_load(&r.done));
    land(f);
    cht_thread_join(&r.t);
    assert_int_equal(r.rc, CHT_OK);
    assert_string_equal(r.value, "old");
    free(f);
}

/* ---- durability by commit ---------------------------------------------------------------------------------------- */

static enum cht_rc put_as(const char *name, const char *value, unsigned flags)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(value)};
    struct cht_commit c = {.ops = &op, .count = 1, .flags = flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc != CHT_OK ? rc : op.rc;
}

/* The power goes: only what was synced is there. */
static void power_cut(void)
{
    struct cht_rng r;
    cht_rng_seed(&r, 1);
    cht_env_abandon(env);
    struct simcut *c = simcut_new(disk);
    while (simcut_step(c))
        continue;
    struct simdisk *left = simcut_disk(c, SIM_DROP, &r);
    simcut_free(c);
    simdisk_free(disk);
    disk = left;
    simdisk_io(disk)->ops = &gate.ops;
    open_env();
}

/* Whatever the environment says, an interval commit waits for no sync, and is synced by the clock; one that wants a sync waits for it,
 * and takes with it what came before. */
static void test_by_commit(void **state)
{
    (void)state;
    struct flight *f = flight_new();
    struct cht_wait w = {.done = count_wake};
    enum cht_rc rc = CHT_PAIR_NOT_FOUND;
    assert_int_equal(put_as("first", "makes the log", CHT_COMMIT_SYNC), CHT_OK);
    cht_mutex_lock(&gate.mu);
    gate.hold = true;
    cht_mutex_unlock(&gate.mu);
    assert_int_equal(put_as("i", "one", CHT_COMMIT_INTERVAL), CHT_OK);
    assert_value("i", "one");
    add(f, CHT_OP_PAIR_PUT, "s", "two");
    f->c.flags = CHT_COMMIT_SYNC;
    take_off(f);
    for (unsigned i = 0; i < 10000 && rc == CHT_PAIR_NOT_FOUND; i++) {
        rc = pair_soon("s", &w);
        cht_sleep_ns(1000000);
    }
    assert_int_equal(rc, CHT_PENDING); /* it is in the pages, and not shown */
    cht_store_forget(s, &w);
    assert_false(atomic_load(&f->done));
    assert_value("i", "one");
    land(f);
    assert_int_equal(f->c.rc, CHT_OK);

    assert_int_equal(put_as("j", "three", CHT_COMMIT_INTERVAL), CHT_OK);
    await_sync(); /* the clock's, and not one that was for what came before */
    power_cut();
    assert_value("i", "one");
    assert_value("s", "two");
    assert_value("j", "three");
    gate_fail(1, 0, 0);
    assert_int_not_equal(put_as("k", "four", CHT_COMMIT_INTERVAL), CHT_OK);
    assert_value("k", "");
    assert_value("j", "three");
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_by_commit, setup_os, teardown),
        cmocka_unit_test_setup_teardown(test_by_commit, setup_interval, teardown),
        cmocka_unit_test_setup_teardown(test_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deletes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_predict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync_fails_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_fails_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_fails, setup_os, teardown),
        cmocka_unit_test_setup_teardown(test_write_fails_for_good, setup_os, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup_os, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_at_a_tick, setup_interval, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_for_long, setup_os, teardown),
        cmocka_unit_test_setup_teardown(test_all_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_failure, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
