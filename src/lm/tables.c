/* tables: see tables.h. */
#include "lm/tables_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "os/thread.h"

#define GATES 64u

/* One of them is held while the values of a key are read, changed and written. */
static struct cht_mutex gates[GATES];
static bool gates_there;

__attribute__((constructor)) static void make_gates(void)
{
    gates_there = true;
    for (size_t i = 0; i < GATES; i++)
        gates_there = gates_there && cht_mutex_init(&gates[i], NULL) == CHT_OK;
}

/* Of the key whose prefix is made. */
static struct cht_mutex *gate_of(const struct lm_table *t)
{
    return &gates[cht_crc32c((uint32_t)(uintptr_t)t->store, t->prefix.data, t->prefix.len) % GATES];
}

/* Makes the key's prefix and waits for its turn; *gate: what is to be unlocked. */
static enum cht_rc enter(struct lm_table *t, struct cht_str key, struct cht_mutex **gate, struct cht_err *err)
{
    *gate = NULL;
    if (!gates_there)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no locks for keys");
    enum cht_rc rc = lm_table_key(t, key, err);
    if (rc == CHT_OK) {
        *gate = gate_of(t);
        cht_mutex_lock(*gate);
    }
    return rc;
}

/* Writes what was noted, says how many values there are, and unlocks. */
static enum cht_rc leave(struct lm_table *t, struct cht_mutex *gate, enum cht_rc rc, uint64_t *values,
                         struct cht_err *err)
{
    if (rc == CHT_OK)
        rc = lm_table_commit(t, err);
    if (rc == CHT_OK)
        rc = lm_table_count(t, values, err);
    lm_table_drop(t);
    if (gate != NULL)
        cht_mutex_unlock(gate);
    return rc;
}

/* CHT_PREDICTION_NOT_FOUND: the key has no values. */
static enum cht_rc must_be_known(struct lm_table *t, struct cht_err *err)
{
    uint64_t values = 0;
    enum cht_rc rc = lm_table_count(t, &values, err);
    if (rc == CHT_OK && values == 0)
        rc = CHT_FAIL(err, CHT_PREDICTION_NOT_FOUND, "%s", cht_rc_text(CHT_PREDICTION_NOT_FOUND));
    return rc;
}

static enum cht_rc not_finite(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_NUMBER, "a score would be no finite number");
}

/* ---- train ---------------------------------------------------------------------------------------------------------- */

static enum cht_rc train_one(struct lm_table *t, const struct lm_table_step *step, struct cht_str value,
                             double want, struct cht_err *err)
{
    struct lm_learned l;
    bool found;
    enum cht_rc rc = lm_table_load(t, value, &l, &found, err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_learned_train(&l, step->ctx, step->rate, want, err);
    if (rc == CHT_INVALID_ARGUMENT)
        rc = not_finite(err);
    if (rc == CHT_OK)
        rc = lm_table_put(t, value, &l, !found, err);
    lm_learned_free(&l);
    return rc;
}

/* Was this value trained already? The operations that are noted have it. */
static bool noted(const struct lm_table *t, struct cht_str value)
{
    for (size_t i = 0; i < t->n; i++) {
        struct cht_str name = t->ops[i].name;
        if (name.n == t->prefix.len + value.n && memcmp(name.p + t->prefix.len, value.p, value.n) == 0)
            return true;
    }
    return false;
}

/* ---- shift ---------------------------------------------------------------------------------------------------------- */

struct shift {
    struct lm_table *t;
    const struct lm_matrix *ctx;
    double strength;
    bool scale;
};

static enum cht_rc shift_one(void *ctx, struct cht_str value, struct lm_learned *l, struct cht_err *err)
{
    const struct shift *h = ctx;
    double b = lm_learned_delta(l, h->ctx) * h->strength;
    if (!isfinite(b))
        return not_finite(err);
    l->score = lm_learned_clamp(h->scale ? l->score * (1 + b) : l->score + b);
    return lm_table_put(h->t, value, l, false, err);
}

/* ---- inherit -------------------------------------------------------------------------------------------------------- */

/* The mean of the sources that are there. */
static enum cht_rc mean_of(struct lm_table *t, struct lm_table_heir *h, struct lm_learned *out,
                           struct cht_err *err)
{
    struct cht_buf sums = {0};
    double sum = 0, most = -INFINITY;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < h->n && rc == CHT_OK; i++) {
        struct lm_learned l;
        bool found = false;
        if (h->sources[i].n == 0)
            continue;
        rc = lm_table_load(t, h->sources[i], &l, &found, err);
        if (rc != CHT_OK || !found)
            continue;
        sum += l.score;
        most = fmax(most, l.score);
        h->merged++;
        rc = lm_learned_inherit(out, &l, &sums, err);
        lm_learned_free(&l);
    }
    if (rc == CHT_OK && h->merged > 0) {
        lm_learned_inherited(out, &sums);
        out->score = lm_learned_clamp(h->merge == LM_MERGE_MAX   ? most
                                      : h->merge == LM_MERGE_SUM ? sum
                                                                 : sum / (double)h->merged);
    }
    cht_buf_free(&sums);
    return rc;
}

