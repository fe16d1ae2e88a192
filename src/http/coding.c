/* coding: see coding.h. */
#include "http/coding.h"

#include "base/alloc.h"
#include "base/literal.h"

#include <limits.h>
#include <string.h>
#include <strings.h>
#define ZLIB_CONST /* what it reads is const */
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ZSTD_LEVEL 2       /* and below: tests/bench/http/README.md, "Compression" */
#define ZSTD_WINDOW_LOG 18 /* 256 KiB: what a stream holds is bounded */
#define ZSTD_WINDOW_LOG_MAX 23
#define GZIP_LEVEL 1
#define GZIP_HEADER 16 /* windowBits: 15 for the window, and this for gzip rather than zlib */

struct http_encoder {
    enum http_coding coding;
    ZSTD_CCtx *zstd; /* owned */
    z_stream gzip;   /* owned */
};

struct http_decoder {
    enum http_coding coding;
    bool complete;   /* a member has ended, and no other begun */
    ZSTD_DCtx *zstd; /* owned */
    z_stream gzip;   /* owned */
};

static void *gzip_alloc(void *ctx, unsigned items, unsigned size)
{
    (void)ctx;
    return cht_calloc(items, size);
}

static void gzip_free(void *ctx, void *p)
{
    (void)ctx;
    cht_free(p);
}

static enum cht_rc invalid(struct cht_err *err, enum http_coding c, const char *why)
{
    return CHT_FAIL(err, CHT_INVALID_CODING, "the body is not %s as its Content-Encoding says: %s",
                    http_coding_name(c), why != NULL ? why : "damaged");
}

/* A call without input gives what is left of the output. */
static enum cht_rc run_gzip(struct http_decoder *d, struct http_decoding *io, struct cht_err *err)
{
    z_stream *z = &d->gzip;
    do {
        if (d->complete && inflateReset(z) != Z_OK)
            return invalid(err, d->coding, z->msg);
        d->complete = false;
        uInt in = io->in_len < UINT_MAX ? (uInt)io->in_len : UINT_MAX;
        uInt out = io->room < UINT_MAX ? (uInt)io->room : UINT_MAX;
        z->next_in = io->in;
        z->avail_in = in;
        z->next_out = io->out;
        z->avail_out = out;
        int rc = inflate(z, Z_NO_FLUSH);
        io->in += in - z->avail_in;
        io->in_len -= in - z->avail_in;
        io->out += out - z->avail_out;
        io->room -= out - z->avail_out;
        if (rc == Z_MEM_ERROR)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a decoder");
        d->complete = rc == Z_STREAM_END;
        if (rc != Z_STREAM_END && rc != Z_OK && rc != Z_BUF_ERROR)
            return invalid(err, d->coding, z->msg);
    } while (io->in_len > 0 && io->room > 0);
    return CHT_OK;
}

static enum cht_rc run_zstd(struct http_decoder *d, struct http_decoding *io, struct cht_err *err)
{
    do {
        ZSTD_inBuffer in = {.src = io->in, .size = io->in_len};
        ZSTD_outBuffer out = {.dst = io->out, .size = io->room};
        size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);
        if (ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a decoder");
        if (ZSTD_isError(rc))
            return invalid(err, d->coding, ZSTD_getErrorName(rc));
        d->complete = rc == 0;
        io->in += in.pos;
        io->in_len -= in.pos;
        io->out += out.pos;
        io->room -= out.pos;
    } while (io->in_len > 0 && io->room > 0);
    return CHT_OK;
}

static size_t block_gzip(struct http_encoder *e, const void *p, size_t n, bool last, void *out)
{
    z_stream *z = &e->gzip;
    size_t room = http_encoder_room(n);
    if (n > UINT_MAX / 2)
        return SIZE_MAX;
    z->next_in = p;
    z->avail_in = (uInt)n;
    z->next_out = out;
    z->avail_out = (uInt)room;
    int rc = deflate(z, last ? Z_FINISH : Z_SYNC_FLUSH);
    bool whole = rc == (last ? Z_STREAM_END : Z_OK) && z->avail_in == 0 && z->avail_out > 0;
    return whole ? room - z->avail_out : SIZE_MAX;
}

static size_t block_zstd(struct http_encoder *e, const void *p, size_t n, bool last, void *out)
{
    ZSTD_inBuffer in = {.src = p, .size = n};
    ZSTD_outBuffer to = {.dst = out, .size = http_encoder_room(n)};
    size_t rc = ZSTD_compressStream2(e->zstd, &to, &in, last ? ZSTD_e_end : ZSTD_e_flush);
    return rc == 0 && in.pos == n ? to.pos : SIZE_MAX;
}

