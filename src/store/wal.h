/* wal: the redo log of one database: segments of records, each record one group of commits.
 *
 * Segment file "%016x.log" (its number), little-endian: header 512 bytes:
 *   0 magic[8] "CHEETAHL"  8 version u32  12 header bytes u32 (512)  16 uuid[16]  32 number u64  40 salt u64
 *   48 first_seq u64  56 origin u64  64 prev u64 (both of changes, wal_kept.c; 0: none)  72 zeros..  508 crc u32 of 0..507
 * Records follow at 512, 8-aligned:
 *   0 crc u32 (seeded with the segment's salt, over bytes 4.. to the end of the payload)  4 flags u32 (0)
 *   8 len u64 (payload bytes)  16 seq u64  24 synced u64 (the log was on disk up to this seq when this was written)
 *   32 payload, zero-padded to 8
 * A record is valid when: W1 its len fits the segment, W2 its crc matches with the segment's salt, W3 its seq is
 * the one expected. A segment is at most as long as log_segment_bytes, or as its one oversized record needs.
 * Space is allocated before it is written; a segment whose records every shard has checkpointed is reused in place
 * under a new number and salt, so an old record never passes for a new one. A segment is synced before the next one
 * gets its header, and the next one's first_seq says where it ends.
 * Reading stops at the first record that is not valid. If any valid record or segment after it proves that it had been
 * synced (its `synced` >= the missing seq, or a later segment exists whose header says so), that is damage: CHT_CORRUPT
 * with file and offset, not a silent cut.
 *
 * Threads: one writer at a time (the committer's lock: reserve, append); sync and trim may run beside it and beside
 * each other; the statistics are atomic. open, replay and close: no other call.
 */
#pragma once

#include "os/io.h"

struct cht_wal;
struct cht_wal_config {
    struct cht_io *io;
    const char *dir; /* exists; borrowed during open */
    uint8_t uuid[16];
    uint64_t segment_bytes;
    bool read_only; /* check: change nothing */
};
/* Opens the folder, validates segment headers, nothing else. */
enum cht_rc cht_wal_open(const struct cht_wal_config *cfg, struct cht_wal **out, struct cht_err *err);
/* Before the replay: the log is as a clean close or a creation leaves it, which both come after all else is on the disk. */
bool cht_wal_clean(const struct cht_wal *w);
/* Calls fn for every valid record with seq > from, in order; records at most `from` may be gone already. `known` is a
 * seq known to be durable (the newest checkpoint's): a log that ends before it is damaged. Must be called once before
 * the first append; the next record follows the last valid one. payload is borrowed during the call. `from` UINT64_MAX:
 * no record is needed, only the newest segment is validated. */
typedef enum cht_rc cht_wal_fn(void *ctx, uint64_t seq, const uint8_t *payload, size_t n,
                               struct cht_err *err);
enum cht_rc cht_wal_replay(struct cht_wal *w, uint64_t from, uint64_t known, cht_wal_fn *fn, void *ctx,
                           struct cht_err *err);
/* Makes sure that a record of n payload bytes fits (allocating or reusing a segment). A failure leaves the log usable unless
 * cht_wal_broken says otherwise. */
enum cht_rc cht_wal_reserve(struct cht_wal *w, uint64_t n, struct cht_err *err);
/* Appends one record gathered from parts in one write (several for very large ones); needs a reserve of at least its
 * size before. *seq is its number. A failure poisons the log: every later call is CHT_READ_ONLY. */
struct cht_wal_part {
    const void *p;
    size_t n;
};
enum cht_rc cht_wal_append(struct cht_wal *w, const struct cht_wal_part *parts, size_t count, uint64_t *seq,
                           struct cht_err *err);
/* Is there room for a record of n bytes without another segment? The writer's. */
bool cht_wal_fits(const struct cht_wal *w, uint64_t n);
/* The same with n bytes more, after `after` of the parts, that are nowhere: `fill` makes the next ones, up to cap (at least CHT_WAL_FILL), and
 * says how many. The header of such a record is written last: what is not there whole is not there. */
#define CHT_WAL_FILL (256u << 10)
struct cht_wal_made {
    uint64_t n;
    size_t after;
    size_t (*fill)(void *ctx, uint8_t *out, size_t cap);
    void *ctx;
};
enum cht_rc cht_wal_append_made(struct cht_wal *w, const struct cht_wal_part *parts, size_t count,
                                const struct cht_wal_made *made, uint64_t *seq, struct cht_err *err);
/* fdatasync; a failure poisons. On return everything appended before the call is durable. */
enum cht_rc cht_wal_sync(struct cht_wal *w, struct cht_err *err);
/* The same, and also after a failed append: of the records before that one. */
enum cht_rc cht_wal_sync_appended(struct cht_wal *w, struct cht_err *err);
/* After a failed append, or a failed sync: makes sure that the record after `seq`, and so all after it, are not there, whatever
 * happens from now on (with `durable` to the disk, else as far as the kernel keeps what it is given). Its place is written
 * over; if that fails after a failed append, it is read, which shows whether the record got as far as to be there. CHT_OK: it is
 * not there. Anything else: nobody knows. The log stays poisoned either way. The writer's. */
enum cht_rc cht_wal_revoke(struct cht_wal *w, uint64_t seq, bool durable, struct cht_err *err);
/* Writing goes on where the revoked record began. Only after a failed append (not a failed sync) whose record was revoked. The
 * writer's. */
