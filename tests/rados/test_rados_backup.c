/* test_rados_backup: backups of a database on RADOS (moment.h, backup.h): of one moment while two servers write, whoever dies on the way; what
 * is restored of them into files is what was there. Needs CHT_RADOS_CONF (run.sh).
 */
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

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/backup.h"
#include "os/io.h"
#include "os/thread.h"
#include "store/rados/moment.h"
#include "store/rados/split.h"
#include "support/model.h"

#include "rados/support/two.h" /* last: its names are short */

static char dir[64];

static void open_one(struct cht_env **env, bool steps)
{
    struct cht_rados_config cfg = two_config();
    cfg.settle_ms = 1500;
    two_open_env(env, cfg, steps);
}

static int setup(void **state)
{
    struct cht_rados_config cfg = two_config();
    (void)state;
    cfg.settle_ms = 1500;
    two_new_name('b');
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

static enum cht_rc put(struct cht_store *s, const char *pair, struct cht_str value)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = value};
    return run(s, &op, 1, 0);
}

/* Snapshots of the pool that are of this database. */
static unsigned snapshots(struct cht_store *s)
{
    rados_snap_t snaps[64];
    char is[CHT_SNAPS_NAME_MAX], prefix[CHT_SNAPS_NAME_MAX];
    struct cht_rdb *db = cht_rdb(s);
    unsigned found = 0;
    assert_int_equal(rados_wait_for_latest_osdmap(db->env->link.cluster), 0);
    int n = rados_ioctx_snap_list(db->io, snaps, 64);
    (void)snprintf(prefix, sizeof prefix, "cheetah-%s-", db->uuid);
    for (int i = 0; i < n; i++)
        found += rados_ioctx_snap_get_name(db->io, snaps[i], is, sizeof is) == 0 &&
                 strncmp(is, prefix, strlen(prefix)) == 0;
    return found;
}

/* ---- restored into files ------------------------------------------------------------------------------------------------ */

static void add(struct cht_buf *to, const uint8_t *p, size_t n)
{
    if (to->len + n > to->cap)
        must(cht_buf_reserve(to, (to->len + n) * 2, &err));
    memcpy(to->data + to->len, p, n);
    to->len += n;
}

static enum cht_rc read_all(struct cht_backup *b, struct cht_buf *out)
{
    static uint8_t buf[CHT_BACKUP_BUFFER_MIN];
    size_t n = 1;
    enum cht_rc rc = CHT_OK;
    out->len = 0;
    while (rc == CHT_OK && n > 0) {
        rc = cht_backup_read(b, buf, sizeof buf, &n, &err);
        if (rc == CHT_OK)
            add(out, buf, n);
    }
    return rc;
}

static struct cht_env *files;
static struct cht_store *restored;

static void restore(const struct cht_buf *stream)
{
    const char *dirs[] = {dir};
    struct cht_env_config cfg = {.dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_OS};
    struct cht_backup_check *check;
    struct cht_restore *r;
    (void)snprintf(dir, sizeof dir, "%s/cht-rados-backup-XXXXXX",
                   getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir));
    must(cht_backup_check_new(&check, &err));
    must(cht_backup_check_feed(check, stream->data, stream->len, &err));
    must(cht_backup_check_finish(check, &err));
    cht_backup_check_free(check);
    must(cht_env_open(&cfg, &files, &err));
    must(cht_restore_new(files, NULL, &r, &err));
    must(cht_restore_feed(r, stream->data, stream->len, &err));
    must(cht_restore_finish(r, &err));
    cht_restore_free(r);
    must(cht_env_get(files, name, &restored, &err));
}

static void found(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_error("%s: %s\n", where, what);
}

/* All of it is checked. */
static void take_away(void)
{
    const char *dirs[] = {dir};
    const struct cht_env_config cfg = {.dirs = dirs, .dir_count = 1};
    uint64_t findings = 0;
    must(cht_env_close(files, &err));
    must(cht_check(&cfg, name, found, NULL, &findings, &err));
    assert_int_equal(findings, 0);
    must(cht_env_open(&cfg, &files, &err));
    must(cht_env_drop(files, name, &err));
    must(cht_env_close(files, &err));
    must(cht_io_remove_tree(cht_io_posix(), dir, &err));
}

static uint64_t number(struct cht_store *s, const char *pair)
{
    uint64_t key;
    uint32_t size;
    char text[24] = "";
    struct cht_buf b = {0};
    enum cht_rc rc = cht_store_pair_value(s, str(pair), &key, &b, &size, NULL);
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        fail_msg("%s: %s", pair, cht_rc_slug(rc));
    if (rc == CHT_OK)
        memcpy(text, b.data, b.len < sizeof text ? b.len : 0);
    cht_buf_free(&b);
    return strtoull(text, NULL, 10);
}

