/* change: the operations of a batch that depend on what is there, `add` and `counts_add` (lm/change.h), out of JSON.
 */
#pragma once

#include "lm/change.h"
#include "service/memory.h"

#include <jansson.h>

struct http_change {
    struct lm_change change;       /* first */
    struct http_change *next;      /* the owner's list */
    struct svc_memory_use *memory; /* borrowed: where what is decided is booked; set by the caller */
    uint64_t booked;               /* so far: a store may ask again */
};

/* What these members say: "by"; "order" and "followers". NULL: *why is the reason, or NULL without memory. The caller frees it. */
struct http_change *http_change_add(const json_t *o, const char **why);
struct http_change *http_change_counts(const json_t *o, const char **why);
void http_change_free(struct http_change *c); /* NULL is legal */
