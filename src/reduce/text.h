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

/* How many digits v has in decimal. */
static inline size_t reduce_digits(uint64_t v)
{
    size_t n = 1;
    for (; v >= 10000; v /= 10000)
        n += 4;
    return n + (v >= 10) + (v >= 100) + (v >= 1000);
}

/* The two digits of v, which is below 100. */
static inline void reduce_put_two(char *out, size_t v)
{
    static const char two[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    memcpy(out, two + 2 * v, 2);
}

/* Six digits, zeros in front. v is below 1 000 000. */
static inline void reduce_put_six(char *out, uint32_t v)
{
    reduce_put_two(out, v / 10000);
    reduce_put_two(out + 2, v / 100 % 100);
    reduce_put_two(out + 4, v % 100);
}

/* The digits of v; returns their number (at most 20; 10 for a 32-bit one). */
static inline size_t reduce_put_u64(char *out, uint64_t v)
{
    size_t n = reduce_digits(v), at = n;
    for (; v >= 100; v /= 100) {
        at -= 2;
        reduce_put_two(out + at, v % 100);
    }
    if (v >= 10)
        reduce_put_two(out, v);
    else
        *out = (char)('0' + v);
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
