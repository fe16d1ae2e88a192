/* model: NGRAMS, PREDICT, SCORE: texts are counted, gone on with, and scored. */
#pragma once

#include "tcp/session.h"

/* One of these commands; the session holds its database. */
void line_session_model(struct line_session *s);
