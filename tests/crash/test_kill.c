/* test_kill: a real process under load on real files is killed with SIGKILL, again and again. What it had reported as
 * acknowledged (through a pipe) is there after recovery.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/store.h"

#define WRITERS 4
#define NAMES 500 /* a writer */

static char dir[] = "/tmp/cht-kill-XXXXXX";
static const char *dirs[] = {dir};

/* What a writer says is acknowledged: name `n` of writer `w` has version `v`. */
struct report {
    uint32_t w, n, v, zero;
};

static struct cht_env_config config(void)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 4,
                                   .log_segment_bytes = 256u << 10,
                                   .checkpoint_log_bytes = 1u << 20,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .dirty_bytes = 4u << 20};
}

static size_t make_value(uint32_t w, uint32_t n, uint32_t v, uint8_t *out)
{
    size_t len = 12 + (n * 31 + v * 17) % 700;
    memcpy(out, &w, 4);
    memcpy(out + 4, &n, 4);
    memcpy(out + 8, &v, 4);
    memset(out + 12, (int)(v & 255), len - 12);
    return len;
}

struct writer {
    struct cht_store *s;
    uint32_t w, first;
    int fd;
};

/* Each commit is atomic and writes two names with the same version. */
static void *write_on(void *arg)
{
    struct writer *me = arg;
    uint8_t value[2][1024];
    char name[2][32];
    for (uint32_t v = me->first;; v++) {
        struct report rep[2];
        struct cht_op ops[2];
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t n = v % (NAMES / 2) + i * (NAMES / 2);
            int len = snprintf(name[i], sizeof name[i], "w%u:%u", me->w, n);
            ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                     .name = {(uint8_t *)name[i], (size_t)len},
                                     .value = {value[i], make_value(me->w, n, v, value[i])}};
            rep[i] = (struct report){me->w, n, v, 0};
        }
        struct cht_commit c = {.ops = ops, .count = 2, .flags = CHT_COMMIT_ATOMIC};
        if (cht_store_commit(me->s, &c) != CHT_OK || write(me->fd, rep, sizeof rep) != (ssize_t)sizeof rep)
            _exit(3);
    }
    return NULL;
}

static void child(int fd, uint32_t first)
{
    struct cht_env_config cfg = config();
    struct cht_env *env;
    struct cht_err err = {0};
    struct writer w[WRITERS];
    pthread_t t[WRITERS];
    struct cht_store *s;
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        _exit(2);
    (void)cht_env_create(env, "default", 0, &err);
    if (cht_env_get(env, "default", &s, &err) != CHT_OK)
        _exit(2);
    for (uint32_t i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){s, i, first, fd};
        pthread_create(&t[i], NULL, write_on, &w[i]);
    }
    pthread_join(t[0], NULL);
}

static uint32_t acked[WRITERS][NAMES];
static _Atomic unsigned reports; /* of this round */

static void read_reports(int fd)
{
    struct report r;
    while (read(fd, &r, sizeof r) == (ssize_t)sizeof r) {
        acked[r.w][r.n] = r.v;
        reports++;
    }
}

static void *reader_main(void *arg)
{
    read_reports(*(int *)arg);
    return NULL;
}

static void verify(void)
{
    struct cht_env_config cfg = config();
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_buf b = {0};
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    enum cht_rc rc = cht_env_get(env, "default", &s, &err);
    if (rc != CHT_OK)
        fail_msg("recovery refused: %s", err.msg);
    for (uint32_t w = 0; w < WRITERS; w++) {
        for (uint32_t n = 0; n < NAMES; n++) {
            char name[32];
            uint8_t want[1024];
            uint64_t key;
            uint32_t size = 0, v = 0, other = 0;
            int len = snprintf(name, sizeof name, "w%u:%u", w, n);
            rc = cht_store_pair_value(s, (struct cht_str){(uint8_t *)name, (size_t)len}, &key, &b, &size,
                                      &err);
            if (acked[w][n] == 0 && rc == CHT_PAIR_NOT_FOUND)
                continue;
            assert_int_equal(rc, CHT_OK);
            memcpy(&v, b.data + 8, 4);
            assert_true(v == acked[w][n] || v == acked[w][n] + NAMES / 2 || acked[w][n] == 0);
            assert_int_equal(size, make_value(w, n, v, want));
            assert_memory_equal(b.data, want, size);
            len = snprintf(name, sizeof name, "w%u:%u", w,
                           (n + NAMES / 2) % NAMES); /* its partner in the commit */
            assert_int_equal(cht_store_pair_value(s, (struct cht_str){(uint8_t *)name, (size_t)len}, &key, &b,
                                                  &size, &err),
                             CHT_OK);
            memcpy(&other, b.data + 8, 4);
            assert_int_equal(v, other);
            acked[w][n] = v;
        }
    }
    cht_buf_free(&b);
    cht_env_abandon(env);
}

static void test_kill(void **state)
{
    (void)state;
    const char *env_rounds = getenv("CHT_TEST_ROUNDS");
    int rounds = env_rounds != NULL ? atoi(env_rounds) : 8;
    struct cht_rng r;
    cht_rng_seed(&r, 99);
    uint64_t total = 0;
    for (int round = 0; round < rounds; round++) {
        int fds[2];
        uint32_t first = 1;
        reports = 0;
        for (uint32_t w = 0; w < WRITERS; w++) {
            for (uint32_t n = 0; n < NAMES; n++)
                first = acked[w][n] >= first ? acked[w][n] + 1 : first;
        }
        for (uint32_t w = 0; w < WRITERS; w++) { /* every writer goes on from the same version */
            for (uint32_t n = 0; n < NAMES; n++)
                acked[w][n] = 0;
        }
        char cmd[128]; /* the list as well: a database that is listed and not there is not made anew */
        (void)snprintf(cmd, sizeof cmd, "rm -rf %s/default %s/cheetah.set", dir, dir);
        if (round % 3 == 0)
            assert_int_equal(system(cmd), 0);
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child(fds[1], round % 3 == 0 ? 1 : first);
            _exit(0);
        }
        close(fds[1]);
        pthread_t reader;
        pthread_create(&reader, NULL, reader_main, &fds[0]);
        /* it must have been made: a database that is cut off while it is made is none (test_identity) */
        for (unsigned i = 0; reports < 20 && i < 6000; i++)
            cht_sleep_ns(10000000);
        cht_sleep_ns(cht_rng_below(&r, 800000000));
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        pthread_join(reader, NULL);
        close(fds[0]);
        assert_true(WIFSIGNALED(status));
        for (uint32_t w = 0; w < WRITERS; w++) {
            for (uint32_t n = 0; n < NAMES; n++)
                total += acked[w][n] != 0;
        }
        verify();
    }
    print_message("%d kills, %llu names acknowledged\n", rounds, (unsigned long long)total);
    assert_true(total > 100);
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};
    if (mkdtemp(dir) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
