/* scrub: see scrub.h. */
#include "service/scrub.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/thread.h"

#include <string.h>

#define SCRUB_PAUSE_NS UINT64_C(60000000000)
#define CLOSED_PAUSE_NS UINT64_C(100000000)      /* between two databases that have to be opened */
#define CLOSED_EVERY_NS UINT64_C(86400000000000) /* a day */

struct svc_scrub {
    struct svc_dbs *dbs;
    struct svc_log *log;
    uint64_t rate;
    struct cht_thread thread;
    struct cht_mutex mu;
    struct cht_cond cond;
    bool up;
    _Atomic bool stop;
    _Atomic uint64_t bytes, passes, bad;
};

/* A snapshot of the names: holding all databases for a pass would keep them from being dropped. */
struct names {
    char (*name)[CHT_DATABASE_NAME_MAX + 1]; /* owned */
    size_t n, cap;
};

struct pass {
    struct svc_scrub *s;
    struct svc_database *db;
};

static void add_name(void *ctx, const char *name)
{
    struct names *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
        void *p = cht_realloc(l->name, cap * sizeof *l->name);
        if (p == NULL)
            return; /* in the next pass */
        l->name = p;
        l->cap = cap;
    }
    memcpy(l->name[l->n++], name, strlen(name) + 1);
}

static void add_open(void *ctx, struct svc_database *d) { add_name(ctx, d->name); }

static bool stopped(void *ctx)
{
    const struct pass *p = ctx;
    return atomic_load_explicit(&p->s->stop, memory_order_relaxed) ||
           atomic_load_explicit(&p->db->dropping, memory_order_relaxed);
}

static void scrub_database(struct svc_scrub *s, const char *name)
{
    struct cht_err err = {0};
    struct pass pass = {.s = s};
    enum cht_rc rc = svc_dbs_visit(s->dbs, name, &pass.db, &err);
    if (rc == CHT_DATABASE_NOT_FOUND)
        return; /* dropped meanwhile */
    if (rc != CHT_OK) {
        svc_log_say(s->log, SVC_LOG_ERROR, "scrub_failed", "%s: %s: %s", name, cht_rc_slug(rc), err.msg);
        return;
    }
    struct cht_scrub scrub = {.bytes_per_second = s->rate, .stop = stopped, .ctx = &pass};
    rc = cht_store_scrub(pass.db->store, &scrub, &err);
    atomic_fetch_add_explicit(&s->bytes, scrub.bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->bad, scrub.bad, memory_order_relaxed);
    if (scrub.bad > 0)
        svc_log_say(s->log, SVC_LOG_ERROR, "scrub_found", "%s: %llu damaged pages; the first: %s", name,
                    (unsigned long long)scrub.bad, scrub.first.msg);
    if (rc != CHT_OK && rc != CHT_CANCELLED)
        svc_log_say(s->log, SVC_LOG_ERROR, "scrub_failed", "%s: %s: %s", name, cht_rc_slug(rc), err.msg);
    svc_dbs_put(pass.db);
    (void)svc_dbs_close_unused(s->dbs, name, 0, &rc,
                               &err); /* if it was opened for this; else, or if it cannot be, it stays open */
}

static bool is_stopped(const struct svc_scrub *s)
{
    return atomic_load_explicit(&s->stop, memory_order_acquire);
}

static void pause_for(struct svc_scrub *s, uint64_t ns)
{
    cht_mutex_lock(&s->mu);
    if (!is_stopped(s))
        (void)cht_cond_wait_ns(&s->cond, &s->mu, ns); /* a wake-up that is too early does no harm */
    cht_mutex_unlock(&s->mu);
}

static void *scrub_main(void *arg)
{
    struct svc_scrub *s = arg;
    uint64_t next_all = 0;
    while (!is_stopped(s)) {
        struct names l = {0};
        struct cht_err err = {0};
        bool all = cht_now_ns() >= next_all;
        if (all)
            next_all = cht_now_ns() + CLOSED_EVERY_NS;
        enum cht_rc rc = all ? svc_dbs_list(s->dbs, add_name, &l, &err) : CHT_OK;
        if (!all)
            svc_dbs_each(s->dbs, add_open, &l);
        if (rc != CHT_OK)
            svc_log_say(s->log, SVC_LOG_ERROR, "scrub_failed", "the list of databases: %s: %s",
                        cht_rc_slug(rc), err.msg);
        for (size_t i = 0; i < l.n && !is_stopped(s); i++) {
            scrub_database(s, l.name[i]);
            if (all && i + 1 < l.n)
                pause_for(s, CLOSED_PAUSE_NS);
        }
        cht_free(l.name);
        if (!is_stopped(s))
            atomic_fetch_add_explicit(&s->passes, 1, memory_order_relaxed);
        pause_for(s, SCRUB_PAUSE_NS);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_scrub_start(struct svc_dbs *dbs, struct svc_log *log, uint64_t bytes_per_second,
                            struct svc_scrub **out, struct cht_err *err)
{
    struct svc_scrub *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the scrub");
    s->dbs = dbs;
    s->log = log;
    s->rate = bytes_per_second;
    enum cht_rc rc = cht_mutex_init(&s->mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&s->cond, err);
    if (rc == CHT_OK)
        rc = cht_thread_start(&s->thread, "cht-scrub", scrub_main, s, err);
    s->up = rc == CHT_OK;
    if (rc != CHT_OK) {
        svc_scrub_stop(s);
        return rc;
    }
    *out = s;
    return CHT_OK;
}

void svc_scrub_read_stats(const struct svc_scrub *s, struct svc_scrub_stats *out)
{
    *out = (struct svc_scrub_stats){0};
    if (s == NULL)
        return;
    out->bytes = atomic_load_explicit(&s->bytes, memory_order_relaxed);
    out->passes = atomic_load_explicit(&s->passes, memory_order_relaxed);
    out->bad = atomic_load_explicit(&s->bad, memory_order_relaxed);
}

void svc_scrub_halt(struct svc_scrub *s)
{
    if (s != NULL && s->up) {
        cht_mutex_lock(&s->mu);
        atomic_store_explicit(&s->stop, true, memory_order_release);
        cht_cond_broadcast(&s->cond);
        cht_mutex_unlock(&s->mu);
        cht_thread_join(&s->thread);
        s->up = false;
    }
}

void svc_scrub_stop(struct svc_scrub *s)
{
    if (s == NULL)
        return;
    svc_scrub_halt(s);
    cht_cond_fini(&s->cond);
    cht_mutex_fini(&s->mu);
    cht_free(s);
}
