/* secure: TLS of the HTTP ports, service/tls.h for libmicrohttpd's sessions, and who a client is: by token or certificate.
 *
 * libmicrohttpd reads a certificate at its start and never again, and verifies nobody. So it gets none: each connection is given the
 * keys of its time before its handshake, and they stay until it is closed.
 */
#pragma once

#include "http/server.h"

/* Reads what --tls-cert and its like name; s->tls stays NULL without them. CHT_INVALID_ARGUMENT, CHT_NO_FILE, CHT_IO, CHT_NO_MEMORY. */
enum cht_rc http_secure_open(struct http_server *s, struct cht_err *err);
/* Adds to the options of a daemon, which end at `at` with room for two more; returns its flags. */
unsigned http_secure_options(const struct http_server *s, struct MHD_OptionItem *at);
/* A connection begins: false: it must not be served. */
bool http_secure_begin(struct http_conn *c);
void http_secure_end(struct http_conn *c); /* after its session is gone */
/* Who asks: by the Authorization header, and only if there is none by the client's certificate. Sets the request's token (NULL: nobody
 * that the table knows), valid and certified. */
void http_secure_who(struct http_request *r, const struct svc_access *a);
/* Has the certificate that let the client in expired since? */
bool http_secure_expired(const struct http_conn *c);
