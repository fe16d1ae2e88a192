/* asker: see asker.h. */
#include "http/calls/asker.h"

#include <string.h>

#include "http/calls/linked.h"
#include "http/calls/live.h"
#include "http/calls/lm_int.h"
#include "http/calls/smoothed.h"

#include "base/alloc.h"

bool http_question_mode(const json_t *v, unsigned *out)
{
    static const char *const names[] = {[LM_PREDICT_DEEPEST] = "deepest",
                                        [LM_PREDICT_LEVELS] = "levels",
                                        [LM_PREDICT_BLEND] = "blend",
                                        [HTTP_QUESTION_LIVE] = "live"};
    *out = LM_PREDICT_DEEPEST;
    for (unsigned i = 0; i < sizeof names / sizeof *names && json_is_string(v); i++) {
        if (strcmp(json_string_value(v), names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return v == NULL;
}

static enum cht_rc reserve(struct http_asker *a, size_t n, struct cht_err *err)
{
    if (n <= a->cap)
        return CHT_OK;
    uint32_t *p = cht_realloc(a->tokens, n * sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", n);
    a->tokens = p;
    a->cap = n;
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

/* ---- what is asked ------------------------------------------------------------------------------------------------- */

static enum cht_rc too_many(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_BODY_TOO_LARGE, "at most %u tokens", HTTP_QUESTION_TOKENS);
}

static enum cht_rc read_tokens(struct http_asker *a, const json_t *list, struct http_question *q,
                               struct cht_err *err)
{
    if (!json_is_array(list))
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "{\"tokens\":[...]} is expected");
    q->n = json_array_size(list);
    if (q->n > HTTP_QUESTION_TOKENS)
        return too_many(err);
    enum cht_rc rc = reserve(a, q->n + 1, err);
    if (rc != CHT_OK)
        return rc;
    q->tokens = a->tokens;
    return http_tokens(list, a->tokens)
               ? CHT_OK
               : CHT_FAIL(err, CHT_INVALID_TOKENS, "%s", cht_rc_text(CHT_INVALID_TOKENS));
}

/* What the live model, or a fixed one, puts around a text. */
static enum cht_rc read_ends(struct http_asker *a, struct cht_err *err)
{
    if (a->ends_read)
        return CHT_OK;
    a->spell.store = a->store;
    enum cht_rc rc = http_spell_ends(&a->spell, err);
    a->ends_read = rc == CHT_OK;
    return rc;
}

/* Words; there is room for bos in front and eos after them, which a live model's question gets (add_ends). */
static enum cht_rc read_text(struct http_asker *a, const json_t *text, struct http_question *q,
                             struct cht_err *err)
{
    if (!json_is_string(text))
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "{\"text\":\"...\"} is expected");
    const char *p = json_string_value(text), *end = p + json_string_length(text);
    size_t most = (size_t)(end - p) / 2 + 1, len;
    enum cht_rc rc = reserve(a, (most < HTTP_QUESTION_TOKENS ? most : HTTP_QUESTION_TOKENS) + 2, err);
    if (rc == CHT_OK)
        rc = read_ends(a, err);
    for (; rc == CHT_OK && (len = lm_word_next(&p, end)) > 0; p += len) {
        uint32_t token;
        if (q->n == HTTP_QUESTION_TOKENS)
            return too_many(err);
        rc = lm_word_token(a->store, (struct cht_str){(const uint8_t *)p, len}, &token, &a->spell.buf, err);
        a->tokens[1 + q->n++] = rc == CHT_OK ? token : LM_WORD_UNKNOWN;
        rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    }
    q->tokens = a->tokens + 1;
    return rc;
}

/* As /ngrams counts a text. */
static void add_ends(struct http_asker *a, struct http_question *q)
{
    if (!a->words || q->no_bos || !a->spell.has_bos)
        return;
    *--q->tokens = a->spell.bos;
    q->n++;
    if (!a->predict && a->spell.has_eos)
        q->tokens[q->n++] = a->spell.eos;
}

/* A question that is written in an uncommon way, or is none. */
static enum cht_rc read_json(struct http_asker *a, const json_t *o, struct http_question *q,
                             struct cht_err *err)
{
    const json_t *bos = json_object_get(o, "bos"), *mode = json_object_get(o, "mode");
    enum cht_rc rc = a->words ? read_text(a, json_object_get(o, "text"), q, err)
                              : read_tokens(a, json_object_get(o, "tokens"), q, err);
    if (rc != CHT_OK)
        return rc;
    if ((a->predict && !number(o, "k", LM_K_MAX, &q->k)) ||
        !number(o, "max_order", UINT32_MAX, &q->max_order))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"k\" and \"max_order\" are numbers from 1 on");
    if (bos != NULL && !json_is_boolean(bos))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"bos\" is true or false");
    if (!http_question_mode(mode, &q->mode))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"mode\" is live, deepest, levels or blend");
    if (a->predict && !http_linked_members(o, q))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "\"links\" is a number from 0 to 1, with it \"metric\" is cosine, jaccard or pmi and "
                        "\"seldom\" a number from 1 on");
    q->has_mode = mode != NULL;
    q->no_bos = json_is_false(bos);
    return CHT_OK;
}

