/* live: questions to a live model, and its parameters. */
#pragma once

#include "http/request.h"

#include <jansson.h>

#include "lm/kn_setup.h"

/* What is asked, by /predict or /score. */
struct http_spell;
struct http_live_question {
    const uint32_t *tokens; /* borrowed */
    size_t n;
    uint32_t k, max_order; /* max_order 0: the model's */
    bool bos, levels;
    struct http_spell *spell; /* NULL: tokens are numbers */
    unsigned *answered;       /* gets the order that answered a prediction, unless NULL */
};

/* Answers of one question, for single ones and those of a stream: one line without its end, or with levels several lines with theirs. CHT_PAIR_NOT_FOUND: the database has no live model. */
struct lm_kn_reader;
enum cht_rc http_live_predict(struct lm_kn_reader *k, const struct http_live_question *q, struct svc_out *o,
                              uint64_t *lines, bool *later, struct cht_err *err);
struct lm_kn_score;
enum cht_rc http_live_score(struct lm_kn_reader *k, const struct http_live_question *q, struct svc_out *o,
                            struct lm_kn_score *sum, struct cht_err *err);
/* n texts together, which is faster. lines: each answer with the end of its line. k->mixed: they are of two moments, and do not say so. */
struct lm_kn_text_query;
enum cht_rc http_live_score_all(struct lm_kn_reader *k, const struct lm_kn_text_query *q, size_t n,
                                bool lines, struct svc_out *o, struct lm_kn_score *sum, struct cht_err *err);
/* "perplexity":..,"perplexity_with_oov":.. */
void http_live_perplexities(struct svc_out *o, const struct lm_kn_score *s);

/* The "live" and "keep" of PUT /databases/{name}; false after answering. *has: it says some. */
bool http_live_parameters(struct http_request *r, const json_t *o, struct lm_kn_parameters *p, bool *has);
/* ,"live":{...} of GET /databases/{name}, or ,"fixed":{...}; nothing if there is no such model. */
enum cht_rc http_live_describe(struct cht_store *s, struct svc_out *o, struct cht_err *err);
