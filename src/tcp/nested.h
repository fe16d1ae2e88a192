/* nested: commands that a command runs: those of a BATCH, and the one of a job (detached.h). They are run by a session of their own,
 * with the database and the token of the client's, on the thread of the job that does the outer command.
 *
 * Each line has one answer. With `stops` nothing is run after the first that fails: writes that could share a commit are tried as
 * one that does all or nothing, and if one fails, again without it and what follows it.
 *
 * Threads: one.
 */
#pragma once

#include "tcp/session.h"

/* Answers, without their newlines: the i-th ends at end[i]. Zero-initialise. */
struct line_answers {
    struct svc_out text;
    size_t *end; /* owned */
    size_t n, cap;
};

struct line_nested {
    struct line_session s;
    struct line_answers *out; /* borrowed */
    size_t most;              /* bytes of answers; one that would go beyond is answer_too_large */
    bool stops;
    bool failed; /* one did */
};

void line_nested_init(struct line_nested *n, struct line_session *outer, struct line_answers *out);
/* Runs complete lines, which are parsed in place. CHT_NO_MEMORY: an answer could not be kept; CHT_CANCELLED: the client is gone. */
enum cht_rc line_nested_run(struct line_nested *n, char *p, size_t len);
void line_nested_fini(struct line_nested *n);

struct cht_str line_answers_at(const struct line_answers *a, size_t i);
bool line_answers_add(struct line_answers *a, const char *p, size_t n); /* false: no memory */
void line_answers_free(struct line_answers *a);
/* Does the answer begin with ERROR? */
bool line_is_error(struct cht_str answer);
