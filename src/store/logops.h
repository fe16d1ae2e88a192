/* logops: the operations inside a log record, as they were resolved: keys are decided, an upsert is its two halves.
 *
 *   VALUE_PUT   1 u8  key u48  len u32  bytes       the value under key is these bytes
 *   VALUE_DEL   2 u8  key u48
 *   PAIR_SET    3 u8  key u48  len u16  name
 *   PAIR_DEL    4 u8  len u16  name
 *   PREFIX_DEL  5 u8  len u16  prefix               every pair under it, in all shards
 *   PAIR_ENDS   6 u8  time u48  len u16  name       the pair ends then (expiry.h); 0: never; no name: the clock was there. Only after the headers of the shards
 *                                                   say so, on the disk: programs that do not know it refuse these first
 *
 * Redo is idempotent operation by operation and touches one shard each (PREFIX_DEL: each shard on its own), so every
 * shard can redo from a position of its own, in parallel with the others.
 */
#pragma once

#include "store/shard.h"
#include "store/wal.h"

enum cht_logop_kind {
    CHT_LOG_VALUE_PUT = 1,
    CHT_LOG_VALUE_DEL = 2,
    CHT_LOG_PAIR_SET = 3,
    CHT_LOG_PAIR_DEL = 4,
    CHT_LOG_PREFIX_DEL = 5,
    CHT_LOG_PAIR_ENDS = 6
};

struct cht_logop {
    enum cht_logop_kind kind;
    uint64_t key;        /* or time */
    struct cht_str data; /* value bytes or name; borrowed from the record */
};

#define CHT_LOGOP_HEAD_MAX 11u
/* Values from this size on are not copied into the record but written from the caller's memory. */
#define CHT_LOG_BORROW (16u << 10)

/* Builder of one record: small things are copied into `buf`, long values are borrowed parts. */
struct cht_logbuf {
    struct cht_buf buf;
    struct cht_wal_part *parts; /* owned; p NULL: n bytes of buf, in order */
    size_t nparts, cap;
    uint64_t bytes;
    struct cht_buf
        *taken; /* owned: what long buffers that were joined have brought; parts borrow from them */
    size_t ntaken, taken_cap;
};
void cht_logbuf_fini(struct cht_logbuf *l);
void cht_logbuf_clear(struct cht_logbuf *l);
/* After a record was written: frees what a very large one needed. */
void cht_logbuf_trim(struct cht_logbuf *l);
/* Room for one more operation with `data` bytes of name or value: after that the next add cannot fail. */
enum cht_rc cht_logbuf_reserve(struct cht_logbuf *l, size_t ops, size_t data, struct cht_err *err);
/* Room for what that many cht_logbuf_join will bring: bytes and parts. */
enum cht_rc cht_logbuf_room(struct cht_logbuf *l, size_t bytes, size_t parts, size_t joins,
                            struct cht_err *err);
/* Appends the operations of another buffer, for which there is room, and clears that one. A long one is taken as it is, not copied. */
void cht_logbuf_join(struct cht_logbuf *l, struct cht_logbuf *other);
void cht_logbuf_add(struct cht_logbuf *l, enum cht_logop_kind kind, uint64_t key, struct cht_str data);
/* What is added from now on is another part than what was before. */
enum cht_rc cht_logbuf_break(struct cht_logbuf *l, struct cht_err *err);
/* A position to go back to when an atomic commit fails. */
struct cht_logmark {
    size_t len, nparts, last;
    uint64_t bytes;
};
struct cht_logmark cht_logbuf_mark(const struct cht_logbuf *l);
void cht_logbuf_rewind(struct cht_logbuf *l, struct cht_logmark m);
/* The parts with their addresses filled in, for cht_wal_append; valid until the next change. */
const struct cht_wal_part *cht_logbuf_parts(struct cht_logbuf *l, size_t *count);

/* Decodes the operation at *pos and moves after it; CHT_CORRUPT if the bytes are not one. */
enum cht_rc cht_logop_decode(const uint8_t *p, size_t n, size_t *pos, struct cht_logop *op,
                             struct cht_err *err);
/* Does it concern this shard? And applies it (exclusive lock or no other thread). Idempotent. */
bool cht_logop_concerns(const struct cht_logop *op, const struct cht_shard *sh);
enum cht_rc cht_logop_redo(const struct cht_logop *op, struct cht_shard *sh, struct cht_err *err);
