/* mode_probabilities: probabilities payloads as `"order":3,"entries":[[token,q,alpha or null],...]`. */
#include "reduce/head.h"
#include "reduce/modes_int.h"

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    struct reduce_payload in;
    if (!reduce_payload_probs(p, have, size, &in))
        return false;
    reduce_head_list(out, &in, p, "\"order\":", ",\"entries\":[", REDUCE_PAYLOAD_PROBS_RECORD);
    return true;
}

static size_t record(const uint8_t *p, char *out)
{
    uint16_t alpha = reduce_payload_get16(p + 5);
    size_t n = 0;
    out[n++] = '[';
    n += reduce_put_u64(out + n, reduce_payload_get32(p));
    out[n++] = ',';
    n += reduce_put_u64(out + n, p[4]);
    out[n++] = ',';
    n += alpha == REDUCE_PAYLOAD_NO_ALPHA ? reduce_put_str(out + n, "null") : reduce_put_u64(out + n, alpha);
    out[n++] = ']';
    return n;
}

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"probabilities", "probs", "backoffs", NULL};
const struct reduce_mode reduce_mode_probabilities = {
    .names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
