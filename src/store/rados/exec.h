/* exec: what each operation of a commit does to the rows. An operation looks at rows and changes them in a set; if a row is missing it
 * says CHT_PENDING and is run again once the row is there. So it may be run several times, with the same result for the same rows;
 * also a question that is asked (struct cht_ask) is asked again each time.
 *
 * values.c: values longer than CHT_ROW_INLINE_MAX. They are written before the row that names them, and removed after the row has
 * gone; what a crash leaves of them no row names.
 */
#pragma once

#include "store/rados/under.h"

/* Operations of a restore (replay.h), beside those of enum cht_op_kind: what was given out elsewhere is as it was. What there is already they leave
 * as a log's redo would. */
#define CHT_REDO_KIND(n) ((enum cht_op_kind)(CHT_OP_RESERVE + (n)))
#define CHT_REDO_VALUE CHT_REDO_KIND(1) /* key, value: whoever gave out the key */
#define CHT_REDO_NAME CHT_REDO_KIND(2)  /* name, key: it ends when it did */
#define CHT_REDO_BOTH \
    CHT_REDO_KIND(3) /* name, key, value: both; in one row if neither was there. They are of one bucket */
#define CHT_REDO_END CHT_REDO_KIND(4) /* name, until_ms: the pair ends then; 0: never. PAIR_NOT_FOUND */

/* What is kept of an operation between two runs. */
struct cht_exec_op {
    struct cht_op *op;
    uint64_t fresh;                /* a key that was leased for it */
    uint64_t parts;                /* its value was written as this object; 0: not */
    uint32_t parts_len, parts_crc; /* which value that was */
    struct cht_under
        *under; /* owned by whoever has this: the names of PREFIX_DEL, in an atomic commit; NULL: none */
    uint64_t missing; /* the object with a long value that was not there when it was read last */
    bool done;
};

struct cht_fences; /* fence.h */
struct cht_exec {
    struct cht_rdb *db;
    struct cht_rowset *set;
    bool full; /* the pool: what would grow it is refused */
    bool
        guess; /* rows are what the cache has, and keys that were never given out are free, until a write is refused */
    bool fresh;                      /* with guess: names of which the cache has nothing are new */
    const struct cht_fences *fences; /* of a set of several shards; the caller looks at them */
    uint64_t now;      /* ms since 1970, by which pairs have ended; of the operation that is run */
    uint64_t read_max; /* 0: none */
    uint64_t read;     /* bytes that were read so far */
    uint64_t missing;  /* of the operation that is run */
    bool soon;         /* a long value is not read: CHT_PENDING */
    bool long_value;   /* that was so */
    struct cht_err *err;
};

/* Runs it: op->rc and its results, but for CHT_PENDING, which is returned: again after a fetch. What a failed operation changed is
 * taken back. */
enum cht_rc cht_exec_run(struct cht_exec *x, struct cht_exec_op *o);

/* What lies under a key. */
struct cht_exec_value {
    bool live;
    bool under_name;     /* it is in the P row of `name` */
    struct cht_str name; /* of the row */
    struct cht_row row;
    size_t at, key_at; /* the row that has it, and the K row */
    unsigned shard;
};
enum cht_rc cht_exec_find(struct cht_exec *x, uint64_t key, struct cht_exec_value *v);
/* The bytes of a value; borrowed until the set ends. CHT_CORRUPT, CHT_NO_FILE: it was replaced meanwhile. */
enum cht_rc cht_exec_bytes(struct cht_exec *x, const struct cht_exec_value *v, struct cht_str *out);

/* ---- values.c ------------------------------------------------------------------------------------------------------ */

/* Writes a long value as an object of its own; *number is its number. */
enum cht_rc cht_parts_write(struct cht_rdb *db, struct cht_str value, uint64_t *number, struct cht_err *err);
enum cht_rc cht_parts_read(struct cht_rdb *db, uint64_t number, uint8_t *out, uint32_t len,
                           struct cht_err *err);
void cht_parts_remove(struct cht_rdb *db, uint64_t number);
/* After a write that was done: the objects that no row of the set names any more. */
void cht_parts_sweep(struct cht_rowset *s);
