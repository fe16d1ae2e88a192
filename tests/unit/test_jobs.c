/* test_jobs: who gets a thread: limits by owner, exclusive jobs, fairness between owners, threads that come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "exec/jobs.h"
#include "os/thread.h"

#include <stdatomic.h>
#include <stdlib.h>

#define WAIT_NS UINT64_C(200000000000)

struct gauge {
    struct cht_mutex mu;
    struct cht_cond changed;
    unsigned started, ended;
    bool open; /* jobs that hold wait for it */
    unsigned running[8], most[8], exclusive_now[8][4];
    bool clash;
    unsigned order[4096]; /* owners, in the order in which their jobs began */
};

struct job {
    struct cht_job job; /* first */
    struct gauge *g;
    bool hold;
};

static void run(struct cht_job *j)
{
    struct job *t = (struct job *)j;
    struct gauge *g = t->g;
    unsigned o = (unsigned)j->owner;
    cht_mutex_lock(&g->mu);
    g->order[g->started++] = o;
    if (++g->running[o] > g->most[o])
        g->most[o] = g->running[o];
    for (unsigned b = 0; b < 4; b++) {
        if ((j->exclusive >> b & 1) != 0)
            g->clash |= g->exclusive_now[o][b]++ > 0;
    }
    cht_cond_broadcast(&g->changed);
    while (t->hold && !g->open)
        cht_cond_wait(&g->changed, &g->mu);
    for (unsigned b = 0; b < 4; b++)
        g->exclusive_now[o][b] -= j->exclusive >> b & 1;
    g->running[o]--;
    g->ended++;
    cht_cond_broadcast(&g->changed);
    cht_mutex_unlock(&g->mu);
}

static void gauge_init(struct gauge *g)
{
    memset(g, 0, sizeof *g);
    assert_int_equal(cht_mutex_init(&g->mu, NULL), CHT_OK);
    assert_int_equal(cht_cond_init(&g->changed, NULL), CHT_OK);
}

static void gauge_fini(struct gauge *g)
{
    cht_cond_fini(&g->changed);
    cht_mutex_fini(&g->mu);
}

/* Waits until *n is at least so many. */
static void await(struct gauge *g, const unsigned *n, unsigned least)
{
    uint64_t end = cht_now_ns() + WAIT_NS;
    cht_mutex_lock(&g->mu);
    while (*n < least) {
        assert_true(cht_now_ns() < end);
        (void)cht_cond_wait_ns(&g->changed, &g->mu, 100000000);
    }
    cht_mutex_unlock(&g->mu);
}

static struct cht_jobs *jobs(unsigned threads, unsigned per_owner)
{
    struct cht_jobs *p;
    struct cht_jobs_config cfg = {
        .name = "test", .threads = threads, .per_owner = per_owner, .idle_ns = 50000000};
    assert_int_equal(cht_jobs_new(&cfg, &p, NULL), CHT_OK);
    return p;
}

/* However many jobs one owner has, and however long they take, another one's job begins at once. */
static void test_one_owner_leaves_room(void **state)
{
    (void)state;
    struct gauge g;
    struct job of_one[50], of_two = {.g = &g, .job = {.run = run, .owner = 2}};
    gauge_init(&g);
    struct cht_jobs *p = jobs(8, 3);
    for (unsigned i = 0; i < 50; i++) {
        of_one[i] = (struct job){.g = &g, .hold = true, .job = {.run = run, .owner = 1}};
        cht_jobs_submit(p, &of_one[i].job);
    }
    await(&g, &g.started, 3);
    cht_jobs_submit(p, &of_two.job);
    await(&g, &g.ended, 1);
    assert_int_equal(g.order[3], 2);
    assert_int_equal(g.started, 4);
    unsigned running, waiting;
    cht_jobs_count(p, &running, &waiting);
    assert_true(running >= 3);
    assert_int_equal(waiting, 47);
    cht_mutex_lock(&g.mu);
    g.open = true;
    cht_cond_broadcast(&g.changed);
    cht_mutex_unlock(&g.mu);
    await(&g, &g.ended, 51);
    assert_int_equal(g.most[1], 3);
    cht_jobs_free(p);
    gauge_fini(&g);
}

