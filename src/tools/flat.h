/* flat: reads one JSON object whose members are plain: strings, whole numbers, true, false, null. A member that is itself an
 * object or array is found but not read; parse it again. Nothing is copied: fields point into the text.
 *
 * A line of an export or of a stream is mostly one long base64 string, which this passes over at the speed of memchr.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOOL_FLAT_MAX 16u

enum tool_flat_kind { TOOL_FLAT_STRING, TOOL_FLAT_NUMBER, TOOL_FLAT_WORD, TOOL_FLAT_NESTED };

struct tool_flat_field {
    const char *name, *p; /* p: a string without its quotes, otherwise the text */
    size_t name_n, n;
    enum tool_flat_kind kind;
    bool escaped;    /* the string has a backslash in it: p is not what it means */
    uint64_t number; /* a number that is whole and not negative; UINT64_MAX otherwise */
};
struct tool_flat {
    struct tool_flat_field field[TOOL_FLAT_MAX];
    size_t n;
};

/* False if the text is no such object, has more members than fit, or one twice. */
bool tool_flat_parse(struct tool_flat *f, const char *p, size_t n);
const struct tool_flat_field *tool_flat_get(const struct tool_flat *f, const char *name); /* NULL: none */
/* The member as a string without escapes, as a number; false if it is none. */
bool tool_flat_string(const struct tool_flat *f, const char *name, const char **p, size_t *n);
bool tool_flat_number(const struct tool_flat *f, const char *name, uint64_t *out);
