/* wal: writing the log: opening, append, sync, trim, close. The format is in wal.h, the segment
 * files are handled in wal_seg.c, reading is in wal_replay.c.
 *
 *     0      512                               pos                size
 *     +------+--------+--------+- - - -+--------+------------------+
 *     | head | record | record |       | record | space            |   space: zeros, or what an older life of the
 *     +------+--------+--------+- - - -+--------+------------------+          segment left (another salt, older seqs)
 *
 * A new segment (reserve), in this order, so that each step proves the ones before:
 *   S1 sync the old segment: a header that can be read says that everything before its first_seq is on disk
 *   S2 reuse: rename the oldest segment that is not needed     create: file, then its space
 *   S3 sync the folder
 *   S4 write the header (a salt of its own, first_seq = the next record), sync
 *   S5 only now records go into it
 * A crash before the end of S4 leaves a newest file without a valid header or without records: replay ignores it and its
 * number is used again. Nothing is lost up to S4, so a full disk or a want of descriptors is told there and the old segment
 * goes on.
 *
 * After a replay the first record goes into a fresh segment, never after the last valid record: the bytes there may be
 * records of this very segment that were never synced, and one of them could follow a new record of the same length.
 *
 * A clean close: C1 delete all segments but the newest (and those that are kept for changes), C2 create a segment that is only a header, C3 sync it and the
 * folder, C4 delete the old newest one, sync the folder. At each point a segment is there that starts at or before the
 * first record that is needed (none is).
 *
 * A log costs what it holds: its first segment after opening is small, each next one twice as long as the one before, up to
 * log_segment_bytes; shorter if the disk has no room for that. Only segments of that full length are kept as spare ones and reused, so a log that is written to for
 * long is as it would be had all of them been long from the start.
 *
 * Locking: sync_mu -> mu. append takes mu for moments only (cht_wal_count); trim deletes files without it.
 * Limitations: the record before a crash has no later record that proves it was synced; if it is damaged afterwards and no
 * checkpoint knows of it, it looks like a torn end. The space after pos is lost when a record does not fit.
 */
#include "store/wal_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"

#include <inttypes.h>
#include <string.h>

#define STAGE_BYTES (1u << 20)
#define LARGE_PART (64u << 10) /* from here on a write of its own costs less than copying */
#define SEGMENT_MIN 8192u /* longer than a page: a log of at most a page is one that was closed cleanly */
#define SEGMENT_FIRST (UINT64_C(64) << 10) /* the first one of a log that is opened */
#define PAYLOAD_MAX (UINT64_C(1) << 40)

/* What counts as live from now on: the bytes from the first mark after the trimmed records on; without such a mark there
 * are less than a step of them, and they are left out. */
static void move_base_locked(struct cht_wal *w)
{
    size_t m = 0;
    while (m < w->nmarks && w->marks[m].seq <= w->trimmed)
        m++;
    uint64_t base = m < w->nmarks ? w->marks[m].total : atomic_load_explicit(&w->total, memory_order_relaxed);
    if (m == 0 && w->nmarks > 0)
        return;
    memmove(w->marks, w->marks + m, (w->nmarks - m) * sizeof *w->marks);
    w->nmarks -= m;
    if (w->nmarks == 0)
        w->mark_step = w->segment_bytes / 64;
    atomic_store_explicit(&w->base, base, memory_order_release);
}

/* ---- failures ------------------------------------------------------------------------------------------------ */

static enum cht_rc check_usable(struct cht_wal *w, struct cht_err *err)
{
    if (!atomic_load_explicit(&w->poisoned, memory_order_acquire))
        return CHT_OK;
    cht_mutex_lock(&w->mu);
    struct cht_err why = w->cause;
    cht_mutex_unlock(&w->mu);
    return CHT_FAIL(err, CHT_READ_ONLY, "the log is not written to any more after: %.150s", why.msg);
}

