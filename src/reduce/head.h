/* head: fills the reduce_head of a payload that is `"member":number,"list":[` and records. */
#pragma once

#include "reduce/mode.h"
#include "reduce/payload.h"
#include "reduce/text.h"

/* start: `"order":`, list: `,"followers":[`; both together at most 80 characters. base: where the payload begins. */
static inline void reduce_head_list(struct reduce_head *h, const struct reduce_payload *p,
                                    const uint8_t *base, const char *start, const char *list, uint32_t record)
{
    size_t n = reduce_put_str(h->text, start);
    n += reduce_put_u64(h->text + n, p->order);
    h->text_len = n + reduce_put_str(h->text + n, list);
    h->tail = "]";
    h->offset = (size_t)(p->records - base);
    h->record = record;
    h->count = p->n;
}
