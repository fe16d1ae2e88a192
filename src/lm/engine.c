/* engine: see engine.h. The gates are a list under one mutex: it is as long as there are databases being counted or
 * smoothed at this moment. */
#include "lm/engine.h"

#include "base/alloc.h"
#include "os/thread.h"

struct lm_gate {
    const struct cht_store *store;
    unsigned users; /* guarded by the engine's mu: holders and waiters */
    struct lm_gate *next;
    struct cht_mutex mu[2]; /* by enum lm_gate_kind */
};

struct lm_engine {
    struct cht_mutex mu;
    struct lm_gate *gates; /* guarded by mu; owned */
};

static struct lm_gate *gate_new(const struct cht_store *s, struct cht_err *err)
{
    struct lm_gate *g = cht_calloc(1, sizeof *g);
    if (g == NULL) {
        (void)CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a lock");
        return NULL;
    }
    g->store = s;
    if (cht_mutex_init(&g->mu[0], err) != CHT_OK) {
        cht_free(g);
        return NULL;
    }
    if (cht_mutex_init(&g->mu[1], err) != CHT_OK) {
        cht_mutex_fini(&g->mu[0]);
        cht_free(g);
        return NULL;
    }
    return g;
}

static void gate_free(struct lm_gate *g)
{
    cht_mutex_fini(&g->mu[0]);
    cht_mutex_fini(&g->mu[1]);
    cht_free(g);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_engine_new(struct lm_engine **out, struct cht_err *err)
{
    struct lm_engine *e = cht_calloc(1, sizeof *e);
    if (e == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the language model's locks");
    enum cht_rc rc = cht_mutex_init(&e->mu, err);
    if (rc != CHT_OK) {
        cht_free(e);
        return rc;
    }
    *out = e;
    return CHT_OK;
}

void lm_engine_free(struct lm_engine *e)
{
    if (e == NULL)
        return;
    cht_mutex_fini(&e->mu);
    cht_free(e);
}

enum cht_rc lm_gate_enter(struct lm_engine *e, const struct cht_store *s, enum lm_gate_kind kind,
                          struct lm_gate **out, struct cht_err *err)
{
    cht_mutex_lock(&e->mu);
    struct lm_gate *g = e->gates;
    while (g != NULL && g->store != s)
        g = g->next;
    if (g == NULL && (g = gate_new(s, err)) != NULL) {
        g->next = e->gates;
        e->gates = g;
    }
    if (g != NULL)
        g->users++;
    cht_mutex_unlock(&e->mu);
    if (g == NULL)
        return CHT_NO_MEMORY;
    cht_mutex_lock(&g->mu[kind]);
    *out = g;
    return CHT_OK;
}

void lm_gate_leave(struct lm_engine *e, struct lm_gate *g, enum lm_gate_kind kind)
{
    cht_mutex_unlock(&g->mu[kind]);
    cht_mutex_lock(&e->mu);
    if (--g->users == 0) {
        struct lm_gate **at = &e->gates;
        while (*at != g)
            at = &(*at)->next;
        *at = g->next;
        gate_free(g);
    }
    cht_mutex_unlock(&e->mu);
}

enum cht_rc lm_commit(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags, struct cht_err *err)
{
    if (n == 0)
        return CHT_OK;
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc == CHT_BATCH_FAILED) {
        rc = ops[c.failed].rc;
    } else if (rc == CHT_OK && c.failed > 0) {
        size_t i = 0;
        while (ops[i].rc == CHT_OK)
            i++;
        rc = ops[i].rc;
    }
    if (rc == CHT_OK)
        return CHT_OK;
    if (c.err.code != rc) /* an answer without a message */
        return CHT_FAIL(err, rc, "%s", cht_rc_text(rc));
    if (err != NULL)
        *err = c.err;
    return rc;
}