/* Notes one heir; what is wrong with it alone is its own. */
static enum cht_rc inherit_one(struct lm_table *t, struct lm_table_heir *h, struct cht_err *err)
{
    struct lm_learned made = {0}, old;
    bool found = false;
    h->merged = 0;
    enum cht_rc rc = must_be_known(t, err);
    if (rc == CHT_OK)
        rc = mean_of(t, h, &made, err);
    if (rc == CHT_OK && h->merged == 0)
        rc = CHT_FAIL(err, CHT_SOURCES_MISSING, "%s", cht_rc_text(CHT_SOURCES_MISSING));
    if (rc == CHT_OK)
        rc = lm_table_load(t, h->target, &old, &found, err);
    if (rc == CHT_OK) {
        lm_learned_free(&old);
        rc = lm_table_put(t, h->target, &made, !found, err);
    }
    lm_learned_free(&made);
    h->rc = rc;
    return rc == CHT_PREDICTION_NOT_FOUND || rc == CHT_SOURCES_MISSING ? CHT_OK : rc;
}

static bool same(struct cht_str a, struct cht_str b) { return a.n == b.n && memcmp(a.p, b.p, a.n) == 0; }

/* ---- query ---------------------------------------------------------------------------------------------------------- */

struct query {
    struct lm_table *t;
    const struct lm_matrix *ctx;
    struct lm_ranked *r;
    size_t first; /* of the key under way */
};

/* Memory for one more; asked for before it is used. */
static enum cht_rc room_for(struct query *q, size_t value, struct cht_err *err)
{
    struct lm_ranked *r = q->r;
    enum cht_rc rc = CHT_OK;
    if (r->text_n + value + r->n * sizeof *r->v > LM_TABLE_BYTES_MAX)
        return CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "the values of all keys are too many for one answer");
    if (r->n == r->cap) {
        size_t cap = r->cap == 0 ? 64 : r->cap * 2;
        if (q->t->book != NULL)
            rc = q->t->book(q->t->ctx, 2 * (cap - r->cap) * sizeof *r->v,
                            err); /* and as much while keys merge */
        struct lm_ranked_value *v = rc == CHT_OK ? cht_realloc(r->v, cap * sizeof *v) : NULL;
        if (rc == CHT_OK && v == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu values", cap);
        if (rc != CHT_OK)
            return rc;
        r->v = v;
        r->cap = cap;
    }
    if (r->text_n + value > r->text_cap) {
        size_t cap = 2 * (r->text_cap + value) + 1024;
        if (q->t->book != NULL)
            rc = q->t->book(q->t->ctx, 5 * (cap - r->text_cap), err); /* likewise, and what is answered */
        uint8_t *text = rc == CHT_OK ? cht_realloc(r->text, cap) : NULL;
        if (rc == CHT_OK && text == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for values");
        if (rc != CHT_OK)
            return rc;
        r->text = text;
        r->text_cap = cap;
    }
    return CHT_OK;
}

static enum cht_rc score_one(void *ctx, struct cht_str value, struct lm_learned *l, struct cht_err *err)
{
    struct query *q = ctx;
    struct lm_ranked *r = q->r;
    enum cht_rc rc = room_for(q, value.n, err);
    double score = l->score + lm_learned_delta(l, q->ctx);
    if (rc != CHT_OK)
        return rc;
    if (!isfinite(score))
        return not_finite(err);
    r->v[r->n++] = (struct lm_ranked_value){.at = r->text_n, .n = (uint32_t)value.n, .keys = 1, .p = score};
    memcpy(r->text + r->text_n, value.p, value.n);
    r->text_n += value.n;
    return CHT_OK;
}

static void softmax(struct lm_ranked_value *v, size_t n)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, v[i].p);
    for (size_t i = 0; i < n; i++)
        sum += v[i].p = exp(v[i].p - top);
    for (size_t i = 0; i < n; i++)
        v[i].p /= sum;
}

