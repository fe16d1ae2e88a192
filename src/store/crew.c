/* crew: see crew.h. */
#include "store/crew.h"

#include "base/alloc.h"
#include "base/clock.h"

#define COMMIT_THREADS CHT_JOB_THREADS_MAX
#define CHECK_THREADS 16u
#define PART_THREADS 16u
#define IDLE_NS UINT64_C(10000000000)   /* a thread without work ends after so long */
#define QUIET_DIRTY (UINT64_C(1) << 20) /* bytes that are worth a checkpoint when nothing else is to do */
#define ASKED_MAX \
    4u /* checkpoints that the budget asks for at a time: one on a slow disk must not be the only one */

/* Takes all that are due off the list and queues them; returns how long until the next is, UINT64_MAX: there is none. */
static uint64_t run_due_locked(struct cht_crew *c)
{
    uint64_t now = cht_now_ns();
    while (c->due != NULL && c->due->due <= now) {
        struct cht_crew_member *m = c->due;
        c->due = m->tick_next;
        if (c->due == NULL)
            c->due_end = &c->due;
        cht_jobs_submit(c->commits, &m->sync_job);
    }
    return c->due == NULL ? UINT64_MAX : c->due->due - now;
}

static void *clock_main(void *arg)
{
    struct cht_crew *c = arg;
    cht_mutex_lock(&c->tick_mu);
    while (!c->stop) {
        uint64_t wait = run_due_locked(c);
        (void)cht_cond_wait_ns(&c->tick, &c->tick_mu, wait); /* too early does no harm */
    }
    cht_mutex_unlock(&c->tick_mu);
    return NULL;
}

static void list_locked(struct cht_crew *c, struct cht_crew_member *m)
{
    m->syncing = true;
    m->due = cht_now_ns() + c->interval_ns;
    m->tick_next = NULL;
    bool first = c->due == NULL;
    *c->due_end = m;
    c->due_end = &m->tick_next;
    if (first)
        cht_cond_signal(&c->tick);
}

static bool unlist_locked(struct cht_crew *c, struct cht_crew_member *m)
{
    for (struct cht_crew_member **at = &c->due; *at != NULL; at = &(*at)->tick_next) {
        if (*at != m)
            continue;
        *at = m->tick_next;
        if (*at == NULL)
            c->due_end = at;
        return true;
    }
    return false;
}

