/* test_text: what is text, character by character over all of Unicode; how it is written as JSON, against jansson; numbers, against printf; each
 * buffer is exact, so that the sanitizer sees a byte too many. */
#include "base/rng.h"
#include "http/ndjson.h"
#include "reduce/text.h"
#include "service/text.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static size_t utf8(uint8_t *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (uint8_t)(0xC0 | c >> 6);
        p[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (uint8_t)(0xE0 | c >> 12);
        p[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        p[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    p[0] = (uint8_t)(0xF0 | c >> 18);
    p[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    p[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    p[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

static bool is_character(uint32_t c)
{
    bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
    return (!control || c == '\t' || c == '\n') && !(c >= 0xD800 && c < 0xE000) && c < 0x110000;
}

/* Written to a buffer of the length that was foretold, and read again by jansson. */
static void check_json(const uint8_t *p, size_t n)
{
    size_t json = 0;
    assert_true(svc_text_is(p, n, &json));
    assert_int_equal(svc_text_prefix(p, n), n);
    assert_true(json >= n && json <= 2 * n);
    char *out = malloc(json + 2), *exact = malloc(json + 1);
    assert_int_equal(svc_text_json(exact, p, n), json);
    out[0] = out[json + 1] = '"';
    memcpy(out + 1, exact, json);
    json_t *v = json_loadb(out, json + 2, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    assert_int_equal(json_string_length(v), n);
    assert_memory_equal(json_string_value(v), p, n);
    json_decref(v);
    free(out), free(exact);
}

static void test_every_character(void **state)
{
    (void)state;
    uint8_t p[24];
    size_t json;
    for (uint32_t c = 0; c < 0x110400; c++) {
        size_t n = utf8(p, c);
        if (!is_character(c)) {
            assert_false(svc_text_is(p, n, &json));
            memcpy(p, "abcdefghij", 10);
            n = 10 + utf8(p + 10, c);
            assert_false(svc_text_is(p, n, &json));
            assert_int_equal(svc_text_prefix(p, n), 10);
            continue;
        }
        assert_true(svc_text_is(p, n, &json));
        for (size_t cut = 1; cut < n; cut++) { /* a part of it is none */
            assert_int_equal(svc_text_prefix(p, cut), 0);
            assert_int_equal(svc_text_prefix(p + cut, n - cut), 0);
        }
        if (c < 0x3000 || c % 61 == 0)
            check_json(p, n);
    }
}

static void test_mixtures(void **state)
{
    (void)state;
    static const uint32_t few[] = {'a', 'b', '"', '\\', '\t', '\n', 0xE4, 0x20AC, 0x202E, 0x2066, 0x1F600};
    struct cht_rng rng;
    cht_rng_seed(&rng, 20);
    for (int i = 0; i < 4000; i++) {
        uint8_t p[256];
        size_t n = 0, characters = cht_rng_next(&rng) % 60;
        for (size_t k = 0; k < characters; k++)
            n += utf8(p + n, few[cht_rng_next(&rng) % (cht_rng_next(&rng) % 4 == 0 ? 11 : 2)]);
        uint8_t *exact = malloc(n > 0 ? n : 1);
        memcpy(exact, p, n);
        check_json(exact, n);
        if (n > 0) { /* a byte that is wrong ends it, there or at the beginning of its character */
            size_t at = cht_rng_next(&rng) % n, good;
            exact[at] = 0xFF;
            good = svc_text_prefix(exact, n);
            assert_true(good <= at && at - good <= 3);
        }
        free(exact);
    }
}

/* The room that put_* and the scan's workers count on suffices for the worst there is, and one byte less is noticed. */
static void test_room(void **state)
{
    (void)state;
    static const char *const worst[] = {"\n", "\"", "\xE2\x80\xAE", "a", "\xFF", "\x00"};
    for (size_t w = 0; w < sizeof worst / sizeof *worst; w++) {
        size_t one = strlen(worst[w]) > 0 ? strlen(worst[w]) : 1;
        for (size_t n = 1; n <= 100; n++) {
            uint8_t *p = malloc(one * n);
            for (size_t i = 0; i < n; i++)
                memcpy(p + one * i, worst[w], one);
            struct http_shown l = {.name = {p, one * n}, .value = p, .key = UINT64_C(281474976710655)};
            l.size = (uint32_t)(one * n);
            l.values = l.text = true;
            size_t room = http_ndjson_text_room(l.name.n, l.size);
            char *out = malloc(room);
            size_t len = http_ndjson_text_pair(out, room, &l);
            assert_true(len <= room);
            char *exact = malloc(len + 200);
            size_t need = len + 200;
            while (need > 0 && http_ndjson_text_pair(exact, need, &l) != SIZE_MAX)
                need--;
            assert_true(need < len + 200);
            json_t *v = json_loadb(out, len, 0, NULL);
            assert_non_null(v);
            assert_int_equal(json_integer_value(json_object_get(v, "size")), one * n);
            json_decref(v);
            free(p), free(out), free(exact);
        }
    }
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static void check_double(double v)
{
    char *out = malloc(REDUCE_DOUBLE_TEXT), text[REDUCE_DOUBLE_TEXT];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    assert_int_equal(reduce_put_double(out, v), n);
    assert_memory_equal(out, text, (size_t)n);
    free(out);
}

static double some_double(struct cht_rng *r, unsigned kind)
{
    uint64_t bits = cht_rng_next(r), scale = cht_rng_below(r, 60);
    double v;
    switch (kind) {
    case 0: /* any */
        memcpy(&v, &bits, sizeof v);
        return isfinite(v) ? v : 0;
    case 1: /* of each size that has a way of its own */
        return pow(10.0, (double)(bits % 3000) / 100 - 12) * (double)(1 + bits % 7);
    case 2: /* few bits: halves to be rounded */
        return ldexp((double)(bits >> (4 + scale)), (int)cht_rng_below(r, 90) - 60);
    default: /* few digits */
        return (double)(bits % 100000) / (double)(1 + scale % 10 * 1000);
    }
}

/* As printf and strtod have it. */
static void test_doubles(void **state)
{
    (void)state;
    struct cht_rng r;
    cht_rng_seed(&r, 14);
    for (unsigned i = 0; i < 200000; i++) {
        double v = some_double(&r, i % 4);
        check_double(i % 8 < 4 ? v : -v);
    }
    for (int e = -12; e < 19; e++) {
        double up = strtod(
            (char[8]){'1', 'e', e < 0 ? '-' : '+', (char)('0' + abs(e) / 10), (char)('0' + abs(e) % 10)},
            NULL);
        double down = up;
        for (unsigned i = 0; i < 200; i++, up = nextafter(up, INFINITY), down = nextafter(down, 0)) {
            check_double(up);
            check_double(down);
        }
    }
    for (int e = -40; e < 60; e++) { /* its neighbours are not equally far */
        check_double(ldexp(1, e));
        check_double(nextafter(ldexp(1, e), 0));
    }
    check_double(0);
    check_double(-0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_mixtures),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
