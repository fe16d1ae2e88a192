/* journal: see journal.h for the format and why it is enough. */
#include "store/journal.h"

#include "base/alloc.h"
#include "base/crc32c.h"
#include "store/snapshot.h"

#include <stdio.h>
#include <string.h>

#define RECORD_HEAD 16u
#define MERGE_GAP 32u     /* equal bytes between two changes that are cheaper to write than to leave out */
#define WHOLE_ABOVE 3072u /* changed bytes from which on the whole page is kept as one range */
#define CHT_RANGES_MAX (CHT_PAGE / MERGE_GAP)
#define RECORD_MAX (RECORD_HEAD + 4 * CHT_RANGES_MAX + CHT_PAGE + 8)

static const char magic[8] = "CHEETAHJ";

struct range {
    uint16_t off, len;
};

/* The byte ranges (of whole words) in which two pages differ. */
static size_t diff_pages(const uint8_t *a, const uint8_t *b, struct range *out, size_t *bytes)
{
    size_t n = 0;
    *bytes = 0;
    for (unsigned i = 0; i < CHT_PAGE; i += 8) {
        if (cht_get64(a + i) == cht_get64(b + i))
            continue;
        if (n > 0 && i - (out[n - 1].off + out[n - 1].len) < MERGE_GAP)
            out[n - 1].len = (uint16_t)(i + 8 - out[n - 1].off);
        else
            out[n++] = (struct range){(uint16_t)i, 8};
    }
    for (size_t i = 0; i < n; i++)
        *bytes += out[i].len;
    if (*bytes > WHOLE_ABOVE) {
        out[0] = (struct range){0, (uint16_t)CHT_PAGE};
        *bytes = CHT_PAGE;
        n = 1;
    }
    return n;
}

