/* pool: worker threads that run queued tasks, one pool a data directory. Knows nothing of what the tasks do. */
#pragma once

#include "cheetah/err.h"

struct cht_pool;
struct cht_task {
    void (*run)(
        struct cht_task *t); /* on a worker; may submit the task again; t belongs to its owner throughout */
    struct cht_task *next;   /* the pool's while queued */
};

enum cht_rc cht_pool_new(unsigned workers, const char *name, struct cht_pool **out, struct cht_err *err);
/* Queues a task that is not queued; first in, first out. Cannot fail. */
void cht_pool_submit(struct cht_pool *p, struct cht_task *t);
/* The same, by a task of this pool that is about to return, at most once: its worker is free then, so no other one is woken. */
void cht_pool_submit_last(struct cht_pool *p, struct cht_task *t);
/* Runs what is queued, then joins the workers. Nothing may be submitted any more. NULL is legal. */
void cht_pool_free(struct cht_pool *p);
unsigned cht_pool_workers(const struct cht_pool *p);
