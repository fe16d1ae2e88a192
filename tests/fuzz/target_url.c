/* url: percent escapes, byte strings ("*", "x<hex>", themselves), numbers, query parameters, and base64. Input: a path, and a query after
 * the first '?'.
 */
#include "fuzz/fuzz.h"

#include "base/b64.h"
#include "http/params.h"
#include "http/reply.h"

static const struct http_route route = {.method = HTTP_METHOD_GET,
                                        .path = "/pairs/",
                                        .label = "/pairs/{prefix}",
                                        .params = UINT64_MAX >> (64 - HTTP_PARAMS)};
static struct http_request request;

static void decoding(const uint8_t *data, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    char *p = fuzz_exact(data, n), *escaped = malloc(3 * n + 1);
    FUZZ_CHECK(escaped != NULL);
    size_t len = http_url_decode(p, n);
    FUZZ_CHECK(len == SIZE_MAX || len <= n);
    FUZZ_CHECK((len == n && memcmp(p, data, n) == 0) || memchr(data, '%', n) != NULL);
    for (size_t i = 0; i < n; i++) {
        escaped[3 * i] = '%';
        escaped[3 * i + 1] = hex[data[i] >> 4];
        escaped[3 * i + 2] = hex[data[i] & 15];
    }
    FUZZ_CHECK(http_url_decode(escaped, 3 * n) == n && memcmp(escaped, data, n) == 0);
    free(escaped);
    free(p);
}

static void base64(const uint8_t *data, size_t n)
{
    size_t len = 0, back = cht_b64_encoded(n);
    char *text = fuzz_exact(data, n), *again = malloc(back + 4);
    uint8_t *bytes = malloc(back + 4);
    FUZZ_CHECK(bytes != NULL && again != NULL);
    if (cht_b64_decode(bytes, text, n,
                       &len)) { /* one text for the same bytes: what is decoded is encoded as it was */
        FUZZ_CHECK(len <= cht_b64_decoded_max(n) && cht_b64_encoded(len) == n);
        FUZZ_CHECK(cht_b64_encode(again, bytes, len) == n && memcmp(again, text, n) == 0);
    }
    FUZZ_CHECK(cht_b64_encode(again, data, n) == back);
    FUZZ_CHECK(cht_b64_decode(bytes, again, back, &len) && len == n && memcmp(bytes, data, n) == 0);
    free(text);
    free(again);
    free(bytes);
}

static void numbers(const char *p, size_t n, uint64_t max)
{
    uint64_t v;
    char text[24];
    if (!http_parse_decimal(p, n, max, &v))
        return;
    FUZZ_CHECK(v <= max);
    FUZZ_CHECK((size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)v) == n &&
               memcmp(text, p, n) == 0);
}

static void reset(void)
{
    svc_out_reset(&request.out, SIZE_MAX);
    memset(request.param, 0, sizeof request.param);
    request.headers = 0;
    request.status = 0;
    atomic_store(&request.phase, HTTP_PHASE_NEW);
}

static void parameters(void)
{
    struct cht_str s;
    uint64_t v;
    bool yes;
    for (enum http_param p = 0; p < HTTP_PARAMS; p++) {
        const struct http_param_value given = request.param[p];
        char *copy = fuzz_exact(given.p, given.n);
        if (given.p != NULL)
            request.param[p].p = copy;
        if (http_param_number(&request, p, 1, 1000, 7, &v))
            FUZZ_CHECK(v >= 1 && v <= 1000);
        (void)http_param_bool(&request, p, true, &yes);
        if (http_param_bytes(&request, p, &s))
            FUZZ_CHECK(s.n <= CHT_NAME_MAX && s.n <= given.n);
        free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cht_str s;
    uint64_t key;
    decoding(data, n);
    base64(data, n);
    numbers((const char *)data, n, UINT64_MAX);
    numbers((const char *)data, n, CHT_KEY_MAX);
    char *uri = fuzz_exact(data, n), *query = memchr(uri, '?', n);
    size_t path = query != NULL ? (size_t)(query - uri) : n;
    request.route = &route;
    reset();
    if (query != NULL && http_params_read(&request, query + 1, n - path - 1))
        parameters();
    for (int i = 0; i < 2; i++) {
        memcpy(uri, data, path);
        reset();
        request.rest = uri;
        request.rest_len = http_url_decode(uri, path);
        if (request.rest_len == SIZE_MAX)
            continue;
        if (http_rest_bytes(&request, i == 0, &s))
            FUZZ_CHECK(s.n <= CHT_NAME_MAX && (s.n > 0 || i == 0));
        else
            FUZZ_CHECK(request.status >= 400 && atomic_load(&request.phase) == HTTP_PHASE_READY);
    }
    if (request.rest_len != SIZE_MAX && http_rest_key(&request, &key))
        FUZZ_CHECK(key > 0 && key <= CHT_KEY_MAX);
    free(uri);
    return 0;
}
