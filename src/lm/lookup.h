/* lookup: entries of a model by order and context, and choosing the best of many. Internal to src/lm. */
#pragma once

#include "lm/counts.h"
#include "lm/predict.h"
#include "lm/view.h"
#include "reduce/payload.h"

/* Reads `<kind>:<order>:` of the context; head->n is 0 if it is not there. The records lie in buf. kind: "prob", "topk".
 * CHT_MALFORMED_PAYLOAD. */
enum cht_rc lm_lookup(const struct lm_view *v, const char *kind, unsigned order,
                      const uint8_t hash[LM_HASH_SIZE], struct cht_buf *buf, struct reduce_payload *head,
                      struct cht_err *err);
/* Its two halves, for whoever reads in between: the name, in text, and what the read (its rc) has brought. */
struct lm_value {
    const uint8_t *data; /* borrowed */
    uint32_t size;
};
struct cht_str lm_entry_name(const char *kind, unsigned order, const uint8_t hash[LM_HASH_SIZE],
                             uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE]);
enum cht_rc lm_lookup_take(enum cht_rc rc, const char *kind, struct cht_str name, const struct lm_value *v,
                           struct reduce_payload *head, struct cht_err *err);
/* q of the token in a probabilities payload (ascending); -1: not there. */
int lm_lookup_token(const struct reduce_payload *probs, uint32_t token);
/* The weight of the order below, of a context that is there: all of its records have the same. */
double lm_lookup_weight(const struct reduce_payload *probs);
/* *all: the context's probabilities are no more than the n entries of its topk list: reads the size only. CHT_PENDING, else CHT_OK. */
enum cht_rc lm_lookup_all(const struct lm_view *v, unsigned order, const uint8_t hash[LM_HASH_SIZE],
                          uint32_t n, struct cht_wait *w, bool *all);
/* lm_view_open of a model that is asked: CHT_NOT_SMOOTHED if there is none. */
enum cht_rc lm_smoothed(struct lm_view *v, struct cht_store *s, struct cht_wait *w, struct cht_err *err);

/* The k best candidates of any number that are offered: p descending, then token ascending. Zero-initialise with k. */
struct lm_best {
    struct lm_candidate *c; /* owned; a heap, the worst on top; in order after lm_best_sort */
    size_t n, cap, k;
};
static inline bool lm_worse(const struct lm_candidate *a, const struct lm_candidate *b)
{
    return a->p != b->p ? a->p < b->p : a->token > b->token;
}
/* Would an offer of it change anything? */
static inline bool lm_best_wants(const struct lm_best *b, const struct lm_candidate *c)
{
    return b->n < b->k || (b->k > 0 && lm_worse(&b->c[0], c));
}
enum cht_rc lm_best_offer(struct lm_best *b, const struct lm_candidate *c, struct cht_err *err);
void lm_best_sort(struct lm_best *b);
void lm_best_free(struct lm_best *b);
