/* kn_setup: gives a database a live model. Threads: any. */
#pragma once

#include "lm/engine.h"
#include "lm/kn_format.h"

struct lm_kn_parameters {
    unsigned order; /* 1 to LM_ORDER_MAX */
    unsigned flags; /* LM_KN_EOS, LM_KN_KEEP_... */
    uint32_t bos, eos;
};

/* CHT_INVALID_ARGUMENT: parameters that cannot be. */
enum cht_rc lm_kn_check(const struct lm_kn_parameters *p, struct cht_err *err);
/* Makes the model, or changes one that has counted nothing; the same again is no change. Waits for counting under way.
 * CHT_INVALID_ARGUMENT: parameters that cannot be. CHT_MODEL_FIXED: something is counted already, with other parameters or with
 * none. */
enum cht_rc lm_kn_setup(struct lm_engine *e, struct cht_store *s, const struct lm_kn_parameters *p,
                        struct cht_err *err);
