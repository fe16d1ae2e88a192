/* mode_counts: counts payloads as `"order":3,"followers":[[token,count],...]`. */
#include "reduce/head.h"
#include "reduce/modes_int.h"

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    struct reduce_payload in;
    if (!reduce_payload_counts(p, have, size, &in))
        return false;
    reduce_head_list(out, &in, p, "\"order\":", ",\"followers\":[", REDUCE_PAYLOAD_COUNTS_RECORD);
    return true;
}

static size_t record(const uint8_t *p, char *out)
{
    size_t n = 0;
    out[n++] = '[';
    n += reduce_put_u64(out + n, reduce_payload_get32(p));
    out[n++] = ',';
    n += reduce_put_u64(out + n, reduce_payload_get32(p + 4));
    out[n++] = ']';
    return n;
}

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"counts", "count", NULL};
const struct reduce_mode reduce_mode_counts = {.names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
