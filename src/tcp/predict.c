/* predict: the PREDICT_ commands; see predict.h.
 *
 *   PREDICT_SET key= value= [prob=0.5] [weights=JSON]         SUCCESS,table=T,prediction_values=2
 *   PREDICT_QUERY key= | keys=a,b [ctx=JSON] [merge=avg|sum|max]   SUCCESS,count=2,backend=cpu,table=T,items=61:0.5065;64:0.4935
 *   PREDICT_TRAIN key= target= [ctx=JSON] [lr=0.01] [negatives=a,b]
 *   PREDICT_CTX key= ctx=JSON [mode=bias|scale] [strength=1]
 *   PREDICT_INHERIT key= target= sources=a,b [merge=avg|max|sum]
 *   PREDICT_INHERIT_BATCH items=JSON [key=] [merge=]          SUCCESS,table=T,merged=1,skipped=2,failed=0,total=3
 *   PREDICT_BENCH [samples=32] [window=64]                    SUCCESS,table=T,samples=4,window=3,bench=cpu=312ns
 *
 * ctx: [[...],...] or {"rows":[[...]],"weights":[...]}. A query's probabilities are the softmax of score + delta over the values of
 * its key; of several keys those that have the value are merged. Items: [{"key","target","sources":[...],"merge"},...].
 */
#include "tcp/predict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "tcp/answer.h"
#include "tcp/words.h"

#define BENCH_MAX 4096u

/* ---- answers -------------------------------------------------------------------------------------------------- */

static void fail(struct line_predict *p, const char *word)
{
    line_session_error(p->s, p->s->command.verb, word);
}

static void put_table(struct line_predict *p)
{
    svc_out_text(&p->s->out, "table=");
    svc_out_bytes(&p->s->out, p->table.p, p->table.n);
}

/* SUCCESS,table=T,prediction_values=N and `more`, or what went wrong. */
static void done(struct line_predict *p, enum cht_rc rc, uint64_t values, const char *more)
{
    if (rc != CHT_OK) {
        fail(p, cht_rc_slug(rc));
        return;
    }
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_format(&p->s->out, ",prediction_values=%llu%s\n", (unsigned long long)values, more);
}

/* ---- SET, TRAIN, CTX, INHERIT ----------------------------------------------------------------------------------- */

static void set(struct line_predict *p)
{
    struct cht_str key, value;
    struct lm_learned l = {0};
    struct cht_err err = {0};
    uint64_t values = 0;
    if (!line_predict_bytes(p, "key", &key) || !line_predict_bytes(p, "value", &value)) {
        fail(p, "predict_set_requires_key_and_value");
        return;
    }
    double prob = line_predict_number(p, "prob", 0.5);
    l.score = isnan(prob) ? 0 : fmax(0, fmin(1, prob));
    const char *error = line_predict_weights(p, &l);
    enum cht_rc rc = error == NULL ? lm_table_set(&p->t, key, value, &l, &values, &err) : CHT_OK;
    if (error != NULL)
        fail(p, error);
    else
        done(p, rc, values, "");
    lm_learned_free(&l);
}

/* Each is compared with those before it. */
static bool too_many(struct cht_str list)
{
    size_t commas = 0;
    for (size_t i = 0; i < list.n; i++)
        commas += list.p[i] == ',';
    return commas >= LM_TABLE_NEGATIVES_MAX;
}

static void train(struct line_predict *p)
{
    struct lm_table_step step = {.ctx = &p->ctx};
    struct cht_str list = line_predict_text(p, "negatives", NULL);
    struct cht_err err = {0};
    uint64_t values = 0;
    bool given;
    char tail[48];
    if (!line_predict_bytes(p, "key", &step.key) || !line_predict_bytes(p, "target", &step.target)) {
        fail(p, "predict_train_requires_key_and_target");
        return;
    }
    const char *error = line_predict_ctx(p, &given);
    double said = line_predict_number(p, "lr", 0.01);
    step.rate = said > 0 ? said : 0.01;
    if (error == NULL && !isfinite(said))
        error = "invalid_number";
    if (error == NULL && too_many(list))
        error = "invalid_negatives (max 10000)";
    enum cht_rc rc = error == NULL ? line_predict_list(p, list, &step.n) : CHT_OK;
    if (rc != CHT_OK)
        error = rc == CHT_INVALID_HEX ? "invalid_negatives" : cht_rc_slug(rc);
    if (error != NULL) {
        fail(p, error);
        return;
    }
    step.negatives = p->list;
    (void)snprintf(tail, sizeof tail, ",lr=%.4f", said);
    rc = lm_table_train(&p->t, &step, &values, &err);
    done(p, rc, values, tail);
}

