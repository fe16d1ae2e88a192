/* body: see body.h. */
#include "http/body.h"

#include "http/lines.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"

#include <strings.h>

enum cht_rc http_body_append(struct http_request *r, const char *data, size_t n)
{
    if (r->body_len + n + 1 > r->body_cap) {
        size_t cap = r->body_cap < 1024 ? 1024 : r->body_cap;
        while (cap < r->body_len + n + 1)
            cap *= 2;
        enum cht_rc rc = cap > SVC_MEMORY_SMALL
                             ? svc_memory_take(&r->memory, 3 * (uint64_t)(cap - r->body_cap), &r->err)
                             : CHT_OK;
        if (rc != CHT_OK)
            return rc;
        uint8_t *p = cht_realloc(r->body, cap);
        if (p == NULL)
            return CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
        r->body = p;
        r->body_cap = cap;
    }
    memcpy(r->body + r->body_len, data, n);
    r->body_len += n;
    return CHT_OK;
}

static bool is_type(const struct http_request *r, const char *wanted)
{
    const char *type = r->in[HTTP_H_CONTENT_TYPE];
    size_t n = strlen(wanted);
    return type != NULL && strncasecmp(type, wanted, n) == 0 &&
           (type[n] == 0 || type[n] == ';' || type[n] == ' ');
}

bool http_body_is_json(const struct http_request *r) { return is_type(r, "application/json"); }

bool http_body_is_ndjson(const struct http_request *r) { return is_type(r, "application/x-ndjson"); }

/* NULL: r->err says why; its code is CHT_INVALID_BODY if the text is no JSON. */
static json_t *load(struct http_request *r)
{
    json_error_t where;
    json_t *o = json_loadb((const char *)r->body, r->body_len, JSON_REJECT_DUPLICATES, &where);
    if (o == NULL && json_error_code(&where) == json_error_out_of_memory)
        (void)CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
    else if (o == NULL)
        (void)CHT_FAIL(&r->err, CHT_INVALID_BODY, "not JSON: %s, at byte %d", where.text, where.position);
    return o;
}

/* Of an object the members that calls with a value look at: freeing a large tree takes as long as making it, and is done here. */
static json_t *shorten(json_t *o)
{
    static const char *const kept[] = {"value", "key"};
    json_t *few = json_is_object(o) ? json_object() : json_null();
    for (size_t i = 0; i < sizeof kept / sizeof *kept && json_is_object(few); i++) {
        json_t *v = json_object_get(o, kept[i]);
        bool scalar = v != NULL && !json_is_array(v) && !json_is_object(v);
        if (v != NULL && json_object_set_new(few, kept[i], scalar ? json_incref(v) : json_null()) != 0) {
            json_decref(few);
            few = NULL;
        }
    }
    json_decref(o);
    return few;
}

/* On a job thread. */
static void parse(struct http_request *r)
{
    uint64_t cost = http_json_memory((const char *)r->body, r->body_len);
    r->parsed = true;
    if (svc_memory_take(&r->memory, cost, &r->err) != CHT_OK)
        return;
    json_t *o = load(r);
    r->json = o != NULL ? shorten(o) : NULL;
    if (o != NULL && r->json == NULL)
        (void)CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
    svc_memory_give(&r->memory,
                    cost); /* the value is as long as the body at most, which is booked several times */
}

bool http_body_parse_later(struct http_request *r)
{
    if (r->route->body != HTTP_BODY_VALUE || r->body_len <= HTTP_LINES_LONG || r->parsed ||
        !http_body_is_json(r))
        return false;
    http_request_owner_of_db(r);
    http_request_long_job(r, 0, parse, r->route->run);
    return true;
}

json_t *http_body_object(struct http_request *r, enum cht_rc code)
{
    json_t *o = r->parsed ? r->json : load(r);
    r->json = NULL;
    if (o == NULL && r->err.code != CHT_INVALID_BODY) {
        http_reply_err(r, r->err.code, &r->err);
    } else if (o == NULL) {
        http_reply_fail(r, code, "%s", r->err.msg);
    } else if (!json_is_object(o)) {
        json_decref(o);
        o = NULL;
        http_reply_fail(r, code, "a JSON object is expected");
    }
    return o;
}

static bool check_size(struct http_request *r, size_t n)
{
    uint64_t max = r->w->srv->conf->max_value_size;
    if (n == 0)
        http_reply_err(r, CHT_EMPTY_VALUE, NULL);
    else if (n > max)
        http_reply_fail(r, CHT_VALUE_TOO_LARGE, "values have at most %llu bytes, this one has %zu",
                        (unsigned long long)max, n);
    return n > 0 && n <= max;
}

bool http_body_base64(struct http_request *r, const json_t *text, struct cht_str *out)
{
    size_t n = json_string_length(text), len = 0;
    if (!json_is_string(text) || !cht_b64_decode(r->body, json_string_value(text), n, &len)) {
        http_reply_fail(r, CHT_INVALID_VALUE, "\"value\" is standard base64 with padding");
        return false;
    }
    *out = (struct cht_str){.p = r->body, .n = len};
    return check_size(r, len);
}

bool http_body_value(struct http_request *r, struct cht_str *out)
{
    if (!http_body_is_json(r)) {
        *out = (struct cht_str){.p = r->body, .n = r->body_len};
        return check_size(r, r->body_len);
    }
    json_t *o = http_body_object(r, CHT_INVALID_VALUE);
    if (o == NULL)
        return false;
    bool ok = json_object_get(o, "value") != NULL;
    if (!ok)
        http_reply_fail(r, CHT_INVALID_VALUE, "{\"value\":\"<base64>\"} is expected");
    ok = ok && http_body_base64(r, json_object_get(o, "value"), out);
    json_decref(o);
    return ok;
}
