/* jobs: see jobs.h. One list in order of arrival, one table of threads, one mutex.
 *
 * Whoever changes what may run (a job came, a job ended, a thread took one) calls wake_one: if there is a job that may run, one
 * more thread looks for it, which does the same when it has found it. So all that may run does, as far as there are threads.
 */
#include "exec/jobs.h"

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/invariant.h"
#include "os/thread.h"

struct worker {
    struct cht_thread thread;
    struct cht_jobs *p;
    enum { UNUSED, UP, ENDED } state; /* ENDED: to be joined */
    bool busy;
    uint64_t owner; /* of the job that it runs */
    unsigned exclusive;
};

struct cht_jobs {
    struct cht_jobs_config cfg; /* set at start, then read-only */
    struct cht_mutex mu;
    struct cht_cond work;
    struct cht_job *head, **tail;             /* guarded by mu, like all below */
    unsigned waiting, running, idle, threads; /* jobs queued; jobs that run; threads without one; threads */
    bool stop;
    struct worker workers[CHT_JOB_THREADS_MAX]; /* the first cfg.threads of them */
};

/* May it run? *others: how many of its owner do. */
static bool may_run(const struct cht_jobs *p, const struct cht_job *j, unsigned *others)
{
    *others = 0;
    if (j->owner == 0)
        return true;
    for (unsigned i = 0; i < p->cfg.threads; i++) {
        const struct worker *w = &p->workers[i];
        if (!w->busy || w->owner != j->owner)
            continue;
        ++*others;
        if ((w->exclusive & j->exclusive) != 0)
            return false;
    }
    return *others < p->cfg.per_owner;
}

/* The place of the job that is next; NULL if none may run. */
static struct cht_job **next_job(struct cht_jobs *p)
{
    struct cht_job **found = NULL;
    for (struct cht_job **at = &p->head; *at != NULL; at = &(*at)->next) {
        unsigned others;
        if (!may_run(p, *at, &others))
            continue;
        if (others == 0)
            return at;
        if (found == NULL)
            found = at;
    }
    return found;
}

static struct cht_job *take(struct cht_jobs *p, struct worker *w)
{
    struct cht_job **at = next_job(p), *j = at == NULL ? NULL : *at;
    if (j == NULL)
        return NULL;
    *at = j->next;
    if (*at == NULL)
        p->tail = at;
    p->waiting--;
    p->running++;
    w->busy = true;
    w->owner = j->owner;
    w->exclusive = j->exclusive;
    return j;
}

static void *worker_main(void *arg);

/* Without memory for a thread the job waits for those that there are. */
static void start_worker(struct cht_jobs *p)
{
    for (unsigned i = 0; i < p->cfg.threads; i++) {
        struct worker *w = &p->workers[i];
        if (w->state == UP)
            continue;
        if (w->state == ENDED)
            cht_thread_join(&w->thread); /* it has unlocked mu for the last time */
        w->state = UNUSED;
        w->p = p;
        if (cht_thread_start(&w->thread, p->cfg.name, worker_main, w, NULL) == CHT_OK) {
            w->state = UP;
            p->threads++;
        }
        return;
    }
}

static void wake_one(struct cht_jobs *p)
{
    if (p->head == NULL || next_job(p) == NULL)
        return;
    if (p->idle > 0)
        cht_cond_signal(&p->work);
    else if (p->threads < p->cfg.threads && !p->stop)
        start_worker(p);
}

static void run(struct cht_jobs *p, struct worker *w, struct cht_job *j)
{
    wake_one(p);
    cht_mutex_unlock(&p->mu);
    j->run(j); /* j may be gone, or queued again, after this */
    cht_mutex_lock(&p->mu);
    w->busy = false;
    p->running--;
    wake_one(p);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct cht_jobs *p = w->p;
    cht_mutex_lock(&p->mu);
    for (bool rested = true;;) {
        struct cht_job *j = take(p, w);
        if (j != NULL) {
            run(p, w, j);
            rested = true;
            continue;
        }
        if (p->stop ? p->head == NULL : !rested && p->threads > 1)
            break;
        p->idle++;
        rested = cht_cond_wait_ns(&p->work, &p->mu, p->cfg.idle_ns);
        p->idle--;
    }
    w->state = ENDED;
    p->threads--;
    if (p->stop)
        cht_cond_broadcast(&p->work); /* the others look again whether anything is left */
    cht_mutex_unlock(&p->mu);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_jobs_new(const struct cht_jobs_config *cfg, struct cht_jobs **out, struct cht_err *err)
{
    if (cfg->threads == 0 || cfg->threads > CHT_JOB_THREADS_MAX || cfg->per_owner == 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%u threads for jobs, %u an owner; 1 to %u, at least 1",
                        cfg->threads, cfg->per_owner, CHT_JOB_THREADS_MAX);
    struct cht_jobs *p = cht_calloc(1, sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the jobs");
    p->cfg = *cfg;
    p->tail = &p->head;
    enum cht_rc rc = cht_mutex_cond_init(&p->mu, &p->work, err);
    if (rc != CHT_OK) {
        cht_free(p);
        return rc;
    }
    struct worker *w = &p->workers[0];
    cht_mutex_lock(&p->mu); /* it sees itself counted */
    w->p = p;
    rc = cht_thread_start(&w->thread, cfg->name, worker_main, w, err);
    w->state = rc == CHT_OK ? UP : UNUSED;
    p->threads = rc == CHT_OK;
    cht_mutex_unlock(&p->mu);
    if (rc != CHT_OK) {
        cht_cond_fini(&p->work);
        cht_mutex_fini(&p->mu);
        cht_free(p);
        return rc;
    }
    *out = p;
    return CHT_OK;
}

void cht_jobs_submit(struct cht_jobs *p, struct cht_job *j)
{
    j->next = NULL;
    cht_mutex_lock(&p->mu);
    *p->tail = j;
    p->tail = &j->next;
    p->waiting++;
    wake_one(p);
    cht_mutex_unlock(&p->mu);
}

void cht_jobs_free(struct cht_jobs *p)
{
    if (p == NULL)
        return;
    cht_mutex_lock(&p->mu);
    p->stop = true;
    cht_cond_broadcast(&p->work);
    cht_mutex_unlock(&p->mu);
    for (unsigned i = 0; i < p->cfg.threads;
         i++) { /* none starts any more: the states are settled but for UP -> ENDED */
        cht_mutex_lock(&p->mu);
        bool join = p->workers[i].state != UNUSED;
        cht_mutex_unlock(&p->mu);
        if (join)
            cht_thread_join(&p->workers[i].thread);
    }
    CHT_INVARIANT(p->head == NULL);
    cht_cond_fini(&p->work);
    cht_mutex_fini(&p->mu);
    cht_free(p);
}

uint64_t cht_jobs_owner(const void *name, size_t n) { return (uint64_t)cht_crc32c(0, name, n) + 1; }

void cht_jobs_count(struct cht_jobs *p, unsigned *running, unsigned *waiting)
{
    cht_mutex_lock(&p->mu);
    *running = p->running;
    *waiting = p->waiting;
    cht_mutex_unlock(&p->mu);
}
