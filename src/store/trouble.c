/* trouble: see trouble.h. */
#include "store/trouble.h"

#include "base/clock.h"

#include <string.h>

#define SETTLE_NS UINT64_C(1000000000)

enum cht_rc cht_trouble_init(struct cht_trouble *t, const char *database, const struct cht_env_config *cfg,
                             struct cht_err *err)
{
    memset(t, 0, sizeof *t);
    t->database = database;
    t->tell = cfg->trouble;
    t->ctx = cfg->trouble_ctx;
    return cht_mutex_init(&t->mu, err);
}

void cht_trouble_fini(struct cht_trouble *t) { cht_mutex_fini(&t->mu); }

void cht_trouble_set(struct cht_trouble *t, enum cht_trouble_kind kind, const struct cht_err *why)
{
    cht_mutex_lock(&t->mu);
    bool news =
        t->why[kind].code == CHT_OK || (kind != CHT_TROUBLE_STOPPED && t->why[kind].code != why->code);
    if (news)
        t->why[kind] = *why;
    t->since_ns[kind] = cht_now_ns();
    atomic_fetch_or_explicit(&t->kinds, 1u << kind, memory_order_release);
    if (news && t->tell != NULL)
        t->tell(t->ctx, t->database, kind, why);
    cht_mutex_unlock(&t->mu);
}

void cht_trouble_clear(struct cht_trouble *t, enum cht_trouble_kind kind)
{
    if (kind == CHT_TROUBLE_STOPPED || !cht_trouble_is(t, kind))
        return;
    cht_mutex_lock(&t->mu);
    bool over = t->why[kind].code != CHT_OK &&
                (kind != CHT_TROUBLE_WRITE || cht_now_ns() - t->since_ns[kind] >= SETTLE_NS);
    if (over) {
        memset(&t->why[kind], 0, sizeof t->why[kind]);
        atomic_fetch_and_explicit(&t->kinds, ~(1u << kind), memory_order_release);
        if (t->tell != NULL)
            t->tell(t->ctx, t->database, kind, &t->why[kind]);
    }
    cht_mutex_unlock(&t->mu);
}

uint64_t cht_trouble_age(struct cht_trouble *t, enum cht_trouble_kind kind)
{
    if (!cht_trouble_is(t, kind))
        return UINT64_MAX;
    cht_mutex_lock(&t->mu);
    uint64_t age = t->why[kind].code == CHT_OK ? UINT64_MAX : cht_now_ns() - t->since_ns[kind];
    cht_mutex_unlock(&t->mu);
    return age;
}

bool cht_trouble_get(struct cht_trouble *t, struct cht_err *why)
{
    memset(why, 0, sizeof *why);
    if (atomic_load_explicit(&t->kinds, memory_order_acquire) == 0)
        return false;
    cht_mutex_lock(&t->mu);
    for (unsigned k = 0; k < CHT_TROUBLE_KINDS && why->code == CHT_OK; k++)
        *why = t->why[k];
    cht_mutex_unlock(&t->mu);
    return why->code != CHT_OK;
}

enum cht_rc cht_trouble_stopped(struct cht_trouble *t, struct cht_err *err)
{
    cht_mutex_lock(&t->mu);
    struct cht_err why = t->why[CHT_TROUBLE_STOPPED], passing = t->why[CHT_TROUBLE_WRITE];
    cht_mutex_unlock(&t->mu);
    if (why.code != CHT_OK || passing.code == CHT_OK)
        return CHT_FAIL(err, CHT_READ_ONLY, "writing stopped until restart: %.160s", why.msg);
    if (err != NULL)
        *err = passing;
    return passing.code;
}
