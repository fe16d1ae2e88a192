/* values_soon: where each page is read alone (reading.c), the disk is asked for the pages of many values at once: first for those of the keys'
 * entries, then, as each is there, for those of the values. Whoever reads them afterwards waits for all of them together and not for one
 * after the other.
 */
#include "cheetah/scan.h"
#include "store/values_format.h"

/* Pages that follow each other are asked for together. */
struct span {
    const struct cht_pagefile *pf;
    uint64_t from, end; /* bytes; equal: none */
};

static void end_span(struct span *s)
{
    cht_pf_soon(s->pf, s->from, s->end - s->from);
    s->from = s->end = 0;
}

static void add(struct span *s, uint64_t off, uint64_t n)
{
    uint64_t from = off / CHT_PAGE * CHT_PAGE, end = (off + n + CHT_PAGE - 1) / CHT_PAGE * CHT_PAGE;
    if (s->from < s->end && from >= s->from && from <= s->end) {
        s->end = end > s->end ? end : s->end;
        return;
    }
    end_span(s);
    s->from = from;
    s->end = end;
}

void cht_values_ask(struct cht_values *v, const uint64_t *key, size_t stride, size_t n, size_t bytes)
{
    struct span s = {.pf = v->keys};
    for (size_t i = 0; i < n; i++) {
        uint64_t k = key[i * stride / sizeof *key];
        if (cht_key_shard(k, v->shards) == v->shard)
            add(&s, CHT_PAGE + cht_key_local(k, v->shards) * CHT_ENTRY, CHT_ENTRY);
    }
    end_span(&s);
    s.pf = v->values;
    for (size_t i = 0; i < n && bytes > 0; i++) {
        struct cht_value_ref ref;
        uint64_t k = key[i * stride / sizeof *key];
        if (cht_key_shard(k, v->shards) != v->shard || cht_values_find(v, k, &ref, NULL) != CHT_OK ||
            ref.len > CHT_SCAN_INLINE_MAX)
            continue;
        add(&s, ref.off, ref.len);
        bytes -= ref.len < bytes ? ref.len : bytes;
    }
    end_span(&s);
}
