/* controls: control characters in text, eight bytes at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Is one of eight bytes less than `least`, which is at most 128, or DEL? */
static inline bool http_near_control(const char *p, uint64_t least)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = UINT64_C(0x8080808080808080);
    uint64_t v, del;
    memcpy(&v, p, sizeof v);
    del = v ^ (ones * 0x7F);
    return ((((v - ones * least) & ~v) | ((del - ones) & ~del)) & highs) != 0;
}

static inline bool http_any_below(const char *p, size_t n, unsigned char least)
{
    if (n >= 8) {
        const char *last = p + n - 8;
        for (; p < last; p += 8) {
            if (http_near_control(p, least))
                return true;
        }
        return http_near_control(last, least); /* some of it once more */
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)p[i] < least || p[i] == 0x7F)
            return true;
    }
    return false;
}

/* A control character other than the tab. */
static inline bool http_has_control(const char *p, size_t n)
{
    if (!http_any_below(p, n, 0x20))
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return true;
    }
    return false;
}
