/* kn_setup: see kn_setup.h. */
#include "lm/kn_setup.h"

#include "lm/engine.h"
#include "lm/names.h"
#include "os/io.h"

/* Is something counted under this prefix? */
static enum cht_rc any(struct cht_store *s, const char *prefix, size_t n, bool *out, struct cht_err *err)
{
    uint64_t pairs = 0;
    enum cht_rc rc = cht_store_count(s, (struct cht_str){(const uint8_t *)prefix, n}, &pairs, err);
    *out = *out || pairs > 0;
    return rc;
}

static bool equal(const struct lm_kn_head *h, const struct lm_kn_parameters *p)
{
    return h->order == p->order && h->flags == p->flags && h->bos == p->bos &&
           ((p->flags & LM_KN_EOS) == 0 || h->eos == p->eos);
}

static enum cht_rc write(struct cht_store *s, const struct lm_kn_head *h, struct cht_err *err)
{
    uint8_t bytes[LM_KN_HEAD_MAX];
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = lm_kn_head_name()};
    op.value = (struct cht_str){bytes, lm_kn_head_write(h, bytes)};
    return lm_commit(s, &op, 1, CHT_COMMIT_ATOMIC, err);
}

static enum cht_rc setup(struct cht_store *s, const struct lm_kn_parameters *p, struct cht_err *err)
{
    struct lm_kn_head old, now = {.order = p->order, .flags = p->flags, .bos = p->bos};
    struct cht_buf buf = {0};
    bool counted = false;
    enum cht_rc rc = lm_kn_head_get(s, &old, &buf, NULL, err);
    cht_buf_free(&buf);
    bool there = rc == CHT_OK;
    if (there && equal(&old, p))
        return CHT_OK;
    rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    if (rc == CHT_OK)
        rc = any(s, LM_CNT_ALL, LM_LENGTH(LM_CNT_ALL), &counted, err);
    if (rc == CHT_OK && !there)
        rc = any(s, LM_KN_ALL, LM_LENGTH(LM_KN_ALL), &counted, err);
    if (rc != CHT_OK)
        return rc;
    if (counted || (there && (old.documents > 0 || old.m[1].types > 0)))
        return CHT_FAIL(err, CHT_MODEL_FIXED, "documents are counted in this database already");
    now.eos = (p->flags & LM_KN_EOS) != 0 ? p->eos : 0;
    now.generation = there ? old.generation + 1 : 1;
    cht_os_random(&now.id, sizeof now.id);
    return write(s, &now, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_check(const struct lm_kn_parameters *p, struct cht_err *err)
{
    if (p->order < 1 || p->order > LM_ORDER_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the order of a live model is 1 to %u", LM_ORDER_MAX);
    if ((p->flags & LM_KN_EOS) != 0 && p->eos == p->bos)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "bos and eos are different tokens");
    if ((p->flags & LM_KN_KEEP_CTXV) != 0 && (p->flags & LM_KN_KEEP_CTX) == 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "ctxv is kept with ctx only: they are names of one value");
    return CHT_OK;
}

enum cht_rc lm_kn_setup(struct lm_engine *e, struct cht_store *s, const struct lm_kn_parameters *p,
                        struct cht_err *err)
{
    struct lm_gate *gate;
    enum cht_rc rc = lm_kn_check(p, err);
    if (rc == CHT_OK)
        rc = lm_gate_enter(e, s, LM_GATE_COUNT, NULL, &gate, err);
    if (rc != CHT_OK)
        return rc;
    rc = setup(s, p, err);
    lm_gate_leave(e, gate, LM_GATE_COUNT);
    return rc;
}
