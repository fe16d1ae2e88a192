/* text: numbers and small JSON members written straight into a caller's buffer. None adds a zero byte, none checks room.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define REDUCE_U64_TEXT 20u    /* room that reduce_put_u64 needs */
#define REDUCE_DOUBLE_TEXT 32u /* room that reduce_put_double needs */

/* The digits of v; returns their number (at most 20; 10 for a 32-bit one). */
static inline size_t reduce_put_u64(char *out, uint64_t v)
{
    char digits[REDUCE_U64_TEXT];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

static inline size_t reduce_put_str(char *out, const char *s)
{
    size_t n = strlen(s);
    memcpy(out, s, n);
    return n;
}

/* The shortest of 15, 16 or 17 digits that reads back as the same double. v is finite. */
size_t reduce_put_double(char *out, double v);
