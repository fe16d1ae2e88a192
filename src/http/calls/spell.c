/* spell: see spell.h. */
#include "http/calls/spell.h"

#include "lm/fm_format.h"
#include "lm/kn_format.h"

enum cht_rc http_spell_ends(struct http_spell *w, struct cht_err *err)
{
    struct lm_kn_head h;
    struct lm_fm_head fixed;
    enum cht_rc rc = lm_kn_head_get(w->store, &h, &w->buf, NULL, err);
    if (rc == CHT_FIXED_MODEL && lm_fm_head_read(w->buf.data, w->buf.len, &fixed)) {
        h = (struct lm_kn_head){.bos = fixed.bos, .eos = fixed.eos};
        h.flags = (fixed.flags & LM_FM_EOS) != 0 ? LM_KN_EOS : 0;
        rc = CHT_OK; /* one that is being read in answers no question */
    }
    if (rc == CHT_OK) {
        w->has_bos = true;
        w->bos = h.bos;
        w->has_eos = (h.flags & LM_KN_EOS) != 0;
        w->eos = h.eos;
    }
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

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
    if (rc == CHT_OK && w->buf.len <= LM_WORD_MAX)
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
