/* etag: see etag.h. Clients keep tags: neither the hash nor the order of the digits may change (tests/http/test_conditions.py). */
#include "http/etag.h"

#include "base/bytes.h"

__extension__ typedef unsigned __int128 wide;

#define SEED UINT64_C(0x9E3779B97F4A7C15)
#define MORE UINT64_C(0xD6E8FEB86659FD93)

/* Both halves of a product: each bit of it depends on many of a and b. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    wide m = (wide)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint64_t turned(uint64_t h) { return (h << 32 | h >> 32) ^ MORE; }

/* Eight digits, without a branch. */
static void put_hex(char *to, uint32_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t x = v;
    x = (x | x << 16) & UINT64_C(0x0000FFFF0000FFFF);
    x = (x | x << 8) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x | x << 4) & UINT64_C(0x0F0F0F0F0F0F0F0F); /* a digit's value a byte */
    x += ones * '0' + ((x + ones * 6) >> 4 & ones) * ('a' - '0' - 10);
    memcpy(to, &x, sizeof x);
}

/* -------------------------------------------------------------------------------------------------------------------- */

uint64_t http_etag(uint64_t key, const uint8_t *p, size_t n)
{
    uint64_t h = fold(key ^ SEED, n ^ MORE);
    for (; n > 16; n -= 16, p += 16)
        h = fold(cht_get64(p) ^ h, cht_get64(p + 8) ^ turned(h));
    uint8_t rest[16] = {0};
    if (n > 0) /* what is not filled is zero, and the length is in h */
        memcpy(rest, p, n);
    return fold(fold(cht_get64(rest) ^ h, cht_get64(rest + 8) ^ turned(h)) ^ SEED, h ^ MORE);
}

void http_etag_begin(struct http_etag_part *e, uint64_t key, size_t size)
{
    *e = (struct http_etag_part){.h = fold(key ^ SEED, size ^ MORE)};
}

void http_etag_add(struct http_etag_part *e, const uint8_t *p, size_t n)
{
    while (n > 0) {
        if (e->n == sizeof e->rest) { /* more follows */
            e->h = fold(cht_get64(e->rest) ^ e->h, cht_get64(e->rest + 8) ^ turned(e->h));
            e->n = 0;
        }
        size_t room = sizeof e->rest - e->n, some = n < room ? n : room;
        memcpy(e->rest + e->n, p, some);
        e->n += some;
        p += some;
        n -= some;
    }
}

uint64_t http_etag_end(const struct http_etag_part *e)
{
    uint8_t rest[16] = {0};
    memcpy(rest, e->rest, e->n);
    return fold(fold(cht_get64(rest) ^ e->h, cht_get64(rest + 8) ^ turned(e->h)) ^ SEED, e->h ^ MORE);
}

void http_hex(char *to, uint64_t v)
{
    put_hex(to, (uint32_t)v);
    put_hex(to + 8, (uint32_t)(v >> 32));
}

void http_etag_text(char *to, uint64_t tag)
{
    to[0] = '"';
    http_hex(to + 1, tag);
    to[HTTP_ETAG_LEN - 1] = '"';
    to[HTTP_ETAG_LEN] = 0;
}
