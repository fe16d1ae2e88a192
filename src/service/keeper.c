/* keeper: see keeper.h. */
#include "service/keeper.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/thread.h"

#include <string.h>

#define TICK_NS UINT64_C(1000000000)
#define FINISH_TICKS 5u
#define CLOSE_MAX 64u /* databases closed between two ticks */

struct svc_keeper {
    struct svc_dbs *dbs;
    struct svc_log *log;
    uint64_t idle_seconds;
    struct cht_thread closer, recoverer;
    bool closer_up, recoverer_up;
    bool told; /* the closer's: why something that was dropped is still there */
    struct cht_mutex mu;
    struct cht_cond cond;
    _Atomic bool stop; /* set under mu */
};

static bool is_stopped(struct svc_keeper *k) { return atomic_load_explicit(&k->stop, memory_order_acquire); }

static void close_one(struct svc_keeper *k, const char *name, uint64_t used)
{
    struct cht_err err = {0};
    enum cht_rc rc;
    bool closed = svc_dbs_close_unused(k->dbs, name, used, &rc, &err);
    if (rc != CHT_OK &&
        rc != CHT_READ_ONLY) /* read-only: its cause was told, and it is to be seen until a restart */
        svc_log_say(k->log, SVC_LOG_ERROR, closed ? "database_close" : "database_kept_open", "%s: %s: %s",
                    name, cht_rc_slug(rc), err.msg);
    else if (closed)
        svc_log_say(k->log, SVC_LOG_DEBUG, "database_close", "%s: it is not used", name);
}

static void close_idle(struct svc_keeper *k)
{
    char names[CLOSE_MAX][CHT_DATABASE_NAME_MAX + 1];
    uint64_t now = svc_dbs_seconds(k->dbs);
    if (k->idle_seconds == 0 || now <= k->idle_seconds)
        return;
    uint64_t used = now - k->idle_seconds;
    size_t n = svc_dbs_unused(k->dbs, used, names, CLOSE_MAX);
    for (size_t i = 0; i < n && !is_stopped(k); i++)
        close_one(k, names[i], used);
}

static void tell_finished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    struct svc_keeper *k = ctx;
    if (rc == CHT_OK)
        svc_log_say(k->log, SVC_LOG_INFO, "unfinished_work", "%s: %s", name, what);
    else if (!k->told)
        svc_log_say(k->log, SVC_LOG_ERROR, "unfinished_work", "%s: %s: %s; tried again", name,
                    cht_rc_slug(rc), what);
    k->told = rc != CHT_OK;
}

static void *closer_main(void *arg)
{
    struct svc_keeper *k = arg;
    for (unsigned tick = 1; !is_stopped(k); tick++) {
        svc_dbs_tick(k->dbs);
        close_idle(k);
        if (tick % FINISH_TICKS == 0)
            svc_dbs_finish(k->dbs, tell_finished, k);
        cht_mutex_lock(&k->mu);
        if (!is_stopped(k))
            (void)cht_cond_wait_ns(&k->cond, &k->mu, TICK_NS); /* a wake-up that is too early does no harm */
        cht_mutex_unlock(&k->mu);
    }
    return NULL;
}

struct names {
    char (*name)[CHT_DATABASE_NAME_MAX + 1]; /* owned */
    size_t n, cap;
};

static void add_name(void *ctx, const char *name)
{
    struct names *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : 2 * l->cap;
        void *p = cht_realloc(l->name, cap * sizeof *l->name);
        if (p == NULL)
            return; /* it is recovered when it is used */
        l->name = p;
        l->cap = cap;
    }
    memcpy(l->name[l->n++], name, strlen(name) + 1);
}

static void recover_one(struct svc_keeper *k, const char *name)
{
    struct cht_err err = {0};
    struct svc_database *d = NULL;
    bool clean;
    uint64_t start = cht_now_ns();
    enum cht_rc rc = svc_dbs_is_clean(k->dbs, name, &clean, &err);
    if (rc == CHT_OK && clean)
        return;
    if (rc == CHT_OK)
        rc = svc_dbs_visit(k->dbs, name, &d, &err);
    if (rc == CHT_OK)
        svc_log_say(k->log, SVC_LOG_INFO, "database_open", "%s recovered in %llu ms", name,
                    (unsigned long long)((cht_now_ns() - start) / 1000000));
    else if (rc != CHT_DATABASE_NOT_FOUND) /* dropped meanwhile */
        svc_log_say(k->log, SVC_LOG_ERROR, "database_failed", "%s: %s: %s", name, cht_rc_slug(rc), err.msg);
    svc_dbs_put(d);
    if (d != NULL) /* unless it was used meanwhile; what it says is told by close_one */
        close_one(k, name, 0);
}

static void *recoverer_main(void *arg)
{
    struct svc_keeper *k = arg;
    struct names l = {0};
    struct cht_err err = {0};
    enum cht_rc rc = svc_dbs_list(k->dbs, add_name, &l, &err);
    if (rc != CHT_OK)
        svc_log_say(k->log, SVC_LOG_ERROR, "database_failed", "the list of databases: %s: %s",
                    cht_rc_slug(rc), err.msg);
    for (size_t i = 0; i < l.n && !is_stopped(k); i++)
        recover_one(k, l.name[i]);
    cht_free(l.name);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_keeper_start(struct svc_dbs *dbs, struct svc_log *log, uint64_t idle_seconds,
                             struct svc_keeper **out, struct cht_err *err)
{
    struct svc_keeper *k = cht_calloc(1, sizeof *k);
    if (k == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the keeper");
    k->dbs = dbs;
    k->log = log;
    k->idle_seconds = idle_seconds;
    enum cht_rc rc = cht_mutex_init(&k->mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&k->cond, err);
    if (rc == CHT_OK) {
        rc = cht_thread_start(&k->closer, "cht-keeper", closer_main, k, err);
        k->closer_up = rc == CHT_OK;
    }
    if (rc == CHT_OK) {
        rc = cht_thread_start(&k->recoverer, "cht-recover", recoverer_main, k, err);
        k->recoverer_up = rc == CHT_OK;
    }
    if (rc != CHT_OK) {
        svc_keeper_stop(k);
        return rc;
    }
    *out = k;
    return CHT_OK;
}

void svc_keeper_stop(struct svc_keeper *k)
{
    if (k == NULL)
        return;
    cht_mutex_lock(&k->mu);
    atomic_store_explicit(&k->stop, true, memory_order_release);
    cht_cond_broadcast(&k->cond);
    cht_mutex_unlock(&k->mu);
    if (k->closer_up)
        cht_thread_join(&k->closer);
    if (k->recoverer_up)
        cht_thread_join(&k->recoverer);
    cht_cond_fini(&k->cond);
    cht_mutex_fini(&k->mu);
    cht_free(k);
}
