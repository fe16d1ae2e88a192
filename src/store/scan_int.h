/* scan_int: a scan over the shards of a local database: what scan_fill.c (workers) and db_scan.c (merge, life) share.
 *
 * Each shard has a stream with two batches: a worker fills one while the merge reads the other. Memory of a scan:
 *   2 batches x shards + this structure <= CHT_SCAN_MEMORY; a worker's iterator lives during its fill only.
 * A value or rendered entry that does not fit an empty batch (with 8 shards: over 64 KiB; with more it is less) is given out as
 * CHT_ENTRY_LARGE.
 *
 * Threads: `mu` guards what says so; a batch belongs to the worker while it is being filled, to the reader once `ready`.
 */
#pragma once

#include "store/db.h"
#include "store/db_store.h"
#include "store/trie.h"

#include <string.h>

struct cht_scan_item {
    uint64_t
        head; /* the first 8 bytes of the name after the common prefix, big-endian (inverted when backward); or the key */
    uint64_t key;
    uint32_t name, name_len;   /* offset in names */
    uint32_t value, value_len; /* offset in bytes; value_len 0: none */
    uint32_t size, flags;
};

struct cht_batch {
    struct cht_scan_item *items; /* owned, one block with names and bytes */
    uint8_t *names, *bytes;
    uint64_t *ends; /* of the items, after them in memory; NULL unless cfg.ends */
    size_t count, names_used, used;
    bool last; /* nothing comes after it */
};
/* Every entry was skipped: the worker goes on, the reader need not know. */
static inline bool cht_batch_empty(const struct cht_batch *b) { return b->count == 0 && !b->last; }

#define CHT_SCAN_AHEAD 16u /* items between asking for an entry, for the value and using it */
#define CHT_SCAN_SHARDS_MAX 256u

struct cht_db_scan;
struct cht_stream {
    struct cht_task task; /* first */
    struct cht_db_scan *scan;
    unsigned shard;
    struct cht_batch batch[2];
    bool ready[2]; /* guarded by mu */
    bool queued;   /* guarded by mu: a fill is queued or running */
    bool ended;    /* guarded by mu: the last batch has been filled */
    unsigned
        fill; /* batch to fill next: changed under mu when nothing is queued, read by the worker while it is */
    unsigned fills;  /* the worker's */
    uint64_t filled; /* the worker's: entries so far */
    uint8_t *cursor; /* owned, CHT_NAME_MAX; the worker's: the last name given */
    size_t cursor_len;
    uint64_t cursor_key; /* ... or the next key */
    unsigned read;       /* the reader's: batch being read, or to be read next */
    bool reading;        /* the reader has it */
    bool dead;           /* the reader's: nothing more */
    size_t at;           /* the reader's: next item */
    unsigned spent;      /* the reader's: batches read out, to be given back at the next call (bits) */
};

struct cht_ranges;
struct cht_db_scan {
    struct cht_scan base; /* first */
    struct cht_db *db;
    struct cht_scan_config cfg; /* set at open; prefix, after, until point into bounds */
    uint8_t *bounds;            /* owned */
    uint64_t
        since; /* when it was opened, by the clock of ends.h: what had ended then is removed first; 0: nothing ends */
    unsigned n;
    struct cht_stream *streams; /* owned */
    struct cht_ranges *ranges;  /* owned; not NULL: in place of streams (scan_range.h) */
    size_t items_max, names_cap, bytes_cap, memory;
    _Atomic bool cancelled;
    struct cht_mutex mu;
    struct cht_cond cond; /* a batch is ready, a fill ended, or an error */
    unsigned active;      /* guarded by mu: fills queued or running */
    enum cht_rc rc;       /* guarded by mu: first failure of a fill */
    struct cht_err err;   /* guarded by mu */
    bool wants_ready;     /* guarded by mu: a poll said CHT_PENDING */
    const struct cht_stream
        *awaited;       /* guarded by mu: whose batch the reader waits for, or waited for last */
    uint64_t delivered; /* the reader's */
    bool started;       /* the reader's: the tree is built */
    unsigned *tree;     /* owned: losers; tree[0] the winner */
    uint64_t *heads;    /* owned: of each stream's current item */
};

/* Bytes of a batch's items and ends. */
static inline size_t cht_scan_item_bytes(const struct cht_db_scan *sc)
{
    return sc->items_max * (sizeof(struct cht_scan_item) + (sc->cfg.ends ? sizeof(uint64_t) : 0));
}
/* Bytes of a batch's names, values and rendered text, one after the other from `names`. */
static inline size_t cht_scan_batch_bytes(const struct cht_db_scan *sc)
{
    return sc->names_cap + (sc->cfg.render != NULL ? 2 * sc->bytes_cap : sc->bytes_cap);
}
/* The flag of an entry whose value was not found by its key. */
static inline uint32_t cht_scan_no_value(struct cht_db *db, enum cht_rc rc)
{
    if (rc == CHT_KEY_NOT_FOUND)
        return CHT_ENTRY_DANGLING;
    atomic_fetch_add_explicit(&db->corrupt, 1, memory_order_relaxed);
    return CHT_ENTRY_CORRUPT;
}
/* The bytes of a value to `to`; the flag of its entry: 0 or CHT_ENTRY_CORRUPT. */
static inline uint32_t cht_scan_copy(struct cht_db *db, struct cht_values *v, uint64_t key,
                                     const struct cht_value_ref *ref, uint8_t *to)
{
    const uint8_t *p;
    enum cht_rc rc = cht_values_view(v, key, ref, &p, NULL);
    if (rc == CHT_OK) {
        memcpy(to, p, ref->len);
        rc = cht_values_copied(v, ref, NULL);
    }
    return rc == CHT_OK ? 0 : cht_scan_no_value(db, CHT_CORRUPT);
}
/* As cht_calm_enter, for a task of the scan. */
enum cht_calm_turn cht_scan_enter(struct cht_db_scan *sc, struct cht_pool *pool, struct cht_task *t);
/* Cancelled, or what a fill failed with. mu held. */
enum cht_rc cht_scan_fault(struct cht_db_scan *sc, struct cht_err *err);
/* Fills the stream's next batch, in the calling thread. Errors go to scan->rc. Not with mu held. */
void cht_scan_fill(struct cht_stream *st);
