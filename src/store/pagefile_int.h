/* pagefile_int: what the shard and the checkpoint need of a page file beyond pagefile.h, and the sums.
 *
 * The sums file holds the CRC-32C of every page of the other four. Its pages carry their own:
 *   page 0: header as any page file, crc of the page at 4092
 *   page 1 + 4 * g + f: 1023 x sum u32 of pages g*1023 .. g*1023+1022 of file kind f, crc u32 at 4092
 *   (a page of zeros throughout, crc included, holds no sums yet)
 * A sum of 0 says: the page reads as zeros and may take no space (pagefile_holes.c). A computed CRC of 0 is stored as 1.
 */
#pragma once

#include "os/fault.h"
#include "store/pagefile.h"

#define CHT_SUMS_PER_PAGE 1023u
#define CHT_PF_MAP_MIN (256u << 10) /* address space of a small file; it doubles as the file grows */

struct cht_pf_image { /* before-image of a page */
    uint64_t page;
    uint8_t *data; /* owned */
    bool clean;    /* of an undo: the page was not dirty */
};
struct cht_pf_images {      /* growable list */
    struct cht_pf_image *v; /* owned */
    size_t n, cap;
};

struct cht_snapshot; /* snapshot.h */

struct cht_pagefile {
    struct cht_pf_fast fast;   /* must be first; changed under the exclusive lock */
    struct cht_file *file;     /* owned */
    struct cht_io_id id;       /* of file, to know it again (cht_pf_same) */
    struct cht_pagefile *sums; /* NULL for the sums file itself */
    enum cht_pf_kind kind;
    bool read_only;
    bool use_spare;        /* whoever extends it now may use what is kept for deletes; exclusive lock */
    bool broken;           /* an undo could not give direct pages back: the shard must stop writing */
    uint64_t file_pages;   /* pages backed by the file; >= fast.pages */
    uint64_t map_pages;    /* pages of address space; the bitmaps have as many bits */
    uint64_t home_pages;   /* pages of the last complete checkpoint: overwriting these needs the journal */
    uint64_t frozen_pages; /* pages at the freeze of the checkpoint under way */
    uint64_t *dirty;  /* changed since the freeze of the last checkpoint; guarded by the exclusive lock */
    uint64_t *frozen; /* dirty at the freeze, not copied yet */
    uint64_t *saved;  /* has a before-image in the open undo */
    _Atomic uint64_t dirty_count; /* changed under the exclusive lock, read by statistics without */
    uint64_t frozen_count;
    bool checkpointing; /* from freeze to settle: what is clean may not be in the file yet */
    struct cht_pf_images
        loose; /* data NULL: pages that an undo left clean, with a private copy, while checkpointing */
    struct cht_pf_images side; /* frozen pages that were changed before the checkpoint copied them */
    struct cht_pf_images undo;
    struct cht_pf_images direct; /* of the open undo: data NULL, {first page}; counts in direct_n */
    uint64_t *direct_n;
    bool undo_open;
    uint64_t undo_pages;
    uint64_t backed_from,
        backed_to; /* pages with sum 0 that got space last; exclusive lock, or shared by the checkpoint */
    uint64_t hole_at,
        holes_spent; /* where the last search for a page of zeros ended, pages searched in vain since one came */
    uint64_t hollow_to; /* pages from fast.pages up to here may take no space: the tail was cut off */
    uint32_t freed[6];  /* of an arena: blocks smaller than a page freed since they were collected last */
    _Atomic uint64_t written;       /* bytes handed to the file */
    _Atomic uint64_t corrupt;       /* pages that did not match their sums */
    _Atomic bool unsynced;          /* written since the last sync */
    struct cht_snapshot *snap;      /* NULL: none. This and the next two: see Locking in snapshot.h */
    uint64_t snap_base, snap_pages; /* where its pages begin in the snapshot, and how many they are */
};

/* Creates an empty file of one header page in the folder; written, not synced. */
enum cht_rc cht_pf_create(struct cht_io *io, const char *path, enum cht_pf_kind kind, const uint8_t uuid[16],
                          uint32_t shard, uint32_t shards, struct cht_err *err);
/* Opens and maps; the header is checked by cht_pf_attach, after a journal was applied. */
enum cht_rc cht_pf_open(struct cht_io *io, const char *path, enum cht_pf_kind kind, bool read_only,
                        struct cht_pagefile **out, struct cht_err *err);
/* Checks the header (magic, version, place, crc, size), cuts off what lies after the pages in use (not if read_only). */
enum cht_rc cht_pf_attach(struct cht_pagefile *pf, struct cht_pagefile *sums, const uint8_t uuid[16],
                          uint32_t shard, uint32_t shards, struct cht_err *err);
void cht_pf_close(struct cht_pagefile *pf);
/* Of keys: before a file of its folder is opened by name to be written to: is the folder the one that was opened? CHT_IO: not any more. */
enum cht_rc cht_pf_same(const struct cht_pagefile *pf, struct cht_err *err);
/* As it was after cht_pf_open: what was changed and is not in the file is forgotten; cht_pf_attach comes next. Nobody reads
 * or writes, no checkpoint is under way. */
enum cht_rc cht_pf_reset(struct cht_pagefile *pf, struct cht_err *err);
/* A page shows its file again, and is read as those around it: a mapping whose pieces are read in different ways cannot be moved as one.
 * Exclusive. */
enum cht_rc cht_pf_refresh(struct cht_pagefile *pf, uint64_t page, struct cht_err *err);
/* Pages that are free, new or to be read anew show their file again, if they were lost. Exclusive. */
enum cht_rc cht_pf_heal(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err);
/* CHT_CORRUPT if the file is shorter than it was made: something else has cut it, and nothing may be written that would make
 * it long again with zeros in between. Shared lock: without it the file may be growing, or be cut by a checkpoint. */
