/* test_b64: our encoder and the strict decoder against libb64 and against each other, on every short length. */
#include "base/b64.h"
#include "base/rng.h"

#include <b64/cencode.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define LENGTHS 2050u

/* libb64 with its line breaks taken out. */
static size_t oracle(const uint8_t *in, size_t n, char *out)
{
    base64_encodestate state;
    base64_init_encodestate(&state);
    int len = base64_encode_block((const char *)in, (int)n, out, &state);
    len += base64_encode_blockend(out + len, &state);
    size_t kept = 0;
    for (int i = 0; i < len; i++) {
        if (out[i] != '\n')
            out[kept++] = out[i];
    }
    return kept;
}

static void test_encode(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 64);
    for (size_t n = 0; n < LENGTHS; n++) {
        uint8_t *in = malloc(n + 1); /* exact: the sanitizer sees a byte too many */
        char *want = malloc(2 * n + 16), *got = malloc(cht_b64_encoded(n) + 1);
        uint8_t *back = malloc(cht_b64_decoded_max(cht_b64_encoded(n)) + 1);
        size_t len;
        uint8_t *exact = realloc(in, n > 0 ? n : 1);
        assert_non_null(exact);
        for (size_t i = 0; i < n; i++)
            exact[i] = (uint8_t)cht_rng_next(&rng);
        size_t a = oracle(exact, n, want), b = cht_b64_encode(got, exact, n);
        assert_int_equal(a, b);
        assert_int_equal(b, cht_b64_encoded(n));
        assert_memory_equal(want, got, a);
        memset(got, 0, b);
        assert_int_equal(cht_b64_encode_table(got, exact, n), b);
        assert_memory_equal(want, got, a);
        assert_true(cht_b64_decode(back, got, b, &len));
        assert_int_equal(len, n);
        assert_memory_equal(back, exact, n);
        free(exact), free(want), free(got), free(back);
    }
}

static void test_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {"a",
                                      "aa",
                                      "aaa",
                                      "====",
                                      "a===",
                                      "aa=a",
                                      "=aaa",
                                      "aaa\n",
                                      "aa a",
                                      "aaa-",
                                      "aaa_",
                                      "aa==aaaa",
                                      "ab==",
                                      "aab=",
                                      "aGVsbG8",
                                      "aaaaa=",
                                      "\x80"
                                      "aaa",
                                      "aaaa====",
                                      "aaaa\0aaa"};
    uint8_t out[64];
    size_t len;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n = i + 1 == sizeof bad / sizeof *bad ? 8 : strlen(bad[i]);
        if (cht_b64_decode(out, bad[i], n, &len))
            fail_msg("accepted '%s'", bad[i]);
    }
    assert_true(cht_b64_decode(out, "aGVsbG8=", 8, &len));
    assert_int_equal(len, 5);
    assert_memory_equal(out, "hello", 5);
    assert_true(cht_b64_decode(out, "", 0, &len));
    assert_int_equal(len, 0);
}

/* Every character in every place of a quantum: accepted only if it is of the alphabet. */
static void test_characters(void **state)
{
    (void)state;
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (unsigned place = 0; place < 8; place++) {
        for (unsigned c = 0; c < 256; c++) {
            char text[8] = {'A', 'A', 'A', 'A', 'A', 'A', 'A', 'A'};
            uint8_t out[8];
            size_t len;
            text[place] = (char)c;
            bool legal = (c != 0 && strchr(alphabet, (int)c) != NULL) || (place == 7 && c == '=');
            assert_int_equal(cht_b64_decode(out, text, 8, &len), legal);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_encode), cmocka_unit_test(test_strict),
                                       cmocka_unit_test(test_characters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