static enum cht_rc read_question(struct http_asker *a, const char *p, size_t n, struct http_question *q,
                                 struct cht_err *err)
{
    size_t most = n / 2 + 1;
    enum cht_rc rc = reserve(a, most < HTTP_QUESTION_TOKENS ? most : HTTP_QUESTION_TOKENS, err);
    if (rc != CHT_OK)
        return rc;
    *q = (struct http_question){.tokens = a->tokens,
                                .cap = a->cap < HTTP_QUESTION_TOKENS ? a->cap : HTTP_QUESTION_TOKENS};
    if (!a->words && http_question_read(p, n, LM_K_MAX, q))
        return CHT_OK;
    json_error_t where;
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, &where);
    *q = (struct http_question){0};
    if (o == NULL && json_error_code(&where) == json_error_out_of_memory)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a question");
    else if (o == NULL)
        rc = CHT_FAIL(err, CHT_INVALID_BODY, "not JSON: %s", where.text);
    else if (!json_is_object(o))
        rc = CHT_FAIL(err, CHT_INVALID_BODY, "it is no JSON object");
    else
        rc = read_json(a, o, q, err);
    json_decref(o);
    return rc;
}

/* Several plain ones; false: one of them is another. */
static bool read_all(struct http_asker *a, const struct cht_str *line, size_t n, struct lm_kn_text_query *out)
{
    struct cht_err ignored;
    size_t most = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        most += line[i].n / 2 + 1;
    if (most > HTTP_QUESTION_TOKENS || reserve(a, most, &ignored) != CHT_OK)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct http_question q = {.tokens = a->tokens + at, .cap = a->cap - at};
        if (!http_question_read((const char *)line[i].p, line[i].n, LM_K_MAX, &q) ||
            (q.has_mode && q.mode != HTTP_QUESTION_LIVE))
            return false;
        out[i] = (struct lm_kn_text_query){
            .tokens = q.tokens, .n = q.n, .bos = !q.no_bos, .max_order = (unsigned)q.max_order};
        at += q.n;
    }
    return true;
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void add_score(struct http_asker *a, const struct lm_kn_score *one)
{
    a->sum.tokens += one->tokens;
    a->sum.oov += one->oov;
    a->sum.log10 += one->log10;
    a->sum.log10_oov += one->log10_oov;
}

