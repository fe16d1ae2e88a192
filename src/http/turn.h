/* turn: the turn of a request among those of its connection, as the gate has counted them (gate.h). All of it on the worker's thread. */
#pragma once

#include "http/server.h"

/* An answer was sent. */
void http_turn_over(struct http_worker *w, struct http_conn *c);
/* Is this the request that the gate found wrong? It is the last of its connection. */
bool http_turn_refused(const struct http_request *r);
/* Nothing can follow the request that is being answered: its client has ended its side. */
bool http_turn_last(const struct http_request *r);
