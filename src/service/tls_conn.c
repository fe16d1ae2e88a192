/* svc_tls_conn: see tls.h: TLS over a socket of ours.
 *
 * GnuTLS keeps a record that the socket did not take and wants to be called again with the same bytes, or with none: `held` says
 * that one waits, and the next write sends it before it takes anything else.
 */
#include "service/tls_int.h"

#include "base/alloc.h"
#include "os/net.h"
#include "os/sock.h"

#include <gnutls/x509.h>
#include <string.h>

struct svc_tls_conn {
    gnutls_session_t session;
    struct svc_tls_keys *keys;                    /* the server's side */
    gnutls_certificate_credentials_t credentials; /* owned: the client's side */
    bool shaken, failed, said_end;
    bool held; /* a record waits for room */
};

static struct svc_tls_conn *new_conn(unsigned flags, int fd)
{
    struct svc_tls_conn *c = cht_calloc(1, sizeof *c);
    if (c == NULL || gnutls_init(&c->session, flags | GNUTLS_NO_SIGNAL) != GNUTLS_E_SUCCESS) {
        cht_free(c);
        return NULL;
    }
    gnutls_transport_set_int(c->session, fd);
    return c;
}

static bool is_address(const char *host)
{
    return host[strspn(host, "0123456789.")] == 0 || strchr(host, ':') != NULL;
}

static enum cht_rc own_certificate(struct svc_tls_conn *c, const struct svc_tls_config *files,
                                   struct cht_err *err)
{
    bool cert = files->cert != NULL && files->cert[0] != 0, key = files->key != NULL && files->key[0] != 0;
    if (cert != key)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a certificate and its key go together");
    if (!cert)
        return CHT_OK;
    int rc =
        gnutls_certificate_set_x509_key_file(c->credentials, files->cert, files->key, GNUTLS_X509_FMT_PEM);
    return rc >= 0 ? CHT_OK
                   : CHT_FAIL(err, CHT_INVALID_ARGUMENT, "certificate %.60s and key %.60s: %.60s",
                              files->cert, files->key, gnutls_strerror(rc));
}

static enum cht_rc set_up(struct svc_tls_conn *c, const char *host, const struct svc_tls_config *files,
                          struct cht_err *err)
{
    bool own_ca = files->client_ca != NULL && files->client_ca[0] != 0;
    if (gnutls_certificate_allocate_credentials(&c->credentials) != GNUTLS_E_SUCCESS)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    int n =
        own_ca ? gnutls_certificate_set_x509_trust_file(c->credentials, files->client_ca, GNUTLS_X509_FMT_PEM)
               : gnutls_certificate_set_x509_system_trust(c->credentials);
    if (own_ca && n <= 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.120s holds no certificate (PEM)", files->client_ca);
    enum cht_rc rc = own_certificate(c, files, err);
    if (rc != CHT_OK)
        return rc;
    if (gnutls_priority_set_direct(c->session, SVC_TLS_CIPHERS ":-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2",
                                   NULL) != GNUTLS_E_SUCCESS ||
        gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials) != GNUTLS_E_SUCCESS ||
        (!is_address(host) &&
         gnutls_server_name_set(c->session, GNUTLS_NAME_DNS, host, strlen(host)) != GNUTLS_E_SUCCESS))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    gnutls_session_set_verify_cert(c->session, host, 0);
    return CHT_OK;
}

static enum cht_rc why_not(struct svc_tls_conn *c, int rc, const char *host, struct cht_err *err)
{
    gnutls_datum_t text = {NULL, 0};
    if (rc == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
        gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(c->session),
                                                     GNUTLS_CRT_X509, &text, 0) == GNUTLS_E_SUCCESS) {
        (void)cht_err_set(err, CHT_IO, 0, __FILE__, __LINE__, "TLS with %.60s: %.120s", host,
                          (const char *)text.data);
        gnutls_free(text.data);
        return CHT_IO;
    }
    return CHT_FAIL(err, CHT_IO, "TLS with %.60s: %.100s", host, gnutls_strerror(rc));
}

/* The results of gnutls_record_recv and _send as those of sockets. */
static ptrdiff_t outcome(struct svc_tls_conn *c, ssize_t n)
{
    if (n >= 0)
        return n;
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
        return CHT_SOCK_LATER;
    c->failed = true;
    return CHT_SOCK_FAILED;
}

/* ------------------------------------------------------------------------------------------------------------ */

