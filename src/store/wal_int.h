/* wal_int: what wal.c (writing) and wal_replay.c (reading) share. The format is drawn in wal.h. */
#pragma once

#include "store/wal.h"

#include "os/thread.h"

#include <stdatomic.h>

#define CHT_WAL_HEADER 512u /* one sector: written wholly or not at all */
#define CHT_WAL_RECORD 32u
#define CHT_WAL_MARKS 256u

/* What the header of a segment file says. Only the newest file of a log that was cut off is anything but VALID. */
enum cht_wal_state {
    CHT_WAL_VALID,
    CHT_WAL_BLANK, /* none: shorter than a header, or zeros: created, the header was not on disk yet */
    CHT_WAL_STALE, /* of another number: renamed to be reused, the new header was not on disk yet */
    CHT_WAL_BAD    /* does not match its checksum */
};

struct cht_wal_seg {
    uint64_t number, first_seq, size;
    uint32_t seed; /* of the records' checksums */
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
    uint64_t last;      /* where the last append began */
    uint32_t seed;      /* of file's records */
    uint8_t *stage;     /* owned; NULL until the first reserve */

    struct cht_mutex sync_mu; /* held during a sync of file and while the writer replaces it; before mu */
    struct cht_file *file;    /* owned; guarded by sync_mu; NULL until the first reserve */

    struct cht_mutex mu;
    struct cht_wal_seg
        *segs; /* owned; guarded by mu; ascending numbers, the last one is file's if there is a file */
    size_t nsegs, cap;    /* guarded by mu */
    uint64_t next_number; /* guarded by mu */
    uint64_t leftover;    /* guarded by mu: bytes of an ignored newest file, which next_number will replace */
    uint64_t trimmed;     /* guarded by mu: records up to here are not needed */
    uint64_t held; /* guarded by mu: segments from this number on stay all the same; UINT64_MAX: none */
    struct cht_wal_mark marks[CHT_WAL_MARKS]; /* guarded by mu; ascending, after trimmed */
    size_t nmarks;                            /* guarded by mu */
    uint64_t mark_step;                       /* guarded by mu: bytes from one to the next */
    struct cht_err cause;                     /* guarded by mu: why it is poisoned */

    /* atomic */
    _Atomic bool poisoned; /* release after cause; acquire in check_usable */
    _Atomic uint64_t
        seq; /* release after the write; acquire in sync, which promises what was written before */
    _Atomic uint64_t synced;
    _Atomic uint64_t bytes, written;
    _Atomic uint64_t total; /* record bytes since open, replayed ones included */
    _Atomic uint64_t
        base; /* those of them that are trimmed; release after a load of total, so base <= total */
};

/* Bytes a record of n payload bytes takes. */
static inline uint64_t cht_wal_room(uint64_t n) { return (CHT_WAL_RECORD + n + 7) & ~UINT64_C(7); }

/* Counts a record that was appended or replayed. The writer's. */
void cht_wal_count(struct cht_wal *w, uint64_t seq, uint64_t room);

/* ---- wal_seg.c; mu held, or no other thread yet, where it says _locked */

enum cht_rc cht_wal_path(const struct cht_wal *w, uint64_t number, char *out, size_t cap,
                         struct cht_err *err);
/* Lists the folder and reads every header. */
enum cht_rc cht_wal_load_list(struct cht_wal *w, struct cht_err *err);
/* Room for one more entry. */
enum cht_rc cht_wal_grow_list(struct cht_wal *w, struct cht_err *err);
/* Recomputes the space of all segments. */
void cht_wal_sum_locked(struct cht_wal *w);
/* How many segments at the old end of the list hold nothing that is needed. The newest one always stays: it says where the
 * numbers of the records go on. */
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
