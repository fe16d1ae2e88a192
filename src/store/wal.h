/* wal: the redo log of one database: segments of records, each record one group of commits.
 *
 * Segment file "%016x.log" (its number), little-endian: header 512 bytes:
 *   0 magic[8] "CHEETAHL"  8 version u32  12 header bytes u32 (512)  16 uuid[16]  32 number u64  40 salt u64
 *   48 first_seq u64  56 reserved..  508 crc u32 of 0..507
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
/* fdatasync; a failure poisons. On return everything appended before the call is durable. */
enum cht_rc cht_wal_sync(struct cht_wal *w, struct cht_err *err);
/* After a failed append, or a failed sync of it: makes sure that the record after `seq`, the last one, is not there, whatever
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
