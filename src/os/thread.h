/* thread: mutexes, conditions, threads and the shard lock.
 *
 * struct cht_rwlock is a striped reader-writer lock: a reader takes the stripe of its thread (each on cache lines
 * of its own), so readers on different cores do not share a line; a writer takes every stripe, in order, and is not
 * starved by readers. A thread must not take the same lock shared twice. The functions cannot fail once
 * initialised (misuse is an invariant failure).
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cheetah/err.h"

struct cht_mutex {
    pthread_mutex_t m;
};
struct cht_cond {
    pthread_cond_t c;
};
struct cht_thread {
    pthread_t t;
};

enum cht_rc cht_mutex_init(struct cht_mutex *m, struct cht_err *err);
void cht_mutex_fini(struct cht_mutex *m);
void cht_mutex_lock(struct cht_mutex *m);
bool cht_mutex_try(struct cht_mutex *m); /* false if someone has it */
void cht_mutex_unlock(struct cht_mutex *m);
enum cht_rc cht_cond_init(struct cht_cond *c, struct cht_err *err); /* monotonic clock */
void cht_cond_fini(struct cht_cond *c);
/* Both, or neither: a condition and the mutex that guards what it is about. */
enum cht_rc cht_mutex_cond_init(struct cht_mutex *m, struct cht_cond *c, struct cht_err *err);
void cht_cond_wait(struct cht_cond *c, struct cht_mutex *m);
bool cht_cond_wait_ns(struct cht_cond *c, struct cht_mutex *m, uint64_t ns); /* false on time-out */
void cht_cond_signal(struct cht_cond *c);
void cht_cond_broadcast(struct cht_cond *c);
/* Starts a thread with all signals blocked but those of faults; name at most 15 bytes. */
enum cht_rc cht_thread_start(struct cht_thread *t, const char *name, void *(*fn)(void *), void *arg,
                             struct cht_err *err);
void cht_thread_join(struct cht_thread *t);

#define CHT_RW_STRIPES 8
struct cht_rwlock {
    struct {
        _Alignas(64) pthread_rwlock_t l;
    } s[CHT_RW_STRIPES];
};
enum cht_rc cht_rwlock_init(struct cht_rwlock *l, struct cht_err *err);
void cht_rwlock_fini(struct cht_rwlock *l);
void cht_rwlock_read(struct cht_rwlock *l);
bool cht_rwlock_try_read(struct cht_rwlock *l);              /* false if it would have to wait */
bool cht_rwlock_read_for(struct cht_rwlock *l, uint64_t ns); /* false if it cannot be had within so long */
void cht_rwlock_read_end(struct cht_rwlock *l);              /* from the thread that took it */
void cht_rwlock_write(struct cht_rwlock *l);
void cht_rwlock_write_end(struct cht_rwlock *l);
