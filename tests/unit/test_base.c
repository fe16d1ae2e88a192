/* test_base: error table, heap with injected failures, checksum, random numbers, buffer, little-endian access. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "base/siphash.h"
#include "cheetah/store.h"

/* One bit at a time, from the definition: shares nothing with the code under test. */
static uint32_t crc_bitwise(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    while (n-- > 0) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static void test_crc_vectors(void **state)
{
    (void)state;
    uint8_t b[32];
    assert_int_equal(cht_crc32c(0, "", 0), 0);
    assert_int_equal(cht_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(cht_crc32c_table(0, "123456789", 9), 0xE3069283u);
    memset(b, 0, sizeof b); /* this and the next three: RFC 3720 B.4 */
    assert_int_equal(cht_crc32c(0, b, sizeof b), 0x8A9136AAu);
    memset(b, 0xff, sizeof b);
    assert_int_equal(cht_crc32c(0, b, sizeof b), 0x62A8AB43u);
    for (int i = 0; i < 32; i++)
        b[i] = (uint8_t)i;
    assert_int_equal(cht_crc32c(0, b, sizeof b), 0x46DD794Eu);
    for (int i = 0; i < 32; i++)
        b[i] = (uint8_t)(31 - i);
    assert_int_equal(cht_crc32c(0, b, sizeof b), 0x113FDB5Cu);
}

/* The vectors of the reference implementation: key 00 01 .. 0f, message 00 01 .. (n - 1). */
static void test_siphash(void **state)
{
    static const struct {
        size_t n;
        uint64_t want;
    } each[] = {{0, UINT64_C(0x726fdb47dd0e0e31)},  {1, UINT64_C(0x74f839c593dc67fd)},
                {7, UINT64_C(0xab0200f58b01d137)},  {8, UINT64_C(0x93f5f5799a932462)},
                {15, UINT64_C(0xa129ca6149be45e5)}, {63, UINT64_C(0x958a324ceb064572)}};
    const struct cht_sip_key key = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
    struct cht_sip_key other = key;
    uint8_t b[64];
    (void)state;
    for (unsigned i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        assert_true(cht_siphash(&key, b, each[i].n) == each[i].want);
    other.k[1] ^= 1;
    assert_true(cht_siphash_u64(&key, 5) != cht_siphash_u64(&other, 5));
    assert_true(cht_siphash_u64(&key, UINT64_C(0x0706050403020100)) == UINT64_C(0x369095118d299a8e));
}

static void fill(uint8_t *b, size_t n, uint64_t seed)
{
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)cht_rng_next(&r);
}

/* Every length of several blocks at every alignment, both ways; the reference is carried on byte by byte. */
static void test_crc_lengths(void **state)
{
    (void)state;
    static uint8_t b[13000 + 8];
    fill(b, sizeof b, 1);
    for (size_t at = 0; at < 8; at++) {
        const uint32_t start = (uint32_t)at * 0x9E3779B9u; /* 0 at first, then anything */
        const uint64_t key = at * UINT64_C(0x0123456789ABCDEF);
        uint8_t k[8];
        for (unsigned i = 0; i < 8; i++)
            k[i] = (uint8_t)(key >> (8 * i));
        uint32_t want = start, keyed = crc_bitwise(0, k, 8);
        for (size_t n = 0; n <= (at == 0 ? 13000 : 5000); n++) {
            uint32_t got = cht_crc32c(start, b + at, n), table = cht_crc32c_table(start, b + at, n);
            if (got != want || table != want)
                fail_msg("length %zu at %zu: %08x, by table %08x, expected %08x", n, at, got, table, want);
            assert_int_equal(cht_crc32c_keyed(key, b + at, n), keyed);
            want = crc_bitwise(want, b + at + n, 1);
            keyed = crc_bitwise(keyed, b + at + n, 1);
        }
    }
}

static void test_crc_pieces(void **state)
{
    (void)state;
    uint8_t b[9000];
    struct cht_rng r;
    cht_rng_seed(&r, 2);
    fill(b, sizeof b, 3);
    uint32_t whole = crc_bitwise(0, b, sizeof b);
    for (int k = 0; k < 500; k++) {
        size_t cut = cht_rng_below(&r, sizeof b + 1);
        assert_int_equal(cht_crc32c(cht_crc32c(0, b, cut), b + cut, sizeof b - cut), whole);
    }
    b[4711] ^= 4;
    assert_int_not_equal(cht_crc32c(0, b, sizeof b), whole);
}

/* The state after splitmix64(0) is in every implementation's test suite; the outputs follow from the definition. */
static void test_rng_vectors(void **state)
{
    (void)state;
    static const uint64_t seeded[4] = {UINT64_C(0xE220A8397B1DCDAF), UINT64_C(0x6E789E6AA1B965F4),
                                       UINT64_C(0x06C45D188009454F), UINT64_C(0xF88BB8A8724C81EC)};
    struct cht_rng r;
    cht_rng_seed(&r, 0);
    for (int i = 0; i < 4; i++)
        assert_true(r.s[i] == seeded[i]);
    static const uint64_t want[10] = {11520u,
                                      0u,
                                      1509978240u,
                                      1215971899390074240u,
                                      1216172134540287360u,
                                      607988272756665600u,
                                      UINT64_C(16172922978634559625),
                                      8476171486693032832u,
                                      UINT64_C(10595114339597558777),
                                      2904607092377533576u};
    r = (struct cht_rng){{1, 2, 3, 4}}; /* the vector of rand_xoshiro and of numpy */
    for (int i = 0; i < 10; i++)
        assert_true(cht_rng_next(&r) == want[i]);
}

static void test_rng_below(void **state)
{
    (void)state;
    struct cht_rng r;
    unsigned seen[7] = {0};
    cht_rng_seed(&r, 3);
    for (int i = 0; i < 70000; i++) {
        uint64_t v = cht_rng_below(&r, 7);
        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500); /* 5 sigma is 463 */
    for (int i = 0; i < 100; i++)
        assert_true(cht_rng_below(&r, 1) == 0);
    assert_true(cht_rng_below(&r, UINT64_MAX) != UINT64_MAX);
}

static void test_alloc_failures(void **state)
{
    (void)state;
    cht_alloc_fail_at(3, false);
    void *p[6];
    for (int i = 0; i < 6; i++)
        p[i] = cht_malloc(8);
    assert_int_equal(cht_alloc_failures(), 1);
    for (int i = 0; i < 6; i++) {
        assert_true((p[i] == NULL) == (i == 2));
        cht_free(p[i]);
    }
    cht_alloc_fail_at(2, true);
    char *s = cht_strdup("kept");
    assert_non_null(s);
    assert_null(cht_calloc(2, 2));
    assert_null(cht_realloc(s, 100));
    assert_string_equal(s, "kept"); /* a failed realloc leaves the old block */
    assert_null(cht_aligned_alloc(64, 100));
    assert_null(cht_strdup("x"));
    assert_int_equal(cht_alloc_failures(), 4);
    cht_alloc_fail_at(0, false);
    assert_int_equal(cht_alloc_failures(), 0);
    s = cht_realloc(s, 100);
    assert_non_null(s);
    cht_free(s);
}

static void test_alloc_sizes(void **state)
{
    (void)state;
    assert_null(cht_calloc(SIZE_MAX / 2 + 1, 2)); /* the product is 0 if it wraps */
    assert_null(cht_aligned_alloc(4096, SIZE_MAX - 100));
    void *empty = cht_malloc(0);
    assert_non_null(empty);
    cht_free(empty);
    uint8_t *zero = cht_calloc(100, 7), *page = cht_aligned_alloc(4096, 5000);
    assert_non_null(zero);
    assert_non_null(page);
    for (int i = 0; i < 700; i++)
        assert_int_equal(zero[i], 0);
    assert_int_equal((uintptr_t)page % 4096, 0);
    memset(page, 1, 5000);
    cht_free(zero);
    cht_free(page);
    cht_free(NULL);
}

static void test_err(void **state)
{
    (void)state;
    assert_string_equal(cht_rc_slug(CHT_KEY_NOT_FOUND), "key_not_found");
    assert_int_equal(cht_rc_http(CHT_KEY_NOT_FOUND), 404);
    assert_string_equal(cht_rc_text(CHT_CLOSED), "the store is closing");
    assert_string_equal(cht_rc_slug((enum cht_rc)999), "io_error");
    assert_int_equal(cht_rc_http((enum cht_rc)999), 500);
    struct cht_err e = {0};
    char longer[400];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(CHT_FAIL(&e, CHT_INVALID_VALUE, "%s", longer), CHT_INVALID_VALUE);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    assert_int_equal(CHT_DAMAGED(&e, "at %d", 17), CHT_CORRUPT);
    assert_int_equal(e.code, CHT_CORRUPT);
    assert_string_equal(e.msg, "at 17");
    assert_string_equal(e.file, __FILE__);
    assert_true(e.line > 0);
    assert_int_equal(CHT_FAIL(NULL, CHT_IO, "nobody listens"), CHT_IO);
}

/* What the texts say of limits is what the limits are. */
static void test_limits_in_texts(void **state)
{
    (void)state;
    char text[160];
    (void)snprintf(text, sizeof text, "keys are integers from 1 to %llu", (unsigned long long)CHT_KEY_MAX);
    assert_string_equal(cht_rc_text(CHT_INVALID_KEY), text);
    (void)snprintf(text, sizeof text, "pair names have 1 to %u bytes", CHT_NAME_MAX);
    assert_string_equal(cht_rc_text(CHT_INVALID_PAIR), text);
    (void)snprintf(text, sizeof text, "database names are [A-Za-z0-9][A-Za-z0-9_-]{0,%u}",
                   CHT_DATABASE_NAME_MAX - 1);
    assert_string_equal(cht_rc_text(CHT_INVALID_DATABASE_NAME), text);
    (void)snprintf(text, sizeof text, "tokens are integers from 0 to %u", UINT32_MAX);
    assert_string_equal(cht_rc_text(CHT_INVALID_TOKENS), text);
}

static void test_codes_are_unique(void **state)
{
    (void)state;
    static const int nums[] = {
#define NUM(name, num, http, slug, text) (num),
        CHT_ERRORS(NUM)
#undef NUM
    };
    static const char *const slugs[] = {
#define SLUG(name, num, http, slug, text) slug,
        CHT_ERRORS(SLUG)
#undef SLUG
    };
    size_t n = sizeof nums / sizeof *nums;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(nums[i], nums[j]);
            assert_string_not_equal(slugs[i], slugs[j]);
        }
    }
}

