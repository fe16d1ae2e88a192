/* ndjson: see ndjson.h. */
#include "http/ndjson.h"

#include "base/literal.h"
#include "http/etag.h"
#include "service/text.h"

size_t http_ndjson_value(char *out, size_t room, uint64_t key, const uint8_t *value, uint32_t size,
                         bool with_value)
{
    if (room < http_ndjson_room(0, with_value ? size : 0))
        return SIZE_MAX;
    char *p = CHT_PUT(out, "{\"key\":");
    p += svc_out_digits(p, key);
    p = CHT_PUT(p, ",\"size\":");
    p += svc_out_digits(p, size);
    if (with_value) {
        p = CHT_PUT(p, ",\"value\":\"");
        p += cht_b64_encode(p, value, size);
        *p++ = '"';
    }
    *p++ = '}';
    return (size_t)(p - out);
}

static inline char *put_head(char *p, struct cht_str name, uint64_t key)
{
    p = CHT_PUT(p, "{\"pair\":\"");
    p += cht_b64_encode(p, name.p, name.n);
    p = CHT_PUT(p, "\",\"key\":");
    return p + svc_out_digits(p, key);
}

size_t http_ndjson_pair_head(char *out, size_t room, struct cht_str name, uint64_t key)
{
    if (room < http_ndjson_room(name.n, 0))
        return SIZE_MAX;
    return (size_t)(put_head(out, name, key) - out);
}

size_t http_ndjson_mapping(char *out, size_t room, struct cht_str name, uint64_t key)
{
    if (room < http_ndjson_room(name.n, 0))
        return SIZE_MAX;
    char *p = put_head(out, name, key);
    p = CHT_PUT(p, "}\n");
    return (size_t)(p - out);
}

size_t http_ndjson_pair(char *out, size_t room, struct cht_str name, uint64_t key, bool values,
                        const uint8_t *value, uint32_t size)
{
    if (room < http_ndjson_room(name.n, value != NULL ? size : 0))
        return SIZE_MAX;
    char *p = put_head(out, name, key);
    if (values && value != NULL) {
        p = CHT_PUT(p, ",\"size\":");
        p += svc_out_digits(p, size);
        p = CHT_PUT(p, ",\"value\":\"");
        p += cht_b64_encode(p, value, size);
        *p++ = '"';
    } else if (values) {
        p = CHT_PUT(p, ",\"size\":null,\"value\":null");
    }
    *p++ = '}';
    return (size_t)(p - out);
}

/* ---- text=true -------------------------------------------------------------------------------------------------- */

const char *http_ndjson_begin(enum http_member what, bool text)
{
    static const char *const names[][2] = {
        [HTTP_MEMBER_PAIR] = {"\"pair\":\"", "\"name\":\""},
        [HTTP_MEMBER_PREFIX] = {"\"prefix\":\"", "\"name\":\""},
        [HTTP_MEMBER_VALUE] = {"\"value\":\"", "\"text\":\""},
        [HTTP_MEMBER_PAYLOAD] = {"\"payload\":\"", "\"text\":\""},
    };
    return names[what][text];
}

size_t http_ndjson_text_member(char *out, size_t room, enum http_member what, struct cht_str bytes)
{
    size_t n = cht_b64_encoded(bytes.n);
    bool text = svc_text_is(bytes.p, bytes.n, &n);
    const char *begin = http_ndjson_begin(what, text);
    size_t at = strlen(begin);
    if (room < at + n + 1)
        return SIZE_MAX;
    memcpy(out, begin, at);
    at += text ? svc_text_json(out + at, bytes.p, bytes.n) : cht_b64_encode(out + at, bytes.p, bytes.n);
    out[at] = '"';
    return at + 1;
}

#define REST 64u /* of a line: its other members and its end, at most */

/* The value of a line that has one, and the closing brace. */
static size_t put_text(char *out, size_t at, size_t room, const uint8_t *value, uint32_t size)
{
    char *p = CHT_PUT(out + at, ",\"size\":");
    p += svc_out_digits(p, size);
    *p++ = ',';
    at = (size_t)(p - out);
    size_t n = http_ndjson_text_member(p, room - 1 - at, HTTP_MEMBER_VALUE, (struct cht_str){value, size});
    if (n == SIZE_MAX)
        return SIZE_MAX;
    out[at + n] = '}';
    return at + n + 1;
}

size_t http_ndjson_text_value(char *out, size_t room, uint64_t key, const uint8_t *value, uint32_t size)
{
    if (room < 2 * REST)
        return SIZE_MAX;
    char *p = CHT_PUT(out, "{\"key\":");
    p += svc_out_digits(p, key);
    return put_text(out, (size_t)(p - out), room, value, size);
}

size_t http_ndjson_text_head(char *out, size_t room, struct cht_str name, uint64_t key)
{
    if (room < 1 + REST)
        return SIZE_MAX;
    *out = '{';
    size_t n = http_ndjson_text_member(out + 1, room - 1 - REST, HTTP_MEMBER_PAIR, name);
    if (n == SIZE_MAX)
        return SIZE_MAX;
    char *p = CHT_PUT(out + 1 + n, ",\"key\":");
    p += svc_out_digits(p, key);
    return (size_t)(p - out);
}

