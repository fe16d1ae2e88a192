/* fm_words: see fm_words.h. */
#include "lm/fm_words.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "lm/names.h"

#define STEP UINT64_C(16384) /* bytes that are booked together */
#define SHOWN_MAX 40         /* of a word in a message */

#define REFUSE(err, line, fmt, ...) \
    CHT_FAIL((err), CHT_INVALID_ARPA, "line %" PRIu64 ": " fmt, (line), __VA_ARGS__)

static int shown(struct cht_str word) { return word.n < SHOWN_MAX ? (int)word.n : SHOWN_MAX; }

static const char *text_of(struct cht_str word) { return (const char *)word.p; }

static enum cht_rc book(struct lm_fm_words *w, uint64_t used, struct cht_err *err)
{
    w->used = used;
    if (w->book == NULL || used <= w->booked)
        return CHT_OK;
    uint64_t more = used - w->booked > STEP ? used - w->booked : STEP;
    enum cht_rc rc = w->book(w->ctx, more, err);
    if (rc == CHT_OK)
        w->booked += more;
    return rc;
}

/* Can it be a word of the vocabulary, and be written out as one? */
static enum cht_rc check(const struct lm_fm_words *w, struct cht_str word, uint64_t line, struct cht_err *err)
{
    if (word.n > LM_WORD_MAX)
        return REFUSE(err, line, "a word of more than %u bytes", LM_WORD_MAX);
    if (memchr(word.p, 0, word.n) != NULL ||
        memchr(word.p, '\r', word.n) != NULL) /* ends a line for some readers */
        return REFUSE(err, line, "a word of %zu bytes has a NUL or a carriage return in it", word.n);
    if (w->is_text != NULL && !w->is_text(text_of(word), word.n))
        return REFUSE(err, line, "a word of %zu bytes is not UTF-8", word.n);
    return CHT_OK;
}

static bool is_special(const struct lm_fm_words *w, uint32_t token)
{
    return token == w->special[0] || token == w->special[1] || token == w->special[2];
}

static enum cht_rc give_next(struct lm_fm_words *w, uint32_t *token, struct cht_err *err)
{
    do {
        enum cht_rc rc = lm_words_next(&w->last, err);
        if (rc != CHT_OK)
            return rc;
    } while (is_special(w, w->last));
    *token = w->last;
    w->fresh++;
    return CHT_OK;
}

/* A word that was not in the text before: its entry gets the token of the vocabulary, or the next one. */
static enum cht_rc settle(struct lm_fm_words *w, struct cht_store *s, uint32_t entry, struct cht_str word,
                          uint64_t line, struct cht_err *err)
{
    struct lm_words_entry *e = &w->words.w[entry];
    enum cht_rc rc =
        w->any ? lm_word_token(s, word, &e->token, &w->buf, err) : (enum cht_rc)CHT_PAIR_NOT_FOUND;
    e->known = rc == CHT_OK;
    if (rc == CHT_OK && is_special(w, e->token))
        return REFUSE(err, line,
                      "the word '%.*s' has the token %" PRIu32
                      " in the vocabulary, which is that of <s>, </s> or <unk>",
                      shown(word), text_of(word), e->token);
    if (rc == CHT_PAIR_NOT_FOUND)
        rc = give_next(w, &e->token, err);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_fm_words_begin(struct lm_fm_words *w, struct cht_store *s, struct cht_err *err)
{
    uint64_t pairs = 0;
    struct cht_str all = {(const uint8_t *)LM_VOC, LM_LENGTH(LM_VOC)};
    enum cht_rc rc = cht_store_count(s, all, &pairs, err);
    if (rc == CHT_OK)
        rc = lm_words_last(s, &w->before, err);
    w->any = pairs > 0;
    w->last = w->before < LM_WORD_FIRST ? LM_WORD_FIRST - 1 : w->before;
    return rc;
}

enum cht_rc lm_fm_words_token(struct lm_fm_words *w, struct cht_store *s, struct cht_str word, bool first,
                              uint64_t line, uint32_t *token, struct cht_err *err)
{
    uint32_t entry;
    if (lm_words_find(&w->words, text_of(word), word.n, &entry)) {
        *token = w->words.w[entry].token;
        return CHT_OK;
    }
    if (!first)
        return REFUSE(err, line, "the word '%.*s' is no 1-gram", shown(word), text_of(word));
    enum cht_rc rc = check(w, word, line, err);
    if (rc == CHT_OK)
        rc = book(w, lm_words_memory(&w->words) + w->words.len * 4 + (w->fresh + 1) * LM_WORD_COST, err);
    if (rc == CHT_OK)
        rc = lm_words_enter(&w->words, text_of(word), word.n, &entry, err);
    if (rc == CHT_OK)
        rc = settle(w, s, entry, word, line, err);
    if (rc == CHT_OK)
        *token = w->words.w[entry].token;
    return rc;
}

enum cht_rc lm_fm_words_load(const struct lm_fm_words *w, struct cht_store *s, struct lm_load *l,
                             struct cht_err *err)
{
    uint32_t now;
    enum cht_rc rc = lm_words_last(s, &now, err);
    if (rc == CHT_OK && now != w->before)
        rc = CHT_FAIL(err, CHT_MODEL_EXISTS, "the vocabulary was written to while the model was read in");
    if (rc == CHT_OK)
        lm_words_load(&w->words, l);
    return rc;
}

void lm_fm_words_free(struct lm_fm_words *w)
{
    lm_words_free(&w->words);
    cht_buf_free(&w->buf);
}