/* After a failed write or sync nobody knows what is on disk: no more writing, the first cause is kept. */
static enum cht_rc poison(struct cht_wal *w, bool locked, const struct cht_err *err)
{
    if (!locked)
        cht_mutex_lock(&w->mu);
    if (!atomic_load_explicit(&w->poisoned, memory_order_relaxed)) {
        w->cause = *err;
        atomic_store_explicit(&w->poisoned, true, memory_order_release);
    }
    if (!locked)
        cht_mutex_unlock(&w->mu);
    return err->code;
}

/* ---- a new segment ------------------------------------------------------------------------------------------- */

/* How long the next segment is to be. w->size: that of the one that is written to, 0 before the first reserve. */
static uint64_t next_size(const struct cht_wal *w)
{
    uint64_t size = w->size < SEGMENT_FIRST / 2 ? SEGMENT_FIRST : w->size * 2;
    return size < w->segment_bytes ? size : w->segment_bytes;
}

/* S2 to S4; sync_mu and mu held. */
static enum cht_rc switch_locked(struct cht_wal *w, uint64_t need, struct cht_err *err)
{
    struct cht_wal_seg seg = {.number = w->next_number, .size = next_size(w), .state = CHT_WAL_VALID};
    struct cht_file *f;
    bool sealed;
    enum cht_rc rc = cht_wal_same_locked(w, err);
    if (rc == CHT_OK)
        rc = cht_wal_grow_list(w, err);
    if (rc != CHT_OK)
        return rc;
    seg.first_seq = atomic_load_explicit(&w->seq, memory_order_relaxed) + 1;
    cht_wal_link_locked(w, &seg);
    if (need > seg.size)
        seg.size = (need + 4095) & ~UINT64_C(4095);
    if (seg.size == w->segment_bytes && cht_wal_unneeded_locked(w) > 0 && w->segs[0].size == seg.size)
        rc = cht_wal_reuse_locked(w, &seg, &f, &sealed, err);
    else
        rc = cht_wal_create_segment(w, &seg, &f, &sealed, err);
    if (rc == CHT_DISK_FULL && !sealed && cht_wal_give_up_locked(w))
        rc = cht_wal_create_segment(w, &seg, &f, &sealed, err);
    while (rc == CHT_DISK_FULL && !sealed && seg.size > SEGMENT_MIN && seg.size / 4 >= need) {
        seg.size = (seg.size / 4 + 4095) & ~UINT64_C(4095); /* for what little room there is */
        rc = cht_wal_create_segment(w, &seg, &f, &sealed, err);
    }
    if (rc != CHT_OK) {
        cht_wal_sum_locked(w);
        return sealed ? poison(w, true, err) : rc;
    }
    cht_file_close(w->file);
    cht_file_close(w->found);
    w->found = NULL;
    w->file = f;
    w->pos = CHT_WAL_HEADER;
    w->size = seg.size;
    w->seed = seg.seed;
    cht_wal_note(w, &seg);
    w->segs[w->nsegs++] = seg;
    w->next_number++;
    w->leftover = 0;
    w->remains = false;
    cht_wal_sum_locked(w);
    return CHT_OK;
}

/* For a record of n bytes. */
static enum cht_rc begin_segment(struct cht_wal *w, uint64_t n, struct cht_err *err)
{
    if (w->stage == NULL && (w->stage = cht_aligned_alloc(4096, STAGE_BYTES)) == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the log", w->dir);
    enum cht_rc rc = cht_wal_sync(w, err); /* S1 */
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&w->sync_mu);
    cht_mutex_lock(&w->mu);
    rc = switch_locked(w, CHT_WAL_HEADER + cht_wal_room(n), err);
    cht_mutex_unlock(&w->mu);
    cht_mutex_unlock(&w->sync_mu);
    return rc;
}

/* ---- append -------------------------------------------------------------------------------------------------- */

