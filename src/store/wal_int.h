/* wal_int: what wal.c (writing) and wal_replay.c (reading) share. The format is drawn in wal.h. */
#pragma once

#include "store/wal.h"

#include "os/thread.h"

#include <stdatomic.h>

#define CHT_WAL_HEADER CHT_WAL_HEAD /* one sector: written wholly or not at all */
#define CHT_WAL_MARKS 256u
#define CHT_WAL_RECENT 64u /* more than there are groups between their record and its sync (commit_int.h) */

/* What the header of a segment file says. Only the newest file of a log that was cut off is anything but VALID. */
enum cht_wal_state {
    CHT_WAL_VALID,
    CHT_WAL_BLANK, /* none: shorter than a header, or zeros: created, the header was not on disk yet */
    CHT_WAL_STALE, /* of another number: renamed to be reused, the new header was not on disk yet */
    CHT_WAL_BAD    /* does not match its checksum */
};

struct cht_wal_seg {
    uint64_t number, first_seq, size;
    uint64_t origin, prev; /* changes (wal_kept.c); origin 0: the records do not name what changes */
    struct cht_io_id id;   /* of a log that is written to */
    uint32_t seed;         /* of the records' checksums */
    enum cht_wal_state state;
};

/* The record with this number starts after `total` record bytes (of those counted since open). */
struct cht_wal_mark {
    uint64_t seq, total;
};

struct cht_wal {
    /* set at open, then read-only */
    struct cht_io *io;
    char *dir; /* owned */
    uint8_t uuid[16];
    uint64_t segment_bytes;
    bool read_only;

    /* the writer's alone */
    bool replayed;
    uint64_t pos, size; /* of file: where the next record goes, where it ends */
    uint64_t begun;     /* the last record that was begun to be written; none after it is in the file */
    uint64_t at[CHT_WAL_RECENT]; /* where the last ones begin: record s in at[s % CHT_WAL_RECENT] */
    uint32_t seed;               /* of file's records */
    uint8_t *stage;              /* owned; NULL until the first reserve */

    struct cht_mutex sync_mu; /* held during a sync of file and while the writer replaces it; before mu */
    struct cht_file *file;    /* owned; guarded by sync_mu; NULL until the first reserve */
    bool sync_failed;         /* guarded by sync_mu */
    /* On some file systems (FAT, many in user space) a file that nobody has open may get another number, and would not be known again. */
    struct cht_file *found; /* owned; guarded by sync_mu: the newest segment at open, until there is file */

    struct cht_mutex mu;
    struct cht_wal_seg
        *segs; /* owned; guarded by mu; ascending numbers, the last one is file's if there is a file */
    size_t nsegs, cap;    /* guarded by mu */
    uint64_t next_number; /* guarded by mu */
    bool remains;         /* guarded by mu: a file of next_number may be there */
    uint64_t leftover;    /* guarded by mu: bytes of an ignored newest file, which next_number will replace */
    uint64_t trimmed;     /* guarded by mu: records up to here are not needed */
    uint64_t held; /* guarded by mu: segments from this number on stay all the same; UINT64_MAX: none */
    struct cht_wal_mark marks[CHT_WAL_MARKS]; /* guarded by mu; ascending, after trimmed */
    size_t nmarks;                            /* guarded by mu */
    uint64_t mark_step;                       /* guarded by mu: bytes from one to the next */
    uint64_t keep;  /* guarded by mu: bytes of segments that stay for changes, though no shard needs them */
    uint64_t floor; /* guarded by mu: records before this one could not be read for changes */
    struct cht_err cause; /* guarded by mu: why it is poisoned */

    /* atomic */
    _Atomic uint64_t origin; /* of the changes, the writer's; 0: none are kept */
    _Atomic bool poisoned;   /* release after cause; acquire in check_usable */
    _Atomic uint64_t
        seq; /* release after the write; acquire in sync, which promises what was written before */
    _Atomic uint64_t synced;
    _Atomic uint64_t bytes, written;
    _Atomic uint64_t total; /* record bytes since open, replayed ones included */
    _Atomic uint64_t
        base; /* those of them that are trimmed; release after a load of total, so base <= total */
};

/* Bytes a record of n payload bytes takes. */

/* ---- wal_read.c */

/* One segment being read. */
struct cht_wal_reader {
    struct cht_wal *w;
    const struct cht_wal_seg *seg; /* borrowed */
    struct cht_file *f;            /* owned */
    uint64_t size;
    size_t chunk; /* bytes that are read at a time, at most */
    uint8_t *buf; /* owned: bytes off .. off + len of the file */
    uint64_t off;
    size_t len;
};
struct cht_wal_head {
    uint64_t len, seq, synced;
};
/* Close it also after a failure. */
enum cht_rc cht_wal_reader_open(struct cht_wal *w, const struct cht_wal_seg *seg, bool writable, size_t chunk,
                                struct cht_wal_reader *r, struct cht_err *err);
