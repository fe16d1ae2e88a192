/* tls: see tls.h: settings, keys, clients' certificates. */
#include "service/tls.h"

#include "service/tls_int.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "os/net.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PEM_MAX (1u << 20)
#define COMMON_NAME_MAX 256u
#define NANOS UINT64_C(1000000000)

/* ---- protocols and ciphers ------------------------------------------------------------------------------------------------ */

static bool among(unsigned id, const unsigned *list, int n)
{
    for (int i = 0; i < n; i++) {
        if (list[i] == id)
            return true;
    }
    return false;
}

/* What of `list` is not in `good`: its place, or -1. */
static int stranger(const unsigned *list, int n, const unsigned *good, size_t goods)
{
    for (int i = 0; i < n; i++) {
        if (!among(list[i], good, (int)goods))
            return i;
    }
    return -1;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* TLS 1.3 has ephemeral key exchanges only; 1.2 others, too. */
static enum cht_rc check_exchanges(gnutls_priority_t p, struct cht_err *err)
{
    static const unsigned good[] = {GNUTLS_KX_ECDHE_ECDSA, GNUTLS_KX_ECDHE_RSA, GNUTLS_KX_DHE_RSA};
    const unsigned *list;
    int n = gnutls_priority_kx_list(p, &list), bad = stranger(list, n, good, COUNT(good));
    if (bad >= 0)
        return CHT_FAIL(
            err, CHT_INVALID_ARGUMENT,
            "--tls-ciphers allows the key exchange %.40s: only ECDHE-ECDSA, ECDHE-RSA and DHE-RSA are "
            "forward secret and show who the server is",
            gnutls_kx_get_name((gnutls_kx_algorithm_t)list[bad]));
    if (n <= 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-ciphers allows no key exchange for TLS 1.2");
    return CHT_OK;
}

static enum cht_rc check_ciphers(gnutls_priority_t p, struct cht_err *err)
{
    static const unsigned good[] = {
        GNUTLS_CIPHER_AES_128_GCM,      GNUTLS_CIPHER_AES_256_GCM,      GNUTLS_CIPHER_CHACHA20_POLY1305,
        GNUTLS_CIPHER_AES_128_CCM,      GNUTLS_CIPHER_AES_256_CCM,      GNUTLS_CIPHER_AES_128_CCM_8,
        GNUTLS_CIPHER_AES_256_CCM_8,    GNUTLS_CIPHER_AES_128_CBC,      GNUTLS_CIPHER_AES_256_CBC,
        GNUTLS_CIPHER_CAMELLIA_128_GCM, GNUTLS_CIPHER_CAMELLIA_256_GCM, GNUTLS_CIPHER_CAMELLIA_128_CBC,
        GNUTLS_CIPHER_CAMELLIA_256_CBC};
    static const unsigned good_macs[] = {GNUTLS_MAC_AEAD, GNUTLS_MAC_SHA1, GNUTLS_MAC_SHA256,
                                         GNUTLS_MAC_SHA384, GNUTLS_MAC_SHA512};
    const unsigned *list;
    int n = gnutls_priority_cipher_list(p, &list), bad = stranger(list, n, good, COUNT(good));
    if (bad >= 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-ciphers allows %.40s, which protects nothing",
                        gnutls_cipher_get_name((gnutls_cipher_algorithm_t)list[bad]));
    if (n <= 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-ciphers allows no cipher");
    n = gnutls_priority_mac_list(p, &list);
    bad = stranger(list, n, good_macs, COUNT(good_macs));
    if (bad >= 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "--tls-ciphers allows the MAC %.40s, which protects nothing",
                        gnutls_mac_get_name((gnutls_mac_algorithm_t)list[bad]));
    return CHT_OK;
}

/* The ciphers as given, without what is older than the least. Versions are taken away, never added: what the string leaves out stays
 * out. */
static enum cht_rc make_priorities(struct svc_tls *t, const struct svc_tls_config *c, struct cht_err *err)
{
    static const char old[] = ":-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1", no_12[] = ":-VERS-TLS1.2";
    const char *ciphers = c->ciphers != NULL && c->ciphers[0] != 0 ? c->ciphers : SVC_TLS_CIPHERS, *at;
    bool only_13 = strcmp(c->least, "1.3") == 0;
    size_t cap = strlen(ciphers) + sizeof old + sizeof no_12;
    t->text = cht_malloc(cap);
    if (t->text == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    (void)snprintf(t->text, cap, "%s%s%s", ciphers, old, only_13 ? no_12 : ""); /* fits */
    if (gnutls_priority_init(&t->priorities, ciphers, &at) != GNUTLS_E_SUCCESS)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "--tls-ciphers is no priority string of GnuTLS, from '%.80s' on",
                        at != NULL ? at : ciphers);
    gnutls_priority_deinit(t->priorities);
    t->priorities = NULL;
    if (gnutls_priority_init(&t->priorities, t->text, NULL) != GNUTLS_E_SUCCESS)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-ciphers leaves no protocol from TLS %s on",
                        c->least);
    const unsigned *list;
    int n = gnutls_priority_protocol_list(t->priorities, &list);
    bool has_12 = among(GNUTLS_TLS1_2, list, n);
    if (!has_12 && !among(GNUTLS_TLS1_3, list, n))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-ciphers leaves no protocol from TLS %s on",
                        c->least);
    enum cht_rc done = has_12 ? check_exchanges(t->priorities, err) : CHT_OK;
    return done == CHT_OK ? check_ciphers(t->priorities, err) : done;
}

/* ---- clients' certificates ------------------------------------------------------------------------------------------------- */

/* A stranger's handshakes do not fill the log: one line a second. */
static void log_refused(struct svc_tls *t, unsigned status)
{
    gnutls_datum_t text = {NULL, 0};
    uint64_t now = cht_now_ns(), last = atomic_load_explicit(&t->refusal_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->refused, 1, memory_order_relaxed);
    if ((last != 0 && now - last < NANOS) ||
        !atomic_compare_exchange_strong_explicit(&t->refusal_ns, &last, now, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) == GNUTLS_E_SUCCESS)
        svc_log_say(t->log, SVC_LOG_WARN, "client_certificate_refused", "%s", (const char *)text.data);
    gnutls_free(text.data);
}

/* Part of the handshake. Without a certificate there is nothing to verify: the client may have a token. */
static int verify_client(gnutls_session_t session)
{
    struct svc_tls *t = gnutls_db_get_ptr(session);
    gnutls_typed_vdata_st purpose = {
        .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT, .size = 0};
    unsigned n = 0, status = 0;
    if (gnutls_certificate_get_peers(session, &n) == NULL || n == 0)
        return 0;
    int rc = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
    if (rc == GNUTLS_E_SUCCESS && status == 0)
        return 0;
    log_refused(t, rc == GNUTLS_E_SUCCESS ? status : GNUTLS_CERT_INVALID);
    (void)gnutls_alert_send(session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_CERTIFICATE); /* it is over either way */
    return GNUTLS_E_CERTIFICATE_ERROR;
}

/* The one common name, if it is text that a line of the token file can hold. */
static bool common_name(gnutls_x509_crt_t crt, struct svc_access_certificate *out)
{
    char name[COMMON_NAME_MAX + 1], second[COMMON_NAME_MAX + 1];
    size_t n = sizeof name, more = sizeof second;
    if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &n) != GNUTLS_E_SUCCESS ||
        gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 1, 0, second, &more) !=
            GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return false;
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)name[i] <= ' ' || name[i] == 0x7F)
            return false;
    }
    cht_sha256(name, n, out->name);
    return n > 0;
}

