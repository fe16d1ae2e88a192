/* mode_json: payloads that are JSON texts, as `"json":...`: the modes cache, bias and meta.
 *
 * jansson says whether a payload is JSON (any value, also a scalar; UTF-8; nothing after it). What is shown is the text
 * itself without the white space between its tokens, so that no number loses digits and keys keep their order. Raw line
 * breaks are legal between tokens only, so none is left.
 */
#include "reduce/modes_int.h"

#include <jansson.h>
#include <string.h>

#define MEMBER "\"json\":"

/* Integers are read as reals: a long one is legal, and the value is not used. */
static bool is_json(const uint8_t *p, size_t n)
{
    json_t *v =
        json_loadb((const char *)p, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
    json_decref(v);
    return v != NULL;
}

static size_t whole(const uint8_t *p, size_t n, char *out, size_t room)
{
    size_t at = sizeof MEMBER - 1;
    bool quoted = false;
    if (!is_json(p, n))
        return 0;
    if (room < at)
        return SIZE_MAX;
    memcpy(out, MEMBER, at);
    for (size_t i = 0; i < n; i++) {
        char c = (char)p[i];
        if (!quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'))
            continue;
        bool escaped = quoted && c == '\\' && i + 1 < n;
        if (room - at < 1u + escaped)
            return SIZE_MAX;
        out[at++] = c;
        if (escaped)
            out[at++] = (char)p[++i];
        else if (c == '"')
            quoted = !quoted;
    }
    return at;
}

static const struct reduce_decoder decoder = {.whole = whole};
static const char *const cache_names[] = {"cache", NULL};
static const char *const bias_names[] = {"bias", NULL};
static const char *const meta_names[] = {"meta", NULL};
const struct reduce_mode reduce_mode_cache = {
    .names = cache_names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
const struct reduce_mode reduce_mode_bias = {
    .names = bias_names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
const struct reduce_mode reduce_mode_meta = {
    .names = meta_names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
