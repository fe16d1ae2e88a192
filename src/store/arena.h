/* arena: blocks of 64 << k bytes (k = 0..6, 64 B to one page) in a page file, for trie nodes and catalogue records.
 *
 * A reference is the block's byte offset / 64 (u32, so 256 GiB a file); 0 is none. A block never crosses a page.
 * Free blocks of a size are a list threaded through their first 4 bytes; heads are in page 0 at CHT_ARENA_HEADS:
 *   7 x { head u32, free count u32 } = 56 bytes. A free block is { next u32, magic u32 "FREE" ^ k, zeros }.
 * Version 1: each page belongs to blocks in use and free ones. Version 2 (`pairs`): or it is zeros, which no block in use
 *   and no page with a free one is; such a page belongs to nobody and may take no space on the disk.
 * Locking: as pagefile.
 */
#pragma once

#include "base/bytes.h"
#include "store/pagefile.h"

#define CHT_ARENA_CLASSES 7u
#define CHT_ARENA_HEADS CHT_PF_USER                          /* offset in page 0 */
#define CHT_ARENA_USER (CHT_PF_USER + 8 * CHT_ARENA_CLASSES) /* = 120: first byte free for the owner */

#define CHT_ARENA_FREE 0x45455246u /* "FREE" */
#define CHT_ARENA_KEEP \
    64u /* free pages that stay on their list; of further ones of `pairs` the space is given back */

static inline unsigned cht_arena_class(size_t n) /* smallest class that holds n bytes, n <= 4096 */
{
    unsigned k = 0;
    while ((64u << k) < n)
        k++;
    return k;
}
/* Allocates a zeroed block of class k. May extend the file (and so move the map: pointers are stale after). */
enum cht_rc cht_arena_alloc(struct cht_pagefile *pf, unsigned k, uint32_t *ref, struct cht_err *err);
enum cht_rc cht_arena_free(struct cht_pagefile *pf, unsigned k, uint32_t ref, struct cht_err *err);
/* The block's bytes (reads as cht_page_read, writes as cht_page_write). */
static inline const uint8_t *cht_arena_read(struct cht_pagefile *pf, uint32_t ref, struct cht_err *err)
{
    const uint8_t *p = cht_page_read(pf, ref >> 6, err);
    return p == NULL ? NULL : p + (size_t)(ref & 63) * 64;
}
static inline uint8_t *cht_arena_write(struct cht_pagefile *pf, uint32_t ref, struct cht_err *err)
{
    uint8_t *p = cht_page_write(pf, ref >> 6, err);
    return p == NULL ? NULL : p + (size_t)(ref & 63) * 64;
}
/* The free block at ref: its next, or damage. */
enum cht_rc cht_arena_next(struct cht_pagefile *pf, unsigned k, uint32_t ref, uint32_t *next,
                           struct cht_err *err);
/* Tidies up after many blocks were freed (arena_collect.c): pages whose blocks are all free become free pages. What fails is
 * left as it is. Outside of changes that hold blocks. */
void cht_arena_collect(struct cht_pagefile *pf);
/* Free pages among pages of zeros at the end of the file become zeros too, so that the next checkpoint can cut them off. */
void cht_arena_clear_tail(struct cht_pagefile *pf);
/* The header of a file, which has been obtained for writing: from now on pages of zeros may be free. */
static inline void cht_arena_say_holes(uint8_t *head)
{
    if (cht_get32(head + 8) < CHT_FORMAT_HOLES)
        cht_put32(head + 8, CHT_FORMAT_HOLES);
}
/* Whether pages of zeros are free. */
bool cht_arena_has_holes(const struct cht_pagefile *pf);
/* Takes up to `most` free pages that are more than CHT_ARENA_KEEP off their list (an older version kept all of them there). */
void cht_arena_shorten(struct cht_pagefile *pf, unsigned most);
