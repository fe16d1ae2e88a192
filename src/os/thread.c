/* thread: thin covers over POSIX threads; the striped reader-writer lock (thread.h). */
#include "os/thread.h"

#include "base/clock.h"
#include "base/invariant.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static enum cht_rc check(int rc, const char *what, struct cht_err *err)
{
    if (rc == 0)
        return CHT_OK;
    char text[80]; /* strerror is not for several threads */
    enum cht_rc code = rc == ENOMEM || rc == EAGAIN ? CHT_NO_MEMORY : CHT_IO;
    return cht_err_set(err, code, rc, __FILE__, __LINE__, "%s: %s", what, strerror_r(rc, text, sizeof text));
}

enum cht_rc cht_mutex_init(struct cht_mutex *m, struct cht_err *err)
{
    return check(pthread_mutex_init(&m->m, NULL), "mutex", err);
}

void cht_mutex_fini(struct cht_mutex *m)
{
    (void)pthread_mutex_destroy(&m->m); /* one that never was initialised is all zero */
}

void cht_mutex_lock(struct cht_mutex *m)
{
    int rc = pthread_mutex_lock(&m->m);
    CHT_INVARIANT(rc == 0);
}

bool cht_mutex_try(struct cht_mutex *m)
{
    int rc = pthread_mutex_trylock(&m->m);
    CHT_INVARIANT(rc == 0 || rc == EBUSY);
    return rc == 0;
}

void cht_mutex_unlock(struct cht_mutex *m)
{
    int rc = pthread_mutex_unlock(&m->m);
    CHT_INVARIANT(rc == 0);
}

enum cht_rc cht_cond_init(struct cht_cond *c, struct cht_err *err)
{
    pthread_condattr_t a;
    int rc = pthread_condattr_init(&a);
    if (rc != 0)
        return check(rc, "condition", err);
    rc = pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    if (rc == 0)
        rc = pthread_cond_init(&c->c, &a);
    (void)pthread_condattr_destroy(&a); /* never fails */
    return check(rc, "condition", err);
}

void cht_cond_fini(struct cht_cond *c) { (void)pthread_cond_destroy(&c->c); /* nobody waits any more */ }

enum cht_rc cht_mutex_cond_init(struct cht_mutex *m, struct cht_cond *c, struct cht_err *err)
{
    enum cht_rc rc = cht_mutex_init(m, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_cond_init(c, err);
    if (rc != CHT_OK)
        cht_mutex_fini(m);
    return rc;
}

void cht_cond_wait(struct cht_cond *c, struct cht_mutex *m)
{
    int rc = pthread_cond_wait(&c->c, &m->m);
    CHT_INVARIANT(rc == 0);
}

bool cht_cond_wait_ns(struct cht_cond *c, struct cht_mutex *m, uint64_t ns)
{
    uint64_t now = cht_now_ns();
    uint64_t end = ns < INT64_MAX - now ? now + ns : INT64_MAX; /* "for ever" must not become "at once" */
    struct timespec t = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
    int rc = pthread_cond_timedwait(&c->c, &m->m, &t);
    CHT_INVARIANT(rc == 0 || rc == ETIMEDOUT);
    return rc == 0;
}

void cht_cond_signal(struct cht_cond *c) { (void)pthread_cond_signal(&c->c); /* never fails */ }

void cht_cond_broadcast(struct cht_cond *c) { (void)pthread_cond_broadcast(&c->c); /* never fails */ }

enum cht_rc cht_thread_start(struct cht_thread *t, const char *name, void *(*fn)(void *), void *arg,
                             struct cht_err *err)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGBUS); /* what a thread does to itself: blocked it would be deadly, see fault.h */
    (void)sigdelset(&all, SIGSEGV);
    (void)sigdelset(&all, SIGFPE);
    (void)sigdelset(&all, SIGILL);
    (void)pthread_sigmask(SIG_SETMASK, &all,
                          &old); /* the new thread inherits it: signals are the main thread's */
    int rc = pthread_create(&t->t, NULL, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        (void)pthread_setname_np(t->t, name); /* only for people looking at top */
    return check(rc, name, err);
}

