/* commit: commits on RADOS.
 *
 *   one operation      goes to its shard's lane (lane.h); if it turns out to need several shards it is a transaction (txn.h)
 *   CHT_COMMIT_ATOMIC  one transaction
 *   in order           CHT_COMMIT_CHUNK operations a transaction, an operation's failure is its own. PREFIX_DEL goes page by page, each of
 *                      them a transaction
 *   UNORDERED          shard by shard through the lanes, all shards at once
 *
 * Each operation is atomic but for PREFIX_DEL. After a crash of the process some operations of a commit that is not atomic may be done and
 * others not.
 *
 * A commit that ends with CHT_TIMEOUT may have been done, in part if it is not atomic.
 */
#pragma once

#include "store/rados/rdb.h"

#define CHT_COMMIT_CHUNK 4000u
#define CHT_COMMIT_BYTES ((size_t)16 << 20) /* of values, in a chunk */

#define CHT_COMMIT_WAITING_BYTES \
    ((uint64_t)256 << 20) /* of values, in all commits of a database that are under way */

enum cht_rc cht_rcommit_run(struct cht_store *s, struct cht_commit *c);
enum cht_rc cht_rcommit_submit(struct cht_store *s, struct cht_commit *c);
