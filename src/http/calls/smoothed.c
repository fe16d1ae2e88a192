/* smoothed: see smoothed.h. */
#include "http/calls/smoothed.h"

#include <math.h>
#include <string.h>

#include "http/calls/doubles.h"
#include "http/calls/question.h"
#include "http/calls/spell.h"
#include "lm/quant.h"
#include "reduce/text.h"

/* ---- predictions --------------------------------------------------------------------------------------------------- */

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

/* From the context on, without the last bracket. */
static void put_numbers(const struct http_smoothed_writer *w, const struct lm_prediction *p)
{
    struct svc_out *o = w->out;
    svc_out_text(o, ",\"context\":[");
    for (size_t i = 0; i < p->context_n; i++) {
        svc_out_text(o, i > 0 ? "," : "");
        svc_out_u64(o, p->context[i]);
    }
    svc_out_text(o, p->count > 0 ? "],\"candidates\":" : "],\"candidates\":[");
    if (p->count > 0 && svc_out_room(o, p->count * CANDIDATE_TEXT)) {
        char *first = o->p + o->n, *end = first;
        for (size_t i = 0; i < p->count; i++)
            end = put_candidate(end, &p->candidates[i], w->mode == LM_PREDICT_BLEND);
        *first = '['; /* for the comma before it */
        o->n += (size_t)(end - first);
    }
}

static void put_spelled(const struct http_smoothed_writer *w, const struct lm_prediction *p)
{
    struct svc_out *o = w->out;
    svc_out_text(o, ",\"context\":");
    http_spell_list(o, w->spell, p->context, p->context_n);
    svc_out_text(o, ",\"candidates\":[");
    for (size_t i = 0; i < p->count; i++) {
        const struct lm_candidate *c = &p->candidates[i];
        svc_out_format(o, "%s{\"token\":%u,\"word\":", i > 0 ? "," : "", c->token);
        http_spell_put(o, w->spell, c->token);
        svc_out_format(o, ",\"q\":%u,\"p\":", c->q);
        http_put_double(o, c->p);
        svc_out_text(o, "}");
    }
}

/* ---- scores -------------------------------------------------------------------------------------------------------- */

/* The lists of an answer while they grow. */
struct lists {
    struct svc_out *logs; /* of the answer itself */
    size_t start;         /* where they begin */
    struct svc_out orders;
    bool more;
};

static void put_score(void *ctx, const struct lm_scored *t)
{
    struct lists *l = ctx;
    if (l->more) {
        svc_out_text(l->logs, ",");
        svc_out_text(&l->orders, ",");
    }
    l->more = true;
    http_put_double(l->logs, t->log10);
    svc_out_u64(&l->orders, t->order);
}

static void scores_again(void *ctx)
{
    struct lists *l = ctx;
    l->logs->n = l->start;
    l->orders.n = 0;
    l->more = false;
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_smoothed_prediction(void *ctx, const struct lm_prediction *p)
{
    struct http_smoothed_writer *w = ctx;
    struct svc_out *o = w->out;
    svc_out_text(o, "{\"order\":");
    svc_out_u64(o, p->order);
    if (w->spell != NULL)
        put_spelled(w, p);
    else
        put_numbers(w, p);
    svc_out_text(o, w->mode == LM_PREDICT_LEVELS ? "]}\n" : "]}");
    w->shown++;
    if (w->answered == 0 && p->count > 0)
        w->answered = p->order;
}

void http_smoothed_again(void *ctx)
{
    struct http_smoothed_writer *w = ctx;
    w->out->n = w->start;
    w->shown = 0;
}

bool http_smoothed_score_mode(unsigned mode, bool said, enum lm_score_mode *out)
{
    *out = said && mode == LM_PREDICT_DEEPEST ? LM_SCORE_DEEPEST : LM_SCORE_BLEND;
    return !said || mode != LM_PREDICT_LEVELS;
}

void http_smoothed_perplexities(struct svc_out *o, const struct lm_score *sum)
{
    http_put_perplexity(o, ",\"perplexity\":", lm_score_perplexity(sum, false));
    http_put_perplexity(o, ",\"perplexity_with_oov\":", lm_score_perplexity(sum, true));
}

enum cht_rc http_smoothed_score(struct lm_scorer *sc, const struct lm_score_query *q, struct svc_out *o,
                                struct lm_score *sum, struct cht_err *err)
{
    size_t start = o->n;
    struct lm_score_query asked = *q;
    struct lists l = {.logs = o};
    svc_out_text(o, "{\"per_token\":[");
    l.start = o->n;
    asked.again = scores_again;
    enum cht_rc rc = lm_score(sc, &asked, put_score, &l, sum, err);
    if (rc == CHT_OK) {
        svc_out_text(o, "],\"orders\":[");
        svc_out_bytes(o, l.orders.p, l.orders.n);
        svc_out_format(o, "],\"tokens\":%llu,\"oov\":%llu,\"log10\":", (unsigned long long)sum->scored,
                       (unsigned long long)sum->oov);
        http_put_double(o, sum->log10);
        if (q->mode == LM_SCORE_BLEND)
            http_smoothed_perplexities(o, sum);
        svc_out_text(o, "}");
        o->failed = o->failed || l.orders.failed;
    } else {
        o->n = start;
    }
    svc_out_free(&l.orders);
    return rc;
}
