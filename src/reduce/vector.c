/* vector: see vector.h. */
#include "reduce/vector.h"

#include "base/alloc.h"

#include <math.h>
#include <stdlib.h>

#define STEEP 16u /* one vector this many times longer: its terms are searched, not walked through */

struct overlap {
    reduce_u128 dot;
    uint64_t shared; /* tokens in both */
};

static int by_token(const void *a, const void *b)
{
    uint32_t x = ((const struct reduce_term *)a)->token, y = ((const struct reduce_term *)b)->token;
    return (x > y) - (x < y);
}

static enum cht_rc grow(struct reduce_run *run, struct reduce_vector *v, size_t n, struct cht_err *err)
{
    if (n <= v->cap)
        return CHT_OK;
    reduce_vector_free(run, v);
    size_t cap = n + n / 2;
    enum cht_rc rc = reduce_take_memory(run, cap * sizeof *v->terms, err);
    if (rc != CHT_OK)
        return rc;
    v->terms = cht_malloc(cap * sizeof *v->terms);
    if (v->terms == NULL) {
        reduce_give_memory(run, cap * sizeof *v->terms);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a vector of %zu tokens", n);
    }
    v->cap = cap;
    return CHT_OK;
}

/* First term from `from` on whose token is not below. */
static size_t seek(const struct reduce_vector *v, size_t from, uint32_t token)
{
    size_t lo = from, hi = v->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (v->terms[mid].token < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* a is the shorter one. */
static struct overlap overlap_of(const struct reduce_vector *a, const struct reduce_vector *b)
{
    struct overlap o = {0};
    bool steep = b->n / STEEP > a->n;
    size_t k = 0;
    for (size_t i = 0; i < a->n && k < b->n; i++) {
        uint32_t token = a->terms[i].token;
        if (steep)
            k = seek(b, k, token);
        while (k < b->n && b->terms[k].token < token)
            k++;
        if (k == b->n || b->terms[k].token != token)
            continue;
        o.dot += (reduce_u128)a->terms[i].count * b->terms[k].count;
        o.shared++;
    }
    return o;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc reduce_vector_read(struct reduce_run *run, struct reduce_vector *v,
                               const struct reduce_payload *in, struct cht_err *err)
{
    enum cht_rc rc = grow(run, v, in->n, err);
    if (rc != CHT_OK)
        return rc;
    bool ascending = true;
    for (uint32_t i = 0; i < in->n; i++) {
        const uint8_t *p = in->records + (size_t)i * REDUCE_PAYLOAD_COUNTS_RECORD;
        v->terms[i] =
            (struct reduce_term){.token = reduce_payload_get32(p), .count = reduce_payload_get32(p + 4)};
        ascending = ascending && (i == 0 || v->terms[i - 1].token < v->terms[i].token);
    }
    v->n = in->n;
    if (!ascending) {
        qsort(v->terms, v->n, sizeof *v->terms, by_token);
        size_t n = 0;
        for (size_t i = 1; i < v->n; i++) {
            if (v->terms[i].token == v->terms[n].token)
                v->terms[n].count += v->terms[i].count;
            else
                v->terms[++n] = v->terms[i];
        }
        v->n = n + 1;
    }
    v->norm = 0;
    for (size_t i = 0; i < v->n; i++)
        v->norm += (reduce_u128)v->terms[i].count * v->terms[i].count;
    return CHT_OK;
}

void reduce_vector_free(struct reduce_run *run, struct reduce_vector *v)
{
    cht_free(v->terms);
    reduce_give_memory(run, v->cap * sizeof *v->terms);
    *v = (struct reduce_vector){0};
}

double reduce_vector_score(const struct reduce_vector *a, const struct reduce_vector *b,
                           enum reduce_metric metric)
{
    struct overlap o = a->n <= b->n ? overlap_of(a, b) : overlap_of(b, a);
    if (metric == REDUCE_JACCARD) {
        uint64_t all = a->n + b->n - o.shared;
        return all > 0 ? (double)o.shared / (double)all : 0.0;
    }
    if (a->norm == 0 || b->norm == 0)
        return 0.0;
    double s = (double)o.dot / sqrt((double)a->norm * (double)b->norm);
    return s < 1.0 ? s : 1.0;
}
