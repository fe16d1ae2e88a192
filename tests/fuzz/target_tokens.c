/* tokens: the file of --tokens, and what clients send: the file, an empty line, then the values of Authorization headers, one a line. */
#include "fuzz/fuzz.h"

#include "base/literal.h"
#include "service/access.h"

static void ask(const struct svc_access *a, const char *p, size_t n)
{
    char *header = malloc(n + 1);
    FUZZ_CHECK(header != NULL);
    memcpy(header, p, n);
    header[n] = 0;
    const struct svc_token *t = svc_access_find(a, header);
    if (t != NULL) {
        FUZZ_CHECK(svc_access_again(a, t) == t && !svc_access_expired(t));
        FUZZ_CHECK(!svc_access_has_right(t, SVC_RIGHT_ADMIN) || svc_access_has_right(t, SVC_RIGHT_WRITE));
        FUZZ_CHECK(!svc_access_allows(t, SVC_RIGHT_WRITE, "default") ||
                   svc_access_allows(t, SVC_RIGHT_READ, "default"));
        FUZZ_CHECK(svc_access_has_right(t, SVC_RIGHT_READ));
    }
    (void)svc_access_find_text(a, header, n);
    free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *p = (const char *)data, *end = p + n,
               *cut = n >= 2 ? memmem(p, n, CHT_LITERAL("\n\n")) : NULL;
    struct svc_access *a = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = svc_access_load(fuzz_file(p, cut != NULL ? (size_t)(cut - p) + 1 : n), &a, &err);
    FUZZ_CHECK(rc == CHT_OK || rc == CHT_INVALID_ARGUMENT);
    FUZZ_CHECK(rc == CHT_OK || (err.msg[0] != 0 && strlen(err.msg) < sizeof err.msg));
    if (rc != CHT_OK)
        return 0;
    (void)svc_access_has_secrets(a);
    for (p = cut != NULL ? cut + 2 : end; p < end;) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        size_t len = line != NULL ? (size_t)(line - p) : (size_t)(end - p);
        ask(a, p, len);
        p += len + 1;
    }
    svc_access_free(a);
    return 0;
}
