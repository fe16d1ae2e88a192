/* inlet: the side of a worker on which bytes come in: the gate of each connection (gate.h) between its socket and libmicrohttpd, and clients
 * that end their side and still want their answers. All of it on the worker's thread.
 */
#pragma once

#include "http/server.h"

enum cht_rc http_inlet_init(struct http_worker *w, struct cht_err *err);
void http_inlet_fini(struct http_worker *w);
/* Before libmicrohttpd is given the connection. False: no memory. */
bool http_inlet_add(struct http_worker *w, struct http_conn *c);
void http_inlet_remove(struct http_worker *w, struct http_conn *c);
/* MHD_run, through the gates. */
bool http_inlet_run(struct http_worker *w);
/* What is looked at in each round: clients that ended their side (ended: the watch says there are some), and those of which there is
 * more to read than libmicrohttpd knows. */
void http_inlet_look(struct http_worker *w, bool ended);
