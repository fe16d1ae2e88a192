/* test_question: what http_question_read accepts means exactly what jansson reads in it, over documents that are written in all
 * common ways, in odd ways, and damaged at random; and it accepts what clients send.
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
#include "http/calls/question.h"

enum { TOKENS = 64, TEXT = 2048, K_MAX = 100000 };

static uint32_t tokens[TOKENS];

/* In memory of exactly its size, so that the sanitizer sees a step too far. */
static bool read_text(const char *text, size_t n, struct http_question *q)
{
    char *exact = malloc(n > 0 ? n : 1);
    memcpy(exact, text, n);
    *q = (struct http_question){.tokens = tokens, .cap = TOKENS};
    bool ok = http_question_read(exact, n, K_MAX, q);
    free(exact);
    return ok;
}

static void same_number(const json_t *o, const char *name, uint64_t max, bool has, uint64_t v,
                        size_t *members)
{
    const json_t *got = json_object_get(o, name);
    assert_int_equal(has, got != NULL);
    *members += has;
    if (!has)
        return;
    assert_true(json_is_integer(got));
    assert_int_equal(json_integer_value(got), v);
    assert_in_range(v, 1, max);
}

/* Where it is accepted, jansson reads the same. */
static bool agrees(const char *text, size_t n)
{
    static const char *const modes[] = {"deepest", "levels", "blend", "live"};
    struct http_question q;
    if (!read_text(text, n, &q))
        return false;
    json_error_t where;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
    if (o == NULL)
        fail_msg("jansson does not read: %.*s", (int)n, text);
    const json_t *list = json_object_get(o, "tokens"), *mode = json_object_get(o, "mode");
    size_t members = 1;
    assert_true(json_is_array(list));
    assert_int_equal(json_array_size(list), q.n);
    for (size_t i = 0; i < q.n; i++) {
        assert_true(json_is_integer(json_array_get(list, i)));
        assert_int_equal(json_integer_value(json_array_get(list, i)), q.tokens[i]);
    }
    same_number(o, "k", K_MAX, q.has_k, q.k, &members);
    same_number(o, "max_order", UINT32_MAX, q.has_max_order, q.max_order, &members);
    assert_int_equal(q.has_mode, mode != NULL);
    members += q.has_mode;
    const json_t *bos = json_object_get(o, "bos");
    assert_int_equal(q.has_bos, bos != NULL);
    assert_true(bos == NULL || json_is_boolean(bos));
    assert_int_equal(q.no_bos, json_is_false(bos));
    members += q.has_bos;
    assert_string_equal(mode != NULL ? json_string_value(mode) : "deepest", modes[q.mode]);
    assert_int_equal(json_object_size(o), members);
    json_decref(o);
    return true;
}

static bool accepts(const char *text) { return agrees(text, strlen(text)); }

static void test_accepted(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{\"tokens\":[]}",
        "{\"tokens\":[0]}",
        "{\"tokens\": [1, 2, 3]}",
        "{\"tokens\": [1, 2, 3], \"k\": 20, \"max_order\": 3, \"mode\": \"deepest\"}",
        "{\"k\":1,\"tokens\":[4294967295,0],\"mode\":\"blend\"}",
        "{\"max_order\":4294967295,\"k\":100000,\"mode\":\"levels\",\"tokens\":[10]}",
        " \t\r\n{ \"tokens\" : [ 1 , 2 ] , \"k\" : 5 } \n",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!accepts(good[i]))
            fail_msg("not accepted: %s", good[i]);
    }
    struct http_question q;
    assert_true(read_text(good[3], strlen(good[3]), &q));
    assert_int_equal(q.n, 3);
    assert_int_equal(q.tokens[2], 3);
    assert_int_equal(q.k, 20);
    assert_int_equal(q.max_order, 3);
}

