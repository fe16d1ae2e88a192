/* test_costs: what databases share: descriptors of page files, segments of the log that grow, the budget of changed memory, and the
 * table of a server, whose databases are closed and opened while they are used. For the sanitizers too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cheetah/store.h"
#include "os/fdcache.h"
#include "os/io.h"
#include "service/dbs.h"

#define MIB (UINT64_C(1) << 20)

static char dir[] = "/tmp/cht-costs-XXXXXX";
static const char *dirs[] = {dir};

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err->msg);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    return system(command); /* NOLINT(cert-env33-c,concurrency-mt-unsafe): a path of this test's own */
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

#define FILES 40

/* Open descriptors of the process. */
static unsigned descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_descriptors_rest(void **state)
{
    (void)state;
    struct cht_io *io = cht_io_posix();
    struct cht_file *f[FILES];
    struct cht_err err = {0};
    char path[64], other[80];
    uint64_t size;
    unsigned before = descriptors();
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/%d", dir, i);
        must(cht_io_open(io, path, CHT_OPEN_CREATE | CHT_OPEN_REST, &f[i], &err), &err);
        must(cht_file_write(f[i], &i, sizeof i, 0, &err), &err);
    }
    assert_true(descriptors() - before <= CHT_FDS_KEPT);
    for (int i = 0, got; i < FILES; i++) {
        must(cht_file_read(f[i], &got, sizeof got, 0, &err), &err);
        assert_int_equal(got, i);
        must(cht_file_sync(f[i], &err), &err);
    }
    assert_true(descriptors() - before <= CHT_FDS_KEPT);
    /* File 0 rests without a descriptor by now. Another file under its path is not it, nor is none. */
    (void)snprintf(path, sizeof path, "%s/0", dir);
    (void)snprintf(other, sizeof other, "%s.away", path);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(io->ops->size(f[0], &size, &err), CHT_NO_FILE);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(cht_file_write(f[0], path, 4, 0, &err), CHT_IO);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(rename(other, path), 0);
    must(io->ops->size(f[0], &size, &err), &err);
    assert_int_equal(size, sizeof(int));
    for (int i = 0; i < FILES; i++)
        cht_file_close(f[i]);
    assert_int_equal(descriptors(), before);
}

struct reader {
    struct cht_file **f;
    unsigned seed;
    _Atomic unsigned *bad;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    struct cht_err err;
    for (unsigned n = 0, x = r->seed; n < 4000; n++) {
        int got = -1, i = (int)((x = x * 1103515245u + 12345u) >> 16) % FILES;
        if (cht_file_read(r->f[i], &got, sizeof got, 0, &err) != CHT_OK || got != i)
            atomic_fetch_add(r->bad, 1);
    }
    return NULL;
}

static void test_descriptors_at_once(void **state)
{
    (void)state;
    struct cht_file *f[FILES];
    struct cht_err err = {0};
    char path[64];
    _Atomic unsigned bad = 0;
    unsigned before = descriptors();
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/%d", dir, i);
        must(cht_io_open(cht_io_posix(), path, CHT_OPEN_CREATE | CHT_OPEN_REST, &f[i], &err), &err);
        must(cht_file_write(f[i], &i, sizeof i, 0, &err), &err);
    }
    pthread_t t[4];
    struct reader r[4];
    for (unsigned i = 0; i < 4; i++) {
        r[i] = (struct reader){f, i, &bad};
        assert_int_equal(pthread_create(&t[i], NULL, read_all, &r[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    assert_int_equal(bad, 0);
    assert_true(descriptors() - before <= CHT_FDS_KEPT);
    for (int i = 0; i < FILES; i++)
        cht_file_close(f[i]);
}

/* ---- log and budget ---------------------------------------------------------------------------------------------- */

static void insert(struct cht_store *s, size_t n)
{
    uint8_t *v = calloc(1, n);
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = {v, n}};
    struct cht_commit c = {.ops = &op, .count = 1};
    assert_non_null(v);
    must(cht_store_commit(s, &c), &c.err);
    free(v);
}

static struct cht_store_stats stats(struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    must(cht_store_stats(s, &st, &err), &err);
    return st;
}

static void test_log_grows(void **state)
{
    (void)state;
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_OS, .log_segment_bytes = 4 * MIB};
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    bool closed, clean;
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "log", 0, &err), &err);
    must(cht_env_get(env, "log", &s, &err), &err);
    assert_int_equal(stats(s).log_bytes, 0);
    insert(s, 1);
    assert_true(stats(s).log_bytes <= 64u << 10);
    uint64_t live = 0;
    for (int i = 0; i < 600;
         i++) { /* never much more than twice what it holds, until segments are of full length */
        insert(s, 10000);
        live += 10000;
        if (live < 4 * MIB)
            assert_true(stats(s).log_bytes <= 4 * live + (256u << 10));
    }
    must(cht_env_is_clean(env, "log", &clean, &err), &err);
    assert_true(clean); /* it is open */
    must(cht_env_release(env, "log", &closed, &err), &err);
    assert_true(closed);
    must(cht_env_is_clean(env, "log", &clean, &err), &err);
    assert_true(clean);
    must(cht_env_get(env, "log", &s, &err), &err);
    assert_int_equal(stats(s).values, 601);
    assert_true(stats(s).log_bytes <= 512);
    cht_env_abandon(env);
}

