/* trie: the ordered map name -> key of one shard, in its `pairs` page file (src/store/README.md, "What is on disk"; trie_format.h).
 *
 * Names are 1..4096 arbitrary bytes, keys 1..2^48-1. Locking: get/count/iterate need the shard lock shared,
 * set/del exclusive. Every change is all or nothing: what can fail is reserved before the structure changes
 * (or nothing has been changed when a code comes back).
 */
#pragma once

#include "cheetah/store.h"
#include "store/arena.h"

/* The maps of a page file, by the place of their root ref in page 0. Functions without `map` are about the pairs. */
enum cht_trie_map {
    CHT_TRIE_PAIRS = 120,
    CHT_TRIE_EXPIRY = 124,
    CHT_TRIE_DUE = 128,
    CHT_TRIE_MAPS_END = 132
};

/* All state is in the page file (root ref in page 0 at CHT_ARENA_USER; the root node counts the pairs). */
enum cht_rc cht_trie_format(struct cht_pagefile *pf, struct cht_err *err); /* a new, empty file */
enum cht_rc cht_trie_make(struct cht_pagefile *pf, enum cht_trie_map map,
                          struct cht_err *err); /* a map that is not there yet */
bool cht_trie_has(struct cht_pagefile *pf, enum cht_trie_map map);
uint64_t cht_trie_pairs(struct cht_pagefile *pf); /* all pairs of the shard; 0 if the root is damaged */

/* CHT_PAIR_NOT_FOUND, CHT_CORRUPT. */
enum cht_rc cht_trie_get(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t *key,
                         struct cht_err *err);
/* Maps; *old is the former key, 0 if the name is new. NO_MEMORY, DISK_FULL, IO, CORRUPT: nothing changed. */
enum cht_rc cht_trie_set(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t key,
                         uint64_t *old, struct cht_err *err);
/* The same for a name that is not mapped; if it is, *old is its key and nothing changes. */
enum cht_rc cht_trie_add(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t key,
                         uint64_t *old, struct cht_err *err);
/* CHT_PAIR_NOT_FOUND. */
enum cht_rc cht_trie_del(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t *old,
                         struct cht_err *err);
/* Pairs under a prefix (empty: all), from the counts in the inner nodes. */
enum cht_rc cht_trie_count(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count,
                           struct cht_err *err);
/* Unmaps everything under a prefix, giving whole subtrees back. A failure half way leaves a valid trie with some of them
 * gone: callers run it inside an undo. */
enum cht_rc cht_trie_del_prefix(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count,
                                struct cht_err *err);

/* The same for one of the maps, which must be there. */
enum cht_rc cht_trie_get_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name,
                            uint64_t *key, struct cht_err *err);
enum cht_rc cht_trie_set_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name, uint64_t key,
                            uint64_t *old, struct cht_err *err);
enum cht_rc cht_trie_del_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name,
                            uint64_t *old, struct cht_err *err);
enum cht_rc cht_trie_count_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str prefix,
                              uint64_t *count, struct cht_err *err);
enum cht_rc cht_trie_del_prefix_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str prefix,
                                   uint64_t *count, struct cht_err *err);

/* Ordered iteration inside one locked section. seek places the iterator on the first entry under `prefix` that lies
 * after `after` (exclusive; n == 0: from the start) in the given direction; next yields entries until CHT_PAIR_NOT_FOUND.
 * name points into the iterator and is valid until the next call. No change to the trie between seek and the last
 * next. About 40 KiB: allocate it. */
struct cht_trie_iter;
enum cht_rc cht_trie_iter_new(struct cht_trie_iter **out, struct cht_err *err);
void cht_trie_iter_free(struct cht_trie_iter *it);
void cht_trie_iter_use(struct cht_trie_iter *it,
                       enum cht_trie_map map); /* before seek; unless called: the pairs */
enum cht_rc cht_trie_iter_seek(struct cht_trie_iter *it, struct cht_pagefile *pf, const uint8_t *prefix,
                               size_t prefix_len, const uint8_t *after, size_t after_len, bool reverse,
                               struct cht_err *err);
enum cht_rc cht_trie_iter_next(struct cht_trie_iter *it, const uint8_t **name, size_t *len, uint64_t *key,
                               struct cht_err *err);

/* Many at once, for scans: fills up to max items and packs their names into `names` (at `off`) while at least 4096 bytes
 * of room are left there. CHT_OK while there may be more, CHT_PAIR_NOT_FOUND at the end, CHT_CORRUPT at damage: the
 * *count items before it are good in any case. May be called again within the same locked section, and mixed with next:
 * it goes on after the last entry. Bytes after the last name may be written. */
struct cht_trie_item {
    uint32_t off, len;
    uint64_t key;
};
enum cht_rc cht_trie_iter_batch(struct cht_trie_iter *it, struct cht_trie_item *items, size_t max,
                                uint8_t *names, size_t names_cap, size_t *count, size_t *names_used,
                                struct cht_err *err);
/* The same without names (off and len are 0), ascending only: up to max, until the end. The name of the last entry goes to `last`
 * (room for the longest name), from where a later seek goes on; if there was none, last and *last_len stay. */
enum cht_rc cht_trie_iter_keys(struct cht_trie_iter *it, struct cht_trie_item *items, size_t max,
                               size_t *count, uint8_t *last, size_t *last_len, struct cht_err *err);

/* Shape, for `stat` and the benchmarks. */
struct cht_trie_shape {
    uint64_t leaves, leaf_bytes_used, inner4, inner16, inner48, inner256;
    unsigned depth_max;
};
enum cht_rc cht_trie_shape(struct cht_pagefile *pf, struct cht_trie_shape *out, struct cht_err *err);

/* Full structural verification: every node, range, order, count, free list, and that each page belongs to exactly one
 * owner. `bad` is called for each finding with the offset in the file; `pair` for every pair in order. */
enum cht_rc cht_trie_check(struct cht_pagefile *pf, void (*bad)(void *ctx, uint64_t off, const char *what),
                           void (*pair)(void *ctx, const uint8_t *name, size_t len, uint64_t key), void *ctx,
                           struct cht_err *err);
