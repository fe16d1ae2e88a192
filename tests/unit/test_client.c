/* test_client: parts of the tools by themselves: the histogram against sorted values, answers of HTTP cut up in every way, and "did you
 * mean".
 */
#include "base/nearest.h"
#include "base/rng.h"
#include "tools/answer.h"
#include "tools/hdr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- the histogram ---------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Every percentile is at most 1/1024 over the value that stands there, and never under it; the extremes are exact. */
static void test_percentiles(void **state)
{
    enum { N = 20000 };
    uint64_t *all = malloc(N * sizeof *all);
    struct tool_hdr h, half[2];
    struct cht_rng r;
    (void)state;
    assert_non_null(all);
    cht_rng_seed(&r, 11);
    assert_int_equal(tool_hdr_init(&h, NULL), CHT_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tool_hdr_init(&half[i], NULL), CHT_OK);
    for (size_t i = 0; i < N; i++) {
        all[i] = cht_rng_next(&r) >> (22 + cht_rng_below(&r, 42)); /* of every size up to 2^42 - 1 */
        tool_hdr_record(&half[i % 2], all[i]);
    }
    tool_hdr_add(&h, &half[0]);
    tool_hdr_add(&h, &half[1]);
    qsort(all, N, sizeof *all, by_value);
    assert_int_equal(h.total, N);
    assert_int_equal(h.least, all[0]);
    assert_int_equal(h.most, all[N - 1]);
    for (double p = 0.01; p <= 100; p += 0.37) {
        size_t at = (size_t)(p / 100 * N + 0.5);
        uint64_t want = all[at > 0 ? at - 1 : 0], got = tool_hdr_percentile(&h, p);
        assert_in_range(got, want, want + want / 1024 + 1);
    }
    assert_int_equal(tool_hdr_percentile(&h, 100), all[N - 1]);
    tool_hdr_fini(&h);
    tool_hdr_fini(&half[0]);
    tool_hdr_fini(&half[1]);
    free(all);
}

/* Neighbours of every boundary, each alone: what comes out is what went in, to three digits. */
static void test_boundaries(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 64; bits++) {
        for (int off = -2; off <= 2; off++) {
            struct tool_hdr h;
            uint64_t v = (UINT64_C(1) << bits) + (uint64_t)(int64_t)off;
            uint64_t kept = v < TOOL_HDR_MAX ? v : TOOL_HDR_MAX;
            assert_int_equal(tool_hdr_init(&h, NULL), CHT_OK);
            tool_hdr_record(&h, v);
            tool_hdr_record(&h, TOOL_HDR_MAX); /* so that the largest does not cut what is found */
            assert_in_range(tool_hdr_percentile(&h, 50), kept, kept + kept / 1024);
            tool_hdr_fini(&h);
        }
    }
    struct tool_hdr none;
    assert_int_equal(tool_hdr_init(&none, NULL), CHT_OK);
    assert_int_equal(tool_hdr_percentile(&none, 50), 0);
    tool_hdr_fini(&none);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

struct got {
    unsigned status;
    size_t done;
    char body[256];
    size_t n;
};

/* Reads the text in pieces of `step` bytes, as one answer after the other. False: it is none. */
static bool read_all(const char *text, size_t n, size_t step, struct got *g)
{
    struct tool_answer a;
    *g = (struct got){.status = 0};
    tool_answer_begin(&a, false);
    for (size_t from = 0; from < n; from += step) {
        size_t len = n - from < step ? n - from : step, at = 0;
        char *piece = malloc(len); /* its own block: the sanitizer sees a step beyond */
        assert_non_null(piece);
        memcpy(piece, text + from, len);
        for (;;) {
            const char *body;
            size_t used, some;
            enum tool_answer_next next = tool_answer_read(&a, piece + at, len - at, &used, &body, &some);
            at += used;
            assert_true(at <= len);
            if (next == TOOL_ANSWER_BAD) {
                free(piece);
                return false;
            }
            if (next == TOOL_ANSWER_BODY) {
                assert_true(g->n + some < sizeof g->body);
                memcpy(g->body + g->n, body, some);
                g->n += some;
            } else if (next == TOOL_ANSWER_DONE) {
                g->status = a.status;
                g->done++;
                tool_answer_begin(&a, false);
            } else {
                break;
            }
        }
        free(piece);
    }
    return true;
}

