/* crc32c: CRC-32C by the processor's instruction (x86-64 with SSE 4.2, 64-bit ARM with CRC32), or eight table look-ups a word elsewhere.
 *
 * The instruction takes 8 bytes every cycle but answers after three, so inputs of FOLD_MIN bytes or more run as three
 * streams side by side. Their results are joined by one carry-less multiplication each:
 *
 *   |-- a: s words --|-- b: s words --|-- c: s words --|      crc = a * x^(128 s)  ^  b * x^(64 s)  ^  c
 *
 * With all polynomials bit-reflected, the instruction started at 0 gives v * x^32 for a word v, and the product of two
 * reflected 32-bit numbers lies one bit off; so multiplying by fold[w] = x^(64 w - 33) and running the instruction over
 * the product multiplies by x^(64 w) in all. fold has an entry for every w that a block of up to BLOCK_WORDS needs:
 * blocks are as long as the input allows, and no length is left with a long serial tail.
 *
 * The tables are made by the first call (state, resolve), not by a constructor: no order of start-up matters.
 */
#include "base/crc32c.h"

#include "base/bytes.h"

#include <stdatomic.h>
#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("sse4.2,pclmul")))
#define HAVE_INSTRUCTION 1
#elif defined(__aarch64__) && defined(__linux__) && defined(__ORDER_LITTLE_ENDIAN__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define TARGET __attribute__((target("+crc+crypto")))
#define HAVE_INSTRUCTION 1
#else
#define HAVE_INSTRUCTION 0
#endif

#define POLY 0x82F63B78u
#define FOLD_MIN 96u      /* below it the serial way is faster: joining costs as much as 5 words */
#define STREAM_WORDS 170u /* three of them and two words are a 4 KiB page */

typedef uint32_t crc_fn(uint32_t crc, const uint8_t *p, size_t n);
typedef uint32_t keyed_fn(uint64_t key, const uint8_t *p, size_t n);

static crc_fn resolve;
static keyed_fn resolve_keyed;

static _Atomic(crc_fn *) chosen =
    resolve; /* release by the one that made the tables, acquire by every call */
static _Atomic(keyed_fn *) chosen_keyed = resolve_keyed; /* likewise */
static _Atomic bool taken;                               /* somebody makes the tables */
static uint32_t slices[8][256]; /* set before chosen is, then read-only, as is fold */

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w = cht_get64(p) ^ crc;
        crc = slices[7][w & 255] ^ slices[6][w >> 8 & 255] ^ slices[5][w >> 16 & 255] ^
              slices[4][w >> 24 & 255] ^ slices[3][w >> 32 & 255] ^ slices[2][w >> 40 & 255] ^
              slices[1][w >> 48 & 255] ^ slices[0][w >> 56];
    }
    for (; n > 0; n--)
        crc = (crc >> 8) ^ slices[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if HAVE_INSTRUCTION

/* What the two machines have in common: the CRC of 8, 4, 2 bytes and 1, going on from `crc`, and the product of two polynomials of 32 and
 * 64 bits, of which the lower 64 bits are wanted. */
#if defined(__x86_64__)
#define CRC64(crc, v) _mm_crc32_u64((crc), (v))
#define CRC32(crc, v) _mm_crc32_u32((crc), (v))
#define CRC16(crc, v) _mm_crc32_u16((crc), (v))
#define CRC8(crc, v) _mm_crc32_u8((crc), (v))

TARGET static inline uint64_t times(uint64_t crc, uint32_t by)
{
    return (uint64_t)_mm_cvtsi128_si64(
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128(by), 0));
}

static bool has_instruction(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}
#else
#define CRC64(crc, v) ((uint64_t)__builtin_aarch64_crc32cx((uint32_t)(crc), (v)))
#define CRC32(crc, v) __builtin_aarch64_crc32cw((crc), (v))
#define CRC16(crc, v) __builtin_aarch64_crc32ch((crc), (v))
#define CRC8(crc, v) __builtin_aarch64_crc32cb((crc), (v))

TARGET static inline uint64_t times(uint64_t crc, uint32_t by)
{
    uint64_t low;
    __asm__("fmov d0, %1\n\tfmov d1, %2\n\tpmull v0.1q, v0.1d, v1.1d\n\tfmov %0, d0"
            : "=r"(low)
            : "r"(crc), "r"((uint64_t)by)
            : "v0", "v1");
    return low;
}

/* Bits 19 to 16 of the register of features are those of the CRC instructions, 7 to 4 those of PMULL (2 or more). The kernel
 * shows it to programs (since Linux 4.11). */
