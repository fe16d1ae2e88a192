/* pagefile_sums: the checksums of pages: kept (pagefile_int.h draws the sums file), compared when a page is read for the first time, and by
 * the scrub; and pages that the disk could not give.
 */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/pagefile_int.h"

#include <string.h>

const char *cht_pf_path(const struct cht_pagefile *pf) { return pf->file->path; }

uint32_t cht_page_sum(const void *page)
{
    uint32_t crc = cht_crc32c(0, page, CHT_PAGE);
    return crc == 0 ? 1 : crc;
}

enum cht_rc cht_pf_refresh(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    const struct cht_io_ops *ops = pf->file->io->ops;
    uint8_t *p = pf->fast.base + page * CHT_PAGE;
    enum cht_rc rc = ops->refresh(pf->file, p, page * CHT_PAGE, CHT_PAGE, err);
    if (rc == CHT_OK && pf->fast.alone)
        ops->advise(pf->file, p, CHT_PAGE, CHT_ADVICE_ALONE);
    return rc;
}

enum cht_rc cht_pf_heal(struct cht_pagefile *pf, uint64_t first, uint64_t n, struct cht_err *err)
{
    for (uint64_t p = first; cht_fault_events(&pf->fast.fault) != 0 && p < first + n; p++) {
        if (!cht_fault_test(&pf->fast.fault, p))
            continue;
        if (atomic_load_explicit(&pf->fast.fault.all, memory_order_relaxed))
            return cht_pf_say_lost(pf, p, err);
        enum cht_rc rc = cht_pf_refresh(pf, p, err);
        if (rc != CHT_OK)
            return rc;
        cht_fault_found(&pf->fast.fault, p);
    }
    return CHT_OK;
}

enum cht_rc cht_pf_say_lost(const struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    return CHT_DAMAGED(err, "%s: page %llu (offset %llu) cannot be read", cht_pf_path(pf),
                       (unsigned long long)page, (unsigned long long)page * CHT_PAGE);
}

const uint8_t *cht_page_tell_lost(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    atomic_fetch_add_explicit(&pf->corrupt, 1, memory_order_relaxed);
    (void)cht_pf_say_lost(pf, page, err);
    return NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion): once: a page of sums has its own sum in itself */
const uint8_t *cht_page_verify(struct cht_pagefile *pf, uint64_t page, struct cht_err *err)
{
    if (page >= pf->fast.pages) {
        (void)CHT_DAMAGED(err, "%s: page %llu is past the end (%llu pages)", cht_pf_path(pf),
                          (unsigned long long)page, (unsigned long long)pf->fast.pages);
        return NULL;
    }
    if (cht_pf_lost(pf, page))
        return cht_page_tell_lost(pf, page, err);
    const uint8_t *p = pf->fast.base + page * CHT_PAGE;
    uint32_t sum = 0;
    if (pf->sums != NULL) {
        if (cht_sums_get(pf->sums, pf->kind, page, &sum, err) != CHT_OK)
            return NULL;
    } else {
        sum = cht_get32(p + CHT_PAGE - 4);
    }
    static const uint8_t zeros[CHT_PAGE];
    bool good;
    if (sum == 0)
        good = memcmp(p, zeros, CHT_PAGE) == 0;
    else if (pf->sums != NULL)
        good = cht_page_sum(p) == sum;
    else
        good = cht_crc32c(0, p, CHT_PAGE - 4) == sum;
    if (cht_pf_lost(pf, page))
        return cht_page_tell_lost(pf, page, err);
    if (!good) {
        atomic_fetch_add_explicit(&pf->corrupt, 1, memory_order_relaxed);
        (void)CHT_DAMAGED(err, "%s: page %llu (offset %llu) does not match its checksum", cht_pf_path(pf),
                          (unsigned long long)page, (unsigned long long)page * CHT_PAGE);
        return NULL;
    }
    cht_page_mark_verified(pf, page);
    atomic_thread_fence(
        memory_order_seq_cst); /* either the handler clears what was just set, or it is seen here */
    if (!cht_pf_lost(pf, page))
        return p;
    cht_page_unverify(pf, page);
    return cht_page_tell_lost(pf, page, err);
}

/* ---- the sums file -------------------------------------------------------------------------------------------- */

uint64_t cht_sums_page(enum cht_pf_kind kind, uint64_t page)
{
    return 1 + page / CHT_SUMS_PER_PAGE * 4 + (uint64_t)kind;
}

/* NOLINTNEXTLINE(misc-no-recursion): likewise */
enum cht_rc cht_sums_get(struct cht_pagefile *sums, enum cht_pf_kind kind, uint64_t page, uint32_t *sum,
                         struct cht_err *err)
{
    uint64_t sp = cht_sums_page(kind, page);
    if (sp >= sums->fast.pages) {
        *sum = 0;
        return CHT_OK;
    }
    const uint8_t *p = cht_page_read(sums, sp, err);
    if (p == NULL)
        return CHT_CORRUPT;
    *sum = cht_get32(p + page % CHT_SUMS_PER_PAGE * 4);
    return CHT_OK;
}

enum cht_rc cht_pf_scrub_page(struct cht_pagefile *pf, uint64_t page, uint8_t *buf, struct cht_err *err)
{
    enum cht_rc rc = cht_file_read(pf->file, buf, CHT_PAGE, page * CHT_PAGE, err);
    uint32_t sum = 0;
    if (rc == CHT_OK && pf->sums != NULL)
        rc = cht_sums_get(pf->sums, pf->kind, page, &sum, err);
    if (rc != CHT_OK)
        return rc;
    bool good;
    static const uint8_t zeros[CHT_PAGE];
    if (pf->sums == NULL)
        sum = cht_get32(buf + CHT_PAGE - 4);
    if (sum == 0)
        good = memcmp(buf, zeros, CHT_PAGE) == 0;
    else if (pf->sums == NULL)
        good = cht_crc32c(0, buf, CHT_PAGE - 4) == sum;
    else
        good = cht_page_sum(buf) == sum;
    if (good)
        return CHT_OK;
    return CHT_DAMAGED(err, "%s: page %llu (offset %llu) does not match its checksum", cht_pf_path(pf),
                       (unsigned long long)page, (unsigned long long)(page * CHT_PAGE));
}