static void test_answers(void **state)
{
    static const struct {
        const char *text, *body;
        unsigned status;
        size_t done;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, 1},
        {"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:   5  \r\nX: y\r\n\r\nhelloHTTP/1.1 404 N\r\nContent-Length: "
         "2\r\n\r\nno",
         "hellono", 404, 2},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
         "abc0123456789", 200, 1},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1 204 "
         "No\r\n\r\n",
         "", 204, 2},
        {"HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", "", 304, 1},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "", 201, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].text);
        for (size_t step = 1; step <= n; step++) {
            struct got g;
            assert_true(read_all(rows[i].text, n, step, &g));
            assert_int_equal(g.status, rows[i].status);
            assert_int_equal(g.done, rows[i].done);
            assert_int_equal(g.n, strlen(rows[i].body));
            assert_memory_equal(g.body, rows[i].body, g.n);
        }
    }
}

static void test_what_is_no_answer(void **state)
{
    static const char *const rows[] = {"HTTP/2 200 OK\r\n",
                                       "nonsense\r\n",
                                       "HTTP/1.1 20 OK\r\n\r\n",
                                       "HTTP/1.1 999 OK\r\n",
                                       "HTTP/1.1 200 OK\r\n\r\n",
                                       "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                                       "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"};
    struct got g;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t step = 1; step <= strlen(rows[i]); step++)
            assert_false(read_all(rows[i], strlen(rows[i]), step, &g));
    }
}

/* Whatever comes: no step beyond, and an end. */
static void test_any_bytes(void **state)
{
    static const char *const words[] = {"HTTP/1.1 200 OK\r\n",
                                        "Content-Length: ",
                                        "5",
                                        "\r\n",
                                        "\r\n\r\n",
                                        "Transfer-Encoding: chunked\r\n",
                                        "0",
                                        "a",
                                        "\n",
                                        "\r",
                                        ":",
                                        " ",
                                        "\xff",
                                        "hello"};
    struct cht_rng r;
    (void)state;
    cht_rng_seed(&r, 5);
    for (int round = 0; round < 20000; round++) {
        char text[200];
        size_t n = 0, parts = 1 + cht_rng_below(&r, 9);
        for (size_t i = 0; i < parts; i++) {
            const char *w = words[cht_rng_below(&r, sizeof words / sizeof *words)];
            memcpy(text + n, w, strlen(w));
            n += strlen(w);
        }
        struct got one, whole;
        bool a = read_all(text, n, 1 + cht_rng_below(&r, n), &one), b = read_all(text, n, n, &whole);
        assert_int_equal(a, b);
        assert_int_equal(one.done, whole.done);
    }
}

/* ---- did you mean ------------------------------------------------------------------------------------------------------- */

static const char *nearest(const char *word)
{
    static const char *const known[] = {"get",      "put",  "del",   "scan",    "restore",
                                        "database", "data", "limit", "predict", "value-bytes"};
    struct cht_nearest n = {.word = word};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cht_nearest_try(&n, known[i]);
    return n.best;
}

static void test_did_you_mean(void **state)
{
    static const struct {
        const char *typed, *meant;
    } rows[] = {{"sacn", "scan"},
                {"scn", "scan"},
                {"scann", "scan"},
                {"scan", "scan"},
                {"gte", "get"},
                {"databse", "database"},
                {"databases", "database"},
                {"limt", "limit"},
                {"pred", "predict"},
                {"restroe", "restore"},
                {"vlaue-byts", "value-bytes"},
                {"value", "value-bytes"},
                {"zebra", NULL},
                {"x", NULL},
                {"", NULL},
                {"nothing-like-it", NULL}};
    char longest[200];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].meant == NULL)
            assert_null(nearest(rows[i].typed));
        else
            assert_string_equal(nearest(rows[i].typed), rows[i].meant);
    }
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_null(nearest(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles), cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_answers),     cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_any_bytes),   cmocka_unit_test(test_did_you_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
