/* test_document: what http_document_read accepts means exactly what jansson reads in it, over lines that are written in all common ways,
 * in odd ways, and damaged at random; and it accepts what clients send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/rng.h"
#include "http/calls/document.h"

enum { TOKENS = 1024, LINE = 4096 };

static uint32_t tokens[TOKENS];

/* Where it is accepted, jansson reads the same. In memory of exactly its size, so that the sanitizer sees a step too far. */
static bool agrees(const char *line, size_t n, bool texts, size_t cap)
{
    char *exact = malloc(n > 0 ? n : 1);
    memcpy(exact, line, n);
    struct http_document d = {.tokens = tokens, .cap = cap, .texts = texts};
    memset(tokens, 0xA5, sizeof tokens);
    bool ok = http_document_read(exact, n, &d);
    if (ok) {
        json_t *o = json_loadb(exact, n, JSON_REJECT_DUPLICATES, NULL);
        if (o == NULL)
            fail_msg("jansson does not read: %.*s", (int)n, line);
        const json_t *content = json_object_get(o, texts ? "text" : "tokens"),
                     *remove = json_object_get(o, "remove");
        assert_int_equal(json_object_size(o), 1u + d.has_remove);
        assert_int_equal(d.has_remove, remove != NULL);
        assert_true(remove == NULL || json_is_boolean(remove));
        assert_true(remove == NULL || json_is_true(remove) == d.remove);
        if (texts) {
            assert_true(json_is_string(content));
            assert_int_equal(json_string_length(content), d.text_n);
            assert_memory_equal(json_string_value(content), d.text, d.text_n);
        } else {
            assert_true(json_is_array(content));
            assert_int_equal(json_array_size(content), d.n);
            assert_true(d.n <= n / 2);
        }
        for (size_t i = 0; i < d.n; i++) {
            assert_true(json_is_integer(json_array_get(content, i)));
            assert_int_equal(i < cap ? (json_int_t)tokens[i] : json_integer_value(json_array_get(content, i)),
                             json_integer_value(json_array_get(content, i)));
        }
        assert_int_equal(tokens[cap < TOKENS ? cap : TOKENS - 1], 0xA5A5A5A5);
        json_decref(o);
    }
    free(exact);
    return ok;
}

static bool accepts(const char *line, bool texts) { return agrees(line, strlen(line), texts, TOKENS); }

static void test_accepted(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{\"tokens\":[]}",
        "{\"tokens\":[0]}",
        "{\"tokens\": [1, 2, 3]}",
        "{\"tokens\":[2,4,5,3],\"remove\":true}",
        "{\"remove\": false, \"tokens\": [4294967295, 0, 12345678, 1234567, 123456789, 4294967290]}",
        "{\"tokens\":[10000000,99999999,100000000,999999999,1000000000,9999999,1]}",
        " \t\r{ \"tokens\" : [ 1 ,\t2 , 3\t]\r, \"remove\"\t: true } \r",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!accepts(good[i], false))
            fail_msg("not accepted: %s", good[i]);
        assert_false(accepts(good[i], true));
    }
    static const char *const texts[] = {
        "{\"text\":\"\"}",
        "{\"text\":\"to be or not to be\"}",
        "{\"text\": \"f\xC3\xBCr \xE2\x82\xAC \xF0\x9F\x99\x82 \x7F \xC2\x80\", \"remove\": true}",
        "{\"remove\":false,\"text\":\" x \"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!accepts(texts[i], true))
            fail_msg("not accepted: %s", texts[i]);
        assert_false(accepts(texts[i], false));
    }
    struct http_document d = {.tokens = tokens, .cap = 2};
    assert_true(http_document_read(good[3], strlen(good[3]), &d));
    assert_int_equal(d.n, 4);
    assert_int_equal(tokens[1], 4);
    assert_true(d.has_remove && d.remove);
}

