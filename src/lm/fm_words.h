/* fm_words: the words of a text in ARPA format as tokens of the vocabulary (words.h). A word that is there keeps its token; a new one gets the
 * next, which it has once the model is there: the pairs of all new words are part of the commit that makes it a model.
 *
 * That needs no lock: while the head of a model that is being read in is there nothing is counted, so nobody else gives tokens. A client that
 * writes `tok:` pairs by hand meanwhile is found at the end.
 *
 * Internal to src/lm (fm_import.c). Threads: one at a time per object.
 */
#pragma once

#include "lm/words.h"

struct lm_fm_words {
    uint32_t special[3]; /* of the caller: of bos, eos and unk, which no word has */
    /* of the caller, as in lm_fm_parameters; may be NULL */
    bool (*is_text)(const char *word, size_t n);
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err);
    void *ctx;
    /* its own */
    struct lm_words words;
    uint32_t before, last; /* the last token given out before it; by it */
    size_t fresh;          /* words that are new */
    uint64_t used, booked; /* bytes */
    bool any;              /* there was a vocabulary */
    struct cht_buf buf;
};

enum cht_rc lm_fm_words_begin(struct lm_fm_words *w, struct cht_store *s, struct cht_err *err);
/* The token of a word of a line; first: it is a 1-gram, else it was one before. CHT_INVALID_ARPA with the number of the line: it cannot be a word, or was no 1-gram;
 * CHT_KEYS_EXHAUSTED, CHT_NO_MEMORY, what the bound says and what a read returns. */
enum cht_rc lm_fm_words_token(struct lm_fm_words *w, struct cht_store *s, struct cht_str word, bool first,
                              uint64_t line, uint32_t *token, struct cht_err *err);
/* The pairs of the new words, for the commit of the head; they borrow from w. CHT_MODEL_EXISTS: somebody has written tokens since it began. */
enum cht_rc lm_fm_words_load(const struct lm_fm_words *w, struct cht_store *s, struct lm_load *l,
                             struct cht_err *err);
void lm_fm_words_free(struct lm_fm_words *w);