static enum cht_rc put(struct cht_wal *w, const void *p, size_t n, uint64_t *off, struct cht_err *err)
{
    enum cht_rc rc = n == 0 ? CHT_OK : cht_file_write(w->file, p, n, *off, err);
    *off += n;
    atomic_fetch_add_explicit(&w->written, n, memory_order_relaxed);
    return rc;
}

/* Header (already staged, 32 bytes), parts and padding, in as few writes as the sizes allow. */
static enum cht_rc write_record(struct cht_wal *w, const struct cht_wal_part *parts, size_t count,
                                uint64_t room, struct cht_err *err)
{
    static const uint8_t zeros[8];
    size_t used = CHT_WAL_RECORD;
    uint64_t off = w->pos, end = w->pos + room;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i <= count && rc == CHT_OK; i++) {
        bool pad = i == count;
        const void *p = pad ? zeros : parts[i].p;
        size_t n = pad ? (size_t)(end - off - used) : parts[i].n;
        if (n >= LARGE_PART || n > STAGE_BYTES - used) {
            rc = put(w, w->stage, used, &off, err);
            used = 0;
        }
        if (rc == CHT_OK && n >= LARGE_PART) {
            rc = put(w, p, n, &off, err);
        } else if (n > 0) {
            memcpy(w->stage + used, p, n);
            used += n;
        }
    }
    return rc == CHT_OK ? put(w, w->stage, used, &off, err) : rc;
}

/* A record that is not all in memory: its header is written when the rest is. */
struct making {
    struct cht_wal *w;
    uint64_t off;
    size_t used; /* of the stage */
    uint32_t crc;
};

static enum cht_rc flush(struct making *m, struct cht_err *err)
{
    size_t n = m->used;
    m->used = 0;
    return put(m->w, m->w->stage, n, &m->off, err);
}

static enum cht_rc add(struct making *m, const struct cht_wal_part *part, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (part->n == 0)
        return CHT_OK;
    m->crc = cht_crc32c(m->crc, part->p, part->n);
    if (part->n > STAGE_BYTES - m->used)
        rc = flush(m, err);
    if (rc == CHT_OK && part->n >= LARGE_PART) {
        rc = flush(m, err);
        return rc == CHT_OK ? put(m->w, part->p, part->n, &m->off, err) : rc;
    }
    if (rc == CHT_OK) {
        memcpy(m->w->stage + m->used, part->p, part->n);
        m->used += part->n;
    }
    return rc;
}

static enum cht_rc add_made(struct making *m, const struct cht_wal_made *made, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint64_t left = made->n; left > 0 && rc == CHT_OK;) {
        if (STAGE_BYTES - m->used < CHT_WAL_FILL)
            rc = flush(m, err);
        if (rc != CHT_OK)
            break;
        size_t n = made->fill(made->ctx, m->w->stage + m->used, STAGE_BYTES - m->used);
        CHT_INVARIANT(n > 0 && n <= left && n <= STAGE_BYTES - m->used);
        m->crc = cht_crc32c(m->crc, m->w->stage + m->used, n);
        m->used += n;
        left -= n;
    }
    return rc;
}

/* As write_record, and the checksum goes into the head. */
static enum cht_rc write_made(struct cht_wal *w, uint8_t head[CHT_WAL_RECORD],
                              const struct cht_wal_part *parts, size_t count, const struct cht_wal_made *made,
                              uint64_t n, struct cht_err *err)
{
    static const uint8_t zeros[8];
    struct making m = {.w = w, .off = w->pos, .used = CHT_WAL_RECORD};
    uint64_t at = w->pos;
    memset(w->stage, 0, CHT_WAL_RECORD);
    m.crc = cht_crc32c(w->seed, head + 4, CHT_WAL_RECORD - 4);
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i <= count && rc == CHT_OK; i++) {
        if (i == made->after)
            rc = add_made(&m, made, err);
        if (rc == CHT_OK && i < count)
            rc = add(&m, &parts[i], err);
    }
    cht_put32(head, m.crc);
    struct cht_wal_part pad = {zeros, (size_t)(cht_wal_room(n) - CHT_WAL_RECORD - n)};
    if (rc == CHT_OK)
        rc = add(&m, &pad, err);
    if (rc == CHT_OK)
        rc = flush(&m, err);
    return rc == CHT_OK ? put(w, head, CHT_WAL_RECORD, &at, err) : rc;
}

