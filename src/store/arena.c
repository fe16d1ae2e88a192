/* arena: blocks of seven sizes in a page file; format in arena.h. Blocks of one page come from the list of freed pages, else
 * from a page of zeros that was given back, else from the end of the file; smaller ones are carved from a page at once.
 *
 * Of freed pages the list keeps KEEP (`pairs`); further ones become zeros that nothing owns, and the checkpoint that writes
 * them gives their space back. Pages of smaller blocks that are all free are found when many were freed (arena_collect.c).
 */
#include "store/arena.h"

#include "base/bytes.h"
#include "store/pagefile_int.h"

#include <string.h>

#define MAX_PAGES (UINT64_C(1) << 26)

static uint32_t class_units(unsigned k) { return 1u << k; } /* in 64-byte units */

static bool ref_valid(const struct cht_pagefile *pf, unsigned k, uint32_t ref)
{
    return (ref >> 6) > 0 && (ref >> 6) < cht_pf_pages(pf) && (ref & (class_units(k) - 1)) == 0;
}

static enum cht_rc code_of(const struct cht_err *err) { return err->code; }

/* The free block at ref: its next, or damage. */
enum cht_rc cht_arena_next(struct cht_pagefile *pf, unsigned k, uint32_t ref, uint32_t *next,
                           struct cht_err *err)
{
    if (!ref_valid(pf, k, ref))
        return CHT_DAMAGED(err, "%s: free list %u leads to a wrong place %u", cht_pf_path(pf), k, ref);
    const uint8_t *b = cht_arena_read(pf, ref, err);
    if (b == NULL)
        return CHT_CORRUPT;
    if (cht_get32(b + 4) != (CHT_ARENA_FREE ^ k))
        return CHT_DAMAGED(err, "%s: offset %llu: block on free list %u is in use", cht_pf_path(pf),
                           (unsigned long long)ref * 64, k);
    *next = cht_get32(b);
    return CHT_OK;
}

bool cht_arena_has_holes(const struct cht_pagefile *pf)
{
    return cht_get32(cht_pf_fast(pf)->base + 8) >= CHT_FORMAT_HOLES;
}

/* A page of zeros to carve: one that was given back, else a new one. */
static enum cht_rc new_page(struct cht_pagefile *pf, uint64_t *page, struct cht_err *err)
{
    *page = cht_arena_has_holes(pf) ? cht_pf_find_zeros(pf) : 0;
    if (*page != 0)
        return CHT_OK;
    if (cht_pf_pages(pf) >= MAX_PAGES)
        return CHT_FAIL(err, CHT_DISK_FULL, "%s: has its maximum of 256 GiB", cht_pf_path(pf));
    return cht_pf_extend(pf, 1, page, err);
}

/* Carves a page into free blocks of class k and puts them on the list, lowest first. */
static enum cht_rc carve(struct cht_pagefile *pf, unsigned k, struct cht_err *err)
{
    struct cht_err local = {0};
    uint64_t page;
    if (cht_page_write(pf, 0, &local) == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    enum cht_rc rc = new_page(pf, &page, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *p =
        cht_page_write(pf, page, &local); /* a new page needs no image: this fails for one given back only */
    uint8_t *head = cht_page_write(pf, 0, &local);
    if (p == NULL || head == NULL) {
        if (err != NULL)
            *err = local;
        return code_of(&local);
    }
    head += CHT_ARENA_HEADS + 8 * k;
    uint32_t units = class_units(k), next = cht_get32(head);
    for (uint32_t u = 64; u > 0; u -= units) {
        uint8_t *b = p + (size_t)(u - units) * 64;
        cht_put32(b, next);
        cht_put32(b + 4, CHT_ARENA_FREE ^ k);
        next = (uint32_t)page * 64 + u - units;
    }
    cht_put32(head, next);
    cht_put32(head + 4, cht_get32(head + 4) + 64 / units);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_arena_alloc(struct cht_pagefile *pf, unsigned k, uint32_t *ref, struct cht_err *err)
{
    struct cht_err local = {0};
    enum cht_rc rc = CHT_OK;
    const uint8_t *h = cht_page_read(pf, 0, &local);
    if (h != NULL && cht_get32(h + CHT_ARENA_HEADS + 8 * k) == 0) {
        rc = carve(pf, k, &local);
        h = rc == CHT_OK ? cht_page_read(pf, 0, &local) : NULL;
    }
    uint32_t first = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 8 * k), next = 0;
    if (h != NULL)
        rc = cht_arena_next(pf, k, first, &next, &local);
    uint8_t *head = h != NULL && rc == CHT_OK ? cht_page_write(pf, 0, &local) : NULL;
    uint8_t *b = head != NULL ? cht_arena_write(pf, first, &local) : NULL;
    if (b == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    head += CHT_ARENA_HEADS + 8 * k;
    cht_put32(head, next);
    cht_put32(head + 4, cht_get32(head + 4) - 1);
    memset(b, 0, (size_t)64 << k);
    *ref = first;
    return CHT_OK;
}

enum cht_rc cht_arena_free(struct cht_pagefile *pf, unsigned k, uint32_t ref, struct cht_err *err)
{
    if (!ref_valid(pf, k, ref))
        return CHT_DAMAGED(err, "%s: block %u of class %u is out of range", cht_pf_path(pf), ref, k);
    struct cht_err local = {0};
    uint8_t *head = cht_page_write(pf, 0, &local);
    uint8_t *b = head != NULL ? cht_arena_write(pf, ref, &local) : NULL;
    if (b == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    memset(b, 0, (size_t)64 << k);
    if (k < 6)
        pf->freed[k]++;
    else if (pf->kind == CHT_PF_PAIRS && cht_get32(head + CHT_ARENA_HEADS + 8 * k + 4) >= CHT_ARENA_KEEP) {
        cht_arena_say_holes(head);
        return CHT_OK;
    }
    head += CHT_ARENA_HEADS + 8 * k;
    cht_put32(b, cht_get32(head));
    cht_put32(b + 4, CHT_ARENA_FREE ^ k);
    cht_put32(head, ref);
    cht_put32(head + 4, cht_get32(head + 4) + 1);
    return CHT_OK;
}
