/* ask_many: see ask_many.h. One job asks one question after the other; what it has read of the model it keeps for those that
 * follow. A line that is no question, or cannot be answered, is {"error":{...}} and the others are answered. */
#include "http/calls/ask_many.h"

#include "http/calls/live.h"
#include "http/calls/lm_int.h"
#include "http/calls/question.h"
#include "http/calls/shared.h"
#include "http/calls/smoothed.h"
#include "http/feed.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "lm/kn_ask.h"
#include "lm/predict.h"
#include "reduce/text.h"

#define TOKENS_MAX 100000u /* of a question */
#define PIECE (64u << 10)  /* of the answer, handed over together */
#define WAITING (4u << 20) /* of it, not taken yet: the job waits */

struct many {
    struct http_feed feed; /* first */
    bool predict;
    uint8_t *body; /* owned */
    size_t n;
    uint32_t *tokens; /* owned, grown as needed */
    size_t cap;
    struct svc_out text;
    uint64_t lines, failed;
    struct lm_kn_score sum;      /* of all that were answered */
    bool any_deepest;            /* some of them have no perplexity, so all together have none */
    bool fixed;                  /* there is no live model */
    struct lm_kn_reader *reader; /* until `fixed` */
    struct lm_scorer *scorer;    /* NULL until a smoothed model scores */
};

static const uint8_t *skip_blank(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    return p;
}

/* ---- one line ------------------------------------------------------------------------------------------------------ */

static enum cht_rc reserve(struct many *m, size_t n, struct cht_err *err)
{
    if (n <= m->cap)
        return CHT_OK;
    uint32_t *p = cht_realloc(m->tokens, n * sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", n);
    m->tokens = p;
    m->cap = n;
    return CHT_OK;
}

static bool number(const json_t *o, const char *name, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(o, name);
    *out = 0;
    if (v == NULL || json_is_null(v))
        return true;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > (json_int_t)max)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* A question that is written in an uncommon way, or is none. */
static enum cht_rc read_json(struct many *m, const json_t *o, struct http_question *q, struct cht_err *err)
{
    const json_t *list = json_object_get(o, "tokens"), *bos = json_object_get(o, "bos"),
                 *mode = json_object_get(o, "mode");
    if (!json_is_array(list))
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "{\"tokens\":[...]} is expected");
    q->n = json_array_size(list);
    if (q->n > TOKENS_MAX)
        return CHT_FAIL(err, CHT_BODY_TOO_LARGE, "at most %u tokens", TOKENS_MAX);
    enum cht_rc rc = reserve(m, q->n + 1, err);
    if (rc != CHT_OK)
        return rc;
    q->tokens = m->tokens;
    if (!http_tokens(list, m->tokens))
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "%s", cht_rc_text(CHT_INVALID_TOKENS));
    if (!number(o, "k", LM_K_MAX, &q->k) || !number(o, "max_order", UINT32_MAX, &q->max_order))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"k\" and \"max_order\" are numbers from 1 on");
    if (bos != NULL && !json_is_boolean(bos))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"bos\" is true or false");
    if (!http_question_mode(mode, &q->mode))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"mode\" is live, deepest, levels or blend");
    q->has_mode = mode != NULL;
    q->no_bos = json_is_false(bos);
    return CHT_OK;
}

static enum cht_rc read_question(struct many *m, const char *p, size_t n, struct http_question *q,
                                 struct cht_err *err)
{
    size_t most = n / 2 + 1;
    enum cht_rc rc = reserve(m, most < TOKENS_MAX ? most : TOKENS_MAX, err);
    if (rc != CHT_OK)
        return rc;
    *q = (struct http_question){.tokens = m->tokens, .cap = m->cap < TOKENS_MAX ? m->cap : TOKENS_MAX};
    if (http_question_read(p, n, LM_K_MAX, q))
        return CHT_OK;
    json_error_t where;
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, &where);
    *q = (struct http_question){0};
    if (o == NULL || !json_is_object(o))
        rc = CHT_FAIL(err, CHT_INVALID_BODY, "the line is no JSON object");
    else
        rc = read_json(m, o, q, err);
    json_decref(o);
    return rc;
}

