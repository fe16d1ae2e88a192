/* mode_topk: top-k payloads as `"order":3,"ranked":[[token,q],...]`, best first. */
#include "reduce/head.h"
#include "reduce/modes_int.h"

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    struct reduce_payload in;
    if (!reduce_payload_topk(p, have, size, &in))
        return false;
    reduce_head_list(out, &in, p, "\"order\":", ",\"ranked\":[", REDUCE_PAYLOAD_TOPK_RECORD);
    return true;
}

static size_t record(const uint8_t *p, char *out)
{
    size_t n = 0;
    out[n++] = '[';
    n += reduce_put_u64(out + n, reduce_payload_get32(p));
    out[n++] = ',';
    n += reduce_put_u64(out + n, p[4]);
    out[n++] = ']';
    return n;
}

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"topk", NULL};
const struct reduce_mode reduce_mode_topk = {.names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