/* ---------------------------------------------------------------------------------------------------------------- */

const char *http_coding_name(enum http_coding c)
{
    static const char *const names[HTTP_CODINGS] = {
        [HTTP_CODING_NONE] = "identity", [HTTP_CODING_GZIP] = "gzip", [HTTP_CODING_ZSTD] = "zstd"};
    return names[c];
}

bool http_coding_find(const char *header, enum http_coding *out)
{
    *out = HTTP_CODING_NONE;
    if (header == NULL || *header == 0)
        return true;
    if (strcasecmp(header, "x-gzip") == 0)
        header = "gzip"; /* RFC 9110, 8.4.1.3 */
    for (int c = HTTP_CODING_NONE; c < HTTP_CODINGS; c++) {
        if (strcasecmp(header, http_coding_name((enum http_coding)c)) == 0) {
            *out = (enum http_coding)c;
            return true;
        }
    }
    return false;
}

struct http_encoder *http_encoder_new(enum http_coding c)
{
    struct http_encoder *e = cht_calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->coding = c;
    bool ok;
    if (c == HTTP_CODING_ZSTD) {
        e->zstd = ZSTD_createCCtx();
        ok = e->zstd != NULL &&
             !ZSTD_isError(ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL)) &&
             !ZSTD_isError(ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_windowLog, ZSTD_WINDOW_LOG));
    } else {
        e->gzip.zalloc = gzip_alloc;
        e->gzip.zfree = gzip_free;
        ok = deflateInit2(&e->gzip, GZIP_LEVEL, Z_DEFLATED, MAX_WBITS + GZIP_HEADER, 8, Z_DEFAULT_STRATEGY) ==
             Z_OK;
    }
    if (ok)
        return e;
    http_encoder_free(e);
    return NULL;
}

void http_encoder_free(struct http_encoder *e)
{
    if (e == NULL)
        return;
    if (e->coding == HTTP_CODING_ZSTD)
        (void)ZSTD_freeCCtx(e->zstd); /* says 0 */
    else
        (void)deflateEnd(&e->gzip); /* complains of what it had not given out, which nobody wants any more */
    cht_free(e);
}

/* That of one call, with head and tail, and the empty block that ends a flush. */
size_t http_encoder_room(size_t n)
{
    size_t zstd = ZSTD_compressBound(n), gzip = n + n / 1000 + n / 4096 + 64;
    return (zstd > gzip ? zstd : gzip) + 64;
}

size_t http_encoder_block(struct http_encoder *e, const void *p, size_t n, bool last, void *out)
{
    return e->coding == HTTP_CODING_ZSTD ? block_zstd(e, p, n, last, out) : block_gzip(e, p, n, last, out);
}

struct http_decoder *http_decoder_new(enum http_coding c)
{
    struct http_decoder *d = cht_calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->coding = c;
    bool ok;
    if (c == HTTP_CODING_ZSTD) {
        d->zstd = ZSTD_createDCtx();
        ok = d->zstd != NULL &&
             !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX));
    } else {
        d->gzip.zalloc = gzip_alloc;
        d->gzip.zfree = gzip_free;
        ok = inflateInit2(&d->gzip, MAX_WBITS + GZIP_HEADER) == Z_OK;
    }
    if (ok)
        return d;
    http_decoder_free(d);
    return NULL;
}

void http_decoder_free(struct http_decoder *d)
{
    if (d == NULL)
        return;
    if (d->coding == HTTP_CODING_ZSTD)
        (void)ZSTD_freeDCtx(d->zstd); /* says 0 */
    else
        (void)inflateEnd(&d->gzip); /* fails only for what was never begun */
    cht_free(d);
}

enum cht_rc http_decoder_run(struct http_decoder *d, struct http_decoding *io, struct cht_err *err)
{
    if (d->complete && io->in_len == 0)
        return CHT_OK;
    return d->coding == HTTP_CODING_ZSTD ? run_zstd(d, io, err) : run_gzip(d, io, err);
}

bool http_decoder_complete(const struct http_decoder *d) { return d->complete; }

size_t http_decoder_memory(const struct http_decoder *d)
{
    return d->coding == HTTP_CODING_ZSTD ? ZSTD_sizeof_DCtx(d->zstd) : (48u << 10);
}
