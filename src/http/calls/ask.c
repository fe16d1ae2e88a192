/* ask: POST /predict and /score: questions to a smoothed n-gram database. A prediction is a few point reads and answered at
 * once; a score runs on a job thread. /contexts is in contexts.c.
 */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/calls/ask_many.h"
#include "http/calls/live.h"
#include "http/calls/lm_int.h"
#include "http/params.h"
#include "http/calls/question.h"
#include "http/calls/shared.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "lm/kn_ask.h"
#include "lm/predict.h"
#include "lm/quant.h"
#include "reduce/text.h"

#include <math.h>

#define TOKENS_MAX 100000u /* of a question */
#define HINTS 3u           /* contexts of a question that are fetched together with those of others */

/* ---- what is asked ---------------------------------------------------------------------------------------------------- */

bool http_number_member(struct http_request *r, const json_t *o, const char *name, uint64_t min, uint64_t max,
                        uint64_t fallback, uint64_t *out)
{
    const json_t *v = json_object_get(o, name);
    *out = fallback;
    if (v == NULL || json_is_null(v))
        return true;
    if (json_is_integer(v) && json_integer_value(v) >= (json_int_t)min &&
        json_integer_value(v) <= (json_int_t)max) {
        *out = (uint64_t)json_integer_value(v);
        return true;
    }
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"%s\" is a number from %llu to %llu", name,
                    (unsigned long long)min, (unsigned long long)max);
    return false;
}

/* The tokens of a question: they lie in r->value. */
struct tokens {
    const uint32_t *p;
    size_t n;
};

static bool take_tokens(struct http_request *r, const json_t *o, struct tokens *out)
{
    const json_t *list = json_object_get(o, "tokens");
    size_t n = json_array_size(list);
    if (!json_is_array(list)) {
        http_reply_fail(r, CHT_INVALID_TOKENS, "{\"tokens\":[...]} is expected");
        return false;
    }
    if (n > TOKENS_MAX) {
        http_reply_fail(r, CHT_BODY_TOO_LARGE, "at most %u tokens", TOKENS_MAX);
        return false;
    }
    if (cht_buf_reserve(&r->value, (n + 1) * sizeof(uint32_t), &r->err) != CHT_OK) {
        http_reply_err(r, CHT_NO_MEMORY, &r->err);
        return false;
    }
    if (!http_tokens(list, (uint32_t *)(void *)r->value.data)) {
        http_reply_err(r, CHT_INVALID_TOKENS, NULL);
        return false;
    }
    *out = (struct tokens){.p = (const uint32_t *)(const void *)r->value.data, .n = n};
    return true;
}

/* ---- prediction --------------------------------------------------------------------------------------------------------- */

static void put_double(struct svc_out *o, double v)
{
    if (svc_out_room(o, REDUCE_DOUBLE_TEXT))
        o->n += reduce_put_double(o->p + o->n, v);
}

/* POST /predict */
struct predicting {
    struct tokens tokens;
    uint64_t k, max_order; /* max_order 0: the deepest there is */
    enum lm_predict_mode mode;
    bool live;             /* a live model answers, if there is one */
    bool live_only;        /* nothing else does */
    uint64_t shown;        /* predictions so far */
    struct lm_names names; /* of what is looked up; made when it is run */
};

/* A stored probability has one of 256 values: their texts are made once. */
static char quantum_text[256][REDUCE_DOUBLE_TEXT];
static unsigned char quantum_len[256];

__attribute__((constructor)) static void fill_quanta(void)
{
    for (unsigned q = 0; q < 256; q++)
        quantum_len[q] = (unsigned char)reduce_put_double(quantum_text[q], lm_dequantize((uint8_t)q));
}

/* Room for one candidate, and for what is around all of them. */
#define CANDIDATE_TEXT (sizeof ",{\"token\":,\"q\":,\"p\":}" + 2 * 20 + REDUCE_DOUBLE_TEXT)