static uint32_t seal_record(uint8_t *head, uint32_t seed, const struct cht_wal_part *parts, size_t count)
{
    uint32_t crc = cht_crc32c(seed, head + 4, CHT_WAL_RECORD - 4);
    for (size_t i = 0; i < count; i++)
        crc = parts[i].n == 0 ? crc : cht_crc32c(crc, parts[i].p, parts[i].n);
    return crc;
}

/* ---- close --------------------------------------------------------------------------------------------------- */

/* C1 to C4. */
static enum cht_rc leave_clean(struct cht_wal *w, struct cht_err *err)
{
    uint64_t next = atomic_load_explicit(&w->seq, memory_order_relaxed) + 1;
    enum cht_rc rc = check_usable(w, err);
    if (rc != CHT_OK)
        return rc;
    bool rests = w->nsegs > 0 && w->segs[w->nsegs - 1].size == CHT_WAL_HEADER && w->leftover == 0 &&
                 w->segs[w->nsegs - 1].first_seq == next;
    if (rests && cht_wal_kept_locked(w, w->nsegs - 1) == 0)
        return CHT_OK; /* it is as the last clean close left it */
    rc = cht_wal_same_locked(w, err);
    if (rc != CHT_OK)
        return rc;
    if (w->file != NULL && atomic_load_explicit(&w->origin, memory_order_relaxed) != 0 &&
        w->io->ops->truncate(w->file, w->pos, NULL) == CHT_OK) /* what is kept takes no more than it holds */
        w->segs[w->nsegs - 1].size = w->pos;
    size_t kept = cht_wal_kept_locked(w, w->nsegs);
    for (size_t i = 0; i + 1 < w->nsegs && rc == CHT_OK; i++)
        if (i < kept || cht_wal_empty_locked(w, i))
            rc = cht_wal_delete_segment(w, w->segs[i].number, err);
    struct cht_wal_seg seg = {.number = w->next_number, .first_seq = next, .size = CHT_WAL_HEADER};
    struct cht_file *f = NULL;
    bool sealed;
    cht_wal_link_locked(w, &seg);
    if (rc == CHT_OK)
        rc = cht_wal_create_segment(w, &seg, &f, &sealed, err);
    cht_file_close(f);
    if (rc == CHT_OK && w->nsegs > 0 && (kept == w->nsegs || cht_wal_empty_locked(w, w->nsegs - 1))) {
        rc = cht_wal_delete_segment(w, w->segs[w->nsegs - 1].number, err);
        if (rc == CHT_OK)
            rc = w->io->ops->sync_dir(w->io, w->dir, err);
    }
    return rc;
}

static void wal_free(struct cht_wal *w)
{
    cht_file_close(w->file);
    cht_file_close(w->found);
    cht_mutex_fini(&w->sync_mu);
    cht_mutex_fini(&w->mu);
    cht_free(w->segs);
    cht_free(w->stage);
    cht_free(w->dir);
    cht_free(w);
}

/* ---- shared with wal_replay.c ---------------------------------------------------------------------------------- */

/* Marks are set every mark_step bytes; when the table is full every other one goes and the step doubles. */
void cht_wal_count(struct cht_wal *w, uint64_t seq, uint64_t room)
{
    cht_mutex_lock(&w->mu);
    uint64_t before = atomic_fetch_add_explicit(&w->total, room, memory_order_relaxed);
    if (w->nmarks == CHT_WAL_MARKS) {
        for (size_t i = 0; i < CHT_WAL_MARKS / 2; i++)
            w->marks[i] = w->marks[2 * i];
        w->nmarks = CHT_WAL_MARKS / 2;
        w->mark_step *= 2;
    }
    if (w->nmarks == 0 || before - w->marks[w->nmarks - 1].total >= w->mark_step)
        w->marks[w->nmarks++] = (struct cht_wal_mark){seq, before};
    cht_mutex_unlock(&w->mu);
}

