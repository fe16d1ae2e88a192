/* pagefile: a file of 4 KiB pages mapped privately: clean pages are the kernel's page cache, a changed page is a
 * private copy that the kernel cannot write back, so the file on disk is always exactly the last checkpoint.
 *
 * Every change goes through cht_page_write, which marks the page dirty, keeps a before-image if a checkpoint has
 * not copied the page yet, and one if an undo is open. Every read of a page goes through cht_page_read, which
 * checks the range and, the first time a page is touched after open, its sum.
 *
 * A page that the disk cannot give, or that something else has cut off, is lost (os/fault.h): reading it is CHT_CORRUPT until
 * its place is written or given back as a whole (direct pages, cht_pf_release, cht_pf_extend), and it cannot be changed, so
 * that its zeros never reach the file. What holds in the face of a loss at any moment:
 *   cht_page_read   the page was good when it was first read; it may be lost while the caller reads. A caller that decides
 *                   something by what it read looks at cht_pf_losses before and after, or asks cht_pf_lost at the end
 *   cht_page_write  the page is a private copy of good bytes when this returns
 *   cht_pf_range    nothing: the bytes carry a checksum, and after they were copied cht_pf_range_lost tells
 *
 * Page 0 is the header (HEADER below); its bytes from CHT_PF_USER on belong to the owner of the file.
 * HEADER, little-endian, one 512-byte sector covered by crc; rest of the page belongs to the owner too (page sum):
 *    0 magic[8] "CHEETAHP"   8 version u32 (1; 2, 3: see CHT_FORMAT_HOLES)   12 kind u32   16 uuid[16]   32 shard u32   36 shards u32
 *   40 pages u64 (in use, this one included)  48 generation u64 (checkpoint number)   56 reserved[8]
 *   64 user bytes ... 508 crc u32 of bytes 0..507 (made at each checkpoint)
 *
 * Locking: reads need the shard lock shared, changes need it exclusive (callers hold it).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"
#include "os/fault.h"
#include "os/io.h"

#define CHT_PAGE 4096u
#define CHT_PF_USER 64u      /* first user byte of page 0 */
#define CHT_PF_USER_END 508u /* after the last one within the first sector; 512..4095 are free as well */
#define CHT_FORMAT_VERSION 1u
#define CHT_FORMAT_HOLES \
    2u /* of `pairs`, from the first time on that pages of zeros which nothing owns are free (arena.h) */
#define CHT_FORMAT_EXPIRY 3u /* likewise, from the first pair on that ends (expiry.h) */

enum cht_pf_kind {
    CHT_PF_KEYS = 0,
    CHT_PF_VALUES = 1,
    CHT_PF_RECYCLE = 2,
    CHT_PF_PAIRS = 3,
    CHT_PF_SUMS = 4
};
#define CHT_PF_KINDS 5

struct cht_pagefile; /* layout in pagefile.c's private header pagefile_int.h: only fast-path fields here */

struct cht_pf_fast {
    uint8_t *base;              /* the map */
    uint64_t pages;             /* in use */
    _Atomic uint64_t *verified; /* a bit a page: its sum was compared or it is dirty */
    struct cht_fault fault;     /* the pages that were lost */
    bool alone;                 /* a page is read from the disk and nothing around it (reading.c) */
};

/* The fast-path view is the first member of struct cht_pagefile. */
static inline const struct cht_pf_fast *cht_pf_fast(const struct cht_pagefile *pf)
{
    return (const struct cht_pf_fast *)pf;
}

/* Slow path of cht_page_read: range check and sum; NULL with err filled on damage. */
const uint8_t *cht_page_verify(struct cht_pagefile *pf, uint64_t page, struct cht_err *err);

/* The bytes of a page; valid while the shard lock is held. NULL (CHT_CORRUPT in err) where page is out of range
 * or does not match its sum. */
/* NOLINTNEXTLINE(misc-no-recursion): see cht_page_verify */
static inline const uint8_t *cht_page_read(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    const struct cht_pf_fast *f = cht_pf_fast(pf);
    if (__builtin_expect(
            page < f->pages &&
                (atomic_load_explicit(&f->verified[page >> 6], memory_order_relaxed) >> (page & 63) & 1),
            1)) {
        return f->base + page * CHT_PAGE;
    }
    return cht_page_verify(pf, page, err);
}
/* A byte range that may cross pages: pages are contiguous in memory. No sum check (values carry their own).
 * NULL if it is out of range. */
const uint8_t *cht_pf_range(struct cht_pagefile *pf, uint64_t off, uint64_t n);

