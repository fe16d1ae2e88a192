/* smooth_int: what the files of smoothing share: smooth.c (the run), smooth_count.c (P1), smooth_order.c (one context),
 * smooth_stale.c (what is left over from an earlier run), smooth_before.c (what questions read meanwhile). */
#pragma once

#include "lm/parents.h"
#include "lm/quant.h"
#include "lm/smooth.h"
#include "lm/vocab.h"
#include "lm/walk.h"
#include "lm/writer.h"

struct lm_smooth {
    struct cht_store *store;
    const struct lm_smooth_config *cfg;
    unsigned topk, threads;
    size_t memory;
    struct lm_vocab vocab;      /* written between the walks only */
    _Atomic uint64_t malformed; /* counts and contexts that could not be read */
    double sum;                 /* S of the continuations */
    uint64_t continuing;        /* tokens with one */
    double dequant[256];
    struct lm_count_counts counts[LM_ORDER_MAX + 1];
    bool keeping; /* there was a model: entries are kept before they are changed */
    struct cht_buf
        root; /* owned: `prob:1:` of the root, which is put last: what the run has computed, or left alone */
    /* of the order under way: */
    unsigned order;
    double d[4];
    struct lm_parents *below,
        *here; /* owned: the order below, and this one as it is made (NULL: not needed) */
};

/* A context whose visit is near: its parent was looked up. */
struct lm_smooth_near {
    uint8_t suffix[LM_HASH_SIZE], parent[LM_HASH_SIZE];
    bool has_parent;
};
#define LM_SMOOTH_NEAR 16u /* more than LM_WALK_AHEAD, a power of two */

/* What changes entries that questions read (view.h). Zero-initialise with `writer`. */
struct lm_keeper {
    struct lm_writer *writer; /* borrowed */
    struct cht_buf value;     /* owned: an old one */
};
void lm_keeper_free(struct lm_keeper *k);

/* One thread's. */
struct lm_smooth_worker {
    struct lm_smooth *run; /* read-only during a walk */
    struct lm_writer writer;
    struct lm_keeper keeper;
    uint64_t written;                           /* contexts */
    struct cht_buf context, parent, made;       /* made: a payload */
    struct lm_smooth_near near[LM_SMOOTH_NEAR]; /* a ring: near_from .. near_to - 1 */
    unsigned near_from, near_to;
    uint32_t *tokens; /* owned: of the context under way, with q as computed */
    uint8_t *q;
    size_t cap;
};

enum cht_rc lm_smooth_count(struct lm_smooth *s, struct lm_progress progress, struct cht_err *err); /* P1 */
/* lm_walk_visit of P3; worker is a struct lm_smooth_worker. */
enum cht_rc lm_smooth_context(void *worker, struct cht_str suffix, const struct lm_counts *counts,
                              uint64_t total, struct cht_err *err);
enum cht_rc lm_smooth_ahead(void *worker, struct cht_str suffix,
                            struct cht_err *err); /* lm_walk_ahead of P3 */
/* Order 0: contexts(t) / S, 1e-9 for a token without. */
double lm_smooth_lower0(const struct lm_smooth *s, uint32_t token);

/* Before the first write: the model that answers until the end is kept, one that an earlier run has cut is put back. */
enum cht_rc lm_smooth_begin(struct lm_smooth *s, struct cht_err *err);
/* Puts an entry. Its old value is kept in the same commit, and nothing is written if that is the same. */
enum cht_rc lm_smooth_put(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name, struct cht_str value,
                          struct cht_err *err);
/* Keeps the old value of an entry that will be removed. */
enum cht_rc lm_smooth_keep(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name,
                           struct cht_err *err);
/* Removes an entry; what was not kept stays. */
enum cht_rc lm_smooth_remove(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name,
                             struct cht_err *err);
/* The new model answers; what was kept is deleted. */
enum cht_rc lm_smooth_switch(struct lm_smooth *s, struct cht_err *err);

/* Removes what is stale under prob:<n>: and topk:<n>: if there is more than `written` contexts, and under cont:. */
enum cht_rc lm_smooth_stale_order(struct lm_smooth *s, unsigned order, uint64_t written, struct cht_err *err);
enum cht_rc lm_smooth_stale_cont(struct lm_smooth *s, struct cht_err *err);
static inline bool lm_smooth_cancelled(const struct lm_smooth *s)
{
    return s->cfg->cancel != NULL && atomic_load_explicit(s->cfg->cancel, memory_order_relaxed);
}
