/* change: operations of a batch that depend on what is there when their turn has come: `add` and `counts_add`. Both are upserts whose
 * value is decided by the committer (struct cht_ask).
 */
#pragma once

#include "cheetah/store.h"
#include "service/memory.h"

#include <jansson.h>

struct http_change {
    struct cht_ask ask;       /* first */
    struct http_change *next; /* the owner's list */
    int64_t by, sum;          /* of add: what is added; what came out */
    bool is_add;
    unsigned order;          /* of counts_add, as are the next two */
    struct lm_delta *deltas; /* owned, n of them: ascending, each token once */
    uint32_t n;
    struct svc_memory_use *memory; /* borrowed: where what is decided is booked; set by the caller */
    struct cht_buf value;          /* owned: what was decided */
};

/* What these members say: "by"; "order" and "followers". NULL: *why is the reason, or NULL without memory. The caller frees it. */
struct http_change *http_change_add(const json_t *o, const char **why);
struct http_change *http_change_counts(const json_t *o, const char **why);
void http_change_free(struct http_change *c); /* NULL is legal */