/* Without a name and a number it is not known what to look for, and no certificate is without them. */
static bool identify(gnutls_x509_crt_t crt, struct svc_revoked_id *out)
{
    unsigned char serial[128];
    size_t n = sizeof serial;
    gnutls_datum_t issuer = {NULL, 0};
    if (gnutls_x509_crt_get_serial(crt, serial, &n) != GNUTLS_E_SUCCESS ||
        gnutls_x509_crt_get_raw_issuer_dn(crt, &issuer) != GNUTLS_E_SUCCESS)
        return false;
    *out = svc_revoked_id(issuer.data, issuer.size, serial, n);
    gnutls_free(issuer.data);
    return true;
}

bool svc_tls_peer(void *session, struct svc_access_certificate *out)
{
    struct svc_tls *t = gnutls_db_get_ptr(session);
    unsigned n = 0;
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &n);
    if (list == NULL || n == 0 || gnutls_x509_crt_init(&crt) != GNUTLS_E_SUCCESS)
        return false;
    bool ok = gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER) == GNUTLS_E_SUCCESS &&
              identify(crt, &out->id);
    if (ok) {
        time_t end = gnutls_x509_crt_get_expiration_time(crt);
        cht_sha256(list[0].data, list[0].size, out->fingerprint);
        out->named = common_name(crt, out);
        out->revoked = t->revoked;
        out->expires = end <= 0                             ? 1 /* it is not known when: it has ended */
                       : (uint64_t)end < UINT64_MAX / NANOS ? (uint64_t)end * NANOS
                                                            : UINT64_MAX; /* after the year 2554 */
    }
    gnutls_x509_crt_deinit(crt);
    return ok;
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------ */

