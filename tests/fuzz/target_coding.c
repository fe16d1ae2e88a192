/* coding: bodies that come compressed, and answers that go out so. Input: a byte with the coding and how long the pieces and rooms are, then
 * the rest, which is decoded as it is, and encoded and decoded.
 *
 * Whatever comes in, in whatever pieces: the same bytes come out before the same end (but that libzstd sees an empty last block of a frame that
 * should have had bytes only where all of it comes at once). What was encoded comes back, and can be read block by block.
 */
#include "fuzz/fuzz.h"

#include "http/coding.h"

#define OUT_MAX (1u << 20) /* of a body that expands: the rest is not asked for, as the server would */

struct run {
    uint8_t *p;
    size_t n;
    enum cht_rc rc;
    bool complete;
};

static struct run decode(enum http_coding c, const uint8_t *data, size_t n, size_t piece, size_t room)
{
    struct run run = {.p = malloc(OUT_MAX), .rc = CHT_OK};
    struct http_decoder *d = http_decoder_new(c);
    struct cht_err err = {0};
    FUZZ_CHECK(run.p != NULL && d != NULL);
    bool more = false;
    for (size_t at = 0; (at < n || more) && run.rc == CHT_OK && run.n < OUT_MAX;) {
        size_t take = piece < n - at ? piece : n - at, fit = room < OUT_MAX - run.n ? room : OUT_MAX - run.n;
        uint8_t *in = fuzz_exact(data + at, take), *out = malloc(fit);
        struct http_decoding io = {in, take, out, fit};
        FUZZ_CHECK(out != NULL);
        run.rc = http_decoder_run(d, &io, &err);
        FUZZ_CHECK(io.in_len <= take && io.room <= fit);
        FUZZ_CHECK(run.rc == CHT_OK || run.rc == CHT_INVALID_CODING);
        FUZZ_CHECK(run.rc != CHT_OK || io.in_len == 0 || io.room == 0);
        FUZZ_CHECK(run.rc == CHT_OK || err.msg[0] != 0);
        memcpy(run.p + run.n, out, fit - io.room);
        run.n += fit - io.room;
        at += take - io.in_len;
        more = io.room == 0;
        free(in);
        free(out);
        FUZZ_CHECK(http_decoder_memory(d) <= 10u << 20);
    }
    run.complete = run.rc == CHT_OK && http_decoder_complete(d);
    http_decoder_free(d);
    return run;
}

static void as_it_is(enum http_coding c, const uint8_t *data, size_t n, size_t piece, size_t room)
{
    struct run a = decode(c, data, n, SIZE_MAX, 65536), b = decode(c, data, n, piece, room);
    if (a.n < OUT_MAX && b.n < OUT_MAX && c == HTTP_CODING_GZIP)
        FUZZ_CHECK(a.rc == b.rc && a.complete == b.complete);
    size_t both = a.n < b.n ? a.n : b.n;
    FUZZ_CHECK(memcmp(a.p, b.p, both) == 0);
    FUZZ_CHECK(a.rc != CHT_OK || b.rc != CHT_OK || (a.n == b.n && a.complete == b.complete));
    free(a.p);
    free(b.p);
}

static void there_and_back(enum http_coding c, const uint8_t *data, size_t n, size_t piece, size_t room)
{
    struct http_encoder *e = http_encoder_new(c);
    FUZZ_CHECK(e != NULL);
    uint8_t *all = NULL;
    size_t len = 0;
    for (size_t at = 0, last = 0; !last;) {
        size_t block = piece < n - at ? piece : n - at, bound = http_encoder_room(block);
        last = at + block == n;
        uint8_t *in = fuzz_exact(data + at, block), *out = malloc(bound);
        FUZZ_CHECK(out != NULL);
        size_t got = http_encoder_block(e, in, block, last != 0, out);
        FUZZ_CHECK(got > 0 && got <= bound);
        all = realloc(all, len + got);
        FUZZ_CHECK(all != NULL);
        memcpy(all + len, out, got);
        len += got;
        at += block;
        free(in);
        free(out);
        struct run seen = decode(c, all, len, SIZE_MAX, room);
        FUZZ_CHECK(seen.rc == CHT_OK && seen.n == at && seen.complete == (last != 0));
        FUZZ_CHECK(memcmp(seen.p, data, at) == 0);
        free(seen.p);
    }
    http_encoder_free(e);
    free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct fuzz_in in = {data, n};
    uint8_t how = fuzz_u8(&in), sizes = fuzz_u8(&in);
    enum http_coding c = (how & 1) != 0 ? HTTP_CODING_GZIP : HTTP_CODING_ZSTD;
    size_t piece = (size_t)1 << (sizes & 15), room = (size_t)1 << (sizes >> 4);
    as_it_is(c, in.p, in.n, piece, room + 63);
    if ((how & 6) == 0)
        there_and_back(c, in.p, in.n, in.n / 4 + piece, room + 1023);
    return 0;
}
