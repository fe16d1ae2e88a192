/* modes: the table of all reducers, and decoding of payloads that are wholly in memory. */
#include "reduce/modes_int.h"

#include <string.h>

/* The order is that of the list of names; the aggregates come last. */
#define MODES(X)                            \
    X(counts, "counts")                     \
    X(probabilities, "probabilities")       \
    X(continuations, "continuations")       \
    X(topk, "topk")                         \
    X(contexts, "contexts")                 \
    X(cache, "cache")                       \
    X(bias, "bias")                         \
    X(meta, "meta")                         \
    X(links, "links")                       \
    X(matrix, "matrix")                     \
    X(payloads, "payloads")                 \
    X(queue, "queue-drain")                 \
    X(stats, "stats")                       \
    X(totals, "totals")                     \
    X(counts_of_counts, "counts-of-counts") \
    X(similar, "similar")

static const struct reduce_mode *const modes[] = {
#define MODE_POINTER(id, name) &reduce_mode_##id,
    MODES(MODE_POINTER)
#undef MODE_POINTER
};

static bool is_called(const struct reduce_mode *m, const char *name, size_t len)
{
    for (const char *const *n = m->names; *n != NULL; n++) {
        if (strlen(*n) == len && memcmp(*n, name, len) == 0)
            return true;
    }
    return false;
}

/* The records after a head, with commas between them; SIZE_MAX if they do not fit. */
static size_t put_records(const struct reduce_decoder *d, const uint8_t *p, uint64_t count, uint32_t size,
                          char *out, size_t room)
{
    size_t n = 0;
    char record[REDUCE_RECORD_TEXT];
    if (count > room)
        return SIZE_MAX;
    for (uint64_t i = 0; i < count; i++, p += size) {
        bool wide = room - n > REDUCE_RECORD_TEXT; /* straight into the output, but near its end */
        if (n == room)
            return SIZE_MAX;
        if (i > 0)
            out[n++] = ',';
        size_t k = d->record(p, wide ? out + n : record);
        if (!wide && k > room - n)
            return SIZE_MAX;
        if (!wide)
            memcpy(out + n, record, k);
        n += k;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------------------ */

const struct reduce_mode *reduce_mode_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (is_called(modes[i], name, len))
            return modes[i];
    }
    return NULL;
}

const struct reduce_mode *reduce_mode_at(unsigned i)
{
    return i < sizeof modes / sizeof modes[0] ? modes[i] : NULL;
}

const char *reduce_mode_names(void)
{
#define MODE_NAME(id, name) ", " name
    static const char names[] = MODES(MODE_NAME);
#undef MODE_NAME
    return names + 2;
}

size_t reduce_decode(const struct reduce_decoder *d, const uint8_t *p, size_t n, char *out, size_t room)
{
    struct reduce_head h;
    if (d->whole != NULL)
        return d->whole(p, n, out, room);
    if (!d->head(p, n, n, &h))
        return 0;
    size_t tail = strlen(h.tail);
    if (room < h.text_len + tail)
        return SIZE_MAX;
    memcpy(out, h.text, h.text_len);
    size_t k = put_records(d, p + h.offset, h.count, h.record, out + h.text_len, room - h.text_len - tail);
    if (k == SIZE_MAX)
        return SIZE_MAX;
    memcpy(out + h.text_len + k, h.tail, tail);
    return h.text_len + k + tail;
}
