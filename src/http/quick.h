/* quick: point reads and short writes that do not go by libmicrohttpd, which for each request clears its memory and goes through its states
 * again: a multiple of what such a call costs.
 *
 *   the socket -> gate -> inlet: is it one request with all of its body, of a connection where nothing else is under way, with the headers of the
 *              one before (gate.h remembers them), for a route that says so (http_route.quick)?
 *        no  -> libmicrohttpd, as ever
 *        yes -> the worker's list; libmicrohttpd is told that nothing came
 *   after MHD_run: all of the list are read together, their answers are sent together
 *   after the commits of this round were submitted: the answers of those that are done
 *
 * The request is judged and run by the same code (admit.h, the handler), and counted and logged like any other. What is not as expected on the
 * way: a request that would be refused is left to libmicrohttpd before anything is done for it. One that has to wait for a job or for what is not
 * durable yet suspends its connection, as any other; libmicrohttpd reads when it is resumed, and so it goes on. One that waits for its own commit
 * does not (`loose`): libmicrohttpd gets nothing to read meanwhile, and whoever ends the commit puts the request into the worker's list of those
 * that are done. If its connection ends before that, the request stays without one until then; while there are many of those, which no limit of
 * connections knows of, writes go by libmicrohttpd, and their connections last as long as they do. An answer that is long, to be compressed, or a stream goes out by
 * libmicrohttpd: it reads HTTP_QUICK_STAND_IN in place of the request and gets the answer that is there. What a client does not take is kept
 * until it does, and nothing more is read from it. A connection that is used like that is touched now and then, since libmicrohttpd
 * ends those that it believes to be idle.
 */
#pragma once

#include "http/server.h"

#define HTTP_QUICK_STAND_IN "GET / HTTP/1.1\r\nHost: -\r\n\r\n"

/* Before libmicrohttpd may read from c: goes on with what has waited. False: it reads nothing now. */
bool http_quick_before(struct http_conn *c);
/* What was just read is one request, whose line has c->gate.same bytes and whose headers are those of the one before. False: it is for
 * libmicrohttpd. */
bool http_quick_take(struct http_conn *c, const char *line);
/* Answers what was taken in this round, but for writes that are committed together. */
void http_quick_run(struct http_worker *w);
/* Answers those that http_worker_enlist named: their commits, which they had put off, are done. */
void http_quick_answer(struct http_worker *w);
/* Answers those of http_worker_done. */
void http_quick_take_done(struct http_worker *w);
/* Is there something of an answer that its client has not taken? */
bool http_quick_owes(const struct http_conn *c);
/* c has room again for what it has not taken. */
void http_quick_flush(struct http_conn *c);
/* At each tick, before libmicrohttpd runs. */
void http_quick_tick(struct http_conn *c);
/* The connection ends. */
void http_quick_end(struct http_conn *c);