/* Every number around each number of digits, at every place of a word of 8 bytes, and at the end. */
static void test_numbers(void **state)
{
    (void)state;
    char line[LINE];
    for (uint64_t power = 1; power <= UINT64_C(10000000000); power *= 10) {
        for (uint64_t v = power - 1; v <= power + 1; v++) {
            for (int pad = 0; pad < 8; pad++) {
                (void)snprintf(line, sizeof line, "{\"tokens\":%*s[%llu,%llu, %llu]}", pad, "",
                               (unsigned long long)v, (unsigned long long)v, (unsigned long long)v);
                assert_int_equal(accepts(line, false), v <= UINT32_MAX);
                for (size_t n = strlen(line) - 1; n > 0; n--) /* cut off anywhere it is no document */
                    assert_false(agrees(line, n, false, TOKENS));
            }
        }
    }
    assert_true(accepts("{\"tokens\":[4294967295]}", false));
    assert_false(accepts("{\"tokens\":[4294967296]}", false));
}

static void test_left_to_jansson(void **state)
{
    (void)state;
    static const char *const other[] = {"",
                                        "{",
                                        "[]",
                                        "{}",
                                        "{\"remove\":true}",
                                        "{\"tokens\":[1}",
                                        "{\"tokens\":[1,]}",
                                        "{\"tokens\":[,1]}",
                                        "{\"tokens\":[1 2]}",
                                        "{\"tokens\":[1]",
                                        "{\"tokens\":[1],}",
                                        "{\"tokens\":[1]}x",
                                        "{\"tokens\":[1]}{}",
                                        "{\"tokens\":[01]}",
                                        "{\"tokens\":[00]}",
                                        "{\"tokens\":[0123456789]}",
                                        "{\"tokens\":[-0]}",
                                        "{\"tokens\":[-1]}",
                                        "{\"tokens\":[+1]}",
                                        "{\"tokens\":[1.0]}",
                                        "{\"tokens\":[1e3]}",
                                        "{\"tokens\":[1234567E3]}",
                                        "{\"tokens\":[18446744073709551617]}",
                                        "{\"tokens\":[true]}",
                                        "{\"tokens\":[[1]]}",
                                        "{\"tokens\":[\"1\"]}",
                                        "{\"tokens\":null}",
                                        "{\"tokens\":[1],\"tokens\":[1]}",
                                        "{\"tokens\":[1],\"remove\":true,\"remove\":true}",
                                        "{\"tokens\":[1],\"remove\":null}",
                                        "{\"tokens\":[1],\"remove\":\"true\"}",
                                        "{\"tokens\":[1],\"remove\":truex}",
                                        "{\"tokens\":[1],\"text\":\"a\"}",
                                        "{\"t\\u006fkens\":[1]}",
                                        "{\"tokens\":[1],\"more\":1}",
                                        "{'tokens':[1]}",
                                        "\xEF\xBB\xBF{\"tokens\":[1]}",
                                        "{\"tokens\":[1]/**/}",
                                        "{\"text\":\"a\\nb\"}",
                                        "{\"text\":\"a\\\"b\"}",
                                        "{\"text\":\"a\tb\"}",
                                        "{\"text\":\"a}",
                                        "{\"text\":\"a\xFF\"}",
                                        "{\"text\":\"\xC0\x80\"}",
                                        "{\"text\":\"\xED\xA0\x80\"}",
                                        "{\"text\":\"\xF4\x90\x80\x80\"}",
                                        "{\"text\":\"\xC3\"}",
                                        "{\"text\":null}",
                                        "{\"text\":\"a\",\"text\":\"a\"}"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        if (accepts(other[i], false) || accepts(other[i], true))
            fail_msg("accepted: %s", other[i]);
    }
    assert_false(agrees("{\"tokens\":[1]}\0", 15, false, TOKENS));
    assert_false(agrees("{\"tokens\":[1\0]}", 15, false, TOKENS));
    assert_false(agrees("{\"text\":\"a\0\"}", 13, true, TOKENS));
}

/* ---- random lines ----------------------------------------------------------------------------------------------- */

static size_t space(struct cht_rng *r, char *out)
{
    size_t n = cht_rng_below(r, 4) == 0 ? (size_t)cht_rng_below(r, 3) : 0;
    for (size_t i = 0; i < n; i++)
        out[i] = " \t\n\r"[cht_rng_below(r, 4)];
    return n;
}

static size_t put_number(struct cht_rng *r, char *out)
{
    static const char *const odd[] = {"0",          "00",          "-1",   "1.5",   "1e2", "4294967295",
                                      "4294967296", "99999999999", "null", "\"1\"", "[1]", ""};
    if (cht_rng_below(r, 60) == 0)
        return (size_t)sprintf(out, "%s", odd[cht_rng_below(r, 12)]);
    return (size_t)sprintf(out, "%u", (unsigned)(cht_rng_next(r) >> (32 + cht_rng_below(r, 31))));
}

