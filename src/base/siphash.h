/* siphash: a hash with a secret key (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012), for tables in memory whose keys come
 * from clients: nobody who does not know the key can choose keys that collide.
 *
 * Threads: pure functions. The key comes from cht_os_random, once a table or a process.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct cht_sip_key {
    uint64_t k[2];
};

/* SipHash-2-4. */
uint64_t cht_siphash(const struct cht_sip_key *key, const void *p, size_t n);

#define CHT_SIP_ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
static inline void cht_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = CHT_SIP_ROTATE(v[1], 13) ^ v[0];
    v[0] = CHT_SIP_ROTATE(v[0], 32);
    v[2] += v[3];
    v[3] = CHT_SIP_ROTATE(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = CHT_SIP_ROTATE(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = CHT_SIP_ROTATE(v[1], 17) ^ v[2];
    v[2] = CHT_SIP_ROTATE(v[2], 32);
}

static inline void cht_sip_start(const struct cht_sip_key *key, uint64_t v[4])
{
    v[0] = key->k[0] ^ UINT64_C(0x736f6d6570736575);
    v[1] = key->k[1] ^ UINT64_C(0x646f72616e646f6d);
    v[2] = key->k[0] ^ UINT64_C(0x6c7967656e657261);
    v[3] = key->k[1] ^ UINT64_C(0x7465646279746573);
}

/* SipHash-1-3 of one number: for tables that are looked at for each token of a text. */
static inline uint64_t cht_siphash_u64(const struct cht_sip_key *key, uint64_t x)
{
    uint64_t v[4];
    cht_sip_start(key, v);
    v[3] ^= x;
    cht_sip_round(v);
    v[0] ^= x;
    v[3] ^= UINT64_C(8) << 56; /* the length, in the last block */
    cht_sip_round(v);
    v[0] ^= UINT64_C(8) << 56;
    v[2] ^= 0xff;
    cht_sip_round(v);
    cht_sip_round(v);
    cht_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
