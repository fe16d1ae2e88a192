/* links_ask: all of one side compared with all of another (links_int.h), on several threads.
 *
 * A row that asks goes through its lists and adds up an estimate of each score (in floats). The longest lists, of the tokens that most rows have,
 * are left out: their tokens have columns, a weight of each row in 16 bits, which complete the estimates. `slack` is above the error of both. So it is
 * known what every row scores that shares one of the seldom tokens, and the k-th best of these estimates is a floor. Any other row shares only tokens
 * of columns; what it can score is at most the length of that rest of the asking row (by Cauchy and Schwarz, the other row having the
 * length 1; Bayardo, Ma, Srikant: Scaling up all pairs similarity search, WWW 2007; Anastasiu, Karypis: L2AP, ICDE 2014). If that reaches the floor,
 * the columns are gone through in order, eight rows at a time, and those whose estimate reaches it are met as well.
 * What may be one of the best is then computed exactly, from both rows, in doubles, in ascending order of the tokens: so a score depends on
 * nothing but the two rows.
 *
 * Jaccard is asked in the same way, with numbers of tokens in place of lengths.
 */
#include "reduce/links_int.h"

#include "base/alloc.h"
#include "os/thread.h"
#include "reduce/best.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define STEEP 16u /* one row this many times longer: its terms are searched, not walked through */
#define PIECE 16u /* rows that a thread takes at a time */

__extension__ typedef uint16_t eight __attribute__((vector_size(16)));

struct asked {
    uint64_t from, to; /* of the list */
    float weight;
    uint32_t column; /* + 1; 0: it has none */
};

struct match {
    float weight;
    uint32_t row;
    uint32_t prior; /* number in the payload so far + 1; 0: a row of the right side */
};

struct share {
    struct reduce_links *l;
    const struct reduce_links_rows *left, *right;
    const struct reduce_links_index *x;
    struct reduce_links_found *found;
    _Atomic uint32_t next;
    _Atomic bool stop;
};

/* One thread's. */
struct worker {
    eight weight[REDUCE_LINKS_COLUMNS]; /* the asking row's, in the columns that it has; eight times each */
    const uint16_t *column[REDUCE_LINKS_COLUMNS]; /* these columns */
    struct share *s;
    float *acc;         /* owned; of each row of the right side; zeros between two rows that ask */
    uint32_t *met;      /* owned; rows with an estimate */
    struct asked *ask;  /* owned; the lists, those with a column last */
    struct match *best; /* owned; a heap, the worst on top; in order at the end */
    float *kth;         /* owned; a heap of the best estimates, the least on top */
    uint32_t n_met, n_ask, n_sparse, n_best, n_kth;
    unsigned n_columns;
    uint32_t self;           /* the row itself, on the right side; UINT32_MAX: it is not there */
    float slack, floor, own; /* floor: what a new match must weigh at least; own: terms of the asking row */
    float rest;              /* the most that a row can score that shares tokens of columns only */
    float unit;              /* of the sums of columns */
    uint64_t booked, rows, scored; /* rows that asked, scores that were computed */
    enum cht_rc rc;
    struct cht_err err;
    struct cht_thread thread;
};

static bool jaccard(const struct worker *w) { return w->s->l->cfg->metric == REDUCE_JACCARD; }

static float of_both(float shared, float a, float b) { return shared / (a + b - shared); }

static float terms_of(const struct worker *w, uint32_t row) { return (float)w->s->right->square[row]; }

/* The most that a row can score, its estimate being complete; and what it scores at least. */
static float most(const struct worker *w, uint32_t row)
{
    float v = jaccard(w) ? of_both(w->acc[row], w->own, terms_of(w, row)) : w->acc[row];
    return v + w->slack < 1.0f ? v + w->slack : 1.0f;
}

static float least(const struct worker *w, uint32_t row)
{
    return (jaccard(w) ? of_both(w->acc[row], w->own, terms_of(w, row)) : w->acc[row]) - w->slack;
}

