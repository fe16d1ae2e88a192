/* follow: who follows the changes of a database (cheetah/changes.h), and how they hear of more. cut.h has the generations.
 *
 *   tell.c     reads L rows of all shards at once, in the order of generations, then of shards, then of their names
 *   follow.c   opens and closes; one thread of the environment has jobs look at the databases whose followers wait: every tenth of a second after
 *              there was something new, less often while there is nothing, up to once a second. What they find they close (a cut), so that it can be told;
 *              no more than one fiftieth of the time goes for that, or after a cut that took long they rest for 5 s
 */
#pragma once

#include "store/rados/cut.h"

struct cht_rfollower {
    struct cht_changes base; /* first */
    struct cht_rdb *db;
    uint64_t position; /* all generations up to this one are told */
    /* in the next: the last row that was dealt with, and its shard; generation 0, or no later one than position: none was */
    uint64_t generation;
    unsigned shard;
    struct cht_buf row;    /* owned: with NUL */
    struct cht_wait *wait; /* guarded by cht_follow.mu, as the next two; NULL: not listed */
    struct cht_rfollower *listed, **at;
    bool failed;        /* guarded by mu: it was woken to hear why nothing can be told */
    unsigned row_bytes; /* of tell.c: about how long the rows are that were read last; 0: none were */
    size_t len;
    uint8_t prefix[]; /* len */
};
static inline struct cht_rfollower *cht_rfollower(struct cht_changes *c)
{
    return (struct cht_rfollower *)(void *)c;
}

#define CHT_RTELL_BYTES \
    (1u << 20) /* about: of the pages of all shards together, if one row of each is not more */
/* How many rows of a shard are asked for at once, if rows are about so long (0: it is not known). */
unsigned cht_rtell_rows(unsigned row_bytes, unsigned shards);
/* cht_changes_next. */
enum cht_rc cht_rtell(struct cht_changes *base, bool (*each)(void *ctx, const struct cht_change *change),
                      void *ctx, struct cht_err *err);

/* The calls of the store. */
enum cht_rc cht_rchanges_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                              struct cht_changes **out, struct cht_err *err);
/* Of what is known: no trip. */
enum cht_rc cht_rchanges_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err);

enum cht_rc cht_follow_init(struct cht_follow *f, struct cht_err *err);
/* Nobody follows any more. It need not have been initialised. */
void cht_follow_fini(struct cht_follow *f);