static void keys_free(struct svc_tls_keys *k)
{
    if (k->credentials != NULL)
        gnutls_certificate_free_credentials(k->credentials);
    cht_free(k);
}

static enum cht_rc take_expiry(struct svc_tls_keys *k, struct cht_err *err)
{
    gnutls_x509_crt_t *list;
    unsigned n = 0;
    if (gnutls_certificate_get_x509_crt(k->credentials, 0, &list, &n) != GNUTLS_E_SUCCESS || n == 0)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a certificate");
    time_t end = gnutls_x509_crt_get_expiration_time(list[0]);
    k->expires = end > 0 ? (uint64_t)end : 0;
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(list[i]);
    gnutls_free(list);
    return CHT_OK;
}

static bool same_key(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key)
{
    unsigned char one[64], other[64];
    size_t n = sizeof one, m = sizeof other;
    return gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, one, &n) == GNUTLS_E_SUCCESS &&
           gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, other, &m) == GNUTLS_E_SUCCESS &&
           n == m && memcmp(one, other, n) == 0;
}

/* Is the key that of a certificate of the chain? GnuTLS finds out itself, but does not free what it had read until then (3.7.9). */
static int check_pair(const gnutls_datum_t *cert, const gnutls_datum_t *pem)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t *list = NULL;
    unsigned n = 0;
    int rc = gnutls_x509_privkey_init(&key);
    if (rc < 0)
        return rc;
    rc = gnutls_x509_privkey_import2(key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (rc >= 0)
        rc = gnutls_x509_crt_list_import2(&list, &n, cert, GNUTLS_X509_FMT_PEM, 0);
    bool match = false;
    for (unsigned i = 0; rc >= 0 && i < n; i++) {
        match = match || same_key(list[i], key);
        gnutls_x509_crt_deinit(list[i]);
    }
    gnutls_free(list);
    gnutls_x509_privkey_deinit(key);
    return rc < 0 || match ? rc : GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
}