static void take_column(struct worker *w, const struct asked *a)
{
    const struct reduce_links_index *x = w->s->x;
    long v = jaccard(w) ? 65536 / (long)REDUCE_LINKS_ONE : lrintf(a->weight * 65536.0f);
    uint16_t u = (uint16_t)(v < 65535 ? v : 65535);
    w->weight[w->n_columns] = (eight){u, u, u, u, u, u, u, u};
    w->column[w->n_columns++] = x->dense + (a->column - 1) * x->height;
}

/* The row's lists, and its columns. Errors of a sum of columns: of each, half a unit of either weight, and one of cutting the product. */
static void lists_of(struct worker *w, uint32_t row)
{
    const struct reduce_links_rows *q = w->s->left;
    const struct reduce_links_index *x = w->s->x;
    double length = sqrt(q->square[row]), sum = 0.0;
    uint32_t end = (uint32_t)(q->start[row + 1] - q->start[row]);
    w->n_ask = w->n_sparse = 0;
    w->n_columns = 0;
    for (uint64_t i = q->start[row]; i < q->start[row + 1]; i++) {
        uint64_t slot = reduce_tokens_value(&x->slots, q->token[i]);
        if (slot == 0)
            continue;
        float v = jaccard(w) ? 1.0f : (float)(q->weight[i] / length);
        struct asked a = {x->list[slot - 1], x->list[slot], v > REDUCE_LINKS_LEAST ? v : REDUCE_LINKS_LEAST,
                          x->column[slot - 1]};
        w->n_ask++;
        if (a.column == 0) {
            w->ask[w->n_sparse++] = a;
            continue;
        }
        w->ask[end - ++w->n_columns] = a;
        sum += (double)v * v;
    }
    memmove(w->ask + w->n_sparse, w->ask + end - w->n_columns, w->n_columns * sizeof *w->ask);
    w->n_columns = 0;
    for (uint32_t i = w->n_sparse; i < w->n_ask; i++)
        take_column(w, &w->ask[i]);
    w->own = (float)q->square[row];
    w->unit = jaccard(w) ? 1.0f : 1.0f / REDUCE_LINKS_SCALE;
    w->slack = jaccard(w) ? 1e-6f : 2.5e-7f * (float)(w->n_ask + 4) + 2.0f * w->unit * (float)w->n_columns;
    w->rest = (jaccard(w) ? (float)sum / w->own : (float)sqrt(sum)) + w->slack;
}

static void raise_kth(struct worker *w, float v)
{
    float *h = w->kth;
    uint32_t i = 0, n = w->n_kth;
    for (uint32_t k = 1; k < n; k = 2 * i + 1) {
        if (k + 1 < n && h[k + 1] < h[k])
            k++;
        if (!(h[k] < v))
            break;
        h[i] = h[k];
        i = k;
    }
    h[i] = v;
}

/* One more row's estimate is complete: raises the floor to the k-th best. */
static void offer_kth(struct worker *w, uint32_t row)
{
    uint32_t k = w->s->l->cfg->k;
    float v = least(w, row);
    if (row == w->self)
        return;
    if (w->n_kth == k) {
        if (v <= w->kth[0])
            return;
        raise_kth(w, v);
    } else {
        uint32_t i = w->n_kth++;
        for (; i > 0 && v < w->kth[(i - 1) / 2]; i = (i - 1) / 2)
            w->kth[i] = w->kth[(i - 1) / 2];
        w->kth[i] = v;
    }
    if (w->n_kth == k && w->kth[0] > w->floor)
        w->floor = w->kth[0];
}

static void add_list(struct worker *w, const struct asked *a)
{
    const uint32_t *row = w->s->x->row;
    const float *weight = w->s->x->weight;
    float *acc = w->acc;
    uint32_t *met = w->met, n = w->n_met;
    for (uint64_t i = a->from; i < a->to; i++) {
        float old = acc[row[i]];
        met[n] = row[i];
        n += old == 0.0f;
        acc[row[i]] = old + a->weight * weight[i];
    }
    w->n_met = n;
}

