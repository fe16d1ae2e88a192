/* siphash: see siphash.h. */
#include "base/siphash.h"

#include "base/bytes.h"

uint64_t cht_siphash(const struct cht_sip_key *key, const void *p, size_t n)
{
    const uint8_t *at = p;
    uint64_t v[4], last = (uint64_t)n << 56;
    cht_sip_start(key, v);
    for (size_t left = n; left >= 8; left -= 8, at += 8) {
        uint64_t block = cht_get64(at);
        v[3] ^= block;
        cht_sip_round(v);
        cht_sip_round(v);
        v[0] ^= block;
    }
    for (size_t i = 0; i < n % 8; i++)
        last |= (uint64_t)at[i] << (8 * i);
    v[3] ^= last;
    cht_sip_round(v);
    cht_sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        cht_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
