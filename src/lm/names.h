/* names: the namespaces of a model, written down once. The order n is a digit, 1 to LM_ORDER_MAX.
 *
 *   cnt:<n>:<context>    counts of what follows it          ctx:<context>   the context's tokens
 *   prob:<n>:<context>   probabilities, back-off weight     ctxv:<vector>   the same, found by its vector
 *   topk:<n>:<context>   the best followers                 cont:<token>    how many words come before it
 * Those of words are in words.h, those of a live model in kn_format.h.
 */
#pragma once

/* With an order: see lm_prefix. */
#define LM_CNT "cnt"
#define LM_PROB "prob"
#define LM_TOPK "topk"
/* Whole prefixes. */
#define LM_CNT_ALL "cnt:"
#define LM_CONT "cont:"
#define LM_CTX "ctx:"
#define LM_CTXV "ctxv:"
/* Bytes of a prefix. */
#define LM_LENGTH(prefix) (sizeof(prefix) - 1)