static bool has_instruction(void)
{
    uint64_t features;
    __asm__("mrs %0, ID_AA64ISAR0_EL1" : "=r"(features));
    return (features >> 16 & 15) >= 1 && (features >> 4 & 15) >= 2;
}
#endif

static uint32_t fold[2 * STREAM_WORDS + 1];

/* fold[1] = x^31, whose reflected form is 1; each next one is advanced over 64 more zero bits. */
TARGET static void make_fold(void)
{
    fold[1] = 1;
    for (unsigned w = 2; w <= 2 * STREAM_WORDS; w++)
        fold[w] = (uint32_t)CRC64(fold[w - 1], 0);
}

/* Three streams of `words` words each, words in 1..STREAM_WORDS. */
TARGET static inline uint64_t three_streams(uint64_t crc, const uint8_t *p, size_t words)
{
    uint64_t a = crc, b = 0, c = 0;
    const size_t each = 8 * words;
    for (const uint8_t *end = p + each; p < end; p += 8) {
        a = CRC64(a, cht_get64(p));
        b = CRC64(b, cht_get64(p + each));
        c = CRC64(c, cht_get64(p + 2 * each));
    }
    return c ^ CRC64(0, times(a, fold[2 * words]) ^ times(b, fold[words]));
}

/* Not inverted, before and after. */
TARGET static inline uint32_t go_on(uint64_t c, const uint8_t *p, size_t n)
{
    while (n >= FOLD_MIN) {
        size_t words = n / 24 < STREAM_WORDS ? n / 24 : STREAM_WORDS;
        c = three_streams(c, p, words);
        p += 24 * words;
        n -= 24 * words;
    }
    for (; n >= 8; n -= 8, p += 8)
        c = CRC64(c, cht_get64(p));
    uint32_t r = (uint32_t)c;
    if (n & 4) {
        r = CRC32(r, cht_get32(p));
        p += 4;
    }
    if (n & 2) {
        r = CRC16(r, cht_get16(p));
        p += 2;
    }
    if (n & 1)
        r = CRC8(r, *p);
    return r;
}

TARGET static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n) { return ~go_on(~crc, p, n); }

TARGET static uint32_t keyed_by_instruction(uint64_t key, const uint8_t *p, size_t n)
{
    return ~go_on(CRC64(UINT32_MAX, key), p, n);
}
#endif

static uint32_t keyed_by_table(uint64_t key, const uint8_t *p, size_t n)
{
    uint8_t k[8];
    cht_put64(k, key);
    return by_table(by_table(0, k, sizeof k), p, n);
}

static void make_slices(void)
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
}

/* Makes the tables, once; whoever comes meanwhile spins for the microseconds that takes. */
static crc_fn *settle(void)
{
    if (!atomic_exchange_explicit(&taken, true, memory_order_relaxed)) {
        crc_fn *best = by_table;
        keyed_fn *best_keyed = keyed_by_table;
        make_slices();
#if HAVE_INSTRUCTION
        if (has_instruction()) {
            make_fold();
            best = by_instruction;
            best_keyed = keyed_by_instruction;
        }
#endif
        atomic_store_explicit(&chosen_keyed, best_keyed, memory_order_release);
        atomic_store_explicit(&chosen, best, memory_order_release); /* the last: settle waits for it */
    }
    crc_fn *fn;
    do
        fn = atomic_load_explicit(&chosen, memory_order_acquire);
    while (fn == resolve);
    return fn;
}

static uint32_t resolve(uint32_t crc, const uint8_t *p, size_t n) { return settle()(crc, p, n); }

static uint32_t resolve_keyed(uint64_t key, const uint8_t *p, size_t n)
{
    (void)settle();
    return atomic_load_explicit(&chosen_keyed, memory_order_acquire)(key, p, n);
}

/* ---- public ------------------------------------------------------------------------------------------------ */

uint32_t cht_crc32c(uint32_t crc, const void *p, size_t n)
{
    return atomic_load_explicit(&chosen, memory_order_acquire)(crc, p, n);
}

uint32_t cht_crc32c_keyed(uint64_t key, const void *p, size_t n)
{
    return atomic_load_explicit(&chosen_keyed, memory_order_acquire)(key, p, n);
}

uint32_t cht_crc32c_table(uint32_t crc, const void *p, size_t n)
{
    (void)settle(); /* for the tables, whichever way was chosen */
    return by_table(crc, p, n);
}

bool cht_crc32c_by_instruction(void) { return settle() != by_table; }