/* What waits for its turn holds no thread. */
static void test_exclusive_jobs_wait_without_a_thread(void **state)
{
    (void)state;
    struct gauge g;
    struct job first[6], other = {.g = &g, .job = {.run = run, .owner = 1, .exclusive = 2}};
    gauge_init(&g);
    struct cht_jobs *p = jobs(2, 2);
    for (unsigned i = 0; i < 6; i++) {
        first[i] = (struct job){.g = &g, .hold = true, .job = {.run = run, .owner = 1, .exclusive = 1}};
        cht_jobs_submit(p, &first[i].job);
    }
    await(&g, &g.started, 1);
    cht_jobs_submit(p, &other.job); /* the last in the list, and the only one that may run */
    await(&g, &g.ended, 1);
    assert_int_equal(g.started, 2);
    cht_mutex_lock(&g.mu);
    g.open = true;
    cht_cond_broadcast(&g.changed);
    cht_mutex_unlock(&g.mu);
    await(&g, &g.ended, 7);
    assert_false(g.clash);
    assert_int_equal(g.most[1], 2);
    cht_jobs_free(p);
    gauge_fini(&g);
}

/* With one thread for all: an owner whose turn has just been waits for one that has none. */
static void test_first_come_among_equals(void **state)
{
    (void)state;
    struct gauge g;
    struct job list[9];
    gauge_init(&g);
    struct cht_jobs *p = jobs(1, 1);
    for (unsigned i = 0; i < 9; i++) {
        list[i] = (struct job){.g = &g, .hold = i == 0, .job = {.run = run, .owner = i % 3}};
        cht_jobs_submit(p, &list[i].job);
    }
    await(&g, &g.started, 1);
    cht_mutex_lock(&g.mu);
    g.open = true;
    cht_cond_broadcast(&g.changed);
    cht_mutex_unlock(&g.mu);
    cht_jobs_free(p); /* runs all of it */
    assert_int_equal(g.ended, 9);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(g.order[i], i % 3);
    gauge_fini(&g);
}

/* Threads end when there is nothing to do, and come back. */
static void test_threads_come_and_go(void **state)
{
    (void)state;
    struct gauge g;
    struct job list[40];
    gauge_init(&g);
    struct cht_jobs *p = jobs(8, 8);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 40; i++) {
            list[i] = (struct job){.g = &g, .job = {.run = run, .owner = i % 8, .exclusive = i % 4}};
            cht_jobs_submit(p, &list[i].job);
        }
        await(&g, &g.ended, (round + 1) * 40);
        cht_sleep_ns(120000000);
    }
    assert_false(g.clash);
    cht_jobs_free(p);
    gauge_fini(&g);
}

static void test_random_histories(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 11);
    for (unsigned round = 0; round < 20; round++) {
        struct gauge g;
        gauge_init(&g);
        g.open = true;
        unsigned threads = 1 + (unsigned)cht_rng_below(&rng, 6),
                 per_owner = 1 + (unsigned)cht_rng_below(&rng, 3);
        struct cht_jobs *p = jobs(threads, per_owner);
        struct job *list = cht_calloc(500, sizeof *list);
        assert_non_null(list);
        for (unsigned i = 0; i < 500; i++) {
            list[i] = (struct job){.g = &g,
                                   .job = {.run = run,
                                           .owner = cht_rng_below(&rng, 5),
                                           .exclusive = (unsigned)cht_rng_below(&rng, 8)}};
            if (list[i].job.owner == 0)
                list[i].job.exclusive = 0;
            cht_jobs_submit(p, &list[i].job);
        }
        cht_jobs_free(p);
        assert_int_equal(g.ended, 500);
        assert_false(g.clash);
        for (unsigned o = 1; o < 5; o++)
            assert_true(g.most[o] <= per_owner);
        cht_free(list);
        gauge_fini(&g);
    }
}

static void test_bad_configuration_and_no_memory(void **state)
{
    (void)state;
    struct cht_jobs *p;
    struct cht_err err = {0};
    struct cht_jobs_config cfg = {.name = "test", .threads = 0, .per_owner = 1};
    assert_int_equal(cht_jobs_new(&cfg, &p, &err), CHT_INVALID_ARGUMENT);
    cfg.threads = CHT_JOB_THREADS_MAX + 1;
    assert_int_equal(cht_jobs_new(&cfg, &p, &err), CHT_INVALID_ARGUMENT);
    cfg.threads = 1;
    cfg.per_owner = 0;
    assert_int_equal(cht_jobs_new(&cfg, &p, &err), CHT_INVALID_ARGUMENT);
    cfg.per_owner = 1;
    cht_alloc_fail_at(1, false);
    assert_int_equal(cht_jobs_new(&cfg, &p, &err), CHT_NO_MEMORY);
    cht_alloc_fail_at(0, false);
    cht_jobs_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_owner_leaves_room),
        cmocka_unit_test(test_exclusive_jobs_wait_without_a_thread),
        cmocka_unit_test(test_first_come_among_equals),
        cmocka_unit_test(test_threads_come_and_go),
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_bad_configuration_and_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
