/* view: see view.h. */
#include "lm/view.h"

#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "lm/names.h"
#include "reduce/payload.h"

/* How often there was a switch, by the store's address. Stores that share a number only ask once more than they need to. */
#define COUNTERS 64u
static _Atomic uint64_t counters[COUNTERS];

static _Atomic uint64_t *counter_of(const struct cht_store *s)
{
    return &counters[((uintptr_t)s >> 6) * UINT64_C(0x9E3779B97F4A7C15) >> 58];
}

/* Has a payload of probabilities of this size more bytes than its records? */
static bool has_more(uint32_t size)
{
    uint32_t rest = size % REDUCE_PAYLOAD_PROBS_RECORD;
    return rest != 4 % REDUCE_PAYLOAD_PROBS_RECORD && rest != 6 % REDUCE_PAYLOAD_PROBS_RECORD; /* the heads */
}

static enum cht_rc read_model(struct lm_view *v, struct cht_wait *w, struct cht_err *err)
{
    struct cht_buf value = {0};
    struct cht_pair_value pv = {.out = &value};
    struct cht_str name = {(const uint8_t *)LM_BEFORE_MODEL, LM_LENGTH(LM_BEFORE_MODEL)};
    enum cht_rc rc = cht_store_pair_value_soon(v->store, name, &pv, w, err);
    if (rc == CHT_OK && pv.size > 0) {
        if (pv.size != LM_BEFORE_MODEL_SIZE || value.data[0] != 1 || value.data[1] > LM_ORDER_MAX) {
            rc = lm_malformed(name, pv.size, "old model", err);
        } else {
            v->old = true;
            v->highest = value.data[1];
            v->vocabulary = cht_be64(value.data + 2);
        }
    }
    cht_buf_free(&value);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc; /* a root that a client wrote longer */
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_view_open(struct lm_view *v, struct cht_store *s, struct cht_wait *w, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_pair_value pv = {.out = NULL};
    *v = (struct lm_view){.store = s, .switches = atomic_load(counter_of(s))};
    enum cht_rc rc = cht_store_pair_value_soon(s, lm_root_name(text), &pv, w, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    v->smoothed = pv.size > 0;
    return has_more(pv.size) && v->smoothed ? read_model(v, w, err) : CHT_OK;
}

bool lm_view_holds(const struct lm_view *v) { return atomic_load(counter_of(v->store)) == v->switches; }

enum cht_rc lm_view_read(const struct lm_view *v, struct cht_str name, struct cht_pair_value *pv,
                         struct cht_wait *w, struct cht_err *err)
{
    enum cht_rc rc = cht_store_pair_value_soon(v->store, name, pv, w, err);
    if (!v->old || rc == CHT_PENDING)
        return rc;
    uint8_t text[LM_BEFORE_NAME_MAX];
    struct cht_pair_value kept = {.out = NULL};
    struct cht_str before = lm_before_name(name, text);
    enum cht_rc again = cht_store_pair_value_soon(v->store, before, &kept, w, err);
    if (again == CHT_PAIR_NOT_FOUND || (again == CHT_OK && kept.size == 0))
        return rc; /* as it was */
    if (again == CHT_OK && kept.size == LM_BEFORE_NONE)
        return CHT_PAIR_NOT_FOUND;
    kept.out = pv->out;
    if (again == CHT_OK && kept.out != NULL)
        again = cht_store_pair_value_soon(v->store, before, &kept, w, err);
    *pv = kept;
    return again;
}

enum cht_rc lm_view_highest(const struct lm_view *v, unsigned *order, struct cht_wait *w, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX];
    *order = v->old ? v->highest : 0;
    if (v->old)
        return CHT_OK;
    for (unsigned n = LM_ORDER_MAX; *order == 0 && n >= 1; n--) {
        uint64_t probs = 0, topk = 0;
        struct cht_str prefix = {text, lm_prefix(LM_PROB, n, text)};
        enum cht_rc rc = cht_store_count_soon(v->store, prefix, &probs, w, err);
        prefix.n = lm_prefix(LM_TOPK, n, text);
        if (rc == CHT_OK)
            rc = cht_store_count_soon(v->store, prefix, &topk, w, err);
        if (rc != CHT_OK)
            return rc;
        if (probs > 0 || topk > 0)
            *order = n;
    }
    return CHT_OK;
}

enum cht_rc lm_view_vocabulary(const struct lm_view *v, uint64_t *n, struct cht_err *err)
{
    *n = v->vocabulary;
    struct cht_str cont = {(const uint8_t *)LM_CONT, LM_LENGTH(LM_CONT)};
    return v->old ? CHT_OK : cht_store_count(v->store, cont, n, err);
}

void lm_view_switched(const struct cht_store *s) { (void)atomic_fetch_add(counter_of(s), 1); }

struct cht_str lm_before_name(struct cht_str name, uint8_t *text)
{
    memcpy(text, LM_BEFORE, LM_LENGTH(LM_BEFORE));
    memcpy(text + LM_LENGTH(LM_BEFORE), name.p, name.n);
    return (struct cht_str){text, LM_LENGTH(LM_BEFORE) + name.n};
}

struct cht_str lm_root_name(uint8_t *text)
{
    size_t n = lm_prefix(LM_PROB, 1, text);
    memcpy(text + n, LM_ROOT, LM_HASH_SIZE);
    return (struct cht_str){text, n + LM_HASH_SIZE};
}
