/* words: the vocabulary of a database: words that stand for tokens.
 *
 *   voc:<word>            the word's token, u32
 *   tok:<token as u32>    the word
 *
 * Words are runs of bytes without white space (space, tab, line break, vertical tab, form feed), of 1 to LM_WORD_MAX bytes. A word is given
 * the next token in the commit that counts it first, under the counting gate of the database (engine.h): by any number of clients at once each
 * word gets one token, and each token is one word's for ever. The first is LM_WORD_FIRST: those below are left to bos, eos and
 * the like. LM_WORD_UNKNOWN stands for a word of a question that is not there; it is never given to a word.
 */
#pragma once

#include "base/siphash.h"
#include "cheetah/store.h"
#include "lm/load.h"

#define LM_VOC "voc:"
#define LM_TOK "tok:"
#define LM_WORD_MAX (CHT_NAME_MAX - 4u)
#define LM_WORD_FIRST 4u
#define LM_WORD_UNKNOWN UINT32_MAX

/* The next word from *p on, which is moved to its begin; returns its bytes, 0: there is none. */
size_t lm_word_next(const char **p, const char *end);

/* The highest token that was given to a word, 0: none was. Names that are none of ours are passed over. */
enum cht_rc lm_words_last(struct cht_store *s, uint32_t *token, struct cht_err *err);
/* The token after it. CHT_KEYS_EXHAUSTED: there are no more. */
enum cht_rc lm_words_next(uint32_t *token, struct cht_err *err);

/* The token of a word; buf is scratch. CHT_PAIR_NOT_FOUND: it is not in the vocabulary; CHT_MALFORMED_PAYLOAD, and what a read returns. */
enum cht_rc lm_word_token(struct cht_store *s, struct cht_str word, uint32_t *token, struct cht_buf *buf,
                          struct cht_err *err);
/* The word of a token: in buf (len). CHT_PAIR_NOT_FOUND. */
enum cht_rc lm_word_text(struct cht_store *s, uint32_t token, struct cht_buf *buf, struct cht_err *err);

struct lm_words_entry {
    size_t at; /* in bytes */
    uint32_t n;
    uint32_t token; /* once it is known: `known` */
    bool known;
    bool wanted; /* by a document that is counted: it is given a token if it has none */
};

/* The different words of a request. Zero-initialise; lm_words_free at the end. Threads: one at a time per object. */
struct lm_words {
    struct lm_words_entry *w; /* owned */
    size_t n, cap;
    uint32_t *slot; /* owned: a table by keyed hash of the word: 0, or the entry + 1 */
    size_t slots;   /* a power of two */
    uint8_t *bytes; /* owned: the words */
    size_t len, bytes_cap;
    struct cht_sip_key key;
};

/* Is the word among the entries? */
bool lm_words_find(const struct lm_words *w, const char *word, size_t n, uint32_t *entry);
/* The entry of the word, made if need be. CHT_INVALID_TOKENS: it is too long; CHT_NO_MEMORY. */
enum cht_rc lm_words_enter(struct lm_words *w, const char *word, size_t n, uint32_t *entry,
                           struct cht_err *err);
/* Bytes of memory that it has. */
size_t lm_words_memory(const struct lm_words *w);
/* Under the counting gate: finds the tokens of all entries, and gives the next ones, none of `not` (bos and eos of a live model, or LM_WORD_UNKNOWN), to those that have none. *fresh is
 * the number of these. CHT_NOT_COUNTED: a word that is not wanted has none; CHT_KEYS_EXHAUSTED: there are no more tokens. */
enum cht_rc lm_words_resolve(struct lm_words *w, struct cht_store *s, const uint32_t not [2], size_t *fresh,
                             struct cht_err *err);
/* Bytes of memory of a fresh word until the commit is done, beside lm_words_memory and four times its own: its operations, changed pages. */
#define LM_WORD_COST 200u
/* After resolve: the pairs of the fresh words become part of the load. It borrows w, which stays as it is until that is committed. */
void lm_words_load(const struct lm_words *w, struct lm_load *l);
void lm_words_free(struct lm_words *w);
