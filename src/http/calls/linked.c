/* linked: see linked.h. */
#include "http/calls/linked.h"

#include "http/calls/doubles.h"
#include "reduce/links.h"

/* struct lm_linked_query: book, unbook */
static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return svc_memory_take(&((struct http_linked_asker *)ctx)->memory, bytes, err);
}

static void unbook(void *ctx, uint64_t bytes)
{
    svc_memory_give(&((struct http_linked_asker *)ctx)->memory, bytes);
}

static void again(void *ctx)
{
    struct http_linked_asker *a = ctx;
    a->out->n = a->start;
    a->shown = 0;
    a->answered = 0;
}

static void put_context(struct http_linked_asker *a, const struct lm_linked_answer *p)
{
    svc_out_text(a->out, ",\"context\":");
    if (a->spell != NULL) {
        http_spell_list(a->out, a->spell, p->context, p->context_n);
        return;
    }
    svc_out_text(a->out, "[");
    for (size_t i = 0; i < p->context_n; i++)
        svc_out_format(a->out, "%s%u", i > 0 ? "," : "", p->context[i]);
    svc_out_text(a->out, "]");
}

static void put_answer(void *ctx, const struct lm_linked_answer *p)
{
    struct http_linked_asker *a = ctx;
    struct svc_out *o = a->out;
    svc_out_format(o, "{\"order\":%u", p->order);
    put_context(a, p);
    svc_out_text(o, ",\"candidates\":[");
    for (size_t i = 0; i < p->count; i++) {
        const struct lm_candidate *c = &p->candidates[i];
        svc_out_format(o, "%s{\"token\":%u", i > 0 ? "," : "", c->token);
        if (a->spell != NULL) {
            svc_out_text(o, ",\"word\":");
            http_spell_put(o, a->spell, c->token);
        }
        svc_out_text(o, ",\"p\":");
        http_put_double(o, c->p);
        svc_out_format(o, ",\"order\":%u}", c->order);
    }
    svc_out_format(o, "],\"links\":%u,\"metric\":", p->linked);
    if (p->linked > 0)
        svc_out_format(o, "\"%s\"", reduce_links_metric_name(p->metric));
    else
        svc_out_text(o, "null");
    if (a->live != NULL) {
        svc_out_text(o, ",\"unknown\":");
        http_put_double(o, p->unknown);
        svc_out_format(o, ",\"generation\":%llu", (unsigned long long)a->live->head.generation);
    }
    svc_out_text(o, "}\n");
    a->shown++;
    if (a->answered == 0 && p->count > 0)
        a->answered = p->order;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_linked_members(const json_t *o, struct http_question *q)
{
    const json_t *links = json_object_get(o, "links"), *metric = json_object_get(o, "metric"),
                 *seldom = json_object_get(o, "seldom");
    q->links = 0.0;
    q->metric = -1;
    q->seldom = UINT64_MAX;
    if (links == NULL)
        return true;
    if (!json_is_number(links) || !(json_number_value(links) >= 0.0 && json_number_value(links) <= 1.0))
        return false;
    q->links = json_number_value(links);
    if (metric != NULL) {
        q->metric = json_is_string(metric)
                        ? reduce_links_metric(json_string_value(metric), json_string_length(metric))
                        : -1;
        if (q->metric < 0)
            return false;
    }
    if (seldom == NULL)
        return true;
    q->seldom =
        json_is_integer(seldom) && json_integer_value(seldom) >= 1 ? (uint64_t)json_integer_value(seldom) : 0;
    return q->seldom > 0;
}

enum cht_rc http_linked_predict(struct http_linked_asker *a, const struct http_question *q,
                                struct cht_err *err)
{
    const struct lm_linked_query l = {
        .tokens = q->tokens,
        .n = q->n,
        .k = q->k > 0 ? (unsigned)q->k : LM_K_DEFAULT,
        .max_order = q->max_order < UINT32_MAX ? (unsigned)q->max_order : UINT32_MAX,
        .mode = q->mode <= LM_PREDICT_BLEND ? (enum lm_predict_mode)q->mode : LM_PREDICT_DEEPEST,
        .live = a->live,
        .weight = q->links,
        .metric = q->metric,
        .seldom = q->seldom,
        .book = book,
        .unbook = unbook,
        .book_ctx = a,
        .again = again};
    a->start = a->out->n;
    enum cht_rc rc = lm_linked(a->store, &l, put_answer, a, err);
    if (rc != CHT_OK) {
        a->out->n = a->start;
    } else if (a->live != NULL && a->live->mixed && a->shown > 0 && !a->out->failed) {
        a->out->n -= 2; /* the last line says that it is of two moments */
        svc_out_text(a->out, ",\"mixed\":true}\n");
    }
    return rc;
}
