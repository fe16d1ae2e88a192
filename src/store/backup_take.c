/* backup_take: makes the copy of an open database (cheetah/backup.h; the stream is drawn in backup_format.h).
 *
 *   open   a checkpoint, so that little log is needed and the moment is near
 *          the side file is made (snapshot.h)
 *          M  with no checkpoint and no group of commits under way, for a moment and without I/O: the snapshot of the page
 *             files is attached, the log segments that it needs are held, the position is the last record's
 *   read   the log first: from then on its segments may go. Then the page files, in the order of the snapshot
 *   END, or close   the snapshot is detached
 *
 * At M each shard's files are its last checkpoint, and every record up to the position is written: see B2. What it costs the
 * others: the moment M, and one read and one write of 4 KiB for each page that a checkpoint writes over before it was
 * read. Memory: the bit map of the snapshot (one bit a page), 256 KiB here.
 *
 * Pages are compared with their sums while they are copied, so that a damaged database gives no backup rather than a bad
 * one. Not those of `values`: free ones may hold anything (I6), and what lives there has checksums of its own.
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "store/backup_format.h"
#include "store/commit.h"
#include "store/db.h"
#include "store/snapshot.h"

#include <string.h>

#define ROOM (CHT_BACKUP_STEP + (CHT_SNAPSHOT_STEP + 1) * CHT_BACKUP_FRAME)
_Static_assert(ROOM + CHT_BACKUP_HEAD <= CHT_BACKUP_BUFFER_MIN, "a step fits");
_Static_assert(CHT_BACKUP_STEP == CHT_SNAPSHOT_STEP * CHT_PAGE, "a step is a read of the snapshot");

struct taking {
    struct cht_backup base; /* first */
    struct cht_db *db;
    struct cht_snapshot *snap; /* owned */
    bool attached, holding;
    bool gone;                 /* let_go was called */
    struct cht_wal_piece *log; /* owned: the segments */
    size_t nlog;
    unsigned files, current; /* file `current` is next or under way: the log's, then the shards' */
    bool head_done, begun, ended;
    uint64_t at, size;    /* of the current file */
    struct cht_file *seg; /* owned: of a log file under way */
    struct cht_backup_chain chain;
    uint8_t *step;          /* owned: CHT_BACKUP_STEP bytes as read */
    uint8_t sums[CHT_PAGE]; /* the page of sums used last */
    uint64_t sums_page;     /* its number; 0: none */
    enum cht_rc rc;         /* the failure that ended it */
    struct cht_err err;
};

/* ---- sums --------------------------------------------------------------------------------------------------------- */

