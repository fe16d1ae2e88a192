/* tls_pem: files with PEM in them, which may be keys. See tls_int.h. */
#include "service/tls_int.h"

#include "base/alloc.h"
#include "os/net.h"

enum cht_rc svc_tls_read_pem(const char *path, size_t most, gnutls_datum_t *out, struct cht_err *err)
{
    char *text;
    size_t n;
    enum cht_rc rc = cht_os_read_file(path, most, &text, &n, err);
    if (rc == CHT_OK)
        *out = (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned)n};
    return rc;
}

void svc_tls_free_pem(gnutls_datum_t *d)
{
    if (d->data != NULL)
        gnutls_memset(d->data, 0, d->size);
    cht_free(d->data);
}
