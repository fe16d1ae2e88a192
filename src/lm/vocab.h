/* vocab: what smoothing knows of each token: in how many contexts of order 2 it follows, and its quantized probability in
 * the root of the order below. An open-addressing table of 12 bytes a slot, at most 5/8 full.
 *
 * Zero-initialise; lm_vocab_free at the end. Threads: any number of readers, or one writer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "cheetah/err.h"

struct lm_word {
    uint32_t token, contexts;
    uint16_t root; /* q + 1 of the token in the root of the order below; 0: it is not there */
    bool used;
};

/* Who is asked before memory is taken, and told when it is given back. take: CHT_OK, or why not; err NULL: less will do. Threads: any. */
struct lm_book {
    enum cht_rc (*take)(void *ctx, uint64_t bytes, struct cht_err *err);
    void (*give)(void *ctx, uint64_t bytes);
    void *ctx;
};

struct lm_vocab {
    const struct lm_book *book; /* borrowed; NULL: nobody is asked */
    enum cht_rc rc;             /* why lm_vocab_enter has failed */
    struct lm_word *slot;       /* owned */
    size_t slots, words;
    struct cht_sip_key key; /* nobody can choose tokens that meet in the table */
};

/* The token's entry, NULL if there is none. */
const struct lm_word *lm_vocab_find(const struct lm_vocab *v, uint32_t token);
/* The same, entered (zero) if need be; borrowed until the next call. NULL: v->rc, CHT_NO_MEMORY or what v->book says. */
struct lm_word *lm_vocab_enter(struct lm_vocab *v, uint32_t token, struct cht_err *err);
void lm_vocab_free(struct lm_vocab *v);