/* -------------------------------------------------------------------------------------------------------------- */

enum cht_rc cht_wal_open(const struct cht_wal_config *cfg, struct cht_wal **out, struct cht_err *err)
{
    struct cht_wal *w = cht_calloc(1, sizeof *w);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the log", cfg->dir);
    w->io = cfg->io;
    w->held = UINT64_MAX;
    memcpy(w->uuid, cfg->uuid, sizeof w->uuid);
    w->read_only = cfg->read_only;
    w->segment_bytes =
        cfg->segment_bytes < SEGMENT_MIN ? SEGMENT_MIN : (cfg->segment_bytes + 4095) & ~UINT64_C(4095);
    w->mark_step = w->segment_bytes / 64;
    enum cht_rc rc = cht_mutex_init(&w->sync_mu, err);
    if (rc != CHT_OK) {
        cht_free(w);
        return rc;
    }
    rc = cht_mutex_init(&w->mu, err);
    if (rc != CHT_OK) {
        cht_mutex_fini(&w->sync_mu);
        cht_free(w);
        return rc;
    }
    w->dir = cht_strdup(cfg->dir);
    if (w->dir == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the log", cfg->dir);
    if (rc == CHT_OK)
        rc = cht_wal_load_list(w, err);
    if (rc != CHT_OK) {
        wal_free(w);
        return rc;
    }
    *out = w;
    return CHT_OK;
}

/* The header of C2 is on the disk before C4 leaves it the newest one; nothing else makes a segment of that length. Before it only
 * those that are kept for changes may be there: C1 was not cut off. */
bool cht_wal_clean(const struct cht_wal *w)
{
    if (w->nsegs == 0)
        return true;
    const struct cht_wal_seg *last = &w->segs[w->nsegs - 1];
    return last->size == CHT_WAL_HEADER && last->state == CHT_WAL_VALID &&
           (w->nsegs == 1 || last->origin != 0);
}

enum cht_rc cht_wal_reserve(struct cht_wal *w, uint64_t n, struct cht_err *err)
{
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    CHT_INVARIANT(w->replayed && !w->read_only);
    enum cht_rc rc = check_usable(w, err);
    if (rc == CHT_OK && n > PAYLOAD_MAX)
        rc = CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "a log record of %" PRIu64 " bytes; at most %" PRIu64, n,
                      PAYLOAD_MAX);
    if (rc != CHT_OK)
        return rc;
    if (w->file != NULL && cht_wal_room(n) <= w->size - w->pos)
        return CHT_OK;
    return begin_segment(w, n, err);
}

enum cht_rc cht_wal_next_segment(struct cht_wal *w, struct cht_err *err)
{
    enum cht_rc rc = check_usable(w, err);
    return rc == CHT_OK ? begin_segment(w, 0, err) : rc;
}