static void shift_all(struct line_predict *p)
{
    struct cht_str key, mode = line_predict_text(p, "mode", NULL);
    struct cht_err err = {0};
    uint64_t values = 0;
    double strength = line_predict_number(p, "strength", 1);
    bool given = false, scale = line_predict_is(mode, "scale") || line_predict_is(mode, "multiply");
    const char *error =
        line_predict_bytes(p, "key", &key) ? line_predict_ctx(p, &given) : "predict_ctx_requires_key";
    if (error == NULL && !given)
        error = "predict_ctx_requires_matrix";
    if (error == NULL && !isfinite(strength))
        error = "invalid_number";
    if (error != NULL) {
        fail(p, error);
        return;
    }
    enum cht_rc rc = lm_table_shift(&p->t, key, &p->ctx, strength != 0 ? strength : 1, scale, &values, &err);
    done(p, rc, values, "");
}

static void inherit(struct line_predict *p)
{
    struct lm_table_heir h = {.merge = lm_merge_of(line_predict_text(p, "merge", "mode"))};
    struct cht_str list = line_predict_text(p, "sources", "values");
    struct cht_err err = {0};
    uint64_t values = 0;
    char tail[48];
    if (!line_predict_bytes(p, "key", &h.key) || !line_predict_bytes(p, "target", &h.target) || list.n == 0) {
        fail(p, "predict_inherit_requires_key_target_sources");
        return;
    }
    enum cht_rc rc = line_predict_list(p, list, &h.n);
    if (rc != CHT_OK) {
        fail(p, rc == CHT_INVALID_HEX ? "invalid_sources" : cht_rc_slug(rc));
        return;
    }
    h.sources = p->list;
    rc = lm_table_inherit(&p->t, &h, 1, &values, &err);
    (void)snprintf(tail, sizeof tail, ",merged_sources=%zu", h.merged);
    done(p, rc == CHT_OK ? h.rc : rc, values, tail);
}

/* ---- INHERIT_BATCH ------------------------------------------------------------------------------------------------ */

struct heirs {
    struct line_predict *p;
    struct lm_table_heir *v; /* owned, as the next */
    struct cht_str *sources;
    uint8_t *text;
    size_t used, sources_n;
};

/* The bytes of a JSON string; false: it is none, empty, or bad. */
static bool bytes_of(struct heirs *h, const json_t *o, struct cht_str *out)
{
    struct cht_str text = {.p = (const uint8_t *)json_string_value(o), .n = json_string_length(o)};
    if (!json_is_string(o) || text.n == 0 || !line_bytes(h->text + h->used, text, out))
        return false;
    h->used += out->n;
    return out->n > 0;
}

static const char *take_heir(struct heirs *h, const json_t *o, struct lm_table_heir *out)
{
    const json_t *list = json_object_get(o, "sources"), *merge = json_object_get(o, "merge");
    struct cht_str word = line_predict_text(h->p, "merge", "mode");
    if (!bytes_of(h, json_object_get(o, "key"), &out->key) && !line_predict_bytes(h->p, "key", &out->key))
        return "invalid_predict_inherit_batch:missing_key";
    if (!bytes_of(h, json_object_get(o, "target"), &out->target))
        return "invalid_predict_inherit_batch:missing_target";
    if (json_array_size(list) == 0)
        return "invalid_predict_inherit_batch:missing_sources";
    out->sources = h->sources + h->sources_n;
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!bytes_of(h, json_array_get(list, i), &h->sources[h->sources_n + out->n]))
            return "invalid_predict_inherit_batch:missing_sources";
        out->n++;
    }
    h->sources_n += out->n;
    if (json_is_string(merge))
        word =
            (struct cht_str){.p = (const uint8_t *)json_string_value(merge), .n = json_string_length(merge)};
    out->merge = lm_merge_of(word);
    return NULL;
}