static void test_buf(void **state)
{
    (void)state;
    struct cht_buf b = {0};
    struct cht_err e = {0};
    assert_int_equal(cht_buf_reserve(&b, 0, &e), CHT_OK);
    assert_int_equal(cht_buf_reserve(&b, 10, &e), CHT_OK);
    memcpy(b.data, "0123456789", 10);
    b.len = 10;
    assert_int_equal(cht_buf_reserve(&b, 100000, &e), CHT_OK);
    assert_true(b.cap >= 100000);
    assert_memory_equal(b.data, "0123456789", 10);
    cht_alloc_fail_at(1, false);
    size_t cap = b.cap;
    assert_int_equal(cht_buf_reserve(&b, cap, &e), CHT_OK); /* needs no memory */
    assert_int_equal(cht_buf_reserve(&b, cap + 1, &e), CHT_NO_MEMORY);
    cht_alloc_fail_at(0, false);
    assert_int_equal(b.cap, cap);
    assert_memory_equal(b.data, "0123456789", 10);
    cht_buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.cap, 0);
    cht_buf_free(&b);
}

static void test_bytes(void **state)
{
    (void)state;
    uint8_t b[16] = {0};
    cht_put16(b + 1, 0x0102);
    cht_put48(b + 3, UINT64_C(0xFF0A0B0C0D0E0F));
    static const uint8_t want[] = {0, 2, 1, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0};
    assert_memory_equal(b, want, sizeof want); /* the seventh byte is not written */
    assert_int_equal(cht_get16(b + 1), 0x0102);
    assert_true(cht_get48(b + 3) == UINT64_C(0x0A0B0C0D0E0F));
    cht_put64(b + 5, UINT64_C(0x1122334455667788));
    assert_true(cht_get64(b + 5) == UINT64_C(0x1122334455667788));
    assert_int_equal(cht_get32(b + 5), 0x55667788);
    assert_int_equal(cht_be32(b + 5), 0x88776655u);
    assert_true(cht_be64(b + 5) == UINT64_C(0x8877665544332211));
}

static void test_clock(void **state)
{
    (void)state;
    uint64_t a = cht_now_ns();
    cht_sleep_ns(2000000);
    assert_true(cht_now_ns() - a >= 1900000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc_vectors),
        cmocka_unit_test(test_crc_lengths),
        cmocka_unit_test(test_crc_pieces),
        cmocka_unit_test(test_rng_vectors),
        cmocka_unit_test(test_rng_below),
        cmocka_unit_test(test_alloc_failures),
        cmocka_unit_test(test_alloc_sizes),
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_limits_in_texts),
        cmocka_unit_test(test_codes_are_unique),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_siphash),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
