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
};

void cht_txn_name(struct cht_txn *t); /* of its object, from id */
void cht_txn_fini(struct cht_txn *t);
/* Compares the shard's epoch and lock, and sets the lock if it is to be another. */
void cht_txn_lock(struct cht_call *call, uint32_t epoch, uint64_t from, uint64_t to);
/* Compares the state and sets it; "P", "C", "A". The answer of librados. */
int cht_txn_state(const struct cht_txn *t, const char *from, const char *to);
/* Reads the record. What kind it is: is_split. CHT_NO_FILE: it is gone. */
enum cht_rc cht_txn_read(struct cht_txn *t, struct cht_err *err);
/* Finds the places in the record. CHT_CORRUPT, CHT_NO_MEMORY. */
enum cht_rc cht_txn_parse(struct cht_txn *t, struct cht_err *err);
/* T4 and T5. What is refused was done by somebody else. */
enum cht_rc cht_txn_finish(struct cht_txn *t, struct cht_err *err);
/* After P -> A: takes away the locks, and the object. */
enum cht_rc cht_txn_give_up(struct cht_txn *t, struct cht_err *err);