static size_t put_text(struct cht_rng *r, char *out)
{
    static const char *const parts[] = {"to",
                                        "be",
                                        "a",
                                        " ",
                                        "",
                                        "\xC3\xBC",
                                        "\xE2\x82\xAC",
                                        "\xEF\xBF\xBF",
                                        "\xF0\x9F\x99\x82",
                                        "\x7F",
                                        ".",
                                        "\\n",
                                        "\xED\xA0\x80",
                                        "\x01"};
    size_t n = 0;
    out[n++] = '"';
    for (uint64_t i = cht_rng_below(r, 8); i > 0; i--)
        n += (size_t)sprintf(out + n, "%s", parts[cht_rng_below(r, cht_rng_below(r, 20) == 0 ? 14 : 11)]);
    out[n++] = '"';
    return n;
}

static size_t put_list(struct cht_rng *r, char *out)
{
    size_t n = 0;
    out[n++] = '[';
    for (uint64_t i = 0, count = cht_rng_below(r, 9); i < count; i++) {
        n += space(r, out + n);
        n += put_number(r, out + n);
        n += space(r, out + n);
        if (i + 1 < count)
            out[n++] = ',';
    }
    out[n++] = ']';
    return n;
}

static size_t put_member(struct cht_rng *r, bool content, bool texts, char *out)
{
    static const char *const values[] = {"true", "false", "null", "1"};
    size_t n = (size_t)sprintf(out, "%s", !content ? "\"remove\"" : texts ? "\"text\"" : "\"tokens\"");
    n += space(r, out + n);
    out[n++] = ':';
    n += space(r, out + n);
    if (content)
        return n + (texts ? put_text(r, out + n) : put_list(r, out + n));
    return n + (size_t)sprintf(out + n, "%s", values[cht_rng_below(r, cht_rng_below(r, 9) == 0 ? 4 : 2)]);
}

static size_t put_document(struct cht_rng *r, bool texts, char *out)
{
    size_t n = space(r, out);
    uint64_t count = 1 + cht_rng_below(r, 2), first = cht_rng_below(r, 4) == 0;
    out[n++] = '{';
    for (uint64_t i = 0; i < count; i++) {
        n += space(r, out + n);
        n += put_member(r, i == first || count == 1, texts, out + n);
        n += space(r, out + n);
        if (i + 1 < count)
            out[n++] = ',';
    }
    out[n++] = '}';
    return n + space(r, out + n);
}

/* Bytes changed, left out, doubled; cut off. */
static size_t damage(struct cht_rng *r, char *text, size_t n)
{
    static const char alphabet[] = "{}[],:\"0123456789.eE+-ktmno \t\n\r\\x\x80\xC3\xE2";
    for (uint64_t k = 1 + cht_rng_below(r, 3); k > 0 && n > 0; k--) {
        size_t at = (size_t)cht_rng_below(r, n);
        switch (cht_rng_below(r, 5)) {
        case 0:
            text[at] = (char)cht_rng_next(r);
            break;
        case 1:
            text[at] = alphabet[cht_rng_below(r, sizeof alphabet - 1)];
            break;
        case 2:
            memmove(text + at, text + at + 1, n - at - 1);
            n--;
            break;
        case 3:
            memmove(text + at + 1, text + at, n - at);
            n++;
            break;
        default:
            n = at;
            break;
        }
    }
    return n;
}

static void test_random(void **state)
{
    (void)state;
    struct cht_rng r;
    char line[LINE];
    unsigned whole[2] = {0}, damaged[2] = {0};
    cht_rng_seed(&r, 20261129);
    for (unsigned i = 0; i < 400000; i++) {
        bool texts = i % 2 == 1;
        size_t n = put_document(&r, texts, line),
               cap = cht_rng_below(&r, 3) == 0 ? cht_rng_below(&r, 8) : TOKENS;
        whole[texts] += agrees(line, n, texts, cap);
        damaged[texts] += agrees(line, damage(&r, line, n), texts, cap);
    }
    for (unsigned texts = 0; texts < 2; texts++) { /* both are really tried */
        assert_in_range(whole[texts], 20000, 200000);
        assert_in_range(damaged[texts], 1000, whole[texts]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_left_to_jansson),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
