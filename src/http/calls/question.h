/* question: the common shape of what is asked, read without a tree of JSON values:
 *
 *   {"tokens":[1,2,3],"k":20,"max_order":3,"mode":"deepest","bos":true}
 *
 * in any order and with any white space; only `tokens` must be there. What is written in another way (escapes, null, other
 * members, numbers out of range or not plain, anything that is wrong) is not for it: jansson then reads it and says what is wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_QUESTION_LIVE 3u

struct http_question {
    uint32_t *tokens; /* the caller's: room for `cap` */
    size_t n, cap;
    uint64_t k, max_order; /* 0: not said */
    unsigned mode;         /* of lm/predict.h, or HTTP_QUESTION_LIVE; 0, deepest, if it is not said */
    bool has_k, has_max_order, has_mode, has_tokens, has_bos;
    bool no_bos; /* "bos":false */
    /* Of /predict, and never read here: a question with links is left to jansson. */
    double links;    /* weight of the related contexts, 0: none */
    int metric;      /* of the links, enum reduce_metric; -1: not said */
    uint64_t seldom; /* contexts counted more often keep their own distribution; UINT64_MAX: none does */
};

/* True if all of the document has that shape and is in range; it then means exactly what jansson would read. */
bool http_question_read(const char *p, size_t n, uint64_t k_max, struct http_question *q);
