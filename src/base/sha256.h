/* sha256: SHA-256 (FIPS 180-4) of bytes that are there as a whole. For tokens: a few hundred bytes at most. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CHT_SHA256_BYTES 32u

void cht_sha256(const void *p, size_t n, uint8_t out[CHT_SHA256_BYTES]);
