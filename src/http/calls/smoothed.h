/* smoothed: the answers of a smoothed model as text, for single questions and those of a stream. */
#pragma once

#include "lm/predict.h"
#include "service/out.h"

/* The callback of lm_predict, and its context. With levels each prediction is a line with its end, else there is one, without. */
struct http_spell;
struct http_smoothed_writer {
    struct svc_out *out;
    enum lm_predict_mode mode;
    struct http_spell *spell; /* NULL: tokens are numbers */
    size_t start;             /* bytes of `out` before the answer */
    uint64_t shown;           /* predictions so far */
    unsigned answered;        /* the first order of them that has candidates; 0: none */
};
void http_smoothed_prediction(void *ctx, const struct lm_prediction *p);
void http_smoothed_again(void *ctx); /* lm_predict_query.again */

/* The mode of a score as /score says it (question.h: a mode of /predict, or HTTP_QUESTION_LIVE); false: it is none. */
bool http_smoothed_score_mode(unsigned mode, bool said, enum lm_score_mode *out);
/* The answer of one text, without an end of line; nothing if it fails. */
enum cht_rc http_smoothed_score(struct lm_scorer *sc, const struct lm_score_query *q, struct svc_out *o,
                                struct lm_score *sum, struct cht_err *err);
/* ,"perplexity":..,"perplexity_with_oov":.. : of blended scores only. */
void http_smoothed_perplexities(struct svc_out *o, const struct lm_score *sum);
