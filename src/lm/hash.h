/* hash: the name of a context. A context is a list of tokens; its pairs are named by 8 bytes: BLAKE2b with a digest of
 * 8 bytes (RFC 7693; the digest length is a parameter of the hash, it is no truncated BLAKE2b-512) of the tokens in
 * decimal joined by commas, "12,45,43". The empty context has the literal name "__root__", 8 bytes as well.
 *
 * Threads: pure functions. None can fail.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LM_HASH_SIZE 8u
#define LM_ROOT "__root__"

/* The name of the context of these n tokens (0: the root) in 8 bytes. */
void lm_context_name(const uint32_t *tokens, size_t n, uint8_t out[LM_HASH_SIZE]);
