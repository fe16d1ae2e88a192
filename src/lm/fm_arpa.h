/* fm_arpa: reads a text in ARPA format as it comes in, in pieces of any size, and hands over its n-grams.
 *
 *   anything | \data\ | ngram m=COUNT ... | \m-grams: | log10 p, m words, log10 back-off (may be missing) ... | \end\ | anything
 *
 * Fields stand between runs of blanks and tabs, lines end with LF or CR LF, lines of blanks are passed over. Refused with the number
 * of the line is whatever two readers could take for different models: sections out of order or cut off, counts that are not those of
 * the sections, numbers that are none, a p above 1, a back-off weight that is not finite. A number below what a float can show is p = 0.
 *
 * A word is a token in decimal, or what the caller makes a token of; <s>, </s>, <unk> (<UNK>) are the tokens that the caller says.
 * Memory: that of one line, of which runs of blanks do not count. Threads: one at a time per object; no I/O.
 */
#pragma once

#include "lm/fm_format.h"

#define LM_ARPA_WORD_MAX 4096u
#define LM_ARPA_LINE_MAX (16u << 10) /* bytes of a line that is more than one piece, without runs of blanks */

/* What is worth knowing, and no reason to refuse the text. */
enum {
    LM_ARPA_NO_UNK = 1,         /* there is no <unk>: an unknown token has p = 0 */
    LM_ARPA_LAST_BACKOFF = 2,   /* n-grams of the highest order have back-off weights: passed over */
    LM_ARPA_TEXT_AFTER_END = 4, /* there is text after \end\: passed over */
    LM_ARPA_NO_MARKS = 8        /* there is no <s>, or no </s> */
};

struct lm_arpa_gram {
    const uint32_t *token; /* in the order of the text; borrowed during the call */
    unsigned order;
    float p, backoff;
    uint64_t line;
};

struct lm_arpa {
    /* of the caller */
    uint32_t bos, eos, unk;
    bool unmarked; /* a text without <s> or </s> is accepted */
    /* The token of a word that is none of the special ones; NULL: words are tokens in decimal. The counts are known; a gram; all of a section
     * have come. Any other code than CHT_OK ends the reading. */
    enum cht_rc (*word)(void *ctx, struct cht_str word, uint32_t *token, struct cht_err *err);
    enum cht_rc (*begin)(void *ctx, unsigned order, const uint64_t *n, struct cht_err *err);
    enum cht_rc (*gram)(void *ctx, const struct lm_arpa_gram *g, struct cht_err *err);
    enum cht_rc (*section)(void *ctx, unsigned order, struct cht_err *err);
    void *ctx;
    /* results */
    unsigned order, flags; /* flags: LM_FM_EOS, LM_FM_UNK, LM_FM_BOS */
    unsigned warnings;     /* LM_ARPA_... */
    uint64_t lines;        /* so far */
    /* its own */
    unsigned state, at; /* at: the section */
    uint64_t seen;      /* n-grams of it */
    uint64_t n[LM_ORDER_MAX + 1];
    uint32_t named; /* which of the special words are 1-grams: LM_FM_... */
    bool blank;     /* the last byte of `part` was a blank */
    bool over;      /* the rest of this line is dropped */
    size_t part_n;
    char part[LM_ARPA_LINE_MAX]; /* the beginning of a line that has not ended */
};

/* Zero-initialise what is the caller's first. */
void lm_arpa_begin(struct lm_arpa *a);
/* CHT_INVALID_ARPA with the number of the line, or what a callback returned. No more calls after it. */
enum cht_rc lm_arpa_feed(struct lm_arpa *a, const char *p, size_t n, struct cht_err *err);
/* The text has ended. CHT_INVALID_ARPA: it is cut off. */
enum cht_rc lm_arpa_end(struct lm_arpa *a, struct cht_err *err);