struct svc_tls_conn *svc_tls_accept(struct svc_tls *t, int fd)
{
    struct svc_tls_conn *c = new_conn(GNUTLS_SERVER | GNUTLS_NONBLOCK, fd);
    if (c != NULL && !svc_tls_attach(t, c->session, &c->keys)) {
        svc_tls_close(c);
        return NULL;
    }
    return c;
}

enum cht_rc svc_tls_connect(int fd, const char *host, const struct svc_tls_config *files,
                            struct svc_tls_conn **out, struct cht_err *err)
{
    struct svc_tls_conn *c = new_conn(GNUTLS_CLIENT, fd);
    int done;
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    enum cht_rc rc = set_up(c, host, files, err);
    if (rc == CHT_OK) {
        do
            done = gnutls_handshake(c->session);
        while (done < 0 && gnutls_error_is_fatal(done) == 0);
        c->shaken = done == GNUTLS_E_SUCCESS;
        c->failed = !c->shaken;
        rc = c->shaken ? CHT_OK : why_not(c, done, host, err);
    }
    if (rc != CHT_OK)
        svc_tls_close(c);
    else
        *out = c;
    return rc;
}

enum svc_tls_step svc_tls_shake(struct svc_tls_conn *c)
{
    if (c->failed)
        return SVC_TLS_FAILED;
    int rc = c->shaken ? GNUTLS_E_SUCCESS : gnutls_handshake(c->session);
    while (rc < 0 && rc != GNUTLS_E_AGAIN && gnutls_error_is_fatal(rc) == 0) /* a warning: go on */
        rc = gnutls_handshake(c->session);
    if (rc == GNUTLS_E_AGAIN)
        return SVC_TLS_LATER;
    c->shaken = rc == GNUTLS_E_SUCCESS;
    c->failed = !c->shaken;
    if (c->failed && rc != GNUTLS_E_CERTIFICATE_ERROR) /* of which verify_client has told */
        (void)gnutls_alert_send_appropriate(c->session, rc);
    return c->shaken ? SVC_TLS_READY : SVC_TLS_FAILED;
}

bool svc_tls_shaken(const struct svc_tls_conn *c) { return c->shaken; }

bool svc_tls_conn_peer(const struct svc_tls_conn *c, struct svc_access_certificate *out)
{
    return c->keys != NULL && svc_tls_peer(c->session, out);
}

ptrdiff_t svc_tls_read(struct svc_tls_conn *c, void *buf, size_t n)
{
    if (c->failed)
        return CHT_SOCK_FAILED;
    ssize_t got;
    unsigned later = 0;
    do { /* what was no text, a new key of TLS 1.3 for one, is also "again", and there may be more after it */
        got = gnutls_record_recv(c->session, buf, n);
        later += got == GNUTLS_E_AGAIN;
    } while (got == GNUTLS_E_INTERRUPTED || got == GNUTLS_E_WARNING_ALERT_RECEIVED ||
             (got == GNUTLS_E_AGAIN && later < 2));
    if (got == GNUTLS_E_PREMATURE_TERMINATION)
        return 0; /* an end without a word; whole lines that came before it are the client's */
    return outcome(c, got);
}

size_t svc_tls_pending(const struct svc_tls_conn *c)
{
    return c->failed ? 0 : gnutls_record_check_pending(c->session);
}

ptrdiff_t svc_tls_write(struct svc_tls_conn *c, const void *buf, size_t n)
{
    if (c->failed)
        return CHT_SOCK_FAILED;
    ssize_t done;
    do
        done = c->held ? gnutls_record_send(c->session, NULL, 0) : gnutls_record_send(c->session, buf, n);
    while (done == GNUTLS_E_INTERRUPTED);
    c->held = done == GNUTLS_E_AGAIN;
    return outcome(c, done);
}

void svc_tls_end(struct svc_tls_conn *c)
{
    if (c->shaken && !c->failed && !c->said_end && !c->held)
        (void)gnutls_bye(c->session, GNUTLS_SHUT_WR); /* a courtesy: without room for it, it is left out */
    c->said_end = true;
}

void svc_tls_close(struct svc_tls_conn *c)
{
    if (c == NULL)
        return;
    svc_tls_end(c);
    gnutls_deinit(c->session);
    if (c->credentials != NULL)
        gnutls_certificate_free_credentials(c->credentials);
    svc_tls_keys_put(c->keys);
    cht_free(c);
}
