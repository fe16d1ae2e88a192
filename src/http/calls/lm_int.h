/* lm_int: what lm.c, ask.c, ask_many.c and contexts.c share. */
#pragma once

#include "http/request.h"

#include <jansson.h>

/* The integers of a JSON array to out (room for all of them); false if one is no token. */
bool http_tokens(const json_t *list, uint32_t *out);
/* The number `name` of an object, from min to max; fallback if it is missing or null. False: it is none, and that was answered. */
bool http_number_member(struct http_request *r, const json_t *o, const char *name, uint64_t min, uint64_t max,
                        uint64_t fallback, uint64_t *out);
/* "mode" of a question: one of lm/predict.h, or HTTP_QUESTION_LIVE; LM_PREDICT_DEEPEST if v is NULL. False: it is none. */
bool http_question_mode(const json_t *v, unsigned *out);
