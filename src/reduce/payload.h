/* payload: the binary payloads of an n-gram database, read and begun. All integers are big-endian.
 *
 *   context        version=1 u8 | order_size u8 | n u8  | n x token u32
 *   counts         version=1 u8 | order u8      | n u16 | n x (token u32, count u32)
 *   probabilities  version=1 u8 | order u8      | n u16 | n x (token u32, q u8, alpha u16)    alpha 0xFFFF: none
 *     version 2 of these two: the same with n u32, for more than 65 535 entries
 *   topk           version=1 u8 | order u8      | n u8  | n x (token u32, q u8), best first
 *   continuation   version=1 u8 | token u32     | contexts u32
 *
 * Bytes after the n entries are padding and legal; fewer bytes than n says are not.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDUCE_PAYLOAD_HEAD_MAX 9u /* bytes of the longest head */
#define REDUCE_PAYLOAD_CONTEXT_RECORD 4u
#define REDUCE_PAYLOAD_COUNTS_RECORD 8u
#define REDUCE_PAYLOAD_PROBS_RECORD 7u
#define REDUCE_PAYLOAD_TOPK_RECORD 5u
#define REDUCE_PAYLOAD_CONT_SIZE 9u
#define REDUCE_PAYLOAD_NO_ALPHA 0xFFFFu

struct reduce_payload {
    unsigned order;         /* order, or order_size of a context */
    uint32_t n;             /* entries */
    const uint8_t *records; /* borrowed: n records after the head */
};

/* Each reads a head and says whether it is well formed. `have` bytes of the payload are at p, `size` is its whole length
 * (have == size if all of it is in memory; else have >= REDUCE_PAYLOAD_HEAD_MAX). */
bool reduce_payload_context(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out);
bool reduce_payload_counts(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out);
bool reduce_payload_probs(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out);
bool reduce_payload_topk(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out);
bool reduce_payload_cont(const uint8_t *p, size_t have, uint64_t size, uint32_t *token, uint32_t *contexts);

/* Are the tokens of counts ascending, each once, as the engine writes them? */
bool reduce_payload_ascending(const struct reduce_payload *counts);
/* Makes them so: copies the records to `to`, which has room for all, sorted; counts of one token are added up, to 2^32 - 1. */
void reduce_payload_merge(struct reduce_payload *counts, uint8_t *to);
/* Writes the head of a counts or probabilities payload, version 2 if n needs it; returns its bytes (4 or 6). */
size_t reduce_payload_begin(uint8_t *out, unsigned order, uint32_t n);

static inline uint32_t reduce_payload_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint16_t reduce_payload_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline void reduce_payload_put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static inline void reduce_payload_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
