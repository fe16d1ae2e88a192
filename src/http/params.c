/* params: see params.h. */
#include "http/params.h"

#include "base/literal.h"

#include "http/reply.h"

static const char *const names[HTTP_PARAMS] = {
    [HTTP_P_DB] = "db",
    [HTTP_P_AFTER] = "after",
    [HTTP_P_UNTIL] = "until",
    [HTTP_P_LIMIT] = "limit",
    [HTTP_P_SIZE] = "size",
    [HTTP_P_VALUES] = "values",
    [HTTP_P_KEYS] = "keys",
    [HTTP_P_COUNT] = "count",
    [HTTP_P_EXACT] = "exact",
    [HTTP_P_REVERSE] = "reverse",
    [HTTP_P_RECURSIVE] = "recursive",
    [HTTP_P_ATOMIC] = "atomic",
    [HTTP_P_RESULTS] = "results",
    [HTTP_P_DECODE] = "decode",
    [HTTP_P_SORT] = "sort",
    [HTTP_P_TO] = "to",
    [HTTP_P_METRIC] = "metric",
    [HTTP_P_ORDERS] = "orders",
    [HTTP_P_TOPK] = "topk",
    [HTTP_P_ORDER] = "order",
    [HTTP_P_ONCE] = "once",
    [HTTP_P_REMOVE] = "remove",
    [HTTP_P_CONFIRM] = "confirm",
    [HTTP_P_CHILDREN] = "children",
    [HTTP_P_SEPARATOR] = "separator",
    [HTTP_P_TEXT] = "text",
    [HTTP_P_NAMES] = "names",
    [HTTP_P_BOS] = "bos",
    [HTTP_P_EOS] = "eos",
    [HTTP_P_UNK] = "unk",
    [HTTP_P_UNMARKED] = "unmarked",
    [HTTP_P_FROM] = "from",
    [HTTP_P_TTL] = "ttl",
    [HTTP_P_K] = "k",
    [HTTP_P_MIN] = "min",
    [HTTP_P_WAIT] = "wait",
    [HTTP_P_TRANSPOSE] = "transpose",
    [HTTP_P_EXPIRES] = "expires",
    [HTTP_P_ETAGS] = "etags",
    [HTTP_P_LENGTHS] = "lengths",
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int find_name(const char *p, size_t n)
{
    for (int i = 0; i < HTTP_PARAMS; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], p, n) == 0)
            return i;
    }
    return -1;
}

/* "name=value" or "name". */
static bool read_one(struct http_request *r, char *p, size_t n)
{
    char *eq = memchr(p, '=', n);
    size_t name_len = eq == NULL ? n : (size_t)(eq - p);
    char *value = eq == NULL ? p + n : eq + 1;
    size_t value_len = n - (size_t)(value - p);
    name_len = http_url_decode(p, name_len);
    value_len = http_url_decode(value, value_len);
    if (name_len == SIZE_MAX || value_len == SIZE_MAX) {
        http_reply_fail(r, CHT_INVALID_ENCODING, "the query has a malformed percent escape");
        return false;
    }
    int i = find_name(p, name_len);
    if (i < 0 || (r->route->params & HTTP_PARAM(i)) == 0) {
        if (r->route->any_params)
            return true;
        http_reply_fail(r, CHT_UNKNOWN_PARAMETER, "%s takes no parameter '%.*s'", r->route->label,
                        name_len < 60 ? (int)name_len : 60, p);
        return false;
    }
    if (r->param[i].p != NULL) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "the parameter '%s' is given twice", names[i]);
        return false;
    }
    r->param[i] = (struct http_param_value){.p = value, .n = value_len};
    return true;
}

/* text= and names=, for all that reads the others and shows names and values. */
static bool read_forms(struct http_request *r)
{
    const struct http_param_value *v = &r->param[HTTP_P_NAMES];
    if (v->p == NULL)
        return http_param_bool(r, HTTP_P_TEXT, false, &r->text);
    if (CHT_IS(v->p, v->n, "text"))
        r->names = HTTP_NAMES_TEXT;
    else if (CHT_IS(v->p, v->n, "hex"))
        r->names = HTTP_NAMES_HEX;
    if (r->names != HTTP_NAMES_EITHER)
        return http_param_bool(r, HTTP_P_TEXT, false, &r->text);
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "'names' is text or hex");
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t http_url_decode(char *p, size_t n)
{
    char *in = memchr(p, '%', n), *end = p + n;
    if (in == NULL)
        return n;
    char *out = in;
    while (in < end) {
        if (*in != '%') {
            *out++ = *in++;
            continue;
        }
        int high = end - in >= 3 ? hex_digit(in[1]) : -1, low = end - in >= 3 ? hex_digit(in[2]) : -1;
        if (high < 0 || low < 0)
            return SIZE_MAX;
        *out++ = (char)(high << 4 | low);
        in += 3;
    }
    return (size_t)(out - p);
}

bool http_params_read(struct http_request *r, char *q, size_t n)
{
    while (n > 0) {
        char *amp = memchr(q, '&', n);
        size_t one = amp == NULL ? n : (size_t)(amp - q);
        if (one > 0 && !read_one(r, q, one))
            return false;
        n -= amp == NULL ? one : one + 1;
        q += one + 1;
    }
    return read_forms(r);
}

