/* lm_int: what lm.c and ask.c share. */
#pragma once

#include "http/request.h"

#include <jansson.h>

/* The integers of a JSON array to out (room for all of them); false if one is no token. */
bool http_tokens(const json_t *list, uint32_t *out);