static const char *take_heirs(struct heirs *h, const json_t *items, size_t room)
{
    size_t n = json_array_size(items), sources = 1;
    const char *error = NULL;
    for (size_t i = 0; i < n; i++)
        sources += json_array_size(json_object_get(json_array_get(items, i), "sources"));
    h->v = cht_calloc(n, sizeof *h->v);
    h->sources = cht_calloc(sources, sizeof *h->sources);
    h->text = cht_malloc(room + 1); /* what is decoded is shorter than what was sent */
    if (h->v == NULL || h->sources == NULL || h->text == NULL)
        return cht_rc_slug(CHT_NO_MEMORY);
    for (size_t i = 0; i < n && error == NULL; i++) {
        h->p->used = 0; /* the key of the line, if it is used */
        error = take_heir(h, json_array_get(items, i), &h->v[i]);
    }
    return error;
}

static void put_heirs(struct line_predict *p, const struct lm_table_heir *v, size_t n)
{
    size_t merged = 0;
    for (size_t i = 0; i < n; i++)
        merged += v[i].rc == CHT_OK;
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_format(&p->s->out, ",merged=%zu,skipped=%zu,failed=0,total=%zu\n", merged, n - merged, n);
}

static void inherit_batch(struct line_predict *p)
{
    struct cht_str text = line_predict_text(p, "items", "json");
    struct heirs h = {.p = p};
    struct cht_err err = {0};
    uint64_t values;
    bool no_memory = false;
    json_t *items = text.n > 0 ? line_json(text, &no_memory) : NULL;
    const char *error = NULL;
    enum cht_rc rc = CHT_OK;
    if (text.n == 0)
        error = "invalid_predict_inherit_batch:predict_inherit_batch_requires_items";
    else if (no_memory)
        error = cht_rc_slug(CHT_NO_MEMORY);
    else if (!json_is_array(items))
        error = "invalid_predict_inherit_batch:a JSON list is expected";
    else if (json_array_size(items) == 0)
        error = "predict_inherit_batch_empty";
    if (error == NULL)
        error = take_heirs(&h, items, text.n);
    if (error == NULL)
        rc = lm_table_inherit(&p->t, h.v, json_array_size(items), &values, &err);
    if (error != NULL || rc != CHT_OK)
        fail(p, error != NULL ? error : cht_rc_slug(rc));
    else
        put_heirs(p, h.v, json_array_size(items));
    json_decref(items);
    cht_free(h.v);
    cht_free(h.sources);
    cht_free(h.text);
}

/* ---- QUERY ------------------------------------------------------------------------------------------------------ */

static void put_items(struct line_predict *p, const struct lm_ranked *r)
{
    struct svc_out *o = &p->s->out;
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_format(o, "SUCCESS,count=%zu,backend=cpu,", r->n);
    put_table(p);
    svc_out_text(o, ",items=");
    for (size_t i = 0; i < r->n; i++) {
        const struct lm_ranked_value *v = &r->v[i];
        if (!svc_out_room(o, 2 * (size_t)v->n + 2))
            break;
        if (i > 0)
            o->p[o->n++] = ';';
        o->n += svc_out_hex(o->p + o->n, r->text + v->at, v->n);
        svc_out_format(o, ":%.6g", v->p);
    }
    svc_out_text(o, "\n");
}

static void query(struct line_predict *p)
{
    struct lm_ranked found = {0};
    struct cht_err err = {0};
    struct cht_str key = line_predict_text(p, "key", NULL), keys = line_predict_text(p, "keys", NULL);
    enum lm_merge merge = lm_merge_of(line_predict_text(p, "merge", NULL));
    bool given, one = keys.n == 0;
    size_t n = 0;
    const char *error = key.n + keys.n == 0 ? "predict_query_requires_key" : line_predict_ctx(p, &given);
    struct cht_str only = {.n = 0};
    enum cht_rc rc = CHT_OK;
    if (error == NULL && one && !line_predict_bytes(p, "key", &only))
        rc = CHT_INVALID_HEX;
    if (error == NULL && !one)
        rc = line_predict_list(p, keys, &n);
    if (error == NULL && rc == CHT_OK)
        rc = lm_table_query(&p->t, one ? &only : p->list, one ? 1 : n, &p->ctx, merge, &found, &err);
    if (error == NULL && rc == CHT_OK && one && found.n == 0)
        rc = CHT_PREDICTION_NOT_FOUND;
    if (error != NULL || rc != CHT_OK)
        fail(p, error != NULL ? error : cht_rc_slug(rc));
    else
        put_items(p, &found);
    lm_ranked_free(&found);
}

