/* spell: tokens of an answer as words (text=true). */
#pragma once

#include "lm/words.h"
#include "service/out.h"

/* Zero-initialise all but store; http_spell_fini at the end. */
struct http_spell {
    struct cht_store *store;
    bool has_bos, has_eos; /* the live model's; shown as <s> and </s> */
    uint32_t bos, eos;
    struct cht_buf buf;
    enum cht_rc rc; /* of the first word that could not be read: the answer is then none */
    struct cht_err err;
};

/* What a live model, or a fixed one, puts around a text: has_bos and the like; nothing if there is no model. */
enum cht_rc http_spell_ends(struct http_spell *w, struct cht_err *err);
/* The token's word in quotes; "<unk>" of one that stands for no word, null of a token that has none. */
void http_spell_put(struct svc_out *o, struct http_spell *w, uint32_t token);
/* A list of them, with its brackets. */
void http_spell_list(struct svc_out *o, struct http_spell *w, const uint32_t *tokens, size_t n);
static inline void http_spell_fini(struct http_spell *w) { cht_buf_free(&w->buf); }
