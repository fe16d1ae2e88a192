/* access: who may do what. A file of tokens, one a line: TOKEN RIGHT DATABASES [expires=TIME]
 *
 *   TOKEN      16 to 256 characters without blanks (take 32 random ones), or sha256: and the 64 hexadecimal digits of such a token's
 *              SHA-256, so that the file gives no token away;
 *              or for a client that shows a certificate: cert: and its subject's common name, or cert:sha256: and the SHA-256 of the
 *              whole certificate (DER), colons between the digits or not. A line for the certificate comes before one for its name
 *   RIGHT      read | write | admin; each holds the ones before it
 *   DATABASES  names separated by commas, or * for all
 *   TIME       2027-01-31 (its first moment) or 2027-01-31T08:30:00Z, UTC: from then on the token is not valid any more
 *
 * # begins a comment line. The file is read at the start and again on SIGHUP. In memory are hashes only.
 *
 * Threads: any. A table that was replaced is kept until nobody can use it.
 */
#pragma once

#include "cheetah/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "service/revoked.h"

enum svc_right { SVC_RIGHT_OPEN, SVC_RIGHT_READ, SVC_RIGHT_WRITE, SVC_RIGHT_ADMIN };

struct svc_access; /* all tokens */
struct svc_token;  /* one of them, borrowed from the table */

/* What is known of a client's certificate that was found good. */
struct svc_access_certificate {
    uint8_t fingerprint[CHT_SHA256_BYTES]; /* of the DER */
    uint8_t name[CHT_SHA256_BYTES];        /* of the common name */
    bool named;                            /* it has one */
    uint64_t expires;                      /* ns since 1970 */
    struct svc_revoked *revoked;           /* borrowed: what was revoked by now; NULL: nobody knows */
    struct svc_revoked_id id;              /* of this one there */
};

/* CHT_NO_FILE, CHT_INVALID_ARGUMENT with the line's number (never its text). */
enum cht_rc svc_access_load(const char *path, struct svc_access **out, struct cht_err *err);
void svc_access_free(struct svc_access *a); /* NULL is legal */
/* Does the file hold a token itself, so that nobody else may read it? */
bool svc_access_has_secrets(const struct svc_access *a);
/* The token in the value of an Authorization header: "Bearer" in any case, blanks, the token, blanks. NULL if none fits, or if it
 * has expired. Takes as long for a wrong token as for a right one: its hash is compared with all in full. */
const struct svc_token *svc_access_find(const struct svc_access *a, const char *header);
/* The same for the bare token. */
const struct svc_token *svc_access_find_text(const struct svc_access *a, const char *text, size_t n);
/* The line for a client's certificate; NULL if there is none, if it has expired, or if the certificate is good for nothing any more. */
const struct svc_token *svc_access_find_certificate(const struct svc_access *a,
                                                    const struct svc_access_certificate *c);
/* It has expired, or was revoked. */
bool svc_access_certificate_over(const struct svc_access_certificate *c);
/* What `t`, of this table or of an earlier one, is in this table now: NULL if it was taken out or has expired. */
const struct svc_token *svc_access_again(const struct svc_access *a, const struct svc_token *t);
bool svc_access_expired(const struct svc_token *t);
bool svc_access_allows(const struct svc_token *t, enum svc_right right, const char *database);
/* What it says: its right; every database? else each that it names. */
enum svc_right svc_access_right(const struct svc_token *t);
bool svc_access_all(const struct svc_token *t);
void svc_access_databases(const struct svc_token *t, void (*each)(void *ctx, const char *name, size_t n),
                          void *ctx);
/* The right whatever the database. */
bool svc_access_has_right(const struct svc_token *t, enum svc_right right);