static enum cht_rc start_jobs(struct cht_crew *c, struct cht_err *err)
{
    struct cht_jobs_config commits = {"cht-commit", COMMIT_THREADS, COMMIT_THREADS, IDLE_NS};
    struct cht_jobs_config syncs = {"cht-sync", COMMIT_THREADS, COMMIT_THREADS, IDLE_NS};
    struct cht_jobs_config checks = {"cht-checkpoint", CHECK_THREADS, CHECK_THREADS, IDLE_NS};
    struct cht_jobs_config parts = {"cht-part", PART_THREADS, PART_THREADS, IDLE_NS};
    enum cht_rc rc = cht_jobs_new(&commits, &c->commits, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&syncs, &c->syncs, err);
    if (rc == CHT_OK)
        rc = cht_jobs_new(&checks, &c->checks, err);
    return rc == CHT_OK ? cht_jobs_new(&parts, &c->parts, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_crew_new(uint64_t dirty_limit, uint64_t interval_ns, struct cht_crew **out,
                         struct cht_err *err)
{
    struct cht_crew *c = cht_calloc(1, sizeof *c);
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the committers");
    c->dirty_limit = dirty_limit;
    c->interval_ns = interval_ns;
    c->due_end = &c->due;
    enum cht_rc rc = cht_mutex_init(&c->mu, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&c->tick_mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&c->tick, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&c->synced, err);
    if (rc == CHT_OK)
        rc = start_jobs(c, err);
    if (rc == CHT_OK && interval_ns > 0) {
        rc = cht_thread_start(&c->clock, "cht-clock", clock_main, c, err);
        c->clock_up = rc == CHT_OK;
    }
    if (rc != CHT_OK) {
        cht_crew_free(c);
        return rc;
    }
    *out = c;
    return CHT_OK;
}

void cht_crew_free(struct cht_crew *c)
{
    if (c == NULL)
        return;
    if (c->clock_up) {
        cht_mutex_lock(&c->tick_mu);
        c->stop = true;
        cht_cond_signal(&c->tick);
        cht_mutex_unlock(&c->tick_mu);
        cht_thread_join(&c->clock);
    }
    cht_jobs_free(c->commits);
    cht_jobs_free(c->syncs);
    cht_jobs_free(c->checks);
    cht_jobs_free(c->parts);
    cht_cond_fini(&c->synced); /* what was not initialised is all zero, which fini accepts */
    cht_cond_fini(&c->tick);
    cht_mutex_fini(&c->tick_mu);
    cht_mutex_fini(&c->mu);
    cht_free(c);
}

void cht_crew_join(struct cht_crew *c, struct cht_crew_member *m)
{
    m->sync_job = (struct cht_job){.run = m->sync};
    m->brought = UINT64_MAX; /* what a recovery has redone is to be brought home too */
    cht_mutex_lock(&c->mu);
    m->next = c->members;
    c->members = m;
    atomic_fetch_add_explicit(&c->count, 1, memory_order_relaxed);
    cht_mutex_unlock(&c->mu);
}

bool cht_crew_give_up(struct cht_crew *c)
{
    bool any = false;
    cht_mutex_lock(&c->mu);
    for (struct cht_crew_member *m = c->members; m != NULL; m = m->next)
        any = m->give_up(m) || any;
    cht_mutex_unlock(&c->mu);
    return any;
}

void cht_crew_leave(struct cht_crew *c, struct cht_crew_member *m)
{
    cht_mutex_lock(&c->tick_mu);
    if (m->syncing && unlist_locked(c, m))
        m->syncing = false;
    while (m->syncing)
        cht_cond_wait(&c->synced, &c->tick_mu);
    cht_mutex_unlock(&c->tick_mu);
    cht_crew_tell(c, m, 0);
    cht_mutex_lock(&c->mu);
    struct cht_crew_member **at = &c->members;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    if (m->relieved)
        atomic_fetch_sub_explicit(&c->asked, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&c->count, 1, memory_order_relaxed);
    cht_mutex_unlock(&c->mu);
}

void cht_crew_tell(struct cht_crew *c, struct cht_crew_member *m, uint64_t dirty)
{
    uint64_t old = atomic_exchange_explicit(&m->dirty, dirty, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->dirty, dirty - old, memory_order_relaxed); /* modulo 2^64 */
}

void cht_crew_relieve(struct cht_crew *c)
{
    if (atomic_load_explicit(&c->dirty, memory_order_relaxed) <= c->dirty_limit ||
        atomic_load_explicit(&c->asked, memory_order_relaxed) >= ASKED_MAX)
        return;
    cht_mutex_lock(&c->mu);
    struct cht_crew_member *most = NULL;
    uint64_t most_dirty = 0, left = 0; /* left: of those that are not asked yet */
    for (struct cht_crew_member *m = c->members; m != NULL; m = m->next) {
        uint64_t n = atomic_load_explicit(&m->dirty, memory_order_relaxed);
        left += m->relieved ? 0 : n;
        if (!m->relieved && n > most_dirty) {
            most = m;
            most_dirty = n;
        }
    }
    if (most != NULL &&
        (left > c->dirty_limit || atomic_load_explicit(&c->asked, memory_order_relaxed) == 0)) {
        most->relieved = true;
        atomic_fetch_add_explicit(&c->asked, 1, memory_order_relaxed);
        most->relieve(most); /* under mu, so that it is still there */
    }
    cht_mutex_unlock(&c->mu);
}

void cht_crew_quiet(struct cht_crew *c)
{
    cht_mutex_lock(&c->mu);
    for (struct cht_crew_member *m = c->members; m != NULL; m = m->next) {
        uint64_t n = atomic_load_explicit(&m->groups, memory_order_relaxed);
        bool quiet = n == m->seen && n != m->brought;
        m->seen = n;
        if (!quiet || atomic_load_explicit(&m->dirty, memory_order_relaxed) < QUIET_DIRTY)
            continue;
        m->brought = n;
        m->relieve(m); /* under mu, so that it is still there */
    }
    cht_mutex_unlock(&c->mu);
}

void cht_crew_checked(struct cht_crew *c, struct cht_crew_member *m)
{
    cht_mutex_lock(&c->mu);
    if (m->relieved)
        atomic_fetch_sub_explicit(&c->asked, 1, memory_order_relaxed);
    m->relieved = false;
    cht_mutex_unlock(&c->mu);
}

bool cht_crew_full(struct cht_crew *c, const struct cht_crew_member *m)
{
    uint64_t all = atomic_load_explicit(&c->dirty, memory_order_relaxed);
    if (all <= c->dirty_limit * 2)
        return false;
    unsigned n = atomic_load_explicit(&c->count, memory_order_relaxed);
    return n < 2 || atomic_load_explicit(&m->dirty, memory_order_relaxed) >= c->dirty_limit * 2 / n;
}

void cht_crew_tick(struct cht_crew *c, struct cht_crew_member *m)
{
    cht_mutex_lock(&c->tick_mu);
    if (!m->syncing)
        list_locked(c, m);
    cht_mutex_unlock(&c->tick_mu);
}

void cht_crew_synced(struct cht_crew *c, struct cht_crew_member *m, bool again)
{
    cht_mutex_lock(&c->tick_mu);
    m->syncing = false;
    if (again)
        list_locked(c, m);
    cht_cond_broadcast(&c->synced);
    cht_mutex_unlock(&c->tick_mu);
}
