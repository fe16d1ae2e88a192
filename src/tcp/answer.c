/* answer: see answer.h. */
#include "tcp/answer.h"

const char *line_error_word(enum cht_rc rc)
{
    return rc == CHT_PAIR_NOT_FOUND ? "not_found" : cht_rc_slug(rc);
}

void line_session_counted(struct line_session *s, enum line_verb c, bool failed)
{
    atomic_fetch_add_explicit(&s->counts->done[c][failed], 1, memory_order_relaxed);
    s->commands++;
    s->errors += failed;
}

void line_answer_error(struct line_session *s, const struct line_command *l)
{
    line_session_counted(s, l->verb, true);
    svc_out_text(&s->out, "ERROR,");
    svc_out_text(&s->out, l->error);
    if (l->sizes) {
        svc_out_text(&s->out, " (expected ");
        svc_out_u64(&s->out, l->expected);
        svc_out_text(&s->out, ", got ");
        svc_out_u64(&s->out, l->got);
        svc_out_text(&s->out, ")");
    }
    svc_out_text(&s->out, "\n");
}

void line_session_error(struct line_session *s, enum line_verb c, const char *word)
{
    struct line_command l = {.verb = c, .error = word};
    line_answer_error(s, &l);
}

void line_session_failed(struct line_session *s, enum cht_rc rc)
{
    line_session_error(s, s->command.verb, line_error_word(rc));
}
