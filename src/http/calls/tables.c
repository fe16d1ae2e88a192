/* tables: /tables/{table}/set, query, train, shift, inherit: prediction tables (lm/tables.h), one object in JSON each. The body is read by a
 * job, before a database is made for it; then another one does it.
 */
#include "http/lines.h"
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "lm/tables.h"

#include <jansson.h>
#include <math.h>

#define KEYS_MAX 10000u
#define HEIRS_MAX 10000u

/* What is different in each. */
struct how {
    const char *suffix;
    bool (*take)(struct http_request *r); /* the body; false: r->rc says what is wrong with it */
    bool creates;
    void (*work)(struct http_request *r);
    void (*answer)(struct http_request *r);
};

struct call {
    const struct how *how;
    struct lm_table t; /* owned, as are all below */
    json_t *body;
    char *text; /* decoded base64 */
    size_t used;
    struct cht_str key, value, *list;
    size_t n;
    struct lm_matrix ctx;
    struct lm_learned learned;
    struct lm_table_heir *heirs;
    struct lm_ranked ranked;
    double number; /* rate, or strength */
    bool scale;
    enum lm_merge merge;
    uint64_t values;
};

static void release(struct http_request *r)
{
    struct call *c = r->own;
    lm_table_free(&c->t);
    json_decref(c->body);
    cht_free(c->text);
    cht_free(c->list);
    lm_matrix_free(&c->ctx);
    lm_learned_free(&c->learned);
    cht_free(c->heirs);
    lm_ranked_free(&c->ranked);
    cht_free(c);
}

static enum cht_rc goes_on(void *ctx)
{
    struct http_request *r = ctx;
    if (atomic_load_explicit(&r->cancel, memory_order_relaxed))
        return CHT_CANCELLED;
    return atomic_load_explicit(&r->db->dropping, memory_order_relaxed) ? CHT_DATABASE_DROPPED : CHT_OK;
}

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return svc_memory_take(&((struct http_request *)ctx)->memory, bytes, err);
}

/* ---- the body: false: it is wrong, see r->rc -------------------------------------------------------------------- */

static bool wrong(struct http_request *r, const char *what)
{
    r->rc = CHT_FAIL(&r->err, CHT_INVALID_BODY, "%s", what);
    return false;
}

static bool no_memory(struct http_request *r)
{
    r->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the request");
    return false;
}

/* Base64 in a string, not empty. */
static bool bytes(struct http_request *r, const json_t *v, struct cht_str *out, const char *what)
{
    struct call *c = r->own;
    size_t n = 0, len = json_string_length(v);
    uint8_t *to = (uint8_t *)c->text + c->used;
    if (!json_is_string(v) || len == 0 || !cht_b64_decode(to, json_string_value(v), len, &n) || n == 0)
        return wrong(r, what);
    c->used += n;
    *out = (struct cht_str){.p = to, .n = n};
    return true;
}

static bool take_list(struct http_request *r, const json_t *list, struct cht_str *to, size_t *n,
                      const char *what)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!bytes(r, json_array_get(list, i), &to[(*n)++], what))
            return false;
    }
    return true;
}

/* A number; false also if there is something else. */
static bool number(struct http_request *r, const char *name, double fallback, double *out)
{
    const json_t *v = json_object_get(((struct call *)r->own)->body, name);
    *out = v == NULL ? fallback : json_number_value(v);
    if (v != NULL && !json_is_number(v))
        return wrong(r, "prob, rate and strength are numbers");
    return true;
}

static bool row(struct http_request *r, const json_t *v, double *to)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_number(json_array_get(v, i)))
            return wrong(r, "ctx is a list of rows of numbers");
        to[i] = json_number_value(json_array_get(v, i));
    }
    return true;
}

static bool context(struct http_request *r, bool needed)
{
    struct call *c = r->own;
    const json_t *list = json_object_get(c->body, "ctx");
    if (list == NULL && !needed)
        return true;
    if (!json_is_array(list))
        return wrong(r, "ctx is a list of rows of numbers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (!json_is_array(one))
            return wrong(r, "ctx is a list of rows of numbers");
        double *to = lm_matrix_add(&c->ctx, json_array_size(one));
        if (to == NULL)
            return no_memory(r);
        if (!row(r, one, to))
            return false;
    }
    return lm_matrix_deepen(&c->ctx, NULL) == CHT_OK || no_memory(r);
}

static bool weights(struct http_request *r)
{
    static const char what[] = "weights are {\"depth\":0...65535,\"vector\":[numbers],\"bias\":number}";
    struct call *c = r->own;
    const json_t *list = json_object_get(c->body, "weights");
    if (list != NULL && !json_is_array(list))
        return wrong(r, what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i), *depth = json_object_get(o, "depth"),
                     *vector = json_object_get(o, "vector"), *bias = json_object_get(o, "bias");
        if (!json_is_integer(depth) || json_integer_value(depth) < 0 || json_integer_value(depth) > 65535 ||
            (vector != NULL && !json_is_array(vector)) || (bias != NULL && !json_is_number(bias)))
            return wrong(r, what);
        struct lm_weight *w =
            lm_learned_weight(&c->learned, (uint32_t)json_integer_value(depth), json_array_size(vector));
        if (w == NULL)
            return no_memory(r);
        if (!row(r, vector, w->v))
            return false;
        w->bias = json_number_value(bias);
    }
    return true;
}