/* ---- the same as what was there ------------------------------------------------------------------------------------------- */

/* Every kind of row, against the model; and what is written, divided and dropped meanwhile is not in it. */
static void test_is_what_was_there(void **state)
{
    (void)state;
    struct model m, then;
    struct cht_rng r;
    struct cht_backup *b;
    struct cht_buf stream = {0};
    char why[256];
    cht_rng_seed(&r, 11);
    model_init(&m, 120, 11);
    m.sparse = true;
    for (unsigned i = 0; i < 120; i++) {
        struct model_batch *batch = malloc(sizeof *batch);
        if (i == 60) {
            must(cht_backup_open(one, &b, &err));
            model_copy(&then, &m);
        }
        model_random_batch(&m, &r, i % 20 == 0 ? 5000000 : 100000, batch);
        for (unsigned k = 0; k < batch->count; k++) /* see cheetah/rados.h */
            if (batch->ops[k].kind == CHT_OP_PREFIX_DEL)
                batch->flags = 0;
        struct cht_commit c = {.ops = batch->ops, .count = batch->count, .flags = batch->flags};
        (void)cht_store_commit(i % 2 == 0 ? one : two, &c);
        model_apply(&m, batch, &c);
        model_batch_free(batch);
        free(batch);
        if (i == 80)
            must(cht_split(cht_rdb(two), 1, &err));
    }
    must(read_all(b, &stream));
    assert_string_equal(cht_backup_info(b)->database, name);
    cht_backup_close(b);
    assert_int_equal(snapshots(one), 0);
    restore(&stream);
    if (model_compare(&then, restored, why, sizeof why) != 0)
        fail_msg("%s", why);
    uint64_t next;
    struct cht_store_stats st;
    must(cht_leases_next(cht_rdb(one), &next, &err));
    struct cht_op insert = {.kind = CHT_OP_INSERT, .value = str("new")};
    must(run(restored, &insert, 1, 0));
    assert_true(insert.key > then.max_key); /* none is given out again */
    must(cht_store_stats(restored, &st, &err));
    take_away();
    must(cht_backup_open(one, &b, &err)); /* now all that came later; and a division in it */
    must(read_all(b, &stream));
    cht_backup_close(b);
    restore(&stream);
    if (model_compare(&m, restored, why, sizeof why) != 0)
        fail_msg("%s", why);
    take_away();
    model_copy_free(&then);
    model_free(&m);
    cht_buf_free(&stream);
}

static uint64_t ends_of(struct cht_store *s, const char *pair)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = str(pair), .key = 0};
    must(run(s, &op, 1, 0));
    return op.ends;
}

/* Pairs that end end at the same time in what is restored; what has no such pair stays readable by programs that know of none. */
static void test_ends(void **state)
{
    (void)state;
    struct cht_backup *b;
    struct cht_buf stream = {0};
    char pair[16];
    uint64_t ends[20];
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(pair, sizeof pair, "e:%u", i);
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = str(pair),
                            .value = str("v"),
                            .ttl_ms = i % 2 == 0 ? UINT64_C(1000000000) + i : 0};
        must(run(i % 3 == 0 ? one : two, &op, 1, 0));
        ends[i] = ends_of(one, pair);
        assert_int_equal(ends[i] != 0, i % 2 == 0);
    }
    struct cht_op home = {.kind = CHT_OP_PAIR_PUT, .name = str("home"), .value = str("v")};
    must(run(one, &home, 1, 0));
    struct cht_op ended = {.kind = CHT_OP_PAIR_SET, .name = str("ended"), .key = home.key, .until_ms = 1000};
    must(run(one, &ended, 1, 0));
    struct cht_op later = {.kind = CHT_OP_PUT, .key = home.key, .value = str("later")}; /* it lasts */
    must(run(one, &later, 1, 0));
    must(cht_backup_open(two, &b, &err));
    must(read_all(b, &stream));
    cht_backup_close(b);
    restore(&stream);
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(pair, sizeof pair, "e:%u", i);
        assert_int_equal(ends_of(restored, pair), ends[i]);
    }
    uint64_t pairs;
    uint32_t size = 0;
    must(cht_store_count(restored, str(""), &pairs, &err)); /* removes what has ended */
    assert_int_equal(pairs, 21);
    must(cht_store_get(restored, home.key, NULL, &size, &err));
    assert_int_equal(size, 5);
    take_away();
    cht_buf_free(&stream);
}

