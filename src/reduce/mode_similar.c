/* mode_similar: the counts payloads under a prefix that are most like a target's, by cosine over the counts or by Jaccard over
 * the sets of followers; brute force, best first, ties by pair, the target itself left out; a line each:
 *   {"pair":base64,"key":n,"score":x}
 *
 * Memory: the target's vector, and for each thread of the sweep a vector and a heap of at most `limit` entries with their names; all of it
 * counts for memory_max.
 */
#include "base/alloc.h"
#include "base/b64.h"
#include "reduce/best.h"
#include "reduce/modes_int.h"
#include "reduce/text.h"
#include "reduce/vector.h"

struct match {
    double score;
    uint64_t key;
    uint8_t *name; /* owned */
    uint32_t len;
};

struct partial {
    struct reduce_vector scratch;
    struct match *heap; /* owned; the worst on top */
    size_t n, cap;
};

struct target { /* the state */
    struct reduce_vector v;
    size_t limit;
};

/* reduce_best_better */
static bool better(const void *x, const void *y)
{
    const struct match *a = x, *b = y;
    if (a->score != b->score)
        return a->score > b->score;
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->name, b->name, n);
    return c != 0 ? c < 0 : a->len < b->len;
}

static void drop(struct reduce_run *run, struct match *m)
{
    cht_free(m->name);
    reduce_give_memory(run, m->len);
    m->name = NULL;
    m->len = 0;
}

/* Room for one more in a heap that is not full. */
static enum cht_rc grow(struct reduce_run *run, struct partial *t, struct cht_err *err)
{
    if (t->n < t->cap)
        return CHT_OK;
    size_t cap = t->cap > 0 ? 2 * t->cap : 16;
    enum cht_rc rc = reduce_take_memory(run, (cap - t->cap) * sizeof *t->heap, err);
    if (rc != CHT_OK)
        return rc;
    struct match *h = cht_realloc(t->heap, cap * sizeof *h);
    if (h == NULL) {
        reduce_give_memory(run, (cap - t->cap) * sizeof *t->heap);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu matches", cap);
    }
    t->heap = h;
    t->cap = cap;
    return CHT_OK;
}

static bool wanted(const struct partial *t, size_t limit, const struct match *m)
{
    return t->n < limit || better(m, &t->heap[0]);
}

/* Takes a wanted match with its name, which is dropped if this fails. */
static enum cht_rc take(struct reduce_run *run, struct partial *t, size_t limit, struct match m,
                        struct cht_err *err)
{
    if (t->n == limit) {
        drop(run, &t->heap[0]);
        t->heap[0] = m;
        reduce_best_sink(t->heap, 0, t->n, sizeof *t->heap, better);
        return CHT_OK;
    }
    enum cht_rc rc = grow(run, t, err);
    if (rc != CHT_OK) {
        drop(run, &m);
        return rc;
    }
    t->heap[t->n++] = m;
    reduce_best_rise(t->heap, t->n - 1, sizeof *t->heap, better);
    return CHT_OK;
}

static enum cht_rc read_target(struct reduce_run *run, struct target *t, struct cht_err *err)
{
    struct cht_buf b = {0};
    struct reduce_payload in;
    uint64_t key = 0;
    uint32_t size = 0;
    enum cht_rc rc = cht_store_pair_value(run->store, run->p->to, &key, &b, &size, err);
    if (rc == CHT_OK && run->watch_to != NULL)
        cht_watch_note(run->watch_to, key);
    if (rc == CHT_PAIR_NOT_FOUND)
        rc = CHT_FAIL(err, CHT_PAIR_NOT_FOUND, "there is no pair with the name given in `to`");
    else if (rc == CHT_OK && size == 0)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the pair given in `to` has no value");
    else if (rc == CHT_OK && !reduce_payload_counts(b.data, size, size, &in))
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the value of the pair given in `to` is no counts payload");
    if (rc == CHT_OK)
        rc = reduce_vector_read(run, &t->v, &in, err);
    cht_buf_free(&b);
    return rc;
}

