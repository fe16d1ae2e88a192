/* test_prepared: the Date of answers, by known seconds and against strftime. */
#include "base/rng.h"
#include "http/prepared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#define SECOND UINT64_C(1000000000)

static void test_known(void **state)
{
    (void)state;
    char text[HTTP_PREPARED_DATE + 1];
    http_prepared_date(text, 0);
    assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
    http_prepared_date(text, 784111777 * SECOND); /* RFC 9110, 5.6.7 */
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    http_prepared_date(text, 1709251199 * SECOND + SECOND - 1);
    assert_string_equal(text, "Thu, 29 Feb 2024 23:59:59 GMT");
    http_prepared_date(text, UINT64_MAX);
    assert_string_equal(text, "Sun, 21 Jul 2554 23:34:33 GMT");
}

static void test_against_strftime(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 7);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t at = cht_rng_next(&rng);
        char text[HTTP_PREPARED_DATE + 1], other[64];
        time_t s = (time_t)(at / SECOND);
        struct tm tm;
        assert_non_null(gmtime_r(&s, &tm));
        assert_int_equal(strftime(other, sizeof other, "%a, %d %b %Y %H:%M:%S GMT", &tm), HTTP_PREPARED_DATE);
        http_prepared_date(text, at);
        assert_string_equal(text, other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_against_strftime),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
