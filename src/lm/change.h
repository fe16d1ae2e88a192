/* change: operations that depend on what is there when their turn has come: adding to a number, adding to counts. Both are upserts
 * (CHT_OP_PAIR_PUT) whose value is decided by the committer (struct cht_ask).
 *
 *     struct lm_change c = {0};
 *     lm_change_add(&c, 5);
 *     op.ask = &c.ask;        commit; then c.sum is what came out
 *     lm_change_fini(&c);
 */
#pragma once

#include "lm/counts.h"

struct lm_change {
    struct cht_ask ask; /* first */
    int64_t by, sum;    /* of adding: what is added; what came out */
    bool is_add;
    unsigned order;          /* of counts, as are the next two */
    struct lm_delta *deltas; /* owned, n of them: ascending, each token once */
    uint32_t n;
    /* Asked before memory is taken for counts: a failure is that of the operation. NULL: nobody counts. */
    enum cht_rc (*book)(struct lm_change *c, uint64_t bytes, struct cht_err *err);
    struct cht_buf value; /* owned: what was decided */
};

/* Adds `by` to a decimal integer in text; what is not there is 0. CHT_NOT_A_NUMBER, CHT_NUMBER_OVERFLOW. Zero-initialise. */
void lm_change_add(struct lm_change *c, int64_t by);
/* Adds n deltas (in any order, a token several times; taken, from cht_malloc) to a counts payload of this order, which is made if it is not
 * there. CHT_NOT_COUNTED, CHT_MALFORMED_PAYLOAD. Zero-initialise. */
void lm_change_counts(struct lm_change *c, unsigned order, struct lm_delta *deltas, uint32_t n);
void lm_change_fini(struct lm_change *c); /* of one that is all zero, too */
