/* values_format: the three files of a shard's values on disk, and what values*.c and extent*.c share.
 *
 * keys    page 0:  64 next_local u64: lowest local index never given out   72 live u64   80 bytes u64: sum of live lengths
 *                 448 log position of the checkpoint (shard.h)
 *         entry of local index i at 4096 + 16 * i:
 *                 0 place u48: byte offset in `values`   6 state u16 (0 never given out or deleted, 1 live, 2 deleted)
 *                 8 length u32   12 crc u32: CRC-32C of key (u64) and bytes
 *
 * values  from page 1 on extents, in granules of 512 bytes; an extent holds slots of one byte length, packed: slot i at
 *         start + i * length. Values of CHT_LARGE_VALUE and more have extents of whole pages with one slot.
 *
 * recycle an arena (arena.h). Page 0:
 *   120 lengths u32: radix table length -> class record     124 map u32: radix table granule -> extent record
 *   128 free u32[32]: lists of free extents by floor(log2(granules))
 *   256 pending A u32   260 pending B u32: freed extents, newest first
 *   radix table: three levels of pages of 1024 u32; the key's bits 29..20, 19..10, 9..0
 *   class record, 64 bytes:   0 length u32  4 partial u32: extents with free slots  8 live u64  16 slots u64  24 extents u64
 *   extent record, 64 bytes:  0 state u8 (1 used, 2 free, 3 pending A, 4 pending B)  1 listed u8: is in the partial list
 *        4 length u32  8 start u32  12 granules u32  16 slots u32  20 used u32  24 bump u32: slots given out in order
 *       28 bitmap u32: a bit for each slot, 1 used; 0: all below bump are  32 prev u32  36 next u32  40 hint u32: no free slot
 *          below it but in front of bump
 *   The map has every granule of extents with several slots, the first and the last of all others.
 *
 * Invariants (values_check.c)
 *   V1 every granule from page 1 on belongs to exactly one extent; no two free neighbours
 *   V2 used = bits set below bump = live entries in it; an extent is in its class's partial list iff used < slots
 *   V3 class: live = sum of used, slots and extents likewise; a class without extents has no record
 *   V4 live entries lie at a slot in use of an extent of their length, each slot once; counters fit
 *   V5 free whole pages read as zeros (sum 0) when the database was stopped cleanly
 */
#pragma once

#include "base/bytes.h"
#include "store/arena.h"
#include "store/pagefile_int.h"
#include "store/values.h"

#define CHT_GRANULE 512u
#define CHT_PAGE_GRANULES (CHT_PAGE / CHT_GRANULE)
#define CHT_SLOTS_MAX 32768u
#define CHT_EXTENT_BYTES (1u << 20)
#define CHT_ONE_SLOT (64u << 10) /* longer values have an extent each */
#define CHT_ENTRY 16u
#define CHT_MAP_MAX (UINT64_C(1) << 30)

enum { CHT_KEYS_NEXT = 64, CHT_KEYS_LIVE = 72, CHT_KEYS_BYTES = 80 };
enum {
    CHT_RC_LENGTHS = 120,
    CHT_RC_MAP = 124,
    CHT_RC_FREE = 128,
    CHT_RC_PENDING_A = 256,
    CHT_RC_PENDING_B = 260
};
enum { CHT_ENTRY_NEVER = 0, CHT_ENTRY_LIVE = 1, CHT_ENTRY_DELETED = 2 };
enum { CHT_EXT_USED = 1, CHT_EXT_FREE = 2, CHT_EXT_PENDING_A = 3, CHT_EXT_PENDING_B = 4 };
enum {
    CHT_EX_STATE = 0,
    CHT_EX_LISTED = 1,
    CHT_EX_LENGTH = 4,
    CHT_EX_START = 8,
    CHT_EX_GRANULES = 12,
    CHT_EX_SLOTS = 16,
    CHT_EX_USED = 20,
    CHT_EX_BUMP = 24,
    CHT_EX_BITMAP = 28,
    CHT_EX_PREV = 32,
    CHT_EX_NEXT = 36,
    CHT_EX_HINT = 40
};
enum { CHT_CL_LENGTH = 0, CHT_CL_PARTIAL = 4, CHT_CL_LIVE = 8, CHT_CL_SLOTS = 16, CHT_CL_EXTENTS = 24 };

/* radix.c: root_at is CHT_RC_LENGTHS or CHT_RC_MAP. get: 0 if nothing is. */
enum cht_rc cht_radix_get(struct cht_pagefile *rc, unsigned root_at, uint32_t key, uint32_t *value,
                          struct cht_err *err);
enum cht_rc cht_radix_set(struct cht_pagefile *rc, unsigned root_at, uint32_t key, uint32_t value,
                          struct cht_err *err);
/* The first key >= *key with a value; CHT_KEY_NOT_FOUND at the end. */
enum cht_rc cht_radix_next(struct cht_pagefile *rc, unsigned root_at, uint32_t *key, uint32_t *value,
                           struct cht_err *err);

/* extent.c: the calls may fail half way; the caller has an undo open. Records are read through cht_record: range-checked. */
const uint8_t *cht_record(struct cht_values *v, uint32_t ref, struct cht_err *err);
uint8_t *cht_record_write(struct cht_values *v, uint32_t ref, struct cht_err *err);
/* An extent's record, its place within the file and its slots within the bound: CHT_CORRUPT if not. */
const uint8_t *cht_extent(struct cht_values *v, uint32_t ref, struct cht_err *err);
uint8_t *cht_extent_write(struct cht_values *v, uint32_t ref, struct cht_err *err);
enum cht_rc cht_extent_alloc(struct cht_values *v, uint32_t granules, bool whole_pages, uint32_t *ref,
                             struct cht_err *err);
/* A used extent goes to pending A (its links must be free). */
enum cht_rc cht_extent_retire(struct cht_values *v, uint32_t ref, struct cht_err *err);
/* A record that is in no list becomes free: joined with free neighbours, whole pages given back. */
enum cht_rc cht_extent_free(struct cht_values *v, uint32_t ref, struct cht_err *err);
enum cht_rc cht_extent_map(struct cht_values *v, const uint8_t *record, uint32_t ref, bool all,
                           struct cht_err *err);
/* List heads are u32 fields: in page 0 (`head_at` with class_ref 0) or of a record. */
enum cht_rc cht_extent_link(struct cht_values *v, uint32_t owner, unsigned head_at, uint32_t ref,
                            struct cht_err *err);
enum cht_rc cht_extent_unlink(struct cht_values *v, uint32_t owner, unsigned head_at, uint32_t ref,
                              struct cht_err *err);

/* slots.c: a slot for a value of len bytes; and giving one back. Under an undo, unless the fast call said true: then all
 * pages are obtained, those of the slot's bytes too, and the call cannot fail. */
enum cht_rc cht_slot_alloc(struct cht_values *v, uint32_t len, uint64_t *off, struct cht_err *err);
enum cht_rc cht_slot_free(struct cht_values *v, uint64_t off, uint32_t len, struct cht_err *err);
enum cht_rc cht_slot_alloc_fast(struct cht_values *v, uint32_t len, bool *fast, struct cht_err *err);
enum cht_rc cht_slot_free_fast(struct cht_values *v, uint64_t off, uint32_t len, bool *fast,
                               struct cht_err *err);
/* The record of the class of one length, made if `create`; 0 if there is none. */
enum cht_rc cht_class_of(struct cht_values *v, uint32_t len, bool create, uint32_t *ref, struct cht_err *err);
enum cht_rc cht_class_add_extent(struct cht_values *v, uint32_t cls, uint32_t slots, struct cht_err *err);
