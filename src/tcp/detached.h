/* detached: JOB: answers that are fetched later. The command is run when it is submitted, and what it answers is kept, so a client that
 * asks for the state at once finds it completed.
 *
 *   JOB submit command=base64(LINE) | JOB submit LINE    LINE: PAIR_REDUCE, PREDICT_INHERIT_BATCH or BATCH (also BATCH async=1)
 *   SUCCESS,job=J,kind=reduce,command=PAIR_REDUCE,state=completed,total=3,reducer=counts
 *   JOB status id=J       SUCCESS,job=J,kind=reduce,state=completed,progress=100.00,completed=3,total=3,reducer=counts
 *   JOB results id=J [from=0] [limit=1000]      of a BATCH: SUCCESS,job=J,kind=batch,state=completed,from=0,count=2,next=2,available=2,...
 *   JOB fetch id=J        SUCCESS,job=J,...     once; then job_not_found
 *   PAIR_REDUCE_ASYNC, _STATUS, _FETCH; PREDICT_INHERIT_ASYNC, _STATUS, _FETCH: older names of the same
 *
 * What is kept lives in memory, for its database: the newest KEPT_MAX or KEPT_BYTES of all databases (the newest whatever its size), and
 * ten minutes. RESET_DB ends those of its database.
 *
 * Threads: any.
 */
#pragma once

#include "tcp/many.h"

#define LINE_KEPT_MAX 1000u
#define LINE_KEPT_BYTES (64u << 20)
#define LINE_KEPT_NS UINT64_C(600000000000)

/* Answers a BATCH async=1 that has run, and keeps it; m's answers are taken. */
void line_detached_batch(struct line_session *s, struct line_many *m);
/* Those of a database; NULL: all. */
void line_detached_forget(struct line_session_host *host, const char *database);
