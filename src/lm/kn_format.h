/* kn_format: how the live Kneser-Ney model is stored: names, the head, the records of contexts. README.md explains the model.
 *
 *   kn:0:__root__                        the head: parameters, and what is known of each order
 *   kn:<n>: + n-1 tokens, nearest first  the followers of a context of n-1 tokens, n >= 2. Nearest first: a context's name starts
 *                                        with the name of the context that it backs off to
 *   kn:1: + (token >> 8)                 the followers of the empty context in pages of 256 tokens
 *
 * Integers in names and in the fixed fields are big-endian u32, u64. A varint has 7 bits a byte, low ones first, 0x80: more follow.
 *
 *   head      version=1 u8 | N u8 | flags u16 (LM_KN_EOS, LM_KN_KEEP_...) | bos u32 | eos u32 | id u64 | generation u64
 *             | documents u64 | tokens u64 | root_total u64 | 0 u32
 *             | N x (contexts u64, types u64, n1 u64, n2 u64, n3 u64, n4 u64)
 *   narrow    version=1 u8 | n u8, 1 to 63 | n x (varint token, less the one before and 1; varint a - 1)
 *   wide      version=2 u8 | 0 u8 | order u16 | n u32, 64 and over | total u64 | b1 u32 | b2 u32 | n x (token u32, a u32)
 *
 * Followers are ascending by token. There is one form for each set of followers, so equal models have equal bytes. Nine in ten
 * records of the highest orders have one follower: 5 bytes. Wide ones say their sums, and one follower is found by binary search.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"
#include "cheetah/store.h"
#include "lm/counts.h"

#define LM_KN_ALL "kn:"
#define LM_KN_NAME_MAX (5u + 4u * (LM_ORDER_MAX - 1))
#define LM_KN_PAGE_SHIFT 8u
#define LM_KN_WIDE 64u /* followers from which on a record is wide */

/* ---- the head ---------------------------------------------------------------------------------------------------- */

enum { LM_KN_EOS = 1, LM_KN_KEEP_CNT = 2, LM_KN_KEEP_CTX = 4, LM_KN_KEEP_CTXV = 8 };
#define LM_KN_KEEP (LM_KN_KEEP_CNT | LM_KN_KEEP_CTX | LM_KN_KEEP_CTXV)

/* What is known of all m-grams of one order m: with an adjusted count a of 1 and more (types), of exactly 1, 2, 3, 4. */
struct lm_kn_order {
    uint64_t contexts; /* that have followers; for m = 1 the pages of the root */
    uint64_t types;
    uint64_t n[4];
};

struct lm_kn_head {
    unsigned order, flags;
    uint32_t bos, eos;
    uint64_t id;                            /* chosen by chance when the model was made */
    uint64_t generation;                    /* commits so far */
    uint64_t documents, tokens;             /* counted less removed; tokens: those that were predicted */
    uint64_t root_total;                    /* sum of a over the root */
    struct lm_kn_order m[LM_ORDER_MAX + 1]; /* by order; m[0] is not used */
};
#define LM_KN_HEAD_MAX (56u + 48u * LM_ORDER_MAX)

struct cht_str lm_kn_head_name(void);
size_t lm_kn_head_write(const struct lm_kn_head *h, uint8_t out[LM_KN_HEAD_MAX]);
/* False: these bytes are no head, or one that is not sound. */
bool lm_kn_head_read(const uint8_t *p, size_t n, struct lm_kn_head *out);
/* Can its sums be those of a model? */
bool lm_kn_head_sound(const struct lm_kn_head *h);
/* Reads the head of the database, through buf. CHT_PAIR_NOT_FOUND (err untouched): there is no live model; CHT_FIXED_MODEL: a fixed one
 * is there, or is being read in (fm_format.h); CHT_MALFORMED_PAYLOAD; CHT_PENDING as cht_store_get_soon. */
enum cht_rc lm_kn_head_get(struct cht_store *s, struct lm_kn_head *out, struct cht_buf *buf,
                           struct cht_wait *w, struct cht_err *err);
/* The same, through pv->out; what else is known of its pair is in *pv. */
enum cht_rc lm_kn_head_find(struct cht_store *s, struct lm_kn_head *out, struct cht_pair_value *pv,
                            struct cht_wait *w, struct cht_err *err);