/* Pages that are going to be read: where each is read alone, the disk is asked for them now, so that it works at many; elsewhere nothing
 * is done. Any range is legal. Shared lock. */
void cht_pf_ask(const struct cht_pagefile *pf, uint64_t off, uint64_t n);
static inline void cht_pf_soon(const struct cht_pagefile *pf, uint64_t off, uint64_t n)
{
    if (__builtin_expect(cht_pf_fast(pf)->alone, 0))
        cht_pf_ask(pf, off, n);
}

/* How often pages of the file were lost; whether one, or one of a range, is lost now. What was read before the call counts. */
static inline uint64_t cht_pf_losses(const struct cht_pagefile *pf)
{
    return cht_fault_events(&cht_pf_fast(pf)->fault);
}
static inline bool cht_pf_lost(const struct cht_pagefile *pf, uint64_t page)
{
    return cht_fault_lost(&cht_pf_fast(pf)->fault, page);
}
bool cht_pf_range_test(const struct cht_pagefile *pf, uint64_t off,
                       uint64_t n); /* as the next, which asks it */
static inline bool cht_pf_range_lost(const struct cht_pagefile *pf, uint64_t off, uint64_t n)
{
    return __builtin_expect(cht_pf_losses(pf) != 0, 0) && cht_pf_range_test(pf, off, n);
}
/* Says in err that a page cannot be read; CHT_CORRUPT. */
enum cht_rc cht_pf_say_lost(const struct cht_pagefile *pf, uint64_t page, struct cht_err *err);

/* The page for changing: verified, marked dirty, before-images kept. NULL with err: CHT_CORRUPT, CHT_NO_MEMORY
 * (before-image), CHT_DISK_FULL or CHT_IO (space for a page that had none), nothing changed. The pointer is valid until the next cht_pf_extend or the release of the lock. After one
 * successful call further changes to the same page in the same locked section need no further call. */
uint8_t *cht_page_write(struct cht_pagefile *pf, uint64_t page, struct cht_err *err);
/* A page that cht_page_write has given out in the same locked section: no checks, cannot fail. */
static inline uint8_t *cht_page_sure(struct cht_pagefile *pf, uint64_t page)
{
    return cht_pf_fast(pf)->base + page * CHT_PAGE;
}
/* The same for every page of a byte range; returns the pointer to its first byte. */
uint8_t *cht_pf_write_range(struct cht_pagefile *pf, uint64_t off, uint64_t n, struct cht_err *err);

/* Appends n zeroed pages (dirty) at the end; *first is their number. Space on the disk is allocated before:
 * CHT_DISK_FULL, CHT_IO, CHT_NO_MEMORY leave everything as it was. May move the map. */
enum cht_rc cht_pf_extend(struct cht_pagefile *pf, uint64_t n, uint64_t *first, struct cht_err *err);
uint64_t cht_pf_pages(const struct cht_pagefile *pf);

/* Direct pages (large values): written to the file at once, never private, no sync before the next checkpoint.
 * Precondition: [first, first+n) are whole pages that the last completed checkpoint holds free (or that lie after
 * its end), and are in use now. May be called without the shard lock: nothing else may refer to these pages. Also
 * sets their sums: that part (cht_pf_direct_done) needs the lock exclusive. `len` need not be a multiple of the page:
 * the rest of the last page is zeros. */
enum cht_rc cht_pf_direct_prepare(struct cht_pagefile *pf, uint64_t first, uint64_t n,
                                  struct cht_err *err); /* excl. */
enum cht_rc cht_pf_direct_write(struct cht_pagefile *pf, uint64_t first, const void *data, uint64_t len,
                                uint32_t *sums, struct cht_err *err);
enum cht_rc cht_pf_direct_done(struct cht_pagefile *pf, uint64_t first, uint64_t n, const uint32_t *sums,
                               struct cht_err *err); /* excl. */
/* Marks whole pages as free and empty: sum 0, no private copy, space given back: they read as zeros. Exclusive. Only for
 * pages that the last completed checkpoint holds free. */
enum cht_rc cht_pf_release(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err);

/* Undo: between begin and end/rollback the before-image of every changed page is kept. Rollback puts all of them
 * back (new pages are taken away again) and cannot fail. One at a time a file. Exclusive lock throughout. */
void cht_pf_undo_begin(struct cht_pagefile *pf);
void cht_pf_undo_end(struct cht_pagefile *pf);
void cht_pf_undo_rollback(struct cht_pagefile *pf);

const char *cht_pf_path(const struct cht_pagefile *pf);
