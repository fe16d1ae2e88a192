/* rows: the rows of a shard on RADOS, and where a name or key lies. Pure functions.
 *
 * A shard is an object with an ordered map. The first byte of a row's name says what it is:
 *
 *   E                     -> epoch u32 | lock u64        the lock is 0 or the number of a transaction (txn.h)
 *                            | generation u64            if changes are kept (cut.h)
 *   P escaped(name)       -> flags u8 | key u64 | length u32 | crc u32 | body
 *   K key                 -> flags u8 | key u64 | length u32 | crc u32 | body
 *   C escaped(prefix)     -> decimal: how many P rows lie under the prefix. Kept for the empty prefix and for the beginnings of names up
 *                            to their first and second ':'
 *   T end name            -> u8: a pair that ends: when, in ms since 1970 (8 digits as of a key), and its name, escaped. So they lie in
 *                            the order of their ends
 *   Fname                 -> who may write under the lock of this name (fence.h)
 *   D                     -> u8: the level at which the shard was divided: some of its rows are another's (split.h)
 *   Nv, Nb, Nq            -> decimal: live values; their bytes are 65536 Nq + Nb (counters are exact up to 10 digits)
 *   Ne                    -> decimal: pairs that end
 *   L generation row      -> there u8 | key u64          what changed in this generation (8 digits as of a key): the name of a P or K row (with V for K, so that names
 *                            come first), and whether the pair or the value under the key is there then, and its key
 *   M generation, Nl      -> decimal: bytes of L rows that were written in it, each time anew, and of its M row, by each server at least
 *                            once; and of all of them
 *
 *   flags   VALUE   the body is the value (length bytes)
 *           PARTS   the body is a number u64 of objects that hold the value
 *           NAME    K only: the body is the name whose P row holds the value
 *           none    P: the value is under the key, if there is one
 *           ENDS    beside another: before the body is the end u64 of the pair, and of its value. Of a K row that has the value of
 *                   a pair that ends too, so that a read by key needs no look at the name. Of a K row that was put by its key while
 *                   there was no value, or lasts again: CHT_ROW_SINCE and when that was, so that pairs that had ended before do not take it
 * The CRC-32C covers the key (8 bytes, little-endian) and the value. A row's name has no NUL: librados takes some of them as C strings.
 * escaped: 00 -> 01 01, 01 -> 01 02; order and prefixes stay. A key is 7 digits of 7 bits, each with the high bit set, the highest first.
 *
 * Invariants
 *   R1 a value is in one row: in K, or in P if K says NAME and gives its name.
 *   R2 K (NAME) and the P row that it names are in one shard and have one key.
 *   R3 the shard of a row is cht_map_locate of its bucket: of a name a hash, of a key its lowest 16 bits. So a key that is made for a
 *      name, with the name's bucket in these bits, stays with it however often its shard is divided.
 */
#pragma once

#include "cheetah/store.h"

#define CHT_ROW_NAME_MAX (2u * CHT_NAME_MAX + 1u)
#define CHT_ROW_BUCKETS 65536u
#define CHT_ROW_INLINE_MAX (64u << 10) /* longer values lie in objects of their own */
#define CHT_ROW_HEAD 17u

enum cht_row_flag { CHT_ROW_VALUE = 1, CHT_ROW_PARTS = 2, CHT_ROW_NAME = 4 };
#define CHT_ROW_ENDS 0x80u /* as it is stored; not in struct cht_row.flags */
#define CHT_ROW_SINCE \
    (UINT64_C(1) << 63) /* of `ends`: it never ends, and is there since the time in the other bits */

struct cht_row { /* what a P or K row says */
    uint8_t flags;
    uint64_t key;
    uint32_t len, crc;   /* of the value; 0 without one */
    struct cht_str body; /* borrowed */
    uint64_t ends;       /* in ms since 1970; 0: never */
};
static inline size_t cht_row_size(const struct cht_row *r)
{
    return CHT_ROW_HEAD + (r->ends != 0 ? 8 : 0) + r->body.n;
}
static inline bool cht_row_live(const struct cht_row *r)
{
    return (r->flags & (CHT_ROW_VALUE | CHT_ROW_PARTS)) != 0;
}