void cht_thread_join(struct cht_thread *t)
{
    int rc = pthread_join(t->t, NULL);
    CHT_INVARIANT(rc == 0);
}

/* ---- the striped lock ---------------------------------------------------------------------------------------- */

static unsigned my_stripe(void)
{
    static _Atomic unsigned next;
    static _Thread_local unsigned mine; /* 0: none yet */
    if (mine == 0)
        mine = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % CHT_RW_STRIPES + 1;
    return mine - 1;
}

enum cht_rc cht_rwlock_init(struct cht_rwlock *l, struct cht_err *err)
{
    pthread_rwlockattr_t a;
    int rc = pthread_rwlockattr_init(&a);
    if (rc != 0)
        return check(rc, "lock", err);
    rc = pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    for (unsigned i = 0; i < CHT_RW_STRIPES && rc == 0; i++)
        rc = pthread_rwlock_init(&l->s[i].l, &a);
    (void)pthread_rwlockattr_destroy(&a); /* never fails */
    return check(rc, "lock", err);
}

void cht_rwlock_fini(struct cht_rwlock *l)
{
    for (unsigned i = 0; i < CHT_RW_STRIPES; i++)
        (void)pthread_rwlock_destroy(&l->s[i].l); /* nobody holds it any more */
}

void cht_rwlock_read(struct cht_rwlock *l)
{
    int rc = pthread_rwlock_rdlock(&l->s[my_stripe()].l);
    CHT_INVARIANT(rc == 0);
}

bool cht_rwlock_try_read(struct cht_rwlock *l)
{
    int rc = pthread_rwlock_tryrdlock(&l->s[my_stripe()].l);
    CHT_INVARIANT(rc == 0 || rc == EBUSY || rc == EAGAIN); /* EAGAIN: as many readers as it can count */
    return rc == 0;
}

/* The thread sanitizer of gcc 12 does not know pthread_rwlock_clockrdlock: whoever got the lock by it would seem to have none. */
#ifdef __SANITIZE_THREAD__
#define READ_CLOCK CLOCK_REALTIME
#define read_until(l, t) pthread_rwlock_timedrdlock((l), (t))
#else
#define READ_CLOCK CLOCK_MONOTONIC
#define read_until(l, t) pthread_rwlock_clockrdlock((l), CLOCK_MONOTONIC, (t))
#endif

bool cht_rwlock_read_for(struct cht_rwlock *l, uint64_t ns)
{
    struct timespec t;
    CHT_INVARIANT(clock_gettime(READ_CLOCK, &t) == 0);
    uint64_t end = (uint64_t)t.tv_nsec + ns;
    t.tv_sec += (time_t)(end / 1000000000u);
    t.tv_nsec = (long)(end % 1000000000u);
    int rc = read_until(&l->s[my_stripe()].l, &t);
    CHT_INVARIANT(rc == 0 || rc == ETIMEDOUT || rc == EAGAIN);
    return rc == 0;
}

void cht_rwlock_read_end(struct cht_rwlock *l)
{
    int rc = pthread_rwlock_unlock(&l->s[my_stripe()].l);
    CHT_INVARIANT(rc == 0);
}

void cht_rwlock_write(struct cht_rwlock *l)
{
    for (unsigned i = 0; i < CHT_RW_STRIPES; i++) {
        int rc = pthread_rwlock_wrlock(&l->s[i].l);
        CHT_INVARIANT(rc == 0);
    }
}

void cht_rwlock_write_end(struct cht_rwlock *l)
{
    for (unsigned i = CHT_RW_STRIPES; i-- > 0;) {
        int rc = pthread_rwlock_unlock(&l->s[i].l);
        CHT_INVARIANT(rc == 0);
    }
}
