/* hdr: see hdr.h. */
#include "tools/hdr.h"

#include "base/alloc.h"

#include <inttypes.h>

#define HALF_BITS 10u
#define HALF (1u << HALF_BITS)
#define BUCKETS 32u /* 2048 * 2^31 is 2^42 */
#define COUNTS ((BUCKETS + 1) * HALF)

static unsigned bucket_of(uint64_t v)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(v | (2 * HALF - 1));
    return bits - (HALF_BITS + 1);
}

static size_t index_of(uint64_t v)
{
    unsigned b = bucket_of(v);
    return (size_t)(((uint64_t)b + 1) << HALF_BITS) + (size_t)(v >> b) - HALF;
}

/* The largest value of an index. */
static uint64_t highest(size_t i)
{
    uint64_t b = i >> HALF_BITS, sub = i & (HALF - 1);
    if (b == 0)
        return sub;
    return ((sub + HALF + 1) << (b - 1)) - 1;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc tool_hdr_init(struct tool_hdr *h, struct cht_err *err)
{
    *h = (struct tool_hdr){.counts = cht_calloc(COUNTS, sizeof *h->counts), .least = UINT64_MAX};
    return h->counts != NULL ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a histogram");
}

void tool_hdr_fini(struct tool_hdr *h)
{
    cht_free(h->counts);
    h->counts = NULL;
}

void tool_hdr_record(struct tool_hdr *h, uint64_t ns)
{
    uint64_t v = ns < TOOL_HDR_MAX ? ns : TOOL_HDR_MAX;
    h->counts[index_of(v)]++;
    h->total++;
    h->sum += (double)v;
    h->least = v < h->least ? v : h->least;
    h->most = v > h->most ? v : h->most;
}

void tool_hdr_add(struct tool_hdr *to, const struct tool_hdr *from)
{
    for (size_t i = 0; i < COUNTS; i++)
        to->counts[i] += from->counts[i];
    to->total += from->total;
    to->sum += from->sum;
    to->least = from->least < to->least ? from->least : to->least;
    to->most = from->most > to->most ? from->most : to->most;
}

uint64_t tool_hdr_percentile(const struct tool_hdr *h, double percent)
{
    uint64_t want = (uint64_t)((percent / 100.0) * (double)h->total + 0.5), seen = 0;
    want = want < 1 ? 1 : want > h->total ? h->total : want;
    for (size_t i = 0; i < COUNTS && h->total > 0; i++) {
        seen += h->counts[i];
        if (seen >= want) {
            uint64_t v = highest(i);
            return v < h->most ? v : h->most;
        }
    }
    return 0;
}

/* Five steps to each halving of what is left, as HdrHistogram has them. */
void tool_hdr_print(const struct tool_hdr *h, FILE *out)
{
    uint64_t seen = 0;
    double percent = 0, left = 100;
    unsigned step = 0;
    size_t i = 0;
    (void)fputs("       Value     Percentile TotalCount 1/(1-Percentile)\n\n", out);
    while (h->total > 0 && i < COUNTS) {
        uint64_t want = (uint64_t)(percent / 100.0 * (double)h->total + 0.5);
        while (i < COUNTS && (seen < want || seen == 0))
            seen += h->counts[i++];
        uint64_t v = highest(i - 1);
        double at = seen >= h->total ? 1.0 : percent / 100.0;
        (void)fprintf(out, "%12.3f %2.12f %10" PRIu64, (double)(v < h->most ? v : h->most) / 1000.0, at,
                      seen);
        if (seen >= h->total) {
            (void)fputc('\n', out);
            break;
        }
        (void)fprintf(out, " %14.2f\n", 1 / (1 - at));
        percent += left / 10;
        if (++step == 5) {
            step = 0;
            left /= 2;
        }
    }
    (void)fprintf(out, "#[Mean    = %12.3f, Total count    = %12" PRIu64 "]\n#[Max     = %12.3f]\n",
                  h->total > 0 ? h->sum / (double)h->total / 1000.0 : 0, h->total, (double)h->most / 1000.0);
}
