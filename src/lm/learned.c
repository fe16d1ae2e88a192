/* learned: see learned.h. */
#include "lm/learned.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define VERSION 1u
#define HEAD 13u   /* bytes before the weights */
#define WEIGHT 16u /* bytes of a weight before its vector */
#define DEEPER 6u

/* ---- matrices ------------------------------------------------------------------------------------------------ */

static double at(const struct lm_row *r, size_t i) { return i < r->n ? r->v[i] : 0.0; }

struct energy {
    double mean;
    const struct lm_row *row;
    size_t at;
};

/* The strongest first; of equals the one that came first. */
static int stronger(const void *a, const void *b)
{
    const struct energy *x = a, *y = b;
    if (x->mean != y->mean)
        return x->mean > y->mean ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

/* Means and squares of all columns, row by row: a long row among many short ones costs what they have, not their product. */
static void columns(const struct energy *e, size_t n, size_t width, double *mean, double *var,
                    double *squares)
{
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < e[r].row->n; i++) {
            double v = e[r].row->v[i];
            mean[i] += v;
            squares[i] += v * v;
        }
    }
    for (size_t i = 0; i < width; i++)
        mean[i] /= (double)n;
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < e[r].row->n; i++) {
            double d = e[r].row->v[i] - mean[i];
            var[i] += d * d;
        }
    }
}

static double mean_at(const struct energy *e, size_t n, size_t i)
{
    double sum = 0;
    for (size_t r = 0; r < n; r++)
        sum += at(e[r].row, i);
    return sum / (double)n;
}

/* The rows that are not empty, by strength; the longest of them in *width. */
static size_t strengths(const struct lm_matrix *m, struct energy *e, size_t *width)
{
    size_t n = 0;
    *width = 0;
    for (size_t r = 0; r < m->n; r++) {
        const struct lm_row *row = &m->rows[r];
        double sum = 0;
        if (row->n == 0)
            continue;
        for (size_t i = 0; i < row->n; i++)
            sum += fabs(row->v[i]);
        e[n] = (struct energy){sum / (double)row->n, row, n};
        n++;
        *width = row->n > *width ? row->n : *width;
    }
    return n;
}

/* The six rows, not scaled, one after the other; returns how much the rows differ. */
static double spread(const struct energy *e, const struct energy *sorted, size_t n, size_t width, double *out)
{
    size_t k = n / 2 < 1 ? 1 : n / 2 > 3 ? 3 : n / 2;
    double *mean = out, *var = mean + width, *rms = var + width, *contrast = rms + width,
           *inter = contrast + width, *blend = inter + width, total = 0;
    columns(e, n, width, mean, var, rms);
    for (size_t i = 0; i < width; i++) {
        var[i] /= (double)n;
        rms[i] = sqrt(rms[i] / (double)n);
        contrast[i] = tanh(mean_at(sorted, k, i) - mean_at(sorted + n - k, k, i));
        inter[i] = tanh(mean[i] * contrast[i]);
        blend[i] = tanh(mean[i] + var[i] + inter[i]);
        total += fabs(var[i]);
    }
    return fmin(1.0, tanh(total / (double)width * log1p((double)n)));
}

double *lm_matrix_add(struct lm_matrix *m, size_t n)
{
    if (m->n == m->cap) {
        size_t cap = m->cap == 0 ? 8 : m->cap * 2;
        struct lm_row *rows = cht_realloc(m->rows, cap * sizeof *rows);
        if (rows == NULL)
            return NULL;
        m->rows = rows;
        m->cap = cap;
    }
    double *v = cht_calloc(n + 1, sizeof *v);
    if (v != NULL)
        m->rows[m->n++] = (struct lm_row){v, n};
    return v;
}

void lm_matrix_free(struct lm_matrix *m)
{
    for (size_t i = 0; i < m->n; i++)
        cht_free(m->rows[i].v);
    cht_free(m->rows);
    *m = (struct lm_matrix){0};
}