/* The discounts of one order: d[1], d[2], d[3] for a = 1, 2, 3 and over; d[0] is 0. */
struct lm_kn_discounts {
    double d[4];
    bool fallback; /* they could not be estimated: 0.5, 1, 1.5 */
};
/* Chen and Goodman's closed form in binary32, each operation rounded, as KenLM has it (README.md says why that matters). */
struct lm_kn_discounts lm_kn_discounts(const struct lm_kn_order *m);

/* ---- records ------------------------------------------------------------------------------------------------------ */

/* The name of the record of the `order` - 1 tokens before `end`, order >= 2. Returns its length, at most LM_KN_NAME_MAX. */
size_t lm_kn_name(unsigned order, const uint32_t *end, uint8_t out[LM_KN_NAME_MAX]);
/* The name of the page of the root that holds the token. */
size_t lm_kn_page_name(uint32_t token, uint8_t out[LM_KN_NAME_MAX]);
/* "kn:3:": returns its length. */
size_t lm_kn_prefix(unsigned order, uint8_t out[LM_KN_NAME_MAX]);

/* A record in memory. */
struct lm_kn_record {
    const uint8_t *p, *end; /* of the followers; borrowed */
    uint32_t n;
    bool wide;
    uint32_t b[4]; /* followers with a = 1, 2, 3 and over; b[0] is not used */
    uint64_t total;
};
/* Its followers alone. */
struct lm_kn_row {
    const uint8_t *p;
    uint32_t n;
    bool wide;
};
/* False: these bytes are no record of that order. A narrow one is looked through; of a wide one the head and the size are compared. */
bool lm_kn_record_read(unsigned order, const uint8_t *p, size_t n, struct lm_kn_record *out);
/* Looks through a wide one too: ascending, no a of 0, sums as said. */
bool lm_kn_record_sound(const struct lm_kn_record *r);
/* Reads a page of the root, which is looked through: tokens of its own only. */
bool lm_kn_page_read(struct cht_str name, const uint8_t *p, size_t n, struct lm_kn_record *out);
/* a of the token; 0: it is no follower. */
uint32_t lm_kn_row_find(const struct lm_kn_row *r, uint32_t token);

/* Goes through the followers, ascending by token. */
struct lm_kn_walk {
    const uint8_t *p;
    uint32_t left, token, a;
    bool wide, begun;
};
static inline void lm_kn_walk_begin(struct lm_kn_walk *w, const struct lm_kn_record *r)
{
    *w = (struct lm_kn_walk){.p = r->p, .left = r->n, .wide = r->wide};
}
static inline void lm_kn_walk_row(struct lm_kn_walk *w, const struct lm_kn_row *r)
{
    *w = (struct lm_kn_walk){.p = r->p, .left = r->n, .wide = r->wide};
}
static inline uint32_t lm_kn_varint(const uint8_t **p)
{
    uint32_t v = *(*p)++;
    if (v < 0x80)
        return v;
    v &= 0x7F;
    for (unsigned shift = 7;; shift += 7) {
        uint32_t c = *(*p)++;
        v |= (c & 0x7F) << shift;
        if (c < 0x80)
            return v;
    }
}
/* The next one in w->token and w->a; false: there is none. */
static inline bool lm_kn_walk_next(struct lm_kn_walk *w)
{
    if (w->left == 0)
        return false;
    w->left--;
    if (w->wide) {
        w->token = cht_be32(w->p);
        w->a = cht_be32(w->p + 4);
        w->p += 8;
        return true;
    }
    uint32_t step = lm_kn_varint(&w->p);
    w->token = w->begun ? w->token + step + 1 : step;
    w->begun = true;
    w->a = lm_kn_varint(&w->p) + 1;
    return true;
}

/* Bytes that a record of n followers needs at most. */
static inline size_t lm_kn_record_room(size_t n) { return n < LM_KN_WIDE ? 2 + n * 10 : 24 + n * 8; }
/* Writes one: followers ascending by token, n >= 1, a >= 1. Returns its bytes. */
size_t lm_kn_record_write(unsigned order, const struct lm_follower *f, uint32_t n, uint8_t *out);
