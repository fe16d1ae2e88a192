/* test_http_faults: a whole HTTP server in this process, on a simulated disk, while memory or the disk fails under each kind of
 * request: the n-th allocation or disk call, n = 1, 2, ... until none fails any more. Each request is answered sensibly or its
 * connection is closed, the server goes on, and what was said to be written is there.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "conf/conf.h"
#include "service/dbs.h"
#include "http/routes.h"
#include "http/server.h"
#include "support/simdisk.h"

#define ANSWER_MAX (1u << 20)

static const char *const dirs[] = {"/a"};
static struct simdisk *disk;
static struct conf conf;
static struct svc_log *lg;
static struct http_server *server;
static struct cht_env *env;
static struct svc_dbs *dbs;
static struct cht_err err;
static char answer[ANSWER_MAX + 1];

static const char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    static char *flags[] = {"--listen",    "127.0.0.1:0", "--http-threads", "1",
                            "--log-level", "error",       "--access-log",   "true"};
    struct cht_env_config cfg;
    struct svc_database *d;
    bool created;
    disk = simdisk_new();
    cfg = (struct cht_env_config){.dirs = dirs,
                                  .dir_count = 1,
                                  .default_shards = 2,
                                  .scan_workers = 1,
                                  .manual_checkpoint = true,
                                  .value_order = CHT_ORDER_ALWAYS,
                                  .io = simdisk_io(disk)};
    assert_int_equal(conf_read(&conf, 8, flags, no_environment, &err), CHT_OK);
    assert_int_equal(svc_log_new(true, SVC_LOG_ERROR, &lg, &err), CHT_OK);
    assert_int_equal(http_server_start(&conf, &http_routes, lg, &server, &err), CHT_OK);
    assert_int_equal(cht_env_open(&cfg, &env, &err), CHT_OK);
    assert_int_equal(svc_dbs_new(env, &dbs, &err), CHT_OK);
    assert_int_equal(svc_dbs_open(dbs, "default", true, 0, &d, &created, &err), CHT_OK);
    svc_dbs_put(d);
    http_server_ready(server, env, dbs);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_stop(server, UINT64_C(10000000000));
    svc_dbs_free(dbs);
    (void)cht_env_close(env, &err);
    http_server_free(server);
    svc_log_free(lg);
    conf_fini(&conf);
    simdisk_free(disk);
    return 0;
}

/* ---- a client --------------------------------------------------------------------------------------------------- */

static int connected(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server->port)};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Appends to `answer` what comes until the server closes. */
static void take_answer(int fd, size_t *got)
{
    ssize_t n = 0;
    while (*got < ANSWER_MAX && (n = recv(fd, answer + *got, ANSWER_MAX - *got, 0)) > 0)
        *got += (size_t)n;
    assert_true(n <= 0); /* it was not too long */
    answer[*got] = 0;
    (void)close(fd);
}

static int exchange(const char *head, size_t head_len, const char *body, size_t len)
{
    size_t got = 0;
    int status = 0, fd = connected();
    (void)send(fd, head, head_len, MSG_NOSIGNAL); /* a closed connection shows when the answer is read */
    if (len > 0)
        (void)send(fd, body, len, MSG_NOSIGNAL);
    take_answer(fd, &got);
    (void)sscanf(answer, "HTTP/1.1 %d", &status);
    return status;
}

/* The status, 0 if the connection was closed before one came. The whole answer is in `answer`. */
static int ask(const char *method, const char *target, const char *type, const char *body)
{
    char head[1024];
    size_t len = body != NULL ? strlen(body) : 0;
    int h = snprintf(head, sizeof head,
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: "
                     "%s\r\nContent-Length: %zu\r\n\r\n",
                     method, target, type, len);
    return exchange(head, (size_t)h, body, len);
}

/* The call on many connections at once, after two others that make the server busy; mostly it comes in a busy round. */
#define MANY 24
static void ask_busy(const char *call)
{
    static const char before[] = "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char text[512];
    int fd[MANY], n = snprintf(text, sizeof text, "%s%s%s", before, before, call);
    size_t got = 0;
    for (int i = 0; i < MANY; i++)
        fd[i] = connected();
    for (int i = 0; i < MANY; i++)
        (void)send(fd[i], text, (size_t)n, MSG_NOSIGNAL);
    for (int i = 0; i < MANY; i++)
        take_answer(fd[i], &got);
}

