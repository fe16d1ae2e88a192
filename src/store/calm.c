/* calm: see calm.h.
 *
 * enter and begin meet like this: a task adds itself to `inside`, then looks at `busy`; the committer sets `busy`, then looks at
 * `inside`. Both orders are sequentially consistent, so at least one of them sees the other.
 */
#include "store/calm.h"

#include "base/alloc.h"
#include "base/invariant.h"

enum cht_rc cht_calm_init(struct cht_calm *c, struct cht_pool *const *pools, size_t n, struct cht_err *err)
{
    *c = (struct cht_calm){.pools = n};
    c->aside = cht_calloc(n, sizeof *c->aside);
    if (c->aside == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a database");
    for (size_t i = 0; i < n; i++) {
        c->aside[i].pool = pools[i];
        c->aside[i].tail = &c->aside[i].head;
    }
    enum cht_rc rc = cht_mutex_cond_init(&c->mu, &c->left, err);
    if (rc == CHT_OK && (rc = cht_cond_init(&c->over, err)) != CHT_OK) {
        cht_cond_fini(&c->left);
        cht_mutex_fini(&c->mu);
    }
    if (rc != CHT_OK) {
        cht_free(c->aside);
        c->aside = NULL;
    }
    return rc;
}

void cht_calm_fini(struct cht_calm *c)
{
    if (c->aside == NULL)
        return;
    cht_cond_fini(&c->over);
    cht_cond_fini(&c->left);
    cht_mutex_fini(&c->mu);
    cht_free(c->aside);
    c->aside = NULL;
}

/* mu held, and it is busy. */
static void put_aside(struct cht_calm *c, struct cht_pool *pool, struct cht_task *t)
{
    size_t i = 0;
    while (i < c->pools && c->aside[i].pool != pool)
        i++;
    CHT_INVARIANT(i < c->pools);
    t->next = NULL;
    *c->aside[i].tail = t;
    c->aside[i].tail = &t->next;
}

/* Nothing keeps anybody waiting any more. mu held. */
static void release(struct cht_calm *c)
{
    atomic_store_explicit(&c->busy, false, memory_order_seq_cst);
    c->rounds++;
    cht_cond_broadcast(&c->over);
    struct cht_wait *w = c->waiting;
    c->waiting = NULL;
    while (w != NULL) {
        struct cht_wait *next = w->next; /* w may be gone after this */
        w->done(w);
        w = next;
    }
    for (size_t i = 0; i < c->pools; i++) {
        struct cht_task *t = c->aside[i].head;
        c->aside[i].head = NULL;
        c->aside[i].tail = &c->aside[i].head;
        while (t != NULL) {
            struct cht_task *next = t->next; /* it runs at once, perhaps */
            cht_pool_submit(c->aside[i].pool, t);
            t = next;
        }
    }
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool cht_calm_try(struct cht_calm *c)
{
    atomic_fetch_add_explicit(&c->inside, 1, memory_order_seq_cst);
    if (!atomic_load_explicit(&c->busy, memory_order_seq_cst))
        return true;
    cht_calm_leave(c);
    return false;
}

enum cht_calm_turn cht_calm_enter(struct cht_calm *c, struct cht_pool *pool, struct cht_task *t,
                                  const _Atomic bool *cancelled)
{
    while (!cht_calm_try(c)) {
        cht_mutex_lock(&c->mu);
        bool over = cancelled != NULL && atomic_load_explicit(cancelled, memory_order_seq_cst);
        bool busy =
            !over && atomic_load_explicit(&c->busy, memory_order_relaxed); /* it changes with mu held */
        if (busy)
            put_aside(c, pool, t);
        cht_mutex_unlock(&c->mu);
        if (over || busy)
            return over ? CHT_CALM_CANCELLED : CHT_CALM_ASIDE;
    }
    return CHT_CALM_INSIDE;
}

void cht_calm_recall(struct cht_calm *c, struct cht_task *t)
{
    struct cht_pool *pool = NULL;
    cht_mutex_lock(&c->mu);
    for (size_t i = 0; i < c->pools && pool == NULL; i++) {
        struct cht_task **at = &c->aside[i].head;
        while (*at != NULL && *at != t)
            at = &(*at)->next;
        if (*at == NULL)
            continue;
        *at = t->next;
        if (*at == NULL)
            c->aside[i].tail = at;
        pool = c->aside[i].pool;
    }
    if (pool != NULL)
        cht_pool_submit(pool, t);
    cht_mutex_unlock(&c->mu);
}

void cht_calm_leave(struct cht_calm *c)
{
    if (atomic_fetch_sub_explicit(&c->inside, 1, memory_order_seq_cst) != 1 ||
        !atomic_load_explicit(&c->busy, memory_order_seq_cst))
        return;
    cht_mutex_lock(&c->mu);
    cht_cond_signal(&c->left);
    cht_mutex_unlock(&c->mu);
}

enum cht_rc cht_calm_await(struct cht_calm *c, struct cht_wait *w)
{
    cht_mutex_lock(&c->mu);
    bool busy = atomic_load_explicit(&c->busy, memory_order_relaxed);
    if (busy && w == NULL) {
        uint64_t round = c->rounds;
        while (c->rounds == round && atomic_load_explicit(&c->busy, memory_order_relaxed))
            cht_cond_wait(&c->over, &c->mu);
        busy = false;
    } else if (busy) {
        w->next = c->waiting;
        c->waiting = w;
    }
    cht_mutex_unlock(&c->mu);
    return busy ? CHT_PENDING : CHT_OK;
}

void cht_calm_forget(struct cht_calm *c, struct cht_wait *w)
{
    cht_mutex_lock(&c->mu);
    for (struct cht_wait **at = &c->waiting; *at != NULL; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    cht_mutex_unlock(&c->mu);
}

void cht_calm_begin(struct cht_calm *c)
{
    cht_mutex_lock(&c->mu);
    c->holding = true;
    atomic_store_explicit(&c->busy, true, memory_order_seq_cst);
    while (atomic_load_explicit(&c->inside, memory_order_seq_cst) > 0)
        cht_cond_wait(&c->left, &c->mu);
    cht_mutex_unlock(&c->mu);
}

void cht_calm_end(struct cht_calm *c)
{
    cht_mutex_lock(&c->mu);
    c->holding = false;
    if (!c->asked)
        release(c);
    cht_mutex_unlock(&c->mu);
}

void cht_calm_ask(struct cht_calm *c)
{
    cht_mutex_lock(&c->mu);
    c->asked = true;
    atomic_store_explicit(&c->busy, true, memory_order_seq_cst);
    cht_mutex_unlock(&c->mu);
}

void cht_calm_settled(struct cht_calm *c)
{
    cht_mutex_lock(&c->mu);
    if (c->asked && !c->holding)
        release(c);
    c->asked = false;
    cht_mutex_unlock(&c->mu);
}
