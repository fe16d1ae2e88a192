/* pool: a queue of tasks under one mutex and the threads that run them (pool.h). */
#include "exec/pool.h"

#include "base/alloc.h"
#include "os/thread.h"

struct cht_pool {
    struct cht_mutex mu;
    struct cht_cond work;
    struct cht_task *head, **tail; /* guarded by mu */
    bool stop;                     /* guarded by mu */
    unsigned workers;              /* set at start, then read-only */
    struct cht_thread *threads;    /* owned */
};

static void *worker_main(void *arg)
{
    struct cht_pool *p = arg;
    cht_mutex_lock(&p->mu);
    for (;;) {
        while (p->head == NULL && !p->stop)
            cht_cond_wait(&p->work, &p->mu);
        struct cht_task *t = p->head;
        if (t == NULL)
            break;
        p->head = t->next;
        if (p->head == NULL)
            p->tail = &p->head;
        cht_mutex_unlock(&p->mu);
        t->run(t); /* t may be gone, or queued again, after this */
        cht_mutex_lock(&p->mu);
    }
    cht_mutex_unlock(&p->mu);
    return NULL;
}

enum cht_rc cht_pool_new(unsigned workers, const char *name, struct cht_pool **out, struct cht_err *err)
{
    struct cht_pool *p = cht_calloc(1, sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a worker pool");
    p->tail = &p->head;
    enum cht_rc rc = cht_mutex_cond_init(&p->mu, &p->work, err);
    if (rc != CHT_OK) {
        cht_free(p);
        return rc;
    }
    p->threads = cht_calloc(workers, sizeof *p->threads);
    if (p->threads == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u workers", workers);
    while (rc == CHT_OK && p->workers < workers) {
        rc = cht_thread_start(&p->threads[p->workers], name, worker_main, p, err);
        p->workers += rc == CHT_OK;
    }
    if (rc != CHT_OK) {
        cht_pool_free(p);
        return rc;
    }
    *out = p;
    return CHT_OK;
}

/* mu held. */
static void append(struct cht_pool *p, struct cht_task *t)
{
    t->next = NULL;
    *p->tail = t;
    p->tail = &t->next;
}

void cht_pool_submit(struct cht_pool *p, struct cht_task *t)
{
    cht_mutex_lock(&p->mu);
    append(p, t);
    cht_cond_signal(&p->work);
    cht_mutex_unlock(&p->mu);
}

/* Each task in the queue has a worker that was woken for it, or one that will look for it when it returns. */
void cht_pool_submit_last(struct cht_pool *p, struct cht_task *t)
{
    cht_mutex_lock(&p->mu);
    append(p, t);
    cht_mutex_unlock(&p->mu);
}

void cht_pool_free(struct cht_pool *p)
{
    if (p == NULL)
        return;
    cht_mutex_lock(&p->mu);
    p->stop = true;
    cht_cond_broadcast(&p->work);
    cht_mutex_unlock(&p->mu);
    for (unsigned i = 0; i < p->workers; i++)
        cht_thread_join(&p->threads[i]);
    cht_cond_fini(&p->work);
    cht_mutex_fini(&p->mu);
    cht_free(p->threads);
    cht_free(p);
}

unsigned cht_pool_workers(const struct cht_pool *p) { return p->workers; }