/* The words that per_token and orders are about. */
static void put_words(struct http_asker *a, const uint32_t *tokens, size_t n, bool live)
{
    size_t from = 0;
    if (!a->words || a->text.failed)
        return;
    a->text.n--; /* the brace */
    svc_out_text(&a->text, ",\"words\":");
    if (n > 0 && (!live || (a->spell.has_bos && tokens[0] == a->spell.bos)))
        from = 1; /* not scored; a word never has the token of bos */
    http_spell_list(&a->text, &a->spell, tokens + from, n - from);
    svc_out_text(&a->text, "}");
}

/* A prediction with links, of a live model or of what was smoothed. */
static enum cht_rc ask_linked(struct http_asker *a, const struct http_question *q, bool live, uint64_t *lines,
                              struct cht_err *err)
{
    struct http_linked_asker l = {.store = a->store,
                                  .out = &a->text,
                                  .spell = a->words ? &a->spell : NULL,
                                  .memory = {.budget = a->budget}};
    enum cht_rc rc = CHT_OK;
    if (live && a->reader == NULL)
        rc = lm_kn_reader_open(a->lm, a->store, NULL, &a->reader, err);
    l.live = live ? a->reader : NULL;
    if (rc == CHT_OK)
        rc = http_linked_predict(&l, q, err);
    svc_memory_end(&l.memory);
    *lines = l.shown;
    if (rc == CHT_OK)
        http_lookups_predicted(a->lookups, http_lookups_asked(q->n, q->max_order), l.answered);
    return rc;
}

/* A live model answers. CHT_PAIR_NOT_FOUND: there is none. */
static enum cht_rc ask_live(struct http_asker *a, const struct http_question *said, uint64_t *lines,
                            struct cht_err *err)
{
    struct http_question q = *said;
    unsigned answered = 0;
    add_ends(a, &q);
    if (q.links > 0.0)
        return ask_linked(a, &q, true, lines, err);
    const struct http_live_question l = {.tokens = q.tokens,
                                         .n = q.n,
                                         .k = q.k > 0 ? (uint32_t)q.k : LM_K_DEFAULT,
                                         .max_order = (uint32_t)q.max_order,
                                         .bos = !q.no_bos,
                                         .levels = q.has_mode && q.mode == LM_PREDICT_LEVELS,
                                         .spell = a->words ? &a->spell : NULL,
                                         .answered = &answered};
    struct lm_kn_score one = {0};
    bool later;
    enum cht_rc rc = a->reader == NULL ? lm_kn_reader_open(a->lm, a->store, NULL, &a->reader, err) : CHT_OK;
    if (rc == CHT_OK)
        rc = a->predict ? http_live_predict(a->reader, &l, &a->text, lines, &later, err)
                        : http_live_score(a->reader, &l, &a->text, &one, err);
    if (rc != CHT_OK)
        return rc;
    if (a->predict)
        http_lookups_predicted(a->lookups, http_lookups_asked(q.n, q.max_order), answered);
    else
        put_words(a, q.tokens, q.n, true);
    if (!a->predict || !l.levels)
        svc_out_text(&a->text, "\n");
    add_score(a, &one);
    return CHT_OK;
}

static enum cht_rc predict_smoothed(struct http_asker *a, const struct http_question *q, uint64_t *lines,
                                    struct cht_err *err)
{
    const struct lm_predict_query p = {
        .tokens = q->tokens,
        .n = q->n,
        .k = q->k > 0 ? (unsigned)q->k : LM_K_DEFAULT,
        .max_order = q->max_order < UINT32_MAX ? (unsigned)q->max_order : UINT32_MAX,
        .mode = q->has_mode ? (enum lm_predict_mode)q->mode : LM_PREDICT_DEEPEST,
        .again = http_smoothed_again};
    struct http_smoothed_writer w = {
        .out = &a->text, .mode = p.mode, .spell = a->words ? &a->spell : NULL, .start = a->text.n};
    enum cht_rc rc = lm_predict(a->store, &p, http_smoothed_prediction, &w, err);
    if (rc == CHT_OK && p.mode != LM_PREDICT_LEVELS)
        svc_out_text(&a->text, "\n");
    if (rc == CHT_OK)
        http_lookups_predicted(a->lookups, http_lookups_asked(q->n, q->max_order), w.answered);
    *lines = w.shown;
    return rc;
}

