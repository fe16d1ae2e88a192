/* lm_int: what lm.c and ask.c share. */
#pragma once

#include "http/request.h"

#include <jansson.h>

/* Answers with a failure of src/lm. */
void lm_fail(struct request *r, enum cht_rc rc, struct cht_err *err);
/* The integers of a JSON array to out (room for all of them); false where one is no token. */
bool lm_tokens(const json_t *list, uint32_t *out);
