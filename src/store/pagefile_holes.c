/* pagefile_holes: pages that take no space. A page whose sum is 0 reads as zeros, so its place on the disk can be given back
 * (a hole) without changing a byte of what the file says:
 *
 *   checkpoint   a page that is zeros is written home like any other, and its sum is set to 0
 *     journal dropped -> cht_pf_give_back: the page is zeros on the disk and in the last checkpoint: punched
 *   first change of a page with sum 0 (write_first) -> cht_pf_back: space is allocated before anything has changed, so a full
 *     disk is told then, not at the next checkpoint
 *
 * Not if reading a hole takes space (holes_take): a read must work on a full disk.
 * Zeros are punched over zeros: whichever of the two a power cut leaves, the file is the same. Which pages are holes is
 * kept nowhere; the sums say which may be, and asking for space that is there does no harm.
 */
#include "base/bytes.h"
#include "base/invariant.h"
#include "store/pagefile_int.h"

#include <string.h>

#define GROW_MIN 2u                       /* pages: a small database has 40 of these files */
#define GROW_MAX ((64u << 20) / CHT_PAGE) /* largest step by which a file grows ahead of need */
#define BACK_RUN 16u   /* pages of values and pairs that get space at once: they are used in order */
#define SEARCH_MAX 16u /* pages of sums that one search for a hole reads */

enum cht_rc cht_pf_uncut(struct cht_pagefile *pf, struct cht_err *err)
{
    uint64_t size = 0;
    enum cht_rc rc = pf->file->io->ops->size(pf->file, &size, err);
    if (rc == CHT_OK && size < pf->file_pages * CHT_PAGE)
        return CHT_DAMAGED(err, "%s: has %llu bytes where %llu were; something else has cut it",
                           cht_pf_path(pf), (unsigned long long)size,
                           (unsigned long long)(pf->file_pages * CHT_PAGE));
    return rc;
}

enum cht_rc cht_pf_trim(struct cht_pagefile *pf, struct cht_err *err)
{
    enum cht_rc rc = cht_pf_uncut(pf, err);
    if (rc == CHT_OK)
        rc = pf->file->io->ops->truncate(pf->file, pf->fast.pages * CHT_PAGE, err);
    if (rc == CHT_OK)
        pf->file_pages = pf->fast.pages;
    return rc;
}

bool cht_page_is_zeros(const void *page)
{
    static const uint8_t zeros[CHT_PAGE];
    return memcmp(page, zeros, CHT_PAGE) == 0;
}

/* *zero: the sums say that the clean page reads as zeros. */
static enum cht_rc zero_sum(struct cht_pagefile *pf, uint64_t page, bool *zero, struct cht_err *err)
{
    uint32_t sum = 0;
    enum cht_rc rc = CHT_OK;
    if (pf->sums != NULL)
        rc = cht_sums_get(pf->sums, pf->kind, page, &sum, err);
    else
        sum = cht_get32(pf->fast.base + page * CHT_PAGE + CHT_PAGE - 4);
    const struct cht_pagefile *of =
        pf->sums != NULL ? pf->sums : pf; /* a page that was lost reads as zeros too */
    *zero = rc == CHT_OK && sum == 0 && cht_pf_losses(of) == 0;
    return rc;
}

enum cht_rc cht_pf_back(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    bool zero = false;
    if (page >= pf->home_pages || (page >= pf->backed_from && page < pf->backed_to))
        return CHT_OK;
    enum cht_rc rc = zero_sum(pf, page, &zero, err);
    if (rc != CHT_OK || !zero)
        return rc;
    bool runs = pf->kind == CHT_PF_VALUES || pf->kind == CHT_PF_PAIRS;
    uint64_t end = page + 1, limit = runs ? page + BACK_RUN : end;
    while (end < limit && end < pf->home_pages && end < pf->fast.pages && !cht_bit(pf->dirty, end) &&
           zero_sum(pf, end, &zero, NULL) == CHT_OK && zero)
        end++;
    const struct cht_io_ops *ops = pf->file->io->ops;
    rc = cht_pf_uncut(pf, err); /* allocating would make it long again */
    if (rc == CHT_OK)
        rc = ops->allocate(pf->file, page * CHT_PAGE, (end - page) * CHT_PAGE, err);
    if (rc == CHT_DISK_FULL && end > page + 1) {
        end = page + 1;
        rc = ops->allocate(pf->file, page * CHT_PAGE, CHT_PAGE, err);
    }
    if (rc == CHT_OK) {
        pf->backed_from = page;
        pf->backed_to = end;
    }
    return rc;
}