static bool is_zeros(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* The page of `sums` for this page; the sums file comes last, so it is not read yet. */
static enum cht_rc sum_of(struct taking *b, unsigned shard, enum cht_pf_kind kind, uint64_t page,
                          uint32_t *sum, struct cht_err *err)
{
    uint64_t sp = 1 + page / CHT_SUMS_PER_PAGE * 4 + (uint64_t)kind;
    *sum = 0;
    if (sp >= cht_snapshot_pages(b->snap, shard, CHT_PF_SUMS))
        return CHT_OK;
    if (b->sums_page != sp) {
        b->sums_page = 0;
        enum cht_rc rc = cht_snapshot_peek(b->snap, shard, CHT_PF_SUMS, sp, b->sums, err);
        if (rc != CHT_OK)
            return rc;
        b->sums_page = sp;
    }
    *sum = cht_get32(b->sums + page % CHT_SUMS_PER_PAGE * 4);
    return CHT_OK;
}

static enum cht_rc verify(struct taking *b, unsigned shard, enum cht_pf_kind kind, uint64_t first, unsigned n,
                          struct cht_err *err)
{
    for (unsigned i = 0; i < n && kind != CHT_PF_VALUES; i++) {
        const uint8_t *p = b->step + (size_t)i * CHT_PAGE;
        uint32_t sum = cht_get32(p + CHT_PAGE - 4), is;
        if (kind != CHT_PF_SUMS) {
            enum cht_rc rc = sum_of(b, shard, kind, first + i, &sum, err);
            if (rc != CHT_OK)
                return rc;
        }
        if (sum == 0) {
            if (is_zeros(p, CHT_PAGE))
                continue;
            is = 1;
        } else {
            is = kind == CHT_PF_SUMS ? cht_crc32c(0, p, CHT_PAGE - 4) : cht_page_sum(p);
        }
        if (is == sum)
            continue;
        atomic_fetch_add_explicit(&b->db->corrupt, 1, memory_order_relaxed);
        return CHT_DAMAGED(err, "%s: page %llu (offset %llu) does not match its checksum",
                           cht_pf_path(b->db->shards[shard].pf[kind]), (unsigned long long)(first + i),
                           (unsigned long long)(first + i) * CHT_PAGE);
    }
    return CHT_OK;
}

/* The database is as before, and the next backup may begin. The first call counts. */
static void let_go(struct taking *b)
{
    struct cht_db *db = b->db;
    if (b->attached) {
        cht_committer_pause(db->committer, true);
        cht_snapshot_detach(b->snap);
        cht_committer_resume(db->committer, true);
    }
    if (b->holding)
        cht_wal_release(db->wal);
    b->attached = b->holding = false;
    if (!b->gone)
        atomic_store_explicit(&db->backing_up, false, memory_order_release);
    b->gone = true;
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

/* A DATA frame for each run of blocks that are not zeros; `n` bytes of step, which lie at b->at of the file. */
static size_t put_step(struct taking *b, uint8_t *to, size_t n)
{
    size_t used = 0;
    for (size_t i = 0, end; i < n; i = end) {
        end = i + CHT_PAGE < n ? i + CHT_PAGE : n;
        if (is_zeros(b->step + i, end - i))
            continue;
        while (end < n) {
            size_t next = end + CHT_PAGE < n ? end + CHT_PAGE : n;
            if (is_zeros(b->step + end, next - end))
                break;
            end = next;
        }
        struct cht_frame f = {
            .kind = CHT_FRAME_DATA, .at = b->at + i, .data = b->step + i, .len = (uint32_t)(end - i)};
        used += cht_backup_put_frame(&b->chain, to + used, &f);
    }
    return used;
}

static enum cht_rc begin_file(struct taking *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    struct cht_frame f = {.kind = CHT_FRAME_LOG};
    if (b->current < b->nlog) {
        f.at = b->log[b->current].number;
        f.size = b->log[b->current].bytes;
        enum cht_rc rc = cht_wal_open_segment(b->db->wal, f.at, &b->seg, err);
        if (rc != CHT_OK)
            return rc;
    } else {
        unsigned i = b->current - (unsigned)b->nlog;
        if (b->holding)
            cht_wal_release(b->db->wal);
        b->holding = false;
        f.kind = CHT_FRAME_PAGES;
        f.shard = i / CHT_PF_KINDS;
        f.file = i % CHT_PF_KINDS;
        f.size = cht_snapshot_pages(b->snap, f.shard, (enum cht_pf_kind)f.file) * CHT_PAGE;
        if (f.file == 0)
            b->sums_page = 0;
    }
    b->begun = true;
    b->at = 0;
    b->size = f.size;
    *used = cht_backup_put_frame(&b->chain, to, &f);
    return CHT_OK;
}

static enum cht_rc copy_step(struct taking *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    size_t n = b->size - b->at < CHT_BACKUP_STEP ? (size_t)(b->size - b->at) : CHT_BACKUP_STEP;
    enum cht_rc rc;
    if (b->seg != NULL) {
        rc = cht_file_read(b->seg, b->step, n, b->at, err);
    } else {
        unsigned i = b->current - (unsigned)b->nlog, shard = i / CHT_PF_KINDS,
                 pages = (unsigned)(n / CHT_PAGE);
        enum cht_pf_kind kind = (enum cht_pf_kind)(i % CHT_PF_KINDS);
        rc = cht_snapshot_read(b->snap, shard, kind, b->at / CHT_PAGE, pages, b->step, err);
        if (rc == CHT_OK)
            rc = verify(b, shard, kind, b->at / CHT_PAGE, pages, err);
    }
    if (rc != CHT_OK)
        return rc;
    *used = put_step(b, to, n);
    b->at += n;
    return CHT_OK;
}

/* The next piece; at most ROOM bytes. */
static enum cht_rc produce(struct taking *b, uint8_t *to, size_t *used, struct cht_err *err)
{
    *used = 0;
    if (!b->head_done) {
        *used = cht_backup_put_head(to, &b->base.info, b->files);
        cht_backup_seed(&b->chain, to);
        b->head_done = true;
    } else if (!b->begun && b->current == b->files) {
        struct cht_frame end = {.kind = CHT_FRAME_END, .at = b->chain.number, .size = b->base.info.bytes};
        let_go(b); /* who has the end can begin the next one */
        *used = cht_backup_put_frame(&b->chain, to, &end);
        b->ended = true;
    } else if (!b->begun) {
        return begin_file(b, to, used, err);
    } else if (b->at < b->size) {
        return copy_step(b, to, used, err);
    } else {
        cht_file_close(b->seg);
        b->seg = NULL;
        b->begun = false;
        b->current++;
    }
    return CHT_OK;
}

/* ---- the moment --------------------------------------------------------------------------------------------------- */

static void describe(struct taking *b)
{
    struct cht_db *db = b->db;
    memcpy(b->base.info.database, db->name, strlen(db->name));
    memcpy(b->base.info.uuid, db->shards[0].uuid, 16);
    b->base.info.shards = db->nshards;
    b->base.info.created = cht_wall_ns();
    b->base.info.bytes = b->snap->total * CHT_PAGE;
    for (size_t i = 0; i < b->nlog; i++)
        b->base.info.bytes += b->log[i].bytes;
    b->files = (unsigned)b->nlog + db->nshards * CHT_PF_KINDS;
}

/* M. */
static enum cht_rc fix_moment(struct taking *b, struct cht_err *err)
{
    struct cht_db *db = b->db;
    uint64_t from = UINT64_MAX;
    cht_committer_pause(db->committer, true);
    enum cht_rc rc = CHT_OK;
    if (atomic_load_explicit(&db->read_only, memory_order_acquire))
        rc = CHT_FAIL(err, CHT_READ_ONLY,
                      "%s: writing stopped after a disk fault; restart, then make the backup", db->name);
    for (unsigned i = 0; i < db->nshards; i++) {
        uint64_t seq = atomic_load_explicit(&db->shards[i].checkpoint_seq, memory_order_relaxed);
        from = seq < from ? seq : from;
    }
    if (rc == CHT_OK)
        rc = cht_wal_hold(db->wal, from, &b->log, &b->nlog, err);
    b->holding = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_snapshot_attach(b->snap, db->shards, db->nshards, err);
    b->attached = rc == CHT_OK;
    b->base.info.position = cht_wal_seq(db->wal);
    cht_committer_resume(db->committer, true);
    return rc;
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

static enum cht_rc read_on(struct cht_backup *base, uint8_t *buf, size_t cap, size_t *n, struct cht_err *err)
{
    struct taking *b = (struct taking *)(void *)base;
    while (b->rc == CHT_OK && !b->ended && cap - *n >= ROOM) {
        size_t used;
        b->rc = produce(b, buf + *n, &used, &b->err);
        *n += used;
    }
    if (b->rc != CHT_OK && err != NULL)
        *err = b->err;
    return b->rc;
}

static void end(struct cht_backup *base)
{
    struct taking *b = (struct taking *)(void *)base;
    let_go(b);
    cht_snapshot_free(b->snap);
    cht_file_close(b->seg);
    cht_free(b->log);
    cht_free(b->step);
    cht_free(b);
}

static const struct cht_backup_ops ops = {.read = read_on, .close = end};

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_backup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    if (atomic_exchange_explicit(&db->backing_up, true, memory_order_acq_rel))
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "a backup of %s is under way; one at a time", db->name);
    struct taking *b = cht_calloc(1, sizeof *b);
    if (b == NULL) {
        atomic_store_explicit(&db->backing_up, false, memory_order_release);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    }
    b->base.ops = &ops;
    b->db = db;
    b->step = cht_malloc(CHT_BACKUP_STEP);
    enum cht_rc rc = b->step == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup") : CHT_OK;
    if (rc == CHT_OK)
        rc = cht_committer_checkpoint(db->committer, err);
    if (rc == CHT_OK)
        rc = cht_pf_same(db->shards[0].pf[CHT_PF_KEYS], err);
    if (rc == CHT_OK)
        rc = cht_snapshot_new(db->env->io, db->shards[0].path, &b->snap, err);
    if (rc == CHT_OK)
        rc = fix_moment(b, err);
    if (rc != CHT_OK) {
        end(&b->base);
        return rc;
    }
    describe(b);
    *out = &b->base;
    return CHT_OK;
}