enum cht_rc cht_wal_append_made(struct cht_wal *w, const struct cht_wal_part *parts, size_t count,
                                const struct cht_wal_made *made, uint64_t *seq, struct cht_err *err)
{
    struct cht_err local = {0};
    uint8_t head[CHT_WAL_RECORD] = {0};
    err = err == NULL ? &local : err;
    enum cht_rc rc = check_usable(w, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t n = made != NULL ? made->n : 0, next = atomic_load_explicit(&w->seq, memory_order_relaxed) + 1;
    for (size_t i = 0; i < count; i++)
        n += parts[i].n;
    CHT_INVARIANT(w->file != NULL && cht_wal_room(n) <= w->size - w->pos); /* a reserve came before */
    cht_put64(head + 8, n);
    cht_put64(head + 16, next);
    cht_put64(head + 24, atomic_load_explicit(&w->synced, memory_order_acquire));
    w->begun = next;
    w->at[next % CHT_WAL_RECENT] = w->pos;
    if (made != NULL) {
        rc = write_made(w, head, parts, count, made, n, err);
    } else {
        cht_put32(head, seal_record(head, w->seed, parts, count));
        memcpy(w->stage, head, CHT_WAL_RECORD);
        rc = write_record(w, parts, count, cht_wal_room(n), err);
    }
    if (rc != CHT_OK)
        return poison(w, false, err);
    w->pos += cht_wal_room(n);
    atomic_store_explicit(&w->seq, next, memory_order_release);
    cht_wal_count(w, next, cht_wal_room(n));
    *seq = next;
    return CHT_OK;
}

bool cht_wal_fits(const struct cht_wal *w, uint64_t n)
{
    return w->file != NULL && cht_wal_room(n) <= w->size - w->pos;
}

enum cht_rc cht_wal_append(struct cht_wal *w, const struct cht_wal_part *parts, size_t count, uint64_t *seq,
                           struct cht_err *err)
{
    return cht_wal_append_made(w, parts, count, NULL, seq, err);
}

/* appended: also after an append has failed, what was appended before it. */
static enum cht_rc sync_file(struct cht_wal *w, bool appended, struct cht_err *err)
{
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    cht_mutex_lock(&w->sync_mu);
    uint64_t seq = atomic_load_explicit(&w->seq, memory_order_acquire);
    bool needed = atomic_load_explicit(&w->synced, memory_order_relaxed) < seq;
    enum cht_rc rc = appended && (!needed || !w->sync_failed) ? CHT_OK : check_usable(w, err);
    if (rc == CHT_OK && needed) {
        rc = cht_file_sync(w->file, err); /* older segments were synced before this one was begun (S1) */
        w->sync_failed = rc != CHT_OK;
        if (rc == CHT_OK)
            atomic_store_explicit(&w->synced, seq, memory_order_release);
        else
            (void)poison(w, false, err); /* the code is returned below */
    }
    cht_mutex_unlock(&w->sync_mu);
    return rc;
}

enum cht_rc cht_wal_sync(struct cht_wal *w, struct cht_err *err) { return sync_file(w, false, err); }

enum cht_rc cht_wal_sync_appended(struct cht_wal *w, struct cht_err *err) { return sync_file(w, true, err); }

enum cht_rc cht_wal_revoke(struct cht_wal *w, uint64_t seq, bool durable, struct cht_err *err)
{
    static const uint8_t zeros[CHT_WAL_RECORD]; /* no record: its number is never 0 */
    uint8_t there[CHT_WAL_RECORD];
    if (w->begun <= seq) /* the log was not written to any more when it was its turn */
        return CHT_OK;
    cht_mutex_lock(&w->sync_mu);
    bool appended = atomic_load_explicit(&w->seq, memory_order_relaxed) > seq;
    uint64_t off = w->at[(seq + 1) % CHT_WAL_RECENT];
    CHT_INVARIANT(w->begun - seq < CHT_WAL_RECENT);
    enum cht_rc rc = cht_file_write(w->file, zeros, sizeof zeros, off, err);
    if (rc == CHT_OK && durable)
        rc = cht_file_sync(w->file, err);
    else if (rc != CHT_OK && !appended) {
        /* The kernel has not taken what it could not read back here, so it cannot come to be on the disk later. */
        rc = cht_file_read(w->file, there, sizeof there, off, err);
        if (rc == CHT_OK && cht_get64(there + 16) == seq + 1)
            rc = CHT_FAIL(err, CHT_IO, "%s: offset %" PRIu64 ": a part of record %" PRIu64 " is there",
                          w->dir, off, seq + 1);
    }
    if (rc == CHT_OK && appended) {
        w->pos = off;
        atomic_store_explicit(&w->seq, seq, memory_order_release);
    }
    if (rc == CHT_OK)
        w->begun = seq;
    cht_mutex_unlock(&w->sync_mu);
    return rc;
}

void cht_wal_resume(struct cht_wal *w)
{
    cht_mutex_lock(&w->sync_mu);
    cht_mutex_lock(&w->mu);
    if (!w->sync_failed) { /* the disk is not asked again what it has */
        w->cause = (struct cht_err){0};
        atomic_store_explicit(&w->poisoned, false, memory_order_release);
    }
    cht_mutex_unlock(&w->mu);
    cht_mutex_unlock(&w->sync_mu);
}

enum cht_rc cht_wal_open_reader(const struct cht_wal *w, struct cht_wal **out, struct cht_err *err)
{
    struct cht_wal_config cfg = {
        .io = w->io, .dir = w->dir, .segment_bytes = w->segment_bytes, .read_only = true};
    memcpy(cfg.uuid, w->uuid, sizeof cfg.uuid);
    return cht_wal_open(&cfg, out, err);
}

enum cht_rc cht_wal_trim(struct cht_wal *w, uint64_t seq, unsigned keep, struct cht_err *err)
{
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    enum cht_rc rc = check_usable(w, err);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&w->mu);
    uint64_t last = atomic_load_explicit(&w->seq, memory_order_acquire);
    seq = seq < last ? seq : last;
    w->trimmed = seq > w->trimmed ? seq : w->trimmed;
    move_base_locked(w);
    uint64_t *victims = NULL;
    rc = cht_wal_same_locked(w, err);
    size_t gone = rc == CHT_OK ? cht_wal_victims_locked(w, keep, &victims) : 0;
    cht_wal_sum_locked(w);
    cht_mutex_unlock(&w->mu);
    for (size_t i = 0; i < gone && rc == CHT_OK; i++)
        rc = cht_wal_delete_segment(w, victims[i],
                                    err); /* not synced: one that comes back is not needed either */
    cht_free(victims);
    return rc;
}

