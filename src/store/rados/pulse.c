/* pulse: see pulse.h. */
#include "store/rados/pulse.h"

#include "base/clock.h"

#define BEAT_NS UINT64_C(1000000000)
#define OBJECT "pulse"

static void beat(struct cht_pulse *p)
{
    uint64_t now = cht_wall_ns();
    int there = 0;
    const char *object = p->reads != NULL ? p->reads : OBJECT;
    struct cht_call call = p->reads != NULL ? cht_call_read() : cht_call_write();
    if (p->reads != NULL)
        rados_read_op_stat(call.r, NULL, NULL, &there);
    else
        rados_write_op_write_full(call.w, (const char *)&now, sizeof now);
    int r = cht_call_run(&call, p->link->root, object);
    struct cht_err err = {0};
    enum cht_rc rc = cht_link_answer(p->link, r, object, &err);
    cht_mutex_lock(&p->mu);
    p->why = err;
    if (rc == CHT_OK || rc == CHT_DISK_FULL) /* it answers */
        p->answered_ns = cht_now_ns();
    cht_mutex_unlock(&p->mu);
}

static void *pulse_main(void *arg)
{
    struct cht_pulse *p = arg;
    cht_mutex_lock(&p->mu);
    while (!p->stop) {
        cht_mutex_unlock(&p->mu);
        beat(p);
        cht_guards_renew(p->guards);
        cht_mutex_lock(&p->mu);
        if (!p->stop)
            (void)cht_cond_wait_ns(&p->wake, &p->mu, BEAT_NS); /* woken too early it beats once more */
    }
    cht_mutex_unlock(&p->mu);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_pulse_start(struct cht_pulse *p, struct cht_link *link, struct cht_guards *guards,
                            struct cht_err *err)
{
    p->link = link;
    p->guards = guards;
    p->answered_ns = cht_now_ns();
    enum cht_rc rc = cht_mutex_cond_init(&p->mu, &p->wake, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_thread_start(&p->thread, "cht-pulse", pulse_main, p, err);
    if (rc != CHT_OK) {
        cht_cond_fini(&p->wake);
        cht_mutex_fini(&p->mu);
        return rc;
    }
    p->up = true;
    return CHT_OK;
}

void cht_pulse_stop(struct cht_pulse *p)
{
    if (!p->up)
        return;
    cht_mutex_lock(&p->mu);
    p->stop = true;
    cht_cond_broadcast(&p->wake);
    cht_mutex_unlock(&p->mu);
    cht_thread_join(&p->thread);
    cht_cond_fini(&p->wake);
    cht_mutex_fini(&p->mu);
    p->up = false;
}

uint64_t cht_pulse_silent(struct cht_pulse *p)
{
    cht_mutex_lock(&p->mu);
    uint64_t since = cht_now_ns() - p->answered_ns;
    cht_mutex_unlock(&p->mu);
    return since;
}

enum cht_rc cht_pulse_ask(struct cht_pulse *p, struct cht_err *err)
{
    cht_mutex_lock(&p->mu);
    struct cht_err why = p->why;
    uint64_t since = cht_now_ns() - p->answered_ns;
    cht_mutex_unlock(&p->mu);
    if (since < CHT_PULSE_LATE_NS)
        return CHT_OK;
    return CHT_FAIL(err, why.code != CHT_OK ? why.code : CHT_TIMEOUT,
                    "the cluster has not answered for %u seconds%s%.120s", (unsigned)(since / 1000000000),
                    why.code != CHT_OK ? ": " : "", why.code != CHT_OK ? why.msg : "");
}
