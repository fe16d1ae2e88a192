/* keeper: two threads that look after the databases of a server that nobody asks for.
 *
 * One closes what has not been used for a while, so that an idle database costs nothing but its place on the disk; it is opened
 * again when it is used. The other one runs once, after the start: it opens every database that a kill left with something to
 * recover, one after the other, so that their logs do not wait for their first use, and says which cannot be opened. Requests do
 * not wait for it: a database is recovered at once by whoever uses it first. The first thread also removes what a drop could not
 * (no descriptors, say) as soon as it can.
 */
#pragma once

#include "service/dbs.h"
#include "service/log.h"

struct svc_keeper;

/* idle_seconds 0: nothing is closed. Borrows dbs and log. */
enum cht_rc svc_keeper_start(struct svc_dbs *dbs, struct svc_log *log, uint64_t idle_seconds,
                             struct svc_keeper **out, struct cht_err *err);
/* Joins the threads; waits for a database that is being opened or closed. NULL is legal. */
void svc_keeper_stop(struct svc_keeper *k);
