/* backup: see backup.h.
 *
 *   open   the moment; then all operations are gone through, which says how long each segment of the log will be
 *   read   head, the segments, record by record as the operations come, then the page files; END if the snapshot is still there (MO4)
 *
 * A record has some 128 KiB of operations, or one long value. Memory: a record, a page of rows, the page files of an empty database (some MiB).
 */
#include "store/rados/backup.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/io.h"
#include "store/backup_format.h"
#include "store/logops.h"
#include "store/rados/past.h"
#include "store/wal.h"

#include <stdlib.h>
#include <string.h>

#define SHARDS 8u /* of the database on files that a restore makes */
#define RECORD ((size_t)128 << 10)
#define SEGMENT ((uint64_t)64 << 20)
#define ROOM (CHT_BACKUP_STEP + CHT_BACKUP_FRAME + CHT_BACKUP_HEAD)

struct segment {
    uint64_t bytes, first_seq;
};
struct backup {
    struct cht_backup base; /* first */
    struct cht_moment moment;
    struct cht_past past;
    bool past_up;
    struct segment *segs; /* owned */
    size_t nsegs, cap;
    struct cht_buf pages[SHARDS][CHT_PF_KINDS];
    struct cht_logbuf log;
    struct cht_past_op op; /* the next one */
    bool ends;             /* one of the operations */
    bool known;            /* it is */
    uint64_t seq, salt;
    uint32_t seed; /* of the segment's records */
    unsigned files, current;
    bool head_done, begun, ended;
    uint64_t at, size;   /* of the current file */
    struct cht_buf made; /* bytes of the log from `at` on; the first `given` of them went out */
    size_t given;
    struct cht_backup_chain chain;
    enum cht_rc rc; /* the failure that ended it */
    struct cht_err err;
};

/* ---- records ----------------------------------------------------------------------------------------------------------- */

static const struct {
    enum cht_logop_kind kind;
    size_t head; /* bytes before the data (store/logops.h) */
} coded[] = {
    [CHT_PAST_PUT] = {CHT_LOG_VALUE_PUT, 11},
    [CHT_PAST_DELETE] = {CHT_LOG_VALUE_DEL, 7},
    [CHT_PAST_SET] = {CHT_LOG_PAIR_SET, 9},
    [CHT_PAST_ENDS] = {CHT_LOG_PAIR_ENDS, 9},
};

/* The operations of the next record. *n: its bytes, 0: there is none. make: they are put into the log buffer as well. */
static enum cht_rc next_record(struct backup *b, bool make, uint64_t *n, struct cht_err *err)
{
    bool full = false;
    enum cht_rc rc = CHT_OK;
    *n = 0;
    cht_logbuf_clear(&b->log);
    while (rc == CHT_OK && !full) {
        if (!b->known)
            rc = cht_past_next(&b->past, make, &b->op, err);
        b->known = rc == CHT_OK;
        bool alone = b->op.data.n >= CHT_LOG_BORROW; /* its bytes are borrowed: nothing comes after it */
        if (rc != CHT_OK || b->op.kind == CHT_PAST_END || (alone && *n > 0))
            break;
        if (make) {
            rc = cht_logbuf_reserve(&b->log, 1, b->op.data.n, err);
            if (rc != CHT_OK)
                break;
            cht_logbuf_add(&b->log, coded[b->op.kind].kind, b->op.key, b->op.data);
        }
        b->ends = b->ends || b->op.kind == CHT_PAST_ENDS;
        *n += coded[b->op.kind].head + b->op.data.n;
        full = alone || *n >= RECORD;
        b->known = false;
    }
    return rc;
}

static void rewind_all(struct backup *b)
{
    cht_past_rewind(&b->past);
    b->known = false;
    b->seq = 0;
}

