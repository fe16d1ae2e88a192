/* secure: see secure.h. */
#include "http/secure.h"

#include "base/alloc.h"

#include <string.h>

static bool given(const char *s) { return s[0] != 0; }

static enum cht_rc wants_key(const char *option, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s wants --tls-cert and --tls-key", option);
}

/* Looked at once: it does not change while the connection lasts. */
static void look(struct http_conn *c)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mc, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    struct svc_access_certificate *found = cht_malloc(sizeof *found);
    if (info == NULL || found == NULL || !svc_tls_peer(info->tls_session, found)) {
        cht_free(found);
        found = NULL;
    }
    c->certificate = found;
    c->looked = true;
}

/* Who the client is by its certificate; NULL: it has shown none, or no line is for it. */
static const struct svc_token *by_certificate(struct http_conn *c, const struct svc_access *a)
{
    if (c->keys == NULL)
        return NULL;
    if (!c->looked)
        look(c);
    return c->certificate != NULL ? svc_access_find_certificate(a, c->certificate) : NULL;
}

/* The token of the Authorization header. Clients send the same again and again, so the last valid one of the connection is kept; it
 * is compared in constant time, since behind a proxy another client may have sent it. */
static const struct svc_token *find_token(struct http_conn *c, const struct svc_access *a, const char *header)
{
    size_t n = header != NULL ? strlen(header) : 0;
    if (c->token != NULL && n == c->authorization_len) {
        unsigned differ = 0;
        for (size_t i = 0; i < n; i++)
            differ |= (unsigned char)(header[i] ^ c->authorization[i]);
        if (differ == 0) {
            c->token = svc_access_again(a, c->token);
            return c->token;
        }
    }
    const struct svc_token *t = svc_access_find(a, header);
    if (t != NULL && header != NULL && n <= sizeof c->authorization) {
        memcpy(c->authorization, header, n);
        c->authorization_len = n;
        c->token = t;
    }
    return t;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc http_secure_open(struct http_server *s, struct cht_err *err)
{
    const struct conf *c = s->conf;
    struct svc_tls_config how = {.cert = c->tls_cert,
                                 .key = c->tls_key,
                                 .client_ca = c->tls_client_ca,
                                 .client_crl = c->tls_client_crl,
                                 .least = c->tls_min,
                                 .ciphers = c->tls_ciphers};
    if (given(c->tls_client_crl) && !given(c->tls_client_ca))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-client-crl wants --tls-client-ca");
    if (given(c->tls_cert) != given(c->tls_key))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-cert and --tls-key go together");
    if (!given(c->tls_cert)) {
        if (given(c->tls_ciphers))
            return wants_key("--tls-ciphers", err);
        if (c->line_tls)
            return wants_key("--line-tls", err);
        return given(c->tls_client_ca) ? wants_key("--tls-client-ca", err) : CHT_OK;
    }
    if (given(c->tls_client_ca) && !given(c->tokens))
        return CHT_FAIL(
            err, CHT_INVALID_ARGUMENT,
            "--tls-client-ca wants --tokens FILE, whose lines cert:NAME say what a certificate allows");
    return svc_tls_new(&how, s->log, &s->tls, err);
}

unsigned http_secure_options(const struct http_server *s, struct MHD_OptionItem *at)
{
    if (s->tls == NULL)
        return 0;
    at[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, svc_tls_no_certificate()};
    at[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)svc_tls_priorities(s->tls)};
    return MHD_USE_TLS;
}

bool http_secure_begin(struct http_conn *c)
{
    if (c->w->srv->tls == NULL)
        return true;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mc, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info != NULL && svc_tls_attach(c->w->srv->tls, info->tls_session, &c->keys);
}

void http_secure_end(struct http_conn *c)
{
    svc_tls_keys_put(c->keys);
    cht_free(c->certificate);
    c->keys = NULL;
    c->certificate = NULL;
}

void http_secure_who(struct http_request *r, const struct svc_access *a)
{
    const char *header = r->in[HTTP_H_AUTHORIZATION];
    r->token = header == NULL ? by_certificate(r->conn, a) : NULL;
    r->certified = r->token != NULL;
    if (!r->certified)
        r->token = find_token(r->conn, a, header);
    r->valid = r->token;
}

bool http_secure_expired(const struct http_conn *c)
{
    return c->certificate != NULL && svc_access_certificate_over(c->certificate);
}
