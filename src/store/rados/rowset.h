/* rowset: rows of shards as they were read, and as operations make them: what becomes one guarded write.
 *
 *   begin -> { get, set, remove, by an operation; rewind if it fails } -> wants? fetch, rewind to 0, all again
 *         -> write: the compares and changes of one shard
 *
 * A row that was not read yet makes its reader say so (CHT_PENDING) and is wanted; fetch reads all that are wanted, one operation a
 * shard, all shards at once. `guess` takes a row for absent, or for what the lane's cache has, without looking. Every row that was looked at is compared when it is
 * written, so whatever was decided from it still holds then; a guess that was wrong is refused like any other change.
 *
 * Threads: one. Memory is freed as a whole.
 */
#pragma once

#include "store/rados/rdb.h"

#define CHT_ROWSET_WRITE_MAX ((size_t)48 << 20) /* an OSD takes 90 MiB at once */
#define CHT_ROWSET_READ_MAX \
    ((size_t)128 << 20) /* of values that a set has read, if the configuration does not say */
#define CHT_ROWSET_STEPS_MAX ((size_t)60000) /* of an operation: a message has 16 bits for their number */

struct cht_rowset_row {
    unsigned shard;
    struct cht_str name;     /* of the row */
    struct cht_str was, now; /* p NULL: absent */
    bool known, used, dirty;
    bool note;  /* what becomes of it is a change that is told (cut.h) */
    bool asked; /* it is among the rows that are being read */
    uint32_t hash;
    unsigned
        round; /* of reading: rows of one shard with the same number were read at one moment; 0: a guess */
};
struct cht_rowset {
    struct cht_rdb *db;
    const struct cht_map *
        map; /* by which rows have their shards; a fetch that finds it old takes the newest, and no row is known any more */
    struct cht_rowset_row *rows; /* owned */
    size_t n, cap;
    uint32_t *table; /* owned; index + 1 */
    size_t mask;
    struct cht_rowset_chunk *chunks; /* owned: names and values */
    struct cht_rowset_undo {
        size_t row;
        struct cht_str now;
        bool dirty, note;
    } * undo; /* owned */
    size_t undone, undo_cap;
    int only;                 /* -1, or the one shard whose rows may be touched */
    bool crossed;             /* another one was wanted */
    bool wants;               /* a row is wanted */
    struct cht_rcache *cache; /* of the shard `only`; NULL: none */
    bool guessed;             /* a row was not read */
    bool stale;               /* a shard has a higher epoch than the map says */
    unsigned round;           /* the last one of reading */
    size_t bytes;             /* of values that were read and are held until fini */
    bool at_once;        /* what was looked at has to have been so at one moment, also if nothing changes */
    bool apart;          /* cht_rdb.apart, as it was when the set was begun or renewed */
    uint64_t generation; /* in which it is written; 0: no changes were ever kept */
    bool keeps;          /* with L rows (cut.h) */
    unsigned tries;      /* how often what was made of it was refused */
};

void cht_rowset_init(struct cht_rowset *s, struct cht_rdb *db, int only);
void cht_rowset_fini(struct cht_rowset *s);
/* All again: what was read stays, what was made of it goes. */
void cht_rowset_restart(struct cht_rowset *s);
/* Forgets what was read in a shard (-1: in all), so that it is read again. */
void cht_rowset_forget(struct cht_rowset *s, int shard);
void cht_rowset_forget_row(struct cht_rowset *s, size_t row);
/* After a refusal: forgets all that was read. If that was much its memory is freed, too, and the rows' numbers in the set are void. */
void cht_rowset_renew(struct cht_rowset *s);
/* As after init, but for `tries`: all memory is freed. */
void cht_rowset_reset(struct cht_rowset *s);
/* Room for n bytes until fini; NULL if there is none. */
uint8_t *cht_rowset_alloc(struct cht_rowset *s, size_t n);

/* The row as the operations so far left it; *row stays valid until fini, *value.p is NULL if it is absent. CHT_PENDING: wanted, or of a
 * shard that may not be touched. CHT_NO_MEMORY. */
