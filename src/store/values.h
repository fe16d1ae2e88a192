/* values: the values of one shard: `keys` (key -> length, place, CRC), `values` (extents of slots of one byte length)
 * and `recycle` (the catalogue of lengths, free slots, free extents). See src/store/README.md, "What is on disk"; values_format.h.
 *
 * A shard s of n holds the keys k with k % n == s; local = k / n. Locking: as pagefile; the allocation calls
 * (put, del, reserve_large ...) need the shard lock exclusive.
 */
#pragma once

#include "store/pagefile.h"

#define CHT_LARGE_VALUE (256u << 10) /* from this size on values are written straight to their file */

struct cht_values {
    struct cht_pagefile *keys, *values, *recycle;
    uint32_t shard, shards;
};

/* k % n and k / n; without dividing, which takes ten to forty cycles, if n is a power of two: it is, unless somebody has chosen
 * otherwise. */
static inline uint32_t cht_key_shard(uint64_t key, uint32_t shards)
{
    if (__builtin_expect((shards & (shards - 1)) == 0, 1))
        return (uint32_t)key & (shards - 1);
    return (uint32_t)(key % shards);
}
static inline uint64_t cht_key_local(uint64_t key, uint32_t shards)
{
    if (__builtin_expect((shards & (shards - 1)) == 0, 1))
        return key >> (__builtin_ctz(shards) & 31);
    return key / shards;
}

enum cht_rc cht_values_format(struct cht_values *v, struct cht_err *err); /* new, empty files */

/* Where a live value is. */
struct cht_value_ref {
    uint64_t off;
    uint32_t len;
    uint32_t crc;
};
/* CHT_KEY_NOT_FOUND (never given out or deleted), CHT_CORRUPT. Does not touch the value's bytes. */
enum cht_rc cht_values_find(struct cht_values *v, uint64_t key, struct cht_value_ref *ref,
                            struct cht_err *err);
/* The bytes, compared with the checksum (which covers key and bytes). Borrowed while the lock is held. Who has copied them asks
 * cht_values_copied before using the copy: CHT_CORRUPT if the disk failed between the two. */
enum cht_rc cht_values_view(struct cht_values *v, uint64_t key, const struct cht_value_ref *ref,
                            const uint8_t **p, struct cht_err *err);
enum cht_rc cht_values_say_lost(const struct cht_values *v, const struct cht_value_ref *ref,
                                struct cht_err *err);
static inline enum cht_rc cht_values_copied(const struct cht_values *v, const struct cht_value_ref *ref,
                                            struct cht_err *err)
{
    return __builtin_expect(cht_pf_range_lost(v->values, ref->off, ref->len), 0)
               ? cht_values_say_lost(v, ref, err)
               : CHT_OK;
}
uint32_t cht_value_crc(uint64_t key, const void *p, size_t n);
/* Hints for batches: fetch the key's entry, then the value's first lines, into the cache. Any key is legal. */
void cht_values_prefetch_entry(const struct cht_values *v, uint64_t key);
void cht_values_prefetch_value(const struct cht_values *v, const struct cht_value_ref *ref);

/* values_soon.c: the entries of n keys, `stride` bytes apart (a multiple of 8), and their values, up to `bytes` of them, are going to be
 * read: the disk is asked for them, where each page is read alone. Shared lock. */
void cht_values_ask(struct cht_values *v, const uint64_t *key, size_t stride, size_t n, size_t bytes);
static inline void cht_values_soon(struct cht_values *v, const uint64_t *key, size_t stride, size_t n,
                                   size_t bytes)
{
    if (__builtin_expect(cht_pf_fast(v->keys)->alone, 0))
        cht_values_ask(v, key, stride, n, bytes);
}
/* And the entries of the n keys from `key` on, which are the shard's. */
void cht_values_entries_soon(const struct cht_values *v, uint64_t key, uint64_t n);

/* Whether the counters of the header fit the file; when a shard is opened. */
enum cht_rc cht_values_attach(struct cht_values *v, struct cht_err *err);
/* The next key that was never given out in this shard (local index * shards + shard, at least 1); 0: the header is lost. */
uint64_t cht_values_next_key(const struct cht_values *v);
uint64_t cht_values_live(const struct cht_values *v);
uint64_t cht_values_bytes(const struct cht_values *v); /* sum of the lengths of live values */

/* Puts a value under a key: replaces a live one, or gives the key out (key >= next_key: next_key moves after it; the ones
 * skipped count as given out), or revives a deleted one (replay, and CHT_OP_PUT). len < CHT_LARGE_VALUE or a `large` place.
 * All or nothing: KEYS_EXHAUSTED, NO_MEMORY, DISK_FULL, IO, CORRUPT change nothing. */
enum cht_rc cht_values_put(struct cht_values *v, uint64_t key, const void *p, uint32_t len,
                           struct cht_err *err);
enum cht_rc cht_values_del(struct cht_values *v, uint64_t key, struct cht_err *err); /* CHT_KEY_NOT_FOUND */

/* Large values: reserve (exclusive) -> write (no lock: nothing refers to the place) -> put (exclusive) or abandon
 * (exclusive). */
struct cht_large {
    uint64_t off;
    uint32_t len;
    uint32_t extent;
    uint32_t *sums; /* owned until put/abandon */
};
enum cht_rc cht_values_large_reserve(struct cht_values *v, uint32_t len, struct cht_large *l,
                                     struct cht_err *err);
enum cht_rc cht_values_large_write(struct cht_values *v, struct cht_large *l, const void *p,
                                   struct cht_err *err);
enum cht_rc cht_values_large_put(struct cht_values *v, uint64_t key, struct cht_large *l, uint32_t crc,
                                 struct cht_err *err);
void cht_values_large_abandon(struct cht_values *v, struct cht_large *l);

/* Ascending walk over the live keys of the shard from `key` on (inclusive); length 0: any. CHT_KEY_NOT_FOUND at the end. */
enum cht_rc cht_values_next(struct cht_values *v, uint64_t key, uint32_t length, uint64_t *found,
                            struct cht_value_ref *ref, struct cht_err *err);

/* Checkpoint hooks (exclusive). Freed extents are pending until a checkpoint that knows them free is complete:
 * freeze: those freed so far belong to the checkpoint that starts; complete: those become usable again, unless
 * values are pinned (open handles), in which case they stay pending. recovered: after opening a shard, before
 * replay: all pending ones become usable and every free extent is emptied. clear_free: free pages read as zeros. */
enum cht_rc cht_values_checkpoint_freeze(struct cht_values *v, struct cht_err *err);
enum cht_rc cht_values_checkpoint_complete(struct cht_values *v, bool pinned, struct cht_err *err);
enum cht_rc cht_values_recovered(struct cht_values *v, struct cht_err *err);

/* Whether a copy of a page of `keys` holds no live key, and no later one can get into it: it may be replaced by zeros, which
 * say the same. Shared lock. */
bool cht_values_dead_page(const struct cht_values *v, uint64_t page, const uint8_t *copy);

struct cht_length_stat;
/* The catalogue in ascending order of length. */
enum cht_rc cht_values_lengths(struct cht_values *v, void (*fn)(void *ctx, const struct cht_length_stat *),
                               void *ctx, struct cht_err *err);

/* Full verification of the three files: entries, slots, bitmaps, extents (each granule owned once), lists, counts,
 * every value's CRC. `clean`: free pages must read as zeros. */
enum cht_rc cht_values_check(struct cht_values *v, bool clean,
                             void (*bad)(void *ctx, enum cht_pf_kind file, uint64_t off, const char *what),
                             void *ctx, struct cht_err *err);
