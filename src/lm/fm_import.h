/* fm_import: reads a model in ARPA format into a database that has none. It is a fixed model then: asked, and written out again, and not
 * counted into.
 *
 *   begin -> { feed ... } -> end -> free
 *
 * Begin writes a head that says a model is being read in; n-grams are gathered, sorted and put to their pages many at a time, in many
 * commits; end writes the head that makes it a model. What fails, or is freed before its end, has left the pages and that head, and is no
 * model: lm_fm_drop takes them away, as does the next begin. Between two calls nothing is held, so the database may be closed, opened or
 * dropped meanwhile: each call looks whether the head is still its own.
 *
 * With words, those of the text become tokens of the vocabulary in the commit of the last head (fm_words.h); they are in memory until then.
 *
 * Memory: LM_FM_GATHER_BYTES and half as much, if the caller books as much, else less; one bit a number up to the largest token; two commits
 * (lm/writer.h). Threads: one at a time per object.
 */
#pragma once

#include "lm/engine.h"
#include "lm/fm_arpa.h"

#define LM_FM_GATHER_BYTES ((size_t)32 << 20)

struct lm_fm_parameters {
    uint32_t bos, eos, unk; /* of <s>, </s>, <unk>: three different ones */
    bool unmarked;          /* a text without <s> or </s> is accepted */
    bool words;             /* its words are those of the vocabulary, and not tokens in decimal */
    bool (*is_text)(const char *word, size_t n); /* may it be a word? NULL: whatever it is */
    /* Asked before memory is used, given back with the request; NULL: nobody is asked. */
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err);
    void *ctx;
};

struct lm_fm_import;
/* CHT_INVALID_ARGUMENT: equal tokens; CHT_MODEL_EXISTS: the database has a model or counts, or one is being read in; CHT_NO_MEMORY. */
enum cht_rc lm_fm_import_begin(struct lm_engine *e, struct cht_store *s, const struct lm_fm_parameters *p,
                               struct lm_fm_import **out, struct cht_err *err);
/* CHT_INVALID_ARPA; CHT_DATABASE_DROPPED: the database is not the one that it was; CHT_NO_MEMORY, what the caller's bound says, and what a
 * commit returns. No more calls after a failure but free. */
enum cht_rc lm_fm_import_feed(struct lm_fm_import *i, struct cht_store *s, const char *p, size_t n,
                              struct cht_err *err);
/* The text has ended: the model is there. */
enum cht_rc lm_fm_import_end(struct lm_fm_import *i, struct cht_store *s, struct cht_err *err);
void lm_fm_import_free(struct lm_fm_import *i); /* NULL is legal; does not block */

/* What was read; the parser for its order, counts, lines and warnings. */
const struct lm_arpa *lm_fm_import_text(const struct lm_fm_import *i);
size_t lm_fm_import_fresh(const struct lm_fm_import *i); /* words that were given a token */
uint64_t lm_fm_import_id(const struct lm_fm_import *i);
/* Takes away what an import has left that is not under way any more; nothing if the head is another's, or says that there is a model. */
enum cht_rc lm_fm_drop(struct lm_engine *e, struct cht_store *s, uint64_t id, struct cht_err *err);
