/* params: see params.h. */
#include "http/params.h"

#include "base/literal.h"

#include "http/reply.h"

static const char *const names[PARAMS] = {
    [P_DB] = "db",           [P_AFTER] = "after",     [P_UNTIL] = "until",         [P_LIMIT] = "limit",
    [P_SIZE] = "size",       [P_VALUES] = "values",   [P_KEYS] = "keys",           [P_COUNT] = "count",
    [P_EXACT] = "exact",     [P_REVERSE] = "reverse", [P_RECURSIVE] = "recursive", [P_ATOMIC] = "atomic",
    [P_RESULTS] = "results", [P_DECODE] = "decode",   [P_SORT] = "sort",           [P_TO] = "to",
    [P_METRIC] = "metric",   [P_ORDERS] = "orders",   [P_TOPK] = "topk",           [P_ORDER] = "order",
    [P_ONCE] = "once",       [P_CONFIRM] = "confirm",
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
    for (int i = 0; i < PARAMS; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], p, n) == 0)
            return i;
    }
    return -1;
}

/* "name=value" or "name". */
static bool read_one(struct request *r, char *p, size_t n)
{
    char *eq = memchr(p, '=', n);
    size_t name_len = eq == NULL ? n : (size_t)(eq - p);
    char *value = eq == NULL ? p + n : eq + 1;
    size_t value_len = n - (size_t)(value - p);
    name_len = url_decode(p, name_len);
    value_len = url_decode(value, value_len);
    if (name_len == SIZE_MAX || value_len == SIZE_MAX) {
        reply_fail(r, CHT_INVALID_ENCODING, "the query has a malformed percent escape");
        return false;
    }
    int i = find_name(p, name_len);
    if (i < 0 || (r->route->params & PARAM(i)) == 0) {
        if (r->route->any_params)
            return true;
        reply_fail(r, CHT_UNKNOWN_PARAMETER, "%s takes no parameter '%.*s'", r->route->label,
                   name_len < 60 ? (int)name_len : 60, p);
        return false;
    }
    if (r->param[i].p != NULL) {
        reply_fail(r, CHT_INVALID_ARGUMENT, "the parameter '%s' is given twice", names[i]);
        return false;
    }
    r->param[i] = (struct param_value){.p = value, .n = value_len};
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t url_decode(char *p, size_t n)
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

bool params_read(struct request *r, char *q, size_t n)
{
    while (n > 0) {
        char *amp = memchr(q, '&', n);
        size_t one = amp == NULL ? n : (size_t)(amp - q);
        if (one > 0 && !read_one(r, q, one))
            return false;
        n -= amp == NULL ? one : one + 1;
        q += one + 1;
    }
    return true;
}

const char *param_name(enum param p) { return names[p]; }

bool param_bool(struct request *r, enum param p, bool fallback, bool *out)
{
    const struct param_value *v = &r->param[p];
    *out = fallback;
    if (v->p == NULL)
        return true;
    bool yes = CHT_IS(v->p, v->n, "true") || CHT_IS(v->p, v->n, "1");
    bool no = CHT_IS(v->p, v->n, "false") || CHT_IS(v->p, v->n, "0");
    *out = yes;
    if (!yes && !no)
        reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is true, 1, false or 0", names[p]);
    return yes || no;
}

bool parse_decimal(const char *p, size_t n, uint64_t max, uint64_t *out)
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

bool param_number(struct request *r, enum param p, uint64_t min, uint64_t max, uint64_t fallback,
                  uint64_t *out)
{
    const struct param_value *v = &r->param[p];
    *out = fallback;
    if (v->p == NULL)
        return true;
    if (parse_decimal(v->p, v->n, max, out) && *out >= min)
        return true;
    reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is a number from %llu to %llu", names[p],
               (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool byte_string(struct request *r, const char *p, size_t n, struct cht_str *out)
{
    *out = (struct cht_str){.p = (const uint8_t *)p, .n = n};
    if (n == 1 && *p == '*')
        out->n = 0;
    if (n < 2 || *p != 'x')
        return true;
    /* The text lies in the request's own copy of the URI, so it may be written to; the result is half as long. */
    uint8_t *to = (uint8_t *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr): takes the const off */
    out->n = (n - 1) / 2;
    for (size_t i = 0; i < out->n && n % 2 == 1; i++) {
        int high = hex_digit(p[1 + 2 * i]), low = hex_digit(p[2 + 2 * i]);
        if (high < 0 || low < 0) {
            n = 0;
            break;
        }
        to[i] = (uint8_t)(high << 4 | low);
    }
    if (n % 2 == 1)
        return true;
    reply_fail(r, CHT_INVALID_HEX, "what starts with x is hexadecimal with an even number of digits");
    return false;
}

bool param_bytes(struct request *r, enum param p, struct cht_str *out)
{
    *out = (struct cht_str){.p = NULL, .n = 0};
    if (r->param[p].p == NULL)
        return true;
    if (!byte_string(r, r->param[p].p, r->param[p].n, out))
        return false;
    if (out->n > CHT_NAME_MAX) {
        reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' has more than %u bytes", names[p], CHT_NAME_MAX);
        return false;
    }
    return true;
}

bool rest_bytes(struct request *r, bool may_be_empty, struct cht_str *out)
{
    if (!byte_string(r, r->rest, r->rest_len, out))
        return false;
    if (out->n > CHT_NAME_MAX || (out->n == 0 && !may_be_empty)) {
        reply_fail(r, CHT_INVALID_PAIR, "pair names have 1 to %u bytes, this one has %zu", CHT_NAME_MAX,
                   out->n);
        return false;
    }
    return true;
}

bool rest_key(struct request *r, uint64_t *key)
{
    if (parse_decimal(r->rest, r->rest_len, CHT_KEY_MAX, key) && *key > 0)
        return true;
    reply_err(r, CHT_INVALID_KEY, NULL);
    return false;
}
