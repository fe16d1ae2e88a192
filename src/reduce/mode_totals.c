/* mode_totals: over counts payloads, how often each token follows and in how many contexts; a line each:
 *   {"token":t,"count":n,"contexts":n}
 * ascending by token, or by count from the highest down (ties by token); at most `limit` lines.
 *
 * Sums lie in two places, so that the dense low numbers of a vocabulary need neither hashing nor sorting:
 *
 *   token < bound    dense[token]; bound is a power of two, and raised only while at least a quarter of what lies below is in use
 *   the others       a hash table at a load of 3/8 to 3/4; when it is full, bound is raised, or else the table doubled
 *
 * Memory: at most 64 bytes a token (16 bytes / (1/4), 24 bytes / (3/8)), in a table for each thread of the sweep that met it; the
 * tables are then merged into one. By count: 24 bytes a token more, sorted in place. All of it counts for memory_max.
 */
#include "base/alloc.h"
#include "base/prefetch.h"
#include "base/siphash.h"
#include "os/io.h"
#include "reduce/aggregate.h"
#include "reduce/modes_int.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#define TABLE_MIN 64u
#define AHEAD 6u /* followers whose sums are fetched before their turn */

struct sums {
    uint64_t count, contexts; /* contexts 0: the token was not met */
};
struct slot {
    struct sums s;
    uint32_t token;
};

struct table {              /* the partial */
    struct sums *dense;     /* owned: bound of them */
    uint64_t bound;         /* a power of two, or 0 */
    struct slot *slots;     /* owned */
    size_t cap, used;       /* cap: a power of two, or 0 */
    struct cht_sip_key key; /* nobody can choose tokens that meet in the hash table */
};

static size_t home(const struct table *t, uint32_t token)
{
    return (size_t)cht_siphash_u64(&t->key, token) & (t->cap - 1);
}

static size_t place(const struct table *t, uint32_t token)
{
    size_t i = home(t, token);
    while (t->slots[i].s.contexts != 0 && t->slots[i].token != token)
        i = (i + 1) & (t->cap - 1);
    return i;
}

/* Why `take` gave nothing. */
static enum cht_rc why(const struct cht_err *err)
{
    return err != NULL && err->code != CHT_OK ? err->code : CHT_NO_MEMORY;
}

static void *take(struct reduce_run *run, size_t n, size_t size, struct cht_err *err)
{
    if (reduce_take_memory(run, n * size, err) != CHT_OK)
        return NULL;
    void *p = cht_calloc(n, size);
    if (p == NULL) {
        reduce_give_memory(run, n * size);
        (void)CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", n);
    }
    return p;
}

static void drop_slots(struct reduce_run *run, struct table *t)
{
    cht_free(t->slots);
    reduce_give_memory(run, t->cap * sizeof *t->slots);
    t->slots = NULL;
    t->cap = t->used = 0;
}

static void drop_dense(struct reduce_run *run, struct table *t)
{
    cht_free(t->dense);
    reduce_give_memory(run, t->bound * sizeof *t->dense);
    t->dense = NULL;
    t->bound = 0;
}

static size_t dense_used(const struct table *t)
{
    size_t n = 0;
    for (uint64_t i = 0; i < t->bound; i++)
        n += t->dense[i].contexts != 0;
    return n;
}

/* The highest bound below which a quarter of the tokens is in use; t->bound if there is no higher one. */
static uint64_t best_bound(const struct table *t)
{
    size_t bits[33] = {0}, sum = dense_used(t); /* tokens by their length in bits */
    uint64_t best = t->bound;
    for (size_t i = 0; i < t->cap; i++) {
        const struct slot *s = &t->slots[i];
        if (s->s.contexts != 0)
            bits[s->token == 0 ? 0 : 32 - __builtin_clz(s->token)]++;
    }
    for (unsigned b = 0; b <= 32; b++) {
        uint64_t bound = UINT64_C(1) << b;
        sum += bits[b];
        if (bound > best && sum >= TABLE_MIN / 4 && bound / 4 <= sum)
            best = bound;
    }
    return best;
}

/* Moves all slots of t to their places in `next`, which has room. */
static void move_slots(struct table *next, const struct table *t)
{
    for (size_t i = 0; i < t->cap; i++) {
        const struct slot *s = &t->slots[i];
        if (s->s.contexts == 0)
            continue;
        if (s->token < next->bound) {
            next->dense[s->token] = s->s;
        } else {
            next->slots[place(next, s->token)] = *s;
            next->used++;
        }
    }
}

