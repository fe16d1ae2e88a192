/* share: see share.h. */
#include "lm/share.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "os/thread.h"

struct share {
    lm_share_fn *fn;
    size_t n;
    _Atomic size_t next; /* first iteration that nobody has taken */
    _Atomic bool stop;   /* something failed */
};

struct sharer {
    struct cht_thread thread;
    struct share *share;
    void *worker;
    enum cht_rc rc;
    struct cht_err err;
};

static void *sharer_main(void *arg)
{
    struct sharer *me = arg;
    struct share *s = me->share;
    while (me->rc == CHT_OK && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        size_t from = atomic_fetch_add_explicit(&s->next, LM_SHARE_PIECE, memory_order_relaxed);
        if (from >= s->n)
            break;
        size_t to = s->n - from < LM_SHARE_PIECE ? s->n : from + LM_SHARE_PIECE;
        me->rc = s->fn(me->worker, from, to, &me->err);
        if (me->rc != CHT_OK)
            atomic_store_explicit(&s->stop, true, memory_order_relaxed);
    }
    return NULL;
}

enum cht_rc lm_share(size_t n, lm_share_fn *fn, void *const *workers, unsigned threads, struct cht_err *err)
{
    struct share s = {.fn = fn, .n = n};
    struct sharer each[LM_SHARE_THREADS_MAX];
    struct cht_err ignored;
    unsigned started = 0;
    if (threads > LM_SHARE_THREADS_MAX)
        threads = LM_SHARE_THREADS_MAX;
    if (threads < 2 || n < 2 * LM_SHARE_PIECE)
        return fn(workers[0], 0, n, err);
    for (unsigned i = 0; i < threads; i++)
        each[i] = (struct sharer){.share = &s, .worker = workers[i]};
    while (started + 1 < threads && cht_thread_start(&each[started + 1].thread, "lm-share", sharer_main,
                                                     &each[started + 1], &ignored) == CHT_OK)
        started++;
    (void)sharer_main(&each[0]);
    for (unsigned i = 1; i <= started; i++)
        cht_thread_join(&each[i].thread);
    for (unsigned i = 0; i <= started; i++) {
        if (each[i].rc == CHT_OK)
            continue;
        if (err != NULL)
            *err = each[i].err;
        return each[i].rc;
    }
    return CHT_OK;
}
