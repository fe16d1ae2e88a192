/* send: hands a finished answer to libmicrohttpd: as one of the worker's prepared responses if it is short, as an object of
 * its own if it is long or has headers, as a callback if it is a stream.
 */
#pragma once

#include "http/request.h"

/* r is HTTP_PHASE_READY, and HTTP_PHASE_SENT after MHD_YES. MHD_NO: libmicrohttpd has no memory, the connection is to be closed. */
enum MHD_Result http_send_answer(struct http_request *r);
