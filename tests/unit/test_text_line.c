/* test_text_line: the lines of streams and the numbers in them, against snprintf and the base64 that test_b64 has tested. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/b64.h"
#include "base/rng.h"
#include "http/ndjson.h"
#include "service/out.h"

static void compare_digits(uint64_t v)
{
    char want[24];
    char *got = malloc(20); /* exact: the sanitizer sees a byte too many */
    size_t n = (size_t)snprintf(want, sizeof want, "%llu", (unsigned long long)v);
    assert_non_null(got);
    assert_int_equal(svc_out_digits(got, v), n);
    assert_memory_equal(got, want, n);
    free(got);
}

static void test_digits(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 3);
    for (uint64_t v = 0; v < 20000; v++)
        compare_digits(v);
    for (uint64_t ten = 1; ten <= UINT64_MAX / 10; ten *= 10) {
        for (uint64_t d = 1; d < 10; d++) {
            compare_digits(d * ten - 1);
            compare_digits(d * ten);
            compare_digits(d * ten + 1);
        }
    }
    compare_digits(UINT64_MAX);
    compare_digits(UINT64_MAX - 1);
    for (int i = 0; i < 200000; i++)
        compare_digits(cht_rng_next(&rng) >> cht_rng_below(&rng, 64));
}

/* Every short length of names, in exactly the room that a line is said to need. */
static void test_mapping(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 4);
    for (size_t n = 1; n < 300; n++) {
        uint8_t name[300];
        char b64[404], want[500];
        uint64_t key = cht_rng_next(&rng) >> cht_rng_below(&rng, 64);
        for (size_t i = 0; i < n; i++)
            name[i] = (uint8_t)cht_rng_next(&rng);
        b64[cht_b64_encode(b64, name, n)] = 0;
        size_t len = (size_t)snprintf(want, sizeof want, "{\"pair\":\"%s\",\"key\":%llu}\n", b64,
                                      (unsigned long long)key);
        size_t room = http_ndjson_room(n, 0);
        char *got = malloc(room);
        assert_non_null(got);
        struct cht_str s = {.p = name, .n = n};
        assert_int_equal(http_ndjson_mapping(got, room, s, key), len);
        assert_memory_equal(got, want, len);
        assert_int_equal(http_ndjson_mapping(got, room - 1, s, key), SIZE_MAX);
        assert_int_equal(http_ndjson_pair(got, room, s, key, false, NULL, 0), len - 1);
        assert_memory_equal(got, want, len - 1);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_digits), cmocka_unit_test(test_mapping)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