static enum cht_rc prepare(struct reduce_run *run, struct cht_err *err)
{
    uint64_t limit = run->p->limit > 0 ? run->p->limit : REDUCE_SIMILAR_DEFAULT;
    if (run->p->to.n == 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "`to`, the pair to compare with, is missing");
    if (limit > REDUCE_SIMILAR_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "limit is %llu; 1 to %u are allowed",
                        (unsigned long long)limit, REDUCE_SIMILAR_MAX);
    struct target *t = cht_calloc(1, sizeof *t);
    if (t == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an aggregate");
    t->limit = (size_t)limit;
    run->state = t;
    return read_target(run, t, err);
}

static enum cht_rc map(struct reduce_run *run, void *partial, const struct cht_entry *e, bool *malformed,
                       struct cht_err *err)
{
    const struct target *target = run->state;
    struct partial *t = partial;
    struct reduce_payload in;
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK;
    if (!reduce_payload_counts(e->value, e->value_len, e->value_len, &in)) {
        *malformed = true;
        return CHT_OK;
    }
    if (e->name_len == run->p->to.n && memcmp(e->name, run->p->to.p, e->name_len) == 0)
        return CHT_OK;
    enum cht_rc rc = reduce_vector_read(run, &t->scratch, &in, err);
    if (rc != CHT_OK)
        return rc;
    struct match m = {.score = reduce_vector_score(&target->v, &t->scratch, run->p->metric), .key = e->key};
    union {
        const uint8_t *in;
        uint8_t *out;
    } name = {.in = e->name}; /* only looked at */
    m.name = name.out;
    m.len = e->name_len;
    if (!wanted(t, target->limit, &m))
        return CHT_OK;
    rc = reduce_take_memory(run, m.len, err);
    if (rc != CHT_OK)
        return rc;
    m.name = cht_malloc(m.len);
    if (m.name == NULL) {
        reduce_give_memory(run, m.len);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a match");
    }
    memcpy(m.name, e->name, m.len);
    return take(run, t, target->limit, m, err);
}

static enum cht_rc merge(struct reduce_run *run, struct partial *into, struct partial *from,
                         struct cht_err *err)
{
    const struct target *target = run->state;
    enum cht_rc rc = CHT_OK;
    while (from->n > 0) {
        struct match m = from->heap[--from->n];
        if (rc == CHT_OK && wanted(into, target->limit, &m))
            rc = take(run, into, target->limit, m, err);
        else
            drop(run, &m);
    }
    return rc;
}

static enum cht_rc print(struct reduce_run *run, const struct match *m, struct cht_buf *out,
                         struct cht_err *err)
{
    enum cht_rc rc = reduce_line_room(run, out, cht_b64_encoded(m->len) + 96, err);
    if (rc != CHT_OK)
        return rc;
    char *p = (char *)out->data + out->len;
    size_t n = reduce_put_str(p, "{\"pair\":\"");
    n += cht_b64_encode(p + n, m->name, m->len);
    n += reduce_put_str(p + n, "\",\"key\":");
    n += reduce_put_u64(p + n, m->key);
    n += reduce_put_str(p + n, ",\"score\":");
    n += reduce_put_double(p + n, m->score);
    n += reduce_put_str(p + n, "}\n");
    out->len += n;
    run->printed++;
    return CHT_OK;
}

static enum cht_rc lines(struct reduce_run *run, struct cht_buf *out, struct cht_err *err)
{
    const struct reduce_aggregate *a = reduce_mode_similar.aggregate;
    struct partial *all = reduce_partial(run, a, 0);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 1; i < run->count && rc == CHT_OK; i++)
        rc = merge(run, all, reduce_partial(run, a, i), err);
    if (rc == CHT_OK && all->n > 0)
        reduce_best_sort(all->heap, all->n, sizeof *all->heap, better);
    for (size_t i = 0; i < all->n && rc == CHT_OK; i++)
        rc = print(run, &all->heap[i], out, err);
    return rc;
}

static void finish(struct reduce_run *run)
{
    struct target *target = run->state;
    for (unsigned i = 0; i < run->count; i++) {
        struct partial *t = reduce_partial(run, reduce_mode_similar.aggregate, i);
        for (size_t k = 0; k < t->n; k++)
            drop(run, &t->heap[k]);
        cht_free(t->heap);
        reduce_vector_free(run, &t->scratch);
    }
    if (target != NULL)
        reduce_vector_free(run, &target->v);
    cht_free(target);
}

static const struct reduce_aggregate aggregate = {.partial = sizeof(struct partial),
                                                  .names = true,
                                                  .uses = REDUCE_USES_LIMIT | REDUCE_USES_TO,
                                                  .prepare = prepare,
                                                  .map = map,
                                                  .lines = lines,
                                                  .finish = finish};
static const char *const names[] = {"similar", NULL};
const struct reduce_mode reduce_mode_similar = {
    .names = names, .kind = REDUCE_AGGREGATE, .aggregate = &aggregate};