struct cht_epoch {
    uint32_t epoch;
    uint64_t lock;
    uint64_t generation; /* 0: no changes are kept */
};
#define CHT_ROW_EPOCH_SIZE 20u /* at most */

/* out has room for 2 * n bytes; returns how many were written. */
size_t cht_row_escape(uint8_t *out, const uint8_t *p, size_t n);
/* out has room for n bytes. SIZE_MAX: what is there was not escaped. */
size_t cht_row_unescape(uint8_t *out, const uint8_t *p, size_t n);

uint32_t cht_row_bucket(struct cht_str name); /* below CHT_ROW_BUCKETS */
static inline uint32_t cht_row_bucket_of_key(uint64_t key) { return (uint32_t)(key % CHT_ROW_BUCKETS); }

/* Of a P, K or T row; false: it is another, or cannot be read: badly escaped, empty, of a name longer than CHT_NAME_MAX. */
bool cht_row_bucket_of(struct cht_str row, uint32_t *bucket);

/* Names of rows; out has room for CHT_ROW_NAME_MAX bytes. kind: 'P' or 'C'. */
size_t cht_row_of_name(uint8_t *out, char kind, struct cht_str name);
size_t cht_row_of_key(uint8_t *out, uint64_t key);
/* A text that is known when compiling, as the name of a row. */
#define CHT_ROW_TEXT(s) ((struct cht_str){(const uint8_t *)("" s), sizeof(s) - 1})
#define CHT_ROW_KEY_SIZE 8u
uint64_t cht_row_key(const uint8_t *row, size_t n); /* 0: that is no name of a K row */

/* The T row of the pair with this P row; out has room for CHT_ROW_NAME_MAX + CHT_ROW_KEY_SIZE bytes. */
size_t cht_row_of_end(uint8_t *out, uint64_t ends, struct cht_str name_row);
/* What it says: the end, and the escaped name; 0: that is no T row. */
uint64_t cht_row_end(struct cht_str row, struct cht_str *name);

void cht_row_write(uint8_t *out, const struct cht_row *r); /* cht_row_size bytes */
/* False: that is no such row. */
bool cht_row_read(const uint8_t *p, size_t n, struct cht_row *out);
uint32_t cht_row_crc(uint64_t key, struct cht_str value);

/* What an L row says. */
struct cht_changed {
    uint64_t generation;
    struct cht_str row; /* name of a P or K row, but for V; borrowed */
    bool there;
    uint64_t key; /* of a pair that is there, and of values */
};
#define CHT_ROW_CHANGED_VALUE 'V'
#define CHT_ROW_GENERATION 9u /* bytes before the name of the row */
#define CHT_ROW_CHANGED_NAME (CHT_ROW_NAME_MAX + CHT_ROW_GENERATION)
#define CHT_ROW_CHANGED_SIZE 9u
#define CHT_ROW_SUM_SIZE (CHT_ROW_GENERATION + 11u) /* of an M row, about: a decimal number */
/* kind 'L': what all of its L rows begin with; kind 'M': its M row. out has room for CHT_ROW_GENERATION bytes. */
void cht_row_of_generation(uint8_t *out, char kind, uint64_t generation);
/* Of such a row; 0: it is none. */
uint64_t cht_row_generation(struct cht_str row);
/* out has room for CHT_ROW_CHANGED_NAME bytes; returns how many were written. */
size_t cht_row_of_change(uint8_t *out, uint64_t generation, struct cht_str row);
void cht_row_changed_write(uint8_t *out, bool there, uint64_t key); /* CHT_ROW_CHANGED_SIZE bytes */
/* False: that is no L row. */
bool cht_row_changed_read(struct cht_str row, struct cht_str value, struct cht_changed *out);

/* Returns how many bytes were written. */
size_t cht_row_epoch_write(uint8_t *out, const struct cht_epoch *e);
bool cht_row_epoch_read(const uint8_t *p, size_t n, struct cht_epoch *out);

/* What a counter says: as the OSD writes it, exact up to 10 digits, no fraction; 0 of one that is absent. */
int64_t cht_row_number(struct cht_str value);

/* How many prefixes of a name are counted, and their lengths: 0, and up to the first and the second ':'. */
unsigned cht_row_counted(struct cht_str name, size_t lengths[3]);
/* Is this prefix counted for every name under it? */
bool cht_row_is_counted(struct cht_str prefix);