enum cht_rc cht_pf_uncut(struct cht_pagefile *pf, struct cht_err *err);
/* Cuts the file to the pages in use (clean close); CHT_CORRUPT if it is shorter already. */
enum cht_rc cht_pf_trim(struct cht_pagefile *pf, struct cht_err *err);

/* Whether each page is to be read alone. Exclusive. */
void cht_pf_read_alone(struct cht_pagefile *pf, bool alone);

/* Header fields for the checkpoint (exclusive lock): pages in use, generation, header crc; dirties page 0. */
enum cht_rc cht_pf_seal_header(struct cht_pagefile *pf, uint64_t generation, struct cht_err *err);
uint64_t cht_pf_generation(const struct cht_pagefile *pf);

/* Checkpoint. freeze: exclusive, cannot fail. next/take: shared lock (no writer runs), one thread. take copies the frozen
 * content into buf; *page is its number; false when none is left. */
void cht_pf_freeze(struct cht_pagefile *pf);
/* A page that is lost by then (cht_pf_lost, under the same lock) must not be used. */
bool cht_pf_take(struct cht_pagefile *pf, uint64_t *cursor, uint64_t *page, uint8_t *buf);
/* The checkpoint that froze the file is over (done: all its pages are home). Exclusive. */
void cht_pf_settle(struct cht_pagefile *pf, bool done);
/* Marks a page dirty again without touching it (a checkpoint that was given up). Exclusive. */
void cht_pf_redirty(struct cht_pagefile *pf, uint64_t page);
/* Gives back the private copies of pages written home that are clean (shared lock). */
enum cht_rc cht_pf_forget(struct cht_pagefile *pf, const uint64_t *pages, size_t n, struct cht_err *err);

/* ---- pagefile_holes.c ---------------------------------------------------------------------------------------- */

bool cht_page_is_zeros(const void *page);
/* Space for a clean page that may be a hole, before its first change. Exclusive. CHT_DISK_FULL, CHT_IO: nothing changed. */
enum cht_rc cht_pf_back(struct cht_pagefile *pf, uint64_t page, struct cht_err *err);
/* Of the pages that a checkpoint has brought home: the clean ones with sum 0 give their space back. Shared lock, the thread of
 * the checkpoint. */
enum cht_rc cht_pf_give_back(struct cht_pagefile *pf, const uint64_t *pages, const uint32_t *sums, size_t n,
                             struct cht_err *err);
/* True if the page reads as zeros, found without reading it; false says nothing. Shared lock. */
bool cht_pf_known_zeros(struct cht_pagefile *pf, uint64_t page);
/* A page of zeros, for an owner who knows that such a page is free; 0: none found this time. Exclusive. */
uint64_t cht_pf_find_zeros(struct cht_pagefile *pf);

#define CHT_CUT_MIN 64u /* pages that are worth to be cut off */
/* Leaves out pages of zeros at the end, for an owner to whom they mean nothing: between undos, before a freeze. Exclusive. */
void cht_pf_cut_tail(struct cht_pagefile *pf);
/* Cuts the file if it is much longer than the pages in use, those of a snapshot included. After a checkpoint. Exclusive. */
enum cht_rc cht_pf_cut_file(struct cht_pagefile *pf, struct cht_err *err);
/* Pages that a file of this usage grows ahead of need. */
enum cht_rc cht_pf_step(struct cht_pagefile *pf, uint64_t *step, struct cht_err *err);

/* ---- pagefile_sums.c ----------------------------------------------------------------------------------------- */

uint32_t cht_page_sum(const void *page); /* never 0 */
/* The page of the sums file that has the sum of a page. */
uint64_t cht_sums_page(enum cht_pf_kind kind, uint64_t page);
enum cht_rc cht_sums_get(struct cht_pagefile *sums, enum cht_pf_kind kind, uint64_t page, uint32_t *sum,
                         struct cht_err *err);
/* Exclusive lock. */
enum cht_rc cht_sums_set(struct cht_pagefile *sums, enum cht_pf_kind kind, uint64_t page, uint32_t sum,
                         struct cht_err *err);
/* Counts a page that is lost and says so; NULL. */
const uint8_t *cht_page_tell_lost(struct cht_pagefile *pf, uint64_t page, struct cht_err *err);
/* Compares one page as the file has it with its sum; buf is scratch of one page. CHT_CORRUPT. */
enum cht_rc cht_pf_scrub_page(struct cht_pagefile *pf, uint64_t page, uint8_t *buf, struct cht_err *err);

static inline bool cht_bit(const uint64_t *map, uint64_t i) { return map[i >> 6] >> (i & 63) & 1; }
static inline void cht_bit_set(uint64_t *map, uint64_t i) { map[i >> 6] |= UINT64_C(1) << (i & 63); }
static inline void cht_bit_clear(uint64_t *map, uint64_t i) { map[i >> 6] &= ~(UINT64_C(1) << (i & 63)); }
/* The page fits its sum: cht_page_read looks no further. */
static inline void cht_page_mark_verified(struct cht_pagefile *pf, uint64_t page)
{
    atomic_fetch_or_explicit(&pf->fast.verified[page >> 6], UINT64_C(1) << (page & 63), memory_order_relaxed);
}

static inline void cht_page_unverify(struct cht_pagefile *pf, uint64_t page)
{
    atomic_fetch_and_explicit(&pf->fast.verified[page >> 6], ~(UINT64_C(1) << (page & 63)),
                              memory_order_relaxed);
}