static enum cht_rc fill_keys(const struct svc_tls *t, struct svc_tls_keys *k, struct svc_tls_entries *revoked,
                             struct cht_err *err)
{
    gnutls_datum_t cert = {NULL, 0}, key = {NULL, 0}, ca = {NULL, 0};
    enum cht_rc rc = svc_tls_read_pem(t->cert, PEM_MAX, &cert, err);
    if (rc == CHT_OK)
        rc = svc_tls_read_pem(t->key, PEM_MAX, &key, err);
    if (rc == CHT_OK && t->client_ca != NULL)
        rc = svc_tls_read_pem(t->client_ca, PEM_MAX, &ca, err);
    if (rc == CHT_OK) {
        int set = check_pair(&cert, &key);
        if (set >= 0)
            set = gnutls_certificate_set_x509_key_mem(k->credentials, &cert, &key, GNUTLS_X509_FMT_PEM);
        if (set < 0)
            rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-cert %.50s and --tls-key %.50s: %.70s", t->cert,
                          t->key, gnutls_strerror(set));
    }
    if (rc == CHT_OK && ca.data != NULL &&
        gnutls_certificate_set_x509_trust_mem(k->credentials, &ca, GNUTLS_X509_FMT_PEM) <= 0)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--tls-client-ca %.120s holds no certificate (PEM)",
                      t->client_ca);
    if (rc == CHT_OK && t->client_crl != NULL)
        rc = svc_tls_take_lists(t, k, &ca, revoked, err);
    if (rc == CHT_OK)
        rc = take_expiry(k, err);
    svc_tls_free_pem(&cert);
    svc_tls_free_pem(&key);
    svc_tls_free_pem(&ca);
    return rc;
}

/* revoked: what is in the lists; the caller's, with keys or without. */
static enum cht_rc load(struct svc_tls *t, struct svc_tls_keys **out, struct svc_tls_entries *revoked,
                        struct cht_err *err)
{
    struct svc_tls_keys *k = cht_calloc(1, sizeof *k);
    if (k == NULL || gnutls_certificate_allocate_credentials(&k->credentials) != GNUTLS_E_SUCCESS) {
        cht_free(k);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    }
    atomic_init(&k->users, 1);
    gnutls_certificate_set_verify_function(k->credentials, verify_client);
    (void)gnutls_certificate_set_known_dh_params(k->credentials,
                                                 GNUTLS_SEC_PARAM_MEDIUM); /* without: no DHE-RSA */
    enum cht_rc rc = fill_keys(t, k, revoked, err);
    if (rc != CHT_OK) {
        keys_free(k);
        return rc;
    }
    if (cht_os_file_is_open_to_others(t->key))
        svc_log_say(t->log, SVC_LOG_WARN, "tls_key_readable",
                    "others can read the private key, or write it; chmod 600 %s", t->key);
    if (k->expires <= cht_wall_ns() / NANOS)
        svc_log_say(t->log, SVC_LOG_WARN, "tls_certificate_expired",
                    "the certificate in %s is not valid any more", t->cert);
    *out = k;
    return CHT_OK;
}

static struct svc_tls_keys *keys_get(struct svc_tls *t)
{
    cht_mutex_lock(&t->mu);
    struct svc_tls_keys *k = t->keys;
    atomic_fetch_add_explicit(&k->users, 1, memory_order_relaxed);
    cht_mutex_unlock(&t->mu);
    return k;
}

/* ------------------------------------------------------------------------------------------------------------ */

static char *copy(const char *path) { return path != NULL && path[0] != 0 ? cht_strdup(path) : NULL; }

