/* b64: standard base64 with padding (RFC 4648, section 4).
 *
 * Encoding is our own, sixteen characters at once where the processor can shuffle bytes (x86-64 with SSSE3), else two characters a look-up
 * in a table of 4096 (libb64 breaks lines and is ten times slower);
 * decoding is libb64's after a strict check of every character, since libb64 skips what it does not know.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t cht_b64_encoded(size_t n) { return (n + 2) / 3 * 4; }
/* Writes cht_b64_encoded(n) characters, no terminating zero; returns their number. Buffers must not overlap. */
size_t cht_b64_encode(char *out, const uint8_t *in, size_t n);
/* The portable way alone, for the test that compares the two. */
size_t cht_b64_encode_table(char *out, const uint8_t *in, size_t n);

/* The most bytes that n characters decode to. */
static inline size_t cht_b64_decoded_max(size_t n) { return n / 4 * 3; }
/* Decodes n characters to out (room for cht_b64_decoded_max(n)); *len is what they said. False if the text is not
 * exactly base64: a foreign character, a length that is no multiple of 4, padding elsewhere than at the end, bits
 * after the last byte that are not zero. */
bool cht_b64_decode(uint8_t *out, const char *in, size_t n, size_t *len);