static enum cht_rc begin_segment(struct backup *b, struct cht_err *err)
{
    if (b->nsegs == b->cap) {
        size_t cap = b->cap == 0 ? 16 : b->cap * 2;
        struct segment *v = cht_realloc(b->segs, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
        b->segs = v;
        b->cap = cap;
    }
    b->segs[b->nsegs++] = (struct segment){CHT_WAL_HEAD, b->seq + 1};
    return CHT_OK;
}

/* Where segments begin and end. */
static enum cht_rc measure(struct backup *b, struct cht_err *err)
{
    uint64_t n = 1;
    enum cht_rc rc = begin_segment(b, err);
    while (rc == CHT_OK && n > 0) {
        rc = next_record(b, false, &n, err);
        if (rc != CHT_OK || n == 0)
            break;
        struct segment *s = &b->segs[b->nsegs - 1];
        if (s->bytes > CHT_WAL_HEAD && s->bytes + cht_wal_room(n) > SEGMENT)
            rc = begin_segment(b, err);
        b->segs[b->nsegs - 1].bytes += cht_wal_room(n);
        b->seq++;
    }
    b->base.info.position = b->seq;
    rewind_all(b);
    return rc;
}

/* ---- the stream --------------------------------------------------------------------------------------------------------- */

/* Of the log, from b->at on: the header of the segment, or its next record. */
static enum cht_rc make_log(struct backup *b, struct cht_err *err)
{
    const struct segment *s = &b->segs[b->current];
    uint64_t n = 0;
    b->given = b->made.len = 0;
    if (b->at == 0) {
        enum cht_rc rc = cht_buf_reserve(&b->made, CHT_WAL_HEAD, err);
        if (rc != CHT_OK)
            return rc;
        b->seed = cht_wal_put_header(b->made.data, &(struct cht_wal_begin){.uuid = b->base.info.uuid,
                                                                           .number = b->current + 1,
                                                                           .first_seq = s->first_seq,
                                                                           .salt = b->salt + b->current});
        b->made.len = CHT_WAL_HEAD;
        return CHT_OK;
    }
    enum cht_rc rc = next_record(b, true, &n, err);
    uint64_t room = cht_wal_room(n);
    if (rc == CHT_OK && (n == 0 || n != b->log.bytes || room > s->bytes - b->at))
        rc = CHT_FAIL(err, CHT_IO, "snapshot %s changed while it was read", b->moment.name);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&b->made, room, err);
    if (rc != CHT_OK || b->made.data == NULL)
        return rc;
    size_t count, at = CHT_WAL_RECORD;
    const struct cht_wal_part *parts = cht_logbuf_parts(&b->log, &count);
    cht_wal_put_record(b->made.data, b->seed, ++b->seq, parts, count);
    for (size_t i = 0; i < count; at += parts[i++].n)
        memcpy(b->made.data + at, parts[i].p, parts[i].n);
    memset(b->made.data + at, 0, room - at);
    b->made.len = room;
    return CHT_OK;
}

static enum cht_rc begin_file(struct backup *b, uint8_t *to, size_t *used)
{
    struct cht_frame f = {.kind = CHT_FRAME_LOG};
    if (b->current < b->nsegs) {
        f.at = b->current + 1;
        f.size = b->segs[b->current].bytes;
    } else {
        unsigned i = b->current - (unsigned)b->nsegs;
        f.kind = CHT_FRAME_PAGES;
        f.shard = i / CHT_PF_KINDS;
        f.file = i % CHT_PF_KINDS;
        f.size = b->pages[f.shard][f.file].len;
    }
    b->begun = true;
    b->at = 0;
    b->size = f.size;
    b->given = b->made.len = 0;
    *used = cht_backup_put_frame(&b->chain, to, &f);
    return CHT_OK;
}

