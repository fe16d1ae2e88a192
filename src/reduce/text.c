/* text: see text.h. Most doubles need no printf: from 10^-10 up to 10^16 all digits are known exactly in 128 bits.
 *
 *   v = m 2^e,  10^16 <= v 10^k < 10^17      v 10^k = (4 m 5^k) 2^(e - 2 + k) = whole / 2^shift
 *
 * 17 digits are whole >> shift, rounded; 16 and 15 of them are rounded from all of it. They read back as v if they are nearer to it than to the
 * doubles beside it: at most 2 5^k from whole, half of that downwards if m is a power of two. Halves go to even, as printf and strtod
 * have it; tests/unit/test_text compares with them.
 */
#include "reduce/text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/literal.h"

__extension__ typedef unsigned __int128 wide;

#define DIGITS_MIN 15
#define DIGITS_MAX 17
#define LEAST 1e-10 /* from there on 5^k fits 64 bits */
#define END 1e16    /* below it shift is not below 0 */
#define TOP UINT64_C(100000000000000000)
#define PLAIN_FROM (-4) /* exponents that are shown as zeros, as %g does */

struct scaled {
    wide whole;
    uint64_t five; /* 5^k */
    unsigned shift;
    int k;
    bool even, power; /* m is */
};

static uint64_t five_to(int k)
{
    uint64_t v = 1;
    while (k-- > 0)
        v *= 5;
    return v;
}

static void scale(double v, struct scaled *s)
{
    uint64_t bits, first = UINT64_C(1) << 52;
    memcpy(&bits, &v, sizeof bits);
    uint64_t m = (bits & (first - 1)) | first;
    int e = (int)(bits >> 52) - 1075, log2 = e + 52;
    int log10 = log2 >= 0 ? log2 * 1233 / 4096 : -((-log2 * 1233 + 4095) / 4096); /* or one less */
    s->even = (m & 1) == 0;
    s->power = m == first;
    s->k = 16 - log10;
    s->five = five_to(s->k);
    s->whole = (wide)(m << 2) * s->five;
    s->shift = (unsigned)(2 - e - s->k);
    if ((uint64_t)(s->whole >> s->shift) >= TOP) {
        s->k--;
        s->five /= 5;
        s->shift++;
        s->whole = (wide)(m << 2) * s->five;
    }
}

/* v 10^k, rounded to a multiple of unit. */
static uint64_t rounded(const struct scaled *s, uint64_t unit)
{
    wide part = s->whole - (s->whole >> s->shift << s->shift);
    uint64_t all = (uint64_t)(s->whole >> s->shift), n = all / unit, rest = all % unit;
    /* twice what is cut off, beside the unit */
    wide cut = (((wide)rest << s->shift) + part) << 1, one = (wide)unit << s->shift;
    return (n + (cut > one || (cut == one && (n & 1) != 0))) * unit;
}

/* Does it read back as the same double? */
static bool reads_back(const struct scaled *s, uint64_t digits)
{
    wide at = (wide)digits << s->shift;
    bool below = at < s->whole;
    wide away = below ? s->whole - at : at - s->whole, reach = (wide)s->five << (below && s->power ? 0 : 1);
    return away < reach || (away == reach && s->even);
}

/* digits: n of them, of which the first one is worth 10^exponent. As %g. */
static size_t put_digits(char *out, uint64_t digits, int exponent, int n)
{
    char text[REDUCE_U64_TEXT], *p = out;
    size_t len = reduce_put_u64(text, digits);
    while (len > 1 && text[len - 1] == '0')
        len--;
    if (exponent < PLAIN_FROM || exponent >= n) {
        *p++ = text[0];
        if (len > 1)
            *p++ = '.';
        memcpy(p, text + 1, len - 1);
        p += len - 1;
        *p++ = 'e';
        *p++ = exponent < 0 ? '-' : '+';
        unsigned e = (unsigned)(exponent < 0 ? -exponent : exponent);
        *p++ = (char)('0' + e / 10);
        *p++ = (char)('0' + e % 10);
        return (size_t)(p - out);
    }
    if (exponent < 0) {
        (void)CHT_PUT(p, "0.000");
        p += 1 - exponent;
        memcpy(p, text, len);
        return (size_t)(p + len - out);
    }
    size_t whole = (size_t)exponent + 1, some = len < whole ? len : whole;
    memcpy(p, text, some);
    memset(p + some, '0', whole - some);
    p += whole;
    if (len > whole) {
        *p++ = '.';
        memcpy(p, text + whole, len - whole);
        p += len - whole;
    }
    return (size_t)(p - out);
}

static size_t put_exact(char *out, double v)
{
    struct scaled s;
    uint64_t digits = 0, unit = 100;
    scale(v, &s);
    int n = DIGITS_MIN;
    for (; n <= DIGITS_MAX; n++, unit /= 10) {
        digits = rounded(&s, unit);
        if (reads_back(&s, digits))
            break;
    }
    int exponent = DIGITS_MAX - 1 - s.k;
    return digits < TOP ? put_digits(out, digits, exponent, n)
                        : put_digits(out, digits / 10, exponent + 1, n);
}

static size_t put_printed(char *out, double v)
{
    char text[REDUCE_DOUBLE_TEXT];
    int n = 0;
    for (int digits = DIGITS_MIN; digits <= DIGITS_MAX; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (back == v || v != v)
            break;
    }
    memcpy(out, text, (size_t)n);
    return (size_t)n;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t reduce_put_double(char *out, double v)
{
    double size = v < 0 ? -v : v;
    if (!(size >= LEAST && size < END))
        return put_printed(out, v);
    *out = '-';
    size_t sign = v < 0;
    return sign + put_exact(out + sign, size);
}