bool cht_wal_broken(const struct cht_wal *w)
{
    return atomic_load_explicit(&w->poisoned, memory_order_acquire);
}

void cht_wal_put_record(uint8_t head[CHT_WAL_RECORD], uint32_t seed, uint64_t seq,
                        const struct cht_wal_part *parts, size_t count)
{
    uint64_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += parts[i].n;
    memset(head, 0, CHT_WAL_RECORD);
    cht_put64(head + 8, n);
    cht_put64(head + 16, seq);
    cht_put64(head + 24, seq - 1);
    cht_put32(head, seal_record(head, seed, parts, count));
}

uint64_t cht_wal_seq(const struct cht_wal *w) { return atomic_load_explicit(&w->seq, memory_order_acquire); }

uint64_t cht_wal_synced(const struct cht_wal *w)
{
    return atomic_load_explicit(&w->synced, memory_order_acquire);
}

uint64_t cht_wal_bytes(const struct cht_wal *w)
{
    return atomic_load_explicit(&w->bytes, memory_order_relaxed);
}

uint64_t cht_wal_live(const struct cht_wal *w)
{
    uint64_t base =
        atomic_load_explicit(&w->base, memory_order_acquire); /* before total, which is never smaller */
    return atomic_load_explicit(&w->total, memory_order_relaxed) - base;
}

uint64_t cht_wal_written(const struct cht_wal *w)
{
    return atomic_load_explicit(&w->written, memory_order_relaxed);
}

enum cht_rc cht_wal_close(struct cht_wal *w, bool clean, struct cht_err *err)
{
    struct cht_err local = {0};
    if (w == NULL)
        return CHT_OK;
    enum cht_rc rc = CHT_OK;
    if (clean && w->replayed && !w->read_only)
        rc = leave_clean(w, err == NULL ? &local : err);
    wal_free(w);
    return rc;
}
