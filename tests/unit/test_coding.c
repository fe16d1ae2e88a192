/* test_coding: encoders and decoders against each other and in pieces of any size; what is damaged is refused; a block can be decoded when it is
 * there; allocations that fail. Buffers are exact, so that the sanitizer sees a byte too many. */
#include "base/alloc.h"
#include "base/rng.h"
#include "http/coding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct bytes {
    uint8_t *p;
    size_t n, cap;
};

static struct bytes make(struct cht_rng *rng, size_t n)
{
    struct bytes b = {malloc(n + 1), n, n + 1};
    unsigned kind = (unsigned)(cht_rng_next(rng) % 3);
    for (size_t i = 0; i < n; i++)
        b.p[i] = kind == 0   ? 'x'
                 : kind == 1 ? (uint8_t)cht_rng_next(rng)
                             : (uint8_t)("0123456789abcdef"[cht_rng_next(rng) % 16]);
    return b;
}

static void append(struct bytes *to, const void *p, size_t n)
{
    if (to->n + n + 1 > to->cap) {
        to->cap = 2 * (to->n + n + 1);
        to->p = realloc(to->p, to->cap);
    }
    assert_non_null(to->p);
    if (n > 0)
        memcpy(to->p + to->n, p, n);
    to->n += n;
}

