/* spell: see spell.h. */
#include "http/calls/spell.h"

void http_spell_put(struct svc_out *o, struct http_spell *w, uint32_t token)
{
    if (token == LM_WORD_UNKNOWN) {
        svc_out_text(o, "\"<unk>\"");
        return;
    }
    if ((w->has_bos && token == w->bos) || (w->has_eos && token == w->eos)) {
        svc_out_text(o, w->has_bos && token == w->bos ? "\"<s>\"" : "\"</s>\"");
        return;
    }
    enum cht_rc rc = lm_word_text(w->store, token, &w->buf, &w->err);
    if (rc == CHT_OK)
        svc_out_string(o, (const char *)w->buf.data, w->buf.len);
    else
        svc_out_text(o, "null");
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND && w->rc == CHT_OK)
        w->rc = rc;
}

void http_spell_list(struct svc_out *o, struct http_spell *w, const uint32_t *tokens, size_t n)
{
    svc_out_text(o, "[");
    for (size_t i = 0; i < n; i++) {
        svc_out_text(o, i > 0 ? "," : "");
        http_spell_put(o, w, tokens[i]);
    }
    svc_out_text(o, "]");
}
