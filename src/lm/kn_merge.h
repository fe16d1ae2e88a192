/* kn_merge: another live model's counts as the changes of a commit (kn_count.h). What was counted from documents are the n-grams of the
 * highest order and those that begin with bos; all else follows from these, here as there. */
#pragma once

#include "lm/kn_count.h"

/* Between lm_kn_count_begin and _done, in place of lm_kn_count_make: adds what `from` has counted, whose head is h and whose parameters are
 * the same. Nobody may count there meanwhile. CHT_NUMBER_OVERFLOW: a count is too large to be handed on; CHT_MALFORMED_PAYLOAD, and as
 * lm_kn_count_make. */
enum cht_rc lm_kn_merge_make(struct lm_kn_count *c, struct cht_store *from, const struct lm_kn_head *h,
                             struct cht_err *err);
