/* sheet: see sheet.h. */
#include "lm/sheet.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/avo.h"
#include "lm/names.h"
#include "os/io.h"
#include "reduce/payload.h"

#define ROOM (LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES)
_Static_assert(ROOM >= LM_PREFIX_MAX + LM_HASH_SIZE + REDUCE_PAYLOAD_HEAD_MAX + REDUCE_PAYLOAD_COUNTS_RECORD,
               "counts of one follower");
_Static_assert(ROOM >= LM_LENGTH(LM_CTX) + LM_HASH_SIZE + LM_CONTEXT_BYTES(LM_ORDER_MAX), "the longest");

static bool make_counts(const struct lm_sheet *t, const struct lm_entry *e, uint8_t *room, struct cht_op *op)
{
    if (e->form == LM_ENTRY_BARE)
        return false;
    size_t n = lm_prefix(LM_CNT, t->order, room) + LM_HASH_SIZE;
    memcpy(room + n - LM_HASH_SIZE, lm_entry_hash(e), LM_HASH_SIZE);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {room, n}};
    if (e->form == LM_ENTRY_ALONE) {
        const struct lm_follower f = {t->tokens[e->first + (size_t)t->order - 1], e->n};
        op->value = (struct cht_str){room + n, lm_counts_write(room + n, t->order, &f, 1)};
    } else {
        op->value = (struct cht_str){e->more + LM_HASH_SIZE, e->n};
    }
    return true;
}

static bool make_context(const struct lm_sheet *t, const struct lm_entry *e, uint8_t *room, struct cht_op *op)
{
    size_t name = LM_LENGTH(LM_CTX) + LM_HASH_SIZE, tokens = t->order - 1;
    if (!e->created)
        return false;
    memcpy(CHT_PUT(room, LM_CTX), lm_entry_hash(e), LM_HASH_SIZE);
    lm_context_write(room + name, t->tokens + e->first, tokens);
    *op = (struct cht_op){
        .kind = CHT_OP_PAIR_PUT, .name = {room, name}, .value = {room + name, LM_CONTEXT_BYTES(tokens)}};
    return true;
}

/* lm_load_fn */
static bool make(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct lm_sheet *t = ctx;
    if (i < t->n)
        return make_counts(t, &t->entry[i], room, op);
    return make_context(t, &t->entry[i - t->n], room, op);
}

/* lm_load_fn */
static bool make_vector(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct lm_sheet *t = ctx;
    size_t at = t->vector[i];
    size_t n =
        lm_avo_context(t->tokens + t->entry[at].first, t->order - 1, (uint8_t *)CHT_PUT(room, LM_CTXV));
    *op = (struct cht_op){.kind = CHT_OP_PAIR_LINK,
                          .name = {room, LM_LENGTH(LM_CTXV) + n},
                          .back = (uint32_t)(t->vectors_at + i - (t->at + t->n + at))};
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_sheet_begin(struct lm_sheet *t, size_t n, unsigned order, const uint32_t *tokens,
                           struct cht_err *err)
{
    *t = (struct lm_sheet){.order = order, .tokens = tokens};
    t->entry = cht_malloc((n + 1) * sizeof *t->entry);
    if (t->entry == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu contexts", n);
    cht_os_huge_pages(t->entry, (n + 1) * sizeof *t->entry);
    t->n = n;
    return CHT_OK;
}

void lm_sheet_load(struct lm_sheet *t, struct lm_load *l, uint64_t bytes)
{
    t->at = l->n;
    lm_load_add(l, 2 * t->n, bytes, ROOM, make, t);
}

void lm_sheet_load_vectors(struct lm_sheet *t, struct lm_load *l)
{
    t->vectors_at = l->n;
    lm_load_links(l, t->nvectors, make_vector, t);
}

void lm_sheet_free(struct lm_sheet *t)
{
    cht_free(t->entry);
    cht_free(t->vector);
    *t = (struct lm_sheet){0};
}
