/* expiry: when the pairs of a shard end. Two more maps in the shard's file of pairs, made with the first pair that is to end; from then on
 * the header says version 3, so that older programs, which would keep such pairs for ever, refuse the file.
 *
 *   EXPIRY   name -> time                          what a pair's end is
 *   DUE      time u48, big-endian, and the name -> 1    the same in the order of time
 *
 * and in page 0 at CHT_TRIE_MAPS_END: clock u48, zero u16
 *
 * Times are milliseconds since 1970, below 2^48. Of names longer than CHT_EXPIRY_NAME the entry of DUE has that many bytes, and stands for all
 * of them with this beginning and time.
 *
 * Invariants  E1 an entry of EXPIRY has its entry in DUE, and each of DUE at least one in EXPIRY.  E2 a name in EXPIRY is a pair.
 * Changes are several calls of the trie: within an undo, or redo. Locking: as the trie.
 */
#pragma once

#include "store/trie.h"

#define CHT_EXPIRY_NAME (CHT_NAME_MAX - 6u)
#define CHT_EXPIRY_MAX ((UINT64_C(1) << 48) - 1)

/* Do pairs of the file end, or did any ever? Two loads. */
static inline bool cht_expiry_any(struct cht_pagefile *pairs) { return cht_trie_has(pairs, CHT_TRIE_EXPIRY); }
/* The two maps and the version, if they are not there. All or nothing within an undo. */
enum cht_rc cht_expiry_make(struct cht_pagefile *pairs, struct cht_err *err);
/* A time that the clock of the database has been at (ends.h), 0: none; only the latest is kept. It lies in one shard, that of the empty name. */
uint64_t cht_expiry_clock(struct cht_pagefile *pairs);
enum cht_rc cht_expiry_set_clock(struct cht_pagefile *pairs, uint64_t at, struct cht_err *err);
/* E1 and E2; `bad` is called for each that does not hold. The tries themselves are whole (cht_trie_check). */
enum cht_rc cht_expiry_check(struct cht_pagefile *pairs,
                             void (*bad)(void *ctx, uint64_t off, const char *what), void *ctx,
                             struct cht_err *err);
/* How many pairs end. */
uint64_t cht_expiry_count(struct cht_pagefile *pairs);
/* When the pair of this name ends; 0: never. */
enum cht_rc cht_expiry_get(struct cht_pagefile *pairs, struct cht_str name, uint64_t *at,
                           struct cht_err *err);
/* Ends at `at`; 0: never. The maps are there. */
enum cht_rc cht_expiry_set(struct cht_pagefile *pairs, struct cht_str name, uint64_t at, struct cht_err *err);
/* A time that cht_expiry_first has named, of a pair that does not end then (E1 does not hold), goes. */
enum cht_rc cht_expiry_drop(struct cht_pagefile *pairs, uint64_t at, struct cht_str name,
                            struct cht_err *err);
/* Of all names under a prefix: never. */
enum cht_rc cht_expiry_forget(struct cht_pagefile *pairs, struct cht_str prefix, struct cht_err *err);
/* The earliest end of a pair, 0: there is none; and its name, copied to `name` (room for the longest). */
enum cht_rc cht_expiry_first(struct cht_pagefile *pairs, uint64_t *at, uint8_t *name, size_t *len,
                             struct cht_err *err);