/* What the columns of the asking row say about one row. */
static float of_columns(const struct worker *w, uint32_t row)
{
    unsigned sum = 0;
    for (unsigned c = 0; c < w->n_columns; c++)
        sum += (unsigned)w->column[c][row] * w->weight[c][0] >> 16;
    return (float)sum * w->unit;
}

/* The upper halves of the products. */
static inline eight high(eight a, eight b)
{
#ifdef __SSE2__
    return (eight)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
    eight r;
    for (unsigned i = 0; i < 8; i++)
        r[i] = (uint16_t)((uint32_t)a[i] * b[i] >> 16);
    return r;
#endif
}

/* The sums of sixteen rows from `row` on; is one of them above `below`? All are less than 2^15. */
static inline bool any_above(const struct worker *w, uint32_t row, eight below, eight sum[2])
{
    __extension__ typedef int16_t eight_signed __attribute__((vector_size(16)));
    __extension__ typedef uint64_t two __attribute__((vector_size(16)));
    eight a = {0}, b = {0};
    for (unsigned c = 0; c < w->n_columns; c++) {
        const eight *p = (const eight *)(const void *)(w->column[c] + row);
        a += high(p[0], w->weight[c]);
        b += high(p[1], w->weight[c]);
    }
    sum[0] = a;
    sum[1] = b;
    two found = (two)((eight_signed)a > (eight_signed)below) | (two)((eight_signed)b > (eight_signed)below);
    return (found[0] | found[1]) != 0;
}

/* Above which a sum of columns reaches the floor; negative: any may. */
static long below_floor(const struct worker *w)
{
    float least_sum = jaccard(w) ? (w->floor - w->slack) * w->own : (w->floor - w->slack) / w->unit;
    return (long)floorf(least_sum) - 1;
}

static void meet(struct worker *w, uint32_t row, float estimate)
{
    w->acc[row] = estimate;
    w->met[w->n_met++] = row;
    offer_kth(w, row);
}

/* The rows that were not met yet and can be among the best: the columns in order. */
static void add_unmet(struct worker *w)
{
    eight sum[2];
    long below = below_floor(w);
    for (uint32_t row = 0; row < w->s->right->n; row += REDUCE_LINKS_STEP) {
        uint16_t b = (uint16_t)(below < INT16_MAX ? below : INT16_MAX);
        if (!any_above(w, row, (eight){b, b, b, b, b, b, b, b}, sum))
            continue;
        for (uint32_t i = 0; i < REDUCE_LINKS_STEP; i++) {
            uint16_t v = sum[i / 8][i % 8];
            if ((long)v > below && w->acc[row + i] == 0.0f) {
                meet(w, row + i, (float)v * w->unit);
                below = below_floor(w);
            }
        }
    }
}

/* The same if so little reaches the floor that the columns do not tell it from nothing: all that share anything. */
static void add_shared(struct worker *w)
{
    for (uint32_t k = w->n_sparse; k < w->n_ask; k++) {
        const struct asked *a = &w->ask[k];
        for (uint64_t i = a->from; i < a->to; i++) {
            uint32_t row = w->s->x->row[i];
            if (w->acc[row] != 0.0f)
                continue;
            float v = of_columns(w, row);
            meet(w, row, v > REDUCE_LINKS_LEAST ? v : REDUCE_LINKS_LEAST);
        }
    }
}

/* Meets all rows that can be among the best, with complete estimates. */
static void estimate(struct worker *w)
{
    w->n_met = w->n_kth = 0;
    for (uint32_t i = 0; i < w->n_sparse; i++)
        add_list(w, &w->ask[i]);
    for (uint32_t i = 0; i < w->n_met; i++) {
        w->acc[w->met[i]] += of_columns(w, w->met[i]);
        offer_kth(w, w->met[i]);
    }
    if (w->n_columns == 0 || w->rest < w->floor)
        return;
    if (below_floor(w) >= 0)
        add_unmet(w);
    else
        add_shared(w);
}

