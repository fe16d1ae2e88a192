/* tls_int: what tls.c and tls_conn.c share. */
#pragma once

#include "service/revoked.h"
#include "service/tls.h"

#include "os/thread.h"

#include <gnutls/gnutls.h>
#include <stdatomic.h>

struct svc_tls_keys {
    _Atomic unsigned users; /* struct svc_tls and the sessions; freed with the last */
    gnutls_certificate_credentials_t credentials;
    uint64_t expires; /* seconds since 1970 */
};

/* The entries of revocation lists. */
struct svc_tls_entries {
    struct svc_revoked_id *list; /* owned, until svc_revoked_replace has it */
    size_t n;
};

struct svc_tls {
    struct svc_log *log;          /* borrowed */
    char *cert, *key, *client_ca; /* owned: paths; client_ca NULL: no certificate is asked for */
    char *client_crl;             /* owned: path; NULL: no lists */
    struct svc_revoked *revoked;  /* owned: what the lists say now */
    char *text;                   /* owned: the priorities */
    gnutls_priority_t priorities;
    struct cht_mutex mu;
    struct svc_tls_keys *keys; /* guarded by mu: what new sessions get */
    _Atomic uint64_t failures, refused;
    _Atomic uint64_t refusal_ns; /* when one was logged last */
};

/* All of a file with PEM in it, of at most `most` bytes; *out is the caller's, for svc_tls_free_pem, which wipes it. */
enum cht_rc svc_tls_read_pem(const char *path, size_t most, gnutls_datum_t *out, struct cht_err *err);
void svc_tls_free_pem(gnutls_datum_t *d);
/* tls_lists.c: reads the lists of t->client_crl into k, for handshakes, and adds their entries to *out. ca: the text of the authorities, one of
 * which must have signed each list. CHT_INVALID_ARGUMENT, CHT_NO_FILE, CHT_IO, CHT_NO_MEMORY. */
enum cht_rc svc_tls_take_lists(const struct svc_tls *t, struct svc_tls_keys *k, const gnutls_datum_t *ca,
                               struct svc_tls_entries *out, struct cht_err *err);
