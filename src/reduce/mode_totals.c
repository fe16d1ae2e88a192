/* mode_totals: over counts payloads, how often each token follows and in how many contexts; a line each:
 *   {"token":t,"count":n,"contexts":n}
 * ascending by token, or by count from the highest down (ties by token); at most `limit` lines.
 *
 * Memory: 24 bytes a token at a load of 3/8 to 3/4, in a table for each thread of the sweep that met it; the tables are then merged into one,
 * which is sorted in place. All of it counts for memory_max.
 */
#include "base/alloc.h"
#include "reduce/aggregate.h"
#include "reduce/modes_int.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#define TABLE_MIN 64u
#define AHEAD 6u /* followers whose slots are fetched before their turn */

struct slot {
    uint64_t count, contexts; /* contexts 0: a free slot */
    uint32_t token;
};

struct table {          /* the partial */
    struct slot *slots; /* owned */
    size_t cap, used;   /* cap: a power of two, or 0 */
};

static size_t home(const struct table *t, uint32_t token)
{
    return (size_t)((uint64_t)token * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (t->cap - 1);
}

static size_t place(const struct table *t, uint32_t token)
{
    size_t i = home(t, token);
    while (t->slots[i].contexts != 0 && t->slots[i].token != token)
        i = (i + 1) & (t->cap - 1);
    return i;
}

static void drop(struct reduce_run *run, struct table *t)
{
    cht_free(t->slots);
    reduce_give_memory(run, t->cap * sizeof *t->slots);
    *t = (struct table){0};
}

static enum cht_rc grow(struct reduce_run *run, struct table *t, struct cht_err *err)
{
    struct table next = {.cap = t->cap > 0 ? 2 * t->cap : TABLE_MIN, .used = t->used};
    enum cht_rc rc = reduce_take_memory(run, next.cap * sizeof *next.slots, err);
    if (rc != CHT_OK)
        return rc;
    next.slots = cht_calloc(next.cap, sizeof *next.slots);
    if (next.slots == NULL) {
        reduce_give_memory(run, next.cap * sizeof *next.slots);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", next.cap);
    }
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i].contexts != 0)
            next.slots[place(&next, t->slots[i].token)] = t->slots[i];
    }
    drop(run, t);
    *t = next;
    return CHT_OK;
}

static enum cht_rc add(struct reduce_run *run, struct table *t, uint32_t token, uint64_t count,
                       uint64_t contexts, struct cht_err *err)
{
    if (t->used * 4 >= t->cap * 3) {
        enum cht_rc rc = grow(run, t, err);
        if (rc != CHT_OK)
            return rc;
    }
    struct slot *s = &t->slots[place(t, token)];
    t->used += s->contexts == 0;
    s->token = token;
    s->count += count;
    s->contexts += contexts;
    return CHT_OK;
}

static enum cht_rc map(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err)
{
    struct payload in;
    struct table *t = partial;
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    *malformed = !payload_counts(e->value, e->value_len, e->value_len, &in);
    enum cht_rc rc = CHT_OK;
    uint32_t last = 0;
    for (uint32_t i = 0; !*malformed && i < in.n && rc == CHT_OK; i++) {
        const uint8_t *p = in.records + (size_t)i * PAYLOAD_COUNTS_RECORD;
        uint32_t token = payload_get32(p);
        if (i + AHEAD < in.n && t->cap > 0)
            __builtin_prefetch(&t->slots[home(t, payload_get32(p + (size_t)AHEAD * PAYLOAD_COUNTS_RECORD))],
                               1);
        bool again = i > 0 && token == last; /* one context, however often it names the token */
        rc = add(run, t, token, payload_get32(p + 4), again ? 0 : 1, err);
        last = token;
    }
    return rc;
}

/* ---- the answer ---------------------------------------------------------------------------------------------- */

static enum cht_rc merge(struct reduce_run *run, struct table *into, struct table *from, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < from->cap && rc == CHT_OK; i++) {
        const struct slot *s = &from->slots[i];
        if (s->contexts != 0)
            rc = add(run, into, s->token, s->count, s->contexts, err);
    }
    drop(run, from);
    return rc;
}

static bool before(const struct slot *a, const struct slot *b, enum reduce_sort sort)
{
    if (sort == REDUCE_SORT_COUNT && a->count != b->count)
        return a->count > b->count;
    return a->token < b->token;
}

static void sift(struct slot *s, size_t i, size_t n, enum reduce_sort sort)
{
    struct slot x = s[i];
    for (size_t k = 2 * i + 1; k < n; k = 2 * i + 1) {
        if (k + 1 < n && before(&s[k], &s[k + 1], sort))
            k++;
        if (!before(&x, &s[k], sort))
            break;
        s[i] = s[k];
        i = k;
    }
    s[i] = x;
}

/* Heapsort: in place, since memory is what this mode is short of. */
static void sort_slots(struct slot *s, size_t n, enum reduce_sort sort)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(s, i, n, sort);
    while (n > 1) {
        struct slot last = s[--n];
        s[n] = s[0];
        s[0] = last;
        sift(s, 0, n, sort);
    }
}

static enum cht_rc print(struct reduce_run *run, const struct slot *s, struct cht_buf *out,
                         struct cht_err *err)
{
    enum cht_rc rc = reduce_line_room(run, out, 40 + 3 * REDUCE_U64_TEXT, err);
    if (rc != CHT_OK)
        return rc;
    char *p = (char *)out->data + out->len;
    size_t n = reduce_put_str(p, "{\"token\":");
    n += reduce_put_u64(p + n, s->token);
    n += reduce_put_str(p + n, ",\"count\":");
    n += reduce_put_u64(p + n, s->count);
    n += reduce_put_str(p + n, ",\"contexts\":");
    n += reduce_put_u64(p + n, s->contexts);
    n += reduce_put_str(p + n, "}\n");
    out->len += n;
    run->printed++;
    return CHT_OK;
}

static enum cht_rc lines(struct reduce_run *run, struct cht_buf *out, struct cht_err *err)
{
    const struct reduce_aggregate *a = reduce_mode_totals.aggregate;
    struct table *all = reduce_partial(run, a, 0);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 1; i < run->count && rc == CHT_OK; i++)
        rc = merge(run, all, reduce_partial(run, a, i), err);
    if (rc != CHT_OK)
        return rc;
    size_t n = 0;
    for (size_t i = 0; i < all->cap; i++) {
        if (all->slots[i].contexts != 0)
            all->slots[n++] = all->slots[i];
    }
    if (n > 0)
        sort_slots(all->slots, n, run->p->sort);
    if (run->p->limit > 0 && n > run->p->limit)
        n = (size_t)run->p->limit;
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = print(run, &all->slots[i], out, err);
    return rc;
}

static void finish(struct reduce_run *run)
{
    for (unsigned i = 0; i < run->count; i++)
        drop(run, reduce_partial(run, reduce_mode_totals.aggregate, i));
}

static const struct reduce_aggregate aggregate = {.partial = sizeof(struct table),
                                                  .uses = REDUCE_USES_LIMIT | REDUCE_USES_SORT,
                                                  .map = map,
                                                  .lines = lines,
                                                  .finish = finish};
static const char *const names[] = {"totals", NULL};
const struct reduce_mode reduce_mode_totals = {
    .names = names, .kind = REDUCE_AGGREGATE, .aggregate = &aggregate};
