/* wal_replay: reading the log when a database is opened or checked. The format is in wal.h, writing in wal.c.
 *
 *     segments:  [ not needed ] ... [ start ] [ full ] ... [ tail ] ( leftover )
 *
 *     start     the newest segment whose first_seq <= from + 1
 *     full      read up to the first_seq of the segment after it. Its records were on disk before that one got its header
 *               (S1 in wal.c), so a bad record here is damage
 *     tail      the newest segment with a valid header. It ends with its first bad record, unless something proves that
 *               this record, or one after it, had been on disk: damage then
 *     leftover  at most one file after the tail whose header was never on disk: ignored, its number is used again
 *
 * Proofs that record m was on disk: D1 a valid record of the segment, anywhere after, whose `synced` >= m (looked for at
 * every 8 bytes); D2 a newer segment with a valid header and first_seq > m; D3 m <= known; D4 a file without a valid
 * header whose first record has the next number: records are only written once the header is on disk.
 *
 * Before the records of the tail are handed out, its unproven bytes are written again and synced. They may be in the page
 * cache only: the process may have been killed before its sync, or its sync may have failed, after which the kernel takes
 * the pages for clean. A checkpoint made during or after the replay must not be ahead of the disk.
 *
 * Memory: one chunk; a record longer than that gets a buffer of its own while it is handed out.
 */
#include "store/wal_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK (4u << 20)

/* A position in a segment, and what was found out on the way to it. */
struct cursor {
    uint64_t off;
    uint64_t expect;   /* the number of the record that should be at off */
    uint64_t unproven; /* from here on nothing read so far proves that the bytes are on disk */
};

struct target {
    uint64_t from;
    cht_wal_fn *fn; /* NULL: only validate */
    void *ctx;
};

static enum cht_rc read_record(struct cht_wal_reader *r, const struct cursor *c, struct cht_wal_head *rec,
                               bool *good, struct cht_err *err)
{
    const uint8_t *p;
    *good = false;
    if (c->off > r->size || r->size - c->off < CHT_WAL_RECORD)
        return CHT_OK;
    enum cht_rc rc = cht_wal_fetch(r, c->off, CHT_WAL_RECORD, &p, err);
    if (rc == CHT_OK && cht_wal_parse_head(p, r->size - c->off, rec) && rec->seq == c->expect)
        rc = cht_wal_check_crc(r, c->off, rec, good, err);
    return rc;
}

static enum cht_rc deliver(struct cht_wal_reader *r, uint64_t off, const struct cht_wal_head *rec,
                           const struct target *t, struct cht_err *err)
{
    const uint8_t *p = NULL;
    uint8_t *own = NULL;
    enum cht_rc rc = CHT_OK;
    if (CHT_WAL_RECORD + rec->len <= CHUNK) {
        rc = cht_wal_fetch(r, off, (size_t)(CHT_WAL_RECORD + rec->len), &p, err);
        p = rc == CHT_OK ? p + CHT_WAL_RECORD : NULL;
    } else {
        p = own = cht_malloc((size_t)rec->len);
        if (own == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for a record of %" PRIu64 " bytes", r->f->path,
                            rec->len);
        rc = cht_file_read(r->f, own, (size_t)rec->len, off + CHT_WAL_RECORD, err);
    }
    if (rc == CHT_OK)
        rc = t->fn(t->ctx, rec->seq, p, (size_t)rec->len, err);
    if (rc == CHT_OK)
        cht_wal_count(r->w, rec->seq, cht_wal_room(rec->len));
    cht_free(own);
    return rc;
}

/* Up to record `stop` (0: none) or the first one that is not valid. */
static enum cht_rc walk(struct cht_wal_reader *r, struct cursor *c, uint64_t stop, const struct target *t,
                        struct cht_err *err)
{
    while (c->expect != stop) {
        struct cht_wal_head rec;
        bool good;
        enum cht_rc rc = read_record(r, c, &rec, &good, err);
        if (rc == CHT_OK && good && t->fn != NULL && rec.seq > t->from)
            rc = deliver(r, c->off, &rec, t, err);
        if (rc != CHT_OK || !good)
            return rc;
        if (rec.synced + 1 >= rec.seq)
            c->unproven = c->off;
        c->off += cht_wal_room(rec.len);
        c->expect++;
    }
    return CHT_OK;
}

static enum cht_rc damaged(struct cht_wal_reader *r, const struct cursor *c, const char *why, uint64_t proof,
                           struct cht_err *err)
{
    return CHT_DAMAGED(err, "%s: offset %" PRIu64 ": log record %" PRIu64 " is damaged: %s %" PRIu64,
                       r->f->path, c->off, c->expect, why, proof);
}

/* D1: is there a valid record after the end that was written when the missing one was on disk? A record of this segment
 * has one of the next numbers, so nearly every position is told by that alone. */
