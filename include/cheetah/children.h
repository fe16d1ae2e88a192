/* children: the names under a prefix, one level at a time, with how many pairs lie below each.
 *
 * The children of a prefix P, in byte order; each name under P belongs to exactly one:
 *   with a separator   a name in which the separator follows somewhere after P belongs to the group that ends with the first one;
 *                      any other name is a child of its own
 *   without            a name belongs to the group of P and its next byte; P itself is a child of its own, and so is a name
 *                      that is alone in its group
 * The time is that of a few point reads for each child, however many pairs lie below it.
 */
#pragma once

#include "cheetah/store.h"

#include <stdatomic.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct cht_child {
    struct cht_str name; /* of the pair, or the group's prefix; borrowed until `each` returns */
    uint64_t pairs;      /* of a group: how many lie below it now; 1 of a pair */
    uint64_t key;        /* of a pair; 0: a group */
};

struct cht_children_config {
    struct cht_str prefix;      /* may be empty */
    struct cht_str separator;   /* empty: by the next byte */
    struct cht_str after;       /* go on after the child that this name belongs to; empty: from the start */
    const _Atomic bool *cancel; /* may be NULL */
    /* For each child; false: enough. Called without a lock. */
    bool (*each)(void *ctx, const struct cht_child *c);
    void *ctx;
};

/* Shows the children in order until the last, or until `each` has enough. Not a snapshot: a child that was there all the time is shown,
 * one that comes or goes meanwhile may be. Blocks: takes one shard's lock at a time, for one name. CHT_INVALID_PAIR (a name that is too
 * long), CHT_CANCELLED, CHT_CORRUPT, CHT_READ_ONLY, CHT_NO_MEMORY. Any thread. */
enum cht_rc cht_store_children(struct cht_store *s, const struct cht_children_config *cfg,
                               struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
