/* model: NGRAMS, PREDICT and SCORE: the language model asked with words, by a job.
 *
 *   NGRAMS [order=N] [remove=1] [text=]TEXT     SUCCESS,documents=1,tokens=6,ngrams=15,contexts=4,removed=0
 *   PREDICT [k=20] [max_order=N] [text=]TEXT    SUCCESS,count=2,order=3,items=6265:0.5065;6f72:0.25
 *   SCORE [max_order=N] [text=]TEXT             SUCCESS,count=2,oov=1,log10=-3.25,perplexity=12.5,perplexity_with_oov=42.2,items=6265:-0.75:3;...
 *
 * TEXT is all that follows, split at white space; text= keeps its first words from being taken for what stands before it. Each is a text
 * as of text=true over HTTP: of a live model, or one that was read in, with what that puts around one; else what was smoothed answers
 * (`deepest`; a score is a `blend`). Items: a word in hexadecimal (or # and its token, if it has none) and its p; its log10 p and the order where it was found, 0: nowhere.
 */
#include "tcp/model.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/fm_format.h"
#include "lm/kn_ask.h"
#include "lm/ngrams.h"
#include "lm/predict.h"
#include "lm/words.h"
#include "service/text.h"
#include "tcp/answer.h"
#include "tcp/host.h"
#include "tcp/words.h"

#define TOKENS_MAX 1000000u /* of a question */

/* A question, and what answers it. */
struct asking {
    struct line_session *s;
    struct cht_store *store;
    struct lm_kn_reader *reader; /* owned */
    struct svc_memory_use memory;
    uint64_t k, max_order, order;
    bool remove;
    struct cht_str text;
    uint32_t *tokens; /* owned: bos, the words, eos */
    size_t n;
    bool live, has_bos, has_eos;
    uint32_t bos, eos;
    struct cht_buf buf;
    struct svc_out items;
    size_t items_n;
    uint64_t booked; /* of the items */
    enum cht_rc rc;  /* of the first word that could not be read */
};

/* ---- the line ------------------------------------------------------------------------------------------------------ */

static bool digits(struct cht_str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || v > max)
            return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = v;
    return s.n > 0 && v > 0 && v <= max;
}

/* NULL, or an error. *taken: it was one of ours. */
static const char *option(struct asking *a, const struct line_word *w, bool *taken)
{
    bool counts = a->s->command.verb == LINE_NGRAMS, predicts = a->s->command.verb == LINE_PREDICT;
    *taken = true;
    if (counts && line_word_is(w, "order"))
        return digits(w->value, LM_ORDER_MAX, &a->order) ? NULL : "invalid_order";
    if (counts && line_word_is(w, "remove")) {
        a->remove = line_flag(w->value);
        return NULL;
    }
    if (predicts && line_word_is(w, "k"))
        return digits(w->value, LM_K_MAX, &a->k) ? NULL : "invalid_k";
    if (!counts && line_word_is(w, "max_order"))
        return digits(w->value, UINT32_MAX, &a->max_order) ? NULL : "invalid_order";
    *taken = false;
    return NULL;
}