static uint64_t seek(const uint32_t *token, uint64_t lo, uint64_t hi, uint32_t wanted)
{
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (token[mid] < wanted)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* a is the shorter row; the sum of products, or how many tokens are in both. */
static double overlap(const struct reduce_links_rows *a, uint32_t i, const struct reduce_links_rows *b,
                      uint32_t j, bool products)
{
    uint64_t k = b->start[j], end = b->start[j + 1], n = a->start[i + 1] - a->start[i];
    bool steep = (end - k) / STEEP > n;
    double sum = 0.0;
    for (uint64_t at = a->start[i]; at < a->start[i + 1] && k < end; at++) {
        uint32_t token = a->token[at];
        if (steep)
            k = seek(b->token, k, end, token);
        while (k < end && b->token[k] < token)
            k++;
        if (k < end && b->token[k] == token)
            sum += products ? a->weight[at] * b->weight[k] : 1.0;
    }
    return sum;
}

static float score(const struct worker *w, uint32_t i, uint32_t j)
{
    const struct reduce_links_rows *a = w->s->left, *b = w->s->right;
    bool shorter_left = a->start[i + 1] - a->start[i] <= b->start[j + 1] - b->start[j];
    bool products = !jaccard(w);
    double o = shorter_left ? overlap(a, i, b, j, products) : overlap(b, j, a, i, products);
    if (!products)
        return (float)(o / (a->square[i] + b->square[j] - o));
    double s = o / sqrt(a->square[i] * b->square[j]);
    return (float)(s < 1.0 ? s : 1.0);
}

/* Rows are in the order of their names, and those of earlier blocks before those of later ones. */
static bool better(const void *x, const void *y)
{
    const struct match *a = x, *b = y;
    if (a->weight != b->weight)
        return a->weight > b->weight;
    if (a->prior != 0 || b->prior != 0)
        return b->prior == 0 || (a->prior != 0 && a->prior < b->prior);
    return a->row < b->row;
}

static void offer(struct worker *w, struct match m)
{
    uint32_t k = w->s->l->cfg->k;
    if (w->n_best == k) {
        if (!better(&m, &w->best[0]))
            return;
        w->best[0] = m;
        reduce_best_sink(w->best, 0, k, sizeof *w->best, better);
    } else {
        w->best[w->n_best++] = m;
        reduce_best_rise(w->best, w->n_best - 1, sizeof *w->best, better);
    }
    if (w->n_best == k && w->best[0].weight > w->floor)
        w->floor = w->best[0].weight;
}

static uint32_t find_self(const struct worker *w, uint32_t row)
{
    const struct reduce_links_rows *b = w->s->right;
    struct cht_str name = reduce_links_name(w->s->left, row);
    uint32_t lo = 0, hi = b->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (reduce_links_compare(reduce_links_name(b, mid), name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < b->n && reduce_links_compare(reduce_links_name(b, lo), name) == 0 ? lo : UINT32_MAX;
}

static void find_best(struct worker *w, uint32_t row)
{
    const float min = (float)w->s->l->cfg->min;
    const uint32_t k = w->s->l->cfg->k;
    w->self = find_self(w, row);
    lists_of(w, row);
    estimate(w);
    for (uint32_t i = 0; i < w->n_met; i++) {
        uint32_t other = w->met[i];
        float can = most(w, other);
        bool late = w->n_best == k && can <= w->best[0].weight && /* no better, and after it by name */
                    (w->best[0].prior != 0 || w->best[0].row < other);
        if (other != w->self && can >= w->floor && !late) {
            struct match m = {.weight = score(w, row, other), .row = other};
            w->scored++;
            if (m.weight >= min && m.weight > 0.0f)
                offer(w, m);
        }
        w->acc[other] = 0.0f;
    }
    reduce_best_sort(w->best, w->n_best, sizeof *w->best, better);
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* What was found among earlier blocks. The payload is our own. */
static void take_prior(struct worker *w, uint32_t row)
{
    const struct reduce_links_found *f = w->s->found;
    size_t at = 0;
    uint32_t left = 0;
    struct reduce_link link;
    bool malformed;
    w->n_best = 0;
    w->floor = (float)w->s->l->cfg->min;
    if (f->payload[row] == NULL)
        return;
    for (uint32_t i = 1; reduce_links_next(f->payload[row], f->size[row], &at, &left, &link, &malformed); i++)
        offer(w, (struct match){.weight = link.weight, .prior = i});
}

/* Entry number n of a payload of our own. */
static struct cht_str prior_name(const uint8_t *p, uint32_t n)
{
    size_t at = 3;
    for (; n > 1; n--)
        at += 2u + reduce_payload_get16(p + at) + 4u;
    return (struct cht_str){p + at + 2, reduce_payload_get16(p + at)};
}

static struct cht_str match_name(const struct worker *w, uint32_t row, const struct match *m)
{
    return m->prior != 0 ? prior_name(w->s->found->payload[row], m->prior)
                         : reduce_links_name(w->s->right, m->row);
}

static enum cht_rc store_best(struct worker *w, uint32_t row, struct cht_err *err)
{
    struct reduce_links_found *f = w->s->found;
    size_t size = 3, at = 3;
    for (uint32_t i = 0; i < w->n_best; i++)
        size += 2 + match_name(w, row, &w->best[i]).n + 4;
    enum cht_rc rc = reduce_take_memory(&w->s->l->run, size, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = cht_malloc(size);
    if (p == NULL) {
        reduce_give_memory(&w->s->l->run, size);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the links of a context");
    }
    p[0] = 1;
    reduce_payload_put16(p + 1, (uint16_t)w->n_best);
    for (uint32_t i = 0; i < w->n_best; i++) {
        struct cht_str name = match_name(w, row, &w->best[i]);
        uint32_t bits;
        memcpy(&bits, &w->best[i].weight, sizeof bits);
        reduce_payload_put16(p + at, (uint16_t)name.n);
        memcpy(p + at + 2, name.p, name.n);
        reduce_payload_put32(p + at + 2 + name.n, bits);
        at += 2 + name.n + 4;
    }
    reduce_give_memory(&w->s->l->run, f->size[row]);
    cht_free(f->payload[row]);
    f->payload[row] = p;
    f->size[row] = (uint32_t)size;
    return CHT_OK;
}

enum cht_rc reduce_links_found_room(struct reduce_links *l, struct reduce_links_found *f, uint32_t n,
                                    struct cht_err *err)
{
    reduce_links_found_free(l, f);
    uint64_t bytes = (uint64_t)n * (sizeof *f->payload + sizeof *f->size);
    enum cht_rc rc = reduce_take_memory(&l->run, bytes, err);
    if (rc != CHT_OK)
        return rc;
    f->booked = bytes;
    f->payload = cht_calloc(n + 1u, sizeof *f->payload);
    f->size = cht_calloc(n + 1u, sizeof *f->size);
    if (f->payload == NULL || f->size == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the links of %u contexts", n);
    f->n = n;
    return CHT_OK;
}

void reduce_links_found_free(struct reduce_links *l, struct reduce_links_found *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        reduce_give_memory(&l->run, f->size[i]);
        cht_free(f->payload[i]);
    }
    cht_free(f->payload);
    cht_free(f->size);
    reduce_give_memory(&l->run, f->booked);
    *f = (struct reduce_links_found){0};
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static void ask_rows(struct worker *w, uint32_t from, uint32_t to)
{
    struct share *s = w->s;
    for (uint32_t i = from; i < to && w->rc == CHT_OK; i++) {
        if (reduce_links_cancelled(s->l))
            w->rc = CHT_FAIL(&w->err, CHT_CANCELLED, "the links were cancelled");
        if (w->rc != CHT_OK)
            break;
        take_prior(w, i);
        if (s->left->square[i] > 0.0 && s->right->n > 0)
            find_best(w, i);
        w->rows++;
        w->rc = store_best(w, i, &w->err);
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct share *s = w->s;
    while (w->rc == CHT_OK && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        uint32_t from = atomic_fetch_add_explicit(&s->next, PIECE, memory_order_relaxed);
        if (from >= s->left->n)
            break;
        uint32_t to = from + PIECE < s->left->n ? from + PIECE : s->left->n;
        ask_rows(w, from, to);
        if (s->l->cfg->progress != NULL)
            atomic_fetch_add_explicit(&s->l->cfg->progress->done, to - from, memory_order_relaxed);
    }
    if (w->rc != CHT_OK)
        atomic_store_explicit(&s->stop, true, memory_order_relaxed);
    return NULL;
}

static void worker_free(struct worker *w)
{
    cht_free(w->acc);
    cht_free(w->met);
    cht_free(w->ask);
    cht_free(w->best);
    cht_free(w->kth);
    reduce_give_memory(&w->s->l->run, w->booked);
}

static enum cht_rc worker_room(struct worker *w, uint32_t longest, struct cht_err *err)
{
    size_t rows = (size_t)w->s->right->n + 1, lists = (size_t)longest + 1, k = w->s->l->cfg->k;
    uint64_t bytes = rows * (sizeof *w->acc + sizeof *w->met) + lists * sizeof *w->ask +
                     k * (sizeof *w->best + sizeof *w->kth);
    enum cht_rc rc = reduce_take_memory(&w->s->l->run, bytes, err);
    if (rc != CHT_OK)
        return rc;
    w->booked = bytes;
    w->acc = cht_calloc(rows, sizeof *w->acc);
    w->met = cht_malloc(rows * sizeof *w->met);
    w->ask = cht_malloc(lists * sizeof *w->ask);
    w->best = cht_malloc(k * sizeof *w->best);
    w->kth = cht_malloc(k * sizeof *w->kth);
    if (w->acc == NULL || w->met == NULL || w->ask == NULL || w->best == NULL || w->kth == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to compare %zu contexts", rows - 1);
    return CHT_OK;
}

/* The caller's thread is the first; threads that cannot be started are done without. */
static enum cht_rc run_workers(struct worker *w, unsigned n, struct cht_err *err)
{
    bool up[REDUCE_LINKS_THREADS_MAX] = {false};
    for (unsigned i = 1; i < n; i++)
        up[i] = cht_thread_start(&w[i].thread, "links", work, &w[i], NULL) == CHT_OK;
    (void)work(&w[0]); /* its result is in w[0].rc */
    for (unsigned i = 1; i < n; i++) {
        if (up[i])
            cht_thread_join(&w[i].thread);
    }
    for (unsigned i = 0; i < n; i++) {
        if (w[i].rc == CHT_OK)
            continue;
        if (err != NULL)
            *err = w[i].err;
        return w[i].rc;
    }
    return CHT_OK;
}

enum cht_rc reduce_links_all(struct reduce_links *l, const struct reduce_links_rows *left,
                             const struct reduce_links_rows *right, const struct reduce_links_index *x,
                             struct reduce_links_found *f, struct cht_err *err)
{
    struct share s = {.l = l, .left = left, .right = right, .x = x, .found = f};
    struct worker w[REDUCE_LINKS_THREADS_MAX] = {0};
    uint64_t longest = 0;
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < left->n; i++) {
        uint64_t n = left->start[i + 1] - left->start[i];
        longest = n > longest ? n : longest;
    }
    for (unsigned i = 0; i < REDUCE_LINKS_THREADS_MAX; i++)
        w[i].s = &s;
    for (unsigned i = 0; i < l->threads; i++) {
        if (rc == CHT_OK)
            rc = worker_room(&w[i], (uint32_t)longest, err);
    }
    if (rc == CHT_OK)
        rc = run_workers(w, l->threads, err);
    for (unsigned i = 0; i < l->threads; i++) {
        l->result->compared += w[i].scored;
        l->result->pruned += w[i].rows * right->n - w[i].scored;
        worker_free(&w[i]);
    }
    return rc;
}
