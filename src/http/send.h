/* send: hands a finished answer to libmicrohttpd: as one of the worker's prepared responses if it is short, as an object of
 * its own if it is long or has headers, as a callback if it is a stream.
 */
#pragma once

#include "http/request.h"

/* A long answer waits for its client to read it, or for its turn to be compressed: it is booked as soon as its size is known, and again when
 * that has changed. Without memory for it the answer is that: 503. */
void http_send_book(struct http_request *r);
/* r is HTTP_PHASE_READY, and HTTP_PHASE_SENT after MHD_YES. MHD_NO: libmicrohttpd has no memory, the connection is to be closed. */
enum MHD_Result http_send_answer(struct http_request *r);
/* The same as text, for what is not sent by libmicrohttpd: its status line and its headers, to `head`, which has room for cap bytes. How many;
 * 0: it is to go out by libmicrohttpd (a stream, one that is to be compressed or without a body, one that ends the connection, or out of memory). */
size_t http_send_head(struct http_request *r, char *head, size_t cap);