/* By value, in byte order. */
static int compare(const struct lm_ranked *r, const struct lm_ranked_value *x,
                   const struct lm_ranked_value *y)
{
    int c = memcmp(r->text + x->at, r->text + y->at, x->n < y->n ? x->n : y->n);
    return c != 0 ? c : x->n < y->n ? -1 : x->n > y->n;
}

static int by_probability(const void *a, const void *b)
{
    const struct lm_ranked_value *x = a, *y = b;
    return x->p != y->p ? x->p > y->p ? -1 : 1 : x->rank < y->rank ? -1 : 1;
}

/* The values of the key under way, v[first..n), go among those before it; both lists are in byte order. Done key by key, so that
 * what is held is the values, however often they come. */
static enum cht_rc merge_key(struct query *q, bool most, struct cht_err *err)
{
    struct lm_ranked *r = q->r;
    size_t a = 0, b = q->first, n = 0, text_n = 0;
    if (q->first == 0 || q->first == r->n)
        return CHT_OK;
    struct lm_ranked_value *v = cht_malloc(r->cap * sizeof *v);
    uint8_t *text = cht_malloc(r->text_cap);
    if (v == NULL || text == NULL) {
        cht_free(v);
        cht_free(text);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu values", r->n);
    }
    for (; a < q->first || b < r->n; n++) {
        int c = a == q->first ? 1 : b == r->n ? -1 : compare(r, &r->v[a], &r->v[b]);
        v[n] = c <= 0 ? r->v[a++] : r->v[b++];
        if (c == 0) {
            const struct lm_ranked_value *other = &r->v[b++];
            v[n].keys++;
            v[n].p = most ? fmax(v[n].p, other->p) : v[n].p + other->p;
        }
        memcpy(text + text_n, r->text + v[n].at, v[n].n);
        v[n].at = text_n;
        text_n += v[n].n;
    }
    cht_free(r->v);
    cht_free(r->text);
    r->v = v;
    r->n = n;
    r->text = text;
    r->text_n = text_n;
    return CHT_OK;
}