static void test_left_to_jansson(void **state)
{
    (void)state;
    static const char *const other[] = {"",
                                        "{",
                                        "[]",
                                        "{}",
                                        "{\"k\":3}",
                                        "{\"tokens\":[1}",
                                        "{\"tokens\":[1,]}",
                                        "{\"tokens\":[,1]}",
                                        "{\"tokens\":[1 2]}",
                                        "{\"tokens\":[1]",
                                        "{\"tokens\":[1],}",
                                        "{\"tokens\":[1]}x",
                                        "{\"tokens\":[1]}{}",
                                        "{\"tokens\":[01]}",
                                        "{\"tokens\":[-0]}",
                                        "{\"tokens\":[-1]}",
                                        "{\"tokens\":[+1]}",
                                        "{\"tokens\":[1.0]}",
                                        "{\"tokens\":[1e3]}",
                                        "{\"tokens\":[1E3]}",
                                        "{\"tokens\":[4294967296]}",
                                        "{\"tokens\":[18446744073709551617]}",
                                        "{\"tokens\":[true]}",
                                        "{\"tokens\":[[1]]}",
                                        "{\"tokens\":null}",
                                        "{\"tokens\":[1],\"tokens\":[1]}",
                                        "{\"tokens\":[1],\"k\":1,\"k\":1}",
                                        "{\"tokens\":[1],\"k\":0}",
                                        "{\"tokens\":[1],\"k\":100001}",
                                        "{\"tokens\":[1],\"k\":null}",
                                        "{\"tokens\":[1],\"k\":\"1\"}",
                                        "{\"tokens\":[1],\"max_order\":0}",
                                        "{\"tokens\":[1],\"mode\":\"DEEPEST\"}",
                                        "{\"tokens\":[1],\"mode\":\"blend \"}",
                                        "{\"tokens\":[1],\"mode\":\"blend\",\"mode\":\"blend\"}",
                                        "{\"tokens\":[1],\"mode\":\"\\u0062lend\"}",
                                        "{\"t\\u006fkens\":[1]}",
                                        "{\"tokens\":[1],\"more\":1}",
                                        "{'tokens':[1]}",
                                        "\xEF\xBB\xBF{\"tokens\":[1]}",
                                        "{\"tokens\":[1]/**/}"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        if (accepts(other[i]))
            fail_msg("accepted: %s", other[i]);
    }
    assert_false(agrees("{\"tokens\":[1]}\0", 15));
    char many[TEXT];
    size_t n = (size_t)sprintf(many, "{\"tokens\":[0");
    for (int i = 0; i < TOKENS; i++) /* one more than there is room for */
        n += (size_t)sprintf(many + n, ",%d", i);
    n += (size_t)sprintf(many + n, "]}");
    assert_false(agrees(many, n));
}

/* ---- random documents ------------------------------------------------------------------------------------------- */

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
    if (cht_rng_below(r, 30) == 0)
        return (size_t)sprintf(out, "%s", odd[cht_rng_below(r, 12)]);
    return (size_t)sprintf(out, "%u", (unsigned)(cht_rng_next(r) >> (32 + cht_rng_below(r, 31))));
}

static size_t put_member(struct cht_rng *r, char *out)
{
    static const char *const modes[] = {"\"deepest\"", "\"levels\"", "\"blend\"", "\"\"", "1"};
    static const char *const names[] = {"\"tokens\"", "\"k\"", "\"max_order\"", "\"mode\"", "\"mod\""};
    unsigned what = (unsigned)cht_rng_below(r, cht_rng_below(r, 20) == 0 ? 5 : 4);
    size_t n = (size_t)sprintf(out, "%s", names[what]);
    n += space(r, out + n);
    out[n++] = ':';
    n += space(r, out + n);
    if (what == 3)
        return n + (size_t)sprintf(out + n, "%s", modes[cht_rng_below(r, cht_rng_below(r, 9) == 0 ? 5 : 3)]);
    if (what != 0)
        return n + put_number(r, out + n);
    out[n++] = '[';
    for (uint64_t i = 0, count = cht_rng_below(r, 6); i < count; i++) {
        n += space(r, out + n);
        n += put_number(r, out + n);
        n += space(r, out + n);
        if (i + 1 < count)
            out[n++] = ',';
    }
    out[n++] = ']';
    return n;
}

static size_t put_document(struct cht_rng *r, char *out)
{
    size_t n = space(r, out);
    out[n++] = '{';
    for (uint64_t i = 0, count = 1 + cht_rng_below(r, 4); i < count; i++) {
        n += space(r, out + n);
        n += put_member(r, out + n);
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
    static const char alphabet[] = "{}[],:\"0123456789.eE+-ktmno \t\n\r\\x";
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
    char text[TEXT];
    unsigned whole = 0, damaged = 0;
    cht_rng_seed(&r, 20240611);
    for (unsigned i = 0; i < 400000; i++) {
        size_t n = put_document(&r, text);
        whole += agrees(text, n);
        damaged += agrees(text, damage(&r, text, n));
    }
    assert_in_range(whole, 20000, 400000); /* both are really tried */
    assert_in_range(damaged, 1000, whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_left_to_jansson),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
