/* mode_continuations: continuation payloads as `"token":t,"contexts":n`. */
#include "reduce/modes_int.h"
#include "reduce/payload.h"
#include "reduce/text.h"

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    uint32_t token, contexts;
    if (!reduce_payload_cont(p, have, size, &token, &contexts))
        return false;
    size_t n = reduce_put_str(out->text, "\"token\":");
    n += reduce_put_u64(out->text + n, token);
    n += reduce_put_str(out->text + n, ",\"contexts\":");
    n += reduce_put_u64(out->text + n, contexts);
    out->text_len = n;
    out->tail = "";
    out->offset = REDUCE_PAYLOAD_CONT_SIZE;
    out->record = 0;
    out->count = 0;
    return true;
}

static size_t record(const uint8_t *p, char *out) /* there are none */
{
    (void)p;
    (void)out;
    return 0;
}

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"continuations", "continuation", NULL};
const struct reduce_mode reduce_mode_continuations = {
    .names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
