/* ask: POST /predict and /score: questions to a smoothed n-gram database. A prediction is a few point reads and answered at
 * once; a score runs on a job thread. /contexts is in contexts.c.
 */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/calls/ask_many.h"
#include "http/calls/asker.h"
#include "http/calls/live.h"
#include "http/calls/lm_int.h"
#include "http/params.h"
#include "http/calls/question.h"
#include "http/calls/shared.h"
#include "http/calls/smoothed.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "lm/kn_ask.h"
#include "lm/predict.h"

#define TOKENS_MAX HTTP_QUESTION_TOKENS
#define HINTS 3u /* contexts of a question that are fetched together with those of others */

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

/* POST /predict */
struct predicting {
    bool looked; /* at the live model's head, of a store on other machines */
    struct tokens tokens;
    uint64_t k, max_order; /* max_order 0: the deepest there is */
    enum lm_predict_mode mode;
    bool live;             /* a live model answers, if there is one */
    bool live_only;        /* nothing else does */
    uint64_t shown;        /* predictions */
    unsigned answered;     /* the order that did; 0: none */
    struct lm_names names; /* of what is looked up; made when it is run */
};

static void answer_predictions(struct http_request *r)
{
    const struct predicting *a = r->own;
    if (r->rc == CHT_OK)
        http_lookups_predicted(&http_shared(r->w->srv)->lookups,
                               http_lookups_asked(a->tokens.n, a->max_order), a->answered);
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
                                         .levels = a->mode == LM_PREDICT_LEVELS,
                                         .answered = &a->answered};
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

/* After live_work, which is done also before it is known whether there is a live model. */
static void answer_live(struct http_request *r)
{
    struct predicting *a = r->own;
    a->live = r->rc != CHT_PAIR_NOT_FOUND;
    if (a->live)
        answer_predictions(r);
    else if (a->live_only)
        http_reply_fail(r, CHT_NOT_LIVE, "database '%s' has no live model", r->db->name);
    else
        predict(r);
}

/* True: it is answered, or will be. False: the database has no live model. */
static bool predict_live(struct http_request *r)
{
    struct predicting *a = r->own;
    bool later;
    r->rc = ask_live(r, http_request_waiter(r), &later);
    a->live = r->rc != CHT_PAIR_NOT_FOUND;
    bool remote = a->live && cht_store_remote(r->db->store);
    later =
        later || (remote && a->looked); /* there it is asked, too, whether another server counted meanwhile */
    a->looked = true;
    if (later)
        http_request_job(r, live_work, answer_live);
    else if (r->rc == CHT_PENDING)
        http_request_await(r, predict);
    else if (a->live)
        answer_predictions(r);
    else if (a->live_only)
        http_reply_fail(r, CHT_NOT_LIVE, "database '%s' has no live model", r->db->name);
    return later || a->live || a->live_only;
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
                                       .names = &a->names,
                                       .again = http_smoothed_again};
    struct cht_hint hints[HINTS];
    if (r->ahead == 0) {
        q.names->made = 0;
        if (http_request_may_wait(r) &&
            http_request_ahead_all(r, hints, lm_predict_hints(&q, hints, HINTS), predict))
            return;
    }
    struct http_smoothed_writer w = {.out = &r->out, .mode = a->mode, .start = r->out.n};
    enum cht_rc rc = lm_predict(r->db->store, &q, http_smoothed_prediction, &w, &r->err);
    a->shown = w.shown;
    a->answered = w.answered;
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
    const json_t *v = json_object_get(o, "mode");
    *has = v != NULL;
    if (http_question_mode(v, out))
        return true;
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

/* ---- texts -------------------------------------------------------------------------------------------------------- */

/* One question with words (text=true) or with links: on a job thread, as both are looked up. */
struct text_question {
    struct http_asker asker;
    uint64_t lines;
    bool levels;
};

static void end_text(struct http_request *r) { http_asker_fini(&((struct text_question *)r->own)->asker); }

static void text_work(struct http_request *r)
{
    struct text_question *t = r->own;
    t->asker.lm = http_shared(r->w->srv)->lm;
    t->asker.store = r->db->store;
    t->asker.lookups = &http_shared(r->w->srv)->lookups;
    t->asker.budget = &r->w->srv->memory;
    r->rc = http_asker_ask(&t->asker, (const char *)r->body, r->body_len, &t->lines, &r->err);
    if (r->rc == CHT_OK && t->asker.text.failed)
        r->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the answer");
}

static void text_answer(struct http_request *r)
{
    struct text_question *t = r->own;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    svc_out_bytes(&r->out, t->asker.text.p, t->asker.text.n);
    if (t->levels) {
        svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":null}}\n", (unsigned long long)t->lines);
        http_stream_out(r);
        return;
    }
    r->out.n -= r->out.failed ? 0 : 1; /* the end of the line */
    http_reply_json(r, 200);
}

static void text_job(struct http_request *r) { http_request_job(r, text_work, text_answer); }

static void ask_asker(struct http_request *r, bool predict, const json_t *o)
{
    struct text_question *t = http_request_own(r, sizeof *t);
    unsigned mode;
    *t = (struct text_question){.asker = {.predict = predict, .words = r->text}};
    r->release = end_text;
    t->levels = predict && http_question_mode(json_object_get(o, "mode"), &mode) && mode == LM_PREDICT_LEVELS;
    http_request_database(r, false, text_job);
}

static void ask_text(struct http_request *r, bool predict)
{
    json_t *o = http_body_object(r, CHT_INVALID_BODY);
    if (o == NULL)
        return;
    ask_asker(r, predict, o);
    json_decref(o);
}

void http_predict_post(struct http_request *r)
{
    if (r->text) {
        if (http_ask_many_is(r))
            http_ask_many(r, true);
        else
            ask_text(r, true);
        return;
    }
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
    if (json_object_get(o, "links") != NULL) {
        ask_asker(r, true, o);
        json_decref(o);
        return;
    }
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
    enum lm_score_mode mode;
    bool live, live_only, bos;
};

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
    const struct lm_score_query q = {
        .tokens = a->tokens.p, .n = a->tokens.n, .max_order = (unsigned)a->max_order, .mode = a->mode};
    struct lm_scorer *sc;
    struct lm_score sum;
    r->rc = lm_scorer_open(r->db->store, &sc, &r->err);
    if (r->rc != CHT_OK)
        return;
    r->rc = http_smoothed_score(sc, &q, &r->out, &sum, &r->err);
    lm_scorer_close(sc);
}

static void answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_json(r, 200);
}

static void score(struct http_request *r) { http_request_job(r, score_work, answer); }

static bool set_score_mode(struct http_request *r, struct scoring *a, unsigned mode, bool said)
{
    if (!http_smoothed_score_mode(mode, said, &a->mode)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"mode\" is live, blend or deepest");
        return false;
    }
    a->live_only = said && mode == HTTP_QUESTION_LIVE;
    a->live = !said || a->live_only;
    return true;
}

void http_score_post(struct http_request *r)
{
    if (r->text) {
        if (http_ask_many_is(r))
            http_ask_many(r, false);
        else
            ask_text(r, false);
        return;
    }
    struct scoring *a = http_request_own(r, sizeof *a);
    struct http_question q;
    unsigned mode;
    bool said;
    if (plain_question(r, &q)) { /* k means nothing here */
        a->tokens = (struct tokens){.p = q.tokens, .n = q.n};
        a->max_order = q.max_order;
        a->bos = !q.no_bos;
        if (set_score_mode(r, a, q.mode, q.has_mode))
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
    if (set_score_mode(r, a, mode, said))
        http_request_database(r, false, score);
}
