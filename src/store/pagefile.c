/* pagefile: privately mapped pages, dirty tracking, before-images, undo. The contract is pagefile.h; pagefile_open.c
 * has creation and opening, pagefile_sums.c the checksums, pagefile_holes.c the space on the disk.
 *
 * Who keeps a before-image of a page, in cht_page_write:
 *   frozen bit set   the checkpoint has not copied it yet: the image goes to `side`, the checkpoint takes it from there
 *   undo open        the image goes to `undo` unless the page is new since undo_begin or already has one (`saved`)
 * Both are obtained before the page is handed out, so a failure changes nothing.
 *
 * A page about to be changed is made a private copy before anything is noted about it: if it is lost by then, nothing has
 * happened; after that only what takes private copies away (a cut file, a failing swap) can lose it, and the checkpoint looks.
 *
 * New pages are not dirty until written: the file was extended with zeros, which is what they hold.
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"
#include "store/pagefile_int.h"
#include "store/snapshot.h"

#include <string.h>

#define SPARE_MIN 2u /* pages */

static enum cht_rc images_add(struct cht_pf_images *list, uint64_t page, const uint8_t *src,
                              struct cht_err *err)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        struct cht_pf_image *v = cht_realloc(list->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu page images", cap);
        list->v = v;
        list->cap = cap;
    }
    uint8_t *data = NULL;
    if (src != NULL) {
        data = cht_malloc(CHT_PAGE);
        if (data == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a page image");
        memcpy(data, src, CHT_PAGE);
    }
    list->v[list->n++] = (struct cht_pf_image){page, data, false};
    return CHT_OK;
}

static void images_clear(struct cht_pf_images *list)
{
    for (size_t i = 0; i < list->n; i++)
        cht_free(list->v[i].data);
    list->n = 0;
}

/* Grows a bitmap; the old one stays valid on failure. */
static bool grow_bitmap(uint64_t **map, uint64_t old_bits, uint64_t bits)
{
    uint64_t *m = cht_realloc(*map, (size_t)(bits / 8));
    if (m == NULL)
        return false;
    memset(m + old_bits / 64, 0, (size_t)((bits - old_bits) / 8));
    *map = m;
    return true;
}

/* Pieces of a mapping cannot be moved as one: lost pages show the file again, and are lost again when they are touched. */
static enum cht_rc make_whole(struct cht_pagefile *pf, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint64_t p = 0; cht_fault_events(&pf->fast.fault) != 0 && rc == CHT_OK && p < pf->map_pages; p++) {
        if (atomic_load_explicit(&pf->fast.fault.all, memory_order_relaxed))
            return cht_pf_say_lost(pf, p, err);
        if (cht_fault_test(&pf->fast.fault, p))
            rc = cht_pf_refresh(pf, p, err);
    }
    return rc;
}

static bool grow_bitmaps(struct cht_pagefile *pf, uint64_t pages)
{
    uint64_t *verified = (uint64_t *)(void *)pf->fast.verified;
    bool ok = grow_bitmap(&verified, pf->map_pages, pages);
    pf->fast.verified = (_Atomic uint64_t *)(void *)verified;
    return ok && grow_bitmap(&pf->dirty, pf->map_pages, pages) &&
           grow_bitmap(&pf->frozen, pf->map_pages, pages) && grow_bitmap(&pf->saved, pf->map_pages, pages);
}

/* Address space and bitmaps for at least `pages`. */
static enum cht_rc reserve_map(struct cht_pagefile *pf, uint64_t pages, struct cht_err *err)
{
    if (pages <= pf->map_pages)
        return CHT_OK;
    uint64_t want = pf->map_pages * 2;
    while (want < pages)
        want *= 2;
    uint8_t *base = pf->fast.base;
    cht_fault_hide(&pf->fast.fault);
    enum cht_rc rc = CHT_OK;
    if (!grow_bitmaps(pf, want))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the page bitmaps", cht_pf_path(pf));
    if (rc == CHT_OK)
        rc = make_whole(pf, err);
    if (rc == CHT_OK)
        rc = pf->file->io->ops->remap(pf->file, pf->fast.base, (size_t)pf->map_pages * CHT_PAGE,
                                      (size_t)want * CHT_PAGE, &base, err);
    if (rc == CHT_OK) {
        pf->fast.base = base;
        pf->map_pages = want;
    }
    cht_fault_show(&pf->fast.fault, pf->fast.base, (size_t)pf->map_pages * CHT_PAGE, pf->fast.verified);
    return rc;
}

