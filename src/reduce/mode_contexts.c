/* mode_contexts: context payloads as `"order_size":2,"tokens":[...]`. */
#include "reduce/head.h"
#include "reduce/modes_int.h"

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    struct reduce_payload in;
    if (!reduce_payload_context(p, have, size, &in))
        return false;
    reduce_head_list(out, &in, p, "\"order_size\":", ",\"tokens\":[", REDUCE_PAYLOAD_CONTEXT_RECORD);
    return true;
}

static size_t record(const uint8_t *p, char *out) { return reduce_put_u64(out, reduce_payload_get32(p)); }

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"contexts", NULL};
const struct reduce_mode reduce_mode_contexts = {.names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
