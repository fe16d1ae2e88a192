/* payload: see payload.h. */
#include "reduce/payload.h"

#include <stdlib.h>
#include <string.h>

static bool fits(uint64_t size, size_t head, uint32_t n, unsigned record)
{
    return size >= head && size - head >= (uint64_t)n * record;
}

/* version, order, n u16 (version 1) or n u32 (version 2) */
static bool wide(const uint8_t *p, size_t have, uint64_t size, unsigned record, struct reduce_payload *out)
{
    size_t head;
    if (have >= 4 && p[0] == 1) {
        out->n = reduce_payload_get16(p + 2);
        head = 4;
    } else if (have >= 6 && p[0] == 2) {
        out->n = reduce_payload_get32(p + 2);
        head = 6;
    } else {
        return false;
    }
    out->order = p[1];
    out->records = p + head;
    return fits(size, head, out->n, record);
}

/* version 1, order, n u8 */
static bool narrow(const uint8_t *p, size_t have, uint64_t size, unsigned record, struct reduce_payload *out)
{
    if (have < 3 || p[0] != 1)
        return false;
    out->order = p[1];
    out->n = p[2];
    out->records = p + 3;
    return fits(size, 3, out->n, record);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool reduce_payload_context(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out)
{
    return narrow(p, have, size, REDUCE_PAYLOAD_CONTEXT_RECORD, out);
}

bool reduce_payload_counts(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out)
{
    return wide(p, have, size, REDUCE_PAYLOAD_COUNTS_RECORD, out);
}

bool reduce_payload_probs(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out)
{
    return wide(p, have, size, REDUCE_PAYLOAD_PROBS_RECORD, out);
}

bool reduce_payload_topk(const uint8_t *p, size_t have, uint64_t size, struct reduce_payload *out)
{
    return narrow(p, have, size, REDUCE_PAYLOAD_TOPK_RECORD, out);
}

bool reduce_payload_cont(const uint8_t *p, size_t have, uint64_t size, uint32_t *token, uint32_t *contexts)
{
    if (have < REDUCE_PAYLOAD_CONT_SIZE || size < REDUCE_PAYLOAD_CONT_SIZE || p[0] != 1)
        return false;
    *token = reduce_payload_get32(p + 1);
    *contexts = reduce_payload_get32(p + 5);
    return true;
}

bool reduce_payload_ascending(const struct reduce_payload *counts)
{
    const uint8_t *p = counts->records;
    for (uint32_t i = 1; i < counts->n; i++, p += REDUCE_PAYLOAD_COUNTS_RECORD) {
        if (reduce_payload_get32(p) >= reduce_payload_get32(p + REDUCE_PAYLOAD_COUNTS_RECORD))
            return false;
    }
    return true;
}

static int by_token(const void *x, const void *y) { return memcmp(x, y, 4); } /* big-endian */

void reduce_payload_merge(struct reduce_payload *counts, uint8_t *to)
{
    uint32_t left = 0;
    if (counts->n > 0)
        memcpy(to, counts->records, (size_t)counts->n * REDUCE_PAYLOAD_COUNTS_RECORD);
    qsort(to, counts->n, REDUCE_PAYLOAD_COUNTS_RECORD, by_token);
    for (uint32_t i = 0; i < counts->n; i++) {
        const uint8_t *r = to + (size_t)i * REDUCE_PAYLOAD_COUNTS_RECORD;
        uint8_t *last = left > 0 ? to + (size_t)(left - 1) * REDUCE_PAYLOAD_COUNTS_RECORD : NULL;
        if (last != NULL && memcmp(last, r, 4) == 0) {
            uint64_t sum = (uint64_t)reduce_payload_get32(last + 4) + reduce_payload_get32(r + 4);
            reduce_payload_put32(last + 4, sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX);
        } else {
            memmove(to + (size_t)left++ * REDUCE_PAYLOAD_COUNTS_RECORD, r, REDUCE_PAYLOAD_COUNTS_RECORD);
        }
    }
    counts->records = to;
    counts->n = left;
}

size_t reduce_payload_begin(uint8_t *out, unsigned order, uint32_t n)
{
    out[0] = n > 0xFFFF ? 2 : 1;
    out[1] = (uint8_t)order;
    if (n > 0xFFFF) {
        reduce_payload_put32(out + 2, n);
        return 6;
    }
    reduce_payload_put16(out + 2, (uint16_t)n);
    return 4;
}
