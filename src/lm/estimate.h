/* estimate: what counting documents will take of memory, from a sample of their n-grams, before anything is counted.
 *
 * Each n-gram gets a hash, made from that of the n-gram without its last token, so a token and order cost a multiplication. Those whose hash
 * has some bits 0 are kept, each once: as many as there are, times one for each bit doubled, is how many different n-grams the text has. With
 * SAMPLE of them at the most the estimate is within some per cent, and 7/8 of it are booked: what fits is not refused, and what is refused
 * is refused after milliseconds. What is booked so is used up by lm_book as the n-grams are counted.
 */
#pragma once

#include "lm/ngrams_int.h"

/* Books for documents that are added: weight[k] bytes for each different n-gram of k tokens that is followed by a token. cut: no n-gram reaches
 * back over this token; LM_ESTIMATE_WHOLE: documents are not cut. Small requests are not looked at. CHT_NO_MEMORY, and what the bound says. */
#define LM_ESTIMATE_WHOLE UINT64_MAX
enum cht_rc lm_estimate(struct lm_ngrams *g, const uint64_t weight[LM_ORDER_MAX + 1], uint64_t cut,
                        struct cht_err *err);
