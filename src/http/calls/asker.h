/* asker: answers questions, /predict or /score, one document of JSON after the other, from a live model or from what was smoothed. What is read
 * for one is kept for the next. On a job's thread: it waits for reads.
 */
#pragma once

#include "http/calls/lookups.h"
#include "http/calls/question.h"
#include "http/calls/spell.h"
#include "lm/kn_ask.h"
#include "lm/predict.h"
#include "service/memory.h"

#define HTTP_QUESTION_TOKENS 100000u /* of a question, at most */

struct lm_engine;
/* Zero-initialise all but the first part. */
struct http_asker {
    struct lm_engine *lm; /* the caller's, as the next */
    struct cht_store *store;
    struct http_lookups *lookups;     /* where predictions are counted; likewise */
    struct svc_memory_budget *budget; /* likewise */
    bool predict;                     /* else /score */
    bool words; /* text=true: {"text":...} in place of {"tokens":[...]}, and words in the answers */
    /* the answers so far */
    struct svc_out text;    /* owned; each is a line with its end, one of `levels` several */
    struct lm_kn_score sum; /* of scores */
    bool any_deepest;       /* some of them have no perplexity, so all together have none */
    /* its own */
    uint32_t *tokens; /* owned, grown as needed */
    size_t cap;
    bool fixed;                  /* there is no live model */
    struct lm_kn_reader *reader; /* owned; NULL until one is asked */
    struct lm_scorer *scorer;    /* owned; likewise */
    struct http_spell spell;
    bool ends_read; /* bos and eos are known */
};

/* Answers one question; a failure leaves no text. *lines: how many the answer has. */
enum cht_rc http_asker_ask(struct http_asker *a, const char *p, size_t n, uint64_t *lines,
                           struct cht_err *err);
/* The same for several at once, if all of them are plain questions of how likely a text is, to a live model: false, and no text, if they are
 * not, or cannot be answered so. n is at most HTTP_ASKED_TOGETHER. */
#define HTTP_ASKED_TOGETHER 64u
bool http_asker_score(struct http_asker *a, const struct cht_str *line, size_t n);
void http_asker_fini(struct http_asker *a);
