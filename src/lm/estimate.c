/* estimate: see estimate.h. */
#include "lm/estimate.h"

#include "base/alloc.h"
#include "os/io.h"

#define SAMPLE 131072u             /* n-grams that are kept if none repeats */
#define SMALL (UINT64_C(64) << 20) /* a request that cannot take more is counted at once */
#define STEP (UINT64_C(16) << 20)  /* is booked at a time */
#define MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)

struct estimate {
    struct lm_ngrams *g;
    const uint64_t *weight;
    uint64_t cut, key, mask;
    uint64_t *set; /* owned: open addressing, 0: free */
    size_t slots, n;
    uint64_t bytes, booked; /* of the sample; of it told */
};

static enum cht_rc grow(struct estimate *e, struct cht_err *err)
{
    size_t slots = e->slots == 0 ? 1024 : e->slots * 2;
    uint64_t *set = cht_calloc(slots, sizeof *set);
    if (set == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a sample of %zu n-grams", slots);
    for (size_t i = 0; i < e->slots; i++) {
        size_t at = (e->set[i] >> 32) & (slots - 1);
        while (e->set[i] != 0 && set[at] != 0)
            at = (at + 1) & (slots - 1);
        if (e->set[i] != 0)
            set[at] = e->set[i];
    }
    cht_free(e->set);
    e->set = set;
    e->slots = slots;
    return CHT_OK;
}

/* Part of the estimate is told when it has grown. */
static enum cht_rc tell(struct estimate *e, uint64_t step, struct cht_err *err)
{
    uint64_t bytes = e->bytes * (e->mask + 1) / 8 * 7;
    if (bytes < e->booked + step)
        return CHT_OK;
    enum cht_rc rc = e->g->book(e->g->book_ctx, bytes - e->booked, err);
    if (rc == CHT_OK)
        e->booked = bytes;
    return rc;
}

/* An n-gram of the sample. */
static enum cht_rc meet(struct estimate *e, uint64_t hash, unsigned order, struct cht_err *err)
{
    uint64_t entry = (hash ^ order * MULTIPLIER) | 1;
    if (e->n * 2 >= e->slots) {
        enum cht_rc rc = grow(e, err);
        if (rc != CHT_OK)
            return rc;
    }
    size_t at = (entry >> 32) & (e->slots - 1);
    while (e->set[at] != 0 && e->set[at] != entry)
        at = (at + 1) & (e->slots - 1);
    if (e->set[at] == entry)
        return CHT_OK;
    e->set[at] = entry;
    e->n++;
    e->bytes += e->weight[order];
    return tell(e, STEP, err);
}

/* The n-grams of one document that are followed by a token: after[k] is the hash of the k tokens up to here. */
static enum cht_rc look(struct estimate *e, const uint32_t *tokens, size_t n, struct cht_err *err)
{
    uint64_t after[LM_ORDER_MAX + 1] = {e->key};
    unsigned depth = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        depth = tokens[i] == e->cut ? 1 : depth < e->g->order ? depth + 1 : depth;
        for (unsigned k = depth; k >= 1; k--) {
            uint64_t h = ((after[k - 1] ^ tokens[i]) + k) * MULTIPLIER;
            after[k] = h ^= h >> 32;
            if ((h & e->mask) != 0 || e->weight[k] == 0 || tokens[i + 1] == e->cut)
                continue;
            enum cht_rc rc = meet(e, h, k, err);
            if (rc != CHT_OK)
                return rc;
        }
    }
    return CHT_OK;
}

/* Nothing repeats. */
static uint64_t worst(const struct lm_ngrams *g, const uint64_t *weight)
{
    uint64_t bytes = 0;
    for (unsigned k = 1; k <= g->order; k++)
        bytes += g->ntokens * weight[k];
    return bytes;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_estimate(struct lm_ngrams *g, const uint64_t weight[LM_ORDER_MAX + 1], uint64_t cut,
                        struct cht_err *err)
{
    struct estimate e = {.g = g, .weight = weight, .cut = cut};
    enum cht_rc rc = CHT_OK;
    if (g->book == NULL || worst(g, weight) < SMALL)
        return CHT_OK;
    while ((e.mask + 1) * 2 <= g->ntokens * g->order / SAMPLE)
        e.mask = e.mask * 2 + 1;
    cht_os_random(&e.key, sizeof e.key);
    for (size_t d = 0; d < g->documents && rc == CHT_OK; d++) {
        if (g->take == NULL || g->take[d] == 0)
            rc = look(&e, g->tokens + g->start[d], g->start[d + 1] - g->start[d], err);
    }
    if (rc == CHT_OK)
        rc = tell(&e, 1, err);
    atomic_fetch_add_explicit(&g->prepaid, e.booked, memory_order_relaxed);
    cht_free(e.set);
    return rc;
}
