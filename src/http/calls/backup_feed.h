/* backup_feed: the copy of a database as a stream of bytes (cheetah/backup.h), made piece by piece while it is sent: a client that
 * reads slowly costs no thread, and at most two pieces of memory.
 */
#pragma once

#include "http/request.h"

/* On the HTTP thread: makes room for the stream; false after answering 503. */
bool http_backup_begin(struct http_request *r);
/* Then on a job thread: opens the backup of r->db; r->rc says how it went. */
void http_backup_prepare(struct http_request *r);
/* Then, if that succeeded, on the HTTP thread: answers with the stream. Ends the handler. */
void http_backup_reply(struct http_request *r);
