/* order: values that no checkpoint has brought to the disk yet get the order of their names.
 *
 * A scan of names with values, which goes from one value to the next, finds them side by side then, and not each in a page of its own.
 * Values that were put since the last checkpoint lie in pages that its successor writes in any case. As long as that has not begun, two of
 * them can change places for nothing:
 *
 *   O1 the names are gone through, a bounded number under the shared lock: those whose values are new, up to CHUNK of them
 *   O2 without a lock: of each length, which value belongs into which of the places that these values have together
 *   O3 values change places, two by two, a bounded number under the exclusive lock
 *
 * What may happen between the locks: anything. O3 believes nothing that O1 has seen. Two values change places if the entries of their keys
 * say at that moment that both are there, with that length, if both fit their checksums, and if all the pages concerned (values and
 * entries) are private copies already: so nothing is obtained, nothing can fail, and not one page more is dirty. Keys, checksums, slots,
 * extents and the trie stay as they are. No log record is needed: a redo puts by key, wherever the value lies, and a checkpoint
 * before or after it holds the same values (I4).
 *
 * Not touched: what a checkpoint has written, values of more than CHT_ORDER_LENGTH bytes, and those in other shards than their names.
 * Handles of long values pin only what is longer.
 */
#pragma once

#include "store/shard.h"

#define CHT_ORDER_LENGTH 1024u /* longer values have most of a page for themselves */

/* Is there enough that is new, compared with all that O1 has to go through? Takes the lock, shared. */
bool cht_order_due(struct cht_shard *sh);
/* The caller makes checkpoints, and none of this shard is under way or unfinished. stop is asked before each lock is taken; true: no
 * more. Returns how many values have changed their places. Damage and want of memory end it. */
uint64_t cht_order_values(struct cht_shard *sh, bool (*stop)(void *ctx), void *ctx);
