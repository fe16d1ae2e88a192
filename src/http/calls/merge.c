/* merge: POST /databases/{name}/merge?from=OTHER (lm/merge.h). */
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/reply.h"
#include "http/server.h"

#include "lm/merge.h"

struct merge_call {
    char name[CHT_DATABASE_NAME_MAX + 1], from[CHT_DATABASE_NAME_MAX + 1];
    struct lm_merge_result result;
};

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct http_request *r = ctx;
    return svc_memory_take(&r->memory, bytes, err);
}

static void work(struct http_request *r)
{
    struct merge_call *m = r->own;
    struct svc_database *from = NULL;
    struct lm_ngrams *g = NULL;
    bool created;
    r->rc = svc_dbs_open(r->w->srv->dbs, m->name, false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        r->rc = svc_dbs_open(r->w->srv->dbs, m->from, false, 0, &from, &created, &r->err);
    if (r->rc == CHT_OK)
        r->rc = lm_ngrams_begin(LM_NGRAMS_OWN, &g, &r->err);
    if (r->rc == CHT_OK) {
        lm_ngrams_bound(g, book, r);
        r->rc = lm_merge(http_shared(r->w->srv)->lm, r->db->store, from->store, g, &m->result, &r->err);
    }
    lm_ngrams_free(g);
    svc_dbs_put(from);
}

static void answer(struct http_request *r)
{
    const struct lm_merge_result *m = &((const struct merge_call *)r->own)->result;
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    svc_out_format(&r->out, "{\"contexts\":%llu,\"contexts_created\":%llu", (unsigned long long)m->contexts,
                   (unsigned long long)m->contexts_created);
    if (m->live)
        svc_out_format(&r->out, ",\"documents\":%llu,\"tokens\":%llu,\"generation\":%llu",
                       (unsigned long long)m->documents, (unsigned long long)m->tokens,
                       (unsigned long long)m->generation);
    svc_out_text(&r->out, "}");
    http_reply_json(r, 200);
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_databases_merge(struct http_request *r)
{
    const struct http_param_value *v = &r->param[HTTP_P_FROM];
    struct merge_call *m = http_request_own(r, sizeof *m);
    if (!http_database_name(r, r->rest_len - strlen(r->route->suffix), m->name))
        return;
    m->from[0] = 0;
    if (v->p != NULL && v->n <= CHT_DATABASE_NAME_MAX && memchr(v->p, 0, v->n) == NULL) {
        memcpy(m->from, v->p, v->n);
        m->from[v->n] = 0;
    }
    if (!cht_database_name_valid(m->from))
        http_reply_fail(r, CHT_INVALID_DATABASE_NAME, "'from' is the name of the other database");
    else if (r->token != NULL && !svc_access_allows(r->token, SVC_RIGHT_READ, m->from))
        http_reply_fail(r, CHT_FORBIDDEN, "this token does not allow that in database '%s'", m->from);
    else
        http_request_long_job(r, HTTP_ALONE_COUNT, work, answer);
}
