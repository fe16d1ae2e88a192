/* ndjson: the objects that values and pairs are shown as, written to memory of known room: used by point answers and, on
 * the scan's workers, by streams. Each returns the characters written, SIZE_MAX if room is too small.
 *
 * With text=true a name or value that is text (service/text.h) is shown as that, under a member of another name; what is not text
 * stays base64: {"name":"greeting:de","key":4,"size":5,"text":"hallo"}.
 */
#pragma once

#include "cheetah/scan.h"
#include "service/out.h"

/* How names stand in a URL (names=): see http_byte_string. */
enum http_names { HTTP_NAMES_EITHER, HTTP_NAMES_TEXT, HTTP_NAMES_HEX };

/* What a line shows. */
struct http_shown {
    struct cht_str name;  /* of a pair */
    const uint8_t *value; /* NULL: none */
    uint64_t key;
    uint32_t size;
    bool values;   /* "size" and the value, null if the key has none */
    bool text;     /* text=true */
    uint64_t ends; /* of a pair: when it ends, in ms since 1970; 0: never. For http_ndjson_put_pair alone */
};

enum http_member {
    HTTP_MEMBER_PAIR,    /* "name":"greeting:de", or "pair" in base64 */
    HTTP_MEMBER_PREFIX,  /* "name" or "prefix" */
    HTTP_MEMBER_VALUE,   /* "text" or "value" */
    HTTP_MEMBER_PAYLOAD, /* "text" or "payload" */
};

/* {"key":17,"size":5,"value":"aGVsbG8="}; with_value false: without "value". */
size_t http_ndjson_value(char *out, size_t room, uint64_t key, const uint8_t *value, uint32_t size,
                         bool with_value);
/* {"pair":"...","key":4 and with `values` "size" and "value", null if the key has no value. value NULL: none. The
 * closing brace is written. */
size_t http_ndjson_pair(char *out, size_t room, struct cht_str name, uint64_t key, bool values,
                        const uint8_t *value, uint32_t size);
/* {"pair":"...","key":4} and a line feed: what a stream of names is made of. */
size_t http_ndjson_mapping(char *out, size_t room, struct cht_str name, uint64_t key);
/* {"pair":"...","key":4 without the closing brace. */
size_t http_ndjson_pair_head(char *out, size_t room, struct cht_str name, uint64_t key);
/* The same lines with text=true. */
size_t http_ndjson_text_value(char *out, size_t room, uint64_t key, const uint8_t *value, uint32_t size);
size_t http_ndjson_text_pair(char *out, size_t room, const struct http_shown *l);
size_t http_ndjson_text_head(char *out, size_t room, struct cht_str name, uint64_t key);
/* One member of them. */
size_t http_ndjson_text_member(char *out, size_t room, enum http_member what, struct cht_str bytes);
/* Its name and the quote that its string begins with. */
const char *http_ndjson_begin(enum http_member what, bool text);

/* The same, appended; without memory o->failed is set. */
void http_ndjson_put_head(struct svc_out *o, struct cht_str name, uint64_t key, bool text);
void http_ndjson_put_pair(struct svc_out *o, const struct http_shown *l);
static inline uint64_t http_ends_seconds(uint64_t ms) { return (ms + 999) / 1000; }
/* ,"expires": in seconds since 1970, rounded up; nothing if it is 0. */
void http_ndjson_put_ends(struct svc_out *o, uint64_t ends);
/* ,"etag": of a value. */
void http_ndjson_put_tag(struct svc_out *o, uint64_t tag);
/* What a line can show beside its value. */
struct http_extras {
    uint64_t ends; /* "expires"; 0: not */
    bool tagged;   /* "etag" */
    uint64_t tag;
};
/* The same within a line of n characters, in front of its closing brace. */
size_t http_ndjson_extras(char *out, size_t n, size_t room, const struct http_extras *x);
void http_ndjson_put_value(struct svc_out *o, const struct http_shown *l);
/* What is to be sent as `after` to go on after this name: in the form in which the request takes names. With names=text one that is no
 * text is percent-encoded, and a member more says so. */
void http_ndjson_put_cursor(struct svc_out *o, enum http_names names, struct cht_str name);
void http_ndjson_put_member(struct svc_out *o, enum http_member what, struct cht_str bytes, bool text);

/* The most characters that a line of these needs, without and with text=true. */
static inline size_t http_ndjson_room(size_t name, size_t value)
{
    return (name + 2) / 3 * 4 + (value + 2) / 3 * 4 + 96;
}
static inline size_t http_ndjson_text_room(size_t name, size_t value) { return 2 * (name + value) + 256; }
