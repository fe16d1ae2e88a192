/* crc32c: CRC-32C three ways. The processor's instruction takes 8 bytes every cycle but answers after three, so long
 * inputs run three streams side by side, joined by shifting two of them over the bytes behind them (a multiplication by
 * x^(8n) in GF(2)[x] mod the polynomial, from tables, as in Mark Adler's crc32c.c). Elsewhere: slicing by eight.
 */
#include "base/crc32c.h"

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdbool.h>

#define POLY 0x82F63B78u
#define LONG_STREAM 1024u /* bytes of each of three streams */
#define SHORT_STREAM 256u

static uint32_t slices[8][256];
static uint32_t zeros_long[4][256], zeros_short[4][256]; /* advance a crc over LONG/SHORT_STREAM zero bytes */

static uint32_t multiply(const uint32_t *matrix, uint32_t v)
{
    uint32_t sum = 0;
    for (; v != 0; v >>= 1, matrix++)
        sum ^= (v & 1) ? *matrix : 0;
    return sum;
}

/* The operator that advances a crc over n (a power of two) zero bytes, as four byte-indexed tables. */
static void make_zeros(uint32_t table[4][256], size_t n)
{
    uint32_t even[32], odd[32];
    odd[0] = POLY;
    for (int i = 1; i < 32; i++)
        odd[i] = UINT32_C(1) << (i - 1);
    size_t bits = 1; /* odd: one zero bit */
    while (bits < n * 8) {
        for (int i = 0; i < 32; i++)
            even[i] = multiply(odd, odd[i]);
        for (int i = 0; i < 32; i++)
            odd[i] = even[i];
        bits *= 2;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int b = 0; b < 4; b++)
            table[b][i] = multiply(odd, i << (8 * b));
    }
}

static uint32_t shift(const uint32_t table[4][256], uint32_t crc)
{
    return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^ table[3][crc >> 24];
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w = cht_get64(p) ^ crc;
        crc = slices[7][w & 255] ^ slices[6][w >> 8 & 255] ^ slices[5][w >> 16 & 255] ^ slices[4][w >> 24 & 255] ^
              slices[3][w >> 32 & 255] ^ slices[2][w >> 40 & 255] ^ slices[1][w >> 48 & 255] ^ slices[0][w >> 56];
    }
    for (; n > 0; n--)
        crc = (crc >> 8) ^ slices[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint64_t streams(uint64_t crc, const uint8_t *p, size_t each, const uint32_t table[4][256])
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < each; i += 8) {
        a = __builtin_ia32_crc32di(a, cht_get64(p + i));
        b = __builtin_ia32_crc32di(b, cht_get64(p + each + i));
        c = __builtin_ia32_crc32di(c, cht_get64(p + 2 * each + i));
    }
    a = shift(table, (uint32_t)a) ^ b;
    return shift(table, (uint32_t)a) ^ c;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n)
{
    uint64_t c = ~crc;
    for (; n >= 3 * LONG_STREAM; n -= 3 * LONG_STREAM, p += 3 * LONG_STREAM)
        c = streams(c, p, LONG_STREAM, zeros_long);
    for (; n >= 3 * SHORT_STREAM; n -= 3 * SHORT_STREAM, p += 3 * SHORT_STREAM)
        c = streams(c, p, SHORT_STREAM, zeros_short);
    for (; n >= 8; n -= 8, p += 8)
        c = __builtin_ia32_crc32di(c, cht_get64(p));
    uint32_t r = (uint32_t)c;
    for (; n > 0; n--)
        r = __builtin_ia32_crc32qi(r, *p++);
    return ~r;
}
#endif

static bool have_instruction;

/* Before main, so that no call needs to look. */
__attribute__((constructor)) static void init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ ((crc & 1) ? POLY : 0);
        slices[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int k = 1; k < 8; k++)
            slices[k][i] = (slices[k - 1][i] >> 8) ^ slices[0][slices[k - 1][i] & 255];
    }
    make_zeros(zeros_long, LONG_STREAM);
    make_zeros(zeros_short, SHORT_STREAM);
#if defined(__x86_64__)
    __builtin_cpu_init();
    have_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

uint32_t cht_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_expect(have_instruction, 1))
        return by_instruction(crc, p, n);
#endif
    return by_table(crc, p, n);
}

uint32_t cht_crc32c_table(uint32_t crc, const void *p, size_t n) { return by_table(crc, p, n); }