static bool merge_of(struct http_request *r, const json_t *o, enum lm_merge *out)
{
    const json_t *v = json_object_get(o, "merge");
    struct cht_str word = {.p = (const uint8_t *)json_string_value(v), .n = json_string_length(v)};
    *out = lm_merge_of(word);
    if (v != NULL &&
        (!json_is_string(v) || (*out == LM_MERGE_MEAN && strcmp(json_string_value(v), "avg") != 0)))
        return wrong(r, "merge is avg, max or sum");
    return true;
}

/* ---- one call --------------------------------------------------------------------------------------------------------- */

static void parse(struct http_request *r)
{
    struct call *c = r->own;
    json_error_t where;
    r->rc = svc_memory_take(&r->memory, http_json_memory((const char *)r->body, r->body_len) + r->body_len,
                            &r->err);
    if (r->rc != CHT_OK)
        return;
    c->text = cht_malloc(r->body_len + 1); /* what is decoded is shorter */
    c->body = json_loadb((const char *)r->body, r->body_len, JSON_REJECT_DUPLICATES, &where);
    if (c->text == NULL || (c->body == NULL && json_error_code(&where) == json_error_out_of_memory))
        (void)no_memory(r);
    else if (c->body == NULL)
        r->rc =
            CHT_FAIL(&r->err, CHT_INVALID_BODY, "not JSON: %.100s, at byte %d", where.text, where.position);
    else if (!json_is_object(c->body))
        (void)wrong(r, "a JSON object is expected");
    else if (c->how->take(r))
        r->rc = CHT_OK;
}

static void work(struct http_request *r)
{
    struct call *c = r->own;
    c->t.store = r->db->store;
    c->how->work(r);
}

static void job(struct http_request *r) { http_request_job(r, work, ((struct call *)r->own)->how->answer); }

static void parsed(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_request_database(r, ((struct call *)r->own)->how->creates, job);
}

static void start(struct http_request *r, const struct how *how)
{
    struct call *c = cht_calloc(1, sizeof *c);
    if (c == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the request");
        return;
    }
    r->own = c;
    r->release = release;
    c->how = how;
    c->t = (struct lm_table){.name = {(const uint8_t *)r->rest, r->rest_len - strlen(how->suffix)},
                             .max_value = (uint32_t)r->w->srv->conf->max_value_size,
                             .goes_on = goes_on,
                             .book = book,
                             .ctx = r};
    http_request_owner_of_db(r);
    http_request_job(r, parse, parsed);
}

static void answered(struct http_request *r)
{
    struct call *c = r->own;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    svc_out_format(&r->out, "{\"values\":%llu}", (unsigned long long)c->values);
    http_reply_json(r, 200);
}

static void set_work(struct http_request *r)
{
    struct call *c = r->own;
    r->rc = lm_table_set(&c->t, c->key, c->value, &c->learned, &c->values, &r->err);
}

static void train_work(struct http_request *r)
{
    struct call *c = r->own;
    const struct lm_table_step step = {.key = c->key,
                                       .target = c->value,
                                       .negatives = c->list,
                                       .n = c->n,
                                       .ctx = &c->ctx,
                                       .rate = c->number};
    r->rc = lm_table_train(&c->t, &step, &c->values, &r->err);
}

static void shift_work(struct http_request *r)
{
    struct call *c = r->own;
    r->rc = lm_table_shift(&c->t, c->key, &c->ctx, c->number, c->scale, &c->values, &r->err);
}

static void inherit_work(struct http_request *r)
{
    struct call *c = r->own;
    r->rc = lm_table_inherit(&c->t, c->heirs, c->n, &c->values, &r->err);
}

static void inherited(struct http_request *r)
{
    struct call *c = r->own;
    size_t merged = 0;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    for (size_t i = 0; i < c->n; i++)
        merged += c->heirs[i].rc == CHT_OK;
    svc_out_format(&r->out, "{\"merged\":%zu,\"skipped\":%zu}", merged, c->n - merged);
    http_reply_json(r, 200);
}

/* The answer is made here, too: it may be long. */
static void query_work(struct http_request *r)
{
    struct call *c = r->own;
    struct svc_out *o = &r->out;
    r->rc = lm_table_query(&c->t, c->list, c->n, &c->ctx, c->merge, &c->ranked, &r->err);
    if (r->rc == CHT_OK && c->ranked.n == 0)
        r->rc = CHT_FAIL(&r->err, CHT_PREDICTION_NOT_FOUND, "%s", cht_rc_text(CHT_PREDICTION_NOT_FOUND));
    if (r->rc != CHT_OK)
        return;
    svc_out_text(o, "{\"candidates\":[");
    for (size_t i = 0; i < c->ranked.n; i++) {
        const struct lm_ranked_value *v = &c->ranked.v[i];
        svc_out_text(o, i > 0 ? ",{\"value\":" : "{\"value\":");
        svc_out_b64(o, c->ranked.text + v->at, v->n);
        svc_out_format(o, ",\"p\":%.9g}", v->p);
    }
    svc_out_text(o, "]}");
}

