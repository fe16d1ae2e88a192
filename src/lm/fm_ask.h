/* fm_ask: questions to a fixed model, as kn_ask.h has them; lm_kn_score and lm_kn_predict hand them on. */
#pragma once

#include "lm/kn_ask.h"

enum cht_rc lm_fm_score(struct lm_kn_reader *r, const struct lm_kn_text_query *q,
                        void (*fn)(void *ctx, const struct lm_kn_scored *t), void *ctx,
                        struct lm_kn_score *out, struct cht_err *err);
enum cht_rc lm_fm_predict(struct lm_kn_reader *r, const struct lm_kn_text_query *t, uint32_t k,
                          struct lm_kn_prediction *out, bool *later, struct cht_err *err);
