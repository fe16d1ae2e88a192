/* jobs: work of milliseconds to minutes for many owners, shared out so that no owner keeps another waiting.
 *
 * An owner is a number, for example of a database. At most `per_owner` jobs of one owner run at a time, and of one owner at most
 * one with each bit of `exclusive`: what has to wait for a turn like that waits in the queue and holds no thread. Among the jobs
 * that may run, the first one of an owner without a running job is taken, else the first one. Threads are started when there is
 * something to run and end after a while without work; one always stays, so that submitting cannot fail.
 *
 * Threads: any, except that nothing may be submitted during cht_jobs_free.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

struct cht_jobs;
struct cht_job {
    void (*run)(struct cht_job *j); /* may submit it again; j belongs to its owner throughout */
    uint64_t owner;                 /* 0: nobody's, which `per_owner` does not limit */
    unsigned exclusive;             /* bits; 0: runs beside anything */
    struct cht_job *next;           /* the queue's while queued */
};

struct cht_jobs_config {
    const char *name;   /* of the threads; at most 15 bytes, static */
    unsigned threads;   /* at most; 1 to CHT_JOB_THREADS_MAX */
    unsigned per_owner; /* at most; 1 or more */
    uint64_t idle_ns;   /* a thread without work ends after so long */
};
#define CHT_JOB_THREADS_MAX 64u

/* CHT_NO_MEMORY; CHT_INVALID_ARGUMENT if a number is out of range. */
enum cht_rc cht_jobs_new(const struct cht_jobs_config *cfg, struct cht_jobs **out, struct cht_err *err);
/* Queues a job that is not queued. Cannot fail: without a new thread the job waits for one of those that run. */
void cht_jobs_submit(struct cht_jobs *p, struct cht_job *j);
/* Runs what is queued, then joins the threads. NULL is legal. */
void cht_jobs_free(struct cht_jobs *p);
/* An owner's number for a name: never 0. Two names with the same number share a turn, which does no harm. */
uint64_t cht_jobs_owner(const void *name, size_t n);
/* How many run and how many wait, for statistics. */
void cht_jobs_count(struct cht_jobs *p, unsigned *running, unsigned *waiting);
