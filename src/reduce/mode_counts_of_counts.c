/* mode_counts_of_counts: how many followers have which count, over counts payloads, and the discounts that follow; one line:
 *   {"contexts":n,"types":n,"n1":n,"n2":n,"n3":n,"n4":n,"d1":x,"d2":x,"d3":x}
 * contexts: counts payloads; types: their followers; n4: followers with a count of 4 and over.
 * Memory: constant.
 */
#include "base/alloc.h"
#include "reduce/aggregate.h"
#include "reduce/modes_int.h"
#include "reduce/payload.h"
#include "reduce/text.h"

struct partial {
    uint64_t contexts;
    uint64_t types, n[5]; /* n[0]: followers with a count of 0 */
};

static enum cht_rc map(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err)
{
    struct partial *t = partial;
    struct reduce_payload in;
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    if (!reduce_payload_counts(e->value, e->value_len, e->value_len, &in)) {
        *malformed = true;
        return CHT_OK;
    }
    uint8_t *sorted = NULL;
    size_t room = (size_t)in.n * REDUCE_PAYLOAD_COUNTS_RECORD;
    if (!reduce_payload_ascending(&in)) {
        enum cht_rc rc = reduce_take_memory(run, room, err);
        if (rc != CHT_OK)
            return rc;
        sorted = cht_malloc(room);
        if (sorted == NULL) {
            reduce_give_memory(run, room);
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the followers of a context");
        }
        reduce_payload_merge(&in, sorted);
    }
    t->contexts++;
    t->types += in.n;
    for (uint32_t i = 0; i < in.n; i++) {
        uint32_t count = reduce_payload_get32(in.records + (size_t)i * REDUCE_PAYLOAD_COUNTS_RECORD + 4);
        t->n[count < 4 ? count : 4]++;
    }
    if (sorted != NULL) {
        cht_free(sorted);
        reduce_give_memory(run, room);
    }
    return CHT_OK;
}

static enum cht_rc lines(struct reduce_run *run, struct cht_buf *out, struct cht_err *err)
{
    static const char *const members[] = {
        "{\"contexts\":", ",\"types\":", ",\"n1\":", ",\"n2\":", ",\"n3\":", ",\"n4\":"};
    uint64_t sum[6] = {0};
    for (unsigned i = 0; i < run->count; i++) {
        const struct partial *t = reduce_partial(run, reduce_mode_counts_of_counts.aggregate, i);
        sum[0] += t->contexts;
        sum[1] += t->types;
        for (unsigned k = 1; k < 5; k++)
            sum[k + 1] += t->n[k];
    }
    enum cht_rc rc = reduce_line_room(run, out, 384, err);
    if (rc != CHT_OK)
        return rc;
    char *p = (char *)out->data + out->len;
    size_t n = 0;
    for (unsigned i = 0; i < 6; i++) {
        n += reduce_put_str(p + n, members[i]);
        n += reduce_put_u64(p + n, sum[i]);
    }
    struct reduce_discounts d = reduce_discounts(sum[2], sum[3], sum[4], sum[5]);
    n += reduce_put_str(p + n, ",\"d1\":");
    n += reduce_put_double(p + n, d.d1);
    n += reduce_put_str(p + n, ",\"d2\":");
    n += reduce_put_double(p + n, d.d2);
    n += reduce_put_str(p + n, ",\"d3\":");
    n += reduce_put_double(p + n, d.d3);
    n += reduce_put_str(p + n, "}\n");
    out->len += n;
    run->printed = 1;
    return CHT_OK;
}

static const struct reduce_aggregate aggregate = {
    .partial = sizeof(struct partial), .map = map, .lines = lines};
static const char *const names[] = {"counts-of-counts", NULL};
const struct reduce_mode reduce_mode_counts_of_counts = {
    .names = names, .kind = REDUCE_AGGREGATE, .aggregate = &aggregate};