/* ---- BACKEND, BENCH ------------------------------------------------------------------------------------------------ */

static void backend(struct line_predict *p)
{
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_text(&p->s->out, ",backend=cpu\n");
}

static size_t whole(const struct line_predict *p, const char *name, double fallback)
{
    double v = line_predict_number(p, name, fallback);
    return v >= 1 ? v < BENCH_MAX ? (size_t)v : BENCH_MAX : (size_t)fallback;
}

/* How long one row of a matrix times a vector takes: `samples` rows of `window` numbers. */
static void bench(struct line_predict *p)
{
    size_t samples = whole(p, "samples", 32), window = whole(p, "window", 64);
    struct lm_learned l = {.score = 0};
    double sum = 0;
    enum cht_rc rc = p->memory.budget != NULL
                         ? svc_memory_take(&p->memory, (uint64_t)samples * window * 2 * sizeof(double), NULL)
                         : CHT_OK;
    if (rc != CHT_OK) {
        fail(p, cht_rc_slug(rc));
        return;
    }
    for (size_t i = 0; i < samples; i++) {
        double *v = lm_matrix_add(&p->ctx, window);
        struct lm_weight *w = lm_learned_weight(&l, (uint32_t)i, window);
        if (v == NULL || w == NULL) {
            lm_learned_free(&l);
            fail(p, cht_rc_slug(CHT_NO_MEMORY));
            return;
        }
        for (size_t k = 0; k < window; k++)
            v[k] = w->v[k] = 1.0 / (double)(k + i + 1);
    }
    uint64_t begin = cht_now_ns();
    sum += lm_learned_delta(&l, &p->ctx);
    uint64_t ns = (cht_now_ns() - begin) / (samples > 0 ? samples : 1);
    lm_learned_free(&l);
    line_session_counted(p->s, p->s->command.verb, false);
    svc_out_text(&p->s->out, "SUCCESS,");
    put_table(p);
    svc_out_format(&p->s->out, ",samples=%zu,window=%zu,bench=cpu=%lluns\n", samples, window,
                   (unsigned long long)(sum > 0 && ns > 0 ? ns : 1));
}

/* ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc goes_on(void *ctx) { return line_session_goes_on(((struct line_predict *)ctx)->s); }

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct line_predict *p = ctx;
    return p->memory.budget != NULL ? svc_memory_take(&p->memory, bytes, err) : CHT_OK;
}

static void run(struct line_predict *p)
{
    switch (p->s->command.verb) {
    case LINE_PREDICT_SET:
        set(p);
        break;
    case LINE_PREDICT_QUERY:
        query(p);
        break;
    case LINE_PREDICT_TRAIN:
        train(p);
        break;
    case LINE_PREDICT_CTX:
        shift_all(p);
        break;
    case LINE_PREDICT_INHERIT:
        inherit(p);
        break;
    case LINE_PREDICT_INHERIT_BATCH:
        inherit_batch(p);
        break;
    case LINE_PREDICT_BENCH:
        bench(p);
        break;
    default:
        backend(p);
        break;
    }
}

void line_session_predict(struct line_session *s)
{
    struct line_predict p = {.s = s, .memory = {.budget = s->host->memory}};
    p.table = line_predict_text(&p, "table", NULL);
    p.text = cht_malloc(s->command.value.n + 1);
    p.t = (struct lm_table){.store = s->db->store,
                            .name = p.table,
                            .max_value = s->host->max_value_size,
                            .durability = s->durability,
                            .goes_on = goes_on,
                            .book = book,
                            .ctx = &p};
    if (p.text == NULL)
        fail(&p, cht_rc_slug(CHT_NO_MEMORY));
    else
        run(&p);
    svc_memory_end(&p.memory);
    cht_free(p.text);
    cht_free(p.list);
    lm_matrix_free(&p.ctx);
    lm_table_free(&p.t);
}