static enum cht_rc score_smoothed(struct http_asker *a, const struct http_question *q, struct cht_err *err)
{
    struct lm_score one;
    struct lm_score_query p = {.tokens = q->tokens, .n = q->n, .max_order = (unsigned)q->max_order};
    if (!http_smoothed_score_mode(q->mode, q->has_mode, &p.mode))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "\"mode\" is live, blend or deepest");
    enum cht_rc rc = a->scorer == NULL ? lm_scorer_open(a->store, &a->scorer, err) : CHT_OK;
    if (rc == CHT_OK)
        rc = http_smoothed_score(a->scorer, &p, &a->text, &one, err);
    if (rc != CHT_OK)
        return rc;
    put_words(a, q->tokens, q->n, false);
    svc_out_text(&a->text, "\n");
    a->any_deepest = a->any_deepest || p.mode == LM_SCORE_DEEPEST;
    add_score(a, &(struct lm_kn_score){
                     .tokens = one.scored, .oov = one.oov, .log10 = one.log10, .log10_oov = one.log10_oov});
    return CHT_OK;
}

static enum cht_rc answer(struct http_asker *a, const struct http_question *q, uint64_t *lines,
                          struct cht_err *err)
{
    bool only = q->has_mode && q->mode == HTTP_QUESTION_LIVE;
    bool live = !q->has_mode || only || (a->predict && q->mode == LM_PREDICT_LEVELS);
    *lines = 1;
    if (live && !a->fixed) {
        enum cht_rc rc = ask_live(a, q, lines, err);
        if (rc != CHT_PAIR_NOT_FOUND)
            return rc;
        a->fixed = true;
    }
    if (only)
        return CHT_FAIL(err, CHT_NOT_LIVE, "%s", cht_rc_text(CHT_NOT_LIVE));
    if (a->predict && q->links > 0.0)
        return ask_linked(a, q, false, lines, err);
    return a->predict ? predict_smoothed(a, q, lines, err) : score_smoothed(a, q, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc http_asker_ask(struct http_asker *a, const char *p, size_t n, uint64_t *lines,
                           struct cht_err *err)
{
    struct http_question q;
    size_t start = a->text.n;
    a->spell.rc = CHT_OK;
    enum cht_rc rc = read_question(a, p, n, &q, err);
    if (rc == CHT_OK)
        rc = answer(a, &q, lines, err);
    if (rc == CHT_OK && a->spell.rc != CHT_OK) {
        rc = a->spell.rc;
        *err = a->spell.err;
    }
    if (rc != CHT_OK)
        a->text.n = start;
    return rc;
}

bool http_asker_score(struct http_asker *a, const struct cht_str *line, size_t n)
{
    struct lm_kn_text_query q[HTTP_ASKED_TOGETHER];
    struct lm_kn_score sum[HTTP_ASKED_TOGETHER];
    struct cht_err err = {0};
    size_t start = a->text.n;
    if (a->predict || a->words || a->fixed || !read_all(a, line, n, q))
        return false;
    if (a->reader == NULL && lm_kn_reader_open(a->lm, a->store, NULL, &a->reader, &err) != CHT_OK)
        return false;
    enum cht_rc rc = http_live_score_all(a->reader, q, n, true, &a->text, sum, &err);
    if (rc != CHT_OK || a->reader->mixed) {
        a->text.n = start;
        return false;
    }
    for (size_t i = 0; i < n; i++)
        add_score(a, &sum[i]);
    return true;
}

void http_asker_fini(struct http_asker *a)
{
    lm_kn_reader_close(a->reader);
    lm_scorer_close(a->scorer);
    http_spell_fini(&a->spell);
    cht_free(a->tokens);
    svc_out_free(&a->text);
}
