/* json: see json.h. Escaped are the quote, the backslash and everything below U+0020 (RFC 8259, section 7). What is
 * UTF-8 is RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#include "tools/json.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The length of the UTF-8 sequence at p, 0 if there is none within `room` bytes. */
static size_t sequence_length(const uint8_t *p, size_t room)
{
    uint8_t low = 0x80, high = 0xBF; /* range of the second byte */
    size_t n;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        n = 2;
    else if (p[0] >= 0xE0 && p[0] <= 0xEF)
        n = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        n = 4;
    else
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (n > room || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    }
    return n;
}

/* -------------------------------------------------------------------------------------------------------------- */

bool tool_json_is_text(const void *bytes, size_t n)
{
    const uint8_t *p = bytes, *end = p + n;
    while (p < end) {
        size_t some = sequence_length(p, (size_t)(end - p));
        bool control = (*p < 0x20 && *p != '\t' && *p != '\n') || *p == 0x7F;
        if (some == 0 || control)
            return false;
        p += some;
    }
    return true;
}

/* What was not written shows in ferror, which main asks once at the end. */
void tool_json_string(FILE *out, const char *s)
{
    const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
    (void)fputc('"', out);
    while (p < end) {
        size_t n = sequence_length(p, (size_t)(end - p));
        if (n == 0)
            (void)fputs("\\ufffd", out);
        else if (*p == '"' || *p == '\\')
            (void)fprintf(out, "\\%c", *p);
        else if (*p < 0x20)
            (void)fprintf(out, "\\u%04x", *p);
        else
            (void)fwrite(p, 1, n, out);
        p += n == 0 ? 1 : n;
    }
    (void)fputc('"', out);
}
