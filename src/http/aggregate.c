/* aggregate: the aggregates of /reduce: run on a job thread or taken from the cache, answered as a stream. */
#include "http/handlers.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "reduce/cache.h"

/* The answer's lines, then the end line. */
static enum more next_of_answer(struct stream *s, const char **p, size_t *n)
{
    const struct reduce_answer *a = s->r->answer;
    if (s->finished)
        return MORE_END;
    if (s->count == 0 && a->len > 0) {
        s->count = a->count;
        *p = (const char *)a->lines;
        *n = a->len;
        return MORE_TEXT;
    }
    s->finished = true;
    out_format(&s->stage, "{\"end\":{\"count\":%llu,\"next\":null,\"malformed\":%llu}}\n",
               (unsigned long long)a->count, (unsigned long long)a->malformed);
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? MORE_END : MORE_TEXT;
}

static void work(struct request *r)
{
    r->rc = reduce_cache_run(r->w->srv->cache, r->db->store, r->mode, &r->reduce, &r->cancel, &r->answer,
                             &r->hit, &r->err);
}

static void answer(struct request *r)
{
    if (r->rc != CHT_OK) {
        reply_err(r, r->rc, &r->err);
        return;
    }
    reply_header(r, "Cheetah-Cache", r->hit ? "hit" : "miss");
    if (r->head)
        reply_media(r, 200, MEDIA_NDJSON);
    else if (stream_new(r, next_of_answer))
        stream_begin(r);
}

static void run(struct request *r) { request_long_job(r, work, answer); }

/* A parameter that is one of two words. */
static bool choice(struct request *r, enum param p, const char *zero, const char *one, bool *second)
{
    const struct param_value *v = &r->param[p];
    bool is_zero = v->p == NULL || (v->n == strlen(zero) && memcmp(v->p, zero, v->n) == 0);
    *second = v->p != NULL && v->n == strlen(one) && memcmp(v->p, one, v->n) == 0;
    if (!is_zero && !*second)
        reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is %s or %s", param_name(p), zero, one);
    return is_zero || *second;
}

void aggregate_get(struct request *r)
{
    struct reduce_params *p = &r->reduce;
    unsigned uses = r->mode->aggregate->uses;
    uint64_t most = (uses & REDUCE_USES_TO) != 0 ? REDUCE_SIMILAR_MAX : UINT64_MAX / 2;
    bool by_count = false, jaccard = false, decode;
    *p = (struct reduce_params){.prefix = r->op.name, .memory_max = r->w->srv->conf->reduce_memory_bytes};
    if (!param_bytes(r, P_AFTER, &p->after) || !param_bytes(r, P_UNTIL, &p->until) ||
        !param_bool(r, P_DECODE, false, &decode) || !param_number(r, P_LIMIT, 1, most, 0, &p->limit))
        return;
    if (((uses & REDUCE_USES_SORT) == 0 && r->param[P_SORT].p != NULL) ||
        ((uses & REDUCE_USES_TO) == 0 && (r->param[P_TO].p != NULL || r->param[P_METRIC].p != NULL))) {
        reply_fail(r, CHT_UNKNOWN_PARAMETER,
                   "mode %s takes neither 'sort' nor 'to' nor 'metric' beyond its own", r->mode->names[0]);
        return;
    }
    if (!choice(r, P_SORT, "token", "count", &by_count) ||
        !choice(r, P_METRIC, "cosine", "jaccard", &jaccard) || !param_bytes(r, P_TO, &p->to))
        return;
    if ((uses & REDUCE_USES_TO) != 0 && p->to.n == 0) {
        reply_fail(r, CHT_INVALID_ARGUMENT, "'to' names the pair to compare with");
        return;
    }
    p->sort = by_count ? REDUCE_SORT_COUNT : REDUCE_SORT_TOKEN;
    p->metric = jaccard ? REDUCE_JACCARD : REDUCE_COSINE;
    request_database(r, false, run);
}