void cht_wal_resume(struct cht_wal *w);
/* A second handle on the same log to read it, for cht_wal_replay; nothing is written through it. */
enum cht_rc cht_wal_open_reader(const struct cht_wal *w, struct cht_wal **out, struct cht_err *err);
/* Records up to seq are no longer needed by any shard: their segments may be reused (at most `keep` spare ones are
 * kept, the others deleted). */
enum cht_rc cht_wal_trim(struct cht_wal *w, uint64_t seq, unsigned keep, struct cht_err *err);
/* For a backup: a list of the segments with the records after `from` up to the last one appended, and how many bytes of
 * each; they stay as they are until the release. One at a time; the writer's lock. *out is the caller's (cht_free). */
struct cht_wal_piece {
    uint64_t number, bytes;
};
enum cht_rc cht_wal_hold(struct cht_wal *w, uint64_t from, struct cht_wal_piece **out, size_t *n,
                         struct cht_err *err);
void cht_wal_release(struct cht_wal *w);
/* Opens a segment for reading. */
enum cht_rc cht_wal_open_segment(struct cht_wal *w, uint64_t number, struct cht_file **out,
                                 struct cht_err *err);
/* ---- changes (wal_kept.c) */

/* From now on the records name what changes: a segment begins whose header says so, and so does each one after it, also when the log
 * is opened again. `base`: a number above all that were given to changes before. Nothing to do if it is so already. The writer's. */
enum cht_rc cht_wal_begin_changes(struct cht_wal *w, uint64_t base, struct cht_err *err);
/* The same for a log that has no segment yet: its first one will say so. */
void cht_wal_begin_with_changes(struct cht_wal *w, uint64_t base);
/* The number of a change of record s is origin + s. 0: the records do not name what changes. Any thread. */
uint64_t cht_wal_origin(const struct cht_wal *w);
/* What can be read: the records from `first` on; `kept` bytes are there for nothing else. */
struct cht_wal_span {
    uint64_t origin, first, kept;
};
void cht_wal_span(struct cht_wal *w, struct cht_wal_span *out);
/* How many bytes of segments that no shard needs stay; 0: none. */
void cht_wal_keep(struct cht_wal *w, uint64_t bytes);
/* No room on the disk: what is kept for changes goes. */
bool cht_wal_give_up(struct cht_wal *w);
/* Where somebody who follows the log is. Set `next` (a record's number) and zero the rest. */
struct cht_wal_place {
    uint64_t next;
    uint64_t number; /* of the segment; 0: not looked for yet */
    uint64_t off;    /* of the record */
    uint64_t inner;  /* bytes of its payload that are done */
    bool good;       /* its checksum was looked at */
};
/* Gets at least CHT_WAL_PART bytes of a record, or all that is left of it: p has n bytes, `left` are left. Puts out how many it is done
 * with, which may be more than n. CHT_PENDING: that is enough for now. */
#define CHT_WAL_PART 8192u
typedef enum cht_rc cht_wal_part_fn(void *ctx, uint64_t seq, const uint8_t *p, size_t n, uint64_t left,
                                    uint64_t *used, struct cht_err *err);
/* Hands the records from the place on, up to `upto`, to fn, at most about `budget` bytes of them, and moves the place. CHT_OK: there may be
 * more. CHT_PENDING: fn said so. CHT_GONE: the log does not reach back as far any more, or cannot be read there. Any thread. */
enum cht_rc cht_wal_follow(struct cht_wal *w, struct cht_wal_place *at, uint64_t upto, uint64_t budget,
                           cht_wal_part_fn *fn, void *ctx, struct cht_err *err);
/* For a restore: the header of a segment, CHT_WAL_HEAD bytes, of another life of the database: its changes are none of the new one's. */
#define CHT_WAL_HEAD 512u
/* The bytes of a log that is not on a disk: of a backup of another store than files (store/rados). A segment's header; returns what its records
 * are seeded with. And a record's, CHT_WAL_RECORD bytes, before its payload, which is followed by zeros up to cht_wal_room. */
struct cht_wal_begin {
    const uint8_t *uuid;
    uint64_t number, first_seq, origin, prev, salt;
};
uint32_t cht_wal_put_header(uint8_t header[CHT_WAL_HEAD], const struct cht_wal_begin *b);
/* The other way round: a header that was read. False: that is none of this version. */
bool cht_wal_take_header(const uint8_t header[CHT_WAL_HEAD], struct cht_wal_begin *out, uint32_t *seed);
#define CHT_WAL_RECORD 32u
static inline uint64_t cht_wal_room(uint64_t n) { return (CHT_WAL_RECORD + n + 7) & ~UINT64_C(7); }
void cht_wal_put_record(uint8_t head[CHT_WAL_RECORD], uint32_t seed, uint64_t seq,
                        const struct cht_wal_part *parts, size_t count);
void cht_wal_forget_changes(uint8_t header[CHT_WAL_HEAD]);

/* Something is lost or half written: every call that writes is CHT_READ_ONLY from now on. */
bool cht_wal_broken(const struct cht_wal *w);
uint64_t cht_wal_seq(const struct cht_wal *w);     /* last appended */
uint64_t cht_wal_synced(const struct cht_wal *w);  /* last known durable */
uint64_t cht_wal_bytes(const struct cht_wal *w);   /* space of all segments */
uint64_t cht_wal_live(const struct cht_wal *w);    /* record bytes not trimmed */
uint64_t cht_wal_written(const struct cht_wal *w); /* bytes handed to the disk since open */
/* clean: everything is checkpointed up to the last seq: leaves one segment cut to its header (with first_seq), so that the
 * log holds nothing to replay and every byte of it is covered by a checksum. */
enum cht_rc cht_wal_close(struct cht_wal *w, bool clean, struct cht_err *err);
