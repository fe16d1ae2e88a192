/* fm_format: how a fixed model is stored: one that was read in from a text in ARPA format, with its probabilities and back-off weights.
 *
 *   kn:0:__root__                          the head, version 2 where a live model's has 1: a database has one of the two
 *   fm:<n>: + n-1 tokens, nearest first    the followers of a context with these n-grams' log10 p, log10 back-off weight, and the line
 *           + (follower >> shift) u32      that they stood in; the followers of one context in pages
 *   fm:0:   + rank u32 + (token >> shift)  tokens by the log10 p of their 1-gram, the most likely first (lm_fm_rank)
 *
 *   head      version=2 u8 | N u8 | flags u16 | bos u32 | eos u32 | unk u32 | 0 u32 | id u64 | N x n-grams u64
 *   page      version=1 u8 | order u8 | entries, ascending by token: token u32, p f32, back-off f32 (not for order N), line u32
 *   rank      version=1 u8 | 0 u8 | entries, ascending by token: token u32, p f32
 *
 * Integers and floats are big-endian. An n-gram's own back-off weight stands with it, so whoever goes from token to token has read the
 * weights of the next context already. Pages bound what is rewritten when an n-gram is added to a context that has many.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"
#include "cheetah/store.h"
#include "lm/counts.h"

#define LM_FM_ALL "fm:"
#define LM_FM_NAME_MAX (5u + 4u * LM_ORDER_MAX)
#define LM_FM_PAGE_SHIFT 8u    /* of 1-grams */
#define LM_FM_WIDE_SHIFT 16u   /* of longer ones, and of ranks */
#define LM_FM_ZERO (-99.0F)    /* log10 p from which on p is 0 */
#define LM_FM_NO_ID UINT32_MAX /* of <unk>, unless it is said */

enum {
    LM_FM_EOS = 1,    /* there is </s> */
    LM_FM_MAKING = 2, /* it is being read in, or that was cut off: there is no model yet */
    LM_FM_UNK = 4,    /* there is <unk> */
    LM_FM_BOS = 8     /* there is <s> */
};

struct lm_fm_head {
    unsigned order, flags;
    uint32_t bos, eos, unk;
    uint64_t id;                  /* chosen by chance when it was made */
    uint64_t n[LM_ORDER_MAX + 1]; /* n-grams by order; n[0] is not used */
};
#define LM_FM_HEAD_MAX (28u + 8u * LM_ORDER_MAX)

size_t lm_fm_head_write(const struct lm_fm_head *h, uint8_t out[LM_FM_HEAD_MAX]);
/* False: these bytes are no head of a fixed model. */
bool lm_fm_head_read(const uint8_t *p, size_t n, struct lm_fm_head *out);

/* The name of the page of the n-gram of `order` tokens whose last one is `token`; context: the order - 1 before it, nearest first. Returns
 * its length. */
size_t lm_fm_name(unsigned order, const uint32_t *context, uint32_t token, uint8_t out[LM_FM_NAME_MAX]);
/* "fm:3:" and the context: what the names of all its pages begin with. */
size_t lm_fm_prefix(unsigned order, const uint32_t *context, uint8_t out[LM_FM_NAME_MAX]);
/* "fm:3:" */
size_t lm_fm_section(unsigned order, uint8_t out[LM_FM_NAME_MAX]);
static inline unsigned lm_fm_shift(unsigned order)
{
    return order == 1 ? LM_FM_PAGE_SHIFT : LM_FM_WIDE_SHIFT;
}
/* Ascending where p descends; tokens of the same p have the same rank. */
uint32_t lm_fm_rank(float p);
/* The largest p of this rank. */
float lm_fm_rank_most(uint32_t rank);
size_t lm_fm_rank_name(uint32_t rank, uint32_t token, uint8_t out[LM_FM_NAME_MAX]);

/* One n-gram, or a token in a rank. */
struct lm_fm_entry {
    uint32_t token;
    float p, backoff;
    uint32_t line; /* UINT32_MAX: that line or a later one */
};
/* A page in memory. */
struct lm_fm_page {
    const uint8_t *p; /* of the entries; borrowed */
    uint32_t n;
    unsigned order, size; /* bytes of an entry */
    bool last;            /* of the highest order: no back-off weights */
};
/* order 0: a rank. False: these bytes are no page of it. Ascending tokens, and that they are of this page, are for whoever goes through
 * all of it to see. */
bool lm_fm_page_read(unsigned order, unsigned highest, const uint8_t *p, size_t n, struct lm_fm_page *out);
struct lm_fm_entry lm_fm_entry(const struct lm_fm_page *page, uint32_t i);
/* False: the token is not among them. */
bool lm_fm_find(const struct lm_fm_page *page, uint32_t token, struct lm_fm_entry *out);
static inline size_t lm_fm_page_room(size_t n) { return 2 + 16 * n; }
/* Begins a page; returns its end. */
uint8_t *lm_fm_page_begin(unsigned order, uint8_t *out);
/* Puts an entry at the end of a page and returns the new end. */
uint8_t *lm_fm_put(unsigned order, unsigned highest, const struct lm_fm_entry *e, uint8_t *end);

#define LM_FM_FLOAT_TEXT 24u
/* log10 of a probability or a weight as text: the fewest digits, 6 or more, that lm_arpa reads as the same float again; at most
 * LM_FM_FLOAT_TEXT bytes. Returns their number. */
size_t lm_fm_put_float(char *out, float v);
