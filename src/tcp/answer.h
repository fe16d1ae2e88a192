/* answer: what a session says to a command, appended to s->out, and the count of it. */
#pragma once

#include "tcp/session.h"

/* One more command of this kind was done. */
void session_counted(struct session *s, enum command c, bool failed);
/* ERROR, the word in l->error, and the sizes if it has some; counted. */
void answer_error(struct session *s, const struct line *l);
/* An answer to something that is no command (a line that is too long), or that has only a word to say; counted. */
void session_error(struct session *s, enum command c, const char *word);