static char *put_candidate(char *p, const struct lm_candidate *c, bool blend)
{
    static const char token[] = ",{\"token\":", q[] = ",\"q\":", prob[] = ",\"p\":";
    memcpy(p, token, sizeof token - 1);
    p += sizeof token - 1;
    p += svc_out_digits(p, c->token);
    memcpy(p, q, sizeof q - 1);
    p += sizeof q - 1;
    p += svc_out_digits(p, c->q);
    memcpy(p, prob, sizeof prob - 1);
    p += sizeof prob - 1;
    if (blend) {
        p += reduce_put_double(p, c->p);
    } else {
        memcpy(p, quantum_text[c->q], REDUCE_DOUBLE_TEXT); /* of fixed size: no call */
        p += quantum_len[c->q];
    }
    *p++ = '}';
    return p;
}

static void put_prediction(void *ctx, const struct lm_prediction *p)
{
    struct http_request *r = ctx;
    struct predicting *a = r->own;
    struct svc_out *o = &r->out;
    svc_out_text(o, "{\"order\":");
    svc_out_u64(o, p->order);
    svc_out_text(o, ",\"context\":[");
    for (size_t i = 0; i < p->context_n; i++) {
        svc_out_text(o, i > 0 ? "," : "");
        svc_out_u64(o, p->context[i]);
    }
    svc_out_text(o, p->count > 0 ? "],\"candidates\":" : "],\"candidates\":[");
    if (p->count > 0 && svc_out_room(o, p->count * CANDIDATE_TEXT)) {
        char *first = o->p + o->n, *end = first;
        for (size_t i = 0; i < p->count; i++)
            end = put_candidate(end, &p->candidates[i], a->mode == LM_PREDICT_BLEND);
        *first = '['; /* for the comma before it */
        o->n += (size_t)(end - first);
    }
    svc_out_text(o, "]}");
    if (a->mode == LM_PREDICT_LEVELS)
        svc_out_text(o, "\n");
    a->shown++;
}

static void answer_predictions(struct http_request *r)
{
    const struct predicting *a = r->own;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
    } else if (a->mode == LM_PREDICT_LEVELS) {
        svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":null}}\n", (unsigned long long)a->shown);
        http_stream_out(r);
    } else {
        http_reply_json(r, 200);
    }
}

/* *later: on a thread that may wait, please. */
static enum cht_rc ask_live(struct http_request *r, struct cht_wait *w, bool *later)
{
    struct predicting *a = r->own;
    const struct http_live_question q = {.tokens = a->tokens.p,
                                         .n = a->tokens.n,
                                         .k = (uint32_t)a->k,
                                         .max_order = (uint32_t)a->max_order,
                                         .levels = a->mode == LM_PREDICT_LEVELS};
    struct lm_kn_reader *k;
    enum cht_rc rc = lm_kn_reader_open(http_shared(r->w->srv)->lm, r->db->store, w, &k, &r->err);
    *later = false;
    if (rc != CHT_OK)
        return rc;
    r->out.n = 0;
    rc = http_live_predict(k, &q, &r->out, &a->shown, later, &r->err);
    *later = *later || (w != NULL && rc != CHT_PENDING && k->mixed);
    lm_kn_reader_close(k);
    return rc;
}

static void live_work(struct http_request *r)
{
    bool later;
    r->rc = ask_live(r, NULL, &later);
}

static void predict(struct http_request *r);

/* True: it is answered, or will be. False: the database has no live model. */
static bool predict_live(struct http_request *r)
{
    struct predicting *a = r->own;
    bool later;
    r->rc = ask_live(r, http_request_waiter(r), &later);
    a->live = r->rc != CHT_PAIR_NOT_FOUND;
    if (later)
        http_request_job(r, live_work, answer_predictions);
    else if (r->rc == CHT_PENDING)
        http_request_await(r, predict);
    else if (a->live)
        answer_predictions(r);
    else if (a->live_only)
        http_reply_fail(r, CHT_NOT_LIVE, "database '%s' has no live model", r->db->name);
    return a->live || a->live_only;
}

