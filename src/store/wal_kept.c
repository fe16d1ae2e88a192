/* wal_kept: the log as a record of what changed: segments that stay though no shard needs them, and reading them again.
 *
 *     needed by no shard                      needed by a redo
 *     [ given up ] [ kept ] [ kept ]  |  [ segment ] [ segment, written to ]
 *                  ^ the oldest change that can be told
 *
 * A header with an origin says of all records after it: each upsert names its pair (apply_ops.c), and the number of a change of record s is
 * origin + s. A log begins with one, a time in microseconds (cht_env_config.changes), or without: then the first who asks for changes gets it
 * one, and a segment that says so.
 * From then on each new segment says the same, also after the log was opened again. A program that knows nothing of this leaves zeros
 * there, and so does a restore (cht_wal_forget_changes): an origin of its own begins then, which is higher than all numbers before.
 *
 *   K1 What can be read is a chain from the newest segment back: the same origin, and `prev` of each, the first_seq of the last segment
 *      before it that has records, is there. 0: it is the first.
 *   K2 Kept is what no shard needs, from the newest such segment back, as long as `keep` bytes and CHT_KEPT_MAX files are enough. No room on
 *      the disk: all of it goes.
 *   K3 Reading takes no lock for longer than to look at the list. A segment that left the list was perhaps reused: what was
 *      read counts only if it is still listed afterwards.
 *   K4 What cannot be read is told as gone, and `floor` remembers it.
 */
#include "store/wal_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK (64u << 10)

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* The segment with record `next`; *end: the first record after it. CHT_GONE: none that can be read. */
static enum cht_rc find(struct cht_wal *w, uint64_t next, struct cht_wal_seg *seg, uint64_t *end)
{
    cht_mutex_lock(&w->mu);
    size_t i = w->nsegs, start = cht_wal_chain_locked(w);
    while (i > start && w->segs[i - 1].first_seq > next)
        i--;
    bool ok = i > start && next >= w->floor;
    if (ok) {
        *seg = w->segs[i - 1];
        *end = i < w->nsegs ? w->segs[i].first_seq : UINT64_MAX;
    }
    cht_mutex_unlock(&w->mu);
    return ok ? CHT_OK : CHT_GONE;
}

/* K3. */
static bool listed(struct cht_wal *w, uint64_t number)
{
    bool found = false;
    cht_mutex_lock(&w->mu);
    for (size_t i = w->nsegs; i > 0 && !found; i--)
        found = w->segs[i - 1].number == number;
    cht_mutex_unlock(&w->mu);
    return found;
}

/* K4: record `seq` of the segment cannot be read. */
static enum cht_rc lost(struct cht_wal *w, const struct cht_wal_seg *seg, uint64_t seq, struct cht_err *err)
{
    cht_mutex_lock(&w->mu);
    for (size_t i = 0; i < w->nsegs; i++) {
        if (w->segs[i].number != seg->number)
            continue;
        uint64_t floor = i + 1 < w->nsegs ? w->segs[i + 1].first_seq : seq + 1;
        w->floor = floor > w->floor ? floor : w->floor;
    }
    cht_mutex_unlock(&w->mu);
    return CHT_FAIL(err, CHT_GONE, "log record %" PRIu64 " cannot be read any more", seq);
}

/* From the beginning of a segment to record at->next. */
static enum cht_rc skip_to(struct cht_wal_reader *r, struct cht_wal_place *at, bool *good,
                           struct cht_err *err)
{
    uint64_t seq = r->seg->first_seq, off = CHT_WAL_HEADER;
    enum cht_rc rc = CHT_OK;
    for (*good = true; seq < at->next && *good && rc == CHT_OK; seq++) {
        const uint8_t *p;
        struct cht_wal_head h = {0};
        *good = off <= r->size && r->size - off >= CHT_WAL_RECORD;
        if (*good)
            rc = cht_wal_fetch(r, off, CHT_WAL_RECORD, &p, err);
        if (rc == CHT_OK && *good)
            *good = cht_wal_parse_head(p, r->size - off, &h) && h.seq == seq;
        if (rc == CHT_OK && *good)
            off += cht_wal_room(h.len);
    }
    *at = (struct cht_wal_place){.next = at->next, .number = r->seg->number, .off = off};
    return rc;
}

/* The header of the record at the place; *good: it is one, and all of it is. */
static enum cht_rc look(struct cht_wal_reader *r, struct cht_wal_place *at, struct cht_wal_head *h,
                        bool *good, struct cht_err *err)
{
    const uint8_t *p;
    *good = false;
    if (at->off > r->size || r->size - at->off < CHT_WAL_RECORD)
        return CHT_OK;
    enum cht_rc rc = cht_wal_fetch(r, at->off, CHT_WAL_RECORD, &p, err);
    if (rc != CHT_OK || !cht_wal_parse_head(p, r->size - at->off, h) || h->seq != at->next)
        return rc;
    *good = at->good;
    if (!at->good)
        rc = cht_wal_check_crc(r, at->off, h, good, err);
    at->good = *good;
    return rc;
}

struct follower {
    cht_wal_part_fn *fn;
    void *ctx;
    uint64_t budget;
};

