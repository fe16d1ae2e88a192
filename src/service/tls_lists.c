/* svc_tls_take_lists: lists of certificates that the clients' authorities have revoked (CRLs, RFC 5280 section 5). See tls.h. */
#include "service/tls_int.h"

#include "base/alloc.h"

#include <gnutls/x509.h>

#define LISTS_MAX ((size_t)64 << 20) /* bytes of PEM: about a million certificates */
#define SERIAL_MAX 128u

/* Anybody can write a list: it counts if an authority has signed it. One that is overdue does not know the latest; what it revokes stays
 * revoked. */
static enum cht_rc check_list(const struct svc_tls *t, gnutls_x509_crl_t crl, const gnutls_x509_crt_t *ca,
                              unsigned ca_n, struct cht_err *err)
{
    unsigned status = 0;
    gnutls_datum_t text = {NULL, 0};
    int rc = gnutls_x509_crl_verify(crl, ca, ca_n, 0, &status);
    if (rc >= 0 && status == 0)
        return CHT_OK;
    if (rc >= 0 && (status & ~(unsigned)GNUTLS_CERT_INVALID) == GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED) {
        svc_log_say(t->log, SVC_LOG_WARN, "tls_crl_overdue",
                    "a list in %s says that there is a newer one by now", t->client_crl);
        return CHT_OK;
    }
    if (rc >= 0 && gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
        text.data = NULL;
    enum cht_rc bad = CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                               "--tls-client-crl %.60s: a list cannot be trusted: %.90s", t->client_crl,
                               rc < 0              ? gnutls_strerror(rc)
                               : text.data != NULL ? (const char *)text.data
                                                   : "not signed by an authority");
    gnutls_free(text.data);
    return bad;
}

static enum cht_rc add_entries(gnutls_x509_crl_t crl, struct svc_tls_entries *out, struct cht_err *err)
{
    int count = gnutls_x509_crl_get_crt_count(crl);
    size_t more = count > 0 ? (size_t)count : 0;
    gnutls_datum_t issuer = {NULL, 0};
    gnutls_x509_crl_iter_t at = NULL;
    struct svc_revoked_id *list = cht_realloc(out->list, (out->n + more + 1) * sizeof *list);
    out->list = list != NULL ? list : out->list;
    bool ok = list != NULL && count >= 0 && gnutls_x509_crl_get_raw_issuer_dn(crl, &issuer) >= 0;
    for (size_t i = 0; i < more && ok; i++) {
        unsigned char serial[SERIAL_MAX];
        size_t n = sizeof serial;
        time_t when;
        ok = gnutls_x509_crl_iter_crt_serial(crl, &at, serial, &n, &when) >= 0;
        if (ok)
            out->list[out->n++] = svc_revoked_id(issuer.data, issuer.size, serial, n);
    }
    gnutls_x509_crl_iter_deinit(at);
    gnutls_free(issuer.data);
    return ok ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a list of revoked certificates");
}

/* crl is k's, if it is taken. */
static enum cht_rc give_to(struct svc_tls_keys *k, gnutls_x509_crl_t crl, struct cht_err *err)
{
    gnutls_x509_trust_list_t trust = NULL;
    gnutls_certificate_get_trust_list(k->credentials, &trust);
    return trust != NULL && gnutls_x509_trust_list_add_crls(trust, &crl, 1, 0, 0) == 1
               ? CHT_OK
               : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a list of revoked certificates");
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_tls_take_lists(const struct svc_tls *t, struct svc_tls_keys *k, const gnutls_datum_t *ca,
                               struct svc_tls_entries *out, struct cht_err *err)
{
    gnutls_datum_t pem = {NULL, 0};
    gnutls_x509_crl_t *crl = NULL;
    gnutls_x509_crt_t *authority = NULL;
    unsigned crl_n = 0, ca_n = 0, taken = 0;
    enum cht_rc rc = svc_tls_read_pem(t->client_crl, LISTS_MAX, &pem, err);
    int got = rc == CHT_OK ? gnutls_x509_crl_list_import2(&crl, &crl_n, &pem, GNUTLS_X509_FMT_PEM, 0) : 0;
    if (rc == CHT_OK && (got < 0 || crl_n == 0))
        rc =
            CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-client-crl %.60s holds no list (PEM, X509 CRL): %.80s",
                     t->client_crl, got < 0 ? gnutls_strerror(got) : "it is empty");
    if (rc == CHT_OK && gnutls_x509_crt_list_import2(&authority, &ca_n, ca, GNUTLS_X509_FMT_PEM, 0) < 0)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    for (; rc == CHT_OK && taken < crl_n; taken++) {
        rc = check_list(t, crl[taken], authority, ca_n, err);
        if (rc == CHT_OK)
            rc = add_entries(crl[taken], out, err);
        if (rc == CHT_OK)
            rc = give_to(k, crl[taken], err);
        if (rc != CHT_OK)
            break;
    }
    for (unsigned i = taken; i < crl_n; i++)
        gnutls_x509_crl_deinit(crl[i]);
    for (unsigned i = 0; i < ca_n; i++)
        gnutls_x509_crt_deinit(authority[i]);
    gnutls_free(crl);
    gnutls_free(authority);
    svc_tls_free_pem(&pem);
    return rc;
}