static enum cht_rc flush(struct cht_journal *j, struct cht_err *err)
{
    if (j->used == 0)
        return CHT_OK;
    j->crc = cht_crc32c(j->crc, j->buf, j->used);
    enum cht_rc rc = cht_file_write(j->file, j->buf, j->used, CHT_JOURNAL_HEADER + j->body - j->used, err);
    j->used = 0;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_journal_open(struct cht_shard *sh, bool read_only, struct cht_journal *j, struct cht_err *err)
{
    memset(j, 0, sizeof *j);
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_path_join(path, sizeof path, sh->path, "journal", err);
    if (rc == CHT_OK && !read_only)
        rc = cht_pf_same(sh->pf[CHT_PF_KEYS], err);
    if (rc == CHT_OK)
        rc = cht_io_open(sh->io, path, read_only ? CHT_OPEN_RDONLY : CHT_OPEN_CREATE, &j->file, err);
    if (rc == CHT_OK) {
        j->buf = cht_malloc(CHT_JOURNAL_STAGE);
        if (j->buf == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    }
    if (rc != CHT_OK)
        cht_journal_close(j);
    return rc;
}

void cht_journal_close(struct cht_journal *j)
{
    cht_file_close(j->file);
    cht_free(j->buf);
    memset(j, 0, sizeof *j);
}

enum cht_rc cht_journal_add(struct cht_journal *j, struct cht_pagefile *pf, uint64_t page, const uint8_t *now,
                            uint32_t sum, uint8_t *home, struct cht_err *err)
{
    struct range ranges[CHT_RANGES_MAX + 1];
    size_t bytes;
    enum cht_rc rc = cht_file_read(pf->file, home, CHT_PAGE, page * CHT_PAGE, err);
    if (rc != CHT_OK && rc != CHT_IO)
        return rc;
    size_t n = 1;
    if (rc == CHT_OK)
        n = diff_pages(home, now, ranges, &bytes);
    else /* unreadable by now: the page as it is in memory does not need it, and writing it may give it a good sector */
        ranges[0] = (struct range){0, (uint16_t)CHT_PAGE};
    if (n == 0)
        return CHT_OK;
    if (CHT_JOURNAL_STAGE - j->used < RECORD_MAX && (rc = flush(j, err)) != CHT_OK)
        return rc;
    uint8_t *r = j->buf + j->used, *p = r + RECORD_HEAD + 4 * n;
    memset(r, 0, RECORD_HEAD);
    r[0] = (uint8_t)pf->kind;
    cht_put16(r + 2, (uint16_t)n);
    cht_put32(r + 4, sum);
    cht_put64(r + 8, page);
    for (size_t i = 0; i < n; i++) {
        cht_put16(r + RECORD_HEAD + 4 * i, ranges[i].off);
        cht_put16(r + RECORD_HEAD + 4 * i + 2, ranges[i].len);
        memcpy(p, now + ranges[i].off, ranges[i].len);
        p += ranges[i].len;
    }
    while ((p - r) % 8 != 0)
        *p++ = 0;
    j->used += (size_t)(p - r);
    j->body += (uint64_t)(p - r);
    j->records++;
    return CHT_OK;
}

enum cht_rc cht_journal_commit(struct cht_journal *j, struct cht_shard *sh, uint64_t generation,
                               struct cht_err *err)
{
    enum cht_rc rc = flush(j, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t h[CHT_JOURNAL_HEADER] = {0};
    memcpy(h, magic, 8);
    cht_put32(h + 8, CHT_FORMAT_VERSION);
    memcpy(h + 16, sh->uuid, 16);
    cht_put32(h + 32, sh->index);
    cht_put32(h + 36, j->crc);
    cht_put64(h + 40, generation);
    cht_put64(h + 48, j->body);
    cht_put64(h + 56, j->records);
    cht_put32(h + 508, cht_crc32c(0, h, 508));
    rc = cht_file_write(j->file, h, sizeof h, 0, err);
    j->sealed = rc == CHT_OK || !cht_rc_passing(rc);
    return rc == CHT_OK ? cht_file_sync(j->file, err) : rc;
}

/* Puts one record's bytes in place. r holds the whole record. */
static enum cht_rc apply_record(struct cht_shard *sh, const uint8_t *r, bool in_memory, bool verify,
                                struct cht_err *err)
{
    struct cht_pagefile *pf = sh->pf[r[0]];
    uint64_t page = cht_get64(r + 8);
    unsigned n = cht_get16(r + 2);
    uint8_t copy[CHT_PAGE], *p = copy;
    enum cht_rc rc = CHT_OK;
    /* While the shard is in use file_pages grows under a lock that is not held here, and home_pages is the end. */
    if (page >= (verify ? pf->file_pages : pf->home_pages))
        return CHT_DAMAGED(err, "%s: journal names page %llu past the end", cht_pf_path(pf),
                           (unsigned long long)page);
    bool whole = n == 1 && cht_get16(r + RECORD_HEAD + 2) == CHT_PAGE; /* nothing of the old one is needed */
    if (in_memory)
        p = pf->fast.base + page * CHT_PAGE;
    else if (!whole)
        rc = cht_file_read(pf->file, copy, CHT_PAGE, page * CHT_PAGE, err);
    if (rc == CHT_OK && !in_memory)
        cht_snapshot_save(pf, page, 1, whole ? NULL : copy);
    const uint8_t *src = r + RECORD_HEAD + 4 * n;
    for (unsigned i = 0; i < n && rc == CHT_OK; i++) {
        unsigned off = cht_get16(r + RECORD_HEAD + 4 * i), len = cht_get16(r + RECORD_HEAD + 4 * i + 2);
        memcpy(p + off, src, len);
        src += len;
    }
    if (in_memory && whole)
        cht_fault_found(&pf->fast.fault, page);
    bool sums = pf->kind == CHT_PF_SUMS;
    if (rc == CHT_OK && verify &&
        (sums ? cht_crc32c(0, p, CHT_PAGE - 4) : cht_page_sum(p)) != cht_get32(r + 4))
        rc = CHT_DAMAGED(err, "%s: page %llu does not match its checksum after the journal was applied",
                         cht_pf_path(pf), (unsigned long long)page);
    if (rc == CHT_OK && !in_memory) {
        rc = cht_file_write(pf->file, p, CHT_PAGE, page * CHT_PAGE, err);
        atomic_store_explicit(&pf->unsynced, true, memory_order_relaxed);
        atomic_fetch_add_explicit(&pf->written, CHT_PAGE, memory_order_relaxed);
    }
    return rc;
}

/* The length of the record at r (avail bytes are there), 0 if it is not whole, SIZE_MAX if it is wrong. */
static size_t record_length(const uint8_t *r, size_t avail)
{
    if (avail < RECORD_HEAD)
        return 0;
    unsigned n = cht_get16(r + 2);
    if (r[0] >= CHT_PF_KINDS || n == 0 || n > CHT_RANGES_MAX)
        return SIZE_MAX;
    size_t len = RECORD_HEAD + 4 * (size_t)n;
    if (avail < len)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned off = cht_get16(r + RECORD_HEAD + 4 * i), bytes = cht_get16(r + RECORD_HEAD + 4 * i + 2);
        if (off + bytes > CHT_PAGE)
            return SIZE_MAX;
        len += bytes;
    }
    len = (len + 7) & ~(size_t)7;
    return avail < len ? 0 : len;
}

enum cht_rc cht_journal_apply(struct cht_journal *j, struct cht_shard *sh, bool in_memory, bool verify,
                              struct cht_err *err)
{
    uint64_t done = 0;
    while (done < j->body) {
        size_t want = j->body - done < CHT_JOURNAL_STAGE ? (size_t)(j->body - done) : CHT_JOURNAL_STAGE;
        enum cht_rc rc = cht_file_read(j->file, j->buf, want, CHT_JOURNAL_HEADER + done, err);
        size_t pos = 0, len = 0;
        while (rc == CHT_OK && (len = record_length(j->buf + pos, want - pos)) != 0 && len != SIZE_MAX) {
            rc = apply_record(sh, j->buf + pos, in_memory, verify, err);
            pos += len;
        }
        if (rc != CHT_OK)
            return rc;
        if (pos == 0 || len == SIZE_MAX)
            return CHT_DAMAGED(err, "%s/journal: offset %llu: not a record", sh->path,
                               (unsigned long long)(CHT_JOURNAL_HEADER + done + pos));
        done += pos;
    }
    return CHT_OK;
}

enum cht_rc cht_journal_drop(struct cht_journal *j, struct cht_err *err)
{
    /* Durable before any page named in it is changed again by other means than a journal (direct writes, released pages):
     * applied over such a page the differences would spoil it. */
    enum cht_rc rc = j->file->io->ops->truncate(j->file, 0, err);
    return rc == CHT_OK ? cht_file_sync(j->file, err) : rc;
}

/* Reads and checks header and body; *whole says whether the journal counts. */
static enum cht_rc check_journal(struct cht_journal *j, struct cht_shard *sh, bool *whole,
                                 struct cht_err *err)
{
    uint8_t h[CHT_JOURNAL_HEADER];
    size_t got;
    uint64_t size;
    *whole = false;
    enum cht_rc rc = j->file->io->ops->size(j->file, &size, err);
    if (rc == CHT_OK)
        rc = cht_file_read_some(j->file, h, sizeof h, 0, &got, err);
    if (rc != CHT_OK || got < sizeof h || memcmp(h, magic, 8) != 0 ||
        cht_get32(h + 508) != cht_crc32c(0, h, 508))
        return rc;
    if (cht_get32(h + 8) != CHT_FORMAT_VERSION)
        return CHT_FAIL(err, CHT_VERSION, "%s/journal: format version %u, this program knows %u", sh->path,
                        cht_get32(h + 8), CHT_FORMAT_VERSION);
    if (memcmp(h + 16, sh->uuid, 16) != 0 || cht_get32(h + 32) != sh->index)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "%s/journal: belongs to another shard", sh->path);
    j->body = cht_get64(h + 48);
    j->records = cht_get64(h + 56);
    if (j->body > size - sizeof h)
        return CHT_OK;
    uint32_t crc = 0;
    for (uint64_t done = 0; done < j->body && rc == CHT_OK;) {
        size_t want = j->body - done < CHT_JOURNAL_STAGE ? (size_t)(j->body - done) : CHT_JOURNAL_STAGE;
        rc = cht_file_read(j->file, j->buf, want, CHT_JOURNAL_HEADER + done, err);
        crc = cht_crc32c(crc, j->buf, want);
        done += want;
    }
    *whole = rc == CHT_OK && crc == cht_get32(h + 36);
    return rc;
}

/* A journal that is empty here may not be so on the disk, if the process was killed before it had dropped it: then it is
 * dropped once more. */
static enum cht_rc is_gone(struct cht_journal *j, enum cht_shard_mode mode, bool *gone, struct cht_err *err)
{
    uint64_t size = 1;
    *gone = false;
    enum cht_rc rc = mode == CHT_SHARD_CLEAN ? j->file->io->ops->size(j->file, &size, err) : CHT_OK;
    *gone = rc == CHT_OK && size == 0;
    return rc;
}

enum cht_rc cht_journal_recover(struct cht_shard *sh, enum cht_shard_mode mode, bool *applied,
                                struct cht_err *err)
{
    struct cht_journal j;
    bool read_only = mode == CHT_SHARD_CHECK;
    *applied = false;
    enum cht_rc rc = cht_journal_open(sh, read_only, &j, err);
    if (rc == CHT_NO_FILE && read_only)
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    bool gone, whole = false;
    rc = is_gone(&j, mode, &gone, err);
    if (rc == CHT_OK && !gone)
        rc = check_journal(&j, sh, &whole, err);
    if (rc == CHT_OK && whole) {
        rc = cht_journal_apply(&j, sh, read_only, true, err);
        for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK && !read_only; k++)
            rc = cht_file_sync(sh->pf[k]->file, err);
        *applied = rc == CHT_OK;
    }
    if (rc == CHT_OK && !read_only && !gone)
        rc = cht_journal_drop(&j, err);
    cht_journal_close(&j);
    return rc;
}
