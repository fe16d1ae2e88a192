/* rcache: rows of names as a lane saw or made them last, so that an upsert of a known name needs no look first. What is in it may be old: it is
 * a guess, which the write that follows from it compares (rowset.h).
 *
 * Threads: one at a time; the lane's is used by whoever has its turn.
 */
#pragma once

#include "store/rados/rows.h"

#define CHT_RCACHE_SLOTS \
    4096u /* of a shard, up to 16 shards; with more of them fewer: 40 MB a database at most */
#define CHT_RCACHE_ROW_MAX 600u /* name and value; longer ones are not kept */

struct cht_rcache {
    struct cht_rcache_row **slots; /* owned; made with the first row */
    uint32_t n;                    /* of them */
};
void cht_rcache_fini(struct cht_rcache *c);
/* value.p NULL: it is not known. Valid until the next put. */
struct cht_str cht_rcache_get(const struct cht_rcache *c, uint32_t hash, struct cht_str name);
/* value.p NULL: forgets it. Without memory it is forgotten, too. shards: of the database by now. */
void cht_rcache_put(struct cht_rcache *c, unsigned shards, uint32_t hash, struct cht_str name,
                    struct cht_str value);