/* One budget: the small one is left alone, the large one is checkpointed. */
static void test_budget(void **state)
{
    (void)state;
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_OS, .dirty_bytes = 4 * MIB};
    struct cht_env *env;
    struct cht_store *small, *large;
    struct cht_err err = {0};
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "small", 0, &err), &err);
    must(cht_env_create(env, "large", 0, &err), &err);
    must(cht_env_get(env, "small", &small, &err), &err);
    must(cht_env_get(env, "large", &large, &err), &err);
    for (int i = 0; i < 100; i++)
        insert(small, 1000);
    for (int i = 0; i < 20000; i++) {
        insert(large, 1000);
        if (i % 1000 == 0)
            assert_true(stats(small).dirty_bytes + stats(large).dirty_bytes <= 4 * 4 * MIB + MIB);
    }
    assert_true(stats(large).checkpoints > 0);
    assert_int_equal(stats(small).checkpoints, 0);
    must(cht_env_close(env, &err), &err);
}

/* ---- a server's table -------------------------------------------------------------------------------------------- */

struct user {
    struct svc_dbs *dbs;
    unsigned index, databases, rounds;
    _Atomic unsigned *bad;
    _Atomic bool *stop;
};

static void name_of(char *name, unsigned i) { (void)snprintf(name, 16, "d%u", i); }

/* Reads, in its own databases, what it wrote before, and writes one more. */
static void *use(void *arg)
{
    struct user *u = arg;
    for (unsigned r = 0; r < u->rounds; r++) {
        for (unsigned i = u->index; i < u->databases; i += 4) {
            struct svc_database *d = NULL;
            struct cht_err err = {0};
            char name[16];
            bool created;
            name_of(name, i);
            enum cht_rc rc = svc_dbs_open(u->dbs, name, true, 2, &d, &created, &err);
            struct cht_store_stats st = {0};
            if (rc == CHT_OK)
                rc = cht_store_stats(d->store, &st, &err);
            struct cht_op op = {.kind = CHT_OP_INSERT, .value = {(const uint8_t *)"value", 5}};
            struct cht_commit c = {.ops = &op, .count = 1};
            if (rc == CHT_OK)
                rc = cht_store_commit(d->store, &c);
            if (rc != CHT_OK || st.values != r || created != (r == 0))
                atomic_fetch_add(u->bad, 1);
            svc_dbs_put(d);
        }
    }
    return NULL;
}

static void *close_them(void *arg)
{
    struct user *u = arg;
    for (unsigned i = 0; !atomic_load(u->stop); i++) {
        struct cht_err err;
        enum cht_rc rc;
        char name[16];
        name_of(name, i % u->databases);
        svc_dbs_tick(u->dbs);
        (void)svc_dbs_close_unused(u->dbs, name, UINT64_MAX, &rc, &err);
        if (rc != CHT_OK)
            atomic_fetch_add(u->bad, 1);
    }
    return NULL;
}

static void test_closing_while_used(void **state)
{
    (void)state;
    bool longer = getenv("CHT_TEST_LONG") != NULL; /* NOLINT(concurrency-mt-unsafe): one thread yet */
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_INTERVAL, .interval_ms = 1};
    struct cht_env *env;
    struct svc_dbs *dbs;
    struct cht_err err = {0};
    _Atomic unsigned bad = 0;
    _Atomic bool stop = false;
    must(cht_env_open(&cfg, &env, &err), &err);
    must(svc_dbs_new(env, &dbs, &err), &err);
    svc_dbs_limit(dbs, 10 * 2 * SVC_DBS_MAPS_A_SHARD); /* ten of them */
    struct user u[5];
    pthread_t t[5];
    for (unsigned i = 0; i < 5; i++) {
        u[i] = (struct user){dbs, i, longer ? 2000 : 24, longer ? 10 : 4, &bad, &stop};
        assert_int_equal(pthread_create(&t[i], NULL, i < 4 ? use : close_them, &u[i]), 0);
    }
    for (unsigned i = 0; i < 5; i++) {
        if (i == 4)
            atomic_store(&stop, true);
        assert_int_equal(pthread_join(t[i], NULL), 0);
    }
    assert_int_equal(bad, 0);
    struct svc_dbs_stats st;
    svc_dbs_read_stats(dbs, &st);
    assert_true(st.open <= 10 + 4);
    assert_true(st.closed > 0 && st.opened == st.closed + st.open);
    svc_dbs_free(dbs);
    must(cht_env_close(env, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_descriptors_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_while_used, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
