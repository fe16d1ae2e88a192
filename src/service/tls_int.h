/* tls_int: what tls.c and tls_conn.c share. */
#pragma once

#include "service/tls.h"

#include "os/thread.h"

#include <gnutls/gnutls.h>
#include <stdatomic.h>

struct svc_tls_keys {
    _Atomic unsigned users; /* struct svc_tls and the sessions; freed with the last */
    gnutls_certificate_credentials_t credentials;
    uint64_t expires; /* seconds since 1970 */
};

struct svc_tls {
    struct svc_log *log;          /* borrowed */
    char *cert, *key, *client_ca; /* owned: paths; client_ca NULL: no certificate is asked for */
    char *text;                   /* owned: the priorities */
    gnutls_priority_t priorities;
    struct cht_mutex mu;
    struct svc_tls_keys *keys; /* guarded by mu: what new sessions get */
    _Atomic uint64_t failures, refused;
    _Atomic uint64_t refusal_ns; /* when one was logged last */
};
