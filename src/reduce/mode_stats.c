/* mode_stats: number and sizes of the payloads under a prefix, one line:
 *   {"pairs":n,"dangling":n,"bytes":n,"min":n,"max":n,"mean":x}      min, max, mean: null if there is no payload
 * Memory: constant.
 */
#include "reduce/aggregate.h"
#include "reduce/modes_int.h"
#include "reduce/text.h"

struct partial {
    uint64_t pairs;
    uint64_t dangling, bytes;
    uint32_t min, max; /* min 0: none yet (no payload is empty) */
};

static void add_size(struct partial *t, uint32_t min, uint32_t max)
{
    if (min > 0 && (t->min == 0 || min < t->min))
        t->min = min;
    t->max = max > t->max ? max : t->max;
}

static enum cht_rc map(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err)
{
    struct partial *t = partial;
    (void)run;
    (void)malformed;
    (void)err;
    t->pairs++;
    if ((e->flags & CHT_ENTRY_DANGLING) != 0) {
        t->dangling++;
        return CHT_OK;
    }
    t->bytes += e->size;
    add_size(t, e->size, e->size);
    return CHT_OK;
}

static size_t put_member(char *out, const char *name, uint64_t v, bool known)
{
    size_t n = reduce_put_str(out, name);
    return n + (known ? reduce_put_u64(out + n, v) : reduce_put_str(out + n, "null"));
}

static enum cht_rc lines(struct reduce_run *run, struct cht_buf *out, struct cht_err *err)
{
    struct partial sum = {0};
    for (unsigned i = 0; i < run->count; i++) {
        const struct partial *t = reduce_partial(run, reduce_mode_stats.aggregate, i);
        sum.pairs += t->pairs;
        sum.dangling += t->dangling;
        sum.bytes += t->bytes;
        add_size(&sum, t->min, t->max);
    }
    enum cht_rc rc = reduce_line_room(run, out, 256, err);
    if (rc != CHT_OK)
        return rc;
    char *p = (char *)out->data + out->len;
    uint64_t payloads = sum.pairs - sum.dangling;
    size_t n = put_member(p, "{\"pairs\":", sum.pairs, true);
    n += put_member(p + n, ",\"dangling\":", sum.dangling, true);
    n += put_member(p + n, ",\"bytes\":", sum.bytes, true);
    n += put_member(p + n, ",\"min\":", sum.min, payloads > 0);
    n += put_member(p + n, ",\"max\":", sum.max, payloads > 0);
    n += reduce_put_str(p + n, ",\"mean\":");
    n += payloads > 0 ? reduce_put_double(p + n, (double)sum.bytes / (double)payloads)
                      : reduce_put_str(p + n, "null");
    n += reduce_put_str(p + n, "}\n");
    out->len += n;
    run->printed = 1;
    return CHT_OK;
}

static const struct reduce_aggregate aggregate = {
    .partial = sizeof(struct partial), .sizes = true, .map = map, .lines = lines};
static const char *const names[] = {"stats", NULL};
const struct reduce_mode reduce_mode_stats = {
    .names = names, .kind = REDUCE_AGGREGATE, .aggregate = &aggregate};
