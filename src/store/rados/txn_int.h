/* txn_int: what the files of a transaction share: txn.c (making one) and settle.c (going on with one). txn.h has the steps. */
#pragma once

#include "store/rados/rdb.h"

#define CHT_TXN_RECORD_MAX ((size_t)80 << 20)

struct cht_txn_place { /* of a shard in a record */
    unsigned shard;
    uint32_t epoch;
    struct cht_str block;
};
struct cht_txn {
    struct cht_rdb *db;
    uint64_t id;
    char object[CHT_LINK_OBJECT_MAX];
    struct cht_buf record;
    unsigned split, level; /* of a shard that is divided: its number and level; places is NULL then */
    bool is_split;
    struct cht_txn_place *places; /* owned; into record */
    struct cht_call *calls;       /* owned, one a place: nothing is allocated between the steps */
    size_t n;
    uint64_t generation; /* of the shards (cut.h) while it has their locks; 0: no changes are kept */
    uint64_t after;      /* after T4 */
    unsigned
        met_shard; /* of still.c: who has the lock of this shard is waited for when one's own have been given back */
    struct cht_epoch met; /* lock 0: nobody */
};

void cht_txn_name(struct cht_txn *t); /* of its object, from id */
void cht_txn_fini(struct cht_txn *t);
/* Compares the shard's E, and sets it if it is to be another. */
void cht_txn_epoch(struct cht_call *call, const struct cht_epoch *was, const struct cht_epoch *now);
/* Compares E as a write has to that is no transaction's. */
static inline void cht_txn_free(struct cht_call *call, const struct cht_rdb *db, uint32_t epoch)
{
    struct cht_epoch e = {epoch, 0, cht_rdb_generation(db)};
    cht_txn_epoch(call, &e, &e);
}
/* E of a shard as it is now. */
enum cht_rc cht_txn_look(struct cht_rdb *db, unsigned shard, struct cht_epoch *out, struct cht_err *err);
/* The beginning of a record, of CHT_TXN_HEAD bytes at most; returns how many. */
#define CHT_TXN_HEAD 24u
size_t cht_txn_head(const struct cht_txn *t, uint8_t *out, uint32_t shards);
/* Compares the state and sets it; "P", "C", "A". The answer of librados. */
int cht_txn_state(const struct cht_txn *t, const char *from, const char *to);
/* Is what has a lock a division (split.h)? Not if it has ended. */
enum cht_rc cht_txn_divides(struct cht_rdb *db, uint64_t id, bool *divides, struct cht_err *err);
/* Reads the record. What kind it is: is_split. CHT_NO_FILE: it is gone. */
enum cht_rc cht_txn_read(struct cht_txn *t, struct cht_err *err);
/* Finds the places in the record. CHT_CORRUPT, CHT_NO_MEMORY. */
enum cht_rc cht_txn_parse(struct cht_txn *t, struct cht_err *err);
/* T4 and T5. What is refused was done by somebody else. */
enum cht_rc cht_txn_finish(struct cht_txn *t, struct cht_err *err);
/* After P -> A: takes away the locks, and the object. */
enum cht_rc cht_txn_give_up(struct cht_txn *t, struct cht_err *err);