enum cht_rc lm_matrix_deepen(struct lm_matrix *m, struct cht_err *err)
{
    struct energy *e = cht_calloc(2 * m->n + 1, sizeof *e);
    enum cht_rc rc = e == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context matrix") : CHT_OK;
    size_t width = 0, n = e != NULL ? strengths(m, e, &width) : 0;
    double *six = n >= 2 ? cht_calloc(DEEPER * width, sizeof *six) : NULL;
    if (n >= 2 && six == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context matrix");
    if (six != NULL) {
        struct energy *sorted = e + n;
        memcpy(sorted, e, n * sizeof *e);
        qsort(sorted, n, sizeof *sorted, stronger);
        double scale = spread(e, sorted, n, width, six);
        for (size_t r = 0; r < DEEPER && scale > 0 && rc == CHT_OK; r++) {
            double *v = lm_matrix_add(m, width);
            if (v == NULL)
                rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context matrix");
            for (size_t i = 0; i < width && v != NULL; i++)
                v[i] = six[r * width + i] * scale;
        }
    }
    cht_free(six);
    cht_free(e);
    return rc;
}

/* ---- values --------------------------------------------------------------------------------------------------- */

static double get_double(const uint8_t *p)
{
    uint64_t bits = cht_be64(p);
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static void put_double(uint8_t *p, double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    cht_put64(p, __builtin_bswap64(bits));
}

static void put_u32(uint8_t *p, size_t v) { cht_put32(p, __builtin_bswap32((uint32_t)v)); }

static double logistic(double x)
{
    if (x >= 0)
        return 1 / (1 + exp(-x));
    double z = exp(x);
    return z / (1 + z);
}

enum cht_rc lm_learned_read(struct lm_learned *l, const uint8_t *p, size_t n, struct cht_err *err)
{
    *l = (struct lm_learned){0};
    const uint8_t *end = p + n;
    bool ok = n >= HEAD && p[0] == VERSION;
    size_t weights = ok ? cht_be32(p + 9) : 0;
    l->score = ok ? get_double(p + 1) : 0;
    p += ok ? HEAD : 0;
    for (size_t i = 0; i < weights && ok; i++) {
        ok = (size_t)(end - p) >= WEIGHT && (size_t)(end - p - WEIGHT) / 8 >= cht_be32(p + 4);
        ok = ok && (l->n == 0 || cht_be32(p) > l->w[l->n - 1].depth); /* as they are written */
        if (!ok)
            break;
        size_t width = cht_be32(p + 4);
        struct lm_weight *w = lm_learned_weight(l, cht_be32(p), width);
        if (w == NULL) {
            lm_learned_free(l);
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a learned value");
        }
        w->bias = get_double(p + 8);
        for (size_t k = 0; k < width; k++)
            w->v[k] = get_double(p + WEIGHT + 8 * k);
        p += WEIGHT + 8 * width;
    }
    if (ok && p == end && lm_learned_finite(l))
        return CHT_OK;
    lm_learned_free(l);
    return CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "a value of a prediction table has another layout");
}

enum cht_rc lm_learned_write(const struct lm_learned *l, struct cht_buf *out, struct cht_err *err)
{
    size_t n = HEAD;
    for (size_t i = 0; i < l->n; i++)
        n += WEIGHT + 8 * l->w[i].n;
    enum cht_rc rc = cht_buf_reserve(out, n, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = out->data;
    p[0] = VERSION;
    put_double(p + 1, l->score);
    put_u32(p + 9, l->n);
    p += HEAD;
    for (size_t i = 0; i < l->n; i++) {
        const struct lm_weight *w = &l->w[i];
        put_u32(p, w->depth);
        put_u32(p + 4, w->n);
        put_double(p + 8, w->bias);
        for (size_t k = 0; k < w->n; k++)
            put_double(p + WEIGHT + 8 * k, w->v[k]);
        p += WEIGHT + 8 * w->n;
    }
    out->len = n;
    return CHT_OK;
}

void lm_learned_free(struct lm_learned *l)
{
    for (size_t i = 0; i < l->n; i++)
        cht_free(l->w[i].v);
    cht_free(l->w);
    *l = (struct lm_learned){0};
}

struct lm_weight *lm_learned_weight(struct lm_learned *l, uint32_t depth, size_t n)
{
    size_t i = 0, end = l->n;
    while (i < end) {
        size_t mid = i + (end - i) / 2;
        if (l->w[mid].depth < depth)
            i = mid + 1;
        else
            end = mid;
    }
    if (i == l->n || l->w[i].depth != depth) {
        if (l->n == l->cap) {
            size_t cap = l->cap == 0 ? 4 : l->cap * 2;
            struct lm_weight *w = cht_realloc(l->w, cap * sizeof *w);
            if (w == NULL)
                return NULL;
            l->w = w;
            l->cap = cap;
        }
        memmove(l->w + i + 1, l->w + i, (l->n - i) * sizeof *l->w);
        l->w[i] = (struct lm_weight){.depth = depth};
        l->n++;
    }
    struct lm_weight *w = &l->w[i];
    if (n > w->n || w->v == NULL) {
        double *v = cht_realloc(w->v, (n + 1) * sizeof *v);
        if (v == NULL)
            return NULL;
        memset(v + w->n, 0, (n + 1 - w->n) * sizeof *v);
        w->v = v;
        w->n = n;
    }
    return w;
}

double lm_learned_delta(const struct lm_learned *l, const struct lm_matrix *m)
{
    double delta = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct lm_weight *w = &l->w[i];
        if (w->depth >= m->n)
            continue;
        const struct lm_row *row = &m->rows[w->depth];
        double dot = 0;
        for (size_t k = 0; k < w->n && k < row->n; k++)
            dot += row->v[k] * w->v[k];
        delta += dot + w->bias;
    }
    return delta;
}

enum cht_rc lm_learned_train(struct lm_learned *l, const struct lm_matrix *m, double rate, double want,
                             struct cht_err *err)
{
    double d = rate * (want - logistic(l->score + lm_learned_delta(l, m)));
    l->score = lm_learned_clamp(l->score + d);
    for (size_t r = 0; r < m->n; r++) {
        struct lm_weight *w = lm_learned_weight(l, (uint32_t)r, m->rows[r].n);
        if (w == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a learned value");
        for (size_t k = 0; k < m->rows[r].n; k++)
            w->v[k] += m->rows[r].v[k] * d;
        w->bias += d;
    }
    return isfinite(d) && lm_learned_finite(l)
               ? CHT_OK
               : CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a weight would be no finite number");
}

enum cht_rc lm_learned_inherit(struct lm_learned *l, const struct lm_learned *source, struct cht_buf *sums,
                               struct cht_err *err)
{
    double share = logistic(source->score);
    for (size_t i = 0; i < source->n; i++) {
        const struct lm_weight *from = &source->w[i];
        size_t before = l->n;
        struct lm_weight *to = lm_learned_weight(l, from->depth, from->n);
        if (to == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a learned value");
        enum cht_rc rc = cht_buf_reserve(sums, l->n * sizeof(double), err);
        if (rc != CHT_OK)
            return rc;
        size_t at_w = (size_t)(to - l->w);
        double *sum = (double *)(void *)sums->data;
        if (l->n > before) { /* a new depth, put between the others */
            memmove(sum + at_w + 1, sum + at_w, (l->n - 1 - at_w) * sizeof *sum);
            sum[at_w] = 0;
        }
        for (size_t k = 0; k < from->n; k++)
            to->v[k] += from->v[k] * share;
        to->bias += from->bias * share;
        sum[at_w] += share;
    }
    return CHT_OK;
}

void lm_learned_inherited(struct lm_learned *l, const struct cht_buf *sums)
{
    const double *sum = (const double *)(const void *)sums->data;
    for (size_t i = 0; i < l->n; i++) {
        for (size_t k = 0; k < l->w[i].n; k++)
            l->w[i].v[k] /= sum[i];
        l->w[i].bias /= sum[i];
    }
}

double lm_learned_clamp(double score)
{
    if (isnan(score))
        return 0;
    return fmax(-LM_LEARNED_SCORE_MAX, fmin(LM_LEARNED_SCORE_MAX, score));
}

bool lm_learned_finite(const struct lm_learned *l)
{
    bool ok = isfinite(l->score);
    for (size_t i = 0; i < l->n && ok; i++) {
        ok = isfinite(l->w[i].bias);
        for (size_t k = 0; k < l->w[i].n && ok; k++)
            ok = isfinite(l->w[i].v[k]);
    }
    return ok;
}
