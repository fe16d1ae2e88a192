/* session: what one client of the line protocol has: its database, its token, and the commands under way. The interpreter
 * behind the server and behind the shell on stopped data; it knows nothing of sockets and threads.
 *
 *   run -> SESSION_COMMIT: submit or commit s->commit, then session_committed -> run again
 *       -> SESSION_WAIT:   once s->wait was called -> run again (only if s->wait is set)
 *       -> SESSION_JOB:    session_job (blocks; any thread) -> run again
 *       -> SESSION_FULL:   take the answers in s->out (or let others have their turn) -> run again
 *       -> SESSION_IDLE:   every line is answered, in s->out
 *       -> SESSION_CLOSE:  the same, and nothing more will be
 *
 * Answers are appended to s->out in the order of the lines. Consecutive commands share one commit: all writes of a burst, and
 * the reads between them, which see the writes before them. A burst of reads alone asks the store directly.
 * Lines that were given to run stay where they are until it has said FULL, IDLE or CLOSE: operations point into them.
 */
#pragma once

#include "service/access.h"
#include "service/dbs.h"
#include "service/out.h"
#include "tcp/command.h"

#define SESSION_OUT_HIGH (1u << 20) /* answers that wait to be taken: no command is begun beyond */

/* Counted by whoever runs the session; read by others. */
struct session_counts {
    _Atomic uint64_t done[COMMANDS][2]; /* [1]: answered with an error */
};

/* What all sessions share. */
struct session_host {
    struct dbs *dbs;
    uint32_t max_value_size;
    size_t answer_max;   /* bytes of one page: behind them it ends, with a cursor */
    bool inline_commits; /* see CHT_COMMIT_INLINE */
    bool no_creating;    /* databases that are not there are not made */
    /* The tokens as they are now; NULL: none are needed. May be NULL. */
    const struct access *(*access)(void *ctx);
    void *ctx;
    _Atomic uint64_t held; /* bytes of large answers that clients have not taken yet */
};

struct session {
    struct session_host *host;     /* borrowed */
    struct session_counts *counts; /* borrowed */
    char database[CHT_DATABASE_NAME_MAX + 1];
    struct database *db; /* held while something is under way */
    bool closing;
    struct out out; /* answers; the owner takes them */
    uint64_t commands, errors;

    const struct access *seen; /* what token belongs to */
    const struct token *token; /* NULL: none given, or not valid any more */
    char secret[257];
    unsigned refused; /* wrong tokens in a row */

    struct cht_commit commit; /* under way, or being put together */
    struct session_op *notes; /* owned, like ops and bufs: one an operation */
    struct cht_op *ops;
    struct cht_buf *bufs;
    size_t ops_cap, bytes;
    size_t answered; /* operations of a commit that is over */
    struct cht_wait *
        wait; /* borrowed, the owner's: for reads of what is on its way to the disk; NULL: they wait in run */

    struct line line; /* the one being done */
    bool pending;     /* it waits for the operations before it, or for a job */
    bool opening;     /* the job: open the database for it */
    struct cht_buf value;
    _Atomic bool cancel; /* the client is gone */
    uint64_t held;       /* of host->held */
};

enum session_next { SESSION_IDLE, SESSION_FULL, SESSION_COMMIT, SESSION_WAIT, SESSION_JOB, SESSION_CLOSE };

void session_init(struct session *s, struct session_host *host, struct session_counts *counts);
void session_fini(struct session *s);
/* Does what it can of the complete lines in p[0..n); *used bytes of them are done with (or wait in the session). */
enum session_next session_run(struct session *s, char *p, size_t n, size_t *used);
/* The commit is over: answers it. False: it is not through yet, and to be called again once s->wait was called. */
bool session_committed(struct session *s);
void session_job(struct session *s);
bool session_job_is_long(const struct session *s);
/* All answers were taken: memory beyond a little is given back. */
void session_taken(struct session *s);
/* Gives back the memory that an idle session keeps; between run and run, with no answers waiting. */
void session_trim(struct session *s);
/* May this client send large lines? Not before it has shown its token. */
bool session_trusted(struct session *s);

/* page.c: PAIR_SCAN and PAIR_REDUCE; the session holds its database. */
void session_page(struct session *s);
