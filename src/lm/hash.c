/* hash: see hash.h. */
#include "lm/hash.h"

#include <string.h>

#include <blake2.h>

#define DIGITS_MAX 10u

/* Writes v in decimal; returns its characters. */
static size_t decimal(uint32_t v, uint8_t *out)
{
    uint8_t digits[DIGITS_MAX];
    size_t n = 0;
    do {
        digits[n++] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_context_name(const uint32_t *tokens, size_t n, uint8_t out[LM_HASH_SIZE])
{
    uint8_t text[128];
    size_t len = 0;
    if (n == 0) {
        memcpy(out, LM_ROOT, LM_HASH_SIZE);
        return;
    }
    if (n <= sizeof text / (DIGITS_MAX + 1)) { /* every context of an n-gram model */
        for (size_t i = 0; i < n; i++) {
            if (i > 0)
                text[len++] = ',';
            len += decimal(tokens[i], text + len);
        }
        (void)blake2b(out, text, NULL, LM_HASH_SIZE, len, 0); /* fails for lengths out of range only */
        return;
    }
    blake2b_state st;
    (void)blake2b_init(&st, LM_HASH_SIZE); /* the same */
    for (size_t i = 0; i < n; i++) {
        len = 0;
        if (i > 0)
            text[len++] = ',';
        len += decimal(tokens[i], text + len);
        (void)blake2b_update(&st, text, len);
    }
    (void)blake2b_final(&st, out, LM_HASH_SIZE);
}
