/* predict: the PREDICT_ commands; see predict.h.
 *
 *   PREDICT_SET key= value= [prob=0.5] [weights=JSON]         SUCCESS,table=T,prediction_values=2
 *   PREDICT_QUERY key= | keys=a,b [ctx=JSON] [merge=avg|sum|max]   SUCCESS,count=2,backend=cpu,table=T,items=61:0.5065;64:0.4935
 *   PREDICT_TRAIN key= target= [ctx=JSON] [lr=0.01] [negatives=a,b]
 *   PREDICT_CTX key= ctx=JSON [mode=bias|scale] [strength=1]
 *   PREDICT_INHERIT key= target= sources=a,b [merge=avg|max|sum]
 *
 * ctx: [[...],...] or {"rows":[[...]],"weights":[...]}. A query's probabilities are the softmax of score + delta over the values of
 * its key; of several keys those that have the value are merged.
 */
#include "tcp/predict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "os/thread.h"
#include "tcp/answer.h"

static struct cht_mutex gate; /* of commands that change a table */
static bool gate_there;

__attribute__((constructor)) static void make_gate(void)
{
    gate_there = cht_mutex_init(&gate, NULL) == CHT_OK;
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

static void fail(struct line_predict *p, const char *word)
{
    line_session_error(p->s, p->s->command.verb, word);
}

static void fail_rc(struct line_predict *p, enum cht_rc rc)
{
    fail(p, rc == CHT_INVALID_ARGUMENT ? "invalid_number" : cht_rc_slug(rc));
}

static void put_table(struct line_predict *p)
{
    svc_out_text(&p->s->out, "table=");
    svc_out_bytes(&p->s->out, p->table.p, p->table.n);
}

/* SUCCESS,table=T,prediction_values=N and `more`; writes what was noted first. */
static void done(struct line_predict *p, enum cht_rc rc, const char *more)
{
    struct cht_err err = {0};
    uint64_t values = 0;
    if (rc == CHT_OK)
        rc = line_predict_commit(p, &err);
    if (rc == CHT_OK)
        rc = line_predict_count(p, &values, &err);
    if (rc != CHT_OK) {
        fail_rc(p, rc);
        return;
    }
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_format(&p->s->out, ",prediction_values=%llu%s\n", (unsigned long long)values, more);
}

/* Is there such a key? False: it is answered. */
static bool known_key(struct line_predict *p, struct cht_str key)
{
    struct cht_err err = {0};
    uint64_t values = 0;
    enum cht_rc rc = line_predict_key(p, key, &err);
    if (rc == CHT_OK)
        rc = line_predict_count(p, &values, &err);
    if (rc != CHT_OK)
        fail_rc(p, rc);
    else if (values == 0)
        fail(p, "prediction_entry_not_found");
    return rc == CHT_OK && values > 0;
}

/* ---- SET, TRAIN, CTX, INHERIT ----------------------------------------------------------------------------------- */

static void set(struct line_predict *p)
{
    struct cht_str key, value;
    struct lm_learned l = {0};
    struct cht_err err = {0};
    if (!line_predict_bytes(p, "key", &key) || !line_predict_bytes(p, "value", &value)) {
        fail(p, "predict_set_requires_key_and_value");
        return;
    }
    double prob = line_predict_number(p, "prob", 0.5);
    l.score = isnan(prob) ? 0 : fmax(0, fmin(1, prob));
    const char *error = line_predict_weights(p, &l);
    if (error != NULL) {
        fail(p, error);
    } else {
        struct lm_learned old;
        bool found = false;
        enum cht_rc rc = line_predict_key(p, key, &err);
        if (rc == CHT_OK)
            rc = line_predict_load(p, value, &old, &found, &err);
        if (rc == CHT_OK)
            lm_learned_free(&old);
        if (rc == CHT_OK || rc == CHT_MALFORMED_PAYLOAD)
            rc = line_predict_put(p, value, &l, !found, &err);
        done(p, rc, "");
    }
    lm_learned_free(&l);
}

static enum cht_rc train_one(struct line_predict *p, struct cht_str value, double rate, double want,
                             struct cht_err *err)
{
    struct lm_learned l;
    bool found;
    enum cht_rc rc = line_predict_load(p, value, &l, &found, err);
    if (rc != CHT_OK)
        return rc;
    rc = lm_learned_train(&l, &p->ctx, rate, want, err);
    if (rc == CHT_OK)
        rc = line_predict_put(p, value, &l, !found, err);
    lm_learned_free(&l);
    return rc;
}

/* Was this value trained already? The operations that are noted have it. */
static bool noted(const struct line_predict *p, struct cht_str value)
{
    for (size_t i = 0; i < p->n; i++) {
        struct cht_str name = p->ops[i].name;
        if (name.n == p->name.len + value.n && memcmp(name.p + p->name.len, value.p, value.n) == 0)
            return true;
    }
    return false;
}

/* Each is compared with those before it, and all with the lock held. */
static bool too_many(struct cht_str list)
{
    size_t commas = 0;
    for (size_t i = 0; i < list.n; i++)
        commas += list.p[i] == ',';
    return commas >= LINE_PREDICT_NEGATIVES_MAX;
}

static void train(struct line_predict *p)
{
    struct cht_str key, target, list = line_predict_text(p, "negatives", NULL), value;
    struct cht_err err = {0};
    bool given, more = true;
    char tail[48];
    if (!line_predict_bytes(p, "key", &key) || !line_predict_bytes(p, "target", &target)) {
        fail(p, "predict_train_requires_key_and_target");
        return;
    }
    const char *error = line_predict_ctx(p, &given);
    double said = line_predict_number(p, "lr", 0.01), rate = said > 0 ? said : 0.01;
    if (error == NULL && !isfinite(said))
        error = "invalid_number";
    if (error == NULL && too_many(list))
        error = "invalid_negatives (max 10000)";
    if (error != NULL) {
        fail(p, error);
        return;
    }
    if (!known_key(p, key))
        return;
    enum cht_rc rc = train_one(p, target, rate, 1, &err);
    while (rc == CHT_OK && more) {
        if (!line_predict_next(p, &list, &value, &more)) {
            fail(p, "invalid_negatives");
            return;
        }
        if (more && value.n > 0 && !noted(p, value))
            rc = train_one(p, value, rate, 0, &err);
    }
    (void)snprintf(tail, sizeof tail, ",lr=%.4f", said);
    done(p, rc, tail);
}

struct shift {
    struct line_predict *p;
    double strength;
    bool scale;
};

static enum cht_rc shift_one(void *ctx, struct cht_str value, struct lm_learned *l, struct cht_err *err)
{
    const struct shift *h = ctx;
    double b = lm_learned_delta(l, &h->p->ctx) * h->strength;
    if (!isfinite(b))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a score would be no finite number");
    l->score = lm_learned_clamp(h->scale ? l->score * (1 + b) : l->score + b);
    return line_predict_put(h->p, value, l, false, err);
}

static void shift_all(struct line_predict *p)
{
    struct cht_str key, mode = line_predict_text(p, "mode", NULL);
    struct cht_err err = {0};
    struct shift h = {.p = p, .strength = line_predict_number(p, "strength", 1)};
    bool given = false;
    const char *error =
        line_predict_bytes(p, "key", &key) ? line_predict_ctx(p, &given) : "predict_ctx_requires_key";
    if (error == NULL && !given)
        error = "predict_ctx_requires_matrix";
    if (error == NULL && !isfinite(h.strength))
        error = "invalid_number";
    if (error != NULL) {
        fail(p, error);
        return;
    }
    h.strength = h.strength != 0 ? h.strength : 1;
    h.scale = line_predict_is(mode, "scale") || line_predict_is(mode, "multiply");
    if (known_key(p, key))
        done(p, line_predict_each(p, shift_one, &h, &err), "");
}

/* The mean of the sources that are there, as the target; *merged: how many. */
static enum cht_rc inherit_from(struct line_predict *p, struct cht_str list, struct cht_str merge,
                                struct lm_learned *out, size_t *merged, struct cht_err *err)
{
    struct cht_buf sums = {0};
    struct cht_str value;
    double sum = 0, most = -INFINITY;
    enum cht_rc rc = CHT_OK;
    *merged = 0;
    for (bool more = true; rc == CHT_OK && more;) {
        struct lm_learned l;
        bool found = false;
        if (!line_predict_next(p, &list, &value, &more))
            rc = CHT_INVALID_HEX;
        if (rc == CHT_OK && more && value.n > 0)
            rc = line_predict_load(p, value, &l, &found, err);
        if (rc != CHT_OK || !found)
            continue;
        sum += l.score;
        most = fmax(most, l.score);
        (*merged)++;
        rc = lm_learned_inherit(out, &l, &sums, err);
        lm_learned_free(&l);
    }
    if (rc == CHT_OK && *merged > 0) {
        lm_learned_inherited(out, &sums);
        out->score = lm_learned_clamp(line_predict_is(merge, "max")   ? most
                                      : line_predict_is(merge, "sum") ? sum
                                                                      : sum / (double)*merged);
    }
    cht_buf_free(&sums);
    return rc;
}

static void inherit(struct line_predict *p)
{
    struct cht_str key, target, list = line_predict_text(p, "sources", "values");
    struct lm_learned made = {0}, old;
    struct cht_err err = {0};
    size_t merged = 0;
    bool found = false;
    char tail[48];
    if (!line_predict_bytes(p, "key", &key) || !line_predict_bytes(p, "target", &target) || list.n == 0) {
        fail(p, "predict_inherit_requires_key_target_sources");
        return;
    }
    if (!known_key(p, key))
        return;
    enum cht_rc rc = inherit_from(p, list, line_predict_text(p, "merge", "mode"), &made, &merged, &err);
    if (rc == CHT_INVALID_HEX || (rc == CHT_OK && merged == 0)) {
        fail(p, rc == CHT_OK ? "inherit_sources_missing" : "invalid_sources");
    } else {
        if (rc == CHT_OK)
            rc = line_predict_load(p, target, &old, &found, &err);
        if (rc == CHT_OK) {
            lm_learned_free(&old);
            rc = line_predict_put(p, target, &made, !found, &err);
        }
        (void)snprintf(tail, sizeof tail, ",merged_sources=%zu", merged);
        done(p, rc, tail);
    }
    lm_learned_free(&made);
}

/* ---- QUERY ------------------------------------------------------------------------------------------------------ */

struct scored {
    size_t at;   /* of the value in the text */
    size_t rank; /* in byte order; for the sort */
    uint32_t n;
    uint32_t keys; /* that have it */
    double p;
};

struct query {
    struct line_predict *p;
    struct svc_out text; /* the values' bytes */
    struct scored *v;
    size_t n, cap, first; /* first: of the key under way */
};

static enum cht_rc score_one(void *ctx, struct cht_str value, struct lm_learned *l, struct cht_err *err)
{
    struct query *q = ctx;
    if (q->n == q->cap) {
        size_t cap = q->cap == 0 ? 64 : q->cap * 2;
        struct scored *v = cht_realloc(q->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu values", cap);
        q->v = v;
        q->cap = cap;
    }
    if (q->text.n + value.n + q->n * sizeof *q->v > LINE_PREDICT_BYTES_MAX)
        return CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "the values of all keys are too many for one answer");
    double score = l->score + lm_learned_delta(l, &q->p->ctx);
    if (!isfinite(score))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a score would be no finite number");
    q->v[q->n++] = (struct scored){.at = q->text.n, .n = (uint32_t)value.n, .keys = 1, .p = score};
    svc_out_bytes(&q->text, value.p, value.n);
    return q->text.failed ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for values") : CHT_OK;
}

static void softmax(struct scored *v, size_t n)
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
static int compare(const struct query *q, const struct scored *x, const struct scored *y)
{
    int c = memcmp(q->text.p + x->at, q->text.p + y->at, x->n < y->n ? x->n : y->n);
    return c != 0 ? c : x->n < y->n ? -1 : x->n > y->n;
}

static int by_probability(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return x->p != y->p ? x->p > y->p ? -1 : 1 : x->rank < y->rank ? -1 : 1;
}

/* The values of the key under way, v[first..n), go among those before it; both lists are in byte order. Done key by key, so that
 * what is held is the values, however often they come. */
static enum cht_rc merge_key(struct query *q, bool most, struct cht_err *err)
{
    size_t a = 0, b = q->first, n = 0;
    if (q->first == 0 || q->first == q->n)
        return CHT_OK;
    struct scored *v = cht_malloc(q->n * sizeof *v);
    struct svc_out text = {0};
    if (v == NULL || !svc_out_room(&text, q->text.n)) {
        cht_free(v);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu values", q->n);
    }
    for (; a < q->first || b < q->n; n++) {
        int c = a == q->first ? 1 : b == q->n ? -1 : compare(q, &q->v[a], &q->v[b]);
        v[n] = c <= 0 ? q->v[a++] : q->v[b++];
        if (c == 0) {
            const struct scored *other = &q->v[b++];
            v[n].keys++;
            v[n].p = most ? fmax(v[n].p, other->p) : v[n].p + other->p;
        }
        size_t at = text.n;
        svc_out_bytes(&text, q->text.p + v[n].at, v[n].n);
        v[n].at = at;
    }
    cht_free(q->v);
    svc_out_free(&q->text);
    q->v = v;
    q->cap = q->n;
    q->n = n;
    q->text = text;
    return CHT_OK;
}

/* What is merged becomes probabilities. */
static void finish_merge(struct query *q, struct cht_str how)
{
    bool mean = !line_predict_is(how, "max") && !line_predict_is(how, "sum");
    for (size_t i = 0; i < q->n; i++) {
        double p = mean ? q->v[i].p / q->v[i].keys : q->v[i].p;
        q->v[i].p = fmax(0, fmin(1, p));
    }
}

/* The most probable first; of equals in byte order. */
static void sort_values(struct query *q)
{
    for (size_t i = 0; i < q->n; i++)
        q->v[i].rank = i;
    if (q->n > 0)
        qsort(q->v, q->n, sizeof *q->v, by_probability);
}

static void put_items(struct query *q)
{
    struct svc_out *o = &q->p->s->out;
    line_session_counted(q->p->s, q->p->s->command.verb, false);
    svc_out_format(o, "SUCCESS,count=%zu,backend=cpu,", q->n);
    put_table(q->p);
    svc_out_text(o, ",items=");
    for (size_t i = 0; i < q->n; i++) {
        const struct scored *v = &q->v[i];
        if (!svc_out_room(o, 2 * (size_t)v->n + 2))
            break;
        if (i > 0)
            o->p[o->n++] = ';';
        o->n += svc_out_hex(o->p + o->n, (const uint8_t *)q->text.p + v->at, v->n);
        svc_out_format(o, ":%.6g", v->p);
    }
    svc_out_text(o, "\n");
}

static enum cht_rc ask_keys(struct query *q, struct cht_str list, bool one, bool *bad, struct cht_err *err)
{
    struct cht_str key = list;
    bool most = line_predict_is(line_predict_text(q->p, "merge", NULL), "max");
    enum cht_rc rc = CHT_OK;
    for (bool more = true; rc == CHT_OK && more && !*bad;) {
        *bad = one ? !line_predict_decode(q->p, list, &key) : !line_predict_next(q->p, &list, &key, &more);
        if (*bad || !more || key.n == 0)
            break;
        rc = line_predict_key(q->p, key, err);
        q->first = q->n;
        if (rc == CHT_OK)
            rc = line_predict_each(q->p, score_one, q, err);
        if (rc == CHT_OK && q->n > q->first)
            softmax(q->v + q->first, q->n - q->first);
        if (rc == CHT_OK)
            rc = merge_key(q, most, err);
        more = more && !one;
    }
    return rc;
}

static void query(struct line_predict *p)
{
    struct query q = {.p = p};
    struct cht_err err = {0};
    struct cht_str key = line_predict_text(p, "key", NULL), keys = line_predict_text(p, "keys", NULL);
    bool given, one = keys.n == 0, bad = false;
    const char *error = key.n + keys.n == 0 ? "predict_query_requires_key" : line_predict_ctx(p, &given);
    if (error != NULL) {
        fail(p, error);
        return;
    }
    enum cht_rc rc = ask_keys(&q, one ? key : keys, one, &bad, &err);
    if (bad)
        fail(p, "invalid_hex");
    else if (rc != CHT_OK)
        fail_rc(p, rc);
    else if (one && q.n == 0)
        fail(p, "prediction_entry_not_found");
    if (!bad && rc == CHT_OK && !(one && q.n == 0)) {
        if (!one)
            finish_merge(&q, line_predict_text(p, "merge", NULL));
        sort_values(&q);
        put_items(&q);
    }
    cht_free(q.v);
    svc_out_free(&q.text);
}

static void backend(struct line_predict *p)
{
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_text(&p->s->out, ",backend=cpu\n");
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_predict(struct line_session *s)
{
    struct line_predict p = {.s = s};
    p.table = line_predict_text(&p, "table", NULL);
    p.text = cht_malloc(s->command.value.n + 1);
    if (!gate_there || p.text == NULL) {
        fail(&p, cht_rc_slug(CHT_NO_MEMORY));
        line_predict_free(&p);
        return;
    }
    bool changes = s->command.verb != LINE_PREDICT_QUERY && s->command.verb != LINE_PREDICT_BACKEND;
    if (changes)
        cht_mutex_lock(&gate);
    switch (s->command.verb) {
    case LINE_PREDICT_SET:
        set(&p);
        break;
    case LINE_PREDICT_QUERY:
        query(&p);
        break;
    case LINE_PREDICT_TRAIN:
        train(&p);
        break;
    case LINE_PREDICT_CTX:
        shift_all(&p);
        break;
    case LINE_PREDICT_INHERIT:
        inherit(&p);
        break;
    case LINE_PREDICT_BACKEND:
        backend(&p);
        break;
    default:
        fail(&p, "unknown_command");
        break;
    }
    if (changes)
        cht_mutex_unlock(&gate);
    line_predict_free(&p);
}