/* Decodes pieces of up to `in` bytes into rooms of up to `out`. */
static enum cht_rc decode(struct http_decoder *d, struct cht_rng *rng, struct bytes in, size_t in_max,
                          size_t out_max, struct bytes *out)
{
    struct cht_err err;
    size_t at = 0;
    bool more = false;
    while (at < in.n || more) {
        size_t n = 1 + cht_rng_next(rng) % in_max, room = 1 + cht_rng_next(rng) % out_max;
        n = n < in.n - at ? n : in.n - at;
        uint8_t *exact = malloc(n + 1), *to = malloc(room);
        memcpy(exact, in.p + at, n);
        struct http_decoding io = {exact, n, to, room};
        enum cht_rc rc = http_decoder_run(d, &io, &err);
        append(out, to, room - io.room);
        assert_true(rc == CHT_OK || err.msg[0] != 0);
        assert_true(io.in_len == 0 || io.room == 0 || rc != CHT_OK);
        at += n - io.in_len;
        more = io.room == 0;
        free(exact), free(to);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

/* In blocks; after each of them all that went in can be had. */
static struct bytes encode(enum http_coding c, struct cht_rng *rng, struct bytes in, size_t block)
{
    struct bytes out = {NULL, 0, 0}, seen = {NULL, 0, 0};
    struct http_encoder *e = http_encoder_new(c);
    struct http_decoder *d = http_decoder_new(c);
    assert_non_null(e);
    assert_non_null(d);
    for (size_t at = 0, last = 0; !last;) {
        size_t n = 1 + cht_rng_next(rng) % block;
        n = n < in.n - at ? n : in.n - at;
        last = at + n == in.n;
        size_t room = http_encoder_room(n);
        uint8_t *exact = malloc(room);
        size_t got = http_encoder_block(e, in.p + at, n, last != 0, exact);
        assert_true(got > 0 && got <= room);
        struct bytes one = {exact, got, got};
        assert_int_equal(decode(d, rng, one, 40000, 40000, &seen), CHT_OK);
        at += n;
        assert_int_equal(seen.n, at);
        assert_int_equal(http_decoder_complete(d), last);
        append(&out, exact, got);
        free(exact);
    }
    assert_memory_equal(seen.p, in.p, in.n);
    free(seen.p);
    http_encoder_free(e);
    http_decoder_free(d);
    return out;
}

static void test_there_and_back(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 134);
    static const size_t sizes[] = {0, 1, 2, 100, 1023, 4096, 30000, 70000};
    for (int c = HTTP_CODING_GZIP; c < HTTP_CODINGS; c++) {
        for (size_t i = 0; i < 3 * sizeof sizes / sizeof *sizes; i++) {
            struct bytes in = make(&rng, sizes[i / 3]), out = {NULL, 0, 0};
            struct bytes coded = encode((enum http_coding)c, &rng, in, i % 2 == 0 ? 131072 : 5000);
            struct http_decoder *d = http_decoder_new((enum http_coding)c);
            struct bytes twice = {NULL, 0, 0};
            append(&twice, coded.p, coded.n);
            append(&twice, coded.p, coded.n); /* one after the other is one body */
            assert_int_equal(decode(d, &rng, twice, i % 3 == 0 ? 70 : 9000,
                                    i % 2 == 0 ? 4000 : 13 + sizes[i / 3] / 20, &out),
                             CHT_OK);
            assert_true(http_decoder_complete(d));
            assert_int_equal(out.n, 2 * in.n);
            if (in.n > 0) {
                assert_memory_equal(out.p, in.p, in.n);
                assert_memory_equal(out.p + in.n, in.p, in.n);
            }
            assert_true(http_decoder_memory(d) < 2u << 20);
            http_decoder_free(d);
            free(in.p), free(out.p), free(coded.p), free(twice.p);
        }
    }
}

/* No end can be missing without the body being incomplete; no bit of a gzip body can change without a refusal unless it means nothing.
 * zstd frames need not have a checksum. */
static void test_damage(void **state)
{
    (void)state;
    struct cht_rng rng;
    cht_rng_seed(&rng, 135);
    for (int c = HTTP_CODING_GZIP; c < HTTP_CODINGS; c++) {
        struct bytes in = make(&rng, 3000);
        struct bytes coded = encode((enum http_coding)c, &rng, in, 700);
        for (size_t at = 0; at < coded.n; at++) {
            struct bytes out = {NULL, 0, 0};
            struct http_decoder *d = http_decoder_new((enum http_coding)c);
            struct bytes cut = {coded.p, at, at};
            assert_int_equal(decode(d, &rng, cut, 4096, 4096, &out), CHT_OK);
            assert_false(http_decoder_complete(d));
            assert_true(out.n <= in.n);
            http_decoder_free(d);
            free(out.p);
            out = (struct bytes){NULL, 0, 0};
            d = http_decoder_new((enum http_coding)c);
            coded.p[at] ^= 0x10;
            enum cht_rc rc = decode(d, &rng, coded, 4096, 4096, &out);
            coded.p[at] ^= 0x10;
            assert_true(rc == CHT_OK || rc == CHT_INVALID_CODING);
            bool same = out.n == in.n && memcmp(out.p, in.p, in.n) == 0;
            if (c == HTTP_CODING_GZIP && rc == CHT_OK && http_decoder_complete(d))
                assert_true(same); /* a bit that means nothing */
            http_decoder_free(d);
            free(out.p);
        }
        free(in.p), free(coded.p);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int coding; /* -1: unknown */
    } cases[] = {{NULL, 0},     {"", 0},           {"identity", 0},    {"gzip", 1},
                 {"GZip", 1},   {"x-gzip", 1},     {"zstd", 2},        {"ZSTD", 2},
                 {"br", -1},    {"gzip,zstd", -1}, {"gzip, gzip", -1}, {"deflate", -1},
                 {" gzip", -1}, {"gzip ", -1},     {"*", -1},          {"gzipx", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum http_coding c = HTTP_CODINGS;
        bool known = http_coding_find(cases[i].header, &c);
        assert_int_equal(known, cases[i].coding >= 0);
        assert_true(!known || (int)c == cases[i].coding);
    }
}

/* Each allocation of ours, and of zlib, which has ours. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int c = HTTP_CODING_GZIP; c < HTTP_CODINGS; c++) {
        long failed = 0;
        for (uint64_t n = 1;; n++) {
            cht_alloc_fail_at(n, false);
            struct http_encoder *e = http_encoder_new((enum http_coding)c);
            struct http_decoder *d = http_decoder_new((enum http_coding)c);
            uint8_t out[4096];
            struct cht_err err;
            struct http_decoding io = {
                (const uint8_t *)"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x01\x01\x00\xfe\xff"
                                 "a",
                16, out, sizeof out};
            enum cht_rc rc = d != NULL && c == HTTP_CODING_GZIP ? http_decoder_run(d, &io, &err) : CHT_OK;
            cht_alloc_fail_at(0, false);
            bool all = e != NULL && d != NULL && rc == CHT_OK;
            http_encoder_free(e);
            http_decoder_free(d);
            if (all)
                break;
            assert_true(rc == CHT_OK || rc == CHT_NO_MEMORY);
            failed++;
        }
        assert_true(failed >= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