/* Makes room: t->cap is 0, or the hash table is full. */
static enum cht_rc grow(struct reduce_run *run, struct table *t, struct cht_err *err)
{
    struct table next = {.dense = t->dense, .bound = best_bound(t), .cap = TABLE_MIN, .key = t->key};
    size_t stay = 0;
    if (t->cap == 0)
        cht_os_random(&next.key, sizeof next.key);
    for (size_t i = 0; i < t->cap; i++)
        stay += t->slots[i].s.contexts != 0 && t->slots[i].token >= next.bound;
    while (stay * 8 > next.cap * 3)
        next.cap *= 2;
    next.slots = take(run, next.cap, sizeof *next.slots, err);
    if (next.slots == NULL)
        return why(err);
    if (next.bound > t->bound) {
        next.dense = take(run, (size_t)next.bound, sizeof *next.dense, err);
        if (next.dense == NULL) {
            drop_slots(run, &next);
            return why(err);
        }
        if (t->bound > 0)
            memcpy(next.dense, t->dense, (size_t)t->bound * sizeof *t->dense);
        drop_dense(run, t);
    }
    move_slots(&next, t);
    drop_slots(run, t);
    *t = next;
    return CHT_OK;
}

/* The sums of a token that is not below bound, for changing; it may be below it afterwards. NULL: no memory. */
static struct sums *hashed_sums(struct reduce_run *run, struct table *t, uint32_t token, struct cht_err *err)
{
    if (t->used * 4 >= t->cap * 3 && grow(run, t, err) != CHT_OK)
        return NULL;
    if (token < t->bound)
        return &t->dense[token];
    struct slot *s = &t->slots[place(t, token)];
    t->used += s->s.contexts == 0;
    s->token = token;
    return &s->s;
}

static enum cht_rc add(struct reduce_run *run, struct table *t, uint32_t token, struct sums more,
                       struct cht_err *err)
{
    struct sums *s = token < t->bound ? &t->dense[token] : hashed_sums(run, t, token, err);
    if (s == NULL)
        return why(err);
    s->count += more.count;
    s->contexts += more.contexts;
    return CHT_OK;
}

static inline void fetch(const struct table *t, uint32_t token)
{
    if (token < t->bound)
        cht_prefetch_write(&t->dense[token]);
    else if (t->cap > 0)
        cht_prefetch_write(&t->slots[home(t, token)]);
}

/* Followers in ascending order, each once. */
static enum cht_rc add_all(struct reduce_run *run, struct table *t, const struct reduce_payload *in,
                           struct cht_err *err)
{
    const uint8_t *p = in->records, *end = p + (size_t)in->n * REDUCE_PAYLOAD_COUNTS_RECORD,
                  *near = in->n > AHEAD ? end - (size_t)AHEAD * REDUCE_PAYLOAD_COUNTS_RECORD : p;
    struct sums *dense = t->dense; /* these two: sums may alias the table, for all that the compiler knows */
    uint64_t bound = t->bound;
    for (; p < end; p += REDUCE_PAYLOAD_COUNTS_RECORD) {
        uint32_t token = reduce_payload_get32(p);
        if (p < near)
            fetch(t, reduce_payload_get32(p + (size_t)AHEAD * REDUCE_PAYLOAD_COUNTS_RECORD));
        struct sums *s;
        if (__builtin_expect(token < bound, 1)) {
            s = &dense[token];
        } else {
            s = hashed_sums(run, t, token, err);
            if (s == NULL)
                return why(err);
            dense = t->dense;
            bound = t->bound;
        }
        s->count += reduce_payload_get32(p + 4);
        s->contexts++;
    }
    return CHT_OK;
}

static enum cht_rc map(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err)
{
    struct reduce_payload in;
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    *malformed = !reduce_payload_counts(e->value, e->value_len, e->value_len, &in);
    if (*malformed || reduce_payload_ascending(&in))
        return *malformed ? CHT_OK : add_all(run, partial, &in, err);
    size_t n = in.n;
    uint8_t *sorted = take(run, n, REDUCE_PAYLOAD_COUNTS_RECORD, err);
    if (sorted == NULL)
        return why(err);
    reduce_payload_merge(&in, sorted);
    enum cht_rc rc = add_all(run, partial, &in, err);
    cht_free(sorted);
    reduce_give_memory(run, n * REDUCE_PAYLOAD_COUNTS_RECORD);
    return rc;
}

/* ---- the answer ---------------------------------------------------------------------------------------------- */

/* `into` has the higher bound. */
static enum cht_rc merge(struct reduce_run *run, struct table *into, struct table *from, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < from->bound; i++) {
        const struct sums *s = &from->dense[i];
        into->dense[i].count += s->count;
        into->dense[i].contexts += s->contexts;
    }
    drop_dense(run, from);
    for (size_t i = 0; i < from->cap && rc == CHT_OK; i++) {
        const struct slot *s = &from->slots[i];
        if (s->s.contexts != 0)
            rc = add(run, into, s->token, s->s, err);
    }
    drop_slots(run, from);
    return rc;
}