static unsigned occurrences(const char *what)
{
    unsigned n = 0;
    for (const char *p = answer; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

struct call {
    const char *method, *target, *type, *body;
    int status;
};

static const struct call calls[] = {
    {"POST", "/kv", "text/plain", "a value", 201},
    {"GET", "/kv/1", "", NULL, 200},
    {"GET", "/kv", "", NULL, 200},
    {"GET", "/kv?keys=1,2,3", "", NULL, 200},
    {"PUT", "/kv/1", "application/json", "{\"value\":\"bmV3\"}", 200},
    {"PUT", "/pairs/some/pair", "text/plain", "its value", 200},
    {"PUT", "/pairs/other", "application/json", "{\"key\":1}", 200},
    {"GET", "/pairs/some/pair?exact=true&values=true", "", NULL, 200},
    {"GET", "/pairs/*?values=true", "", NULL, 200},
    {"GET", "/pairs/*?count=true", "", NULL, 200},
    {"POST", "/batch", "application/x-ndjson",
     "{\"op\":\"pair_put\",\"pair\":\"YQ==\",\"value\":\"YQ==\"}\n{\"op\":\"read\",\"key\":1}\n", 200},
    {"POST", "/batch?atomic=true", "application/x-ndjson",
     "{\"op\":\"pair_put\",\"pair\":\"YQ==\",\"value\":\"YmI=\"}\n", 200},
    {"POST", "/ngrams?order=2", "application/x-ndjson", "{\"tokens\":[2,5,6,5,6,3]}\n", 200},
    {"POST", "/reduce/smooth/cnt:", "", NULL, 200},
    {"GET", "/reduce/counts/cnt:?decode=true", "", NULL, 200},
    {"GET", "/reduce/totals/cnt:", "", NULL, 200},
    {"POST", "/predict", "application/json", "{\"tokens\":[5]}", 200},
    {"POST", "/score", "application/json", "{\"tokens\":[2,5,6]}", 200},
    {"POST", "/reduce/queue-drain/q:", "", NULL, 200},
    {"PUT", "/databases/other", "", NULL, 201},
    {"GET", "/databases/default", "", NULL, 200},
    {"DELETE", "/databases/other?confirm=other", "", NULL, 204},
    {"GET", "/metrics", "", NULL, 200},
};
#define CALLS (sizeof calls / sizeof *calls)

static bool sensible(int status, int usual)
{
    /* 200 and 201 of an upsert, 404 and 409 of a call that an earlier failed one was to make room for */
    return status == usual || status == 0 || status == 503 || status == 507 || status == 500 ||
           status / 100 == 2 || status == 404 || status == 409;
}

static void run_all(void)
{
    for (size_t i = 0; i < CALLS; i++) {
        int status = ask(calls[i].method, calls[i].target, calls[i].type, calls[i].body);
        if (status != calls[i].status && status / 100 != 2)
            fail_msg("%s %s: %d %s", calls[i].method, calls[i].target, status, answer);
    }
}

static void still_well(const char *what)
{
    if (ask("PUT", "/pairs/probe", "text/plain", "alive") / 100 != 2 ||
        ask("GET", "/pairs/probe?exact=true&values=true", "", NULL) != 200 ||
        strstr(answer, "YWxpdmU=") == NULL)
        fail_msg("after %s: %s", what, answer);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void test_memory(void **state)
{
    (void)state;
    uint64_t all = 0;
    run_all();
    for (size_t i = 0; i < CALLS; i++) {
        uint64_t failed, n = 0;
        int refused = 0;
        char what[200];
        do {
            n++;
            cht_alloc_fail_at(n, false);
            int status = ask(calls[i].method, calls[i].target, calls[i].type, calls[i].body);
            failed = cht_alloc_failures();
            cht_alloc_fail_at(0, false);
            (void)snprintf(what, sizeof what, "allocation %llu of %s %s", (unsigned long long)n,
                           calls[i].method, calls[i].target);
            if (!sensible(status, calls[i].status))
                fail_msg("%s: %d %s", what, status, answer);
            refused += status == 503 || status == 0;
            still_well(what);
        } while (failed > 0 && n < 400);
        all += n;
        assert_true(n < 400);
        assert_true(n == 1 || refused > 0); /* it shows */
    }
    print_message("%llu allocations\n", (unsigned long long)all);
    run_all();
}

/* From then on: everything may be refused, nothing may break, and it is well again with memory. */
static void test_no_memory_at_all(void **state)
{
    (void)state;
    run_all();
    for (size_t i = 0; i < CALLS; i++) {
        cht_alloc_fail_at(1, true);
        int status = ask(calls[i].method, calls[i].target, calls[i].type, calls[i].body);
        cht_alloc_fail_at(0, false);
        if (!sensible(status, calls[i].status))
            fail_msg("%s %s: %d %s", calls[i].method, calls[i].target, status, answer);
    }
    still_well("no memory at all");
    run_all();
}

/* The same for reads that are put off because the server is busy. */
static void test_memory_while_busy(void **state)
{
    (void)state;
    static const char call[] = "GET /pairs/some/pair?exact=true&values=true HTTP/1.1\r\nHost: "
                               "localhost\r\nConnection: close\r\n\r\n";
    run_all();
    for (uint64_t n = 1; n < 120; n++) {
        cht_alloc_fail_at(n, n % 4 == 0);
        ask_busy(call);
        cht_alloc_fail_at(0, false);
        still_well("a busy round");
    }
    uint64_t ahead = atomic_load(&server->workers[0].metrics.ahead);
    for (unsigned i = 0; i < 500 && atomic_load(&server->workers[0].metrics.ahead) == ahead; i++) {
        ask_busy(call);
        assert_int_equal(occurrences("\"pair\":\"c29tZS9wYWly\""), MANY);
    }
    assert_true(atomic_load(&server->workers[0].metrics.ahead) > ahead);
}

/* The answer of a connection that goes on; 0: it was closed. */
static int next_answer(int fd)
{
    size_t got = 0;
    int status = 0;
    ssize_t n;
    while (got < ANSWER_MAX && (n = recv(fd, answer + got, ANSWER_MAX - got, 0)) > 0) {
        got += (size_t)n;
        answer[got] = 0;
        const char *body = strstr(answer, "\r\n\r\n"), *length = strstr(answer, "Content-Length: ");
        if (body != NULL && length != NULL &&
            strlen(body + 4) == strtoul(length + sizeof "Content-Length: " - 1, NULL, 10))
            break;
    }
    answer[got] = 0;
    (void)sscanf(answer, "HTTP/1.1 %d", &status);
    return status;
}

/* The same for reads that do not go by libmicrohttpd, with short answers and with one that goes out by it. */
static void test_memory_of_quick_reads(void **state)
{
    (void)state;
    static const char *const targets[] = {"/kv/1", "/pairs/some/pair?exact=true&values=true",
                                          "/pairs/large?exact=true&values=true"};
    static char large[60001];
    memset(large, 'l', sizeof large - 1);
    run_all();
    assert_int_equal(ask("PUT", "/pairs/large", "text/plain", large) / 100, 2);
    for (size_t i = 0; i < 3; i++) {
        uint64_t failed, served = 0, n = 0, before = atomic_load(&server->workers[0].metrics.quick);
        do {
            char text[256];
            int fd = connected(),
                len = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", targets[i]);
            n++;
            for (unsigned turn = 0; turn < 5; turn++) {
                if (turn == 2)
                    cht_alloc_fail_at(n, false);
                (void)send(fd, text, (size_t)len, MSG_NOSIGNAL);
                int status = next_answer(fd);
                if (!sensible(status, 200) || (turn < 2 && status != 200))
                    fail_msg("allocation %llu, turn %u: %d %s", (unsigned long long)n, turn, status, answer);
                served += status == 200;
            }
            failed = cht_alloc_failures();
            cht_alloc_fail_at(0, false);
            (void)close(fd);
            still_well("a quick read");
        } while (failed > 0 && n < 100);
        assert_true(n > 1 && n < 100);
        assert_true(served > 2 * n);
        assert_true(atomic_load(&server->workers[0].metrics.quick) > before);
    }
}

/* Space comes back: a full disk refuses writes with 507 and its code, and takes them again. */
static void test_full_disk(void **state)
{
    (void)state;
    run_all();
    static char value[300001]; /* more than a log segment has left */
    memset(value, 'v', sizeof value - 1);
    int full = 0;
    for (uint64_t n = 1; n < 12; n++) {
        uint64_t before = simdisk_injected(disk);
        simdisk_fail_at(disk, n, SIM_FULL, true);
        int status = ask("PUT", "/pairs/large", "text/plain", value);
        bool hit = simdisk_injected(disk) > before;
        simdisk_fail_at(disk, 0, SIM_NONE, false);
        if (status == 507) {
            full++;
            assert_non_null(strstr(answer, "\"code\":\"disk_full\""));
        } else {
            assert_true(status / 100 == 2 || (hit && status == 503));
        }
        if (status == 503)
            return; /* a sync that failed: it only reads from now on, which the next test is about */
        still_well("a full disk");
    }
    assert_true(full > 0);
}

/* "default" is always there: also if there was no room to make it anew after it was dropped. */
static void test_default_dropped_without_room(void **state)
{
    (void)state;
    unsigned refused = 0;
    bool hit = true;
    for (uint64_t n = 1; hit; n += 2) {
        assert_int_equal(ask("PUT", "/pairs/old", "text/plain", "old") / 100, 2);
        uint64_t before = simdisk_injected(disk);
        simdisk_fail_at(disk, n, SIM_FULL, true);
        int status = ask("DELETE", "/databases/default?confirm=default", "", NULL);
        hit = simdisk_injected(disk) > before;
        simdisk_fail_at(disk, 0, SIM_NONE, false);
        if (status != 204 && status != 507 && status != 500) /* a sync that failed */
            fail_msg("%llu: %d %s", (unsigned long long)n, status, answer);
        refused += status == 507;
        if (n % 4 == 1 && ask("DELETE", "/databases/default?confirm=default", "", NULL) != 204)
            fail_msg("%llu, again: %s", (unsigned long long)n, answer);
        if (ask("GET", "/pairs/*?count=true", "", NULL) != 200)
            fail_msg("%llu: %s", (unsigned long long)n, answer);
        status = ask("GET", "/pairs/old?exact=true&values=true", "", NULL);
        assert_true(status == 404 || status == 200); /* it was dropped, or not yet */
        still_well("a full disk");
    }
    assert_true(refused > 2);
}

/* After an I/O error nothing is written any more, reads go on, and readiness says so. */
static void test_read_only(void **state)
{
    (void)state;
    assert_int_equal(ask("PUT", "/pairs/kept", "text/plain", "kept") / 100, 2);
    simdisk_fail_at(disk, 1, SIM_EIO, true);
    int status = ask("PUT", "/pairs/lost", "text/plain", "lost");
    simdisk_fail_at(disk, 0, SIM_NONE, false);
    assert_true(status == 503 || status == 500);
    status = ask("PUT", "/pairs/lost", "text/plain", "lost");
    assert_int_equal(status, 503);
    assert_non_null(strstr(answer, "\"code\":\"read_only\""));
    /* Reads go on, once what was refused has been taken back: on a disk that reads nothing that is tried again and again. */
    for (unsigned i = 0;
         i < 1200 && (status = ask("GET", "/pairs/kept?exact=true&values=true", "", NULL)) != 200; i++) {
        assert_int_equal(status, 503);
        (void)usleep(100000);
    }
    assert_int_equal(status, 200);
    status = ask("GET", "/pairs/lost?exact=true&values=true", "", NULL);
    assert_true(status == 404 || status == 503); /* outcome_unknown */
    uint64_t together = atomic_load(&server->workers[0].metrics.together);
    for (unsigned i = 0; i < 500 && atomic_load(&server->workers[0].metrics.together) == together; i++) {
        ask_busy(
            "PUT /pairs/lost HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nv");
        assert_int_equal(occurrences("\"code\":\"read_only\""), MANY);
    }
    assert_true(atomic_load(&server->workers[0].metrics.together) > together);
    assert_int_equal(ask("GET", "/readyz", "", NULL), 503);
    assert_int_equal(ask("GET", "/healthz", "", NULL), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_while_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_of_quick_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_default_dropped_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
