/* bytes: little-endian loads and stores at any alignment, and overflow-safe helpers. */
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint16_t cht_get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t cht_get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t cht_get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline uint64_t cht_get48(const uint8_t *p)
{
    return (uint64_t)cht_get32(p) | (uint64_t)cht_get16(p + 4) << 32;
}
static inline void cht_put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void cht_put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void cht_put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline void cht_put48(uint8_t *p, uint64_t v)
{
    cht_put32(p, (uint32_t)v);
    cht_put16(p + 4, (uint16_t)(v >> 32));
}
static inline uint32_t cht_be32(const uint8_t *p) { return __builtin_bswap32(cht_get32(p)); }
static inline uint64_t cht_be64(const uint8_t *p) { return __builtin_bswap64(cht_get64(p)); }

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the file formats are little-endian and read in place"
#endif
