/* revoked: which clients' certificates their authorities have revoked (--tls-client-crl), for connections that are open already: the handshake
 * of a new one sees to it itself (tls.c). A set of digests, replaced as a whole when the lists are read again. Threads: any.
 */
#pragma once

#include "base/sha256.h"
#include "cheetah/err.h"

#include <stdbool.h>
#include <stddef.h>

/* A certificate: the digest of its issuer's name (DER) and its serial number. */
struct svc_revoked_id {
    uint8_t hash[CHT_SHA256_BYTES];
};

struct svc_revoked;

enum cht_rc svc_revoked_new(struct svc_revoked **out, struct cht_err *err);
void svc_revoked_free(struct svc_revoked *s); /* NULL is legal */
struct svc_revoked_id svc_revoked_id(const void *issuer, size_t issuer_n, const void *serial,
                                     size_t serial_n);
/* `list` (from cht_malloc, in any order) is taken and is all of the set from now on. */
void svc_revoked_replace(struct svc_revoked *s, struct svc_revoked_id *list, size_t n);
bool svc_revoked_has(struct svc_revoked *s, const struct svc_revoked_id *id);