size_t http_ndjson_text_pair(char *out, size_t room, const struct http_shown *l)
{
    size_t n = room < REST ? SIZE_MAX : http_ndjson_text_head(out, room - REST, l->name, l->key);
    if (n == SIZE_MAX)
        return SIZE_MAX;
    if (l->values && l->value != NULL)
        return put_text(out, n, room, l->value, l->size);
    char *p = out + n;
    if (l->values)
        p = CHT_PUT(p, ",\"size\":null,\"value\":null");
    *p++ = '}';
    return (size_t)(p - out);
}

#define EXTRAS 80u /* both of them, at most */

size_t http_ndjson_extras(char *out, size_t n, size_t room, const struct http_extras *x)
{
    char end[4];
    size_t ending = out[n - 1] == '\n' ? 2 : 1;
    if (room - n < EXTRAS)
        return SIZE_MAX;
    memcpy(end, out + n - ending, ending);
    char *p = out + n - ending;
    if (x->ends > 0) {
        p = CHT_PUT(p, ",\"expires\":");
        p += svc_out_digits(p, http_ends_seconds(x->ends));
    }
    if (x->tagged) {
        char tag[HTTP_ETAG_LEN + 1];
        http_etag_text(tag, x->tag);
        p = CHT_PUT(p, ",\"etag\":\"\\\"");
        memcpy(p, tag + 1, HTTP_ETAG_LEN - 2);
        p = CHT_PUT(p + HTTP_ETAG_LEN - 2, "\\\"\"");
    }
    memcpy(p, end, ending);
    return (size_t)(p - out) + ending;
}

/* ---- appended --------------------------------------------------------------------------------------------------- */

static bool make_room(struct svc_out *o, size_t name, size_t value, bool text)
{
    return svc_out_room(o, text ? http_ndjson_text_room(name, value) : http_ndjson_room(name, value));
}

void http_ndjson_put_head(struct svc_out *o, struct cht_str name, uint64_t key, bool text)
{
    if (!make_room(o, name.n, 0, text))
        return;
    char *to = o->p + o->n;
    size_t room = o->cap - o->n;
    o->n += text ? http_ndjson_text_head(to, room, name, key) : http_ndjson_pair_head(to, room, name, key);
}

void http_ndjson_put_pair(struct svc_out *o, const struct http_shown *l)
{
    if (!make_room(o, l->name.n, l->value != NULL ? l->size : 0, l->text))
        return;
    char *to = o->p + o->n;
    size_t room = o->cap - o->n;
    o->n += l->text ? http_ndjson_text_pair(to, room, l)
                    : http_ndjson_pair(to, room, l->name, l->key, l->values, l->value, l->size);
    if (l->ends == 0 || o->failed)
        return;
    o->n--; /* the brace */
    http_ndjson_put_ends(o, l->ends);
    svc_out_text(o, "}");
}

void http_ndjson_put_ends(struct svc_out *o, uint64_t ends)
{
    if (ends == 0)
        return;
    svc_out_text(o, ",\"expires\":");
    svc_out_u64(o, http_ends_seconds(ends));
}

void http_ndjson_put_tag(struct svc_out *o, uint64_t tag)
{
    char text[HTTP_ETAG_LEN + 1];
    http_etag_text(text, tag);
    svc_out_text(o, ",\"etag\":");
    svc_out_string(o, text, HTTP_ETAG_LEN);
}

void http_ndjson_put_value(struct svc_out *o, const struct http_shown *l)
{
    bool text = l->text && l->values;
    if (!make_room(o, 0, l->values ? l->size : 0, text))
        return;
    char *to = o->p + o->n;
    size_t room = o->cap - o->n;
    o->n += text ? http_ndjson_text_value(to, room, l->key, l->value, l->size)
                 : http_ndjson_value(to, room, l->key, l->value, l->size, l->values);
}

void http_ndjson_put_cursor(struct svc_out *o, enum http_names names, struct cht_str name)
{
    size_t json;
    if (names == HTTP_NAMES_TEXT && svc_text_is(name.p, name.n, &json)) {
        svc_out_string(o, (const char *)name.p, name.n);
        return;
    }
    svc_out_text(o, names == HTTP_NAMES_EITHER ? "\"x" : "\"");
    if (names == HTTP_NAMES_TEXT)
        svc_out_percent(o, name.p, name.n);
    else if (svc_out_room(o, 2 * name.n))
        o->n += svc_out_hex(o->p + o->n, name.p, name.n);
    svc_out_text(o, names == HTTP_NAMES_TEXT ? "\",\"next_encoding\":\"percent\"" : "\"");
}

void http_ndjson_put_member(struct svc_out *o, enum http_member what, struct cht_str bytes, bool text)
{
    if (text) {
        if (svc_out_room(o, http_ndjson_text_room(0, bytes.n)))
            o->n += http_ndjson_text_member(o->p + o->n, o->cap - o->n, what, bytes);
        return;
    }
    const char *begin = http_ndjson_begin(what, false);
    svc_out_bytes(o, begin, strlen(begin) - 1); /* the quote comes with what follows */
    svc_out_b64(o, bytes.p, bytes.n);
}
