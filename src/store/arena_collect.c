/* arena_collect: pages of blocks smaller than a page, carved for one size, become free pages again when all their blocks are
 * free. A free list knows its blocks only in its own order, so it is walked as a whole, and only when at least half of it was
 * freed since the last time: a freed block costs a constant on average, and the walk finds pages that were just in use.
 *
 * What an arena keeps for good, besides CHT_ARENA_KEEP pages: pages that hold a block in use; of each size a list of less than
 * COLLECT_MIN blocks; pages of which less than half of a list's blocks were freed at a time.
 */
#include "store/arena.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "store/pagefile_int.h"

#include <stdlib.h>
#include <string.h>

#define COLLECT_MIN 512u /* blocks freed */

struct collect {
    struct cht_pagefile *pf;
    unsigned k;
    uint32_t *refs, *sorted; /* owned: the list in its order, and ascending */
    uint32_t n, npages;      /* blocks; pages wholly free, which take the front of `sorted` */
};

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool read_list(struct collect *c)
{
    struct cht_err ignored;
    const uint8_t *h = cht_page_read(c->pf, 0, &ignored);
    uint32_t ref = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 8 * c->k), i = 0;
    for (; i < c->n && ref != 0; i++) {
        c->refs[i] = ref;
        if (cht_arena_next(c->pf, c->k, ref, &ref, &ignored) != CHT_OK)
            return false;
    }
    return ref == 0 && i == c->n; /* else damage: for the check to tell */
}

/* Pages that have all their blocks in the list. */
static void find_pages(struct collect *c)
{
    uint32_t whole = 64u >> c->k;
    memcpy(c->sorted, c->refs, c->n * sizeof *c->sorted);
    qsort(c->sorted, c->n, sizeof *c->sorted, ascending);
    for (uint32_t i = 0, run; i < c->n; i += run) {
        for (run = 1; i + run < c->n && c->sorted[i + run] >> 6 == c->sorted[i] >> 6;)
            run++;
        if (run == whole)
            c->sorted[c->npages++] = c->sorted[i] >> 6;
    }
}

static bool goes(const struct collect *c, uint32_t ref)
{
    uint32_t page = ref >> 6;
    return bsearch(&page, c->sorted, c->npages, sizeof page, ascending) != NULL;
}

/* Everything that can fail: the pages that change. A block that stays changes if the one after it goes. */
static bool obtain(struct collect *c)
{
    struct cht_err ignored;
    if (cht_page_write(c->pf, 0, &ignored) == NULL)
        return false;
    for (uint32_t i = 0; i < c->n; i++) {
        bool change = goes(c, c->refs[i]) || (i + 1 < c->n && goes(c, c->refs[i + 1]));
        if (change && cht_page_write(c->pf, c->refs[i] >> 6, &ignored) == NULL)
            return false;
    }
    return true;
}

/* Links what stays, in its order, then frees the pages. */
static void relink(struct collect *c)
{
    struct cht_err ignored; /* all pages are there for writing: these calls cannot fail */
    uint8_t *head = cht_page_sure(c->pf, 0) + CHT_ARENA_HEADS + 8 * c->k;
    uint32_t left = 0, last = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        if (goes(c, c->refs[i]))
            continue;
        uint8_t *b = last != 0 ? cht_pf_fast(c->pf)->base + (size_t)last * 64 : head;
        if (cht_get32(b) != c->refs[i])
            cht_put32(b, c->refs[i]);
        last = c->refs[i];
        left++;
    }
    uint8_t *end = last != 0 ? cht_pf_fast(c->pf)->base + (size_t)last * 64 : head;
    if (cht_get32(end) != 0)
        cht_put32(end, 0);
    cht_put32(head + 4, left);
    for (uint32_t i = 0; i < c->npages; i++) {
        if (c->k < 6)
            (void)cht_arena_free(c->pf, 6, c->sorted[i] << 6, &ignored);
        else /* off the list of pages: zeros that nothing owns */
            memset(cht_pf_fast(c->pf)->base + (size_t)c->sorted[i] * CHT_PAGE, 0, CHT_PAGE);
    }
    if (c->k == 6)
        cht_arena_say_holes(cht_page_write(c->pf, 0, &ignored));
}

static void collect_class(struct cht_pagefile *pf, unsigned k, uint32_t n)
{
    struct collect c = {.pf = pf, .k = k, .n = n};
    c.refs = cht_malloc(n * sizeof *c.refs);
    c.sorted = cht_malloc(n * sizeof *c.sorted);
    if (c.refs != NULL && c.sorted != NULL && read_list(&c)) {
        find_pages(&c);
        if (c.npages > 0 && obtain(&c))
            relink(&c);
    }
    cht_free(c.refs);
    cht_free(c.sorted);
}

/* Of the sorted pages keeps those that lie in a tail of pages of zeros and free ones; none if the tail is short. */
static void find_tail(struct collect *c)
{
    uint64_t end = cht_pf_pages(c->pf), from = end;
    uint32_t left = c->n;
    for (uint32_t i = 0; i < c->n; i++)
        c->sorted[i] = c->refs[i] >> 6;
    qsort(c->sorted, c->n, sizeof *c->sorted, ascending);
    for (; from > 1; from--) {
        if (left > 0 && c->sorted[left - 1] == from - 1)
            left--;
        else if (!cht_pf_known_zeros(c->pf, from - 1))
            break;
    }
    c->npages = end - from < CHT_CUT_MIN ? 0 : c->n - left;
    memmove(c->sorted, c->sorted + left, c->npages * sizeof *c->sorted);
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_arena_clear_tail(struct cht_pagefile *pf)
{
    uint32_t refs[CHT_ARENA_KEEP], sorted[CHT_ARENA_KEEP];
    struct cht_err ignored;
    const uint8_t *h = cht_page_read(pf, 0, &ignored);
    struct collect c = {.pf = pf, .k = 6, .refs = refs, .sorted = sorted};
    c.n = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 52);
    if (c.n == 0 || c.n > CHT_ARENA_KEEP || !read_list(&c))
        return;
    find_tail(&c);
    if (c.npages > 0 && obtain(&c))
        relink(&c);
}

void cht_arena_collect(struct cht_pagefile *pf)
{
    for (unsigned k = 0; k < 6; k++) {
        if (pf->freed[k] < COLLECT_MIN)
            continue;
        struct cht_err ignored;
        const uint8_t *h = cht_page_read(pf, 0, &ignored);
        uint32_t n = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 8 * k + 4);
        if (n > cht_pf_pages(pf) * 64 || n > (uint64_t)pf->freed[k] * 2)
            continue;
        pf->freed[k] = 0;
        if (n > 0)
            collect_class(pf, k, n);
    }
}

void cht_arena_shorten(struct cht_pagefile *pf, unsigned most)
{
    struct cht_err ignored;
    for (; most > 0; most--) {
        const uint8_t *h = cht_page_read(pf, 0, &ignored);
        uint32_t next, ref = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 48),
                       n = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 52);
        if (n <= CHT_ARENA_KEEP || cht_arena_next(pf, 6, ref, &next, &ignored) != CHT_OK)
            return;
        uint8_t *head = cht_page_write(pf, 0, &ignored),
                *b = head != NULL ? cht_arena_write(pf, ref, &ignored) : NULL;
        if (b == NULL)
            return;
        memset(b, 0, CHT_PAGE);
        cht_arena_say_holes(head);
        cht_put32(head + CHT_ARENA_HEADS + 48, next);
        cht_put32(head + CHT_ARENA_HEADS + 52, n - 1);
    }
}
