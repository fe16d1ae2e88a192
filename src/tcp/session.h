/* session: what one client of the line protocol has: its database, its token, and the commands under way. The interpreter
 * of the server and of the shell on stopped data; it knows nothing of sockets and threads.
 *
 *   run -> LINE_SESSION_COMMIT: submit or commit s->commit, then line_session_committed -> run again
 *       -> LINE_SESSION_WAIT:   once s->wait was called -> run again (only if s->wait is set)
 *       -> LINE_SESSION_JOB:    line_session_job (blocks; any thread) -> run again
 *       -> LINE_SESSION_FULL:   take the answers in s->out (or let others have their turn) -> run again
 *       -> LINE_SESSION_IDLE:   every line is answered, in s->out
 *       -> LINE_SESSION_CLOSE:  the same, and nothing more will be
 *
 * Answers are appended to s->out in the order of the lines. Consecutive commands share one commit: all writes of a burst, and
 * the reads between them, which see the writes before them. A burst of reads alone asks the store directly.
 * Lines that were given to run stay where they are until it has said FULL, IDLE or CLOSE: operations point into them.
 */
#pragma once

#include "service/access.h"
#include "service/dbs.h"
#include "service/memory.h"
#include "service/out.h"
#include "tcp/command.h"

#define LINE_SESSION_OUT_HIGH (1u << 20) /* answers that wait to be taken: no command is begun beyond */

/* Counted by whoever runs the session; read by others. */
struct line_session_counts {
    _Atomic uint64_t done[LINE_VERBS][2]; /* [1]: answered with an error */
};

/* What all sessions share. */
struct line_host; /* host.h */
struct lm_engine; /* lm/engine.h */
struct line_session;

struct line_session_host {
    struct svc_dbs *dbs;
    uint32_t max_value_size;
    size_t answer_max;   /* bytes of one page: after them it ends, with a cursor */
    bool inline_commits; /* see CHT_COMMIT_INLINE */
    bool no_creating;    /* databases that are not there are not made */
    /* The tokens as they are now; NULL: none are needed. May be NULL. */
    const struct svc_access *(*access)(void *ctx);
    void *ctx;
    _Atomic uint64_t held;            /* bytes of large answers that clients have not taken yet */
    struct svc_memory_budget *memory; /* borrowed: of all requests of the process; NULL: nothing is booked */
    struct lm_engine *lm;     /* borrowed: who counts into which database; NULL: line_host_init makes one */
    struct line_host *shared; /* owned: line_host_init, line_host_fini */
    void (*const *jobs)(struct line_session *s); /* by verb, what is done by a job: line_host_init */
};

/* Before the first session, when the rest of the host is set. CHT_NO_MEMORY. */
enum cht_rc line_host_init(struct line_session_host *host, struct cht_err *err);
void line_host_fini(struct line_session_host *host); /* no session is left; also legal without init */

struct line_session {
    struct line_session_host *host;     /* borrowed */
    struct line_session_counts *counts; /* borrowed */
    char database[CHT_DATABASE_NAME_MAX + 1];
    struct svc_database *db; /* held while something is under way */
    bool closing;
    struct svc_out out; /* answers; the owner takes them */
    uint64_t commands, errors;

    const struct svc_access *seen;                    /* what token belongs to */
    const struct svc_access_certificate *certificate; /* borrowed: the client's; NULL: it has shown none */
    const struct svc_token *token;                    /* NULL: none given, or not valid any more */
    char secret[257];
    unsigned refused; /* wrong tokens in a row */

    struct cht_commit commit;      /* under way, or being put together */
    struct line_session_op *notes; /* owned, like ops and bufs: one an operation */
    struct cht_op *ops;
    struct cht_buf *bufs;
    size_t ops_cap, bytes;
    size_t answered; /* operations of a commit that is over */
    struct cht_wait *
        wait; /* borrowed, the owner's: for reads of what is on its way to the disk; NULL: they wait in run */

    unsigned durability;         /* CHT_COMMIT_SYNC or _INTERVAL: what DURABILITY said; 0: the server's */
    struct line_command command; /* the one being done */
    bool pending;                /* it waits for the operations before it, or for a job */
    bool opening;                /* the job: open the database for it */
    struct cht_buf value;
    _Atomic bool cancel; /* the client is gone */
    bool unmarked;       /* of a store that others write, too: no pair was hidden when this was begun */
    const struct line_session
        *outer;    /* borrowed: whose command this session runs (nested.h); NULL: a client's */
    uint64_t held; /* of host->held */
};

enum line_session_next {
    LINE_SESSION_IDLE,
    LINE_SESSION_FULL,
    LINE_SESSION_COMMIT,
    LINE_SESSION_WAIT,
    LINE_SESSION_JOB,
    LINE_SESSION_CLOSE
};

void line_session_init(struct line_session *s, struct line_session_host *host,
                       struct line_session_counts *counts);
void line_session_fini(struct line_session *s);
/* Does what it can of the complete lines in p[0..n); *used bytes of them are done with (or wait in the session). */
enum line_session_next line_session_run(struct line_session *s, char *p, size_t n, size_t *used);
/* The commit is over: answers it. False: it is not through yet, and to be called again once s->wait was called. */
bool line_session_committed(struct line_session *s);
void line_session_job(struct line_session *s);
/* Of which kind the i-th operation of the commit is; LINE_NONE: it is beside another one, and not answered. */
enum line_verb line_session_op_verb(const struct line_session *s, size_t i);
bool line_session_job_is_long(const struct line_session *s);
/* All answers were taken: memory beyond a little is given back. */
void line_session_taken(struct line_session *s);
/* Gives back the memory that an idle session keeps; between run and run, with no answers waiting. */
void line_session_trim(struct line_session *s);
/* The client has shown this certificate, which is borrowed. What it allows is looked up anew: somebody may have asked during the handshake. */
void line_session_show(struct line_session *s, const struct svc_access_certificate *certificate);
/* May this client send large lines? Not before it has shown its token. */
bool line_session_trusted(struct line_session *s);

/* Has the client the right that the command under way needs, in this database? An error word, or NULL. */
const char *line_session_access(struct line_session *s, const char *database);
/* Likewise, this right. */
const char *line_session_allows(struct line_session *s, enum svc_right right, const char *database);
/* Whether what the command does should end: the client (of any outer session) is gone, or the database that it holds is being dropped. CHT_OK: it goes on. */
enum cht_rc line_session_goes_on(const struct line_session *s);

/* The commands that are done by a job. Each answers s->command. */
void line_session_page(struct line_session *s);      /* page.c: PAIR_SCAN and PAIR_REDUCE */
void line_session_summary(struct line_session *s);   /* summary.c */
void line_session_put_batch(struct line_session *s); /* batch.c */
void line_session_add(struct line_session *s);       /* add.c */
void line_session_hide(struct line_session *s);      /* purge.c, as the next two */
void line_session_purge(struct line_session *s);
void line_session_del(struct line_session *s);
void line_session_checkpoint(struct line_session *s); /* system.c, as the next two */
void line_session_stats(struct line_session *s);
void line_session_log(struct line_session *s);
void line_session_database(struct line_session *s); /* databases.c, as the next four */
void line_session_reset(struct line_session *s);
void line_session_create(struct line_session *s);
void line_session_configure(struct line_session *s);
void line_session_list(struct line_session *s);
void line_session_batch(struct line_session *s);        /* detached.c, as the next two */
void line_session_detached(struct line_session *s);     /* JOB */
void line_session_detached_old(struct line_session *s); /* its older names */