void cht_wal_reader_close(struct cht_wal_reader *r);
/* n <= r->chunk bytes at off, which the file has; valid until the next call. */
enum cht_rc cht_wal_fetch(struct cht_wal_reader *r, uint64_t off, size_t n, const uint8_t **p,
                          struct cht_err *err);
/* The header of a record at p, with `left` bytes of the file from there on. False if W1 does not hold. */
bool cht_wal_parse_head(const uint8_t *p, uint64_t left, struct cht_wal_head *rec);
/* W2, piece by piece: a length that is not yet known to be true must not decide how much memory is taken. */
enum cht_rc cht_wal_check_crc(struct cht_wal_reader *r, uint64_t off, const struct cht_wal_head *rec,
                              bool *good, struct cht_err *err);

/* ---- wal.c */

/* Begins a segment now. The writer's. */
enum cht_rc cht_wal_next_segment(struct cht_wal *w, struct cht_err *err);
/* Counts a record that was appended or replayed. The writer's. */
void cht_wal_count(struct cht_wal *w, uint64_t seq, uint64_t room);

/* ---- wal_seg.c; mu held, or no other thread yet, where it says _locked */

enum cht_rc cht_wal_path(const struct cht_wal *w, uint64_t number, char *out, size_t cap,
                         struct cht_err *err);
/* Lists the folder and reads every header. */
enum cht_rc cht_wal_load_list(struct cht_wal *w, struct cht_err *err);
/* Room for one more entry. */
enum cht_rc cht_wal_grow_list(struct cht_wal *w, struct cht_err *err);
/* The file of a segment, to know it again. If it cannot be asked, it is not looked at later. */
void cht_wal_note(const struct cht_wal *w, struct cht_wal_seg *seg);
/* Before anything is made, renamed or deleted: is the folder the one that was opened? CHT_IO: not any more. */
enum cht_rc cht_wal_same_locked(const struct cht_wal *w, struct cht_err *err);
/* Recomputes the space of all segments. */
void cht_wal_sum_locked(struct cht_wal *w);
/* How many segments at the old end of the list hold nothing that is needed, or kept for changes. The newest one always stays: it
 * says where the numbers of the records go on. */
size_t cht_wal_unneeded_locked(const struct cht_wal *w);
void cht_wal_remove_locked(struct cht_wal *w, size_t i);
/* S2 to S4 with a new file of seg's number, size and first_seq; sets its seed. A leftover under this name (an attempt that
 * was cut off) is overwritten. *sealed: the failure, if any, came when the state of the disk could no longer be known;
 * otherwise nothing has changed. */
enum cht_rc cht_wal_create_segment(struct cht_wal *w, struct cht_wal_seg *seg, struct cht_file **f,
                                   bool *sealed, struct cht_err *err);
/* The same by renaming the oldest segment, which leaves the list whatever happens after the rename. */
enum cht_rc cht_wal_reuse_locked(struct cht_wal *w, struct cht_wal_seg *seg, struct cht_file **f,
                                 bool *sealed, struct cht_err *err);
/* OK if it is gone already. */
enum cht_rc cht_wal_delete_segment(struct cht_wal *w, uint64_t number, struct cht_err *err);

/* ---- wal_seg.c, for changes: rules in wal_kept.c; mu held, or no other thread yet */

/* K1: the segment from which on the log tells what changed. nsegs: none. */
size_t cht_wal_chain_locked(const struct cht_wal *w);

/* Of the first n segments, which no shard needs: from which one on they are kept. n: none is. */
size_t cht_wal_kept_locked(const struct cht_wal *w, size_t n);
/* What the header of a new segment says of changes. */
void cht_wal_link_locked(const struct cht_wal *w, struct cht_wal_seg *seg);
/* Nothing but the header: the next one begins with the same record. */
static inline bool cht_wal_empty_locked(const struct cht_wal *w, size_t i)
{
    uint64_t next =
        i + 1 < w->nsegs ? w->segs[i + 1].first_seq : atomic_load_explicit(&w->seq, memory_order_relaxed) + 1;
    return w->segs[i].first_seq == next;
}
/* Gives up all that is kept. False: nothing was. */
bool cht_wal_give_up_locked(struct cht_wal *w);
/* For trimming: takes the segments that are neither needed nor wanted as spare ones from the list; the caller frees *out. Without
 * memory they go next time. */
size_t cht_wal_victims_locked(struct cht_wal *w, unsigned keep, uint64_t **out);
