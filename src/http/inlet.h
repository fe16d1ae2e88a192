/* inlet: the side of a worker on which bytes come in: the gate of each connection (gate.h) between its socket and libmicrohttpd, and clients
 * that end their side and still want their answers. All of it on the worker's thread.
 */
#pragma once

#include "http/server.h"

enum cht_rc inlet_init(struct worker *w, struct cht_err *err);
void inlet_fini(struct worker *w);
/* Before libmicrohttpd is given the connection. False: no memory. */
bool inlet_add(struct worker *w, struct conn *c);
void inlet_remove(struct worker *w, struct conn *c);
/* MHD_run, through the gates. */
bool inlet_run(struct worker *w);
/* What is looked at in each round: clients that ended their side (ended: the watch says there are some), and those of which there is
 * more to read than libmicrohttpd knows. */
void inlet_look(struct worker *w, bool ended);
/* An answer is through. */
void inlet_answered(struct worker *w, struct conn *c);
/* Is this the request that the gate found wrong? It is the last of its connection. */
bool inlet_refused(const struct request *r);
/* Nothing can follow the request that is being answered: its client has ended its side. */
bool inlet_last(const struct request *r);