enum cht_rc cht_rowset_get(struct cht_rowset *s, unsigned shard, struct cht_str name, struct cht_str *value,
                           size_t *row);
/* The same, but a row that was not read is taken for what the cache has of it, or else, with absent, for absent. */
enum cht_rc cht_rowset_guess(struct cht_rowset *s, unsigned shard, struct cht_str name, bool absent,
                             struct cht_str *value, size_t *row);
/* The same, but it is taken for `expected` (borrowed until fini). */
enum cht_rc cht_rowset_expect(struct cht_rowset *s, unsigned shard, struct cht_str name,
                              struct cht_str expected, struct cht_str *value, size_t *row);
/* value: p NULL removes it; else borrowed until fini (cht_rowset_alloc). */
enum cht_rc cht_rowset_set(struct cht_rowset *s, size_t row, struct cht_str value);

/* The pair or value of this P or K row is one that was put or deleted, whether its row is another now or not. */
enum cht_rc cht_rowset_note(struct cht_rowset *s, size_t row);

static inline size_t cht_rowset_mark(const struct cht_rowset *s) { return s->undone; }
void cht_rowset_rewind(struct cht_rowset *s, size_t mark);

/* Reads what is wanted. `writing`: waits until no transaction has a lock on these shards. Without: what a transaction that has not been
 * committed is about to change is shown as it is. If the shards have changed, no row is known after it, and their numbers in
 * the set are void: run all again. CHT_BATCH_TOO_LARGE: more than cfg.read_bytes. CHT_DATABASE_DROPPED, CHT_TIMEOUT, ... */
enum cht_rc cht_rowset_fetch(struct cht_rowset *s, bool writing, struct cht_err *err);

/* The first round of a fetch that is not for writing, without a thread that waits: asks for what is wanted. `done` is called once when all of
 * it has come, maybe before this returns, by a thread that must not block. False: nothing was begun, since there is no memory or much is under
 * way (librados would hold the caller up): cht_rowset_fetch does it all. */
struct cht_reading;
bool cht_rowset_begin(struct cht_rowset *s, void (*done)(void *ctx), void *ctx, struct cht_reading **out);
/* After `done`: takes what has come, and goes on like cht_rowset_fetch if rows are wanted still. Frees r. */
enum cht_rc cht_rowset_end(struct cht_rowset *s, struct cht_reading *r, struct cht_err *err);

/* What was made of the rows of names is there (done), or nobody knows: to the caches of their lanes, whose turns the caller has. */
void cht_rowset_learn(const struct cht_rowset *s, bool done);
/* Has a shard rows that were looked at or changed? */
bool cht_rowset_touches(const struct cht_rowset *s, unsigned shard, bool *changes);
/* About how many bytes an operation with these compares and changes has. At most CHT_ROWSET_WRITE_MAX, or the cluster refuses it. */
size_t cht_rowset_weight(const struct cht_rowset *s, unsigned shard);
/* How many rows were looked at: each is a step of the operation that compares them. */
size_t cht_rowset_looks(const struct cht_rowset *s, unsigned shard);
/* The rows that were looked at, as compares. */
void cht_rowset_compare(const struct cht_rowset *s, unsigned shard, struct cht_call *call);
/* Was an operation with these compares refused, so that all is to be made again after cht_rowset_renew? A row is another; or the OSD has not
 * the class that compares many at once: from now on each has a step of its own, in all sets of the database. */
bool cht_rowset_refused(const struct cht_rowset *s, int result);
/* The changes of a shard as a block of bytes (rowset_block.c): what a transaction keeps, and what is applied from it. *steps of an operation. */
enum cht_rc cht_rowset_block(const struct cht_rowset *s, unsigned shard, struct cht_buf *out, size_t *steps,
                             struct cht_err *err);
/* That was written: if there are changes in it, the M row of their generation is counted (rows.h). */
void cht_rowset_summed(const struct cht_rowset *s, unsigned shard);
/* CHT_CORRUPT: that is no block. */
enum cht_rc cht_block_apply(struct cht_str block, struct cht_call *call, struct cht_err *err);
