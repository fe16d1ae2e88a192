/* backup: the copy of a database as a stream of bytes (cheetah/backup.h), made piece by piece while it is sent: a client that
 * reads slowly costs no thread, and at most two pieces of memory.
 */
#pragma once

#include "http/request.h"

/* On a job thread: opens the backup of r->db; r->rc says how it went. */
void backup_prepare(struct request *r);
/* On the HTTP thread, after a successful prepare: answers with the stream. Ends the handler. */
void backup_reply(struct request *r);
/* What was prepared and not answered with. NULL is legal. */
void backup_drop(struct serving *s);