/* ---- one moment ------------------------------------------------------------------------------------------------------- */

#define ACCOUNTS 10u
#define EACH 1000u

static _Atomic bool over;
static _Atomic unsigned failed;
static _Atomic uint64_t begun[2],
    acked[2]; /* of each writer's two numbers: the first is written before the second */

static void *write_on(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct cht_store *s = me == 0 ? one : two;
    char accounts[2][24], text[2][24], first[16], second[16];
    struct cht_rng r;
    cht_rng_seed(&r, me);
    (void)snprintf(first, sizeof first, "first:%u", me);
    (void)snprintf(second, sizeof second, "second:%u", me);
    for (uint64_t n = 1; !atomic_load(&over); n++) {
        unsigned from = (unsigned)cht_rng_below(&r, ACCOUNTS / 2) + me * ACCOUNTS / 2,
                 to = (from + 1) % ACCOUNTS;
        to = to / (ACCOUNTS / 2) == me
                 ? to
                 : me * ACCOUNTS / 2; /* accounts of one writer: what they have is known */
        (void)snprintf(accounts[0], sizeof accounts[0], "account:%u", from);
        (void)snprintf(accounts[1], sizeof accounts[1], "account:%u", to);
        uint64_t a = number(s, accounts[0]), b = number(s, accounts[1]);
        if (a > 0 && from != to) {
            (void)snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)a - 1);
            (void)snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)b + 1);
            struct cht_op ops[2];
            for (unsigned i = 0; i < 2; i++)
                ops[i] =
                    (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(accounts[i]), .value = str(text[i])};
            if (run(s, ops, 2, CHT_COMMIT_ATOMIC) != CHT_OK)
                atomic_fetch_add(&failed, 1);
        }
        (void)snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)n);
        atomic_store(&begun[me], n);
        if (put(s, first, str(text[0])) != CHT_OK || put(s, second, str(text[0])) != CHT_OK)
            atomic_fetch_add(&failed, 1);
        atomic_store(&acked[me], n);
    }
    return NULL;
}

/* MO1: sums stay; of what was written one after the other, by whichever servers, none is there without what came before; all is there that
 * was acknowledged before, nothing that began later. */
static void look_at_moment(const uint64_t before[2], const uint64_t after[2])
{
    uint64_t sum = 0;
    char pair[2][16];
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        (void)snprintf(pair[0], sizeof pair[0], "account:%u", i);
        sum += number(restored, pair[0]);
    }
    assert_int_equal(sum, ACCOUNTS * EACH);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(pair[0], sizeof pair[0], "first:%u", i);
        (void)snprintf(pair[1], sizeof pair[1], "second:%u", i);
        uint64_t first = number(restored, pair[0]), second = number(restored, pair[1]);
        if (first < second || first > second + 1 || second < before[i] || first > after[i])
            fail_msg("writer %u: %llu and %llu; %llu were acknowledged before, %llu begun", i,
                     (unsigned long long)first, (unsigned long long)second, (unsigned long long)before[i],
                     (unsigned long long)after[i]);
    }
}

static void start_writers(struct cht_thread t[2])
{
    char pair[16];
    atomic_store(&over, false);
    atomic_store(&failed, 0);
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        (void)snprintf(pair, sizeof pair, "account:%u", i);
        must(put(one, pair, str("1000")));
    }
    for (uintptr_t i = 0; i < 2; i++) {
        atomic_store(&begun[i], 0);
        atomic_store(&acked[i], 0);
        must(cht_thread_start(&t[i], "writer", write_on, (void *)i, &err));
    }
}

static void stop_writers(struct cht_thread t[2])
{
    atomic_store(&over, true);
    for (unsigned i = 0; i < 2; i++)
        cht_thread_join(&t[i]);
    assert_int_equal(atomic_load(&failed), 0);
}

static void one_moment(struct cht_store *s)
{
    struct cht_backup *b, *second;
    struct cht_buf stream = {0};
    const uint64_t before[2] = {atomic_load(&acked[0]), atomic_load(&acked[1])};
    must(cht_backup_open(s, &b, &err));
    const uint64_t after[2] = {atomic_load(&begun[0]), atomic_load(&begun[1])};
    for (unsigned i = 0; i < 2; i++) /* MO5 */
        assert_int_equal(cht_backup_open(i == 0 ? one : two, &second, NULL), CHT_DATABASE_BUSY);
    assert_int_equal(snapshots(one), 1);
    uint64_t more = atomic_load(&acked[0]) + 3;
    while (atomic_load(&acked[0]) < more) /* servers write on */
        cht_sleep_ns(UINT64_C(1000000));
    must(read_all(b, &stream));
    cht_backup_close(b);
    assert_int_equal(snapshots(one), 0);
    restore(&stream);
    look_at_moment(before, after);
    take_away();
    cht_buf_free(&stream);
}

