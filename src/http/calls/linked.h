/* linked: predictions whose distributions are mixed with those of related contexts ("links" of /predict), as text. */
#pragma once

#include <jansson.h>

#include "http/calls/question.h"
#include "http/calls/spell.h"
#include "lm/linked.h"
#include "service/memory.h"

/* "links", "metric" and "seldom" of a question, into those members of it; false: they are wrong. */
bool http_linked_members(const json_t *o, struct http_question *q);

struct http_linked_asker {
    struct cht_store *store;
    struct lm_kn_reader *live; /* NULL: the smoothed model answers */
    struct svc_out *out;
    struct http_spell *spell; /* NULL: tokens are numbers */
    struct svc_memory_use memory;
    uint64_t shown;    /* gets the lines of the answer */
    unsigned answered; /* gets the first order of them that has candidates; 0: none */
    size_t start;      /* its own, as the next */
    bool levels;
};
/* The lines of the answer, with their ends; what is in `out` after a failure is void. As lm_linked. */
enum cht_rc http_linked_predict(struct http_linked_asker *a, const struct http_question *q,
                                struct cht_err *err);