enum cht_rc svc_tls_new(const struct svc_tls_config *c, struct svc_log *log, struct svc_tls **out,
                        struct cht_err *err)
{
    struct svc_tls *t = cht_calloc(1, sizeof *t);
    if (t == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    enum cht_rc rc = cht_mutex_init(&t->mu, err);
    if (rc != CHT_OK) {
        cht_free(t);
        return rc;
    }
    bool clients = c->client_ca != NULL && c->client_ca[0] != 0,
         lists = c->client_crl != NULL && c->client_crl[0] != 0;
    struct svc_tls_entries revoked = {0};
    t->log = log;
    t->cert = copy(c->cert);
    t->key = copy(c->key);
    t->client_ca = copy(c->client_ca);
    t->client_crl = copy(c->client_crl);
    if (t->cert == NULL || t->key == NULL || (clients && t->client_ca == NULL) ||
        (lists && t->client_crl == NULL))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    if (rc == CHT_OK)
        rc = make_priorities(t, c, err);
    if (rc == CHT_OK)
        rc = svc_revoked_new(&t->revoked, err);
    if (rc == CHT_OK)
        rc = load(t, &t->keys, &revoked, err);
    if (rc != CHT_OK) {
        cht_free(revoked.list);
        svc_tls_free(t);
        return rc;
    }
    svc_revoked_replace(t->revoked, revoked.list, revoked.n);
    *out = t;
    return CHT_OK;
}

void svc_tls_free(struct svc_tls *t)
{
    if (t == NULL)
        return;
    svc_tls_keys_put(t->keys);
    if (t->priorities != NULL)
        gnutls_priority_deinit(t->priorities);
    cht_mutex_fini(&t->mu);
    cht_free(t->cert);
    cht_free(t->key);
    cht_free(t->client_ca);
    cht_free(t->client_crl);
    svc_revoked_free(t->revoked);
    cht_free(t->text);
    cht_free(t);
}

enum cht_rc svc_tls_reload(struct svc_tls *t, struct cht_err *err)
{
    struct svc_tls_keys *k, *old;
    struct svc_tls_entries revoked = {0};
    enum cht_rc rc = load(t, &k, &revoked, err);
    if (rc != CHT_OK) {
        cht_free(revoked.list);
        atomic_fetch_add_explicit(&t->failures, 1, memory_order_relaxed);
        return rc;
    }
    cht_mutex_lock(&t->mu);
    old = t->keys;
    t->keys = k;
    cht_mutex_unlock(&t->mu);
    svc_tls_keys_put(old);
    svc_revoked_replace(t->revoked, revoked.list, revoked.n);
    return CHT_OK;
}

uint64_t svc_tls_expires(struct svc_tls *t)
{
    struct svc_tls_keys *k = keys_get(t);
    uint64_t expires = k->expires;
    svc_tls_keys_put(k);
    return expires;
}

static void one(struct svc_out *o, const char *name, const char *type, const char *help, uint64_t v)
{
    svc_out_format(o, "# HELP cheetah_tls_%s %s\n# TYPE cheetah_tls_%s %s\ncheetah_tls_%s %" PRIu64 "\n",
                   name, help, name, type, name, v);
}

void svc_tls_metrics(struct svc_tls *t, struct svc_out *o)
{
    one(o, "certificate_expires_seconds", "gauge",
        "When the server's certificate ends, in seconds since 1970; 0 without TLS.",
        t != NULL ? svc_tls_expires(t) : 0);
    one(o, "reloads_failed_total", "counter",
        "Times that a new certificate was not taken and the old one stayed.",
        t != NULL ? atomic_load_explicit(&t->failures, memory_order_relaxed) : 0);
    one(o, "client_certificates_refused_total", "counter",
        "Handshakes that ended because of the client's certificate.",
        t != NULL ? atomic_load_explicit(&t->refused, memory_order_relaxed) : 0);
}

const char *svc_tls_priorities(const struct svc_tls *t) { return t->text; }

static int no_certificate(gnutls_session_t session, const gnutls_datum_t *authorities, int n,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_n, gnutls_pcert_st **pcert,
                          unsigned *pcert_n, gnutls_privkey_t *key)
{
    (void)session, (void)authorities, (void)n, (void)algorithms, (void)algorithm_n, (void)pcert,
        (void)pcert_n;
    (void)key;
    return -1;
}

void *svc_tls_no_certificate(void)
{
    gnutls_certificate_retrieve_function2 *fn = no_certificate;
    void *p; /* of the same size on POSIX */
    memcpy(&p, &fn, sizeof p);
    return p;
}

bool svc_tls_attach(struct svc_tls *t, void *session, struct svc_tls_keys **keys)
{
    *keys = keys_get(t);
    if (gnutls_priority_set(session, t->priorities) != GNUTLS_E_SUCCESS ||
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, (*keys)->credentials) != GNUTLS_E_SUCCESS)
        return false;
    gnutls_db_set_ptr(session, t); /* for verify_client; there is no database of sessions */
    if (t->client_ca != NULL)
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
    return true;
}

void svc_tls_keys_put(struct svc_tls_keys *k)
{
    if (k != NULL && atomic_fetch_sub_explicit(&k->users, 1, memory_order_acq_rel) == 1)
        keys_free(k);
}