/* What is merged becomes probabilities; then the order. */
static void finish(struct lm_ranked *r, size_t keys, enum lm_merge merge)
{
    for (size_t i = 0; i < r->n; i++) {
        double p = merge == LM_MERGE_MEAN ? r->v[i].p / r->v[i].keys : r->v[i].p;
        r->v[i].p = keys > 1 ? fmax(0, fmin(1, p)) : p;
        r->v[i].rank = i;
    }
    if (r->v != NULL)
        qsort(r->v, r->n, sizeof *r->v, by_probability);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum lm_merge lm_merge_of(struct cht_str word)
{
    static const char *const words[] = {[LM_MERGE_MAX] = "max", [LM_MERGE_SUM] = "sum"};
    for (int m = LM_MERGE_MAX; m <= LM_MERGE_SUM && word.n == 3; m++) {
        bool is = true;
        for (size_t i = 0; i < 3; i++)
            is = is && (word.p[i] | 0x20) == (uint8_t)words[m][i];
        if (is)
            return (enum lm_merge)m;
    }
    return LM_MERGE_MEAN;
}

enum cht_rc lm_table_set(struct lm_table *t, struct cht_str key, struct cht_str value,
                         const struct lm_learned *l, uint64_t *values, struct cht_err *err)
{
    struct lm_learned old;
    struct cht_mutex *gate;
    bool found = false;
    enum cht_rc rc = enter(t, key, &gate, err);
    if (rc == CHT_OK) {
        rc = lm_table_load(t, value, &old, &found, err);
        if (rc == CHT_OK)
            lm_learned_free(&old);
    }
    if (rc == CHT_OK || rc == CHT_MALFORMED_PAYLOAD)
        rc = lm_table_put(t, value, l, !found && rc == CHT_OK, err);
    return leave(t, gate, rc, values, err);
}

enum cht_rc lm_table_train(struct lm_table *t, const struct lm_table_step *step, uint64_t *values,
                           struct cht_err *err)
{
    struct cht_mutex *gate;
    enum cht_rc rc = enter(t, step->key, &gate, err);
    if (rc == CHT_OK)
        rc = must_be_known(t, err);
    if (rc == CHT_OK)
        rc = train_one(t, step, step->target, 1, err);
    for (size_t i = 0; i < step->n && i < LM_TABLE_NEGATIVES_MAX && rc == CHT_OK; i++) {
        if (step->negatives[i].n > 0 && !noted(t, step->negatives[i]))
            rc = train_one(t, step, step->negatives[i], 0, err);
    }
    return leave(t, gate, rc, values, err);
}

enum cht_rc lm_table_shift(struct lm_table *t, struct cht_str key, const struct lm_matrix *ctx,
                           double strength, bool scale, uint64_t *values, struct cht_err *err)
{
    struct shift h = {.t = t, .ctx = ctx, .strength = strength, .scale = scale};
    struct cht_mutex *gate;
    enum cht_rc rc = enter(t, key, &gate, err);
    if (rc == CHT_OK)
        rc = must_be_known(t, err);
    if (rc == CHT_OK)
        rc = lm_table_each(t, shift_one, &h, err);
    return leave(t, gate, rc, values, err);
}

enum cht_rc lm_table_inherit(struct lm_table *t, struct lm_table_heir *heirs, size_t n, uint64_t *values,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    *values = 0;
    for (size_t i = 0; i < n && rc == CHT_OK;) {
        struct cht_mutex *gate;
        size_t first = i;
        rc = enter(t, heirs[i].key, &gate, err);
        for (; rc == CHT_OK && i < n && same(heirs[i].key, heirs[first].key); i++) {
            rc = inherit_one(t, &heirs[i], err);
            if (rc == CHT_OK && t->goes_on != NULL)
                rc = t->goes_on(t->ctx);
        }
        rc = leave(t, gate, rc, values, err);
    }
    return rc;
}

enum cht_rc lm_table_query(struct lm_table *t, const struct cht_str *keys, size_t n,
                           const struct lm_matrix *ctx, enum lm_merge merge, struct lm_ranked *out,
                           struct cht_err *err)
{
    struct query q = {.t = t, .ctx = ctx, .r = out};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (keys[i].n == 0)
            continue;
        q.first = out->n;
        rc = lm_table_key(t, keys[i], err);
        if (rc == CHT_OK)
            rc = lm_table_each(t, score_one, &q, err);
        if (rc == CHT_OK && out->n > q.first)
            softmax(out->v + q.first, out->n - q.first);
        if (rc == CHT_OK)
            rc = merge_key(&q, merge == LM_MERGE_MAX, err);
    }
    if (rc == CHT_OK)
        finish(out, n, merge);
    return rc;
}

void lm_ranked_free(struct lm_ranked *r)
{
    cht_free(r->v);
    cht_free(r->text);
    *r = (struct lm_ranked){0};
}
