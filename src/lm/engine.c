/* engine: see engine.h. The gates are a list under one mutex: it is as long as there are databases being counted or
 * smoothed at this moment. */
#include "lm/engine.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "lm/engine_int.h"
#include "reduce/move.h"

#define LOOK_NS UINT64_C(100000000) /* how often a waiter looks whether it is still wanted */

struct lm_gate {
    struct cht_store *store;
    unsigned users; /* guarded by the engine's mu, like all here: holders and waiters */
    bool held[2];   /* by enum lm_gate_kind */
    struct lm_gate *next;
};

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_engine_new(struct lm_engine **out, struct cht_err *err)
{
    struct lm_engine *e = cht_calloc(1, sizeof *e);
    if (e == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the language model's locks");
    enum cht_rc rc = cht_mutex_cond_init(&e->mu, &e->left, err);
    if (rc != CHT_OK) {
        cht_free(e);
        return rc;
    }
    e->kept_max = LM_KEPT_BYTES;
    *out = e;
    return CHT_OK;
}

void lm_engine_keep(struct lm_engine *e, size_t bytes) { e->kept_max = bytes; }

size_t lm_engine_kept(struct lm_engine *e)
{
    cht_mutex_lock(&e->mu);
    size_t n = e->kept_bytes;
    cht_mutex_unlock(&e->mu);
    return n;
}

void lm_engine_free(struct lm_engine *e)
{
    if (e == NULL)
        return;
    lm_kn_live_free_all(e);
    lm_kn_reader_free_all(e);
    cht_cond_fini(&e->left);
    cht_mutex_fini(&e->mu);
    cht_free(e);
}

/* mu held. The gate goes with its last user. */
static void unuse(struct lm_engine *e, struct lm_gate *g)
{
    if (--g->users > 0)
        return;
    struct lm_gate **at = &e->gates;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    cht_free(g);
}

static const char *const lock_names[] = {[LM_GATE_COUNT] = "count", [LM_GATE_SMOOTH] = "smooth"};

static bool is_cancelled(const _Atomic bool *cancel)
{
    return cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
}

static void leave(struct lm_engine *e, struct lm_gate *g, enum lm_gate_kind kind)
{
    cht_mutex_lock(&e->mu);
    g->held[kind] = false;
    unuse(e, g);
    cht_cond_broadcast(&e->left);
    cht_mutex_unlock(&e->mu);
}

enum cht_rc lm_gate_enter(struct lm_engine *e, struct cht_store *s, enum lm_gate_kind kind,
                          const _Atomic bool *cancel, struct lm_gate **out, struct cht_err *err)
{
    cht_mutex_lock(&e->mu);
    struct lm_gate *g = e->gates;
    while (g != NULL && g->store != s)
        g = g->next;
    if (g == NULL) {
        g = cht_calloc(1, sizeof *g);
        if (g == NULL) {
            cht_mutex_unlock(&e->mu);
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a lock");
        }
        g->store = s;
        g->next = e->gates;
        e->gates = g;
    }
    g->users++;
    bool cancelled = false;
    while (g->held[kind] && !cancelled) {
        (void)cht_cond_wait_ns(&e->left, &e->mu, LOOK_NS); /* woken or not, it looks again */
        cancelled = is_cancelled(cancel);
    }
    if (cancelled)
        unuse(e, g);
    else
        g->held[kind] = true;
    cht_mutex_unlock(&e->mu);
    if (cancelled)
        return CHT_FAIL(err, CHT_CANCELLED, "cancelled");
    enum cht_rc rc =
        reduce_lock(s, lock_names[kind], cancel, err); /* other servers count and smooth as well */
    if (rc == CHT_OK)
        *out = g;
    else
        leave(e, g, kind);
    return rc;
}

void lm_gate_leave(struct lm_engine *e, struct lm_gate *g, enum lm_gate_kind kind)
{
    cht_store_unlock(g->store, lock_names[kind]);
    leave(e, g, kind);
}

enum cht_rc lm_commit(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags, struct cht_err *err)
{
    return lm_commit_many(s, NULL, ops, n, flags, err);
}

enum cht_rc lm_commit_many(struct cht_store *s, struct cht_many *many, struct cht_op *ops, size_t n,
                           unsigned flags, struct cht_err *err)
{
    if (n == 0 && many == NULL)
        return CHT_OK;
    struct cht_commit c = {.ops = ops, .count = n, .many = many, .flags = flags | CHT_COMMIT_FENCED};
    enum cht_rc rc = cht_store_locks_kept(s, err); /* what it is made of may be old */
    if (rc != CHT_OK)
        return rc;
    rc = cht_store_commit(s, &c);
    if (rc == CHT_BATCH_FAILED) {
        rc = c.failed == n ? c.err.code : ops[c.failed].rc;
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