static bool before(const struct slot *a, const struct slot *b, enum reduce_sort sort)
{
    if (sort == REDUCE_SORT_COUNT && a->s.count != b->s.count)
        return a->s.count > b->s.count;
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

static enum cht_rc print(struct reduce_run *run, uint32_t token, const struct sums *s, struct cht_buf *out,
                         struct cht_err *err)
{
    enum cht_rc rc = reduce_line_room(run, out, 40 + 3 * REDUCE_U64_TEXT, err);
    if (rc != CHT_OK)
        return rc;
    char *p = (char *)out->data + out->len;
    size_t n = reduce_put_str(p, "{\"token\":");
    n += reduce_put_u64(p + n, token);
    n += reduce_put_str(p + n, ",\"count\":");
    n += reduce_put_u64(p + n, s->count);
    n += reduce_put_str(p + n, ",\"contexts\":");
    n += reduce_put_u64(p + n, s->contexts);
    n += reduce_put_str(p + n, "}\n");
    out->len += n;
    run->printed++;
    return CHT_OK;
}

static bool enough(const struct reduce_run *run)
{
    return run->p->limit > 0 && run->printed >= run->p->limit;
}

/* Moves the slots in use to the front; their number. */
static size_t compact(struct table *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i].s.contexts != 0)
            t->slots[n++] = t->slots[i];
    }
    return n;
}

/* Makes one array of slots of all, in the place of the hash table. */
static enum cht_rc flatten(struct reduce_run *run, struct table *t, struct cht_err *err)
{
    if (t->bound == 0)
        return CHT_OK;
    size_t n = compact(t);
    struct table flat = {.cap = dense_used(t) + n};
    flat.used = flat.cap;
    flat.slots = take(run, flat.cap, sizeof *flat.slots, err);
    if (flat.slots == NULL)
        return why(err);
    if (n > 0)
        memcpy(flat.slots, t->slots, n * sizeof *flat.slots);
    for (uint64_t i = 0; i < t->bound; i++) {
        if (t->dense[i].contexts != 0)
            flat.slots[n++] = (struct slot){t->dense[i], (uint32_t)i};
    }
    drop_dense(run, t);
    drop_slots(run, t);
    *t = flat;
    return CHT_OK;
}

static enum cht_rc print_all(struct reduce_run *run, struct table *t, struct cht_buf *out,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (uint64_t i = 0; i < t->bound && rc == CHT_OK && !enough(run); i++) {
        if (t->dense[i].contexts != 0)
            rc = print(run, (uint32_t)i, &t->dense[i], out, err);
    }
    size_t n = compact(t);
    if (n > 0 && !enough(run))
        sort_slots(t->slots, n, run->p->sort);
    for (size_t i = 0; i < n && rc == CHT_OK && !enough(run); i++)
        rc = print(run, t->slots[i].token, &t->slots[i].s, out, err);
    return rc;
}

static enum cht_rc lines(struct reduce_run *run, struct cht_buf *out, struct cht_err *err)
{
    const struct reduce_aggregate *a = reduce_mode_totals.aggregate;
    struct table *all = reduce_partial(run, a, 0);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 1; i < run->count; i++) {
        struct table *t = reduce_partial(run, a, i);
        all = t->bound > all->bound ? t : all;
    }
    for (unsigned i = 0; i < run->count && rc == CHT_OK; i++) {
        struct table *t = reduce_partial(run, a, i);
        rc = t == all ? CHT_OK : merge(run, all, t, err);
    }
    if (rc == CHT_OK && run->p->sort == REDUCE_SORT_COUNT)
        rc = flatten(run, all, err);
    return rc == CHT_OK ? print_all(run, all, out, err) : rc;
}

static void finish(struct reduce_run *run)
{
    for (unsigned i = 0; i < run->count; i++) {
        struct table *t = reduce_partial(run, reduce_mode_totals.aggregate, i);
        drop_dense(run, t);
        drop_slots(run, t);
    }
}

static const struct reduce_aggregate aggregate = {.partial = sizeof(struct table),
                                                  .uses = REDUCE_USES_LIMIT | REDUCE_USES_SORT,
                                                  .map = map,
                                                  .lines = lines,
                                                  .finish = finish};
static const char *const names[] = {"totals", NULL};
const struct reduce_mode reduce_mode_totals = {
    .names = names, .kind = REDUCE_AGGREGATE, .aggregate = &aggregate};