/* A live model answers. CHT_PAIR_NOT_FOUND: there is none. */
static enum cht_rc ask_live(struct many *m, const struct http_question *q, struct cht_err *err)
{
    const struct http_live_question l = {.tokens = q->tokens,
                                         .n = q->n,
                                         .k = q->k > 0 ? (uint32_t)q->k : LM_K_DEFAULT,
                                         .max_order = (uint32_t)q->max_order,
                                         .bos = !q->no_bos,
                                         .levels = q->has_mode && q->mode == LM_PREDICT_LEVELS};
    struct lm_kn_score one = {0};
    uint64_t lines;
    bool later;
    enum cht_rc rc = m->predict ? http_live_predict(m->reader, &l, &m->text, &lines, &later, err)
                                : http_live_score(m->reader, &l, &m->text, &one, err);
    if (rc != CHT_OK)
        return rc;
    if (!m->predict || !l.levels)
        svc_out_text(&m->text, "\n");
    m->sum.tokens += one.tokens;
    m->sum.oov += one.oov;
    m->sum.log10 += one.log10;
    m->sum.log10_oov += one.log10_oov;
    return CHT_OK;
}

static enum cht_rc predict_smoothed(struct many *m, const struct http_question *q, struct cht_err *err)
{
    const struct lm_predict_query p = {.tokens = q->tokens,
                                       .n = q->n,
                                       .k = q->k > 0 ? (unsigned)q->k : LM_K_DEFAULT,
                                       .max_order = (unsigned)q->max_order,
                                       .mode =
                                           q->has_mode ? (enum lm_predict_mode)q->mode : LM_PREDICT_DEEPEST};
    struct http_smoothed_writer w = {.out = &m->text, .mode = p.mode};
    enum cht_rc rc = lm_predict(m->feed.db->store, &p, http_smoothed_prediction, &w, err);
    if (rc == CHT_OK && p.mode != LM_PREDICT_LEVELS)
        svc_out_text(&m->text, "\n");
    return rc;
}

static enum cht_rc score_smoothed(struct many *m, const struct http_question *q, struct cht_err *err)
{
    struct lm_score one;
    struct lm_score_query p = {.tokens = q->tokens, .n = q->n, .max_order = (unsigned)q->max_order};
    if (!http_smoothed_score_mode(q->mode, q->has_mode, &p.mode))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"mode\" is live, blend or deepest");
    enum cht_rc rc = m->scorer == NULL ? lm_scorer_open(m->feed.db->store, &m->scorer, err) : CHT_OK;
    if (rc == CHT_OK)
        rc = http_smoothed_score(m->scorer, &p, &m->text, &one, err);
    if (rc != CHT_OK)
        return rc;
    svc_out_text(&m->text, "\n");
    m->any_deepest = m->any_deepest || p.mode == LM_SCORE_DEEPEST;
    m->sum.tokens += one.scored;
    m->sum.oov += one.oov;
    m->sum.log10 += one.log10;
    m->sum.log10_oov += one.log10_oov;
    return CHT_OK;
}

static enum cht_rc ask(struct many *m, const struct http_question *q, struct cht_err *err)
{
    bool only = q->has_mode && q->mode == HTTP_QUESTION_LIVE;
    bool live = !q->has_mode || only || (m->predict && q->mode == LM_PREDICT_LEVELS);
    if (live && !m->fixed) {
        enum cht_rc rc = ask_live(m, q, err);
        if (rc != CHT_PAIR_NOT_FOUND)
            return rc;
        m->fixed = true;
    }
    if (only)
        return CHT_FAIL(err, CHT_NOT_LIVE, "%s", cht_rc_text(CHT_NOT_LIVE));
    return m->predict ? predict_smoothed(m, q, err) : score_smoothed(m, q, err);
}

static void one_line(struct many *m, const char *p, size_t n)
{
    struct cht_err err = {0};
    struct http_question q;
    size_t start = m->text.n;
    m->lines++;
    enum cht_rc rc = read_question(m, p, n, &q, &err);
    if (rc == CHT_OK)
        rc = ask(m, &q, &err);
    if (rc == CHT_OK)
        return;
    m->failed++;
    m->text.n = start;
    svc_out_text(&m->text, "{\"error\":");
    http_problem_text(&m->text, rc, err.msg);
    svc_out_text(&m->text, "}}\n");
}

