/* answer: what a session says to a command, appended to s->out, and the count of it. */
#pragma once

#include "tcp/session.h"

/* The word for a code of the store. */
const char *line_error_word(enum cht_rc rc);
/* One more command of this kind was done. */
void line_session_counted(struct line_session *s, enum line_verb c, bool failed);
/* ERROR, the word in l->error, and the sizes if it has some; counted. */
void line_answer_error(struct line_session *s, const struct line_command *l);
/* An answer to something that is no command (a line that is too long), or that has only a word to say; counted. */
void line_session_error(struct line_session *s, enum line_verb c, const char *word);
/* The command of the session has failed so. */
void line_session_failed(struct line_session *s, enum cht_rc rc);