enum cht_rc cht_pf_give_back(struct cht_pagefile *pf, const uint64_t *pages, const uint32_t *sums, size_t n,
                             struct cht_err *err)
{
    if (pf->file->holes_take) /* these pages are still read: on a full disk that would fail */
        return CHT_OK;
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 0; i + run < n && pages[i + run] == pages[i] + run && sums[i + run] == 0 &&
                      pages[i + run] < pf->fast.pages && !cht_bit(pf->dirty, pages[i + run]);)
            run++;
        if (run == 0) {
            run = 1;
            continue;
        }
        enum cht_rc rc =
            pf->file->io->ops->punch(pf->file, pages[i] * CHT_PAGE, (uint64_t)run * CHT_PAGE, err);
        if (rc != CHT_OK)
            return rc;
        pf->backed_from = pf->backed_to = 0;
        pf->holes_spent = 0;
    }
    return CHT_OK;
}

bool cht_pf_known_zeros(struct cht_pagefile *pf, uint64_t page)
{
    bool zero = false;
    return !pf->checkpointing && page < pf->home_pages && page < pf->fast.pages &&
           !cht_bit(pf->dirty, page) && zero_sum(pf, page, &zero, NULL) == CHT_OK && zero;
}

uint64_t cht_pf_find_zeros(struct cht_pagefile *pf)
{
    uint64_t end = pf->home_pages < pf->fast.pages ? pf->home_pages : pf->fast.pages, at = pf->hole_at;
    for (uint64_t looked = 0; pf->holes_spent < end && looked < (uint64_t)SEARCH_MAX * CHT_SUMS_PER_PAGE;
         looked++) {
        at = at + 1 < end ? at + 1 : 1;
        pf->holes_spent++;
        pf->hole_at = at;
        bool zero = false;
        struct cht_err ignored; /* a page whose sum cannot be read is not taken */
        if (at >= end || cht_bit(pf->dirty, at) || zero_sum(pf, at, &zero, NULL) != CHT_OK || !zero)
            continue;
        const uint8_t *p = cht_page_read(pf, at, &ignored);
        if (p != NULL && cht_page_is_zeros(p) && cht_pf_losses(pf) == 0)
            return at; /* one that a checkpoint is writing has no sum yet, but bytes */
    }
    return 0;
}

void cht_pf_cut_tail(struct cht_pagefile *pf)
{
    uint64_t end = pf->fast.pages;
    while (end > 1 && cht_pf_known_zeros(pf, end - 1))
        end--;
    if (pf->fast.pages - end < CHT_CUT_MIN)
        return;
    pf->hollow_to = pf->fast.pages > pf->hollow_to ? pf->fast.pages : pf->hollow_to;
    pf->fast.pages = end;
}

enum cht_rc cht_pf_cut_file(struct cht_pagefile *pf, struct cht_err *err)
{
    uint64_t step, keep = pf->fast.pages;
    enum cht_rc rc = cht_pf_step(pf, &step, err);
    if (rc != CHT_OK || (pf->snap != NULL && pf->snap_pages > keep) || pf->file_pages - keep <= step * 2)
        return rc;
    rc = cht_pf_trim(pf, err);
    if (rc == CHT_OK)
        pf->hollow_to = 0;
    return rc;
}

enum cht_rc cht_pf_step(struct cht_pagefile *pf, uint64_t *step, struct cht_err *err)
{
    uint64_t used = 0; /* holes are no reason to reserve more */
    enum cht_rc rc = pf->file->io->ops->usage(pf->file, &used, err);
    uint64_t n = used / CHT_PAGE / 8;
    *step = n < GROW_MIN ? GROW_MIN : n > GROW_MAX ? GROW_MAX : n;
    return rc;
}