/* The rest of a record whose header is h. *good: false if the segment was taken away meanwhile. */
static enum cht_rc hand_out(struct cht_wal_reader *r, struct cht_wal_place *at, const struct cht_wal_head *h,
                            struct follower *f, bool *good, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (at->inner < h->len && rc == CHT_OK && f->budget > 0) {
        const uint8_t *p;
        uint64_t left = h->len - at->inner, used = 0;
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        rc = cht_wal_fetch(r, at->off + CHT_WAL_RECORD + at->inner, n, &p, err);
        if (rc != CHT_OK)
            return rc;
        *good = listed(r->w, at->number);
        if (!*good)
            return CHT_OK;
        rc = f->fn(f->ctx, at->next, p, n, left, &used, err);
        used = used < left ? used : left;
        at->inner += used;
        f->budget -= used < f->budget ? used : f->budget;
    }
    if (at->inner == h->len && (rc == CHT_OK || rc == CHT_PENDING)) {
        at->off += cht_wal_room(h->len);
        at->next++;
        at->inner = 0;
        at->good = false;
    }
    return rc;
}

static enum cht_rc follow_segment(struct cht_wal_reader *r, struct cht_wal_place *at, uint64_t upto,
                                  struct follower *f, struct cht_err *err)
{
    bool good = true;
    enum cht_rc rc = at->number != r->seg->number ? skip_to(r, at, &good, err) : CHT_OK;
    while (rc == CHT_OK && good && at->next <= upto && f->budget > 0) {
        struct cht_wal_head h = {0};
        rc = look(r, at, &h, &good, err);
        f->budget -= f->budget < CHT_WAL_RECORD ? f->budget : CHT_WAL_RECORD;
        if (rc == CHT_OK && good)
            rc = hand_out(r, at, &h, f, &good, err);
    }
    return rc == CHT_OK && !good ? lost(r->w, r->seg, at->next, err) : rc;
}

/* ---------------------------------------------------------------------------------------------------------------- */

uint64_t cht_wal_origin(const struct cht_wal *w)
{
    return atomic_load_explicit(&w->origin, memory_order_relaxed);
}

enum cht_rc cht_wal_begin_changes(struct cht_wal *w, uint64_t base, struct cht_err *err)
{
    if (cht_wal_origin(w) != 0)
        return CHT_OK;
    uint64_t seq = cht_wal_seq(w);
    atomic_store_explicit(&w->origin, base > seq ? base - seq : 1, memory_order_relaxed);
    enum cht_rc rc = cht_wal_next_segment(w, err);
    if (rc != CHT_OK)
        atomic_store_explicit(&w->origin, 0, memory_order_relaxed);
    return rc;
}

void cht_wal_begin_with_changes(struct cht_wal *w, uint64_t base)
{
    if (w->nsegs == 0 && cht_wal_seq(w) == 0)
        atomic_store_explicit(&w->origin, base, memory_order_relaxed);
}

void cht_wal_span(struct cht_wal *w, struct cht_wal_span *out)
{
    cht_mutex_lock(&w->mu);
    size_t start = cht_wal_chain_locked(w), needed = 0;
    *out = (struct cht_wal_span){.origin = start < w->nsegs ? w->segs[start].origin : 0};
    if (w->nsegs == 0) /* there was no commit yet */
        *out = (struct cht_wal_span){.origin = cht_wal_origin(w), .first = 1};
    if (start < w->nsegs)
        out->first = w->segs[start].first_seq > w->floor ? w->segs[start].first_seq : w->floor;
    while (needed + 1 < w->nsegs && w->segs[needed + 1].first_seq <= w->trimmed + 1)
        needed++;
    for (size_t i = cht_wal_kept_locked(w, needed); i < needed; i++)
        out->kept += w->segs[i].size;
    cht_mutex_unlock(&w->mu);
}

void cht_wal_keep(struct cht_wal *w, uint64_t bytes)
{
    cht_mutex_lock(&w->mu);
    w->keep = bytes;
    cht_mutex_unlock(&w->mu);
}

bool cht_wal_give_up(struct cht_wal *w)
{
    cht_mutex_lock(&w->mu);
    bool any = cht_wal_give_up_locked(w);
    cht_mutex_unlock(&w->mu);
    return any;
}

enum cht_rc cht_wal_follow(struct cht_wal *w, struct cht_wal_place *at, uint64_t upto, uint64_t budget,
                           cht_wal_part_fn *fn, void *ctx, struct cht_err *err)
{
    struct follower f = {fn, ctx, budget};
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && at->next <= upto && f.budget > 0) {
        struct cht_wal_seg seg;
        struct cht_wal_reader r;
        uint64_t end = 0;
        rc = find(w, at->next, &seg, &end);
        if (rc != CHT_OK)
            return CHT_FAIL(err, rc, "the log begins after record %" PRIu64, at->next);
        rc = cht_wal_reader_open(w, &seg, false, CHUNK, &r, err);
        if (rc == CHT_OK)
            rc = follow_segment(&r, at, end - 1 < upto ? end - 1 : upto, &f, err);
        else if (rc == CHT_NO_FILE)
            rc = lost(w, &seg, at->next, err);
        cht_wal_reader_close(&r);
    }
    return rc;
}

void cht_wal_forget_changes(uint8_t header[CHT_WAL_HEAD])
{
    if (cht_get32(header + 508) != cht_crc32c(0, header, 508))
        return; /* opening the database says what is wrong with it */
    memset(header + 56, 0, 16);
    cht_put32(header + 508, cht_crc32c(0, header, 508));
}