/* What files that deletes let grow keep for them (reserve.c): a bitmap for an extent, a smaller node of the trie. */
static uint64_t spare(const struct cht_pagefile *pf)
{
    if (pf->use_spare || (pf->kind != CHT_PF_RECYCLE && pf->kind != CHT_PF_PAIRS))
        return 0;
    return pf->fast.pages < SPARE_MIN * 16 ? SPARE_MIN
                                           : pf->fast.pages / (pf->kind == CHT_PF_RECYCLE ? 16 : 256);
}

/* Space on the disk for at least `pages`, in growing steps so that most calls do nothing. */
static enum cht_rc reserve_file(struct cht_pagefile *pf, uint64_t pages, struct cht_err *err)
{
    pages += spare(pf);
    if (pages <= pf->file_pages)
        return CHT_OK;
    const struct cht_io_ops *ops = pf->file->io->ops;
    uint64_t step;
    enum cht_rc rc = cht_pf_uncut(pf, err);
    if (rc == CHT_OK)
        rc = cht_pf_step(pf, &step, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t want = pf->file_pages + step > pages ? pf->file_pages + step : pages;
    rc = ops->allocate(pf->file, pf->file_pages * CHT_PAGE, (want - pf->file_pages) * CHT_PAGE, err);
    if (rc == CHT_DISK_FULL && want > pages) {
        want = pages;
        rc = ops->allocate(pf->file, pf->file_pages * CHT_PAGE, (want - pf->file_pages) * CHT_PAGE, err);
    }
    if (rc == CHT_OK)
        pf->file_pages = want;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint64_t cht_pf_pages(const struct cht_pagefile *pf) { return pf->fast.pages; }

bool cht_pf_range_test(const struct cht_pagefile *pf, uint64_t off, uint64_t n)
{
    bool lost = false;
    for (uint64_t p = off / CHT_PAGE; !lost && p * CHT_PAGE < off + n; p++)
        lost = cht_fault_test(&pf->fast.fault, p);
    return lost;
}

const uint8_t *cht_pf_range(struct cht_pagefile *pf, uint64_t off, uint64_t n)
{
    uint64_t end = pf->fast.pages * CHT_PAGE;
    if (off > end || n > end - off)
        return NULL;
    return pf->fast.base + off;
}

/* Makes the page a private copy. False if it was lost on the way: what it shows then is not the file's. */
static bool make_private(struct cht_pagefile *pf, uint64_t page)
{
    volatile uint8_t *p = pf->fast.base + page * CHT_PAGE;
    uint8_t first = *p;
    *p = first;
    return !cht_pf_lost(pf, page);
}

/* Slow part of cht_page_write: first change of the page since a freeze or since an undo was opened, or any while the file has lost
 * pages. */
static __attribute__((noinline)) uint8_t *write_first(struct cht_pagefile *pf, uint64_t page,
                                                      struct cht_err *err)
{
    if (pf->read_only) {
        (void)CHT_FAIL(err, CHT_READ_ONLY, "%s: opened for reading only", cht_pf_path(pf));
        return NULL;
    }
    if (page < pf->fast.pages && !cht_bit(pf->dirty, page) && cht_pf_back(pf, page, err) != CHT_OK)
        return NULL; /* before it is read: on some file systems a read of a hole takes space, too */
    if (cht_page_read(pf, page, err) == NULL)
        return NULL;
    if (!make_private(pf, page)) {
        (void)cht_page_tell_lost(pf, page, err);
        return NULL;
    }
    uint8_t *p = pf->fast.base + page * CHT_PAGE;
    bool save = pf->undo_open && page < pf->undo_pages && !cht_bit(pf->saved, page);
    if (save && images_add(&pf->undo, page, p, err) != CHT_OK)
        return NULL;
    if (cht_bit(pf->frozen, page)) {
        if (images_add(&pf->side, page, p, err) != CHT_OK) {
            if (save)
                cht_free(pf->undo.v[--pf->undo.n].data);
            return NULL;
        }
        cht_bit_clear(pf->frozen, page);
        pf->frozen_count--;
    }
    if (save) {
        cht_bit_set(pf->saved, page);
        pf->undo.v[pf->undo.n - 1].clean = !cht_bit(pf->dirty, page);
    }
    if (!cht_bit(pf->dirty, page)) {
        cht_bit_set(pf->dirty, page);
        pf->dirty_count++;
    }
    return p;
}

uint8_t *cht_page_write(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    if (page < pf->fast.pages && cht_bit(pf->dirty, page) && /* dirty implies not frozen, see freeze */
        (!pf->undo_open || page >= pf->undo_pages || cht_bit(pf->saved, page)) && cht_pf_losses(pf) == 0)
        return pf->fast.base + page * CHT_PAGE;
    return write_first(pf, page, err);
}

uint8_t *cht_pf_write_range(struct cht_pagefile *pf, uint64_t off, uint64_t n, struct cht_err *err)
{
    if (cht_pf_range(pf, off, n) == NULL) {
        (void)CHT_DAMAGED(err, "%s: range %llu+%llu is past the end", cht_pf_path(pf),
                          (unsigned long long)off, (unsigned long long)n);
        return NULL;
    }
    for (uint64_t page = off / CHT_PAGE; page * CHT_PAGE < off + n; page++) {
        if (cht_page_write(pf, page, err) == NULL)
            return NULL;
    }
    return pf->fast.base + off;
}

/* Room for n more pages in the file and in the mapping; they are not the file's yet. */
static enum cht_rc room_at_end(struct cht_pagefile *pf, uint64_t n, struct cht_err *err)
{
    uint64_t end = pf->fast.pages + n;
    if (pf->read_only)
        return CHT_FAIL(err, CHT_READ_ONLY, "%s: opened for reading only", cht_pf_path(pf));
    enum cht_rc rc = reserve_file(pf, end, err); /* first: an impossible size needs no memory */
    if (rc == CHT_OK)
        rc = reserve_map(pf, end, err);
    if (rc == CHT_OK && pf->sums != NULL) /* a checkpoint must find room for their sums */
        rc = reserve_file(pf->sums, cht_sums_page(pf->kind, end - 1) + 1, err);
    if (rc == CHT_OK && pf->fast.pages < pf->hollow_to)
        rc = pf->file->io->ops->allocate(pf->file, pf->fast.pages * CHT_PAGE, n * CHT_PAGE, err);
    return rc == CHT_OK ? cht_pf_heal(pf, pf->fast.pages, n, err) : rc;
}

/* Makes n pages at the end the file's, after room_at_end. The first of them. */
static uint64_t take_end(struct cht_pagefile *pf, uint64_t n)
{
    uint64_t first = pf->fast.pages;
    pf->fast.pages += n;
    for (uint64_t p = first; p < first + n; p++)
        cht_page_mark_verified(pf, p);
    return first;
}

enum cht_rc cht_pf_extend(struct cht_pagefile *pf, uint64_t n, uint64_t *first, struct cht_err *err)
{
    enum cht_rc rc = room_at_end(pf, n, err);
    /* An earlier run may have left sums for pages that its checkpoint did not keep. */
    for (uint64_t p = pf->fast.pages; pf->sums != NULL && rc == CHT_OK && p < pf->fast.pages + n; p++)
        rc = cht_sums_set(pf->sums, pf->kind, p, 0, err);
    if (rc == CHT_OK)
        *first = take_end(pf, n);
    return rc;
}

enum cht_rc cht_sums_set(struct cht_pagefile *sums, enum cht_pf_kind kind, uint64_t page, uint32_t sum,
                         struct cht_err *err)
{
    uint32_t old;
    struct cht_err local = {0};
    enum cht_rc rc = cht_sums_get(sums, kind, page, &old, err);
    if (rc != CHT_OK || old == sum)
        return rc;
    uint64_t sp = cht_sums_page(kind, page);
    if (sp >= sums->fast.pages) { /* sums have no sums of their own */
        uint64_t more = sp + 1 - sums->fast.pages;
        rc = room_at_end(sums, more, err);
        if (rc != CHT_OK)
            return rc;
        (void)take_end(sums, more);
    }
    uint8_t *p = cht_page_write(sums, sp, &local);
    if (p == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    cht_put32(p + page % CHT_SUMS_PER_PAGE * 4, sum); /* the page's own crc is made when it is written out */
    return CHT_OK;
}

/* ---- direct pages -------------------------------------------------------------------------------------------- */

/* Free pages are pending while a checkpoint is under way: one that it has yet to copy is not free, whatever the lists say. */
static enum cht_rc must_be_free(const struct cht_pagefile *pf, uint64_t first, uint64_t n,
                                struct cht_err *err)
{
    if (n > pf->fast.pages || first > pf->fast.pages - n)
        return CHT_DAMAGED(err, "%s: pages %llu to %llu are past the end", cht_pf_path(pf),
                           (unsigned long long)first, (unsigned long long)(first + n));
    for (uint64_t p = first; pf->frozen_count > 0 && p < first + n; p++) {
        if (cht_bit(pf->frozen, p))
            return CHT_DAMAGED(err, "%s: page %llu (offset %llu) is in use and counts as free",
                               cht_pf_path(pf), (unsigned long long)p, (unsigned long long)p * CHT_PAGE);
    }
    return CHT_OK;
}

/* Drops private copies and dirty marks of whole pages. */
static enum cht_rc drop_private(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err)
{
    enum cht_rc rc =
        pf->file->io->ops->discard(pf->file, pf->fast.base + first * CHT_PAGE, (size_t)n * CHT_PAGE, err);
    if (rc == CHT_OK)
        rc = cht_pf_heal(pf, first, n, err);
    if (rc != CHT_OK)
        return rc;
    for (uint64_t p = first; p < first + n; p++) {
        if (cht_bit(pf->dirty, p)) {
            cht_bit_clear(pf->dirty, p);
            pf->dirty_count--;
        }
        cht_page_mark_verified(pf, p);
    }
    return CHT_OK;
}

enum cht_rc cht_pf_direct_prepare(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err)
{
    enum cht_rc rc = must_be_free(pf, first, n, err);
    if (rc == CHT_OK)
        rc = cht_pf_uncut(pf, err); /* here, since nobody may ask while others change its length */
    if (rc != CHT_OK)
        return rc;
    if (pf->undo_open) {
        uint64_t *counts = cht_realloc(pf->direct_n, (pf->direct.n + 1) * sizeof *counts);
        if (counts == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the undo of a large value");
        pf->direct_n = counts;
        counts[pf->direct.n] = n;
        rc = images_add(&pf->direct, first, NULL, err);
        if (rc != CHT_OK)
            return rc;
    }
    return drop_private(pf, first, n, err);
}

enum cht_rc cht_pf_direct_write(struct cht_pagefile *pf, uint64_t first, const void *data, uint64_t len,
                                uint32_t *sums, struct cht_err *err)
{
    const uint8_t *p = data;
    uint64_t whole = len / CHT_PAGE;
    for (uint64_t i = 0; i < whole; i++)
        sums[i] = cht_page_sum(p + i * CHT_PAGE);
    if (len % CHT_PAGE != 0) {
        uint8_t last[CHT_PAGE] = {0};
        memcpy(last, p + whole * CHT_PAGE, (size_t)(len % CHT_PAGE));
        sums[whole] = cht_page_sum(last);
    }
    cht_snapshot_save(pf, first, (len + CHT_PAGE - 1) / CHT_PAGE, NULL);
    atomic_store_explicit(&pf->unsynced, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&pf->written, len, memory_order_relaxed);
    return cht_file_write(pf->file, data, (size_t)len, first * CHT_PAGE, err);
}

enum cht_rc cht_pf_direct_done(struct cht_pagefile *pf, uint64_t first, uint64_t n, const uint32_t *sums,
                               struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint64_t i = 0; i < n && rc == CHT_OK; i++)
        rc = cht_sums_set(pf->sums, pf->kind, first + i, sums[i], err);
    return rc;
}

enum cht_rc cht_pf_release(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err)
{
    enum cht_rc rc = must_be_free(pf, first, n, err);
    for (uint64_t p = first; p < first + n && rc == CHT_OK; p++)
        rc = cht_sums_set(pf->sums, pf->kind, p, 0, err);
    if (rc == CHT_OK)
        cht_snapshot_save(pf, first, n, NULL);
    if (rc == CHT_OK) {
        pf->backed_from = pf->backed_to = 0; /* what is punched has to ask for space again (cht_pf_back) */
        rc = pf->file->io->ops->punch(pf->file, first * CHT_PAGE, n * CHT_PAGE, err);
    }
    if (rc == CHT_OK) {
        atomic_store_explicit(&pf->unsynced, true, memory_order_relaxed);
        rc = drop_private(pf, first, n, err);
    }
    return rc;
}

/* ---- undo ---------------------------------------------------------------------------------------------------- */

void cht_pf_undo_begin(struct cht_pagefile *pf)
{
    CHT_INVARIANT(!pf->undo_open);
    pf->undo_open = true;
    pf->undo_pages = pf->fast.pages;
}

void cht_pf_undo_end(struct cht_pagefile *pf)
{
    for (size_t i = 0; i < pf->undo.n; i++)
        cht_bit_clear(pf->saved, pf->undo.v[i].page);
    images_clear(&pf->undo);
    images_clear(&pf->direct);
    pf->undo_open = false;
}

/* Puts a page back as it was: its bytes, and clean if it was. A free page is clean, so that no checkpoint holds a copy
 * of it that could be written over a large value's own bytes; an undone allocation leaves it so. */
static void restore(struct cht_pagefile *pf, const struct cht_pf_image *im)
{
    memcpy(pf->fast.base + im->page * CHT_PAGE, im->data, CHT_PAGE);
    if (!im->clean || !cht_bit(pf->dirty, im->page))
        return;
    cht_bit_clear(pf->dirty, im->page);
    pf->dirty_count--;
    struct cht_err
        ignored; /* of failures here nothing is lost: the copy only stays in memory until it is next written */
    if (pf->checkpointing)
        (void)images_add(&pf->loose, im->page, NULL, &ignored);
    else
        (void)cht_pf_forget(pf, &im->page, 1, &ignored);
}

void cht_pf_undo_rollback(struct cht_pagefile *pf)
{
    CHT_INVARIANT(pf->undo_open);
    for (size_t i = 0; i < pf->undo.n; i++)
        restore(pf, &pf->undo.v[i]);
    struct cht_err ignored; /* remembered as `broken`: whoever rolls back stops writing then */
    if (pf->direct.n > 0)
        pf->backed_from = pf->backed_to = 0;
    for (size_t i = 0; i < pf->direct.n; i++) {
        cht_snapshot_save(pf, pf->direct.v[i].page, pf->direct_n[i], NULL);
        if (pf->file->io->ops->punch(pf->file, pf->direct.v[i].page * CHT_PAGE, pf->direct_n[i] * CHT_PAGE,
                                     &ignored) != CHT_OK)
            pf->broken = true;
    }
    uint64_t n = pf->fast.pages - pf->undo_pages;
    if (n > 0 && drop_private(pf, pf->undo_pages, n, &ignored) != CHT_OK)
        pf->broken = true;
    pf->fast.pages = pf->undo_pages;
    cht_pf_undo_end(pf);
}

/* ---- checkpoint ---------------------------------------------------------------------------------------------- */

void cht_pf_freeze(struct cht_pagefile *pf)
{
    CHT_INVARIANT(pf->frozen_count == 0 && pf->side.n == 0);
    uint64_t *t = pf->frozen; /* all clear */
    pf->frozen = pf->dirty;
    pf->dirty = t;
    pf->frozen_count = pf->dirty_count;
    pf->dirty_count = 0;
    pf->frozen_pages = pf->fast.pages;
    pf->checkpointing = true;
}

void cht_pf_settle(struct cht_pagefile *pf, bool done)
{
    struct cht_err ignored;
    if (done)
        pf->home_pages = pf->frozen_pages;
    pf->checkpointing = false;
    for (size_t i = 0; i < pf->loose.n; i++)
        (void)cht_pf_forget(pf, &pf->loose.v[i].page, 1, &ignored);
    images_clear(&pf->loose);
}

bool cht_pf_take(struct cht_pagefile *pf, uint64_t *cursor, uint64_t *page, uint8_t *buf)
{
    if (pf->frozen_count > 0) {
        uint64_t words = (pf->frozen_pages + 63) / 64;
        for (uint64_t w = *cursor / 64; w < words; w++) {
            if (pf->frozen[w] == 0)
                continue;
            *page = w * 64 + (unsigned)__builtin_ctzll(pf->frozen[w]);
            memcpy(buf, pf->fast.base + *page * CHT_PAGE, CHT_PAGE);
            cht_bit_clear(pf->frozen, *page);
            pf->frozen_count--;
            *cursor = *page;
            return true;
        }
        CHT_INVARIANT(pf->frozen_count == 0);
    }
    if (pf->side.n == 0)
        return false;
    struct cht_pf_image *im = &pf->side.v[--pf->side.n];
    *page = im->page;
    memcpy(buf, im->data, CHT_PAGE);
    cht_free(im->data);
    return true;
}

enum cht_rc cht_pf_forget(struct cht_pagefile *pf, const uint64_t *pages, size_t n, struct cht_err *err)
{
    const struct cht_io_ops *ops = pf->file->io->ops;
    size_t i = 0;
    while (i < n) {
        if (pages[i] >= pf->fast.pages || cht_bit(pf->dirty, pages[i])) {
            i++;
            continue;
        }
        size_t run = 1; /* neighbours in one call */
        while (i + run < n && pages[i + run] == pages[i] + run && pages[i + run] < pf->fast.pages &&
               !cht_bit(pf->dirty, pages[i + run]))
            run++;
        enum cht_rc rc = ops->discard(pf->file, pf->fast.base + pages[i] * CHT_PAGE, run * CHT_PAGE, err);
        if (rc != CHT_OK)
            return rc;
        i += run;
    }
    return CHT_OK;
}

void cht_pf_redirty(struct cht_pagefile *pf, uint64_t page)
{
    if (page < pf->fast.pages && !cht_bit(pf->dirty, page)) {
        cht_bit_set(pf->dirty, page);
        pf->dirty_count++;
    }
}
