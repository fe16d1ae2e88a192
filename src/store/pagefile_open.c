/* pagefile_open: creating, opening and closing page files (formats in pagefile.h, pagefile_int.h). */
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/pagefile_int.h"

#include <string.h>

static const char magic[8] = "CHEETAHP";

/* Header checksum, and for the sums file the page's own. */
static void seal(uint8_t *page, enum cht_pf_kind kind)
{
    cht_put32(page + CHT_PF_USER_END, cht_crc32c(0, page, CHT_PF_USER_END));
    if (kind == CHT_PF_SUMS)
        cht_put32(page + CHT_PAGE - 4, cht_crc32c(0, page, CHT_PAGE - 4));
}

enum cht_rc cht_pf_create(struct cht_io *io, const char *path, enum cht_pf_kind kind, const uint8_t uuid[16],
                          uint32_t shard, uint32_t shards, struct cht_err *err)
{
    uint8_t page[CHT_PAGE] = {0};
    memcpy(page, magic, 8);
    cht_put32(page + 8, CHT_FORMAT_VERSION);
    cht_put32(page + 12, (uint32_t)kind);
    memcpy(page + 16, uuid, 16);
    cht_put32(page + 32, shard);
    cht_put32(page + 36, shards);
    cht_put64(page + 40, 1);
    seal(page, kind);
    struct cht_file *f;
    enum cht_rc rc = cht_io_open(io, path, CHT_OPEN_CREATE | CHT_OPEN_NOLINK, &f, err);
    if (rc != CHT_OK)
        return rc;
    rc = io->ops->truncate(f, 0, err);
    if (rc == CHT_OK)
        rc = cht_file_write(f, page, CHT_PAGE, 0, err);
    cht_file_close(f);
    return rc;
}

enum cht_rc cht_pf_open(struct cht_io *io, const char *path, enum cht_pf_kind kind, bool read_only,
                        struct cht_pagefile **out, struct cht_err *err)
{
    struct cht_pagefile *pf = cht_calloc(1, sizeof *pf);
    if (pf == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    pf->kind = kind;
    pf->read_only = read_only;
    pf->use_spare = true; /* a recovery needs what the one before it had */
    uint64_t size = 0;
    enum cht_rc rc = cht_io_open(io, path, CHT_OPEN_REST | (read_only ? CHT_OPEN_RDONLY : 0), &pf->file, err);
    if (rc == CHT_OK)
        rc = io->ops->size(pf->file, &size, err);
    if (rc == CHT_OK && kind == CHT_PF_KEYS) /* one of a folder is enough */
        rc = cht_io_note(io, path, &pf->id, err);
    if (rc == CHT_OK && size < CHT_PAGE)
        rc = CHT_DAMAGED(err, "%s: %llu bytes, shorter than its header", path, (unsigned long long)size);
    pf->file_pages = size / CHT_PAGE;
    pf->map_pages = CHT_PF_MAP_MIN / CHT_PAGE;
    while (pf->map_pages < pf->file_pages * 2)
        pf->map_pages *= 2;
    size_t words = (size_t)(pf->map_pages / 64);
    if (rc == CHT_OK) {
        pf->fast.verified = cht_calloc(words, 8);
        pf->dirty = cht_calloc(words, 8);
        pf->frozen = cht_calloc(words, 8);
        pf->saved = cht_calloc(words, 8);
        if (!pf->fast.verified || !pf->dirty || !pf->frozen || !pf->saved)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the page bitmaps", path);
    }
    if (rc == CHT_OK)
        rc = io->ops->map(pf->file, (size_t)pf->map_pages * CHT_PAGE, &pf->fast.base, err);
    if (rc == CHT_OK)
        rc = cht_fault_add(&pf->fast.fault, pf->fast.base, (size_t)pf->map_pages * CHT_PAGE,
                           pf->fast.verified, err);
    if (rc != CHT_OK) {
        cht_pf_close(pf);
        return rc;
    }
    *out = pf;
    return CHT_OK;
}

void cht_pf_read_alone(struct cht_pagefile *pf, bool alone)
{
    void (*advise)(struct cht_file *, uint8_t *, size_t, enum cht_io_advice) = pf->file->io->ops->advise;
    if (advise == NULL || pf->fast.alone == alone)
        return;
    advise(pf->file, pf->fast.base, (size_t)pf->map_pages * CHT_PAGE,
           alone ? CHT_ADVICE_ALONE : CHT_ADVICE_AROUND);
    pf->fast.alone = alone;
}

void cht_pf_ask(const struct cht_pagefile *pf, uint64_t off, uint64_t n)
{
    uint64_t first = off / CHT_PAGE, end = pf->fast.pages;
    if (n == 0 || first == 0 || first >= end) /* the header is always there */
        return;
    uint64_t pages = (off % CHT_PAGE + n - 1) / CHT_PAGE + 1;
    pages = pages < end - first ? pages : end - first;
    pf->file->io->ops->advise(pf->file, pf->fast.base + first * CHT_PAGE, (size_t)pages * CHT_PAGE,
                              CHT_ADVICE_SOON);
}

enum cht_rc cht_pf_same(const struct cht_pagefile *pf, struct cht_err *err)
{
    return cht_io_same(pf->file->io, cht_pf_path(pf), pf->id, err);
}

/* The checks of a header in the order that gives the clearest refusal. */
static enum cht_rc check_header(const struct cht_pagefile *pf, const uint8_t uuid[16], uint32_t shard,
                                uint32_t shards, struct cht_err *err)
{
    const uint8_t *h = pf->fast.base;
    const char *path = cht_pf_path(pf);
    bool good = memcmp(h, magic, 8) == 0;
    if (cht_pf_lost(pf, 0))
        return cht_pf_say_lost(pf, 0, err);
    if (!good)
        return CHT_DAMAGED(err, "%s: offset 0: not a cheetah page file", path);
    uint32_t newest = pf->kind == CHT_PF_PAIRS ? CHT_FORMAT_EXPIRY : CHT_FORMAT_VERSION;
    if ((cht_get32(h + 8) < CHT_FORMAT_VERSION || cht_get32(h + 8) > newest) &&
        cht_get32(h + CHT_PF_USER_END) == cht_crc32c(0, h, CHT_PF_USER_END))
        return CHT_FAIL(err, CHT_VERSION, "%s: format version %u, this program knows %u", path,
                        cht_get32(h + 8), newest);
    if (cht_get32(h + CHT_PF_USER_END) != cht_crc32c(0, h, CHT_PF_USER_END))
        return CHT_DAMAGED(err, "%s: offset 0: the header does not match its checksum", path);
    if (cht_get32(h + 12) != (uint32_t)pf->kind)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "%s: is a page file of kind %u, not %d", path,
                        cht_get32(h + 12), (int)pf->kind);
    if (memcmp(h + 16, uuid, 16) != 0)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "%s: belongs to another database", path);
    if (cht_get32(h + 32) != shard || cht_get32(h + 36) != shards)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "%s: is shard %u of %u, not %u of %u", path,
                        cht_get32(h + 32), cht_get32(h + 36), shard, shards);
    if (cht_get64(h + 40) == 0 || cht_get64(h + 40) > pf->file_pages)
        return CHT_DAMAGED(err, "%s: has %llu pages where its header says %llu", path,
                           (unsigned long long)pf->file_pages, (unsigned long long)cht_get64(h + 40));
    return CHT_OK;
}

