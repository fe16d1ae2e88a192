/* stream: the entries of a scan in one shard, batch by batch. What a batch needs of other shards (a name whose value lies under a key
 * elsewhere) is read in a second trip for all entries of the batch.
 *
 * Backward there is no order to read in. The first batch goes over the names once and keeps every CHT_STREAM_STEP-th: then windows
 * between two of them are read forward and turned round, the last window first.
 *
 * Threads: one at a time for a stream.
 */
#pragma once

#include "store/rados/exec.h"

#define CHT_STREAM_STEP 256u          /* at most */
#define CHT_STREAM_BYTES (256u << 10) /* about, of a page: the number of rows follows their length */
/* About, of what all streams of a scan hold, two batches each: entries, names, values and what was rendered of them. If there are many shards
 * their batches are small, but a trip has its price. */
#define CHT_STREAM_ALL (3u << 20)
#define CHT_STREAM_LEAST (8u << 10)

struct cht_stream_batch {
    struct cht_entry *entries; /* owned */
    size_t n, at;
    struct cht_rowset arena; /* what they point into */
    bool last;               /* nothing comes after it */
    struct cht_stream_batch *next;
};

struct cht_rscan_config { /* of all streams of a scan */
    struct cht_rdb *db;
    const struct cht_map *map; /* whose shards, as classes of buckets, the streams are */
    enum cht_scan_kind kind;
    bool reverse, values, names, ends;
    uint32_t size; /* values: only this length */
    cht_scan_render *render;
    void *render_ctx;
    char *prefix; /* of rows, owned, as are lo and hi: rows' names with NUL, exclusive; hi "": none */
    char *lo, *hi;
    const _Atomic bool *cancelled; /* may be NULL */
};
/* Copies and escapes prefix, after and until. */
enum cht_rc cht_rscan_config(struct cht_rdb *db, const struct cht_scan_config *cfg,
                             struct cht_rscan_config *out, struct cht_err *err);
void cht_rscan_config_free(struct cht_rscan_config *c);

struct cht_rstream {
    const struct cht_rscan_config *cfg;
    unsigned shard;
    char *cursor;  /* owned: the last row that was read */
    unsigned rows; /* of the next page */
    size_t each;   /* bytes that an entry took, in the batch before; 0: not known */
    char **steps;  /* backward: owned, rows in ascending order; nsteps windows are left */
    size_t nsteps, steps_cap;
    unsigned step; /* rows of a window */
    bool stepped;
};
void cht_rstream_init(struct cht_rstream *s, const struct cht_rscan_config *cfg, unsigned shard,
                      uint64_t limit);
void cht_rstream_fini(struct cht_rstream *s);
/* The next entries; perhaps none and not the last. Blocks. The caller frees *out. */
enum cht_rc cht_rstream_next(struct cht_rstream *s, struct cht_stream_batch **out, struct cht_err *err);
/* The same in two steps: what waits for the cluster, and what calls `render`. After a failure of either the batch is the caller's as well. */
enum cht_rc cht_rstream_read(struct cht_rstream *s, struct cht_stream_batch **out, struct cht_err *err);
enum cht_rc cht_rstream_sift(struct cht_rstream *s, struct cht_stream_batch *b, struct cht_err *err);
void cht_stream_batch_free(struct cht_stream_batch *b);
