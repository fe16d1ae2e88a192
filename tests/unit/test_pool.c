/* test_pool: worker threads: every task runs, whoever submits it, also those that wake no worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>

#include "exec/pool.h"
#include "os/thread.h"

enum { TASKS = 40, TIMES = 500 };

struct task {
    struct cht_task task; /* first */
    struct cht_pool *pool;
    unsigned left;             /* times that it submits itself again */
    struct cht_task *other[3]; /* then these, the first one as the last */
    _Atomic unsigned *runs;
};

static void run(struct cht_task *t)
{
    struct task *a = (struct task *)t;
    struct cht_pool *pool = a->pool; /* t may run elsewhere as soon as it is queued */
    atomic_fetch_add_explicit(a->runs, 1, memory_order_relaxed);
    if (a->left > 0) {
        a->left--;
        cht_pool_submit_last(pool, t);
        return;
    }
    for (unsigned i = 1; i < 3; i++) {
        if (a->other[i] != NULL)
            cht_pool_submit(pool, a->other[i]);
    }
    if (a->other[0] != NULL)
        cht_pool_submit_last(pool, a->other[0]);
}

/* Tasks that queue themselves again, beside each other. */
static void test_again(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct cht_err err = {0};
        struct cht_pool *p;
        _Atomic unsigned runs = 0;
        struct task t[TASKS];
        assert_int_equal(cht_pool_new(workers, "test", &p, &err), CHT_OK);
        for (unsigned i = 0; i < TASKS; i++) {
            t[i] = (struct task){.task.run = run, .pool = p, .left = TIMES, .runs = &runs};
            cht_pool_submit(p, &t[i].task);
        }
        cht_pool_free(p); /* runs what is queued */
        assert_int_equal(atomic_load(&runs), TASKS * (TIMES + 1));
    }
}

/* A tree: each task submits up to three others, one of them without a wake-up. */
static void test_others(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct cht_err err = {0};
        struct cht_pool *p;
        _Atomic unsigned runs = 0;
        struct task t[364]; /* 1 + 3 + 9 + ... + 243 */
        assert_int_equal(cht_pool_new(workers, "test", &p, &err), CHT_OK);
        for (unsigned i = 0; i < 364; i++) {
            t[i] = (struct task){.task.run = run, .pool = p, .left = i % 2, .runs = &runs};
            for (unsigned k = 0; k < 3 && 3 * i + 3 < 364; k++)
                t[i].other[k] = &t[3 * i + 1 + k].task;
        }
        cht_pool_submit(p, &t[0].task);
        cht_pool_free(p);
        assert_int_equal(atomic_load(&runs), 364 + 182);
    }
}

struct meeting {
    struct cht_task task; /* first */
    struct cht_mutex *mu;
    struct cht_cond *cond;
    struct cht_pool *pool;
    struct cht_task *last, *beside;
    unsigned *here;
    unsigned want; /* so many are here at once */
};

static void meet(struct cht_task *t)
{
    struct meeting *m = (struct meeting *)t;
    if (m->beside != NULL)
        cht_pool_submit(m->pool, m->beside);
    if (m->last != NULL)
        cht_pool_submit_last(m->pool, m->last);
    cht_mutex_lock(m->mu);
    ++*m->here;
    cht_cond_broadcast(m->cond);
    while (m->want > 0 && *m->here < m->want)
        cht_cond_wait(m->cond, m->mu);
    cht_mutex_unlock(m->mu);
}

/* What a task submits in the usual way has a worker woken for it, while the task goes on. */
static void test_beside(void **state)
{
    (void)state;
    struct cht_err err = {0};
    struct cht_pool *p;
    struct cht_mutex mu;
    struct cht_cond cond;
    unsigned here = 0;
    assert_int_equal(cht_mutex_cond_init(&mu, &cond, &err), CHT_OK);
    assert_int_equal(cht_pool_new(2, "test", &p, &err), CHT_OK);
    struct meeting last = {{meet, NULL}, &mu, &cond, p, NULL, NULL, &here, 0};
    struct meeting second = {{meet, NULL}, &mu, &cond, p, NULL, NULL, &here, 2};
    struct meeting first = {{meet, NULL}, &mu, &cond, p, &last.task, &second.task, &here, 2};
    cht_pool_submit(p, &first.task);
    cht_mutex_lock(&mu);
    while (here < 3) /* for ever if the two do not meet */
        cht_cond_wait(&cond, &mu);
    cht_mutex_unlock(&mu);
    cht_pool_free(p);
    cht_cond_fini(&cond);
    cht_mutex_fini(&mu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
