/* coding: content codings (RFC 9110, 8.4.1): gzip (zlib) and zstd (RFC 8878). Encoders take blocks, and all of a block comes out; decoders take
 * what there is, and give as much as there is room for.
 *
 * Threads: one at a time for each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

enum http_coding { HTTP_CODING_NONE, HTTP_CODING_GZIP, HTTP_CODING_ZSTD, HTTP_CODINGS };

/* "gzip", "zstd"; of none "identity". */
const char *http_coding_name(enum http_coding c);
/* What a Content-Encoding says; NULL and empty say none. False: an unknown one, or several. */
bool http_coding_find(const char *header, enum http_coding *out);

/* ---- encoding -------------------------------------------------------------------------------------------------- */

#define HTTP_ENCODER_BYTES (2u << 20) /* of memory that one needs, at most */

struct http_encoder;
/* NULL: no memory. */
struct http_encoder *http_encoder_new(enum http_coding c);
void http_encoder_free(struct http_encoder *e); /* NULL is legal */
/* What comes out of a block of n bytes, at most. */
size_t http_encoder_room(size_t n);
/* Encodes a block: what comes out can be decoded at once, without the next one. last: it ends there. Returns the bytes in out, which
 * has http_encoder_room(n); SIZE_MAX: it failed, and is of no use any more. */
size_t http_encoder_block(struct http_encoder *e, const void *p, size_t n, bool last, void *out);

/* ---- decoding -------------------------------------------------------------------------------------------------- */

struct http_decoder;
/* NULL: no memory. */
struct http_decoder *http_decoder_new(enum http_coding c);
void http_decoder_free(struct http_decoder *d); /* NULL is legal */

struct http_decoding {
    const uint8_t *in; /* moved on, as are the next three */
    size_t in_len;
    uint8_t *out;
    size_t room;
};
/* Decodes until there is no input or no room. Where no room is left more may come, also if there is no input: call it again.
 * CHT_INVALID_CODING: the input is not what it should be; CHT_NO_MEMORY. */
enum cht_rc http_decoder_run(struct http_decoder *d, struct http_decoding *io, struct cht_err *err);
/* Was the last byte that came the last of a whole (a gzip member, a zstd frame)? There may be several. */
bool http_decoder_complete(const struct http_decoder *d);
/* Bytes of memory that it has now: the window of a zstd frame, of at most 8 MiB (RFC 8878, 3.1.1.1.2), is taken when its header comes. */
size_t http_decoder_memory(const struct http_decoder *d);
