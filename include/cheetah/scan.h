/* scan: ordered scans over all shards of a database, run by the worker threads.
 *
 * Each shard's worker fills bounded batches (its lock is held for one batch), one merge puts them in order. A scan
 * is not a snapshot: it returns, in order and never twice, every entry that was there from its start to its end.
 * Memory of one scan is at most CHT_SCAN_MEMORY however long it runs and however slowly it is read: a shard whose
 * batches are full is not scanned on until the reader took one (back-pressure).
 *
 *   open -> { next -> entries ... } until CHT_OK with count 0 -> close        cancel at any time, from any thread
 *
 * Threads: one thread at a time calls next; cancel may come from any thread; close when no next is under way.
 */
#pragma once

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CHT_SCAN_MEMORY (4u << 20)
#define CHT_SCAN_INLINE_MAX (64u << 10) /* longer values are not carried in batches: see CHT_ENTRY_LARGE */

enum cht_scan_kind {
    CHT_SCAN_PAIRS, /* in byte order of the names */
    CHT_SCAN_VALUES /* in ascending order of the keys */
};

#define CHT_ENTRY_DANGLING 1u /* the key has no value */
#define CHT_ENTRY_LARGE 2u    /* too long to be carried: size is set, read it with cht_value_open */
#define CHT_ENTRY_CORRUPT 4u  /* the value does not match its checksum */

struct cht_entry {
    const uint8_t *name;  /* pairs only; borrowed until the next call of next or close */
    const uint8_t *value; /* NULL unless values were asked for and carried; or what `render` made */
    uint64_t key;
    uint32_t name_len;
    uint32_t value_len; /* bytes at value */
    uint32_t size;      /* of the stored value (with values, and for CHT_SCAN_VALUES); 0 when dangling */
    uint32_t flags;     /* CHT_ENTRY_... */
    unsigned shard;     /* where the entry was found; below the number of shards in cht_store_stats */
    uint32_t count;     /* 1; with cfg.runs: how many entries `value` shows */
    uint64_t ends;      /* with cfg.ends: when the pair ends, in ms since 1970; 0: never */
};

/* Optional: turns an entry into output bytes on the worker that found it, in parallel. e->value is the stored value
 * (borrowed). It appends at most `room` bytes to `out` and returns the number, or SIZE_MAX if room does not
 * suffice (it is called again with more; what is needed for one entry is at most CHT_SCAN_RENDER_MAX). The merged entry
 * then carries these bytes as its value. Must not block nor call the store. */
typedef size_t cht_scan_render(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room);
#define CHT_SCAN_RENDER_MAX (128u << 10)
/* `render` may return this in place of a length: the entry is not given out and does not count for `limit`. A sweep that
 * skips all entries visits them on the workers of all shards at once, with no merge after them; next then has nothing to
 * give but the end. At most one thread at a time renders entries of one shard, and what it wrote is visible to the next one
 * and to whoever saw the end or closed the scan: results kept by e->shard need no lock. */
#define CHT_SCAN_SKIP (SIZE_MAX - 1)

struct cht_scan_config {
    enum cht_scan_kind kind;
    struct cht_str prefix; /* pairs; copied */
    struct cht_str after,
        until;          /* pairs: exclusive bounds in the direction of the scan; n == 0: none; copied */
    uint64_t after_key; /* values: keys above it */
    uint32_t size;      /* values: only this length; 0: any */
    uint64_t limit;     /* 0: none */
    bool reverse;       /* pairs */
    bool values;        /* carry the values */
    bool ends;          /* pairs: say when they end; a look-up each in a database in which any does */
    unsigned workers;   /* at most this many workers at once over all directories; 0: no limit of its own */
    cht_scan_render *render; /* NULL: entries as they are */
    void *render_ctx;
    /* Only what `render` made of all entries is wanted, one after the other. Then an entry that is given out may stand for a
     * run of entries: value is their bytes, count their number, name and key are the last one's, shard means nothing; one that is
     * CHT_ENTRY_LARGE or CHT_ENTRY_CORRUPT is given by itself. Long lists of names, also with short values, are done much faster so. `render` may
     * be called by several threads at once for any shard. */
    bool runs;
    /* Called (any thread) when a poll that said CHT_PENDING should be repeated; may be NULL. Must not call the scan. */
    void (*ready)(void *ctx);
    void *ready_ctx;
};

enum cht_rc cht_scan_open(struct cht_store *s, const struct cht_scan_config *cfg, struct cht_scan **out,
                          struct cht_err *err);
/* The next entries in order, at most max, written to out; *count 0 at the end. Blocks until at least one is known.
 * The pointers of the entries are borrowed until the next call. CHT_CANCELLED, CHT_CORRUPT, CHT_NO_MEMORY end it. */
enum cht_rc cht_scan_next(struct cht_scan *sc, struct cht_entry *out, size_t max, size_t *count,
                          struct cht_err *err);
/* The same, but CHT_PENDING in place of blocking; then cfg.ready is called once. */
enum cht_rc cht_scan_poll(struct cht_scan *sc, struct cht_entry *out, size_t max, size_t *count,
                          struct cht_err *err);
/* After the end by limit: is there (probably) more? The name or key to go on from is that of the last entry. */
bool cht_scan_exhausted(const struct cht_scan *sc);
void cht_scan_cancel(struct cht_scan *sc);
void cht_scan_close(struct cht_scan *sc); /* waits at most for the batches being filled; NULL is legal */
/* About the bytes that this scan holds, as it was planned when it was opened. */
size_t cht_scan_memory(const struct cht_scan *sc);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
