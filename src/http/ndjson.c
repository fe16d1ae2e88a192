/* ndjson: see ndjson.h. */
#include "http/ndjson.h"

#include "base/literal.h"
#include "service/out.h"

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
