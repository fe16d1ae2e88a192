/* commit_base: what all the committer's files need: answers, how durable and how heavy a commit is, commit_mu with nothing undecided. It needs
 * none of them. See commit_int.h.
 */
#include "store/commit_int.h"

#define VALUE_STEP 4096u /* bytes of a value that weigh as much as an operation */

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_durability cht_commit_mode(const struct cht_committer *cm, const struct cht_commit *c)
{
    return (c->flags & CHT_COMMIT_SYNC) != 0       ? CHT_DURABLE_SYNC
           : (c->flags & CHT_COMMIT_INTERVAL) != 0 ? CHT_DURABLE_INTERVAL
                                                   : cm->cfg.durability;
}

uint64_t cht_commit_weight(const struct cht_commit *c)
{
    uint64_t many = c->many != NULL ? c->many->n : 0;
    return many + (c->count == 1 ? 1 + c->ops[0].value.n / VALUE_STEP : c->count);
}

void cht_committer_fail(struct cht_commit *list, const struct cht_err *err)
{
    for (struct cht_commit *c = list; c != NULL; c = c->next) {
        c->rc = err->code;
        c->err = *err;
    }
}

void cht_committer_answer(struct cht_commit *list)
{
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        c->next = NULL;
        c->done(c); /* c may be gone after this */
    }
}

void cht_committer_count(struct cht_committer *cm, const struct cht_group *g)
{
    atomic_fetch_add_explicit(&cm->commits, g->commits, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->operations, g->operations, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->groups, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cm->inserted, g->inserted, memory_order_relaxed);
}

bool cht_pipe_any(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    bool any = cm->pipe_count > 0;
    cht_mutex_unlock(&cm->mu);
    return any;
}

void cht_committer_lock(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    cm->quiet++;
    cht_mutex_unlock(&cm->mu);
    for (bool empty = false; !empty;) {
        cht_mutex_lock(&cm->commit_mu);
        cht_mutex_lock(&cm->mu);
        empty = cm->pipe_count == 0;
        if (!empty)
            cht_mutex_unlock(&cm->commit_mu);
        while (!empty && cm->pipe_count > 0)
            cht_cond_wait(&cm->moved, &cm->mu);
        cht_mutex_unlock(&cm->mu);
    }
}

void cht_committer_unlock(struct cht_committer *cm)
{
    cht_mutex_lock(&cm->mu);
    cm->quiet--;
    cht_cond_broadcast(&cm->moved);
    cht_mutex_unlock(&cm->mu);
    cht_mutex_unlock(&cm->commit_mu);
}
