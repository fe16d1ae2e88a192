/* load: the operations of one large commit that are no array (struct cht_many), in parts of one kind each.
 *
 * Internal to src/lm. Threads: one at a time per object; `make` is called by several.
 */
#pragma once

#include "cheetah/store.h"

#define LM_LOAD_PARTS 40u

/* Operation i of the part, as cht_many's. */
typedef bool lm_load_fn(const void *ctx, size_t i, uint8_t *room, struct cht_op *op);

struct lm_load_part {
    size_t from, n;
    lm_load_fn *make;
    const void *ctx; /* borrowed */
};

/* Zero-initialise. */
struct lm_load {
    struct lm_load_part part[LM_LOAD_PARTS];
    unsigned parts;
    size_t n, links, room; /* links: the last of n */
    uint64_t bytes;
};

#define LM_LOAD_COST 14u /* bytes an operation that is no link, during the commit */

/* n operations, of at most `bytes` bytes together, and `room` each. A link's `back` does not lead out of the part, unless to one
 * before. LM_LOAD_PARTS are enough for all that this folder does. */
void lm_load_add(struct lm_load *l, size_t n, uint64_t bytes, size_t room, lm_load_fn *make, const void *ctx);
/* Links, which come after all others: n of them, whose bytes and room were told with those that they lead to. */
void lm_load_links(struct lm_load *l, size_t n, lm_load_fn *make, const void *ctx);
/* All of it and then `ops`, as one atomic commit; flags are for ops. As lm_commit, and CHT_NO_MEMORY. */
enum cht_rc lm_load_commit(struct lm_load *l, struct cht_store *s, struct cht_op *ops, size_t n,
                           unsigned flags, struct cht_err *err);