static void test_one_moment(void **state)
{
    (void)state;
    struct cht_thread t[2];
    unsigned rounds = getenv("CHT_TEST_LONG") != NULL ? 30 : 1;
    start_writers(t);
    for (unsigned i = 0; i < rounds; i++)
        one_moment(i % 2 == 0 ? one : two);
    stop_writers(t);
}

static unsigned stood;
static void take_lock(void *ctx, struct cht_str row, struct cht_str value)
{
    struct cht_epoch e = {0};
    (void)row;
    assert_true(cht_row_epoch_read(value.p, value.n, &e));
    *(uint64_t *)ctx = e.lock;
}

static uint64_t lock_of_shard(void)
{
    const char *row = "E";
    size_t n = 1;
    uint64_t lock = 0;
    assert_int_equal(
        cht_link_rows(cht_rdb(two)->io, "s.0", &(struct cht_rows_wanted){&row, &n, 1}, take_lock, &lock), 0);
    return lock;
}

/* Until somebody has given its locks back. */
static void stand_still(const char *what)
{
    if (strcmp(what, "moment-commit") != 0 || stood++ > 0)
        return;
    uint64_t end = cht_now_ns() + UINT64_C(60000000000), lock = lock_of_shard();
    assert_true(lock != 0);
    while (lock_of_shard() == lock && cht_now_ns() < end)
        cht_sleep_ns(UINT64_C(10000000));
}

/* M4: who stands still with the locks is given up by whoever wants to write, and takes them anew. */
static void test_stands_still(void **state)
{
    (void)state;
    struct cht_thread t[2];
    start_writers(t);
    stood = 0;
    at_step = stand_still;
    one_moment(one);
    at_step = NULL;
    assert_true(stood >= 2);
    stop_writers(t);
}

/* ---- failures ----------------------------------------------------------------------------------------------------------- */