/* ---- the job ------------------------------------------------------------------------------------------------------- */

static bool hand_over(struct many *m)
{
    http_feed_put(&m->feed, &m->text);
    bool ok = !m->text.failed;
    m->text.n = 0;
    return ok && http_feed_room(&m->feed, WAITING);
}

static void end_line(struct many *m)
{
    svc_out_format(&m->text, "{\"end\":{\"count\":%llu,\"failed\":%llu,\"next\":null",
                   (unsigned long long)m->lines, (unsigned long long)m->failed);
    if (!m->predict) {
        svc_out_format(&m->text, ",\"documents\":%llu,\"tokens\":%llu,\"oov\":%llu,\"log10\":",
                       (unsigned long long)(m->lines - m->failed), (unsigned long long)m->sum.tokens,
                       (unsigned long long)m->sum.oov);
        if (svc_out_room(&m->text, REDUCE_DOUBLE_TEXT))
            m->text.n += reduce_put_double(m->text.p + m->text.n, m->sum.log10);
        if (!m->any_deepest) {
            svc_out_text(&m->text, ",");
            http_live_perplexities(&m->text, &m->sum);
        }
    }
    svc_out_text(&m->text, "}}\n");
}

static void many_work(struct http_feed *f)
{
    struct many *m = (struct many *)f;
    struct cht_err err = {0};
    const uint8_t *p = m->body, *end = p + m->n;
    enum cht_rc rc = lm_kn_reader_open(http_shared(f->srv)->lm, f->db->store, NULL, &m->reader, &err);
    bool on = rc == CHT_OK;
    while (on && (p = skip_blank(p, end)) < end) {
        const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = stop != NULL ? (size_t)(stop - p) : (size_t)(end - p);
        one_line(m, (const char *)p, n);
        p += n;
        if (m->text.n >= PIECE || m->text.failed)
            on = hand_over(m);
    }
    lm_kn_reader_close(m->reader);
    lm_scorer_close(m->scorer);
    if (rc == CHT_OK && !on)
        rc = m->text.failed ? CHT_NO_MEMORY : CHT_CANCELLED;
    if (rc == CHT_OK) {
        end_line(m);
    } else {
        m->text.failed = false;
        svc_out_text(&m->text, "{\"error\":");
        http_problem_text(&m->text, rc, err.msg);
        svc_out_text(&m->text, "}}\n");
    }
    (void)hand_over(m);
}

static void progress(struct http_feed *f, struct svc_out *o)
{
    (void)f, (void)o; /* it says nothing between two answers */
}

static void fini(struct http_feed *f)
{
    struct many *m = (struct many *)f;
    cht_free(m->body);
    cht_free(m->tokens);
    svc_out_free(&m->text);
}

static void begin(struct http_request *r)
{
    static const struct http_feed_kind kind = {.work = many_work, .progress = progress, .fini = fini};
    const bool *predict = r->own;
    struct many *m = cht_calloc(1, sizeof *m);
    if (m == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    m->feed.kind = &kind;
    m->predict = *predict;
    m->body = r->body; /* the job may outlive the request */
    m->n = r->body_len;
    r->body = NULL;
    r->body_len = r->body_cap = 0;
    http_feed_begin(r, &m->feed);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_ask_many_is(const struct http_request *r)
{
    const uint8_t *end = r->body + r->body_len, *p = skip_blank(r->body, end);
    const uint8_t *stop = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    if (stop == NULL || *p != '{')
        return false;
    const uint8_t *last = stop - 1;
    while (last > p && (*last == ' ' || *last == '\t' || *last == '\r'))
        last--;
    return *last == '}' && skip_blank(stop, end) < end;
}

void http_ask_many(struct http_request *r, bool predict)
{
    bool *own = http_request_own(r, sizeof *own);
    *own = predict;
    http_request_database(r, false, begin);
}
