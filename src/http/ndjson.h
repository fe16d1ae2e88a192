/* ndjson: the objects that values and pairs are shown as, written to memory of known room: used by point answers and, on
 * the scan's workers, by streams. Each returns the characters written, SIZE_MAX if room is too small.
 */
#pragma once

#include "cheetah/scan.h"

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
/* The most characters that a line of these needs. */
static inline size_t http_ndjson_room(size_t name, size_t value)
{
    return (name + 2) / 3 * 4 + (value + 2) / 3 * 4 + 96;
}