static int backup_in_process(const char *at)
{
    pid_t p = fork();
    if (p == 0) {
        struct cht_backup *b;
        struct cht_buf stream = {0};
        (void)snprintf(stop_at, sizeof stop_at, "%s", at);
        at_step = two_stop;
        open_one(&envs[0], true);
        bool good = cht_env_get(envs[0], name, &one, &err) == CHT_OK &&
                    cht_backup_open(one, &b, &err) == CHT_OK && read_all(b, &stream) == CHT_OK;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* As if half a minute had gone by since its holder died. */
static void break_lock(struct cht_store *s)
{
    struct cht_rdb *db = cht_rdb(s);
    char tag[64], clients[256], cookies[256], addresses[512];
    size_t tn = sizeof tag, cn = sizeof clients, kn = sizeof cookies, an = sizeof addresses;
    int exclusive;
    ssize_t n = rados_list_lockers(db->io, "h", "backup", &exclusive, tag, &tn, clients, &cn, cookies, &kn,
                                   addresses, &an);
    if (n > 0)
        assert_int_equal(rados_break_lock(db->io, "h", "backup", clients, cookies), 0);
}

/* MO3, MO5: a server ends before each step. Whoever writes goes on, within the time after which a transaction is given up; the next backup is
 * right, and nothing of the first is left. */
static void test_killed(void **state)
{
    static const char *const steps[] = {"moment-create", "moment-lock", "moment-snapshot", "moment-commit",
                                        "moment-unlock", "apply",       "remove",          "moment-end"};
    (void)state;
    struct cht_env *env;
    struct cht_backup *b;
    struct cht_buf stream = {0};
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        char pair[16];
        if (i % 4 != 3 &&
            getenv("CHT_TEST_LONG") == NULL) /* with all locks, and with a snapshot that is left */
            continue;
        two_new_name('b');
        pid_t p = fork(); /* nobody is connected who forks */
        if (p == 0) {
            open_one(&env, false);
            _exit(cht_env_create(env, name, 4, &err) == CHT_OK && cht_env_close(env, &err) == CHT_OK ? 0 : 1);
        }
        int status = 1;
        assert_int_equal(waitpid(p, &status, 0), p);
        assert_int_equal(status, 0);
        if (backup_in_process(steps[i]) != 9)
            fail_msg("%s: it did not come that far", steps[i]);
        open_one(&env, false);
        must(cht_env_get(env, name, &two, &err));
        for (unsigned k = 0; k < 16; k++) {
            (void)snprintf(pair, sizeof pair, "a:%u", k);
            must(put(two, pair, str("1")));
        }
        assert_int_equal(cht_backup_open(two, &b, &err), CHT_DATABASE_BUSY); /* it might live */
        break_lock(two);
        cht_moment_clean(cht_rdb(two));
        assert_int_equal(snapshots(two), 0);
        must(cht_backup_open(two, &b, &err));
        must(read_all(b, &stream));
        cht_backup_close(b);
        restore(&stream);
        assert_int_equal(number(restored, "a:15"), 1);
        take_away();
        must(cht_env_drop(env, name, &err));
        must(cht_env_close(env, &err));
    }
    cht_buf_free(&stream);
}

/* MO4: nobody gets an end of what may not be of one moment. A damaged value ends it, too; and the database goes with its snapshots. */
static void test_snapshot_is_gone(void **state)
{
    (void)state;
    struct cht_backup *b;
    struct cht_buf stream = {0};
    char text[] = "a value";
    must(put(one, "a", str(text)));
    must(cht_backup_open(one, &b, &err));
    assert_int_equal(snapshots(two), 1); /* and two has the newest map */
    assert_true(cht_snaps_any(cht_rdb(two)->io, cht_rdb(two)->uuid));
    assert_false(
        cht_snaps_any(cht_rdb(two)->io, "another")); /* whose snapshots are no reason to take a lock */
    cht_snaps_remove(cht_rdb(two)->io, cht_rdb(two)->uuid);
    assert_int_equal(snapshots(two), 0);
    assert_int_equal(read_all(b, &stream), CHT_IO);
    assert_int_equal(read_all(b, &stream), CHT_IO);
    cht_backup_close(b);
    must(cht_backup_open(one, &b, &err));
    must(cht_env_drop(envs[1], name, &err));
    assert_int_equal(snapshots(one), 0);
    assert_true(read_all(b, &stream) != CHT_OK);
    cht_backup_close(b);
    cht_buf_free(&stream);
}

/* A pool with more snapshots than are looked at in the first try: one of the database is found and removed, and no other. */
static void test_many_snapshots(void **state)
{
    (void)state;
    unsigned others = getenv("CHT_TEST_LONG") != NULL ? 140 : 9;
    rados_ioctx_t io = cht_rdb(one)->io;
    char snap[CHT_SNAPS_NAME_MAX];
    rados_snap_t id;
    for (unsigned i = 0; i < others; i++) {
        cht_snaps_name(snap, "another", i);
        assert_int_equal(rados_ioctx_snap_create(io, snap), 0);
    }
    cht_snaps_name(snap, cht_rdb(one)->uuid, 1);
    assert_int_equal(rados_ioctx_snap_create(io, snap), 0);
    assert_true(cht_snaps_any(io, cht_rdb(one)->uuid));
    cht_snaps_remove(io, cht_rdb(one)->uuid);
    assert_false(cht_snaps_any(io, cht_rdb(one)->uuid));
    for (unsigned i = 0; i < others; i++) {
        cht_snaps_name(snap, "another", i);
        assert_int_equal(rados_ioctx_snap_lookup(io, snap, &id), 0);
    }
    cht_snaps_remove(io, "another");
    assert_false(cht_snaps_any(io, "another"));
}

/* An allocation that fails anywhere: no backup, nothing of it left, and the next one is right. */
static void test_allocations(void **state)
{
    (void)state;
    struct cht_backup *b;
    struct cht_buf stream = {0};
    bool reached = true;
    unsigned failures = 0;
    bool all = getenv("CHT_TEST_LONG") != NULL;
    must(put(one, "a", str("1")));
    must(cht_buf_reserve(&stream, 4 << 20, &err));
    for (uint64_t n = 1; reached; n = all ? n + 1 : 4 * n + 1) {
        stream.len = 0;
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = cht_backup_open(one, &b, &err);
        if (rc == CHT_OK) {
            rc = read_all(b, &stream);
            cht_backup_close(b);
        }
        reached = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        failures += rc != CHT_OK;
        if (rc != CHT_OK)
            assert_int_equal(rc, CHT_NO_MEMORY);
        assert_true(reached || rc == CHT_OK);
    }
    assert_true(failures > 0);
    assert_int_equal(snapshots(one), 0);
    restore(&stream);
    assert_int_equal(number(restored, "a"), 1);
    take_away();
    cht_buf_free(&stream);
}

int main(void)
{
    if (!two_ready())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed), /* it forks, so before anything is connected */
        cmocka_unit_test_setup_teardown(test_is_what_was_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stands_still, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocations, setup, teardown),
    };
    cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
