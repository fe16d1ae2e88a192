/* b64: see b64.h. The only user of libb64.
 *
 * Where the processor can shuffle bytes, twelve of them become sixteen characters at once (Mula and Lemire, "Faster Base64 Encoding and
 * Decoding Using AVX2 Instructions", 2018): each lane of 4 gets its 3 bytes, two multiplications shift the four groups of six bits to
 * their places, and a character is its value plus one of 13 distances, looked up by another shuffle.
 */
#include "base/b64.h"

#include "base/bytes.h"

#include <b64/cdecode.h>
#include <limits.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SHUFFLED_MIN 16u /* bytes; fewer take as long by the table */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint16_t pairs[4096]; /* two characters for twelve bits; filled before main */
static uint8_t reverse[256]; /* value of a character, 0x80 for a foreign one; likewise */
static bool shuffles;        /* encode_twelves can be called; likewise */

__attribute__((constructor)) static void fill_tables(void)
{
    for (unsigned i = 0; i < 4096; i++) {
        uint8_t two[2] = {(uint8_t)alphabet[i >> 6], (uint8_t)alphabet[i & 63]};
        pairs[i] = cht_get16(two);
    }
    memset(reverse, 0x80, sizeof reverse);
    for (unsigned i = 0; i < 64; i++)
        reverse[(uint8_t)alphabet[i]] = (uint8_t)i;
#if defined(__x86_64__)
    __builtin_cpu_init();
    shuffles = __builtin_cpu_supports("ssse3") != 0;
#endif
}

#if defined(__x86_64__)
/* Twelve bytes of `in` (the last four do not count) as sixteen characters. */
__attribute__((target("ssse3"))) static inline void encode_12(uint8_t *out, __m128i in)
{
    in = _mm_shuffle_epi8(in, _mm_set_epi8(10, 11, 9, 10, 7, 8, 6, 7, 4, 5, 3, 4, 1, 2, 0, 1));
    __m128i first_third =
        _mm_mulhi_epu16(_mm_and_si128(in, _mm_set1_epi32(0x0fc0fc00)), _mm_set1_epi32(0x04000040));
    __m128i second_fourth =
        _mm_mullo_epi16(_mm_and_si128(in, _mm_set1_epi32(0x003f03f0)), _mm_set1_epi32(0x01000010));
    __m128i six = _mm_or_si128(first_third, second_fourth); /* 0..63 in each byte */
    const __m128i distance =
        _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                      '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
    __m128i which = _mm_subs_epu8(six, _mm_set1_epi8(51)); /* 0 for letters, 1..12 from '0' on */
    which = _mm_or_si128(which, _mm_and_si128(_mm_cmpgt_epi8(_mm_set1_epi8(26), six), _mm_set1_epi8(13)));
    six = _mm_add_epi8(six, _mm_shuffle_epi8(distance, which));
    _mm_storeu_si128((__m128i *)(void *)out, six);
}

/* As many twelves as there are; their number. */
__attribute__((target("ssse3"))) static size_t encode_twelves(uint8_t *out, const uint8_t *in, size_t n)
{
    size_t k = 0;
    for (; n - 12 * k >= 16; k++)
        encode_12(out + 16 * k, _mm_loadu_si128((const __m128i *)(const void *)(in + 12 * k)));
    if (n - 12 * k >= 12) { /* the last ones: nothing after them is read */
        const uint8_t *p = in + 12 * k;
        encode_12(out + 16 * k, _mm_set_epi64x((int64_t)cht_get32(p + 8), (int64_t)cht_get64(p)));
        k++;
    }
    return k;
}
#else
static size_t encode_twelves(uint8_t *out, const uint8_t *in, size_t n)
{
    (void)out;
    (void)in;
    (void)n;
    return 0;
}
#endif

static inline size_t by_table(char *out, const uint8_t *in, size_t n)
{
    uint8_t *o = (uint8_t *)out;
    while (n >= 6) { /* six bytes to eight characters */
        uint64_t v = (uint64_t)cht_be32(in) << 32 | (uint64_t)__builtin_bswap16(cht_get16(in + 4)) << 16;
        uint64_t chars = (uint64_t)pairs[v >> 52] | (uint64_t)pairs[v >> 40 & 4095] << 16 |
                         (uint64_t)pairs[v >> 28 & 4095] << 32 | (uint64_t)pairs[v >> 16 & 4095] << 48;
        cht_put64(o, chars);
        in += 6;
        n -= 6;
        o += 8;
    }
    if (n >= 3) {
        unsigned v = (unsigned)in[0] << 16 | (unsigned)in[1] << 8 | in[2];
        cht_put16(o, pairs[v >> 12]);
        cht_put16(o + 2, pairs[v & 4095]);
        in += 3;
        n -= 3;
        o += 4;
    }
    if (n > 0) {
        unsigned v = (unsigned)in[0] << 16 | (n > 1 ? (unsigned)in[1] << 8 : 0);
        cht_put16(o, pairs[v >> 12]);
        o[2] = n > 1 ? (uint8_t)alphabet[v >> 6 & 63] : '=';
        o[3] = '=';
        o += 4;
    }
    return (size_t)(o - (uint8_t *)out);
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t cht_b64_encode(char *out, const uint8_t *in, size_t n)
{
    if (n < SHUFFLED_MIN || !shuffles)
        return by_table(out, in, n);
    size_t k = encode_twelves((uint8_t *)out, in, n);
    return 16 * k + by_table(out + 16 * k, in + 12 * k, n - 12 * k);
}

size_t cht_b64_encode_table(char *out, const uint8_t *in, size_t n) { return by_table(out, in, n); }

/* All of the alphabet: eight at a time would be faster, libb64 after it is slower still. */
static bool all_legal(const char *in, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= reverse[(uint8_t)in[i]];
    return any < 0x80;
}

bool cht_b64_decode(uint8_t *out, const char *in, size_t n, size_t *len)
{
    *len = 0;
    if (n == 0)
        return true;
    if (n % 4 != 0)
        return false;
    unsigned padding = in[n - 1] != '=' ? 0 : in[n - 2] != '=' ? 1 : 2;
    size_t chars = n - padding;
    if (!all_legal(in, chars) || (padding == 1 && (reverse[(uint8_t)in[chars - 1]] & 3) != 0) ||
        (padding == 2 && (reverse[(uint8_t)in[chars - 1]] & 15) != 0))
        return false;
    /* libb64 counts in int and writes one byte ahead of what it reports, so the tail is decoded apart. */
    size_t whole = n - 4;
    base64_decodestate state;
    base64_init_decodestate(&state);
    while (whole > 0) {
        int some = whole > INT_MAX / 4 ? INT_MAX / 4 / 4 * 4 : (int)whole;
        int got = base64_decode_block(in, some, (char *)out, &state);
        in += some;
        whole -= (size_t)some;
        out += got;
        *len += (size_t)got;
    }
    uint8_t a = reverse[(uint8_t)in[0]], b = reverse[(uint8_t)in[1]];
    out[0] = (uint8_t)(a << 2 | b >> 4);
    *len += 3 - padding;
    if (padding == 2)
        return true;
    uint8_t c = reverse[(uint8_t)in[2]];
    out[1] = (uint8_t)(b << 4 | c >> 2);
    if (padding == 0)
        out[2] = (uint8_t)(c << 6 | reverse[(uint8_t)in[3]]);
    return true;
}
