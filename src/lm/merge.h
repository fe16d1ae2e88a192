/* merge: adds what another database has counted: `cnt:`, what is registered under `ctx:`, and the live model. Corpora can so be counted apart
 * and joined later. What was smoothed is not joined: smooth again.
 *
 * One atomic commit, under the counting gates of both databases. Memory is told to `book` before it is used: LM_MERGE_CONTEXT_COST for each
 * context of each namespace, LM_MERGE_GRAM_COST for each n-gram, and as kn_count.h says.
 */
#pragma once

#include "lm/ngrams.h"

#define LM_MERGE_CONTEXT_COST 1000u
#define LM_MERGE_GRAM_COST 64u

struct lm_merge_result {
    uint64_t contexts;         /* of which counts were added */
    uint64_t contexts_created; /* registered under `ctx:`; records of the live model where that is not kept */
    uint64_t documents, tokens,
        generation; /* of the live model, if there is one: what was added; its generation */
    bool live;
};
/* request: whose memory is booked (lm_ngrams_bound); it has no documents. CHT_INVALID_ARGUMENT: both are one; CHT_MODELS_DIFFER: not both have a
 * live model, or with other parameters; CHT_FIXED_MODEL; CHT_MALFORMED_PAYLOAD; CHT_NO_MEMORY, what the request's bound says, and what a
 * commit returns: then nothing was added. */
enum cht_rc lm_merge(struct lm_engine *e, struct cht_store *to, struct cht_store *from,
                     struct lm_ngrams *request, struct lm_merge_result *out, struct cht_err *err);