/* Words of ours, then the text. NULL, or an error. */
static const char *read_line(struct asking *a)
{
    struct cht_str line = a->s->command.value;
    for (;;) {
        struct cht_str rest = line, word = line_words_next(&rest);
        struct line_word w;
        bool taken = false;
        if (word.n == 0 || !line_word_split(word, &w))
            break;
        if (line_word_is(&w, "text")) {
            line.n -= (size_t)(w.value.p - line.p);
            line.p = w.value.p;
            break;
        }
        const char *error = option(a, &w, &taken);
        if (error != NULL)
            return error;
        if (!taken)
            break;
        line = rest;
    }
    a->text = line;
    return NULL;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* What the model puts around a text. CHT_PAIR_NOT_FOUND: there is none that is live or was read in. */
static enum cht_rc read_ends(struct asking *a, struct cht_err *err)
{
    enum cht_rc rc = lm_kn_reader_open(a->s->host->lm, a->store, NULL, &a->reader, err);
    if (rc == CHT_OK)
        rc = lm_kn_begin(a->reader, err);
    if (rc != CHT_OK)
        return rc;
    const struct lm_kn_head *h = &a->reader->head;
    a->live = true;
    a->has_bos = true;
    a->bos = h->bos;
    a->has_eos = (h->flags & LM_KN_EOS) != 0;
    a->eos = h->eos;
    return CHT_OK;
}

static enum cht_rc read_text(struct asking *a, struct cht_err *err)
{
    const char *p = (const char *)a->text.p, *end = a->text.n > 0 ? p + a->text.n : p;
    size_t most = a->text.n / 2 + 1, len;
    if (most > TOKENS_MAX)
        most = TOKENS_MAX;
    enum cht_rc rc = a->memory.budget != NULL && most * sizeof *a->tokens > SVC_MEMORY_SMALL
                         ? svc_memory_take(&a->memory, (most + 2) * sizeof *a->tokens, err)
                         : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    a->tokens = cht_malloc((most + 2) * sizeof *a->tokens);
    if (a->tokens == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a text");
    if (a->has_bos)
        a->tokens[a->n++] = a->bos;
    for (size_t words = 0; rc == CHT_OK && (len = lm_word_next(&p, end)) > 0; p += len) {
        uint32_t token;
        if (words++ == most)
            return CHT_FAIL(err, CHT_REQUEST_TOO_LARGE, "a text of more than %u words", TOKENS_MAX);
        rc = lm_word_token(a->store, (struct cht_str){(const uint8_t *)p, len}, &token, &a->buf, err);
        a->tokens[a->n++] = rc == CHT_OK ? token : LM_WORD_UNKNOWN;
        rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    }
    if (a->has_eos && a->s->command.verb == LINE_SCORE)
        a->tokens[a->n++] = a->eos;
    return rc;
}

/* Room for the items and for their copy in the answer; false, and there is a code: none. */
static bool book_items(struct asking *a, size_t more)
{
    uint64_t need = 3 * ((uint64_t)a->items.n + more);
    if (a->rc != CHT_OK || a->memory.budget == NULL || need <= a->booked + SVC_MEMORY_SMALL)
        return a->rc == CHT_OK;
    a->rc = svc_memory_take(&a->memory, need, NULL);
    a->booked += a->rc == CHT_OK ? need : 0;
    return a->rc == CHT_OK;
}

static void put_word(struct asking *a, uint32_t token)
{
    struct svc_out *o = &a->items;
    struct cht_str text = {(const uint8_t *)"<unk>", CHT_LEN("<unk>")};
    if (a->items_n++ > 0)
        svc_out_text(o, ";");
    if (a->has_eos && token == a->eos) {
        text = (struct cht_str){(const uint8_t *)"</s>", CHT_LEN("</s>")};
    } else if (token != LM_WORD_UNKNOWN) {
        enum cht_rc rc = lm_word_text(a->store, token, &a->buf, NULL);
        text = (struct cht_str){a->buf.data, rc == CHT_OK ? a->buf.len : 0};
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND && a->rc == CHT_OK)
            a->rc = rc;
    }
    if (text.n == 0 || text.n > LM_WORD_MAX) /* no word, whatever a pair says */
        svc_out_format(o, "#%lu", (unsigned long)token);
    else if (book_items(a, 2 * text.n) && svc_out_room(o, 2 * text.n))
        o->n += svc_out_hex(o->p + o->n, text.p, text.n);
}

/* ---- PREDICT ------------------------------------------------------------------------------------------------------- */

static enum cht_rc predict_live(struct asking *a, struct cht_err *err)
{
    const struct lm_kn_text_query q = {.tokens = a->tokens, .n = a->n, .max_order = (unsigned)a->max_order};
    struct lm_kn_prediction p = {0};
    enum cht_rc rc;
    bool later;
    do {
        a->items.n = a->items_n = 0;
        rc = lm_kn_begin(a->reader, err);
        if (rc == CHT_OK)
            rc = lm_kn_predict(a->reader, &q, (uint32_t)a->k, &p, &later, err);
        for (size_t i = 0; rc == CHT_OK && i < p.n; i++) {
            put_word(a, p.c[i].token);
            svc_out_format(&a->items, ":%.6g", p.c[i].p);
        }
        a->order = p.order;
    } while (lm_kn_again(a->reader));
    return rc;
}

static void show_prediction(void *ctx, const struct lm_prediction *p)
{
    struct asking *a = ctx;
    a->order = p->order;
    for (size_t i = 0; i < p->count; i++) {
        put_word(a, p->candidates[i].token);
        svc_out_format(&a->items, ":%.6g", p->candidates[i].p);
    }
}

static enum cht_rc predict(struct asking *a, struct cht_err *err)
{
    const struct lm_predict_query q = {.tokens = a->tokens,
                                       .n = a->n,
                                       .k = (unsigned)a->k,
                                       .max_order = (unsigned)a->max_order,
                                       .mode = LM_PREDICT_DEEPEST};
    enum cht_rc rc = a->live ? predict_live(a, err) : lm_predict(a->store, &q, show_prediction, a, err);
    if (rc != CHT_OK || a->rc != CHT_OK)
        return rc != CHT_OK ? rc : a->rc;
    line_session_counted(a->s, a->s->command.verb, false);
    svc_out_format(&a->s->out, "SUCCESS,count=%zu,order=%llu", a->items_n, (unsigned long long)a->order);
    return CHT_OK;
}

/* ---- SCORE ------------------------------------------------------------------------------------------------------- */

static void put_scored(struct asking *a, double log10_p, unsigned order)
{
    svc_out_format(&a->items, ":%.9g:%u", log10_p, order);
}

/* Words as they come: all but what is not scored. */
struct scoring {
    struct asking *a;
    size_t at;
};

static void score_live(void *ctx, const struct lm_kn_scored *t)
{
    struct scoring *sc = ctx;
    while (sc->at < sc->a->n && sc->a->tokens[sc->at] == sc->a->bos)
        sc->at++;
    if (sc->at == sc->a->n) /* another model has come into its place: the question is asked again */
        return;
    put_word(sc->a, sc->a->tokens[sc->at++]);
    put_scored(sc->a, t->log10, t->matched);
}

static void score_smoothed(void *ctx, const struct lm_scored *t)
{
    struct scoring *sc = ctx;
    put_word(sc->a, t->token);
    put_scored(sc->a, t->log10, t->order);
}

static void scores_again(void *ctx)
{
    struct scoring *sc = ctx;
    sc->a->items.n = sc->a->items_n = sc->at = 0;
}

static enum cht_rc sum_live(struct asking *a, struct lm_kn_score *out, struct cht_err *err)
{
    const struct lm_kn_text_query q = {
        .tokens = a->tokens, .n = a->n, .bos = true, .max_order = (unsigned)a->max_order};
    struct scoring sc = {.a = a};
    enum cht_rc rc;
    do {
        scores_again(&sc);
        rc = lm_kn_begin(a->reader, err);
        if (rc == CHT_OK)
            rc = lm_kn_score(a->reader, &q, score_live, &sc, out, err);
    } while (lm_kn_again(a->reader));
    return rc;
}

static enum cht_rc sum_smoothed(struct asking *a, struct lm_kn_score *out, struct cht_err *err)
{
    struct scoring sc = {.a = a};
    const struct lm_score_query q = {.tokens = a->tokens,
                                     .n = a->n,
                                     .max_order = (unsigned)a->max_order,
                                     .mode = LM_SCORE_BLEND,
                                     .again = scores_again};
    struct lm_scorer *scorer = NULL;
    struct lm_score sum = {0};
    enum cht_rc rc = lm_scorer_open(a->store, &scorer, err);
    if (rc == CHT_OK)
        rc = lm_score(scorer, &q, score_smoothed, &sc, &sum, err);
    lm_scorer_close(scorer);
    *out = (struct lm_kn_score){
        .tokens = sum.scored, .oov = sum.oov, .log10 = sum.log10, .log10_oov = sum.log10_oov};
    return rc;
}

static void put_perplexity(struct svc_out *o, const char *name, double v)
{
    if (isfinite(v))
        svc_out_format(o, ",%s=%.9g", name, v);
}

static enum cht_rc score(struct asking *a, struct cht_err *err)
{
    struct lm_kn_score sum = {0};
    struct svc_out *o = &a->s->out;
    enum cht_rc rc = a->live ? sum_live(a, &sum, err) : sum_smoothed(a, &sum, err);
    if (rc != CHT_OK || a->rc != CHT_OK)
        return rc != CHT_OK ? rc : a->rc;
    line_session_counted(a->s, a->s->command.verb, false);
    svc_out_format(o, "SUCCESS,count=%zu,oov=%llu,log10=%.9g", a->items_n, (unsigned long long)sum.oov,
                   sum.log10);
    put_perplexity(o, "perplexity", lm_kn_perplexity(&sum, false));
    put_perplexity(o, "perplexity_with_oov", lm_kn_perplexity(&sum, true));
    return CHT_OK;
}

/* ---- NGRAMS ------------------------------------------------------------------------------------------------------ */

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct asking *a = ctx;
    return a->memory.budget != NULL ? svc_memory_take(&a->memory, bytes, err) : CHT_OK;
}

