/* data: the pairs, computed from their number, so that no table of them takes part in what is measured. */
#include "bench.h"

#include <string.h>

uint64_t mix64(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

void data_name(const struct conf *c, uint64_t i, uint8_t name[NAME_SIZE])
{
    uint64_t r = mix64(i + mix64(c->seed));
    memcpy(name, "ctx:", 4);
    memcpy(name + 4, &r, 8);
}

void data_pair(const struct conf *c, uint64_t i, unsigned version, struct pair *out)
{
    uint64_t words[VALUE_SIZE / 8];
    data_name(c, i, out->name);
    words[0] = mix64(i ^ c->seed);
    for (size_t w = 1; w < VALUE_SIZE / 8; w++)
        words[w] = mix64(words[w - 1] + version);
    memcpy(out->value, words, VALUE_SIZE);
}

bool data_value_ok(const struct conf *c, uint64_t i, const uint8_t value[VALUE_SIZE])
{
    uint64_t expected = mix64(i ^ c->seed);
    return memcmp(value, &expected, 8) == 0;
}
