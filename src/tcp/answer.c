/* answer: see answer.h. */
#include "tcp/answer.h"

void session_counted(struct session *s, enum command c, bool failed)
{
    atomic_fetch_add_explicit(&s->counts->done[c][failed], 1, memory_order_relaxed);
    s->commands++;
    s->errors += failed;
}

void answer_error(struct session *s, const struct line *l)
{
    session_counted(s, l->command, true);
    out_text(&s->out, "ERROR,");
    out_text(&s->out, l->error);
    if (l->sizes) {
        out_text(&s->out, " (expected ");
        out_u64(&s->out, l->expected);
        out_text(&s->out, ", got ");
        out_u64(&s->out, l->got);
        out_text(&s->out, ")");
    }
    out_text(&s->out, "\n");
}

void session_error(struct session *s, enum command c, const char *word)
{
    struct line l = {.command = c, .error = word};
    answer_error(s, &l);
}