/* Words of the vocabulary are UTF-8. */
static bool is_text(struct cht_str s)
{
    size_t len = 1;
    for (size_t at = 0; at < s.n && len > 0; at += len)
        len = svc_text_character(s.p + at, s.n - at);
    return len > 0;
}

static enum cht_rc count(struct asking *a, struct cht_err *err)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result out = {0};
    size_t words;
    if (!is_text(a->text))
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "the text is not UTF-8");
    enum cht_rc rc = lm_ngrams_begin(a->order > 0 ? (unsigned)a->order : LM_NGRAMS_OWN, &g, err);
    if (rc != CHT_OK)
        return rc;
    lm_ngrams_bound(g, book, a);
    rc = lm_ngrams_add_text(g, a->text, a->remove, &words, err);
    if (rc == CHT_OK)
        rc = lm_ngrams_commit(a->s->host->lm, a->store, g, &out, err);
    lm_ngrams_free(g);
    if (rc != CHT_OK)
        return rc;
    line_session_counted(a->s, a->s->command.verb, false);
    svc_out_format(&a->s->out, "SUCCESS,documents=%llu,tokens=%llu,ngrams=%llu,contexts=%llu,removed=%llu\n",
                   (unsigned long long)out.documents, (unsigned long long)out.tokens,
                   (unsigned long long)out.ngrams, (unsigned long long)out.contexts_created,
                   (unsigned long long)out.removed);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static enum cht_rc ask(struct asking *a, struct cht_err *err)
{
    enum cht_rc rc = read_ends(a, err);
    if (rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND)
        rc = read_text(a, err);
    if (rc == CHT_OK)
        rc = a->s->command.verb == LINE_PREDICT ? predict(a, err) : score(a, err);
    if (rc != CHT_OK)
        return rc;
    if (a->items_n > 0) {
        svc_out_text(&a->s->out, ",items=");
        svc_out_bytes(&a->s->out, a->items.p, a->items.n);
    }
    a->s->out.failed = a->s->out.failed || a->items.failed;
    svc_out_text(&a->s->out, "\n");
    return CHT_OK;
}

void line_session_model(struct line_session *s)
{
    struct asking a = {
        .s = s, .store = s->db->store, .memory = {.budget = s->host->memory}, .k = LM_K_DEFAULT};
    struct cht_err err = {0};
    const char *error = read_line(&a);
    if (error != NULL) {
        line_session_error(s, s->command.verb, error);
        return;
    }
    enum cht_rc rc = s->command.verb == LINE_NGRAMS ? count(&a, &err) : ask(&a, &err);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    lm_kn_reader_close(a.reader);
    cht_buf_free(&a.buf);
    cht_free(a.tokens);
    svc_out_free(&a.items);
    svc_memory_end(&a.memory);
}