enum cht_rc cht_pf_attach(struct cht_pagefile *pf, struct cht_pagefile *sums, const uint8_t uuid[16],
                          uint32_t shard, uint32_t shards, struct cht_err *err)
{
    enum cht_rc rc = check_header(pf, uuid, shard, shards, err);
    if (rc != CHT_OK)
        return rc;
    pf->sums = sums;
    pf->fast.pages = pf->home_pages = cht_get64(pf->fast.base + 40);
    uint64_t size = 0; /* a torn append may have left a part of a page, which file_pages does not count */
    if (!pf->read_only)
        rc = pf->file->io->ops->size(pf->file, &size, err);
    if (rc == CHT_OK && size > pf->fast.pages * CHT_PAGE)
        rc = cht_pf_trim(pf, err);
    return rc;
}

static void images_fini(struct cht_pf_images *l)
{
    for (size_t i = 0; i < l->n; i++)
        cht_free(l->v[i].data);
    cht_free(l->v);
    *l = (struct cht_pf_images){0};
}

enum cht_rc cht_pf_reset(struct cht_pagefile *pf, struct cht_err *err)
{
    const struct cht_io_ops *ops = pf->file->io->ops;
    uint64_t size = 0, used = pf->fast.pages > pf->file_pages ? pf->fast.pages : pf->file_pages;
    used = used < pf->map_pages ? used : pf->map_pages; /* the file has grown, and the mapping could not */
    enum cht_rc rc = ops->size(pf->file, &size, err);
    if (rc == CHT_OK)
        rc = ops->discard(pf->file, pf->fast.base, (size_t)used * CHT_PAGE, err);
    if (rc == CHT_OK)
        rc = cht_pf_heal(pf, 0, pf->map_pages, err);
    if (rc == CHT_OK && size < CHT_PAGE)
        rc = CHT_DAMAGED(err, "%s: %llu bytes, shorter than its header", cht_pf_path(pf),
                         (unsigned long long)size);
    if (rc != CHT_OK)
        return rc;
    size_t bytes = (size_t)(pf->map_pages / 64) * 8;
    memset((void *)pf->fast.verified, 0, bytes);
    memset(pf->dirty, 0, bytes);
    memset(pf->frozen, 0, bytes);
    memset(pf->saved, 0, bytes);
    atomic_store_explicit(&pf->dirty_count, 0, memory_order_relaxed);
    pf->frozen_count = pf->frozen_pages = pf->undo_pages = pf->home_pages = pf->fast.pages = 0;
    pf->checkpointing = pf->undo_open = pf->broken = false;
    images_fini(&pf->loose);
    images_fini(&pf->side);
    images_fini(&pf->undo);
    images_fini(&pf->direct);
    pf->file_pages = size / CHT_PAGE;
    return CHT_OK;
}

void cht_pf_close(struct cht_pagefile *pf)
{
    if (pf == NULL)
        return;
    cht_fault_remove(&pf->fast.fault);
    if (pf->fast.base != NULL)
        pf->file->io->ops->unmap(pf->file, pf->fast.base, (size_t)pf->map_pages * CHT_PAGE);
    cht_file_close(pf->file);
    cht_free((void *)pf->fast.verified);
    cht_free(pf->dirty);
    cht_free(pf->frozen);
    cht_free(pf->saved);
    images_fini(&pf->loose);
    images_fini(&pf->side);
    images_fini(&pf->undo);
    images_fini(&pf->direct);
    cht_free(pf->direct_n);
    cht_free(pf);
}

enum cht_rc cht_pf_seal_header(struct cht_pagefile *pf, uint64_t generation, struct cht_err *err)
{
    uint8_t *h = cht_page_write(pf, 0, err);
    if (h == NULL)
        return err != NULL ? err->code : CHT_NO_MEMORY;
    cht_put64(h + 40, pf->fast.pages);
    cht_put64(h + 48, generation);
    seal(h, pf->kind);
    return CHT_OK;
}

uint64_t cht_pf_generation(const struct cht_pagefile *pf) { return cht_get64(pf->fast.base + 48); }