const char *http_param_name(enum http_param p) { return names[p]; }

bool http_ttl_read(const char *p, size_t n, uint64_t *ms)
{
    uint64_t v = 0;
    size_t i = 0, decimals = 0;
    while (i < n && p[i] >= '0' && p[i] <= '9' && v <= CHT_TTL_MAX_MS / 1000)
        v = v * 10 + (uint64_t)(p[i++] - '0');
    bool whole = i > 0;
    v *= 1000;
    if (whole && i < n && p[i] == '.') {
        static const unsigned worth[] = {100, 10, 1};
        for (i++; i < n && decimals < 3 && p[i] >= '0' && p[i] <= '9'; i++)
            v += worth[decimals++] * (uint64_t)(p[i] - '0');
        whole = decimals > 0;
    }
    *ms = v;
    return whole && i == n && v > 0 && v <= CHT_TTL_MAX_MS;
}

bool http_param_ttl(struct http_request *r, uint64_t *ms)
{
    const struct http_param_value *v = &r->param[HTTP_P_TTL];
    *ms = 0;
    if (v->p == NULL || http_ttl_read(v->p, v->n, ms))
        return true;
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "'ttl' is a number of seconds, 0.001 to %llu",
                    (unsigned long long)(CHT_TTL_MAX_MS / 1000));
    return false;
}

bool http_param_bool(struct http_request *r, enum http_param p, bool fallback, bool *out)
{
    const struct http_param_value *v = &r->param[p];
    *out = fallback;
    if (v->p == NULL)
        return true;
    bool yes = CHT_IS(v->p, v->n, "true") || CHT_IS(v->p, v->n, "1");
    bool no = CHT_IS(v->p, v->n, "false") || CHT_IS(v->p, v->n, "0");
    *out = yes;
    if (!yes && !no)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is true, 1, false or 0", names[p]);
    return yes || no;
}

bool http_parse_decimal(const char *p, size_t n, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 20 || (n > 1 && *p == '0'))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(p[i] - '0');
        if (v > (max - digit) / 10 || digit > max)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

bool http_param_etags(struct http_request *r, bool values, bool *out)
{
    if (!http_param_bool(r, HTTP_P_ETAGS, false, out))
        return false;
    if (*out && !values)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'etags' goes with values=true: a tag is that of a value");
    return !*out || values;
}

bool http_param_number(struct http_request *r, enum http_param p, uint64_t min, uint64_t max,
                       uint64_t fallback, uint64_t *out)
{
    const struct http_param_value *v = &r->param[p];
    *out = fallback;
    if (v->p == NULL)
        return true;
    if (http_parse_decimal(v->p, v->n, max, out) && *out >= min)
        return true;
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is a number from %llu to %llu", names[p],
                    (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool http_byte_string(struct http_request *r, const char *p, size_t n, struct cht_str *out)
{
    bool either = r->names == HTTP_NAMES_EITHER;
    size_t from = either ? 1 : 0; /* of the digits */
    *out = (struct cht_str){.p = (const uint8_t *)p, .n = n};
    if (either && n == 1 && *p == '*')
        out->n = 0;
    if (r->names == HTTP_NAMES_TEXT || (either && (n < 2 || *p != 'x')))
        return true;
    /* The text lies in the request's own copy of the URI, so it may be written to; the result is half as long. */
    uint8_t *to = (uint8_t *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr): takes the const off */
    bool good = (n - from) % 2 == 0;
    out->n = (n - from) / 2;
    for (size_t i = 0; i < out->n && good; i++) {
        int high = hex_digit(p[from + 2 * i]), low = hex_digit(p[from + 2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good)
            to[i] = (uint8_t)(high << 4 | low);
    }
    if (!good)
        http_reply_fail(r, CHT_INVALID_HEX, "%s is hexadecimal with an even number of digits",
                        either ? "what starts with x" : "a name with names=hex");
    return good;
}

bool http_param_bytes(struct http_request *r, enum http_param p, struct cht_str *out)
{
    *out = (struct cht_str){.p = NULL, .n = 0};
    if (r->param[p].p == NULL)
        return true;
    if (!http_byte_string(r, r->param[p].p, r->param[p].n, out))
        return false;
    if (out->n > CHT_NAME_MAX) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' has more than %u bytes", names[p], CHT_NAME_MAX);
        return false;
    }
    return true;
}

bool http_rest_bytes(struct http_request *r, bool may_be_empty, struct cht_str *out)
{
    if (!http_byte_string(r, r->rest, r->rest_len, out))
        return false;
    if (out->n > CHT_NAME_MAX || (out->n == 0 && !may_be_empty)) {
        http_reply_fail(r, CHT_INVALID_PAIR, "pair names have 1 to %u bytes, this one has %zu", CHT_NAME_MAX,
                        out->n);
        return false;
    }
    return true;
}

bool http_rest_key(struct http_request *r, uint64_t *key)
{
    if (http_parse_decimal(r->rest, r->rest_len, CHT_KEY_MAX, key) && *key > 0)
        return true;
    http_reply_err(r, CHT_INVALID_KEY, NULL);
    return false;
}
