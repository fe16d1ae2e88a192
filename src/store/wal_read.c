/* wal_read: one segment of the log, read piece by piece in memory of known size. What is read for: wal_replay.c, wal_kept.c. */
#include "store/wal_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"

#include <string.h>

enum cht_rc cht_wal_reader_open(struct cht_wal *w, const struct cht_wal_seg *seg, bool writable, size_t chunk,
                                struct cht_wal_reader *r, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    memset(r, 0, sizeof *r);
    r->w = w;
    r->seg = seg;
    r->chunk = chunk;
    enum cht_rc rc = cht_wal_path(w, seg->number, path, sizeof path, err);
    if (rc == CHT_OK)
        rc = cht_io_open(w->io, path, writable ? 0 : CHT_OPEN_RDONLY, &r->f, err);
    if (rc == CHT_OK)
        rc = w->io->ops->size(r->f, &r->size, err);
    if (rc == CHT_OK) {
        r->buf = cht_aligned_alloc(4096, chunk);
        if (r->buf == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory to read the log", path);
    }
    return rc;
}

void cht_wal_reader_close(struct cht_wal_reader *r)
{
    cht_file_close(r->f);
    cht_free(r->buf);
    memset(r, 0, sizeof *r);
}

/* n <= r->chunk bytes at off, which the file has; valid until the next call. */
enum cht_rc cht_wal_fetch(struct cht_wal_reader *r, uint64_t off, size_t n, const uint8_t **p,
                          struct cht_err *err)
{
    if (off < r->off || off + n > r->off + r->len) {
        size_t want = r->size - off < r->chunk ? (size_t)(r->size - off) : r->chunk;
        r->len = 0;
        enum cht_rc rc = cht_file_read(r->f, r->buf, want, off, err);
        if (rc != CHT_OK)
            return rc;
        r->off = off;
        r->len = want;
    }
    *p = r->buf + (off - r->off);
    return CHT_OK;
}

/* The header of a record at p, with `left` bytes of the file from there on. False if W1 does not hold. */
bool cht_wal_parse_head(const uint8_t *p, uint64_t left, struct cht_wal_head *rec)
{
    rec->len = cht_get64(p + 8);
    rec->seq = cht_get64(p + 16);
    rec->synced = cht_get64(p + 24);
    return cht_get32(p + 4) == 0 && rec->len <= left - CHT_WAL_RECORD;
}

/* W2, piece by piece: a length that is not yet known to be true must not decide how much memory is taken. */
enum cht_rc cht_wal_check_crc(struct cht_wal_reader *r, uint64_t off, const struct cht_wal_head *rec,
                              bool *good, struct cht_err *err)
{
    const uint8_t *p;
    uint64_t end = off + CHT_WAL_RECORD + rec->len;
    size_t n = end - off < r->chunk ? (size_t)(end - off) : r->chunk;
    enum cht_rc rc = cht_wal_fetch(r, off, n, &p, err);
    if (rc != CHT_OK)
        return rc;
    uint32_t want = cht_get32(p), crc = cht_crc32c(r->seg->seed, p + 4, n - 4);
    for (off += n; off < end && rc == CHT_OK; off += n) {
        n = end - off < r->chunk ? (size_t)(end - off) : r->chunk;
        rc = cht_wal_fetch(r, off, n, &p, err);
        if (rc == CHT_OK)
            crc = cht_crc32c(crc, p, n);
    }
    *good = rc == CHT_OK && crc == want;
    return rc;
}