static enum cht_rc look_behind(struct cht_wal_reader *r, const struct cursor *c, struct cht_err *err)
{
    uint64_t most = r->size / CHT_WAL_RECORD;
    for (uint64_t off = c->off; off < r->size && r->size - off >= CHT_WAL_RECORD; off += 8) {
        const uint8_t *p;
        struct cht_wal_head rec;
        bool good = false;
        enum cht_rc rc = cht_wal_fetch(r, off, CHT_WAL_RECORD, &p, err);
        if (rc != CHT_OK)
            return rc;
        if (!cht_wal_parse_head(p, r->size - off, &rec) || rec.seq - c->expect - 1 >= most ||
            rec.synced < c->expect || rec.synced >= rec.seq)
            continue;
        rc = cht_wal_check_crc(r, off, &rec, &good, err);
        if (rc != CHT_OK)
            return rc;
        if (good)
            return damaged(r, c, "it was on disk when the record was written that is at offset", off, err);
    }
    return CHT_OK;
}

/* Writes the unproven bytes of the tail again, and its header if no record proves that. */
static enum cht_rc secure(struct cht_wal_reader *r, const struct cursor *c, struct cht_err *err)
{
    uint64_t off = c->off == CHT_WAL_HEADER ? 0 : c->unproven;
    uint64_t end = c->off < r->size ? c->off : r->size;
    while (off < end) {
        const uint8_t *p;
        size_t n = end - off < CHUNK ? (size_t)(end - off) : CHUNK;
        enum cht_rc rc = cht_wal_fetch(r, off, n, &p, err);
        if (rc == CHT_OK)
            rc = cht_file_write(r->f, p, n, off, err);
        if (rc != CHT_OK)
            return rc;
        atomic_fetch_add_explicit(&r->w->written, n, memory_order_relaxed);
        off += n;
    }
    return cht_file_sync(r->f, err);
}

/* A segment that has another after it. */
static enum cht_rc replay_full(struct cht_wal *w, size_t i, const struct target *t, struct cht_err *err)
{
    struct cht_wal_reader r;
    struct cursor c = {CHT_WAL_HEADER, w->segs[i].first_seq, CHT_WAL_HEADER};
    uint64_t stop = w->segs[i + 1].first_seq;
    enum cht_rc rc = cht_wal_reader_open(w, &w->segs[i], false, CHUNK, &r, err);
    if (rc == CHT_OK)
        rc = walk(&r, &c, stop, t, err);
    if (rc == CHT_OK && c.expect != stop)
        rc = damaged(&r, &c, "the next segment begins with record", stop, err);
    cht_wal_reader_close(&r);
    return rc;
}

/* The newest segment. *next: the number after its last record. */
static enum cht_rc replay_tail(struct cht_wal *w, size_t i, const struct target *t, uint64_t known,
                               uint64_t *next, struct cht_err *err)
{
    static const struct target nobody = {0, NULL, NULL};
    struct cht_wal_reader r;
    const struct cursor begin = {CHT_WAL_HEADER, w->segs[i].first_seq, CHT_WAL_HEADER};
    struct cursor c = begin;
    bool unsure = !w->read_only && !cht_wal_clean(w);
    enum cht_rc rc = cht_wal_reader_open(w, &w->segs[i], unsure, CHUNK, &r, err);
    if (rc == CHT_OK)
        rc = walk(&r, &c, 0, &nobody, err);
    if (rc == CHT_OK)
        rc = look_behind(&r, &c, err);
    if (rc == CHT_OK && c.expect <= known)
        rc = damaged(&r, &c, "a checkpoint holds records up to", known, err);
    if (rc == CHT_OK && unsure)
        rc = secure(&r, &c, err);
    struct cursor again = begin;
    if (rc == CHT_OK)
        rc = walk(&r, &again, c.expect, t, err);
    if (rc == CHT_OK && again.expect != c.expect)
        rc = damaged(&r, &again, "it was valid a moment ago; now the log ends before", c.expect, err);
    *next = c.expect;
    cht_wal_reader_close(&r);
    return rc;
}

/* D4 for the file after the tail, whose first record would be number `next`. */
static enum cht_rc check_leftover(struct cht_wal *w, const struct cht_wal_seg *seg, uint64_t next,
                                  struct cht_err *err)
{
    struct cht_wal_reader r;
    const uint8_t *p = NULL;
    struct cht_wal_head rec;
    enum cht_rc rc = cht_wal_reader_open(w, seg, false, CHUNK, &r, err);
    if (rc == CHT_OK && r.size >= CHT_WAL_HEADER + CHT_WAL_RECORD)
        rc = cht_wal_fetch(&r, CHT_WAL_HEADER, CHT_WAL_RECORD, &p, err);
    if (rc == CHT_OK && p != NULL && cht_wal_parse_head(p, r.size - CHT_WAL_HEADER, &rec) && rec.seq == next)
        rc = CHT_DAMAGED(err, "%s: offset 0: the header is damaged: record %" PRIu64 " follows it", r.f->path,
                         next);
    cht_wal_reader_close(&r);
    return rc;
}