static void queried(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_json(r, 200);
}

static bool take_heir(struct http_request *r, const json_t *o, struct lm_table_heir *h)
{
    struct call *c = r->own;
    const json_t *list = json_object_get(o, "sources");
    static const char what[] = "items are {\"key\",\"target\",\"sources\":[base64,...],\"merge\"}";
    h->sources = c->list + c->n;
    size_t n = c->n;
    if (json_array_size(list) == 0)
        return wrong(r, what);
    if (!bytes(r, json_object_get(o, "key"), &h->key, what) ||
        !bytes(r, json_object_get(o, "target"), &h->target, what) ||
        !take_list(r, list, c->list, &c->n, what))
        return false;
    h->n = c->n - n;
    return merge_of(r, o, &h->merge);
}

static bool take_set(struct http_request *r)
{
    struct call *c = r->own;
    double prob;
    if (!bytes(r, json_object_get(c->body, "key"), &c->key, "key is base64") ||
        !bytes(r, json_object_get(c->body, "value"), &c->value, "value is base64") ||
        !number(r, "prob", 0.5, &prob) || !weights(r))
        return false;
    c->learned.score = fmax(0, fmin(1, prob));
    return true;
}

static bool take_query(struct http_request *r)
{
    struct call *c = r->own;
    const json_t *list = json_object_get(c->body, "keys");
    size_t n = json_array_size(list);
    if (n == 0 || n > KEYS_MAX)
        return wrong(r, "keys is a list of 1 to 10000 keys in base64");
    c->list = cht_calloc(n, sizeof *c->list);
    if (c->list == NULL)
        return no_memory(r);
    return take_list(r, list, c->list, &c->n, "keys are base64") && context(r, false) &&
           merge_of(r, c->body, &c->merge);
}

static bool take_train(struct http_request *r)
{
    struct call *c = r->own;
    const json_t *list = json_object_get(c->body, "negatives");
    size_t n = json_array_size(list);
    if ((list != NULL && !json_is_array(list)) || n > LM_TABLE_NEGATIVES_MAX)
        return wrong(r, "negatives is a list of at most 10000 values in base64");
    c->list = cht_calloc(n + 1, sizeof *c->list);
    if (c->list == NULL)
        return no_memory(r);
    if (!bytes(r, json_object_get(c->body, "key"), &c->key, "key is base64") ||
        !bytes(r, json_object_get(c->body, "target"), &c->value, "target is base64") ||
        !take_list(r, list, c->list, &c->n, "negatives are base64") || !context(r, false) ||
        !number(r, "rate", 0.01, &c->number))
        return false;
    return c->number > 0 || wrong(r, "rate is a number above 0");
}

static bool take_shift(struct http_request *r)
{
    struct call *c = r->own;
    const json_t *mode = json_object_get(c->body, "mode");
    const char *how = mode != NULL ? json_string_value(mode) : "bias";
    c->scale = how != NULL && strcmp(how, "scale") == 0;
    if (how == NULL || (!c->scale && strcmp(how, "bias") != 0))
        return wrong(r, "mode is bias or scale");
    return bytes(r, json_object_get(c->body, "key"), &c->key, "key is base64") && context(r, true) &&
           number(r, "strength", 1, &c->number);
}

static bool take_inherit(struct http_request *r)
{
    struct call *c = r->own;
    const json_t *items = json_object_get(c->body, "items");
    size_t n = json_array_size(items), sources = 1;
    if (n == 0 || n > HEIRS_MAX)
        return wrong(r, "items is a list of 1 to 10000 objects");
    for (size_t i = 0; i < n; i++)
        sources += json_array_size(json_object_get(json_array_get(items, i), "sources"));
    c->heirs = cht_calloc(n, sizeof *c->heirs);
    c->list = cht_calloc(sources, sizeof *c->list);
    if (c->heirs == NULL || c->list == NULL)
        return no_memory(r);
    for (size_t i = 0; i < n; i++) {
        if (!take_heir(r, json_array_get(items, i), &c->heirs[i]))
            return false;
    }
    c->n = n;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_tables_set(struct http_request *r)
{
    static const struct how how = {"/set", take_set, true, set_work, answered};
    start(r, &how);
}

void http_tables_query(struct http_request *r)
{
    static const struct how how = {"/query", take_query, false, query_work, queried};
    start(r, &how);
}

void http_tables_train(struct http_request *r)
{
    static const struct how how = {"/train", take_train, false, train_work, answered};
    start(r, &how);
}

void http_tables_shift(struct http_request *r)
{
    static const struct how how = {"/shift", take_shift, false, shift_work, answered};
    start(r, &how);
}

void http_tables_inherit(struct http_request *r)
{
    static const struct how how = {"/inherit", take_inherit, false, inherit_work, inherited};
    start(r, &how);
}
