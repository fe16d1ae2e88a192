/* tls: the certificate and the key that the ports show, which protocols and ciphers are spoken, and who clients are by theirs. GnuTLS.
 *
 *   struct svc_tls       the settings; one a process, shared by HTTP and the line protocol
 *   struct svc_tls_keys  certificate, key and authorities as they were read; a connection keeps those that it began with, so
 *                    svc_tls_reload changes nothing under it
 *   struct svc_tls_conn  TLS over a socket of ours, either side; libmicrohttpd has sessions of its own: svc_tls_attach
 *
 * TLS 1.2 and 1.3 are spoken, and only what is forward secret: a key that is stolen later does not open what was recorded before.
 * A client's certificate is asked for with an authority for it (client_ca) only. One that the authority has not signed for a client,
 * that is not valid now, or that is on a list of what it has revoked (client_crl), ends the handshake; none at all does not: that client
 * needs a token. A certificate that a list revokes which is read later is good for nothing from then on, on open connections too.
 *
 * Threads: any for struct svc_tls; a connection belongs to one at a time.
 */
#pragma once

#include "service/access.h"
#include "service/log.h"

#include <stddef.h>
#include <stdint.h>

struct svc_tls;
struct svc_tls_keys;
struct svc_tls_conn;

/* Strings are borrowed until svc_tls_new returns; "" or NULL: not given. */
struct svc_tls_config {
    const char *cert, *key; /* files, PEM; both */
    const char *client_ca;  /* file, PEM: authorities for clients */
    const char *client_crl; /* file, PEM: lists of what those have revoked */
    const char *least;      /* "1.2" or "1.3" */
    const char *ciphers;    /* a GnuTLS priority string; "": SVC_TLS_CIPHERS */
};
#define SVC_TLS_CIPHERS                                                                                \
    "NORMAL:-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:-CIPHER-ALL:+AES-256-GCM:+CHACHA20-POLY1305:+AES-128-GCM:" \
    "-MAC-ALL:+AEAD"

/* Reads the files; warns in the log of a key that others can read. CHT_INVALID_ARGUMENT (what is in them, the ciphers), CHT_NO_FILE,
 * CHT_IO, CHT_NO_MEMORY. log: borrowed. */
enum cht_rc svc_tls_new(const struct svc_tls_config *c, struct svc_log *log, struct svc_tls **out,
                        struct cht_err *err);
/* After all connections. NULL is legal. */
void svc_tls_free(struct svc_tls *t);
/* Reads the files again, for connections that begin from now on. On an error those that were in force stay. */
enum cht_rc svc_tls_reload(struct svc_tls *t, struct cht_err *err);
/* When the certificate that is shown ends: seconds since 1970. */
uint64_t svc_tls_expires(struct svc_tls *t);

/* Appends the counters in Prometheus text format; zeros if t is NULL. */
void svc_tls_metrics(struct svc_tls *t, struct svc_out *o);

/* ---- sessions of libmicrohttpd ------------------------------------------------------------------------------------------- */

/* What it is started with; borrowed from t. */
const char *svc_tls_priorities(const struct svc_tls *t);
/* Its callback for certificates, which has none: a session that was not attached fails. A function, for an option that takes a pointer. */
void *svc_tls_no_certificate(void);
/* Before the handshake: the settings and the keys of now for a session (gnutls_session_t). *keys is the caller's, to be put when
 * the session is gone. False: no memory; the session must not be used. */
bool svc_tls_attach(struct svc_tls *t, void *session, struct svc_tls_keys **keys);
void svc_tls_keys_put(struct svc_tls_keys *k); /* NULL is legal */
/* After the handshake: the client's certificate, which was found good there. False: it has shown none. */
bool svc_tls_peer(void *session, struct svc_access_certificate *out);

/* ---- connections of ours -------------------------------------------------------------------------------------------------- */

enum svc_tls_step { SVC_TLS_READY, SVC_TLS_LATER, SVC_TLS_FAILED };

/* The server's side of a socket that does not block. The descriptor stays the caller's. NULL: no memory. */
struct svc_tls_conn *svc_tls_accept(struct svc_tls *t, int fd);
/* The client's side of a socket that blocks: trusts the authorities in the file `ca` (NULL: the system's) for `host`, a name or an
 * address, and shows cert and key (files; NULL: none). The handshake is done. */
enum cht_rc svc_tls_connect(int fd, const char *host, const struct svc_tls_config *files,
                            struct svc_tls_conn **out, struct cht_err *err);
/* Goes on with the handshake: SVC_TLS_LATER until the socket has more. */
enum svc_tls_step svc_tls_shake(struct svc_tls_conn *c);
bool svc_tls_shaken(const struct svc_tls_conn *c);
/* As svc_tls_peer. */
bool svc_tls_conn_peer(const struct svc_tls_conn *c, struct svc_access_certificate *out);
/* As cht_sock_read and cht_sock_write. What was not written as a whole is to be offered again, with or without more after it. */
ptrdiff_t svc_tls_read(struct svc_tls_conn *c, void *buf, size_t n);
ptrdiff_t svc_tls_write(struct svc_tls_conn *c, const void *buf, size_t n);
/* Bytes that svc_tls_read would give without looking at the socket. */
size_t svc_tls_pending(const struct svc_tls_conn *c);
/* "Nothing more comes from me." */
void svc_tls_end(struct svc_tls_conn *c);
/* Says so if it was not said, and forgets the session. NULL is legal. */
void svc_tls_close(struct svc_tls_conn *c);