static bool is_zeros(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

/* Bytes of the current file. */
static enum cht_rc copy(struct backup *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    struct cht_frame f = {.kind = CHT_FRAME_DATA, .at = b->at};
    uint64_t left = b->size - b->at;
    if (b->current < b->nsegs) {
        enum cht_rc rc = b->given == b->made.len ? make_log(b, err) : CHT_OK;
        if (rc != CHT_OK)
            return rc;
        f.data = b->made.data + b->given;
        left = b->made.len - b->given;
    } else {
        unsigned i = b->current - (unsigned)b->nsegs;
        f.data = b->pages[i / CHT_PF_KINDS][i % CHT_PF_KINDS].data + b->at;
    }
    f.len = (uint32_t)(left < CHT_BACKUP_STEP ? left : CHT_BACKUP_STEP);
    if (!is_zeros(f.data, f.len))
        *used = cht_backup_put_frame(&b->chain, to, &f);
    b->given += b->current < b->nsegs ? f.len : 0;
    b->at += f.len;
    return CHT_OK;
}

static enum cht_rc finish(struct backup *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    struct cht_frame f = {.kind = CHT_FRAME_END, .at = b->chain.number, .size = b->base.info.bytes};
    enum cht_rc rc = cht_moment_there(&b->moment, err);
    if (rc != CHT_OK)
        return rc;
    cht_moment_end(&b->moment); /* who has the end can begin the next one */
    *used = cht_backup_put_frame(&b->chain, to, &f);
    b->ended = true;
    return CHT_OK;
}

/* The next piece; at most ROOM bytes. */
static enum cht_rc produce(struct backup *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    *used = 0;
    if (!b->head_done) {
        *used = cht_backup_put_head(to, &b->base.info, b->files);
        cht_backup_seed(&b->chain, to);
        b->head_done = true;
        return CHT_OK;
    }
    if (!b->begun)
        return b->current == b->files ? finish(b, to, used, err) : begin_file(b, to, used);
    if (b->at < b->size)
        return copy(b, to, used, err);
    b->begun = false;
    b->current++;
    return CHT_OK;
}

static enum cht_rc read_on(struct cht_backup *base, uint8_t *buf, size_t cap, size_t *n, struct cht_err *err)
{
    struct backup *b = (struct backup *)(void *)base;
    while (b->rc == CHT_OK && !b->ended && cap - *n >= ROOM) {
        size_t used;
        b->rc = produce(b, buf + *n, &used, &b->err);
        *n += used;
    }
    if (b->rc == CHT_DATABASE_DROPPED && cht_moment_there(&b->moment, &b->err) != CHT_OK)
        b->rc = b->err.code; /* objects are not there because the snapshot is not */
    if (b->rc != CHT_OK && err != NULL)
        *err = b->err;
    return b->rc;
}

static void end(struct cht_backup *base)
{
    struct backup *b = (struct backup *)(void *)base;
    if (b->past_up)
        cht_past_end(&b->past);
    cht_moment_end(&b->moment);
    for (unsigned i = 0; i < SHARDS * CHT_PF_KINDS; i++)
        cht_buf_free(&b->pages[i / CHT_PF_KINDS][i % CHT_PF_KINDS]);
    cht_logbuf_fini(&b->log);
    cht_buf_free(&b->made);
    cht_free(b->segs);
    cht_free(b);
}

static const struct cht_backup_ops ops = {.read = read_on, .close = end};

static void describe(struct backup *b)
{
    struct cht_rdb *db = b->moment.db;
    struct cht_backup_info *info = &b->base.info;
    memcpy(info->database, db->name, strlen(db->name));
    for (size_t i = 0; i < sizeof info->uuid; i++) {
        const char digits[3] = {db->uuid[2 * i], db->uuid[2 * i + 1], 0};
        info->uuid[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    info->shards = SHARDS;
    info->created = b->moment.when;
}

static void add_up(struct backup *b)
{
    b->files = (unsigned)b->nsegs + SHARDS * CHT_PF_KINDS;
    for (size_t i = 0; i < b->nsegs; i++)
        b->base.info.bytes += b->segs[i].bytes;
    for (unsigned i = 0; i < SHARDS * CHT_PF_KINDS; i++)
        b->base.info.bytes += b->pages[i / CHT_PF_KINDS][i % CHT_PF_KINDS].len;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rbackup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err)
{
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    struct backup *b = cht_calloc(1, sizeof *b);
    if (b == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    b->base.ops = &ops;
    cht_os_random(&b->salt, sizeof b->salt);
    enum cht_rc rc = cht_moment_take(cht_rdb(s), &b->moment, err);
    if (rc == CHT_OK) {
        describe(b);
        rc = cht_past_begin(&b->past, &b->moment, err);
        b->past_up = true;
    }
    if (rc == CHT_OK)
        rc = measure(b, err);
    for (unsigned i = 0; i < SHARDS && rc == CHT_OK; i++)
        rc = cht_backup_empty(&(struct cht_backup_shard){b->base.info.uuid, i, SHARDS, b->ends}, b->pages[i],
                              err);
    if (rc != CHT_OK) {
        end(&b->base);
        return rc;
    }
    add_up(b);
    *out = &b->base;
    return CHT_OK;
}