static void predict(struct http_request *r)
{
    struct predicting *a = r->own;
    if (a->live && predict_live(r))
        return;
    const struct lm_predict_query q = {.tokens = a->tokens.p,
                                       .n = a->tokens.n,
                                       .k = (unsigned)a->k,
                                       .max_order = (unsigned)a->max_order,
                                       .mode = a->mode,
                                       .wait = http_request_waiter(r),
                                       .names = &a->names};
    struct cht_hint hints[HINTS];
    if (r->ahead == 0) {
        q.names->made = 0;
        if (http_request_may_wait(r) &&
            http_request_ahead_all(r, hints, lm_predict_hints(&q, hints, HINTS), predict))
            return;
    }
    a->shown = 0;
    enum cht_rc rc = lm_predict(r->db->store, &q, put_prediction, r, &r->err);
    if (rc == CHT_PENDING) {
        r->out.n = 0; /* the levels that it has shown already */
        http_request_await(r, predict);
    } else {
        r->rc = rc;
        answer_predictions(r);
    }
}

static bool take_mode(struct http_request *r, const json_t *o, unsigned *out, bool *has)
{
    static const char *const names[] = {[LM_PREDICT_DEEPEST] = "deepest",
                                        [LM_PREDICT_LEVELS] = "levels",
                                        [LM_PREDICT_BLEND] = "blend",
                                        [HTTP_QUESTION_LIVE] = "live"};
    const json_t *v = json_object_get(o, "mode");
    *out = LM_PREDICT_DEEPEST;
    *has = v != NULL;
    if (v == NULL)
        return true;
    for (unsigned i = 0; i < sizeof names / sizeof *names && json_is_string(v); i++) {
        if (strcmp(json_string_value(v), names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"mode\" is live, deepest, levels or blend");
    return false;
}

static bool take_bos(struct http_request *r, const json_t *o, bool *out)
{
    const json_t *v = json_object_get(o, "bos");
    *out = v == NULL || json_is_true(v);
    if (v == NULL || json_is_boolean(v))
        return true;
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"bos\" is true or false");
    return false;
}

/* The mode as it was asked for: live and levels are answered by a live model if there is one. */
static void set_mode(struct predicting *a, unsigned mode, bool said)
{
    a->live = !said || mode == HTTP_QUESTION_LIVE || mode == LM_PREDICT_LEVELS;
    a->live_only = mode == HTTP_QUESTION_LIVE;
    a->mode = mode == HTTP_QUESTION_LIVE ? LM_PREDICT_DEEPEST : (enum lm_predict_mode)mode;
}

/* The common shape of a question, without jansson; false: it is none, nothing was answered. The tokens go to r->value. */
static bool plain_question(struct http_request *r, struct http_question *q)
{
    size_t most = r->body_len / 2 + 1; /* tokens; no more than this fit the body */
    *q = (struct http_question){.cap = most < TOKENS_MAX ? most : TOKENS_MAX};
    if (cht_buf_reserve(&r->value, q->cap * sizeof *q->tokens, &r->err) != CHT_OK)
        return false;
    q->tokens = (uint32_t *)(void *)r->value.data;
    return http_question_read((const char *)r->body, r->body_len, LM_K_MAX, q);
}

void http_predict_post(struct http_request *r)
{
    struct predicting *a = http_request_own(r, sizeof *a);
    struct http_question q;
    unsigned mode;
    bool said, bos;
    if (plain_question(r, &q)) {
        a->tokens = (struct tokens){.p = q.tokens, .n = q.n};
        set_mode(a, q.mode, q.has_mode);
        a->k = q.has_k ? q.k : LM_K_DEFAULT;
        a->max_order = q.max_order;
        http_request_database(r, false, predict);
        return;
    }
    if (http_ask_many_is(r)) {
        http_ask_many(r, true);
        return;
    }
    json_t *o = http_body_object(r, CHT_INVALID_BODY);
    if (o == NULL)
        return;
    bool ok = take_tokens(r, o, &a->tokens) && take_mode(r, o, &mode, &said) && take_bos(r, o, &bos) &&
              http_number_member(r, o, "k", 1, LM_K_MAX, LM_K_DEFAULT, &a->k) &&
              http_number_member(r, o, "max_order", 1, UINT32_MAX, 0, &a->max_order);
    json_decref(o);
    if (!ok)
        return;
    set_mode(a, mode, said);
    http_request_database(r, false, predict);
}

/* ---- scores ---------------------------------------------------------------------------------------------------------------- */

/* POST /score */
struct scoring {
    struct tokens tokens;
    uint64_t max_order; /* 0: the deepest there is */
    bool live, live_only, bos;
};

/* The lists of an answer while they grow. */
struct scores {
    struct svc_out logs, orders;
    uint64_t shown;
};

static void put_score(void *ctx, uint32_t token, unsigned order, double p)
{
    struct scores *list = ctx;
    (void)token;
    const char *comma = list->shown++ > 0 ? "," : "";
    svc_out_text(&list->logs, comma);
    put_double(&list->logs, log10(p));
    svc_out_text(&list->orders, comma);
    svc_out_u64(&list->orders, order);
}

/* True: r->rc and r->out are the answer of the live model. */
static bool score_live(struct http_request *r)
{
    const struct scoring *a = r->own;
    const struct http_live_question q = {
        .tokens = a->tokens.p, .n = a->tokens.n, .max_order = (uint32_t)a->max_order, .bos = a->bos};
    struct lm_kn_reader *k;
    struct lm_kn_score sum;
    if (!a->live)
        return false;
    r->rc = lm_kn_reader_open(http_shared(r->w->srv)->lm, r->db->store, NULL, &k, &r->err);
    if (r->rc != CHT_OK)
        return true;
    r->rc = http_live_score(k, &q, &r->out, &sum, &r->err);
    lm_kn_reader_close(k);
    if (r->rc != CHT_PAIR_NOT_FOUND)
        return true;
    if (a->live_only)
        r->rc = CHT_FAIL(&r->err, CHT_NOT_LIVE, "database '%s' has no live model", r->db->name);
    return a->live_only;
}

static void score_work(struct http_request *r)
{
    const struct scoring *a = r->own;
    if (score_live(r))
        return;
    struct lm_score s;
    struct scores list = {0};
    struct svc_out *all = &r->out;
    r->rc = lm_score(r->db->store, a->tokens.p, a->tokens.n, (unsigned)a->max_order, put_score, &list, &s,
                     &r->err);
    if (r->rc == CHT_OK) {
        svc_out_format(all, "{\"tokens\":%llu,\"log10\":", (unsigned long long)s.scored);
        put_double(all, s.log10);
        svc_out_text(all, ",\"perplexity\":");
        if (s.scored > 0 && isfinite(s.perplexity))
            put_double(all, s.perplexity);
        else
            svc_out_text(all, "null");
        svc_out_text(all, ",\"per_token\":[");
        svc_out_bytes(all, list.logs.p, list.logs.n);
        svc_out_text(all, "],\"orders\":[");
        svc_out_bytes(all, list.orders.p, list.orders.n);
        svc_out_text(all, "]}");
        all->failed = all->failed || list.logs.failed || list.orders.failed;
    }
    svc_out_free(&list.logs);
    svc_out_free(&list.orders);
}

static void answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_json(r, 200);
}

static void score(struct http_request *r) { http_request_job(r, score_work, answer); }

void http_score_post(struct http_request *r)
{
    struct scoring *a = http_request_own(r, sizeof *a);
    struct http_question q;
    unsigned mode;
    bool said;
    if (plain_question(r, &q)) { /* k means nothing here */
        a->tokens = (struct tokens){.p = q.tokens, .n = q.n};
        a->max_order = q.max_order;
        a->bos = !q.no_bos;
        a->live_only = q.mode == HTTP_QUESTION_LIVE;
        a->live = !q.has_mode || a->live_only;
        http_request_database(r, false, score);
        return;
    }
    if (http_ask_many_is(r)) {
        http_ask_many(r, false);
        return;
    }
    json_t *o = http_body_object(r, CHT_INVALID_BODY);
    if (o == NULL)
        return;
    bool ok = take_tokens(r, o, &a->tokens) && take_mode(r, o, &mode, &said) && take_bos(r, o, &a->bos) &&
              http_number_member(r, o, "max_order", 1, UINT32_MAX, 0, &a->max_order);
    json_decref(o);
    if (!ok)
        return;
    a->live_only = mode == HTTP_QUESTION_LIVE;
    a->live = !said || a->live_only;
    http_request_database(r, false, score);
}
