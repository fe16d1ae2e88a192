/* bench_followers: what it costs to follow what changes (cheetah/changes.h) over RADOS, in operations of OSDs: each is a round trip, and those of one look
 * or page are under way at once. Followers of one server wait for one prefix, and another server writes one pair at a time.
 *
 *   tests/rados/run.sh build/rados/tests/bench/rados/bench_followers [SECONDS [SHARDS]]
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cheetah/changes.h"
#include "cheetah/rados.h"
#include "os/thread.h"
#include "store/rados/link.h"

#define MOST 64u
#define SECOND UINT64_C(1000000000)

struct follower {
    struct cht_wait wait; /* first */
    struct cht_changes *c;
    struct follower *next;
};
static struct follower followers[MOST];
static struct follower *ready; /* guarded by mu */
static struct cht_mutex mu;
static struct cht_cond wake;
static bool over; /* guarded by mu */
static _Atomic uint64_t heard;

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_followers: %s: %s\n", what, why);
    exit(1);
}

static void on_news(struct cht_wait *w)
{
    struct follower *f = (struct follower *)(void *)w;
    cht_mutex_lock(&mu);
    f->next = ready;
    ready = f;
    cht_cond_signal(&wake);
    cht_mutex_unlock(&mu);
}

static bool hear(void *ctx, const struct cht_change *c)
{
    (void)ctx;
    (void)c;
    heard++;
    return true;
}

/* As the jobs of a server do. */
static void *tell(void *arg)
{
    struct cht_err err;
    (void)arg;
    cht_mutex_lock(&mu);
    while (!over) {
        struct follower *f = ready;
        if (f == NULL) {
            cht_cond_wait(&wake, &mu);
            continue;
        }
        ready = f->next;
        cht_mutex_unlock(&mu);
        enum cht_rc rc = CHT_OK;
        while (rc == CHT_OK) {
            rc = cht_changes_next(f->c, hear, NULL, &err);
            if (rc == CHT_PENDING)
                rc = cht_changes_await(f->c, &f->wait);
        }
        if (rc != CHT_PENDING)
            die("changes", err.msg);
        cht_mutex_lock(&mu);
    }
    cht_mutex_unlock(&mu);
    return NULL;
}

static uint64_t operations(void)
{
    return atomic_load(&cht_call_counts.reads) + atomic_load(&cht_call_counts.writes);
}

/* One line: the operations a second of both servers, less those that the writes are. */
static void measure(struct cht_store *s, unsigned n, unsigned writes, unsigned seconds)
{
    uint64_t begun = cht_now_ns(), before = operations(), was = heard, mine = 0, next = begun;
    while (cht_now_ns() - begun < seconds * SECOND) {
        char name[16];
        if (writes == 0) {
            cht_sleep_ns(SECOND / 100);
            continue;
        }
        (void)snprintf(name, sizeof name, "b:%u", (unsigned)(mine % 1000));
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = {(const uint8_t *)name, strlen(name)},
                            .value = {(const uint8_t *)"v", 1}};
        struct cht_commit c = {.ops = &op, .count = 1};
        if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
            die("put", c.err.msg);
        mine++;
        next += SECOND / writes;
        uint64_t now = cht_now_ns();
        cht_sleep_ns(next > now ? next - now : 0);
    }
    double t = (double)(cht_now_ns() - begun) / 1e9;
    printf("| %u | %.1f | %.0f | %.1f |\n", n, (double)mine / t, (double)(operations() - before) / t,
           n > 0 ? (double)(heard - was) / t / n : 0.0);
}

int main(int argc, char **argv)
{
    struct cht_err err = {0};
    struct cht_env *envs[2];
    struct cht_store *s[2];
    struct cht_thread t[4];
    char name[32];
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 10,
             shards = argc > 2 ? (unsigned)atoi(argv[2]) : 8;
    struct cht_rados_config cfg = {.pool = "cheetah", .conf = getenv("CHT_RADOS_CONF")};
    static const unsigned counts[] = {1, 8, MOST}, rates[] = {0, 1, 10, 100};
    (void)snprintf(name, sizeof name, "follow-%u", (unsigned)getpid());
    if (cfg.conf == NULL)
        die("CHT_RADOS_CONF", "is not set: tests/rados/run.sh");
    for (unsigned i = 0; i < 2; i++) {
        if (cht_rados_open(&cfg, &envs[i], &err) != CHT_OK ||
            (i == 0 && cht_env_create(envs[0], name, shards, &err) != CHT_OK) ||
            cht_env_get(envs[i], name, &s[i], &err) != CHT_OK)
            die("open", err.msg);
    }
    if (cht_mutex_cond_init(&mu, &wake, &err) != CHT_OK)
        die("start", err.msg);
    for (unsigned i = 0; i < 4; i++) {
        if (cht_thread_start(&t[i], "tells", tell, NULL, &err) != CHT_OK)
            die("start", err.msg);
    }
    printf("| followers | writes a second | operations a second | told a second and follower "
           "|\n|---|---|---|---|\n");
    for (unsigned k = 0, n = 0; k < sizeof counts / sizeof *counts; k++) {
        for (; n < counts[k]; n++) {
            followers[n].wait.done = on_news;
            if (cht_changes_open(s[0], (struct cht_str){NULL, 0}, CHT_CHANGES_NOW, &followers[n].c, &err) !=
                CHT_OK)
                die("open", err.msg);
            on_news(&followers[n].wait);
        }
        for (unsigned r = 0; r < sizeof rates / sizeof *rates; r++)
            measure(s[1], n, rates[r], seconds);
    }
    for (unsigned i = 0; i < MOST; i++)
        cht_changes_forget(followers[i].c);
    cht_mutex_lock(&mu);
    over = true;
    cht_cond_broadcast(&wake);
    cht_mutex_unlock(&mu);
    for (unsigned i = 0; i < 4; i++)
        cht_thread_join(&t[i]);
    for (unsigned i = 0; i < MOST; i++) {
        cht_changes_forget(followers[i].c);
        cht_changes_close(followers[i].c);
    }
    if (cht_env_drop(envs[0], name, &err) != CHT_OK || cht_env_close(envs[0], &err) != CHT_OK ||
        cht_env_close(envs[1], &err) != CHT_OK)
        die("close", err.msg);
    return 0;
}