static enum cht_rc bad_header(struct cht_wal *w, const struct cht_wal_seg *seg, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_wal_path(w, seg->number, path, sizeof path, err);
    if (rc != CHT_OK)
        return rc;
    return CHT_DAMAGED(err, "%s: offset 0: %s", path,
                       seg->state == CHT_WAL_BLANK   ? "there is no header"
                       : seg->state == CHT_WAL_STALE ? "the header is that of another segment"
                                                     : "the header does not match its checksum");
}

/* No segment has a valid header: a log that was never written to, or all of it is lost. */
static enum cht_rc replay_nothing(struct cht_wal *w, uint64_t known, struct cht_err *err)
{
    if (w->nsegs > 1 || (w->nsegs == 1 && known > 0))
        return bad_header(w, &w->segs[0], err);
    if (known > 0)
        return CHT_DAMAGED(err, "%s: no log segment, but a checkpoint holds records up to %" PRIu64, w->dir,
                           known);
    return w->nsegs == 0 ? CHT_OK : check_leftover(w, &w->segs[0], 1, err);
}

/* The newest segment that begins at or before record `first`; nsegs if there is none. */
static size_t find_start(const struct cht_wal *w, uint64_t first)
{
    size_t start = w->nsegs;
    for (size_t i = 0; i < w->nsegs; i++) {
        if (w->segs[i].state == CHT_WAL_VALID && w->segs[i].first_seq <= first)
            start = i;
    }
    return start;
}

/* From start on: numbers without a hole, first_seq ascending, every header valid but perhaps that of the newest file.
 * *tail: the last one with a valid header. */
static enum cht_rc check_chain(struct cht_wal *w, size_t start, size_t *tail, struct cht_err *err)
{
    for (*tail = start; *tail + 1 < w->nsegs; ++*tail) {
        const struct cht_wal_seg *a = &w->segs[*tail], *b = a + 1;
        if (b->number != a->number + 1)
            return CHT_DAMAGED(err, "%s/%016" PRIx64 ".log: offset 0: the segment is missing", w->dir,
                               a->number + 1);
        if (b->state != CHT_WAL_VALID)
            return *tail + 2 == w->nsegs ? CHT_OK : bad_header(w, b, err);
        if (b->first_seq < a->first_seq)
            return CHT_DAMAGED(err,
                               "%s/%016" PRIx64 ".log: offset 48: begins with record %" PRIu64
                               ", the segment before with %" PRIu64,
                               w->dir, b->number, b->first_seq, a->first_seq);
    }
    return CHT_OK;
}

/* Everything has been read: where writing goes on. */
static void settle(struct cht_wal *w, size_t count, uint64_t next, uint64_t from)
{
    w->leftover = count < w->nsegs ? w->segs[count].size : 0;
    w->remains = count < w->nsegs;
    if (count > 0)
        w->next_number = w->segs[count - 1].number + 1;
    else
        w->next_number = w->nsegs > 0 ? w->segs[0].number : 1;
    w->nsegs = count;
    w->trimmed = from < next - 1 ? from : next - 1;
    atomic_store_explicit(&w->origin, count > 0 ? w->segs[count - 1].origin : 0, memory_order_relaxed);
    atomic_store_explicit(&w->seq, next - 1, memory_order_release);
    atomic_store_explicit(&w->synced, next - 1, memory_order_release);
    w->replayed = true;
}

/* -------------------------------------------------------------------------------------------------------------- */

enum cht_rc cht_wal_replay(struct cht_wal *w, uint64_t from, uint64_t known, cht_wal_fn *fn, void *ctx,
                           struct cht_err *err)
{
    CHT_INVARIANT(!w->replayed);
    const struct target t = {from, fn, ctx};
    bool any = from == UINT64_MAX; /* nothing is needed: validate the newest segment */
    size_t start = find_start(w, any ? from : from + 1), tail = 0;
    uint64_t next = 1;
    known = any || known > from ? known : from;
    if (start == w->nsegs) {
        size_t oldest = 0;
        while (oldest < w->nsegs && w->segs[oldest].state != CHT_WAL_VALID)
            oldest++;
        if (oldest < w->nsegs)
            return CHT_DAMAGED(err,
                               "%s/%016" PRIx64 ".log: offset 48: the log begins with record %" PRIu64
                               ", records from %" PRIu64 " on are needed",
                               w->dir, w->segs[oldest].number, w->segs[oldest].first_seq, from + 1);
        enum cht_rc rc = replay_nothing(w, known, err);
        if (rc == CHT_OK)
            settle(w, 0, 1, 0);
        return rc;
    }
    enum cht_rc rc = check_chain(w, start, &tail, err);
    for (size_t i = start; i < tail && rc == CHT_OK; i++)
        rc = replay_full(w, i, &t, err);
    if (rc == CHT_OK)
        rc = replay_tail(w, tail, &t, known, &next, err);
    if (rc == CHT_OK && tail + 1 < w->nsegs)
        rc = check_leftover(w, &w->segs[tail + 1], next, err);
    if (rc == CHT_OK)
        settle(w, tail + 1, next, from);
    return rc;
}
